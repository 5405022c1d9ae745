//! The values of a function in registers: which are known, and the instructions that make others known. What a
//! parameter is and where it comes from is the caller's matter. Refuses what the device cannot compute.

use tapeflow_ir::{Binary, Const, DType, Extent, Op, Reduce, ScalarFn, V};

use super::Unsupported;
use super::arithmetic::{binary, cast, compare, unary};
use super::asm::{Asm, Id, Ty};
use super::exact;
use crate::stage::Target;

/// Refuses functions with dtypes that the device lacks.
pub(super) fn check(function: &ScalarFn, target: &Target) -> Result<(), Unsupported> {
    function.values.iter().try_for_each(|(_, ty)| check_dtype(ty.dtype, target))
}

/// Refuses a dtype that the device lacks.
pub(super) fn check_dtype(dtype: DType, target: &Target) -> Result<(), Unsupported> {
    match dtype {
        DType::F64 if !target.has_f64 => Err(Unsupported("this Vulkan device has no f64 arithmetic".into())),
        DType::Bool | DType::U8 if !target.has_bytes => {
            Err(Unsupported(format!("this Vulkan device does not load and store single bytes, as {dtype} needs")))
        }
        DType::F16 | DType::BF16 if !target.has_halves => {
            Err(Unsupported(format!("this Vulkan device does not load and store 16 bits, as {dtype} needs")))
        }
        _ => Ok(()),
    }
}

/// Most loop iterations that one evaluation runs.
pub(super) fn iterations(function: &ScalarFn) -> u64 {
    let of = |&(op, ty): &(Op, tapeflow_ir::Type)| match op {
        Op::Binary(Binary::Rem, ..) if ty.dtype.is_float() => u64::from(exact::remainder_iterations(Ty::of(ty.dtype))),
        _ => 0,
    };
    function.values.iter().map(of).sum()
}

/// How often a value changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Once per dispatch.
    Fixed,
    /// Once per index of the outer axes.
    Outer,
    /// Once per element.
    Inner,
}

/// The level of every value, given those of the parameters. Reductions give outer values.
pub(super) fn levels(function: &ScalarFn, inputs: &[Level]) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::with_capacity(function.values.len());
    for &(op, _) in &function.values {
        levels.push(match op {
            Op::Input(index) => inputs[index as usize],
            Op::Reduce(..) => Level::Outer,
            _ => op.operands().map(|v| levels[v.0 as usize]).max().unwrap_or(Level::Fixed),
        });
    }
    levels
}

/// Which values are needed for `wanted`, not counting what is known.
pub(super) fn needed(function: &ScalarFn, wanted: &[V], known: impl Fn(V) -> bool) -> Vec<bool> {
    let mut needed = vec![false; function.values.len()];
    wanted.iter().for_each(|v| needed[v.0 as usize] = true);
    for index in (0..needed.len()).rev() {
        if known(V(index as u32)) {
            needed[index] = false;
        } else if needed[index] {
            function.values[index].0.operands().for_each(|v| needed[v.0 as usize] = true);
        }
    }
    needed
}

/// How deep each value lies in reductions: 0 without any, 1 for the result of a reduction of such a value, and so on.
pub(super) fn phases(function: &ScalarFn) -> Vec<usize> {
    let mut phases: Vec<usize> = Vec::with_capacity(function.values.len());
    for &(op, _) in &function.values {
        let deepest = op.operands().map(|v| phases[v.0 as usize]).max().unwrap_or(0);
        phases.push(deepest + usize::from(matches!(op, Op::Reduce(..))));
    }
    phases
}

/// Registers of a function's values. A copy made before a loop or branch is dropped after it.
#[derive(Clone, Debug)]
pub(super) struct Values<'f> {
    function: &'f ScalarFn,
    length: usize,
    ids: Vec<Option<Id>>,
}

