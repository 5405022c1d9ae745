//! The networks for images: names, shapes, and that they learn.

use tapeflow_nn::{Adam, DType, Forward, Generator, Layer, ModuleExt, Optimizer, Result, Tensor};

use crate::{LeNet, ResNet20};

#[test]
fn paths_are_those_of_the_layers() -> Result<()> {
    let net = ResNet20::new(3, 10, &Generator::new(1))?;
    let paths: Vec<String> = net.named_parameters().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths[..3], ["conv.weight", "norm.weight", "norm.bias"]);
    assert!(paths.contains(&"blocks.8.norm2.bias".to_owned()) && paths.contains(&"fc.bias".to_owned()));
    assert_eq!(net.named_buffers().len(), 2 * 19);
    assert_eq!(LeNet::new(10, &Generator::new(1))?.named_parameters()[2].0, "conv2.weight");
    Ok(())
}

#[test]
fn images_of_the_wrong_size_name_the_layer() -> Result<()> {
    let net = LeNet::new(10, &Generator::new(1))?;
    let error = net.forward(&Tensor::zeros([2, 1, 32, 32], DType::F32)).to_vec::<f32>().unwrap_err().to_string();
    assert!(error.contains("fc1"), "{error}");
    let error = net.forward(&Tensor::zeros([2, 3, 28, 28], DType::F32)).to_vec::<f32>().unwrap_err().to_string();
    assert!(error.contains("conv1") && error.contains("3 channels"), "{error}");
    Ok(())
}

/// Bright halves: the label says which half of the image is bright.
fn halves(side: usize, seed: u64) -> (Tensor, Tensor) {
    let generator = Generator::new(seed);
    let labels: Vec<i64> = (0..16).map(|i| i % 2).collect();
    let bright = |i: usize, row: usize| i64::from(row < side / 2) == labels[i];
    let pixels = (0..16).flat_map(|i| (0..side * side).map(move |at| (i, at / side)));
    let values = pixels.map(|(i, row)| f32::from(u8::from(bright(i, row))) + 0.3 * generator.next_f32()).collect();
    (Tensor::from_vec::<f32>(values, [16, 1, side, side]), Tensor::from_vec(labels.clone(), [16]))
}

#[test]
fn they_learn_which_half_is_bright() -> Result<()> {
    let nets: [(Box<dyn Layer>, usize); 2] =
        [(Box::new(LeNet::new(2, &Generator::new(2))?), 28), (Box::new(ResNet20::new(1, 2, &Generator::new(2))?), 12)];
    for (net, side) in nets {
        let mut optimizer = Adam::new(&net).learning_rate(3e-3);
        for seed in 0..12 {
            let (x, y) = halves(side, seed);
            let loss = net.train(|| net.forward(&x)).cross_entropy(&y);
            optimizer.step(loss.backward()?)?;
        }
        let (x, y) = halves(side, 99);
        let loss = net.train(|| net.forward(&x)).cross_entropy(&y).item::<f32>()?;
        assert!(loss < 0.2, "a side of {side}: {loss}");
    }
    Ok(())
}
