//! Every variant of the error of layers, data and files.

use tapeflow::Error;
use tapeflow::tokenizer::{CharTokenizer, Tokenizer};

use super::*;

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
              at tests/errors/above.rs"#]]),
        ("UnknownCharacter", || CharTokenizer::from_text("abc\n").encode("ab\nca?").map(drop), expect![[r#"encode: '?' (U+003F) at character 5 (line 2, column 3) is not in the vocabulary, which knows 4 characters: '\n' 'a'–'c'"#]]),
        ("UnknownToken", || CharTokenizer::from_text("abc").decode(&[0, 1, 3]).map(drop), expect!["decode: token 3 at position 2 is beyond the vocabulary of 3 tokens"]),
        ("Tokenizer", || Err(Error::Tokenizer { action: "encode", reason: "no such token".into() }), expect!["encode: no such token"]),
        ("File", || tapeflow::checkpoint::load(&outer(), "/nonexistent/model.safetensors"), expect!["cannot read /nonexistent/model.safetensors: No such file or directory (os error 2)"]),
        ("Malformed", || {
            let path = folder("malformed").join("model.safetensors");
            std::fs::write(&path, b"not a checkpoint").expect("a temporary file");
            outer().load(&path)
        }, expect!["<tmp>/tapeflow-errors-malformed/model.safetensors: not a whole safetensors file: header too large"]),
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
        ("Sample", || {
            let torn = |i: i64, _: &Generator| if i == 5 { Err(Error::Configuration("it is torn".into())) } else { Ok(i) };
            tapeflow::data::DataLoader::new((0..8).collect::<Vec<i64>>(), 4).map(torn).batch(1).map(drop)
        }, expect!["sample 5: it is torn"]),
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
    let there = variants(include_str!("../../nn/src/error.rs"), "Error");
    assert_eq!(said, there, "every variant needs a case here, and every case a variant");
    for (name, cause, expected) in cases {
        let error: Error = cause().expect_err(name);
        let debug = format!("{error:?}");
        assert!(debug.starts_with(name), "{debug}");
        expected.assert_eq(&without_column(&message(&error)));
    }
}
