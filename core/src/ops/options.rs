//! The options of convolutions and pools: what is the same for all axes may be written once.
//! Owns their defaults, which are PyTorch's; knows no tensor.

use super::convolution::Step;

/// One number per axis of an image, or one for all of them.
pub trait PerAxis<const N: usize> {
    /// One per axis.
    fn per_axis(self) -> [usize; N];
}

impl<const N: usize> PerAxis<N> for usize {
    fn per_axis(self) -> [usize; N] {
        [self; N]
    }
}

impl<const N: usize> PerAxis<N> for [usize; N] {
    fn per_axis(self) -> [usize; N] {
        self
    }
}

/// How a convolution over `N` axes slides: `ConvOptions::new().stride(2).padding([1, 0])`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvOptions<const N: usize> {
    /// From window to window; 1 unless said otherwise.
    pub stride: [usize; N],
    /// Zeros on both sides of the image; 0 unless said otherwise.
    pub padding: [usize; N],
    /// From tap to tap of a window; 1 unless said otherwise.
    pub dilation: [usize; N],
    /// Into how many groups the channels are divided that know nothing of each other; 1 unless said otherwise.
    pub groups: usize,
    /// Of a transposed convolution: rows added at the end of the result; 0 unless said otherwise.
    pub output_padding: [usize; N],
}

impl<const N: usize> ConvOptions<N> {
    /// Stride 1, no padding, no dilation, one group.
    pub fn new() -> Self {
        ConvOptions { stride: [1; N], padding: [0; N], dilation: [1; N], groups: 1, output_padding: [0; N] }
    }

    /// From window to window.
    pub fn stride(mut self, stride: impl PerAxis<N>) -> Self {
        self.stride = stride.per_axis();
        self
    }

    /// Zeros on both sides.
    pub fn padding(mut self, padding: impl PerAxis<N>) -> Self {
        self.padding = padding.per_axis();
        self
    }

    /// From tap to tap.
    pub fn dilation(mut self, dilation: impl PerAxis<N>) -> Self {
        self.dilation = dilation.per_axis();
        self
    }

    /// Groups of channels.
    pub fn groups(mut self, groups: usize) -> Self {
        self.groups = groups;
        self
    }

    /// Rows added to the result of a transposed convolution.
    pub fn output_padding(mut self, output_padding: impl PerAxis<N>) -> Self {
        self.output_padding = output_padding.per_axis();
        self
    }

    pub(super) fn steps(&self) -> [Step; N] {
        std::array::from_fn(|i| Step { stride: self.stride[i], dilation: self.dilation[i] })
    }
}

impl<const N: usize> Default for ConvOptions<N> {
    fn default() -> Self {
        ConvOptions::new()
    }
}

/// How a pool over `N` axes slides: `PoolOptions::new(3).stride(2).padding(1)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolOptions<const N: usize> {
    /// Extents of the window.
    pub kernel: [usize; N],
    /// From window to window; as long as the window unless said otherwise.
    pub stride: [usize; N],
    /// Rows added on both sides, which no maximum sees and an average counts as zeros; 0 unless said otherwise.
    pub padding: [usize; N],
}

impl<const N: usize> PoolOptions<N> {
    /// Windows of this size, one beside the other.
    pub fn new(kernel: impl PerAxis<N>) -> Self {
        let kernel = kernel.per_axis();
        PoolOptions { kernel, stride: kernel, padding: [0; N] }
    }

    /// From window to window.
    pub fn stride(mut self, stride: impl PerAxis<N>) -> Self {
        self.stride = stride.per_axis();
        self
    }

    /// Rows added on both sides, at most half a window.
    pub fn padding(mut self, padding: impl PerAxis<N>) -> Self {
        self.padding = padding.per_axis();
        self
    }
}
