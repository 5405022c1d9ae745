//! Movements: reshape, permute, expand, slice. Views of what is in memory, composed as strides; nothing moves until it
//! must.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::cut::{Cut, Cuts, Given, Start, bind_starts, origins_of, starts_given};
use super::host::Host;
use super::pad::among_zeros;
use super::{Arguments, Op, Primitive};
use crate::capture::Origin;
use crate::compile::fuse::Lower;
use crate::compile::layout::permuted;
use crate::compile::world::Vjp;
use crate::error::{Error, Problem};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::{IntoExtents, IntoRange, Shape, resolve_range};

/// A change of order, extents or extent; the result's shape says the rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Movement {
    Reshape,
    Permute(SmallVec<[usize; 6]>),
    Expand,
    /// Part of each axis.
    Slice(Cuts),
}

impl Movement {
    /// The starts that the host gives.
    pub fn arguments(&self) -> Arguments {
        match self {
            Movement::Slice(cuts) => starts_given(cuts.iter()),
            _ => Arguments::new(),
        }
    }

    /// Where the host's starts come from when a captured program runs again.
    pub fn origins(&self) -> SmallVec<[Origin; 2]> {
        match self {
            Movement::Slice(cuts) => origins_of(cuts.iter()),
            _ => SmallVec::new(),
        }
    }

    /// The same movement reading its starts from slot `first` on.
    pub fn with_slots(&self, first: usize) -> Movement {
        let mut out = self.clone();
        if let Movement::Slice(cuts) = &mut out {
            bind_starts(cuts.iter_mut(), first);
        }
        out
    }
}

/// Whether `op` exchanges the last two axes and leaves the others.
pub(crate) fn swaps_last_axes(op: &Op) -> bool {
    let Op::Movement(Movement::Permute(axes)) = op else { return false };
    let n = axes.len();
    n >= 2 && axes[n - 1] == n - 2 && axes[n - 2] == n - 1 && axes[..n - 2].iter().enumerate().all(|(i, &a)| i == a)
}

impl Primitive for Movement {
    fn name(&self) -> Cow<'static, str> {
        match self {
            Movement::Reshape => "reshape".into(),
            Movement::Permute(axes) => format!("permute {:?}", &axes[..]).into(),
            Movement::Expand => "expand".into(),
            Movement::Slice(cuts) => format!("slice {cuts:?}").into(),
        }
    }

    fn is_view(&self) -> bool {
        true
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let shape = cx.input_shape(0);
        let cotangent = cx.cotangent;
        let value = match self {
            Movement::Reshape => cx.world.reshape(cotangent, shape),
            Movement::Permute(axes) => {
                let mut inverse: SmallVec<[usize; 6]> = smallvec::smallvec![0; axes.len()];
                for (to, &from) in axes.iter().enumerate() {
                    inverse[from] = to;
                }
                cx.world.permute(cotangent, inverse)
            }
            Movement::Expand => cx.world.sum_to(cotangent, &shape),
            Movement::Slice(cuts) => {
                let ty = cx.world.ty[cx.inputs[0].index()].clone();
                among_zeros(cx.world, cotangent, cuts, ty)
            }
        };
        cx.contribute(0, value);
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let to = cx.ty().shape.clone();
        let expr = cx.movable(0);
        let moved = match self {
            Movement::Reshape => expr.reshape(&to),
            Movement::Permute(axes) => expr.permute(axes),
            Movement::Expand => expr.expand(&to),
            Movement::Slice(cuts) => expr.slice(cuts, &to),
        };
        match moved {
            Some(moved) => cx.defer(moved),
            // No strides say what this reshape asks for: the elements are laid out in order first.
            None => {
                let from = cx.input_ty(0).clone();
                let id = cx.pack(0);
                let packed = crate::compile::fuse::Expr::load(id, from.dtype, SmallVec::from_slice(&to));
                cx.defer(packed);
            }
        }
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, arguments: &[u64]) -> Result<Array, Problem> {
        let x = inputs[0];
        Ok(match self {
            Movement::Reshape => x.with_type(ty),
            Movement::Permute(axes) => x.gather_from(ty, |to, from| {
                for (i, &a) in axes.iter().enumerate() {
                    from[a] = to[i];
                }
            }),
            Movement::Expand => {
                let skip = ty.shape.len() - x.shape.len();
                let dims = x.shape.clone();
                x.gather_from(ty, move |to, from| {
                    for (a, f) in from.iter_mut().enumerate() {
                        *f = if dims[a] == 1 { 0 } else { to[a + skip] };
                    }
                })
            }
            Movement::Slice(cuts) => x.gather_from(ty, |to, from| {
                for (a, cut) in cuts.iter().enumerate() {
                    from[a] = cut.place(to[a], arguments);
                }
            }),
        })
    }
}

