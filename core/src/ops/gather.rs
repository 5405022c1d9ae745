//! Gather and its transpose: rows picked by index, and rows added into by index. Embeddings are gathers.

use std::borrow::Cow;

use tapeflow_ir::DType;

use super::{Flow, Primitive};
use crate::compile::fuse::Lower;
use crate::compile::world::Vjp;
use crate::error::{Error, Problem};
use crate::program::kernel::{self, Kernel};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// Inputs: data, index. `along`: NumPy's take_along_axis; else the index's shape replaces the axis (NumPy's take).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gather {
    axis: usize,
    along: bool,
}

/// Inputs: cotangent-like data, index. The result has `extent` at the axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ScatterAdd {
    gather: Gather,
    extent: usize,
}

impl Gather {
    /// The kernel, for a gather from `data` (or a scatter into it).
    fn kernel(&self, dtype: DType, data: &Shape, index: &TensorType) -> kernel::Gather {
        let inner: usize = data[self.axis + 1..].iter().product();
        let outer: usize = data[..self.axis].iter().product();
        let picks = if self.along { index.shape[self.axis] } else { index.shape.numel() };
        let extent = data[self.axis];
        kernel::Gather { dtype, index_dtype: index.dtype, outer, extent, inner, picks, along: self.along }
    }

    fn shape(&self, data: &Shape, index: &Shape) -> Shape {
        if self.along {
            return index.clone();
        }
        let mut dims: Vec<usize> = data[..self.axis].to_vec();
        dims.extend_from_slice(index);
        dims.extend_from_slice(&data[self.axis + 1..]);
        Shape::from(dims)
    }
}

fn index_flow(input: usize) -> Flow {
    if input == 0 { Flow::Carries } else { Flow::Stops }
}

impl Primitive for Gather {
    fn name(&self) -> Cow<'static, str> {
        if self.along { "gather".into() } else { "index_select".into() }
    }

    fn flow(&self, input: usize, _: &[&TensorType]) -> Flow {
        index_flow(input)
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn is_saved(&self) -> bool {
        true
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let ty = cx.world.ty[cx.inputs[0].index()].clone();
        let op = ScatterAdd { gather: self.clone(), extent: ty.shape[self.axis] };
        let value = cx.world.push(op, &[cx.cotangent, cx.inputs[1]], ty);
        cx.contribute(0, value);
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let kernel = self.kernel(cx.ty().dtype, &cx.input_ty(0).shape, cx.input_ty(1));
        let reads = vec![cx.stored(0), cx.stored(1)];
        cx.emit(Kernel::Gather(kernel), reads);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        inputs[0].gather(inputs[1], self.axis, self.along, ty)
    }
}

impl Primitive for ScatterAdd {
    fn name(&self) -> Cow<'static, str> {
        "scatter_add".into()
    }

    fn flow(&self, input: usize, _: &[&TensorType]) -> Flow {
        index_flow(input)
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn widens(&self, _: bool) -> bool {
        true
    }

    fn is_saved(&self) -> bool {
        true
    }

    fn vjp(&self, cx: &mut Vjp<'_>) {
        let ty = cx.world.ty[cx.inputs[0].index()].clone();
        let value = cx.world.push(self.gather.clone(), &[cx.cotangent, cx.inputs[1]], ty);
        cx.contribute(0, value);
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let kernel = self.gather.kernel(cx.ty().dtype, &cx.ty().shape.clone(), cx.input_ty(1));
        let reads = vec![cx.stored(0), cx.stored(1)];
        cx.emit(Kernel::ScatterAdd(kernel::ScatterAdd(kernel)), reads);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        inputs[0].scatter_add(inputs[1], self.gather.axis, self.gather.along, ty)
    }
}

fn check_index(index: &Tensor) -> Result<(), Problem> {
    match index.dtype() {
        DType::I32 | DType::U32 | DType::I64 => Ok(()),
        found => Err(Problem::DType { found, wanted: "i32, u32 or i64 as index".into() }),
    }
}

impl Tensor {
    #[track_caller]
    fn gathered(&self, name: &'static str, axis: isize, index: &Tensor, along: bool) -> Tensor {
        let site = Site::here();
        let made = (|| {
            check_index(index)?;
            let axis = self.shape().axis(axis)?;
            let fits = !along
                || (index.ndim() == self.ndim()
                    && (0..self.ndim()).all(|a| a == axis || index.shape()[a] == self.shape()[a]));
            if !fits {
                let shapes = vec![self.shape().clone(), index.shape().clone()];
                let rule = format!("the index must have the data's extents on all axes but {axis}").into();
                return Err(Problem::Shapes { shapes, rule });
            }
            let op = Gather { axis, along };
            let shape = op.shape(self.shape(), index.shape());
            Ok((op, TensorType { shape, ..self.ty().clone() }))
        })();
        match made {
            Ok((op, ty)) => Tensor::record_at(op, &[self, index], ty, site),
            Err(problem) => Tensor::mistake_in(&[self, index], Error::new(name, problem, site), self.ty().clone()),
        }
    }

    /// Picks along an axis: the index's shape takes the axis's place. NumPy's `take`; negative indices count from the
    /// end.
    ///
    /// # Errors
    /// An index outside the axis is an error of the run, and nothing is updated by that run.
    #[track_caller]
    pub fn index_select(&self, axis: isize, index: &Tensor) -> Tensor {
        self.gathered("index_select", axis, index, false)
    }

    /// Picks one element per index along an axis: NumPy's `take_along_axis`, PyTorch's `gather`.
    #[track_caller]
    pub fn gather(&self, axis: isize, index: &Tensor) -> Tensor {
        self.gathered("gather", axis, index, true)
    }

    /// The rows of this table that `index` names.
    ///
    /// # Shapes
    /// table `(V, C)`, index `(…)` → `(…, C)`
    #[track_caller]
    pub fn embedding(&self, index: &Tensor) -> Tensor {
        if self.ndim() != 2 {
            let problem = Problem::Rank { shape: self.shape().clone(), wanted: 2 };
            return Tensor::mistake_in(
                &[self, index],
                Error::new("embedding", problem, Site::here()),
                self.ty().clone(),
            );
        }
        self.gathered("embedding", 0, index, false)
    }
}
