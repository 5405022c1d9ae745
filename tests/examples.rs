//! The examples as users start them, but short: exit codes, what they leave, what they say about bad input.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The built example. Cargo builds examples with the tests it runs, but not for a single `--test`; so it is asked for.
fn example(name: &str) -> Command {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        // <target>/<profile>/deps/<test>
        let profile_folder = test.parent().and_then(Path::parent).unwrap();
        let profile = match profile_folder.file_name().and_then(|name| name.to_str()).unwrap() {
            "debug" => "dev",
            other => other,
        };
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args([
            "build",
            "--quiet",
            "--example",
            "xor",
            "--example",
            "gpt",
            "--example",
            "cnn",
            "--profile",
            profile,
            "--target-dir",
        ]);
        cargo.arg(profile_folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(cargo.status().unwrap().success(), "the examples do not build");
        profile_folder.join("examples")
    });
    Command::new(folder.join(name).with_extension(std::env::consts::EXE_EXTENSION))
}

/// An empty folder, which a test works in and which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("tapeflow-examples-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn gpt(&self, words: &[&str]) -> Output {
        example("gpt").args(words).current_dir(&self.0).output().unwrap()
    }

    fn cnn(&self, words: &[&str]) -> Output {
        example("cnn").args(words).current_dir(&self.0).output().unwrap()
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), contents).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn succeeded(output: &Output) -> &str {
    assert!(output.status.success(), "{}: {}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// That it ended with this exit code, and that the line on stderr that says why has these words.
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    // Progress, if there was any, comes before it.
    let line = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("no error in: {said}"));
    for word in words {
        assert!(line.contains(word), "{word} is missing in: {said}");
    }
}

const SHORT: [&str; 6] = ["--config", "tiny", "--steps", "20", "--tokens", "40"];

#[test]
fn xor_is_learned_twice_with_the_same_gradients() {
    let output = example("xor").output().unwrap();
    let said = succeeded(&output);
    assert_eq!(said.matches("at the end").count(), 2);
    assert_eq!(said.matches("1 xor 0 =  1.0").count(), 2, "{said}");
    assert!(said.contains("differ by"), "{said}");

    let drawing = example("xor").arg("--dot").output().unwrap();
    let drawing = succeeded(&drawing);
    assert!(drawing.starts_with("digraph {") && drawing.trim_end().ends_with('}') && drawing.contains("tanh"));

    refused(&example("xor").args(["--steps", "0"]).output().unwrap(), 2, &["--steps"]);
    refused(&example("xor").args(["--steps", "1"]).output().unwrap(), 1, &["the loss ends at", "--steps"]);
}

/// Whether the first Vulkan device can be had; if not, that is said past the test harness, so that it is counted.
fn has_vulkan() -> bool {
    let device = tapeflow::Device::open("vulkan", 0);
    if let Err(why) = &device {
        let _ = writeln!(std::io::stdout().lock(), "skipped: no Vulkan device ({})", why.problem());
    }
    device.is_ok()
}

#[test]
fn xor_is_learned_on_vulkan() {
    if has_vulkan() {
        let said = succeeded(&example("xor").args(["--device", "vulkan"]).output().unwrap()).to_owned();
        assert_eq!(said.matches("1 xor 0 =  1.0").count(), 2, "{said}");
    }
}

#[test]
fn a_run_on_vulkan_ends_where_the_cpu_does() {
    if !has_vulkan() {
        return;
    }
    let folder = Folder::new("vulkan");
    let loss = |device: &str| -> f64 {
        let words = ["--config", "tiny", "--steps", "60", "--tokens", "8", "--device", device, "--out", device];
        succeeded(&folder.gpt(&words));
        let metrics = folder.read(&format!("{device}/metrics.jsonl"));
        let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
        last["val_loss"].as_f64().unwrap()
    };
    let (cpu, vulkan) = (loss("cpu"), loss("vulkan:0"));
    assert!((cpu - vulkan).abs() < 0.02, "{vulkan} on Vulkan, {cpu} on the CPU");
}

