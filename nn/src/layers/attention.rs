//! Multi-head attention. Vaswani et al. 2017, arXiv:1706.03762.

use tapeflow_core::{
    DType, Generator, Parameter, Tensor, attention as plain_attention, causal_attention, default_generator,
};

use super::{Dropout, Linear};
use crate::Module;
use crate::error::{Error, Result};
use crate::init;
use crate::module::Forward;

/// Attention of several heads, to oneself or to something else. PyTorch's `MultiheadAttention`, batch first.
///
/// # Shapes
/// `query: (B, T, width)`, `key: (B, S, key width)`, `value: (B, S, value width)` → `(B, T, width)`
/// # Formula
/// Per head `softmax(q kᵀ / √hs + mask) v` of projected queries, keys and values, the heads' results side by side and
/// projected once more. Vaswani et al. 2017.
///
/// ```
/// use tapeflow_nn::{AttentionMask, Forward, Generator, MultiheadAttention, Tensor};
/// let generator = Generator::new(1);
/// let attention = MultiheadAttention::drawn(8, 2, &generator)?;
/// let x = generator.randn([3, 5, 8]);
/// assert_eq!(attention.forward(&x).dims(), [3, 5, 8]);
/// let (y, weights) = attention.attend(&x, &x, &x, &AttentionMask::new().causal());
/// assert_eq!((y.dims(), weights.dims()), ([3, 5, 8], [3, 2, 5, 5]));
/// assert_eq!(weights.to_vec::<f32>()?[1], 0.0); // the first place does not see the second
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct MultiheadAttention {
    /// Of queries, keys and values, one below the other, `(3 · width, width)`; unless their widths differ.
    pub in_proj_weight: Option<Parameter>,
    /// Of queries, `(width, width)`, if the widths differ.
    pub q_proj_weight: Option<Parameter>,
    /// Of keys, `(width, key width)`, if the widths differ.
    pub k_proj_weight: Option<Parameter>,
    /// Of values, `(width, value width)`, if the widths differ.
    pub v_proj_weight: Option<Parameter>,
    /// `(3 · width,)`, begins as zeros.
    pub in_proj_bias: Option<Parameter>,
    /// Of the heads' results, `(width, width)`.
    pub out_proj: Linear,
    /// On the attention weights.
    pub dropout: Dropout,
    #[module(skip)]
    heads: usize,
}

/// What may not be looked at.
#[derive(Clone, Debug, Default)]
pub struct AttentionMask {
    causal: bool,
    places: Option<Tensor>,
    padding: Option<Tensor>,
}

impl AttentionMask {
    /// Everything may.
    pub fn new() -> Self {
        AttentionMask::default()
    }

    /// Query `i` sees keys `0..=i + (S − T)` only.
    pub fn causal(mut self) -> Self {
        self.causal = true;
        self
    }

    /// For each query and key: a bool that says they may *not* meet, or a float that is added to their score. It
    /// broadcasts to `(B, heads, T, S)`. PyTorch's `attn_mask`.
    pub fn places(mut self, mask: &Tensor) -> Self {
        self.places = Some(mask.clone());
        self
    }

    /// `(B, S)`: which keys are padding, that nobody sees. PyTorch's `key_padding_mask`.
    pub fn padding(mut self, keys: &Tensor) -> Self {
        self.padding = Some(keys.clone());
        self
    }
}

impl MultiheadAttention {
    /// `width` values per place, shared evenly by `heads`, with biases; initialised as PyTorch does it with the default
    /// generator.
    ///
    /// # Errors
    /// [`Error::Configuration`] if the heads do not share the width evenly.
    pub fn new(width: usize, heads: usize) -> Result<Self> {
        Self::drawn(width, heads, &default_generator())
    }

    /// The same from a generator of one's own: projections of the inputs by [`init::xavier_uniform`], that of the
    /// result as in [`Linear::drawn`], biases 0.
    ///
    /// # Errors
    /// As `new`.
    pub fn drawn(width: usize, heads: usize, generator: &Generator) -> Result<Self> {
        let weight = init::xavier_uniform([3 * width, width], 1.0, generator);
        let mut attention = Self::without_weights(width, heads, generator)?;
        attention.in_proj_weight = Some(Parameter::new(weight)?);
        Ok(attention)
    }

