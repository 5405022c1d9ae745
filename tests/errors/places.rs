//! Where a mistake is said to be, which one comes out first, and what follows from it.

use tapeflow::check_nan;

use super::*;

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

#[test]
fn the_first_nan_of_a_step_is_named_and_the_step_is_not_taken() -> Result<()> {
    let model = outer();
    let weight = |layer: usize, value: &[f32]| model.h[layer].fc.weight.set(&Tensor::from_slice(value, [3, 3]));
    weight(0, &[3e38; 9])?;
    weight(1, &[1.0, -1.0, 1.0, 0.5, 0.5, 0.5, 1.0, 1.0, -1.0])?;
    let mut optimizer = AdamW::new(&model);
    let state = |optimizer: &AdamW| -> Result<Vec<Vec<f32>>> {
        let all = model.state().into_iter().chain(optimizer.state());
        all.map(|(_, tensor)| Ok(tensor.to_vec::<f32>()?)).collect()
    };
    let before = state(&optimizer)?;
    let mut step = || -> Result<()> {
        let loss = model.forward(&f32s(&[2, 3])).square().mean();
        optimizer.step(loss.backward()?)
    };
    let error = check_nan(&mut step).unwrap_err();
    expect![[r#"
        matmul: the result holds NaN in 4 of 6 elements, first at [0, 0]: an operand holds ∞
          at tests/errors/places.rs in h.1.fc"#]]
    .assert_eq(&without_column(&error.to_string()));
    assert_eq!((state(&optimizer)?, optimizer.steps()), (before, 0));
    Ok(())
}

#[test]
fn looking_for_nan_changes_no_bit_and_leaves_infinities_alone() -> Result<()> {
    let train = || -> Result<Vec<Vec<f32>>> {
        let config = GptConfig { block_size: 8, ..GptConfig::preset("tiny", 11).unwrap() };
        let model = Gpt::new(&config, &Generator::new(1))?;
        let mut optimizer = AdamW::new(&model);
        let tokens = Tensor::from_vec((0..18i64).map(|i| i * i % 11).collect::<Vec<_>>(), [2, 9]);
        for _ in 0..3 {
            // Attention masks with -∞.
            let loss = model.loss(&tokens.slice(1, ..8), &tokens.slice(1, 1..));
            optimizer.step(loss.backward()?.clip_norm(1.0).0)?;
        }
        model.state().into_iter().map(|(_, tensor)| Ok(tensor.to_vec::<f32>()?)).collect()
    };
    assert_eq!(check_nan(train)?, train()?);
    Ok(())
}
