//! What the loops of products and convolutions ask of a vector register. Owns the trait and what follows from its few
//! required parts; which instruction does what is the instruction sets' matter.

/// A vector register.
pub trait Vector: Copy {
    /// Of its lanes.
    type Element: Copy + Default;
    /// How many elements it has.
    const LANES: usize;

    /// # Safety
    /// The machine has the instruction set (so for all of them).
    unsafe fn zero() -> Self;
    /// # Safety
    /// `LANES` elements can be read.
    unsafe fn load(src: *const Self::Element) -> Self;
    /// # Safety
    /// One element can be read.
    unsafe fn splat(src: *const Self::Element) -> Self;
    /// # Safety
    /// `LANES` elements can be written.
    unsafe fn store(self, dst: *mut Self::Element);
    /// # Safety
    /// As for `zero`.
    unsafe fn plus(self, other: Self) -> Self;
    /// Asks for the cache line at any address.
    #[inline(always)]
    fn prefetch(_at: *const Self::Element) {}
    /// The same, into the second-level cache only.
    #[inline(always)]
    fn prefetch_far(_at: *const Self::Element) {}
    /// `self + a · b`, fused where the instruction set does so.
    ///
    /// # Safety
    /// As for `zero`.
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self;

    /// Whether `load_some` is an instruction or two.
    const HAS_MASKS: bool = false;

    /// The lanes whose bits are set, lane 0 the lowest; the others are zero.
    ///
    /// # Safety
    /// These elements can be read.
    #[inline(always)]
    unsafe fn load_some(src: *const Self::Element, lanes: u32) -> Self {
        let mut found = [Self::Element::default(); 16];
        // SAFETY: as our caller promised; no vector is longer.
        unsafe {
            for (l, found) in found[..Self::LANES].iter_mut().enumerate().filter(|(l, _)| lanes >> l & 1 == 1) {
                *found = *src.wrapping_add(l);
            }
            Self::load(found.as_ptr())
        }
    }

    /// Its first `count` lanes: what lies behind them stays as it is.
    ///
    /// # Safety
    /// `count` elements can be written; at most `LANES`.
    #[inline(always)]
    unsafe fn store_some(self, dst: *mut Self::Element, count: usize) {
        let mut lanes = [Self::Element::default(); 16];
        // SAFETY: as our caller promised; no vector is longer.
        unsafe {
            self.store(lanes.as_mut_ptr());
            for (i, lane) in lanes[..count].iter().enumerate() {
                *dst.add(i) = *lane;
            }
        }
    }

    /// `dst[i] = src[2 i]` for a vector.
    ///
    /// # Safety
    /// A vector can be written, two can be read, and they do not overlap.
    #[inline(always)]
    unsafe fn evens(dst: *mut Self::Element, src: *const Self::Element) {
        // SAFETY: as our caller promised.
        unsafe { (0..Self::LANES).for_each(|i| *dst.add(i) = *src.add(2 * i)) }
    }

    /// Every second of the elements whose bits are set, the first one's the lowest; the others are zero.
    ///
    /// # Safety
    /// These elements can be read.
    #[inline(always)]
    unsafe fn evens_some(src: *const Self::Element, elements: u32) -> Self {
        let mut found = [Self::Element::default(); 16];
        // SAFETY: as our caller promised; no vector is longer.
        unsafe {
            for (l, found) in found[..Self::LANES].iter_mut().enumerate().filter(|(l, _)| elements >> (2 * l) & 1 == 1)
            {
                *found = *src.wrapping_add(2 * l);
            }
            Self::load(found.as_ptr())
        }
    }

    /// Per number t below 4 the lanes whose bits are set in the t-th mask, `src[2 l + t]` in lane l; the others are
    /// zero.
    ///
    /// # Safety
    /// These elements can be read.
    #[inline(always)]
    unsafe fn quads(src: *const Self::Element, lanes: [u32; 4]) -> [Self; 4] {
        // A bit in front of each.
        let mask = |by: u32| u32::MAX / ((1 << by) + 1);
        let spread = |bits: u32| [8, 4, 2, 1].into_iter().fold(bits, |x, by| (x | x << by) & mask(by));
        // SAFETY: as our caller promised.
        std::array::from_fn(|t| unsafe { Self::evens_some(src.wrapping_add(t), spread(lanes[t])) })
    }

    /// Elements of two vectors alternately, first that of the first; one half of them goes to each of the two places.
    ///
    /// # Safety
    /// A vector can be read and written at each, and they do not overlap.
    #[inline(always)]
    unsafe fn weave(dst: [*mut Self::Element; 2], src: [*const Self::Element; 2]) {
        for i in 0..2 * Self::LANES {
            // SAFETY: as our caller promised.
            unsafe { *dst[i / Self::LANES].add(i % Self::LANES) = *src[i % 2].add(i / 2) }
        }
    }

    /// Its elements and those of `other` alternately.
    ///
    /// # Safety
    /// As for `zero`.
    #[inline(always)]
    unsafe fn woven(self, other: Self) -> [Self; 2] {
        let mut lanes = [Self::Element::default(); 64];
        let at = lanes.as_mut_ptr();
        // SAFETY: as our caller promised; no vector is longer than 16.
        unsafe {
            self.store(at);
            other.store(at.add(16));
            let dst = at.add(32);
            Self::weave([dst, dst.add(Self::LANES)], [at.cast_const(), at.add(16).cast_const()]);
            [Self::load(dst), Self::load(dst.add(Self::LANES))]
        }
    }

    /// `dst[p · pitch + j] = src[column(j) + p]` for `LANES` each way.
    ///
    /// # Safety
    /// These elements can be read and written, and do not overlap.
    #[inline(always)]
    unsafe fn transpose(
        dst: *mut Self::Element,
        pitch: usize,
        src: *const Self::Element,
        column: impl Fn(usize) -> isize,
    ) {
        for j in 0..Self::LANES {
            // SAFETY: as our caller promised.
            unsafe {
                let line = src.offset(column(j));
                (0..Self::LANES).for_each(|p| *dst.add(p * pitch + j) = *line.add(p));
            }
        }
    }

    /// The same in registers, the first `LANES` of them: each column is read once, in one piece.
    ///
    /// # Safety
    /// These elements can be read.
    #[inline(always)]
    unsafe fn turned(src: *const Self::Element, column: impl Fn(usize) -> isize) -> [Self; 16] {
        // SAFETY: as our caller promised.
        unsafe {
            let mut square = [Self::zero(); 16];
            Self::transpose(square.as_mut_ptr().cast(), Self::LANES, src, column);
            square
        }
    }
}

/// A vector whose differences are wanted too.
pub trait Subtract: Vector {
    /// # Safety
    /// As for [`Vector::zero`].
    unsafe fn minus(self, other: Self) -> Self;
}
