//! Mathematics that the standard library lacks, in f64 and for accuracy rather than speed.

use std::f64::consts::FRAC_2_SQRT_PI;

/// The error function, within about one unit in the last place.
///
/// # Formula
/// Abramowitz & Stegun 1964: below 1 the series 7.1.5, `2/√π · Σ (−1)ⁿ x²ⁿ⁺¹ / (n! (2n + 1))`; from 1 on `1 − erfc(x)`,
/// with `erfc` by the continued fraction 7.1.14; from 6 on 1.
///
/// ```
/// assert!((tapeflow_ir::math::erf(0.5) - 0.520499877813046537).abs() < 2e-16);
/// ```
pub fn erf(x: f64) -> f64 {
    let magnitude = x.abs();
    if magnitude.is_nan() {
        x
    } else if magnitude < 1.0 {
        erf_series(magnitude).copysign(x)
    } else if magnitude < 6.0 {
        (1.0 - erfc_fraction(magnitude)).copysign(x)
    } else {
        1f64.copysign(x)
    }
}

/// Twenty terms: at 1 the next one is below 1e-19. Summed from the small end.
fn erf_series(x: f64) -> f64 {
    const TERMS: i32 = 20;
    let square = x * x;
    let mut sum = 0.0;
    // Horner's rule on Σ tₙ / (2n + 1), tₙ = −x²/n · tₙ₋₁.
    for n in (1..=TERMS).rev() {
        sum = -square / f64::from(n) * (1.0 / f64::from(2 * n + 1) + sum);
    }
    // The sum is below 0.26 in magnitude, so its own rounding is damped.
    (x + x * sum) * FRAC_2_SQRT_PI
}

/// `e^(−x²)/√π · 1/(x + ½/(x + 1/(x + 3/2/(x + …))))` for x ≥ 1, from the inside out. Its relative error falls as
/// `exp(−2x√(2n))` with `n` levels, and what remains is damped by `erfc(x) ≤ 0.16` when subtracted from 1.
fn erfc_fraction(x: f64) -> f64 {
    let levels = (12.0 + 160.0 / (x * x)) as u32;
    let fraction = (1..=levels).rev().fold(x, |inner, level| x + 0.5 * f64::from(level) / inner);
    (-x * x).exp() * 0.5 * FRAC_2_SQRT_PI / fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the series 7.1.5 in sixty decimal digits.
    const TABLE: [(f64, f64); 22] = [
        (1e-08, 1.1283791670955126e-08),
        (0.01, 0.011283415555849618),
        (0.125, 0.1403162048013338),
        (0.25, 0.27632639016823696),
        (0.5, 0.5204998778130465),
        (0.625, 0.623240882188418),
        (0.75, 0.7111556336535151),
        (0.875, 0.7840750610598597),
        (0.96875, 0.8293191505933152),
        (0.9999, 0.8426592780487595),
        (1.0, 0.8427007929497149),
        (1.0625, 0.8670582694349528),
        (1.25, 0.9229001282564583),
        (1.5, 0.9661051464753108),
        (1.75, 0.9866716712191824),
        (2.0, 0.9953222650189527),
        (2.5, 0.999593047982555),
        (3.0, 0.9999779095030014),
        (3.5, 0.9999992569016276),
        (4.0, 0.9999999845827421),
        (5.0, 0.9999999999984626),
        (5.75, 0.9999999999999996),
    ];

    #[test]
    fn erf_against_table() {
        for (x, expected) in TABLE {
            let tolerance = 1.5 * f64::EPSILON * expected;
            assert!((erf(x) - expected).abs() <= tolerance, "erf({x}) = {} not {expected}", erf(x));
            assert_eq!(erf(-x).to_bits(), (-erf(x)).to_bits());
        }
    }

    #[test]
    fn erf_at_the_ends() {
        assert_eq!(erf(0.0).to_bits(), 0.0f64.to_bits());
        assert_eq!(erf(-0.0).to_bits(), (-0.0f64).to_bits());
        assert_eq!(erf(f64::INFINITY), 1.0);
        assert_eq!(erf(f64::NEG_INFINITY), -1.0);
        assert!(erf(f64::NAN).is_nan());
        assert!(erf(1e-310) > 0.0);
    }

    /// No jump where the formulas meet.
    #[test]
    fn erf_is_continuous_and_monotonic() {
        let mut last = erf(0.0);
        for step in 1..70_000 {
            let next = erf(f64::from(step) * 1e-4);
            assert!(next >= last - 2.0 * f64::EPSILON, "at step {step}");
            last = next;
        }
    }
}
