//! GPT: a decoder-only transformer.
//!
//! Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2); Vaswani et al. 2017,
//! arXiv:1706.03762. Sizes, initialisation and recipe as in nanoGPT (<https://github.com/karpathy/nanoGPT>); parameter
//! paths as GPT-2 checkpoints name them, except that Linear weights are `(out, in)`.
//!
//! Letters in shapes: B batch, T time, C width (`n_embd`), nh heads, hs width of a head (C / nh), V vocabulary.

use serde::{Deserialize, Serialize};
use tapeflow_nn::{
    DType, Dropout, Embedding, Error, Forward, Generator, LayerNorm, Linear, Module, ModuleExt, Parameter, Result,
    Tensor, causal_attention, init, no_grad, recompute,
};

use crate::kv_cache::{KvCache, Pass};

/// The sizes of a [`Gpt`], by nanoGPT's names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GptConfig {
    /// The longest context, in tokens.
    pub block_size: usize,
    /// The number of tokens.
    pub vocab_size: usize,
    /// The number of blocks.
    pub n_layer: usize,
    /// The number of attention heads of a block.
    pub n_head: usize,
    /// The width: values per token between blocks.
    pub n_embd: usize,
    /// The share of activations that is dropped in training.
    #[serde(default)]
    pub dropout: f64,
    /// Whether Linear and LayerNorm have biases.
    #[serde(default)]
    pub bias: bool,
}

impl GptConfig {
    /// The names [`preset`](GptConfig::preset) knows.
    pub const PRESETS: [&'static str; 4] = ["tiny", "cpu", "baby", "gpt2"];

    /// The sizes that go by a name: `tiny` for tests, nanoGPT's `cpu` and `baby` recipes for characters, and `gpt2`
    /// (124M).
    pub fn preset(name: &str, vocab_size: usize) -> Option<Self> {
        let (n_layer, n_head, n_embd, block_size, dropout, bias) = match name {
            "tiny" => (2, 2, 32, 32, 0.0, false),
            "cpu" => (4, 4, 128, 64, 0.0, false),
            "baby" => (6, 6, 384, 256, 0.2, false),
            "gpt2" => (12, 12, 768, 1024, 0.0, true),
            _ => return None,
        };
        Some(GptConfig { block_size, vocab_size, n_layer, n_head, n_embd, dropout, bias })
    }

    /// Whether a model of these sizes can be built.
    ///
    /// # Errors
    /// [`Error::Configuration`] naming what is wrong and what would be right.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("block_size", self.block_size),
            ("vocab_size", self.vocab_size),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_embd", self.n_embd),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return Err(Error::Configuration(format!("{name} is 0; it must be at least 1")));
        }
        if !self.n_embd.is_multiple_of(self.n_head) {
            let (c, nh) = (self.n_embd, self.n_head);
            return Err(Error::Configuration(format!(
                "n_embd {c} is no multiple of n_head {nh}: heads share it evenly"
            )));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::Configuration(format!("dropout {} does not lie in 0 ≤ p < 1", self.dropout)));
        }
        Ok(())
    }
}

/// A decoder-only transformer whose head is tied to the token embedding.
///
/// ```
/// use tapeflow_models::{GenerateOptions, Gpt, GptConfig};
/// use tapeflow_nn::{Generator, ModuleExt};
/// let config = GptConfig { block_size: 8, n_layer: 1, n_head: 2, n_embd: 8, ..GptConfig::preset("gpt2", 11).unwrap()
/// }; let model = Gpt::new(&config, &Generator::new(1))?;
/// assert_eq!(model.named_parameters()[2].0, "h.0.ln_1.weight");
/// let tokens = model.generate(&[1, 2, 3], &GenerateOptions::greedy(4))?.collect::<Result<Vec<u32>, _>>()?;
/// assert_eq!(tokens.len(), 4);
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Gpt {
    /// Token embedding `(V, C)`, and the head.
    pub wte: Embedding,
    /// Position embedding `(block_size, C)`.
    pub wpe: Embedding,
    /// After the embeddings.
    pub drop: Dropout,
    /// The blocks.
    pub h: Vec<Block>,
    /// Before the head.
    pub ln_f: LayerNorm,
    #[module(skip)]
    config: GptConfig,
    #[module(skip)]
    recompute: bool,
}