    /// With keys and values of other widths, as a decoder looks at an encoder's output.
    ///
    /// # Errors
    /// As `new`.
    pub fn cross(width: usize, heads: usize, kdim: usize, vdim: usize, generator: &Generator) -> Result<Self> {
        let drawn = |inputs: usize| Parameter::new(init::xavier_uniform([width, inputs], 1.0, generator));
        let mut attention = Self::without_weights(width, heads, generator)?;
        attention.q_proj_weight = Some(drawn(width)?);
        attention.k_proj_weight = Some(drawn(kdim)?);
        attention.v_proj_weight = Some(drawn(vdim)?);
        Ok(attention)
    }

    fn without_weights(width: usize, heads: usize, generator: &Generator) -> Result<Self> {
        if heads == 0 || width == 0 || !width.is_multiple_of(heads) {
            return Err(Error::Configuration(format!(
                "{heads} heads cannot share {width} values: a width that is a multiple of the heads is needed"
            )));
        }
        let out_proj = Linear::drawn(width, width, generator)?;
        if let Some(bias) = &out_proj.bias {
            bias.set(&init::zeros([width]))?;
        }
        Ok(MultiheadAttention {
            in_proj_weight: None,
            q_proj_weight: None,
            k_proj_weight: None,
            v_proj_weight: None,
            in_proj_bias: Some(Parameter::new(init::zeros([3 * width]))?),
            out_proj,
            dropout: Dropout::new(0.0),
            heads,
        })
    }

    /// Keeps the biases, or takes them away.
    pub fn bias(mut self, wanted: bool) -> Self {
        self.in_proj_bias = self.in_proj_bias.filter(|_| wanted);
        self.out_proj = self.out_proj.bias(wanted);
        self
    }

    /// Drops attention weights while training.
    pub fn dropout(mut self, dropout: Dropout) -> Self {
        self.dropout = dropout;
        self
    }

    /// What each query finds, and the weights it looked with, `(B, heads, T, S)`, before dropout; those take no time if
    /// they are dropped, and no memory where neither places nor padding are masked and nothing is dropped out. A query
    /// that sees no key gives NaN.
    ///
    /// # Errors
    /// Shapes that do not fit.
    #[track_caller]
    pub fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor, mask: &AttentionMask) -> (Tensor, Tensor) {
        let given = [query, key, value];
        let width = self.out_proj.weight.tensor().shape()[0];
        if let Some(wanted) = self.misfit(given, mask, width) {
            let refused = || Tensor::refuse("MultiheadAttention", &given, wanted.clone());
            return (refused(), refused());
        }
        let ([b, t, _], s) = (query.dims(), key.shape()[1]);
        let (heads, size) = (self.heads, width / self.heads);
        // (B, T, C) → (B, nh, T, hs)
        let split = |x: Tensor, length: usize| x.reshape([b, length, heads, size]).transpose(1, 2);
        let [q, k, v] = self.project(given, width);
        let (q, k, v) = (split(q, t), split(k, s), split(v, s));
        let mut scores = q.matmul(&k.t()) * (1.0 / (size as f64).sqrt()); // (B, nh, T, S)
        let hidden = Tensor::full((), f64::NEG_INFINITY, scores.dtype()).to(scores.device());
        let mut hide = |unseen: &Tensor| scores = unseen.where_(&hidden, &scores);
        if mask.causal {
            let place = |n: usize| Tensor::arange(n, DType::I64).to(query.device());
            hide(&place(s).reshape([1, s]).gt(&(place(t).reshape([t, 1]) + (s as i64 - t as i64))));
        }
        if let Some(padding) = &mask.padding {
            hide(&padding.reshape([b, 1, 1, s]));
        }
        match &mask.places {
            Some(places) if places.dtype() == DType::Bool => hide(places),
            Some(places) => scores = scores + places,
            None => {}
        }
        let weights = scores.softmax(-1);
        // Where nothing is done to the weights, the result does without them.
        let plain = mask.padding.is_none() && mask.places.is_none() && !self.dropout.is_active();
        let y = match mask.causal {
            true if plain && t <= s => causal_attention(&q, &k, &v),
            false if plain => plain_attention(&q, &k, &v),
            _ => self.dropout.forward(&weights).matmul(&v),
        }; // (B, nh, T, hs)
        (self.out_proj.forward(&y.transpose(1, 2).reshape([b, t, width])), weights)
    }

    /// What is wrong with the shapes, and what would be right.
    fn misfit(&self, [q, k, v]: [&Tensor; 3], mask: &AttentionMask, width: usize) -> Option<String> {
        let of = |weight: &Option<Parameter>| weight.as_ref().map_or(width, |w| w.tensor().shape()[1]);
        let (kdim, vdim) = (of(&self.k_proj_weight), of(&self.v_proj_weight));
        let fits = [q, k, v].iter().all(|x| x.ndim() == 3)
            && q.shape()[2] == width
            && (k.shape()[2], v.shape()[2]) == (kdim, vdim)
            && k.shape()[..2] == v.shape()[..2]
            && q.shape()[0] == k.shape()[0];
        if !fits {
            return Some(format!("queries (B, T, {width}), keys (B, S, {kdim}) and values (B, S, {vdim}) are needed"));
        }
        if mask.causal && q.shape()[1] > k.shape()[1] {
            return Some("with a causal mask there are at most as many queries as keys".into());
        }
        let padding = mask.padding.as_ref().filter(|p| p.shape()[..] != k.shape()[..2] || p.dtype() != DType::Bool);
        padding.map(|p| format!("padding is a bool of the shape (B, S), not {} {}", p.dtype(), p.shape()))
    }

    fn project(&self, given: [&Tensor; 3], width: usize) -> [Tensor; 3] {
        let own = [&self.q_proj_weight, &self.k_proj_weight, &self.v_proj_weight];
        let rows = |i: usize| i * width..(i + 1) * width;
        std::array::from_fn(|i| {
            let weight = match (own[i], &self.in_proj_weight) {
                (Some(own), _) => own.tensor(),
                (None, Some(all)) => all.tensor().slice(0, rows(i)),
                (None, None) => {
                    return Tensor::refuse(
                        "MultiheadAttention",
                        &given,
                        "an in_proj_weight or three weights are needed",
                    );
                }
            };
            let y = given[i].matmul(&weight.t());
            match &self.in_proj_bias {
                Some(bias) => y + bias.tensor().slice(0, rows(i)),
                None => y,
            }
        })
    }
}

