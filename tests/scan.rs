//! Scans: the same values and gradients as the steps written out, recorded in the time of one.

use tapeflow::__test::dumped;
use tapeflow::prelude::*;
use tapeflow::{Result, grad_with, planned_bytes, recompute, scan, tape_nodes};

/// `h ← tanh(x w + h u)`, giving `h · h`.
fn cell(h: &Tensor, x: &Tensor, w: &Tensor, u: &Tensor) -> (Tensor, Tensor) {
    let h = (x.matmul(w) + h.matmul(u)).tanh();
    (h.clone(), h.square())
}

fn scanned(h: &Tensor, x: &Tensor, w: &Tensor, u: &Tensor) -> (Tensor, Tensor) {
    let (mut last, mut all) = scan(&[h], &[x], |carry, x| {
        let (h, y) = cell(&carry[0], &x[0], w, u);
        (vec![h], vec![y])
    });
    (last.remove(0), all.remove(0))
}

fn unrolled(h: &Tensor, x: &Tensor, w: &Tensor, u: &Tensor) -> (Tensor, Tensor) {
    let (mut h, mut all) = (h.clone(), Vec::new());
    for t in 0..x.shape()[0] {
        let (next, y) = cell(&h, &x.narrow(0, t, 1).squeeze(0), w, u);
        h = next;
        all.push(y);
    }
    (h, Tensor::stack(&all, 0))
}

type Net = fn(&Tensor, &Tensor, &Tensor, &Tensor) -> (Tensor, Tensor);

fn operands(steps: usize, dtype: DType) -> [Tensor; 4] {
    let generator = Generator::new(11);
    [vec![2, 3], vec![steps, 2, 4], vec![4, 3], vec![3, 3]].map(|shape| (generator.randn(shape) * 0.5).cast(dtype))
}

fn bits(t: &Tensor) -> Vec<u64> {
    t.to_vec::<f64>().unwrap().iter().map(|v| v.to_bits()).collect()
}

/// Values, gradients, and gradients of gradients.
fn everything(net: Net, steps: usize) -> Result<Vec<Vec<u64>>> {
    let [h, x, w, u] = operands(steps, DType::F64);
    let (last, all) = net(&h, &x, &w, &u);
    let loss = last.sum() + all.square().sum();
    let wrt = [&h, &x, &w, &u];
    let first = grad(&loss, &wrt)?;
    let norm = first.iter().map(|g| g.square().sum()).reduce(|a, b| a + b).unwrap();
    let second = grad(&norm, &wrt)?;
    Ok([last, all, loss].iter().chain(&first).chain(&second).map(bits).collect())
}

#[test]
fn a_scan_is_its_steps_written_out() -> Result<()> {
    for steps in [1, 2, 7] {
        let expected = everything(unrolled, steps)?;
        assert_eq!(everything(scanned, steps)?, expected, "{steps} steps");
        assert_eq!(tapeflow::without_fusion(|| everything(scanned, steps))?, expected);
    }
    Device::reference().scope(|| {
        assert_eq!(everything(scanned, 3)?, everything(unrolled, 3)?);
        Ok(())
    })
}

#[test]
fn recording_does_not_depend_on_the_length_and_nothing_is_compiled_twice() -> Result<()> {
    let nodes = |steps| {
        let [h, x, w, u] = operands(steps, DType::F32);
        [&h, &x, &w, &u].iter().for_each(|t| t.realize().unwrap());
        let before = tape_nodes();
        let kept = scanned(&h, &x, &w, &u);
        let after = tape_nodes();
        drop(kept);
        after as i64 - before as i64
    };
    // Other tests of this file record at the same time; what grew with the length would be thousands.
    assert!(nodes(5000) < 1000);
    let run = || -> Result<f32> {
        let [h, x, w, u] = operands(9, DType::F32);
        Ok(scanned(&h, &x, &w, &u).0.sum().item::<f32>()?)
    };
    let first = run()?;
    assert_eq!(run()?, first);
    Ok(())
}

#[test]
fn no_steps_give_the_first_carries_and_nothing() -> Result<()> {
    let [h, x, w, u] = operands(0, DType::F64);
    let (last, all) = scanned(&h, &x, &w, &u);
    let gradients = grad_with(&last, Some(&last), &[&h])?;
    let of_w = grad(&(last.sum() + all.sum()), &[&w])?;
    assert_eq!((bits(&last), all.shape().to_vec()), (bits(&h), vec![0, 2, 3]));
    assert_eq!(bits(&gradients[0]), bits(&h));
    assert_eq!(bits(&of_w[0]), vec![0; 12]);
    Ok(())
}

