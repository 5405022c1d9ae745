//! Products of bf16 of a few rows where no instruction multiplies pairs of terms: the right operand passes once from
//! memory to registers, and is widened there. Owns the vectors that do so and the kernel; the loop is `thin`'s, the
//! arithmetic and its order are those of the widened product.

use std::fmt;
use std::ops::Range;

use tapeflow_ir::DType;

use super::blocks::{Blocked, Parts, Wanted, depth, portions};
use super::isa::Isa;
use super::matmul::MatmulKernel;
use super::micro::Vector;
use super::pairs::Pair;
use super::pieces::Pieces;
use super::table;
use super::thin::{Thin, ThinFn, neighbours};
use super::vector::{Call, Primitive};
use crate::program::kernel::{Args, Executable, Matmul, RunError};

/// Columns whose sums are rounded at a time.
const GROUP: usize = 512;

/// A compiled product.
pub struct FewRows {
    /// The extents and where the operands lie.
    whole: MatmulKernel<f32>,
    a: Pieces<Pair>,
    b: Pieces<Pair>,
    /// Columns of the chunks.
    blocks: Parts,
    lanes: usize,
    passing: ThinFn<Pair>,
    narrow: Primitive,
}

impl fmt::Debug for FewRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FewRows({:?})", self.whole)
    }
}

impl FewRows {
    /// Compiles a product of bf16 whose rows are few, and whose operands can be read as pairs where they lie; `None`
    /// for others.
    pub fn new(matmul: &Matmul, wanted: Wanted, isa: Isa) -> Option<FewRows> {
        let wide = Matmul { dtype: DType::F32, ..matmul.clone() };
        let whole = MatmulKernel::<f32>::new(&wide, Wanted::default(), isa);
        let (m, n, terms) = whole.extents();
        if matmul.dtype != DType::BF16 || m == 0 || n == 0 || terms == 0 {
            return None;
        }
        let (lanes, passing) = passing(isa);
        let passing = *passing.get(m - 1)?;
        let pieces = |side| {
            let pieces = Pieces::<Pair>::new(isa, DType::BF16, side, terms, (1, 1))?;
            pieces.direct.is_some().then_some(pieces)
        };
        let (a, b) = (pieces(&whole.a)?, pieces(&whole.b)?);
        let lanes = if b.direct == Some(1) { 1 } else { lanes };
        let blocks = portions(n, terms * DType::BF16.size(), 1, wanted);
        Some(FewRows { whole, a, b, blocks, lanes, passing, narrow: table::cast(isa, DType::F32, DType::BF16)? })
    }
}

impl Executable for FewRows {
    fn chunks(&self) -> usize {
        self.whole.items() * self.blocks.count
    }

    fn scratch_bytes(&self) -> usize {
        self.whole.extents().0 * GROUP * size_of::<f32>()
    }

    fn cost(&self) -> u64 {
        self.whole.cost()
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let (item, block) = (chunk / self.blocks.count, chunk % self.blocks.count);
        let (m, n, terms) = self.whole.extents();
        let (first, cols) = self.blocks.part(block);
        let end = first + cols;
        let sums = scratch.as_mut_ptr().cast::<Pair>();
        let sides = [&self.whole.a, &self.whole.b];
        // SAFETY: the layouts stay within the operands, the result is contiguous and blocks do not overlap; the
        // scratch has room for a group's sums.
        unsafe {
            let src: [*const u16; 2] = std::array::from_fn(|s| {
                let at = sides[s].items.shift(args.scalars) + sides[s].items.offset(item);
                args.operands[s].cast::<u16>().offset(at).cast_const()
            });
            let a = self.a.read(sides[0], src[0], std::ptr::null_mut(), (0, m), (0, terms));
            for j in (first..end).step_by(GROUP) {
                let cols = GROUP.min(end - j);
                let b = self.b.read(sides[1], src[1], std::ptr::null_mut(), (j, cols), (0, terms));
                // Blocks of an even number of terms, as those of the widened product.
                let (k, depth, pitch) = (terms / 2, depth(terms) / 2, GROUP);
                let (a_step, b_step) = (self.a.strides(), self.b.strides());
                for share in neighbours(cols, self.lanes) {
                    let (b, c) = (b.offset(share.first as isize * b_step.0), sums.add(share.first));
                    (self.passing)(&Thin { k, depth, a, a_step, b, b_step, panel: None, share, c, pitch });
                }
                for row in 0..m {
                    let c = args.operands[2].cast::<u16>().add((item * m + row) * n + j);
                    let src = [sums.add(row * pitch).cast_const().cast(); 3];
                    (self.narrow)(&Call { dst: c.cast(), src, step: [0; 3], rows: 1, cols });
                }
            }
        }
        Ok(())
    }
}

