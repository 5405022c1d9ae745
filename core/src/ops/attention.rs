//! Causal self-attention. Vaswani et al. 2017, arXiv:1706.03762.

use tapeflow_ir::DType;
use tapeflow_macros::kernel;

use super::kernel::map;
use crate::error::{Error, Problem};
use crate::tape::site::Site;
use crate::tensor::Tensor;

/// Scaled scores; −∞ for keys in the future.
#[kernel]
fn causal_scores(x: f32, key: i64, query: i64, scale: f32) -> f32 {
    if key <= query { x * scale } else { f32::NEG_INFINITY }
}

/// Attention in which query `i` sees keys `0..=i + (S − T)`: the last query sees all keys.
///
/// # Shapes
/// `q: (…, T, D)`, `k: (…, S, D)`, `v: (…, S, E)` → `(…, T, E)`, with `S ≥ T`
/// # Formula
/// `softmax(q kᵀ / √D + mask) v`. Vaswani et al. 2017, arXiv:1706.03762.
/// # Errors
/// Shapes that do not fit, and more queries than keys.
#[track_caller]
pub fn causal_attention(q: impl AsRef<Tensor>, k: impl AsRef<Tensor>, v: impl AsRef<Tensor>) -> Tensor {
    let (q, k, v) = (q.as_ref(), k.as_ref(), v.as_ref());
    let fits = q.ndim() >= 2
        && k.ndim() >= 2
        && v.ndim() >= 2
        && q.shape().last() == k.shape().last()
        && k.shape()[k.ndim() - 2] == v.shape()[v.ndim() - 2]
        && q.shape()[q.ndim() - 2] <= k.shape()[k.ndim() - 2];
    if !fits {
        let shapes = vec![q.shape().clone(), k.shape().clone(), v.shape().clone()];
        let rule = "queries (…, T, D), keys (…, S, D) and values (…, S, E) with T at most S are needed".into();
        let problem = Problem::Shapes { shapes, rule };
        return Tensor::mistake_in(&[q, k, v], Error::new("causal_attention", problem, Site::here()), q.ty().clone());
    }
    let (t, s, d) = (q.shape()[q.ndim() - 2], k.shape()[k.ndim() - 2], q.shape()[q.ndim() - 1]);
    let device = q.ty().device;
    let scores = q.matmul(&k.t());
    let key = Tensor::arange_on(s, DType::I64, device);
    let query = Tensor::arange_on(t, DType::I64, device) + (s - t) as i64;
    let scale = q.number(1.0 / (d.max(1) as f64).sqrt());
    let [masked] = map(causal_scores::TEMPLATE, &[&scores, &key, &query.unsqueeze(-1), &scale]);
    masked.softmax(-1).matmul(v)
}

/// Attention over a cache that is filled up to a place of each row's own: query `i` of row `b` sees the keys
/// `0..=first[b] + i`.
///
/// What lies in the cache behind is not seen, whatever it is but NaN or ∞. The places are data: one program serves all.
///
/// # Shapes
/// `q: (B, …, T, D)`, `k: (B, …, S, D)`, `v: (B, …, S, E)`, `first: (B,)`, i64 → `(B, …, T, E)`
/// # Formula
/// `softmax(q kᵀ / √D + mask) v`, as [`causal_attention`], which it is for `first = S − T`.
/// # Errors
/// Shapes that do not fit.
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
    let (q, k, v, first) = (q.as_ref(), k.as_ref(), v.as_ref(), first.as_ref());
    let n = q.ndim();
    let fits = n >= 3
        && k.ndim() == n
        && v.ndim() == n
        && q.shape()[..n - 2] == k.shape()[..n - 2]
        && k.shape()[..n - 1] == v.shape()[..n - 1]
        && q.shape()[n - 1] == k.shape()[n - 1]
        && first.shape()[..] == q.shape()[..1];
    if !fits {
        let shapes = [q, k, v, first].map(|t| t.shape().clone()).to_vec();
        let rule = "queries (B, …, T, D), keys (B, …, S, D), values (B, …, S, E) and places (B,) are needed".into();
        let error = Error::new("cached_attention", Problem::Shapes { shapes, rule }, Site::here());
        return Tensor::mistake_in(&[q, k, v, first], error, q.ty().clone());
    }
    let (t, s, d) = (q.shape()[n - 2], k.shape()[n - 2], q.shape()[n - 1]);
    let device = q.ty().device;
    let mut per_row: Vec<isize> = vec![1; n];
    per_row[0] = -1;
    let scores = q.matmul(&k.t());
    let key = Tensor::arange_on(s, DType::I64, device);
    let query = Tensor::arange_on(t, DType::I64, device).unsqueeze(-1) + first.reshape(&per_row[..]);
    let scale = q.number(1.0 / (d.max(1) as f64).sqrt());
    let [masked] = map(causal_scores::TEMPLATE, &[&scores, &key, &query, &scale]);
    masked.softmax(-1).matmul(v)
}
