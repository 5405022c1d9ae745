//! Row kernels.

use expect_test::expect;

use super::{kernel, template};
use crate::snapshot::check;

#[test]
fn the_whole_expansion() {
    check(
        kernel,
        "/// A row kernel.
        pub fn softmax(x: Row) -> Row { let e = (x - x.max().detach()).exp(); e / e.sum() }",
        expect![[r#"
            /// A row kernel.
            #[track_caller]
            pub fn softmax(
                x: impl ::core::convert::AsRef<::tapeflow::Tensor>,
            ) -> ::tapeflow::Tensor {
                softmax::map(x)
            }
            const _: () = {
                #[allow(unused_imports)]
                use ::tapeflow::__macro::Lanes as _;
                #[allow(dead_code)]
                fn softmax(x: Row) -> Row {
                    let e = (x - x.max().detach()).exp();
                    e / e.sum()
                }
            };
            /// The kernel `softmax` as a template, and mapped over tensors.
            #[allow(non_camel_case_types, dead_code)]
            pub enum softmax {}
            #[allow(dead_code)]
            impl softmax {
                /// What devices and derivatives are made from.
                pub const TEMPLATE: &'static ::tapeflow::__macro::ir::Template = {
                    use ::tapeflow::__macro::ir as __ir;
                    #[allow(
                        clippy::approx_constant,
                        clippy::excessive_precision,
                        clippy::unnecessary_cast
                    )]
                    static TEMPLATE: __ir::Template = __ir::Template {
                        name: "softmax",
                        row: true,
                        inputs: &[
                            __ir::TemplateInput {
                                name: "x",
                                ty: __ir::Hole::Kernel,
                                extent: __ir::Extent::Lane,
                            },
                        ],
                        rows: &[
                            __ir::TemplateRow::Input(0),
                            __ir::TemplateRow::Reduce(__ir::Reduce::Max, 0),
                            __ir::TemplateRow::Detach(1),
                            __ir::TemplateRow::Binary(__ir::Binary::Sub, 0, 2),
                            __ir::TemplateRow::Unary(__ir::Unary::Exp, 3),
                            __ir::TemplateRow::Reduce(__ir::Reduce::Sum, 4),
                            __ir::TemplateRow::Binary(__ir::Binary::Div, 4, 5),
                        ],
                        outputs: &[6],
                    };
                    &TEMPLATE
                };
                /// Applies the kernel to every row along the last axis.
                #[track_caller]
                pub fn map(
                    x: impl ::core::convert::AsRef<::tapeflow::Tensor>,
                ) -> ::tapeflow::Tensor {
                    let [output] = ::tapeflow::__macro::map::<1>(Self::TEMPLATE, &[x.as_ref()]);
                    output
                }
                #[doc(hidden)]
                #[allow(unused_variables)]
                pub fn signature(x: ::tapeflow::Row) -> ::tapeflow::Row {
                    ::core::default::Default::default()
                }
            }
        "#]],
    );
}

