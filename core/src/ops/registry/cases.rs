//! The cases of the registry, one line each, in the order of the files in `ops`.

mod activations;
mod arrangements;
mod losses;

use std::sync::LazyLock;

use super::{Accuracy, Class, Domain, OpCase, Operand, images};
use crate::{DType, Generator, HostCell, Tensor, attention, cached_attention, causal_attention, scan};

pub(super) const fn operand(shape: &'static str, class: Class, domain: Domain) -> Operand {
    Operand { shape, class, domain, broadcasts: false, differentiable: true }
}

pub(super) const fn float(shape: &'static str) -> Operand {
    operand(shape, Class::Float, Domain::Between(-2.0, 2.0))
}

const fn number(shape: &'static str) -> Operand {
    operand(shape, Class::Number, Domain::Between(-2.0, 2.0))
}

pub(super) const fn any(shape: &'static str) -> Operand {
    operand(shape, Class::Any, Domain::Between(-2.0, 2.0))
}

const fn boolean(shape: &'static str) -> Operand {
    operand(shape, Class::Bool, Domain::Ties).fixed()
}

const fn index(shape: &'static str, axis: char) -> Operand {
    operand(shape, Class::Index(axis), Domain::Ties).fixed()
}

impl Operand {
    pub(super) const fn within(mut self, domain: Domain) -> Operand {
        self.domain = domain;
        self
    }

    const fn positive(self) -> Operand {
        self.within(Domain::Between(0.3, 2.5))
    }

    const fn broadcast(mut self) -> Operand {
        self.broadcasts = true;
        self
    }

    /// No cotangent reaches it.
    const fn fixed(mut self) -> Operand {
        self.differentiable = false;
        self
    }
}

impl OpCase {
    pub(super) fn accurate_to(mut self, accuracy: Accuracy) -> OpCase {
        self.accuracy = accuracy;
        self
    }
}

/// `"op"` or `"op, attributes"`.
pub(super) fn case<const N: usize>(
    name: &'static str,
    operands: [Operand; N],
    apply: fn(&[Tensor]) -> Tensor,
) -> OpCase {
    let op = name.split(',').next().unwrap_or(name);
    OpCase { op, name, operands: operands.to_vec(), apply, accuracy: Accuracy::Exact }
}

/// A function of each element alone.
fn unary(name: &'static str, x: Operand, ulps: f64, apply: fn(&[Tensor]) -> Tensor) -> OpCase {
    let accuracy = if ulps == 0.0 { Accuracy::Exact } else { Accuracy::Ulps(ulps) };
    case(name, [x.broadcast()], apply).accurate_to(accuracy)
}

/// Two operands that broadcast, and an exact result.
fn binary(name: &'static str, x: Operand, y: Operand, apply: fn(&[Tensor]) -> Tensor) -> OpCase {
    case(name, [x.broadcast(), y.broadcast()], apply)
}

/// Sums, and what is made of them.
pub(super) fn sums<const N: usize>(
    name: &'static str,
    operands: [Operand; N],
    apply: fn(&[Tensor]) -> Tensor,
) -> OpCase {
    case(name, operands, apply).accurate_to(Accuracy::Sums(4.0))
}

pub(super) static CASES: LazyLock<Vec<OpCase>> = LazyLock::new(|| {
    let files = [
        elementwise(),
        logic(),
        activations::cases(),
        casts(),
        reductions(),
        products(),
        quantized(),
        packed(),
        images::convolutions(),
        images::pools(),
        movements(),
        joins(),
        picks(),
        rows(),
        losses::cases(),
        arrangements::cases(),
        scans(),
    ];
    files.into_iter().flatten().collect()
});

