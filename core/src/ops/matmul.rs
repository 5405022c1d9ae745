//! Contraction: batched matrix products with broadcast batches. Operands are read through strides, so transposes cost
//! nothing.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::Primitive;
use super::movement::swaps_last_axes;
use crate::compile::fuse::Lower;
use crate::compile::world::{Id, Vjp};
use crate::error::{Error, Problem};
use crate::precision::Precision;
use crate::program::kernel::{self, Dims, Kernel, Layout};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// `c[…, m, n] = Σₖ a[…, m, k] · b[…, k, n]`; both operands have at least two axes, batches broadcast.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Matmul;

impl Primitive for Matmul {
    fn name(&self) -> Cow<'static, str> {
        "matmul".into()
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn is_saved(&self) -> bool {
        true
    }

    /// `ā = c̄ bᵀ`, `b̄ = aᵀ c̄`, summed over batches the operand was repeated for.
    fn vjp(&self, cx: &mut Vjp<'_>) {
        let (mut a, b, mut c) = (cx.inputs[0], cx.inputs[1], cx.cotangent);
        let (a_shape, b_shape) = (cx.input_shape(0), cx.input_shape(1));
        // One matrix for all of a batch: the batch is more rows, and b̄ is one product instead of a sum of many.
        let rows = b_shape.len() == 2 && a_shape.len() > 2;
        if rows {
            let flat = |s: &Shape| Shape::from([s[..s.len() - 1].iter().product(), s[s.len() - 1]]);
            let (flat_a, flat_c) = (flat(&a_shape), flat(cx.world.shape(c)));
            a = cx.world.reshape(a, flat_a);
            c = cx.world.reshape(c, flat_c);
        }
        if cx.wants(0) {
            let bt = cx.world.transpose(b);
            let value = product(cx, c, bt);
            let value = if rows { cx.world.reshape(value, a_shape.clone()) } else { value };
            let value = cx.world.sum_to(value, &a_shape);
            cx.contribute(0, value);
        }
        if cx.wants(1) {
            // Where b is a transposed matrix (a Linear's weight), b̄ is made transposed too: the weight's own gradient
            // is then in order, and the update reads it as it lies.
            let value = if swaps_last_axes(&cx.world.op[b.index()]) {
                let ct = cx.world.transpose(c);
                let turned = product(cx, ct, a);
                cx.world.transpose(turned)
            } else {
                let at = cx.world.transpose(a);
                product(cx, at, c)
            };
            let value = cx.world.sum_to(value, &b_shape);
            cx.contribute(1, value);
        }
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let ty = cx.ty().clone();
        let (a_dims, b_dims) = (cx.input_ty(0).shape.clone(), cx.input_ty(1).shape.clone());
        let ((a, a_layout), (b, b_layout)) = (cx.strided(0), cx.strided(1));
        let rank = ty.shape.len();
        let batch = Dims::from_slice(&ty.shape[..rank - 2]);
        let (m, n, k) = (ty.shape[rank - 2], ty.shape[rank - 1], a_dims[a_dims.len() - 1]);
        let full = |dims: &[usize], layout: &Layout| {
            let tail = &dims[dims.len() - 2..];
            layout.expand(dims, &[&batch[..], tail].concat())
        };
        let (a_layout, b_layout) = (full(&a_dims, &a_layout), full(&b_dims, &b_layout));
        let (batch, m, a_layout, b_layout) = fold_batch(batch, m, k, a_layout, b_layout);
        let [m, n, k] = [m, n, k].map(|extent| Dims::from_slice(&[extent]));
        let kernel = kernel::Matmul { dtype: ty.dtype, batch, m, n, k, a: a_layout, b: b_layout };
        cx.emit(Kernel::Matmul(kernel), vec![a, b]);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Ok(inputs[0].matmul(inputs[1], ty))
    }
}

/// Turns batch axes into rows where `b` is the same for all of them and `a` allows it: one large product instead of
/// many small.
fn fold_batch(batch: Dims, m: usize, k: usize, a: Layout, b: Layout) -> (Dims, usize, Layout, Layout) {
    let repeated = batch.iter().zip(&b.strides).all(|(&d, &s)| d == 1 || s == 0);
    let rows: usize = batch.iter().product::<usize>() * m;
    if batch.is_empty() || !repeated {
        return (batch, m, a, b);
    }
    match a.reshape(&[&batch[..], &[m, k]].concat(), &[rows, k]) {
        Some(folded) => {
            let tail = b.strides.len() - 2;
            let b = Layout { strides: SmallVec::from_slice(&b.strides[tail..]), ..b.clone() };
            (Dims::new(), rows, folded, b)
        }
        None => (batch, m, a, b),
    }
}

