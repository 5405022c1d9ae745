//! Each rule against a plain loop over f64 written from PyTorch's documentation, and what all optimizers promise.

use tapeflow_core::{DType, Gradients, Parameter, Tensor, no_grad};

use super::{Adam, AdamW, Optimizer, Sgd};
use crate::Linear;
use crate::error::Result;
use crate::module::{Forward, Module, ModuleExt, Visitor};

/// Two parameters under names of their own.
struct Pair {
    a: Parameter,
    b: Parameter,
}

impl Module for Pair {
    fn visit(&self, visitor: &mut dyn Visitor) {
        for (name, parameter) in [("a", &self.a), ("deep.b", &self.b)] {
            visitor.enter(name);
            parameter.visit(visitor);
            visitor.leave();
        }
    }
}

fn pair() -> Pair {
    let parameter = |v: &[f64]| Parameter::new(Tensor::from_vec(v.to_vec(), [v.len()])).unwrap();
    Pair { a: parameter(&[0.5, -1.0, 2.0]), b: parameter(&[1.5]) }
}

/// A loss whose gradient is `c · w³` for each element: it depends on the point, so that mistakes add up.
fn loss(pair: &Pair) -> Tensor {
    let quartic = |p: &Parameter, c: f64| p.tensor().square().square().sum() * (c / 4.0);
    quartic(&pair.a, 1.0) + quartic(&pair.b, 3.0)
}

fn values(pair: &Pair) -> Vec<f64> {
    [&pair.a, &pair.b].iter().flat_map(|p| p.tensor().to_vec::<f64>().unwrap()).collect()
}

fn gradient(w: &[f64]) -> Vec<f64> {
    w.iter().enumerate().map(|(i, w)| if i < 3 { w.powi(3) } else { 3.0 * w.powi(3) }).collect()
}

/// Runs five steps both ways; `rule` maps (element, gradient, its state, step from 1) to the new element.
fn check(mut optimizer: impl Optimizer, rule: impl Fn(usize, f64, f64, &mut [f64; 2], i32) -> f64) {
    let pair = pair_of(&mut optimizer);
    let mut expected = values(&pair);
    let mut state = [[0.0; 2]; 4];
    for step in 1..=5 {
        let g = gradient(&expected);
        for i in 0..4 {
            expected[i] = rule(i, expected[i], g[i], &mut state[i], step);
        }
        optimizer.step(loss(&pair).backward().unwrap()).unwrap();
        for (i, (found, wanted)) in values(&pair).iter().zip(&expected).enumerate() {
            assert!((found - wanted).abs() <= 1e-13 * wanted.abs(), "step {step}, element {i}: {found}, not {wanted}");
        }
    }
    assert_eq!(optimizer.steps(), 5);
}

thread_local! {
    /// The pair the optimizer under test was made for.
    static PAIR: std::cell::RefCell<Option<Pair>> = const { std::cell::RefCell::new(None) };
}

fn pair_of(_: &mut impl Optimizer) -> Pair {
    PAIR.take().unwrap()
}

fn over<O>(make: impl FnOnce(&Pair) -> O) -> O {
    let pair = pair();
    let optimizer = make(&pair);
    PAIR.set(Some(pair));
    optimizer
}

#[test]
fn sgd() {
    let optimizer = over(|p| Sgd::new(p).learning_rate(0.01).weight_decay(0.1));
    check(optimizer, |_, w, g, _, _| w - 0.01 * (g + 0.1 * w));
}

#[test]
fn sgd_with_momentum_and_dampening() {
    let optimizer = over(|p| Sgd::new(p).learning_rate(0.01).momentum(0.9).dampening(0.3).weight_decay(0.1));
    check(optimizer, |_, w, g, state, step| {
        let g = g + 0.1 * w;
        state[0] = if step == 1 { g } else { 0.9 * state[0] + 0.7 * g };
        w - 0.01 * state[0]
    });
}

#[test]
fn sgd_with_nesterov() {
    let optimizer = over(|p| Sgd::new(p).learning_rate(0.01).momentum(0.9).nesterov(true));
    check(optimizer, |_, w, g, state, step| {
        state[0] = if step == 1 { g } else { 0.9 * state[0] + g };
        w - 0.01 * (g + 0.9 * state[0])
    });
}

fn adam(w: f64, g: f64, state: &mut [f64; 2], step: i32, rate: f64) -> f64 {
    let (beta1, beta2, eps) = (0.9, 0.99, 1e-8);
    state[0] = beta1 * state[0] + (1.0 - beta1) * g;
    state[1] = beta2 * state[1] + (1.0 - beta2) * g * g;
    let (m, v) = (state[0] / (1.0 - f64::powi(beta1, step)), state[1] / (1.0 - f64::powi(beta2, step)));
    w - rate * m / (v.sqrt() + eps)
}

#[test]
fn adam_with_l2() {
    let optimizer = over(|p| Adam::new(p).learning_rate(0.02).betas(0.9, 0.99).weight_decay(0.1));
    check(optimizer, |_, w, g, state, step| adam(w, g + 0.1 * w, state, step, 0.02));
}

#[test]
fn adamw_with_groups() {
    let optimizer = over(|p| {
        AdamW::new(p)
            .group("deep.*", |g| g.weight_decay(0.0).learning_rate_scale(0.5))
            .learning_rate(0.02)
            .betas(0.9, 0.99)
            .weight_decay(0.1)
    });
    check(optimizer, |i, w, g, state, step| match i {
        3 => adam(w, g, state, step, 0.01),
        _ => adam(w - 0.02 * 0.1 * w, g, state, step, 0.02),
    });
}

