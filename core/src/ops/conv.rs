//! Convolutions and transposed convolutions of images, as users call them: shape rules and documentation.
//! The arithmetic is `convolution`'s.

use super::convolution::{Convolve, LEAD, Spread};
use super::cut::{Cut, Cuts};
use super::movement::Movement;
use super::options::ConvOptions;
use super::pad::Pad;
use crate::error::{Error, Problem};
use crate::precision::Precision;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// An image and a kernel that fit together.
struct Operands {
    items: usize,
    groups: usize,
    /// Channels of a group of the image, and outputs of a group.
    channels: usize,
    outputs: usize,
}

/// Checks what both directions ask for.
fn check<const N: usize>(
    x: &Tensor,
    weight: &Tensor,
    options: &ConvOptions<N>,
    is_transposed: bool,
) -> Result<Operands, Problem> {
    if x.dtype() != weight.dtype() {
        return Err(Problem::DTypes { left: x.dtype(), right: weight.dtype() });
    }
    if !x.dtype().is_float() {
        return Err(Problem::DType { found: x.dtype(), wanted: "a float".into() });
    }
    let refuse =
        |rule: String| Problem::Shapes { shapes: vec![x.shape().clone(), weight.shape().clone()], rule: rule.into() };
    if x.ndim() != N + 2 || weight.ndim() != N + 2 {
        let axes = if N == 1 { "length" } else { "height, width" };
        let kernel = if is_transposed { "channels, outputs / groups" } else { "outputs, channels / groups" };
        return Err(refuse(format!("the image must be (items, channels, {axes}), the kernel ({kernel}, {axes})")));
    }
    let groups = options.groups;
    let positive = [("stride", options.stride), ("dilation", options.dilation)];
    if let Some((name, _)) = positive.iter().find(|(_, values)| values.contains(&0)) {
        return Err(Problem::Argument(format!("the {name} of a convolution must be at least 1").into()));
    }
    let channels = x.shape()[1];
    let (first, second) = (weight.shape()[0], weight.shape()[1]);
    let divided = if is_transposed { channels } else { first };
    if groups == 0 || !channels.is_multiple_of(groups) || !divided.is_multiple_of(groups) {
        let rule = format!("{groups} groups must divide the image's {channels} channels and the kernel's {first} rows");
        return Err(refuse(rule));
    }
    let (found, wanted) = if is_transposed { (first, channels) } else { (second, channels / groups) };
    if found != wanted {
        let axis = if is_transposed { "first" } else { "second" };
        let rule = format!(
            "the kernel's {axis} axis must be {wanted}, for an image of {channels} channels in {groups} \
             {}",
            if groups == 1 { "group" } else { "groups" }
        );
        return Err(refuse(rule));
    }
    if weight.shape()[2..].contains(&0) || x.shape()[2..].contains(&0) {
        return Err(refuse("neither the image nor the kernel may have an axis of 0 to slide along".into()));
    }
    let outputs = if is_transposed { second } else { first / groups };
    Ok(Operands { items: x.shape()[0], groups, channels: channels / groups, outputs })
}

/// `(a, b, c)` before the axes of an image.
fn led(lead: [usize; LEAD], along: &[usize]) -> Shape {
    Shape(lead.into_iter().chain(along.iter().copied()).collect())
}

impl Tensor {
    #[track_caller]
    fn convolve<const N: usize>(
        &self,
        weight: &Tensor,
        options: &ConvOptions<N>,
        site: Site,
    ) -> Result<Tensor, Problem> {
        let precision = Precision::current();
        precision.operand(self).convolve_as_is(&precision.operand(weight), options, site)
    }

