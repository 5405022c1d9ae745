//! What the process's environment changes: each case in a process of its own.

use std::process::Command;

use super::*;

/// Not a test of its own: started by the tests below in an environment of their choice.
#[test]
#[ignore = "started by the tests of this file"]
fn child() {
    let computed = f32s(&[1]).exp().realize();
    let outcome = computed.and_then(|()| f32s(&[2, 3]).with_grad()).and_then(|w| {
        eprintln!("before the lookup");
        let wrong = w.embedding(&Tensor::from_vec(vec![5i64], [1]));
        eprintln!("after the lookup");
        let loss = (wrong * 3.0).sum();
        loss.backward().map(drop)
    });
    eprintln!("outcome: {outcome:?}");
}

fn run_child(variable: &str, value: &str) -> String {
    let program = std::env::current_exe().expect("the test's own path");
    let arguments = ["--exact", "environment::child", "--ignored", "--nocapture", "--test-threads=1"];
    let output = Command::new(program).args(arguments).env(variable, value).output().expect("a child process");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_setting_that_makes_no_sense_is_said() {
    let text = run_child("TAPEFLOW_ISA", "mmx");
    expect![[r#"
        Err(exp: TAPEFLOW_ISA="mmx" is not an instruction set (avx512bf16, avx512, avx2, neon, baseline)
          at tests/errors/environment.rs"#]]
    .assert_eq(&without_column(text.split_once("outcome: ").map_or(&text, |(_, outcome)| outcome)));
}

#[test]
fn machine_code_is_made_or_not() {
    let text = run_child("TAPEFLOW_JIT", "yes");
    assert!(text.contains("TAPEFLOW_JIT=\"yes\" is neither 0 (no machine code) nor 1"), "{text}");
    let text = run_child("TAPEFLOW_JIT", "0");
    assert!(text.contains("outcome: Ok(())"), "{text}");
}

#[test]
fn a_check_for_nan_names_what_made_the_first() {
    let text = run_child("TAPEFLOW_CHECK", "nan");
    // Nothing is wrong with what the child computes up to the lookup's index.
    assert!(text.contains("outcome: Ok(())"), "{text}");
    let text = run_child("TAPEFLOW_CHECK", "inf");
    assert!(text.contains("TAPEFLOW_CHECK=\"inf\" is not a check (nan)"), "{text}");
}

#[test]
fn eager_runs_and_checks_each_operation_where_it_is_called() {
    // Without it the mistake comes out when something is computed; `backward` alone computes nothing.
    let lazy = run_child("TAPEFLOW_EAGER", "0");
    assert!(lazy.contains("outcome: Ok(())") && !lazy.contains("out of range"), "{lazy}");
    let eager = run_child("TAPEFLOW_EAGER", "1");
    let begin = eager.find("before the lookup").expect("the child began");
    expect![[r#"
        before the lookup
        index_select: index 5 is out of range for an axis of 2
          at tests/errors/environment.rs
        after the lookup
        outcome: Err(index_select: index 5 is out of range for an axis of 2
          at tests/errors/environment.rs"#]]
    .assert_eq(&without_column(&eager[begin..]));
}
