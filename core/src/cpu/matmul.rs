//! Matrix products: blocks that each pack their own columns of `b`, and plain loops for tiny ones. Owns the order of
//! the loops; the cut is that of `blocks`, the arithmetic is `micro`'s, the panels' formats are `pack`'s.
//!
//! Every element is a sum over `k` in blocks that depend on `k` alone, each a chain in order, the blocks' sums added in
//! order. So its bits depend neither on the other extents nor on the cut. The loops are those of Goto & van de Geijn
//! 2008, doi:10.1145/1356052.1356053, turned around: a panel of `b` stays in the first-level cache while rows of `a`
//! pass by.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use tapeflow_ir::DType;

use super::CompileError;
use super::blocks::{Blocked, HEIGHT, PACKING, Parts, SPLIT_WORK, Wanted, depth, grid, portions};
use super::half;
use super::isa::Isa;
use super::micro::{Element, Micro, Tile};
use super::pack::{Ahead, Columns};
use super::space::{Walk, product};
use super::thin::{Share, Thin, neighbours, shares};
use super::vector::{Call, Primitive};
use super::windows::{Lines, Panel, Side, pack_lines};
use crate::program::kernel::{Args, Dims, Executable, Matmul, PANEL, RunError};

/// Up to this many multiplications, plain loops beat the set-up of panels.
const TINY_WORK: usize = 256;
/// Up to this many elements of the result, they beat packing vectors of which most is unused.
const TINY_RESULT: usize = 4;
/// Elements of the largest tile of any instruction set, row by row.
const EDGE: usize = 8 * 48;
/// Rows of `a` that pass by a panel, at most, where `a` lies along several axes, so that its rows are packed.
const LINES: usize = 256;
/// An operand `b` of at most so many bytes is not worth packing if its columns lie side by side.
const SMALL: usize = 16 << 10;

/// Compiles a matrix product whose blocks are as wanted, where that can be chosen.
///
/// # Errors
/// [`CompileError::Undefined`] for dtypes that are no floats, [`CompileError::Malformed`] for layouts of another
/// rank.
pub fn compile(matmul: &Matmul, wanted: Wanted, isa: Isa) -> Result<Arc<dyn Blocked>, CompileError> {
    if !matmul.is_well_formed() {
        return Err(CompileError::Malformed("a matmul's layouts have its batch axes and those of two of m, n and k"));
    }
    match matmul.dtype {
        DType::F32 => Ok(Arc::new(MatmulKernel::<f32>::new(matmul, wanted, isa))),
        DType::F64 => Ok(Arc::new(MatmulKernel::<f64>::new(matmul, wanted, isa))),
        dtype => half::compile(matmul, wanted, isa).ok_or(CompileError::Undefined { op: "matmul".into(), dtype }),
    }
}

/// A compiled product.
pub(super) struct MatmulKernel<T: 'static> {
    m: usize,
    n: usize,
    k: usize,
    items: usize,
    pub(super) a: Side,
    pub(super) b: Side,
    /// The rows and columns of its blocks.
    blocks: [Parts; 2],
    /// Items of a chunk; 1 unless an item is one block.
    per: usize,
    /// The plain loops, if they are to be used.
    tiny: Option<Primitive>,
    /// How `b` passes through registers, packed nowhere, if it does.
    passes: Option<Passing>,
    micro: &'static Micro<T>,
}

/// How columns pass through registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Passing {
    /// Side by side.
    Across,
    /// Each along the terms, one in each of so many lanes: each lane has neighbours, or each turn.
    Along(usize),
    Beside(usize),
    /// In panels, this far from one to the next.
    Panels(isize),
}

impl Passing {
    /// Whether neighbouring columns are neighbours in memory.
    fn has_lines_side_by_side(self) -> bool {
        !matches!(self, Passing::Along(_) | Passing::Beside(_))
    }

    /// Columns of a turn.
    fn lanes(self) -> usize {
        match self {
            Passing::Across => 1,
            Passing::Along(lanes) | Passing::Beside(lanes) => lanes,
            Passing::Panels(_) => PANEL,
        }
    }

