//! Matrix products of half precision: pieces of the operands are brought to what they are computed in, multiplied by
//! the kernel for that, and the sums in f32 are rounded once. Owns the cut into pieces; how they are read is
//! `pieces`'s, the arithmetic and its order are `matmul`'s, so in f32 the bits are those of the widened product,
//! rounded.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tapeflow_ir::DType;

use super::blocks::{Blocked, DEPTH, Parts, Wanted, depth, portions};
use super::few::FewRows;
use super::isa::Isa;
use super::matmul::{Block, MatmulKernel};
use super::pairs::Pair;
use super::pieces::{Computed, Pieces};
use super::table;
use super::thin::{Thin, neighbours};
use super::vector::{Call, Primitive};
use crate::program::kernel::{Args, Dims, Executable, Layout, Matmul, PANEL, RunError, Strides};

/// Rows and columns of a piece of the result: with their terms they stay in the second-level cache. Columns are brought
/// again for every piece, so high ones are better where there are enough of them.
const ROWS: [usize; 2] = [512, 256];
const COLUMNS: usize = 192;
/// Both are multiples of these, a tile's rows and a vector, so that pieces can be even.
const LINES: usize = 8;
const LANES: usize = 16;
const ENOUGH: usize = 12;
/// Multiplications of a chunk, about, where a product is small.
const CHUNK_WORK: usize = 1 << 20;
/// Columns of a piece of a thin product: read where they are, brought line by line, brought side by side.
const GROUPS: [usize; 3] = [512, 16, 128];
/// Elements of a whole line's pieces, at most; beyond, a thin product is one like others.
const GROUP: usize = 256 << 10;

/// Compiles a product of half precision; `None` for other dtypes.
pub fn compile(matmul: &Matmul, wanted: Wanted, isa: Isa) -> Option<Arc<dyn Blocked>> {
    match (matmul.dtype, isa) {
        (DType::BF16, Isa::Avx512Bf16) => Some(Arc::new(HalfMatmul::<Pair>::new(matmul, wanted, isa)?)),
        (DType::F16 | DType::BF16, _) => Some(match FewRows::new(matmul, wanted, isa) {
            Some(kernel) => Arc::new(kernel),
            None => Arc::new(HalfMatmul::<f32>::new(matmul, wanted, isa)?),
        }),
        _ => None,
    }
}

/// A compiled product.
struct HalfMatmul<T: 'static> {
    /// The extents and where the operands lie.
    whole: MatmulKernel<f32>,
    /// What multiplies a piece.
    piece: MatmulKernel<T>,
    /// Elements of a sum.
    k: usize,
    a: Pieces<T>,
    b: Pieces<T>,
    /// From panel to panel of the right operand, if it lies in panels of such elements, which are read where they are.
    panels: Option<isize>,
    /// Whether rows are so few that a piece has all of the sums' terms.
    thin: bool,
    /// The rows and columns of the pieces, whether a chunk has all columns or those of one piece, and the items of a
    /// chunk (1 unless an item is one chunk).
    blocks: [Parts; 2],
    whole_lines: bool,
    per: usize,
    narrow: Primitive,
}

impl<T> fmt::Debug for HalfMatmul<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Half{:?} in {}, thin {}", self.whole, std::any::type_name::<T>(), self.thin)
    }
}

