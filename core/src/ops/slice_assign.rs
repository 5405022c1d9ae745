//! Regions of a tensor written over, at places that the host gives: how a cache is filled. The transpose of a slice is
//! in it, as in padding, but what lies around the region stays.

use std::borrow::Cow;

use smallvec::{SmallVec, smallvec};

use super::concat::Concat;
use super::cut::{Cut, Cuts, Given, bind_starts, origins_of, starts_given};
use super::movement::Movement;
use super::{Arguments, Primitive};
use crate::capture::{HostCell, Origin, place};
use crate::compile::fuse::Lower;
use crate::compile::world::{Id, Vjp};
use crate::error::{Error, Problem};
use crate::program::kernel::Layout;
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;

/// Inputs: what is written over, and what is written. One region takes all of the value; of several, each takes the
/// value's part of the same number along axis 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SliceAssign {
    regions: SmallVec<[Cuts; 1]>,
}

impl SliceAssign {
    /// The starts that the host gives.
    pub fn arguments(&self) -> Arguments {
        starts_given(self.regions.iter().flatten())
    }

    /// Where they come from when a captured program runs again.
    pub fn origins(&self) -> SmallVec<[Origin; 2]> {
        origins_of(self.regions.iter().flatten())
    }

    /// The same regions with their starts from slot `first` on.
    pub fn with_slots(&self, first: usize) -> SliceAssign {
        let mut out = self.clone();
        bind_starts(out.regions.iter_mut().flatten(), first);
        out
    }

    /// Which part of the value region `index` takes, and its extents.
    fn part(&self, index: usize, value: &[usize]) -> (Cuts, SmallVec<[usize; 6]>) {
        let mut cuts: Cuts = smallvec![Cut::WHOLE; value.len()];
        let mut dims = SmallVec::from_slice(value);
        if self.regions.len() > 1 {
            (cuts[0], dims[0]) = (Cut::fixed(index), 1);
        }
        (cuts, dims)
    }
}

impl Primitive for SliceAssign {
    fn name(&self) -> Cow<'static, str> {
        match &self.regions[..] {
            [region] => format!("slice_assign {region:?}").into(),
            regions => format!("slice_assign {} regions", regions.len()).into(),
        }
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let value = cx.world.ty[cx.inputs[1].index()].clone();
        if cx.wants(0) {
            let ty = cx.world.ty[cx.inputs[0].index()].clone();
            let zeros = cx.world.constant(0.0, value.clone());
            let around = cx.world.push(self.clone(), &[cx.cotangent, zeros], ty);
            cx.contribute(0, around);
        }
        if cx.wants(1) {
            let cotangent = cx.cotangent;
            let mut parts: Vec<Id> = Vec::with_capacity(self.regions.len());
            for (index, region) in self.regions.iter().enumerate() {
                let (_, dims) = self.part(index, &value.shape);
                let ty = TensorType { shape: dims[..].into(), ..value.clone() };
                parts.push(cx.world.push(Movement::Slice(region.clone()), &[cotangent], ty));
            }
            let whole = match parts[..] {
                [part] => part,
                _ => cx.world.push(Concat::new(0), &parts, value),
            };
            cx.contribute(1, whole);
        }
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let whole = Layout::contiguous(&cx.ty().shape);
        // First what is written, then the rest: whoever plans may leave out the copy of what is not needed any more.
        let value = cx.movable(1);
        let rest = cx.movable(0);
        if value.space == rest.space && self.regions.len() == 1 {
            cx.store_part(value, whole);
            return Ok(());
        }
        cx.store_part(rest, whole.clone());
        for (index, region) in self.regions.iter().enumerate() {
            let (cuts, dims) = self.part(index, &value.space);
            let misfit = || Problem::Argument("invariant: a part of an expression is an expression".into());
            let part = if self.regions.len() > 1 { value.slice(&cuts, &dims) } else { Some(value.clone()) };
            cx.store_part(part.ok_or_else(misfit)?, whole.slice(region));
        }
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, arguments: &[u64]) -> Result<Array, Problem> {
        let mut out = inputs[0].with_type(ty);
        let several = self.regions.len() > 1;
        inputs[1].scatter_into(&mut out, |from, to| {
            let region = &self.regions[if several { from[0] } else { 0 }];
            for (axis, cut) in region.iter().enumerate() {
                let at = if several && axis == 0 { 0 } else { from[axis] };
                to[axis] = cut.place(at, arguments);
            }
        });
        Ok(out)
    }
}