/// Weights in eight bits.
fn quantized() -> Vec<OpCase> {
    let codes = float("kB").within(Domain::Between(0.0, 255.0)).fixed();
    let scales = float("k1").within(Domain::Between(0.001, 0.004)).fixed();
    /// What a float stands for; others are refused as they are.
    fn of(x: &Tensor, dtype: DType) -> Tensor {
        if x.dtype().is_float() { x.cast(dtype) } else { x.clone() }
    }
    vec![
        // The codes themselves may differ by one between devices, where a value lies between two.
        case("quantize_int8, scales", [float("kB").fixed()], |t| t[0].quantize_int8().1)
            .accurate_to(Accuracy::Ulps(2.0)),
        case("dequantize_int8", [codes, scales], |t| of(&t[0], DType::U8).dequantize_int8(&of(&t[1], DType::F32))),
        sums("linear_int8", [float("aB"), codes, scales], |t| {
            t[0].linear_int8(&of(&t[1], DType::U8), &of(&t[2], DType::F32))
        }),
    ]
}

/// Weights in panels.
fn packed() -> Vec<OpCase> {
    fn outputs(weight: &Tensor) -> usize {
        weight.shape().first().copied().unwrap_or(1)
    }
    vec![
        case("prepack", [float("kB").fixed()], |t| t[0].prepack()),
        case("unpack", [float("kB").fixed()], |t| t[0].prepack().unpack(outputs(&t[0]))),
        sums("linear_packed", [float("aB"), float("kB").fixed()], |t| {
            t[0].linear_packed(&t[1].prepack(), outputs(&t[1]))
        }),
    ]
}

fn elementwise() -> Vec<OpCase> {
    use Domain::{Apart, Between, BetweenIntegers};
    let away = |x: Operand| x.within(BetweenIntegers);
    let nonzero = number("ab").positive();
    vec![
        binary("add", number("ab"), number("ab"), |t| &t[0] + &t[1]),
        binary("sub", number("ab"), number("ab"), |t| &t[0] - &t[1]),
        binary("mul", number("ab"), number("ab"), |t| &t[0] * &t[1]),
        binary("div", number("ab"), nonzero, |t| &t[0] / &t[1]),
        binary("rem", number("ab").within(Between(2.5, 3.5)), number("ab").within(Between(1.9, 2.1)), |t| {
            &t[0] % &t[1]
        }),
        unary("add, host number", number("ab"), 0.0, |t| &t[0] + 2),
        unary("sub, from host number", number("ab"), 0.0, |t| 3 - &t[0]),
        unary("mul, host number", float("ab"), 0.0, |t| 1.5 * &t[0]),
        unary("div, by host number", number("ab"), 0.0, |t| &t[0] / 3),
        unary("rem, by host number", away(number("ab")), 0.0, |t| &t[0] % 2),
        unary("neg", number("ab"), 0.0, |t| -&t[0]),
        binary("pow", float("ab").positive(), float("ab"), |t| t[0].pow(&t[1])).accurate_to(Accuracy::Ulps(8.0)),
        unary("powf, 1/2", float("ab").positive(), 8.0, |t| t[0].powf(0.5)),
        unary("powf, 0", float("ab").positive(), 0.0, |t| t[0].powf(0.0)),
        unary("powf, 1", any("ab"), 0.0, |t| t[0].powf(1.0)),
        unary("powf, square", number("ab"), 0.0, |t| t[0].powf(2.0)),
        unary("powf, cube", number("ab"), 4.0, |t| t[0].powf(3.0)),
        unary("powf, of negative numbers", float("ab").within(Between(-2.0, -0.5)), 8.0, |t| t[0].powf(4.0)),
        unary("powf, -1.5", float("ab").positive(), 8.0, |t| t[0].powf(-1.5)),
        binary("maximum", number("ab").within(Apart(0.0)), number("ab").within(Apart(0.05)), |t| t[0].maximum(&t[1])),
        binary("minimum", number("ab").within(Apart(0.0)), number("ab").within(Apart(0.05)), |t| t[0].minimum(&t[1])),
        unary("abs", away(number("ab")), 0.0, |t| t[0].abs()),
        unary("sign", away(number("ab")), 0.0, |t| t[0].sign()),
        unary("floor", away(float("ab")), 0.0, |t| t[0].floor()),
        unary("ceil", away(float("ab")), 0.0, |t| t[0].ceil()),
        unary("trunc", away(float("ab")), 0.0, |t| t[0].trunc()),
        unary("exp", float("ab"), 2.0, |t| t[0].exp()),
        unary("expm1", float("ab"), 3.0, |t| t[0].expm1()),
        unary("log", float("ab").positive(), 2.0, |t| t[0].log()),
        unary("log1p", float("ab").positive(), 3.0, |t| t[0].log1p()),
        unary("sqrt", float("ab").positive(), 0.0, |t| t[0].sqrt()),
        unary("rsqrt", float("ab").positive(), 2.0, |t| t[0].rsqrt()),
        unary("recip", number("ab").positive(), 0.0, |t| t[0].recip()),
        unary("square", number("ab"), 0.0, |t| t[0].square()),
        unary("sin", float("ab"), 2.0, |t| t[0].sin()),
        unary("cos", float("ab"), 4.0, |t| t[0].cos()),
        unary("tanh", float("ab"), 3.0, |t| t[0].tanh()),
        unary("clamp", away(number("ab")), 0.0, |t| t[0].clamp(1.0, 2.0)),
        unary("detach", any("ab").fixed(), 0.0, |t| t[0].detach()),
    ]
}

