//! A fused group compiled for the CPU: how its space is cut into tiles and chunks, and the loop over tiles.
//! Owns addresses and scratch; what a tile computes stands in `lower`, reductions over tiles in `output`.

use std::fmt;

use tapeflow_ir::{DType, Extent, Op};

use super::CompileError;
use super::cut::{Cut, Shapes};
use super::fold::{Folds, folds};
use super::isa::Isa;
use super::lower::{Class, Context, Lowered, Place, Read, Shape, Slot, Step, Write, lower};
use super::output::{Output, Target};
use super::space::{TRANSPOSED_ROWS, Walk, collapse, is_linear, product};
use super::vector::{Call, Primitive, Random, select};
use crate::program::kernel::{Args, Executable, Group, Layout, OutputKind, RunError, Source};
use crate::random::Stream;

/// Bytes of registers that a tile may fill: they share the first-level cache with the operands.
const TILE_BYTES: usize = 24 << 10;
/// Elements of a tile, at most (a single row may be longer) and at least.
const TILE_MOST: usize = 1024;
const TILE_LEAST: usize = 64;
/// Inner runs at least this long are walked one by one, so that no operand need be gathered.
const RUN_LEAST: usize = 128;

fn align(bytes: usize) -> usize {
    (bytes + 63) & !63
}

/// How a parameter's address or elements are found.
#[derive(Debug)]
struct Input {
    source: Source,
    dtype: DType,
    class: Class,
    walk: Walk,
    /// Whether element `i` of the class's space is element `i` from the first.
    linear: bool,
    /// Scratch offset of the rows read together, if the operand is transposed.
    rows: Option<usize>,
}

/// A compiled group.
pub struct GroupKernel {
    lowered: Lowered,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    shapes: Shapes,
    cut: Cut,
    /// Scratch offsets: of each register, of the cell of each host scalar, of each direct output's stand-in.
    registers: Vec<usize>,
    cells: Vec<usize>,
    stand_ins: Vec<usize>,
    /// Fills with random numbers.
    random: Primitive,
    /// Slots whose address moves from tile to tile, and the parameter or output it belongs to.
    moving_inputs: Vec<(Slot, usize)>,
    moving_outputs: Vec<(Slot, usize)>,
    scratch_bytes: usize,
    cost: u64,
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
    let function = &group.function;
    let stored_by_row = |index: usize, layout: &Layout| {
        let last = (group.space.last(), layout.strides.last());
        function.values[function.outputs[index].0 as usize].1.extent == Extent::Row
            && matches!(last, (Some(&extent), Some(0)) if extent != 1)
    };
    let by_row = function.values.iter().any(|(op, _)| matches!(op, Op::Reduce(..)))
        || group.outputs.iter().enumerate().any(
            |(index, output)| matches!(&output.kind, OutputKind::Store(layout) if stored_by_row(index, layout)),
        );
    let by_row = by_row && !group.space.is_empty();

