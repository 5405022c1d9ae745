//! Profiles of the examples: a table with --profile, and a trace that is there even after Ctrl-C.

use super::*;

#[test]
fn profile_prints_the_kernels_by_module() {
    let folder = Folder::new("profile");
    for (output, module) in [
        (folder.gpt(&[&SHORT[..], &["--profile"]].concat()), "h.0.mlp.c_fc"),
        (folder.cnn(&["--drawn", "60", "--epochs", "1", "--profile"]), "fc1"),
    ] {
        let said = succeeded(&output);
        let (_, table) = said.split_once("\nkernel ").unwrap_or_else(|| panic!("no table in: {said}"));
        let rows: Vec<&str> = table.lines().collect();
        assert!(rows[0].contains("calls") && rows[0].ends_with("module"), "{table}");
        assert!(rows.iter().any(|row| row.starts_with("matmul ") && row.contains(module)), "{table}");
        assert!(table.contains("floor of cpu: ") && table.contains("ms in kernels"), "{table}");
    }
}

#[cfg(unix)]
#[test]
fn a_trace_is_written_after_ctrl_c() {
    let folder = Folder::new("trace");
    for (name, words) in [("gpt", &["--config", "tiny", "--steps", "1000000"][..]), ("cnn", &["--epochs", "10000"])] {
        let mut command = example(name);
        command.args(words).current_dir(&folder.0).env("TAPEFLOW_PROFILE", format!("{name}.json"));
        let mut run = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        let metrics = folder.0.join("runs").join(name).join("metrics.jsonl");
        while !std::fs::metadata(&metrics).is_ok_and(|file| file.len() > 0) {
            assert!(run.try_wait().unwrap().is_none(), "the run ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(Command::new("kill").args(["-INT", &run.id().to_string()]).status().unwrap().success());
        assert_eq!(run.wait().unwrap().code(), Some(0), "{name}");
        let trace: serde_json::Value = serde_json::from_str(&folder.read(&format!("{name}.json"))).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        assert!(events.iter().any(|e| e["cat"] == "step" && e["name"] == "matmul"), "{name}");
    }
    assert_eq!(folder.names(), ["cnn.json", "gpt.json", "runs"]);
}
