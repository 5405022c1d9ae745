//! Pools behind a bias and ReLU, as convolutional networks have them: what is computed in another order, or not stored,
//! must not show in any bit, whatever the numbers are.

use tapeflow::prelude::*;
use tapeflow::{Result, grad_with, planned_bytes};

/// The pool of `relu(x + bias)`, and the gradients of x and the bias; `kept`: what the pool reads is in memory before.
fn pooled(x: &Tensor, bias: &Tensor, options: &PoolOptions<2>, kept: bool) -> Result<Vec<Tensor>> {
    let channels = bias.numel();
    let positive = (x + bias.reshape([1, channels, 1, 1])).relu();
    if kept {
        positive.realize()?;
    }
    let y = positive.max_pool2d(options);
    let cotangent = Generator::new(9).randn(y.shape().to_vec());
    let gradients = grad_with(&y, Some(&cotangent), &[x, bias])?;
    Ok([vec![y], gradients].concat())
}

#[test]
fn a_pool_behind_relu_has_the_bits_of_one_in_front() -> Result<()> {
    let generator = Generator::new(2);
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1.0, -1.0];
    for [height, width] in [[8, 34], [7, 9], [2, 2]] {
        let shape = [3, 5, height, width];
        let count = shape.iter().product::<usize>();
        let usual = generator.randn(shape).to_vec::<f32>()?;
        // Many equals, negative windows, NaN.
        let coarse: Vec<f32> = usual.iter().map(|x| (x * 2.0).round() / 2.0 - 0.5).collect();
        let odd: Vec<f32> = (0..count).map(|i| if i % 5 == 0 { special[i / 5 % 7] } else { usual[i] }).collect();
        for (name, values) in [("usual", usual), ("coarse", coarse), ("odd", odd)] {
            for options in [PoolOptions::new(2), PoolOptions::new(2).stride(1), PoolOptions::new([1, 2])] {
                let x = Tensor::from_vec(values.clone(), shape).with_grad()?;
                let bias = Tensor::from_vec(vec![0.5f32, -0.25, 0.0, 1.0, -2.0], [5]).with_grad()?;
                let found = pooled(&x, &bias, &options, false)?;
                let expected = pooled(&x, &bias, &options, true)?;
                for (number, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    let bits = |x: &Tensor| -> Result<Vec<Option<u32>>> {
                        let bits = |x: f32| (!x.is_nan()).then(|| x.to_bits());
                        Ok(x.to_vec::<f32>()?.into_iter().map(bits).collect())
                    };
                    let what = format!("{name} {height}x{width} {options:?}: result {number}");
                    assert_eq!(bits(found)?, bits(expected)?, "{what}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn nothing_as_large_as_the_image_is_stored_between_it_and_its_pool() -> Result<()> {
    let x = Generator::new(1).randn([4, 8, 32, 32]);
    let bias = Tensor::ones([8], DType::F32);
    Tensor::realize_all(&[&x, &bias])?;
    let y = (&x + bias.reshape([1, 8, 1, 1])).relu().max_pool2d(&PoolOptions::new(2));
    let result = y.numel() * size_of::<f32>();
    assert!(planned_bytes(&[&y])? <= 2 * result, "{} bytes for {result}", planned_bytes(&[&y])?);
    Ok(())
}

#[test]
fn nan_stays_nan_through_relu() -> Result<()> {
    let x = Tensor::from_vec(vec![f32::NAN, -1.0, 2.0], [3]);
    for y in [x.relu(), x.hardsigmoid(), x.hardswish()] {
        let y = y.to_vec::<f32>()?;
        assert!(y[0].is_nan() && !y[1].is_nan() && !y[2].is_nan(), "{y:?}");
    }
    Ok(())
}