impl Tensor {
    fn moved(&self, name: &'static str, site: Site, made: Result<(Movement, Shape), Problem>) -> Tensor {
        match made {
            Ok((op, shape)) => {
                let ty = TensorType { shape, ..self.ty().clone() };
                Tensor::record_at(op, &[self], ty, site)
            }
            Err(problem) => Tensor::mistake_in(&[self], Error::new(name, problem, site), self.ty().clone()),
        }
    }

    /// A reshape that is known to fit.
    pub(crate) fn reshape_known(&self, shape: Shape, site: Site) -> Tensor {
        if *self.shape() == shape {
            return self.clone();
        }
        self.moved("reshape", site, Ok((Movement::Reshape, shape)))
    }

    #[track_caller]
    pub(crate) fn drop_last_axis(&self) -> Tensor {
        let shape = Shape::from(&self.shape()[..self.ndim().saturating_sub(1)]);
        self.reshape_known(shape, Site::here())
    }

    /// The same elements in the same order under another shape; one extent may be -1.
    ///
    /// # Errors
    /// Another number of elements.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::{DType, Tensor};
    /// let x = Tensor::arange(6, DType::F32).reshape([2, -1]);
    /// assert_eq!(x.shape()[..], [2, 3]);
    /// ```
    #[track_caller]
    pub fn reshape(&self, extents: impl IntoExtents) -> Tensor {
        let site = Site::here();
        let written = extents.into_extents();
        let refuse = || Problem::Reshape { from: self.shape().clone(), to: format!("{:?}", &written[..]) };
        let made = (|| {
            let product = |dims: &[usize]| dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or_else(refuse);
            let extents: SmallVec<[usize; 6]> = written.iter().filter(|&&d| d >= 0).map(|&d| d as usize).collect();
            let (known, holes) = (product(&extents)?, written.len() - extents.len());
            if holes > 1 || written.iter().any(|&d| d < -1) {
                return Err(refuse());
            }
            let left = self.numel().checked_div(known).unwrap_or(0);
            let shape = Shape(written.iter().map(|&d| if d < 0 { left } else { d as usize }).collect());
            if product(&shape)? != self.numel() || (holes == 1 && known == 0) {
                return Err(refuse());
            }
            Ok((Movement::Reshape, shape))
        })();
        if let Ok((_, shape)) = &made
            && shape == self.shape()
        {
            return self.clone();
        }
        self.moved("reshape", site, made)
    }

    /// Merges axes `start..=end` into one.
    #[track_caller]
    pub fn flatten(&self, start: isize, end: isize) -> Tensor {
        let site = Site::here();
        let made = (|| {
            if self.ndim() == 0 {
                return Ok((Movement::Reshape, Shape::from([1])));
            }
            let (start, end) = (self.shape().axis(start)?, self.shape().axis(end)?);
            if start > end {
                return Err(Problem::Argument(format!("axis {start} comes after axis {end}").into()));
            }
            let mut dims: SmallVec<[usize; 6]> = SmallVec::from_slice(&self.shape()[..start]);
            dims.push(self.shape()[start..=end].iter().product());
            dims.extend_from_slice(&self.shape()[end + 1..]);
            Ok((Movement::Reshape, Shape(dims)))
        })();
        self.moved("flatten", site, made)
    }

    /// Inserts an axis of 1 before `axis` (-1: after the last).
    #[track_caller]
    pub fn unsqueeze(&self, axis: isize) -> Tensor {
        let site = Site::here();
        let n = self.ndim() as isize;
        let made = if axis < -n - 1 || axis > n {
            Err(Problem::Axis { axis, shape: self.shape().clone() })
        } else {
            let mut dims = self.shape().0.clone();
            dims.insert(if axis < 0 { axis + n + 1 } else { axis } as usize, 1);
            Ok((Movement::Reshape, Shape(dims)))
        };
        self.moved("unsqueeze", site, made)
    }

    /// Drops an axis of 1.
    ///
    /// # Errors
    /// The axis is longer: unlike PyTorch's, this does not pass over it in silence.
    #[track_caller]
    pub fn squeeze(&self, axis: isize) -> Tensor {
        let site = Site::here();
        let made = self.shape().axis(axis).and_then(|a| {
            if self.shape()[a] != 1 {
                let rule = format!("axis {a} has {} elements, and only an axis of 1 can be dropped", self.shape()[a]);
                return Err(Problem::Shapes { shapes: vec![self.shape().clone()], rule: rule.into() });
            }
            let mut dims = self.shape().0.clone();
            dims.remove(a);
            Ok((Movement::Reshape, Shape(dims)))
        });
        self.moved("squeeze", site, made)
    }