fn product(cx: &mut Vjp<'_>, a: Id, b: Id) -> Id {
    let ty = cx.world.ty[a.index()].clone();
    let shape = infer(cx.world.shape(a), cx.world.shape(b)).unwrap_or_default();
    cx.world.push(Matmul, &[a, b], TensorType { shape, ..ty })
}

fn infer(a: &Shape, b: &Shape) -> Result<Shape, Problem> {
    let refuse = |rule: String| Problem::Shapes { shapes: vec![a.clone(), b.clone()], rule: rule.into() };
    let (ra, rb) = (a.len(), b.len());
    if a[ra - 1] != b[rb - 2] {
        let rule = format!(
            "the last axis of the first, {}, must equal the last but one of the second, {}",
            a[ra - 1],
            b[rb - 2]
        );
        return Err(refuse(rule));
    }
    let (batch_a, batch_b) = (Shape::from(&a[..ra - 2]), Shape::from(&b[..rb - 2]));
    let mut shape = batch_a
        .broadcast(&batch_b)
        .ok_or_else(|| refuse(format!("the batches {batch_a} and {batch_b} must broadcast")))?;
    shape.0.extend([a[ra - 2], b[rb - 1]]);
    Ok(shape)
}

impl Tensor {
    /// The matrix product.
    ///
    /// # Shapes
    /// `(…, m, k) × (…, k, n) → (…, m, n)`, batches broadcast. As NumPy's `matmul`, a vector on the left is a row and
    /// on the right a column, and its axis is dropped from the result.
    ///
    /// # Gradient
    /// `ā = c̄ bᵀ`, `b̄ = aᵀ c̄`.
    ///
    /// # Errors
    /// Inner extents that differ, batches that do not broadcast, integers, two dtypes.
    ///
    /// # Numerics
    /// k in order; f16 and bf16 are summed in f32 and rounded once. See [`Precision`] for what it makes of f32, and
    /// for what processors with instructions for bf16 do.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::Tensor;
    /// let a = Tensor::from_vec(vec![1.0f32, 2.0, 3.0, 4.0], [2, 2]);
    /// assert_eq!(a.matmul(&a).to_vec::<f32>()?, [7.0, 10.0, 15.0, 22.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        let precision = Precision::current();
        precision.operand(self).product(&precision.operand(other))
    }

    #[track_caller]
    fn product(&self, other: &Tensor) -> Tensor {
        let site = Site::here();
        let refused =
            |problem| Tensor::mistake_in(&[self, other], Error::new("matmul", problem, site), self.ty().clone());
        if self.dtype() != other.dtype() {
            return refused(Problem::DTypes { left: self.dtype(), right: other.dtype() });
        }
        if !self.dtype().is_float() {
            return refused(Problem::DType { found: self.dtype(), wanted: "a float".into() });
        }
        if self.ndim() == 0 || other.ndim() == 0 {
            let rule = "both need at least one axis".into();
            return refused(Problem::Shapes { shapes: vec![self.shape().clone(), other.shape().clone()], rule });
        }
        if self.ndim() == 1 || other.ndim() == 1 {
            let a = if self.ndim() == 1 { self.unsqueeze(0) } else { self.clone() };
            let b = if other.ndim() == 1 { other.unsqueeze(1) } else { other.clone() };
            let mut out = a.product(&b);
            if other.ndim() == 1 && out.ndim() > 0 {
                out = out.drop_last_axis();
            }
            return if self.ndim() == 1 { out.squeeze(if other.ndim() == 1 { -1 } else { -2 }) } else { out };
        }
        match infer(self.shape(), other.shape()) {
            Ok(shape) => {
                let ty = TensorType { shape, ..self.ty().clone() };
                Tensor::record_at(Matmul, &[self, other], ty, site)
            }
            Err(problem) => refused(problem),
        }
    }
}