    /// Of `n` columns, those of a part of the turns, if they are neighbours; the last part has what fills no turn too.
    fn columns(self, n: usize, (first, turns): (usize, usize)) -> Range<usize> {
        let (lanes, end) = (self.lanes(), first + turns);
        first * lanes..if end == n / lanes { n } else { end * lanes }
    }

    /// Of `n` columns, the first of a part of the turns, its first one and how many, and the shares from there on.
    fn shares(self, n: usize, (first, turns): (usize, usize)) -> (usize, [Share; 2]) {
        match self {
            Passing::Panels(_) => (first * PANEL, neighbours(turns * PANEL, PANEL)),
            Passing::Beside(lanes) => {
                let columns = self.columns(n, (first, turns));
                (columns.start, neighbours(columns.len(), lanes))
            }
            _ => (0, shares(n, self.lanes(), (first, turns))),
        }
    }
}

impl<T> fmt::Debug for MatmulKernel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MatmulKernel { m, n, k, items, blocks: [rows, cols], per, tiny, .. } = self;
        let blocks = (rows.count, cols.count);
        write!(f, "Matmul({items}x{m}x{n}x{k}, blocks {blocks:?}, {per} items, tiny {})", tiny.is_some())
    }
}

impl<T: Element> MatmulKernel<T> {
    pub(super) fn new(matmul: &Matmul, wanted: Wanted, isa: Isa) -> Self {
        let merged = matmul.merged();
        let single = merged.m.len() == 1;
        let Matmul { mut batch, m: rows, n: cols, k: sums, a, b, .. } = merged;
        let [mut m, n, k] = [&rows, &cols, &sums].map(|dims| product(dims));
        // A batch axis that only `a` has, and that goes on where the rows end, is more rows.
        while let Some(&extent) = batch.last().filter(|_| single) {
            let axis = batch.len() - 1;
            let (rows, item) = (a.strides[matmul.batch.len()], a.strides[axis]);
            let repeats = b.strides[axis] == 0;
            if extent != 1 && !(repeats && (m == 1 || item == rows * m as isize)) {
                break;
            }
            if m == 1 && extent != 1 {
                break;
            }
            m *= extent;
            batch.pop();
        }
        let rows = if single { Dims::from_slice(&[m]) } else { rows };
        let first = matmul.batch.len();
        let (a_lines, a_depth) = a.strides[first..].split_at(rows.len());
        let (b_depth, b_lines) = b.strides[first..].split_at(sums.len());
        let mut a = Side::new(Walk::new(&batch, &a), (&rows, a_lines), (&sums, a_depth));
        let mut b = Side::new(Walk::new(&batch, &b), (&cols, b_lines), (&sums, b_depth));
        if k == 0 {
            // Nothing is read: plain loops write the zeros.
            (a.plain, b.plain) = (Some((0, 0)), Some((0, 0)));
        }
        let items = product(&batch);
        let work = (m + PACKING).saturating_mul(n).saturating_mul(k);
        let micro = T::micro(isa);
        let plain = a.plain.is_some() && b.plain.is_some();
        let is_tiny = m.saturating_mul(n).saturating_mul(k) <= TINY_WORK || m.saturating_mul(n) <= TINY_RESULT;
        let tiny = T::plain(isa).filter(|_| plain && is_tiny);
        let passing = match (b.plain, b.panels(1)) {
            (Some((1, _)), _) => Some(Passing::Across),
            (Some((_, 1)), _) if wanted.made[1] => Some(Passing::Beside(micro.lanes)),
            (Some((_, 1)), _) => Some(Passing::Along(micro.lanes)),
            (_, panels) => panels.map(Passing::Panels),
        };
        let passes = passing.filter(|_| tiny.is_none() && a.plain.is_some() && m <= micro.height());
        let blocks = match passes {
            Some(passing) => [Parts::new(m, 1, m.max(1)), portions(n, k * size_of::<T>(), passing.lanes(), wanted)],
            None => {
                let along = a.plain.is_some_and(|(_, term)| term == 1);
                grid((m, n, k), along, passing.is_some_and(Passing::has_lines_side_by_side), wanted)
            }
        };
        let per = match blocks[0].count * blocks[1].count {
            1 => (SPLIT_WORK / 2 / work.max(m.saturating_mul(n)).max(1)).clamp(1, items.max(1)),
            _ => 1,
        };
        MatmulKernel { m, n, k, items, a, b, blocks, per, tiny, passes, micro }
    }