impl Blocked for FewRows {
    fn lines(&self) -> (usize, usize) {
        let (m, n, _) = self.whole.extents();
        (self.whole.items() * m, n)
    }

    fn block(&self, chunk: usize) -> Option<[Range<usize>; 2]> {
        let (line, (first, cols)) =
            (chunk / self.blocks.count * self.whole.extents().0, self.blocks.part(chunk % self.blocks.count));
        Some([line..line + self.whole.extents().0, first..first + cols])
    }
}

/// The lanes of a vector, and the products of 1, 2, … rows.
fn passing(isa: Isa) -> (usize, &'static [ThinFn<Pair>]) {
    match isa.vectors() {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => (x86::Widened512::LANES, &x86::widened_512::PASSING),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => (x86::Widened256::LANES, &x86::widened_256::PASSING),
        _ => (Widened4::LANES, &widened_4::PASSING),
    }
}

/// A module with the products of a vector type.
macro_rules! passing {
    ($name:ident, $vector:ty, [$($r:literal)*] $(, $feature:literal)?) => {
        pub mod $name {
            use super::*;

            $(#[target_feature(enable = $feature)])?
            unsafe fn thin<const R: usize>(product: &Thin<Pair>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::thin::thin::<$vector, R>(product) }
            }

            pub static PASSING: [ThinFn<Pair>; [$($r),*].len()] = [$(thin::<$r>),*];
        }
    };
}

/// Pairs, or sums, four at a time, as the compiler makes vectors of them.
#[derive(Clone, Copy)]
pub struct Widened4([u32; 4]);

