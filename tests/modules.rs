//! What `#[derive(Module)]` makes of every shape of struct and of forward expressions: values, paths, backward.

use tapeflow::prelude::*;
use tapeflow::{Buffer, Result, Visitor};

/// x ↦ k x + 1, under the path it is called at.
struct Affine(Parameter);

impl Module for Affine {
    fn visit(&self, visitor: &mut dyn Visitor) {
        visitor.enter("weight");
        self.0.visit(visitor);
        visitor.leave();
    }
}

impl Forward for Affine {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        x * &self.0.tensor() + 1.0
    }
}

fn affine(k: f64) -> Affine {
    Affine(Parameter::new(Tensor::from_vec(vec![k], [1])).unwrap())
}

fn f(k: f64) -> impl Fn(f64) -> f64 {
    move |x| k * x + 1.0
}

fn at(x: f64) -> Tensor {
    Tensor::from_vec(vec![x], [1])
}

#[track_caller]
fn value(t: Tensor) -> f64 {
    t.item().unwrap()
}

fn paths(module: &impl Module) -> Vec<String> {
    module.leaves().into_iter().map(|(path, _)| path).collect()
}

/// The module path of the mistake that a forward of two elements with three meets first.
fn path_of_mistake(y: Tensor) -> String {
    y.realize().unwrap_err().module_path()
}

#[derive(Module)]
#[module(forward = |x| { let x = x + attn(ln_1(x)); x + mlp(ln_2(x)) })]
struct Block {
    ln_1: Affine,
    attn: Affine,
    ln_2: Affine,
    mlp: Affine,
}

fn block() -> Block {
    Block { ln_1: affine(2.0), attn: affine(3.0), ln_2: affine(5.0), mlp: affine(7.0) }
}

fn block_value(x: f64) -> f64 {
    let x = x + f(3.0)(f(2.0)(x));
    x + f(7.0)(f(5.0)(x))
}

#[derive(Module)]
#[module(forward = |x| x)]
struct Identity;

#[derive(Module)]
#[module(forward = |x| self.1(self.0(x)))]
struct Pipe<A, B>(A, B);

#[test]
fn named_tuple_unit_and_generic_structs() {
    assert_eq!(value(block().forward(&at(0.5))), block_value(0.5));
    assert_eq!(paths(&block()), ["ln_1.weight", "attn.weight", "ln_2.weight", "mlp.weight"]);
    assert_eq!(value(Identity.forward(&at(0.5))), 0.5);
    assert!(paths(&Identity).is_empty());
    let nested = Pipe(affine(2.0), Pipe(affine(3.0), affine(5.0)));
    assert_eq!(value(nested.forward(&at(0.5))), f(5.0)(f(3.0)(f(2.0)(0.5))));
    assert_eq!(paths(&nested), ["0.weight", "1.0.weight", "1.1.weight"]);
}

fn double(x: Tensor) -> Tensor {
    x * 2.0
}

#[derive(Module)]
#[module(forward = |x| {
    let n = self.heads;
    let [width] = x.dims();
    let scale = self.scale.tensor();
    let x = norm(x.reshape([width]) * scale);
    let y = h(x);
    let z = rows(-y);
    let residual = z;
    let mut out = residual;
    if n > 3 { out = out + tail(residual); } else { out = crate::double(out * 2.0) }
    let (p, q) = (out.exp(), out.tanh());
    let s = act(Tensor::cat(&[x, p, q], 0)).sum();
    let g = |k: &Tensor| k * s;
    let m = match n { 1 => s, _ => g(out) };
    for block in &self.h { out = block.forward(out); }
    first(out + 1.0) + m
})]
struct Wide<const N: usize> {
    scale: Parameter,
    h: Vec<Block>,
    norm: Option<Affine>,
    tail: Option<Vec<Affine>>,
    rows: [Option<Affine>; N],
    first: Box<Affine>,
    #[module(buffer, rename = "running")]
    mean: Buffer,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    act: fn(&Tensor) -> Tensor,
}

fn wide(heads: usize) -> Wide<2> {
    Wide {
        scale: Parameter::new(at(0.25)).unwrap(),
        h: vec![block(), block()],
        norm: None,
        tail: Some(vec![affine(0.5)]),
        rows: [None, Some(affine(0.125))],
        first: Box::new(affine(2.0)),
        mean: Buffer::new(at(0.0)).unwrap(),
        heads,
        act: |x| x.relu(),
    }
}