    /// `(m, n, k)` of an item.
    pub(super) fn extents(&self) -> (usize, usize, usize) {
        (self.m, self.n, self.k)
    }

    /// How many products.
    pub(super) fn items(&self) -> usize {
        self.items
    }

    /// The lanes in which columns pass that lie so from column to column and along the terms.
    pub(super) fn lanes(&self, b_step: (isize, isize)) -> usize {
        if b_step.0 == 1 { 1 } else { self.micro.lanes }
    }

    /// The same for `multiply` alone, whatever the size, with operands that lie so from line to line and term to term.
    pub(super) fn in_panels(mut self, a: (isize, isize), b: Option<(isize, isize)>) -> Self {
        (self.a.plain, self.b.plain, self.tiny, self.passes) = (Some(a), b, None, None);
        self
    }
}

impl<T: Element> Executable for MatmulKernel<T> {
    fn chunks(&self) -> usize {
        let blocks = self.blocks[0].count * self.blocks[1].count;
        if self.m == 0 || self.n == 0 { 0 } else { self.items.div_ceil(self.per) * blocks }
    }

    fn scratch_bytes(&self) -> usize {
        if self.tiny.is_some() {
            return 0;
        }
        let rows = if self.a.plain.is_some() { 0 } else { LINES.min(self.m) };
        (self.panel_elements() + rows * depth(self.k)) * size_of::<T>()
    }

    fn cost(&self) -> u64 {
        let work = (self.items * self.n * (self.k + 1)).saturating_mul((self.m + PACKING) * size_of::<T>());
        50 + work as u64 / 400
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let [down, across] = self.blocks;
        let blocks = down.count * across.count;
        let (group, block) = (chunk / blocks, chunk % blocks);
        let ((i, rows), (j, cols)) = (down.part(block / across.count), across.part(block % across.count));
        let scratch = scratch.as_mut_ptr().cast::<T>();
        let shift = [&self.a, &self.b].map(|side| side.items.shift(args.scalars));
        for item in group * self.per..((group + 1) * self.per).min(self.items) {
            // SAFETY: the layouts stay within the operands, the result is contiguous, and blocks do not overlap.
            unsafe {
                let a = args.operands[0].cast::<T>().offset(shift[0] + self.a.items.offset(item));
                let b = args.operands[1].cast::<T>().offset(shift[1] + self.b.items.offset(item));
                let c = args.operands[2].cast::<T>().add(item * self.m * self.n);
                let block = c.wrapping_add(i * self.n + j);
                match (self.tiny, self.a.plain, self.b.plain) {
                    (Some(tiny), Some((a_row, a_col)), Some((b_col, b_row))) => {
                        let (a, b) = (a.offset(i as isize * a_row), b.offset(j as isize * b_col));
                        let (m, n, k, pitch) = (rows, cols, self.k, self.n);
                        let product = Product { m, n, k, a: (a_row, a_col), b: (b_row, b_col), pitch };
                        let src = [a.cast::<u8>().cast_const(), b.cast(), (&raw const product).cast()];
                        tiny(&Call { dst: block.cast(), src, step: [0; 3], rows: 1, cols: 1 });
                    }
                    (_, Some(a_step), _) if let Some(passing) = self.passes => {
                        let (panel, b_step) = match (passing, self.b.plain) {
                            (Passing::Panels(step), _) => (Some(step), (1, PANEL as isize)),
                            (_, plain) => (None, plain.unwrap_or_default()),
                        };
                        let (first, shares) = passing.shares(self.n, (j, cols));
                        for share in shares {
                            let (first, a) = (first + share.first, a.cast_const());
                            let (b, c) = (b.wrapping_offset(self.b.lines.offset(first)), c.wrapping_add(first));
                            let (b, k, depth, pitch) = (b.cast_const(), self.k, depth(self.k), self.n);
                            self.thin(rows, &Thin { k, depth, a, a_step, b, b_step, panel, share, c, pitch });
                        }
                    }
                    _ => {
                        let (rows, cols, c) = ((i, rows), (j, cols), block);
                        self.multiply(&Block { rows, cols, k: self.k, add: false, a, b, c }, scratch);
                    }
                }
            }
        }
        Ok(())
    }
}

