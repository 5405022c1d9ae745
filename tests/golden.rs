//! Training and single operations against PyTorch: the numbers in `golden/*.safetensors`, which `golden/make.py` made.

use std::collections::HashMap;

use safetensors::{Dtype, SafeTensors};
use tapeflow::__macro::ir::half;
use tapeflow::prelude::*;
use tapeflow::{AttentionMask, Nonlinearity, Result, grad_with};

/// A golden file in memory.
struct Golden(HashMap<String, Array>);

struct Array {
    shape: Vec<usize>,
    values: Values,
}

enum Values {
    Floats(Vec<f64>),
    Integers(Vec<i64>),
}

impl Golden {
    fn read(name: &str) -> Golden {
        let path = format!("{}/tests/golden/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let array = |(name, view): (String, safetensors::tensor::TensorView)| {
            let bytes = view.data();
            let values = match view.dtype() {
                Dtype::F32 => Values::Floats(numbers(bytes, |b| f32::from_le_bytes(b).into())),
                Dtype::F64 => Values::Floats(numbers(bytes, f64::from_le_bytes)),
                Dtype::I64 => Values::Integers(numbers(bytes, i64::from_le_bytes)),
                other => panic!("{name} is {other:?}"),
            };
            (name, Array { shape: view.shape().to_vec(), values })
        };
        Golden(file.tensors().into_iter().map(array).collect())
    }

    fn array(&self, name: &str) -> &Array {
        self.0.get(name).unwrap_or_else(|| panic!("the golden file has no {name}"))
    }

    fn floats(&self, name: &str) -> &[f64] {
        match &self.array(name).values {
            Values::Floats(values) => values,
            Values::Integers(_) => panic!("{name} holds integers"),
        }
    }

    /// As a tensor: integers as they are, floats in `dtype`.
    fn tensor(&self, name: &str, dtype: DType) -> Tensor {
        let array = self.array(name);
        match (&array.values, dtype) {
            (Values::Integers(values), _) => Tensor::from_vec(values.clone(), array.shape.clone()),
            (Values::Floats(values), DType::F64) => Tensor::from_vec(values.clone(), array.shape.clone()),
            (Values::Floats(values), _) => {
                Tensor::from_vec(values.iter().map(|&v| v as f32).collect::<Vec<_>>(), array.shape.clone())
            }
        }
    }
}

fn numbers<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| read(*chunk)).collect()
}

/// |ours − theirs| ≤ rtol · |theirs| + atol, element by element.
fn assert_close(what: &str, ours: &[f64], theirs: &[f64], rtol: f64, atol: f64) {
    assert_eq!(ours.len(), theirs.len(), "{what}: number of elements");
    for (i, (&a, &b)) in ours.iter().zip(theirs).enumerate() {
        let error = (a - b).abs();
        assert!(error <= rtol * b.abs() + atol, "{what}[{i}]: {a:e}, PyTorch has {b:e} (off by {error:e})");
    }
}

/// Ten steps from the golden file's initial parameters, in `dtype`; gives the losses.
fn train<M: Module>(golden: &Golden, model: &M, dtype: DType, loss: impl Fn(usize) -> Tensor) -> Result<Vec<f64>> {
    for (path, parameter) in model.named_parameters() {
        parameter.slot().replace(&golden.tensor(&format!("initial.{path}"), dtype))?;
    }
    let mut optimizer = AdamW::new(model)
        .learning_rate(1e-3)
        .betas(0.9, 0.99)
        .eps(1e-8)
        .weight_decay(0.1)
        .group_where(|_, shape| shape.len() < 2, |group| group.weight_decay(0.0));
    let norms = golden.floats("norms.f64");
    let mut losses = Vec::new();
    for (step, &expected) in norms.iter().enumerate() {
        let loss = loss(step);
        let (gradients, norm) = loss.backward()?.clip_norm(1.0);
        optimizer.step(gradients)?;
        losses.push(loss.cast(DType::F64).item::<f64>()?);
        let rtol = if dtype == DType::F64 { 1e-8 } else { 1e-4 };
        let norm = norm.cast(DType::F64).item::<f64>()?;
        assert_close(&format!("gradient norm of step {step}"), &[norm], &[expected], rtol, 0.0);
    }
    Ok(losses)
}

