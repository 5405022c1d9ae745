//! A tile of the result per workgroup, with the operands in shared memory. Owns the shader of [`Form::Tile`]; the
//! division among workgroups is `emit`'s.
//!
//! While a tile's operands are multiplied, the next ones are already on their way from memory into registers.
//!
//! [`Form::Tile`]: super::tiles::Form::Tile

use rspirv::spirv::Op;
use tapeflow_ir::DType;

use super::super::asm::{Asm, Id, Ty};
use super::super::number::{begun_with_zero, below, divided, offset, plus, plus_constant, smaller, times};
use super::emit::{Part, Place};
use super::product::{Product, Side};
use super::tiles::{Tile, pitch};

/// What brings one operand into shared memory.
struct Panel {
    /// Lines of the tile, and their distance in shared memory.
    lines: u32,
    pitch: u32,
    shared: Id,
    /// Per element that an invocation brings: where it lies in the operand at the first step, its number in the sum,
    /// and its place in shared memory.
    elements: Vec<(Id, Id, Id)>,
    /// Along the sum, in bytes.
    stride: i64,
    dtype: DType,
}

/// Which lines of an operand a panel holds.
struct Lines {
    lines: u32,
    /// The first, u32, and how many the operand has.
    first: Id,
    extent: u64,
    /// The address of line 0.
    base: Id,
}

impl Panel {
    fn new(asm: &mut Asm, tile: &Tile, dtype: DType, side: &Side, wanted: Lines) -> Panel {
        let Lines { lines, first, extent, base } = wanted;
        let (threads, size) = (tile.side * tile.side, dtype.size() as u32);
        let shared = asm.shared(Ty::of(dtype.computed()), tile.depth * pitch(lines));
        let last = asm.u32(extent as u32 - 1);
        let local = asm.local;
        let elements = (0..(lines * tile.depth).div_ceil(threads)).map(|number| {
            let at = plus_constant(asm, Ty::U32, local, (number * threads).into());
            // Neighbouring invocations read neighbouring addresses.
            let (line, step) = match side.depth {
                1 => divided(asm, Ty::U32, at, tile.depth.into()),
                _ => {
                    let (step, line) = divided(asm, Ty::U32, at, lines.into());
                    (line, step)
                }
            };
            let row = times(asm, Ty::U32, step, pitch(lines).into());
            let place = plus(asm, Ty::U32, row, line);
            let line = plus(asm, Ty::U32, first, line);
            let line = smaller(asm, Ty::U32, line, last);
            let within = offset(asm, Ty::U32, &[(line, side.line)]);
            (asm.element(base, Ty::U64, within, size), step, place)
        });
        let elements = elements.collect();
        Panel { lines, pitch: pitch(lines), shared, elements, stride: side.depth * i64::from(size), dtype }
    }

    /// Reads what the step that begins at `begin + moved` needs; beyond `end`, zeros.
    fn read(&self, asm: &mut Asm, ty: Ty, place: &Place, moved: Id) -> Vec<Id> {
        let (one, zero) = (asm.u32(1), asm.float(ty, 0.0));
        let total = asm.op(Op::ISub, Ty::U32, &[place.end, place.begin]);
        let last = asm.op(Op::ISub, Ty::U32, &[total, one]);
        let read = |&(address, step, _): &(Id, Id, Id)| {
            let at = plus(asm, Ty::U32, moved, step);
            let inside = below(asm, at, total);
            let at = smaller(asm, Ty::U32, at, last);
            let along = offset(asm, Ty::U32, &[(at, self.stride)]);
            let address = plus(asm, Ty::U64, address, along);
            let value = asm.load_computed(self.dtype, address);
            asm.select(ty, inside, value, zero)
        };
        self.elements.iter().map(read).collect()
    }

    /// Writes what was read into shared memory.
    fn write(&self, asm: &mut Asm, ty: Ty, values: &[Id]) {
        for (&(_, _, place), &value) in self.elements.iter().zip(values) {
            asm.store_shared(ty, self.shared, place, value);
        }
    }