#[test]
fn lists_options_arrays_boxes_branches_loops_and_closures() {
    let expected = |x: f64, heads: usize| {
        let x = x * 0.25;
        let y = block_value(block_value(x));
        let z = f(0.125)(-y);
        let mut out = if heads > 3 { z + f(0.5)(z) } else { z * 4.0 };
        let s = x.max(0.0) + out.exp().max(0.0) + out.tanh().max(0.0);
        let m = if heads == 1 { s } else { out * s };
        for _ in 0..2 {
            out = block_value(out);
        }
        f(2.0)(out + 1.0) + m
    };
    for heads in [1, 2, 4] {
        let model = wide(heads);
        let (found, wanted) = (value(model.forward(&at(0.001))), expected(0.001, heads));
        assert!((found - wanted).abs() <= 1e-12 * wanted.abs(), "{heads} heads: {found}, not {wanted}");
        assert!(std::ptr::fn_addr_eq(model.act, model.act) && model.mean.tensor().numel() == 1);
    }
    let expected = [
        "scale",
        "h.0.ln_1.weight",
        "h.0.attn.weight",
        "h.0.ln_2.weight",
        "h.0.mlp.weight",
        "h.1.ln_1.weight",
        "h.1.attn.weight",
        "h.1.ln_2.weight",
        "h.1.mlp.weight",
        "tail.0.weight",
        "rows.1.weight",
        "first.weight",
        "running",
    ];
    assert_eq!(paths(&wide(1)), expected);
    let model = wide(1);
    assert_eq!((model.parameters().len(), model.named_buffers().len()), (12, 1));
}

struct Cache(usize);

#[derive(Module)]
#[module(forward = |x, cache: &mut Cache| { cache.0 += 1; proj(x) })]
struct Cached {
    proj: Affine,
}

#[derive(Module)]
#[module(forward = |x, mask, cache: &mut Cache| { let y = inner(x + mask, cache); y + x * mask })]
struct Masked {
    inner: Cached,
}

#[derive(Module)]
#[module(forward = |mut x, y| { x = x + y; x = left(x); right(x) })]
struct Two {
    left: Affine,
    right: Affine,
}

#[derive(Module)]
#[module(forward = |x| -> (Tensor, Tensor) { (a(x), x) })]
struct Both {
    a: Affine,
}

#[test]
fn further_inputs_and_other_results() -> Result<()> {
    let masked = Masked { inner: Cached { proj: affine(3.0) } };
    let mut cache = Cache(0);
    assert_eq!(value(masked.forward(&at(2.0), &at(5.0), &mut cache)), f(3.0)(7.0) + 10.0);
    assert_eq!(cache.0, 1);
    let two = Two { left: affine(2.0), right: affine(3.0) };
    assert_eq!(value(two.forward(&at(1.0), &at(4.0))), f(3.0)(f(2.0)(5.0)));
    let (a, x) = Both { a: affine(2.0) }.forward(&at(4.0));
    assert_eq!((value(a), value(x)), (9.0, 4.0));
    Ok(())
}

#[test]
fn the_backward_side_of_a_module_in_isolation() -> Result<()> {
    let two = Two { left: affine(2.0), right: affine(3.0) };
    two.stamp_paths();
    // d/dx = d/dy = 2 · 3; by right's weight: 2 (x + y) + 1; by left's: 3 (x + y).
    let (inputs, gradients) = two.vjp(&at(1.0), &at(4.0), &at(10.0))?;
    assert_eq!(inputs.iter().map(|t| value(t.clone())).collect::<Vec<_>>(), [60.0, 60.0]);
    assert_eq!(value(gradients.by_path("right.weight").unwrap().clone()), 110.0);
    assert_eq!(value(gradients.by_path("left.weight").unwrap().clone()), 150.0);

    let vjp = block().vjp(&at(0.5), &at(1.0))?;
    assert_eq!(value(vjp.output), block_value(0.5));
    assert_eq!(value(vjp.input), (1.0 + 6.0) * (1.0 + 35.0));
    assert_eq!(vjp.parameters.len(), 4);
    Ok(())
}

