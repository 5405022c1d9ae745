//! Makes functions shorter without changing a bit of what they compute.
//! Owns the rewriting rules; every one of them is exact in IEEE arithmetic, where all NaNs count as one value.
//!
//! Not rules, because they change bits: `x · 0 → 0` (NaN, −0), `x + 0 → x` (−0), rounding to half precision and back,
//! reassociation, folding of functions of the mathematics library (they may differ between devices), and anything that
//! would change a value's extent.

use crate::half::rounded;
use crate::{Binary, Builder, Column, Compare, Const, DType, Extent, Op, Precision, ScalarFn, Type, Unary, V};
use std::collections::HashMap;

impl ScalarFn {
    /// The same function, with common subexpressions merged, constants folded, identities removed and dead values
    /// dropped. Parameters and outputs keep their order and types; a `Detach` stays.
    ///
    /// Bits are kept for [`Precision::Exact`] and on devices; with `Wide`, folded constants are rounded to their dtype.
    pub fn simplify(&self) -> ScalarFn {
        let mut rewriter = Rewriter { builder: Builder::new(), known: HashMap::new() };
        let mut map: Vec<V> = Vec::with_capacity(self.values.len());
        for &(op, ty) in &self.values {
            let value = rewriter.value(op.map_operands(|v| map[v.0 as usize]), ty);
            map.push(value);
        }
        let outputs: Vec<V> = self.outputs.iter().map(|v| map[v.0 as usize]).collect();
        let mut function = rewriter.builder.finish(&outputs);
        function.inputs.clone_from(&self.inputs);
        function.without_dead_values()
    }

    /// Drops what no output needs. Parameters stay in the signature.
    fn without_dead_values(self) -> ScalarFn {
        let mut live = vec![false; self.values.len()];
        for output in &self.outputs {
            live[output.0 as usize] = true;
        }
        for (index, (op, _)) in self.values.iter().enumerate().rev() {
            if live[index] {
                op.operands().for_each(|v| live[v.0 as usize] = true);
            }
        }
        let mut renamed = vec![V(u32::MAX); self.values.len()];
        let mut values = Vec::new();
        for (index, &(op, ty)) in self.values.iter().enumerate().filter(|(index, _)| live[*index]) {
            renamed[index] = V(values.len() as u32);
            values.push((op.map_operands(|v| renamed[v.0 as usize]), ty));
        }
        let outputs = self.outputs.iter().map(|v| renamed[v.0 as usize]).collect();
        ScalarFn { inputs: self.inputs, values, outputs }
    }
}

struct Rewriter {
    builder: Builder,
    /// By operation with its operands in canonical order.
    known: HashMap<(Op, Type), V>,
}

impl Rewriter {
    /// The value of `op`, whose operands are already simplified: an earlier value of the same type if there is one.
    fn value(&mut self, op: Op, ty: Type) -> V {
        if let Some(constant) = self.fold(op, ty) {
            return self.value_of(Op::Const(constant), ty);
        }
        match self.rewrite(op, ty) {
            Some(Rewrite::Same(v)) if self.builder.ty(v) == ty => v,
            Some(Rewrite::As(op)) => self.value(op, ty),
            _ => self.value_of(op, ty),
        }
    }

    /// The op itself, once.
    fn value_of(&mut self, op: Op, ty: Type) -> V {
        let builder = &mut self.builder;
        *self.known.entry((canonical(op), ty)).or_insert_with(|| builder.push(op, ty))
    }

    fn constant(&self, v: V) -> Option<Const> {
        match self.builder.op(v) {
            Op::Const(constant) => Some(constant),
            _ => None,
        }
    }

    /// Whether `v` is the number `x`, sign of zero included.
    fn is(&self, v: V, x: f64) -> bool {
        match self.constant(v) {
            Some(Const::Float(bits)) => bits == x.to_bits(),
            // −0.0 stands for the identity of addition, which integers have as 0.
            Some(Const::Int(value)) => value as f64 == x,
            _ => false,
        }
    }

