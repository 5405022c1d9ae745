//! Tests of compiled kernels against the reference evaluator and plain loops, on every instruction set of the machine.
//! This file owns running a kernel and the reference for groups; the cases stand beside it.

mod attention;
mod code;
mod conv;
mod fused;
mod groups;
mod half;
mod index;
mod int8;
mod math;
mod matmul;
mod pools;
mod prologue;
mod random_groups;
mod runs;
mod windows;
mod winograd;

use std::sync::Arc;

use tapeflow_ir::half::{bf16_from_f32, bf16_to_f32, f16_from_f32, f16_to_f32};
use tapeflow_ir::{Binary, Column, DType, Extent, Precision, Reduce, reduce};

use super::code as machine_code;
use super::isa::Isa;
use crate::program::kernel::{Args, Executable, Group, Kernel, Layout, OutputKind, RunError, Source};
use crate::random::{Stream, uniform};

/// A small generator of test data: xorshift64*, Vigna 2016.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// In (−4, 4), sometimes special.
    pub fn float(&mut self, specials: bool) -> f64 {
        if specials && self.below(50) == 0 {
            return self.pick(&[0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.0]);
        }
        (self.next() >> 40) as f64 / (1 << 21) as f64 - 4.0
    }
}

pub fn isas() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
}

/// Memory of an operand, aligned as planned buffers are.
#[derive(Clone)]
pub struct Buffer {
    blocks: Vec<Block>,
    pub dtype: DType,
    pub len: usize,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Block([u8; 64]);

impl Buffer {
    /// Filled with a pattern that no test expects.
    pub fn new(dtype: DType, len: usize) -> Buffer {
        let blocks =
            vec![Block([if dtype == DType::Bool { 1 } else { 0xA5 }; 64]); (len * dtype.size()).div_ceil(64) + 1];
        Buffer { blocks, dtype, len }
    }

    pub fn of<T: Copy>(dtype: DType, values: &[T]) -> Buffer {
        let mut buffer = Buffer::new(dtype, values.len());
        assert_eq!(size_of::<T>(), dtype.size());
        buffer.slice_mut::<T>().copy_from_slice(values);
        buffer
    }

    pub fn random(rng: &mut Rng, dtype: DType, len: usize, specials: bool) -> Buffer {
        let mut buffer = Buffer::new(dtype, len);
        for i in 0..len {
            match dtype {
                DType::Bool => buffer.slice_mut::<u8>()[i] = rng.below(2) as u8,
                DType::U8 => buffer.slice_mut::<u8>()[i] = rng.next() as u8,
                DType::I32 | DType::U32 => buffer.slice_mut::<i32>()[i] = rng.below(2000) as i32 - 1000,
                DType::I64 => buffer.slice_mut::<i64>()[i] = rng.below(2000) as i64 - 1000,
                DType::F16 => buffer.slice_mut::<u16>()[i] = f16_from_f32(rng.float(specials) as f32),
                DType::BF16 => buffer.slice_mut::<u16>()[i] = bf16_from_f32(rng.float(specials) as f32),
                DType::F32 => buffer.slice_mut::<f32>()[i] = rng.float(specials) as f32,
                DType::F64 => buffer.slice_mut::<f64>()[i] = rng.float(specials),
            }
        }
        buffer
    }

    pub fn address(&mut self) -> *mut u8 {
        self.blocks.as_mut_ptr().cast()
    }

    /// The bytes after the last element, which no kernel may change.
    pub fn margin(&self) -> &[u8] {
        // SAFETY: the blocks are plain bytes, one block more than the elements fill.
        let bytes = unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast::<u8>(), self.blocks.len() * 64) };
        &bytes[self.len * self.dtype.size()..]
    }

    pub fn slice<T: Copy>(&self) -> &[T] {
        // SAFETY: the blocks hold `len` elements of a plain type of that size.
        unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast(), self.len) }
    }

    pub fn slice_mut<T: Copy>(&mut self) -> &mut [T] {
        // SAFETY: as for `slice`.
        unsafe { std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast(), self.len) }
    }

    pub fn column(&self, places: impl Iterator<Item = usize>) -> Column {
        match self.dtype {
            DType::Bool => Column::Bool(places.map(|i| self.slice::<u8>()[i] != 0).collect()),
            DType::U8 => Column::Int(places.map(|i| self.slice::<u8>()[i] as i64).collect()),
            DType::I32 => Column::Int(places.map(|i| self.slice::<i32>()[i] as i64).collect()),
            DType::U32 => Column::Int(places.map(|i| self.slice::<u32>()[i] as i64).collect()),
            DType::I64 => Column::Int(places.map(|i| self.slice::<i64>()[i]).collect()),
            DType::F16 => Column::Float(places.map(|i| f16_to_f32(self.slice::<u16>()[i]).into()).collect()),
            DType::BF16 => Column::Float(places.map(|i| bf16_to_f32(self.slice::<u16>()[i]).into()).collect()),
            DType::F32 => Column::Float(places.map(|i| self.slice::<f32>()[i] as f64).collect()),
            DType::F64 => Column::Float(places.map(|i| self.slice::<f64>()[i]).collect()),
        }
    }

    fn set(&mut self, at: usize, column: &Column, from: usize) {
        match (self.dtype, column) {
            (DType::F16, Column::Float(x)) => self.slice_mut::<u16>()[at] = f16_from_f32(x[from] as f32),
            (DType::BF16, Column::Float(x)) => self.slice_mut::<u16>()[at] = bf16_from_f32(x[from] as f32),
            (DType::F32, Column::Float(x)) => self.slice_mut::<f32>()[at] = x[from] as f32,
            (DType::F64, Column::Float(x)) => self.slice_mut::<f64>()[at] = x[from],
            (DType::Bool, Column::Bool(x)) => self.slice_mut::<u8>()[at] = x[from] as u8,
            (DType::U8, Column::Int(x)) => self.slice_mut::<u8>()[at] = x[from] as u8,
            (DType::I32 | DType::U32, Column::Int(x)) => self.slice_mut::<i32>()[at] = x[from] as i32,
            (DType::I64, Column::Int(x)) => self.slice_mut::<i64>()[at] = x[from],
            _ => panic!("a column of another kind"),
        }
    }
}

