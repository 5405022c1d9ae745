//! Groups that go on with a product's result as part of its step: the bits are those of products and groups apart, and
//! memory that somebody still reads is not written.

use tapeflow::prelude::*;
use tapeflow::{__test::dumped, Result, commit, without_fusion};

fn ramp(shape: &[usize], scale: f32) -> Tensor {
    let count: usize = shape.iter().product();
    let values = (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) * scale).collect();
    Tensor::from_vec(values, shape)
}

/// The values with fusion, which must be those without it, and how many groups went on with a product.
fn fused(f: impl Fn() -> Result<Vec<Tensor>>) -> Result<(Vec<Vec<f32>>, usize)> {
    let read = || -> Result<Vec<Vec<f32>>> {
        let tensors = f()?;
        Tensor::realize_all(&tensors.iter().collect::<Vec<_>>())?;
        tensors.iter().map(|t| t.cast(DType::F32).to_vec::<f32>().map_err(Into::into)).collect()
    };
    let (values, dump) = dumped(read);
    let (values, apart) = (values?, without_fusion(read)?);
    let bits =
        |all: &[Vec<f32>]| -> Vec<Vec<u32>> { all.iter().map(|v| v.iter().map(|x| x.to_bits()).collect()).collect() };
    assert!(bits(&values) == bits(&apart), "fusion changed a bit");
    Ok((values, dump.matches("    then group").count()))
}

#[test]
fn layers_go_on_with_their_products() -> Result<()> {
    // Few rows, parts of lines, whole lines; every result is wanted, so none may lie where another does.
    for (rows, inner, outer) in [(2, 64, 48), (700, 96, 512), (640, 200, 128)] {
        let (x, w, b) = (ramp(&[rows, inner], 0.01), ramp(&[outer, inner], 0.02), ramp(&[outer], 0.1));
        let (_, count) = fused(|| {
            let product = x.matmul(&w.t());
            let hidden = (&product + &b).gelu();
            Ok(vec![product, hidden])
        })?;
        assert_eq!(count, 1, "a bias and an activation of {rows} x {outer}");
        let (_, count) = fused(|| Ok(vec![(x.matmul(&w.t()) + &b).relu()]))?;
        assert_eq!(count, 1, "nobody reads the product of {rows} x {outer} itself");
    }
    Ok(())
}

#[test]
fn a_residual_may_be_what_the_product_reads() -> Result<()> {
    let (w, b) = (ramp(&[128, 128], 0.02), ramp(&[128], 0.1));
    let (_, count) = fused(|| {
        // Each of these is read last by the step that makes the next, as an operand of its product and of its epilogue.
        let mut x = ramp(&[512, 128], 0.01);
        for _ in 0..4 {
            x = (&x + x.matmul(&w.t())) * 0.5 + &b;
        }
        let normed = (&x + x.matmul(&w.t())).softmax(-1);
        Ok(vec![normed])
    })?;
    assert!(count >= 5, "only {count} groups went on with a product");
    Ok(())
}

#[test]
fn gradients_go_on_with_their_products() -> Result<()> {
    let (x, y) = (ramp(&[512, 128], 0.01), ramp(&[512, 128], 0.03));
    let (_, count) = fused(|| {
        let (w, v) = (Parameter::new(ramp(&[256, 128], 0.02))?, Parameter::new(ramp(&[128, 256], 0.02))?);
        let (b, c) = (Parameter::new(ramp(&[256], 0.1))?, Parameter::new(ramp(&[128], 0.1))?);
        let hidden = (x.matmul(&w.tensor().t()) + b.tensor()).gelu();
        let loss = (hidden.matmul(&v.tensor().t()) + c.tensor() - &y).square().mean();
        let gradients = loss.backward()?;
        let all = [&w, &v, &b, &c].map(|p| gradients.get(p).expect("it is reached").clone());
        Ok(all.into_iter().chain([loss]).collect())
    })?;
    assert!(count >= 3, "only {count} groups went on with a product");
    Ok(())
}

#[test]
fn half_precision_rounds_where_it_would_apart() -> Result<()> {
    for dtype in [DType::BF16, DType::F16] {
        for rows in [3, 600] {
            let cast = |t: Tensor| t.cast(dtype);
            let (x, w, b) = (cast(ramp(&[rows, 96], 0.01)), cast(ramp(&[256, 96], 0.02)), cast(ramp(&[256], 0.1)));
            Tensor::realize_all(&[&x, &w, &b])?;
            let (_, count) = fused(|| Ok(vec![(x.matmul(&w.t()) + &b).relu()]))?;
            assert_eq!(count, 1, "{dtype}, {rows} rows");
        }
    }
    Ok(())
}

#[test]
fn an_update_goes_on_with_its_gradient_in_place() -> Result<()> {
    // The old weight is read by the epilogue alone: it may be written over. Where the product reads it too, it may not.
    for reads_itself in [false, true] {
        let step = |fuse: bool| -> Result<Vec<f32>> {
            let w = Parameter::new(ramp(&[128, 128], 0.02))?;
            let x = ramp(&[128, 128], 0.01);
            let run = || -> Result<()> {
                let other = if reads_itself { w.tensor() } else { x.clone() };
                Ok(commit(&[(w.slot(), w.tensor() - x.t().matmul(&other) * 0.1)])?)
            };
            if fuse {
                run()?
            } else {
                without_fusion(run)?
            }
            Ok(w.tensor().to_vec()?)
        };
        assert_eq!(step(true)?, step(false)?, "the product reads the weight: {reads_itself}");
    }
    Ok(())
}
