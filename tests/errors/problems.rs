//! Every variant of the tensor engine's `Problem`.

use tapeflow::{Slot, cached_attention, check_nan, commit, grad_with};

use super::*;

/// Causes an error of the tensor engine.
type Cause = fn() -> Result<(), TensorError>;

#[rustfmt::skip]
fn problems() -> Vec<(&'static str, Cause, Expect)> {
    vec![
        ("Broadcast", || read(f32s(&[2, 3]) + f32s(&[4])), expect![[r#"
            add: the shapes (2, 3) and (4,) do not broadcast: aligned at the last axis, extents must be equal or 1
              at tests/errors/problems.rs"#]]),
        ("Shapes", || read(f32s(&[2, 3]).matmul(&f32s(&[4, 5]))), expect![[r#"
            matmul: the shapes (2, 3) and (4, 5) do not fit: the last axis of the first, 3, must equal the last but one of the second, 4
              at tests/errors/problems.rs"#]]),
        ("Shapes", || read(outer().forward(&f32s(&[2, 4]))), expect![[r#"
            matmul: the shapes (2, 4) and (3, 3) do not fit: the last axis of the first, 4, must equal the last but one of the second, 3
              at tests/errors/problems.rs in h.0.fc"#]]),
        ("Shapes", || read(f32s(&[2, 3]).cross_entropy(&Tensor::zeros([3], DType::I64))), expect![[r#"
            cross_entropy: the shapes (2, 3) and (3,) do not fit: the targets must have the logits' shape without its last axis, the classes
              at tests/errors/problems.rs"#]]),
        ("Shapes", || read(f32s(&[2, 3]).mse_loss(&f32s(&[3, 2]))), expect![[r#"
            mse_loss: the shapes (2, 3) and (3, 2) do not fit: prediction and target must have one shape
              at tests/errors/problems.rs"#]]),
        ("Shapes", || read(Tensor::cat(&[f32s(&[2, 3]), f32s(&[2, 4])], 0)), expect![[r#"
            cat: the shapes (2, 3) and (2, 4) do not fit: all extents but that of axis 0 must agree
              at tests/errors/problems.rs"#]]),
        ("Shapes", || read(f32s(&[2, 3]).expand([2, 4])), expect![[r#"
            expand: the shapes (2, 3) and (2, 4) do not fit: the first must broadcast to the second
              at tests/errors/problems.rs"#]]),
        ("Shapes", || read(f32s(&[2, 3]).permute([0, 0])), expect![[r#"
            permute: the shapes (2, 3) do not fit: each of the 2 axes must be named once, not [0, 0]
              at tests/errors/problems.rs"#]]),
        ("Shapes", || read(causal_attention(f32s(&[2, 3, 4]), f32s(&[2, 3, 5]), f32s(&[2, 3, 4]))), expect![[r#"
            causal_attention: the shapes (2, 3, 4), (2, 3, 5) and (2, 3, 4) do not fit: queries (…, T, D), keys (…, S, D) and values (…, S, E) with T at most S are needed
              at tests/errors/problems.rs"#]]),
        ("Shapes", || read(f32s(&[2, 3]).slice_assign(0, 1, &f32s(&[2, 3]))), expect![[r#"
            slice_assign: the shapes (2, 3) and (2, 3) do not fit: the second must fit into the first from [1, 0] on, one start per axis
              at tests/errors/problems.rs"#]]),
        ("Shapes", || read(f32s(&[2, 3]).slice_assign(1, 0, &f32s(&[1, 3]))), expect![[r#"
            slice_assign: the shapes (2, 3) and (1, 3) do not fit: all extents but that of axis 1 must agree
              at tests/errors/problems.rs"#]]),
        ("Shapes", || read(f32s(&[2, 3]).slice_assign_at(&[0], &f32s(&[1, 3]))), expect![[r#"
            slice_assign_at: the shapes (2, 3) and (1, 3) do not fit: the second must fit into the first from [0] on, one start per axis
              at tests/errors/problems.rs"#]]),
        ("Shapes", || read(f32s(&[2, 3]).slice_assign_rows(1, &[0], &f32s(&[2, 1]))), expect![[r#"
            slice_assign_rows: the shapes (2, 3) and (2, 1) do not fit: along an axis after the first, all other extents must agree, and each row needs a start: axis 1 and 1 starts were given
              at tests/errors/problems.rs"#]]),
        ("DTypes", || read(f32s(&[2]).slice_assign(0, 0, &Tensor::zeros([1], DType::I64))), expect![[r#"
            slice_assign: operands of dtype f32 and i64 do not mix: `cast` one of them
              at tests/errors/problems.rs"#]]),
        ("Shapes", || read(cached_attention(f32s(&[1, 3, 4]), f32s(&[1, 5, 4]), f32s(&[1, 5, 4]), f32s(&[2]))), expect![[r#"
            cached_attention: the shapes (1, 3, 4), (1, 5, 4), (1, 5, 4) and (2,) do not fit: queries (B, …, T, D), keys (B, …, S, D), values (B, …, S, E) and places (B,) are needed
              at tests/errors/problems.rs"#]]),
        ("Shapes", || f32s(&[2]).with_grad()?.backward_with(&f32s(&[3])).map(drop), expect![[r#"
            backward: the shapes (2,) and (3,) do not fit: a cotangent has the shape and the dtype of its primal
              at tests/errors/problems.rs"#]]),
        ("Reshape", || read(f32s(&[2, 3]).reshape([4, -1])), expect![[r#"
            reshape: (2, 3) has 6 elements and cannot become [4, -1]
              at tests/errors/problems.rs"#]]),
        ("Axis", || read(f32s(&[2, 3]).softmax(2)), expect![[r#"
            softmax: axis 2 is out of range for the shape (2, 3), which has 2 axes
              at tests/errors/problems.rs"#]]),
        ("Axis", || read(f32s(&[2, 3]).sum_dim([-3], false)), expect![[r#"
            sum: axis -3 is out of range for the shape (2, 3), which has 2 axes
              at tests/errors/problems.rs"#]]),
        ("Range", || read(f32s(&[2, 3]).slice(1, 2..5)), expect![[r#"
            slice: the range 2..5 does not lie in axis 1 of (2, 3), which has 3 elements
              at tests/errors/problems.rs"#]]),
        ("Rank", || { let [_, _, _] = f32s(&[2, 3]).dims(); read(f32s(&[1])) }, expect![[r#"
            dims: the shape (2, 3) has 2 axes, not 3
              at tests/errors/problems.rs"#]]),
        ("Rank", || read(f32s(&[2]).embedding(&Tensor::zeros([1], DType::I64))), expect![[r#"
            embedding: the shape (2,) has 1 axes, not 2
              at tests/errors/problems.rs"#]]),
        ("Argument", || read(Tensor::zeros([2], DType::I64).exp()), expect![[r#"
            exp: kernel `exp` for i64, row 1: `exp` is not defined for i64
              at tests/errors/problems.rs"#]]),
        ("DType", || read(f32s(&[2, 2]).index_select(0, &f32s(&[1]))), expect![[r#"
            index_select: f32 is not supported: it takes i32, u32 or i64 as index; `cast` converts
              at tests/errors/problems.rs"#]]),
        ("DType", || f32s(&[2]).to_vec::<f64>().map(drop), expect![[r#"
            to_vec: f32 is not supported: it takes f64 to be read as that; `cast` converts
              at tests/errors/problems.rs"#]]),
        ("DType", || Parameter::new(Tensor::zeros([2], DType::I64)).map(drop), expect![[r#"
            parameter: i64 is not supported: it takes f32 or f64 for a parameter; `cast` converts
              at tests/errors/problems.rs"#]]),
        ("DTypes", || read(f32s(&[2]) + Tensor::zeros([2], DType::F64)), expect![[r#"
            add: operands of dtype f32 and f64 do not mix: `cast` one of them
              at tests/errors/problems.rs"#]]),
        ("Length", || read(Tensor::from_vec(vec![1, 2, 3], [2, 2])), expect![[r#"
            from_vec: 3 elements were given for the shape (2, 2), which has 4
              at tests/errors/problems.rs"#]]),
        ("Argument", || read(f32s(&[2]).dropout(1.0, &Generator::new(0))), expect![[r#"
            dropout: the probability 1 must be at least 0 and below 1
              at tests/errors/problems.rs"#]]),
        ("Argument", || read(Tensor::zeros([2], DType::I64) * 0.5), expect![[r#"
            host number: 0.5 is no value of i64; `cast` the tensor
              at tests/errors/problems.rs"#]]),
        ("Argument", || read(Tensor::cat::<Tensor>(&[], 0)), expect![[r#"
            cat: no tensors to join
              at tests/errors/problems.rs"#]]),
        ("Argument", || read(Tensor::zeros([0], DType::F32).max()), expect![[r#"
            max: the shape (0,) has no elements to choose from
              at tests/errors/problems.rs"#]]),
        ("Argument", || { let s = Slot::new(f32s(&[1]))?; commit(&[(&s, f32s(&[1])), (&s, f32s(&[1]))]) }, expect![[r#"
            commit: a slot is named twice in one step
              at tests/errors/problems.rs"#]]),
        ("Devices", || read(f32s(&[2]) + Device::reference().scope(|| f32s(&[2]))), expect![[r#"
            add: operands are on the devices cpu and reference: move one of them with `to`
              at tests/errors/problems.rs"#]]),
        ("Device", || Device::open("abacus", 0).map(drop), expect![[r#"
            open: abacus:0: this program has no driver for abacus
              at tests/errors/problems.rs"#]]),
        ("NotAScalar", || f32s(&[2]).item::<f32>().map(drop), expect![[r#"
            item: the shape is (2,), and a single element is needed; `to_vec` reads them all
              at tests/errors/problems.rs"#]]),
        ("NotAScalar", || f32s(&[2]).with_grad()?.exp().backward().map(drop), expect![[r#"
            backward: the shape is (2,), and a single element is needed; reduce it (`mean`, `sum`), or give a cotangent
              at tests/errors/problems.rs"#]]),
        ("NothingToDifferentiate", || f32s(&[]).exp().backward().map(drop), expect![[r#"
            backward: no parameter is reached: nothing this depends on has requires_grad (recorded under no_grad, detached, or frozen?)
              at tests/errors/problems.rs"#]]),
        ("Severed", || f32s(&[2]).with_grad()?.cast(DType::I64).cast(DType::F32).sum().backward().map(drop), expect![[r#"
            cast: i64 carries no cotangent, so the gradient would be cut here; `detach` the operand to say so
              at tests/errors/problems.rs"#]]),
        ("Released", || {
            let w = Slot::new(f32s(&[2]))?;
            let x = f32s(&[2]).with_grad()?;
            let loss = (&x * &w.tensor()).sum();
            commit(&[(&w, w.tensor() * 2.0)])?;
            loss.backward().map(drop)
        }, expect![[r#"
            backward: the graph of this value was released when it was realised by a step: record it again, or take the gradient before
              at tests/errors/problems.rs"#]]),
        ("Independent", || grad(&f32s(&[2]).sum(), &[&f32s(&[3])]).map(drop), expect![[r#"
            grad: the result does not depend on input 0 of `grad`, of shape (3,)
              at tests/errors/problems.rs"#]]),
        ("Shapes", || grad_with(&f32s(&[2]), Some(&f32s(&[4])), &[]).map(drop), expect![[r#"
            backward: the shapes (2,) and (4,) do not fit: a cotangent has the shape and the dtype of its primal
              at tests/errors/problems.rs"#]]),
        ("Replace", || Parameter::new(f32s(&[2]))?.set(&f32s(&[3])), expect![[r#"
            set: a value of f32 (3,) cannot replace one of f32 (2,)
              at tests/errors/problems.rs"#]]),
        ("Run", || read(f32s(&[4, 3]).embedding(&Tensor::from_vec(vec![1i64, 7], [2]))), expect![[r#"
            index_select: index 7 is out of range for an axis of 4
              at tests/errors/problems.rs"#]]),
        ("Run", || read(f32s(&[1, 3]).cross_entropy(&Tensor::from_vec(vec![-4i64], [1]))), expect![[r#"
            check index < 3: index -4 is out of range for an axis of 3
              at tests/errors/problems.rs"#]]),
        ("NotANumber", || check_nan(|| read(f32s(&[2, 3]).log().log().exp())), expect![[r#"
            log: the result holds NaN in 6 of 6 elements, first at [0, 0]
              at tests/errors/problems.rs"#]]),
        ("NotANumber", || check_nan(|| read(outer().forward(&(f32s(&[2, 3]) / 0.0 * 0.0)))), expect![[r#"
            mul: the result holds NaN in 6 of 6 elements, first at [0, 0]: an operand holds ∞
              at tests/errors/problems.rs"#]]),
        ("NotANumber", || check_nan(|| read(outer().forward(&f32s(&[3]).detach()) * Tensor::scalar(f32::NAN))), expect![[r#"
            leaf: the value it was given holds NaN in 1 of 1 elements, first at []
              at tests/errors/problems.rs"#]]),
        ("NotANumber", || check_nan(|| {
            let x = Tensor::zeros([2], DType::F32).with_grad()?;
            read(grad(&x.sqrt().square().sum(), &[&x])?.remove(0))
        }), expect![[r#"
            sqrt: its derivative holds NaN in 2 of 2 elements, first at [0]
              at tests/errors/problems.rs"#]]),
        ("Memory", || read(Tensor::ones([1 << 60], DType::F32)), expect![[r#"
            constant 1: 4611686018427387904 bytes are needed for a result: the system has no more memory
              at tests/errors/problems.rs"#]]),
    ]
}

/// Cannot be caused here: one needs another environment (`a_setting_that_makes_no_sense` does it), one another device
/// (the walk of the registry on Vulkan lists them).
const ELSEWHERE: [&str; 2] = ["Setting", "Unsupported"];

#[test]
fn every_problem_of_the_tensor_engine_is_said() {
    let cases = problems();
    let mut said: BTreeSet<&str> = cases.iter().map(|(name, ..)| *name).collect();
    said.extend(ELSEWHERE);
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
