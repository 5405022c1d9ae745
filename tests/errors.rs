//! Every message that a user can meet, produced by a call that causes it: what was wrong, what would be right, where.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::process::Command;

use expect_test::{Expect, expect};
use tapeflow::prelude::*;
use tapeflow::tokenizer::{CharTokenizer, Tokenizer};
use tapeflow::{Error, Problem, Result, Slot, TensorError, commit, grad_with};

/// The variants of an enum, read from its source: an enum that is `non_exhaustive` cannot be matched exhaustively here.
fn variants<'s>(source: &'s str, name: &str) -> BTreeSet<&'s str> {
    let begin = source.find(&format!("pub enum {name} {{\n")).expect("the enum is in the file");
    let body = &source[begin..begin + source[begin..].find("\n}").expect("the enum ends")];
    let variant = |line: &'s str| {
        let rest = line.strip_prefix("    ")?;
        let end = rest.find(|c: char| !c.is_alphanumeric())?;
        (rest.starts_with(char::is_uppercase) && rest[end..].starts_with([',', ' ', '('])).then_some(&rest[..end])
    };
    body.lines().skip(1).filter_map(variant).collect()
}

/// The name of the variant a value is.
fn variant(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    text[..text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len())].to_owned()
}

/// The message with what differs from run to run cut out: columns, temporary folders.
fn message(error: &impl Display) -> String {
    let text = error.to_string();
    let folder = std::env::temp_dir().display().to_string();
    text.replace(&folder, "<tmp>").replace(&format!("-{}", std::process::id()), "")
}

#[derive(Module)]
#[module(forward = |x| fc(x))]
struct Inner {
    fc: Linear,
}

#[derive(Module)]
#[module(forward = |x| h(x))]
struct Outer {
    h: Vec<Inner>,
}

fn outer() -> Outer {
    let inner = || Inner { fc: Linear::new(3, 3).unwrap() };
    Outer { h: vec![inner(), inner()] }
}

#[track_caller]
fn f32s(shape: &[usize]) -> Tensor {
    Tensor::from_vec(vec![0.5f32; shape.iter().product()], shape)
}

/// Causes an error of the tensor engine.
type Cause = fn() -> Result<(), TensorError>;

fn read(t: Tensor) -> Result<(), TensorError> {
    t.realize()
}

