//! Attention: what users call, and the operation that they record. Vaswani et al. 2017, arXiv:1706.03762.
//!
//! Owns the shape rules and the choice of how it is computed: in one pass where the device has a kernel for it
//! (`one_pass`), else by products and a softmax (`composite`). The choice is made before anything is differentiated.

mod composite;
mod one_pass;

use std::borrow::Cow;

use tapeflow_ir::DType;

use super::kernel::KernelOp;
use super::{Flow, Primitive, cast};
use crate::compile::fuse::Lower;
use crate::compile::world::{Id, Ids, World};
use crate::device::Kind;
use crate::error::{Error, Problem};
use crate::precision::Precision;
use crate::program::kernel::Mask;
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;
pub(crate) use one_pass::{OnePass, OnePassVjp};

const EXPANDED: &str = "invariant: attention is written out before anything is done with it";

/// `softmax(q kᵀ / √D) v` over the keys that the mask leaves; inputs q, k, v, and with [`Mask::Cached`] the places.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attention {
    mask: Mask,
}

/// What attends to what: `(…, T, D)`, `(…, S, D)`, `(…, S, E)` with one batch, and `(B,)` places.
#[derive(Clone)]
struct Operands {
    q: Id,
    k: Id,
    v: Id,
    first: Option<Id>,
    mask: Mask,
}

impl Operands {
    fn of(inputs: &[Id], mask: Mask) -> Operands {
        Operands { q: inputs[0], k: inputs[1], v: inputs[2], first: inputs.get(3).copied(), mask }
    }
}

impl Primitive for Attention {
    fn name(&self) -> Cow<'static, str> {
        match self.mask {
            Mask::None => "attention",
            Mask::Causal => "causal_attention",
            Mask::Cached => "cached_attention",
        }
        .into()
    }

    fn flow(&self, input: usize, _: &[&TensorType]) -> Flow {
        if input < 3 { Flow::Carries } else { Flow::Stops }
    }

    fn expands(&self) -> bool {
        true
    }

    fn expanded(&self, world: &mut World, inputs: &[Id], ty: &TensorType) -> Id {
        let batch = Shape::from(&ty.shape[..ty.shape.len() - 2]);
        let mut inputs: Ids = Ids::from_slice(inputs);
        for x in &mut inputs[..3] {
            let shape = world.shape(*x);
            let lines = &shape[shape.len() - 2..];
            *x = world.expand(*x, Shape::from([&batch[..], lines].concat()));
        }
        if ty.device.0 != Kind::Cpu || ty.dtype == DType::F64 {
            return composite::composite(world, &Operands::of(&inputs, self.mask), ty);
        }
        let y = one_pass::one_pass(world, &Operands::of(&inputs, self.mask));
        converted(world, y, ty.dtype)
    }

    fn lower(&self, _: &mut Lower<'_>) -> Result<(), Problem> {
        Err(Problem::Argument(EXPANDED.into()))
    }

    fn evaluate(&self, _: &[&Array], _: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Err(Problem::Argument(EXPANDED.into()))
    }
}

/// The value as `dtype`.
fn converted(world: &mut World, x: Id, dtype: DType) -> Id {
    if world.dtype(x) == dtype {
        return x;
    }
    let ty = TensorType { dtype, ..world.ty[x.index()].clone() };
    world.push(KernelOp::template(cast::template(dtype), 0), &[x], ty)
}

#[track_caller]
fn record(
    name: &'static str,
    mask: Mask,
    operands: [&Tensor; 3],
    first: Option<&Tensor>,
    shape: Result<Shape, Cow<'static, str>>,
) -> Tensor {
    let site = Site::here();
    let precision = Precision::current();
    let [q, k, v] = operands.map(|x| precision.operand(x));
    let mut inputs = vec![&q, &k, &v];
    inputs.extend(first);
    let shapes = || inputs.iter().map(|x| x.shape().clone()).collect();
    let mixed = [&k, &v].into_iter().find(|x| x.dtype() != q.dtype());
    let checked = match (shape, mixed, first) {
        (Err(rule), ..) => Err(Problem::Shapes { shapes: shapes(), rule }),
        (_, Some(other), _) => Err(Problem::DTypes { left: q.dtype(), right: other.dtype() }),
        _ if !q.dtype().is_float() => Err(Problem::DType { found: q.dtype(), wanted: "a float".into() }),
        (.., Some(first)) if first.dtype() != DType::I64 => {
            Err(Problem::DType { found: first.dtype(), wanted: "places as i64".into() })
        }
        (Ok(shape), ..) => Ok(TensorType { shape, ..q.ty().clone() }),
    };
    match checked {
        Ok(ty) => Tensor::record_at(Attention { mask }, &inputs, ty, site),
        Err(problem) => Tensor::mistake_in(&inputs, Error::new(name, problem, site), q.ty().clone()),
    }
}

/// The shape of the result, if those of the operands fit; `causal`: there must be a key for each query.
fn shape_of([q, k, v]: [&Tensor; 3], causal: bool) -> Option<Shape> {
    let lines = |x: &Tensor| Some((*x.shape().get(x.ndim().checked_sub(2)?)?, *x.shape().last()?));
    let ((t, d), (s, depth), (values, e)) = (lines(q)?, lines(k)?, lines(v)?);
    let batch = |x: &Tensor| Shape::from(&x.shape()[..x.ndim() - 2]);
    let fits = d == depth && s == values && (t <= s || !causal);
    let mut shape = batch(q).broadcast(&batch(k))?.broadcast(&batch(v))?;
    shape.0.extend([t, e]);
    fits.then_some(shape)
}