impl<T: Computed> HalfMatmul<T> {
    fn new(matmul: &Matmul, wanted: Wanted, isa: Isa) -> Option<HalfMatmul<T>> {
        let half = matmul.dtype;
        let whole = MatmulKernel::<f32>::new(&Matmul { dtype: DType::F32, ..matmul.clone() }, wanted, isa);
        let (m, n, terms) = whole.extents();
        let k = terms.div_ceil(T::TERMS);
        let pieces = |rows: usize, columns: usize, depth: usize| {
            let rows = Pieces::new(isa, half, &whole.a, terms, (rows.min(m.max(1)), depth))?;
            Some((rows, Pieces::new(isa, half, &whole.b, terms, (columns.min(n.max(1)), depth))?))
        };
        let (_, b) = pieces(m, COLUMNS, k)?;
        let panels = whole.b.panels(T::TERMS).filter(|_| T::TERMS > 1);
        let direct = b.direct.is_some() || panels.is_some();
        let group = match (direct, b.is_across()) {
            (true, _) => GROUPS[0],
            (false, false) => GROUPS[1],
            (false, true) => GROUPS[2],
        };
        let fits = |columns: usize| k > 0 && columns.saturating_mul(k) <= GROUP;
        let thin = m <= T::micro(isa).height() && fits(m) && (direct || fits(group));
        let many = m.div_ceil(ROWS[0]) * n.div_ceil(COLUMNS) * whole.items() >= ENOUGH;
        let rows = if many { ROWS[0] } else { ROWS[1] }.min(wanted.most[0]);
        let (a, b) = if thin { pieces(m, group, k)? } else { pieces(rows, COLUMNS.min(wanted.most[1]), DEPTH)? };
        let ((a_line, a_term), (b_line, b_term)) = (a.strides(), b.strides());
        let layout =
            |strides: &[isize]| Layout { offset: 0, shifts: Default::default(), strides: Strides::from_slice(strides) };
        let (m_dims, k_dims) = (Dims::from_slice(&[a.lines]), Dims::from_slice(&[k.min(DEPTH)]));
        let (n_dims, b_layout) = match panels {
            Some(panel) => (Dims::from_slice(&[b.lines / PANEL, PANEL]), layout(&[PANEL as isize, panel, 1])),
            None => (Dims::from_slice(&[b.lines]), layout(&[b_term, b_line])),
        };
        let a_layout = layout(&[a_line, a_term]);
        let piece =
            Matmul { dtype: DType::F32, batch: Dims::new(), m: m_dims, n: n_dims, k: k_dims, a: a_layout, b: b_layout };
        let piece = MatmulKernel::<T>::new(&piece, Wanted::default(), isa);
        let piece = piece.in_panels(a.strides(), panels.is_none().then(|| b.strides()));
        let blocks = match thin {
            true => [Parts::new(m, 1, m.max(1)), portions(n, terms * half.size(), 1, wanted)],
            false => [(m, a.lines, wanted.grain.next_multiple_of(LINES)), (n, b.lines, LANES)]
                .map(|(extent, most, grain)| Parts::new(extent, extent.div_ceil(most.max(1)), grain)),
        };
        let whole_lines = (wanted.whole || wanted.made[0]) && !thin || blocks[1].count == 1;
        let per = match blocks[0].count * if whole_lines { 1 } else { blocks[1].count } {
            1 => (CHUNK_WORK / (m * n * k.max(1)).max(1)).clamp(1, whole.items().max(1)),
            _ => 1,
        };
        let narrow = table::cast(isa, DType::F32, half)?;
        Some(HalfMatmul { whole, piece, k, a, b, panels, thin, blocks, whole_lines, per, narrow })
    }

    /// Chunks beside each other.
    fn across(&self) -> usize {
        if self.whole_lines { 1 } else { self.blocks[1].count }
    }

    /// Elements of scratch: both operands, the sums, the piece's own.
    fn places(&self) -> [usize; 4] {
        let sums = self.a.lines * self.b.lines;
        let b = if self.panels.is_some() { 0 } else { self.b.elements() };
        [self.a.elements(), b, sums, self.piece.scratch_bytes() / size_of::<T>()]
    }

    /// Rounds sums to the result, row by row.
    ///
    /// # Safety
    /// Both have so many rows and columns.
    unsafe fn round(&self, sums: *const T, c: *mut u16, (rows, cols): (usize, usize)) {
        for row in 0..rows {
            // SAFETY: as our caller promised.
            unsafe {
                let src = [sums.add(row * self.b.lines).cast(); 3];
                let dst = c.add(row * self.whole.extents().1).cast();
                (self.narrow)(&Call { dst, src, step: [0; 3], rows: 1, cols });
            }
        }
    }

    /// Where columns `cols.0..` of the right operand and their terms `terms.0..` (first and count each) are to be
    /// found: in the operand, or brought to `dst`. Where they lie in panels, the first column begins one.
    ///
    /// # Safety
    /// As for [`Pieces::read`].
    unsafe fn columns(&self, src: *const u16, dst: *mut T, cols: (usize, usize), terms: (usize, usize)) -> *const T {
        match self.panels {
            Some(_) => {
                let panel = src.cast::<T>().wrapping_offset(self.whole.b.lines.offset(cols.0) / T::TERMS as isize);
                panel.wrapping_add(terms.0 / T::TERMS * PANEL)
            }
            // SAFETY: as our caller promised.
            None => unsafe { self.b.read(&self.whole.b, src, dst, cols, terms) },
        }
    }

    /// A block of few rows: columns with all their terms at a time.
    ///
    /// # Safety
    /// As for `run_chunk`; the first elements of the operands' item and of the block in the result.
    unsafe fn few_rows(&self, src: [*const u16; 2], c: *mut u16, (j, cols): (usize, usize), at: [*mut T; 4]) {
        let (m, _, terms) = self.whole.extents();
        let [a, b, sums, _] = at;
        // SAFETY: as our caller promised.
        unsafe {
            let a = self.a.read(&self.whole.a, src[0], a, (0, m), (0, terms));
            for start in (0..cols).step_by(self.b.lines) {
                let cols = self.b.lines.min(cols - start);
                let b = self.columns(src[1], b, (j + start, cols), (0, terms));
                let (a_step, pitch) = (self.a.strides(), self.b.lines);
                let (b_step, lanes) = match self.panels {
                    Some(_) => ((1, PANEL as isize), PANEL),
                    None => (self.b.strides(), self.piece.lanes(self.b.strides())),
                };
                let (panel, k, depth) = (self.panels, self.k, depth(self.k));
                for share in neighbours(cols, lanes) {
                    let (b, c) = (b.wrapping_offset(share.first as isize * b_step.0), sums.wrapping_add(share.first));
                    self.piece.thin(m, &Thin { k, depth, a, a_step, b, b_step, panel, share, c, pitch });
                }
                self.round(sums, c.add(start), (m, cols));
            }
        }
    }