#[rustfmt::skip]
fn problems() -> Vec<(&'static str, Cause, Expect)> {
    vec![
        ("Broadcast", || read(f32s(&[2, 3]) + f32s(&[4])), expect![[r#"
            add: the shapes (2, 3) and (4,) do not broadcast: aligned at the last axis, extents must be equal or 1
              at tests/errors.rs"#]]),
        ("Shapes", || read(f32s(&[2, 3]).matmul(&f32s(&[4, 5]))), expect![[r#"
            matmul: the shapes (2, 3) and (4, 5) do not fit: the last axis of the first, 3, must equal the last but one of the second, 4
              at tests/errors.rs"#]]),
        ("Shapes", || read(outer().forward(&f32s(&[2, 4]))), expect![]),
        ("Shapes", || read(f32s(&[2, 3]).cross_entropy(&Tensor::zeros([3], DType::I64))), expect![]),
        ("Shapes", || read(f32s(&[2, 3]).mse_loss(&f32s(&[3, 2]))), expect![]),
        ("Shapes", || read(Tensor::cat(&[f32s(&[2, 3]), f32s(&[2, 4])], 0)), expect![]),
        ("Shapes", || read(f32s(&[2, 3]).expand([2, 4])), expect![]),
        ("Shapes", || read(f32s(&[2, 3]).permute([0, 0])), expect![]),
        ("Shapes", || read(causal_attention(f32s(&[2, 3, 4]), f32s(&[2, 3, 5]), f32s(&[2, 3, 4]))), expect![]),
        ("Shapes", || f32s(&[2]).with_grad()?.backward_with(&f32s(&[3])).map(drop), expect![]),
        ("Reshape", || read(f32s(&[2, 3]).reshape([4, -1])), expect![]),
        ("Axis", || read(f32s(&[2, 3]).softmax(2)), expect![]),
        ("Axis", || read(f32s(&[2, 3]).sum_dim([-3], false)), expect![]),
        ("Range", || read(f32s(&[2, 3]).slice(1, 2..5)), expect![]),
        ("Rank", || { let [_, _, _] = f32s(&[2, 3]).dims(); read(f32s(&[1])) }, expect![]),
        ("Rank", || read(f32s(&[2]).embedding(&Tensor::zeros([1], DType::I64))), expect![]),
        ("DType", || read(Tensor::zeros([2], DType::I64).exp()), expect![]),
        ("DType", || read(f32s(&[2, 2]).index_select(0, &f32s(&[1]))), expect![]),
        ("DType", || f32s(&[2]).to_vec::<f64>().map(drop), expect![]),
        ("DType", || Parameter::new(Tensor::zeros([2], DType::I64)).map(drop), expect![]),
        ("DTypes", || read(f32s(&[2]) + Tensor::zeros([2], DType::F64)), expect![]),
        ("Length", || read(Tensor::from_vec(vec![1, 2, 3], [2, 2])), expect![]),
        ("Argument", || read(f32s(&[2]).dropout(1.0, &Generator::new(0))), expect![]),
        ("Argument", || read(Tensor::zeros([2], DType::I64) * 0.5), expect![]),
        ("Argument", || read(Tensor::cat::<Tensor>(&[], 0)), expect![]),
        ("Argument", || read(Tensor::zeros([0], DType::F32).max()), expect![]),
        ("Argument", || { let s = Slot::new(f32s(&[1]))?; commit(&[(&s, f32s(&[1])), (&s, f32s(&[1]))]) }, expect![]),
        ("Devices", || read(f32s(&[2]) + Device::reference().scope(|| f32s(&[2]))), expect![]),
        ("NotAScalar", || f32s(&[2]).item::<f32>().map(drop), expect![]),
        ("NotAScalar", || f32s(&[2]).with_grad()?.exp().backward().map(drop), expect![]),
        ("NothingToDifferentiate", || f32s(&[]).exp().backward().map(drop), expect![]),
        ("Severed", || f32s(&[2]).with_grad()?.cast(DType::I64).cast(DType::F32).sum().backward().map(drop), expect![]),
        ("Released", || {
            let w = Slot::new(f32s(&[2]))?;
            let x = f32s(&[2]).with_grad()?;
            let loss = (&x * &w.tensor()).sum();
            commit(&[(&w, w.tensor() * 2.0)])?;
            loss.backward().map(drop)
        }, expect![]),
        ("Independent", || grad(&f32s(&[2]).sum(), &[&f32s(&[3])]).map(drop), expect![]),
        ("Shapes", || grad_with(&f32s(&[2]), Some(&f32s(&[4])), &[]).map(drop), expect![]),
        ("Replace", || Parameter::new(f32s(&[2]))?.set(&f32s(&[3])), expect![]),
        ("Run", || read(f32s(&[4, 3]).embedding(&Tensor::from_vec(vec![1i64, 7], [2]))), expect![]),
        ("Run", || read(f32s(&[1, 3]).cross_entropy(&Tensor::from_vec(vec![-4i64], [1]))), expect![]),
        ("Memory", || read(Tensor::ones([1 << 60], DType::F32)), expect![]),
    ]
}

/// Cannot be caused here: it needs another environment; `a_setting_that_makes_no_sense` does it.
const ELSEWHERE: &str = "Setting";

#[test]
fn every_problem_of_the_tensor_engine_is_said() {
    let cases = problems();
    let mut said: BTreeSet<&str> = cases.iter().map(|(name, ..)| *name).collect();
    said.insert(ELSEWHERE);
    let there = variants(include_str!("../core/src/error.rs"), "Problem");
    assert_eq!(said, there, "every variant needs a case here, and every case a variant");
    for (name, cause, expected) in cases {
        let error = cause().expect_err(name);
        assert_eq!(variant(error.problem()), name, "{error}");
        assert!(error.location().file().ends_with("errors.rs"), "{error}");
        expected.assert_eq(&without_column(&message(&error)));
    }
}

/// Lines say enough, and columns move with formatting.
fn without_column(text: &str) -> String {
    let line = |l: &str| match l.strip_prefix("  at ") {
        Some(place) => {
            let (file, rest) = place.split_once(':').expect("a place has a line");
            let module = rest.split_once(" in ").map_or(String::new(), |(_, path)| format!(" in {path}"));
            format!("  at {file}{module}")
        }
        None => l.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_error_names_the_line_of_the_call_and_the_path_of_the_module() {
    let line = line!() + 1;
    let error = (f32s(&[2, 3]) + f32s(&[4])).realize().unwrap_err();
    assert_eq!((error.location().file(), error.location().line()), (file!(), line));
    assert_eq!(error.module_path(), "");

    let model = outer();
    model.h[1].fc.weight.slot().replace(&f32s(&[3, 9])).unwrap();
    let error = model.forward(&f32s(&[2, 3])).realize().unwrap_err();
    assert_eq!(error.module_path(), "h.1.fc");
    assert_eq!(error.op(), "matmul");

    // A failure of the run names the operation that failed, in the module it was recorded in.
    let embedding = tapeflow::Embedding::new(3, 2).unwrap();
    let index = Tensor::from_vec(vec![5i64], [1]);
    let line = line!() + 1;
    let looked_up = embedding.forward(&index) * 2.0;
    let error = looked_up.sum().backward().and_then(|g| g.get(&embedding.weight).unwrap().realize()).unwrap_err();
    assert_eq!((error.op(), error.location().line()), ("index_select", line), "{error}");
}

#[test]
fn the_first_mistake_in_the_order_of_recording_comes_out() {
    let a = f32s(&[2]).reshape([3]);
    let b = f32s(&[2, 3]) + f32s(&[4]);
    // However they are combined, and through whatever follows.
    for t in [&b + &a, (&a + &b).exp().sum(), Tensor::cat(&[&b, &a], 0)] {
        assert!(matches!(t.realize().unwrap_err().problem(), Problem::Reshape { .. }));
    }
    // Looking at it does not use it up.
    assert!(matches!(a.realize().unwrap_err().problem(), Problem::Reshape { .. }));
    assert!(format!("{a}").contains("reshape"));
}

#[test]
fn a_mistake_never_makes_what_follows_panic() {
    let wrong = f32s(&[2, 3]).matmul(&f32s(&[2, 3]));
    // The rank of what is wrong anyway is no second mistake; a wrong rank of what is right comes out at the next read.
    let [n] = wrong.dims();
    assert_eq!(n, 1);
    f32s(&[1]).realize().unwrap();
    let [_] = f32s(&[1, 1]).dims();
    assert!(matches!(f32s(&[1]).realize().unwrap_err().problem(), Problem::Rank { .. }));
    f32s(&[1]).realize().unwrap();
    let follow = wrong.softmax(-1).sum_dim([5], false).t().reshape([7, 7]).slice(0, 3..).causal_like();
    assert!(follow.realize().is_err());
    assert!(wrong.backward().is_err() && grad(&wrong, &[&wrong]).is_err());
    assert!(Parameter::new(wrong).is_err());
}

trait CausalLike {
    fn causal_like(&self) -> Tensor;
}

impl CausalLike for Tensor {
    fn causal_like(&self) -> Tensor {
        causal_attention(self, self, self)
    }
}

fn folder(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("tapeflow-errors-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a temporary folder");
    path
}

type NnCause = fn() -> Result<()>;

#[rustfmt::skip]
fn nn_errors() -> Vec<(&'static str, NnCause, Expect)> {
    vec![
        ("Tensor", || Ok(read(f32s(&[2]) + f32s(&[3]))?), expect![[r#"
            add: the shapes (2,) and (3,) do not broadcast: aligned at the last axis, extents must be equal or 1
              at tests/errors.rs"#]]),
        ("UnknownCharacter", || CharTokenizer::from_text("abc\n").encode("ab\nca?").map(drop), expect![[r#"encode: '?' (U+003F) at character 5 (line 2, column 3) is not in the vocabulary, which knows 4 characters: '\n' 'a'–'c'"#]]),
        ("UnknownToken", || CharTokenizer::from_text("abc").decode(&[0, 1, 3]).map(drop), expect!["decode: token 3 at position 2 is beyond the vocabulary of 3 tokens"]),
        ("File", || tapeflow::checkpoint::load(&outer(), "/nonexistent/model.safetensors"), expect!["cannot read /nonexistent/model.safetensors: No such file or directory (os error 2)"]),
        ("Malformed", || {
            let path = folder("malformed").join("model.safetensors");
            std::fs::write(&path, b"not a checkpoint").expect("a temporary file");
            outer().load(&path)
        }, expect!["<tmp>/tapeflow-errors-malformed/model.safetensors: HeaderTooLarge"]),
        ("CheckpointMismatch", || {
            let mut state = outer().state();
            state[0].1 = f32s(&[3, 4]);
            state[1].0 = "h.0.fc.bais".into();
            outer().load_state(state)
        }, expect![[r#"
            the state does not fit the module
              missing (1): h.0.fc.bias
              unexpected (1): h.0.fc.bais
              of another shape or dtype (1): `h.0.fc.weight` is f32 (3, 4) and should be f32 (3, 3)"#]]),
        ("SamePath", || {
            let tensors = [("w".to_owned(), f32s(&[1])), ("w".to_owned(), f32s(&[2]))];
            tapeflow::checkpoint::save_tensors(&tensors, folder("same").join("w.safetensors"))
        }, expect!["two different tensors of the module are both named `w`"]),
        ("Configuration", || {
            let mut config = GptConfig::preset("tiny", 10).expect("a preset");
            config.n_head = 5;
            config.check()
        }, expect!["n_embd 32 is no multiple of n_head 5: heads share it evenly"]),
        ("NoMatch", || outer().freeze("*.wieght").map(drop), expect!["the pattern `*.wieght` matches none of the paths: h.0.fc.weight, h.0.fc.bias, h.1.fc.weight, h.1.fc.bias"]),
        ("Loader", || {
            let mut loader = tapeflow::data::Loader::new(0..3, |step| if step == 1 { panic!("no more text") } else { Ok(step) });
            loader.find_map(Result::err).map_or(Ok(()), Err)
        }, expect!["the loader's thread ended: step 1: no more text"]),
    ]
}

#[test]
fn every_error_above_the_tensor_engine_is_said() {
    let cases = nn_errors();
    let said: BTreeSet<&str> = cases.iter().map(|(name, ..)| *name).collect();
    let there = variants(include_str!("../nn/src/error.rs"), "Error");
    assert_eq!(said, there, "every variant needs a case here, and every case a variant");
    for (name, cause, expected) in cases {
        let error: Error = cause().expect_err(name);
        let debug = format!("{error:?}");
        assert!(debug.starts_with(name), "{debug}");
        expected.assert_eq(&without_column(&message(&error)));
    }
}

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
    let arguments = ["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"];
    let output = Command::new(program).args(arguments).env(variable, value).output().expect("a child process");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_setting_that_makes_no_sense_is_said() {
    let text = run_child("TAPEFLOW_ISA", "mmx");
    expect![[r#"
        Err(leaf: TAPEFLOW_ISA="mmx" is not an instruction set (avx512, avx2, neon, baseline)
          at tests/errors.rs"#]].assert_eq(&without_column(text.split_once("outcome: ").map_or(&text, |(_, outcome)| outcome)));
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
          at tests/errors.rs
        after the lookup
        outcome: Err(index_select: index 5 is out of range for an axis of 2
          at tests/errors.rs"#]].assert_eq(&without_column(&eager[begin..]));
}
