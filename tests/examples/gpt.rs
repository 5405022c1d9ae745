//! The gpt example: what a run leaves, what it says about bad input, interruptions.

use super::*;

#[test]
fn a_run_leaves_metrics_a_checkpoint_and_a_chart() {
    let folder = Folder::new("run");
    let output = folder.gpt(&SHORT);
    let said = succeeded(&output);
    for part in ["sample before training", "sample after 10 of 20 steps", "sample after 20 steps", "validation loss"] {
        assert!(said.contains(part), "{part} is missing in: {said}");
    }
    assert!(text(&output.stderr).contains("step 20/20"), "{}", text(&output.stderr));

    let lines: Vec<serde_json::Value> =
        folder.read("runs/gpt/metrics.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 21);
    for (step, line) in lines.iter().enumerate() {
        assert_eq!(line["step"], step);
        let trained = ["train_loss", "learning_rate", "tokens_per_second"].map(|name| line[name].is_f64());
        assert_eq!(trained, [step < 20; 3], "{line}");
        // Evaluated every tenth of the run.
        assert_eq!(line["val_loss"].is_f64(), step % 2 == 0, "{line}");
    }
    let loss = |line: &serde_json::Value| line["val_loss"].as_f64().unwrap();
    assert!(loss(&lines[20]) < loss(&lines[0]) - 0.3, "{} to {}", loss(&lines[0]), loss(&lines[20]));
    assert!(folder.read("runs/gpt/loss.svg").starts_with("<svg"));
    for file in ["config.json", "tokenizer.json"] {
        serde_json::from_str::<serde_json::Value>(&folder.read(&format!("runs/gpt/checkpoint/{file}"))).unwrap();
    }

    // A second run does not touch the first, and repeats it.
    succeeded(&folder.gpt(&[&SHORT[..], &["--threads", "3"]].concat()));
    let model = |run: &str| std::fs::read(folder.0.join(run).join("checkpoint/model.safetensors")).unwrap();
    assert!(model("runs/gpt") == model("runs/gpt-2"), "the same seed gave another model");
    assert_eq!(folder.names(), ["runs"]);
}

#[test]
fn the_whole_validation_split_comes_last() {
    let folder = Folder::new("full");
    let words: String = (0..400).map(|i| format!("{} sheep, ", i * 7919 % 1000)).collect();
    folder.write("sheep.txt", words);
    let run = ["--data", "sheep.txt", "--eval", "full", "--block-size", "16", "--out", "out"];
    let output = folder.gpt(&[&SHORT[..], &run].concat());
    let said = succeeded(&output);
    let metrics = folder.read("out/metrics.jsonl");
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let full = last["val_loss_full"].as_f64().unwrap();
    assert!(full > 0.5 && full < 4.0 && metrics.matches("val_loss_full").count() == 1, "{last}");
    assert!(said.contains(&format!("validation loss {full:.4} (whole split)")), "{said}");

    // The checkpoint is sampled without the text, the same each time, from the run's folder and from its own.
    std::fs::remove_file(folder.0.join("sheep.txt")).unwrap();
    let sample = |dir: &str, more: &[&str]| {
        let output = folder.gpt(&[&["--load", dir, "--generate", "12 sh", "--tokens", "30"], more].concat());
        succeeded(&output).to_owned()
    };
    let first = sample("out", &[]);
    assert!(first.starts_with("12 sh") && first.trim_end_matches('\n').chars().count() <= 35, "{first:?}");
    assert_eq!(first, sample("out/checkpoint", &["--threads", "1"]));
    assert_ne!(first, sample("out", &["--seed", "9", "--temperature", "2"]));
    assert_eq!(sample("out", &["--temperature", "0"]), sample("out", &["--top-k", "1", "--seed", "5"]));

    // Several prompts at once are as each alone with its own seed; a stop string is not shown.
    let both = sample("out", &["--generate", "7", "--top-p", "0.9", "--repetition-penalty", "1.1"]);
    let alone = folder.gpt(
        &["--load", "out", "--generate", "7", "--tokens", "30", "--seed", "2", "--top-p", "0.9"]
            .into_iter()
            .chain(["--repetition-penalty", "1.1"])
            .collect::<Vec<_>>(),
    );
    let first_alone = sample("out", &["--top-p", "0.9", "--repetition-penalty", "1.1"]);
    assert_eq!(both, format!("{first_alone}\n{}", succeeded(&alone)));
    let stop = first.get(7..9).unwrap();
    let stopped = sample("out", &["--stop", stop]);
    let end = 5 + first[5..].find(stop).unwrap();
    assert_eq!(stopped.trim_end_matches('\n'), first[..end].trim_end_matches('\n'));

    refused(&folder.gpt(&["--load", "out", "--generate", "12 §"]), 2, &["'§'", "character 3", "'e'"]);
    refused(&folder.gpt(&["--load", "out", "--generate", ""]), 2, &["the prompt is empty"]);
    refused(&folder.gpt(&["--load", "nowhere", "--generate", "1"]), 1, &["no checkpoint in nowhere", "config.json"]);
    refused(
        &folder.gpt(&["--load", "out", "--generate", "1", "--steps", "3"]),
        2,
        &["--steps has no meaning with --load"],
    );
    damage_is_noticed(&folder);
}

/// Each file of the checkpoint in `out`, cut short, gone, or of another model.
fn damage_is_noticed(folder: &Folder) {
    let path = |file: &str| format!("out/checkpoint/{file}");
    let model = std::fs::read(folder.0.join(path("model.safetensors"))).unwrap();
    let config = folder.read(&path("config.json"));
    let tokenizer = folder.read(&path("tokenizer.json"));
    let sample = || folder.gpt(&["--load", "out", "--generate", "1"]);

    for cut in [0, 5, model.len() / 2, model.len() - 1] {
        folder.write(&path("model.safetensors"), &model[..cut]);
        refused(&sample(), 1, &["model.safetensors"]);
    }
    folder.write(&path("model.safetensors"), &model);
    for (old, new, said) in [
        ("\"n_layer\": 2", "\"n_layer\": 1", "unexpected (6): h.1."),
        ("\"n_embd\": 32", "\"n_embd\": 30", "of another shape"),
        ("\"n_embd\": 32", "\"n_embd\": 4000000000", "at least"),
        ("\"n_head\": 2", "\"n_head\": 5", "n_head 5"),
        ("\"n_head\": 2", "\"n_heads\": 2", "n_heads"),
        ("}", "", "config.json"),
    ] {
        assert!(config.contains(old), "{config}");
        folder.write(&path("config.json"), config.replace(old, new));
        refused(&sample(), 1, &[said]);
    }
    folder.write(&path("config.json"), &config);
    folder.write(&path("tokenizer.json"), tokenizer.replacen("sh", "s", 1).replacen("hs", "s", 1).replacen('p', "", 1));
    refused(&sample(), 1, &["tokenizer.json"]);
    folder.write(&path("tokenizer.json"), &tokenizer);
    succeeded(&sample());
    std::fs::remove_file(folder.0.join(path("config.json"))).unwrap();
    refused(&sample(), 1, &["no checkpoint in out"]);
}

#[test]
fn bad_input_is_named_and_nothing_is_left() {
    let folder = Folder::new("bad");
    folder.write("short.txt", "A text of one line.");
    folder.write("bytes.txt", b"caf\xE9");
    folder.write("slip.toml", "n_layer = 2\nn_leyer = 3\n");
    folder.write("nan.toml", "learning_rate = nan\n");
    let before = folder.names();
    let cases: &[(&[&str], i32, &[&str])] = &[
        (&["--data", "none.txt"], 1, &["none.txt", "No such file"]),
        (&["--data", "short.txt"], 1, &["short.txt is too short", "19 characters", "129 of each"]),
        (&["--data", "bytes.txt"], 1, &["bytes.txt", "UTF-8", "byte 3"]),
        (&["--config", "huge"], 2, &["`huge`", "tiny, cpu, baby, gpt2", ".toml"]),
        (&["--config", "none.toml"], 2, &["none.toml"]),
        (&["--config", "slip.toml"], 2, &["slip.toml", "line 2", "n_leyer", "`n_layer`"]),
        (&["--config", "nan.toml"], 2, &["learning-rate is NaN", "above 0"]),
        (&["--learning-rate", "0"], 2, &["learning-rate is 0", "above 0"]),
        (&["--learning-rate", "-1e-3"], 2, &["learning-rate is -0.001", "above 0"]),
        (&["--min-lr", "1"], 2, &["min-lr is 1", "at most learning-rate"]),
        (&["--steps", "0"], 2, &["'0' for '--steps", "at least 1"]),
        (&["--steps", "-5"], 2, &["'-5' for '--steps", "at least 1"]),
        (&["--batch-size", "many"], 2, &["'many' for '--batch-size", "whole number"]),
        (&["--n-embd", "130", "--n-head", "4"], 2, &["130 is no multiple of n-head 4", "128 or 132"]),
        (&["--dropout", "1"], 2, &["dropout is 1", "below 1"]),
        (&["--beta1", "NaN"], 2, &["beta1 is NaN", "below 1"]),
        (&["--weight-decay", "inf"], 2, &["weight-decay is inf", "at least 0"]),
        (&["--grad-clip", "-1"], 2, &["grad-clip is -1", "at least 0"]),
        (&["--device", "abacus"], 2, &["`abacus`", "cpu, reference"]),
        (&["--threads", "0"], 2, &["--threads", "at least 1"]),
        (&["--eval", "half"], 2, &["--eval", "`full` or"]),
        (&["--top-k", "0"], 2, &["--top-k", "at least 1"]),
        (&["--top-p", "1.5"], 2, &["--top-p", "above 0 and at most 1"]),
        (&["--repetition-penalty", "0"], 2, &["--repetition-penalty", "above 0"]),
        (&["--stop", "x"], 2, &["required"]),
        (&["--temperature", "-0.5"], 2, &["--temperature", "at least 0"]),
        (&["--generate", "Once"], 2, &["required"]),
        (&["--out", "short.txt/run", "--steps", "1"], 1, &["short.txt"]),
    ];
    for (words, code, said) in cases {
        refused(&folder.gpt(words), *code, said);
        assert_eq!(folder.names(), before, "{words:?} left something");
    }
}

#[test]
fn a_run_that_diverges_says_so() {
    let folder = Folder::new("diverge");
    let flags = ["--learning-rate", "1e30", "--grad-clip", "0", "--warmup-steps", "0"];
    refused(&folder.gpt(&[&SHORT[..], &flags].concat()), 1, &["diverged", "--learning-rate"]);
}

#[cfg(unix)]
#[test]
fn an_interrupted_run_saves_what_it_has() {
    let folder = Folder::new("interrupt");
    let mut command = example("gpt");
    command.args(["--config", "tiny", "--steps", "1000000", "--tokens", "40"]).current_dir(&folder.0);
    let mut run = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    let metrics = folder.0.join("runs/gpt/metrics.jsonl");
    let begun = || std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0);
    while !begun() {
        assert!(run.try_wait().unwrap().is_none(), "the run ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    assert!(run.wait().unwrap().success());
    let words = ["--load", "runs/gpt", "--generate", "The", "--tokens", "10"];
    assert!(succeeded(&folder.gpt(&words)).starts_with("The"));
    assert!(folder.read("runs/gpt/metrics.jsonl").lines().last().unwrap().contains("val_loss"));
}

#[test]
fn recomputation_changes_no_number() {
    let folder = Folder::new("recompute");
    let words = [&SHORT[..], &["--dropout", "0.2"]].concat();
    succeeded(&folder.gpt(&words));
    succeeded(&folder.gpt(&[&words[..], &["--recompute"]].concat()));
    let losses = |run: &str| -> Vec<serde_json::Value> {
        let metrics = folder.read(&format!("{run}/metrics.jsonl"));
        let records = metrics.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        records.flat_map(|r| [r["train_loss"].clone(), r["val_loss"].clone()]).collect()
    };
    assert!(losses("runs/gpt").len() > 40);
    assert_eq!(losses("runs/gpt"), losses("runs/gpt-2"));
}
