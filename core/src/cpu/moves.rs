//! Short runs moved from one layout to another (a strided slice, an image among zeros): groups that compute nothing and
//! whose runs are so short that reading them into a tile and writing them from there costs more than moving them.
//!
//! Owns which groups those are, and their loops. Knows no functions.

use tapeflow_ir::{Op, V};

use super::space::{collapse, is_linear, product};
use crate::program::kernel::{Args, Dims, Executable, Group, Layout, OutputKind, RunError, Source};

/// Runs shorter than this are moved here if their elements lie side by side.
const SHORT: usize = 128;
/// Elements of a chunk, about.
const CHUNK: usize = 16 << 10;
/// Nanoseconds of an element, and of a run.
const COST: (f64, f64) = (0.1, 2.0);

/// A compiled move.
#[derive(Debug)]
pub struct MoveKernel {
    dims: Dims,
    from: (usize, Layout),
    to: (usize, Layout),
    size: usize,
    /// Runs that a chunk moves.
    per: usize,
}

impl MoveKernel {
    /// Of a group that only moves short runs.
    pub fn new(group: &Group) -> Option<MoveKernel> {
        let function = &group.function;
        let ([Source::Operand { operand: from, layout }], [output]) = (&group.inputs[..], &group.outputs[..]) else {
            return None;
        };
        let OutputKind::Store(to) = &output.kind else { return None };
        let &[(Op::Input(0), ty)] = &function.values[..] else { return None };
        if function.outputs != [V(0)] || product(&group.space) == 0 {
            return None;
        }
        let (dims, layouts) = collapse(&group.space, &[layout, to], false);
        let [source, target] = <[Layout; 2]>::try_from(layouts).ok()?;
        let linear = is_linear(&dims, &source.strides) && is_linear(&dims, &target.strides);
        let (&length, outer) = dims.split_last()?;
        let strides = (*source.strides.last()?, *target.strides.last()?);
        let fits = match strides {
            (1, 1) => length < SHORT,
            (2, 1) | (1, 2) => true,
            _ => false,
        };
        if linear || outer.is_empty() || !fits {
            return None;
        }
        let per = (CHUNK / length).max(1);
        let (from, to) = ((*from, source), (output.operand, target));
        Some(MoveKernel { from, to, size: ty.dtype.size(), per, dims })
    }

    fn runs(&self) -> usize {
        product(&self.dims[..self.dims.len() - 1])
    }

    /// # Safety
    /// The layouts stay within the operands, which nobody else writes.
    unsafe fn move_runs<T: Copy>(&self, runs: std::ops::Range<usize>, args: &Args<'_>) {
        let last = self.dims.len() - 2;
        let (outer, rows, length) = (&self.dims[..last], self.dims[last], self.dims[last + 1]);
        let base = |(operand, layout): &(usize, Layout)| {
            args.operands[*operand].cast::<T>().wrapping_offset(layout.offset_with(args.scalars))
        };
        let (from, to) = (&self.from.1.strides, &self.to.1.strides);
        let mut at = runs.start;
        while at < runs.end {
            // A plane of the last two axes, from where the chunk begins to where it ends.
            let (mut source, mut target) = (base(&self.from).cast_const(), base(&self.to));
            let (mut plane, first) = (at / rows, at % rows);
            for axis in (0..outer.len()).rev() {
                let index = (plane % outer[axis]) as isize;
                plane /= outer[axis];
                source = source.wrapping_offset(index * from[axis]);
                target = target.wrapping_offset(index * to[axis]);
            }
            let end = rows.min(first + runs.end - at);
            for row in first as isize..end as isize {
                let source = source.wrapping_offset(row * from[last]);
                let target = target.wrapping_offset(row * to[last]);
                // SAFETY: as our caller promised. Constant strides let a compiler make shuffles of them.
                unsafe {
                    match (from[last + 1], to[last + 1]) {
                        (2, 1) => (0..length).for_each(|i| *target.add(i) = *source.add(2 * i)),
                        (1, 2) => (0..length).for_each(|i| *target.add(2 * i) = *source.add(i)),
                        _ => (0..length).for_each(|i| *target.add(i) = *source.add(i)),
                    }
                }
            }
            at += end - first;
        }
    }
}

impl Executable for MoveKernel {
    fn chunks(&self) -> usize {
        self.runs().div_ceil(self.per)
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn cost(&self) -> u64 {
        let (elements, length) = (product(&self.dims) as f64, self.dims[self.dims.len() - 1] as f64);
        (50.0 + elements * (COST.0 + COST.1 / length)) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, _scratch: &mut [u8]) -> Result<(), RunError> {
        let runs = chunk * self.per..((chunk + 1) * self.per).min(self.runs());
        // SAFETY: as our caller promised.
        unsafe {
            match self.size {
                1 => self.move_runs::<u8>(runs, args),
                2 => self.move_runs::<u16>(runs, args),
                4 => self.move_runs::<u32>(runs, args),
                _ => self.move_runs::<u64>(runs, args),
            }
        }
        Ok(())
    }
}
