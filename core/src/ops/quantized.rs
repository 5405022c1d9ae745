//! Weights in eight bits: symmetric codes with one scale per row, and the product that reads them as they are.
//!
//! Dettmers et al. 2022, arXiv:2208.07339 (weights by row; activations stay floats here). Owns the code and the
//! primitive; that a parameter may be kept so is `parameter`'s.

use std::borrow::Cow;

use tapeflow_ir::DType;
use tapeflow_macros::kernel;

use super::kernel::{KernelOp, map};
use super::matmul::Matmul;
use super::{Flow, Primitive};
use crate::compile::fuse::Lower;
use crate::compile::world::Vjp;
use crate::device::Kind;
use crate::error::{Error, Problem, Result};
use crate::program::kernel::{self, Kernel};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// The code of zero.
const ZERO: f32 = 128.0;
/// How far codes go from there, either way.
const REACH: f32 = 127.0;

/// What the codes of a row are multiples of.
#[kernel]
fn int8_scale(largest: f32) -> f32 {
    if largest == 0.0 { 1.0 } else { largest / REACH }
}

/// The nearest code.
#[kernel]
fn int8_code(x: f32, scale: f32) -> f32 {
    (x / scale).round() + ZERO
}

/// What a code stands for.
#[kernel]
fn dequantize_int8(code: u8, scale: f32) -> f32 {
    (code as f32 - ZERO) * scale
}

/// `y[…, n] = scale[n] · Σₖ x[…, k] · (code[n, k] − 128)` of f32 rows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LinearInt8;

impl Primitive for LinearInt8 {
    fn name(&self) -> Cow<'static, str> {
        "linear_int8".into()
    }

    /// To the rows alone.
    fn flow(&self, input: usize, _: &[&TensorType]) -> Flow {
        if input == 0 { Flow::Carries } else { Flow::Stops }
    }

    /// `x̄ = ȳ w` with the weight's values.
    fn vjp(&self, cx: &mut Vjp<'_>) {
        if !cx.wants(0) {
            return;
        }
        let (codes, scales) = (cx.inputs[1], cx.inputs[2]);
        let ty = TensorType { shape: cx.input_shape(1), ..cx.world.ty[scales.index()].clone() };
        let values = KernelOp::template(dequantize_int8::TEMPLATE, 0);
        let weight = cx.world.push(values, &[codes, scales], ty);
        let (x, c) = (cx.input_shape(0), cx.cotangent);
        let ty = cx.world.with_shape(c, x);
        let value = cx.world.push(Matmul, &[c, weight], ty);
        cx.contribute(0, value);
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn is_saved(&self) -> bool {
        true
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let (x, codes) = (cx.input_ty(0).shape.clone(), cx.input_ty(1).shape.clone());
        let (n, k) = (codes[0], codes[1]);
        let m = x[..x.len() - 1].iter().product();
        let reads = vec![cx.stored(0), cx.stored(1), cx.stored(2)];
        cx.emit(Kernel::LinearInt8(kernel::LinearInt8 { m, n, k }), reads);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        Ok(inputs[0].linear_int8(inputs[1], inputs[2], ty))
    }
}

/// What is wrong with codes and their scales.
fn misfit(codes: &Tensor, scales: &Tensor) -> Option<Problem> {
    if codes.dtype() != DType::U8 {
        return Some(Problem::DType { found: codes.dtype(), wanted: "u8 for codes".into() });
    }
    if scales.dtype() != DType::F32 {
        return Some(Problem::DType { found: scales.dtype(), wanted: "f32 for scales".into() });
    }
    let one_per_row = match (codes.shape().split_last(), scales.shape().split_last()) {
        (Some((_, rows)), Some((&1, scales))) => rows == scales,
        _ => false,
    };
    let shapes = || [codes, scales].map(|t| t.shape().clone()).to_vec();
    let rule = "codes (…, K) and scales (…, 1) of the same rows are needed";
    (!one_per_row).then(|| Problem::Shapes { shapes: shapes(), rule: rule.into() })
}

