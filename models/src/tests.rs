//! GPT against what it is defined by: names, counts, causality, and that it learns.

use tapeflow_nn::{
    AdamW, DType, Dropout, Error, Forward, Generator, ModuleExt, Optimizer, Result, Tensor, causal_attention, no_grad,
};

use crate::gpt::attention_with_dropout;
use crate::{GenerateOptions, Gpt, GptConfig, Mlp};

fn config() -> GptConfig {
    GptConfig { block_size: 8, vocab_size: 13, n_layer: 2, n_head: 2, n_embd: 16, dropout: 0.0, bias: true }
}

fn gpt(seed: u64) -> Gpt {
    Gpt::new(&config(), &Generator::new(seed)).unwrap()
}

fn tokens(values: &[i64]) -> Tensor {
    Tensor::from_vec(values.to_vec(), [1, values.len()])
}

#[test]
fn paths_are_those_of_gpt2_checkpoints() {
    let paths: Vec<String> = gpt(1).named_parameters().into_iter().map(|(path, _)| path).collect();
    let mut expected = vec!["wte.weight".to_owned(), "wpe.weight".to_owned()];
    for layer in 0..2 {
        for name in ["ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"] {
            expected.push(format!("h.{layer}.{name}.weight"));
            expected.push(format!("h.{layer}.{name}.bias"));
        }
    }
    expected.extend(["ln_f.weight".to_owned(), "ln_f.bias".to_owned()]);
    assert_eq!(paths, expected);
}

#[test]
fn presets_have_their_known_sizes() -> Result<()> {
    // nanoGPT prints 0.80M and 10.65M without positions; GPT-2 has 124,439,808 with them.
    for (name, vocab_size, positions, expected) in
        [("cpu", 65, 64 * 128, 0.80e6), ("baby", 65, 256 * 384, 10.65e6), ("gpt2", 50257, 0, 124.439808e6)]
    {
        let config = GptConfig::preset(name, vocab_size).unwrap();
        let count = Gpt::new(&config, &Generator::new(1))?.num_parameters() - positions;
        assert!((count as f64 / expected - 1.0).abs() < 0.01, "{name}: {count}");
    }
    assert!(GptConfig::PRESETS.iter().all(|name| GptConfig::preset(name, 65).is_some()));
    assert!(GptConfig::preset("gpt5", 65).is_none());
    Ok(())
}

#[test]
fn sizes_that_make_no_sense_are_named() {
    type Change = fn(&mut GptConfig);
    let cases: [(Change, &str); 3] = [
        (|c| c.n_layer = 0, "n_layer is 0"),
        (|c| c.n_head = 3, "n_embd 16 is no multiple of n_head 3"),
        (|c| c.dropout = 1.0, "dropout 1"),
    ];
    for (change, message) in cases {
        let mut config = config();
        change(&mut config);
        let error = Gpt::new(&config, &Generator::new(1)).unwrap_err();
        assert!(matches!(&error, Error::Configuration(text) if text.contains(message)), "{error}");
    }
}

#[test]
fn the_weights_begin_as_in_nanogpt() -> Result<()> {
    let config = GptConfig::preset("cpu", 65).unwrap();
    let model = Gpt::new(&config, &Generator::new(1))?;
    let std = |t: Tensor| t.square().mean().item::<f32>().map(f32::sqrt);
    assert!((std(model.h[0].attn.c_attn.weight.tensor())? / 0.02 - 1.0).abs() < 0.02);
    assert!((std(model.h[3].mlp.c_proj.weight.tensor())? / (0.02 / 8f32.sqrt()) - 1.0).abs() < 0.02);
    assert!((std(model.wte.weight.tensor())? / 0.02 - 1.0).abs() < 0.05);
    // Nothing is known yet: the loss is that of a uniform guess.
    let loss = model.loss(&tokens(&[1, 2, 3, 4, 5, 6]), &tokens(&[21, 22, 23, 24, 25, 26])).item::<f32>()?;
    assert!((loss - 65f32.ln()).abs() < 0.2, "{loss}");
    Ok(())
}

#[test]
fn what_comes_later_is_not_seen() -> Result<()> {
    let model = gpt(1);
    let (a, b) = (model.forward(&tokens(&[1, 2, 3, 4, 5])), model.forward(&tokens(&[1, 2, 3, 12, 0])));
    assert_eq!(a.shape().to_vec(), [1, 5, 13]);
    let (a, b) = (a.to_vec::<f32>()?, b.to_vec::<f32>()?);
    assert_eq!(a[..3 * 13], b[..3 * 13]);
    assert_ne!(a[3 * 13..], b[3 * 13..]);
    Ok(())
}