fn logic() -> Vec<OpCase> {
    let tied = || any("ab").within(Domain::Ties).fixed();
    vec![
        binary("eq", tied(), tied(), |t| t[0].eq(&t[1])),
        binary("ne", tied(), tied(), |t| t[0].ne(&t[1])),
        binary("lt", tied(), tied(), |t| t[0].lt(&t[1])),
        binary("le", tied(), tied(), |t| t[0].le(&t[1])),
        binary("gt", tied(), tied(), |t| t[0].gt(&t[1])),
        binary("ge", tied(), tied(), |t| t[0].ge(&t[1])),
        binary("logical_and", boolean("ab"), boolean("ab"), |t| t[0].logical_and(&t[1])),
        binary("logical_or", boolean("ab"), boolean("ab"), |t| t[0].logical_or(&t[1])),
        unary("logical_not", boolean("ab"), 0.0, |t| t[0].logical_not()),
        case("where_", [boolean("ab").broadcast(), any("ab").broadcast(), any("ab").broadcast()], |t| {
            t[0].where_(&t[1], &t[2])
        }),
    ]
}

fn casts() -> Vec<OpCase> {
    let away = || any("ab").within(Domain::BetweenIntegers).fixed();
    vec![
        unary("cast, bool", any("ab").within(Domain::Ties).fixed(), 0.0, |t| t[0].cast(DType::Bool)),
        unary("cast, u8", away(), 0.0, |t| t[0].cast(DType::U8)),
        unary("cast, i32", away(), 0.0, |t| t[0].cast(DType::I32)),
        unary("cast, u32", away(), 0.0, |t| t[0].cast(DType::U32)),
        unary("cast, i64", away(), 0.0, |t| t[0].cast(DType::I64)),
        unary("cast, f16", away(), 0.0, |t| t[0].cast(DType::F16)),
        unary("cast, bf16", away(), 0.0, |t| t[0].cast(DType::BF16)),
        unary("cast, f32", any("ab").fixed(), 0.0, |t| t[0].cast(DType::F32)),
        unary("cast, f64", any("ab"), 0.0, |t| t[0].cast(DType::F64)),
    ]
}