    /// A block of many rows: a piece, a block of the terms at a time.
    ///
    /// # Safety
    /// As for `few_rows`.
    unsafe fn many_rows(
        &self,
        src: [*const u16; 2],
        c: *mut u16,
        (rows, cols): ((usize, usize), (usize, usize)),
        at: [*mut T; 4],
    ) {
        let (_, _, terms) = self.whole.extents();
        let [a, b, sums, panel] = at;
        // SAFETY: as our caller promised.
        unsafe {
            if terms == 0 {
                sums.write_bytes(0, rows.1 * self.b.lines);
            }
            let step = depth(self.k);
            for p in (0..self.k).step_by(step.max(1)) {
                let k = step.min(self.k - p);
                let part = (p * T::TERMS, (k * T::TERMS).min(terms - p * T::TERMS));
                let a = self.a.read(&self.whole.a, src[0], a, rows, part);
                let b = self.columns(src[1], b, cols, part);
                let (rows, cols) = ((0, rows.1), (0, cols.1));
                self.piece.multiply(&Block { rows, cols, k, add: p > 0, a, b, c: sums }, panel);
            }
            self.round(sums, c, (rows.1, cols.1));
        }
    }
}

impl<T: Computed> Executable for HalfMatmul<T> {
    fn chunks(&self) -> usize {
        let (m, n, _) = self.whole.extents();
        let blocks = self.blocks[0].count * self.across();
        if m == 0 || n == 0 { 0 } else { self.whole.items().div_ceil(self.per) * blocks }
    }

    fn scratch_bytes(&self) -> usize {
        self.places().iter().map(|elements| elements.next_multiple_of(16) * size_of::<T>()).sum()
    }

    fn cost(&self) -> u64 {
        self.whole.cost()
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let ([down, across], beside) = (self.blocks, self.across());
        let (group, block) = (chunk / (down.count * beside), chunk % (down.count * beside));
        let (m, n, _) = self.whole.extents();
        let rows = down.part(block / beside);
        let pieces = if self.whole_lines { 0..across.count } else { block % beside..block % beside + 1 };
        let mut at = scratch.as_mut_ptr().cast::<T>();
        let places = self.places().map(|elements| {
            let here = at;
            at = at.wrapping_add(elements.next_multiple_of(16));
            here
        });
        let sides = [&self.whole.a, &self.whole.b];
        let shift = sides.map(|side| side.items.shift(args.scalars));
        for item in group * self.per..((group + 1) * self.per).min(self.whole.items()) {
            // SAFETY: the layouts stay within the operands, the result is contiguous and blocks do not overlap; the
            // scratch has room for all four.
            unsafe {
                let src: [*const u16; 2] = std::array::from_fn(|s| {
                    let first = shift[s] + sides[s].items.offset(item);
                    args.operands[s].cast::<u16>().offset(first).cast_const()
                });
                for cols in pieces.clone().map(|piece| across.part(piece)) {
                    let c = args.operands[2].cast::<u16>().add((item * m + rows.0) * n + cols.0);
                    match self.thin {
                        true => self.few_rows(src, c, cols, places),
                        false => self.many_rows(src, c, (rows, cols), places),
                    }
                }
            }
        }
        Ok(())
    }
}

impl<T: Computed> Blocked for HalfMatmul<T> {
    fn lines(&self) -> (usize, usize) {
        let (m, n, _) = self.whole.extents();
        (self.whole.items() * m, n)
    }

    fn block(&self, chunk: usize) -> Option<[Range<usize>; 2]> {
        let ([down, across], beside) = (self.blocks, self.across());
        let blocks = down.count * beside;
        let (m, n, _) = self.whole.extents();
        let (group, block) = (chunk / blocks, chunk % blocks);
        if blocks == 1 {
            return Some([group * self.per * m..((group + 1) * self.per).min(self.whole.items()) * m, 0..n]);
        }
        let ((i, rows), (j, cols)) = (down.part(block / beside), across.part(block % beside));
        let (line, columns) = (group * m + i, if self.whole_lines { 0..n } else { j..j + cols });
        Some([line..line + rows, columns])
    }
}
