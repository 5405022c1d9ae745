//! Micro-kernels of matrix products: a tile of the result held in registers, once per dtype and instruction set.
//! Owns the arithmetic of a sum over `k` and the table of tile sizes; knows neither the cut nor where panels come from.
//!
//! Every element is one chain over `k` in order, from zero. Its bits do not depend on the tile it lies in, since lanes
//! never mix: only on the instruction set, which says whether multiplication and addition are fused.

use std::fmt;

use super::conv::{lanes, paired, phase, pixels, shifted, tile as sums};
use super::isa::Isa;
use super::pack::Columns;
use super::thin::{Thin, ThinFn};
use super::tiny::Plain;
use super::vector::{Primitive, select};
use super::windows::Panel;
pub use portable::Portable;
pub use register::{Subtract, Vector};

/// A tile of the result: `c[r, j] = Σ a[r, p] · b[p, j]`, or `+=`.
#[derive(Clone, Copy, Debug)]
pub struct Tile<T> {
    /// Length of the sum.
    pub k: usize,
    /// The first row of `a`.
    pub a: *const T,
    /// From row to row of `a`, and along `k`.
    pub a_step: (isize, isize),
    /// The first row of `b`: whole vectors side by side.
    pub b: *const T,
    /// From row to row of `b`.
    pub b_step: isize,
    /// The first element of the result, columns side by side.
    pub c: *mut T,
    /// From row to row of the result.
    pub pitch: usize,
    /// Whether the sum is added to what is there.
    pub add: bool,
}

/// Computes a tile of a fixed size.
///
/// # Safety
/// The addresses suit the tile and its size, `c` overlaps neither operand, and the machine has the instruction set.
pub type TileFn<T> = unsafe fn(&Tile<T>);

/// What a dtype and an instruction set offer.
pub struct Micro<T: 'static> {
    /// Elements of a vector.
    pub lanes: usize,
    /// `tiles[w - 1][r - 1]` computes `r` rows of `w` vectors.
    pub tiles: &'static [&'static [TileFn<T>]],
    /// `thin[r - 1]` computes `r` rows with what passes by of `b`.
    pub thin: &'static [ThinFn<T>],
    /// Packs a panel of `b`.
    pub columns: unsafe fn(&Columns<T>),
    /// Packs a panel of `b` that lies along several axes.
    pub windows: unsafe fn(&Panel<'_, T>),
    /// What convolutions need.
    pub conv: Conv<T>,
}

