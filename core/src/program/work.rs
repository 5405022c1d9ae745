//! How much work a step is: bytes that it must move and floating-point operations, from shapes alone; and what profiles
//! call it. Owns the rules of counting; knows no clocks.
//!
//! # Rules
//! - Bytes: every element that an operand is read at counts once, however often it is read, and every element of a
//!   result once. Rows picked by index count once per pick, at most the whole operand.
//! - Operations: one for each float result of arithmetic, a function such as `exp` included; two for a `mul_add`; one
//!   per element of a reduction or a scatter-add; `2·m·n·k` for a product. Integers, comparisons, choices, conversions
//!   and copies count nothing. What fusion computes again counts again. PyTorch's counter (`FlopCounterMode`) counts
//!   products only.

use tapeflow_ir::{DType, Extent, Op, ScalarFn};

use super::kernel::{Attention, Fused, Group, Kernel, Layout, OutputKind, Source, WindowsPart};
use crate::ops::kernel::is_row;

/// Work of one run of a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Work {
    pub read: u64,
    pub written: u64,
    pub flops: u64,
}

impl Work {
    fn and(self, other: Work) -> Work {
        Work { read: self.read + other.read, written: self.written + other.written, flops: self.flops + other.flops }
    }
}

/// What a step computes, as profiles show it.
#[derive(Debug)]
pub(crate) struct Described {
    /// Its operations, the outermost first.
    pub name: String,
    pub dtype: DType,
    pub work: Work,
    /// The canonical numbers of the nodes that it computes: their sites are those of the run.
    pub origins: Box<[u32]>,
    /// Chunks of the host's kernel; 0 on other devices.
    pub chunks: usize,
    /// Whether it has something to do after its chunks.
    pub finishes: bool,
}

/// The dtype of what a kernel computes with.
pub(crate) fn dtype(kernel: &Kernel) -> DType {
    match kernel {
        Kernel::Group(group) => of_group(group),
        Kernel::Groups(groups) => groups.first().map_or(DType::F32, of_group),
        Kernel::Matmul(matmul) => matmul.dtype,
        Kernel::Fused(fused) => dtype(&fused.product),
        Kernel::LinearInt8(_) => DType::F32,
        Kernel::Convolution(convolution) => convolution.dtype,
        Kernel::Attention(_) | Kernel::AttentionVjp(_) => DType::F32,
        Kernel::Windows(windows) => windows.dtype,
        Kernel::Gather(gather) => gather.dtype,
        Kernel::ScatterAdd(scatter) => scatter.0.dtype,
        Kernel::ArgReduce(reduce) => reduce.dtype,
        Kernel::ArgSort(sort) => sort.dtype,
        Kernel::CumSum(sum) => sum.dtype,
        Kernel::CheckIndex(check) => check.dtype,
    }
}

fn of_group(group: &Group) -> DType {
    let function = &group.function;
    function.outputs.first().map_or(DType::F32, |v| function.values[v.0 as usize].1.dtype)
}

/// What a kernel does to operands of these sizes in bytes.
pub(crate) fn work(kernel: &Kernel, operands: &[usize]) -> Work {
    let bytes = |i: usize| operands.get(i).map_or(0, |&b| b as u64);
    match kernel {
        Kernel::Group(group) => group_work(group, operands),
        Kernel::Groups(groups) => groups_work(groups, operands),
        Kernel::Fused(fused) => fused_work(fused, operands),
        Kernel::Matmul(matmul) => {
            let size = matmul.dtype.size() as u64;
            let extents = |axes: [&[usize]; 3]| axes.concat();
            let a = extents([&matmul.batch, &matmul.m, &matmul.k]);
            let b = extents([&matmul.batch, &matmul.k, &matmul.n]);
            let results = count(&extents([&matmul.batch, &matmul.m, &matmul.n]));
            let read = [(a, &matmul.a, 0), (b, &matmul.b, 1)]
                .map(|(dims, layout, operand)| (touched(&dims, layout) * size).min(bytes(operand)));
            Work { read: read.iter().sum(), written: results * size, flops: 2 * results * count(&matmul.k) }
        }
        Kernel::LinearInt8(linear) => {
            let flops = 2 * count(&[linear.m, linear.n, linear.k]);
            Work { read: bytes(0) + bytes(1) + bytes(2), written: bytes(3), flops }
        }
        Kernel::Convolution(one) => Work { read: bytes(0) + bytes(1), written: bytes(2), flops: 2 * one.work() as u64 },
        Kernel::Attention(of) => attention_work(of, operands),
        Kernel::AttentionVjp(vjp) => {
            let (of, size) = (&vjp.of, size_of::<f32>() as u64);
            let forward = attention_work(of, operands);
            let y = [&of.batch[..], &[of.queries, of.width]].concat();
            let written = operands.last().map_or(0, |&b| b as u64);
            let (pairs, depth, width) = (of.pairs() as u64, of.depth as u64, of.width as u64);
            // The scores and their exponentials again; each product has two cotangents.
            Work {
                read: forward.read + bytes(3) + (touched(&y, &vjp.cotangent) * size).min(bytes(4)),
                written,
                flops: pairs * (2 * (3 * depth + 2 * width) + 6),
            }
        }
        Kernel::Windows(windows) if matches!(windows.part, WindowsPart::Place | WindowsPart::Return) => {
            Work { read: bytes(0) + bytes(1), written: bytes(2), flops: 0 }
        }
        Kernel::Windows(_) => Work { read: bytes(0), written: bytes(1), flops: 0 },
        Kernel::Gather(_) => Work { read: bytes(2).min(bytes(0)) + bytes(1), written: bytes(2), flops: 0 },
        Kernel::ScatterAdd(scatter) => {
            let elements = count(&[scatter.0.outer, scatter.0.picks, scatter.0.inner]);
            let flops = if scatter.0.dtype.is_float() { elements } else { 0 };
            Work { read: bytes(0) + bytes(1), written: bytes(2), flops }
        }
        Kernel::CumSum(sum) => {
            let flops = if sum.dtype.is_float() { count(&[sum.rows, sum.length]) } else { 0 };
            Work { read: bytes(0), written: bytes(1), flops }
        }
        Kernel::ArgReduce(_) | Kernel::ArgSort(_) => Work { read: bytes(0), written: bytes(1), flops: 0 },
        Kernel::CheckIndex(_) => Work { read: bytes(0), written: 0, flops: 0 },
    }
}