    /// The values of step `step` that stand in lines `first`, `first + side`, ….
    fn lines(&self, asm: &mut Asm, tile: &Tile, ty: Ty, step: Id, first: Id) -> Vec<Id> {
        let row = times(asm, Ty::U32, step, self.pitch.into());
        let at = plus(asm, Ty::U32, row, first);
        (0..self.lines / tile.side)
            .map(|number| {
                let at = plus_constant(asm, Ty::U32, at, (number * tile.side).into());
                asm.load_shared(ty, self.shared, at)
            })
            .collect()
    }
}

/// The tile at `place`.
pub(super) fn emit(asm: &mut Asm, product: &Product, tile: &Tile, part: &Part, place: &Place) {
    let ty = Ty::of(product.dtype.computed());
    let size = part.read.size() as u32;
    let [height, width] = tile.extents();
    let first_row = times(asm, Ty::U32, place.row, height.into());
    let first_col = times(asm, Ty::U32, place.col, width.into());
    let left_base = asm.element(part.left, Ty::U64, place.left, size);
    let right_base = asm.element(part.right, Ty::U64, place.right, size);
    let left = Lines { lines: height, first: first_row, extent: product.rows, base: left_base };
    let left = Panel::new(asm, tile, part.read, &product.left, left);
    let right = Lines { lines: width, first: first_col, extent: product.cols, base: right_base };
    let right = Panel::new(asm, tile, part.read, &product.right, right);
    let local = asm.local;
    let (row, col) = divided(asm, Ty::U32, local, tile.side.into());

    let (zero, nothing) = (asm.float(ty, 0.0), asm.u32(0));
    let results = (tile.rows * tile.cols) as usize;
    let mut carried = vec![(ty, zero); results];
    let mut ahead = left.read(asm, ty, place, nothing);
    ahead.extend(right.read(asm, ty, place, nothing));
    carried.extend(ahead.iter().map(|&value| (ty, value)));
    let total = asm.op(Op::ISub, Ty::U32, &[place.end, place.begin]);
    let step = asm.u32(tile.depth);
    let sums = asm.count(Ty::U32, [nothing, total, step], &carried, |asm, moved, carried| {
        let (sums, ahead) = carried.split_at(results);
        let (of_left, of_right) = ahead.split_at(left.elements.len());
        // All have multiplied what was there before.
        asm.barrier();
        left.write(asm, ty, of_left);
        right.write(asm, ty, of_right);
        asm.barrier();
        let moved = plus_constant(asm, Ty::U32, moved, tile.depth.into());
        let mut next = left.read(asm, ty, place, moved);
        next.extend(right.read(asm, ty, place, moved));

        let carried: Vec<(Ty, Id)> = sums.iter().map(|&sum| (ty, sum)).collect();
        let one = asm.u32(1);
        let mut sums = asm.count(Ty::U32, [nothing, step, one], &carried, |asm, step, sums| {
            let a = left.lines(asm, tile, ty, step, row);
            let b = right.lines(asm, tile, ty, step, col);
            let pairs = a.iter().flat_map(|&a| b.iter().map(move |&b| (a, b)));
            pairs.zip(sums).map(|((a, b), &sum)| part.multiply_add(asm, ty, a, b, sum)).collect()
        });
        sums.extend(next);
        sums
    });

    let first_row = plus(asm, Ty::U32, first_row, row);
    let first_col = plus(asm, Ty::U32, first_col, col);
    let limits = [asm.u32(product.rows as u32), asm.u32(product.cols as u32)];
    for (number, &sum) in sums[..results].iter().enumerate() {
        let (i, j) = (number as u32 / tile.cols, number as u32 % tile.cols);
        let row = plus_constant(asm, Ty::U32, first_row, (i * tile.side).into());
        let col = plus_constant(asm, Ty::U32, first_col, (j * tile.side).into());
        let (a, b) = (below(asm, row, limits[0]), below(asm, col, limits[1]));
        let inside = asm.op(Op::LogicalAnd, Ty::Bool, &[a, b]);
        asm.when(inside, |asm| {
            let within = offset(asm, Ty::U32, &[(row, product.out[0]), (col, product.out[1])]);
            let within = plus(asm, Ty::U64, within, place.out);
            let address = asm.element(part.out, Ty::U64, within, part.written.size() as u32);
            let sum = begun_with_zero(asm, ty, sum);
            asm.store_computed(part.written, address, sum);
        });
    }
}
