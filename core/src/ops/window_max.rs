//! The largest element of each window, and what its derivatives need: which element that was, picking it, and putting
//! a cotangent back to where it came from.
//!
//! Owns the primitive. Of equal elements the first counts and NaN wins, as in PyTorch. Windows overlap freely; putting
//! back gathers, for each element, what the windows over it chose, so nothing is ever added in an open order.

use std::borrow::Cow;

use smallvec::SmallVec;
use tapeflow_ir::{Binary, Builder, Compare, DType, V};

use super::activation::is_relu;
use super::arithmetic::templates;
use super::cut::{Cut, Cuts};
use super::pad::Pad;
use super::{Flow, Op, Primitive};
use crate::compile::fuse::{Expr, ExprSource, Lower, lane};
use crate::compile::world::{Id, Ids, Vjp, World};
use crate::device::Kind;
use crate::error::Problem;
use crate::program::kernel::{Dims, Kernel, Layout, Strides, WindowAxis, Windows, WindowsPart};
use crate::reference::{Array, Pools};
use crate::tape::TensorType;
use crate::tensor::shape::Shape;

const ON_HOST: &str = "invariant: only programs of the host return values by an image";

/// A window along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    pub kernel: usize,
    pub stride: usize,
}

impl Window {
    /// How many windows may cover one element.
    fn cover(self) -> usize {
        self.kernel.div_ceil(self.stride)
    }

    pub fn places(self, extent: usize) -> usize {
        (extent - self.kernel) / self.stride + 1
    }

    /// Places added before and after, so that every element finds all windows that might cover it.
    fn margin(self, extent: usize) -> (usize, usize) {
        (self.cover() - 1, extent.div_ceil(self.stride).saturating_sub(self.places(extent)))
    }
}

/// Over the last axes, one window each.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WindowMax {
    part: Part,
    windows: SmallVec<[Window; 3]>,
    /// Whether a second input, a number for each channel, is added to the elements: after derivatives, on the host.
    shifted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    /// x → the largest of each window.
    Max,
    /// x → the number of its tap, i32.
    Which,
    /// x and such numbers → those elements.
    Pick,
    /// Values and numbers per window, both with margins → each element is the sum of what windows gave it.
    Place,
    /// Values per window and x → `Place` of the numbers of x, for windows beside each other that reach every element:
    /// the host's, made after derivatives.
    Return,
}

impl WindowMax {
    pub fn max(windows: &[Window]) -> WindowMax {
        WindowMax { part: Part::Max, windows: SmallVec::from_slice(windows), shifted: false }
    }

    fn with(&self, part: Part) -> WindowMax {
        WindowMax { part, ..self.clone() }
    }

    /// The number of a tap: row-major over extents that are multiples of the strides, so that the windows over an
    /// element ask for numbers of one form, and a tap that is none has a number of its own.
    fn number(&self, tap: &[usize]) -> i64 {
        let fold = |n: usize, (window, t): (&Window, &usize)| n * window.cover() * window.stride + t;
        self.windows.iter().zip(tap).fold(0, fold) as i64
    }

    /// All taps in order.
    fn taps(&self) -> Vec<Vec<usize>> {
        indices(&self.windows.iter().map(|w| w.kernel).collect::<Vec<_>>())
    }

    /// What the taps are views of, at places of the result.
    fn tap_sources(&self, id: Id, layout: &Layout) -> Vec<ExprSource> {
        let lead = layout.strides.len() - self.windows.len();
        let source = |tap: Vec<usize>| {
            let mut view = layout.clone();
            for (axis, (window, t)) in self.windows.iter().zip(tap).enumerate() {
                let stride = layout.strides[lead + axis];
                view.offset += t as isize * stride;
                view.strides[lead + axis] = stride * window.stride as isize;
            }
            ExprSource::Node { id, layout: view }
        };
        self.taps().into_iter().map(source).collect()
    }

