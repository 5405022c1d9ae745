//! The examples as users start them, but short: exit codes, what they leave, what they say about bad input.

mod cnn;
mod devices;
mod gpt;
#[cfg(feature = "tokenizers")]
mod pretrained;
mod profile;
mod resume;

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
        // With the whole workspace's features, as the checks build it: nothing is compiled a second time there.
        cargo.args(["build", "--quiet", "--workspace", "--profile", profile]);
        cargo.args(["xor", "gpt", "cnn"].iter().flat_map(|name| ["--example", *name]));
        cargo.arg("--target-dir").arg(profile_folder.parent().unwrap()).current_dir(env!("CARGO_MANIFEST_DIR"));
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
