//! ResNet for small images. He, Zhang, Ren & Sun 2015, "Deep residual learning for image recognition",
//! arXiv:1512.03385, section 4.2: three stages of basic blocks on 16, 32 and 64 channels, and shortcuts without
//! parameters (option A).

use tapeflow_nn::{BatchNorm2d, Conv2d, Generator, Linear, Module, ModuleExt, Parameter, Result, Tensor, init};

/// ResNet-20: `(N, 3, 32, 32)` → `(N, classes)`, for images of other sizes and channels too.
///
/// Paths: `conv`, `norm`, `blocks.0.conv1`, `blocks.0.norm1`, …, `fc`.
///
/// ```
/// use tapeflow_models::ResNet20;
/// use tapeflow_nn::{DType, Forward, Generator, ModuleExt, Tensor};
/// let net = ResNet20::new(3, 10, &Generator::new(1))?;
/// assert_eq!(net.num_parameters(), 269_722);
/// let scores = net.eval(|| net.forward(&Tensor::zeros([2, 3, 32, 32], DType::F32)));
/// assert_eq!(scores.shape().to_vec(), [2, 10]);
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
#[module(forward = |x| {
    let x = blocks(norm(conv(x)).relu());           // (N, 64, H / 4, W / 4)
    fc(x.adaptive_avg_pool2d(1).flatten(1, -1))
})]
pub struct ResNet20 {
    /// To 16 channels.
    pub conv: Conv2d,
    /// After it.
    pub norm: BatchNorm2d,
    /// Three stages of three.
    pub blocks: Vec<Block>,
    /// From 64 means to the classes.
    pub fc: Linear,
}

/// Two convolutions beside a shortcut.
#[derive(Clone, Debug, Module)]
#[module(forward = |x| {
    let y = norm2(conv2(norm1(conv1(x)).relu()));
    (y + shortcut(x, self.more)).relu()
})]
pub struct Block {
    /// The first; where the channels become more, its stride is 2.
    pub conv1: Conv2d,
    /// After it.
    pub norm1: BatchNorm2d,
    /// The second.
    pub conv2: Conv2d,
    /// After it.
    pub norm2: BatchNorm2d,
    /// Channels that the shortcut adds.
    #[module(skip)]
    more: usize,
}

/// The identity; with more channels, every second pixel and zeros for the new ones.
fn shortcut(x: &Tensor, more: usize) -> Tensor {
    match more {
        0 => x.clone(),
        more => x.slice_step(2, .., 2).slice_step(3, .., 2).pad(&[(0, 0), (0, more), (0, 0), (0, 0)]),
    }
}

/// 3 × 3 without bias, initialised as in He et al. 2015, arXiv:1502.01852.
fn convolution(channels: usize, outputs: usize, generator: &Generator) -> Result<Conv2d> {
    let mut conv = Conv2d::drawn(channels, outputs, 3, generator)?.padding(1).bias(false);
    conv.weight = Parameter::new(init::kaiming_normal([outputs, channels, 3, 3], 0.0, generator))?;
    Ok(conv)
}

impl Block {
    fn new(channels: usize, outputs: usize, generator: &Generator) -> Result<Self> {
        Ok(Block {
            conv1: convolution(channels, outputs, generator)?.stride(outputs / channels),
            norm1: BatchNorm2d::new(outputs)?,
            conv2: convolution(outputs, outputs, generator)?,
            norm2: BatchNorm2d::new(outputs)?,
            more: outputs - channels,
        })
    }
}

impl ResNet20 {
    /// For images of so many channels.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(channels: usize, classes: usize, generator: &Generator) -> Result<Self> {
        let widths = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64];
        let net = ResNet20 {
            conv: convolution(channels, widths[0], generator)?,
            norm: BatchNorm2d::new(widths[0])?,
            blocks: widths.windows(2).map(|w| Block::new(w[0], w[1], generator)).collect::<Result<_>>()?,
            fc: Linear::drawn(64, classes, generator)?,
        };
        net.stamp_paths();
        Ok(net)
    }
}