/// Runs a kernel, its chunks in a shuffled order, each with fresh scratch full of NaNs.
pub fn run(kernel: &dyn Executable, buffers: &mut [Buffer], scalars: &[u64]) -> Result<(), RunError> {
    let operands: Vec<*mut u8> = buffers.iter_mut().map(Buffer::address).collect();
    run_at(kernel, &operands, scalars)
}

pub fn run_at(kernel: &dyn Executable, operands: &[*mut u8], scalars: &[u64]) -> Result<(), RunError> {
    let block = |bytes: usize| vec![Block([0xFF; 64]); bytes.div_ceil(64) + 1];
    let mut partial = block(kernel.partial_bytes());
    let args = Args { operands, scalars, partial: partial.as_mut_ptr().cast() };
    let mut order: Vec<usize> = (0..kernel.chunks()).collect();
    let mut rng = Rng(order.len() as u64 + 1);
    for i in (1..order.len()).rev() {
        order.swap(i, rng.below(i + 1));
    }
    if kernel.has_prepare() {
        // SAFETY: the buffers are those that the kernel was compiled for.
        unsafe { kernel.prepare(&args) };
    }
    let mut scratch = block(kernel.scratch_bytes());
    let bytes = kernel.scratch_bytes();
    for chunk in order {
        scratch.fill(Block([0xFF; 64]));
        // SAFETY: the buffers are those that the kernel was compiled for.
        unsafe {
            let scratch = std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast(), bytes);
            kernel.run_chunk(chunk, &args, scratch)?;
        }
    }
    if kernel.has_finish() {
        // SAFETY: as above, and all chunks have run.
        unsafe {
            let scratch = std::slice::from_raw_parts_mut(scratch.as_mut_ptr().cast(), bytes);
            kernel.finish(&args, scratch)?;
        }
    }
    Ok(())
}

pub fn compile(kernel: Kernel, isa: Isa) -> Arc<dyn Executable> {
    super::compile(&kernel, isa).unwrap_or_else(|error| panic!("{error}: {kernel:?}"))
}

fn place(layout: &Layout, space: &[usize], mut linear: usize) -> usize {
    let mut offset = layout.offset;
    for (&extent, &stride) in space.iter().zip(&layout.strides).rev() {
        offset += (linear % extent) as isize * stride;
        linear /= extent;
    }
    offset as usize
}

/// What a group means, element by element, by the reference evaluator.
pub fn reference(group: &Group, buffers: &mut [Buffer], scalars: &[u64]) {
    let (length, outer) = group.space.split_last().map_or((1, &[][..]), |(&last, outer)| (last, outer));
    let rows: usize = outer.iter().product();
    let total = rows * length;
    let function = &group.function;
    let before = buffers.to_vec();
    let mut all: Vec<Vec<Column>> = vec![Vec::new(); group.outputs.len()];
    for row in 0..rows {
        let columns: Vec<Column> = (group.inputs.iter().zip(&function.inputs))
            .map(|(source, ty)| {
                let count = if ty.extent == Extent::Row { 1 } else { length };
                // In a row of nothing a `Row` parameter still has a value.
                let at = |layout: &Layout, i: usize| match length {
                    0 => place(layout, outer, row),
                    _ => place(layout, &group.space, row * length + i),
                };
                match source {
                    Source::Operand { operand, layout } => before[*operand].column((0..count).map(|i| at(layout, i))),
                    Source::Scalar { slot } => {
                        let value = f64::from_bits(scalars[*slot]);
                        Column::Float(vec![if ty.dtype == DType::F32 { value as f32 as f64 } else { value }])
                    }
                    Source::Iota(layout) => Column::Int((0..count).map(|i| at(layout, i) as i64).collect()),
                    Source::Random { slot, ordinal, layout } => {
                        let stream = Stream { seed: scalars[*slot], counter: scalars[slot + 1], ordinal: *ordinal };
                        let value = |i| uniform(stream.word(at(layout, i) as u64)) as f64;
                        Column::Float((0..count).map(value).collect())
                    }
                }
            })
            .collect();
        for (all, column) in all.iter_mut().zip(function.eval(&columns, length, Precision::Exact)) {
            all.push(column);
        }
    }
    for (index, output) in group.outputs.iter().enumerate() {
        let ty = function.values[function.outputs[index].0 as usize].1;
        let once = ty.extent == Extent::Row;
        let get = |at: usize| {
            let column = &all[index][at / length];
            (column, if column.len() == 1 { 0 } else { at % length })
        };
        let out = &mut buffers[output.operand];
        match &output.kind {
            OutputKind::Store(layout) if once && layout.strides.last() == Some(&0) => {
                for (row, column) in all[index].iter().enumerate() {
                    out.set(place(layout, outer, row), column, 0);
                }
            }
            OutputKind::Store(layout) => {
                for at in 0..total {
                    let (column, from) = get(at);
                    out.set(place(layout, &group.space, at), column, from);
                }
            }
            OutputKind::ReduceTrailing(op, axes) => {
                let (kept, reduced) = group.space.split_at(group.space.len() - axes);
                let n: usize = reduced.iter().product();
                for row in 0..kept.iter().product() {
                    let value = folded(*op, ty.dtype, n, false, &|i| get(row * n + i));
                    out.set(row, &value, 0);
                }
            }
            OutputKind::ReduceLeading(op, axes) => {
                let (reduced, kept) = group.space.split_at(*axes);
                let (n, cols) = (reduced.iter().product(), kept.iter().product());
                for col in 0..cols {
                    let value = folded(*op, ty.dtype, n, true, &|i| get(i * cols + col));
                    out.set(col, &value, 0);
                }
            }
        }
    }
}

