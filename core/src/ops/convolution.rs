//! Convolution as a contraction over window views: no matrix of windows ever lies in memory.
//!
//! Owns the primitive and its derivatives. Everything comes from one trilinear form of an image x, a kernel w and
//! places y,
//!
//! `T(x, w, y) = Σ x[n, g, c, p·s + t·d] · w[g, o, c, t] · y[n, g, o, p]`,
//!
//! where p runs over places, t over taps, s is the stride and d the dilation: its derivative by y is a convolution, by
//! w the gradient of the kernel, by x a transposed convolution, which is a convolution of y set among zeros with the
//! taps reversed. So derivatives of any order are of the same kind. Dumoulin & Visin 2016, arXiv:1603.07285.

use std::borrow::Cow;

use smallvec::SmallVec;
use tapeflow_ir::DType;

use super::cut::{Cut, Cuts};
use super::framed;
use super::pad::Pad;
use super::{Op, Primitive};
use crate::compile::fuse::Lower;
use crate::compile::world::{Id, Ids, Vjp, World};
use crate::device::Kind;
use crate::error::Problem;
use crate::program::kernel::{Dims, Kernel, Layout, Matmul, Strides};
use crate::reference::{Array, Windows};
use crate::tape::TensorType;
use crate::tensor::shape::Shape;

/// How windows lie along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Step {
    /// From place to place.
    pub stride: usize,
    /// From tap to tap.
    pub dilation: usize,
}

/// Axes before those of the image: items, groups, channels.
pub(super) const LEAD: usize = 3;

/// The derivative of the trilinear form by the places or by the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Convolve {
    pub part: Part,
    /// One per axis of the image.
    pub steps: SmallVec<[Step; 3]>,
    /// Whether tap t lies where tap K − 1 − t would.
    pub reversed: bool,
    /// Whether a stride has set elements of the image among zeros.
    pub spread: bool,
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// Of an image `(N, G, C, L…)` and a kernel `(G, O, C, K…)`: `(N, G, O, P…)`.
    Places,
    /// Of an image and places: the kernel.
    Kernel,
}

impl Convolve {
    pub fn places(steps: &[Step], reversed: bool) -> Convolve {
        Convolve { part: Part::Places, steps: SmallVec::from_slice(steps), reversed, spread: false }
    }

    fn with(&self, part: Part) -> Convolve {
        Convolve { part, ..self.clone() }
    }

    /// Whether minimal filtering may compute neighbouring places of the last axis together, with sums in another order.
    /// That follows from what the convolution is, not from where its image lies, so that bits do not depend on that.
    pub fn is_minimal(&self, taps: &[usize], ty: &TensorType) -> bool {
        let is_dense = self.steps.iter().all(|step| step.stride == 1) && !self.spread;
        let is_run = self.steps.last().is_some_and(|step| step.dilation == 1);
        is_dense && is_run && taps.last() == Some(&3) && ty.dtype == DType::F32 && ty.device.0 == Kind::Cpu
    }

    /// The derivative by the image, of this shape.
    fn image(&self, world: &mut World, places: Id, kernel: Id, shape: &Shape) -> Id {
        let taps = world.shape(kernel).clone();
        let set = Spread::new(&self.steps, &taps[LEAD..], &shape[LEAD..]);
        let among_zeros = set.pad(world.ty[places.index()].clone());
        let spread = match among_zeros {
            Some((pad, ty)) => world.push(pad, &[places], ty),
            None => places,
        };
        let axes = (0..taps.len()).map(|axis| [0, 2, 1].get(axis).copied().unwrap_or(axis)).collect();
        let turned = world.permute(kernel, axes);
        let ty = world.with_shape(places, shape.clone());
        world.push(set.convolve(self.reversed), &[spread, turned], ty)
    }