    // All layouts on merged axes.
    let mut layouts: Vec<&Layout> = Vec::new();
    for source in &group.inputs {
        match source {
            Source::Operand { layout, .. } | Source::Iota(layout) | Source::Random { layout, .. } => layouts.push(layout),
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
    let mut next = || merged.next().unwrap_or(Layout { offset: 0, strides: dims.iter().map(|_| 0).collect() });

    let inner = dims.last().copied().unwrap_or(1);
    let all_linear = |layout: &Layout| is_linear(&dims, &layout.strides);
    let total = product(&dims);
    let sources: Vec<(Source, Layout)> = (group.inputs.iter())
        .map(|source| match source {
            Source::Scalar { .. } => {
                (source.clone(), Layout { offset: 0, strides: dims.iter().map(|_| 0).collect() })
            }
            _ => (source.clone(), next()),
        })
        .collect();
    let stores: Vec<Option<Layout>> =
        group.outputs.iter().map(|output| matches!(output.kind, OutputKind::Store(_)).then(&mut next)).collect();
    let within = !by_row && dims.len() > 1 && inner >= RUN_LEAST
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
        let read = match source {
            Source::Operand { .. } if linear => Read::Direct,
            Source::Scalar { .. } => Read::Direct,
            _ => Read::Load,
        };
        reads.push((class, read));
        let dtype = function.inputs[index].dtype;
        let transposed = within && class == Class::Lane && !linear && walk.is_transposed();
        let rows = (transposed && matches!(source, Source::Operand { .. })).then_some(0);
        inputs.push(Input { source, dtype, class, walk, linear, rows });
    }
    let mut outputs = Vec::new();
    let mut writes = Vec::new();
    for (index, (output, layout)) in group.outputs.iter().zip(stores).enumerate() {
        let dtype = function.values[function.outputs[index].0 as usize].1.dtype;
        let (write, target) = match layout {
            Some(layout) if matches!(&output.kind, OutputKind::Store(given) if by_row && stored_by_row(index, given)) => {
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

    let context = Context {
        isa,
        function,
        inputs: &reads,
        outputs: &writes,
        length,
        single_row: !by_row || length >= TILE_MOST || total == length,
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
        scratch_bytes: 0,
    };
    for (slot, place) in kernel.lowered.places.iter().enumerate() {
        match *place {
            Place::Input(index) if kernel.inputs[index].class != Class::Fixed => {
                kernel.moving_inputs.push((slot as Slot, index));
            }
            Place::Output(index) => kernel.moving_outputs.push((slot as Slot, index)),
            _ => {}
        }
    }
    kernel.lay_out_scratch();
    Ok(kernel)
}

/// How many elements of a tile keep the registers within [`TILE_BYTES`].
fn tile_elements(lowered: &Lowered, by_row: bool, length: usize) -> usize {
    if by_row && length >= TILE_MOST {
        return length;
    }
    let lanes = lowered.registers.iter().filter(|register| register.class == Class::Lane);
    let bytes: usize = lanes.map(|register| register.size).sum();
    let most = TILE_BYTES / bytes.max(1);
    if most >= TILE_MOST { TILE_MOST } else { (most & !63).max(TILE_LEAST) }
}

impl GroupKernel {
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
            Class::Lane => self.shapes.tile,
        };
        self.registers =
            self.lowered.registers.iter().map(|register| take(count(register.class) * register.size)).collect();
        self.cells = self.inputs.iter().map(|input| take(if matches!(input.source, Source::Scalar { .. }) { 8 } else { 0 })).collect();
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

    /// Whether an output is written where a parameter is read (a donated buffer): then tiles are stored after they are
    /// computed.
    fn is_donated(&self, output: &Output, args: &Args<'_>) -> bool {
        let address = args.operands[output.operand];
        self.inputs.iter().any(
            |input| matches!(input.source, Source::Operand { operand, .. } if std::ptr::eq(args.operands[operand], address)),
        )
    }

    /// Generates or gathers elements `start..start + n` of a parameter's class.
    unsafe fn load(&self, input: &Input, args: &Args<'_>, dst: *mut u8, start: usize, n: usize) {
        // SAFETY: `dst` is a register of `n` elements of the parameter's dtype; operands are as described.
        unsafe {
            match &input.source {
                Source::Operand { operand, .. } => {
                    let base = args.operands[*operand].cast_const();
                    match input.dtype.size() {
                        1 => input.walk.gather::<u8>(dst, base, start, n),
                        4 => input.walk.gather::<u32>(dst.cast(), base.cast(), start, n),
                        _ => input.walk.gather::<u64>(dst.cast(), base.cast(), start, n),
                    }
                }
                Source::Iota(_) => {
                    let dst = dst.cast::<i64>();
                    input.walk.runs(start, n, |done, offset, stride, count| {
                        (0..count).for_each(|i| *dst.add(done + i) = (offset + i as isize * stride) as i64);
                    });
                }
                Source::Random { slot, ordinal, .. } => {
                    let stream =
                        Stream { seed: args.scalars[*slot], counter: args.scalars[*slot + 1], ordinal: *ordinal };
                    let dst = dst.cast::<f32>();
                    let fill = |dst: *mut f32, word: usize, cols: usize| {
                        let src = [std::ptr::from_ref(&stream).cast(); 3];
                        (self.random)(&Call { dst: dst.cast(), src, step: [word; 3], rows: 1, cols });
                    };
                    if input.linear && input.class == Class::Lane && !self.shapes.within {
                        fill(dst, (input.walk.first() + start as isize) as usize, n);
                        return;
                    }
                    input.walk.runs(start, n, |done, offset, stride, count| {
                        if stride == 1 {
                            fill(dst.add(done), offset as usize, count);
                        } else {
                            for i in 0..count {
                                let word = (offset + i as isize * stride) as u64;
                                *dst.add(done + i) = crate::random::uniform(stream.word(word));
                            }
                        }
                    });
                }
                Source::Scalar { .. } => {}
            }
        }
    }

    /// Points a slot at the tile's elements among the rows that were read together, reading them if they are not there.
    unsafe fn load_transposed(&self, input: &Input, rows: usize, slot: Slot, run: &Run<'_>, tile: Tile) {
        let Source::Operand { operand, .. } = input.source else { return };
        let (row, at) = (tile.start / self.shapes.inner, tile.start % self.shapes.inner);
        let (first, pitch, size) = (row / TRANSPOSED_ROWS * TRANSPOSED_ROWS, self.shapes.tile, input.dtype.size());
        let col = at / pitch * pitch;
        // SAFETY: the scratch has a place for the rows, after a note of which they are; the layout stays within the operand.
        unsafe {
            let note = run.scratch.add(rows).cast::<[usize; 2]>();
            let buffer = run.scratch.add(rows + 64);
            if *note != [first, col] {
                *note = [first, col];
                let (base, n) = (run.args.operands[operand].cast_const(), pitch.min(self.shapes.inner - col));
                match size {
                    1 => input.walk.gather_rows::<u8>(buffer, base, first, col, n, pitch),
                    4 => input.walk.gather_rows::<u32>(buffer.cast(), base.cast(), first, col, n, pitch),
                    _ => input.walk.gather_rows::<u64>(buffer.cast(), base.cast(), first, col, n, pitch),
                }
            }
            run.set(slot, buffer.add(((row - first) * pitch + at - col) * size));
        }
    }

    unsafe fn run_steps(&self, steps: &[Step], run: &Run<'_>, tile: Tile) {
        let shapes = &self.shapes;
        for step in steps {
            // SAFETY: `lower` wrote steps whose operands are computed before and whose counts fit their registers.
            unsafe {
                match *step {
                    Step::Call { primitive, dst, src, step, shape } => {
                        let (rows, cols) = match shape {
                            Shape::One => (1, 1),
                            Shape::Rows => (1, tile.rows),
                            Shape::Lanes => (1, tile.len),
                            Shape::LanesByRow => (tile.rows, shapes.length),
                            Shape::Most => (1, shapes.tile),
                        };
                        let src = src.map(|slot| run.address(slot).cast_const());
                        let step = step.map(usize::from);
                        primitive(&Call { dst: run.address(dst), src, step, rows, cols });
                    }
                    Step::Load { input, dst, class } => {
                        if let Some(rows) = self.inputs[input].rows {
                            self.load_transposed(&self.inputs[input], rows, dst, run, tile);
                            continue;
                        }
                        let (start, n) = match class {
                            Class::Fixed => (0, 1),
                            Class::Tile => (tile.start, 1),
                            Class::Row => (tile.row, tile.rows),
                            Class::Lane => (tile.start, tile.len),
                        };
                        self.load(&self.inputs[input], run.args, run.address(dst), start, n);
                    }
                    Step::Fold { output, src } => {
                        self.outputs[output].fold(run.args, run.scratch, run.address(src), tile.start, tile.len);
                    }
                    Step::Scatter { output, src, class } => {
                        let (start, n) =
                            if class == Class::Row { (tile.row, tile.rows) } else { (tile.start, tile.len) };
                        self.outputs[output].store(run.args, run.address(src), start, n);
                    }
                }
            }
        }
    }

    /// Sets the addresses that move from tile to tile, computes, and stores what stood in for donated buffers.
    unsafe fn run_tile(&self, run: &Run<'_>, tile: Tile) {
        // SAFETY: addresses are those of the tile's elements, which the layouts keep within the operands.
        unsafe {
            for &(slot, index) in &self.moving_inputs {
                let input = &self.inputs[index];
                if let Source::Operand { operand, .. } = input.source {
                    let at = if input.class == Class::Row { tile.row } else { tile.start };
                    let offset = if self.shapes.within { input.walk.offset(at) } else { input.walk.first() + at as isize };
                    run.set(slot, args_at(run.args, operand, offset, input.dtype.size()));
                }
            }
            for &(slot, index) in &self.moving_outputs {
                if run.donated & (1 << index.min(63)) == 0 {
                    run.set(slot, self.output_address(run.args, index, tile));
                }
            }
            self.run_steps(&self.lowered.body, run, tile);
            if run.donated != 0 {
                for &(slot, index) in &self.moving_outputs {
                    if run.donated & (1 << index.min(63)) != 0 {
                        let output = &self.outputs[index];
                        let n = if output.write == Write::Direct(Class::Row) { tile.rows } else { tile.len };
                        let to = self.output_address(run.args, index, tile);
                        std::ptr::copy_nonoverlapping(run.address(slot), to, n * output.size);
                    }
                }
            }
        }
    }

    fn output_address(&self, args: &Args<'_>, index: usize, tile: Tile) -> *mut u8 {
        let output = &self.outputs[index];
        let at = if output.write == Write::Direct(Class::Row) { tile.row } else { tile.start };
        let offset = match &output.target {
            Target::Store(walk) if self.shapes.within => walk.offset(at),
            Target::Store(walk) => walk.first() + at as isize,
            _ => 0,
        };
        args_at(args, output.operand, offset, output.size)
    }
}

fn args_at(args: &Args<'_>, operand: usize, offset: isize, size: usize) -> *mut u8 {
    args.operands[operand].wrapping_offset(offset * size as isize)
}

/// A range of the space that is computed at once.
#[derive(Clone, Copy, Debug)]
struct Tile {
    /// First element and how many.
    start: usize,
    len: usize,
    /// First row and how many; of row kernels.
    row: usize,
    rows: usize,
}

/// What stays the same for all tiles of a chunk.
struct Run<'a> {
    args: &'a Args<'a>,
    scratch: *mut u8,
    /// Bit `i`: output `i` is written where a parameter is read (bit 63 stands for all from 63 on).
    donated: u64,
}

impl Run<'_> {
    fn address(&self, slot: Slot) -> *mut u8 {
        // SAFETY: the table of addresses is at the beginning of the scratch.
        unsafe { *self.scratch.cast::<*mut u8>().add(slot as usize) }
    }

    fn set(&self, slot: Slot, address: *mut u8) {
        // SAFETY: as for `address`.
        unsafe { *self.scratch.cast::<*mut u8>().add(slot as usize) = address }
    }
}

impl Executable for GroupKernel {
    fn chunks(&self) -> usize {
        self.cut.chunks
    }

