//! Programs over several devices: one segment per device and level, and copies between levels. The segments of a level
//! run at once. Owns the order of segments and copies; each segment is a program of its own.

use std::sync::Arc;

use super::driven::DrivenRun;
use super::{Body, Failure, Program};
use crate::buffer::Buffer;
use crate::device::Kind;
use crate::error::Problem;
use crate::profile::{Phase, Watch, span};

/// The number of a value in a run.
pub(crate) type Value = usize;

/// What runs on one device without waiting for another.
#[derive(Debug)]
pub(crate) struct Segment {
    pub program: Program,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
}

/// A value that another device needs.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub from: Value,
    pub to: Value,
    pub on: Kind,
    /// The canonical number of the node that asks for it.
    pub origin: u32,
}

/// Segments that run at once, then the copies of their results.
#[derive(Debug, Default)]
pub(crate) struct Level {
    pub segments: Vec<Segment>,
    pub copies: Vec<Copy>,
}

/// A program over several devices.
#[derive(Debug)]
pub(crate) struct MixedProgram {
    pub levels: Vec<Level>,
    /// How many values a run has; the first are the inputs.
    pub values: usize,
    pub outputs: Vec<Value>,
}

impl MixedProgram {
    /// Bytes that it takes itself, roughly.
    pub fn footprint(&self) -> usize {
        self.levels.iter().flat_map(|l| &l.segments).map(|s| s.program.footprint()).sum()
    }

    /// Runs level after level. Nothing is updated in place, so a failure leaves everything as it was.
    pub fn run(
        &self,
        inputs: &[Arc<Buffer>],
        scalars: &[u64],
        watch: Option<&Watch>,
    ) -> Result<Vec<Arc<Buffer>>, Failure> {
        let mut values: Vec<Option<Arc<Buffer>>> = inputs.iter().cloned().map(Some).collect();
        values.resize(self.values, None);
        for level in &self.levels {
            run_level(level, &mut values, scalars, watch)?;
            for copy in &level.copies {
                let from = get(&values, copy.from)?;
                let _span = span(watch.map(|w| &w.recorder), Phase::Copy);
                let made = copied(&from, copy.on);
                values[copy.to] = Some(made.map_err(|problem| Failure { origin: copy.origin, problem })?);
            }
        }
        self.outputs.iter().map(|&o| get(&values, o)).collect()
    }
}

fn get(values: &[Option<Arc<Buffer>>], value: Value) -> Result<Arc<Buffer>, Failure> {
    let missing = || Problem::Argument("invariant: a level reads what earlier levels wrote".into());
    values[value].clone().ok_or_else(|| Failure::of_all(missing()))
}

fn copied(from: &Buffer, on: Kind) -> Result<Arc<Buffer>, Problem> {
    // SAFETY: the segment that wrote it has ended, and values of a run are written once.
    let bytes = unsafe { from.read()? };
    Buffer::from_bytes_on(on, &bytes).map(Arc::new)
}

/// Submits what runs elsewhere, runs the host's part meanwhile, then waits.
fn run_level(
    level: &Level,
    values: &mut [Option<Arc<Buffer>>],
    scalars: &[u64],
    watch: Option<&Watch>,
) -> Result<(), Failure> {
    let mut submitted: Vec<(&Segment, DrivenRun<'_>, Vec<Arc<Buffer>>)> = Vec::new();
    let mut finished: Vec<(&Segment, Vec<Arc<Buffer>>)> = Vec::new();
    for segment in &level.segments {
        if let Body::Driven(driven) = &segment.program.body {
            let inputs = segment.inputs.iter().map(|&v| get(values, v)).collect::<Result<Vec<_>, _>>()?;
            let outputs = segment.program.bind_outputs(driven.on, &inputs)?;
            let run = driven.submit(segment.program.arena_bytes, &inputs, &outputs, scalars, watch)?;
            submitted.push((segment, run, outputs));
        }
    }
    for segment in level.segments.iter().filter(|s| !matches!(s.program.body, Body::Driven(_))) {
        let inputs = segment.inputs.iter().map(|&v| get(values, v)).collect::<Result<Vec<_>, _>>()?;
        // SAFETY: the segment's inputs are values of this run; none is taken over.
        finished.push((segment, unsafe { segment.program.run(&inputs, scalars, watch)? }));
    }
    for (segment, run, outputs) in submitted {
        run.wait()?;
        finished.push((segment, outputs));
    }
    for (segment, outputs) in finished {
        for (&value, output) in segment.outputs.iter().zip(outputs) {
            values[value] = Some(output);
        }
    }
    Ok(())
}