impl Vector for Widened4 {
    type Element = Pair;
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Widened4([0; 4])
    }
    #[inline(always)]
    unsafe fn load(src: *const Pair) -> Self {
        // SAFETY: as our caller promised.
        Widened4(unsafe { src.cast::<[u32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn splat(src: *const Pair) -> Self {
        // SAFETY: as our caller promised.
        Widened4([unsafe { src.cast::<u32>().read_unaligned() }; 4])
    }
    #[inline(always)]
    unsafe fn store(self, dst: *mut Pair) {
        // SAFETY: as our caller promised.
        unsafe { dst.cast::<[u32; 4]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn plus(mut self, other: Self) -> Self {
        (0..4).for_each(|l| self.0[l] = (f32::from_bits(self.0[l]) + f32::from_bits(other.0[l])).to_bits());
        self
    }
    #[inline(always)]
    unsafe fn multiply_add(mut self, a: Self, b: Self) -> Self {
        for l in 0..4 {
            let (low, high) = (|x: u32| f32::from_bits(x << 16), |x: u32| f32::from_bits(x & 0xFFFF_0000));
            let add = |sum: f32, x: f32, y: f32| match cfg!(target_arch = "aarch64") {
                true => x.mul_add(y, sum),
                false => sum + x * y,
            };
            let first = add(f32::from_bits(self.0[l]), low(a.0[l]), low(b.0[l]));
            self.0[l] = add(first, high(a.0[l]), high(b.0[l])).to_bits();
        }
        self
    }
}

passing!(widened_4, Widened4, [1 2 3 4]);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::pack;
    use super::{Pair, Thin, ThinFn, Vector};
    use std::arch::x86_64::*;

    macro_rules! widened {
        ($name:ident, $v:ty, $lanes:literal, $load:ident, $splat:ident, $store:ident, $zero:ident, $add:ident,
            $fma:ident, $transpose:ident, $to:ident, $from:ident, $shift:ident, $and:ident, $mask:ident) => {
            /// Pairs, or sums.
            #[derive(Clone, Copy)]
            pub struct $name($v);

            impl $name {
                /// The first terms of the pairs in f32, and the second ones.
                #[inline(always)]
                unsafe fn widen(self) -> ($v, $v) {
                    // SAFETY: the machine has the instructions, as our caller promised.
                    unsafe {
                        let bits = $to(self.0);
                        ($from($shift::<16>(bits)), $from($and(bits, $mask(0xFFFF_0000u32 as i32))))
                    }
                }
            }

            impl Vector for $name {
                type Element = Pair;
                const LANES: usize = $lanes;

                #[inline(always)]
                unsafe fn zero() -> Self {
                    // SAFETY: the machine has the instruction, as our caller promised.
                    $name(unsafe { $zero() })
                }
                #[inline(always)]
                unsafe fn load(src: *const Pair) -> Self {
                    // SAFETY: as our caller promised.
                    $name(unsafe { $load(src.cast()) })
                }
                #[inline(always)]
                unsafe fn splat(src: *const Pair) -> Self {
                    // SAFETY: as our caller promised.
                    $name(unsafe { $splat(src.cast::<f32>().read_unaligned()) })
                }
                #[inline(always)]
                unsafe fn store(self, dst: *mut Pair) {
                    // SAFETY: as our caller promised.
                    unsafe { $store(dst.cast(), self.0) }
                }
                #[inline(always)]
                fn prefetch(at: *const Pair) {
                    // SAFETY: a prefetch of any address is allowed, and every x86-64 has it.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
                }
                #[inline(always)]
                unsafe fn plus(self, other: Self) -> Self {
                    // SAFETY: the machine has the instruction, as our caller promised.
                    $name(unsafe { $add(self.0, other.0) })
                }
                #[inline(always)]
                unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
                    // SAFETY: the machine has the instructions, as our caller promised.
                    unsafe {
                        let ((a, x), (b, y)) = (a.widen(), b.widen());
                        $name($fma(x, y, $fma(a, b, self.0)))
                    }
                }
                #[inline(always)]
                unsafe fn transpose(dst: *mut Pair, pitch: usize, src: *const Pair, column: impl Fn(usize) -> isize) {
                    // SAFETY: as our caller promised; bits are moved, whatever they mean.
                    unsafe { pack::$transpose(dst.cast(), pitch, src.cast(), column) }
                }
            }
        };
    }
    widened!(
        Widened512,
        __m512,
        16,
        _mm512_loadu_ps,
        _mm512_set1_ps,
        _mm512_storeu_ps,
        _mm512_setzero_ps,
        _mm512_add_ps,
        _mm512_fmadd_ps,
        transpose_16,
        _mm512_castps_si512,
        _mm512_castsi512_ps,
        _mm512_slli_epi32,
        _mm512_and_si512,
        _mm512_set1_epi32
    );
    widened!(
        Widened256,
        __m256,
        8,
        _mm256_loadu_ps,
        _mm256_set1_ps,
        _mm256_storeu_ps,
        _mm256_setzero_ps,
        _mm256_add_ps,
        _mm256_fmadd_ps,
        transpose_8,
        _mm256_castps_si256,
        _mm256_castsi256_ps,
        _mm256_slli_epi32,
        _mm256_and_si256,
        _mm256_set1_epi32
    );

    passing!(widened_512, Widened512, [1 2 3 4 5 6 7 8], "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2");
    passing!(widened_256, Widened256, [1 2 3 4 5 6], "avx2,fma,bmi2");
}
