//! The layers against values computed by hand or by the operations they are made of.

use tapeflow_core::{DType, Generator, Tensor};

use super::{Dropout, Embedding, Gelu, LayerNorm, Linear, Relu, Sigmoid, Silu, Tanh};
use crate::error::Result;
use crate::module::{Forward, ModuleExt};

#[test]
fn linear_maps_the_last_axis_of_any_shape() -> Result<()> {
    let layer = Linear::drawn(3, 2, &Generator::new(1))?;
    let x = Tensor::from_vec((0..24).map(|i| i as f32 / 7.0).collect::<Vec<f32>>(), [2, 4, 3]);
    let y = layer.forward(&x);
    assert_eq!(y.shape().to_vec(), [2, 4, 2]);
    let (w, b) = (layer.weight.tensor().to_vec::<f32>()?, layer.bias.as_ref().unwrap().tensor().to_vec::<f32>()?);
    let (x, y) = (x.to_vec::<f32>()?, y.to_vec::<f32>()?);
    for (row, out) in x.chunks(3).zip(y.chunks(2)) {
        for o in 0..2 {
            let expected: f32 = (0..3).map(|i| row[i] * w[o * 3 + i]).sum::<f32>() + b[o];
            assert!((out[o] - expected).abs() < 1e-5);
        }
    }
    let bound = 1.0 / 3f32.sqrt();
    assert!(w.iter().chain(&b).all(|v| v.abs() <= bound));
    Ok(())
}

#[test]
fn a_linear_layer_on_the_wrong_width_names_itself() {
    let layer = Linear::new(3, 2).unwrap();
    let error = layer.forward(&Tensor::zeros([5, 4], DType::F32)).to_vec::<f32>().unwrap_err().to_string();
    assert!(error.contains("matmul") && error.contains("(5, 4)"), "{error}");
}

#[test]
fn embedding_takes_rows_and_an_index_out_of_range_is_an_error() -> Result<()> {
    let table = Embedding::drawn(4, 2, 1.0, &Generator::new(1))?;
    table.weight.set(&Tensor::from_vec((0..8).map(|i| i as f32).collect::<Vec<f32>>(), [4, 2]))?;
    let rows = table.forward(&Tensor::from_vec(vec![3i64, 0, 3], [3, 1]));
    assert_eq!(rows.shape().to_vec(), [3, 1, 2]);
    assert_eq!(rows.to_vec::<f32>()?, [6.0, 7.0, 0.0, 1.0, 6.0, 7.0]);
    let gradients = rows.sum().backward()?;
    assert_eq!(gradients.get(&table.weight).unwrap().to_vec::<f32>()?, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 2.0]);
    assert!(table.forward(&Tensor::from_vec(vec![4i64], [1])).to_vec::<f32>().is_err());
    Ok(())
}

#[test]
fn layer_norm_normalises_rows() -> Result<()> {
    let norm = LayerNorm::new(4)?.eps(0.0);
    let x = Tensor::from_vec(vec![1.0f32, 2.0, 3.0, 4.0, -8.0, 0.0, 0.0, 8.0], [2, 4]);
    let y = norm.forward(&x).to_vec::<f32>()?;
    let (a, b) = (1.0 / 1.25f32.sqrt(), 8.0 / 32f32.sqrt());
    for (found, wanted) in y.iter().zip([-1.5 * a, -0.5 * a, 0.5 * a, 1.5 * a, -b, 0.0, 0.0, b]) {
        assert!((found - wanted).abs() < 1e-6);
    }
    assert_eq!(norm.bias(false).named_parameters().len(), 1);
    Ok(())
}

#[test]
fn dropout_drops_in_training_only() -> Result<()> {
    let dropout = Dropout::new(0.25);
    let x = Tensor::ones([40_000], DType::F32);
    let mean = dropout.train(|| dropout.forward(&x)).mean().item::<f32>()?;
    assert!((mean - 1.0).abs() < 0.02, "{mean}");
    let kept = dropout.train(|| dropout.forward(&x)).to_vec::<f32>()?.iter().filter(|&&v| v != 0.0).count();
    assert!((29_600..30_400).contains(&kept), "{kept}");
    assert_eq!(dropout.eval(|| dropout.forward(&x)).sum().item::<f32>()?, 40_000.0);
    assert!(dropout.train(|| Dropout::new(1.5).forward(&x)).to_vec::<f32>().is_err());
    Ok(())
}

#[test]
fn activations_are_the_operations() -> Result<()> {
    let x = Tensor::from_vec(vec![-2.0f32, -0.5, 0.0, 1.0, 3.0], [5]);
    let pairs: [(&dyn Forward, Tensor); 5] =
        [(&Relu, x.relu()), (&Gelu, x.gelu()), (&Silu, x.silu()), (&Tanh, x.tanh()), (&Sigmoid, x.sigmoid())];
    for (layer, expected) in pairs {
        assert_eq!(layer.forward(&x).to_vec::<f32>()?, expected.to_vec::<f32>()?);
    }
    Ok(())
}
