//! Scalar kernels.

use expect_test::expect;

use super::{kernel, template};
use crate::snapshot::check;

#[test]
fn the_whole_expansion() {
    check(
        kernel,
        "/// y = x · σ(x)
        #[kernel_doc]
        pub fn silu(x: f32) -> f32 { x / (1.0 + (-x).exp()) }",
        expect![[r#"
            /// y = x · σ(x)
            #[kernel_doc]
            pub fn silu(x: f32) -> f32 {
                x / (1.0 + (-x).exp())
            }
            /// The kernel `silu` as a template, and mapped over tensors.
            #[allow(non_camel_case_types, dead_code)]
            pub enum silu {}
            #[allow(dead_code)]
            impl silu {
                /// What devices and derivatives are made from.
                pub const TEMPLATE: &'static ::tapeflow::__macro::ir::Template = {
                    use ::tapeflow::__macro::ir as __ir;
                    #[allow(
                        clippy::approx_constant,
                        clippy::excessive_precision,
                        clippy::unnecessary_cast
                    )]
                    static TEMPLATE: __ir::Template = __ir::Template {
                        name: "silu",
                        row: false,
                        inputs: &[
                            __ir::TemplateInput {
                                name: "x",
                                ty: __ir::Hole::Kernel,
                                extent: __ir::Extent::Lane,
                            },
                        ],
                        rows: &[
                            __ir::TemplateRow::Input(0),
                            __ir::TemplateRow::Float(1.0),
                            __ir::TemplateRow::Unary(__ir::Unary::Neg, 0),
                            __ir::TemplateRow::Unary(__ir::Unary::Exp, 2),
                            __ir::TemplateRow::Binary(__ir::Binary::Add, 1, 3),
                            __ir::TemplateRow::Binary(__ir::Binary::Div, 0, 4),
                        ],
                        outputs: &[5],
                    };
                    &TEMPLATE
                };
                /// Applies the kernel to every element; shapes broadcast.
                #[track_caller]
                pub fn map(
                    x: impl ::core::convert::AsRef<::tapeflow::Tensor>,
                ) -> ::tapeflow::Tensor {
                    let [output] = ::tapeflow::__macro::map::<1>(Self::TEMPLATE, &[x.as_ref()]);
                    output
                }
                #[doc(hidden)]
                #[allow(unused_variables)]
                pub fn signature<T0: ::tapeflow::__macro::Lanes>(x: T0) -> T0 {
                    ::core::default::Default::default()
                }
            }
        "#]],
    );
}

#[test]
fn several_outputs_and_fixed_inputs() {
    check(
        kernel,
        "#[cfg(feature = \"steps\")]
        fn step(x: f32, n: i32, on: bool) -> (f32, bool) { (x * n as f32, on || n == 3) }",
        expect![[r##"
            #[cfg(feature = "steps")]
            #[allow(dead_code)]
            fn step(x: f32, n: i32, on: bool) -> (f32, bool) {
                (x * n as f32, on || n == 3)
            }
            #[cfg(feature = "steps")]
            /// The kernel `step` as a template, and mapped over tensors.
            #[allow(non_camel_case_types, dead_code)]
            enum step {}
            #[cfg(feature = "steps")]
            #[allow(dead_code)]
            impl step {
                /// What devices and derivatives are made from.
                pub const TEMPLATE: &'static ::tapeflow::__macro::ir::Template = {
                    use ::tapeflow::__macro::ir as __ir;
                    #[allow(
                        clippy::approx_constant,
                        clippy::excessive_precision,
                        clippy::unnecessary_cast
                    )]
                    static TEMPLATE: __ir::Template = __ir::Template {
                        name: "step",
                        row: false,
                        inputs: &[
                            __ir::TemplateInput {
                                name: "x",
                                ty: __ir::Hole::Kernel,
                                extent: __ir::Extent::Lane,
                            },
                            __ir::TemplateInput {
                                name: "n",
                                ty: __ir::Hole::Fixed(__ir::DType::I32),
                                extent: __ir::Extent::Lane,
                            },
                            __ir::TemplateInput {
                                name: "on",
                                ty: __ir::Hole::Fixed(__ir::DType::Bool),
                                extent: __ir::Extent::Lane,
                            },
                        ],
                        rows: &[
                            __ir::TemplateRow::Input(0),
                            __ir::TemplateRow::Input(1),
                            __ir::TemplateRow::Input(2),
                            __ir::TemplateRow::Cast(1, __ir::Hole::Kernel),
                            __ir::TemplateRow::Binary(__ir::Binary::Mul, 0, 3),
                            __ir::TemplateRow::Int(3, __ir::DType::I32),
                            __ir::TemplateRow::Compare(__ir::Compare::Eq, 1, 5),
                            __ir::TemplateRow::Binary(__ir::Binary::Or, 2, 6),
                        ],
                        outputs: &[4, 7],
                    };
                    &TEMPLATE
                };
                /// Applies the kernel to every element; shapes broadcast.
                #[track_caller]
                pub fn map(
                    x: impl ::core::convert::AsRef<::tapeflow::Tensor>,
                    n: impl ::core::convert::AsRef<::tapeflow::Tensor>,
                    on: impl ::core::convert::AsRef<::tapeflow::Tensor>,
                ) -> (::tapeflow::Tensor, ::tapeflow::Tensor) {
                    let [output_0, output_1] = ::tapeflow::__macro::map::<
                        2,
                    >(Self::TEMPLATE, &[x.as_ref(), n.as_ref(), on.as_ref()]);
                    (output_0, output_1)
                }
                #[doc(hidden)]
                #[allow(unused_variables)]
                pub fn signature<T0: ::tapeflow::__macro::Lanes>(
                    x: T0,
                    n: i32,
                    on: bool,
                ) -> (T0, bool) {
                    (::core::default::Default::default(), ::core::default::Default::default())
                }
            }
        "##]],
    );
}

