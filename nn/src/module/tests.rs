//! What every module can be asked, on modules written by hand.

use tapeflow_core::{DType, Generator, Tensor, is_training};

use super::{Buffer, Forward, Layer, Module, ModuleExt, Visitor};
use crate::error::{Error, Result};
use crate::{Gelu, LayerNorm, Linear, Sequential};

/// Two layers that share a weight, a buffer, and an option.
struct Net {
    first: Linear,
    tied: Linear,
    norms: Vec<LayerNorm>,
    seen: Buffer,
    none: Option<Linear>,
}

impl Module for Net {
    fn visit(&self, visitor: &mut dyn Visitor) {
        let fields: [(&str, &dyn Module); 5] = [
            ("first", &self.first),
            ("tied", &self.tied),
            ("norms", &self.norms),
            ("seen", &self.seen),
            ("none", &self.none),
        ];
        for (name, field) in fields {
            visitor.enter(name);
            field.visit(visitor);
            visitor.leave();
        }
    }
}

fn net() -> Net {
    let first = Linear::drawn(3, 3, &Generator::new(1)).unwrap();
    let tied = Linear { weight: first.weight.clone(), bias: None };
    let norms = vec![LayerNorm::new(3).unwrap(), LayerNorm::new(3).unwrap().bias(false)];
    Net { first, tied, norms, seen: Buffer::new(Tensor::zeros([2], DType::I64)).unwrap(), none: None }
}

#[test]
fn paths_come_in_visiting_order_and_tied_weights_once() {
    let net = net();
    let paths: Vec<String> = net.leaves().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["first.weight", "first.bias", "norms.0.weight", "norms.0.bias", "norms.1.weight", "seen"]);
    assert_eq!(net.num_parameters(), 9 + 3 + 3 + 3 + 3);
    assert_eq!(net.named_buffers().len(), 1);
    net.stamp_paths();
    assert_eq!(net.norms[1].weight.path(), "norms.1.weight");
}

#[test]
fn the_summary_is_a_table() {
    let net = net();
    net.freeze("norms.*").unwrap();
    assert_eq!(
        net.summary().to_string(),
        "path            shape   dtype         count         bytes\n\
         first.weight    [3, 3]  f32               9            36\n\
         first.bias      [3]     f32               3            12\n\
         norms.0.weight  [3]     f32               3            12  frozen\n\
         norms.0.bias    [3]     f32               3            12  frozen\n\
         norms.1.weight  [3]     f32               3            12  frozen\n\
         seen            [2]     i64               2            16  buffer\n\
         21 parameters, 12 of them learned, 100 bytes"
    );
}

#[test]
fn freezing_takes_patterns_and_names_what_there_is() {
    let net = net();
    assert_eq!(net.freeze("*.bias").unwrap(), 2);
    assert_eq!(net.unfreeze("norms.0.*").unwrap(), 2);
    let frozen: Vec<bool> = net.parameters().iter().map(|p| !p.is_trainable()).collect();
    assert_eq!(frozen, [false, true, false, false, false]);
    let error = net.freeze("*.wieght").unwrap_err().to_string();
    assert!(error.contains("`*.wieght`") && error.contains("norms.0.bias"), "{error}");
}

#[test]
fn a_state_that_does_not_fit_changes_nothing_and_says_everything() {
    let net = net();
    let before = net.first.weight.tensor().to_vec::<f32>().unwrap();
    let mut state = net.state();
    state[0].1 = Tensor::ones([3, 3], DType::F32);
    net.load_state(state.clone()).unwrap();
    assert_eq!(net.first.weight.tensor().to_vec::<f32>().unwrap(), [1.0; 9]);

    state[0].1 = Tensor::from_vec(before, [3, 3]);
    state[1].1 = Tensor::zeros([4], DType::F32);
    state[2].0 = "norm.0.weight".into();
    let error = net.load_state(state).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the state does not fit the module\n  missing (1): norms.0.weight\n  unexpected (1): norm.0.weight\n  \
         of another shape or dtype (1): `first.bias` is f32 (4,) and should be f32 (3,)"
    );
    assert!(matches!(error, Error::CheckpointMismatch { .. }));
    assert_eq!(net.first.weight.tensor().to_vec::<f32>().unwrap(), [1.0; 9]);
}

#[test]
fn a_module_is_cast_whole() -> Result<()> {
    let net = net();
    net.to(DType::F64)?;
    assert!(net.parameters().iter().all(|p| p.tensor().dtype() == DType::F64));
    assert_eq!(net.seen.tensor().dtype(), DType::I64);
    assert!(net.to(DType::I32).is_err());
    Ok(())
}

#[test]
fn training_and_evaluating_are_scopes() {
    let net = net();
    net.eval(|| {
        assert!(!is_training());
        net.train(|| assert!(is_training()));
        assert!(!is_training());
    });
}

#[test]
fn lists_tuples_and_boxes_run_one_after_the_other() -> Result<()> {
    let generator = Generator::new(3);
    let (a, b) = (Linear::drawn(2, 4, &generator)?, Linear::drawn(4, 2, &generator)?);
    let x = Tensor::from_vec(vec![0.3f32, -0.7, 1.1, 0.2], [2, 2]);
    let expected = b.forward(&a.forward(&x).gelu()).to_vec::<f32>()?;
    let tuple = Sequential((a.clone(), Gelu, b.clone()));
    assert_eq!(tuple.forward(&x).to_vec::<f32>()?, expected);
    let boxes: Vec<Box<dyn Layer>> = vec![Box::new(a), Box::new(Gelu), Box::new(Some(b)), Box::new(None::<Linear>)];
    let boxes = Sequential(boxes);
    assert_eq!(boxes.forward(&x).to_vec::<f32>()?, expected);
    let paths = |m: &dyn Module| m.named_parameters().into_iter().map(|(path, _)| path).collect::<Vec<_>>();
    assert_eq!(paths(&tuple), ["0.weight", "0.bias", "2.weight", "2.bias"]);
    assert_eq!(paths(&boxes), paths(&tuple));
    Ok(())
}

#[test]
fn the_vjp_of_a_linear_layer_is_the_textbook_one() -> Result<()> {
    let weight = Tensor::from_vec(vec![1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
    let layer = Linear::from_tensors(weight, Some(Tensor::zeros([2], DType::F64)))?;
    layer.stamp_paths();
    let x = Tensor::from_vec(vec![1.0f64, 0.0, -1.0], [1, 3]);
    let vjp = layer.vjp(&x, &Tensor::from_vec(vec![1.0f64, 10.0], [1, 2]))?;
    assert_eq!(vjp.output.to_vec::<f64>()?, [-2.0, -2.0]);
    assert_eq!(vjp.input.to_vec::<f64>()?, [41.0, 52.0, 63.0]);
    let weight = vjp.parameters.get(&layer.weight).unwrap();
    assert_eq!(weight.to_vec::<f64>()?, [1.0, 0.0, -1.0, 10.0, 0.0, -10.0]);
    assert_eq!(vjp.parameters.by_path("bias").unwrap().to_vec::<f64>()?, [1.0, 10.0]);
    assert_eq!(vjp.parameters.iter().count(), 2);
    assert!(layer.vjp(&x, &Tensor::zeros([7], DType::F64)).is_err());
    Ok(())
}