impl Gpt {
    /// Initialised as in nanoGPT: weights from N(0, 0.02²), those of the projections that end in the residual stream
    /// from N(0, 0.02² / (2 n_layer)), biases 0.
    ///
    /// # Errors
    /// [`Error::Configuration`] if no such model can be built.
    pub fn new(config: &GptConfig, generator: &Generator) -> Result<Self> {
        Gpt::build(config, generator, &|shape, std| init::normal(shape, std, generator))
    }

    /// With single zeros where its weights belong, which are yet to be read from somewhere.
    pub(crate) fn hollow(config: &GptConfig) -> Result<Self> {
        Gpt::build(config, &Generator::new(0), &|_, _| init::zeros([1, 1]))
    }

    fn build(config: &GptConfig, generator: &Generator, weight: Weight<'_>) -> Result<Self> {
        config.check()?;
        let width = config.n_embd;
        let table = |rows| Ok::<_, Error>(Embedding { weight: Parameter::new(weight([rows, width], STD))? });
        let model = Gpt {
            wte: table(config.vocab_size)?,
            wpe: table(config.block_size)?,
            drop: Dropout::new(config.dropout).generator(generator),
            h: (0..config.n_layer).map(|_| Block::new(config, generator, weight)).collect::<Result<_>>()?,
            ln_f: LayerNorm::new(width)?.bias(config.bias),
            config: config.clone(),
            recompute: false,
        };
        model.stamp_paths();
        Ok(model)
    }

    /// With another rate of dropout, 0 ≤ p < 1, drawn from a generator: for training that goes on from a model that was
    /// read.
    pub fn dropout(mut self, p: f64, generator: &Generator) -> Self {
        self.config.dropout = p;
        let inner = self.h.iter_mut().flat_map(|block| {
            let Block { attn, mlp, .. } = block;
            [&mut attn.attn_dropout, &mut attn.resid_dropout, &mut mlp.dropout]
        });
        for dropout in inner.chain([&mut self.drop]) {
            *dropout = Dropout::new(p).generator(generator);
        }
        self
    }

    /// Keeps of each block only what it begins with, and computes the rest of it again in backward: less memory for
    /// more time, the same bits.
    pub fn recompute(mut self, wanted: bool) -> Self {
        self.recompute = wanted;
        self
    }

    /// Keeps the weights of all products, and the table of tokens, in eight bits: for generation, which mostly reads
    /// weights. See [`ModuleExt::quantize_int8`].
    ///
    /// # Errors
    /// As there.
    pub fn quantize_int8(&self) -> Result<()> {
        WEIGHTS.iter().try_for_each(|pattern| ModuleExt::quantize_int8(self, pattern).map(drop))
    }

    /// Keeps the weights of all products, and the table of tokens, in the order in which generation reads them: the
    /// same values, the same bits. See [`ModuleExt::prepack`].
    ///
    /// # Errors
    /// As there.
    pub fn prepack(&self) -> Result<()> {
        WEIGHTS.iter().try_for_each(|pattern| ModuleExt::prepack(self, pattern).map(drop))
    }

    /// The sizes it was built with.
    pub fn config(&self) -> &GptConfig {
        &self.config
    }

    /// The activations before the head.
    ///
    /// # Shapes
    /// `tokens: (B, T)`, i64, T ≤ block_size → `(B, T, C)`
    #[track_caller]
    pub fn hidden(&self, tokens: &Tensor) -> Tensor {
        use tapeflow::__macro::{scope, scope_index};
        let [_, t] = tokens.dims();
        let mut x = {
            let _scope = scope("wte");
            self.wte.forward(tokens) // (B, T, C)
        };
        {
            let _scope = scope("wpe");
            x = x + self.wpe.weight.tensor().slice(0, 0..t); // (B, T, C) + (T, C)
        }
        x = self.drop.forward(&x);
        for (index, block) in self.h.iter().enumerate() {
            let _scope = scope_index("h", index);
            x = if self.recompute { recompute(|| block.forward(&x)) } else { block.forward(&x) };
        }
        let _scope = scope("ln_f");
        self.ln_f.forward(&x)
    }

