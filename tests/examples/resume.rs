//! The gpt example goes on where it stopped: at any step, after an interruption, after it was killed.

use super::*;

/// The settings of a short run with everything that a checkpoint must hold: dropout, evaluations between.
pub const RESUMED: [&str; 14] = [
    "--config",
    "tiny",
    "--tokens",
    "4",
    "--dropout",
    "0.1",
    "--n-layer",
    "1",
    "--block-size",
    "16",
    "--eval",
    "2",
    "--eval-interval",
    "3",
];

/// The files of the newest checkpoint of a run.
pub fn checkpoint_files(run: &Path) -> Vec<(String, Vec<u8>)> {
    let newest = tapeflow::checkpoint::Checkpoints::new(run.join("checkpoints"), 1).newest().unwrap().unwrap().1;
    let entries = std::fs::read_dir(newest).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> =
        entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect();
    files.sort();
    files
}

/// The metrics but for what depends on the clock.
pub fn records(folder: &Folder, run: &str) -> Vec<serde_json::Value> {
    let metrics = folder.read(&format!("{run}/metrics.jsonl"));
    let without_clock = |line: &str| {
        let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
        record.as_object_mut().unwrap().remove("tokens_per_second");
        record
    };
    metrics.lines().map(without_clock).collect()
}

#[test]
fn a_run_that_stopped_at_any_step_ends_as_if_it_had_not() {
    let folder = Folder::new("stop");
    succeeded(&folder.gpt(&[&RESUMED[..], &["--steps", "7", "--save-every", "1", "--keep", "99"]].concat()));
    let expected = checkpoint_files(&folder.0.join("runs/gpt"));
    assert_eq!(expected.len(), 6, "{:?}", expected.iter().map(|f| &f.0).collect::<Vec<_>>());
    for step in 1..=7 {
        let (from, out) = (format!("runs/gpt/checkpoints/step-{step:08}"), format!("from-{step}"));
        let output = folder.gpt(&["--resume", &from, "--out", &out, "--threads", "2"]);
        assert!(succeeded(&output).contains(&format!("continues after {step} of 7 steps")));
        assert!(checkpoint_files(&folder.0.join(&out)) == expected, "stopped after {step}");
        assert_eq!(records(&folder, &out), records(&folder, "runs/gpt")[step..], "stopped after {step}");
    }
    resuming_is_refused(&folder);
}

/// In half precision, the scale of the loss goes with the run; and a model that was trained so generates held in half
/// precision too.
#[test]
fn a_run_in_half_precision_goes_on_in_it() {
    let folder = Folder::new("half");
    for precision in ["bf16", "f16"] {
        let more = ["--steps", "4", "--save-every", "2", "--keep", "9", "--precision", precision, "--out", precision];
        let said = folder.gpt(&[&RESUMED[..], &more].concat());
        assert!(succeeded(&said).contains(precision));
        let (from, out) = (format!("{precision}/checkpoints/step-00000002"), format!("{precision}-from-2"));
        succeeded(&folder.gpt(&["--resume", &from, "--out", &out]));
        let expected = checkpoint_files(&folder.0.join(precision));
        assert!(checkpoint_files(&folder.0.join(&out)) == expected, "{precision}");
        let load = ["--load", precision, "--generate", "The", "--tokens", "5", "--precision", precision];
        assert!(succeeded(&folder.gpt(&load)).starts_with("The"));
    }
    refused(&folder.gpt(&["--precision", "f8"]), 2, &["`f8` is no precision: f32, bf16 or f16"]);
}

