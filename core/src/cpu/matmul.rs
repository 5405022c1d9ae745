//! Matrix products: blocks cut by shape alone, each packing its own columns of `b`, and plain loops for tiny ones.
//! Owns the cut and the order of the loops; the arithmetic is `micro`'s, the panels' formats are `pack`'s.
//!
//! Every element is a sum over `k` in blocks that depend on `k` alone, each a chain in order, the blocks' sums added in
//! order. So its bits depend neither on the other extents nor on the cut. The loops are those of Goto & van de Geijn
//! 2008, doi:10.1145/1356052.1356053, turned around: a panel of `b` stays in the first-level cache while rows of `a`
//! pass by.

use std::fmt;
use std::sync::Arc;

use tapeflow_ir::DType;

use super::CompileError;
use super::isa::Isa;
use super::micro::{Element, Micro, Tile, fuses};
use super::pack::Columns;
use super::space::{Walk, product};
use super::vector::{BLOCK, Body, Call, Primitive, select};
use crate::program::kernel::{Args, Dims, Executable, Layout, Matmul, RunError};

/// Multiplications of a block, about: enough to hide that each block packs its operands again, few enough to share out.
const BLOCK_WORK: usize = 8 << 20;
/// From this many on a product is cut in two.
const SPLIT_WORK: usize = 4 << 20;
/// Blocks of one product, about, at most.
const BLOCKS: usize = 16;
/// What it costs to read and pack an element of `b`, in multiplications: it counts where few rows use it.
const PACKING: usize = 8;
/// Up to this many multiplications, plain loops beat the set-up of panels.
const TINY_WORK: usize = 256;
/// Up to this many elements of the result, they beat packing vectors of which most is unused.
const TINY_RESULT: usize = 4;
/// Blocks are multiples of the largest tile: rows of the result by columns.
const ROWS: usize = 8;
const COLUMNS: usize = 48;
/// Length of a block of `k`, at most: a panel of `b` is 24 KiB, which a first-level cache holds. Part of the
/// arithmetic.
const DEPTH: usize = 128;
/// Rows of `a` that pass by a panel, at most: `DEPTH` columns of them stay in the second-level cache.
const HEIGHT: usize = 1024;
/// An operand `b` of at most so many bytes is not worth packing if its columns lie side by side.
const SMALL: usize = 16 << 10;

/// Compiles a matrix product.
///
/// # Errors
/// [`CompileError::Undefined`] for other dtypes than f32 and f64, [`CompileError::Malformed`] for layouts of another
/// rank.
pub fn compile(matmul: &Matmul, isa: Isa) -> Result<Arc<dyn Executable>, CompileError> {
    let rank = matmul.batch.len() + 2;
    if matmul.a.strides.len() != rank || matmul.b.strides.len() != rank {
        return Err(CompileError::Malformed("a matmul's layouts have its batch axes and two more"));
    }
    match matmul.dtype {
        DType::F32 => Ok(Arc::new(MatmulKernel::<f32>::new(matmul, isa))),
        DType::F64 => Ok(Arc::new(MatmulKernel::<f64>::new(matmul, isa))),
        dtype => Err(CompileError::Undefined { op: "matmul".into(), dtype }),
    }
}

/// One operand: its batch items, and its strides by row and by column.
#[derive(Debug)]
struct Side {
    items: Walk,
    row: isize,
    col: isize,
}

/// A compiled product.
struct MatmulKernel<T: 'static> {
    m: usize,
    n: usize,
    k: usize,
    items: usize,
    a: Side,
    b: Side,
    /// Extents of a block, and how many lie beside each other.
    block: (usize, usize),
    blocks: (usize, usize),
    /// Items of a chunk; 1 unless an item is one block.
    per: usize,
    /// The plain loops, if they are to be used.
    tiny: Option<Primitive>,
    micro: &'static Micro<T>,
}

impl<T> fmt::Debug for MatmulKernel<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MatmulKernel { m, n, k, items, block, per, tiny, .. } = self;
        write!(f, "Matmul({items}x{m}x{n}x{k}, block {block:?}, {per} items, tiny {})", tiny.is_some())
    }
}

