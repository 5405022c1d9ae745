//! The shapes of structs, and how their fields are visited.

use expect_test::expect;

use super::module;
use crate::snapshot::check;

#[test]
fn named_fields() {
    check(
        module,
        "struct Mlp { fc: Linear, proj: Linear }",
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
    "##]],
    );
}

#[test]
fn tuple_and_unit_structs() {
    check(
        module,
        "struct Pair(Linear, pub Linear);",
        expect![[r##"
        #[automatically_derived]
        impl ::tapeflow::Module for Pair {
            fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                visitor.enter("0");
                ::tapeflow::Module::visit(&self.0, visitor);
                visitor.leave();
                visitor.enter("1");
                ::tapeflow::Module::visit(&self.1, visitor);
                visitor.leave();
            }
        }
    "##]],
    );
    check(
        module,
        "struct Identity;",
        expect![[r#"
        #[automatically_derived]
        impl ::tapeflow::Module for Identity {
            fn visit(&self, _visitor: &mut dyn ::tapeflow::Visitor) {}
        }
    "#]],
    );
}

#[test]
fn collections() {
    check(
        module,
        "struct Gpt { wte: Parameter, h: Vec<Block>, norm: Option<LayerNorm>, heads: [Linear; 4], boxed: Box<Linear> }",
        expect![[r##"
            #[automatically_derived]
            impl ::tapeflow::Module for Gpt {
                fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                    visitor.enter("wte");
                    ::tapeflow::Module::visit(&self.wte, visitor);
                    visitor.leave();
                    visitor.enter("h");
                    ::tapeflow::Module::visit(&self.h, visitor);
                    visitor.leave();
                    visitor.enter("norm");
                    ::tapeflow::Module::visit(&self.norm, visitor);
                    visitor.leave();
                    visitor.enter("heads");
                    ::tapeflow::Module::visit(&self.heads, visitor);
                    visitor.leave();
                    visitor.enter("boxed");
                    ::tapeflow::Module::visit(&self.boxed, visitor);
                    visitor.leave();
                }
            }
        "##]],
    );
}

#[test]
fn generics() {
    check(
        module,
        "struct Seq<'a, A, B: Clone, const N: usize>
        where A: Send { a: A, list: Vec<Option<B>>, inner: Wrapper<A, N>, #[module(skip)] marker: PhantomData<&'a B> }",
        expect![[r##"
            #[automatically_derived]
            impl<'a, A, B: Clone, const N: usize> ::tapeflow::Module for Seq<'a, A, B, N>
            where
                A: Send,
                A: ::tapeflow::Module,
                B: ::tapeflow::Module,
                Wrapper<A, N>: ::tapeflow::Module,
            {
                fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                    visitor.enter("a");
                    ::tapeflow::Module::visit(&self.a, visitor);
                    visitor.leave();
                    visitor.enter("list");
                    ::tapeflow::Module::visit(&self.list, visitor);
                    visitor.leave();
                    visitor.enter("inner");
                    ::tapeflow::Module::visit(&self.inner, visitor);
                    visitor.leave();
                }
            }
        "##]],
    );
}

#[test]
fn field_options() {
    check(
        module,
        "struct BatchNorm {
            #[module(rename = \"weight\")] scale: Parameter,
            #[module(buffer)] running_mean: Buffer,
            #[module(buffer, rename = \"num_batches_tracked\")] count: Buffer,
            #[module(skip)] eps: f32,
            r#type: Linear,
        }",
        expect![[r##"
            #[automatically_derived]
            impl ::tapeflow::Module for BatchNorm {
                fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                    visitor.enter("weight");
                    ::tapeflow::Module::visit(&self.scale, visitor);
                    visitor.leave();
                    let _: &::tapeflow::Buffer = &self.running_mean;
                    visitor.enter("running_mean");
                    ::tapeflow::Module::visit(&self.running_mean, visitor);
                    visitor.leave();
                    let _: &::tapeflow::Buffer = &self.count;
                    visitor.enter("num_batches_tracked");
                    ::tapeflow::Module::visit(&self.count, visitor);
                    visitor.leave();
                    visitor.enter("type");
                    ::tapeflow::Module::visit(&self.r#type, visitor);
                    visitor.leave();
                }
            }
        "##]],
    );
}
