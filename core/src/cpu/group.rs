//! A fused group compiled for the CPU: how its operands are read and written, and where its scratch lies.
//! Owns the choice of layout; what a tile computes stands in `lower`, its running in `tile`, reductions in `output`.

use std::fmt;

use tapeflow_ir::{DType, Extent, Op, Reduce};

use super::CompileError;
use super::code::{self, InPlace};
use super::cut::{Cut, Shapes, elements_of_chunk};
use super::fold::{Folds, PIECE, folds};
use super::isa::Isa;
use super::lower::{Context, lower};
use super::output::{Output, Target};
use super::runs::as_rows;
use super::space::{TRANSPOSED_ROWS, Walk, collapse, is_linear, product};
use super::step::{Class, Lowered, Place, Read, Shape, Slot, Step, Write};
use super::vector::{Primitive, Random, select};
use crate::program::kernel::{Group, Layout, OutputKind, Shifts, Source};

/// Bytes of registers that a tile may fill: they share the first-level cache with the operands.
const TILE_BYTES: usize = 24 << 10;
/// Elements of a tile, at most (a single row may be longer) and at least.
const TILE_MOST: usize = 1024;
const TILE_LEAST: usize = 64;
/// Elements of a tile of code, which keeps what it computes in registers and one row of scratch.
const CODE_TILE: usize = 16 << 10;
/// Bytes of an output of which caches keep so little that it is written past them: neighbours would be driven out by
/// what is read much later, if at all.
const LARGE_BYTES: usize = 8 << 20;
/// Inner runs at least this long are walked one by one, so that no operand need be gathered.
pub(super) const RUN_LEAST: usize = 128;

fn align(bytes: usize) -> usize {
    (bytes + 63) & !63
}

/// How a parameter's address or elements are found.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) source: Source,
    pub(super) dtype: DType,
    pub(super) class: Class,
    pub(super) walk: Walk,
    /// Whether element `i` of the class's space is element `i` from the first.
    pub(super) linear: bool,
    /// Whether one row of it lies in memory for all rows.
    pub(super) repeated: bool,
    /// Scratch offset of the rows read together, if the operand is transposed.
    pub(super) rows: Option<usize>,
}

/// A compiled group.
pub struct GroupKernel {
    pub(super) lowered: Lowered,
    pub(super) inputs: Vec<Input>,
    pub(super) outputs: Vec<Output>,
    pub(super) shapes: Shapes,
    pub(super) cut: Cut,
    /// Scratch offsets: of each register, of the cell of each host scalar, of each direct output's stand-in.
    pub(super) registers: Vec<usize>,
    pub(super) cells: Vec<usize>,
    pub(super) stand_ins: Vec<usize>,
    /// Fills with random numbers.
    pub(super) random: Primitive,
    /// Slots whose address moves from tile to tile, and the parameter or output it belongs to.
    pub(super) moving_inputs: Vec<(Slot, usize)>,
    pub(super) moving_outputs: Vec<(Slot, usize)>,
    /// Slots of rows that are folded into, and their output.
    pub(super) moving_folds: Vec<(Slot, usize)>,
    /// Whether outputs may lie where parameters are read: those of elements, those of rows.
    pub(super) in_place: InPlace,
    pub(super) scratch_bytes: usize,
    pub(super) cost: u64,
}

impl fmt::Debug for GroupKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupKernel")
            .field("shapes", &self.shapes)
            .field("cut", &self.cut)
            .field("steps", &self.lowered.body.len())
            .field("cost", &self.cost)
            .finish()
    }
}

/// Compiles a group.
///
/// # Errors
/// See [`CompileError`].
pub fn compile(group: &Group, isa: Isa) -> Result<GroupKernel, CompileError> {
    let longest = if code::is_enabled(isa)? { PIECE } else { TILE_MOST };
    let rows = as_rows(group, longest);
    compile_as(rows.as_ref().unwrap_or(group), rows.is_some(), isa)
}

