//! Every variant of the tensor engine's `Problem`.

use tapeflow::{Slot, commit, grad_with};

use super::*;

/// Causes an error of the tensor engine.
type Cause = fn() -> Result<(), TensorError>;

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
    let there = variants(include_str!("../../core/src/error.rs"), "Problem");
    assert_eq!(said, there, "every variant needs a case here, and every case a variant");
    let mut other = Vec::new();
    for (name, cause, expected) in cases {
        let error = cause().expect_err(name);
        if variant(error.problem()) != name {
            other.push(format!("{name} was expected: {error}"));
            continue;
        }
        assert!(error.location().file().ends_with("problems.rs"), "{error}");
        expected.assert_eq(&without_column(&message(&error)));
    }
    assert!(other.is_empty(), "{}", other.join("\n"));
}
