//! `config.json` in the Hugging Face layout: what it says of a GPT-2, and whether [`Gpt`](crate::Gpt) is that model.
//!
//! Owns the names and defaults of transformers' `GPT2Config`, and what is refused. Knows no tensors.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tapeflow_nn::checkpoint::CONFIG_FILE;
use tapeflow_nn::{Error, Result};

use crate::gpt::GptConfig;

/// The fields that decide what is computed. What is not in the file has the value that transformers gives it.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Described {
    model_type: Option<String>,
    vocab_size: usize,
    n_positions: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_inner: Option<usize>,
    activation_function: String,
    layer_norm_epsilon: f64,
    embd_pdrop: f64,
    attn_pdrop: f64,
    resid_pdrop: f64,
    scale_attn_weights: bool,
    scale_attn_by_inverse_layer_idx: bool,
    tie_word_embeddings: bool,
    add_cross_attention: bool,
    is_encoder_decoder: bool,
    pruned_heads: Option<Map<String, Value>>,
    quantization_config: Option<Value>,
}

impl Default for Described {
    fn default() -> Self {
        Described {
            model_type: None,
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: "gelu_new".into(),
            layer_norm_epsilon: EPS,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            resid_pdrop: 0.1,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            add_cross_attention: false,
            is_encoder_decoder: false,
            pruned_heads: None,
            quantization_config: None,
        }
    }
}

/// What layer normalisation adds to the variance.
const EPS: f64 = 1e-5;

impl Described {
    /// Everything that would make this another model than ours, as it stands in the file.
    fn differences(&self) -> Vec<String> {
        let inner = self.n_embd.saturating_mul(4);
        let mut found = Vec::new();
        let mut wanted = |fits: bool, name: &str, said: Value, ours: &str| {
            if !fits {
                found.push(format!("`{name}` is {said}, and here {ours}"));
            }
        };
        let is_gpt2 = self.model_type.as_deref() == Some("gpt2");
        wanted(is_gpt2, "model_type", json!(self.model_type), "\"gpt2\" is what can be read");
        // Two names of one formula.
        let gelu = ["gelu_new", "gelu_pytorch_tanh"].contains(&self.activation_function.as_str());
        wanted(gelu, "activation_function", json!(self.activation_function), "it is \"gelu_new\"");
        let n_inner = self.n_inner.unwrap_or(inner);
        wanted(n_inner == inner, "n_inner", json!(n_inner), &format!("it is 4 · n_embd = {inner}"));
        let eps = self.layer_norm_epsilon;
        wanted(eps == EPS, "layer_norm_epsilon", json!(eps), "it is 1e-5");
        let one_rate = self.embd_pdrop == self.resid_pdrop && self.attn_pdrop == self.resid_pdrop;
        let rates = json!([self.embd_pdrop, self.attn_pdrop, self.resid_pdrop]);
        wanted(one_rate, "embd_pdrop, attn_pdrop, resid_pdrop", rates, "there is one rate for all three");
        for (name, value, ours) in [
            ("scale_attn_weights", self.scale_attn_weights, true),
            ("scale_attn_by_inverse_layer_idx", self.scale_attn_by_inverse_layer_idx, false),
            ("tie_word_embeddings", self.tie_word_embeddings, true),
            ("add_cross_attention", self.add_cross_attention, false),
            ("is_encoder_decoder", self.is_encoder_decoder, false),
        ] {
            wanted(value == ours, name, json!(value), &format!("it is {ours}"));
        }
        let pruned = self.pruned_heads.as_ref().is_some_and(|heads| !heads.is_empty());
        wanted(!pruned, "pruned_heads", json!(self.pruned_heads), "no head can be missing");
        let quantized = self.quantization_config.is_some();
        wanted(!quantized, "quantization_config", json!(self.quantization_config), "numbers are floats");
        found
    }
}

/// Whether a folder's `config.json` is in the Hugging Face layout, rather than a [`GptConfig`] as it is.
pub fn is_pretrained(folder: &Path) -> bool {
    let json = std::fs::read(folder.join(CONFIG_FILE)).ok();
    let value: Option<Map<String, Value>> = json.and_then(|json| serde_json::from_slice(&json).ok());
    value.is_some_and(|fields| fields.contains_key("model_type"))
}

