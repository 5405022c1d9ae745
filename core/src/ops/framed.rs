//! Convolutions as the host takes them: one kernel that slides over an image and sees zeros around it, or between its
//! elements, that nobody stores.
//!
//! Owns the operation that remains when the `absorb` pass has taken a pad's place, and the lowering of both forms. It
//! is made after derivatives, so it has none. Devices with a driver, half precision, more than two axes and products in
//! disguise stay with `convolution`.

use std::borrow::Cow;

use smallvec::SmallVec;
use tapeflow_ir::DType;

use super::convolution::{Convolve, LEAD, Part};
use super::pad::{Pad, as_pad};
use super::{Op, Primitive};
use crate::compile::fuse::Lower;
use crate::compile::world::{Id, Ids, World};
use crate::device::Kind;
use crate::error::Problem;
use crate::program::kernel::{Convolution, ConvolutionPart, Kernel, Layout, Sliding};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tensor::shape::Shape;

/// Below this many places a product over windows is better: a kernel's vectors run along them.
const FEWEST: usize = 8;

/// A convolution whose image is set among zeros.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Framed(Box<Parts>);

/// Of a [`Framed`]: on the heap, so that no other node is as large.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Parts {
    convolve: Convolve,
    pad: Pad,
    /// Of the image with its zeros.
    framed: Shape,
    /// Per axis of the image: zeros before it, and from element to element.
    frames: SmallVec<[(usize, usize); 3]>,
}

/// `convolve` without the pad that it reads, if the host can do that.
pub(super) fn absorbed(convolve: &Convolve, world: &World, node: Id) -> Option<(Op, Ids)> {
    let (image, other) = (world.inputs[node.index()][0], world.inputs[node.index()][1]);
    let pad = as_pad(&world.op[image.index()])?;
    if world.bound[image.index()].is_some() {
        return None;
    }
    let framed = world.shape(image).clone();
    let shapes = [world.shape(node), world.shape(other)];
    if !is_for_host(convolve, &world.ty[node.index()], shapes, true) {
        return None;
    }
    let frames: SmallVec<[(usize, usize); 3]> =
        pad.frames(world, image, LEAD)?.into_iter().map(|frame| (frame.before, frame.step)).collect();
    let (ty, kernel) = (&world.ty[node.index()], if convolve.part == Part::Places { shapes[1] } else { shapes[0] });
    if convolve.is_minimal(&kernel[LEAD..], ty) && frames.iter().any(|&(_, step)| step > 1) {
        return None;
    }
    let inputs = Ids::from_slice(&[world.inputs[image.index()][0], other]);
    let framed = Parts { convolve: convolve.clone(), pad: pad.clone(), framed, frames };
    Some((Framed(Box::new(framed)).into(), inputs))
}

/// Whether the host has a kernel for it: of the shapes of the result and of the operand that is no image, one is that
/// of the places and one that of the kernel.
fn is_for_host(convolve: &Convolve, ty: &TensorType, [result, other]: [&Shape; 2], is_framed: bool) -> bool {
    let (places, kernel) = if convolve.part == Part::Places { (result, other) } else { (other, result) };
    let (places, taps) = (&places[LEAD..], &kernel[LEAD..]);
    let slides = is_framed || taps.iter().any(|&k| k > 1) || convolve.steps.iter().any(|step| step.stride > 1);
    ty.device.0 == Kind::Cpu
        && matches!(ty.dtype, DType::F32 | DType::F64)
        && matches!(taps.len(), 1 | 2)
        && slides
        && places.iter().product::<usize>() >= FEWEST
        && [result, other].iter().all(|shape| shape.numel() > 0)
}

/// Emits the host's kernel of `convolve`, of an image in a frame of this shape with these zeros, if there is one.
pub(super) fn lower(convolve: &Convolve, framed: Option<&Framed>, cx: &mut Lower<'_>) -> bool {
    let ty = cx.ty().clone();
    let (image_shape, other_shape) = (cx.input_ty(0).shape.clone(), cx.input_ty(1).shape.clone());
    if !is_for_host(convolve, &ty, [&ty.shape, &other_shape], framed.is_some()) {
        return false;
    }
    let (part, places, kernel) = match convolve.part {
        Part::Places => (ConvolutionPart::Places, &ty.shape, &other_shape),
        Part::Kernel => (ConvolutionPart::Kernel, &other_shape, &ty.shape),
    };
    let whole = framed.map_or(&image_shape, |framed| &framed.0.framed);
    let missing = 2 - convolve.steps.len();
    let mut axes = [Sliding::NONE; 2];
    for (i, step) in convolve.steps.iter().enumerate() {
        let (before, spread) = framed.map_or((0, 1), |framed| framed.0.frames[i]);
        axes[missing + i] = Sliding {
            stored: image_shape[LEAD + i],
            before: before as isize,
            spread,
            framed: whole[LEAD + i],
            taps: kernel[LEAD + i],
            places: places[LEAD + i],
            stride: step.stride,
            dilation: step.dilation,
        };
    }
    let (image, image_layout) = cx.strided(0);
    let (other, other_layout) = cx.strided(1);
    let of_two = |mut layout: Layout| {
        (0..missing).for_each(|_| layout.strides.insert(LEAD, 0));
        layout
    };
    let convolution = Convolution {
        dtype: ty.dtype,
        part,
        items: places[0],
        groups: places[1],
        channels: kernel[2],
        outputs: kernel[1],
        axes,
        reversed: convolve.reversed,
        is_minimal: convolve.is_minimal(&kernel[LEAD..], &ty),
        image: of_two(image_layout),
        other: of_two(other_layout),
    };
    cx.emit(Kernel::Convolution(convolution), vec![other, image]);
    true
}

impl Primitive for Framed {
    fn name(&self) -> Cow<'static, str> {
        format!("{}, framed", self.0.convolve.name()).into()
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let lowered = lower(&self.0.convolve, Some(self), cx);
        debug_assert!(lowered, "only what the host takes is framed");
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, arguments: &[u64]) -> Result<Array, Problem> {
        let framed = TensorType { shape: self.0.framed.clone(), ..ty.clone() };
        let image = self.0.pad.evaluate(&inputs[..1], &framed, arguments)?;
        self.0.convolve.evaluate(&[&image, inputs[1]], ty, arguments)
    }
}