/// A reduction by the law, of values given by number.
fn folded<'a>(op: Reduce, dtype: DType, n: usize, leading: bool, get: &dyn Fn(usize) -> (&'a Column, usize)) -> Column {
    let float = |i: usize| get(i).0.as_floats().expect("a float column")[get(i).1];
    let int = |i: usize| get(i).0.as_ints().expect("an integer column")[get(i).1];
    match (op, dtype) {
        (Reduce::Sum, DType::F32) if leading => {
            Column::Float(vec![reduce::sum_leading_f32(n, |i| float(i) as f32) as f64])
        }
        (Reduce::Sum, DType::F32) => Column::Float(vec![reduce::sum_f32_by(n, |i| float(i) as f32) as f64]),
        (Reduce::Sum, DType::F64) if leading => Column::Float(vec![reduce::sum_leading_f64(n, float)]),
        (Reduce::Sum, DType::F64) => Column::Float(vec![reduce::sum_f64_by(n, float)]),
        (Reduce::Sum, _) => Column::Int(vec![reduce::sum_int(dtype, (0..n).map(int))]),
        (Reduce::Max | Reduce::Min, DType::F32 | DType::F64) => {
            let (op, first) = match op {
                Reduce::Max => (Binary::Max, f64::NEG_INFINITY),
                _ => (Binary::Min, f64::INFINITY),
            };
            Column::Float(vec![(0..n).map(float).fold(first, |a, b| extreme(op, a, b))])
        }
        (_, dtype) => {
            let (low, high) = match dtype {
                DType::U8 => (0, u8::MAX as i64),
                DType::I32 => (i32::MIN as i64, i32::MAX as i64),
                DType::U32 => (0, u32::MAX as i64),
                _ => (i64::MIN, i64::MAX),
            };
            let values = (0..n).map(int);
            Column::Int(vec![if op == Reduce::Max { values.fold(low, i64::max) } else { values.fold(high, i64::min) }])
        }
    }
}

fn extreme(op: Binary, a: f64, b: f64) -> f64 {
    match op {
        _ if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::Max if a > b || (a == b && a.is_sign_positive()) => a,
        Binary::Min if a < b || (a == b && a.is_sign_negative()) => a,
        _ => b,
    }
}

/// Compiles a group for every instruction set, runs it, and compares every bit of every buffer with the reference.
pub fn check(group: &Group, buffers: &[Buffer], scalars: &[u64]) {
    let mut expected = buffers.to_vec();
    reference(group, &mut expected, scalars);
    for (isa, coded) in isas().into_iter().flat_map(|isa| [(isa, true), (isa, false)]) {
        let kernel = || compile(Kernel::Group(group.clone()), isa);
        let kernel = if coded { kernel() } else { machine_code::without(kernel) };
        let mut actual = buffers.to_vec();
        run(&*kernel, &mut actual, scalars).expect("a group never fails");
        for (operand, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
            let (a, b) = (actual.column(0..actual.len), expected.column(0..expected.len));
            if !a.same_bits(&b) {
                let at = (0..actual.len)
                    .find(|&i| !actual.column(i..i + 1).same_bits(&expected.column(i..i + 1)))
                    .unwrap_or(0);
                panic!(
                    "{isa}, machine code {coded}: operand {operand} differs at {at} of {}: {:?} instead of {:?}\n{kernel:?}\n{group:?}",
                    actual.len,
                    actual.column(at..at + 1),
                    expected.column(at..at + 1)
                );
            }
        }
    }
}