/// Compiles a group that is to be run on parts of its space: some columns of some lines, along its last axis.
///
/// # Errors
/// See [`CompileError`].
pub fn compile_for_parts(group: &Group, isa: Isa) -> Result<GroupKernel, CompileError> {
    compile_as(group, group.space.last().is_some_and(|&length| length <= PIECE), isa)
}

fn compile_as(group: &Group, runs: bool, isa: Isa) -> Result<GroupKernel, CompileError> {
    let function = &group.function;
    let stored_by_row = |index: usize, layout: &Layout| {
        let last = (group.space.last(), layout.strides.last());
        function.values[function.outputs[index].0 as usize].1.extent == Extent::Row
            && matches!(last, (Some(&extent), Some(0)) if extent != 1)
    };
    let by_row =
        runs || function.values.iter().any(|(op, _)| matches!(op, Op::Reduce(..)))
            || group.outputs.iter().enumerate().any(
                |(index, output)| matches!(&output.kind, OutputKind::Store(layout) if stored_by_row(index, layout)),
            );
    let by_row = by_row && !group.space.is_empty();

    // All layouts on merged axes.
    let mut layouts: Vec<&Layout> = Vec::new();
    for source in &group.inputs {
        match source {
            Source::Operand { layout, .. } | Source::Iota(layout) | Source::Random { layout, .. } => {
                layouts.push(layout)
            }
            Source::Scalar { .. } => {}
        }
    }
    for output in &group.outputs {
        if let OutputKind::Store(layout) = &output.kind {
            layouts.push(layout);
        }
    }
    let (dims, merged) = collapse(&group.space, &layouts, by_row);
    let mut merged = merged.into_iter();
    let mut next = || {
        merged.next().unwrap_or(Layout { offset: 0, shifts: Shifts::new(), strides: dims.iter().map(|_| 0).collect() })
    };

    let inner = dims.last().copied().unwrap_or(1);
    let all_linear = |layout: &Layout| is_linear(&dims, &layout.strides);
    let total = product(&dims);
    let sources: Vec<(Source, Layout)> = (group.inputs.iter())
        .map(|source| match source {
            Source::Scalar { .. } => {
                (source.clone(), Layout { offset: 0, shifts: Shifts::new(), strides: dims.iter().map(|_| 0).collect() })
            }
            _ => (source.clone(), next()),
        })
        .collect();
    let stores: Vec<Option<Layout>> =
        group.outputs.iter().map(|output| matches!(output.kind, OutputKind::Store(_)).then(&mut next)).collect();
    let within = !by_row
        && dims.len() > 1
        && inner >= RUN_LEAST
        && !(sources.iter().map(|(_, layout)| layout).chain(stores.iter().flatten()).all(all_linear));

    // How each parameter is read and each output written.
    let outer = &dims[..dims.len() - 1];
    let length = if by_row { inner } else { group.space.last().copied().unwrap_or(1) };
    let mut inputs = Vec::new();
    let mut reads = Vec::new();
    for (index, (source, layout)) in sources.into_iter().enumerate() {
        let last = layout.strides.last().copied().unwrap_or(0);
        let fixed = layout.strides.iter().zip(&dims).all(|(&stride, &extent)| stride == 0 || extent == 1);
        let (class, walk, linear) = if fixed {
            (Class::Fixed, Walk::new(&[], &layout), true)
        } else if by_row && (last == 0 || inner == 1 && function.inputs[index].extent == Extent::Row) {
            (Class::Row, Walk::new(outer, &layout), is_linear(outer, &layout.strides[..outer.len()]))
        } else if within && last == 0 {
            (Class::Tile, Walk::new(&dims, &layout), true)
        } else {
            (Class::Lane, Walk::new(&dims, &layout), is_linear(&dims, &layout.strides) || within && last == 1)
        };
        let once = || outer.iter().zip(&layout.strides).all(|(&extent, &stride)| extent == 1 || stride == 0);
        let repeated =
            by_row && class == Class::Lane && last == 1 && matches!(source, Source::Operand { .. }) && once();
        let read = match source {
            Source::Operand { .. } if linear => Read::Direct,
            Source::Operand { .. } if repeated => Read::Repeated,
            Source::Scalar { .. } => Read::Direct,
            _ => Read::Load,
        };
        reads.push((class, read));
        let dtype = function.inputs[index].dtype;
        let transposed = within && class == Class::Lane && !linear && walk.is_transposed();
        let rows = (transposed && matches!(source, Source::Operand { .. })).then_some(0);
        inputs.push(Input { source, dtype, class, walk, linear, repeated: repeated && !linear, rows });
    }
    let mut outputs = Vec::new();
    let mut writes = Vec::new();
    for (index, (output, layout)) in group.outputs.iter().zip(stores).enumerate() {
        let dtype = function.values[function.outputs[index].0 as usize].1.dtype;
        let (write, target) = match layout {
            Some(layout) if matches!(&output.kind, OutputKind::Store(given) if by_row && stored_by_row(index, given)) =>
            {
                let linear = is_linear(outer, &layout.strides[..outer.len()]);
                let walk = Walk::new(outer, &layout);
                (if linear { Write::Direct(Class::Row) } else { Write::Scatter(Class::Row) }, Target::Store(walk))
            }
            Some(layout) => {
                let direct = all_linear(&layout) || within && layout.strides.last() == Some(&1);
                let walk = Walk::new(&dims, &layout);
                (if direct { Write::Direct(Class::Lane) } else { Write::Scatter(Class::Lane) }, Target::Store(walk))
            }
            None => (Write::Fold, Target::of(&output.kind, &group.space, dtype, isa)?),
        };
        writes.push(write);
        outputs.push(Output { operand: output.operand, size: dtype.size(), write, target });
    }

    let dtype_of = |output: usize| function.values[function.outputs[output].0 as usize].1.dtype;
    let columns: Vec<Option<Reduce>> = (group.outputs.iter().enumerate())
        .map(|(index, output)| match output.kind {
            OutputKind::ReduceLeading(reduce, axes) => {
                (by_row && axes + 1 == group.space.len() && dtype_of(index) == DType::F32).then_some(reduce)
            }
            _ => None,
        })
        .collect();
    let context = Context {
        isa,
        function,
        inputs: &reads,
        outputs: &writes,
        length,
        by_row,
        single_row: !by_row || total == length,
        columns: &columns,
        large: &outputs.iter().map(|output| output.size == 4 && output.size * total >= LARGE_BYTES).collect::<Vec<_>>(),
    };
    let lowered = lower(&context, &|reduce, dtype| -> Option<Folds> { folds(isa, reduce, dtype) })?;
    let transposed = inputs.iter().any(|input| input.rows.is_some());
    let shapes = Shapes::new(by_row, within, transposed, &dims, &outputs, tile_elements(&lowered, by_row, length));
    let cut = Cut::new(&shapes, &mut outputs, lowered.cost);
    let mut kernel = GroupKernel {
        cost: (50.0 + lowered.cost * total as f64) as u64,
        lowered,
        inputs,
        outputs,
        shapes,
        cut,
        registers: vec![],
        cells: vec![],
        stand_ins: vec![],
        random: select::<Random>(isa),
        moving_inputs: vec![],
        moving_outputs: vec![],
        moving_folds: vec![],
        in_place: InPlace::default(),
        scratch_bytes: 0,
    };
    let mut codes = kernel.lowered.body.iter().filter(|step| !is_per_row(step));
    if let (Some(&Step::Code(number)), None) = (codes.next(), codes.next()) {
        kernel.in_place = kernel.lowered.codes[number].in_place;
        // What is written before the code runs may not lie where that reads.
        let writes = |step: &Step| step.slots(&kernel.lowered.codes).0.iter().any(|slot| is_output(&kernel, *slot));
        kernel.in_place.rows &= !kernel.lowered.body.iter().any(|step| is_per_row(step) && writes(step));
    }
    for (slot, place) in kernel.lowered.places.iter().enumerate() {
        match *place {
            Place::Input(index) if kernel.inputs[index].class != Class::Fixed && !kernel.inputs[index].repeated => {
                kernel.moving_inputs.push((slot as Slot, index));
            }
            Place::Output(index) => kernel.moving_outputs.push((slot as Slot, index)),
            Place::Fold(index) => kernel.moving_folds.push((slot as Slot, index)),
            _ => {}
        }
    }
    kernel.lay_out_scratch();
    Ok(kernel)
}