impl Forward for MultiheadAttention {
    /// Attention to oneself: `(B, T, width)` → `(B, T, width)`.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.attend(x, x, x, &AttentionMask::new()).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::ModuleExt;

    #[test]
    fn heads_must_share_the_width_and_shapes_must_fit() -> Result<()> {
        assert!(MultiheadAttention::new(10, 4).unwrap_err().to_string().contains("4 heads cannot share 10"));
        let generator = Generator::new(1);
        let cross = MultiheadAttention::cross(8, 2, 6, 4, &generator)?;
        let x = generator.randn([2, 3, 8]);
        let said = |t: Tensor| t.to_vec::<f32>().unwrap_err().to_string();
        let error = said(cross.forward(&x));
        assert!(error.contains("keys (B, S, 6)") && error.contains("(2, 3, 8)"), "{error}");
        let own = MultiheadAttention::drawn(8, 2, &generator)?;
        let short = x.slice(1, 0..2);
        assert!(said(own.attend(&x, &short, &short, &AttentionMask::new().causal()).0).contains("at most as many"));
        let padding = AttentionMask::new().padding(&Tensor::zeros([2, 3], DType::F32));
        assert!(said(own.attend(&x, &x, &x, &padding).0).contains("padding is a bool"));
        assert_eq!(own.bias(false).named_parameters().len(), 2);
        Ok(())
    }

    #[test]
    fn what_is_hidden_does_not_count_and_dropout_is_for_training() -> Result<()> {
        let generator = Generator::new(3);
        let attention = MultiheadAttention::drawn(8, 2, &generator)?;
        let x = generator.randn([1, 4, 8]);
        let other = Tensor::cat(&[x.slice(1, 0..3), generator.randn([1, 1, 8])], 1);
        let hidden = Tensor::from_vec(vec![false, false, false, true], [1, 4]);
        let first = |x: &Tensor, mask: &AttentionMask| attention.attend(x, x, x, mask).0.slice(1, 0..3).to_vec::<f32>();
        let padding = AttentionMask::new().padding(&hidden);
        assert_eq!(first(&x, &padding)?, first(&other, &padding)?);
        assert_ne!(first(&x, &AttentionMask::new())?, first(&other, &AttentionMask::new())?);
        assert_eq!(first(&x, &AttentionMask::new().causal())?, first(&other, &AttentionMask::new().causal())?);
        let dropping = attention.clone().dropout(Dropout::new(0.5).generator(&generator));
        let run = || dropping.forward(&x).to_vec::<f32>();
        assert_eq!(dropping.eval(run)?, attention.forward(&x).to_vec::<f32>()?);
        assert_ne!(dropping.train(run)?, dropping.train(run)?);
        Ok(())
    }
}
