//! Tensors of any dtype from f64, and floats of any dtype back. Owns no test.

use tapeflow::{DType, Result, Tensor, bf16, f16};

/// A stored tensor of these values.
pub fn tensor(values: &[f64], dtype: DType, shape: &[usize]) -> Tensor {
    fn of<T: tapeflow::Element>(values: &[f64], shape: &[usize], f: impl Fn(f64) -> T) -> Tensor {
        Tensor::from_vec(values.iter().map(|&v| f(v)).collect(), shape)
    }
    match dtype {
        DType::Bool => of(values, shape, |v| v != 0.0),
        DType::U8 => of(values, shape, |v| v as u8),
        DType::I32 => of(values, shape, |v| v as i32),
        DType::U32 => of(values, shape, |v| v as u32),
        DType::I64 => of(values, shape, |v| v as i64),
        DType::F16 => of(values, shape, f16::from_f64),
        DType::BF16 => of(values, shape, bf16::from_f64),
        DType::F32 => of(values, shape, |v| v as f32),
        DType::F64 => of(values, shape, |v| v),
    }
}

/// The elements of a tensor of floats.
pub fn floats(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(match tensor.dtype() {
        DType::F16 => tensor.to_vec::<f16>()?.into_iter().map(f64::from).collect(),
        DType::BF16 => tensor.to_vec::<bf16>()?.into_iter().map(f64::from).collect(),
        DType::F32 => tensor.to_vec::<f32>()?.into_iter().map(f64::from).collect(),
        _ => tensor.to_vec::<f64>()?,
    })
}
