//! Groups on the device against the processor's kernels: every bit of every operand, all NaNs counting as one value.
//! This file owns test data and the comparison; the cases stand beside it.

#[path = "../support/mod.rs"]
mod support;

mod chosen;
mod doubles;
mod functions;
mod random;
mod reductions;

use tapeflow_core::driver::{Dims, Group, Kernel, Layout, Output, OutputKind, Shifts, Source, Strides};
use tapeflow_ir::DType;
use tapeflow_ir::half::{bf16_from_f32, bf16_to_f32, f16_from_f32, f16_to_f32};
use tapeflow_vulkan::spirv;
use tapeflow_vulkan::stage::Target;

/// A small generator of test data: xorshift64*, Vigna 2016.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.word() >> 33) as usize % n
    }

    pub(crate) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// In (−4, 4), sometimes special.
    pub(crate) fn float(&mut self, specials: bool) -> f64 {
        if specials && self.below(50) == 0 {
            return self.pick(&[0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.0]);
        }
        (self.word() >> 40) as f64 / (1 << 21) as f64 - 4.0
    }
}

/// An operand's dtype and bytes.
#[derive(Clone)]
pub(crate) struct Buffer {
    pub(crate) dtype: DType,
    pub(crate) bytes: Vec<u8>,
}

impl Buffer {
    /// Filled with a pattern that no test expects.
    pub(crate) fn new(dtype: DType, len: usize) -> Buffer {
        Buffer { dtype, bytes: vec![if dtype == DType::Bool { 1 } else { 0xA5 }; (len * dtype.size()).max(1)] }
    }

    pub(crate) fn random(rng: &mut Rng, dtype: DType, len: usize, specials: bool) -> Buffer {
        let mut bytes = Vec::with_capacity(len * dtype.size() + 1);
        for _ in 0..len.max(1) {
            match dtype {
                DType::Bool => bytes.push(rng.below(2) as u8),
                DType::U8 => bytes.push(rng.word() as u8),
                DType::I32 | DType::U32 => bytes.extend((rng.below(2000) as i32 - 1000).to_le_bytes()),
                DType::I64 => bytes.extend((rng.below(2000) as i64 - 1000).to_le_bytes()),
                DType::F16 => bytes.extend(f16_from_f32(rng.float(specials) as f32).to_le_bytes()),
                DType::BF16 => bytes.extend(bf16_from_f32(rng.float(specials) as f32).to_le_bytes()),
                DType::F32 => bytes.extend((rng.float(specials) as f32).to_le_bytes()),
                DType::F64 => bytes.extend(rng.float(specials).to_le_bytes()),
            }
        }
        Buffer { dtype, bytes }
    }

    pub(crate) fn f32s(values: impl IntoIterator<Item = f32>) -> Buffer {
        Buffer { dtype: DType::F32, bytes: values.into_iter().flat_map(f32::to_le_bytes).collect() }
    }

    /// Element `index` as text, and whether it is a NaN.
    fn element(&self, index: usize) -> (String, bool) {
        let size = self.dtype.size();
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(&self.bytes[index * size..][..size]);
        let bits = u64::from_le_bytes(bytes);
        match self.dtype {
            DType::F32 => {
                let x = f32::from_bits(bits as u32);
                (format!("{x:e} ({bits:#x})"), x.is_nan())
            }
            DType::F64 => (format!("{:e} ({bits:#x})", f64::from_bits(bits)), f64::from_bits(bits).is_nan()),
            DType::F16 | DType::BF16 => {
                let widen = if self.dtype == DType::F16 { f16_to_f32 } else { bf16_to_f32 };
                let x = widen(bits as u16);
                (format!("{x:e} ({bits:#x})"), x.is_nan())
            }
            _ => (format!("{bits:#x}"), false),
        }
    }

    /// The first element that differs.
    fn difference(&self, other: &Buffer) -> Option<(usize, String, String)> {
        let size = self.dtype.size();
        let count = self.bytes.len() / size;
        (0..count).filter(|i| self.bytes[i * size..][..size] != other.bytes[i * size..][..size]).find_map(|i| {
            let ((a, a_nan), (b, b_nan)) = (self.element(i), other.element(i));
            (!(a_nan && b_nan)).then_some((i, a, b))
        })
    }
}

pub(crate) fn contiguous(space: &[usize]) -> Layout {
    let mut strides: Strides = space.iter().map(|_| 0).collect();
    let mut stride = 1;
    for axis in (0..space.len()).rev() {
        strides[axis] = stride;
        stride *= space[axis].max(1) as isize;
    }
    layout(0, &strides)
}