/// Attention in which every query sees every key.
///
/// # Shapes
/// `q: (…, T, D)`, `k: (…, S, D)`, `v: (…, S, E)` → `(…, T, E)`; batches broadcast
/// # Formula
/// `softmax(q kᵀ / √D) v`. Vaswani et al. 2017, arXiv:1706.03762.
/// # Numerics
/// As [`causal_attention`].
/// # Errors
/// Shapes that do not fit, integers, several dtypes.
/// # Example
/// ```
/// # use tapeflow_core::{DType, Tensor, attention};
/// let (q, k) = (Tensor::zeros([1, 2], DType::F32), Tensor::zeros([3, 2], DType::F32));
/// let v = Tensor::from_vec(vec![1.0f32, 3.0, 5.0], [3, 1]);
/// assert_eq!(attention(q, k, v).to_vec::<f32>()?, [3.0]); // nothing is preferred: the mean
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
#[track_caller]
pub fn attention(q: impl AsRef<Tensor>, k: impl AsRef<Tensor>, v: impl AsRef<Tensor>) -> Tensor {
    let operands = [q.as_ref(), k.as_ref(), v.as_ref()];
    let rule = "queries (…, T, D), keys (…, S, D) and values (…, S, E) are needed";
    record("attention", Mask::None, operands, None, shape_of(operands, false).ok_or(rule.into()))
}

/// Attention in which query `i` sees keys `0..=i + (S − T)`: the last query sees all keys.
///
/// # Shapes
/// `q: (…, T, D)`, `k: (…, S, D)`, `v: (…, S, E)` → `(…, T, E)`, with `S ≥ T`; batches broadcast
/// # Formula
/// `softmax(q kᵀ / √D + mask) v`. Vaswani et al. 2017, arXiv:1706.03762.
/// # Numerics
/// On the CPU all but f64 is computed in one pass, without a matrix of weights in memory, forward and backward (Dao
/// 2023, arXiv:2307.08691); f16 and bf16 are widened to f32 as they are read, and the result is rounded once.
/// # Errors
/// Shapes that do not fit, more queries than keys, integers, several dtypes.
#[track_caller]
pub fn causal_attention(q: impl AsRef<Tensor>, k: impl AsRef<Tensor>, v: impl AsRef<Tensor>) -> Tensor {
    let operands = [q.as_ref(), k.as_ref(), v.as_ref()];
    let rule = "queries (…, T, D), keys (…, S, D) and values (…, S, E) with T at most S are needed";
    record("causal_attention", Mask::Causal, operands, None, shape_of(operands, true).ok_or(rule.into()))
}

/// Attention over a cache that is filled up to a place of each row's own: query `i` of row `b` sees the keys
/// `0..=first[b] + i`, as many of them as there are; a query that sees none gives NaN.
///
/// What lies in the cache behind is not seen, whatever it is but NaN or ∞. The places are data: one program serves all,
/// and on the CPU what nobody sees is not read, unless it is f64.
///
/// # Shapes
/// `q: (B, …, T, D)`, `k: (B, …, S, D)`, `v: (B, …, S, E)`, `first: (B,)`, i64 → `(B, …, T, E)`
/// # Formula
/// `softmax(q kᵀ / √D + mask) v`, as [`causal_attention`], which it is for `first = S − T`.
/// # Errors
/// Shapes that do not fit, integers, several dtypes, places that are not i64.
/// # Example
/// ```
/// # use tapeflow_core::{DType, Tensor, cached_attention};
/// let (q, k) = (Tensor::zeros([1, 1, 2], DType::F32), Tensor::zeros([1, 4, 2], DType::F32));
/// let v = Tensor::from_vec(vec![1.0f32, 3.0, 9.0, 9.0], [1, 4, 1]);
/// let first = Tensor::from_vec(vec![1i64], [1]);
/// assert_eq!(cached_attention(q, k, v, first).to_vec::<f32>()?, [2.0]); // the mean of what is seen
/// # Ok::<(), tapeflow_core::Error>(())
/// ```
#[track_caller]
pub fn cached_attention(
    q: impl AsRef<Tensor>,
    k: impl AsRef<Tensor>,
    v: impl AsRef<Tensor>,
    first: impl AsRef<Tensor>,
) -> Tensor {
    let (operands, first) = ([q.as_ref(), k.as_ref(), v.as_ref()], first.as_ref());
    let [q, k, v] = operands.map(|x| x.shape().clone());
    let batch = q.len().saturating_sub(2);
    let fits = q.len() >= 3
        && k.len() == q.len()
        && v.len() == q.len()
        && q[..batch] == k[..batch]
        && q[..batch] == v[..batch]
        && first.shape()[..] == q[..1];
    let rule = "queries (B, …, T, D), keys (B, …, S, D), values (B, …, S, E) and places (B,) are needed";
    let shape = if fits { shape_of(operands, false) } else { None };
    record("cached_attention", Mask::Cached, operands, Some(first), shape.ok_or(rule.into()))
}