    /// Margins of what is placed into an image.
    fn margins(&self, ty: &TensorType, image: &Shape) -> (Cuts, TensorType) {
        let lead = image.len() - self.windows.len();
        let mut cuts: Cuts = smallvec::smallvec![Cut::WHOLE; image.len()];
        let mut wide = ty.clone();
        for (axis, window) in self.windows.iter().enumerate() {
            let (before, after) = window.margin(image[lead + axis]);
            cuts[lead + axis] = Cut::fixed(before);
            wide.shape.0[lead + axis] += before + after;
        }
        (cuts, wide)
    }

    fn padded(&self, cx: &mut Vjp<'_>, id: Id, image: &Shape) -> Id {
        let ty = cx.world.ty[id.index()].clone();
        let (cuts, wide) = self.margins(&ty, image);
        if wide.shape == ty.shape { id } else { cx.world.push(Pad::zeros(cuts), &[id], wide) }
    }

    /// The cotangent of an image whose windows gave `values`.
    fn place(&self, cx: &mut Vjp<'_>, values: Id, which: Id, image: &Shape) -> Id {
        let ty = cx.world.with_shape(values, image.clone());
        let (values, which) = (self.padded(cx, values, image), self.padded(cx, which, image));
        cx.world.push(self.with(Part::Place), &[values, which], ty)
    }

    /// Type of the numbers for an image.
    fn which_type(&self, image: &TensorType) -> TensorType {
        let lead = image.shape.len() - self.windows.len();
        let mut ty = TensorType { dtype: DType::I32, ..image.clone() };
        for (axis, window) in self.windows.iter().enumerate() {
            ty.shape.0[lead + axis] = window.places(image.shape[lead + axis]);
        }
        ty
    }

    /// Whether the result is an image.
    fn gives(&self) -> bool {
        matches!(self.part, Part::Place | Part::Return)
    }

    /// The host's kernel for windows beside each other, if it has one: of the types of the result and the first input.
    fn on_host(&self, ty: &TensorType, from: &TensorType) -> Option<Windows> {
        let part = match self.part {
            Part::Max => WindowsPart::Max,
            Part::Which => WindowsPart::Which,
            Part::Place => WindowsPart::Place,
            Part::Return => WindowsPart::Return,
            Part::Pick => return None,
        };
        let beside = self.windows.iter().all(|window| window.kernel <= window.stride);
        let takes = matches!(from.dtype, DType::F32 | DType::F64) && ty.device.0 == Kind::Cpu;
        if !beside || !takes || self.windows.len() > 2 || ty.shape.numel() == 0 {
            return None;
        }
        let lead = ty.shape.len() - self.windows.len();
        let (elements, places) = if self.gives() { (ty, from) } else { (from, ty) };
        let mut axes = [WindowAxis { extent: 1, places: 1, kernel: 1, stride: 1 }; 2];
        for (i, window) in self.windows.iter().enumerate() {
            let (extent, places) = (elements.shape[lead + i], places.shape[lead + i]);
            let Window { kernel, stride } = *window;
            axes[2 - self.windows.len() + i] = WindowAxis { extent, places, kernel, stride };
        }
        let planes = ty.shape[..lead].iter().product();
        let shifts = if self.shifted { ty.shape[lead - 1] } else { 0 };
        Some(Windows { dtype: from.dtype, part, planes, shifts, axes })
    }

    /// The same without what is added to all elements of a channel, as a bias is.
    fn without_sum(&self, world: &World, node: Id) -> Option<(Op, Ids)> {
        let sum = world.inputs[node.index()][0];
        let (ty, of) = (&world.ty[node.index()], &world.ty[sum.index()]);
        let adds = matches!(&world.op[sum.index()], Op::Kernel(kernel) if kernel.is(templates::ADD));
        if !adds || world.bound[sum.index()].is_some() {
            return None;
        }
        self.on_host(ty, of)?;
        let [a, b] = world.inputs[sum.index()][..] else { return None };
        let (image, shift) = [(a, b), (b, a)].into_iter().find(|&(image, shift)| {
            let same = world.dtype(image) == of.dtype && world.dtype(shift) == of.dtype;
            same && world.shape(image) == &of.shape && self.is_per_channel(world.shape(shift), &of.shape)
        })?;
        Some((WindowMax { shifted: true, ..self.clone() }.into(), Ids::from_slice(&[image, shift])))
    }