pub(crate) fn layout(offset: isize, strides: &[isize]) -> Layout {
    Layout { offset, shifts: Shifts::new(), strides: strides.iter().copied().collect() }
}

pub(crate) fn operand(operand: usize, layout: Layout) -> Source {
    Source::Operand { operand, layout }
}

pub(crate) fn output(operand: usize, kind: OutputKind) -> Output {
    Output { operand, kind }
}

pub(crate) fn dims(space: &[usize]) -> Dims {
    space.iter().copied().collect()
}

/// The device as it is, and as others are: what it emits for those it can run as well.
pub(crate) fn targets() -> Vec<Target> {
    let Some(driver) = support::driver() else { return vec![] };
    let own = driver.target().clone();
    let graphics = Target { is_cpu: false, subgroup: 32, workgroup: 128, ..own.clone() };
    let narrow = Target { subgroup: 4, ..own.clone() };
    let apart = Target { has_shuffle: false, ..own.clone() };
    vec![own, graphics, narrow, apart]
}

/// Runs a kernel as it is emitted for a target.
pub(crate) fn run_for(target: &Target, kernel: &Kernel, buffers: &[Buffer], scalars: &[u64]) -> Option<Vec<Buffer>> {
    let driver = support::driver()?;
    let mut operands: Vec<Vec<u8>> = buffers.iter().map(|buffer| buffer.bytes.clone()).collect();
    let lowering = spirv::lower(kernel, target).unwrap_or_else(|error| panic!("{error}: {kernel:?}"));
    support::validate(&lowering);
    let compiled = driver.compile(lowering, 0).unwrap_or_else(|error| panic!("{error}: {kernel:?}"));
    support::run_lowered(driver, compiled, &mut operands, scalars).unwrap_or_else(|e| panic!("{e:?}: {kernel:?}"));
    Some(with_bytes(buffers, operands))
}

/// Runs a kernel on the processor.
pub(crate) fn run_on_cpu(kernel: &Kernel, buffers: &[Buffer], scalars: &[u64]) -> Vec<Buffer> {
    let mut operands: Vec<Vec<u8>> = buffers.iter().map(|buffer| buffer.bytes.clone()).collect();
    support::run_on_cpu(kernel, &mut operands, scalars).unwrap_or_else(|error| panic!("{error}: {kernel:?}"));
    with_bytes(buffers, operands)
}

fn with_bytes(buffers: &[Buffer], bytes: Vec<Vec<u8>>) -> Vec<Buffer> {
    bytes.into_iter().zip(buffers).map(|(bytes, buffer)| Buffer { dtype: buffer.dtype, bytes }).collect()
}

/// Runs a kernel for these targets and on the processor and compares all operands.
pub(crate) fn check_for(targets: &[Target], kernel: &Kernel, buffers: &[Buffer], scalars: &[u64]) {
    let expected = run_on_cpu(kernel, buffers, scalars);
    for target in targets {
        let Some(actual) = run_for(target, kernel, buffers, scalars) else { return };
        for (number, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
            if let Some((at, a, b)) = actual.difference(expected) {
                panic!("operand {number} differs at {at}: {a} instead of {b}\n{target:?}\n{kernel:?}");
            }
        }
    }
}

/// As the device is.
pub(crate) fn check(group: &Group, buffers: &[Buffer], scalars: &[u64]) {
    check_for(&targets()[..targets().len().min(1)], &Kernel::Group(group.clone()), buffers, scalars);
}

/// For every target.
pub(crate) fn check_all(group: &Group, buffers: &[Buffer], scalars: &[u64]) {
    check_for(&targets(), &Kernel::Group(group.clone()), buffers, scalars);
}

/// A group of one function over contiguous operands: inputs first, then an output per result.
pub(crate) fn elementwise(space: &[usize], function: tapeflow_ir::ScalarFn) -> Group {
    let inputs = function.inputs.len();
    let results = function.outputs.len();
    Group {
        space: dims(space),
        inputs: (0..inputs).map(|i| operand(i, contiguous(space))).collect(),
        outputs: (0..results).map(|i| output(inputs + i, OutputKind::Store(contiguous(space)))).collect(),
        function,
    }
}

/// The validation layer has nothing to say about the kernels of this file.
#[test]
fn validation() {
    support::rerun_validated(&["validation", "random_groups", "functions"]);
}
