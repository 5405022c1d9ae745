//! Random graphs: fused and unfused programs, any number of threads and any order of reading give the same bits, and
//! the reference agrees. And operations called with arbitrary arguments: each works or gives an `Err`, none panics.

mod elements;
mod graphs;

use graphs::{Graph, Step, config, graphs, ok, same_bits};
use proptest::collection::vec;
use proptest::prelude::*;
use tapeflow::registry::ops;
use tapeflow::{
    DType, Device, Generator, Result, Slot, Tensor, cached_attention, commit, grad, set_memory_limit, set_threads,
    without_fusion,
};

/// Graphs with so much work in a step that several threads take part.
fn large_graphs() -> impl Strategy<Value = Graph> {
    let leaf = (1usize..4, 30usize..140, 30usize..300).prop_map(|(a, b, c)| vec![a, b, c]);
    let leaf = prop_oneof![3 => leaf, 1 => (60usize..300, 90usize..200).prop_map(|(a, b)| vec![a, b])];
    (vec(leaf, 2..4), vec(any::<Step>(), 2..12)).prop_map(|(leaves, steps)| Graph {
        leaves,
        steps,
        dtype: DType::F32,
        largest: 300_000,
    })
}

proptest! {
    #![proptest_config(config(250))]

    #[test]
    fn fused_and_unfused_programs_give_the_same_bits(
        graph in prop_oneof![graphs(DType::F32), graphs(DType::F64), graphs(DType::F16), graphs(DType::BF16)],
    ) {
        let fused = ok(graph.run(true))?;
        same_bits("fused and unfused", &fused, &ok(without_fusion(|| graph.run(true)))?)?;
        same_bits("read together and one by one", &fused, &ok(graph.run(false))?)?;
    }

    #[test]
    fn the_reference_agrees(graph in graphs(DType::F64)) {
        let cpu = ok(graph.run(true))?;
        let reference = ok(Device::reference().scope(|| graph.run(true)))?;
        for (k, (a, b)) in cpu.iter().zip(&reference).enumerate() {
            prop_assert_eq!(a.len(), b.len());
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                let near = (x - y).abs() <= 1e-9 * (1.0 + y.abs()) || (x.is_nan() && y.is_nan()) || x == y;
                prop_assert!(near, "result {}[{}] is {:e}, of the reference {:e}", k, i, x, y);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(120))]

    /// Values of half precision are near those of the reference where rounding the other way is not blown up: within
    /// some units of the dtype.
    #[test]
    fn the_reference_agrees_in_half_precision(graph in prop_oneof![graphs(DType::F16), graphs(DType::BF16)]) {
        let cpu = ok(graph.run(true))?;
        let reference = ok(Device::reference().scope(|| graph.run(true)))?;
        let unit = if graph.dtype == DType::F16 { f64::powi(2.0, -10) } else { f64::powi(2.0, -7) };
        for (k, (a, b)) in cpu.iter().zip(&reference).enumerate() {
            prop_assert_eq!(a.len(), b.len());
            for (i, (x, y)) in a.iter().zip(b).enumerate() {
                let near = (x - y).abs() <= 16.0 * unit * (1.0 + y.abs()) || (x.is_nan() && y.is_nan()) || x == y;
                prop_assert!(near, "result {}[{}] is {:e}, of the reference {:e}", k, i, x, y);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(40))]

    #[test]
    fn any_number_of_threads_gives_the_same_bits(graph in large_graphs()) {
        let alone = set_threads(1).map_err(|e| TestCaseError::fail(e.to_string())).and_then(|()| ok(graph.run(true)))?;
        for threads in [2, 3, 8] {
            set_threads(threads).map_err(|e| TestCaseError::fail(e.to_string()))?;
            same_bits(&format!("1 and {threads} threads"), &alone, &ok(graph.run(true))?)?;
        }
    }
}

/// Rows and columns of a slot that regions are written into.
const ROWS: usize = 6;
const COLUMNS: usize = 5;

/// One update of two slots, each the size of the other: what is written where, and what else is read.
fn update(slots: &[Slot; 2], (kind, which, from, to): (u8, bool, u8, u8)) -> Result<Vec<f32>> {
    let (here, there) = (&slots[usize::from(which)], &slots[usize::from(!which)]);
    let (from, to) = (usize::from(from) % (ROWS - 1), usize::from(to) % (ROWS - 1));
    let (x, y) = (here.tensor(), there.tensor());
    let mut seen = Vec::new();
    let new = match kind % 8 {
        0 => x.slice_assign(0, to, &y.slice(0, from..from + 2)),
        1 => x.slice_assign(0, to, &(x.slice(0, from..from + 2) * 0.5)),
        2 => x.slice_assign(0, to, &x.slice(0, from..from + 2)),
        3 => x.slice_assign(0, to, &y.slice(0, from..from + 1)).slice_assign(1, from % COLUMNS, &y.slice(1, ..1)),
        4 => {
            let starts: Vec<usize> = (0..ROWS).map(|row| (row * from + to) % COLUMNS).collect();
            x.slice_assign_rows(1, &starts, &(y.slice(1, ..1) + 1.0))
        }
        5 => x.slice_assign(0, to, &y.slice(0, from..from + 1)) * 0.75 + 1.0,
        6 => x.slice_assign(1, to % COLUMNS, &x.sum_dim([1], true)),
        _ => {
            // A value that somebody still wants.
            seen.push(x.slice_assign(0, from, &y.slice(0, to..to + 1)).sum());
            x.slice_assign(0, to, &(&x + &y).slice(0, from..from + 1))
        }
    };
    let other = &y * 0.5 + 0.25;
    drop((x, y));
    match kind % 3 {
        0 => commit(&[(here, new)])?,
        1 => commit(&[(here, new), (there, other)])?,
        _ => commit(&[(there, new), (here, other)])?,
    }
    let mut out: Vec<f32> = seen.iter().map(|t| t.item::<f32>()).collect::<std::result::Result<_, _>>()?;
    for slot in slots {
        out.extend(slot.tensor().to_vec::<f32>()?);
    }
    Ok(out)
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn regions_written_in_place_are_those_of_copies(updates in vec(any::<(u8, bool, u8, u8)>(), 1..8)) {
        let run = |holds: bool| -> Result<Vec<Vec<f32>>> {
            let slot = |k: usize| {
                let values = (0..ROWS * COLUMNS).map(|i| (i * (k + 3) % 11) as f32 - 4.0).collect();
                Slot::new(Tensor::from_vec(values, [ROWS, COLUMNS]))
            };
            let slots = [slot(0)?, slot(1)?];
            let mut kept = Vec::new();
            let step = |&step: &(u8, bool, u8, u8)| {
                // While somebody holds the old versions, nothing is written in place.
                kept.extend(holds.then(|| slots.each_ref().map(Slot::tensor)));
                update(&slots, step)
            };
            updates.iter().map(step).collect()
        };
        let expected = ok(run(true))?;
        prop_assert_eq!(&ok(run(false))?, &expected);
        prop_assert_eq!(&ok(without_fusion(|| run(false)))?, &expected);
        prop_assert_eq!(&ok(Device::reference().scope(|| run(false)))?, &expected);
    }
}

/// Arguments of every kind, most of them wrong.
#[derive(Clone, Debug)]
struct Arguments {
    tensors: Vec<(Vec<usize>, DType, u8)>,
    axis: isize,
    other_axis: isize,
    extents: Vec<isize>,
    range: (isize, isize),
    size: usize,
    number: f64,
    flag: bool,
}

fn arguments() -> impl Strategy<Value = Arguments> {
    let extent = prop_oneof![
        8 => 0usize..4,
        2 => Just(17usize),
        1 => prop::sample::select(vec![1 << 20, 1 << 31, 1 << 40, usize::MAX >> 1, usize::MAX]),
    ];
    let dtype =
        prop_oneof![3 => Just(DType::F32), 2 => Just(DType::F64), 4 => prop::sample::select(DType::ALL.to_vec())];
    let tensor = (vec(extent, 0..5), dtype, any::<u8>());
    let integer = || prop_oneof![8 => -4isize..5, 1 => prop::sample::select(vec![isize::MIN, isize::MAX, 1 << 33])];
    let size = prop_oneof![6 => 0usize..5, 1 => prop::sample::select(vec![usize::MAX, 1 << 40, 1 << 63])];
    let number = prop_oneof![
        3 => -2.0f64..3.0,
        2 => prop::sample::select(vec![0.0, -0.0, 1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300, 2.0, 3.0]),
    ];
    let attributes = (integer(), integer(), vec(integer(), 0..5), (integer(), integer()), size, number, any::<bool>());
    (vec(tensor, 3), attributes).prop_map(|(tensors, (axis, other_axis, extents, range, size, number, flag))| {
        Arguments { tensors, axis, other_axis, extents, range, size, number, flag }
    })
}

/// As many elements as may be computed in a test.
const COMPUTABLE: usize = 1 << 12;
const MEMORY: usize = 1 << 26;

fn operand(shape: &[usize], dtype: DType, contents: u8) -> Tensor {
    let numel = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    // Huge ones can be no data, only a constant that nobody computes.
    let Some(numel) = numel.filter(|n| *n <= COMPUTABLE) else { return Tensor::zeros(shape, dtype) };
    let value = |i: usize| match (contents % 4, i % 5) {
        (1, 3) => f64::NAN,
        (1, 4) => f64::INFINITY,
        (2, _) => 1e300 * (i as f64 - 1.5),
        _ => (i * usize::from(contents) % 7) as f64 - 2.0,
    };
    Tensor::from_vec((0..numel).map(value).collect::<Vec<f64>>(), shape).cast(dtype)
}

/// Reads a result, and its gradient if it has one; what comes out does not matter, that it comes does.
fn look_at(out: &Tensor, operands: &[Tensor]) -> Result<(), TestCaseError> {
    let numel = |t: &Tensor| t.shape().iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
    let huge = |t: &Tensor| numel(t) > COMPUTABLE;
    let floats: Vec<&Tensor> = operands.iter().filter(|t| t.dtype().is_float()).collect();
    let gradients = grad(&out.sum(), &floats);
    if huge(out) || operands.iter().any(huge) {
        if numel(out) > MEMORY && !operands.iter().any(|t| huge(t) && numel(t) <= MEMORY) {
            prop_assert!(out.with_bytes(|_| ()).is_err(), "{:?} was computed", out);
        }
        return Ok(());
    }
    // An Err is as good as a value.
    if let Ok(bytes) = out.with_bytes(<[u8]>::len) {
        prop_assert_eq!(bytes, out.numel() * out.dtype().size());
    }
    for gradient in gradients.into_iter().flatten() {
        if let Ok(bytes) = gradient.with_bytes(<[u8]>::len) {
            prop_assert_eq!(bytes, gradient.numel() * gradient.dtype().size());
        }
    }
    Ok(())
}

type Call = fn(&Arguments, &[Tensor]) -> Tensor;

/// Operations whose attributes are data.
const CALLS: &[(&str, Call)] = &[
    ("reshape", |a, t| t[0].reshape(&a.extents[..])),
    ("permute", |a, t| t[0].permute(&a.extents[..])),
    ("transpose", |a, t| t[0].transpose(a.axis, a.other_axis)),
    ("flatten", |a, t| t[0].flatten(a.axis, a.other_axis)),
    ("unsqueeze", |a, t| t[0].unsqueeze(a.axis)),
    ("squeeze", |a, t| t[0].squeeze(a.axis)),
    ("expand", |a, t| t[0].expand(&a.tensors[1].0)),
    ("slice", |a, t| t[0].slice(a.axis, a.range.0..a.range.1)),
    ("slice from", |a, t| t[0].slice(a.axis, a.range.0..)),
    ("slice to", |a, t| t[0].slice(a.axis, ..a.range.1)),
    ("slice through", |a, t| t[0].slice(a.axis, a.range.0..=a.range.1)),
    ("slice_step", |a, t| t[0].slice_step(a.axis, a.range.0..a.range.1, a.size)),
    ("slice_step of all", |a, t| t[0].slice_step(a.axis, .., a.size)),
    ("narrow", |a, t| t[0].narrow(a.axis, a.size, a.tensors[1].0.len())),
    ("narrow by", |a, t| t[0].narrow(a.axis, a.tensors[1].0.len(), a.size)),
    ("pad", |a, t| t[0].pad(&vec![(a.size, a.tensors[1].0.len()); t[0].ndim()])),
    ("pad another rank", |a, t| t[0].pad(&vec![(a.size, 1); a.extents.len()])),
    ("cat", |a, t| Tensor::cat(t, a.axis)),
    ("cat of one shape", |a, t| Tensor::cat(&[&t[0], &t[0]], a.axis)),
    ("cat of nothing", |a, _| Tensor::cat::<Tensor>(&[], a.axis)),
    ("slice_assign", |a, t| t[0].slice_assign(a.axis, a.size, &t[1])),
    ("slice_assign of itself", |a, t| t[0].slice_assign(a.axis, a.size, &t[0])),
    ("slice_assign of a part", |a, t| t[0].slice_assign(a.axis, a.size, &t[0].slice(a.axis, ..1))),
    ("slice_assign_at", |a, t| t[0].slice_assign_at(&a.tensors[1].0, &t[2])),
    ("slice_assign_at one place", |a, t| t[0].slice_assign_at(&vec![a.size; t[0].ndim()], &t[1])),
    ("slice_assign_rows", |a, t| t[0].slice_assign_rows(a.axis, &a.tensors[1].0, &t[2])),
    ("slice_assign_rows of itself", |a, t| {
        t[0].slice_assign_rows(a.axis, &vec![a.size; t[0].shape().first().copied().unwrap_or(0).min(9)], &t[0])
    }),
    ("cached_attention", |a, t| {
        let first = Tensor::full(t[0].shape().first().copied().unwrap_or(0).min(9), a.axis as f64, DType::I64);
        cached_attention(&t[0], &t[1], &t[2], first)
    }),
    ("stack", |a, t| Tensor::stack(t, a.axis)),
    ("stack of one shape", |a, t| Tensor::stack(&[&t[0], &t[0], &t[0]], a.axis)),
    ("stack of nothing", |a, _| Tensor::stack::<Tensor>(&[], a.axis)),
    ("sum_dim", |a, t| t[0].sum_dim(&a.extents[..], a.flag)),
    ("mean_dim", |a, t| t[0].mean_dim(&a.extents[..], a.flag)),
    ("max_dim", |a, t| t[0].max_dim([a.axis], a.flag)),
    ("min_dim", |a, t| t[0].min_dim(&a.extents[..], a.flag)),
    ("var_dim", |a, t| t[0].var_dim([a.axis], a.size, a.flag)),
    ("var", |a, t| t[0].var(a.size)),
    ("argmax", |a, t| t[0].argmax(a.axis, a.flag)),
    ("argmin", |a, t| t[0].argmin(a.axis, a.flag)),
    ("softmax", |a, t| t[0].softmax(a.axis)),
    ("log_softmax", |a, t| t[0].log_softmax(a.axis)),
    ("index_select", |a, t| t[0].index_select(a.axis, &t[1])),
    ("index_select by i64", |a, t| t[0].index_select(a.axis, &t[1].cast(DType::I64))),
    ("gather", |a, t| t[0].gather(a.axis, &t[1].cast(DType::I64))),
    ("gather from itself", |a, t| t[0].gather(a.axis, &t[0].cast(DType::I64))),
    ("layer_norm", |a, t| t[0].layer_norm(&t[1], a.flag.then_some(&t[2]), a.number)),
    ("dropout", |a, t| t[0].dropout(a.number, &Generator::new(1))),
    ("clamp", |a, t| t[0].clamp(a.number, a.size as f64)),
    ("powf", |a, t| t[0].powf(a.number)),
    ("add host number", |a, t| &t[0] + a.number),
    ("rem by host number", |a, t| &t[0] % a.number),
    ("rem by host integer", |a, t| &t[0] % a.axis as i64),
    ("div by host integer", |a, t| &t[0] / a.axis as i64),
    ("cast", |a, t| t[0].cast(a.tensors[1].1)),
    ("cast there and back", |a, t| t[0].cast(a.tensors[1].1).cast(a.tensors[0].1)),
    ("arange", |a, t| Tensor::arange(a.size, t[0].dtype())),
    ("full", |a, t| Tensor::full(&a.tensors[1].0, a.number, t[0].dtype())),
    ("rand", |a, _| Generator::new(2).rand(&a.tensors[1].0)),
    ("randn", |a, _| Generator::new(2).randn(&a.tensors[1].0)),
    ("randint", |a, _| Generator::new(2).randint(a.range.0 as i64, a.range.1 as i64, &a.tensors[1].0)),
];

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn registered_ops_with_arbitrary_operands_never_panic(
        arguments in arguments(),
        case in any::<prop::sample::Index>(),
    ) {
        set_memory_limit(Some(MEMORY));
        let tensors = arguments.tensors.iter();
        let operands: Vec<Tensor> = tensors.map(|(shape, dtype, c)| operand(shape, *dtype, *c)).collect();
        let case = case.get(ops());
        let operands = &operands[..case.operands.len().min(3)];
        look_at(&(case.apply)(operands), operands)?;
    }

    #[test]
    fn ops_with_arbitrary_attributes_never_panic(arguments in arguments(), call in any::<prop::sample::Index>()) {
        set_memory_limit(Some(MEMORY));
        let tensors = arguments.tensors.iter();
        let operands: Vec<Tensor> = tensors.map(|(shape, dtype, c)| operand(shape, *dtype, *c)).collect();
        let (_, call) = call.get(CALLS);
        look_at(&call(&arguments, &operands), &operands)?;
    }
}
