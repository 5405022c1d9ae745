//! Pretrained models against transformers: the folders in `golden/pretrained`, which `golden/pretrained.py` made; and
//! what reading one takes of memory.

mod counting;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;

use counting::{LIVE, PEAK, alone};
use serde::Deserialize;
use tapeflow::checkpoint::load_tensors;
use tapeflow::models::{GenerateOptions, Gpt, GptConfig};
use tapeflow::prelude::*;
use tapeflow::tokenizer::{Bpe, Tokenizer};
use tapeflow::{Result, no_grad};

/// What transformers said of a folder.
#[derive(Deserialize)]
struct Expected {
    texts: Vec<Encoded>,
    greedy: Continued,
}

#[derive(Deserialize)]
struct Encoded {
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Continued {
    prompt: Vec<u32>,
    tokens: Vec<u32>,
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/pretrained").join(name)
}

fn expected(name: &str) -> Expected {
    serde_json::from_str(&std::fs::read_to_string(folder(name).join("expected.json")).unwrap()).unwrap()
}

fn assert_close(what: &str, ours: &[f32], theirs: &[f32]) {
    assert_eq!(ours.len(), theirs.len(), "{what}");
    let off = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{what}: off by {off:e}");
    assert!(off <= 1e-4, "{what}: off by {off:e}");
    assert!(theirs.iter().any(|x| x.abs() > 1.0), "{what}: too small to say much");
}

const FOLDERS: [&str; 2] = ["small", "bare"];

#[test]
fn logits_and_greedy_tokens_are_those_of_transformers() -> Result<()> {
    compare(&FOLDERS)
}

/// By hand, at GPT-2's own size: `pretrained.py --gpt2 DIR` makes the folder.
#[test]
#[ignore = "needs a folder of 600 MB"]
fn logits_and_greedy_tokens_of_a_folder_of_ones_own() -> Result<()> {
    match std::env::var("TAPEFLOW_PRETRAINED") {
        Ok(folder) => compare(&[&folder]),
        Err(_) => {
            let _ = writeln!(std::io::stdout().lock(), "skipped: TAPEFLOW_PRETRAINED names no folder");
            Ok(())
        }
    }
}

/// The model of each folder against what transformers said of it.
fn compare(names: &[&str]) -> Result<()> {
    let _alone = alone();
    for &name in names {
        let model = Gpt::from_pretrained(folder(name))?;
        let golden = load_tensors(folder(name).join("expected.safetensors"))?;
        let [(_, logits), (_, tokens)] = &golden[..] else { panic!("{} tensors", golden.len()) };
        let ours = no_grad(|| model.eval(|| model.forward(tokens)));
        assert_eq!(ours.shape(), logits.shape());
        assert_close(name, &ours.to_vec::<f32>()?, &logits.to_vec::<f32>()?);

        let Continued { prompt, tokens } = expected(name).greedy;
        let greedy = GenerateOptions::greedy(tokens.len());
        for options in [greedy.clone(), GenerateOptions { cache: false, ..greedy }] {
            let ours = model.generate(&prompt, &options)?.collect::<Result<Vec<u32>>>()?;
            assert_eq!(ours, tokens, "{name}, with a cache: {}", options.cache);
        }
    }
    Ok(())
}

#[test]
fn tokens_are_those_of_transformers_and_text_streams_whole() -> Result<()> {
    let _alone = alone();
    for name in FOLDERS {
        let tokenizer = Bpe::from_file(folder(name).join("tokenizer.json"))?;
        assert_eq!(tokenizer.end_of_text(), tokenizer.token("<|endoftext|>"));
        assert_eq!(tokenizer.vocab_size(), GptConfig::from_pretrained(folder(name))?.vocab_size);
        for Encoded { text, ids } in expected(name).texts {
            assert_eq!(tokenizer.encode(&text)?, ids, "{text:?}");
            assert_eq!(tokenizer.decode(&ids)?, text);
            // As it comes, token by token, no piece ends within a character.
            for prompt in 0..=ids.len() {
                let mut decoder = tapeflow::models::TextDecoder::after(&tokenizer, &ids[..prompt], &[])?;
                let mut streamed = String::new();
                for &token in &ids[prompt..] {
                    let piece = decoder.push(token)?;
                    assert!(!piece.contains('\u{FFFD}'), "{text:?}: {piece:?}");
                    streamed += &piece;
                }
                streamed += &decoder.finish()?;
                let before = tokenizer.decode(&ids[..prompt])?;
                let whole = before.trim_end_matches('\u{FFFD}');
                assert_eq!(format!("{whole}{streamed}").trim_end_matches('\u{FFFD}'), text, "after {prompt} tokens");
            }
        }
    }
    Ok(())
}

#[test]
fn a_fine_tuned_model_is_written_in_the_layout_it_came_in() -> Result<()> {
    let _alone = alone();
    let model = Gpt::from_pretrained(folder("small"))?;
    let tokenizer = Bpe::from_file(folder("small").join("tokenizer.json"))?;
    let text = tokenizer.encode(&"The cat counted the sacks. ".repeat(9))?;
    let block = |from: usize| Tensor::from_vec(text[from..from + 32].iter().map(|&t| i64::from(t)).collect(), [1, 32]);
    let (inputs, targets) = (block(0), block(1));
    let mut optimizer = AdamW::new(&model).learning_rate(3e-3);
    let mut losses = Vec::new();
    for _ in 0..8 {
        let loss = model.eval(|| model.loss(&inputs, &targets));
        optimizer.step(loss.backward()?)?;
        losses.push(loss.item::<f32>()?);
    }
    assert!(losses[7] < 0.7 * losses[0], "{losses:?}");

    let out = std::env::temp_dir().join(format!("tapeflow-fine-tuned-{}", std::process::id()));
    model.save_pretrained(&out, Some(&tokenizer))?;
    // Everything but the numbers is as transformers wrote it.
    let header = |path: &Path| -> Vec<(String, Vec<usize>)> {
        load_tensors(path.join("model.safetensors"))
            .unwrap()
            .iter()
            .map(|(n, t)| (n.clone(), t.shape().to_vec()))
            .collect()
    };
    assert_eq!(header(&out), header(&folder("small")));
    let fields = |path: &Path| -> serde_json::Value {
        serde_json::from_str(&std::fs::read_to_string(path.join("config.json")).unwrap()).unwrap()
    };
    let (ours, theirs) = (fields(&out), fields(&folder("small")));
    for (name, value) in ours.as_object().unwrap() {
        assert_eq!(value, &theirs[name], "{name}");
    }
    let read = Gpt::from_pretrained(&out)?;
    let logits = |model: &Gpt| no_grad(|| model.eval(|| model.forward(&inputs))).to_vec::<f32>();
    assert_eq!(logits(&read)?, logits(&model)?);
    assert_eq!(Bpe::from_file(out.join("tokenizer.json"))?.to_json(), tokenizer.to_json());
    std::fs::remove_dir_all(out).unwrap();
    Ok(())
}

/// Writes a model of numbers that mean nothing, without a tensor that could leave memory behind for the next. Returns
/// its bytes, and those of its largest tensor.
fn write_model(folder: &Path, vocab: usize, c: usize, layers: usize) -> (usize, usize) {
    let mut shapes = vec![("wte.weight".to_owned(), vec![vocab, c]), ("wpe.weight".to_owned(), vec![64, c])];
    let mut add = |path: String, inputs: Option<usize>, outputs: usize| {
        let weight = inputs.into_iter().chain([outputs]).collect();
        shapes.extend([(format!("{path}.weight"), weight), (format!("{path}.bias"), vec![outputs])]);
    };
    add("ln_f".to_owned(), None, c);
    for layer in 0..layers {
        let all = [("ln_1", None, c), ("attn.c_attn", Some(c), 3 * c), ("attn.c_proj", Some(c), c), ("ln_2", None, c)];
        for (name, inputs, outputs) in
            all.into_iter().chain([("mlp.c_fc", Some(c), 4 * c), ("mlp.c_proj", Some(4 * c), c)])
        {
            add(format!("h.{layer}.{name}"), inputs, outputs);
        }
    }
    let (mut header, mut end, mut largest) = (serde_json::Map::new(), 0, 0);
    for (name, shape) in shapes {
        let bytes = shape.iter().product::<usize>() * 4;
        let offsets = [end, end + bytes];
        header.insert(name, serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets }));
        (end, largest) = (end + bytes, largest.max(bytes));
    }
    let header = serde_json::to_vec(&header).unwrap();
    let numbers = (0..end / 4).flat_map(|i| (i as f32).to_le_bytes());
    let file = (header.len() as u64).to_le_bytes().into_iter().chain(header).chain(numbers).collect::<Vec<u8>>();
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("model.safetensors"), file).unwrap();
    let config = serde_json::json!({ "model_type": "gpt2", "vocab_size": vocab, "n_positions": 64, "n_embd": c,
        "n_layer": layers, "n_head": 4 });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    (end, largest)
}

#[test]
fn reading_a_model_takes_the_memory_of_one() -> Result<()> {
    let _alone = alone();
    let folder = std::env::temp_dir().join(format!("tapeflow-memory-{}", std::process::id()));
    let (bytes, largest) = write_model(&folder, 2000, 256, 6);
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let model = Gpt::from_pretrained(&folder)?;
    let (peak, kept) = (PEAK.load(Relaxed) - before, LIVE.load(Relaxed) - before);
    assert!(kept + (1 << 20) >= bytes && model.num_parameters() * 4 == bytes, "{kept} bytes kept of {bytes}");
    // The tensor at hand lies there as it came from the file, and turned.
    assert!(peak <= bytes + 2 * largest + (1 << 20), "{peak} bytes at the most for a model of {bytes}");
    std::fs::remove_dir_all(folder).unwrap();
    Ok(())
}
