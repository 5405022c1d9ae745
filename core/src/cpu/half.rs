//! Matrix products of half precision: pieces of the operands are widened to f32 panels, the f32 kernel multiplies
//! them, and the sums are rounded once. Owns the pieces; the arithmetic and its order are `matmul`'s, so the bits are
//! those of the widened product, rounded.

use std::fmt;

use tapeflow_ir::DType;

use super::isa::Isa;
use super::matmul::{Block, DEPTH, MatmulKernel, depth};
use super::table;
use super::vector::{Call, Primitive};
use super::windows::Side;
use crate::program::kernel::{Args, Dims, Executable, Layout, Matmul, RunError, Strides};

/// Rows and columns of a piece of the result: with their terms they stay in the second-level cache.
const ROWS: usize = 256;
const COLUMNS: usize = 192;
/// Multiplications of a chunk, about, where a product is small.
const CHUNK_WORK: usize = 1 << 20;

/// A compiled product.
pub struct HalfMatmul {
    /// The extents and where the operands lie.
    whole: MatmulKernel<f32>,
    /// What multiplies a widened piece.
    piece: MatmulKernel<f32>,
    a: Widened,
    b: Widened,
    /// Pieces beside each other, and items of a chunk (1 unless an item is one piece).
    pieces: (usize, usize),
    per: usize,
    narrow: Primitive,
}

impl fmt::Debug for HalfMatmul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Half{:?}", self.whole)
    }
}

/// How pieces of an operand are read.
struct Widened {
    widen: Primitive,
    /// Whether lines lie side by side, and not the terms of one.
    across: bool,
    /// Lines of a piece.
    lines: usize,
}

impl Widened {
    fn new(isa: Isa, half: DType, side: &Side, lines: usize) -> Option<Widened> {
        let widen = table::cast(isa, half, DType::F32)?;
        Some(Widened { widen, across: side.lines.inner_stride() == 1 && side.depth.inner_stride() != 1, lines })
    }

    /// From line to line and from term to term of a widened piece.
    fn strides(&self) -> (isize, isize) {
        if self.across { (1, self.lines as isize) } else { (DEPTH as isize, 1) }
    }

    fn elements(&self) -> usize {
        self.lines * DEPTH
    }

    /// Widens lines `lines.0..` and their terms `terms.0..` (first and count each) to `dst`.
    ///
    /// # Safety
    /// They can be read from `src` on, and `dst` has room.
    unsafe fn read(&self, side: &Side, src: *const u16, dst: *mut f32, lines: (usize, usize), terms: (usize, usize)) {
        let (outer, inner) = if self.across { (&side.depth, &side.lines) } else { (&side.lines, &side.depth) };
        let (slow, fast) = if self.across { (terms, lines) } else { (lines, terms) };
        let pitch = if self.across { self.lines } else { DEPTH };
        outer.runs(slow.0, slow.1, |first, offset, stride, count| {
            for row in 0..count {
                let at = offset + row as isize * stride;
                inner.runs(fast.0, fast.1, |done, offset, stride, count| {
                    // SAFETY: as our caller promised.
                    unsafe {
                        let (dst, src) = (dst.add((first + row) * pitch + done), src.offset(at + offset));
                        self.run(src, stride, dst, count);
                    }
                });
            }
        });
    }

    /// # Safety
    /// `count` elements can be read and written.
    unsafe fn run(&self, src: *const u16, stride: isize, dst: *mut f32, count: usize) {
        let call = |dst: *mut f32, src: *const u16, cols: usize| {
            // SAFETY: as our caller promised.
            unsafe { (self.widen)(&Call { dst: dst.cast(), src: [src.cast(); 3], step: [0; 3], rows: 1, cols }) }
        };
        if stride == 1 {
            return call(dst, src, count);
        }
        const BATCH: usize = 64;
        let mut batch = [0u16; BATCH];
        for start in (0..count).step_by(BATCH) {
            let n = BATCH.min(count - start);
            // SAFETY: as our caller promised.
            unsafe {
                (0..n).for_each(|i| batch[i] = *src.offset((start + i) as isize * stride));
                call(dst.add(start), batch.as_ptr(), n);
            }
        }
    }
}