/// What `--resume` says of folders that hold no run, flags that would change it, and files that are damaged.
fn resuming_is_refused(folder: &Folder) {
    let resume = |more: &[&str]| folder.gpt(&[&["--resume", "runs/gpt"], more].concat());
    refused(&folder.gpt(&["--resume", "none"]), 1, &["nothing to continue in none"]);
    refused(&resume(&["--steps", "9"]), 2, &["--steps has no meaning with --resume"]);
    folder.write("other.txt", "Another text. ".repeat(100));
    refused(&resume(&["--data", "other.txt"]), 1, &["other.txt is not the text", "runs/gpt"]);
    let newest = "runs/gpt/checkpoints/step-00000007";
    for (file, said) in [
        ("model.safetensors", "tensor `wte.weight` is damaged"),
        ("optimizer.safetensors", "tensor `"),
        ("training.json", "training.json"),
        ("run.json", "run.json: it is damaged"),
        ("config.json", "config.json: it is damaged"),
    ] {
        let path = folder.0.join(newest).join(file);
        let bytes = std::fs::read(&path).unwrap();
        let mut damaged = bytes.clone();
        // The last tensor by offset is the one of the largest name.
        let at =
            if file.ends_with("json") { bytes.iter().position(u8::is_ascii_digit).unwrap() } else { bytes.len() - 2 };
        damaged[at] ^= 1;
        std::fs::write(&path, damaged).unwrap();
        let older = "--resume runs/gpt/checkpoints/step-00000006 continues from it";
        refused(&resume(&[]), 1, &[said, older]);
        if file == "run.json" {
            succeeded(&folder.gpt(&["--resume", "runs/gpt/checkpoints/step-00000006", "--out", "from-older"]));
            // One that is damaged too is passed over.
            let before = folder.0.join("runs/gpt/checkpoints/step-00000006").join(file);
            let whole = std::fs::read(&before).unwrap();
            std::fs::write(&before, b"{}").unwrap();
            refused(
                &resume(&[]),
                1,
                &[said, "an older checkpoint is whole: --resume runs/gpt/checkpoints/step-00000005"],
            );
            std::fs::write(&before, whole).unwrap();
        }
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        refused(&resume(&[]), 1, &[file]);
        std::fs::remove_file(&path).unwrap();
        refused(&resume(&[]), 1, &[file]);
        std::fs::write(&path, bytes).unwrap();
    }
    succeeded(&resume(&[]));
}

#[cfg(unix)]
#[test]
fn runs_that_are_interrupted_or_killed_go_on_to_the_same_end() {
    use std::process::{Child, Stdio};
    use std::time::Duration;

    let folder = Folder::new("kill");
    let steps = ["--steps", "60", "--save-every", "1"];
    succeeded(&folder.gpt(&[&RESUMED[..], &steps, &["--out", "whole"]].concat()));
    let expected = checkpoint_files(&folder.0.join("whole"));
    let begin = |words: &[&str]| -> Child {
        let mut command = example("gpt");
        command.args(words).current_dir(&folder.0).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let signal = |run: &Child, name: &str| {
        assert!(Command::new("kill").args([name, &run.id().to_string()]).status().unwrap().success());
    };
    let listed =
        |run: &str| tapeflow::checkpoint::Checkpoints::new(folder.0.join(run).join("checkpoints"), 1).list().unwrap();
    // Only of a run that has ended: one that goes on removes old ones meanwhile.
    let verified = |run: &str| -> Vec<u64> {
        listed(run).iter().map(|(_, path)| tapeflow::checkpoint::verify(path).unwrap()).collect()
    };
    let saved = |run: &str, step: u64| listed(run).last().is_some_and(|&(s, _)| s >= step);

    let mut run = begin(&[&RESUMED[..], &steps, &["--out", "interrupted"]].concat());
    while !saved("interrupted", 5) {
        assert!(run.try_wait().unwrap().is_none(), "the run ended by itself");
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(&run, "-INT");
    assert!(run.wait().unwrap().success());
    succeeded(&folder.gpt(&["--resume", "interrupted"]));
    assert!(checkpoint_files(&folder.0.join("interrupted")) == expected, "interrupted");
    assert_eq!(records(&folder, "interrupted"), records(&folder, "whole"));

    let mut run = begin(&[&RESUMED[..], &steps, &["--out", "killed"]].concat());
    let (mut kills, mut pause) = (0, 7);
    loop {
        // Some moment after the first checkpoint, another one each time.
        while !saved("killed", 1) && run.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        pause = pause * 37 % 101;
        std::thread::sleep(Duration::from_millis(pause));
        if let Some(status) = run.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        signal(&run, "-KILL");
        if run.wait().unwrap().success() {
            // It ended just before.
            break;
        }
        kills += 1;
        let steps = verified("killed");
        assert!(!steps.is_empty() && steps.len() <= 3, "{steps:?}");
        run = begin(&["--resume", "killed", "--save-every", "1"]);
        if kills == 25 {
            assert!(run.wait().unwrap().success());
            break;
        }
    }
    assert!(kills > 3, "{kills} kills");
    assert!(checkpoint_files(&folder.0.join("killed")) == expected, "after {kills} kills");
    assert_eq!(records(&folder, "killed"), records(&folder, "whole"));
    assert!(verified("killed").len() == 2);
    let words = ["--load", "killed", "--generate", "The", "--tokens", "5"];
    assert!(succeeded(&folder.gpt(&words)).starts_with("The"));
}
