//! Old versions stay what they were: readers, views, handles, gradients, and values that are one value.

use tapeflow::{Slot, commit, program_cache};

use super::*;

#[test]
fn a_reader_recorded_before_a_step_sees_the_old_values() -> Result<()> {
    let p = Point::new(&[1.0, -2.0, 3.0]);
    let mut sgd = Sgd::new(&p).learning_rate(0.1);
    let mut readers = Vec::new();
    for _ in 0..4 {
        let before = Tensor::from_vec(p.values(), [3]).square().sum().item::<f64>()?;
        let n = p.w.tensor().square().sum();
        readers.push((p.w.tensor().square().sum(), before));
        sgd.step(p.loss().backward()?)?;
        assert_eq!(n.item::<f64>()?, before);
    }
    for (reader, before) in readers {
        assert_eq!(reader.item::<f64>()?, before);
    }
    Ok(())
}

#[test]
fn a_reader_of_a_reader_sees_the_old_values_even_if_the_first_was_read() -> Result<()> {
    let p = Point::new(&[1.0, -2.0, 3.0]);
    let mut sgd = Sgd::new(&p).learning_rate(0.1);
    let first = p.w.tensor() * 2.0;
    assert_eq!(first.to_vec::<f64>()?, [2.0, -4.0, 6.0]);
    let second = &first + &p.w.tensor();
    sgd.step(p.loss().backward()?)?;
    assert_eq!(second.to_vec::<f64>()?, [3.0, -6.0, 9.0]);
    assert_eq!((first + 1.0).to_vec::<f64>()?, [3.0, -3.0, 7.0]);
    Ok(())
}

#[test]
fn live_views_and_handles_of_old_versions_stay_valid() -> Result<()> {
    let p = Point::new(&[1.0, 2.0, 3.0, 4.0]);
    let mut adam = Adam::new(&p).learning_rate(0.1);
    let mut kept = Vec::new();
    for _ in 0..5 {
        let now = p.values();
        let handle = p.w.tensor();
        let (view, of_temporary) = (handle.slice(0, 1..3), p.w.tensor().reshape([2, 2]).t());
        let read = p.w.tensor().slice(0, ..2);
        assert_eq!(read.to_vec::<f64>()?, now[..2]);
        kept.push((now, handle, view, of_temporary, read));
        adam.step(p.loss().backward()?)?;
        // Once without a live handle of the version, so that its memory may be taken over under the views.
        let (now, view) = (p.values(), p.w.tensor().slice(0, 1..3));
        adam.step(p.loss().backward()?)?;
        assert_eq!(view.to_vec::<f64>()?, now[1..3]);
    }
    for (now, handle, view, of_temporary, read) in kept {
        assert_eq!(handle.to_vec::<f64>()?, now);
        assert_eq!(view.to_vec::<f64>()?, now[1..3]);
        assert_eq!(of_temporary.to_vec::<f64>()?, [now[0], now[2], now[1], now[3]]);
        assert_eq!(read.to_vec::<f64>()?, now[..2]);
    }
    Ok(())
}

#[test]
fn a_gradient_that_is_another_parameters_value_keeps_it() -> Result<()> {
    let pair = (
        Parameter::new(Tensor::from_vec(vec![1.0f64, 2.0], [2]))?,
        Parameter::new(Tensor::from_vec(vec![3.0, 4.0], [2]))?,
    );
    let mut sgd = Sgd::new(&pair).learning_rate(0.5);
    let gradients = (pair.0.tensor() * pair.1.tensor()).sum().backward()?;
    let (kept, detached) = (gradients.clone(), pair.0.tensor().detach());
    sgd.step(gradients)?;
    assert_eq!(kept.get(&pair.0).unwrap().to_vec::<f64>()?, [3.0, 4.0]);
    assert_eq!(kept.get(&pair.1).unwrap().to_vec::<f64>()?, [1.0, 2.0]);
    assert_eq!(detached.to_vec::<f64>()?, [1.0, 2.0]);
    assert_eq!(pair.0.tensor().to_vec::<f64>()?, [-0.5, 0.0]);
    assert_eq!(pair.1.tensor().to_vec::<f64>()?, [2.5, 3.0]);
    Ok(())
}

#[test]
fn what_is_recorded_twice_is_right_twice() -> Result<()> {
    let x = Tensor::from_vec(vec![1.0f64, 2.0], [2]);
    let [a, b] = [0, 1].map(|_| x.square().sum());
    Tensor::realize_all(&[&a, &b])?;
    assert_eq!((a.item::<f64>()?, b.item::<f64>()?), (5.0, 5.0));
    let [s, t] = [0, 1].map(|_| Slot::new(Tensor::zeros([2], DType::F64) + 1.0).unwrap());
    commit(&[(&s, x.exp()), (&t, x.exp())])?;
    commit(&[(&s, s.tensor() * 0.0), (&t, t.tensor() * 1.0)])?;
    assert_eq!((s.tensor().to_vec::<f64>()?, t.tensor().to_vec::<f64>()?), (vec![0.0; 2], x.exp().to_vec()?));
    Ok(())
}

