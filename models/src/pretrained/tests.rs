//! Folders that are written and read again, and folders with something wrong.

use std::collections::HashMap;
use std::path::PathBuf;

use tapeflow_nn::checkpoint::{INDEX_FILE, export_tensors, load_tensors};
use tapeflow_nn::tokenizer::ByteTokenizer;
use tapeflow_nn::{DType, Forward, Generator, no_grad};

use super::*;

/// A folder that goes with the test, and the tensors of a model in it.
struct Written {
    folder: PathBuf,
    model: Gpt,
    tensors: Vec<(String, Tensor)>,
}

fn gpt(bias: bool) -> Gpt {
    let sizes = GptConfig { n_layer: 2, n_head: 2, n_embd: 8, block_size: 6, ..GptConfig::preset("tiny", 11).unwrap() };
    let generator = Generator::new(3);
    let model = Gpt::new(&GptConfig { bias, dropout: 0.1, ..sizes }, &generator).unwrap();
    // Biases are zeros at first, and norms ones.
    for parameter in model.parameters() {
        let old = parameter.tensor();
        let shape = old.shape().to_vec();
        parameter.set(&(old + generator.randn(shape) * 0.2).detach()).unwrap();
    }
    model
}

impl Written {
    fn new(name: &str, bias: bool) -> Written {
        let folder = std::env::temp_dir().join(format!("tapeflow-pretrained-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let model = gpt(bias);
        model.save_pretrained(&folder, Some(&ByteTokenizer)).unwrap();
        let tensors = load_tensors(folder.join(MODEL_FILE)).unwrap();
        Written { folder, model, tensors }
    }

    /// Reads the folder with its tensors changed.
    fn with(&self, change: impl FnOnce(&mut Vec<(String, Tensor)>)) -> Result<Gpt> {
        let mut tensors = self.tensors.clone();
        change(&mut tensors);
        export_tensors(&tensors, self.folder.join(MODEL_FILE), &HashMap::new()).unwrap();
        Gpt::from_pretrained(&self.folder)
    }

    fn said(&self, change: impl FnOnce(&mut Vec<(String, Tensor)>)) -> String {
        self.with(change).unwrap_err().to_string()
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn logits(model: &Gpt) -> Vec<f32> {
    let tokens = Tensor::from_vec(vec![1i64, 10, 3, 3, 0, 7], [1, 6]);
    no_grad(|| model.eval(|| model.forward(&tokens))).to_vec::<f32>().unwrap()
}

fn tensor<'t>(tensors: &'t mut [(String, Tensor)], name: &str) -> &'t mut Tensor {
    &mut tensors.iter_mut().find(|(other, _)| other == name).unwrap().1
}

#[test]
fn a_model_that_is_written_is_read_again() {
    for bias in [true, false] {
        let written = Written::new("again", bias);
        let read = Gpt::from_pretrained(&written.folder).unwrap();
        assert_eq!(read.config(), &GptConfig { bias: true, ..written.model.config().clone() });
        assert_eq!(logits(&read), logits(&written.model), "bias {bias}");
        assert_eq!(tapeflow_nn::tokenizer::load(&written.folder.join(TOKENIZER_FILE)).unwrap().vocab_size(), 256);
    }
    let written = Written::new("into", true);
    let other = Gpt::new(written.model.config(), &Generator::new(9)).unwrap();
    other.load_pretrained(&written.folder).unwrap();
    assert_eq!(logits(&other), logits(&written.model));
    let sizes = GptConfig { vocab_size: 12, ..written.model.config().clone() };
    let error = Gpt::new(&sizes, &Generator::new(9)).unwrap().load_pretrained(&written.folder).unwrap_err().to_string();
    assert!(error.contains("config.json: its model is") && error.contains("vocab_size: 12"), "{error}");
}

#[test]
fn names_have_a_prefix_or_none_and_what_needs_not_be_read_is_not() {
    let written = Written::new("names", true);
    let expected = logits(&written.model);
    let bare = written.with(|tensors| {
        for (name, tensor) in tensors.iter_mut() {
            *name = name.strip_prefix(PREFIX).unwrap().to_owned();
            *tensor = tensor.cast(DType::F64);
        }
    });
    assert_eq!(logits(&bare.unwrap()), expected);
    let with_more = written.with(|tensors| {
        let head = tensor(tensors, "transformer.wte.weight").clone();
        let mask = Tensor::ones([1, 1, 6, 6], DType::U8);
        tensors.extend([("transformer.h.0.attn.bias".to_owned(), mask), (HEAD.to_owned(), head)]);
        tensors.push(("transformer.h.0.attn.masked_bias".to_owned(), Tensor::full((), -1e4, DType::F32)));
    });
    assert_eq!(logits(&with_more.unwrap()), expected);
    // Over two files.
    let (first, second) = written.tensors.split_at(9);
    let mut places = HashMap::new();
    for (file, tensors) in [("a.safetensors", first), ("b.safetensors", second)] {
        export_tensors(tensors, written.folder.join(file), &HashMap::new()).unwrap();
        places.extend(tensors.iter().map(|(name, _)| (name.clone(), file)));
    }
    std::fs::remove_file(written.folder.join(MODEL_FILE)).unwrap();
    let index = serde_json::json!({ "metadata": {}, "weight_map": places });
    std::fs::write(written.folder.join(INDEX_FILE), index.to_string()).unwrap();
    assert_eq!(logits(&Gpt::from_pretrained(&written.folder).unwrap()), expected);
}

#[test]
fn what_does_not_fit_is_named() {
    let written = Written::new("wrong", true);
    let error = written.said(|tensors| {
        tensors.retain(|(name, _)| name != "transformer.h.1.ln_2.bias");
        tensors.push(("transformer.h.1.rotary".to_owned(), Tensor::ones([1], DType::F32)));
        *tensor(tensors, "transformer.h.0.mlp.c_fc.weight") = Tensor::ones([32, 8], DType::F32);
        *tensor(tensors, "transformer.ln_f.bias") = Tensor::ones([8], DType::I32);
    });
    for part in [
        "missing (1): h.1.ln_2.bias",
        "unexpected (1): transformer.h.1.rotary",
        "`transformer.h.0.mlp.c_fc.weight` in model.safetensors is F32 [32, 8] and should be floats [8, 32]",
        "`transformer.ln_f.bias` in model.safetensors is I32 [8]",
    ] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    let error = written.said(|tensors| tensors.push((HEAD.to_owned(), Tensor::ones([11, 8], DType::F32))));
    assert!(error.contains("`lm_head.weight` is another tensor than `transformer.wte.weight`"), "{error}");
    let error = written.said(|tensors| tensors.push((EMBEDDING.to_owned(), Tensor::ones([11, 8], DType::F32))));
    assert!(error.contains("both `transformer.wte.weight` and `wte.weight`"));
    // Sizes that nobody ever trained are found before memory is taken for them.
    let path = written.folder.join(CONFIG_FILE);
    let config = std::fs::read_to_string(&path).unwrap();
    for (old, new, said) in [
        ("\"n_layer\": 2", "\"n_layer\": 4000000000", "those of 4000000000 layers"),
        ("\"n_embd\": 8", "\"n_embd\": 4000000000", "should be floats [4000000000]"),
        ("\"vocab_size\": 11", "\"vocab_size\": 12", "is F32 [11, 8] and should be floats [12, 8]"),
    ] {
        assert!(config.contains(old), "{config}");
        std::fs::write(&path, config.replace(old, new)).unwrap();
        let error = written.said(|_| ());
        assert!(error.contains(said), "{error}");
    }
    std::fs::remove_file(path).unwrap();
    assert!(written.said(|_| ()).contains("config.json"));
}
