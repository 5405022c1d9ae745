//! What `#[derive(Module)]` says about mistakes: all of them, each at its token.

use expect_test::expect;

use super::module;
use crate::snapshot::{check, check_errors};

#[test]
fn plain_fields() {
    check_errors(
        module,
        "struct S {
            n: usize,
            names: Vec<String>,
            f: fn(&Tensor) -> Tensor,
            t: Tensor,
            p: std::marker::PhantomData<f32>,
            o: Option<[f32; 3]>,
            pair: (Linear, bool),
            ok: Linear,
        }",
        expect![[r#"
            2:16: `usize` holds no parameters: mark the field `#[module(skip)]`
            3:20: `Vec<String>` holds no parameters: mark the field `#[module(skip)]`
            4:16: `fn(&Tensor) -> Tensor` holds no parameters: mark the field `#[module(skip)]`
            5:16: a bare `Tensor` is no parameter: use `Parameter` (trained and saved), `Buffer` (saved), or mark the field `#[module(skip)]`
            6:16: `std::marker::PhantomData<f32>` holds no parameters: mark the field `#[module(skip)]`
            7:16: `Option<[f32; 3]>` holds no parameters: mark the field `#[module(skip)]`
            8:19: `(Linear, bool)`: its elements are visited as modules, and not all of them are: make them fields of their own, and mark those without parameters `#[module(skip)]`
        "#]],
    );
}

#[test]
fn enums_and_unions() {
    check_errors(
        module,
        "enum E { A, B }",
        expect![[r#"
        1:1: a module is a struct: its parameters must not depend on its value. Put the enum in a field with `#[module(skip)]`, or write `impl Module` by hand
    "#]],
    );
    check_errors(
        module,
        "union U { a: f32 }",
        expect![[r#"
        1:1: a module is a struct
    "#]],
    );
}

#[test]
fn options() {
    check_errors(
        module,
        "#[module(foward = |x| x, skip)]
        struct S {
            #[module(skp)] a: Linear,
            #[module(rename = 3)] b: Linear,
            #[module(rename = \"x.y\")] c: Linear,
            #[module(skip, buffer)] d: Buffer,
            #[module(skip, rename = \"e\")] e: f32,
            #[module(skip, skip)] f: f32,
            #[module(rename = \"a\")] g: Linear,
            #[module] h: Linear,
        }",
        expect![[r#"
            1:10: there is no option `foward`: a struct has `forward = |x| …` and `recompute` (did you mean `forward`?)
            1:26: there is no option `skip`: a struct has `forward = |x| …` and `recompute`
            3:22: there is no option `skp`: a field has `skip`, `buffer`, `rename = "…"` and `recompute` (did you mean `skip`?)
            4:31: `rename` is followed by the name: `rename = "weight"`
            5:31: a name is one segment of a path such as `h.3.mlp`: not empty, without dots and spaces
            6:22: a buffer is visited and saved, a skipped field is not: keep one of `skip` and `buffer`
            7:37: a skipped field has no path, so no name to change: keep one of `skip` and `rename`
            8:28: `skip` is given twice: keep one
            10:15: expected attribute arguments in parentheses: #[module(...)]
            9:37: two fields are called `a` in paths: `a` is the other
        "#]],
    );
}

#[test]
fn forward_heads() {
    check_errors(
        module,
        "#[module(forward = fc)] struct S { fc: Linear }",
        expect![[r#"
            1:20: `forward` is a closure: `forward = |x| …`
        "#]],
    );
    check_errors(
        module,
        "#[module(forward)] struct S { fc: Linear }",
        expect![[r#"
            1:10: `forward` is a closure: `forward = |x| …`
        "#]],
    );
    check_errors(
        module,
        "#[module(forward = || fc(1.0))] struct S { fc: Linear }",
        expect![[r#"
        1:20: a forward needs an input: `|x| …`
    "#]],
    );
    check_errors(
        module,
        "#[module(forward = async move |(a, b)| fc(a))] struct S { fc: Linear }",
        expect![[r#"
        1:20: a forward is a plain closure: remove `async`
        1:26: a forward is a plain closure: remove `move`
        1:32: an input is a plain name: take it apart with `let` in the body
    "#]],
    );
}

#[test]
fn forward_bodies() {
    check_errors(
        module,
        "#[module(forward = |x| {
            let y = weight.tensor();
            x = fc(x);
            fc() + weight(x) + stages(x)
        })]
        struct S { fc: Linear, weight: Parameter, stages: Vec<Vec<Linear>> }",
        expect![[r#"
            2:21: `weight` is a field: write `self.weight`
            3:13: the input `x` is borrowed: take it as `|mut x|`
            4:13: a forward needs its input: `fc(x)`
            4:20: `weight` is a `Parameter`, not a module: write `self.weight.tensor()`
            4:32: collections of collections have no call: write a `for` loop over `self.stages` that calls `.forward`
        "#]],
    );
}

#[test]
fn the_signatures_stay() {
    check(
        module,
        "#[module(forward = |x| fc(x))] struct S { fc: Linear, n: usize }",
        expect![[r#"
        ::core::compile_error! {
            "`usize` holds no parameters: mark the field `#[module(skip)]`"
        }
        #[automatically_derived]
        impl ::tapeflow::Module for S {
            fn visit(&self, _visitor: &mut dyn ::tapeflow::Visitor) {}
        }
        #[automatically_derived]
        impl ::tapeflow::Forward for S {
            #[track_caller]
            fn forward(&self, x: &::tapeflow::Tensor) -> ::tapeflow::Tensor {
                ::core::unreachable!()
            }
        }
    "#]],
    );
}