    /// What places by the numbers of an image does it by the image, if windows reach all of it: no margins are there.
    fn without_numbers(&self, world: &World, node: Id) -> Option<(Op, Ids)> {
        let &[values, which] = &world.inputs[node.index()][..] else { return None };
        let Op::WindowMax(numbers) = &world.op[which.index()] else { return None };
        if numbers.part != Part::Which || world.bound[which.index()].is_some() {
            return None;
        }
        let returns = numbers.with(Part::Return);
        returns.on_host(&world.ty[node.index()], &world.ty[values.index()])?;
        let inputs = [values].into_iter().chain(world.inputs[which.index()].iter().copied()).collect();
        Some((returns.into(), inputs))
    }

    /// Whether a shape is one number for each channel of an image, the same at all its places.
    fn is_per_channel(&self, shape: &Shape, image: &Shape) -> bool {
        let lead = image.len() - self.windows.len();
        let channels = lead.checked_sub(1).map(|axis| image[axis]);
        let ones = shape.iter().take_while(|&&extent| extent == 1).count();
        let [first, rest @ ..] = &shape[ones..] else { return false };
        Some(*first) == channels && rest.len() == self.windows.len() && rest.iter().all(|&extent| extent == 1)
    }

    fn lower_place(&self, cx: &mut Lower<'_>) {
        let ty = cx.ty().clone();
        let lead = ty.shape.len() - self.windows.len();
        let sources = [cx.strided(0), cx.strided(1)];
        let dtypes = [ty.dtype, DType::I32];
        let whole = Layout::contiguous(&ty.shape);
        // An axis is whole strides, and what is left: (first stride, strides, elements of each).
        let parts = self.windows.iter().zip(&ty.shape[lead..]).map(|(window, &extent)| {
            let (strides, rest) = (extent / window.stride, extent % window.stride);
            [(0, strides, window.stride), (strides, 1, rest)]
        });
        let parts: Vec<[(usize, usize, usize); 2]> = parts.collect();
        for choice in indices(&vec![2; parts.len()]) {
            let part: Vec<_> = parts.iter().zip(&choice).map(|(axis, &c)| axis[c]).collect();
            if part.iter().any(|&(_, strides, elements)| strides * elements == 0) {
                continue;
            }
            // The space: leading axes, elements of a stride, strides. Strides are last: values lie side by side there.
            let space: Dims = (ty.shape[..lead].iter().copied())
                .chain(part.iter().map(|&(_, _, elements)| elements))
                .chain(part.iter().map(|&(_, strides, _)| strides))
                .collect();
            let mut to = Layout { strides: Strides::from_slice(&whole.strides[..lead]), ..whole.clone() };
            to.strides.extend_from_slice(&whole.strides[lead..]);
            for (axis, window) in self.windows.iter().enumerate() {
                let stride = whole.strides[lead + axis] * window.stride as isize;
                to.offset += part[axis].0 as isize * stride;
                to.strides.push(stride);
            }
            let mut builder = Builder::new();
            let mut inputs = Vec::new();
            let mut sum: Option<V> = None;
            for back in indices(&self.windows.iter().map(|w| w.cover()).collect::<Vec<_>>()) {
                let views = sources.each_ref().map(|(id, layout)| {
                    let mut view = layout.clone();
                    view.strides.truncate(lead);
                    view.strides.extend(self.windows.iter().map(|_| 0));
                    for (axis, window) in self.windows.iter().enumerate() {
                        let stride = layout.strides[lead + axis];
                        view.offset += (part[axis].0 + window.cover() - 1 - back[axis]) as isize * stride;
                        view.strides.push(stride);
                    }
                    ExprSource::Node { id: *id, layout: view }
                });
                // Which tap of that window this element is.
                let offset =
                    self.number(&self.windows.iter().zip(&back).map(|(w, b)| w.stride * b).collect::<Vec<_>>());
                let mut strides: Strides = smallvec::smallvec![0; lead];
                let unit = |axis: usize| (0..self.windows.len()).map(|a| usize::from(a == axis)).collect::<Vec<_>>();
                strides.extend((0..self.windows.len()).map(|axis| self.number(&unit(axis)) as isize));
                strides.extend(self.windows.iter().map(|_| 0));
                let iota = Layout { offset: offset as isize, shifts: Default::default(), strides };
                let [value, which] = dtypes.map(|dtype| builder.input(lane(dtype)));
                let value = builder.cast(value, ty.dtype.computed());
                let tap = builder.input(lane(DType::I64));
                inputs.extend(views);
                inputs.push(ExprSource::Iota(iota));
                let which = builder.cast(which, DType::I64);
                let hit = builder.compare(Compare::Eq, which, tap);
                let zero = builder.float(ty.dtype.computed(), 0.0);
                let given = builder.select(hit, value, zero);
                sum = Some(sum.map_or(given, |sum| builder.binary(Binary::Add, sum, given)));
            }
            let out: Vec<V> = sum.into_iter().map(|sum| builder.cast(sum, ty.dtype)).collect();
            cx.store_part(Expr::new(space, builder.finish(&out), inputs), to);
        }
        if ty.shape.numel() == 0 {
            cx.store_part(Expr::new(Dims::from_slice(&ty.shape), zeros(ty.dtype), Vec::new()), whole);
        }
    }
}