fn is_output(kernel: &GroupKernel, slot: Slot) -> bool {
    matches!(kernel.lowered.places[slot as usize], Place::Output(_))
}

/// Whether a step is done for the rows of a tile, not for their elements.
fn is_per_row(step: &Step) -> bool {
    match step {
        Step::Call { shape, .. } => matches!(shape, Shape::One | Shape::Rows),
        Step::Load { class, .. } => *class <= Class::Row,
        _ => false,
    }
}

/// Whether code computes all elements, and keeps them in machine registers.
fn is_all_code(lowered: &Lowered) -> bool {
    let in_memory = lowered.registers.iter().any(|register| register.class == Class::Lane && register.size > 0);
    !in_memory && lowered.body.iter().all(|step| matches!(step, Step::Code(_)) || is_per_row(step))
}

/// How many elements of a tile keep the registers within [`TILE_BYTES`].
fn tile_elements(lowered: &Lowered, by_row: bool, length: usize) -> usize {
    let lanes = lowered.registers.iter().filter(|register| register.class == Class::Lane);
    let bytes: usize = lanes.map(|register| register.size).sum();
    if is_all_code(lowered) {
        let most = CODE_TILE.min(elements_of_chunk(lowered.cost)) & !63;
        return most.max(if by_row { length } else { TILE_MOST });
    }
    if by_row && length >= TILE_MOST {
        return length;
    }
    let most = TILE_BYTES / bytes.max(1);
    if most >= TILE_MOST { TILE_MOST } else { (most & !63).max(TILE_LEAST) }
}