fn reductions() -> Vec<OpCase> {
    let apart = |shape| number(shape).within(Domain::Apart(0.0));
    vec![
        sums("sum", [number("abc")], |t| t[0].sum()),
        sums("sum_dim, first", [number("abc")], |t| t[0].sum_dim(0, false)),
        sums("sum_dim, middle, kept", [number("abc")], |t| t[0].sum_dim([1], true)),
        sums("sum_dim, last", [number("abc")], |t| t[0].sum_dim(-1, false)),
        sums("sum_dim, two leading", [number("abc")], |t| t[0].sum_dim([1, 0], false)),
        sums("sum_dim, two trailing, kept", [number("abc")], |t| t[0].sum_dim([-1, -2], true)),
        sums("sum_dim, outer two", [number("abc")], |t| t[0].sum_dim([0, 2], false)),
        sums("mean", [float("abc")], |t| t[0].mean()),
        sums("mean_dim, last, kept", [float("abc")], |t| t[0].mean_dim(-1, true)),
        sums("mean_dim, first", [float("abc")], |t| t[0].mean_dim([0], false)),
        case("max", [apart("ABC")], |t| t[0].max()),
        case("max_dim, first", [apart("Abc")], |t| t[0].max_dim(0, false)),
        case("max_dim, last, kept", [apart("abC")], |t| t[0].max_dim(-1, true)),
        case("max_dim, outer two", [apart("AbC")], |t| t[0].max_dim([0, 2], false)),
        case("min", [apart("ABC")], |t| t[0].min()),
        case("min_dim, middle", [apart("aBc")], |t| t[0].min_dim(1, false)),
        case("min_dim, leading, kept", [apart("ABc")], |t| t[0].min_dim([0, 1], true)),
        sums("var, of the population", [float("abC")], |t| t[0].var(0)),
        sums("var_dim, unbiased", [float("ab5")], |t| t[0].var_dim(-1, 1, false)),
        sums("var_dim, first, kept", [float("Abc")], |t| t[0].var_dim(0, 0, true)),
        sums("var_dim, outer two", [float("AbC")], |t| t[0].var_dim([0, 2], 0, false)),
        sums("var_mean_dim, items and pixels, kept", [float("Ab46")], |t| {
            let (var, mean) = t[0].var_mean_dim([0, 2, 3], 0, true);
            var * 2.0 + mean
        }),
        case("argmax, last", [any("abC").within(Domain::Ties).fixed()], |t| t[0].argmax(-1, false)),
        case("argmax, first, kept", [any("Abc").within(Domain::Ties).fixed()], |t| t[0].argmax(0, true)),
        case("argmin, last, kept", [any("abC").within(Domain::Ties).fixed()], |t| t[0].argmin(2, true)),
        case("argmin, middle", [any("aBc").within(Domain::Ties).fixed()], |t| t[0].argmin(1, false)),
    ]
}

fn products() -> Vec<OpCase> {
    vec![
        sums("matmul", [float("ab"), float("bc")], |t| t[0].matmul(&t[1])),
        sums("matmul, transposed operands", [float("ba"), float("cb")], |t| t[0].t().matmul(&t[1].t())),
        sums("matmul, batch", [float("dab"), float("dbc")], |t| t[0].matmul(&t[1])),
        sums("matmul, one matrix for a batch", [float("dab"), float("bc")], |t| t[0].matmul(&t[1])),
        sums("matmul, one matrix before a batch", [float("ab"), float("dbc")], |t| t[0].matmul(&t[1])),
        sums("matmul, batches broadcast", [float("d1ab"), float("2bc")], |t| t[0].matmul(&t[1])),
        sums("matmul, vector and vector", [float("b"), float("b")], |t| t[0].matmul(&t[1])),
        sums("matmul, vector and matrix", [float("b"), float("bc")], |t| t[0].matmul(&t[1])),
        sums("matmul, vector and batch", [float("b"), float("dbc")], |t| t[0].matmul(&t[1])),
        sums("matmul, matrix and vector", [float("ab"), float("b")], |t| t[0].matmul(&t[1])),
        sums("matmul, with its own transpose", [float("ab")], |t| t[0].matmul(&t[0].t())),
        sums("attention", [float("dab"), float("dCb"), float("dCc")], |t| attention(&t[0], &t[1], &t[2])),
        sums("attention, batches broadcast", [float("d1ab"), float("2Cb"), float("Cc")], |t| {
            attention(&t[0], &t[1], &t[2])
        }),
        sums("causal_attention", [float("dab"), float("dab"), float("dac")], |t| causal_attention(&t[0], &t[1], &t[2])),
        sums("causal_attention, heads", [float("de3b"), float("de3b"), float("de3b")], |t| {
            causal_attention(&t[0], &t[1], &t[2])
        }),
        sums("causal_attention, more keys", [float("d3b"), float("d5b"), float("d5c")], |t| {
            causal_attention(&t[0], &t[1], &t[2])
        }),
        sums("cached_attention", [float("2e3b"), float("2e6b"), float("2e6c")], |t| {
            cached_attention(&t[0], &t[1], &t[2], Tensor::from_vec(vec![2i64, 0], [2]))
        }),
    ]
}

