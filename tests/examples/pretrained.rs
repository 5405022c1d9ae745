//! The gpt example with a GPT-2 in the Hugging Face layout, one of those in `golden/pretrained`: sampled from, trained
//! further, continued.

use tapeflow::tokenizer::{Bpe, Tokenizer};

use super::resume::{checkpoint_files, records};
use super::*;

fn golden() -> String {
    format!("{}/tests/golden/pretrained/small", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn a_pretrained_model_is_sampled_from() {
    let folder = Folder::new("pretrained");
    let golden = golden();
    let sample = |more: &[&str]| succeeded(&folder.gpt(&[&["--load", &golden], more].concat())).to_owned();
    // What transformers continues the prompt with.
    let expected: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{golden}/expected.json")).unwrap()).unwrap();
    let greedy = &expected["greedy"];
    let ids = |name: &str| -> Vec<u32> {
        greedy[name].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let tokenizer = Bpe::from_file(format!("{golden}/tokenizer.json")).unwrap();
    let tokens = [ids("prompt"), ids("tokens")].concat();
    assert!(!tokens.contains(&tokenizer.end_of_text().unwrap()), "it would end there");
    let text = tokenizer.decode(&tokens).unwrap();
    let count = ids("tokens").len().to_string();
    let said = sample(&["--prompt", "The miller", "--temperature", "0", "--tokens", &count]);
    assert_eq!(said.trim_end_matches('\n'), text.trim_end_matches('\n'));
    for device in super::devices::others() {
        let more = ["--prompt", "The miller", "--temperature", "0", "--tokens", &count, "--device", &device];
        assert_eq!(sample(&more), said, "{device}");
    }
    // Without a prompt a text begins; its beginning is not shown.
    let begun = sample(&["--tokens", "12"]);
    assert!(!begun.trim().is_empty() && !begun.starts_with("<|endoftext|>"), "{begun:?}");
    assert_eq!(begun, sample(&["--tokens", "12", "--threads", "1"]));
    assert!(folder.names().is_empty());

    // Each file of the folder that is not there, or says something else.
    let files = ["config.json", "tokenizer.json", "model.safetensors"];
    let files = files.map(|name| (name, std::fs::read(format!("{golden}/{name}")).unwrap()));
    std::fs::create_dir(folder.0.join("broken")).unwrap();
    let write_all = || files.iter().for_each(|(name, bytes)| folder.write(&format!("broken/{name}"), bytes));
    let broken = || folder.gpt(&["--load", "broken", "--prompt", "The"]);
    for (name, bytes) in &files {
        write_all();
        std::fs::remove_file(folder.0.join("broken").join(name)).unwrap();
        refused(&broken(), 1, &[name]);
        folder.write(&format!("broken/{name}"), &bytes[..bytes.len() / 2]);
        refused(&broken(), 1, &[name]);
    }
    write_all();
    let config = folder.read("broken/config.json");
    for (old, new, said) in [
        ("\"gelu_new\"", "\"relu\"", "`activation_function` is \"relu\""),
        ("\"vocab_size\": 300", "\"vocab_size\": 299", "tokens up to 300"),
        (
            "\"n_embd\": 32",
            "\"n_embd\": 64",
            "`transformer.h.0.attn.c_attn.weight` in model.safetensors is F32 [32, 96] and should be floats [64, 192]",
        ),
    ] {
        assert!(config.contains(old), "{config}");
        folder.write("broken/config.json", config.replace(old, new));
        refused(&broken(), 1, &[said]);
    }
}

#[test]
fn a_pretrained_model_is_trained_further_and_continued() {
    let folder = Folder::new("fine-tune");
    let golden = golden();
    folder.write("sheep.txt", "The sheep counted the miller's daughter, who slept. ".repeat(40));
    let tune = ["--load", &golden, "--data", "sheep.txt", "--out", "out", "--learning-rate", "3e-3", "--eval", "2"];
    let steps = ["--steps", "12", "--save-every", "1", "--keep", "99", "--tokens", "8", "--batch-size", "2"];
    let said = succeeded(&folder.gpt(&[&tune[..], &steps].concat())).to_owned();
    assert!(said.contains("tokens for training") && said.contains("config fine-tuning: 12 steps"), "{said}");
    let losses: Vec<f64> = records(&folder, "out").iter().filter_map(|r| r["val_loss"].as_f64()).collect();
    assert!(losses[losses.len() - 1] < losses[0] - 0.5, "{losses:?}");

    // It goes on bit for bit, with dropout, which this model has.
    let expected = checkpoint_files(&folder.0.join("out"));
    for step in [1, 7] {
        let (from, to) = (format!("out/checkpoints/step-{step:08}"), format!("from-{step}"));
        succeeded(&folder.gpt(&["--resume", &from, "--out", &to, "--threads", "2"]));
        assert!(checkpoint_files(&folder.0.join(&to)) == expected, "stopped after {step}");
        assert_eq!(records(&folder, &to), records(&folder, "out")[step..], "stopped after {step}");
        let exported = |run: &str| std::fs::read(folder.0.join(run).join("pretrained/model.safetensors")).unwrap();
        assert!(exported(&to) == exported("out"));
    }

    // The run, its checkpoint and what it leaves for others are one model.
    let sample = |dir: &str| {
        let words = ["--load", dir, "--prompt", "The", "--tokens", "20", "--temperature", "0"];
        succeeded(&folder.gpt(&words)).to_owned()
    };
    let first = sample("out");
    assert_eq!((sample("out/checkpoint"), sample("out/pretrained")), (first.clone(), first.clone()));
    assert_ne!(first, sample(&golden));

    // So is a run's own model, whose text decides what it can read.
    folder.write("words.txt", "abc def ".repeat(60));
    let again = ["--load", "out", "--data", "words.txt", "--steps", "2", "--tokens", "4", "--block-size", "16"];
    succeeded(&folder.gpt(&again));
    refused(&folder.gpt(&[&tune[..], &["--block-size", "33"]].concat()), 2, &["block-size is 33", "at most 32"]);
    refused(&folder.gpt(&[&tune[..], &["--n-head", "2"]].concat()), 2, &["--n-head has no meaning with --load"]);
    refused(&folder.gpt(&[&tune[..], &["--prompt", "x"]].concat()), 2, &["--generate has no meaning with --load"]);
    refused(&folder.gpt(&["--load", "nowhere", "--data", "sheep.txt"]), 1, &["no checkpoint in nowhere"]);
}
