//! Pools, upsampling and flattening as layers, for use in [`Sequential`](crate::Sequential); the formulas stand with
//! the tensor operations.

use tapeflow_core::{PerAxis, PoolOptions, Tensor};

use crate::Module;
use crate::module::Forward;

macro_rules! pools {
    ($($(#[$doc:meta])* $name:ident $axes:literal $operation:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Module)]
        pub struct $name {
            /// Kernel, stride, padding.
            #[module(skip)]
            pub options: PoolOptions<$axes>,
        }

        impl $name {
            /// Windows of this size, one beside the other.
            pub fn new(kernel: impl PerAxis<$axes>) -> Self {
                $name { options: PoolOptions::new(kernel) }
            }

            /// With another stride, from window to window.
            pub fn stride(mut self, stride: impl PerAxis<$axes>) -> Self {
                self.options = self.options.stride(stride);
                self
            }

            /// With rows added on both sides, at most half a window.
            pub fn padding(mut self, padding: impl PerAxis<$axes>) -> Self {
                self.options = self.options.padding(padding);
                self
            }
        }

        impl Forward for $name {
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Tensor {
                x.$operation(&self.options)
            }
        }
    )*};
}

pools! {
    /// [`Tensor::max_pool1d`] as a layer.
    MaxPool1d 1 max_pool1d;
    /// [`Tensor::max_pool2d`] as a layer.
    ///
    /// ```
    /// use tapeflow_nn::{DType, Forward, MaxPool2d, Tensor};
    /// let pool = MaxPool2d::new(3).stride(2).padding(1);
    /// assert_eq!(pool.forward(&Tensor::zeros([5, 8, 32, 32], DType::F32)).shape().to_vec(), [5, 8, 16, 16]);
    /// ```
    MaxPool2d 2 max_pool2d;
    /// [`Tensor::avg_pool1d`] as a layer.
    AvgPool1d 1 avg_pool1d;
    /// [`Tensor::avg_pool2d`] as a layer.
    AvgPool2d 2 avg_pool2d;
}

/// [`Tensor::adaptive_avg_pool2d`] as a layer: with 1, the global average.
#[derive(Clone, Debug, Module)]
pub struct AdaptiveAvgPool2d {
    /// Rows and columns of the result.
    #[module(skip)]
    pub places: [usize; 2],
}

impl AdaptiveAvgPool2d {
    /// To so many rows and columns.
    pub fn new(places: impl PerAxis<2>) -> Self {
        AdaptiveAvgPool2d { places: places.per_axis() }
    }
}

impl Forward for AdaptiveAvgPool2d {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        x.adaptive_avg_pool2d(self.places)
    }
}

/// [`Tensor::upsample_nearest2d`] as a layer: each pixel repeated.
#[derive(Clone, Debug, Module)]
pub struct Upsample {
    /// How often, along rows and columns.
    #[module(skip)]
    pub factor: [usize; 2],
}

impl Upsample {
    /// The nearest pixel, so many times as large.
    pub fn nearest(factor: impl PerAxis<2>) -> Self {
        Upsample { factor: factor.per_axis() }
    }
}

impl Forward for Upsample {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        x.upsample_nearest2d(self.factor)
    }
}

/// All axes but the first become one: what stands between convolutions and a linear layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Module)]
pub struct Flatten;

impl Forward for Flatten {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        x.flatten(1, -1)
    }
}