fn movements() -> Vec<OpCase> {
    vec![
        case("reshape", [any("a4c")], |t| t[0].reshape([2, -1, 2])),
        case("reshape, flat", [any("abc")], |t| t[0].reshape([-1])),
        case("flatten", [any("abcd")], |t| t[0].flatten(1, -2)),
        case("flatten, a scalar", [any("")], |t| t[0].flatten(0, -1)),
        case("unsqueeze, last", [any("ab")], |t| t[0].unsqueeze(-1)),
        case("unsqueeze, first", [any("ab")], |t| t[0].unsqueeze(0)),
        case("squeeze", [any("a1b")], |t| t[0].squeeze(1)),
        case("permute", [any("abc")], |t| t[0].permute([2, 0, -2])),
        case("transpose", [any("abc")], |t| t[0].transpose(0, -1)),
        case("t", [any("dab")], |t| t[0].t()),
        case("expand", [any("2141")], |t| t[0].expand([3, 2, 3, 4, 1])),
        case("slice", [any("6b")], |t| t[0].slice(0, 1..5)),
        case("slice, from the end", [any("a6")], |t| t[0].slice(-1, -4..-1)),
        case("slice, of nothing", [any("a6")], |t| t[0].slice(1, 3..3)),
        case("slice_step", [any("7b")], |t| t[0].slice_step(0, 1.., 2)),
        case("slice_step, last", [any("a7")], |t| t[0].slice_step(1, ..6, 3)),
        case("chunk", [any("a6c")], |t| {
            let [_, middle, last] = t[0].chunk(1);
            Tensor::cat(&[&last, &middle], 0)
        }),
        case("narrow", [any("a6c")], |t| t[0].narrow(1, 2, 3)),
    ]
}

fn joins() -> Vec<OpCase> {
    vec![
        case("cat, first", [any("ab"), any("cb")], |t| Tensor::cat(t, 0)),
        case("cat, last, of three", [any("ab"), any("ac"), any("ad")], |t| Tensor::cat(t, -1)),
        case("cat, with itself", [any("ab")], |t| Tensor::cat(&[&t[0], &t[0]], 0)),
        case("stack, first", [any("ab"), any("ab")], |t| Tensor::stack(t, 0)),
        case("stack, last", [any("ab"), any("ab"), any("ab")], |t| Tensor::stack(t, -1)),
        case("pad", [any("ab")], |t| t[0].pad(&[(1, 2), (0, 1)])),
        case("slice_assign", [any("6b"), any("2b")], |t| t[0].slice_assign(0, 3, &t[1])),
        case("slice_assign, last, of a computed value", [any("a5"), any("a2")], |t| {
            t[0].slice_assign(-1, 1, &t[1].slice_assign(1, 0, &t[0].slice(1, 3..4)))
        }),
        case("slice_assign, of nothing", [any("a5"), any("a0")], |t| t[0].slice_assign(1, 5, &t[1])),
        case("slice_assign, of all", [any("ab"), any("ab")], |t| t[0].slice_assign(0, 0, &t[1])),
        case("slice_assign_at", [any("46b"), any("13b")], |t| t[0].slice_assign_at(&[2, 3, 0], &t[1])),
        case("slice_assign_rows", [any("3a5"), any("3a2")], |t| t[0].slice_assign_rows(2, &[1, 3, 0], &t[1])),
        case("slice_assign_rows, one", [any("16b"), any("14b")], |t| t[0].slice_assign_rows(1, &[2], &t[1])),
        case("slice_assign_cells", [any("2a5"), any("2a2")], |t| {
            t[0].slice_assign_cells(2, &[3.0, 1.0].map(HostCell::new), &t[1])
        }),
    ]
}