    /// The head: logits of the next token.
    ///
    /// # Shapes
    /// `(…, C)` → `(…, V)`
    #[track_caller]
    pub fn head(&self, x: &Tensor) -> Tensor {
        let _scope = tapeflow::__macro::scope("wte");
        self.wte.weight.linear(x)
    }

    /// The mean cross entropy of predicting `targets`, in nats per token.
    ///
    /// # Shapes
    /// `tokens, targets: (B, T)`, i64 → `()`
    /// # Errors
    /// A token at or beyond vocab_size, when the loss is computed.
    #[track_caller]
    pub fn loss(&self, tokens: &Tensor, targets: &Tensor) -> Tensor {
        let logits = self.forward(tokens); // (B, T, V)
        let v = self.config.vocab_size as isize;
        logits.reshape([-1, v]).cross_entropy(&targets.reshape([-1])) // (B·T, V), (B·T,)
    }

    /// Reads `tokens` into row `row` of a cache, from its beginning on, in evaluation mode; what was in the row is
    /// forgotten.
    ///
    /// They are padded to `padded` tokens: one program serves all prompts that are padded to one length.
    ///
    /// # Errors
    /// A cache of another model's sizes or with fewer rows; more tokens than `padded`, or than a context holds; a token
    /// beyond the vocabulary. The cache is then as it was.
    #[track_caller]
    pub fn prefill(&self, tokens: &[u32], padded: usize, row: usize, cache: &mut KvCache) -> Result<()> {
        cache.check(&self.config)?;
        let (rows, most) = (cache.rows(), self.config.block_size);
        if row >= rows || tokens.len() > padded || padded > most {
            let said = format!("{} tokens, padded to {padded}, into row {row}", tokens.len());
            return Err(Error::Configuration(format!(
                "prefill: {said}: the cache has {rows} rows, and a context is at most {most} tokens"
            )));
        }
        let padding = std::iter::repeat_n(0, padded - tokens.len());
        let values: Vec<i64> = tokens.iter().map(|&t| i64::from(t)).chain(padding).collect();
        let mut pass = Pass::prompt(cache, row, tokens.len());
        self.quietly(|| {
            // What it ends in is not asked for: the pass that follows begins with the prompt's last token.
            drop(self.hidden_cached(&Tensor::from_vec(values, [1, padded]), &mut pass));
            pass.finish()
        })
    }

    /// One more token of each row of a cache, in evaluation mode; rows without one stay as they are. On the CPU the
    /// first such step is captured, and the next ones are the same program run again.
    ///
    /// # Shapes
    /// → `(rows, V)`, f32: the logits of what follows; of a row without a token they mean nothing.
    /// # Errors
    /// A cache of another model's sizes, not one entry per row, a row that is full, a token beyond the vocabulary. The
    /// cache is then as it was.
    #[track_caller]
    pub fn advance(&self, tokens: &[Option<u32>], cache: &mut KvCache) -> Result<Tensor> {
        cache.check(&self.config)?;
        let rows = cache.rows();
        let is_full = |(row, token): (usize, &Option<u32>)| token.is_some() && cache.filled(row) >= cache.length();
        if tokens.len() != rows || tokens.iter().enumerate().any(is_full) {
            return Err(Error::Configuration(format!(
                "advance: {} tokens for the {rows} rows of a cache, none of which may be full (with {} tokens)",
                tokens.len(),
                cache.length()
            )));
        }
        let values: Vec<i64> = tokens.iter().map(|t| i64::from(t.unwrap_or(0))).collect();
        let taken: Vec<bool> = tokens.iter().map(Option::is_some).collect();
        self.quietly(|| self.decode(&Tensor::from_vec(values, [rows, 1]), &taken, cache))
    }

    /// Without gradients, in evaluation mode, on the model's device.
    fn quietly<T>(&self, f: impl FnOnce() -> T) -> T {
        no_grad(|| self.eval(|| self.wte.weight.tensor().device().scope(f)))
    }

    /// The activations before the head, of tokens that come after what is in a cache.
    pub(crate) fn hidden_cached(&self, tokens: &Tensor, pass: &mut Pass<'_>) -> Tensor {
        use tapeflow::__macro::{scope, scope_index};
        let [_, t] = tokens.dims();
        let mut x = {
            let _scope = scope("wte");
            self.wte.forward(tokens) // (B, T, C)
        };
        {
            let _scope = scope("wpe");
            x = x + pass.positions(&self.wpe.weight.tensor(), t); // (B, T, C) + (T, C) or (B, 1, C)
        }
        for (index, block) in self.h.iter().enumerate() {
            let _scope = scope_index("h", index);
            x = block.forward_cached(&x, index, pass);
        }
        let _scope = scope("ln_f");
        self.ln_f.forward(&x)
    }