#[test]
fn random_numbers_are_new_in_every_step_and_the_same_in_backward() -> Result<()> {
    let x = Tensor::ones([50, 40], DType::F32).with_grad()?;
    let generator = Generator::new(2);
    let run = || {
        let (_, mut all) = scan(&[], &[&x], |_, x| (vec![], vec![x[0].dropout(0.5, &generator)]));
        all.remove(0)
    };
    let y = run();
    let gradient = y.sum().backward()?.of(&x).unwrap().to_vec::<f32>()?;
    let values = y.to_vec::<f32>()?;
    assert_eq!(gradient, values);
    let rows: Vec<&[f32]> = values.chunks(40).collect();
    assert!((1..50).all(|i| !rows[..i].contains(&rows[i])), "two steps drew the same numbers");
    assert_ne!(run().to_vec::<f32>()?, values);
    assert_eq!(generator.counter(), 2);
    Ok(())
}

#[test]
fn scans_in_scans_and_recomputed_steps() -> Result<()> {
    // Cumulative sums along both axes.
    let x = Tensor::arange(12, DType::F64).reshape([3, 4]);
    let inner = |row: &Tensor| {
        let zero = Tensor::zeros((), DType::F64);
        let generator = Generator::new(1);
        let (_, mut all) = scan(&[&zero], &[row], |c, x| {
            let sum = &c[0] + &x[0];
            let noise = Tensor::zeros((), DType::F32) + generator.rand(()) * 0.0;
            (vec![sum.clone()], vec![sum, noise.cast(DType::F64)])
        });
        all.remove(0)
    };
    let start = Tensor::zeros([4], DType::F64);
    let (_, all) = scan(&[&start], &[&x], |c, x| {
        let sum = &c[0] + inner(&x[0]);
        (vec![sum.clone()], vec![sum])
    });
    assert_eq!(all[0].to_vec::<f64>()?, x.cumsum(0).cumsum(1).to_vec::<f64>()?);

    let generator = Generator::new(5);
    let w = Parameter::new(generator.randn([64, 64]) * 0.1)?;
    let (h, x) = (Tensor::zeros([128, 64], DType::F32), generator.randn([16, 128, 64]));
    Tensor::realize_all(&[&h, &x])?;
    let run = |again: bool| -> Result<(usize, Vec<f32>)> {
        let (last, _) = scan(&[&h], &[&x], |c, x| {
            let step = || (c[0].matmul(&w.tensor()).exp().sin() + x[0].matmul(&w.tensor()).tanh()).tanh();
            (vec![if again { recompute(step) } else { step() }], vec![])
        });
        let gradients = last[0].square().mean().backward()?;
        let of_w = gradients.get(&w).unwrap();
        Ok((planned_bytes(&[of_w])?, of_w.to_vec::<f32>()?))
    };
    let ((most, expected), (planned, found)) = (run(false)?, run(true)?);
    assert_eq!(found, expected);
    assert!(planned < most * 3 / 4, "{planned} of {most} bytes");
    Ok(())
}

#[test]
fn a_cotangent_that_is_cut_in_the_body_is_an_error_as_without_a_scan() -> Result<()> {
    let w = Parameter::new(Tensor::ones([3], DType::F32))?;
    let x = Tensor::ones([4, 3], DType::F32);
    let run = |step: &dyn Fn(&Tensor, &Tensor) -> (Tensor, Tensor)| {
        let (last, all) = scan(&[&Tensor::zeros([3], DType::F32)], &[&x], |c, x| {
            let (c, y) = step(&c[0], &x[0]);
            (vec![c], vec![y])
        });
        (last[0].sum(), all[0].sum())
    };
    let rounded = |t: &Tensor| t.cast(DType::I64).cast(DType::F32);
    // What goes through an integer is cut, also where it comes around by the carry.
    let (last, all) = run(&|c, x| (x * w.tensor(), rounded(c)));
    assert_eq!(last.backward()?.get(&w).unwrap().to_vec::<f32>()?, [1.0; 3]);
    let said = all.backward().unwrap_err().to_string();
    assert!(said.contains("cast") && said.contains("tests/scan.rs"), "{said}");
    // What is detached is not reached, and the other output's gradient is whole.
    let (last, all) = run(&|c, x| (c + (x * w.tensor()).detach(), x * w.tensor()));
    assert!(last.backward().unwrap_err().to_string().contains("no parameter is reached"));
    assert_eq!(all.backward()?.get(&w).unwrap().to_vec::<f32>()?, [4.0; 3]);
    let (last, _) = run(&|c, x| (no_grad(|| x * w.tensor()) * 2.0 + c * w.tensor(), x.clone()));
    assert_eq!(last.backward()?.get(&w).unwrap().to_vec::<f32>()?, [12.0; 3]);
    Ok(())
}