/// Whether `value` may be written into a tensor of `base`'s type at `starts`.
fn check(base: &Tensor, value: &Tensor, starts: &[usize]) -> Result<(), Problem> {
    if base.dtype() != value.dtype() {
        return Err(Problem::DTypes { left: base.dtype(), right: value.dtype() });
    }
    let (dims, part) = (base.shape(), value.shape());
    let fits = |axis: usize| starts[axis].checked_add(part[axis]).is_some_and(|end| end <= dims[axis]);
    if starts.len() == dims.len() && part.len() == dims.len() && (0..dims.len()).all(fits) {
        return Ok(());
    }
    let rule = format!("the second must fit into the first from {starts:?} on, one start per axis").into();
    Err(Problem::Shapes { shapes: vec![dims.clone(), part.clone()], rule })
}

impl Tensor {
    #[track_caller]
    fn assigned(&self, name: &'static str, value: &Tensor, regions: Result<SmallVec<[Cuts; 1]>, Problem>) -> Tensor {
        let site = Site::here();
        match regions {
            Ok(regions) => Tensor::record_at(SliceAssign { regions }, &[self, value], self.ty().clone(), site),
            Err(problem) => Tensor::mistake_in(&[self, value], Error::new(name, problem, site), self.ty().clone()),
        }
    }

    /// The cuts of a region: where it covers an axis there is only one place to start.
    fn region(&self, value: &Tensor, starts: &[usize]) -> Result<Cuts, Problem> {
        check(self, value, starts)?;
        let covers = |axis: usize| value.shape()[axis] == self.shape()[axis];
        let given = |start| Cut::from_host(Given { start, cell: None });
        let cut = |(axis, &start): (usize, &usize)| if covers(axis) { Cut::WHOLE } else { given(start) };
        Ok(starts.iter().enumerate().map(cut).collect())
    }

