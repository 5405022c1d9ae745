//! What happens to tensor names in forward expressions.

use expect_test::expect;

use super::module;
use crate::snapshot::check;

#[test]
fn the_borrowing_rule() {
    check(
        module,
        "#[module(forward = |x| {
            let n = self.n_head;
            let [b, t] = x.dims();
            let weight: Tensor = self.weight.tensor();
            let positions = Tensor::arange(t, DType::I64);
            let (p, q) = x.reshape([b, t, n]).chunk(2, -1);
            let all = Tensor::cat(&[p, q, x], 0);
            let residual = all;
            let scale = |k: f32| residual * k;
            let fc = |z: &Tensor| -z;
            let y = if n > 2 { fc(all) } else { residual };
            let y = match n { 0 => x, n if n > 4 => scale(0.5).matmul(weight), _ => y };
            for block in &self.blocks { y = block.forward(y) - positions; }
            let pair = Pair { y, rest: Some(all) };
            act(y + pair.y)
        })]
        struct Model {
            fc: Linear,
            weight: Parameter,
            blocks: Vec<Block>,
            #[module(skip)] n_head: usize,
            #[module(skip)] act: fn(&Tensor) -> Tensor,
        }",
        expect![[r##"
            #[automatically_derived]
            impl ::tapeflow::Module for Model {
                fn visit(&self, visitor: &mut dyn ::tapeflow::Visitor) {
                    visitor.enter("fc");
                    ::tapeflow::Module::visit(&self.fc, visitor);
                    visitor.leave();
                    visitor.enter("weight");
                    ::tapeflow::Module::visit(&self.weight, visitor);
                    visitor.leave();
                    visitor.enter("blocks");
                    ::tapeflow::Module::visit(&self.blocks, visitor);
                    visitor.leave();
                }
            }
            #[automatically_derived]
            impl ::tapeflow::Forward for Model {
                #[track_caller]
                fn forward(&self, x: &::tapeflow::Tensor) -> ::tapeflow::Tensor {
                    #[allow(unused_imports)]
                    use ::tapeflow::Forward as _;
                    let n = self.n_head;
                    let [b, t] = x.dims();
                    let weight: Tensor = self.weight.tensor();
                    let positions = Tensor::arange(t, DType::I64);
                    let (p, q) = x.reshape([b, t, n]).chunk(2, -1);
                    let all = Tensor::cat(&[&p, &q, x], 0);
                    let residual = ::tapeflow::Tensor::clone(&all);
                    let scale = |k: f32| &residual * k;
                    let fc = |z: &Tensor| -z;
                    let y = if n > 2 { fc(&all) } else { ::tapeflow::Tensor::clone(&residual) };
                    let y = match n {
                        0 => ::tapeflow::Tensor::clone(x),
                        n if n > 4 => scale(0.5).matmul(&weight),
                        _ => ::tapeflow::Tensor::clone(&y),
                    };
                    for block in &self.blocks {
                        y = block.forward(&y) - &positions;
                    }
                    let pair = Pair {
                        y: ::tapeflow::Tensor::clone(&y),
                        rest: Some(::tapeflow::Tensor::clone(&all)),
                    };
                    (self.act)(&(&y + pair.y))
                }
            }
        "##]],
    );
}

#[test]
fn identity() {
    check(
        module,
        "#[module(forward = |x| x)] struct Identity;",
        expect![[r#"
        #[automatically_derived]
        impl ::tapeflow::Module for Identity {
            fn visit(&self, _visitor: &mut dyn ::tapeflow::Visitor) {}
        }
        #[automatically_derived]
        impl ::tapeflow::Forward for Identity {
            #[track_caller]
            fn forward(&self, x: &::tapeflow::Tensor) -> ::tapeflow::Tensor {
                ::tapeflow::Tensor::clone(x)
            }
        }
    "#]],
    );
}