#[test]
fn a_device_that_is_not_there_is_one_clear_line() {
    let folder = Folder::new("nowhere");
    refused(&folder.gpt(&["--device", "abacus"]), 2, &["abacus", "known are cpu, reference, best, vulkan, vulkan:1"]);
    // No driver is the same as a manifest that is not there.
    let mut without = example("gpt");
    without.args(["--device", "vulkan"]).current_dir(&folder.0);
    without.env("VK_ICD_FILENAMES", "nowhere.json").env("VK_DRIVER_FILES", "nowhere.json");
    refused(&without.output().unwrap(), 2, &["vulkan"]);
    let mut on_the_cpu = example("gpt");
    on_the_cpu.args(["--device", "best", "--config", "tiny", "--steps", "2", "--tokens", "4"]).current_dir(&folder.0);
    on_the_cpu.env("VK_ICD_FILENAMES", "nowhere.json").env("VK_DRIVER_FILES", "nowhere.json");
    succeeded(&on_the_cpu.output().unwrap());
}

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
fn cnn_learns_drawn_digits_and_leaves_what_it_says() {
    let folder = Folder::new("cnn");
    let output = folder.cnn(&["--drawn", "600", "--epochs", "2"]);
    let said = succeeded(&output).to_owned();
    assert!(said.contains("read as") && said.contains("epoch 1: test accuracy"), "{said}");
    let metrics = folder.read("runs/cnn/metrics.jsonl");
    assert!(accuracy(&metrics) > 0.7, "{said}");
    for picture in ["mistakes.png", "filters.png"] {
        assert!(std::fs::read(folder.0.join("runs/cnn").join(picture)).unwrap().starts_with(b"\x89PNG"));
    }
    assert!(folder.0.join("runs/cnn/checkpoint/model.safetensors").is_file());
    let again = folder.cnn(&["--drawn", "600", "--epochs", "2", "--threads", "1"]);
    succeeded(&again);
    assert_eq!(accuracy(&metrics), accuracy(&folder.read("runs/cnn-2/metrics.jsonl")));
}

/// The last `test_accuracy` of a run.
fn accuracy(metrics: &str) -> f64 {
    let last = metrics.lines().last().unwrap();
    let record: serde_json::Value = serde_json::from_str(last).unwrap();
    record["test_accuracy"].as_f64().unwrap()
}

#[test]
fn cnn_says_what_is_wrong_with_its_data() {
    let folder = Folder::new("cnn-bad");
    refused(&folder.cnn(&["--data", "."]), 1, &["no MNIST", "t10k-images-idx3-ubyte"]);
    folder.write("t10k-images-idx3-ubyte", [0, 0, 8, 3, 0, 0]);
    folder.write("t10k-labels-idx1-ubyte", [0, 0, 8, 1, 0, 0, 0, 0]);
    refused(&folder.cnn(&["--data", "."]), 1, &["t10k-images-idx3-ubyte", "header"]);
    refused(&folder.cnn(&["--drawn", "20", "--batch-size", "30"]), 2, &["--batch-size 30", "20 images"]);
    assert_eq!(folder.names(), ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]);
}

#[test]
fn cnn_reads_mnist_where_it_is() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/mnist");
    if !data.is_dir() {
        let _ = writeln!(std::io::stdout().lock(), "skipped: no MNIST in {}", data.display());
        return;
    }
    let folder = Folder::new("cnn-mnist");
    succeeded(&folder.cnn(&["--data", data.to_str().unwrap(), "--epochs", "1"]));
    assert!(accuracy(&folder.read("runs/cnn/metrics.jsonl")) > 0.94);
}

/// The settings of a short run with everything that a checkpoint must hold: dropout, evaluations between.
const RESUMED: [&str; 14] = [
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
fn checkpoint_files(run: &Path) -> Vec<(String, Vec<u8>)> {
    let newest = tapeflow::checkpoint::Checkpoints::new(run.join("checkpoints"), 1).newest().unwrap().unwrap().1;
    let entries = std::fs::read_dir(newest).unwrap().map(|entry| entry.unwrap());
    let mut files: Vec<_> =
        entries.map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap())).collect();
    files.sort();
    files
}

/// The metrics but for what depends on the clock.
fn records(folder: &Folder, run: &str) -> Vec<serde_json::Value> {
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
        refused(&resume(&[]), 1, &[said]);
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
        assert!(!run.wait().unwrap().success());
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