fn picks() -> Vec<OpCase> {
    vec![
        case("index_select, first", [any("Ab"), index("c", 'A')], |t| t[0].index_select(0, &t[1])),
        case("index_select, middle, by a matrix", [any("aBc"), index("de", 'B')], |t| t[0].index_select(1, &t[1])),
        case("index_select, by a scalar", [any("aB"), index("", 'B')], |t| t[0].index_select(-1, &t[1])),
        case("gather, first", [any("Ab"), index("cb", 'A')], |t| t[0].gather(0, &t[1])),
        case("gather, last", [any("aB"), index("ac", 'B')], |t| t[0].gather(-1, &t[1])),
        case("embedding", [any("Ab"), index("cd", 'A')], |t| t[0].embedding(&t[1])),
    ]
}

fn scans() -> Vec<OpCase> {
    /// A step that decays what was there: the carry and what is kept differ.
    fn decay(t: &[Tensor]) -> (Vec<Tensor>, Vec<Tensor>) {
        scan(&[&t[0]], &[&t[1]], |carry, x| {
            let next = &carry[0] * 0.5 + &x[0];
            (vec![next.clone()], vec![&next * &x[0]])
        })
    }
    vec![
        case("scan, last", [float("b"), float("ab")], |t| decay(t).0.swap_remove(0)),
        case("scan, all", [float("b"), float("ab")], |t| decay(t).1.swap_remove(0)),
    ]
}

fn rows() -> Vec<OpCase> {
    let scale = || float("c").positive();
    vec![
        sums("softmax, last", [float("abc")], |t| t[0].softmax(-1)),
        sums("softmax, first", [float("abc")], |t| t[0].softmax(0)),
        sums("log_softmax, last", [float("abc")], |t| t[0].log_softmax(-1)),
        sums("log_softmax, middle", [float("abc")], |t| t[0].log_softmax(1)),
        sums("layer_norm", [float("abc"), scale()], |t| t[0].layer_norm(&t[1], None, 1e-2))
            .accurate_to(Accuracy::Sums(16.0)),
        sums("layer_norm, bias", [float("abc"), scale(), float("c")], |t| t[0].layer_norm(&t[1], Some(&t[2]), 1e-2))
            .accurate_to(Accuracy::Sums(16.0)),
        sums("rms_norm", [float("abc"), scale()], |t| t[0].rms_norm(&t[1], 1e-2)).accurate_to(Accuracy::Sums(16.0)),
        sums("group_norm", [float("a6b")], |t| t[0].group_norm(3, 1e-2)).accurate_to(Accuracy::Sums(16.0)),
        sums("group_norm, one group", [float("ab2c")], |t| t[0].group_norm(1, 1e-2)).accurate_to(Accuracy::Sums(16.0)),
        case("dropout", [float("abc")], |t| t[0].dropout(0.4, &Generator::new(7))).accurate_to(Accuracy::Ulps(2.0)),
        case("dropout, of none", [any("ab")], |t| t[0].dropout(0.0, &Generator::new(7))),
    ]
}