    /// Strides of the windows of an image along taps and places; the offset belongs to reversed taps.
    fn windows(&self, image: &Layout, taps: &[usize]) -> (Layout, Strides, Strides) {
        let mut layout = image.clone();
        let along = &image.strides[LEAD..];
        let at = |(&stride, step): (&isize, &Step)| stride * step.stride as isize;
        let places = along.iter().zip(&self.steps).map(at).collect();
        let mut steps: Strides = along.iter().zip(&self.steps).map(|(&s, step)| s * step.dilation as isize).collect();
        if self.reversed {
            for (step, &extent) in steps.iter_mut().zip(taps) {
                layout.offset += (extent as isize - 1) * *step;
                *step = -*step;
            }
        }
        (layout, steps, places)
    }
}

/// A transposed convolution: how places are set among zeros, and the convolution that follows.
pub(crate) struct Spread {
    steps: SmallVec<[Step; 3]>,
    /// Zeros before the first place, and the extent in all; per axis.
    axes: SmallVec<[(usize, usize); 3]>,
}

impl Spread {
    /// For a kernel of `taps` and an image of these extents.
    pub fn new(steps: &[Step], taps: &[usize], image: &[usize]) -> Spread {
        let reach = steps.iter().zip(taps).map(|(step, &k)| (k - 1) * step.dilation);
        let axes = reach.zip(image).map(|(reach, &extent)| (reach, extent + reach)).collect();
        Spread { steps: SmallVec::from_slice(steps), axes }
    }

    /// What sets places `(N, G, O, P…)` among zeros, and what they become; `None` if they stay what they are.
    pub fn pad(&self, mut ty: TensorType) -> Option<(Pad, TensorType)> {
        let mut cuts: Cuts = smallvec::smallvec![Cut::WHOLE; ty.shape.len()];
        let before = ty.shape.clone();
        for (axis, (&(start, extent), step)) in self.axes.iter().zip(&self.steps).enumerate() {
            let stride = if before[LEAD + axis] == 1 { 1 } else { step.stride };
            cuts[LEAD + axis] = Cut { step: stride, ..Cut::fixed(start) };
            ty.shape.0[LEAD + axis] = extent;
        }
        (ty.shape != before).then(|| (Pad::zeros(cuts), ty))
    }

    /// The convolution; its kernel has inputs and outputs exchanged.
    pub fn convolve(&self, reversed: bool) -> Convolve {
        let steps: Vec<Step> = self.steps.iter().map(|step| Step { stride: 1, ..*step }).collect();
        let spread = self.steps.iter().any(|step| step.stride > 1);
        Convolve { spread, ..Convolve::places(&steps, !reversed) }
    }
}

impl Primitive for Convolve {
    fn name(&self) -> Cow<'static, str> {
        let step = |s: &Step| format!("{}:{}", s.stride, s.dilation);
        let steps: Vec<String> = self.steps.iter().map(step).collect();
        let of = if self.part == Part::Kernel { ", kernel" } else { "" };
        let reversed = if self.reversed { ", reversed" } else { "" };
        format!("convolve {}{of}{reversed}", steps.join(" ")).into()
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn widens(&self, on_host: bool) -> bool {
        !on_host
    }

    fn is_saved(&self) -> bool {
        true
    }

    /// The form's other derivatives.
    fn vjp(&self, cx: &mut Vjp<'_>) {
        let (image, other, cotangent) = (cx.inputs[0], cx.inputs[1], cx.cotangent);
        let (places, kernel) = match self.part {
            Part::Places => (cotangent, other),
            Part::Kernel => (other, cotangent),
        };
        if cx.wants(0) {
            let shape = cx.input_shape(0);
            let value = self.image(cx.world, places, kernel, &shape);
            cx.contribute(0, value);
        }
        if cx.wants(1) {
            let part = if self.part == Part::Places { Part::Kernel } else { Part::Places };
            let ty = cx.world.ty[other.index()].clone();
            let value = cx.world.push(self.with(part), &[image, cotangent], ty);
            cx.contribute(1, value);
        }
    }

