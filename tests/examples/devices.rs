//! The examples on every device there is, in short form, and what they say of one that is not there.

use std::io::Write;

use super::resume::{RESUMED, checkpoint_files, records};
use super::*;

/// The names of the devices that examples run on besides the CPU: all that Vulkan has.
pub fn others() -> Vec<String> {
    let found = tapeflow::Device::list().into_iter().filter_map(|(family, found)| Some((family, found.ok()?)));
    let named = found.flat_map(|(family, infos)| infos.into_iter().map(move |info| format!("{family}:{}", info.index)));
    named.collect()
}

/// The same; where there are none, that is said past the test harness, so that it is counted.
fn others_or_skip() -> Vec<String> {
    let others = others();
    if others.is_empty() {
        let why = tapeflow::Device::list().into_iter().find_map(|(_, found)| found.err());
        let why = why.map_or("none is there".to_owned(), |why| why.to_string());
        let _ = writeln!(std::io::stdout().lock(), "skipped: no Vulkan device ({why})");
    }
    others
}

/// The values of a name in a run's metrics.
fn column(folder: &Folder, run: &str, name: &str) -> Vec<f64> {
    records(folder, run).iter().filter_map(|record| record[name].as_f64()).collect()
}

#[test]
fn xor_is_learned_on_every_device() {
    for device in others_or_skip() {
        let said = succeeded(&example("xor").args(["--device", &device]).output().unwrap()).to_owned();
        assert_eq!(said.matches("1 xor 0 =  1.0").count(), 2, "{device}: {said}");
    }
}

#[test]
fn digits_are_read_on_every_device_as_on_the_cpu() {
    let folder = Folder::new("devices-cnn");
    let run = |device: &str| {
        let words = ["--drawn", "60", "--epochs", "1", "--batch-size", "20", "--device", device, "--out", device];
        succeeded(&folder.cnn(&words));
        let files = ["mistakes.png", "filters.png", "checkpoint/model.safetensors"];
        assert!(files.iter().all(|file| folder.0.join(device).join(file).is_file()), "{device}");
        (column(&folder, device, "train_loss"), column(&folder, device, "test_accuracy"))
    };
    let others = others_or_skip();
    if others.is_empty() {
        return;
    }
    let cpu = run("cpu");
    assert_eq!((cpu.0.len(), cpu.1.len()), (3, 1));
    for device in others {
        let (losses, accuracies) = run(&device);
        assert_eq!(losses.len(), 3);
        // Of a dozen images one may fall to the other side.
        assert!((accuracies[0] - cpu.1[0]).abs() < 0.1, "{device}: {accuracies:?}, {:?} on the CPU", cpu.1);
        for (ours, cpu) in losses.iter().zip(&cpu.0) {
            assert!((ours - cpu).abs() < 1e-3 * cpu, "{device}: a loss of {ours}, {cpu} on the CPU");
        }
    }
}

#[test]
fn a_gpt_is_trained_continued_and_sampled_on_every_device() {
    let others = others_or_skip();
    if others.is_empty() {
        return;
    }
    let folder = Folder::new("devices-gpt");
    let train = |device: &str, out: &str, more: &[&str]| {
        succeeded(&folder.gpt(&[&["--device", device, "--out", out], more].concat()));
    };
    let short = [&RESUMED[..], &["--steps", "5", "--save-every", "1", "--keep", "9"]].concat();
    train("cpu", "cpu", &short);
    for device in others {
        train(&device, &device, &short);
        for (ours, cpu) in column(&folder, &device, "train_loss").iter().zip(column(&folder, "cpu", "train_loss")) {
            assert!((ours - cpu).abs() < 1e-3 * cpu, "{device}: a loss of {ours}, {cpu} on the CPU");
        }
        // Continued on the same device, it ends bit for bit as if it had not stopped.
        let expected = checkpoint_files(&folder.0.join(&device));
        let (from, to) = (format!("{device}/checkpoints/step-00000002"), format!("{device}-from-2"));
        train(&device, &to, &["--resume", &from]);
        assert!(checkpoint_files(&folder.0.join(&to)) == expected, "{device}");
        assert_eq!(records(&folder, &to), records(&folder, &device)[2..], "{device}");
        // One run's model says the same on all, for several prompts, and beyond its context of 16.
        let sample = |device: &str| {
            let words =
                ["--load", "cpu", "--tokens", "24", "--temperature", "0", "--generate", "The mill", "--generate"];
            succeeded(&folder.gpt(&[&words[..], &["a", "--device", device]].concat())).to_owned()
        };
        assert_eq!(sample(&device), sample("cpu"), "{device}");
    }
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
