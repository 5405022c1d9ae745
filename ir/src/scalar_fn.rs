//! Typed SSA functions of scalars and rows: what fusion composes and devices compile.
//! Owns the data structure; `builder.rs` writes it. Knows no tensors and no devices.

use crate::{Binary, Compare, DType, Extent, Reduce, Unary};

/// The number of a value in a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V(pub u32);

/// dtype and extent of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Type {
    /// Its dtype.
    pub dtype: DType,
    /// One per element or one per row.
    pub extent: Extent,
}

/// A constant, already rounded to its dtype. Compared and hashed by bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Const {
    /// Of dtype bool.
    Bool(bool),
    /// Of an integer dtype.
    Int(i64),
    /// Bits of the f64 that equals the constant (f32 constants are rounded to f32 first).
    Float(u64),
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The parameter of that index.
    Input(u32),
    /// A constant; its extent is `Row`.
    Const(Const),
    /// One operand.
    Unary(Unary, V),
    /// Two operands of one dtype.
    Binary(Binary, V, V),
    /// Two operands of one dtype, giving a bool.
    Compare(Compare, V, V),
    /// `if a { b } else { c }`
    Select(V, V, V),
    /// `a · b + c`, rounded once.
    MulAdd(V, V, V),
    /// To the value's own dtype. The one operation whose own extent may be `Lane` where its operand is `Row`: it then
    /// repeats the operand along the row.
    Cast(V),
    /// Along the row.
    Reduce(Reduce, V),
    /// The number of elements of the row, in the value's own (float) dtype.
    Length,
    /// The operand, with no derivative. The simplifier keeps it, devices copy nothing for it.
    Detach(V),
}

/// A function in SSA form. Values refer to earlier values only; elementwise operands mix extents freely (a `Row`
/// operand is repeated along the row), and the result is `Lane` if any operand is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct ScalarFn {
    /// The type of each parameter.
    pub inputs: Vec<Type>,
    /// The values, in order of evaluation.
    pub values: Vec<(Op, Type)>,
    /// What it returns.
    pub outputs: Vec<V>,
}

impl Type {
    /// The type of a value there is one of per element.
    pub const fn lane(dtype: DType) -> Type {
        Type { dtype, extent: Extent::Lane }
    }

    /// The type of a value there is one of per row.
    pub const fn row(dtype: DType) -> Type {
        Type { dtype, extent: Extent::Row }
    }
}

impl Const {
    /// A float constant, rounded once to `dtype`; every NaN becomes the one positive quiet NaN.
    pub fn float(dtype: DType, value: f64) -> Const {
        let value = if dtype == DType::F32 { f64::from(value as f32) } else { value };
        Const::Float(if value.is_nan() { f64::NAN } else { value }.to_bits())
    }

    /// An integer constant, wrapped to `dtype`.
    pub const fn int(dtype: DType, value: i64) -> Const {
        Const::Int(crate::arithmetic::wrap(dtype, value))
    }

    /// The value of a float constant.
    pub const fn as_float(self) -> Option<f64> {
        match self {
            Const::Float(bits) => Some(f64::from_bits(bits)),
            _ => None,
        }
    }

    /// The value of an integer constant.
    pub const fn as_int(self) -> Option<i64> {
        match self {
            Const::Int(value) => Some(value),
            _ => None,
        }
    }

    /// Whether this is a constant of `dtype`, rounded to it.
    pub fn fits(self, dtype: DType) -> bool {
        match self {
            Const::Bool(_) => dtype == DType::Bool,
            Const::Int(value) => dtype.is_int() && Const::int(dtype, value) == self,
            Const::Float(bits) => {
                dtype.is_float() && !dtype.is_half() && Const::float(dtype, f64::from_bits(bits)) == self
            }
        }
    }
}

impl Op {
    /// The values it reads, in order.
    pub fn operands(&self) -> impl Iterator<Item = V> + use<> {
        let all = match *self {
            Op::Input(_) | Op::Const(_) | Op::Length => [None, None, None],
            Op::Unary(_, a) | Op::Cast(a) | Op::Reduce(_, a) | Op::Detach(a) => [Some(a), None, None],
            Op::Binary(_, a, b) | Op::Compare(_, a, b) => [Some(a), Some(b), None],
            Op::Select(a, b, c) | Op::MulAdd(a, b, c) => [Some(a), Some(b), Some(c)],
        };
        all.into_iter().flatten()
    }

    /// The same operation on other values.
    #[must_use]
    pub fn map_operands(self, mut to: impl FnMut(V) -> V) -> Op {
        match self {
            Op::Input(_) | Op::Const(_) | Op::Length => self,
            Op::Unary(op, a) => Op::Unary(op, to(a)),
            Op::Cast(a) => Op::Cast(to(a)),
            Op::Reduce(op, a) => Op::Reduce(op, to(a)),
            Op::Detach(a) => Op::Detach(to(a)),
            Op::Binary(op, a, b) => Op::Binary(op, to(a), to(b)),
            Op::Compare(op, a, b) => Op::Compare(op, to(a), to(b)),
            Op::Select(a, b, c) => Op::Select(to(a), to(b), to(c)),
            Op::MulAdd(a, b, c) => Op::MulAdd(to(a), to(b), to(c)),
        }
    }

    /// The name in errors and dumps.
    pub const fn name(&self) -> &'static str {
        match self {
            Op::Input(_) => "input",
            Op::Const(_) => "const",
            Op::Unary(op, _) => op.name(),
            Op::Binary(op, ..) => op.name(),
            Op::Compare(op, ..) => op.name(),
            Op::Select(..) => "select",
            Op::MulAdd(..) => "mul_add",
            Op::Cast(_) => "cast",
            Op::Reduce(op, _) => match op {
                Reduce::Sum => "reduce_sum",
                Reduce::Max => "reduce_max",
                Reduce::Min => "reduce_min",
            },
            Op::Length => "length",
            Op::Detach(_) => "detach",
        }
    }
}

impl ScalarFn {
    /// The type of a value.
    pub fn ty(&self, value: V) -> Type {
        self.values[value.0 as usize].1
    }

    /// What a value is.
    pub fn op(&self, value: V) -> Op {
        self.values[value.0 as usize].0
    }

    /// The type of output `index`.
    pub fn output_type(&self, index: usize) -> Type {
        self.ty(self.outputs[index])
    }
}