/// What a dtype and an instruction set offer convolutions; tiles are of the sizes of a product's.
pub struct Conv<T: 'static> {
    /// Sums of terms that lie at offsets.
    pub strips: &'static [&'static [sums::StripFn<T>]],
    /// Dot products.
    pub dots: &'static [&'static [sums::DotsFn<T>]],
    /// The sums of their lanes.
    pub totals: sums::TotalsFn<T>,
    /// The sums of chunks' sums.
    pub blocks: unsafe fn(&sums::Blocks<T>),
    /// Lays out an image as places see it.
    pub fill: unsafe fn(&mut shifted::Fill<'_, T>),
    /// Lays out an image with its channels side by side.
    pub turn: unsafe fn(&pixels::Turn<'_, T>),
    /// Lays out several images side by side.
    pub enter: unsafe fn(&lanes::Enter<'_, T>),
    /// Puts results of images side by side where they belong.
    pub leave: unsafe fn(&lanes::Leave<'_, T>),
    /// Puts the places of two phases together.
    pub weave: unsafe fn(&phase::Weave<T>),
    /// Lays out an image as minimal filtering sees it.
    pub pair: unsafe fn(&paired::Pair<'_, T>),
    /// Puts its sums together.
    pub join: unsafe fn(&paired::Join<T>),
    /// Makes what pairs of places see of pixels.
    pub differences: unsafe fn(&paired::Differences<T>),
    /// Makes the sums and differences of pairs of places.
    pub halves: unsafe fn(&paired::Halves<T>),
}

impl<T> fmt::Debug for Micro<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Micro({} lanes)", self.lanes)
    }
}

impl<T> Micro<T> {
    /// Vectors of the widest tile.
    pub fn vectors(&self) -> usize {
        self.tiles.len()
    }

    /// Rows of the highest tile.
    pub fn height(&self) -> usize {
        self.tiles[0].len()
    }

    /// Columns of the widest tile.
    pub fn width(&self) -> usize {
        self.vectors() * self.lanes
    }
}

/// How many steps of `k` ahead a tile asks for rows of `a` side by side: further ahead, long strides would drive each
/// other out of the cache.
const AHEAD_A: isize = 4;
/// How many a single row of `a` asks for `b`.
const AHEAD_B: isize = 12;
/// How many cache lines ahead rows of `a` are asked for along which the terms lie.
const AHEAD_LINES: usize = 3;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Where row `r` begins, in steps of so many bytes.
///
/// Some multiples are hidden from the compiler, and all the others are theirs twice or four times: addresses that an
/// instruction computes. Of eight multiples of one number it would make a chain of additions, as long as a narrow
/// tile's multiplications take.
#[inline(always)]
fn rows(step: isize) -> impl Fn(usize) -> isize {
    let [one, three, five, seven] = [step, 3 * step, 5 * step, 7 * step].map(hidden);
    move |r| match r {
        0 => 0,
        1 | 2 | 4 => one * r as isize,
        3 | 6 => three * (r / 3) as isize,
        5 => five,
        7 => seven,
        _ => step * r as isize,
    }
}

/// The same number, of which the compiler knows nothing.
#[inline(always)]
fn hidden(mut number: isize) -> isize {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    // SAFETY: no instructions.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) number, options(pure, nomem, nostack, preserves_flags));
    }
    number
}

/// The tile of `R` rows by `W` vectors.
///
/// What will be needed is asked for little by little while there is something else to do: a machine waits for few cache
/// lines at a time.
///
/// # Safety
/// As for [`TileFn`].
#[inline(always)]
pub unsafe fn tile<V: Vector, const R: usize, const W: usize>(tile: &Tile<V::Element>) {
    let Tile { k, mut a, a_step: (a_row, a_col), mut b, b_step, c, pitch, add } = *tile;
    let row = rows(a_row * size_of::<V::Element>() as isize);
    // SAFETY: our caller promised that the addresses suit; the steps past the last `p` are never read.
    unsafe {
        let mut acc = [[V::zero(); W]; R];
        // No closures: one that is not inlined has no vectors.
        macro_rules! terms {
            ($count:expr, $ahead:expr) => {
                for _ in 0..$count {
                    let mut line = [V::zero(); W];
                    for (w, line) in line.iter_mut().enumerate() {
                        *line = V::load(b.add(w * V::LANES));
                        if R == 1 {
                            // Nothing but reading `b`, perhaps in strides too long for the hardware to foresee.
                            V::prefetch(b.wrapping_offset(AHEAD_B * b_step).wrapping_add(w * V::LANES));
                        }
                    }
                    if $ahead {
                        V::prefetch(a.wrapping_offset(AHEAD_A * a_col));
                    }
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let x = V::splat(a.byte_offset(row(r)));
                        for (acc, &line) in acc.iter_mut().zip(&line) {
                            *acc = acc.multiply_add(x, line);
                        }
                    }
                    a = a.wrapping_offset(a_col);
                    b = b.wrapping_offset(b_step);
                }
            };
        }
        macro_rules! result {
            ($r:expr) => {
                for w in 0..W {
                    V::prefetch(c.wrapping_add($r * pitch + w * V::LANES));
                }
            };
        }
        let run = LINE / size_of::<V::Element>();
        let lines = k / run;
        if R > 1 && a_col == 1 && lines >= R {
            let next = a.wrapping_offset(R as isize * a_row);
            for number in 0..lines {
                // The result is far away when its turn comes.
                if number < R {
                    result!(number);
                }
                // A line of each of these rows; at their end, of those below.
                let mut ahead = match number + AHEAD_LINES < lines {
                    true => a.wrapping_add(AHEAD_LINES * run),
                    false => next.wrapping_add((number + AHEAD_LINES - lines) * run),
                };
                for _ in 0..R {
                    V::prefetch(ahead);
                    ahead = ahead.wrapping_offset(a_row);
                    terms!(run / R, false);
                }
                terms!(run % R, false);
            }
            terms!(k % run, false);
        } else {
            for r in 0..R {
                result!(r);
            }
            terms!(k, true);
        }
        for (r, acc) in acc.iter().enumerate() {
            for (w, &acc) in acc.iter().enumerate() {
                let at = c.add(r * pitch + w * V::LANES);
                let sum = if add { V::load(at).plus(acc) } else { acc };
                sum.store(at);
            }
        }
    }
}