    fn convolve_as_is<const N: usize>(
        &self,
        weight: &Tensor,
        options: &ConvOptions<N>,
        site: Site,
    ) -> Result<Tensor, Problem> {
        let Operands { items, groups, channels, outputs } = check(self, weight, options, false)?;
        if options.output_padding != [0; N] {
            let rule = "output_padding belongs to transposed convolutions; `padding` pads the image";
            return Err(Problem::Argument(rule.into()));
        }
        let taps = &weight.shape()[2..];
        let image: Vec<usize> = (0..N).map(|i| self.shape()[2 + i] + 2 * options.padding[i]).collect();
        let reach: Vec<usize> = (0..N).map(|i| (taps[i] - 1) * options.dilation[i] + 1).collect();
        if let Some(axis) = (0..N).find(|&i| reach[i] > image[i]) {
            let rule = format!(
                "windows of {} (with dilation) must fit into {} (with padding) along axis {}",
                reach[axis],
                image[axis],
                axis + 2
            );
            return Err(Problem::Shapes {
                shapes: vec![self.shape().clone(), weight.shape().clone()],
                rule: rule.into(),
            });
        }
        let places: Vec<usize> = (0..N).map(|i| (image[i] - reach[i]) / options.stride[i] + 1).collect();
        let along = &self.shape()[2..];
        let split = self.reshape_known(led([items, groups, channels], along), site);
        let padded = if options.padding == [0; N] {
            split
        } else {
            let mut cuts: Cuts = smallvec::smallvec![Cut::WHOLE; LEAD + N];
            (0..N).for_each(|i| cuts[LEAD + i] = Cut::fixed(options.padding[i]));
            let ty = TensorType { shape: led([items, groups, channels], &image), ..self.ty().clone() };
            Tensor::record_at(Pad::zeros(cuts), &[&split], ty, site)
        };
        let kernel = weight.reshape_known(led([groups, outputs, channels], taps), site);
        let ty = TensorType { shape: led([items, groups, outputs], &places), ..self.ty().clone() };
        let out = Tensor::record_at(Convolve::places(&options.steps(), false), &[&padded, &kernel], ty, site);
        let merged = [&[items, groups * outputs], &places[..]].concat();
        Ok(out.reshape_known(Shape::from(merged), site))
    }

    #[track_caller]
    fn convolve_transposed<const N: usize>(
        &self,
        weight: &Tensor,
        options: &ConvOptions<N>,
        site: Site,
    ) -> Result<Tensor, Problem> {
        let precision = Precision::current();
        precision.operand(self).convolve_transposed_as_is(&precision.operand(weight), options, site)
    }

    fn convolve_transposed_as_is<const N: usize>(
        &self,
        weight: &Tensor,
        options: &ConvOptions<N>,
        site: Site,
    ) -> Result<Tensor, Problem> {
        let Operands { items, groups, channels, outputs } = check(self, weight, options, true)?;
        let (taps, places) = (&weight.shape()[2..], &self.shape()[2..]);
        let mut image = Vec::new();
        for i in 0..N {
            let most = options.stride[i].max(options.dilation[i]);
            if options.output_padding[i] >= most {
                let given = options.output_padding[i];
                let rule = format!("output_padding {given} must be less than the stride or the dilation, {most}");
                return Err(Problem::Argument(rule.into()));
            }
            let reach = (taps[i] - 1) * options.dilation[i] + 1;
            let whole = (places[i] - 1) * options.stride[i] + reach + options.output_padding[i];
            if whole <= 2 * options.padding[i] {
                let rule = format!("padding {} leaves nothing of a result of {whole}", options.padding[i]);
                return Err(Problem::Argument(rule.into()));
            }
            image.push(whole);
        }
        let steps = options.steps();
        let spread = Spread::new(&steps, taps, &image);
        let mut among_zeros = self.reshape_known(led([items, groups, channels], places), site);
        if let Some((pad, ty)) = spread.pad(among_zeros.ty().clone()) {
            among_zeros = Tensor::record_at(pad, &[&among_zeros], ty, site);
        }
        if options.padding != [0; N] {
            // What padding takes from the result, no window needs to see.
            let mut cuts: Cuts = smallvec::smallvec![Cut::WHOLE; LEAD + N];
            let mut ty = among_zeros.ty().clone();
            for i in 0..N {
                cuts[LEAD + i] = Cut::fixed(options.padding[i]);
                ty.shape.0[LEAD + i] -= 2 * options.padding[i];
                image[i] -= 2 * options.padding[i];
            }
            among_zeros = Tensor::record_at(Movement::Slice(cuts), &[&among_zeros], ty, site);
        }
        let kernel = weight.reshape_known(led([groups, channels, outputs], taps), site);
        let turned = Movement::Permute([0, 2, 1].into_iter().chain(LEAD..LEAD + N).collect());
        let ty = TensorType { shape: led([groups, outputs, channels], taps), ..weight.ty().clone() };
        let turned = Tensor::record_at(turned, &[&kernel], ty, site);
        let ty = TensorType { shape: led([items, groups, outputs], &image), ..self.ty().clone() };
        let out = Tensor::record_at(spread.convolve(false), &[&among_zeros, &turned], ty, site);
        let merged = [&[items, groups * outputs], &image[..]].concat();
        Ok(out.reshape_known(Shape::from(merged), site))
    }

    fn convolved(&self, name: &'static str, weight: &Tensor, site: Site, made: Result<Tensor, Problem>) -> Tensor {
        made.unwrap_or_else(|problem| {
            Tensor::mistake_in(&[self, weight], Error::new(name, problem, site), self.ty().clone())
        })
    }

