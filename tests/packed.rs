//! Weights in panels: their values, what reads them, what is refused, and a model that generates with them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tapeflow::prelude::*;
use tapeflow::{Result, capture, commit, memory_report, reset_memory_peak};

/// Memory is the process's: one test of them counts it, so all run one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static SERIAL: Mutex<()> = Mutex::new(());
    SERIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn drawn(seed: u64, shape: [usize; 2]) -> Tensor {
    Generator::new(seed).randn(shape)
}

/// Bits that show every difference.
fn bits(x: &Tensor) -> Result<Vec<u64>> {
    Ok(x.cast(DType::F64).to_vec::<f64>()?.into_iter().map(f64::to_bits).collect())
}

#[test]
fn products_have_the_bits_of_those_with_rows() -> Result<()> {
    let _alone = alone();
    for dtype in [DType::F32, DType::BF16, DType::F16, DType::F64] {
        for (n, k) in [(1, 1), (16, 16), (17, 2), (40, 5), (300, 48), (33, 193), (64, 400), (700, 31)] {
            let weight = drawn(1, [n, k]).cast(dtype);
            let panels = weight.prepack();
            assert_eq!(panels.shape()[0], n.div_ceil(16), "{dtype}, {n} rows");
            assert_eq!(bits(&panels.unpack(n))?, bits(&weight)?, "{dtype}, {n} rows of {k}");
            panels.realize()?;
            for m in [1, 3, 8, 9, 70] {
                let x = drawn(m as u64, [m, k]).cast(dtype);
                let (found, wanted) = (bits(&x.linear_packed(&panels, n))?, bits(&x.matmul(&weight.t()))?);
                assert_eq!(found, wanted, "{dtype}: {m} rows, weight ({n}, {k})");
            }
        }
    }
    Ok(())
}

#[test]
fn rows_may_lie_anyhow() -> Result<()> {
    let _alone = alone();
    let (weight, x) = (drawn(1, [50, 24]), Generator::new(2).randn([3, 5, 2, 24]));
    let panels = weight.prepack();
    Tensor::realize_all(&[&panels, &x])?;
    for x in [x.transpose(0, 2), x.slice(1, 2..4), x.slice(3, ..).transpose(1, 2), x.slice(0, 1..2), x.slice(1, 0..0)] {
        assert_eq!(bits(&x.linear_packed(&panels, 50))?, bits(&x.matmul(&weight.t()))?, "{}", x.shape());
    }
    let turned = Generator::new(3).randn([24, 7]).t();
    assert_eq!(bits(&turned.linear_packed(&panels, 50))?, bits(&turned.matmul(&weight.t()))?);
    let single = Generator::new(4).randn([24]);
    assert_eq!(bits(&single.linear_packed(&panels, 50))?, bits(&weight.matmul(&single))?);
    Ok(())
}

#[test]
fn a_packed_parameter_has_its_values_and_is_not_trained() -> Result<()> {
    let _alone = alone();
    let weight = Parameter::new(drawn(1, [7, 33]))?;
    let before = bits(&weight.tensor())?;
    weight.prepack()?;
    assert!(weight.is_packed() && !weight.is_trainable() && !weight.is_quantized());
    assert_eq!((weight.tensor().dims(), weight.tensor().dtype()), ([7, 33], DType::F32));
    assert_eq!(bits(&weight.tensor())?, before);
    weight.prepack()?;
    assert_eq!(bits(&weight.tensor())?, before);
    // Codes are made of the values.
    weight.quantize_int8()?;
    assert!(weight.is_quantized() && !weight.is_packed());
    weight.prepack()?;
    assert!(weight.is_quantized(), "eight bits stay");
    weight.set(&Tensor::ones([7, 33], DType::F32))?;
    assert!(!weight.is_packed() && !weight.is_quantized());
    Ok(())
}

#[test]
fn layers_read_panels_as_they_are() -> Result<()> {
    let _alone = alone();
    let (layer, table) = (Linear::new(300, 405)?, Embedding::new(405, 300)?);
    let x = drawn(2, [3, 300]);
    let index = Tensor::from_vec(vec![5i64, 404, 0, -1, -405, 17], [2, 3]);
    let run = || (layer.forward(&x), table.forward(&index));
    let whole = run();
    Tensor::realize_all(&[&x, &index, &whole.0, &whole.1])?;
    assert_eq!((layer.prepack("weight")?, table.prepack("weight")?), (1, 1));
    reset_memory_peak();
    let before = memory_report().peak;
    let (y, rows) = run();
    let (y, rows) = (bits(&y)?, bits(&rows)?);
    let used = memory_report().peak - before;
    assert!(used < 300 * 400, "{used} bytes: a weight was made whole");
    assert_eq!((y, rows), (bits(&whole.0)?, bits(&whole.1)?));
    Ok(())
}

