//! The layers for images: what they begin as, what they keep, what they refuse. Values against PyTorch's stand with the
//! goldens.

use tapeflow_core::{DType, Generator, Tensor};

use super::*;
use crate::error::Result;
use crate::module::{Forward, ModuleExt};
use crate::{Optimizer, Sgd};

fn image(shape: [usize; 4], seed: u64) -> Tensor {
    Generator::new(seed).randn(shape)
}

fn bound(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most, v| most.max(v.abs()))
}

#[test]
fn convolutions_begin_within_pytorchs_bounds_and_have_its_shapes() -> Result<()> {
    let g = &Generator::new(3);
    let conv = Conv2d::drawn(8, 12, [3, 5], g)?.groups(4)?;
    assert_eq!(conv.weight.tensor().shape().to_vec(), [12, 2, 3, 5]);
    let limit = 1.0 / 30f32.sqrt();
    for values in [&conv.weight, conv.bias.as_ref().unwrap()] {
        let most = bound(&values.tensor().to_vec::<f32>()?);
        assert!(most <= limit && most > 0.6 * limit, "{most} of {limit}");
    }
    let up = ConvTranspose2d::drawn(8, 12, 3, g)?.groups(2)?;
    assert_eq!(up.weight.tensor().shape().to_vec(), [8, 6, 3, 3]);
    assert_eq!(up.bias.as_ref().unwrap().tensor().shape().to_vec(), [12]);
    let up = up.stride(2).padding(1).output_padding(1);
    assert_eq!(up.forward(&image([2, 8, 5, 6], 1)).shape().to_vec(), [2, 12, 10, 12]);
    assert_eq!(
        Conv1d::new(2, 3, 3)?.padding(1).forward(&Generator::new(1).randn([4, 2, 9])).shape().to_vec(),
        [4, 3, 9]
    );
    let line = ConvTranspose1d::new(2, 3, 2)?.stride(2);
    assert_eq!(line.forward(&Generator::new(1).randn([4, 2, 9])).shape().to_vec(), [4, 3, 18]);
    assert!(Conv2d::new(1, 1, 1)?.bias(false).named_parameters().len() == 1);
    Ok(())
}

