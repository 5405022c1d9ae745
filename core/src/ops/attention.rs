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