fn assert_training_matches<M: Module>(golden: &Golden, model: &M, loss: impl Fn(usize) -> Tensor) -> Result<()> {
    let losses = train(golden, model, DType::F32, &loss)?;
    assert_close("f32 losses", &losses, golden.floats("losses.f32"), 1e-5, 0.0);

    let losses = train(golden, model, DType::F64, &loss)?;
    assert_close("losses", &losses, golden.floats("losses.f64"), 1e-8, 0.0);
    for (path, parameter) in model.named_parameters() {
        let ours = parameter.tensor().to_vec::<f64>()?;
        let theirs = golden.floats(&format!("final.{path}"));
        // Adding a vector to all keys shifts a query's scores alike, which softmax does not see: the true gradient of
        // the keys' bias is zero, and what is left of it rounding alone.
        let keys = if path.ends_with("attn.c_attn.bias") { ours.len() / 3..ours.len() / 3 * 2 } else { 0..0 };
        for range in [0..keys.start, keys.end..ours.len()] {
            // A parameter moves by at most η a step; what 1e-8 of that is lies below 1e-8 relative of all but zeros.
            assert_close(&path, &ours[range.clone()], &theirs[range], 1e-8, 1e-11);
        }
    }
    Ok(())
}

#[test]
fn ten_steps_of_a_gpt() -> Result<()> {
    let golden = Golden::read("gpt");
    let config =
        GptConfig { block_size: 16, vocab_size: 31, n_layer: 2, n_head: 4, n_embd: 32, dropout: 0.0, bias: true };
    let model = Gpt::new(&config, &Generator::new(0))?;
    assert_eq!(model.parameters().len(), golden.0.keys().filter(|name| name.starts_with("final.")).count());
    let tokens = golden.tensor("tokens", DType::I64);
    assert_training_matches(&golden, &model, |step| {
        let batch = tokens.narrow(0, step, 1).squeeze(0);
        model.loss(&batch.slice(1, 0..16), &batch.slice(1, 1..17))
    })
}

#[test]
fn ten_steps_of_an_mlp() -> Result<()> {
    #[derive(Module)]
    struct Net {
        layers: Vec<Linear>,
    }
    let golden = Golden::read("mlp");
    let net = Net { layers: vec![Linear::new(20, 32)?, Linear::new(32, 32)?, Linear::new(32, 5)?] };
    let (x, y) = (golden.tensor("x", DType::F64), golden.tensor("y", DType::I64));
    assert_training_matches(&golden, &net, |step| {
        let [first, second, third] = [0, 1, 2].map(|i| &net.layers[i]);
        let x = x.narrow(0, step, 1).squeeze(0).cast(first.weight.tensor().dtype());
        let logits = third.forward(&second.forward(&first.forward(&x).tanh()).relu());
        logits.cross_entropy(&y.narrow(0, step, 1).squeeze(0))
    })
}

