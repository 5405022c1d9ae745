//! What `#[kernel]` says about mistakes: all of them, each at its token.

use expect_test::expect;
use proc_macro2::TokenStream;

use super::kernel;
use crate::snapshot::{check, check_errors};

#[test]
fn all_at_once() {
    check_errors(
        kernel,
        "fn many(x: &f32, y: usize) {
            let a = x.exq();
            for i in 0..3 { }
            let s = \"text\";
            y.max(1, 2)
        }",
        expect![[r#"
            1:12: a kernel takes values, not references: remove the `&`
            1:21: no dtype is called `usize`: use `i64`
            1:4: a kernel returns its result: add `-> f32` after the parameters
            2:23: a kernel has no method `exq`: did you mean `exp`?
            3:13: a kernel has no loops: it is one expression of each element, which every device runs in parallel
            4:21: a kernel's literals are numbers, `true` and `false`
            5:13: `max` takes 1 argument, not 2
        "#]],
    );
}

#[test]
fn signatures() {
    check_errors(
        kernel,
        "async unsafe extern \"C\" fn f<T>(x: T) -> f32 { 1.0 }",
        expect![[r#"
        1:1: a kernel is a plain function: remove `async`
        1:7: a kernel is a plain function: remove this qualifier
        1:14: a kernel is a plain function: remove the ABI
        1:29: a kernel has no generics: `f32` already stands for every float dtype, so write the function for `f32`
        1:36: `T` is no type of a kernel: use `f32` (or `f64`), `bool`, `u8`, `i32`, `u32` or `i64`, or `Row` for a whole row
    "#]],
    );
    check_errors(
        kernel,
        "fn f(&self, (a, b): (f32, f32), _: f32, v: Vec<f32>, t: Tensor) -> () { 1.0 }",
        expect![[r#"
        1:6: a kernel is a free function: give the value a name, such as `x: f32`
        1:13: a kernel's parameters are plain names: take its parts as parameters of their own
        1:33: name the parameter; one that is not used may start with `_`
        1:44: `Vec` is no type of a kernel: use `f32` (or `f64`), `bool`, `u8`, `i32`, `u32` or `i64`, or `Row` for a whole row
        1:57: a kernel is a function of one element or row: write `f32` or `Row`, and call `map` with tensors
        1:68: a kernel returns its result: write `-> f32`, or a tuple for several
    "#]],
    );
    check_errors(
        kernel,
        "fn f(x: f32, y: f64) -> (f32, (f32, f32)) { x }",
        expect![[r#"
        1:17: a kernel has one float type, which stands for every float dtype: `f32` was used before, so write `f32`
        1:25: several results stand in one tuple: no tuple inside a tuple
        1:45: a tuple of 2 values is wanted here
    "#]],
    );
    check_errors(
        kernel,
        "fn f() -> f32 { 1.0 }",
        expect![[r#"
        1:5: a kernel needs at least one parameter, such as `x: f32`
    "#]],
    );
    check_errors(
        kernel,
        "fn f(x: [f32; 3], y: u64, z: i8) -> Row { x }",
        expect![[r#"
        1:9: a kernel sees one element, or with `Row` one row: write the parameter as `f32` or `Row`
        1:22: no dtype is called `u64`: use `i64`
        1:30: no dtype is called `i8`: use `i32`
        1:37: only a kernel with a `Row` parameter returns a `Row`
    "#]],
    );
    check_errors(
        kernel,
        "const fn f(x: Row, y: f64) -> Row { x }",
        expect![[r#"
        1:10: the scalars of a row kernel are `f32`, which stands for every float dtype
        1:1: a row kernel is never evaluated in a constant: remove `const`
    "#]],
    );
    check_errors(
        kernel,
        "struct S;",
        expect![[r#"
        1:1: `#[kernel]` stands on a function: `#[kernel] fn silu(x: f32) -> f32 { … }`
    "#]],
    );
    check_errors(
        |item| super::super::kernel("fast".parse::<TokenStream>().unwrap(), item),
        "fn f(x: f32) -> f32 { x }",
        expect![[r#"
        1:1: `#[kernel]` takes no arguments: the function says everything
    "#]],
    );
}

#[test]
fn expressions() {
    check_errors(
        kernel,
        "fn f(x: f32, n: i32) -> f32 {
            let a = match n { 0 => x, _ => 1.0 };
            let b = &x;
            let c = *b;
            let d = |y: f32| y;
            let e = [x, x];
            let g = e[0];
            let h = n << 2;
            while true { break; }
            println!(\"{x}\");
            fn inner() {}
            let i = x as usize;
            let Some(j) = x else { return x };
            return x;
        }",
        expect![[r#"
            2:21: a kernel has no `match`: write `if … { … } else { … }`
            3:21: a kernel works on values: remove the `&`
            4:21: a kernel works on values: remove the `*`
            5:21: a kernel has no closures: write another `#[kernel]` function and call it
            6:21: a kernel has no arrays: use a tuple
            7:23: a kernel does not index: it sees one element, or a row by its reductions and arithmetic
            8:23: a kernel does not shift: multiply or divide by a power of two
            9:13: a kernel has no loops: it is one expression of each element, which every device runs in parallel
            10:13: a kernel calls no macros: it runs on every device
            11:13: a kernel's body has no items but `const`: declare it outside
            12:26: no dtype is called `usize`: use `i64`
            13:34: a kernel has no `let … else`: every path gives a value
            13:17: a kernel binds names and tuples of names: `let a = …;` or `let (a, b) = …;`
            14:13: a kernel has no `return`: the last expression is the result, and `if … else …` chooses
            14:13: a kernel ends with its result: an expression with no `;` after it
        "#]],
    );
}

#[test]
fn names_and_calls() {
    check_errors(
        kernel,
        "fn f(x: f32, scale: f32) -> f32 {
            let a = scal * x;
            let b = factor;
            let c = f(x);
            let d = x(1.0);
            let (e, g) = x;
            let (h, i) = (x, x, x);
            let t = (x, x);
            q = x;
            t + 1.0
        }",
        expect![[r#"
            2:21: no local is called `scal`: did you mean `scale`?
            3:21: no local is called `factor`: constants are written in capitals, such as `SCALE`
            4:21: a kernel does not call itself: recursion is a loop, which no device runs
            5:21: `x` is a value here, and a kernel has no function values
            6:17: a tuple of 2 values is wanted here
            7:17: 2 values are wanted here, this gives 3
            9:13: only a `let mut` name can be assigned
            10:13: one value is wanted here, not 2: name the one you mean
        "#]],
    );
}

#[test]
fn methods() {
    check_errors(
        kernel,
        "fn f(x: f32) -> f32 {
            x.log1p() + x.sqr() + x.foo() + x.powi() + x.sum() + x.max() + x.relu() + x.exp::<f32>() + x.mul_add(x)
        }",
        expect![[r#"
            2:15: a kernel has no method `log1p`: did you mean `ln_1p`?
            2:27: a kernel has no method `sqr`: did you mean `sqrt`?
            2:37: a kernel has no method `foo`: see the documentation of `#[kernel]` for those it has
            2:45: `powi` takes 1 argument, not 0
            2:58: `sum` reduces a row, and this kernel sees one element: make the parameter a `Row`
            2:68: `max` reduces a row, and this kernel sees one element: make the parameter a `Row`, or give it the other value
            2:78: a kernel has no method `relu`: did you mean `max(0.0)`?
            2:92: a kernel's methods have no type arguments
            2:104: `mul_add` takes 2 arguments, not 1
        "#]],
    );
    check_errors(
        kernel,
        "fn f(x: Row) -> Row { x.summ() + x.max(1.0, 2.0) + x.exp(2.0) }",
        expect![[r#"
            1:25: a kernel has no method `summ`: did you mean `sum`?
            1:34: `max` takes 0 or 1 arguments, not 2
            1:52: `exp` takes 0 arguments, not 1
        "#]],
    );
}

#[test]
fn results() {
    check_errors(
        kernel,
        "fn f(x: f32) -> f32 { x + 1.0; }",
        expect![[r#"
        1:23: a kernel ends with its result: an expression with no `;` after it
    "#]],
    );
    check_errors(
        kernel,
        "fn f(x: f32) -> (f32, f32) { x }",
        expect![[r#"
        1:30: a tuple of 2 values is wanted here
    "#]],
    );
    check_errors(
        kernel,
        "fn f(x: f32) -> (f32, f32) { (x, x, x) }",
        expect![[r#"
        1:30: 2 values are wanted here, this gives 3
    "#]],
    );
    check_errors(
        kernel,
        "fn f(x: Row) -> f32 { if x > 0.0 { 1.0 } else { 0.0 } }",
        expect![[r#"
        1:23: this has one value for each element of the row: return `Row`, and make it one with `Row::from(…)`
    "#]],
    );
    check_errors(
        kernel,
        "fn f(x: Row) -> Row { Row::from(x.max()) }",
        expect![[r#"
        1:23: this has one value for the whole row: return `f32`
    "#]],
    );
    check_errors(
        kernel,
        "fn f(x: f32) -> f32 { 1.0f64 + x + 2i16 as f32 + 99999999999999999999 as f32 }",
        expect![[r#"
        1:23: this kernel's floats are `f32`: leave out the suffix `f64`
        1:36: no dtype is called `i16`: use `i32`
        1:50: this does not fit an `i64`, the widest integer of a kernel
    "#]],
    );
}

#[test]
fn the_signature_stays() {
    check(
        kernel,
        "/// Docs.\npub fn f(x: f32) -> f32 { x.foo() }",
        expect![[r#"
            ::core::compile_error! {
                "a kernel has no method `foo`: see the documentation of `#[kernel]` for those it has"
            }
            /// Docs.
            #[allow(dead_code, unused_variables)]
            pub fn f(x: f32) -> f32 {
                ::core::unreachable!()
            }
            /// The kernel `f` as a template, and mapped over tensors.
            #[allow(non_camel_case_types, dead_code)]
            pub enum f {}
            #[allow(dead_code)]
            impl f {
                /// What devices and derivatives are made from.
                pub const TEMPLATE: &'static ::tapeflow::__macro::ir::Template = {
                    use ::tapeflow::__macro::ir as __ir;
                    #[allow(
                        clippy::approx_constant,
                        clippy::excessive_precision,
                        clippy::unnecessary_cast
                    )]
                    static TEMPLATE: __ir::Template = __ir::Template {
                        name: "f",
                        row: false,
                        inputs: &[
                            __ir::TemplateInput {
                                name: "x",
                                ty: __ir::Hole::Kernel,
                                extent: __ir::Extent::Lane,
                            },
                        ],
                        rows: &[],
                        outputs: &[],
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
