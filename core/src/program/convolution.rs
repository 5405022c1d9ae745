//! What a convolution of images computes, where a device takes it as one thing and not as a product over window views.
//! Owns the description; knows no arithmetic.

use tapeflow_ir::DType;

use super::kernel::Layout;

/// One derivative of `Σ x[n, g, c, p·s + t·d] · w[g, o, c, t] · y[n, g, o, p]`, of images x of two axes that are set in
/// a frame of zeros: operands 0 (kernel or places), 1 (image) → 2, in f32 or f64, and the result is contiguous.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// Of both operands and the result; f32 or f64.
    pub dtype: DType,
    /// What is computed.
    pub part: ConvolutionPart,
    /// Images.
    pub items: usize,
    /// Groups of channels that do not see each other.
    pub groups: usize,
    /// Channels of a group of the image.
    pub channels: usize,
    /// Channels of a group of the places.
    pub outputs: usize,
    /// The image's axes.
    pub axes: [Sliding; 2],
    /// Whether tap t lies where tap K − 1 − t would.
    pub reversed: bool,
    /// Whether neighbouring places may be computed together by minimal filtering, whose sums run in another order.
    pub is_minimal: bool,
    /// Of the image as it is stored, over (items, groups, channels, its axes).
    pub image: Layout,
    /// Of the kernel over (groups, outputs, channels, taps), or of the places over (items, groups, outputs, places).
    pub other: Layout,
}

/// Which derivative.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConvolutionPart {
    /// By the places, over (items, groups, outputs, places); each sum runs over channels, then taps, in order, if it is
    /// not minimal.
    Places,
    /// By the kernel, over (groups, outputs, channels, taps).
    Kernel,
}

/// How a kernel slides along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sliding {
    /// Of the image as it is stored.
    pub stored: usize,
    /// Zeros before its first element; negative: so many elements are not seen.
    pub before: isize,
    /// From element to element within the frame; zeros lie between.
    pub spread: usize,
    /// Of the frame.
    pub framed: usize,
    /// Taps of the kernel.
    pub taps: usize,
    /// How many places there are.
    pub places: usize,
    /// From place to place.
    pub stride: usize,
    /// From tap to tap.
    pub dilation: usize,
}

impl Sliding {
    /// An axis of one element.
    pub const NONE: Sliding =
        Sliding { stored: 1, before: 0, spread: 1, framed: 1, taps: 1, places: 1, stride: 1, dilation: 1 };

    /// The stored element at a position of the frame, if it is not one of the zeros.
    pub fn element(&self, position: usize) -> Option<usize> {
        let from_first = usize::try_from(position as isize - self.before).ok()?;
        let element = from_first / self.spread;
        (from_first.is_multiple_of(self.spread) && element < self.stored).then_some(element)
    }
}

impl Convolution {
    /// Whether the layouts have as many axes as there are and windows lie within the frame.
    pub fn is_well_formed(&self) -> bool {
        let fits = |axis: &Sliding| {
            axis.taps > 0
                && axis.spread > 0
                && axis.stride > 0
                && axis.dilation > 0
                && (axis.places == 0 || (axis.places - 1) * axis.stride + (axis.taps - 1) * axis.dilation < axis.framed)
        };
        self.image.strides.len() == 5 && self.other.strides.len() == 5 && self.axes.iter().all(fits)
    }

    /// Multiplications.
    pub fn work(&self) -> usize {
        let places = self.axes.iter().map(|axis| axis.places.saturating_mul(axis.taps));
        [self.items, self.groups, self.channels, self.outputs].into_iter().chain(places).fold(1, usize::saturating_mul)
    }
}