/// `extent` in `parts` even parts that are multiples of `grain`: the size of a part, and how many there are.
fn part(extent: usize, parts: usize, grain: usize) -> (usize, usize) {
    let size = extent.div_ceil(parts.max(1)).next_multiple_of(grain).min(extent).max(1);
    (size, extent.div_ceil(size))
}

/// The length of a block of `k`.
fn depth(k: usize) -> usize {
    part(k, k.div_ceil(DEPTH), 16).0
}

/// The blocks of a product: of all grids with about as many blocks as wanted, the one that reads and packs the least.
fn grid(m: usize, n: usize, k: usize, b_lies_well: bool) -> [(usize, usize); 2] {
    let work = (m + PACKING).saturating_mul(n).saturating_mul(k);
    let least = if work >= SPLIT_WORK { 2 } else { 1 };
    let wanted = work.div_ceil(BLOCK_WORK).clamp(least, BLOCKS);
    let mut best = ([(m, 1), (n, 1)], f64::INFINITY);
    for down in 1..=wanted {
        let rows = part(m, down, ROWS);
        let cols = part(n, wanted.div_ceil(rows.1.max(1)), COLUMNS);
        // Every row of blocks packs all of `b`, every column of blocks reads all of `a`. Weights as measured.
        let packing = if b_lies_well { 1.0 } else { 2.0 };
        let packed = (cols.1 * m * k) as f64 * 0.3 + (rows.1 * n * k) as f64 * packing;
        // Too few blocks keep threads idle; a remainder keeps all but one idle.
        let blocks = rows.1 * cols.1;
        let missing = wanted.saturating_sub(blocks) as f64 / wanted as f64;
        let uneven = (rows.0 * rows.1 * cols.0 * cols.1) as f64 / (m * n).max(1) as f64;
        let price = packed * uneven * (1.0 + 2.0 * missing);
        if price < best.1 {
            best = ([rows, cols], price);
        }
    }
    best.0
}

impl<T: Element> MatmulKernel<T> {
    fn new(matmul: &Matmul, isa: Isa) -> Self {
        let Matmul { batch, mut m, n, k, a, b, .. } = matmul.clone();
        let mut batch: Dims = batch;
        // A batch axis that only `a` has, and that goes on where the rows end, is more rows.
        while let Some(&extent) = batch.last() {
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
        let side = |layout: &Layout| {
            let [.., row, col] = layout.strides[..] else {
                return Side { items: Walk::new(&[], layout), row: 0, col: 0 };
            };
            Side { items: Walk::new(&batch, layout), row, col }
        };
        let items = product(&batch);
        let work = (m + PACKING).saturating_mul(n).saturating_mul(k);
        let (a, b) = (side(&a), side(&b));
        let [rows, cols] = grid(m, n, k, b.col == 1);
        let per = match rows.1 * cols.1 {
            1 => (SPLIT_WORK / 2 / work.max(m.saturating_mul(n)).max(1)).clamp(1, items.max(1)),
            _ => 1,
        };
        let is_tiny = m.saturating_mul(n).saturating_mul(k) <= TINY_WORK || m.saturating_mul(n) <= TINY_RESULT;
        let tiny = is_tiny.then(|| match fuses(isa) {
            true => select::<Plain<T, true>>(isa),
            false => select::<Plain<T, false>>(isa),
        });
        let micro = T::micro(isa);
        MatmulKernel { m, n, k, items, a, b, block: (rows.0, cols.0), blocks: (rows.1, cols.1), per, tiny, micro }
    }
}

impl<T: Element> Executable for MatmulKernel<T> {
    fn chunks(&self) -> usize {
        if self.m == 0 || self.n == 0 { 0 } else { self.items.div_ceil(self.per) * self.blocks.0 * self.blocks.1 }
    }

    fn scratch_bytes(&self) -> usize {
        if self.tiny.is_some() { 0 } else { self.micro.width() * depth(self.k) * size_of::<T>() }
    }