fn zeros(dtype: DType) -> tapeflow_ir::ScalarFn {
    super::source::constant_fn(dtype, 0.0)
}

/// All indices of these extents, row-major.
fn indices(extents: &[usize]) -> Vec<Vec<usize>> {
    extents.iter().fold(vec![Vec::new()], |out, &extent| {
        out.into_iter().flat_map(|index| (0..extent).map(move |i| [&index[..], &[i]].concat())).collect()
    })
}

impl Primitive for WindowMax {
    fn name(&self) -> Cow<'static, str> {
        let windows: Vec<String> = self.windows.iter().map(|w| format!("{}/{}", w.kernel, w.stride)).collect();
        let part = match self.part {
            Part::Max => "",
            Part::Which => ", which",
            Part::Pick => ", pick",
            Part::Place => ", place",
            Part::Return => ", return",
        };
        let shifted = if self.shifted { ", shifted" } else { "" };
        format!("window_max {}{part}{shifted}", windows.join(" ")).into()
    }

    fn flow(&self, input: usize, _: &[&TensorType]) -> Flow {
        if input == 0 && self.part != Part::Which { Flow::Carries } else { Flow::Stops }
    }

    fn expands(&self) -> bool {
        self.part == Part::Max
    }

    /// The largest of what ReLU leaves is what ReLU leaves of the largest, to the bit: it is applied to fewer elements,
    /// and so is its derivative.
    fn expanded(&self, world: &mut World, inputs: &[Id], ty: &TensorType) -> Id {
        let of = inputs[0].index();
        if !is_relu(&world.op[of]) || world.bound[of].is_some() {
            return world.push(self.clone(), inputs, ty.clone());
        }
        let (relu, x) = (world.op[of].clone(), world.inputs[of].clone());
        let largest = world.push(self.clone(), &x, ty.clone());
        world.push(relu, &[largest], ty.clone())
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn is_saved(&self) -> bool {
        true
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let (x, cotangent) = (cx.inputs[0], cx.cotangent);
        let shape = cx.input_shape(0);
        let value = match self.part {
            Part::Max => {
                let ty = self.which_type(&cx.world.ty[x.index()]);
                let which = cx.world.push(self.with(Part::Which), &[x], ty);
                self.place(cx, cotangent, which, &shape)
            }
            Part::Which => return,
            Part::Pick => {
                let which = cx.inputs[1];
                self.place(cx, cotangent, which, &shape)
            }
            Part::Return => unreachable!("invariant: it is made after derivatives"),
            Part::Place => {
                let image = cx.world.ty[cx.node.index()].clone();
                let narrow = self.which_type(&image);
                let (cuts, _) = self.margins(&narrow, &image.shape);
                let which = cx.world.slice(cx.inputs[1], cuts, narrow.clone());
                let ty = TensorType { dtype: image.dtype, ..narrow };
                let picked = cx.world.push(self.with(Part::Pick), &[cotangent, which], ty);
                self.padded(cx, picked, &image.shape)
            }
        };
        cx.contribute(0, value);
    }

    fn absorbed(&self, world: &World, node: Id) -> Option<(Op, Ids)> {
        match self.part {
            Part::Max | Part::Which if !self.shifted => self.without_sum(world, node),
            Part::Place => self.without_numbers(world, node),
            _ => None,
        }
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        if let Some(windows) = self.on_host(cx.ty(), cx.input_ty(0)) {
            let reads = (0..cx.arity()).map(|i| cx.stored(i)).collect();
            cx.emit(Kernel::Windows(windows), reads);
            return Ok(());
        }
        if self.part == Part::Place {
            self.lower_place(cx);
            return Ok(());
        }
        let (ty, of) = (cx.ty().clone(), cx.input_ty(0).dtype);
        let (id, layout) = cx.strided(0);
        let mut sources = self.tap_sources(id, &layout);
        let mut builder = Builder::new();
        let stored: Vec<V> = sources.iter().map(|_| builder.input(lane(of))).collect();
        let values: Vec<V> = stored.into_iter().map(|v| builder.cast(v, of.computed())).collect();
        let numbers: Vec<i64> = self.taps().iter().map(|tap| self.number(tap)).collect();
        let out = if self.part == Part::Pick {
            let (id, layout) = cx.strided(1);
            sources.push(ExprSource::Node { id, layout });
            let which = builder.input(lane(DType::I32));
            values.iter().zip(numbers).skip(1).fold(values[0], |picked, (&value, number)| {
                let number = builder.int(DType::I32, number);
                let hit = builder.compare(Compare::Eq, which, number);
                builder.select(hit, value, picked)
            })
        } else {
            let mut largest = values[0];
            let mut which = builder.int(DType::I32, numbers[0]);
            for (&value, number) in values.iter().zip(numbers).skip(1) {
                let larger = builder.compare(Compare::Gt, value, largest);
                let nan = builder.compare(Compare::Ne, value, value);
                let better = builder.binary(Binary::Or, larger, nan);
                largest = builder.select(better, value, largest);
                let number = builder.int(DType::I32, number);
                which = builder.select(better, number, which);
            }
            if self.part == Part::Max { largest } else { which }
        };
        let out = builder.cast(out, ty.dtype);
        let (function, kept) = super::kernel::prune(&builder.finish(&[out]).simplify());
        let sources = kept.into_iter().map(|i| sources[i].clone()).collect();
        let space = Dims::from_slice(&ty.shape);
        let to = Layout::contiguous(&space);
        cx.store_part(Expr::new(space, function, sources), to);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        let windows: Vec<(usize, usize)> = self.windows.iter().map(|w| (w.kernel, w.stride)).collect();
        let number = |tap: &[usize]| self.number(tap);
        let pools = Pools { windows: &windows, number: &number };
        Ok(match self.part {
            Part::Max => pools.max(inputs[0], ty, |value, _| value),
            Part::Which => pools.max(inputs[0], ty, |_, number| number as f64),
            Part::Pick => pools.pick(inputs[0], inputs[1], ty),
            Part::Return => return Err(Problem::Argument(ON_HOST.into())),
            Part::Place => {
                let before: Vec<usize> = self.windows.iter().map(|w| w.cover() - 1).collect();
                pools.place(inputs[0], inputs[1], &before, ty)
            }
        })
    }
}