type Case = (&'static str, fn(&[Tensor]) -> Tensor);

/// By the names in the golden file; inputs in its order.
const OPS: &[Case] = &[
    ("layer_norm", |x| x[0].layer_norm(&x[1], Some(&x[2]), 1e-5)),
    ("layer_norm_no_bias", |x| x[0].layer_norm(&x[1], None, 1e-5)),
    ("softmax", |x| x[0].softmax(-1)),
    ("softmax_axis_0", |x| x[0].softmax(0)),
    ("log_softmax", |x| x[0].log_softmax(-1)),
    ("cross_entropy", |x| x[0].cross_entropy(&x[1])),
    ("gelu", |x| x[0].gelu()),
    ("silu", |x| x[0].silu()),
    ("sigmoid", |x| x[0].sigmoid()),
    ("tanh", |x| x[0].tanh()),
    ("var", |x| x[0].var_dim([-1], 0, false)),
    ("var_unbiased", |x| x[0].var_dim([0, 2], 1, true)),
    ("matmul", |x| x[0].matmul(&x[1])),
    ("matmul_broadcast", |x| x[0].matmul(&x[1])),
    ("matmul_vector", |x| x[0].matmul(&x[1])),
    ("embedding", |x| x[0].embedding(&x[1])),
    ("gather", |x| x[0].gather(1, &x[1])),
    ("mse_loss", |x| x[0].mse_loss(&x[1])),
    ("max", |x| x[0].max_dim([-1], false)),
    ("causal_attention", |x| causal_attention(&x[0], &x[1], &x[2])),
];

fn conv1d() -> ConvOptions<1> {
    ConvOptions::new()
}

fn conv2d() -> ConvOptions<2> {
    ConvOptions::new()
}

/// As a layer's weight and bias.
fn affine(y: Tensor, x: &[Tensor]) -> Tensor {
    y * x[1].reshape([1, -1, 1, 1]) + x[2].reshape([1, -1, 1, 1])
}

fn batch_norm() -> BatchNorm2d {
    let norm = BatchNorm2d::new(3).unwrap().affine(false);
    norm.to(DType::F64).unwrap();
    norm
}

/// Convolutions, pools and norms, as [`OPS`].
const IMAGES: &[Case] = &[
    ("conv1d", |x| x[0].conv1d(&x[1], &conv1d().stride(2).padding(1))),
    ("conv1d_dilation", |x| x[0].conv1d(&x[1], &conv1d().padding(2).dilation(3).groups(2))),
    ("conv2d", |x| x[0].conv2d(&x[1], &conv2d())),
    ("conv2d_padding", |x| x[0].conv2d(&x[1], &conv2d().padding(1))),
    ("conv2d_stride", |x| x[0].conv2d(&x[1], &conv2d().stride([2, 3]).padding([1, 2]))),
    ("conv2d_dilation", |x| x[0].conv2d(&x[1], &conv2d().padding([2, 1]).dilation([2, 3]).stride([1, 2]))),
    ("conv2d_groups", |x| x[0].conv2d(&x[1], &conv2d().padding(1).groups(2))),
    ("conv2d_depthwise", |x| x[0].conv2d(&x[1], &conv2d().padding(1).stride(2).groups(4))),
    ("conv2d_pointwise", |x| x[0].conv2d(&x[1], &conv2d().stride(2))),
    ("conv_transpose1d", |x| x[0].conv_transpose1d(&x[1], &conv1d().stride(3).padding(1).output_padding(2).groups(2))),
    ("conv_transpose2d", |x| x[0].conv_transpose2d(&x[1], &conv2d())),
    ("conv_transpose2d_stride", |x| x[0].conv_transpose2d(&x[1], &conv2d().stride(2).padding(1).output_padding(1))),
    ("conv_transpose2d_dilation", |x| x[0].conv_transpose2d(&x[1], &conv2d().dilation(2).padding([1, 2]).groups(2))),
    ("max_pool1d", |x| x[0].max_pool1d(&PoolOptions::new(3).stride(2).padding(1))),
    ("max_pool2d", |x| x[0].max_pool2d(&PoolOptions::new(2))),
    ("max_pool2d_overlap", |x| x[0].max_pool2d(&PoolOptions::new(3).stride(2).padding(1))),
    ("max_pool2d_ties", |x| x[0].max_pool2d(&PoolOptions::new([3, 2]).stride(1).padding([1, 0]))),
    ("avg_pool1d", |x| x[0].avg_pool1d(&PoolOptions::new(3).stride(2).padding(1))),
    ("avg_pool2d", |x| x[0].avg_pool2d(&PoolOptions::new([3, 2]).stride([2, 1]).padding([1, 0]))),
    ("adaptive_avg_pool2d", |x| x[0].adaptive_avg_pool2d([3, 4])),
    ("adaptive_avg_pool1d", |x| x[0].adaptive_avg_pool1d(3)),
    ("batch_norm", |x| affine(batch_norm().forward(&x[0]), x)),
    ("batch_norm_eval", |x| {
        let norm = batch_norm();
        norm.running_mean.set(&Tensor::from_vec(vec![0.5, -1.0, 2.0], [3])).unwrap();
        norm.running_var.set(&Tensor::from_vec(vec![0.5, 4.0, 1.0], [3])).unwrap();
        norm.eval(|| norm.forward(&x[0]))
    }),
    ("group_norm", |x| affine(x[0].group_norm(2, 1e-5), x)),
    ("upsample_nearest", |x| x[0].upsample_nearest2d([2, 3])),
];

#[test]
fn single_operations_and_their_gradients() -> Result<()> {
    compare_operations(&Golden::read("ops"), OPS)
}

#[test]
fn operations_on_images_and_their_gradients() -> Result<()> {
    compare_operations(&Golden::read("images"), IMAGES)
}

#[test]
fn running_statistics_after_two_batches() -> Result<()> {
    let golden = Golden::read("images");
    let norm = batch_norm().momentum(0.3);
    for batch in 0..2 {
        norm.forward(&golden.tensor("batches", DType::F64).narrow(0, batch, 1).squeeze(0));
    }
    for (name, buffer) in [("running_mean", &norm.running_mean), ("running_var", &norm.running_var)] {
        assert_close(name, &buffer.tensor().to_vec::<f64>()?, golden.floats(name), 1e-12, 1e-14);
    }
    Ok(())
}

fn compare_operations(golden: &Golden, cases: &[Case]) -> Result<()> {
    let made = golden.0.keys().filter(|name| name.ends_with(".output")).count();
    assert_eq!(cases.len(), made, "the golden file and the table list different operations");
    for (name, op) in cases {
        let mut inputs = Vec::new();
        while golden.0.contains_key(&format!("{name}.input.{}", inputs.len())) {
            let input = golden.tensor(&format!("{name}.input.{}", inputs.len()), DType::F64);
            inputs.push(input);
        }
        let y = op(&inputs);
        assert_eq!(y.shape()[..], golden.array(&format!("{name}.output")).shape, "{name}: shape");
        assert_close(name, &y.to_vec::<f64>()?, golden.floats(&format!("{name}.output")), 1e-11, 1e-13);

        let floats: Vec<usize> = (0..inputs.len()).filter(|&i| inputs[i].dtype() == DType::F64).collect();
        let wrt: Vec<&Tensor> = floats.iter().map(|&i| &inputs[i]).collect();
        let cotangent = golden.tensor(&format!("{name}.cotangent"), DType::F64);
        let gradients = grad_with(&op(&inputs), Some(&cotangent), &wrt)?;
        for (i, gradient) in floats.iter().zip(gradients) {
            let what = format!("{name}.gradient.{i}");
            assert_close(&what, &gradient.to_vec::<f64>()?, golden.floats(&what), 1e-11, 1e-13);
        }
    }
    Ok(())
}

/// The elements' bits as PyTorch has them; all NaNs are one.
fn assert_bits(what: &str, ours: &Tensor, theirs: &[i64]) -> Result<()> {
    let widen = if ours.dtype() == DType::F16 { half::f16_to_f32 } else { half::bf16_to_f32 };
    let ours = ours.with_bytes(|bytes| numbers(bytes, u16::from_le_bytes))?;
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for (i, (&a, &b)) in ours.iter().zip(theirs).enumerate() {
        let (x, y) = (widen(a), widen(b as u16));
        assert!(i64::from(a) == b || x.is_nan() && y.is_nan(), "{what}[{i}]: {a:#x} ({x}), PyTorch has {b:#x} ({y})");
    }
    Ok(())
}

#[test]
fn half_precision_converts_and_rounds_as_pytorch() -> Result<()> {
    let golden = Golden::read("half");
    let (wide, ints) = (golden.tensor("wide", DType::F64), golden.tensor("ints", DType::F64));
    for dtype in [DType::F16, DType::BF16] {
        let array = |name: &str| match &golden.array(&format!("{dtype}.{name}")).values {
            Values::Integers(values) => values.clone(),
            Values::Floats(_) => panic!("{name} holds floats"),
        };
        let of_bits = |bits: &[i64], shape: &[usize]| {
            let bytes: Vec<u8> = bits.iter().flat_map(|&b| (b as u16).to_le_bytes()).collect();
            Tensor::from_bytes(&bytes, dtype, shape)
        };
        assert_bits("from f32", &wide.cast(DType::F32).cast(dtype), &array("from_f32"))?;
        assert_bits("from f64", &wide.cast(dtype), &array("from_f64"))?;
        assert_bits("from i64", &ints.cast(dtype), &array("from_i64"))?;
        let patterns: Vec<i64> = (0..1 << 16).collect();
        let all = of_bits(&patterns, &[1 << 16]);
        let back = all.cast(DType::F32).to_vec::<f32>()?;
        let expected = golden.floats(&format!("{dtype}.to_f32"));
        let same = |(a, b): (&f32, &f64)| f64::from(*a).to_bits() == b.to_bits() || a.is_nan() && *b == 7.0;
        assert!(back.iter().zip(expected).all(same), "{dtype} to f32");
        let some: Vec<i64> = patterns.into_iter().step_by(257).collect();
        let x = of_bits(&some, &[some.len(), 1]);
        let whole = x.abs().cast(DType::F32).lt(&Tensor::scalar(2147483648f32)).where_(&x, &x.zeros_like());
        let whole = whole.cast(DType::I32).to_vec::<i32>()?;
        assert!(whole.iter().zip(array("to_i32")).all(|(&a, b)| i64::from(a) == b), "{dtype} to i32");

        let y = of_bits(&array("y"), &[16]);
        assert_bits("add", &(&x + &y), &array("add"))?;
        assert_bits("sub", &(&x - &y), &array("sub"))?;
        assert_bits("mul", &(&x * &y), &array("mul"))?;
        assert_bits("div", &(&x / &y), &array("div"))?;
        assert_bits("times a number", &(&x * 0.1 + &y), &array("number"))?;
    }
    Ok(())
}

/// A layer as the golden file's, and how it is called; its parameters are set from the file.
type Built = (Box<dyn Module>, Box<dyn Fn(&[Tensor]) -> Vec<Tensor>>);
type LayerCase = (&'static str, fn() -> Result<Built>);

/// A shared layer as both of that.
fn built<M: Module + 'static>(module: M, call: impl Fn(&M, &[Tensor]) -> Vec<Tensor> + 'static) -> Result<Built> {
    let module = std::sync::Arc::new(module);
    Ok((Box::new(module.clone()), Box::new(move |x| call(&module, x))))
}

fn rnn(net: Rnn) -> Result<Built> {
    built(net, |net, x| {
        let (y, h) = net.run(&x[0], Some(&x[1]));
        vec![y, h]
    })
}

fn gru(net: Gru) -> Result<Built> {
    built(net, |net, x| {
        let (y, h) = net.run(&x[0], Some(&x[1]));
        vec![y, h]
    })
}

fn lstm(net: Lstm) -> Result<Built> {
    built(net, |net, x| {
        let (y, (h, c)) = net.run(&x[0], Some((&x[1], &x[2])));
        vec![y, h, c]
    })
}

/// Attention of the inputs to themselves, with a mask that may be made of the second.
fn attention(layer: MultiheadAttention, mask: fn(&[Tensor]) -> AttentionMask) -> Result<Built> {
    built(layer, move |layer, x| {
        let (y, weights) = layer.attend(&x[0], &x[0], &x[0], &mask(x));
        vec![y, weights]
    })
}

fn own_attention() -> Result<MultiheadAttention> {
    MultiheadAttention::new(8, 2)
}

const LAYERS: &[LayerCase] = &[
    ("rnn", || rnn(Rnn::new(3, 4)?)),
    ("rnn_relu", || {
        let net = Rnn::drawn(3, 4, 2, false, &Generator::new(1))?;
        rnn(net.nonlinearity(Nonlinearity::Relu).bias(false))
    }),
    ("gru", || gru(Gru::new(3, 4)?)),
    ("gru_deep", || gru(Gru::drawn(3, 4, 2, true, &Generator::new(1))?)),
    ("lstm", || lstm(Lstm::new(3, 4)?)),
    ("lstm_deep", || lstm(Lstm::drawn(3, 4, 2, true, &Generator::new(1))?)),
    ("lstm_no_bias", || lstm(Lstm::new(3, 4)?.bias(false))),
    ("rms_norm", || built(RmsNorm::new(5)?, |norm, x| vec![norm.forward(&x[0])])),
    ("rms_norm_eps", || built(RmsNorm::new(5)?.eps(0.1), |norm, x| vec![norm.forward(&x[0])])),
    ("attention", || attention(own_attention()?, |_| AttentionMask::new())),
    ("attention_causal", || attention(own_attention()?, |_| AttentionMask::new().causal())),
    ("attention_padding", || {
        attention(own_attention()?.bias(false), |_| {
            let keys = [[0, 0, 0, 0, 1], [0, 0, 0, 1, 1]].concat();
            AttentionMask::new().padding(&Tensor::from_vec(keys.into_iter().map(|k| k == 1).collect(), [2, 5]))
        })
    }),
    ("attention_added", || attention(own_attention()?, |x| AttentionMask::new().places(&x[1]))),
    ("attention_cross", || {
        built(MultiheadAttention::cross(8, 2, 6, 3, &Generator::new(1))?, |layer, x| {
            let (y, weights) = layer.attend(&x[0], &x[1], &x[2], &AttentionMask::new());
            vec![y, weights]
        })
    }),
];

#[test]
fn layers_and_their_gradients() -> Result<()> {
    let golden = Golden::read("layers");
    assert_eq!(LAYERS.len(), golden.0.keys().filter(|name| name.ends_with(".output.0")).count());
    for (name, build) in LAYERS {
        let (module, call) = build()?;
        let given = golden.0.keys().filter(|key| key.starts_with(&format!("{name}.parameter."))).count();
        assert_eq!(module.named_parameters().len(), given, "{name}: number of parameters");
        for (path, parameter) in module.named_parameters() {
            parameter.slot().replace(&golden.tensor(&format!("{name}.parameter.{path}"), DType::F64))?;
        }
        let all = |kind: &str| -> Vec<Tensor> {
            let names = (0..).map(|k| format!("{name}.{kind}.{k}")).take_while(|key| golden.0.contains_key(key));
            names.map(|key| golden.tensor(&key, DType::F64)).collect()
        };
        let inputs = all("input").iter().map(|x| x.with_grad()).collect::<Result<Vec<_>, _>>()?;
        let (outputs, cotangents) = (call(&inputs), all("cotangent"));
        assert_eq!(outputs.len(), cotangents.len(), "{name}");
        let loss = outputs.iter().zip(&cotangents).map(|(y, c)| (y * c).sum()).reduce(|a, b| a + b).unwrap();
        let gradients = loss.backward()?;
        for (k, y) in outputs.iter().enumerate() {
            let key = format!("{name}.output.{k}");
            assert_eq!(y.shape()[..], golden.array(&key).shape, "{key}: shape");
            assert_close(&key, &y.to_vec::<f64>()?, golden.floats(&key), 1e-11, 1e-13);
        }
        let of_inputs = inputs.iter().enumerate().map(|(k, x)| (k.to_string(), gradients.of(x)));
        let of_parameters = module.named_parameters();
        let of_parameters = of_parameters.iter().map(|(path, p)| (path.clone(), gradients.get(p)));
        for (which, gradient) in of_inputs.chain(of_parameters) {
            let key = format!("{name}.gradient.{which}");
            let gradient = gradient.unwrap_or_else(|| panic!("{key} is not reached")).to_vec::<f64>()?;
            assert_close(&key, &gradient, golden.floats(&key), 1e-10, 1e-12);
        }
    }
    Ok(())
}