    fn scratch_bytes(&self) -> usize {
        self.scratch_bytes
    }

    fn partial_bytes(&self) -> usize {
        self.cut.partial_bytes
    }

    fn cost(&self) -> u64 {
        self.cost
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        assert!(scratch.len() >= self.scratch_bytes, "a chunk was given less scratch than it asked for");
        let mut run = Run { args, scratch: scratch.as_mut_ptr(), donated: 0 };
        // SAFETY: the scratch is as large as laid out; operands are as our caller promised.
        unsafe {
            if self.cut.is_empty {
                self.outputs.iter().for_each(|output| output.fill_empty(args));
                return Ok(());
            }
            if self.shapes.total == 0 {
                // Rows of no elements: their sums are written here, what is stored once per row below.
                self.outputs.iter().for_each(|output| output.fill_empty(args));
            }
            for (index, output) in self.outputs.iter().enumerate() {
                if matches!(output.write, Write::Direct(_)) && self.is_donated(output, args) {
                    run.donated |= 1 << index.min(63);
                }
            }
            for (slot, place) in self.lowered.places.iter().enumerate() {
                let address = match place {
                    Place::Register(number) => run.scratch.add(self.registers[*number]),
                    Place::Constant(bits) => std::ptr::from_ref(bits).cast_mut().cast(),
                    Place::Input(index) => match self.inputs[*index].source {
                        Source::Operand { operand, .. } => {
                            let input = &self.inputs[*index];
                            args_at(args, operand, input.walk.first(), input.dtype.size())
                        }
                        Source::Scalar { slot } => {
                            let cell = run.scratch.add(self.cells[*index]);
                            write_scalar(cell, f64::from_bits(args.scalars[slot]), self.inputs[*index].dtype);
                            cell
                        }
                        _ => continue,
                    },
                    Place::Output(index) => run.scratch.add(self.stand_ins[*index]),
                };
                run.set(slot as Slot, address);
            }
            for rows in self.inputs.iter().filter_map(|input| input.rows) {
                *run.scratch.add(rows).cast() = [usize::MAX; 2];
            }
            self.run_steps(&self.lowered.prologue, &run, Tile { start: 0, len: 0, row: 0, rows: 0 });
            let area = self.cut.area(chunk, &self.shapes);
            self.outputs.iter().for_each(|output| output.begin(args, run.scratch, &area));
            for line in area.lines.clone() {
                let first = line * area.pitch + area.first;
                self.shapes.tiles(first, first + area.count, |start, len, row, rows| {
                    self.run_tile(&run, Tile { start, len, row, rows });
                });
            }
        }
        Ok(())
    }

    fn has_finish(&self) -> bool {
        self.cut.has_finish
    }

    unsafe fn finish(&self, args: &Args<'_>, _scratch: &mut [u8]) -> Result<(), RunError> {
        // SAFETY: all chunks have run; operands and partial results are as our caller promised.
        unsafe { self.outputs.iter().for_each(|output| output.finish(args)) };
        Ok(())
    }
}

/// Writes a host scalar in the dtype that the function wants.
unsafe fn write_scalar(cell: *mut u8, value: f64, dtype: DType) {
    // SAFETY: the cell has 8 aligned bytes.
    unsafe {
        match dtype {
            DType::Bool => *cell = (value != 0.0) as u8,
            DType::U8 => *cell = value as u8,
            DType::I32 => *cell.cast() = value as i32,
            DType::U32 => *cell.cast() = value as u32,
            DType::I64 => *cell.cast() = value as i64,
            DType::F32 => *cell.cast() = value as f32,
            DType::F64 => *cell.cast() = value,
        }
    }
}
