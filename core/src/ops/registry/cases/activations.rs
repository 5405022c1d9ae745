//! The activations' cases.

use super::super::{Domain, OpCase};
use super::{float, number, unary};

pub(super) fn cases() -> Vec<OpCase> {
    let away = || float("ab").within(Domain::BetweenIntegers);
    vec![
        unary("relu", number("ab").within(Domain::BetweenIntegers), 0.0, |t| t[0].relu()),
        unary("sigmoid", float("ab"), 4.0, |t| t[0].sigmoid()),
        // 1 + tanh cancels for negative x: up to 1/(1 + tanh(−1.6)) ≈ 25 units.
        unary("gelu", float("ab"), 64.0, |t| t[0].gelu()),
        unary("silu", float("ab"), 4.0, |t| t[0].silu()),
        unary("erf", float("ab"), 4.0, |t| t[0].erf()),
        // 1 + erf cancels for negative x: up to 1/(1 + erf(−√2)) ≈ 22 units.
        unary("gelu_erf", float("ab"), 64.0, |t| t[0].gelu_erf()),
        unary("leaky_relu", away(), 0.0, |t| t[0].leaky_relu(0.1)),
        unary("elu", away(), 4.0, |t| t[0].elu(0.7)),
        unary("selu", away(), 4.0, |t| t[0].selu()),
        unary("softplus", away(), 4.0, |t| t[0].softplus()),
        unary("log_sigmoid", away(), 4.0, |t| t[0].log_sigmoid()),
        unary("mish", away(), 16.0, |t| t[0].mish()),
        // x + 3 cancels near −3: up to 3/0.2 = 15 units.
        unary("hardsigmoid", away(), 16.0, |t| t[0].hardsigmoid()),
        unary("hardswish", away(), 16.0, |t| t[0].hardswish()),
    ]
}
