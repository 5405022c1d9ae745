//! The reference evaluator: runs a function over one row, value by value, as the definition of what devices compute.
//! Owns precision and repetition; single numbers are computed in `arithmetic.rs`, sums in `reduce.rs`.

use crate::arithmetic::{
    compare, float_binary, float_to_int, float_unary, int_binary, int_to_float, int_unary, one_nan, range,
};
use crate::half::rounded;
use crate::reduce::{sum_f32_by, sum_f64, sum_int};
use crate::{Binary, Const, DType, Extent, Op, Reduce, ScalarFn, Type, Unary, V};

/// How f32 values are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// Every operation rounds to its dtype.
    #[default]
    Exact,
    /// f32 values are carried in f64 and never rounded: an oracle for what rounding costs. What is converted to half
    /// precision is rounded all the same.
    Wide,
}

/// The values of one parameter or output over one row: one per element, or a single one for extent `Row`.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Of a float dtype; narrower values are widened, which is exact.
    Float(Vec<f64>),
    /// Of an integer dtype.
    Int(Vec<i64>),
    /// Of dtype bool.
    Bool(Vec<bool>),
}

impl Column {
    /// How many values.
    pub fn len(&self) -> usize {
        match self {
            Column::Float(values) => values.len(),
            Column::Int(values) => values.len(),
            Column::Bool(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values of a float column.
    pub fn as_floats(&self) -> Option<&[f64]> {
        match self {
            Column::Float(values) => Some(values),
            _ => None,
        }
    }

    /// The values of an integer column.
    pub fn as_ints(&self) -> Option<&[i64]> {
        match self {
            Column::Int(values) => Some(values),
            _ => None,
        }
    }

    /// The values of a bool column.
    pub fn as_bools(&self) -> Option<&[bool]> {
        match self {
            Column::Bool(values) => Some(values),
            _ => None,
        }
    }

    /// Whether both hold the same bits, where all NaNs are one value.
    pub fn same_bits(&self, other: &Column) -> bool {
        match (self, other) {
            (Column::Float(a), Column::Float(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(&a, &b)| one_nan(a).to_bits() == one_nan(b).to_bits())
            }
            _ => self == other,
        }
    }

    /// Whether the values are of that dtype's kind.
    fn holds(&self, dtype: DType) -> bool {
        match self {
            Column::Float(_) => dtype.is_float(),
            Column::Int(_) => dtype.is_int(),
            Column::Bool(_) => dtype == DType::Bool,
        }
    }

    /// The float of element `index`, or the only one.
    fn float(&self, index: usize) -> f64 {
        match self {
            Column::Float(values) => values[if values.len() == 1 { 0 } else { index }],
            _ => unreachable!("a verified function reads floats where floats are"),
        }
    }

    /// The integer of element `index`, or the only one; a bool counts as 0 or 1.
    fn int(&self, index: usize) -> i64 {
        match self {
            Column::Int(values) => values[if values.len() == 1 { 0 } else { index }],
            Column::Bool(values) => values[if values.len() == 1 { 0 } else { index }].into(),
            Column::Float(_) => unreachable!("a verified function reads integers where integers are"),
        }
    }
}

impl ScalarFn {
    /// Runs the function over one row of `length` elements and gives a column per output: `length` values for extent
    /// `Lane`, one for `Row`.
    ///
    /// # Shapes
    /// `inputs[i]` holds `length` values if parameter `i` is `Lane` (or one value, which is repeated), and one if it is
    /// `Row`.
    ///
    /// # Numerics
    /// f32 operations that IEEE 754 rounds are rounded so; other functions are computed in f64 and rounded to f32. All
    /// NaNs are made one. Sums follow [`crate::reduce`].
    ///
    /// # Panics
    /// If the function does not [`verify`](ScalarFn::verify), or the columns do not fit the parameters.
    ///
    /// ```
    /// use tapeflow_ir::{Builder, Column, DType, Precision, Reduce, Type};
    ///
    /// let mut b = Builder::new();
    /// let x = b.input(Type::lane(DType::F32));
    /// let sum = b.reduce(Reduce::Sum, x);
    /// let f = b.finish(&[sum]);
    /// let outputs = f.eval(&[Column::Float(vec![1.0, 2.0, 4.0])], 3, Precision::Exact);
    /// assert_eq!(outputs, [Column::Float(vec![7.0])]);
    /// ```
    pub fn eval(&self, inputs: &[Column], length: usize, precision: Precision) -> Vec<Column> {
        assert_eq!(inputs.len(), self.inputs.len(), "a function is evaluated with one column per parameter");
        for (index, (column, ty)) in inputs.iter().zip(&self.inputs).enumerate() {
            let fits = column.len() == 1 || (ty.extent == Extent::Lane && column.len() == length);
            assert!(
                fits && column.holds(ty.dtype),
                "column {index} of {} values does not fit {ty} in a row of {length}",
                column.len()
            );
        }
        let mut row = Row { function: self, inputs, length, precision, columns: Vec::with_capacity(self.values.len()) };
        for &(op, ty) in &self.values {
            let column = row.value(op, ty);
            row.columns.push(column);
        }
        self.outputs.iter().map(|output| row.columns[output.0 as usize].clone()).collect()
    }
}

/// One row under evaluation.
struct Row<'a> {
    function: &'a ScalarFn,
    inputs: &'a [Column],
    length: usize,
    precision: Precision,
    columns: Vec<Column>,
}

impl Row<'_> {
    fn at(&self, v: V) -> &Column {
        &self.columns[v.0 as usize]
    }

    /// Whether values of `dtype` are rounded to f32.
    fn narrow(&self, dtype: DType) -> bool {
        dtype == DType::F32 && self.precision == Precision::Exact
    }

    fn floats(&self, ty: Type, compute: impl Fn(usize) -> f64) -> Column {
        let rounds = self.narrow(ty.dtype) || ty.dtype.is_half();
        let round = |x: f64| one_nan(if rounds { rounded(ty.dtype, x) } else { x });
        Column::Float((0..self.count(ty)).map(|index| round(compute(index))).collect())
    }

    /// Integers, or bools from 0 and 1.
    fn ints(&self, ty: Type, compute: impl Fn(usize) -> i64) -> Column {
        let values = (0..self.count(ty)).map(compute);
        match ty.dtype {
            DType::Bool => Column::Bool(values.map(|x| x != 0).collect()),
            _ => Column::Int(values.collect()),
        }
    }

    fn count(&self, ty: Type) -> usize {
        match ty.extent {
            Extent::Row => 1,
            Extent::Lane => self.length,
        }
    }

    fn value(&self, op: Op, ty: Type) -> Column {
        match op {
            Op::Input(index) => self.copy(&self.inputs[index as usize], ty),
            Op::Const(Const::Bool(value)) => Column::Bool(vec![value]),
            Op::Const(Const::Int(value)) => Column::Int(vec![value]),
            Op::Const(Const::Float(bits)) => self.floats(ty, |_| f64::from_bits(bits)),
            Op::Unary(op, a) => self.unary(op, self.at(a), ty),
            Op::Binary(op, a, b) => self.binary(op, self.at(a), self.at(b), ty),
            Op::Compare(op, a, b) => {
                let (a, b) = (self.at(a), self.at(b));
                match a {
                    Column::Float(_) => self.ints(ty, |i| compare(op, a.float(i), b.float(i)).into()),
                    _ => self.ints(ty, |i| compare(op, a.int(i), b.int(i)).into()),
                }
            }
            Op::Select(condition, a, b) => {
                let (condition, a, b) = (self.at(condition), self.at(a), self.at(b));
                let pick = |i| if condition.int(i) != 0 { a } else { b };
                match a {
                    Column::Float(_) => self.floats(ty, |i| pick(i).float(i)),
                    _ => self.ints(ty, |i| pick(i).int(i)),
                }
            }
            Op::MulAdd(a, b, c) => {
                let (a, b, c) = (self.at(a), self.at(b), self.at(c));
                match self.narrow(ty.dtype) {
                    // Through f64 this would round twice, and not innocuously.
                    true => self
                        .floats(ty, |i| f64::from((a.float(i) as f32).mul_add(b.float(i) as f32, c.float(i) as f32))),
                    false => self.floats(ty, |i| a.float(i).mul_add(b.float(i), c.float(i))),
                }
            }
            Op::Cast(a) => self.cast(self.at(a), ty),
            Op::Reduce(op, a) => self.reduce(op, self.at(a), self.function.ty(a)),
            Op::Length => self.floats(ty, |_| self.length as f64),
            Op::Detach(a) => self.copy(self.at(a), ty),
        }
    }

    fn copy(&self, a: &Column, ty: Type) -> Column {
        match a {
            Column::Float(_) => self.floats(ty, |i| a.float(i)),
            _ => self.ints(ty, |i| a.int(i)),
        }
    }

    fn unary(&self, op: Unary, a: &Column, ty: Type) -> Column {
        match a {
            Column::Float(_) => self.floats(ty, |i| float_unary(op, a.float(i))),
            _ => self.ints(ty, |i| int_unary(op, ty.dtype, a.int(i))),
        }
    }

    fn binary(&self, op: Binary, a: &Column, b: &Column, ty: Type) -> Column {
        match a {
            Column::Float(_) => self.floats(ty, |i| float_binary(op, a.float(i), b.float(i))),
            _ => self.ints(ty, |i| int_binary(op, ty.dtype, a.int(i), b.int(i))),
        }
    }

    fn cast(&self, a: &Column, ty: Type) -> Column {
        let narrow = self.narrow(ty.dtype);
        match (a, ty.dtype) {
            (Column::Float(_), to) if to.is_float() => self.floats(ty, |i| a.float(i)),
            (Column::Float(_), DType::Bool) => self.ints(ty, |i| (a.float(i) != 0.0).into()),
            (Column::Float(_), to) => self.ints(ty, |i| float_to_int(to, a.float(i))),
            (_, to) if to.is_float() => self.floats(ty, |i| int_to_float(narrow, a.int(i))),
            (_, DType::Bool) => self.ints(ty, |i| a.int(i)),
            (_, to) => self.ints(ty, |i| crate::arithmetic::wrap(to, a.int(i))),
        }
    }

    fn reduce(&self, op: Reduce, a: &Column, from: Type) -> Column {
        let ty = Type::row(from.dtype);
        let narrow = self.narrow(from.dtype);
        let fold = match op {
            Reduce::Sum => Binary::Add,
            Reduce::Max => Binary::Max,
            Reduce::Min => Binary::Min,
        };
        match (a, from.extent, op) {
            // A `Row` value counts as repeated; `Builder::reduce` writes the same out.
            (Column::Float(_), Extent::Row, Reduce::Sum) => {
                let length = if narrow { self.length as f32 as f64 } else { self.length as f64 };
                self.floats(ty, |_| a.float(0) * length)
            }
            (_, Extent::Row, Reduce::Sum) => {
                self.ints(ty, |_| int_binary(Binary::Mul, ty.dtype, a.int(0), self.length as i64))
            }
            (_, Extent::Row, _) => a.clone(),
            (Column::Float(values), _, Reduce::Sum) => match narrow {
                true => self.floats(ty, |_| sum_f32_by(values.len(), |i| values[i] as f32).into()),
                false => self.floats(ty, |_| sum_f64(values)),
            },
            (Column::Float(values), ..) => {
                let empty = if op == Reduce::Max { f64::NEG_INFINITY } else { f64::INFINITY };
                self.floats(ty, |_| values.iter().fold(empty, |x, &y| float_binary(fold, x, y)))
            }
            (_, _, Reduce::Sum) => self.ints(ty, |_| sum_int(ty.dtype, (0..a.len()).map(|i| a.int(i)))),
            _ => {
                let (low, high) = range(ty.dtype);
                let empty = if op == Reduce::Max { low } else { high };
                self.ints(ty, |_| (0..a.len()).fold(empty, |x, i| int_binary(fold, ty.dtype, x, a.int(i))))
            }
        }
    }
}