#[test]
fn what_is_recorded_carries_the_path_of_its_module() {
    // Three elements do not broadcast with two, which only the named layer has.
    let spoiled = || Affine(Parameter::new(Tensor::from_vec(vec![1.0; 3], [3])).unwrap());
    let x = Tensor::from_vec(vec![1.0; 2], [2]);
    let block = Block { attn: spoiled(), ..block() };
    assert_eq!(path_of_mistake(block.forward(&x)), "attn");
    assert_eq!(path_of_mistake(Pipe(affine(1.0), Pipe(affine(1.0), spoiled())).forward(&x)), "1.1");
    let mut model = wide(1);
    model.h[1].mlp = spoiled();
    assert_eq!(path_of_mistake(model.forward(&x)), "h.1.mlp");
    // In a loop the user writes, the elements are called by hand, without their names.
    model.h[1] = self::block();
    *model.first = spoiled();
    assert_eq!(path_of_mistake(model.forward(&x)), "first");
    let masked = Masked { inner: Cached { proj: spoiled() } };
    assert_eq!(path_of_mistake(masked.forward(&x, &x, &mut Cache(0))), "inner.proj");
    // Nothing stays entered after a forward.
    assert_eq!(path_of_mistake(&x + &Tensor::from_vec(vec![1.0; 3], [3])), "");
}

// rustfmt indents the attribute anew at every run.
#[rustfmt::skip]
macro_rules! residual {
    ($name:ident, $f:ident, |$x:ident|) => {
        #[derive(Module)]
        #[module(forward = |$x| { let y = inner(self.$f.forward($x)); y + $f($x) })]
        struct $name {
            $f: Affine,
            inner: Affine,
            #[module(skip)]
            #[allow(dead_code)]
            act: Box<dyn Fn(&Tensor) -> Tensor>,
        }
        #[derive(Module)]
        #[module(forward = |z| {
            let f = |k: Tensor| fc(k);
            let input = f(act(z + z));
            let index = 1;
            h(fc(input), index) + input
        })]
        struct Other {
            fc: Affine,
            h: Vec<Indexed>,
            #[module(skip)]
            act: Box<dyn Fn(&Tensor) -> Tensor>,
        }
    };
}

residual!(Residual, fc, |x|);

#[derive(Module)]
#[module(forward = |x, index: usize| { let _ = index; x })]
struct Indexed;

#[test]
fn derives_inside_macros_keep_their_names_apart() {
    let residual = Residual { fc: affine(2.0), inner: affine(3.0), act: Box::new(Tensor::clone) };
    assert_eq!(value(residual.forward(&at(4.0))), f(3.0)(f(2.0)(4.0)) + f(2.0)(4.0));
    let other = Other { fc: affine(2.0), h: vec![Indexed], act: Box::new(Tensor::clone) };
    let input = f(2.0)(8.0);
    assert_eq!(value(other.forward(&at(4.0))), f(2.0)(input) + input);
}

#[test]
fn kernels_in_functions_see_what_stands_around_them() -> Result<()> {
    const SCALE: f32 = 2.0;
    #[kernel]
    fn local(x: f32) -> f32 {
        helper(x) * SCALE
    }
    #[kernel]
    fn helper(x: f32) -> f32 {
        x + SCALE
    }
    assert_eq!(local(1.0), 6.0);
    let x = Tensor::from_vec(vec![1.0f64, -3.0], [2]).with_grad()?;
    let y = local::map(&x);
    assert_eq!(y.to_vec::<f64>()?, [6.0, -2.0]);
    assert_eq!(grad(&y.sum(), &[&x])?[0].to_vec::<f64>()?, [2.0, 2.0]);
    Ok(())
}

#[test]
fn a_row_kernel_of_ones_own_is_softmax() -> Result<()> {
    #[kernel]
    fn softmax(x: Row) -> Row {
        let e = (x - x.max()).exp();
        e / e.sum()
    }
    let x = Tensor::from_vec(vec![0.5f64, -1.0, 2.0, 0.0, 3.0, 1.0], [2, 3]).with_grad()?;
    assert_eq!(softmax::map(&x).to_vec::<f64>()?, x.softmax(-1).to_vec::<f64>()?);
    let weights = Tensor::from_vec((0..6).map(f64::from).collect(), [2, 3]);
    let [a, b] = [softmax::map(&x), x.softmax(-1)].map(|y| grad(&(y * &weights).sum(), &[&x]).unwrap().remove(0));
    for (a, b) in a.to_vec::<f64>()?.iter().zip(b.to_vec::<f64>()?) {
        assert!((a - b).abs() < 1e-14, "{a} and {b}");
    }
    Ok(())
}