impl HalfMatmul {
    /// Compiles a product of half precision; `None` for other dtypes.
    pub fn new(matmul: &Matmul, isa: Isa) -> Option<HalfMatmul> {
        let half = matmul.dtype;
        if !half.is_half() {
            return None;
        }
        let whole = MatmulKernel::<f32>::new(&Matmul { dtype: DType::F32, ..matmul.clone() }, isa);
        let (m, n, k) = whole.extents();
        let (rows, columns) = (ROWS.min(m.max(1)), COLUMNS.min(n.max(1)));
        let (a, b) = (Widened::new(isa, half, &whole.a, rows)?, Widened::new(isa, half, &whole.b, columns)?);
        let layout = |strides: [isize; 2]| Layout {
            offset: 0,
            shifts: Default::default(),
            strides: Strides::from_slice(&strides),
        };
        let ((a_line, a_term), (b_line, b_term)) = (a.strides(), b.strides());
        let dims = |extent: usize| Dims::from_slice(&[extent]);
        let piece = Matmul {
            dtype: DType::F32,
            batch: Dims::new(),
            m: dims(rows),
            n: dims(columns),
            k: dims(k.min(DEPTH)),
            a: layout([a_line, a_term]),
            b: layout([b_term, b_line]),
        };
        let pieces = (m.div_ceil(rows), n.div_ceil(columns));
        let per = match pieces {
            (1, 1) => (CHUNK_WORK / (m * n * k.max(1)).max(1)).clamp(1, whole.items().max(1)),
            _ => 1,
        };
        let piece = MatmulKernel::<f32>::new(&piece, isa).in_panels((a.strides(), b.strides()));
        Some(HalfMatmul { whole, piece, a, b, pieces, per, narrow: table::cast(isa, DType::F32, half)? })
    }

    /// Elements of scratch: both operands, the sums, the piece's own.
    fn places(&self) -> [usize; 4] {
        let sums = self.a.lines * self.b.lines;
        [self.a.elements(), self.b.elements(), sums, self.piece.scratch_bytes() / size_of::<f32>()]
    }
}

impl Executable for HalfMatmul {
    fn chunks(&self) -> usize {
        let (m, n, _) = self.whole.extents();
        if m == 0 || n == 0 { 0 } else { self.whole.items().div_ceil(self.per) * self.pieces.0 * self.pieces.1 }
    }

    fn scratch_bytes(&self) -> usize {
        self.places().iter().map(|elements| elements.next_multiple_of(16) * size_of::<f32>()).sum()
    }

    fn cost(&self) -> u64 {
        self.whole.cost()
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let (down, across) = self.pieces;
        let (group, piece) = (chunk / (down * across), chunk % (down * across));
        let (m, n, k) = self.whole.extents();
        let (i, j) = (piece / across * self.a.lines, piece % across * self.b.lines);
        let (rows, cols) = (self.a.lines.min(m - i), self.b.lines.min(n - j));
        let step = depth(k);
        let mut at = scratch.as_mut_ptr().cast::<f32>();
        let places = self.places().map(|elements| {
            let here = at;
            at = at.wrapping_add(elements.next_multiple_of(16));
            here
        });
        let [a, b, sums, panel] = places;
        let (sides, shift) = ([&self.whole.a, &self.whole.b], |side: &Side| side.items.shift(args.scalars));
        for item in group * self.per..((group + 1) * self.per).min(self.whole.items()) {
            // SAFETY: the layouts stay within the operands, the result is contiguous and pieces do not overlap; the
            // scratch has room for all four.
            unsafe {
                let src: [*const u16; 2] = std::array::from_fn(|s| {
                    let first = shift(sides[s]) + sides[s].items.offset(item);
                    args.operands[s].cast::<u16>().offset(first).cast_const()
                });
                if k == 0 {
                    std::slice::from_raw_parts_mut(sums, rows * self.b.lines).fill(0.0);
                }
                for p in (0..k).step_by(step.max(1)) {
                    let terms = (p, step.min(k - p));
                    self.a.read(sides[0], src[0], a, (i, rows), terms);
                    self.b.read(sides[1], src[1], b, (j, cols), terms);
                    let (rows, cols) = ((0, rows), (0, cols));
                    let block = Block { rows, cols, k: terms.1, add: p > 0, a, b, c: sums };
                    self.piece.multiply(&block, panel);
                }
                let c = args.operands[2].cast::<u16>().add((item * m + i) * n + j);
                for row in 0..rows {
                    let src = [sums.add(row * self.b.lines).cast_const().cast(); 3];
                    (self.narrow)(&Call { dst: c.add(row * n).cast(), src, step: [0; 3], rows: 1, cols });
                }
            }
        }
        Ok(())
    }
}