/// What is made on the way takes no bytes.
fn fused_work(Fused { prologue, product, epilogue }: &Fused, operands: &[usize]) -> Work {
    let others = |count: usize| operands.len().saturating_sub(count);
    let after: usize = epilogue.iter().map(Group::operands).sum();
    let before: usize = prologue.iter().map(|made| made.group.operands() - 1).sum();
    let (rest, after) = operands.split_at(others(after));
    let (own, mut before) = rest.split_at(rest.len().saturating_sub(before));
    let mut own = own.to_vec();
    let mut work_before = Work::default();
    for made in prologue {
        own.insert(made.operand.min(own.len()), 0);
        let (reads, others) = before.split_at((made.group.operands() - 1).min(before.len()));
        before = others;
        work_before = work_before.and(group_work(&made.group, &[reads, &[0]].concat()));
    }
    work_before.and(work(product, &own)).and(groups_work(epilogue, after))
}

/// Two products, and for each pair a product by the scale, a difference, `exp`, and a term of the sum.
fn attention_work(of: &Attention, operands: &[usize]) -> Work {
    let (size, extents) = (of.dtype.size() as u64, |lines: usize, n: usize| [&of.batch[..], &[lines, n]].concat());
    let parts = [
        (extents(of.queries, of.depth), &of.q),
        (extents(of.keys, of.depth), &of.k),
        (extents(of.keys, of.width), &of.v),
    ];
    let read = parts.iter().zip(operands).map(|((dims, layout), &all)| (touched(dims, layout) * size).min(all as u64));
    let (pairs, results) = (of.pairs() as u64, of.result() as u64);
    Work {
        read: read.sum(),
        written: (results + (of.items() * of.queries) as u64) * size_of::<f32>() as u64,
        flops: pairs * (2 * (of.depth + of.width) as u64 + 4) + results,
    }
}

fn count(dims: &[usize]) -> u64 {
    dims.iter().map(|&d| d as u64).product()
}

/// How many elements a layout names at most, each once: repeated ones lie on axes of stride 0.
fn touched(dims: &[usize], layout: &Layout) -> u64 {
    if dims.contains(&0) {
        return 0;
    }
    dims.iter().zip(&layout.strides).filter(|(_, stride)| **stride != 0).map(|(&d, _)| d as u64).product()
}

/// Of groups whose operands follow each other.
fn groups_work(groups: &[Group], operands: &[usize]) -> Work {
    let mut rest = operands;
    let each = groups.iter().map(|group| {
        let (own, others) = rest.split_at(group.operands().min(rest.len()));
        rest = others;
        group_work(group, own)
    });
    each.fold(Work::default(), Work::and)
}

fn group_work(group: &Group, operands: &[usize]) -> Work {
    let function = &group.function;
    let mut seen: Vec<(usize, &Layout)> = Vec::new();
    let mut read = vec![0u64; operands.len()];
    for (source, ty) in group.inputs.iter().zip(&function.inputs) {
        if let Source::Operand { operand, layout } = source
            && !seen.contains(&(*operand, layout))
        {
            seen.push((*operand, layout));
            read[*operand] += touched(&group.space, layout) * ty.dtype.size() as u64;
        }
    }
    let mut written = vec![0u64; operands.len()];
    let mut flops = function_flops(function, &group.space);
    let total = count(&group.space);
    for (output, v) in group.outputs.iter().zip(&function.outputs) {
        let dtype = function.values[v.0 as usize].1.dtype;
        let elements = match &output.kind {
            OutputKind::Store(layout) => touched(&group.space, layout),
            OutputKind::ReduceTrailing(_, axes) => count(&group.space[..group.space.len() - axes]),
            OutputKind::ReduceLeading(_, axes) => count(&group.space[*axes..]),
        };
        if !matches!(output.kind, OutputKind::Store(_)) && dtype.is_float() {
            flops += total;
        }
        written[output.operand] += elements * dtype.size() as u64;
    }
    let within = |counted: Vec<u64>| counted.iter().zip(operands).map(|(&bytes, &all)| bytes.min(all as u64)).sum();
    Work { read: within(read), written: within(written), flops }
}

/// Operations of a function at every index of a space.
fn function_flops(function: &ScalarFn, space: &[usize]) -> u64 {
    let total = count(space);
    let rows = match space.split_last() {
        Some((_, outer)) if total > 0 && is_row(function) => count(outer),
        _ => total,
    };
    let times = |extent: Extent| if extent == Extent::Row { rows } else { total };
    let of = |&(op, ty): &(Op, tapeflow_ir::Type)| match op {
        _ if !ty.dtype.is_float() => 0,
        Op::Input(_) | Op::Const(_) | Op::Length | Op::Detach(_) => 0,
        Op::Compare(..) | Op::Select(..) | Op::Cast(_) => 0,
        Op::Unary(..) | Op::Binary(..) => times(ty.extent),
        Op::MulAdd(..) => 2 * times(ty.extent),
        Op::Reduce(_, v) => times(function.values[v.0 as usize].1.extent),
    };
    function.values.iter().map(of).sum()
}