    /// The result, if all operands are constants and every device computes these very bits: no subnormals, which some
    /// flush, and no NaNs.
    fn fold(&self, op: Op, ty: Type) -> Option<Const> {
        let exact = match op {
            Op::Unary(op, _) => matches!(
                op,
                Unary::Neg
                    | Unary::Abs
                    | Unary::Sign
                    | Unary::Floor
                    | Unary::Ceil
                    | Unary::Round
                    | Unary::Trunc
                    | Unary::Sqrt
                    | Unary::Not
            ),
            Op::Binary(Binary::Rem, ..) => ty.dtype.is_int(),
            Op::Binary(op, ..) => !matches!(op, Binary::Pow | Binary::Atan2),
            Op::Compare(..) | Op::Select(..) => true,
            // Constants are never of half precision: rounding to it is left to be done.
            Op::Cast(_) => ty.extent == Extent::Row && !ty.dtype.is_half(),
            _ => false,
        };
        if !exact || !op.operands().all(|v| self.constant(v).is_some()) {
            return None;
        }
        let mut values: Vec<(Op, Type)> = Vec::with_capacity(4);
        let folded = op.map_operands(|v| {
            values.push((self.builder.op(v), self.builder.ty(v)));
            V(values.len() as u32 - 1)
        });
        values.push((folded, ty));
        let output = V(values.len() as u32 - 1);
        let column = ScalarFn { inputs: Vec::new(), values, outputs: vec![output] }.eval(&[], 1, Precision::Exact);
        match column.first()? {
            Column::Bool(values) => Some(Const::Bool(values[0])),
            Column::Int(values) => Some(Const::Int(values[0])),
            Column::Float(values) => (values[0] == 0.0 || is_normal(ty.dtype, values[0]) || values[0].is_infinite())
                .then(|| Const::float(ty.dtype, values[0])),
        }
    }