#[test]
fn branches_assign_and_give_values() {
    template(
        "fn pieces(x: f32, n: i64) -> f32 {
            let mut y = x;
            if n > 2 { y += 1.0; } else if x.is_nan() { y = 0.0 }
            if x > 0.0 { y } else { let y = -y; y * 2.0 }
        }",
        expect![[r#"
            Input(0)
            Input(1)
            Int(2, DType::I64)
            Compare(Compare::Gt, 1, 2)
            Float(1.0)
            Binary(Binary::Add, 0, 4)
            Compare(Compare::Ne, 0, 0)
            Float(0.0)
            Select(6, 7, 0)
            Select(3, 5, 8)
            Float(0.0)
            Compare(Compare::Gt, 0, 10)
            Unary(Unary::Neg, 9)
            Float(2.0)
            Binary(Binary::Mul, 12, 13)
            Select(11, 9, 14)]
            outputs: [15]
        "#]],
    );
}

#[test]
fn constants_are_taken_by_their_use() {
    template(
        "fn constants(x: f32, n: u32) -> f32 {
            const LOCAL: f32 = 0.5;
            let k = if FLAG { n + COUNT } else { n };
            std::f32::consts::PI * x + limits::LARGEST - f32::EPSILON + LOCAL + k as f32
        }",
        expect![[r#"
            Input(0)
            Input(1)
            Bool(FLAG)
            Int(COUNT as i64, DType::U32)
            Binary(Binary::Add, 1, 3)
            Select(2, 4, 1)
            Float(:: core::f64::consts::PI as f64)
            Binary(Binary::Mul, 6, 0)
            Float(limits::LARGEST as f64)
            Binary(Binary::Add, 7, 8)
            Float(f32::EPSILON as f64)
            Binary(Binary::Sub, 9, 10)
            Float(LOCAL as f64)
            Binary(Binary::Add, 11, 12)
            Cast(5, Hole::Kernel)
            Binary(Binary::Add, 13, 14)]
            outputs: [15]
        "#]],
    );
    check(
        kernel,
        "fn local(x: f32) -> f32 { const HALF: f32 = 0.5; x * HALF }",
        expect![[r##"
            #[allow(dead_code)]
            fn local(x: f32) -> f32 {
                const HALF: f32 = 0.5;
                x * HALF
            }
            /// The kernel `local` as a template, and mapped over tensors.
            #[allow(non_camel_case_types, dead_code)]
            enum local {}
            #[allow(dead_code)]
            impl local {
                /// What devices and derivatives are made from.
                pub const TEMPLATE: &'static ::tapeflow::__macro::ir::Template = {
                    use ::tapeflow::__macro::ir as __ir;
                    const HALF: f32 = 0.5;
                    #[allow(
                        clippy::approx_constant,
                        clippy::excessive_precision,
                        clippy::unnecessary_cast
                    )]
                    static TEMPLATE: __ir::Template = __ir::Template {
                        name: "local",
                        row: false,
                        inputs: &[
                            __ir::TemplateInput {
                                name: "x",
                                ty: __ir::Hole::Kernel,
                                extent: __ir::Extent::Lane,
                            },
                        ],
                        rows: &[
                            __ir::TemplateRow::Input(0),
                            __ir::TemplateRow::Float(HALF as f64),
                            __ir::TemplateRow::Binary(__ir::Binary::Mul, 0, 1),
                        ],
                        outputs: &[2],
                    };
                    &TEMPLATE
                };
                /// Applies the kernel to every element; shapes broadcast.
                #[track_caller]
                pub fn map(
                    x: impl ::core::convert::AsRef<::tapeflow::Tensor>,
                ) -> ::tapeflow::Tensor {
                    let [output] = ::tapeflow::__macro::map::<1>(Self::TEMPLATE, &[x.as_ref()]);
                    output
                }
                #[doc(hidden)]
                #[allow(unused_variables)]
                pub fn signature<T0: ::tapeflow::__macro::Lanes>(x: T0) -> T0 {
                    ::core::default::Default::default()
                }
            }
        "##]],
    );
}

