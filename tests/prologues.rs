//! Groups that make an operand of one product as part of its step: the bits are those of groups and products apart, and
//! what others read is still there.

use tapeflow::prelude::*;
use tapeflow::{__test::dumped, Result, commit, without_fusion};

fn ramp(shape: &[usize], scale: f32) -> Tensor {
    let count: usize = shape.iter().product();
    let values = (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) * scale).collect();
    Tensor::from_vec(values, shape)
}

/// The values with fusion, which must be those without it, and how many operands were made by their products' steps.
fn fused(f: impl Fn() -> Result<Vec<Tensor>>) -> Result<(Vec<Vec<f32>>, usize)> {
    let read = || -> Result<Vec<Vec<f32>>> {
        let tensors = f()?;
        Tensor::realize_all(&tensors.iter().collect::<Vec<_>>())?;
        tensors.iter().map(|t| t.cast(DType::F32).to_vec::<f32>().map_err(Into::into)).collect()
    };
    let (values, dump) = dumped(read);
    let (values, apart) = (values?, without_fusion(read)?);
    let bits =
        |all: &[Vec<f32>]| -> Vec<Vec<u32>> { all.iter().map(|v| v.iter().map(|x| x.to_bits()).collect()).collect() };
    assert!(bits(&values) == bits(&apart), "fusion changed a bit");
    Ok((values, dump.matches("    first operand").count()))
}

#[test]
fn masked_weights_are_made_by_their_products() -> Result<()> {
    // Few rows and many; the weight of the first has more elements than are made at once.
    for (rows, inner, outer) in [(2, 256, 512), (5, 64, 48), (700, 96, 512)] {
        let (x, w) = (ramp(&[rows, inner], 0.01), ramp(&[outer, inner], 0.02));
        let mask = ramp(&[outer, inner], 1.0).gt(&Tensor::zeros([1], DType::F32)).cast(DType::F32);
        Tensor::realize_all(&[&mask])?;
        let (_, count) = fused(|| Ok(vec![x.matmul(&(&w * &mask).t())]))?;
        assert_eq!(count, 1, "a mask of {outer} x {inner}, {rows} rows");
    }
    Ok(())
}

#[test]
fn tall_inputs_are_made_by_their_products() -> Result<()> {
    let (x, w, b) = (ramp(&[3000, 200], 0.01), ramp(&[32, 200], 0.02), ramp(&[32], 0.1));
    let (_, count) = fused(|| Ok(vec![(x.square() + 1.0).sqrt().matmul(&w.t()) + &b]))?;
    assert_eq!(count, 1, "element by element");
    let (_, count) = fused(|| Ok(vec![x.softmax(-1).matmul(&w.t()) + &b]))?;
    assert_eq!(count, 1, "row by row");
    let (_, count) = fused(|| Ok(vec![x.relu().reshape([3, 1000, 200]).matmul(&w.t())]))?;
    assert_eq!(count, 1, "of three axes");
    Ok(())
}

#[test]
fn half_precision_is_reached_on_the_way() -> Result<()> {
    for half in [Precision::Bf16, Precision::F16] {
        for (rows, made) in [(1, 2), (4, 2), (600, 1)] {
            let (x, w) = (ramp(&[rows, 256], 0.01), ramp(&[384, 256], 0.02));
            let (_, count) = fused(|| Ok(vec![half.scope(|| x.matmul(&half.operand(&w).t()))]))?;
            assert!(count >= made, "{half:?}, {rows} rows: {count} operands are made");
        }
    }
    Ok(())
}

#[test]
fn what_others_read_is_stored() -> Result<()> {
    let (x, w) = (ramp(&[2, 256], 0.01), ramp(&[512, 256], 0.02));
    let (_, count) = fused(|| {
        let scaled = &w * 0.5;
        Ok(vec![x.matmul(&scaled.t()), scaled])
    })?;
    assert_eq!(count, 0, "the operand is a result too");
    let (_, count) = fused(|| {
        let scaled = (&w * 0.5).tanh();
        Ok(vec![x.matmul(&scaled.t()), (&x + 1.0).matmul(&scaled.t())])
    })?;
    assert!(count <= 1, "two products read the weight, {count} operands were made");
    let (_, count) = fused(|| {
        let square = ramp(&[64, 64], 0.01).tanh();
        Ok(vec![square.matmul(&square.t())])
    })?;
    assert_eq!(count, 0, "both operands are one");
    let (_, count) = fused(|| {
        let residual = x.tanh();
        Ok(vec![residual.matmul(&ramp(&[256, 256], 0.02)) + &residual])
    })?;
    assert_eq!(count, 0, "the epilogue reads the operand");
    Ok(())
}

#[test]
fn prologues_and_epilogues_share_a_step() -> Result<()> {
    let (x, w, b) = (ramp(&[900, 128], 0.01), ramp(&[128, 128], 0.02), ramp(&[128], 0.1));
    let y = ((&x * 0.5).sigmoid().matmul(&w.t()) + &b).softmax(-1);
    let (values, dump) = dumped(|| y.to_vec::<f32>());
    values?;
    assert!(dump.contains("    first operand"), "the product makes no operand:\n{dump}");
    assert!(dump.contains("    then group"), "nothing goes on with the product:\n{dump}");
    fused(|| Ok(vec![((&x * 0.5).sigmoid().matmul(&w.t()) + &b).softmax(-1)]))?;
    Ok(())
}

#[test]
fn an_update_leaves_what_a_prologue_reads() -> Result<()> {
    // The old weight is read by the prologue, line by line for each block, while other blocks are written.
    let step = |fuse: bool| -> Result<Vec<f32>> {
        let w = Parameter::new(ramp(&[128, 128], 0.02))?;
        let run = || -> Result<()> {
            for _ in 0..3 {
                let gradient = (w.tensor() * 0.5).tanh().matmul(&ramp(&[128, 128], 0.01));
                commit(&[(w.slot(), w.tensor() - gradient * 0.1)])?;
            }
            Ok(())
        };
        if fuse {
            run()?
        } else {
            without_fusion(run)?
        };
        Ok(w.tensor().to_vec()?)
    };
    assert_eq!(step(true)?, step(false)?);
    Ok(())
}

#[test]
fn gradients_through_masked_weights() -> Result<()> {
    let (x, y) = (ramp(&[64, 128], 0.01), ramp(&[64, 32], 0.03));
    fused(|| {
        let w = Parameter::new(ramp(&[32, 128], 0.02))?;
        let mask = ramp(&[32, 128], 1.0).gt(&Tensor::zeros([1], DType::F32)).cast(DType::F32);
        let loss = (x.relu().matmul(&(w.tensor() * mask).t()) - &y).square().mean();
        let gradients = loss.backward()?;
        Ok(vec![gradients.get(&w).expect("it is reached").clone(), loss])
    })?;
    Ok(())
}