    fn rewrite(&mut self, op: Op, ty: Type) -> Option<Rewrite> {
        let inner = |v: V| self.builder.op(v);
        match op {
            Op::Unary(op, a) => match (op, inner(a)) {
                (Unary::Neg, Op::Unary(Unary::Neg, x)) | (Unary::Not, Op::Unary(Unary::Not, x)) => same(x),
                (Unary::Abs, Op::Unary(Unary::Abs, _)) => same(a),
                // Of an unsigned integer, `abs` is the identity and `neg` is not.
                (Unary::Abs, Op::Unary(Unary::Neg, x)) if !matches!(ty.dtype, DType::U8 | DType::U32) => {
                    Some(Rewrite::As(Op::Unary(Unary::Abs, x)))
                }
                _ => None,
            },
            Op::Binary(op, a, b) => self.rewrite_binary(op, a, b, ty),
            Op::Select(_, a, b) if a == b => same(a),
            Op::Select(condition, a, b) => match inner(condition) {
                Op::Const(Const::Bool(value)) => same(if value { a } else { b }),
                Op::Unary(Unary::Not, condition) => Some(Rewrite::As(Op::Select(condition, b, a))),
                _ => None,
            },
            Op::Cast(a) if self.builder.ty(a) == ty => same(a),
            Op::Cast(a) => match inner(a) {
                // Widening and back.
                Op::Cast(x) if self.builder.ty(x) == ty && widens(ty.dtype, self.builder.ty(a).dtype) => same(x),
                // A constant rounded to half precision.
                Op::Cast(x) if ty == Type::row(DType::F32) && self.builder.ty(a).dtype.is_half() => {
                    let value = rounded(self.builder.ty(a).dtype, self.constant(x)?.as_float()?);
                    Some(Rewrite::As(Op::Const(Const::float(DType::F32, value))))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn rewrite_binary(&mut self, op: Binary, a: V, b: V, ty: Type) -> Option<Rewrite> {
        let negated = |v: V| match self.builder.op(v) {
            Op::Unary(Unary::Neg, x) => Some(x),
            _ => None,
        };
        let binary = |op, a, b| Some(Rewrite::As(Op::Binary(op, a, b)));
        match op {
            Binary::Add if self.is(b, -0.0) => same(a),
            Binary::Add if self.is(a, -0.0) => same(b),
            Binary::Add => match (negated(a), negated(b)) {
                (_, Some(x)) => binary(Binary::Sub, a, x),
                (Some(x), None) => binary(Binary::Sub, b, x),
                _ => None,
            },
            Binary::Sub if self.is(b, 0.0) => same(a),
            Binary::Sub => negated(b).and_then(|x| binary(Binary::Add, a, x)),
            Binary::Mul if self.is(b, 1.0) => same(a),
            Binary::Mul if self.is(a, 1.0) => same(b),
            Binary::Mul if self.is(b, -1.0) => self.negate(a, ty),
            Binary::Mul if self.is(a, -1.0) => self.negate(b, ty),
            Binary::Mul => match (negated(a), negated(b)) {
                (Some(x), Some(y)) => binary(Binary::Mul, x, y),
                _ => None,
            },
            Binary::Div if self.is(b, 1.0) => same(a),
            Binary::Div => {
                let reciprocal = exact_reciprocal(ty.dtype, self.constant(b)?.as_float()?)?;
                let factor = self.value_of(Op::Const(Const::float(ty.dtype, reciprocal)), Type::row(ty.dtype));
                binary(Binary::Mul, a, factor)
            }
            Binary::Min | Binary::Max | Binary::And | Binary::Or if a == b => same(a),
            Binary::And if self.constant(b) == Some(Const::Bool(true)) => same(a),
            Binary::And if self.constant(a) == Some(Const::Bool(true)) => same(b),
            Binary::Or | Binary::Xor if self.constant(b) == Some(Const::Bool(false)) => same(a),
            Binary::Or | Binary::Xor if self.constant(a) == Some(Const::Bool(false)) => same(b),
            _ => None,
        }
    }

    /// `−a`, unless the other factor was what made the product `Lane`.
    fn negate(&self, a: V, ty: Type) -> Option<Rewrite> {
        (self.builder.ty(a) == ty).then_some(Rewrite::As(Op::Unary(Unary::Neg, a)))
    }
}

/// Whether every value of the first is one of the second.
fn widens(narrow: DType, wide: DType) -> bool {
    narrow.is_half() && wide == DType::F32 || (narrow, wide) == (DType::F32, DType::F64)
}

/// What a value can be replaced by.
enum Rewrite {
    /// An earlier value, if it has the same type.
    Same(V),
    /// Another operation of the same type.
    As(Op),
}

fn same(v: V) -> Option<Rewrite> {
    Some(Rewrite::Same(v))
}

fn is_normal(dtype: DType, x: f64) -> bool {
    if dtype == DType::F32 { (x as f32).is_normal() } else { x.is_normal() }
}

/// `1/x` if x is ± a power of two and both are normal: then `a / x` and `a · (1/x)` round the same number.
fn exact_reciprocal(dtype: DType, x: f64) -> Option<f64> {
    let fraction = x.to_bits() & ((1 << (f64::MANTISSA_DIGITS - 1)) - 1);
    (fraction == 0 && is_normal(dtype, x) && is_normal(dtype, 1.0 / x)).then_some(1.0 / x)
}

/// The key under which equal operations meet: operands that commute stand in order.
fn canonical(op: Op) -> Op {
    match op {
        Op::Binary(op, a, b) if op.commutes() => Op::Binary(op, a.min(b), a.max(b)),
        Op::Compare(op, a, b) if a > b => Op::Compare(op.swapped(), b, a),
        Op::Compare(op @ (Compare::Eq | Compare::Ne), a, b) => Op::Compare(op, a.min(b), a.max(b)),
        Op::MulAdd(a, b, c) => Op::MulAdd(a.min(b), a.max(b), c),
        op => op,
    }
}
