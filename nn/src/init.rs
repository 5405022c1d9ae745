//! How parameters begin: the initialisers by the names their papers gave them.
//!
//! Weights are `(out, in, …)`: fan-in is the product of all extents but the first, fan-out that of all but the second.
//! Random ones draw from the generator they are given and from nothing else.

use tapeflow_core::{DType, Generator, Shape, Tensor};

/// All zeros.
pub fn zeros(shape: impl Into<Shape>) -> Tensor {
    Tensor::zeros(shape, DType::F32)
}

/// All ones.
pub fn ones(shape: impl Into<Shape>) -> Tensor {
    Tensor::ones(shape, DType::F32)
}

/// The same value everywhere.
pub fn constant(shape: impl Into<Shape>, value: f64) -> Tensor {
    Tensor::full(shape, value, DType::F32)
}

/// Normal with mean 0 and standard deviation `std`.
pub fn normal(shape: impl Into<Shape>, std: f64, generator: &Generator) -> Tensor {
    generator.randn(shape) * std
}

/// Uniform in `[low, high)`.
pub fn uniform(shape: impl Into<Shape>, low: f64, high: f64, generator: &Generator) -> Tensor {
    generator.rand(shape) * (high - low) + low
}

/// Normal with mean 0 and standard deviation `std`, cut at two standard deviations by inverting the distribution
/// function.
///
/// # Formula
/// `x = std · √2 · erf⁻¹(2u − 1)` with u uniform in `[Φ(−2), Φ(2))`; `erf⁻¹` by Giles 2012, "Approximating the erfinv
/// function", whose error is below 4e-7 here.
pub fn trunc_normal(shape: impl Into<Shape>, std: f64, generator: &Generator) -> Tensor {
    // 2 Φ(2) − 1 = erf(√2)
    const REACH: f64 = 0.954_499_736_103_641_6;
    let y = uniform(shape, -REACH, REACH, generator);
    // |y| ≤ 0.9545 keeps w = −ln(1 − y²) below 2.42, where the first of the paper's two polynomials holds (w < 5).
    let w = (-y.square()).log1p() * -1.0 - 2.5;
    let coefficients = [
        3.43273939e-07,
        -3.5233877e-06,
        -4.39150654e-06,
        0.00021858087,
        -0.00125372503,
        -0.00417768164,
        0.246640727,
        1.50140941,
    ];
    let p = coefficients.iter().fold(Tensor::host(2.81022636e-08, DType::F32), |p, &c| p * &w + c);
    (p * y * (std * std::f64::consts::SQRT_2)).clamp(-2.0 * std, 2.0 * std)
}

/// Uniform in ±`gain · √(6 / (fan_in + fan_out))`. Glorot & Bengio 2010, "Understanding the difficulty of training deep
/// feedforward neural networks".
pub fn xavier_uniform(shape: impl Into<Shape>, gain: f64, generator: &Generator) -> Tensor {
    let shape = shape.into();
    let (fan_in, fan_out) = fans(&shape);
    let bound = gain * (6.0 / (fan_in + fan_out)).sqrt();
    uniform(shape, -bound, bound, generator)
}

/// Normal with standard deviation `gain · √(2 / (fan_in + fan_out))`. Glorot & Bengio 2010.
pub fn xavier_normal(shape: impl Into<Shape>, gain: f64, generator: &Generator) -> Tensor {
    let shape = shape.into();
    let (fan_in, fan_out) = fans(&shape);
    normal(shape, gain * (2.0 / (fan_in + fan_out)).sqrt(), generator)
}

/// Uniform in ±`√(6 / ((1 + a²) fan_in))`, for a leaky ReLU of slope `a` (0: ReLU). He et al. 2015, arXiv:1502.01852.
pub fn kaiming_uniform(shape: impl Into<Shape>, a: f64, generator: &Generator) -> Tensor {
    let shape = shape.into();
    let bound = (6.0 / ((1.0 + a * a) * fans(&shape).0)).sqrt();
    uniform(shape, -bound, bound, generator)
}

/// Normal with standard deviation `√(2 / ((1 + a²) fan_in))`, for a leaky ReLU of slope `a`. He et al. 2015.
pub fn kaiming_normal(shape: impl Into<Shape>, a: f64, generator: &Generator) -> Tensor {
    let shape = shape.into();
    let std = (2.0 / ((1.0 + a * a) * fans(&shape).0)).sqrt();
    normal(shape, std, generator)
}

/// Fan-in and fan-out; at least 1 each, so that an empty or one-dimensional weight has finite bounds.
fn fans(shape: &[usize]) -> (f64, f64) {
    let field: usize = shape.iter().skip(2).product();
    let first = shape.first().copied().unwrap_or(1);
    let second = shape.get(1).copied().unwrap_or(1);
    (((second * field) as f64).max(1.0), ((first * field) as f64).max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean, standard deviation, smallest, largest.
    fn moments(t: &Tensor) -> [f64; 4] {
        let v: Vec<f64> = t.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect();
        let mean = v.iter().sum::<f64>() / v.len() as f64;
        let std = (v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64).sqrt();
        let (low, high) = v.iter().fold((f64::MAX, f64::MIN), |(l, h), &x| (l.min(x), h.max(x)));
        [mean, std, low, high]
    }

    #[test]
    fn random_values_have_the_moments_their_papers_give() {
        let shape = [300, 100];
        let (fan_in, fan_out) = (100f64, 300f64);
        let g = Generator::new(5);
        let g = &g;
        let bounded = |bound: f64| (bound / 3f64.sqrt(), bound);
        let unbounded = |std: f64| (std, 6.0 * std);
        for (name, tensor, (std, bound)) in [
            ("normal", normal(shape, 0.02, g), unbounded(0.02)),
            ("uniform", uniform(shape, -0.5, 0.5, g), bounded(0.5)),
            ("xavier_uniform", xavier_uniform(shape, 2.0, g), bounded(2.0 * (6.0 / (fan_in + fan_out)).sqrt())),
            ("xavier_normal", xavier_normal(shape, 1.0, g), unbounded((2.0 / (fan_in + fan_out)).sqrt())),
            ("kaiming_uniform", kaiming_uniform(shape, 5f64.sqrt(), g), bounded(1.0 / fan_in.sqrt())),
            ("kaiming_normal", kaiming_normal(shape, 0.0, g), unbounded((2.0 / fan_in).sqrt())),
            // The standard deviation of a normal cut at ±2 is 0.87962566 of the whole one's.
            ("trunc_normal", trunc_normal(shape, 3.0, g), (3.0 * 0.87962566, 6.0)),
        ] {
            let [mean, found, low, high] = moments(&tensor);
            assert!(mean.abs() < 0.03 * std, "{name}: mean {mean}");
            assert!((found / std - 1.0).abs() < 0.02, "{name}: standard deviation {found}, not {std}");
            assert!(-bound <= low && high <= bound, "{name}: {low} to {high}, beyond {bound}");
        }
    }

    #[test]
    fn constants_and_fans() {
        assert_eq!(moments(&constant([3, 2], 1.5)), [1.5, 0.0, 1.5, 1.5]);
        assert_eq!(moments(&zeros([4]))[3] + moments(&ones([4]))[2], 1.0);
        assert_eq!(fans(&[8, 3, 5, 5]), (75.0, 200.0));
        assert_eq!(fans(&[7]), (1.0, 7.0));
        assert_eq!(fans(&[0, 0]), (1.0, 1.0));
    }
}