    /// The logits after the last token of `window`, `(V,)`, f32, all of it computed anew.
    pub(crate) fn next_logits(&self, window: &[u32]) -> Result<Vec<f32>> {
        Ok(self.quietly(|| self.record_next_logits(window)).to_vec::<f32>()?)
    }

    fn record_next_logits(&self, window: &[u32]) -> Tensor {
        let t = window.len();
        // Padded to a power of two, so that few programs serve all lengths; nothing before the padding sees it. The
        // last token's place is data and no part of the program.
        let padded = t.next_power_of_two().min(self.config.block_size);
        let tokens: Vec<i64> = window.iter().map(|&t| i64::from(t)).chain(std::iter::repeat(0)).take(padded).collect();
        let x = self.hidden(&Tensor::from_vec(tokens, [1, padded])); // (1, padded, C)
        let last = x.index_select(1, &Tensor::from_vec(vec![t as i64 - 1], [1])); // (1, 1, C)
        self.head(&last).reshape([-1]).cast(DType::F32) // (V,)
    }
}

impl Forward for Gpt {
    /// Logits of the next token at each place: `(B, T)`, i64 → `(B, T, V)`.
    #[track_caller]
    fn forward(&self, tokens: &Tensor) -> Tensor {
        self.head(&self.hidden(tokens))
    }
}

/// Attention and a feed-forward net, each on a normalised residual stream: `(B, T, C)` → `(B, T, C)`.
#[derive(Clone, Debug, Module)]
#[module(forward = |x| { let x = x + attn(ln_1(x)); x + mlp(ln_2(x)) })]
pub struct Block {
    /// Before attention.
    pub ln_1: LayerNorm,
    /// Between places.
    pub attn: CausalSelfAttention,
    /// Before the feed-forward net.
    pub ln_2: LayerNorm,
    /// At each place.
    pub mlp: FeedForward,
}

impl Block {
    fn new(config: &GptConfig, generator: &Generator, weight: Weight<'_>) -> Result<Self> {
        Ok(Block {
            ln_1: LayerNorm::new(config.n_embd)?.bias(config.bias),
            attn: CausalSelfAttention::new(config, generator, weight)?,
            ln_2: LayerNorm::new(config.n_embd)?.bias(config.bias),
            mlp: FeedForward::new(config, generator, weight)?,
        })
    }

    /// As `forward`, for tokens that come after what is in a cache.
    fn forward_cached(&self, x: &Tensor, index: usize, pass: &mut Pass<'_>) -> Tensor {
        use tapeflow::__macro::scope;
        let under = |name: &'static str, f: &mut dyn FnMut() -> Tensor| {
            let _scope = scope(name);
            f()
        };
        let normal = under("ln_1", &mut || self.ln_1.forward(x));
        let x = x + under("attn", &mut || self.attn.attend(&normal, |q, k, v| pass.attend(index, q, k, v)));
        let normal = under("ln_2", &mut || self.ln_2.forward(&x));
        &x + under("mlp", &mut || self.mlp.forward(&normal))
    }
}

/// Multi-head attention in which each place sees itself and what is before it: `(B, T, C)` → `(B, T, C)`.
#[derive(Clone, Debug, Module)]
pub struct CausalSelfAttention {
    /// Queries, keys and values, `(3C, C)`.
    pub c_attn: Linear,
    /// Back into the residual stream, `(C, C)`.
    pub c_proj: Linear,
    /// On the attention weights.
    pub attn_dropout: Dropout,
    /// On the result.
    pub resid_dropout: Dropout,
    #[module(skip)]
    n_head: usize,
}

impl CausalSelfAttention {
    fn new(config: &GptConfig, generator: &Generator, weight: Weight<'_>) -> Result<Self> {
        let width = config.n_embd;
        Ok(CausalSelfAttention {
            c_attn: linear(width, 3 * width, STD, config, weight)?,
            c_proj: linear(width, width, residual_std(config), config, weight)?,
            attn_dropout: Dropout::new(config.dropout).generator(generator),
            resid_dropout: Dropout::new(config.dropout).generator(generator),
            n_head: config.n_head,
        })
    }
}