#[test]
fn several_inputs_and_outputs_and_calls() {
    check(
        kernel,
        "fn norm(x: Row, w: Row, eps: f32) -> (Row, f32) {
            let centered = x - x.mean();
            let variance = (centered * centered).mean();
            (silu(centered) / (variance + eps).sqrt() * w, variance)
        }",
        expect![[r##"
            #[allow(dead_code)]
            #[track_caller]
            fn norm(
                x: impl ::core::convert::AsRef<::tapeflow::Tensor>,
                w: impl ::core::convert::AsRef<::tapeflow::Tensor>,
                eps: impl ::core::convert::AsRef<::tapeflow::Tensor>,
            ) -> (::tapeflow::Tensor, ::tapeflow::Tensor) {
                norm::map(x, w, eps)
            }
            const _: () = {
                #[allow(unused_imports)]
                use ::tapeflow::__macro::Lanes as _;
                #[allow(dead_code)]
                fn norm(x: Row, w: Row, eps: f32) -> (Row, f32) {
                    let centered = x - x.mean();
                    let variance = (centered * centered).mean();
                    (silu::signature(centered) / (variance + eps).sqrt() * w, variance)
                }
            };
            /// The kernel `norm` as a template, and mapped over tensors.
            #[allow(non_camel_case_types, dead_code)]
            enum norm {}
            #[allow(dead_code)]
            impl norm {
                /// What devices and derivatives are made from.
                pub const TEMPLATE: &'static ::tapeflow::__macro::ir::Template = {
                    use ::tapeflow::__macro::ir as __ir;
                    #[allow(
                        clippy::approx_constant,
                        clippy::excessive_precision,
                        clippy::unnecessary_cast
                    )]
                    static TEMPLATE: __ir::Template = __ir::Template {
                        name: "norm",
                        row: true,
                        inputs: &[
                            __ir::TemplateInput {
                                name: "x",
                                ty: __ir::Hole::Kernel,
                                extent: __ir::Extent::Lane,
                            },
                            __ir::TemplateInput {
                                name: "w",
                                ty: __ir::Hole::Kernel,
                                extent: __ir::Extent::Lane,
                            },
                            __ir::TemplateInput {
                                name: "eps",
                                ty: __ir::Hole::Kernel,
                                extent: __ir::Extent::Row,
                            },
                        ],
                        rows: &[
                            __ir::TemplateRow::Input(0),
                            __ir::TemplateRow::Input(1),
                            __ir::TemplateRow::Input(2),
                            __ir::TemplateRow::Reduce(__ir::Reduce::Sum, 0),
                            __ir::TemplateRow::Length,
                            __ir::TemplateRow::Binary(__ir::Binary::Div, 3, 4),
                            __ir::TemplateRow::Binary(__ir::Binary::Sub, 0, 5),
                            __ir::TemplateRow::Binary(__ir::Binary::Mul, 6, 6),
                            __ir::TemplateRow::Reduce(__ir::Reduce::Sum, 7),
                            __ir::TemplateRow::Length,
                            __ir::TemplateRow::Binary(__ir::Binary::Div, 8, 9),
                            __ir::TemplateRow::Call {
                                template: silu::TEMPLATE,
                                output: 0,
                                args: &[6],
                            },
                            __ir::TemplateRow::Binary(__ir::Binary::Add, 10, 2),
                            __ir::TemplateRow::Unary(__ir::Unary::Sqrt, 12),
                            __ir::TemplateRow::Binary(__ir::Binary::Div, 11, 13),
                            __ir::TemplateRow::Binary(__ir::Binary::Mul, 14, 1),
                        ],
                        outputs: &[15, 10],
                    };
                    &TEMPLATE
                };
                /// Applies the kernel to every row along the last axis.
                #[track_caller]
                pub fn map(
                    x: impl ::core::convert::AsRef<::tapeflow::Tensor>,
                    w: impl ::core::convert::AsRef<::tapeflow::Tensor>,
                    eps: impl ::core::convert::AsRef<::tapeflow::Tensor>,
                ) -> (::tapeflow::Tensor, ::tapeflow::Tensor) {
                    let [output_0, output_1] = ::tapeflow::__macro::map::<
                        2,
                    >(Self::TEMPLATE, &[x.as_ref(), w.as_ref(), eps.as_ref()]);
                    (output_0, output_1)
                }
                #[doc(hidden)]
                #[allow(unused_variables)]
                pub fn signature(
                    x: ::tapeflow::Row,
                    w: ::tapeflow::Row,
                    eps: f32,
                ) -> (::tapeflow::Row, f32) {
                    (::core::default::Default::default(), ::core::default::Default::default())
                }
            }
        "##]],
    );
}

#[test]
fn if_chooses_for_each_element() {
    template(
        "fn kept(x: Row) -> (Row, f32) {
            let mask = if x > 0.0 { 1.0 } else { 0.0 };
            (Row::from(mask) * x.maximum(0.5), Row::from(mask).sum() / x.len())
        }",
        expect![[r#"
            Input(0)
            Float(0.0)
            Compare(Compare::Gt, 0, 1)
            Float(1.0)
            Float(0.0)
            Select(2, 3, 4)
            Float(0.5)
            Binary(Binary::Max, 0, 6)
            Binary(Binary::Mul, 5, 7)
            Reduce(Reduce::Sum, 5)
            Length
            Binary(Binary::Div, 9, 10)]
            outputs: [8, 11]
        "#]],
    );
}
