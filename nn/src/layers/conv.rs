//! Convolutions and transposed convolutions as layers; the formulas stand with the tensor operations.

use tapeflow_core::{ConvOptions, Generator, Parameter, PerAxis, Precision, Tensor, default_generator};

use crate::Module;
use crate::error::Result;
use crate::init;
use crate::module::Forward;

/// A kernel and a bias as PyTorch begins them: uniform in ±1/√fan_in, where the fan-in is what a weight's axes but the
/// first have together.
fn drawn(shape: Vec<usize>, outputs: usize, generator: &Generator) -> (Tensor, Tensor) {
    let fan_in: usize = shape[1..].iter().product();
    let bound = 1.0 / (fan_in.max(1) as f64).sqrt();
    let weight = init::kaiming_uniform(shape, 5f64.sqrt(), generator);
    (weight, init::uniform([outputs], -bound, bound, generator))
}

macro_rules! convolutions {
    ($($(#[$doc:meta])* $name:ident $axes:literal $operation:ident $weight:literal $order:expr, $ones:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Module)]
        pub struct $name {
            #[doc = $weight]
            pub weight: Parameter,
            /// `(outputs,)`
            pub bias: Option<Parameter>,
            /// Stride, padding, dilation, groups.
            #[module(skip)]
            pub options: ConvOptions<$axes>,
            #[module(skip)]
            channels: usize,
            #[module(skip)]
            outputs: usize,
            #[module(skip)]
            kernel: [usize; $axes],
            #[module(skip)]
            generator: Generator,
        }

        impl $name {
            /// From `channels` to `outputs` with a kernel of this size, stride 1, no padding, one group and a bias,
            /// initialised as PyTorch does it, with the default generator.
            ///
            /// # Errors
            /// If there is no memory for it.
            pub fn new(channels: usize, outputs: usize, kernel: impl PerAxis<$axes>) -> Result<Self> {
                Self::drawn(channels, outputs, kernel, &default_generator())
            }

            /// The same from a generator of one's own.
            ///
            /// # Formula
            /// The weight by [`init::kaiming_uniform`] with a = √5, which makes its bound 1/√fan_in; the bias uniform
            /// in the same bounds.
            /// # Errors
            /// If there is no memory for it.
            pub fn drawn(
                channels: usize,
                outputs: usize,
                kernel: impl PerAxis<$axes>,
                generator: &Generator,
            ) -> Result<Self> {
                let (kernel, generator) = (kernel.per_axis(), generator.clone());
                let (weight, bias) = drawn(Self::shape(channels, outputs, &kernel, 1), outputs, &generator);
                Ok($name {
                    weight: Parameter::new(weight)?,
                    bias: Some(Parameter::new(bias)?),
                    options: ConvOptions::new(),
                    channels,
                    outputs,
                    kernel,
                    generator,
                })
            }

            fn shape(channels: usize, outputs: usize, kernel: &[usize], groups: usize) -> Vec<usize> {
                let order: fn(usize, usize) -> [usize; 2] = $order;
                let [first, second] = order(channels, outputs);
                [&[first, second / groups.max(1)], kernel].concat()
            }

            /// With another stride, from window to window.
            pub fn stride(mut self, stride: impl PerAxis<$axes>) -> Self {
                self.options = self.options.stride(stride);
                self
            }

            /// With zeros on both sides of the image (a transposed convolution has so much less of its result).
            pub fn padding(mut self, padding: impl PerAxis<$axes>) -> Self {
                self.options = self.options.padding(padding);
                self
            }

            /// With another dilation, from tap to tap.
            pub fn dilation(mut self, dilation: impl PerAxis<$axes>) -> Self {
                self.options = self.options.dilation(dilation);
                self
            }

            /// With channels in groups that know nothing of each other; the weight and the bias are drawn anew, for
            /// their fan-in is another.
            ///
            /// # Errors
            /// Groups that do not divide the channels or the outputs come out where the layer is used; here only if
            /// there is no memory.
            pub fn groups(mut self, groups: usize) -> Result<Self> {
                let shape = Self::shape(self.channels, self.outputs, &self.kernel, groups);
                let (weight, bias) = drawn(shape, self.outputs, &self.generator);
                self.options = self.options.groups(groups);
                self.weight = Parameter::new(weight)?;
                self.bias = self.bias.map(|_| Parameter::new(bias)).transpose()?;
                Ok(self)
            }

            /// Keeps the bias, or takes it away.
            pub fn bias(mut self, wanted: bool) -> Self {
                self.bias = self.bias.filter(|_| wanted);
                self
            }
        }

        impl Forward for $name {
            #[track_caller]
            fn forward(&self, x: &Tensor) -> Tensor {
                let y = x.$operation(&self.weight.tensor(), &self.options);
                match &self.bias {
                    Some(bias) => y + Precision::current().operand(&bias.tensor()).reshape($ones),
                    None => y,
                }
            }
        }
    )*};
}

convolutions! {
    /// Convolution along one axis; see [`Tensor::conv1d`].
    ///
    /// # Shapes
    /// `x: (N, channels, L)` → `(N, outputs, P)`
    Conv1d 1 conv1d "`(outputs, channels / groups, K)`" |channels, outputs| [outputs, channels], [1, -1, 1];
    /// Convolution of images; see [`Tensor::conv2d`].
    ///
    /// # Shapes
    /// `x: (N, channels, H, W)` → `(N, outputs, PH, PW)`
    ///
    /// ```
    /// use tapeflow_nn::{Conv2d, DType, Forward, Tensor};
    /// let conv = Conv2d::new(3, 8, 3)?.stride(2).padding(1);
    /// assert_eq!(conv.forward(&Tensor::zeros([5, 3, 32, 32], DType::F32)).shape().to_vec(), [5, 8, 16, 16]);
    /// # Ok::<(), tapeflow_nn::Error>(())
    /// ```
    Conv2d 2 conv2d "`(outputs, channels / groups, KH, KW)`" |channels, outputs| [outputs, channels], [1, -1, 1, 1];
    /// Transposed convolution along one axis; see [`Tensor::conv_transpose1d`].
    ///
    /// # Shapes
    /// `x: (N, channels, P)` → `(N, outputs, L)`
    ConvTranspose1d 1 conv_transpose1d "`(channels, outputs / groups, K)`" |channels, outputs| [channels, outputs], [1, -1, 1];
    /// Transposed convolution of images, which enlarges them; see [`Tensor::conv_transpose2d`].
    ///
    /// # Shapes
    /// `x: (N, channels, PH, PW)` → `(N, outputs, H, W)`
    ///
    /// ```
    /// use tapeflow_nn::{ConvTranspose2d, DType, Forward, Tensor};
    /// let up = ConvTranspose2d::new(8, 3, 4)?.stride(2).padding(1);
    /// assert_eq!(up.forward(&Tensor::zeros([5, 8, 16, 16], DType::F32)).shape().to_vec(), [5, 3, 32, 32]);
    /// # Ok::<(), tapeflow_nn::Error>(())
    /// ```
    ConvTranspose2d 2 conv_transpose2d "`(channels, outputs / groups, KH, KW)`" |channels, outputs| [channels, outputs], [1, -1, 1, 1];
}

macro_rules! output_padding {
    ($($name:ident $axes:literal)*) => {$(
        impl $name {
            /// With rows added at the end of the result, to choose among the sizes that a stride leaves open.
            pub fn output_padding(mut self, output_padding: impl PerAxis<$axes>) -> Self {
                self.options = self.options.output_padding(output_padding);
                self
            }
        }
    )*};
}
output_padding!(ConvTranspose1d 1 ConvTranspose2d 2);
