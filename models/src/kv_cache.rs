//! What a GPT has seen, as keys and values: memory for whole contexts, filled place by place.
//!
//! Owns the cells and where a pass over the model writes; what is attended to what stands with the model. Shapes never
//! depend on how much is filled, so one program serves every place.

use tapeflow_nn::{Error, HostCell, Precision, Result, Slot, Tensor, cached_attention, causal_attention, commit};

use crate::decode::DecodeStep;
use crate::gpt::{Gpt, GptConfig};

/// The keys and values of a [`Gpt`]'s contexts, one context per row.
///
/// ```
/// use tapeflow_models::{Gpt, GptConfig, KvCache};
/// use tapeflow_nn::Generator;
/// let tiny = GptConfig::preset("tiny", 11).unwrap();
/// let config = GptConfig { block_size: 8, n_layer: 1, n_head: 2, n_embd: 8, ..tiny };
/// let model = Gpt::new(&config, &Generator::new(1))?;
/// let mut cache = KvCache::new(&model, 1)?;
/// model.prefill(&[1, 2], 2, 0, &mut cache)?;
/// let logits = model.advance(&[Some(3)], &mut cache)?; // of what follows 1, 2, 3
/// assert_eq!((logits.shape().to_vec(), cache.filled(0)), (vec![1, 11], 3));
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Debug)]
pub struct KvCache {
    /// Keys and values of each layer, `(rows, nh, block_size, hs)`.
    layers: Vec<[Slot; 2]>,
    /// How many tokens each row holds.
    filled: Vec<usize>,
    /// Where each row's next token goes: what a captured step reads.
    starts: Vec<HostCell>,
    /// The step that takes one more token of each row, once it has been captured.
    pub(crate) step: DecodeStep,
    config: GptConfig,
}

impl KvCache {
    /// An empty cache of `rows` contexts of a model, on the model's device and in the dtype of its activations: that of
    /// this thread's [`Precision`], or else the model's.
    ///
    /// # Errors
    /// No rows; no memory.
    pub fn new(model: &Gpt, rows: usize) -> Result<Self> {
        if rows == 0 {
            return Err(Error::Configuration("a cache of no rows holds nothing".into()));
        }
        let config = model.config().clone();
        let (like, heads) = (model.wte.weight.tensor(), config.n_head);
        let shape = [rows, heads, config.block_size, config.n_embd / heads];
        let dtype = Precision::current().operand(&like).dtype();
        let cell = || Slot::new(like.device().scope(|| Tensor::zeros(shape, dtype)));
        let layers = (0..config.n_layer).map(|_| Ok([cell()?, cell()?])).collect::<Result<_>>()?;
        let starts = (0..rows).map(|_| HostCell::new(0.0)).collect();
        Ok(KvCache { layers, filled: vec![0; rows], starts, step: DecodeStep::Unknown, config })
    }

    /// How many contexts it holds.
    pub fn rows(&self) -> usize {
        self.filled.len()
    }

    /// How many tokens a context has at most.
    pub fn length(&self) -> usize {
        self.config.block_size
    }

    /// How many tokens row `row` holds; 0 for a row that is not there.
    pub fn filled(&self, row: usize) -> usize {
        self.filled.get(row).copied().unwrap_or(0)
    }

    /// Forgets what row `row` holds.
    pub fn clear(&mut self, row: usize) {
        self.truncate(row, 0);
    }

    /// Forgets all but the first `length` tokens of row `row`.
    pub fn truncate(&mut self, row: usize, length: usize) {
        if let Some(filled) = self.filled.get_mut(row) {
            *filled = (*filled).min(length);
        }
    }

    /// Says where the next tokens go: what a pass reads, `(rows,)`.
    pub(crate) fn place_next(&self) -> Tensor {
        // What a row without a token writes is behind all it holds, or nobody can look at it: a full row takes no more.
        let last = self.length() - 1;
        let places = || self.filled.iter().map(|&filled| filled.min(last));
        self.starts.iter().zip(places()).for_each(|(cell, place)| cell.set(place as f64));
        let device = self.layers[0][0].tensor().device();
        device.scope(|| Tensor::from_vec(places().map(|place| place as i64).collect(), [self.rows()]))
    }

    /// One token more in each of these rows.
    pub(crate) fn fill(&mut self, taken: &[bool]) {
        self.filled.iter_mut().zip(taken).for_each(|(filled, &taken)| *filled += usize::from(taken));
    }

    /// Whether it was made for a model of these sizes.
    pub(crate) fn check(&self, config: &GptConfig) -> Result<()> {
        if self.config == *config {
            return Ok(());
        }
        Err(Error::Configuration("a cache of a model of other sizes was given: each model needs its own".into()))
    }
}

/// Where a pass writes.
enum Places {
    /// A prompt into one row, from its beginning on.
    Prompt(usize),
    /// One token of each row, behind what the row holds.
    Next(Tensor),
}

/// One pass over the model: the new versions of the cells, until they are named together.
pub(crate) struct Pass<'c> {
    cache: &'c mut KvCache,
    places: Places,
    new: Vec<[Tensor; 2]>,
    /// How many tokens the prompt has.
    read: usize,
}

impl<'c> Pass<'c> {
    /// `read` tokens into row `row`.
    pub fn prompt(cache: &'c mut KvCache, row: usize, read: usize) -> Self {
        Pass { cache, places: Places::Prompt(row), new: Vec::new(), read }
    }

    /// One token for each row, at the places `first` that were said last.
    pub fn next(cache: &'c mut KvCache, first: Tensor) -> Self {
        Pass { cache, places: Places::Next(first), new: Vec::new(), read: 0 }
    }

    /// The rows of a table of positions `(S, C)` for `count` tokens: `(count, C)` or `(rows, 1, C)`.
    pub fn positions(&self, table: &Tensor, count: usize) -> Tensor {
        match &self.places {
            Places::Prompt(_) => table.slice(0, 0..count),
            Places::Next(first) => table.embedding(&first.reshape([-1, 1])),
        }
    }

    /// Attention of a layer's queries over what the cache holds and the new keys and values: `(B, nh, T, hs)`.
    pub fn attend(&mut self, layer: usize, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let cells = &self.cache.layers[layer];
        let written = |cell: &Slot, value: &Tensor| {
            let cell = cell.tensor();
            let value = &value.cast(cell.dtype());
            match &self.places {
                Places::Prompt(row) => cell.slice_assign_at(&[*row, 0, 0, 0], value),
                Places::Next(_) => cell.slice_assign_cells(2, &self.cache.starts, value),
            }
        };
        let [keys, values] = [written(&cells[0], k), written(&cells[1], v)];
        let y = match &self.places {
            // Nothing comes before a prompt.
            Places::Prompt(_) => causal_attention(q, k, v),
            Places::Next(first) => cached_attention(q, &keys, &values, first),
        };
        self.new.push([keys, values]);
        y
    }

    /// Names the new versions, together with everything that depends on them: all or nothing. A prompt's row has then
    /// taken it; which rows have taken a next token says [`KvCache::fill`].
    pub fn finish(self) -> Result<()> {
        let Pass { cache, places, new, read } = self;
        let updates: Vec<(&Slot, Tensor)> = cache.layers.iter().flatten().zip(new.into_iter().flatten()).collect();
        commit(&updates)?;
        if let Places::Prompt(row) = places {
            cache.filled[row] = read;
        }
        Ok(())
    }
}
