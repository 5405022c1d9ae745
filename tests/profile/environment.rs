//! `TAPEFLOW_PROFILE`: each case in a process of its own, however that ends.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use super::*;

/// Not a test of its own: started by the tests below in an environment of their choice.
#[test]
#[ignore = "started by the tests of this file"]
fn child() {
    let computed = (0..40).try_for_each(|i| {
        let y = (Tensor::arange(4 + i, DType::F32) + 1.0).exp();
        y.realize()
    });
    eprintln!("outcome: {computed:?}");
    match std::env::var("END").as_deref() {
        Ok("exit") => std::process::exit(3),
        Ok("panic") => panic!("asked for"),
        _ => {}
    }
}

fn run_child(path: &str, end: &str, events: &str) -> Output {
    let program = std::env::current_exe().expect("the test's own path");
    let arguments = ["--exact", "environment::child", "--ignored", "--nocapture", "--test-threads=1"];
    let mut command = Command::new(program);
    command.args(arguments).env("TAPEFLOW_PROFILE", path).env("END", end).env("TAPEFLOW_PROFILE_EVENTS", events);
    command.output().expect("a child process")
}

fn trace(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tapeflow-profile-{name}-{}.json", std::process::id()))
}

#[test]
fn the_trace_is_written_however_the_process_ends() {
    for (end, code) in [("return", 0), ("exit", 3), ("panic", 101)] {
        let path = trace(end);
        let output = run_child(path.to_str().unwrap(), end, "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(&format!("events written to {}", path.display())), "{said}");
        let json: Value = serde_json::from_slice(&std::fs::read(&path).expect("a trace")).expect("valid JSON");
        trace::check_nesting(&json);
        let events = json["traceEvents"].as_array().unwrap();
        let is_one = |e: &&Value| e["cat"] == "step" && e["name"].as_str().is_some_and(|n| n.starts_with("exp∘add"));
        let kernels = events.iter().filter(is_one).count();
        assert_eq!(kernels, 40);
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_path_that_cannot_be_written_is_said_at_the_start() {
    let output = run_child("/no/such/folder/trace.json", "return", "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("outcome: Err"), "{said}");
    assert!(said.contains("TAPEFLOW_PROFILE=/no/such/folder/trace.json: a trace cannot be written there"), "{said}");
    let output = run_child(std::env::temp_dir().to_str().unwrap(), "return", "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("it is a folder"));
}

#[test]
fn events_that_do_not_fit_are_counted() {
    let path = trace("few");
    let output = run_child(path.to_str().unwrap(), "return", "1024");
    let said = String::from_utf8_lossy(&output.stderr);
    let json: Value = serde_json::from_slice(&std::fs::read(&path).expect("a trace")).expect("valid JSON");
    assert_eq!(json["otherData"]["dropped_events"], 0, "{said}");
    let output = run_child(path.to_str().unwrap(), "return", "0");
    let said = String::from_utf8_lossy(&output.stderr);
    let json: Value = serde_json::from_slice(&std::fs::read(&path).expect("a trace")).expect("valid JSON");
    assert!(json["otherData"]["dropped_events"].as_u64().unwrap() > 100, "{said}");
    assert!(said.contains("0 events written") && said.contains("did not fit"), "{said}");
    std::fs::remove_file(path).unwrap();
}