impl Tensor {
    /// Codes of eight bits and one scale per row, from which [`Tensor::dequantize_int8`] makes nearly the same values:
    /// none is off by more than half a scale.
    ///
    /// # Shapes
    /// `(N, K)`, a float → codes `(N, K)`, u8, and scales `(N, 1)`, f32
    /// # Formula
    /// `scale[n] = maxₖ |x[n, k]| / 127`, `code[n, k] = round(x[n, k] / scale[n]) + 128`; a row of zeros has scale 1.
    /// # Example
    /// ```
    /// # use tapeflow_core::Tensor;
    /// let weight = Tensor::from_vec(vec![1.0f32, -2.0, 0.5, 0.0], [2, 2]);
    /// let (codes, scales) = weight.quantize_int8();
    /// assert_eq!(codes.to_vec::<u8>()?, [192, 1, 255, 128]);
    /// assert_eq!(scales.to_vec::<f32>()?, [2.0 / 127.0, 0.5 / 127.0]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn quantize_int8(&self) -> (Tensor, Tensor) {
        if self.ndim() != 2 || !self.dtype().is_float() {
            let problem = match self.ndim() {
                2 => Problem::DType { found: self.dtype(), wanted: "a float".into() },
                _ => Problem::Rank { shape: self.shape().clone(), wanted: 2 },
            };
            let error = Error::new("quantize_int8", problem, Site::here());
            let codes = TensorType { dtype: DType::U8, ..self.ty().clone() };
            let scales = TensorType { dtype: DType::F32, ..self.ty().clone() };
            let refused = |ty| Tensor::mistake_in(&[self], error.clone(), ty);
            return (refused(codes), refused(scales));
        }
        let x = self.cast(DType::F32);
        let [scales] = map(int8_scale::TEMPLATE, &[&x.abs().max_dim(-1, true)]);
        let [codes] = map(int8_code::TEMPLATE, &[&x, &scales]);
        (codes.cast(DType::U8), scales)
    }

    /// The values that codes and scales stand for; see [`Tensor::quantize_int8`].
    ///
    /// # Shapes
    /// codes `(…, K)`, u8, and scales `(…, 1)`, f32 → `(…, K)`, f32
    /// # Formula
    /// `x[…, k] = (code[…, k] − 128) · scale[…]`
    /// # Errors
    /// Shapes and dtypes that do not fit.
    #[track_caller]
    pub fn dequantize_int8(&self, scales: &Tensor) -> Tensor {
        if let Some(problem) = misfit(self, scales) {
            let error = Error::new("dequantize_int8", problem, Site::here());
            let ty = TensorType { dtype: DType::F32, ..self.ty().clone() };
            return Tensor::mistake_in(&[self, scales], error, ty);
        }
        let [values] = map(dequantize_int8::TEMPLATE, &[self, scales]);
        values
    }

    /// The product with a weight whose rows are kept in eight bits (see [`Tensor::quantize_int8`]), which reads a
    /// quarter of an f32 weight's bytes.
    ///
    /// # Shapes
    /// `x: (…, K)`, codes `(N, K)`, u8, scales `(N, 1)`, f32 → `(…, N)`, of `x`'s dtype
    /// # Formula
    /// `y[…, n] = scale[n] · Σₖ x[…, k] · (code[n, k] − 128)`
    /// # Numerics
    /// In f32; `k` over 16 lanes and a tree. Of f64, and on other devices than the CPU, it is the product with the
    /// values of [`Tensor::dequantize_int8`].
    /// # Gradient
    /// To `x` alone.
    /// # Errors
    /// Shapes and dtypes that do not fit.
    #[track_caller]
    pub fn linear_int8(&self, codes: &Tensor, scales: &Tensor) -> Tensor {
        let site = Site::here();
        let n = codes.shape().first().copied().unwrap_or(1);
        let problem = if !self.dtype().is_float() {
            Some(Problem::DType { found: self.dtype(), wanted: "a float".into() })
        } else if let Some(problem) = misfit(codes, scales) {
            Some(problem)
        } else if codes.ndim() != 2 || self.shape().last() != codes.shape().last() {
            let shapes = [self, codes, scales].map(|t| t.shape().clone()).to_vec();
            Some(Problem::Shapes { shapes, rule: "rows (…, K), codes (N, K) and scales (N, 1) are needed".into() })
        } else {
            None
        };
        if let Some(problem) = problem {
            let error = Error::new("linear_int8", problem, site);
            return Tensor::mistake_in(&[self, codes, scales], error, self.ty().clone());
        }
        if self.dtype() == DType::F64 || matches!(self.device().0, Kind::Driven(_)) {
            let weight = codes.dequantize_int8(scales).cast(self.dtype());
            return self.matmul(&weight.t());
        }
        let x = self.cast(DType::F32);
        let mut shape: Shape = self.shape().clone();
        if let Some(last) = shape.0.last_mut() {
            *last = n;
        }
        let ty = TensorType { shape, ..x.ty().clone() };
        Tensor::record_at(LinearInt8, &[&x, codes, scales], ty, site).cast(self.dtype())
    }
}