/// `table!(tile [1 2 …] 1 2 …)`: the table of all tiles of these rows by these vectors.
macro_rules! table {
    ($tile:ident $rows:tt $($w:literal)*) => { &[$(table!(@ $tile $rows $w)),*] };
    (@ $tile:ident [$($r:literal)*] $w:literal) => { &[$($tile::<$r, $w>),*] };
}

#[cfg(target_arch = "x86_64")]
pub(super) use table;

/// The thin products of these rows.
macro_rules! thins {
    ([$($r:literal)*]) => { &[$(thin::<$r>),*] };
}

#[cfg(target_arch = "x86_64")]
pub(super) use thins;

/// A module with the `MICRO` of a vector type.
macro_rules! micro {
    ($name:ident, $vector:ty, $element:ty, $rows:tt, [$($w:literal)*] $(, $feature:literal)?) => {
        pub mod $name {
            use super::*;

            $(#[target_feature(enable = $feature)])?
            unsafe fn tile<const R: usize, const W: usize>(tile: &Tile<$element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::micro::tile::<$vector, R, W>(tile) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn thin<const R: usize>(product: &Thin<$element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::thin::thin::<$vector, R>(product) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn columns(panel: &Columns<$element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::pack::columns::<$vector>(panel) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn windows(panel: &Panel<'_, $element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::windows::panel::<$vector>(panel) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn strip<const R: usize, const W: usize>(strip: &crate::cpu::conv::tile::Strip<$element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::tile::strip::<$vector, R, W>(strip) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn dots<const R: usize, const W: usize>(dots: &crate::cpu::conv::tile::Dots<$element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::tile::dots::<$vector, R, W>(dots) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn totals(vectors: *const $element, count: usize, dst: *mut $element) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::tile::totals::<$vector>(vectors, count, dst) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn blocks(blocks: &crate::cpu::conv::tile::Blocks<$element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::tile::blocks::<$vector>(blocks) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn fill(fill: &mut crate::cpu::conv::shifted::Fill<'_, $element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::shifted::fill::<$vector>(fill) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn turn(turn: &crate::cpu::conv::pixels::Turn<'_, $element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::pixels::turn::<$vector>(turn) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn enter(enter: &crate::cpu::conv::lanes::Enter<'_, $element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::lanes::enter::<$vector>(enter) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn leave(leave: &crate::cpu::conv::lanes::Leave<'_, $element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::lanes::leave::<$vector>(leave) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn weave(weave: &crate::cpu::conv::phase::Weave<$element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::phase::weave::<$vector>(weave) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn pair(pair: &crate::cpu::conv::paired::Pair<'_, $element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::paired::pair::<$vector>(pair) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn join(join: &crate::cpu::conv::paired::Join<$element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::paired::join::<$vector>(join) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn differences(differences: &crate::cpu::conv::paired::Differences<$element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::paired::differences::<$vector>(differences) }
            }

            $(#[target_feature(enable = $feature)])?
            unsafe fn halves(halves: &crate::cpu::conv::paired::Halves<$element>) {
                // SAFETY: as our caller promised.
                unsafe { crate::cpu::conv::paired::halves::<$vector>(halves) }
            }

            pub static MICRO: Micro<$element> = Micro {
                lanes: <$vector>::LANES,
                tiles: table!(tile $rows $($w)*),
                thin: thins!($rows),
                columns,
                windows,
                conv: crate::cpu::micro::Conv {
                    strips: table!(strip $rows $($w)*),
                    dots: table!(dots $rows $($w)*),
                    totals,
                    blocks,
                    fill,
                    turn,
                    enter,
                    leave,
                    weave,
                    pair,
                    join,
                    differences,
                    halves,
                },
            };
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub(super) use micro;

/// What products are computed in.
pub trait Element: Copy + Default + fmt::Debug + Send + Sync + 'static {
    /// Zero.
    const ZERO: Self;
    /// Its micro-kernels.
    fn micro(isa: Isa) -> &'static Micro<Self>;
    /// The plain loops for tiny products, if there are any.
    fn plain(isa: Isa) -> Option<Primitive>;
    /// `self + other`.
    fn plus(self, other: Self) -> Self;
}

/// A dtype whose elements are computed with one by one.
pub trait Number: Element {
    /// A half.
    const HALF: Self;
    /// `self − other`.
    fn minus(self, other: Self) -> Self;
    /// `self · other`.
    fn times(self, other: Self) -> Self;
    /// `self + a · b`.
    fn multiply_add(self, a: Self, b: Self) -> Self;
    /// `self + a · b`, rounded once.
    fn fused(self, a: Self, b: Self) -> Self;
}

macro_rules! element {
    ($t:ty, $avx512:ident, $avx2:ident, $vector:ident) => {
        impl Element for $t {
            const ZERO: $t = 0.0;

            fn micro(isa: Isa) -> &'static Micro<$t> {
                match isa.vectors() {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => &x86::$avx512::MICRO,
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => &x86::$avx2::MICRO,
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon => &aarch64::$vector::MICRO,
                    _ => &$vector::MICRO,
                }
            }

            fn plain(isa: Isa) -> Option<Primitive> {
                Some(match fuses(isa) {
                    true => select::<Plain<$t, true>>(isa),
                    false => select::<Plain<$t, false>>(isa),
                })
            }

            #[inline(always)]
            fn plus(self, other: $t) -> $t {
                self + other
            }
        }

        impl Number for $t {
            const HALF: $t = 0.5;

            #[inline(always)]
            fn minus(self, other: $t) -> $t {
                self - other
            }

            #[inline(always)]
            fn times(self, other: $t) -> $t {
                self * other
            }

            #[inline(always)]
            fn multiply_add(self, a: $t, b: $t) -> $t {
                self + a * b
            }

            #[inline(always)]
            fn fused(self, a: $t, b: $t) -> $t {
                a.mul_add(b, self)
            }
        }
    };
}
element!(f32, f32x16, f32x8, f32x4);
element!(f64, f64x8, f64x4, f64x2);

/// Whether an instruction set fuses multiplication and addition. Without such an instruction it is a call per element.
pub fn fuses(isa: Isa) -> bool {
    match isa.vectors() {
        Isa::Avx512 | Isa::Avx512Bf16 | Isa::Avx2 => true,
        Isa::Neon | Isa::Baseline => cfg!(target_arch = "aarch64"),
    }
}

micro!(f32x4, Portable<f32, 4>, f32, [1 2 3 4], [1 2]);
micro!(f64x2, Portable<f64, 2>, f64, [1 2 3 4], [1 2]);

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod portable;
mod register;
#[cfg(target_arch = "x86_64")]
mod x86;
