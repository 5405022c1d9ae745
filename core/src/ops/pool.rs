//! Pools over windows of an image, as users call them, and enlarging it again. An average is a convolution with a
//! constant kernel; only the maximum is a primitive of its own.

use super::convolution::{Convolve, Step};
use super::cut::{Cut, Cuts};
use super::options::{PerAxis, PoolOptions};
use super::pad::Pad;
use super::window_max::{Window, WindowMax};
use crate::error::{Error, Problem};
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// Refuses what is no image of `N` axes, or not of floats.
fn check_image<const N: usize>(x: &Tensor) -> Result<(), Problem> {
    if !x.dtype().is_float() {
        return Err(Problem::DType { found: x.dtype(), wanted: "a float".into() });
    }
    if x.ndim() != N + 2 {
        let axes = if N == 1 { "length" } else { "height, width" };
        let rule = format!("an image (items, channels, {axes}) is needed").into();
        return Err(Problem::Shapes { shapes: vec![x.shape().clone()], rule });
    }
    Ok(())
}

/// The windows of a pool over an image that has them.
fn windows<const N: usize>(x: &Tensor, options: &PoolOptions<N>) -> Result<[Window; N], Problem> {
    check_image::<N>(x)?;
    for i in 0..N {
        let (kernel, padding, extent) = (options.kernel[i], options.padding[i], x.shape()[2 + i]);
        if kernel == 0 || options.stride[i] == 0 {
            return Err(Problem::Argument("kernel and stride of a pool must be at least 1".into()));
        }
        if 2 * padding > kernel {
            let rule = format!("padding {padding} must be at most half of the window's {kernel}");
            return Err(Problem::Argument(rule.into()));
        }
        if kernel > extent + 2 * padding {
            let rule = format!("windows of {kernel} must fit into {} (with padding)", extent + 2 * padding);
            return Err(Problem::Shapes { shapes: vec![x.shape().clone()], rule: rule.into() });
        }
    }
    Ok(std::array::from_fn(|i| Window { kernel: options.kernel[i], stride: options.stride[i] }))
}

impl Tensor {
    /// `padding` of `value` around the last axes.
    fn framed<const N: usize>(&self, padding: [usize; N], value: f64, site: Site) -> Tensor {
        if padding == [0; N] {
            return self.clone();
        }
        let lead = self.ndim() - N;
        let mut cuts: Cuts = smallvec::smallvec![Cut::WHOLE; self.ndim()];
        let mut ty = self.ty().clone();
        for (axis, &width) in padding.iter().enumerate() {
            cuts[lead + axis] = Cut::fixed(width);
            ty.shape.0[lead + axis] += 2 * width;
        }
        Tensor::record_at(Pad::with(cuts, value), &[self], ty, site)
    }

    fn pooled(&self, name: &'static str, site: Site, made: Result<Tensor, Problem>) -> Tensor {
        made.unwrap_or_else(|problem| Tensor::mistake_in(&[self], Error::new(name, problem, site), self.ty().clone()))
    }

    fn largest<const N: usize>(&self, options: &PoolOptions<N>, site: Site) -> Result<Tensor, Problem> {
        let windows = windows(self, options)?;
        let framed = self.framed(options.padding, f64::NEG_INFINITY, site);
        let mut ty = framed.ty().clone();
        (0..N).for_each(|i| ty.shape.0[2 + i] = windows[i].places(ty.shape[2 + i]));
        Ok(Tensor::record_at(WindowMax::max(&windows), &[&framed], ty, site))
    }

    fn averaged<const N: usize>(&self, options: &PoolOptions<N>, site: Site) -> Result<Tensor, Problem> {
        let windows = windows(self, options)?;
        let framed = self.framed(options.padding, 0.0, site);
        let along: Vec<usize> = framed.shape()[2..].to_vec();
        let places: Vec<usize> = (0..N).map(|i| windows[i].places(along[i])).collect();
        let lead = [self.shape()[0] * self.shape()[1], 1, 1];
        let images = framed.reshape_known(Shape::from([&lead[..], &along].concat()), site);
        let taps = [&[1, 1, 1], &options.kernel[..]].concat();
        let ones = self.device().scope(|| Tensor::ones(taps, self.dtype()));
        let steps = windows.map(|w| Step { stride: w.stride, dilation: 1 });
        let ty = TensorType { shape: Shape::from([&lead[..], &places].concat()), ..self.ty().clone() };
        let sums = Tensor::record_at(Convolve::places(&steps, false), &[&images, &ones], ty, site);
        let sums = sums.reshape_known(Shape::from([&self.shape()[..2], &places].concat()), site);
        Ok(sums / options.kernel.iter().product::<usize>() as f64)
    }

    /// The largest of each window along one axis; see [`Tensor::max_pool2d`].
    ///
    /// # Shapes
    /// `x: (N, C, L)` → `(N, C, ⌊(L + 2 · padding − kernel) / stride⌋ + 1)`
    #[track_caller]
    pub fn max_pool1d(&self, options: &PoolOptions<1>) -> Tensor {
        let site = Site::here();
        self.pooled("max_pool1d", site, self.largest(options, site))
    }