    fn cost(&self) -> u64 {
        let work = (self.items * self.n * (self.k + 1)).saturating_mul((self.m + PACKING) * size_of::<T>());
        50 + work as u64 / 400
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let (down, across) = self.blocks;
        let (group, block) = (chunk / (down * across), chunk % (down * across));
        let (i, j) = (block / across * self.block.0, block % across * self.block.1);
        let (rows, cols) = (self.block.0.min(self.m - i), self.block.1.min(self.n - j));
        let scratch = scratch.as_mut_ptr().cast::<T>();
        let shift = [&self.a, &self.b].map(|side| side.items.shift(args.scalars));
        for item in group * self.per..((group + 1) * self.per).min(self.items) {
            // SAFETY: the layouts stay within the operands, the result is contiguous, and blocks do not overlap.
            unsafe {
                let a =
                    args.operands[0].cast::<T>().offset(shift[0] + self.a.items.offset(item) + i as isize * self.a.row);
                let b =
                    args.operands[1].cast::<T>().offset(shift[1] + self.b.items.offset(item) + j as isize * self.b.col);
                let c = args.operands[2].cast::<T>().add((item * self.m + i) * self.n + j);
                let product = Product {
                    m: rows,
                    n: cols,
                    k: self.k,
                    a: (self.a.row, self.a.col),
                    b: (self.b.row, self.b.col),
                    pitch: self.n,
                };
                match self.tiny {
                    Some(tiny) => {
                        let src = [a.cast::<u8>().cast_const(), b.cast(), (&raw const product).cast()];
                        tiny(&Call { dst: c.cast(), src, step: [0; 3], rows: 1, cols: 1 });
                    }
                    None => self.multiply(&product, c, a, b, scratch),
                }
            }
        }
        Ok(())
    }
}

/// `c[i, j] = Σ a[i, p] · b[p, j]`, strides by row and column; `c` has columns side by side and `pitch` from row to
/// row.
struct Product {
    m: usize,
    n: usize,
    k: usize,
    a: (isize, isize),
    b: (isize, isize),
    pitch: usize,
}

impl<T: Element> MatmulKernel<T> {
    /// A product by panels and tiles.
    ///
    /// # Safety
    /// The addresses suit the product, `c` overlaps neither operand, and `panel` has what `scratch_bytes` says.
    unsafe fn multiply(&self, product: &Product, c: *mut T, a: *const T, b: *const T, panel: *mut T) {
        let Product { m, n, k, a: (a_row, a_col), b: (b_row, b_col), pitch } = *product;
        let (micro, depth) = (self.micro, depth(k));
        // Packing `b` pays off if many rows use it, unless it lies well as it is.
        let b_direct = b_col == 1 && (m <= 2 * micro.height() || k * b_row.unsigned_abs() * size_of::<T>() <= SMALL);
        // SAFETY: as our caller promised; all indices are below the extents, and panels hold `depth` by their width.
        unsafe {
            for i in (0..m).step_by(HEIGHT) {
                let (a, c, m) = (a.offset(i as isize * a_row), c.add(i * pitch), HEIGHT.min(m - i));
                for p in (0..k).step_by(depth) {
                    let (a, b) = (a.offset(p as isize * a_col), b.offset(p as isize * b_row));
                    let (k, add) = (depth.min(k - p), p > 0);
                    let mut j = 0;
                    let vectors = n.div_ceil(micro.lanes);
                    let panels = vectors.div_ceil(micro.vectors());
                    for number in 0..panels {
                        // As even as can be: tiles of one vector wait for their operands.
                        let vectors = (vectors + number) / panels;
                        let width = vectors * micro.lanes;
                        let (b, c, cols) = (b.offset(j as isize * b_col), c.add(j), width.min(n - j));
                        let (mut line, mut b_step) = (b, b_row);
                        if !(b_direct && cols == width) {
                            (micro.columns)(&Columns { dst: panel, width, src: b, row: b_row, col: b_col, k, cols });
                            (line, b_step) = (panel, width as isize);
                        }
                        let tile = Tile { k, a, a_step: (a_row, a_col), b: line, b_step, c, pitch, add };
                        self.strip(tile, m, vectors, cols);
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
    unsafe fn strip(&self, mut tile: Tile<T>, m: usize, vectors: usize, cols: usize) {
        let (tiles, height) = (self.micro.tiles[vectors - 1], self.micro.height());
        let (c, pitch, add) = (tile.c, tile.pitch, tile.add);
        let mut edge = [T::ZERO; EDGE];
        // SAFETY: as our caller promised; `edge` holds the largest tile.
        unsafe {
            for i in (0..m).step_by(height) {
                let rows = height.min(m - i);
                tile.c = c.add(i * pitch);
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

/// Elements of the largest tile of any instruction set.
const EDGE: usize = ROWS * COLUMNS;

/// The plain loops in the same arithmetic, a block of columns at a time where `b` has its columns side by side. `FUSED`
/// says how the instruction set multiplies and adds.
struct Plain<T, const FUSED: bool>(std::marker::PhantomData<T>);

/// `W` neighbouring elements of the result: `Σ a[p] · b[p, ..W]`, steps along `k`.
///
/// # Safety
/// These elements can be read.
#[inline(always)]
unsafe fn chain<T: Element, const FUSED: bool, const W: usize>(
    k: usize,
    mut a: *const T,
    a_step: isize,
    mut b: *const T,
    b_step: isize,
) -> [T; W] {
    let mut acc = [T::ZERO; W];
    for _ in 0..k {
        // SAFETY: as our caller promised.
        let (x, row) = unsafe { (*a, &*b.cast::<[T; W]>()) };
        for l in 0..W {
            acc[l] = if FUSED { acc[l].fused(x, row[l]) } else { acc[l].multiply_add(x, row[l]) };
        }
        a = a.wrapping_offset(a_step);
        b = b.wrapping_offset(b_step);
    }
    acc
}

/// The sum over the blocks of `k`.
///
/// # Safety
/// As for [`chain`].
#[inline(always)]
unsafe fn chains<T: Element, const FUSED: bool, const W: usize>(
    k: usize,
    a: *const T,
    a_step: isize,
    b: *const T,
    b_step: isize,
) -> [T; W] {
    let depth = if k <= DEPTH { k } else { depth(k) };
    // SAFETY: as our caller promised, for the blocks of `k` too.
    unsafe {
        let mut sum = chain::<T, FUSED, W>(depth, a, a_step, b, b_step);
        let mut p = depth;
        while p < k {
            let (a, b) = (a.offset(p as isize * a_step), b.offset(p as isize * b_step));
            let more = chain::<T, FUSED, W>(depth.min(k - p), a, a_step, b, b_step);
            (0..W).for_each(|l| sum[l] = sum[l].plus(more[l]));
            p += depth;
        }
        sum
    }
}

impl<T: Element, const FUSED: bool> Body for Plain<T, FUSED> {
    #[inline(always)]
    unsafe fn run(call: &Call) {
        let (c, a, b) = (call.dst.cast::<T>(), call.src[0].cast::<T>(), call.src[1].cast::<T>());
        // SAFETY: `src[2]` is the product that `run_chunk` described, and its addresses suit it.
        unsafe {
            let Product { m, n, k, a: (a_row, a_col), b: (b_row, b_col), pitch } = *call.src[2].cast::<Product>();
            for i in 0..m {
                let (a, c) = (a.offset(i as isize * a_row), c.add(i * pitch));
                let mut j = 0;
                while b_col == 1 && j + BLOCK <= n {
                    *c.add(j).cast::<[T; BLOCK]>() = chains::<T, FUSED, BLOCK>(k, a, a_col, b.add(j), b_row);
                    j += BLOCK;
                }
                for j in j..n {
                    let b = b.offset(j as isize * b_col);
                    *c.add(j) = chains::<T, FUSED, 1>(k, a, a_col, b, b_row)[0];
                }
            }
        }
    }
}