/// Reads `config.json`.
pub fn read(folder: &Path) -> Result<GptConfig> {
    let path = folder.join(CONFIG_FILE);
    let json = std::fs::read(&path).map_err(Error::file("read", &path))?;
    let said: Described = serde_json::from_slice(&json).map_err(|e| Error::malformed(&path, e))?;
    let differences = said.differences();
    if !differences.is_empty() {
        return Err(Error::malformed(&path, format!("another model than Gpt: {}", differences.join("; "))));
    }
    let config = GptConfig {
        block_size: said.n_positions,
        vocab_size: said.vocab_size,
        n_layer: said.n_layer,
        n_head: said.n_head,
        n_embd: said.n_embd,
        dropout: said.resid_pdrop,
        bias: true,
    };
    config.check().map_err(|e| Error::malformed(&path, e))?;
    Ok(config)
}

/// What [`read`] reads, for transformers too.
pub fn written(config: &GptConfig, end_of_text: Option<u32>) -> String {
    let (c, dropout) = (config, config.dropout);
    let fields = json!({
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": c.vocab_size,
        "n_positions": c.block_size,
        "n_embd": c.n_embd,
        "n_layer": c.n_layer,
        "n_head": c.n_head,
        "n_inner": null,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": EPS,
        "embd_pdrop": dropout,
        "attn_pdrop": dropout,
        "resid_pdrop": dropout,
        "tie_word_embeddings": true,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
    });
    format!("{fields:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: Value) -> Result<GptConfig> {
        let folder = std::env::temp_dir().join(format!("tapeflow-config-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut fields = json!({ "model_type": "gpt2" });
        fields[name] = value;
        std::fs::write(folder.join(CONFIG_FILE), fields.to_string()).unwrap();
        let config = read(&folder);
        assert!(is_pretrained(&folder));
        std::fs::remove_dir_all(folder).unwrap();
        config
    }

    /// One test, since all write one file.
    #[test]
    fn what_is_another_model_is_refused_by_name() {
        let gpt2 = GptConfig { dropout: 0.1, ..GptConfig::preset("gpt2", 50257).unwrap() };
        assert_eq!(with("n_ctx", json!(1024)).unwrap(), gpt2);
        assert_eq!(with("activation_function", json!("gelu_pytorch_tanh")).unwrap(), gpt2);
        assert_eq!(with("n_inner", json!(3072)).unwrap(), gpt2);
        for (name, value, said) in [
            ("model_type", json!("llama"), "`model_type` is \"llama\""),
            ("activation_function", json!("relu"), "`activation_function` is \"relu\", and here it is \"gelu_new\""),
            ("n_inner", json!(100), "`n_inner` is 100, and here it is 4 · n_embd = 3072"),
            ("layer_norm_epsilon", json!(1e-6), "`layer_norm_epsilon`"),
            ("attn_pdrop", json!(0.0), "[0.1,0.0,0.1]"),
            ("scale_attn_weights", json!(false), "`scale_attn_weights` is false"),
            ("scale_attn_by_inverse_layer_idx", json!(true), "is true, and here it is false"),
            ("tie_word_embeddings", json!(false), "`tie_word_embeddings`"),
            ("add_cross_attention", json!(true), "`add_cross_attention`"),
            ("is_encoder_decoder", json!(true), "`is_encoder_decoder`"),
            ("pruned_heads", json!({ "0": [1] }), "`pruned_heads`"),
            ("quantization_config", json!({ "bits": 4 }), "`quantization_config`"),
            ("n_head", json!(7), "n_embd 768 is no multiple of n_head 7"),
            ("n_layer", json!(0), "n_layer is 0"),
            ("n_embd", json!("wide"), "invalid type"),
        ] {
            let error = with(name, value).unwrap_err().to_string();
            assert!(error.contains("config.json: ") && error.contains(said), "{name}: {error}");
        }
    }
}