    /// The largest element of each window of an image.
    ///
    /// # Shapes
    /// `x: (N, C, H, W)` → `(N, C, PH, PW)` with `P = ⌊(L + 2 · padding − kernel) / stride⌋ + 1`.
    /// # Gradient
    /// Goes to the largest element, of equal ones to the first, as in PyTorch.
    /// # Numerics
    /// Padding counts as −∞; NaN wins.
    /// # Errors
    /// Windows that do not fit, padding of more than half a window, integers.
    /// # Example
    /// ```
    /// # use tapeflow_core::{DType, PoolOptions, Tensor};
    /// let x = Tensor::arange(16, DType::F32).reshape([1, 1, 4, 4]);
    /// assert_eq!(x.max_pool2d(&PoolOptions::new(2)).to_vec::<f32>()?, [5.0, 7.0, 13.0, 15.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn max_pool2d(&self, options: &PoolOptions<2>) -> Tensor {
        let site = Site::here();
        self.pooled("max_pool2d", site, self.largest(options, site))
    }

    /// The mean of each window along one axis; see [`Tensor::avg_pool2d`].
    ///
    /// # Shapes
    /// `x: (N, C, L)` → `(N, C, ⌊(L + 2 · padding − kernel) / stride⌋ + 1)`
    #[track_caller]
    pub fn avg_pool1d(&self, options: &PoolOptions<1>) -> Tensor {
        let site = Site::here();
        self.pooled("avg_pool1d", site, self.averaged(options, site))
    }

    /// The mean of each window of an image; zeros of the padding count, as PyTorch's `count_include_pad`.
    ///
    /// # Shapes
    /// `x: (N, C, H, W)` → `(N, C, PH, PW)` with `P = ⌊(L + 2 · padding − kernel) / stride⌋ + 1`.
    /// # Errors
    /// Windows that do not fit, padding of more than half a window, integers.
    #[track_caller]
    pub fn avg_pool2d(&self, options: &PoolOptions<2>) -> Tensor {
        let site = Site::here();
        self.pooled("avg_pool2d", site, self.averaged(options, site))
    }

    fn adaptive<const N: usize>(&self, places: [usize; N]) -> Result<Tensor, Problem> {
        check_image::<N>(self)?;
        if places.contains(&0) {
            return Err(Problem::Argument("an adaptive pool must have at least one place per axis".into()));
        }
        if places == [1; N] && !self.shape()[2..].contains(&0) {
            // One mean, not the mean of means along each axis.
            let axes: Vec<isize> = (0..N as isize).map(|axis| 2 + axis).collect();
            return Ok(self.mean_dim(&axes[..], true));
        }
        let mut out = self.clone();
        for (axis, &wanted) in places.iter().enumerate() {
            let (axis, extent) = (2 + axis, self.shape()[2 + axis]);
            if extent == 0 {
                let rule = "an axis of 0 has no mean".into();
                return Err(Problem::Shapes { shapes: vec![self.shape().clone()], rule });
            }
            if extent == wanted {
                continue;
            }
            if extent % wanted == 0 {
                let mut split = out.shape().0.clone();
                split[axis] = wanted;
                split.insert(axis + 1, extent / wanted);
                out = out.reshape_known(Shape(split), Site::here()).mean_dim(axis as isize + 1, false);
                continue;
            }
            // Windows of several lengths: place i averages ⌊i L / P⌋ to ⌈(i + 1) L / P⌉.
            let mut weights = vec![0f64; wanted * extent];
            for (i, row) in weights.chunks_mut(extent).enumerate() {
                let window = i * extent / wanted..((i + 1) * extent).div_ceil(wanted);
                let share = 1.0 / window.len() as f64;
                row[window].fill(share);
            }
            let means = self.device().scope(|| Tensor::from_vec(weights, [wanted, extent])).cast(self.dtype());
            out = if axis + 1 == self.ndim() { out.matmul(&means.t()) } else { means.matmul(&out) };
        }
        Ok(out)
    }

    /// The means of `places` windows along one axis; see [`Tensor::adaptive_avg_pool2d`].
    ///
    /// # Shapes
    /// `x: (N, C, L)` → `(N, C, places)`
    #[track_caller]
    pub fn adaptive_avg_pool1d(&self, places: usize) -> Tensor {
        self.pooled("adaptive_avg_pool1d", Site::here(), self.adaptive([places]))
    }

    /// The means of as many windows as wanted: place i of P along an axis of L averages ⌊i L / P⌋ to ⌈(i + 1) L / P⌉.
    /// With one place per axis it is the global average pool.
    ///
    /// # Shapes
    /// `x: (N, C, H, W)` → `(N, C, places…)`
    /// # Example
    /// ```
    /// # use tapeflow_core::{DType, Tensor};
    /// let x = Tensor::arange(15, DType::F32).reshape([1, 1, 3, 5]);
    /// assert_eq!(x.adaptive_avg_pool2d(1).to_vec::<f32>()?, [7.0]);
    /// assert_eq!(x.adaptive_avg_pool2d([1, 2]).to_vec::<f32>()?, [6.0, 8.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn adaptive_avg_pool2d(&self, places: impl PerAxis<2>) -> Tensor {
        self.pooled("adaptive_avg_pool2d", Site::here(), self.adaptive(places.per_axis()))
    }

    /// Repeats each pixel `factor` times along both axes.
    ///
    /// # Shapes
    /// `x: (N, C, H, W)` → `(N, C, H · factor, W · factor)`
    #[track_caller]
    pub fn upsample_nearest2d(&self, factor: impl PerAxis<2>) -> Tensor {
        let (site, [down, across]) = (Site::here(), factor.per_axis());
        let made = (|| {
            let &[items, channels, rows, cols] = &self.shape()[..] else {
                let rule = "an image (items, channels, height, width) is needed".into();
                return Err(Problem::Shapes { shapes: vec![self.shape().clone()], rule });
            };
            if down == 0 || across == 0 {
                return Err(Problem::Argument("an image is enlarged at least 1 time".into()));
            }
            let apart = self.reshape_known(Shape::from([items, channels, rows, 1, cols, 1]), site);
            let repeated = apart.expand([items, channels, rows, down, cols, across]);
            Ok(repeated.reshape_known(Shape::from([items, channels, rows * down, cols * across]), site))
        })();
        self.pooled("upsample_nearest2d", site, made)
    }
}
