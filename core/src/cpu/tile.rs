//! Running a compiled group tile by tile: addresses, loads, steps, stores. Owns the loop; every choice was made in
//! `group`.

use tapeflow_ir::DType;
use tapeflow_ir::half::{bf16_from_f32, f16_from_f32};

use super::cut::Area;
use super::group::{GroupKernel, Input};
use super::output::{Output, Target};
use super::space::TRANSPOSED_ROWS;
use super::step::{Class, Place, Shape, Slot, Step, Write};
use super::vector::Call;
use crate::program::kernel::{Args, Executable, RunError, Source};
use crate::random::Stream;

impl GroupKernel {
    /// Computes a part of the space that is cut as the group's chunks may be.
    ///
    /// # Safety
    /// As for [`Executable::run_chunk`].
    pub(super) unsafe fn run_area(&self, area: &Area, args: &Args<'_>, scratch: &mut [u8]) {
        assert!(scratch.len() >= self.scratch_bytes, "a chunk was given less scratch than it asked for");
        let columns = match self.shapes.by_row && area.pitch != 0 {
            true => area.first..area.first + area.count,
            false => 0..self.shapes.length,
        };
        let mut run = Run { args, scratch: scratch.as_mut_ptr(), donated: 0, column: columns.start };
        // SAFETY: the scratch is as large as laid out; operands are as our caller promised.
        unsafe {
            if self.shapes.total == 0 {
                // Rows of no elements: their sums are written here, what is stored once per row below.
                self.outputs.iter().for_each(|output| output.fill_empty(args));
            }
            for (index, output) in self.outputs.iter().enumerate() {
                let in_place = match output.write {
                    Write::Direct(Class::Row) => self.in_place.rows,
                    _ => self.in_place.elements,
                };
                if !in_place && matches!(output.write, Write::Direct(_)) && self.is_donated(output, args) {
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
                            let column = if input.repeated { columns.start as isize } else { 0 };
                            let offset = input.walk.shift(args.scalars) + input.walk.first() + column;
                            args_at(args, operand, offset, input.dtype.size())
                        }
                        Source::Scalar { slot } => {
                            let cell = run.scratch.add(self.cells[*index]);
                            write_scalar(cell, f64::from_bits(args.scalars[slot]), self.inputs[*index].dtype);
                            cell
                        }
                        _ => continue,
                    },
                    Place::Output(index) => run.scratch.add(self.stand_ins[*index]),
                    Place::Fold(_) | Place::Nowhere => continue,
                };
                run.set(slot as Slot, address);
            }
            for rows in self.inputs.iter().filter_map(|input| input.rows) {
                *run.scratch.add(rows).cast() = [usize::MAX; 2];
            }
            self.run_steps(&self.lowered.prologue, &run, Tile { start: 0, len: 0, row: 0, rows: 0, cols: 0 });
            self.outputs.iter().for_each(|output| output.begin(args, run.scratch, area));
            if columns.len() < self.shapes.length {
                let cols = columns.len();
                // What is laid out for whole rows has one of these at a time.
                let most = if self.is_all_code() && run.donated == 0 { self.shapes.tile_rows } else { 1 };
                for row in area.lines.clone().step_by(most) {
                    let (rows, start) = (most.min(area.lines.end - row), row * self.shapes.length + columns.start);
                    self.run_tile(&run, Tile { start, len: rows * cols, row, rows, cols });
                }
                return;
            }
            let cols = self.shapes.length;
            for line in area.lines.clone() {
                let first = line * area.pitch + area.first;
                self.shapes.tiles(first, first + area.count, |start, len, row, rows| {
                    self.run_tile(&run, Tile { start, len, row, rows, cols });
                });
            }
        }
    }

    /// Whether an output is written where a parameter is read (a donated buffer): then tiles are stored after they are
    /// computed.
    fn is_donated(&self, output: &Output, args: &Args<'_>) -> bool {
        let address = args.operands[output.operand];
        self.inputs.iter().any(|input| match input.source {
            Source::Operand { operand, .. } => std::ptr::eq(args.operands[operand], address),
            _ => false,
        })
    }

    /// Generates or gathers elements `start..start + n` of a parameter's class.
    unsafe fn load(&self, input: &Input, args: &Args<'_>, dst: *mut u8, start: usize, n: usize) {
        let shift = input.walk.shift(args.scalars);
        // SAFETY: `dst` is a register of `n` elements of the parameter's dtype; operands are as described.
        unsafe {
            match &input.source {
                Source::Operand { operand, .. } => {
                    let base = args_at(args, *operand, shift, input.dtype.size()).cast_const();
                    match input.dtype.size() {
                        1 => input.walk.gather::<u8>(dst, base, start, n),
                        2 => input.walk.gather::<u16>(dst.cast(), base.cast(), start, n),
                        4 => input.walk.gather::<u32>(dst.cast(), base.cast(), start, n),
                        _ => input.walk.gather::<u64>(dst.cast(), base.cast(), start, n),
                    }
                }
                Source::Iota(_) => {
                    let dst = dst.cast::<i64>();
                    input.walk.runs(start, n, |done, offset, stride, count| {
                        (0..count).for_each(|i| *dst.add(done + i) = (shift + offset + i as isize * stride) as i64);
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
                        fill(dst, (shift + input.walk.first() + start as isize) as usize, n);
                        return;
                    }
                    input.walk.runs(start, n, |done, offset, stride, count| {
                        let offset = shift + offset;
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
        // SAFETY: the scratch has a place for the rows, after a note of which they are; the layout stays within the
        // operand.
        unsafe {
            let note = run.scratch.add(rows).cast::<[usize; 2]>();
            let buffer = run.scratch.add(rows + 64);
            if *note != [first, col] {
                *note = [first, col];
                let base = args_at(run.args, operand, input.walk.shift(run.args.scalars), size).cast_const();
                let n = pitch.min(self.shapes.inner - col);
                match size {
                    1 => input.walk.gather_rows::<u8>(buffer, base, first, col, n, pitch),
                    2 => input.walk.gather_rows::<u16>(buffer.cast(), base.cast(), first, col, n, pitch),
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
                    Step::Call { primitive, dst, src, step, shape, .. } => {
                        let (rows, cols) = match shape {
                            Shape::One => (1, 1),
                            Shape::Rows => (1, tile.rows),
                            Shape::Lanes => (1, tile.len),
                            Shape::LanesByRow => (tile.rows, tile.cols),
                            Shape::Most => (1, shapes.tile),
                        };
                        let src = src.map(|slot| run.address(slot).cast_const());
                        let step = step.map(usize::from);
                        primitive(&Call { dst: run.address(dst), src, step, rows, cols });
                    }
                    Step::Code(number) => {
                        let (rows, cols) = if shapes.by_row { (tile.rows, tile.cols) } else { (1, tile.len) };
                        let pitch = if rows == 1 { cols } else { shapes.length };
                        self.lowered.codes[number].run(run.scratch.cast(), rows, cols, pitch);
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
                            Class::Column | Class::Lane => (tile.start, tile.len),
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
                    let offset =
                        if self.shapes.within { input.walk.offset(at) } else { input.walk.first() + at as isize };
                    let offset = input.walk.shift(run.args.scalars) + offset;
                    run.set(slot, args_at(run.args, operand, offset, input.dtype.size()));
                }
            }
            for &(slot, index) in &self.moving_outputs {
                if run.donated & (1 << index.min(63)) == 0 {
                    run.set(slot, self.output_address(run.args, index, tile));
                }
            }
            for &(slot, index) in &self.moving_folds {
                let output = &self.outputs[index];
                run.set(slot, output.folded_row(run.args, tile.row).wrapping_add(run.column * output.size));
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
            Target::Store(walk) if self.shapes.within => walk.shift(args.scalars) + walk.offset(at),
            Target::Store(walk) => walk.shift(args.scalars) + walk.first() + at as isize,
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
    /// First row and how many, and how many elements of each; of row kernels.
    row: usize,
    rows: usize,
    cols: usize,
}

/// What stays the same for all tiles of a chunk.
struct Run<'a> {
    args: &'a Args<'a>,
    scratch: *mut u8,
    /// Bit `i`: output `i` is written where a parameter is read (bit 63 stands for all from 63 on).
    donated: u64,
    /// The first column, of row kernels.
    column: usize,
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
        // SAFETY: as our caller promised.
        unsafe {
            match self.cut.is_empty {
                true => self.outputs.iter().for_each(|output| output.fill_empty(args)),
                false => self.run_area(&self.cut.area(chunk, &self.shapes), args, scratch),
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
            DType::F16 => *cell.cast() = f16_from_f32(value as f32),
            DType::BF16 => *cell.cast() = bf16_from_f32(value as f32),
            DType::F32 => *cell.cast() = value as f32,
            DType::F64 => *cell.cast() = value,
        }
    }
}