    /// Some places are those of part of the image.
    fn sliced(&self, world: &mut World, node: Id, cuts: &Cuts, shape: &Shape) -> Option<Id> {
        let whole = world.shape(node).clone();
        if self.part != Part::Places || whole[..LEAD] != shape[..LEAD] {
            return None;
        }
        let (image, kernel) = (world.inputs[node.index()][0], world.inputs[node.index()][1]);
        let mut part: Cuts = smallvec::smallvec![Cut::WHOLE; whole.len()];
        let mut ty = world.ty[image.index()].clone();
        for (axis, step) in self.steps.iter().enumerate() {
            let axis = LEAD + axis;
            let start = cuts[axis].plain()?;
            part[axis] = Cut::fixed(start * step.stride);
            let reach = (world.shape(kernel)[axis] - 1) * step.dilation;
            ty.shape.0[axis] = (shape[axis].checked_sub(1)?) * step.stride + reach + 1;
        }
        let image = world.slice(image, part, ty);
        let ty = world.with_shape(node, shape.clone());
        Some(world.push(self.clone(), &[image, kernel], ty))
    }

    fn absorbed(&self, world: &World, node: Id) -> Option<(Op, Ids)> {
        framed::absorbed(self, world, node)
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        if framed::lower(self, None, cx) {
            return Ok(());
        }
        let ty = cx.ty().clone();
        let dims = |shape: &[usize]| Dims::from_slice(shape);
        let (image, image_layout) = cx.strided(0);
        let (other, other_layout) = match self.part {
            // A kernel is small and read for every item: it is laid out in order once.
            Part::Places => (cx.stored(1), Layout::contiguous(&cx.input_ty(1).shape)),
            Part::Kernel => cx.strided(1),
        };
        let other_ty = cx.input_ty(1).clone();
        let join = |layout: Layout, parts: &[&[isize]]| {
            let strides = parts.concat();
            Layout { strides: Strides::from_slice(&strides), ..layout }
        };
        let of = &other_layout.strides.clone()[..];
        let kernel = match self.part {
            Part::Places => {
                let taps = &other_ty.shape;
                let (windows, steps, places) = self.windows(&image_layout, &taps[LEAD..]);
                let a = join(other_layout, &[&[0], of]);
                let b = join(windows, &[&image_layout.strides[..LEAD], &steps, &places]);
                let (batch, m, n) = (dims(&ty.shape[..2]), dims(&ty.shape[2..LEAD]), dims(&ty.shape[LEAD..]));
                Matmul { dtype: ty.dtype, batch, m, n, k: dims(&taps[2..]), a, b }
            }
            Part::Kernel => {
                let (windows, steps, places) = self.windows(&image_layout, &ty.shape[LEAD..]);
                let places_shape = &other_ty.shape;
                let a = join(other_layout, &[&[of[1], of[2], of[0]], &of[LEAD..]]);
                let [item, group, channel] = [0, 1, 2].map(|axis| image_layout.strides[axis]);
                let b = join(windows, &[&[group, item], &places, &[channel], &steps]);
                let k = [&places_shape[..1], &places_shape[LEAD..]].concat();
                let (batch, m, n) = (dims(&ty.shape[..1]), dims(&ty.shape[1..2]), dims(&ty.shape[2..]));
                Matmul { dtype: ty.dtype, batch, m, n, k: dims(&k), a, b }
            }
        };
        cx.emit(Kernel::Matmul(kernel.merged()), vec![other, image]);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        let steps: Vec<(usize, usize)> = self.steps.iter().map(|s| (s.stride, s.dilation)).collect();
        let windows = Windows { image: inputs[0], steps: &steps, reversed: self.reversed };
        Ok(match self.part {
            Part::Places => windows.convolve(inputs[1], ty),
            Part::Kernel => windows.kernel(inputs[1], ty),
        })
    }
}