#[test]
fn calls_of_other_kernels() {
    template(
        "fn calls(x: f32, y: f32) -> (f32, f32) {
            let (r, a) = geometry::polar(x, y);
            let s = silu(r);
            let swapped = if a > 0.0 { polar(x, y) } else { (y, s) };
            swapped
        }",
        expect![[r#"
            Input(0)
            Input(1)
            Call { template : geometry::polar::TEMPLATE, output : 0, args : [0, 1] }
            Call { template : geometry::polar::TEMPLATE, output : 1, args : [0, 1] }
            Float(0.0)
            Compare(Compare::Gt, 3, 4)
            Call { template : polar::TEMPLATE, output : 0, args : [0, 1] }
            Call { template : polar::TEMPLATE, output : 1, args : [0, 1] }
            Select(5, 6, 1)
            Call { template : silu::TEMPLATE, output : 0, args : [2] }
            Select(5, 7, 9)]
            outputs: [8, 10]
        "#]],
    );
}

#[test]
fn calls_between_which_an_if_chooses() {
    template(
        "fn choose(x: f32) -> (f32, f32) { if x > 0.0 { polar(x, 1.0) } else { other(x) } }",
        expect![[r#"
        Input(0)
        Float(0.0)
        Compare(Compare::Gt, 0, 1)
        Float(1.0)
        Call { template : polar::TEMPLATE, output : 0, args : [0, 3] }
        Call { template : polar::TEMPLATE, output : 1, args : [0, 3] }
        Call { template : other::TEMPLATE, output : 0, args : [0] }
        Call { template : other::TEMPLATE, output : 1, args : [0] }
        Select(2, 4, 6)
        Select(2, 5, 7)]
        outputs: [8, 9]
    "#]],
    );
}

#[test]
fn tuples_and_shadowing() {
    template(
        "fn tuples(x: f32) -> f32 {
            let (s, c) = x.sin_cos();
            let pair = (s * c, 2.0);
            let x = { let x = pair.0; x.detach() + tapeflow::detach(x) };
            x % pair.1
        }",
        expect![[r#"
            Input(0)
            Unary(Unary::Sin, 0)
            Unary(Unary::Cos, 0)
            Binary(Binary::Mul, 1, 2)
            Float(2.0)
            Detach(3)
            Detach(3)
            Binary(Binary::Add, 5, 6)
            Binary(Binary::Rem, 7, 4)]
            outputs: [8]
        "#]],
    );
}

#[test]
fn integers_take_the_dtype_of_their_use() {
    template(
        "fn integers(n: i64, m: u8) -> (i64, i32, u8) { (n * 2 + -1, 7, m & 1u8) }",
        expect![[r#"
        Input(0)
        Input(1)
        Int(2, DType::I64)
        Binary(Binary::Mul, 0, 2)
        Int(-1, DType::I64)
        Binary(Binary::Add, 3, 4)
        Int(7, DType::I32)
        Int(1, DType::U8)
        Binary(Binary::And, 1, 7)]
        outputs: [5, 6, 8]
    "#]],
    );
    template(
        "fn negated(n: i32) -> i32 { let a = 1; let b = -a; n * a + b }",
        expect![[r#"
        Input(0)
        Int(1, DType::I32)
        Int(-1, DType::I32)
        Binary(Binary::Mul, 0, 1)
        Binary(Binary::Add, 3, 2)]
        outputs: [4]
    "#]],
    );
}