#[test]
fn gradients_flow_to_rows_and_to_panels() -> Result<()> {
    let _alone = alone();
    let x = Parameter::new(drawn(4, [2, 6]))?;
    for dtype in [DType::F32, DType::BF16] {
        let panels = Parameter::new(drawn(3, [19, 6]).cast(dtype).prepack())?;
        let y = x.tensor().cast(dtype).linear_packed(&panels.tensor(), 19);
        let gradients = y.square().sum().backward()?;
        let spelled = x.tensor().cast(dtype).matmul(&panels.tensor().unpack(19).t()).square().sum().backward()?;
        for parameter in [&x, &panels] {
            let of = |gradients: &tapeflow::Gradients| gradients.get(parameter).map(|g| g.cast(DType::F32));
            let (found, wanted) = (of(&gradients).unwrap().to_vec::<f32>()?, of(&spelled).unwrap().to_vec::<f32>()?);
            for (a, b) in found.iter().zip(&wanted) {
                assert!((a - b).abs() < 1e-4 * b.abs().max(1.0), "{a} and {b}");
            }
        }
    }
    let weight = Parameter::new(drawn(3, [19, 6]))?;
    weight.prepack()?;
    assert!(weight.linear(&x.tensor()).sum().backward()?.get(&weight).is_none(), "it is kept for inference");
    Ok(())
}

#[test]
fn what_cannot_be_is_said() -> Result<()> {
    let _alone = alone();
    let said = |r: tapeflow::Result<()>| r.unwrap_err().to_string();
    let bias = Parameter::new(Tensor::zeros([3], DType::F32))?;
    assert!(said(bias.prepack().map_err(Into::into)).contains("(3,)"));
    let weight = Parameter::new(drawn(5, [20, 2]))?;
    weight.prepack()?;
    let update = commit(&[(weight.slot(), drawn(6, [20, 2]))]);
    assert!(said(update.map_err(Into::into)).contains("packed"));
    assert!(said(weight.freeze(false).map_err(Into::into)).contains("packed"));
    weight.freeze(true)?;
    let short = weight.linear(&Tensor::ones([1, 3], DType::F32)).to_vec::<f32>();
    let message = said(short.map(drop).map_err(Into::into));
    assert!(message.contains("(20, 3)") && message.contains("linear_packed"), "{message}");
    let other = weight.linear(&Tensor::ones([1, 2], DType::F64)).to_vec::<f64>();
    assert!(said(other.map(drop).map_err(Into::into)).contains("f64"));
    // Between the last row and the end of its panel.
    for index in [20i64, -21] {
        let rows = weight.rows(&Tensor::from_vec(vec![index], [1])).to_vec::<f32>();
        let message = said(rows.map(drop).map_err(Into::into));
        assert!(message.contains(&format!("{index}")) && message.contains("20"), "{message}");
    }
    let panels = drawn(7, [20, 2]).prepack();
    assert!(said(panels.unpack(40).realize().map_err(Into::into)).contains("40"));
    Ok(())
}

#[test]
fn a_captured_step_reads_panels() -> Result<()> {
    let _alone = alone();
    let weight = Parameter::new(Tensor::ones([1, 2], DType::F32))?;
    weight.prepack()?;
    let (x, total) = (Tensor::ones([1, 2], DType::F32), Parameter::new(Tensor::zeros([1, 1], DType::F32))?);
    let mut step = capture(&[&x], |inputs| {
        let y = weight.linear(&inputs[0]);
        commit(&[(total.slot(), total.tensor() + &y)])?;
        Ok::<_, tapeflow::Error>(vec![y])
    })?;
    step.run(&[&x])?;
    assert_eq!(step.to_vec::<f32>(0)?, [2.0]);
    weight.set(&Tensor::from_vec(vec![6.0f32, 3.0], [1, 2]))?;
    weight.prepack()?;
    step.run(&[&x])?;
    assert_eq!(step.to_vec::<f32>(0)?, [9.0]);
    // What the step was made for is not what is there.
    weight.set(&Tensor::from_vec(vec![6.0f32, 3.0], [1, 2]))?;
    assert!(step.run(&[&x]).is_err());
    Ok(())
}

#[test]
fn a_packed_model_says_the_same() -> Result<()> {
    let _alone = alone();
    let config = GptConfig { block_size: 32, ..GptConfig::preset("tiny", 65).unwrap() };
    for dtype in [DType::F32, DType::BF16] {
        let model = Gpt::new(&config, &Generator::new(1))?;
        model.to(dtype)?;
        let tokens = Generator::new(2).randint(0, 65, [2, 20]);
        let logits = || model.eval(|| bits(&model.forward(&tokens)));
        let state = || model.state().iter().map(|(_, tensor)| bits(tensor)).collect::<Result<Vec<_>>>();
        let (before, values) = (logits()?, state()?);
        model.prepack()?;
        assert_eq!((logits()?, state()?), (before, values), "{dtype}");
        let (mut cached, mut anew) = (GenerateOptions::greedy(40), GenerateOptions::greedy(40));
        (cached.cache, anew.cache) = (true, false);
        let generate = |how: &GenerateOptions| model.generate(&[1, 2, 3], how)?.collect::<Result<Vec<u32>>>();
        assert_eq!(generate(&cached)?, generate(&anew)?, "{dtype}");
        // It can be read anew, and is then as any.
        model.to(DType::F32)?;
        let packed = |(_, p): &(String, Parameter)| p.is_packed();
        assert!(!model.named_parameters().iter().any(packed));
    }
    Ok(())
}