#[test]
fn a_convolution_of_the_wrong_image_says_what_would_be_right() {
    let conv = Conv2d::new(3, 4, 5).unwrap();
    for (shape, words) in [
        (&[2, 3, 8][..], &["(items, channels, height, width)", "(2, 3, 8)"][..]),
        (&[2, 4, 8, 8], &["second axis must be 4", "4 channels"]),
        (&[2, 3, 4, 8], &["windows of 5", "axis 2"]),
    ] {
        let error = conv.forward(&Tensor::zeros(shape, DType::F32)).to_vec::<f32>().unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
}

#[test]
fn batch_norm_keeps_running_statistics_with_the_optimizers_step() -> Result<()> {
    let norm = BatchNorm2d::new(2)?.momentum(0.25);
    let mut optimizer = Sgd::new(&norm).learning_rate(0.0);
    let x = image([6, 2, 3, 4], 5) * 3.0 + 1.0;
    let values = x.to_vec::<f32>()?;
    let of = |channel: usize| (0..6).flat_map(move |n| (0..12).map(move |i| (n * 2 + channel) * 12 + i));
    let mut expected = [[0.0f64, 1.0]; 2];
    for round in 0..3 {
        let loss = norm.train(|| norm.forward(&x)).square().sum();
        if round == 1 {
            // Read before the step: what the step will make of it, and still that after it.
            norm.running_mean.tensor().to_vec::<f32>()?;
        }
        optimizer.step(loss.backward()?)?;
        for (channel, running) in expected.iter_mut().enumerate() {
            let mean = of(channel).map(|i| f64::from(values[i])).sum::<f64>() / 72.0;
            let var = of(channel).map(|i| (f64::from(values[i]) - mean).powi(2)).sum::<f64>() / 71.0;
            running[0] = 0.75 * running[0] + 0.25 * mean;
            running[1] = 0.75 * running[1] + 0.25 * var;
        }
        let (mean, var) = (norm.running_mean.tensor().to_vec::<f32>()?, norm.running_var.tensor().to_vec::<f32>()?);
        for channel in 0..2 {
            assert!((f64::from(mean[channel]) - expected[channel][0]).abs() < 1e-5, "{mean:?} {expected:?}");
            assert!((f64::from(var[channel]) - expected[channel][1]).abs() < 1e-4, "{var:?} {expected:?}");
        }
    }
    // Evaluation uses them, and leaves them alone.
    let y = norm.eval(|| norm.forward(&x)).to_vec::<f32>()?;
    let wanted = (f64::from(values[0]) - expected[0][0]) / (expected[0][1] + 1e-5).sqrt();
    assert!((f64::from(y[0]) - wanted).abs() < 1e-4);
    assert_eq!(norm.named_buffers().len(), 2);
    Ok(())
}

#[test]
fn two_batches_before_a_step_both_count() -> Result<()> {
    let norm = BatchNorm1d::new(1)?.momentum(0.5).affine(false);
    for value in [2.0f32, 6.0] {
        norm.train(|| norm.forward(&Tensor::full([4, 1], f64::from(value), DType::F32))).to_vec::<f32>()?;
    }
    assert_eq!(norm.running_mean.tensor().to_vec::<f32>()?, [0.5 * (0.5 * 2.0) + 0.5 * 6.0]);
    assert!(norm.named_parameters().is_empty());
    Ok(())
}

#[test]
fn norms_refuse_other_shapes() -> Result<()> {
    let (batch, group) = (BatchNorm2d::new(3)?, GroupNorm::new(2, 4)?);
    let line = BatchNorm1d::new(3)?;
    let x = image([2, 5, 4, 4], 1);
    for (layer, words) in
        [(&batch as &dyn Forward, "(items, 3, height, width)"), (&line, "(items, 3)"), (&group, "(items, 4, …)")]
    {
        let error = layer.forward(&x).to_vec::<f32>().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    Ok(())
}

#[test]
fn group_norm_normalises_groups_of_channels() -> Result<()> {
    let y = GroupNorm::new(2, 4)?.eps(0.0).forward(&image([3, 4, 5, 5], 2)).to_vec::<f32>()?;
    for group in y.chunks(50) {
        let mean = group.iter().sum::<f32>() / 50.0;
        let var = group.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 50.0;
        assert!(mean.abs() < 1e-5 && (var - 1.0).abs() < 1e-4, "{mean} {var}");
    }
    assert!(GroupNorm::new(1, 4)?.affine(false).named_parameters().is_empty());
    Ok(())
}

#[test]
fn pools_are_the_operations() -> Result<()> {
    let x = image([2, 3, 6, 8], 4);
    let options = tapeflow_core::PoolOptions::new(3).stride(2).padding(1);
    let pairs: [(&dyn Forward, Tensor); 5] = [
        (&MaxPool2d::new(3).stride(2).padding(1), x.max_pool2d(&options)),
        (&AvgPool2d::new(3).stride(2).padding(1), x.avg_pool2d(&options)),
        (&AdaptiveAvgPool2d::new([2, 1]), x.adaptive_avg_pool2d([2, 1])),
        (&Upsample::nearest(2), x.upsample_nearest2d(2)),
        (&Flatten, x.reshape([2, -1])),
    ];
    for (layer, expected) in pairs {
        assert_eq!(layer.forward(&x).to_vec::<f32>()?, expected.to_vec::<f32>()?);
    }
    let line = Generator::new(1).randn([2, 3, 9]);
    assert_eq!(MaxPool1d::new(3).forward(&line).shape().to_vec(), [2, 3, 3]);
    assert_eq!(AvgPool1d::new(2).stride(1).forward(&line).shape().to_vec(), [2, 3, 8]);
    Ok(())
}