#[test]
fn attention_spelled_out_is_the_operation() -> Result<()> {
    let generator = Generator::new(4);
    let [q, k, v] = std::array::from_fn(|_| generator.randn([2, 3, 5, 4]));
    let spelled = attention_with_dropout(&q, &k, &v, &Dropout::new(0.0)).to_vec::<f32>()?;
    for (a, b) in spelled.iter().zip(causal_attention(&q, &k, &v).to_vec::<f32>()?) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
    Ok(())
}

#[test]
fn mistakes_in_the_input_come_out_with_their_place() {
    let model = gpt(1);
    let long = model.forward(&tokens(&[0; 9])).to_vec::<f32>().unwrap_err().to_string();
    assert!(long.contains("wpe") && long.contains("(8, 16)"), "{long}");
    let unknown = model.forward(&tokens(&[13])).to_vec::<f32>().unwrap_err().to_string();
    assert!(unknown.contains("13"), "{unknown}");
    let flat = model.forward(&Tensor::zeros([4], DType::I64)).to_vec::<f32>().unwrap_err().to_string();
    assert!(flat.contains("(4,)"), "{flat}");
}

#[test]
fn it_learns_a_cycle_by_heart_and_continues_it_beyond_its_context() -> Result<()> {
    let model = gpt(1);
    let mut optimizer = AdamW::new(&model).learning_rate(1e-2).group_where(|_, s| s.len() < 2, |g| g.weight_decay(0.0));
    let cycle = |start: i64, length: i64| (start..start + length).map(|i| i % 13).collect::<Vec<i64>>();
    let blocks = |shift| Tensor::from_vec((0..13i64).flat_map(|s| cycle(s + shift, 8)).collect::<Vec<i64>>(), [13, 8]);
    let (inputs, targets) = (blocks(0), blocks(1));
    let mut last = f32::MAX;
    for _ in 0..60 {
        let loss = model.train(|| model.loss(&inputs, &targets));
        optimizer.step(loss.backward()?)?;
        last = loss.item()?;
    }
    assert!(last < 0.05, "{last}");
    let expected: Vec<u32> = (4..34).map(|i| i % 13).collect();
    let generate = |prompt: &[u32], count| -> Result<Vec<u32>> {
        model.generate(prompt, &GenerateOptions::greedy(count))?.collect()
    };
    assert_eq!(generate(&[2, 3], 30)?, expected);
    let prompt: Vec<u32> = (0..20).map(|i| i % 13).collect();
    assert_eq!(generate(&prompt, 1)?, [20 % 13]);
    Ok(())
}

#[test]
fn samples_are_a_function_of_the_seed() -> Result<()> {
    let model = gpt(1);
    let draw = |seed| -> Result<Vec<u32>> {
        let options = GenerateOptions { temperature: 0.8, top_k: Some(5), seed, ..GenerateOptions::new(20) };
        model.generate(&[1], &options)?.collect()
    };
    assert_eq!(draw(3)?, draw(3)?);
    assert_ne!(draw(3)?, draw(4)?);
    assert!(no_grad(|| draw(3))?.iter().all(|&t| t < 13));
    Ok(())
}

#[test]
fn dropout_acts_in_training_only() -> Result<()> {
    let config = GptConfig { dropout: 0.5, ..config() };
    let model = Gpt::new(&config, &Generator::new(1))?;
    let x = tokens(&[1, 2, 3]);
    let run = || model.forward(&x).to_vec::<f32>();
    assert_eq!(model.eval(run)?, model.eval(run)?);
    assert_ne!(model.train(run)?, model.train(run)?);
    Ok(())
}

#[test]
fn an_mlp_learns_xor() -> Result<()> {
    let net = Mlp::new(&[2, 4, 1], Tensor::tanh, &Generator::new(2))?;
    let paths: Vec<String> = net.named_parameters().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]);
    let x = Tensor::from_vec(vec![0f32, 0., 0., 1., 1., 0., 1., 1.], [4, 2]);
    let y = Tensor::from_vec(vec![0f32, 1., 1., 0.], [4, 1]);
    let mut optimizer = AdamW::new(&net).learning_rate(0.05).weight_decay(0.0);
    let mut last = f32::MAX;
    for _ in 0..500 {
        let loss = net.forward(&x).mse_loss(&y);
        optimizer.step(loss.backward()?)?;
        last = loss.item()?;
    }
    assert!(last < 1e-3, "{last}");
    Ok(())
}