#[test]
fn mistakes_say_what_and_where() {
    let x = Tensor::ones([4, 3], DType::F32);
    let zero = Tensor::zeros([3], DType::F32);
    let said = |carry: &Tensor, xs: &[&Tensor], step: &dyn Fn(&Tensor) -> Tensor| {
        let (last, all) = scan(&[carry], xs, |c, _| (vec![step(&c[0])], vec![c[0].clone()]));
        let (a, b) =
            (last[0].to_vec::<f32>().unwrap_err().to_string(), all[0].to_vec::<f32>().unwrap_err().to_string());
        assert_eq!(a, b);
        assert!(a.contains("tests/scan.rs"), "{a}");
        a
    };
    let wide = said(&zero, &[&x], &|c| Tensor::cat(&[c, c], 0));
    assert!(wide.contains("carry 0") && wide.contains("(3,)") && wide.contains("(6,)"), "{wide}");
    assert!(said(&zero, &[&x], &|c| c.cast(DType::F64)).contains("comes out as f64"));
    assert!(said(&zero, &[], &|c| c.clone()).contains("nothing to scan over"));
    assert!(said(&zero, &[&x, &zero], &|c| c.clone()).contains("first axis"));
    assert!(said(&zero, &[&x], &|c| c.matmul(&x)).contains("matmul"));
    let (last, all) = scan(&[&zero], &[&x], |_, _| (vec![], vec![]));
    assert!(last[0].to_vec::<f32>().unwrap_err().to_string().contains("gets 1 carries and returns 0"));
    assert!(all.is_empty());
    scan(&[&zero], &[&x], |c, x| {
        let error = (&c[0] + &x[0]).to_vec::<f32>().unwrap_err().to_string();
        assert!(error.contains("cannot compute values"), "{error}");
        (c.to_vec(), vec![])
    });
    // What fails when it runs names the operation in the body.
    let table = Tensor::ones([5, 2], DType::F32);
    let index = Tensor::from_vec(vec![0i64, 4, 5], [3, 1]);
    let (_, rows) = scan(&[], &[&index], |_, i| (vec![], vec![table.embedding(&i[0])]));
    let error = rows[0].to_vec::<f32>().unwrap_err().to_string();
    assert!(error.contains("index_select") && error.contains("tests/scan.rs"), "{error}");
}

#[test]
fn a_training_step_with_a_scan_is_compiled_once() -> Result<()> {
    let generator = Generator::new(1);
    let w = Parameter::new(generator.randn([3, 3]) * 0.3)?;
    let net = One(w.clone());
    let mut optimizer = Sgd::new(&net).learning_rate(0.1);
    let mut losses = Vec::new();
    for step in 0..5 {
        let x = generator.randn([6, 2, 3]);
        x.realize()?;
        let (loss, compiled) = dumped(|| -> Result<f32> {
            let (last, _) = scan(&[&Tensor::zeros([2, 3], DType::F32)], &[&x], |c, x| {
                let noisy = (&c[0] + &x[0] * 0.5).dropout(0.1, &generator);
                (vec![noisy.matmul(&w.tensor()).tanh()], vec![])
            });
            let loss = last[0].square().sum();
            optimizer.step(loss.backward()?)?;
            Ok(loss.item::<f32>()?)
        });
        losses.push(loss?);
        assert_eq!(compiled.is_empty(), step > 0, "step {step}");
    }
    assert!(losses.iter().all(|l| l.is_finite()) && losses[0] != losses[1], "{losses:?}");
    Ok(())
}

struct One(Parameter);

impl Module for One {
    fn visit(&self, visitor: &mut dyn tapeflow::Visitor) {
        self.0.visit(visitor);
    }
}

#[test]
fn a_captured_step_with_a_scan_goes_on_drawing_numbers() -> Result<()> {
    let run = |captured: bool| -> Result<Vec<u32>> {
        let generator = Generator::new(1);
        let w = Parameter::new(generator.randn([3, 3]) * 0.3)?;
        let x = generator.randn([6, 2, 3]);
        x.realize()?;
        let mut optimizer = Sgd::new(&One(w.clone())).learning_rate(0.1);
        let mut step = |inputs: &[Tensor]| -> Result<Vec<Tensor>> {
            let (last, _) = scan(&[&Tensor::zeros([2, 3], DType::F32)], &[&inputs[0]], |c, x| {
                (vec![(&c[0] + &x[0]).dropout(0.3, &generator).matmul(&w.tensor()).tanh()], vec![])
            });
            let loss = last[0].square().sum();
            optimizer.step(loss.backward()?)?;
            Ok(vec![loss])
        };
        if captured {
            let mut kept = tapeflow::capture(&[&x], &mut step)?;
            (1..4).try_for_each(|_| kept.run(&[&x]))?;
        } else {
            (0..4).try_for_each(|_| step(std::slice::from_ref(&x)).map(drop))?;
        }
        Ok(w.tensor().to_vec::<f32>()?.iter().map(|v| v.to_bits()).collect())
    };
    assert_eq!(run(true)?, run(false)?);
    Ok(())
}