impl<'f> Values<'f> {
    /// Nothing is known; `length` is that of a row.
    pub(super) fn new(function: &'f ScalarFn, length: usize) -> Values<'f> {
        Values { function, length, ids: vec![None; function.values.len()] }
    }

    pub(super) fn set(&mut self, v: V, id: Id) {
        self.ids[v.0 as usize] = Some(id);
    }

    pub(super) fn is_known(&self, v: V) -> bool {
        self.ids[v.0 as usize].is_some()
    }

    /// The register of a value that is known.
    pub(super) fn get(&self, v: V) -> Id {
        match self.ids[v.0 as usize] {
            Some(id) => id,
            None => unreachable!("invariant: values are evaluated before they are used"),
        }
    }

    /// Makes the values known; `load` gives parameters.
    pub(super) fn evaluate(&mut self, asm: &mut Asm, wanted: &[V], load: &mut dyn FnMut(&mut Asm, usize) -> Id) {
        let needed = needed(self.function, wanted, |v| self.ids[v.0 as usize].is_some());
        for index in (0..needed.len()).filter(|&index| needed[index]) {
            let id = self.value(asm, index, load);
            self.ids[index] = Some(id);
        }
    }

    fn value(&mut self, asm: &mut Asm, index: usize, load: &mut dyn FnMut(&mut Asm, usize) -> Id) -> Id {
        let (op, ty) = self.function.values[index];
        let dtype = |v: V| self.function.ty(v).dtype;
        match op {
            Op::Input(input) => load(asm, input as usize),
            Op::Const(constant) => asm.constant(constant, ty.dtype),
            Op::Length => asm.float(Ty::of(ty.dtype), self.length as f64),
            Op::Unary(op, a) => unary(asm, op, ty.dtype, self.get(a)),
            Op::Binary(op, a, b) => binary(asm, op, ty.dtype, self.get(a), self.get(b)),
            Op::Compare(op, a, b) => compare(asm, op, dtype(a), self.get(a), self.get(b)),
            Op::Select(a, b, c) => asm.select(Ty::of(ty.dtype), self.get(a), self.get(b), self.get(c)),
            Op::MulAdd(a, b, c) => exact::mul_add(asm, Ty::of(ty.dtype), self.get(a), self.get(b), self.get(c)),
            Op::Cast(a) => cast(asm, dtype(a), ty.dtype, self.get(a)),
            Op::Detach(a) => self.get(a),
            Op::Reduce(..) => unreachable!("invariant: reductions are known before what uses them is evaluated"),
        }
    }
}

/// Whether an output of this extent and layout is written once per row.
pub(super) fn per_row(extent: Extent, strides: &[isize]) -> bool {
    extent == Extent::Row && strides.last() == Some(&0)
}

/// A reduction of values of one dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fold {
    pub(super) op: Reduce,
    pub(super) dtype: DType,
}

impl Fold {
    /// Changes no value it is combined with.
    pub(super) fn identity(self, asm: &mut Asm) -> Id {
        match self.op {
            Reduce::Sum if self.dtype.is_float() => asm.float(Ty::of(self.dtype), -0.0),
            _ => asm.constant(self.empty(), self.dtype),
        }
    }

    /// The result of nothing.
    pub(super) fn empty(self) -> Const {
        let max = self.op == Reduce::Max;
        match (self.op, self.dtype) {
            (Reduce::Sum, DType::F32 | DType::F64) => Const::float(self.dtype, 0.0),
            (Reduce::Sum, _) => Const::Int(0),
            (_, DType::F32 | DType::F64) => {
                Const::float(self.dtype, if max { f64::NEG_INFINITY } else { f64::INFINITY })
            }
            (_, DType::I32) => Const::Int(if max { i32::MIN } else { i32::MAX }.into()),
            (_, DType::U32) => Const::Int(if max { 0 } else { u32::MAX.into() }),
            (_, DType::U8) => Const::Int(if max { 0 } else { u8::MAX.into() }),
            _ => Const::Int(if max { i64::MIN } else { i64::MAX }),
        }
    }

    /// `a ∘ b`
    pub(super) fn combine(self, asm: &mut Asm, a: Id, b: Id) -> Id {
        let op = match self.op {
            Reduce::Sum => Binary::Add,
            Reduce::Max => Binary::Max,
            Reduce::Min => Binary::Min,
        };
        binary(asm, op, self.dtype, a, b)
    }
}
