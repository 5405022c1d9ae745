//! Methods that are decomposed.

use expect_test::expect;

use super::template;

#[test]
fn methods_are_decomposed() {
    template(
        "fn methods(x: f32, y: f32) -> f32 { x.powi(5) + y.powi(-2) + x.clamp(0.0, 1.0) + f32::max(x, y).recip() }",
        expect![[r#"
            Input(0)
            Input(1)
            Binary(Binary::Mul, 0, 0)
            Binary(Binary::Mul, 2, 2)
            Binary(Binary::Mul, 0, 3)
            Binary(Binary::Mul, 1, 1)
            Float(1.0)
            Binary(Binary::Div, 6, 5)
            Binary(Binary::Add, 4, 7)
            Float(0.0)
            Float(1.0)
            Binary(Binary::Max, 0, 9)
            Binary(Binary::Min, 11, 10)
            Binary(Binary::Add, 8, 12)
            Binary(Binary::Max, 0, 1)
            Float(1.0)
            Binary(Binary::Div, 15, 14)
            Binary(Binary::Add, 13, 16)]
            outputs: [17]
        "#]],
    );
    template(
        "fn signum(x: f64, n: i32) -> f64 { x.signum() + n.signum() as f64 }",
        expect![[r#"
        Input(0)
        Input(1)
        Float(1.0)
        Binary(Binary::Copysign, 2, 0)
        Compare(Compare::Ne, 0, 0)
        Select(4, 0, 3)
        Unary(Unary::Sign, 1)
        Cast(6, Hole::Kernel)
        Binary(Binary::Add, 5, 7)]
        outputs: [8]
    "#]],
    );
    template(
        "fn hypot(x: f32, y: f32) -> f32 { x.hypot(y) }",
        expect![[r#"
        Input(0)
        Input(1)
        Unary(Unary::Abs, 0)
        Unary(Unary::Abs, 1)
        Binary(Binary::Max, 2, 3)
        Float(0.0)
        Float(1.0)
        Float(:: core::primitive::f64::INFINITY)
        Compare(Compare::Eq, 4, 5)
        Compare(Compare::Eq, 4, 7)
        Binary(Binary::Or, 8, 9)
        Select(10, 6, 4)
        Detach(11)
        Binary(Binary::Div, 0, 12)
        Binary(Binary::Div, 1, 12)
        Binary(Binary::Mul, 13, 13)
        Binary(Binary::Mul, 14, 14)
        Binary(Binary::Add, 15, 16)
        Unary(Unary::Sqrt, 17)
        Binary(Binary::Mul, 12, 18)]
        outputs: [19]
    "#]],
    );
    template(
        "fn asinh(x: f32) -> f32 { x.asinh() }",
        expect![[r#"
        Input(0)
        Float(1.0)
        Binary(Binary::Copysign, 1, 0)
        Detach(2)
        Binary(Binary::Mul, 0, 3)
        Float(1000000000.0)
        Compare(Compare::Gt, 4, 5)
        Select(6, 1, 4)
        Binary(Binary::Mul, 7, 7)
        Binary(Binary::Add, 1, 8)
        Unary(Unary::Sqrt, 9)
        Binary(Binary::Add, 1, 10)
        Binary(Binary::Div, 8, 11)
        Binary(Binary::Add, 7, 12)
        Unary(Unary::Ln1p, 13)
        Select(6, 4, 1)
        Unary(Unary::Ln, 15)
        Float(0.6931471805599453)
        Binary(Binary::Add, 16, 17)
        Select(6, 18, 14)
        Binary(Binary::Mul, 3, 19)]
        outputs: [20]
    "#]],
    );
}
