//! What a gradient reaches, what it must not reach, and that it is never cut silently.

use tapeflow::commit;

use super::*;

#[test]
fn backward_through_a_released_value_says_so() -> Result<()> {
    let p = Point::new(&[1.0, 2.0]);
    let mut sgd = Sgd::new(&p).learning_rate(0.1);
    let loss = p.loss();
    // Reading alone releases nothing.
    assert_eq!(loss.item::<f64>()?, 5.0);
    assert_eq!(loss.backward()?.get(&p.w).unwrap().to_vec::<f64>()?, [2.0, 4.0]);
    sgd.step(loss.backward()?)?;
    assert_eq!(*loss.backward().unwrap_err().problem(), Problem::Released);
    assert_eq!(*(&loss + p.loss()).backward().unwrap_err().problem(), Problem::Released);
    // `detach` says that it is a number by now.
    assert!((&loss.detach() + p.loss()).backward().is_ok());
    Ok(())
}

#[test]
fn grad_through_a_released_value_is_no_silent_zero() -> Result<()> {
    let p = Point::new(&[1.0, 2.0]);
    let mut sgd = Sgd::new(&p).learning_rate(0.1);
    let x = Tensor::from_vec(vec![3.0f64, 4.0], [2]).with_grad()?;
    let product = &x * &p.w.tensor();
    sgd.step(p.loss().backward()?)?;
    // d/dx (x + x·w) = 1 + w, of which the second part cannot be known any more.
    let error = grad(&(x.sum() + product.sum()), &[&x]).unwrap_err();
    assert_eq!(*error.problem(), Problem::Released);
    Ok(())
}

#[test]
fn nothing_to_differentiate() -> Result<()> {
    let p = Point::new(&[1.0, 2.0]);
    let nothing = |t: &Tensor| assert_eq!(*t.backward().unwrap_err().problem(), Problem::NothingToDifferentiate);
    nothing(&Tensor::scalar(1.0f32).exp());
    nothing(&no_grad(|| p.loss()));
    nothing(&p.loss().detach());
    nothing(&p.w.tensor().argmax(0, false).cast(DType::F64).detach());
    p.freeze("*")?;
    nothing(&p.loss());
    p.unfreeze("w")?;
    assert!(p.loss().backward().is_ok());
    Ok(())
}

/// The integer becomes part of the value, by way of an `if`.
#[kernel]
fn times(i: i32, x: f64) -> f64 {
    x * (if i > 1 { i } else { 1 }) as f64
}

#[kernel]
fn times_through_a_call(i: i32, x: f64) -> f64 {
    times(i + 1, x) + 1.0
}

#[test]
fn a_cotangent_never_stops_silently() {
    let p = Point::new(&[1.0, 2.0]);
    let severed = |t: Tensor| {
        let error = t.backward().unwrap_err();
        assert!(matches!(error.problem(), Problem::Severed { .. }), "{error}");
    };
    severed(p.w.tensor().cast(DType::I64).cast(DType::F64).sum());
    severed(p.w.tensor().gt(&Tensor::scalar(0.5f64)).cast(DType::F64).sum());
    severed(p.loss() + p.w.tensor().argmax(0, false).cast(DType::F64));
    let bits = p.w.tensor().gt(&Tensor::scalar(0.5f64)).logical_not();
    severed(bits.reshape([2, 1]).cast(DType::F64).sum());
    let whole = p.w.tensor().cast(DType::I32);
    severed(times::map(&whole, p.w.tensor()).sum());
    severed(times_through_a_call::map(&whole, p.w.tensor()).sum());
    // What only chooses needs no derivative.
    let chosen = p.w.tensor().gt(&Tensor::scalar(1.5f64)).where_(&p.w.tensor(), &Tensor::scalar(0.0f64));
    assert_eq!(chosen.sum().backward().unwrap().get(&p.w).unwrap().to_vec::<f64>().unwrap(), [0.0, 1.0]);
}