    /// Reorders the axes: axis `i` of the result is axis `axes[i]`.
    #[track_caller]
    pub fn permute(&self, axes: impl IntoExtents) -> Tensor {
        let site = Site::here();
        let written = axes.into_extents();
        let made = (|| {
            let mut order: SmallVec<[usize; 6]> = SmallVec::new();
            for &axis in &written {
                order.push(self.shape().axis(axis)?);
            }
            let mut seen = order.clone();
            seen.sort_unstable();
            if seen.len() != self.ndim() || seen.iter().enumerate().any(|(i, &a)| i != a) {
                let rule = format!("each of the {} axes must be named once, not {:?}", self.ndim(), &written[..]);
                return Err(Problem::Shapes { shapes: vec![self.shape().clone()], rule: rule.into() });
            }
            let shape = Shape(permuted(self.shape(), &order));
            Ok((Movement::Permute(order), shape))
        })();
        self.moved("permute", site, made)
    }

    /// Exchanges two axes.
    #[track_caller]
    pub fn transpose(&self, a: isize, b: isize) -> Tensor {
        let site = Site::here();
        let made = (|| {
            let (a, b) = (self.shape().axis(a)?, self.shape().axis(b)?);
            let mut order: SmallVec<[usize; 6]> = (0..self.ndim()).collect();
            order.swap(a, b);
            let shape = Shape(permuted(self.shape(), &order));
            Ok((Movement::Permute(order), shape))
        })();
        self.moved("transpose", site, made)
    }

    /// Exchanges the last two axes: the transpose of a matrix.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        self.transpose(-2, -1)
    }

    /// Repeats axes of 1, and new leading ones, up to `shape`; no memory is used.
    #[track_caller]
    pub fn expand(&self, shape: impl Into<Shape>) -> Tensor {
        let site = Site::here();
        let to = shape.into();
        if *self.shape() == to {
            return self.clone();
        }
        let made = match self.shape().broadcast(&to) {
            Some(shape) if shape == to => Ok((Movement::Expand, to)),
            _ => {
                let rule = "the first must broadcast to the second".into();
                Err(Problem::Shapes { shapes: vec![self.shape().clone(), to], rule })
            }
        };
        self.moved("expand", site, made)
    }

    /// Part of one axis: `x.slice(0, 2..5)`, `x.slice(-1, ..-1)`.
    ///
    /// # Errors
    /// The range leaves the axis.
    #[track_caller]
    pub fn slice(&self, axis: isize, range: impl IntoRange) -> Tensor {
        self.slice_step(axis, range, 1)
    }

    /// Every `step`th element of part of one axis.
    #[track_caller]
    pub fn slice_step(&self, axis: isize, range: impl IntoRange, step: usize) -> Tensor {
        let site = Site::here();
        let written = range.into_range();
        let made = self.shape().axis(axis).and_then(|axis| {
            let extent = self.shape()[axis];
            if step == 0 {
                return Err(Problem::Argument("the step of a slice must be at least 1".into()));
            }
            let (start, end) = resolve_range(written, extent).ok_or_else(|| {
                let end = |e: Option<isize>| e.map_or(String::new(), |v| v.to_string());
                let range = format!("{}..{}", end(written.0), end(written.1));
                Problem::Range { range, axis, shape: self.shape().clone() }
            })?;
            // A longer step takes the same one element, and is no stride that memory could have.
            let step = step.min(extent.max(1));
            let mut dims = self.shape().0.clone();
            dims[axis] = (end - start).div_ceil(step);
            let mut cuts: Cuts = smallvec::smallvec![Cut::WHOLE; self.ndim()];
            if dims[axis] != extent {
                cuts[axis] = Cut { start: Start::Host(Host::Value(Given { start, cell: None })), step };
            }
            Ok((Movement::Slice(cuts), Shape(dims)))
        });
        self.moved("slice", site, made)
    }

    /// `N` equal parts along one axis, in order.
    ///
    /// Where they lie is part of the program, unlike the start of a slice: their gradients are put side by side.
    ///
    /// # Errors
    /// An axis that cannot be cut into `N` equal parts.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::{DType, Tensor};
    /// let [low, high] = Tensor::arange(6, DType::I32).chunk(0);
    /// assert_eq!([low.to_vec::<i32>()?, high.to_vec()?], [[0, 1, 2], [3, 4, 5]]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn chunk<const N: usize>(&self, axis: isize) -> [Tensor; N] {
        let site = Site::here();
        let cut = |part: usize| {
            let axis = self.shape().axis(axis)?;
            let (extent, mut shape) = (self.shape()[axis], self.shape().clone());
            if !extent.is_multiple_of(N) {
                let rule = format!("axis {axis} of {extent} cannot be cut into {N} equal parts").into();
                return Err(Problem::Shapes { shapes: vec![shape], rule });
            }
            shape.0[axis] = extent / N;
            let mut cuts: Cuts = smallvec::smallvec![Cut::WHOLE; shape.len()];
            cuts[axis] = Cut::fixed(part * (extent / N));
            Ok((Movement::Slice(cuts), shape))
        };
        std::array::from_fn(|part| self.moved("chunk", site, cut(part)))
    }

    /// `length` elements of one axis from `start` on.
    #[track_caller]
    pub fn narrow(&self, axis: isize, start: usize, length: usize) -> Tensor {
        self.slice(axis, start..start.saturating_add(length))
    }
}
