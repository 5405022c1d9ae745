//! What each pass makes of one small model, as text. A change here is to be read: it says what became of a training step.

use expect_test::{Expect, expect};
use tapeflow::prelude::*;
use tapeflow::{Result, __test::dumped};

#[derive(Module)]
#[module(forward = |x| out(hidden(x).tanh()))]
struct Net {
    hidden: Linear,
    out: Linear,
}

fn net() -> Net {
    let layer = |inputs: usize, outputs: usize| {
        let values = (0..inputs * outputs).map(|i| i as f32 * 0.1).collect();
        Linear::from_tensors(Tensor::from_vec(values, [outputs, inputs]), Some(Tensor::zeros([outputs], DType::F32)))
    };
    Net { hidden: layer(3, 5).unwrap(), out: layer(5, 2).unwrap() }
}

/// The part of a dump that one pass wrote.
fn pass<'d>(dump: &'d str, name: &str) -> &'d str {
    let begin = dump.find(&format!("== {name}\n")).unwrap_or_else(|| panic!("no pass {name} in:\n{dump}"));
    let text = &dump[begin..];
    text[3..].find("== ").map_or(text, |end| &text[..end + 3])
}

fn check(dump: &str, expected: [(&str, Expect); 4]) {
    for (name, expected) in expected {
        expected.assert_eq(pass(dump, name));
    }
}

#[test]
fn the_passes_of_a_training_step() -> Result<()> {
    let net = net();
    let x = Tensor::from_vec((0..12).map(|i| i as f32).collect(), [4, 3]);
    let y = Tensor::from_vec(vec![1f32; 8], [4, 2]);
    let mut sgd = Sgd::new(&net).learning_rate(0.1);
    let (done, dump) = dumped(|| {
        let loss = net.forward(&x).mse_loss(&y);
        sgd.step(loss.backward()?)
    });
    done?;
    check(
        &dump,
        [("record", expect![]), ("differentiate", expect![]), ("fuse", expect![]), ("schedule", expect![])],
    );
    // The second step is the first one's program: no pass runs.
    let (done, dump) = dumped(|| {
        let loss = net.forward(&x).mse_loss(&y);
        sgd.step(loss.backward()?)
    });
    done?;
    assert_eq!(dump, "");
    Ok(())
}

#[test]
fn the_passes_of_a_row_kernel_and_a_lookup() -> Result<()> {
    let table = Tensor::from_vec((0..12).map(|i| i as f32).collect(), [4, 3]);
    let index = Tensor::from_vec(vec![3i64, 0], [2]);
    let (read, dump) = dumped(|| (table.embedding(&index).softmax(-1) * 2.0).t().to_vec::<f32>());
    assert_eq!(read?.len(), 6);
    check(
        &dump,
        [("record", expect![]), ("differentiate", expect![]), ("fuse", expect![]), ("schedule", expect![])],
    );
    Ok(())
}