#[test]
fn state_is_named_by_path_and_only_what_was_updated_has_any() {
    let pair = pair();
    let mut optimizer = AdamW::new(&pair);
    assert!(optimizer.state().is_empty());
    optimizer.step(pair.b.tensor().square().sum().backward().unwrap()).unwrap();
    let names: Vec<String> = optimizer.state().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["deep.b.exp_avg", "deep.b.exp_avg_sq"]);
    assert_eq!(pair.a.tensor().to_vec::<f64>().unwrap(), [0.5, -1.0, 2.0]);
    let mut plain = Sgd::new(&pair);
    plain.step(loss(&pair).backward().unwrap()).unwrap();
    assert!(plain.state().is_empty());
}

#[test]
fn a_pattern_that_matches_nothing_is_an_error_of_the_first_step() {
    let pair = pair();
    let mut optimizer = AdamW::new(&pair).group("*.weight", |g| g.weight_decay(0.1));
    let error = optimizer.step(loss(&pair).backward().unwrap()).unwrap_err().to_string();
    assert_eq!(error, "the pattern `*.weight` matches none of the paths: a, deep.b");
    assert_eq!(values(&pair), [0.5, -1.0, 2.0, 1.5]);
}

#[test]
fn two_optimizers_share_one_model() -> Result<()> {
    let layer = Linear::new(3, 2)?;
    let before = no_grad(|| layer.bias.as_ref().map(|b| b.tensor().to_vec::<f32>())).unwrap()?;
    layer.freeze("bias")?;
    let mut first = Sgd::new(&layer).learning_rate(0.1);
    let mut second = AdamW::new(&layer);
    let x = Tensor::ones([4, 3], DType::F32);
    for _ in 0..2 {
        use crate::module::Forward;
        first.step(layer.forward(&x).square().sum().backward()?)?;
        second.step(layer.forward(&x).square().sum().backward()?)?;
    }
    assert_eq!(layer.bias.as_ref().unwrap().tensor().to_vec::<f32>()?, before);
    assert_eq!((first.steps(), second.steps()), (2, 2));
    Ok(())
}

#[test]
fn a_state_dict_goes_on_bit_for_bit() -> Result<()> {
    type Make = fn(&Pair) -> Box<dyn Optimizer>;
    let makes: [Make; 3] = [
        |pair| Box::new(AdamW::new(pair).learning_rate(0.02)),
        |pair| Box::new(Sgd::new(pair).learning_rate(0.01).momentum(0.9)),
        |pair| Box::new(Sgd::new(pair).learning_rate(0.01)),
    ];
    for make in makes {
        let (whole, first, second) = (pair(), pair(), pair());
        let mut optimizer = make(&whole);
        // `b` is updated from the third step on only: it has steps of its own.
        let step = |optimizer: &mut dyn Optimizer, pair: &Pair, index: usize| -> Result<()> {
            let loss = if index < 2 { pair.a.tensor().square().sum() } else { loss(pair) };
            optimizer.step(loss.backward()?)
        };
        (0..6).try_for_each(|index| step(&mut *optimizer, &whole, index))?;
        for stop in 0..6 {
            let mut before = make(&first);
            first.load_state(pair().state())?;
            (0..stop).try_for_each(|index| step(&mut *before, &first, index))?;
            second.load_state(first.state())?;
            let mut after = make(&second);
            after.load_state_dict(before.state_dict(), "the state")?;
            (stop..6).try_for_each(|index| step(&mut *after, &second, index))?;
            assert_eq!(values(&second), values(&whole), "stopped after {stop}");
            assert_eq!(after.steps(), 6);
        }
        let mut state = optimizer.state_dict();
        let count = state.len();
        state.push(("deep.c.step".into(), Tensor::scalar(1i64)));
        state.retain(|(name, _)| name != "deep.b.step");
        if let Some((_, tensor)) = state.iter_mut().find(|(name, _)| name.starts_with("a.") && name != "a.step") {
            *tensor = Tensor::zeros([4], DType::F64);
        }
        let before = values(&whole);
        let error = optimizer.load_state_dict(state, "the state").unwrap_err().to_string();
        // Without any state it is only a parameter that was not updated yet.
        assert_eq!(error.contains("missing (1): deep.b.step"), count > 3, "{error}");
        assert!(error.contains("unexpected (1): deep.c.step"), "{error}");
        assert_eq!(error.contains("(4,) and should be f64 (3,)"), count > 3, "{error}");
        assert_eq!((values(&whole), optimizer.steps()), (before, 6));
    }
    Ok(())
}

#[test]
fn gradients_of_parts_add_up_to_those_of_the_whole() -> Result<()> {
    let model = Linear::new(3, 2)?;
    model.stamp_paths();
    let x = Tensor::from_vec((0..24).map(|i| (i as f32 * 0.7).sin()).collect(), [8, 3]);
    let loss = |x: &Tensor| model.forward(x).square().mean();
    let whole = loss(&x).backward()?;
    let parts = (0..4).map(|i| Ok(loss(&x.slice(0, 2 * i..2 * i + 2)).backward()?.scale(0.25)));
    let sum = parts.collect::<Result<Vec<_>>>()?.into_iter().fold(Gradients::default(), |sum, part| sum + part);
    assert_eq!(sum.len(), 2);
    for (path, expected) in whole.iter() {
        let found = sum.by_path(&path).unwrap().to_vec::<f32>()?;
        for (f, e) in found.iter().zip(expected.to_vec::<f32>()?) {
            assert!((f - e).abs() < 1e-6, "{path}: {f} and not {e}");
        }
    }
    // The sum is one step, in one program, however many parts there are.
    let mut optimizer = AdamW::new(&model);
    optimizer.step(sum)?;
    assert_eq!(optimizer.steps(), 1);
    Ok(())
}
