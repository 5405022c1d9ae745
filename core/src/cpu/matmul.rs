//! Matrix products: blocks cut by shape alone for the `gemm` crate, and plain loops for tiny ones.
//! Owns the cut; the micro-kernels are `gemm`'s, which picks its own instruction set.

use std::fmt;
use std::sync::Arc;

use tapeflow_ir::DType;

use super::CompileError;
use super::isa::Isa;
use super::space::{Walk, product};
use super::vector::{BLOCK, Body, Call, Primitive, select};
use crate::program::kernel::{Args, Dims, Executable, Layout, Matmul, RunError};

/// Multiplications of a block, about: enough to hide that each block packs its operands again, few enough to share out.
const BLOCK_WORK: usize = 8 << 20;
/// From this many on a product is cut in two.
const SPLIT_WORK: usize = 4 << 20;
/// Blocks of one product, about, at most.
const BLOCKS: usize = 16;
/// Up to this many multiplications, plain loops beat the set-up of `gemm`.
const TINY_WORK: usize = 2048;
/// Blocks are multiples of `gemm`'s micro-kernels: rows of the result by columns.
const ROWS: usize = 8;
const COLUMNS: usize = 48;

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
struct MatmulKernel<T> {
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
    element: std::marker::PhantomData<fn() -> T>,
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

/// The blocks of a product: of all grids with about as many blocks as wanted, the one that packs the least.
fn grid(m: usize, n: usize, k: usize, a_is_packed_fast: bool, b_is_packed_fast: bool) -> [(usize, usize); 2] {
    let work = m.saturating_mul(n).saturating_mul(k);
    let least = if work >= SPLIT_WORK { 2 } else { 1 };
    let wanted = work.div_ceil(BLOCK_WORK).clamp(least, BLOCKS);
    let mut best = ([(m, 1), (n, 1)], f64::INFINITY);
    for down in 1..=wanted {
        let rows = part(m, down, ROWS);
        let cols = part(n, wanted.div_ceil(rows.1.max(1)), COLUMNS);
        // Every row of blocks packs all of `b`, every column of blocks all of `a`. Measured: transposing costs thrice.
        let weight = |fast: bool| if fast { 1.0 } else { 3.0 };
        let packed =
            (cols.1 * m * k) as f64 * weight(a_is_packed_fast) + (rows.1 * n * k) as f64 * weight(b_is_packed_fast);
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
        let work = m.saturating_mul(n).saturating_mul(k);
        let (a, b) = (side(&a), side(&b));
        let [rows, cols] = grid(m, n, k, a.col == 1, b.col == 1);
        let per = match rows.1 * cols.1 {
            1 => (SPLIT_WORK / 2 / work.max(m * n).max(1)).clamp(1, items.max(1)),
            _ => 1,
        };
        let tiny = (work <= TINY_WORK).then(|| select::<Plain<T>>(isa));
        MatmulKernel {
            m,
            n,
            k,
            items,
            a,
            b,
            block: (rows.0, cols.0),
            blocks: (rows.1, cols.1),
            per,
            tiny,
            element: std::marker::PhantomData,
        }
    }
}

impl<T: Element> Executable for MatmulKernel<T> {
    fn chunks(&self) -> usize {
        if self.m == 0 || self.n == 0 { 0 } else { self.items.div_ceil(self.per) * self.blocks.0 * self.blocks.1 }
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn cost(&self) -> u64 {
        50 + (self.items * self.m * self.n).saturating_mul(2 * self.k + 1) as u64 / 100
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, _scratch: &mut [u8]) -> Result<(), RunError> {
        let (down, across) = self.blocks;
        let (group, block) = (chunk / (down * across), chunk % (down * across));
        let (i, j) = (block / across * self.block.0, block % across * self.block.1);
        let (rows, cols) = (self.block.0.min(self.m - i), self.block.1.min(self.n - j));
        for item in group * self.per..((group + 1) * self.per).min(self.items) {
            // SAFETY: the layouts stay within the operands, the result is contiguous, and blocks do not overlap.
            unsafe {
                let a = args.operands[0].cast::<T>().offset(self.a.items.offset(item) + i as isize * self.a.row);
                let b = args.operands[1].cast::<T>().offset(self.b.items.offset(item) + j as isize * self.b.col);
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
                    None => T::gemm(&product, c, a, b),
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

/// A dtype of products.
trait Element: Copy + Send + Sync + 'static {
    const ZERO: Self;
    fn multiply(self, other: Self) -> Self;
    fn plus(self, other: Self) -> Self;
    /// # Safety
    /// The addresses suit the product, and `c` overlaps neither operand.
    unsafe fn gemm(product: &Product, c: *mut Self, a: *const Self, b: *const Self);
}

macro_rules! element {
    ($t:ty) => {
        impl Element for $t {
            const ZERO: $t = 0.0;
            #[inline(always)]
            fn multiply(self, other: $t) -> $t {
                self * other
            }
            #[inline(always)]
            fn plus(self, other: $t) -> $t {
                self + other
            }
            unsafe fn gemm(product: &Product, c: *mut $t, a: *const $t, b: *const $t) {
                let Product { m, n, k, pitch, .. } = *product;
                let (pitch, parallelism) = (pitch as isize, gemm::Parallelism::None);
                // SAFETY: as our caller promised.
                unsafe {
                    if k == 0 {
                        (0..m).for_each(|i| (0..n).for_each(|j| *c.offset(i as isize * pitch).add(j) = 0.0));
                        return;
                    }
                    let ((a_row, a_col), (b_row, b_col)) = (product.a, product.b);
                    gemm::gemm(
                        m,
                        n,
                        k,
                        c,
                        1,
                        pitch,
                        false,
                        a,
                        a_col,
                        a_row,
                        b,
                        b_col,
                        b_row,
                        0.0,
                        1.0,
                        false,
                        false,
                        false,
                        parallelism,
                    );
                }
            }
        }
    };
}
element!(f32);
element!(f64);

/// The plain loops: every sum in order of `k`, a block of columns at a time where `b` has its columns side by side.
struct Plain<T>(std::marker::PhantomData<T>);

impl<T: Element> Body for Plain<T> {
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
                    let mut acc = [T::ZERO; BLOCK];
                    for p in 0..k as isize {
                        let (x, row) = (*a.offset(p * a_col), &*b.offset(p * b_row).add(j).cast::<[T; BLOCK]>());
                        for l in 0..BLOCK {
                            acc[l] = acc[l].plus(x.multiply(row[l]));
                        }
                    }
                    *c.add(j).cast::<[T; BLOCK]>() = acc;
                    j += BLOCK;
                }
                for j in j..n {
                    let b = b.offset(j as isize * b_col);
                    let mut acc = T::ZERO;
                    for p in 0..k as isize {
                        acc = acc.plus((*a.offset(p * a_col)).multiply(*b.offset(p * b_row)));
                    }
                    *c.add(j) = acc;
                }
            }
        }
    }
}
