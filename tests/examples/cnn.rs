//! The cnn example: drawn digits, MNIST where it is, damaged data.

use std::io::Write;
use std::process::Stdio;

use super::*;

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

#[cfg(unix)]
#[test]
fn cnn_ends_well_when_it_is_interrupted() {
    let folder = Folder::new("cnn-stop");
    let mut command = example("cnn");
    command.args(["--drawn", "400", "--epochs", "10000"]).current_dir(&folder.0);
    let mut run = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let metrics = folder.0.join("runs/cnn/metrics.jsonl");
    while !std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0) {
        assert!(run.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
    let output = run.wait_with_output().unwrap();
    assert!(succeeded(&output).contains("stopped after"), "{output:?}");
    accuracy(&folder.read("runs/cnn/metrics.jsonl"));
    for file in ["mistakes.png", "filters.png", "checkpoint/model.safetensors"] {
        assert!(folder.0.join("runs/cnn").join(file).is_file(), "{file}");
    }
}

#[test]
fn cnn_learns_in_half_precision() {
    for precision in ["bf16", "f16"] {
        let folder = Folder::new(&format!("cnn-{precision}"));
        let output = folder.cnn(&["--drawn", "600", "--epochs", "4", "--precision", precision]);
        assert!(succeeded(&output).contains(precision));
        assert!(accuracy(&folder.read("runs/cnn/metrics.jsonl")) > 0.7);
    }
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