impl GroupKernel {
    /// Whether it is computed by rows.
    pub fn is_by_row(&self) -> bool {
        self.shapes.by_row
    }

    /// Elements of what its tiles have whole.
    pub fn unit(&self) -> usize {
        if self.shapes.by_row { self.shapes.length } else { 1 }
    }

    /// Whether tiles may be of some of the columns of several rows.
    pub fn is_all_code(&self) -> bool {
        is_all_code(&self.lowered)
    }

    fn lay_out_scratch(&mut self) {
        let mut at = align(self.lowered.places.len() * size_of::<*mut u8>());
        let mut take = |bytes: usize| {
            let here = at;
            at += align(bytes);
            here
        };
        let count = |class: Class| match class {
            Class::Fixed | Class::Tile => 1,
            Class::Row => self.shapes.tile_rows,
            Class::Column => self.shapes.length,
            Class::Lane => self.shapes.tile,
        };
        self.registers =
            self.lowered.registers.iter().map(|register| take(count(register.class) * register.size)).collect();
        self.cells = self
            .inputs
            .iter()
            .map(|input| take(if matches!(input.source, Source::Scalar { .. }) { 8 } else { 0 }))
            .collect();
        for input in &mut self.inputs {
            input.rows = (input.rows.filter(|_| self.shapes.transposed))
                .map(|_| take(64 + TRANSPOSED_ROWS * self.shapes.tile * input.dtype.size()));
        }
        let reads_memory = self.inputs.iter().any(|input| matches!(input.source, Source::Operand { .. }));
        self.stand_ins = (self.outputs.iter())
            .map(|output| match output.write {
                Write::Direct(class) if reads_memory => take(count(class) * output.size),
                _ => take(0),
            })
            .collect();
        for output in &mut self.outputs {
            if let Target::Trailing { state, .. } = &mut output.target {
                *state = take(super::fold::STREAM_BYTES);
            }
        }
        self.scratch_bytes = at;
    }
}