    /// Convolution along one axis; see [`Tensor::conv2d`].
    ///
    /// # Shapes
    /// `x: (N, C, L)`, `weight: (O, C / groups, K)` → `(N, O, P)` with
    /// `P = ⌊(L + 2 · padding − dilation · (K − 1) − 1) / stride⌋ + 1`.
    #[track_caller]
    pub fn conv1d(&self, weight: &Tensor, options: &ConvOptions<1>) -> Tensor {
        let site = Site::here();
        self.convolved("conv1d", weight, site, self.convolve(weight, options, site))
    }

    /// Convolution of images with a kernel (a cross-correlation, as in all of deep learning).
    ///
    /// # Shapes
    /// `x: (N, C, H, W)`, `weight: (O, C / groups, KH, KW)` → `(N, O, PH, PW)` with
    /// `P = ⌊(L + 2 · padding − dilation · (K − 1) − 1) / stride⌋ + 1`.
    /// # Formula
    /// `y[n, o, p] = Σ x[n, c, p · stride + t · dilation − padding] · weight[o, c, t]` over the channels c of o's group
    /// and the taps t; x is zero outside. Dumoulin & Visin 2016, arXiv:1603.07285.
    /// # Numerics
    /// Sums run over channels, then taps, in order, as in a matrix product. Where rows of three taps slide by one over
    /// enough channels of f32, CPUs with AVX2 or AVX-512 compute two neighbouring places with four multiplications for
    /// six (minimal filtering F(2, 3); Winograd 1980; Lavin & Gray 2015, arXiv:1509.09308): rounding errors are not
    /// larger than those of plain sums; an infinity may become a NaN in the places that see it, and reaches no others.
    /// # Errors
    /// Another number of axes, channels that the groups do not divide or the kernel does not have, windows that do not
    /// fit into the padded image.
    /// # Example
    /// ```
    /// # use tapeflow_core::{ConvOptions, DType, Tensor};
    /// let x = Tensor::arange(9, DType::F32).reshape([1, 1, 3, 3]);
    /// let y = x.conv2d(&Tensor::ones([1, 1, 2, 2], DType::F32), &ConvOptions::new());
    /// assert_eq!(y.to_vec::<f32>()?, [8.0, 12.0, 20.0, 24.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn conv2d(&self, weight: &Tensor, options: &ConvOptions<2>) -> Tensor {
        let site = Site::here();
        self.convolved("conv2d", weight, site, self.convolve(weight, options, site))
    }

    /// Transposed convolution along one axis; see [`Tensor::conv_transpose2d`].
    ///
    /// # Shapes
    /// `x: (N, C, P)`, `weight: (C, O / groups, K)` → `(N, O, L)`
    #[track_caller]
    pub fn conv_transpose1d(&self, weight: &Tensor, options: &ConvOptions<1>) -> Tensor {
        let site = Site::here();
        self.convolved("conv_transpose1d", weight, site, self.convolve_transposed(weight, options, site))
    }

    /// The transpose of a convolution: the gradient of [`Tensor::conv2d`] by its image, as a layer that enlarges.
    ///
    /// # Shapes
    /// `x: (N, C, PH, PW)`, `weight: (C, O / groups, KH, KW)` → `(N, O, H, W)` with
    /// `L = (P − 1) · stride − 2 · padding + dilation · (K − 1) + output_padding + 1`.
    /// # Formula
    /// `y[n, o, l] = Σ x[n, c, p] · weight[c, o, t]` over all p, t with `p · stride + t · dilation − padding = l`.
    /// Dumoulin & Visin 2016, arXiv:1603.07285.
    /// # Errors
    /// As for [`Tensor::conv2d`]; an `output_padding` that is not less than the stride or the dilation.
    /// # Example
    /// ```
    /// # use tapeflow_core::{ConvOptions, DType, Tensor};
    /// let x = Tensor::from_vec(vec![1.0f32, 2.0], [1, 1, 1, 2]);
    /// let y = x.conv_transpose2d(&Tensor::ones([1, 1, 1, 2], DType::F32), &ConvOptions::new().stride([1, 2]));
    /// assert_eq!(y.to_vec::<f32>()?, [1.0, 1.0, 2.0, 2.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn conv_transpose2d(&self, weight: &Tensor, options: &ConvOptions<2>) -> Tensor {
        let site = Site::here();
        self.convolved("conv_transpose2d", weight, site, self.convolve_transposed(weight, options, site))
    }
}
