//! What attention in one pass computes, forward and backward. Owns the descriptions; knows no blocks.

use tapeflow_ir::DType;

use super::kernel::{Dims, Layout};

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mask {
    /// All.
    None,
    /// Query i sees keys `0..=i + S − T`.
    Causal,
    /// Query i of row b sees keys `0..=first[b] + i`.
    Cached,
}

/// `y = softmax(q kᵀ / √D) v` over the keys that each query sees, computed in f32.
///
/// Operands: 0 q, 1 k, 2 v, then with [`Mask::Cached`] the places, i64, contiguous `(B,)`, then the result, which is
/// flat: y in the order (B, T, H, E), H the last batch axis and B those before it; behind it, in the order (B, H, T),
/// the logarithm of the sum that each row of weights was divided by. Keys that no query sees are not read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attention {
    /// Of q, k and v: f32, or half precision, which is widened as it is read.
    pub dtype: DType,
    /// Batch axes, the same for all operands.
    pub batch: Dims,
    /// Queries of an item, T.
    pub queries: usize,
    /// Keys, S.
    pub keys: usize,
    /// Length of a query and of a key, D.
    pub depth: usize,
    /// Length of a value, E.
    pub width: usize,
    /// Which keys are seen.
    pub mask: Mask,
    /// Over (batch…, T, D).
    pub q: Layout,
    /// Over (batch…, S, D).
    pub k: Layout,
    /// Over (batch…, S, E).
    pub v: Layout,
}

/// The cotangents of q, k and v for that of y; all in f32.
///
/// Operands: 0 q, 1 k, 2 v, 3 the result of [`Attention`], 4 the cotangent of y, then with [`Mask::Cached`] the places,
/// then the result, which is flat: the cotangents of q, k and v, each in the order (B, lines, H, elements).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttentionVjp {
    /// Of what.
    pub of: Attention,
    /// The cotangent of y, over (batch…, T, E).
    pub cotangent: Layout,
}

impl Attention {
    /// Products of this many queries, keys each.
    pub fn items(&self) -> usize {
        self.batch.iter().product()
    }

    /// Elements of y, and so where the logarithms begin.
    pub fn result(&self) -> usize {
        self.items() * self.queries * self.width
    }

    /// Pairs of a query and a key that it sees, at most: all of a cache may be.
    pub fn pairs(&self) -> usize {
        let (t, s) = (self.queries, self.keys);
        self.items() * if self.mask == Mask::Causal { t * (s - t) + t * (t + 1) / 2 } else { t * s }
    }

    /// Whether the layouts have as many axes as there are, there is a key for each query where there must be, and the
    /// dtype is one of those.
    pub fn is_well_formed(&self) -> bool {
        let rank = self.batch.len() + 2;
        let causal = self.mask != Mask::Causal || self.queries <= self.keys;
        let cached = self.mask != Mask::Cached || !self.batch.is_empty();
        let float = self.dtype == DType::F32 || self.dtype.is_half();
        [&self.q, &self.k, &self.v].iter().all(|layout| layout.strides.len() == rank) && causal && cached && float
    }
}