#[test]
fn the_same_tensor_bound_twice() -> Result<()> {
    let x = Tensor::from_vec(vec![1.0f64, 2.0, 3.0, 4.0], [2, 2]);
    assert_eq!((&x + &x).to_vec::<f64>()?, [2.0, 4.0, 6.0, 8.0]);
    assert_eq!(x.matmul(&x).to_vec::<f64>()?, [7.0, 10.0, 15.0, 22.0]);
    assert_eq!(x.matmul(&x.t()).to_vec::<f64>()?, [5.0, 11.0, 11.0, 25.0]);
    // The same program must not serve one tensor twice and two tensors: they are two keys.
    let y = Tensor::from_vec(vec![0.0f64; 4], [2, 2]);
    assert_eq!((&x + &y).to_vec::<f64>()?, [1.0, 2.0, 3.0, 4.0]);

    // Two parameters that start as one tensor: a step must not write the memory they share.
    let [a, b] = [Parameter::new(x.clone())?, Parameter::new(x.clone())?];
    let both = (a.clone(), b.clone());
    let mut sgd = Sgd::new(&both).learning_rate(0.25);
    for _ in 0..2 {
        sgd.step((a.tensor().square().sum() - b.tensor().square().sum()).backward()?)?;
    }
    assert_eq!(a.tensor().to_vec::<f64>()?, [0.25, 0.5, 0.75, 1.0]);
    assert_eq!(b.tensor().to_vec::<f64>()?, [2.25, 4.5, 6.75, 9.0]);
    assert_eq!(x.to_vec::<f64>()?, [1.0, 2.0, 3.0, 4.0]);

    // One parameter read at two places, and one new value for two slots.
    let w = Parameter::new(x.clone())?;
    let gradients = (w.tensor().sum() + (w.tensor() * 3.0).sum()).backward()?;
    assert_eq!(gradients.get(&w).unwrap().to_vec::<f64>()?, [4.0; 4]);
    let [s, t] = [Slot::new(Tensor::zeros([2], DType::F64) + 1.0)?, Slot::new(Tensor::zeros([2], DType::F64) + 2.0)?];
    let sum = s.tensor() + t.tensor();
    commit(&[(&s, sum.clone()), (&t, sum)])?;
    commit(&[(&s, s.tensor() * 10.0), (&t, t.tensor() + 1.0)])?;
    assert_eq!((s.tensor().to_vec::<f64>()?, t.tensor().to_vec::<f64>()?), (vec![30.0; 2], vec![4.0; 2]));
    Ok(())
}

#[test]
fn slots_can_exchange_their_values() -> Result<()> {
    let [a, b] = [1.0f64, 2.0].map(|v| Slot::new(Tensor::from_vec(vec![v; 3], [3])).unwrap());
    for _ in 0..3 {
        commit(&[(&a, b.tensor() * 1.0), (&b, a.tensor() * 1.0)])?;
    }
    assert_eq!((a.tensor().to_vec::<f64>()?, b.tensor().to_vec::<f64>()?), (vec![2.0; 3], vec![1.0; 3]));
    let (x, y) = (a.tensor(), b.tensor());
    commit(&[(&a, y), (&b, x)])?;
    assert_eq!((a.tensor().to_vec::<f64>()?, b.tensor().to_vec::<f64>()?), (vec![1.0; 3], vec![2.0; 3]));
    // A value that needs its neighbours must not be written over what it still reads.
    let line = Slot::new(Tensor::from_vec((0..5000).map(f64::from).collect(), [5000]))?;
    for _ in 0..2 {
        let x = line.tensor();
        commit(&[(&line, Tensor::cat(&[x.slice(0, 1..), x.slice(0, ..1)], 0))])?;
    }
    assert_eq!(line.tensor().slice(0, 4996..).to_vec::<f64>()?, [4998.0, 4999.0, 0.0, 1.0]);
    let turned = Slot::new(Tensor::from_vec((0..10_000).map(f64::from).collect(), [100, 100]))?;
    commit(&[(&turned, turned.tensor().t() + 0.0)])?;
    assert_eq!(turned.tensor().slice(0, 1..2).slice(1, ..3).to_vec::<f64>()?, [1.0, 101.0, 201.0]);
    Ok(())
}

#[test]
fn a_thousand_losses_read_at_the_end_without_steps_between() -> Result<()> {
    let w = Parameter::new(Tensor::scalar(3.0f64))?;
    let kept: Vec<Tensor> = (0..1000).map(|i| w.tensor() * f64::from(i)).collect();
    w.set(&Tensor::scalar(5.0f64))?;
    for (i, loss) in kept.iter().enumerate() {
        assert_eq!(loss.item::<f64>()?, 3.0 * i as f64);
    }
    Ok(())
}

#[test]
fn forced_hash_collisions_change_nothing() -> Result<()> {
    let train = || {
        let model = mlp(9);
        let mut optimizer = AdamW::new(&model);
        for step in 0..5 {
            let (x, y) = batch(step, 3 + step as usize % 3);
            optimizer.step(model.forward(&x).mse_loss(&y).backward()?)?;
        }
        Ok::<_, Error>(bits(model.state()))
    };
    let apart = train()?;
    // From here on every program of this process lies in one bucket, and only the full comparison tells them apart.
    tapeflow::__test::collide_program_hashes();
    let (compiled, _) = program_cache();
    assert_eq!(train()?, apart);
    let x = Tensor::from_vec(vec![1.0f32, 2.0], [2]);
    assert_eq!((&x + 1.0).to_vec::<f32>()?, [2.0, 3.0]);
    assert_eq!((&x * 3.0).to_vec::<f32>()?, [3.0, 6.0]);
    assert_eq!((&x + 1.0).to_vec::<f32>()?, [2.0, 3.0]);
    assert!(program_cache().0 >= compiled);
    Ok(())
}