#[test]
fn gradients_of_small_batches_add_up() -> Result<()> {
    let model = mlp(7);
    let (x, y) = batch(1, 8);
    Tensor::realize_all(&[&x, &y])?;
    let of =
        |rows: std::ops::Range<usize>| model.forward(&x.slice(0, rows.clone())).mse_loss(&y.slice(0, rows)).backward();
    let whole = of(0..8)?;
    let parts = (of(0..2)? + of(2..4)? + of(4..6)? + of(6..8)?).scale(0.25);
    assert_eq!(parts.len(), 4);
    for parameter in model.parameters() {
        let (a, b) = (whole.get(&parameter).unwrap().to_vec::<f32>()?, parts.get(&parameter).unwrap().to_vec::<f32>()?);
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-6 + 1e-5 * a.abs()), "{a:?} {b:?}");
    }
    // Those that only one side reached stay as they are.
    let [a, b] = [Point::new(&[1.0]), Point::new(&[2.0])];
    let sum = a.loss().backward()? + (a.loss() + b.loss()).backward()?;
    assert_eq!(sum.get(&a.w).unwrap().item::<f64>()?, 4.0);
    assert_eq!(sum.get(&b.w).unwrap().item::<f64>()?, 4.0);
    Sgd::new(&(a.w.clone(), b.w.clone())).learning_rate(0.25).step(sum)?;
    assert_eq!((a.values(), b.values()), (vec![0.0], vec![1.0]));
    Ok(())
}

#[test]
fn no_grad_and_detach_keep_gradients_out() -> Result<()> {
    let p = Point::new(&[3.0]);
    let w = p.w.tensor();
    let gradient = |t: Tensor| t.backward().map(|g| g.get(&p.w).unwrap().item::<f64>().unwrap());
    assert_eq!(gradient((&w * &w.detach()).sum())?, 3.0);
    let factor = no_grad(|| &w * 2.0);
    assert!(!factor.requires_grad());
    assert_eq!(gradient((&w * &factor).sum())?, 6.0);
    assert_eq!(gradient((&w * &w).sum())?, 6.0);
    // Numbers to whatever is outside, and through `grad` too, read before or not.
    let x = Tensor::scalar(3.0f64);
    let square = no_grad(|| &x * &x);
    assert_eq!(grad(&(&x * &square), &[&x])?[0].item::<f64>()?, 9.0);
    assert!(matches!(grad(&square, &[&x]).unwrap_err().problem(), Problem::Independent { .. }));
    assert_eq!(square.item::<f64>()?, 9.0);
    assert_eq!(grad(&(&x * &square), &[&x])?[0].item::<f64>()?, 9.0);
    // But a derivative by such a value is one.
    let y = no_grad(|| &x * 2.0);
    assert_eq!(grad(&(&y * &y), &[&y])?[0].item::<f64>()?, 12.0);
    // A panic inside must not leave gradients off.
    let panicked = std::panic::catch_unwind(|| no_grad(|| panic!("on purpose")));
    assert!(panicked.is_err());
    assert_eq!(gradient((&w * &w).sum())?, 6.0);
    Ok(())
}

#[test]
fn a_step_of_one_model_leaves_graphs_of_another_to_backward() -> Result<()> {
    // The loop of adversarial training: the generator's graph outlives the discriminator's step.
    let (maker, judge) = (scalar(0.5)?, scalar(0.3)?);
    let fake = maker.tensor() * 2.0;
    let seen = (fake.detach() * judge.tensor()).square().sum().backward()?;
    let new = judge.tensor() - seen.get(&judge).unwrap() * 0.1;
    drop(seen);
    commit(&[(judge.slot(), new)])?;
    let gradients = (&fake * judge.tensor()).sum().backward()?;
    let expected = 2.0 * judge.tensor().item::<f64>()?;
    assert_eq!(gradients.get(&maker).unwrap().item::<f64>()?, expected);
    Ok(())
}

#[test]
fn grad_never_loses_a_path_through_a_value_that_was_read() -> Result<()> {
    let x = Tensor::scalar(2.0f64);
    let squared = x.square();
    squared.item::<f64>()?;
    let lost = grad(&(&squared + &x), &[&x]).unwrap_err();
    assert!(matches!(lost.problem(), Problem::Released), "{lost}");
    // What has nothing to do with the input is no reason to refuse.
    let other = Tensor::scalar(3.0f64).square();
    other.item::<f64>()?;
    assert_eq!(grad(&(&other * &x), &[&x])?[0].item::<f64>()?, 9.0);
    // A leaf that is marked keeps the graph.
    let x = x.with_grad()?;
    let squared = x.square();
    squared.item::<f64>()?;
    assert_eq!(grad(&(&squared + &x), &[&x])?[0].item::<f64>()?, 5.0);
    Ok(())
}

fn scalar(value: f64) -> Result<Parameter> {
    Ok(Parameter::new(Tensor::scalar(value))?)
}

#[test]
fn grad_under_no_grad_is_the_same_number() -> Result<()> {
    let a = Tensor::scalar(3.0f64);
    let x = no_grad(|| &a * 2.0);
    let y = x.square();
    assert_eq!(no_grad(|| grad(&y, &[&x]))?[0].item::<f64>()?, 12.0);
    assert_eq!(grad(&y, &[&x])?[0].item::<f64>()?, 12.0);
    Ok(())
}
