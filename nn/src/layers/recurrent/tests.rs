//! Recurrent networks: what they refuse, how they are saved, and that they learn.

use tapeflow_core::{DType, Device, Generator, Tensor};

use super::{Gru, Lstm, Nonlinearity, Rnn};
use crate::error::Result;
use crate::layers::{Dropout, Embedding, Linear};
use crate::module::{Forward, Module, ModuleExt, Visitor};
use crate::optim::{AdamW, Optimizer};

#[test]
fn parameters_have_pytorchs_names_and_shapes() -> Result<()> {
    let generator = Generator::new(1);
    let lstm = Lstm::drawn(3, 5, 2, true, &generator)?;
    let found: Vec<(String, Vec<usize>)> =
        lstm.named_parameters().into_iter().map(|(path, p)| (path, p.tensor().shape().to_vec())).collect();
    let names: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names[..5], ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0", "weight_ih_l0_reverse"]);
    assert_eq!((names.len(), names[15]), (16, "bias_hh_l1_reverse"));
    assert_eq!((&found[0].1, &found[8].1), (&vec![20, 3], &vec![20, 10]));
    assert_eq!(Gru::drawn(3, 5, 1, false, &generator)?.bias(false).num_parameters(), 15 * 3 + 15 * 5);
    let bound = 1.0 / 5f32.sqrt();
    assert!(lstm.parameters()[0].tensor().to_vec::<f32>()?.iter().all(|w| w.abs() <= bound));
    Ok(())
}

#[test]
fn other_shapes_are_refused() -> Result<()> {
    let generator = Generator::new(1);
    let (rnn, lstm) = (Rnn::new(3, 4)?.nonlinearity(Nonlinearity::Relu), Lstm::new(3, 4)?);
    let said = |t: Tensor| t.to_vec::<f32>().unwrap_err().to_string();
    let error = said(rnn.forward(&generator.randn([2, 5, 4])));
    assert!(error.contains("Rnn") && error.contains("(2, 5, 4)") && error.contains("(items, time, 3)"), "{error}");
    assert!(said(rnn.forward(&generator.randn([5, 3]))).contains("(items, time, 3)"));
    let x = generator.randn([2, 5, 3]);
    let short = Tensor::zeros([1, 3, 4], DType::F32);
    assert!(said(lstm.run(&x, Some((&short, &short))).1.1).contains("[1, 2, 4]"));
    Ok(())
}

#[test]
fn dropout_is_between_layers_and_in_training_only() -> Result<()> {
    let generator = Generator::new(4);
    let gru = Gru::drawn(3, 8, 2, false, &generator)?.dropout(Dropout::new(0.5).generator(&generator));
    let x = generator.randn([2, 5, 3]);
    x.realize()?;
    let run = || gru.forward(&x).to_vec::<f32>();
    assert_eq!(gru.eval(run)?, gru.eval(run)?);
    assert_ne!(gru.train(run)?, gru.train(run)?);
    let one = Gru::drawn(3, 8, 1, false, &generator)?.dropout(Dropout::new(0.5).generator(&generator));
    let run = || one.forward(&x).to_vec::<f32>();
    assert_eq!(one.train(run)?, one.eval(run)?);
    Device::reference().scope(|| -> Result<()> {
        let small = Rnn::drawn(2, 3, 1, true, &generator)?;
        assert_eq!(small.forward(&generator.randn([1, 3, 2])).to_vec::<f32>()?.len(), 18);
        Ok(())
    })
}

/// Reads characters and says which comes next.
struct Reader {
    embedding: Embedding,
    lstm: Lstm,
    head: Linear,
}

impl Module for Reader {
    fn visit(&self, visitor: &mut dyn Visitor) {
        for (name, module) in
            [("embedding", &self.embedding as &dyn Module), ("lstm", &self.lstm), ("head", &self.head)]
        {
            visitor.enter(name);
            module.visit(visitor);
            visitor.leave();
        }
    }
}

#[test]
fn an_lstm_learns_to_count() -> Result<()> {
    // What comes next in "abcabbcabbbc…" can be told only by who remembers how many b there were.
    let text: Vec<i64> = (1..6).cycle().take(40).flat_map(|n| [vec![0], vec![1; n], vec![2]].concat()).collect();
    let generator = Generator::new(7);
    let net = Reader {
        embedding: Embedding::drawn(3, 8, 1.0, &generator)?,
        lstm: Lstm::drawn(8, 24, 1, false, &generator)?,
        head: Linear::drawn(24, 3, &generator)?,
    };
    let block = 25; // one round
    let cut = |shift: usize| {
        let values: Vec<i64> = (0..4).flat_map(|i| text[i * 7 + shift..][..2 * block].to_vec()).collect();
        Tensor::from_vec(values, [4, 2 * block])
    };
    let (inputs, targets) = (cut(0), cut(1));
    let logits = || net.head.forward(&net.lstm.forward(&net.embedding.forward(&inputs)));
    let loss = || logits().reshape([-1, 3]).cross_entropy(&targets.reshape([-1]));
    let mut optimizer = AdamW::new(&net).learning_rate(2e-2);
    let first = loss().item::<f32>()?;
    for _ in 0..150 {
        optimizer.step(loss().backward()?.clip_norm(1.0).0)?;
    }
    // In the second round the place in it is known: every character is.
    let found = logits().slice(1, block..).argmax(-1, false).to_vec::<i64>()?;
    let wanted = targets.slice(1, block..).to_vec::<i64>()?;
    let right = found.iter().zip(&wanted).filter(|(a, b)| a == b).count();
    let last = loss().item::<f32>()?;
    assert!(first > 0.9 && last < 0.15, "the loss went from {first} to {last}");
    assert!(right * 100 >= 97 * wanted.len(), "{right} of {} characters", wanted.len());
    Ok(())
}