impl<T: Element> Blocked for MatmulKernel<T> {
    fn lines(&self) -> (usize, usize) {
        (self.items * self.m, self.n)
    }

    fn block(&self, chunk: usize) -> Option<[Range<usize>; 2]> {
        let [down, across] = self.blocks;
        let blocks = down.count * across.count;
        let (group, block) = (chunk / blocks, chunk % blocks);
        if blocks == 1 {
            return Some([group * self.per * self.m..((group + 1) * self.per).min(self.items) * self.m, 0..self.n]);
        }
        let ((i, rows), (j, cols)) = (down.part(block / across.count), across.part(block % across.count));
        let line = group * self.m + i;
        let columns = match self.passes {
            Some(Passing::Along(_)) => return None,
            Some(passing) => passing.columns(self.n, (j, cols)),
            None => j..j + cols,
        };
        Some([line..line + rows, columns])
    }
}

/// `c[i, j] = Σ a[i, p] · b[p, j]`, strides by row and column; `c` has columns side by side and `pitch` from row to
/// row.
pub struct Product {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: (isize, isize),
    pub b: (isize, isize),
    pub pitch: usize,
}

/// A block of the result: its first row and column and how many there are, the terms of its sums and whether they are
/// added to what is there, the item's operands, its first element.
pub(super) struct Block<T> {
    pub rows: (usize, usize),
    pub cols: (usize, usize),
    pub k: usize,
    pub add: bool,
    pub a: *const T,
    pub b: *const T,
    pub c: *mut T,
}

impl<T: Element> MatmulKernel<T> {
    /// Elements of scratch for a panel of `b`: one made of windows is written beyond its end.
    fn panel_elements(&self) -> usize {
        let slack = if self.b.plain.is_some() { 0 } else { self.micro.lanes };
        self.micro.width() * (depth(self.k) + slack)
    }

    /// A product of `rows` rows, at most a tile's, whose `b` passes by.
    ///
    /// # Safety
    /// The addresses suit the product, and `c` overlaps neither operand.
    pub(super) unsafe fn thin(&self, rows: usize, product: &Thin<T>) {
        // SAFETY: as our caller promised; the kernel is of an instruction set that the machine has.
        unsafe { (self.micro.thin[rows - 1])(product) }
    }