impl CausalSelfAttention {
    /// The projections before and after `attention`, which gets queries, keys and values `(B, nh, T, hs)` and gives
    /// `(B, nh, T, hs)`.
    #[track_caller]
    fn attend(&self, x: &Tensor, attention: impl FnOnce(&Tensor, &Tensor, &Tensor) -> Tensor) -> Tensor {
        use tapeflow::__macro::scope;
        let [b, t, c] = x.dims(); // (B, T, C)
        let (nh, hs) = (self.n_head, c / self.n_head);
        let qkv = {
            let _scope = scope("c_attn");
            self.c_attn.forward(x) // (B, T, 3C)
        };
        // (B, T, C) -> (B, T, nh, hs) -> (B, nh, T, hs)
        let [q, k, v] = qkv.chunk(2).map(|x: Tensor| x.reshape([b, t, nh, hs]).transpose(1, 2));
        let y = attention(&q, &k, &v); // (B, nh, T, hs)
        let y = y.transpose(1, 2).reshape([b, t, c]); // (B, nh, T, hs) -> (B, T, nh, hs) -> (B, T, C)
        let _scope = scope("c_proj");
        self.resid_dropout.forward(&self.c_proj.forward(&y))
    }
}

impl Forward for CausalSelfAttention {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.attend(x, |q, k, v| match self.attn_dropout.is_active() {
            true => attention_with_dropout(q, k, v, &self.attn_dropout),
            false => causal_attention(q, k, v),
        })
    }
}

/// Causal attention spelled out, for the one thing the operation does not have: dropout on its weights.
pub(crate) fn attention_with_dropout(q: &Tensor, k: &Tensor, v: &Tensor, dropout: &Dropout) -> Tensor {
    let [_, _, t, hs] = q.dims(); // (B, nh, T, hs)
    let scores = q.matmul(&k.transpose(2, 3)) * (1.0 / (hs as f64).sqrt()); // (B, nh, T, T)
    let place = Tensor::arange(t, DType::I64);
    let seen = place.reshape([t, 1]).ge(&place.reshape([1, t])); // (T, T)
    let weights = seen.where_(&scores, &Tensor::full((), f64::NEG_INFINITY, q.dtype())).softmax(-1);
    dropout.forward(&weights).matmul(v) // (B, nh, T, T) × (B, nh, T, hs)
}

/// Two affine maps with GELU (tanh form) between them, four times as wide inside: `(B, T, C)` → `(B, T, C)`.
#[derive(Clone, Debug, Module)]
#[module(forward = |x| dropout(c_proj(c_fc(x).gelu())))]
pub struct FeedForward {
    /// `(4C, C)`
    pub c_fc: Linear,
    /// `(C, 4C)`
    pub c_proj: Linear,
    /// On the result.
    pub dropout: Dropout,
}

impl FeedForward {
    fn new(config: &GptConfig, generator: &Generator, weight: Weight<'_>) -> Result<Self> {
        let width = config.n_embd;
        Ok(FeedForward {
            c_fc: linear(width, 4 * width, STD, config, weight)?,
            c_proj: linear(4 * width, width, residual_std(config), config, weight)?,
            dropout: Dropout::new(config.dropout).generator(generator),
        })
    }
}

/// Makes a weight of a shape, with a standard deviation.
type Weight<'w> = &'w dyn Fn([usize; 2], f64) -> Tensor;

/// The standard deviation of GPT-2's weights.
const STD: f64 = 0.02;

/// What products and the table of tokens read.
const WEIGHTS: [&str; 2] = ["h.*.weight", "wte.weight"];

/// Smaller for the projections into the residual stream, of which there are two a block: their sum keeps its scale.
fn residual_std(config: &GptConfig) -> f64 {
    STD / (2.0 * config.n_layer as f64).sqrt()
}

fn linear(inputs: usize, outputs: usize, std: f64, config: &GptConfig, weight: Weight<'_>) -> Result<Linear> {
    let bias = config.bias.then(|| init::zeros([outputs]));
    Linear::from_tensors(weight([outputs, inputs], std), bias)
}