    /// This tensor with `value` in the place of `value.shape()[axis]` elements of one axis, from `start` on.
    ///
    /// Where it starts is no part of a program: filling a cache place by place compiles once. If the result replaces
    /// the tensor in a step (`commit`) and nothing else reads the tensor any more, only the region is written.
    ///
    /// # Shapes
    /// `value` has this tensor's extents on all axes but `axis`.
    /// # Gradient
    /// The region's cotangent is the value's; that of everything around it is this tensor's.
    /// # Errors
    /// Another dtype; a value that does not fit at this place.
    /// # Example
    /// ```
    /// # use tapeflow_core::{DType, Tensor};
    /// let cache = Tensor::zeros([4, 2], DType::F32);
    /// let row = Tensor::from_vec(vec![1.0f32, 2.0], [1, 2]);
    /// assert_eq!(cache.slice_assign(0, 2, &row).to_vec::<f32>()?, [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn slice_assign(&self, axis: isize, start: usize, value: &Tensor) -> Tensor {
        let region = self.shape().axis(axis).and_then(|axis| {
            let elsewhere = |a: usize| a == axis || value.shape().get(a) == self.shape().get(a);
            if value.ndim() != self.ndim() || !(0..self.ndim()).all(elsewhere) {
                let shapes = vec![self.shape().clone(), value.shape().clone()];
                let rule = format!("all extents but that of axis {axis} must agree").into();
                return Err(Problem::Shapes { shapes, rule });
            }
            let mut starts: SmallVec<[usize; 6]> = smallvec![0; self.ndim()];
            starts[axis] = start;
            self.region(value, &starts)
        });
        self.assigned("slice_assign", value, region.map(|cuts| smallvec![cuts]))
    }

    /// This tensor with `value` written over it from `starts` on, one start per axis: XLA's `dynamic_update_slice`,
    /// but that a value which does not fit is an error.
    ///
    /// # Shapes
    /// `value` has as many axes as this tensor, each at most as long.
    /// # Gradient
    /// As that of [`slice_assign`](Tensor::slice_assign).
    /// # Errors
    /// Another dtype; a value that does not fit at this place.
    /// # Example
    /// ```
    /// # use tapeflow_core::{DType, Tensor};
    /// let x = Tensor::zeros([2, 3], DType::F32).slice_assign_at(&[1, 2], &Tensor::ones([1, 1], DType::F32));
    /// assert_eq!(x.to_vec::<f32>()?, [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn slice_assign_at(&self, starts: &[usize], value: &Tensor) -> Tensor {
        let region = self.region(value, starts);
        self.assigned("slice_assign_at", value, region.map(|cuts| smallvec![cuts]))
    }

    /// This tensor with a region written in each row: row `i` of `value` goes to row `i`, from `starts[i]` of `axis`
    /// on. So sequences of different lengths share a cache.
    ///
    /// # Shapes
    /// `value` has this tensor's extents on all axes but `axis`, which is not 0.
    /// # Gradient
    /// As that of [`slice_assign`](Tensor::slice_assign).
    /// # Errors
    /// Another dtype; axis 0; not one start per row; a row that does not fit at its place.
    /// # Example
    /// ```
    /// # use tapeflow_core::{DType, Tensor};
    /// let x = Tensor::zeros([2, 3], DType::F32);
    /// let x = x.slice_assign_rows(1, &[2, 0], &Tensor::from_vec(vec![5.0f32, 7.0], [2, 1]));
    /// assert_eq!(x.to_vec::<f32>()?, [0.0, 0.0, 5.0, 7.0, 0.0, 0.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn slice_assign_rows(&self, axis: isize, starts: &[usize], value: &Tensor) -> Tensor {
        let regions = self.regions_of_rows(axis, starts, value);
        self.assigned("slice_assign_rows", value, regions)
    }

    /// [`slice_assign_rows`](Tensor::slice_assign_rows) from the places that cells say: when it is recorded, and when a
    /// captured step runs again.
    ///
    /// # Errors
    /// As there; a cell that says no place, or one that the row does not fit at, also when a captured step runs.
    /// # Example
    /// ```
    /// # use tapeflow_core::{HostCell, Slot, Tensor, DType, capture, commit};
    /// let (cache, place) = (Slot::new(Tensor::zeros([1, 3], DType::F32))?, HostCell::new(0.0));
    /// let x = Tensor::from_vec(vec![5.0f32], [1, 1]);
    /// let mut step = capture(&[&x], |x| {
    ///     let new = cache.tensor().slice_assign_cells(1, &[place.clone()], &x[0]);
    ///     commit(&[(&cache, new)])?;
    ///     Ok::<_, tapeflow_core::Error>(vec![])
    /// })?;
    /// place.set(2.0);
    /// step.run(&[&Tensor::from_vec(vec![7.0f32], [1, 1])])?;
    /// assert_eq!(cache.tensor().to_vec::<f32>()?, [5.0, 0.0, 7.0]);
    /// place.set(3.0);
    /// assert!(step.run(&[&x]).is_err()); // and the cache is as it was
    /// assert_eq!(cache.tensor().to_vec::<f32>()?, [5.0, 0.0, 7.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn slice_assign_cells(&self, axis: isize, starts: &[HostCell], value: &Tensor) -> Tensor {
        let regions = self.shape().axis(axis).and_then(|axis| {
            let extent = self.shape()[axis];
            let places = starts.iter().map(|cell| {
                let refused = || Problem::Argument(format!("a start must be a place, not {}", cell.get()).into());
                place(cell.get(), extent).ok_or_else(refused)
            });
            let places = places.collect::<Result<SmallVec<[usize; 4]>, _>>()?;
            let mut regions = self.regions_of_rows(axis as isize, &places, value)?;
            let most = extent - value.shape()[axis];
            for ((region, cell), &start) in regions.iter_mut().zip(starts).zip(&places) {
                region[axis] = Cut::from_host(Given { start, cell: Some(Box::new((cell.clone(), most))) });
            }
            Ok(regions)
        });
        self.assigned("slice_assign_cells", value, regions)
    }

    /// Where each row of `value` goes; one region if there is one row.
    fn regions_of_rows(&self, axis: isize, starts: &[usize], value: &Tensor) -> Result<SmallVec<[Cuts; 1]>, Problem> {
        self.shape().axis(axis).and_then(|axis| {
            let elsewhere = |a: usize| a == axis || value.shape().get(a) == self.shape().get(a);
            let agree = value.ndim() == self.ndim() && (0..self.ndim()).all(elsewhere);
            if axis == 0 || !agree || starts.len() != self.shape()[0] {
                let shapes = vec![self.shape().clone(), value.shape().clone()];
                let rule = format!(
                    "along an axis after the first, all other extents must agree, and each row needs a start: axis \
                     {axis} and {} starts were given",
                    starts.len()
                );
                return Err(Problem::Shapes { shapes, rule: rule.into() });
            }
            let region = |start: usize| {
                let mut places: SmallVec<[usize; 6]> = smallvec![0; self.ndim()];
                places[axis] = start;
                self.region(value, &places)
            };
            if let &[] | &[_] = starts {
                return Ok(smallvec![region(starts.first().copied().unwrap_or(0))?]);
            }
            let row = |(row, &start): (usize, &usize)| {
                let mut cuts = region(start)?;
                cuts[0] = Cut::fixed(row);
                Ok(cuts)
            };
            starts.iter().enumerate().map(row).collect()
        })
    }
}
