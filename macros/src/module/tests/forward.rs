//! Forward expressions.

use expect_test::expect;

use super::module;
use crate::snapshot::check;

#[test]
fn residual_block() {
    check(
        module,
        "#[module(forward = |x| { let x = x + attn(ln_1(x)); x + mlp(ln_2(x)) })]
        struct Block { ln_1: LayerNorm, attn: Attention, ln_2: LayerNorm, mlp: Mlp }",
        expect![[r##"
            #[automatically_derived]
            impl ::tapeflow::Module for Block {
                fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                    visitor.enter("ln_1");
                    ::tapeflow::Module::visit(&self.ln_1, visitor);
                    visitor.leave();
                    visitor.enter("attn");
                    ::tapeflow::Module::visit(&self.attn, visitor);
                    visitor.leave();
                    visitor.enter("ln_2");
                    ::tapeflow::Module::visit(&self.ln_2, visitor);
                    visitor.leave();
                    visitor.enter("mlp");
                    ::tapeflow::Module::visit(&self.mlp, visitor);
                    visitor.leave();
                }
            }
            #[automatically_derived]
            impl ::tapeflow::Forward for Block {
                #[track_caller]
                fn forward(&self, x: &::tapeflow::Tensor) -> ::tapeflow::Tensor {
                    #[allow(unused_imports)]
                    use ::tapeflow::Forward as _;
                    let x = x
                        + {
                            let input = {
                                let _scope = ::tapeflow::__macro::scope("ln_1");
                                self.ln_1.forward(x)
                            };
                            let _scope = ::tapeflow::__macro::scope("attn");
                            self.attn.forward(&input)
                        };
                    &x
                        + {
                            let input = {
                                let _scope = ::tapeflow::__macro::scope("ln_2");
                                self.ln_2.forward(&x)
                            };
                            let _scope = ::tapeflow::__macro::scope("mlp");
                            self.mlp.forward(&input)
                        }
                }
            }
        "##]],
    );
}

#[test]
fn functions_around_fields() {
    check(
        module,
        "#[module(forward = |x| tapeflow::dropout(proj(gelu(fc(x)))))]
        struct Mlp { fc: Linear, proj: Linear }",
        expect![[r##"
            #[automatically_derived]
            impl ::tapeflow::Module for Mlp {
                fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                    visitor.enter("fc");
                    ::tapeflow::Module::visit(&self.fc, visitor);
                    visitor.leave();
                    visitor.enter("proj");
                    ::tapeflow::Module::visit(&self.proj, visitor);
                    visitor.leave();
                }
            }
            #[automatically_derived]
            impl ::tapeflow::Forward for Mlp {
                #[track_caller]
                fn forward(&self, x: &::tapeflow::Tensor) -> ::tapeflow::Tensor {
                    #[allow(unused_imports)]
                    use ::tapeflow::Forward as _;
                    tapeflow::dropout({
                        let input = gelu({
                            let _scope = ::tapeflow::__macro::scope("fc");
                            self.fc.forward(x)
                        });
                        let _scope = ::tapeflow::__macro::scope("proj");
                        self.proj.forward(&input)
                    })
                }
            }
        "##]],
    );
}

#[test]
fn tuple_fields_and_generics() {
    check(
        module,
        "#[module(forward = |x| self.1(self.0(x)))] struct Seq<A, B>(A, B);",
        expect![[r##"
            #[automatically_derived]
            impl<A, B> ::tapeflow::Module for Seq<A, B>
            where
                A: ::tapeflow::Module,
                B: ::tapeflow::Module,
            {
                fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                    visitor.enter("0");
                    ::tapeflow::Module::visit(&self.0, visitor);
                    visitor.leave();
                    visitor.enter("1");
                    ::tapeflow::Module::visit(&self.1, visitor);
                    visitor.leave();
                }
            }
            #[automatically_derived]
            impl<A, B> ::tapeflow::Forward for Seq<A, B>
            where
                A: ::tapeflow::Forward,
                B: ::tapeflow::Forward,
            {
                #[track_caller]
                fn forward(&self, x: &::tapeflow::Tensor) -> ::tapeflow::Tensor {
                    #[allow(unused_imports)]
                    use ::tapeflow::Forward as _;
                    let input = {
                        let _scope = ::tapeflow::__macro::scope("0");
                        self.0.forward(x)
                    };
                    let _scope = ::tapeflow::__macro::scope("1");
                    self.1.forward(&input)
                }
            }
        "##]],
    );
}

#[test]
fn folds() {
    check(
        module,
        "#[module(forward = |x| tail(norm(rows(h(x)))))]
        struct Net { h: Vec<Block>, rows: [Option<Block>; 2], norm: Option<LayerNorm>, tail: Option<Vec<Block>> }",
        expect![[r##"
            #[automatically_derived]
            impl ::tapeflow::Module for Net {
                fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                    visitor.enter("h");
                    ::tapeflow::Module::visit(&self.h, visitor);
                    visitor.leave();
                    visitor.enter("rows");
                    ::tapeflow::Module::visit(&self.rows, visitor);
                    visitor.leave();
                    visitor.enter("norm");
                    ::tapeflow::Module::visit(&self.norm, visitor);
                    visitor.leave();
                    visitor.enter("tail");
                    ::tapeflow::Module::visit(&self.tail, visitor);
                    visitor.leave();
                }
            }
            #[automatically_derived]
            impl ::tapeflow::Forward for Net {
                #[track_caller]
                fn forward(&self, x: &::tapeflow::Tensor) -> ::tapeflow::Tensor {
                    #[allow(unused_imports)]
                    use ::tapeflow::Forward as _;
                    let mut output = {
                        let input = {
                            let mut output = {
                                let mut output = ::tapeflow::Tensor::clone(x);
                                for (index, module) in self.h.iter().enumerate() {
                                    let _scope = ::tapeflow::__macro::scope_index("h", index);
                                    output = module.forward(&output);
                                }
                                output
                            };
                            for (index, module) in self.rows.iter().enumerate() {
                                if let ::core::option::Option::Some(module) = module {
                                    let _scope = ::tapeflow::__macro::scope_index("rows", index);
                                    output = module.forward(&output);
                                }
                            }
                            output
                        };
                        match &self.norm {
                            ::core::option::Option::Some(module) => {
                                let _scope = ::tapeflow::__macro::scope("norm");
                                module.forward(&input)
                            }
                            ::core::option::Option::None => input,
                        }
                    };
                    for (index, module) in self.tail.iter().flatten().enumerate() {
                        let _scope = ::tapeflow::__macro::scope_index("tail", index);
                        output = module.forward(&output);
                    }
                    output
                }
            }
        "##]],
    );
}

#[test]
fn extra_inputs() {
    check(
        module,
        "#[module(forward = |x, cache: &mut KvCache| { let y = attn(ln(x), cache); x + h(y, cache) })]
        struct Block { ln: LayerNorm, attn: Attention, h: Vec<Block> }",
        expect![[r##"
            #[automatically_derived]
            impl ::tapeflow::Module for Block {
                fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                    visitor.enter("ln");
                    ::tapeflow::Module::visit(&self.ln, visitor);
                    visitor.leave();
                    visitor.enter("attn");
                    ::tapeflow::Module::visit(&self.attn, visitor);
                    visitor.leave();
                    visitor.enter("h");
                    ::tapeflow::Module::visit(&self.h, visitor);
                    visitor.leave();
                }
            }
            #[automatically_derived]
            impl Block {
                /// Records the module's forward pass.
                #[track_caller]
                pub fn forward(
                    &self,
                    x: &::tapeflow::Tensor,
                    cache: &mut KvCache,
                ) -> ::tapeflow::Tensor {
                    #[allow(unused_imports)]
                    use ::tapeflow::Forward as _;
                    let y = {
                        let input_0 = {
                            let _scope = ::tapeflow::__macro::scope("ln");
                            self.ln.forward(x)
                        };
                        let _scope = ::tapeflow::__macro::scope("attn");
                        self.attn.forward(&input_0, cache)
                    };
                    x
                        + {
                            let mut output = ::tapeflow::Tensor::clone(&y);
                            for (index, module) in self.h.iter().enumerate() {
                                let _scope = ::tapeflow::__macro::scope_index("h", index);
                                output = module.forward(&output, cache);
                            }
                            output
                        }
                }
            }
        "##]],
    );
    check(
        module,
        "#[module(forward = |mut x, y| { x = x * y; fc(x) })]
        struct Gate { fc: Linear }",
        expect![[r##"
            #[automatically_derived]
            impl ::tapeflow::Module for Gate {
                fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                    visitor.enter("fc");
                    ::tapeflow::Module::visit(&self.fc, visitor);
                    visitor.leave();
                }
            }
            #[automatically_derived]
            impl Gate {
                /// Records the module's forward pass.
                #[track_caller]
                pub fn forward(
                    &self,
                    x: &::tapeflow::Tensor,
                    y: &::tapeflow::Tensor,
                ) -> ::tapeflow::Tensor {
                    #[allow(unused_imports)]
                    use ::tapeflow::Forward as _;
                    let mut x = ::tapeflow::Tensor::clone(x);
                    x = &x * y;
                    {
                        let _scope = ::tapeflow::__macro::scope("fc");
                        self.fc.forward(&x)
                    }
                }
                /// The cotangents of the inputs, in order, and the gradients of the parameters, for a cotangent of the output.
                #[track_caller]
                pub fn vjp(
                    &self,
                    x: &::tapeflow::Tensor,
                    y: &::tapeflow::Tensor,
                    cotangent: &::tapeflow::Tensor,
                ) -> ::tapeflow::Result<
                    (::std::vec::Vec<::tapeflow::Tensor>, ::tapeflow::Gradients),
                > {
                    ::tapeflow::__macro::vjp(
                        &[x, y],
                        cotangent,
                        |inputs| self.forward(&inputs[0], &inputs[1]),
                    )
                }
            }
        "##]],
    );
    check(
        module,
        "#[module(forward = |x| -> (Tensor, Tensor) { (a(x), x) })] struct Pair { a: Linear }",
        expect![[r##"
        #[automatically_derived]
        impl ::tapeflow::Module for Pair {
            fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                visitor.enter("a");
                ::tapeflow::Module::visit(&self.a, visitor);
                visitor.leave();
            }
        }
        #[automatically_derived]
        impl Pair {
            /// Records the module's forward pass.
            #[track_caller]
            pub fn forward(&self, x: &::tapeflow::Tensor) -> (Tensor, Tensor) {
                #[allow(unused_imports)]
                use ::tapeflow::Forward as _;
                (
                    {
                        let _scope = ::tapeflow::__macro::scope("a");
                        self.a.forward(x)
                    },
                    ::tapeflow::Tensor::clone(x),
                )
            }
        }
    "##]],
    );
}

#[test]
fn what_is_computed_again() {
    check(
        module,
        "#[module(recompute, forward = |x| out(inner(blocks(x))))]
         struct Net { #[module(recompute)] blocks: Vec<Block>, #[module(recompute)] inner: Option<Block>, \
         #[module(recompute)] out: Linear }",
        expect![[r##"
            #[automatically_derived]
            impl ::tapeflow::Module for Net {
                fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                    visitor.enter("blocks");
                    ::tapeflow::Module::visit(&self.blocks, visitor);
                    visitor.leave();
                    visitor.enter("inner");
                    ::tapeflow::Module::visit(&self.inner, visitor);
                    visitor.leave();
                    visitor.enter("out");
                    ::tapeflow::Module::visit(&self.out, visitor);
                    visitor.leave();
                }
            }
            #[automatically_derived]
            impl ::tapeflow::Forward for Net {
                #[track_caller]
                fn forward(&self, x: &::tapeflow::Tensor) -> ::tapeflow::Tensor {
                    #[allow(unused_imports)]
                    use ::tapeflow::Forward as _;
                    let _recompute = ::tapeflow::__macro::recompute_scope();
                    let input = {
                        let input = {
                            let mut output = ::tapeflow::Tensor::clone(x);
                            for (index, module) in self.blocks.iter().enumerate() {
                                let _scope = ::tapeflow::__macro::scope_index("blocks", index);
                                let _recompute = ::tapeflow::__macro::recompute_scope();
                                output = module.forward(&output);
                            }
                            output
                        };
                        match &self.inner {
                            ::core::option::Option::Some(module) => {
                                let _scope = ::tapeflow::__macro::scope("inner");
                                let _recompute = ::tapeflow::__macro::recompute_scope();
                                module.forward(&input)
                            }
                            ::core::option::Option::None => input,
                        }
                    };
                    let _scope = ::tapeflow::__macro::scope("out");
                    let _recompute = ::tapeflow::__macro::recompute_scope();
                    self.out.forward(&input)
                }
            }
        "##]],
    );
}