    /// A product by panels and tiles.
    ///
    /// # Safety
    /// The addresses suit the product, `c` overlaps neither operand, and `panel` has what `scratch_bytes` says.
    pub(super) unsafe fn multiply(&self, block: &Block<T>, panel: *mut T) {
        let &Block { rows: (row, m), cols: (col, n), k, add: adds, a, b, c } = block;
        let (micro, pitch, whole) = (self.micro, self.n, depth(self.k));
        let size = size_of::<T>();
        // Packing `b` pays off if many rows use it, unless it lies well as it is.
        let lies_well = |(b_col, b_row): &(isize, isize)| {
            *b_col == 1 && (m <= 2 * micro.height() || k * b_row.unsigned_abs() * size <= SMALL)
        };
        let b_direct = self.b.plain.as_ref().is_some_and(lies_well);
        let height = if self.a.plain.is_some() { HEIGHT } else { LINES };
        let (mut sums, mut columns) = (Lines::new(), Lines::new());
        // SAFETY: as our caller promised; all indices are below the extents, and panels hold `depth` by their width.
        unsafe {
            let (lines, last) = (panel.add(self.panel_elements()), b.offset(self.b.reach));
            for i in (0..m).step_by(height) {
                let (c, m) = (c.add(i * pitch), height.min(m - i));
                for p in (0..k).step_by(whole) {
                    let (k, add) = (whole.min(k - p), adds || p > 0);
                    let (a, a_step) = match self.a.plain {
                        Some((a_row, a_col)) => {
                            (a.offset((row + i) as isize * a_row + p as isize * a_col), (a_row, a_col))
                        }
                        None => {
                            pack_lines(&self.a, lines, a, (row + i, m), (p, k));
                            (lines.cast_const(), (k as isize, 1))
                        }
                    };
                    if self.b.plain.is_none() {
                        sums.read(&self.b.depth, p, k);
                    }
                    let mut j = 0;
                    let vectors = n.div_ceil(micro.lanes);
                    let panels = vectors.div_ceil(micro.vectors());
                    for number in 0..panels {
                        // As even as can be: tiles of one vector wait for their operands.
                        let vectors = (vectors + number) / panels;
                        let width = vectors * micro.lanes;
                        let (c, cols) = (c.add(j), width.min(n - j));
                        let mut ahead = Ahead::none();
                        let (line, b_step) = match self.b.plain {
                            Some((b_col, b_row)) => {
                                let b = b.offset((col + j) as isize * b_col + p as isize * b_row);
                                if b_direct && cols == width {
                                    (b, b_row)
                                } else {
                                    let panel = Columns { dst: panel, width, src: b, row: b_row, col: b_col, k, cols };
                                    (micro.columns)(&panel);
                                    // The panel beside this one, or the first of the next terms.
                                    let (next, cols) = match number + 1 < panels {
                                        true => (width as isize * b_col, width.min(n - j - cols)),
                                        false => (k as isize * b_row - j as isize * b_col, micro.width().min(n)),
                                    };
                                    let turns = m / micro.height();
                                    ahead = Ahead::new(b.wrapping_offset(next), (b_col, b_row), (cols, k), turns);
                                    (panel.dst.cast_const(), width as isize)
                                }
                            }
                            None => {
                                columns.read(&self.b.lines, col + j, cols);
                                (micro.windows)(&Panel {
                                    dst: panel,
                                    width,
                                    src: b,
                                    rows: &sums,
                                    cols: &columns,
                                    last,
                                });
                                (panel.cast_const(), width as isize)
                            }
                        };
                        let tile = Tile { k, a, a_step, b: line, b_step, c, pitch, add };
                        self.strip(tile, (m, vectors, cols), ahead);
                        j += width;
                    }
                }
            }
        }
    }

    /// All tiles of a panel: `m` rows of `vectors` vectors, of which `cols` columns exist.
    ///
    /// # Safety
    /// As for `multiply`.
    #[inline(always)]
    unsafe fn strip(&self, mut tile: Tile<T>, (m, vectors, cols): (usize, usize, usize), mut ahead: Ahead<T>) {
        let (tiles, height) = (self.micro.tiles[vectors - 1], self.micro.height());
        let (c, pitch, add) = (tile.c, tile.pitch, tile.add);
        let mut edge = [T::ZERO; EDGE];
        // SAFETY: as our caller promised; `edge` holds the largest tile.
        unsafe {
            for i in (0..m).step_by(height) {
                let rows = height.min(m - i);
                tile.c = c.add(i * pitch);
                ahead.ask();
                if cols == vectors * self.micro.lanes {
                    tiles[rows - 1](&tile);
                } else {
                    // The last columns: whole vectors beside the result, then those that there are.
                    let width = vectors * self.micro.lanes;
                    tiles[rows - 1](&Tile { c: edge.as_mut_ptr(), pitch: width, add: false, ..tile });
                    for r in 0..rows {
                        for j in 0..cols {
                            let (sum, at) = (edge[r * width + j], tile.c.add(r * pitch + j));
                            *at = if add { (*at).plus(sum) } else { sum };
                        }
                    }
                }
                tile.a = tile.a.wrapping_offset(height as isize * tile.a_step.0);
            }
        }
    }
}
