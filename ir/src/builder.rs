//! Writes functions value by value and works out result types on the way.
//! Owns the repetition rules (reductions of `Row` values, inlining at other extents); the typing rules stand in
//! `typing.rs`.

use crate::typing::{TypeError, result_type};
use crate::{Binary, Compare, Const, DType, Extent, Op, Reduce, ScalarFn, Type, Unary, V};

/// A function being written.
///
/// The typed methods assert that their operands fit ([`Builder::try_emit`] is the one that returns an error instead):
/// whoever builds IR knows its types.
///
/// ```
/// use tapeflow_ir::{Binary, Builder, DType, Reduce, Type, Unary};
///
/// let mut b = Builder::new();
/// let x = b.input(Type::lane(DType::F32));
/// let e = b.unary(Unary::Exp, x);
/// let sum = b.reduce(Reduce::Sum, e);
/// let y = b.binary(Binary::Div, e, sum);
/// let f = b.finish(&[y]);
/// assert_eq!(f.output_type(0), Type::lane(DType::F32));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Builder {
    function: ScalarFn,
}

impl Builder {
    /// Begins a function with no parameters.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Goes on with a function: its values keep their numbers, its outputs are forgotten.
    pub fn extend(function: ScalarFn) -> Builder {
        Builder { function: ScalarFn { outputs: Vec::new(), ..function } }
    }

    /// Adds a parameter.
    pub fn input(&mut self, ty: Type) -> V {
        let index = self.function.inputs.len() as u32;
        self.function.inputs.push(ty);
        self.push(Op::Input(index), ty)
    }

    /// Adds a value whose type the caller has worked out; [`ScalarFn::verify`] checks it.
    pub fn push(&mut self, op: Op, ty: Type) -> V {
        self.function.values.push((op, ty));
        V(self.function.values.len() as u32 - 1)
    }

    /// Adds a value and works out its type. `dtype` is read where the operands do not determine it: for constants,
    /// casts and `Length`. A reduction of a `Row` value is written as what it means, see [`Builder::reduce`].
    ///
    /// # Errors
    /// The operands do not fit; nothing is added.
    pub fn try_emit(&mut self, op: Op, dtype: DType) -> Result<V, TypeError> {
        if let Op::Reduce(reduce, a) = op
            && self.ty(a).extent == Extent::Row
        {
            return self.reduce_repeated(reduce, a);
        }
        let ty = result_type(op, &self.function.inputs, |v| self.ty(v), dtype)?;
        Ok(self.push(op, ty))
    }

    fn emit(&mut self, op: Op, dtype: DType) -> V {
        match self.try_emit(op, dtype) {
            Ok(value) => value,
            Err(error) => panic!("a builder of IR got its types wrong: {error}"),
        }
    }

    /// The type of a value.
    pub fn ty(&self, value: V) -> Type {
        self.function.ty(value)
    }

    /// What a value is.
    pub fn op(&self, value: V) -> Op {
        self.function.op(value)
    }

    /// A float constant, rounded once to `dtype` (through f32 if that is half precision).
    pub fn float(&mut self, dtype: DType, value: f64) -> V {
        if dtype.is_half() {
            let value = self.float(DType::F32, value);
            return self.cast(value, dtype);
        }
        self.emit(Op::Const(Const::float(dtype, value)), dtype)
    }

    /// An integer constant, wrapped to `dtype`.
    pub fn int(&mut self, dtype: DType, value: i64) -> V {
        self.emit(Op::Const(Const::int(dtype, value)), dtype)
    }

    /// A bool constant.
    pub fn bool(&mut self, value: bool) -> V {
        self.emit(Op::Const(Const::Bool(value)), DType::Bool)
    }

    /// One operand.
    pub fn unary(&mut self, op: Unary, a: V) -> V {
        self.emit(Op::Unary(op, a), self.ty(a).dtype)
    }

    /// Two operands of one dtype.
    pub fn binary(&mut self, op: Binary, a: V, b: V) -> V {
        self.emit(Op::Binary(op, a, b), self.ty(a).dtype)
    }

    /// The sum of two cotangents, computed in f32 if they are of half precision.
    pub(crate) fn plus(&mut self, a: V, b: V) -> V {
        let dtype = self.ty(a).dtype;
        let [a, b] = [a, b].map(|v| self.computed(v));
        let sum = self.binary(Binary::Add, a, b);
        self.stored(sum, dtype)
    }

    /// The sum of a cotangent along the row, computed in f32 if it is of half precision.
    pub(crate) fn along(&mut self, a: V) -> V {
        let dtype = self.ty(a).dtype;
        let wide = self.computed(a);
        let sum = self.reduce(Reduce::Sum, wide);
        self.stored(sum, dtype)
    }

    fn computed(&mut self, a: V) -> V {
        self.stored(a, self.ty(a).dtype.computed())
    }

    fn stored(&mut self, a: V, dtype: DType) -> V {
        if self.ty(a).dtype == dtype { a } else { self.cast(a, dtype) }
    }

    /// Two operands of one dtype, giving a bool.
    pub fn compare(&mut self, op: Compare, a: V, b: V) -> V {
        self.emit(Op::Compare(op, a, b), DType::Bool)
    }

    /// `if condition { a } else { b }`
    pub fn select(&mut self, condition: V, a: V, b: V) -> V {
        self.emit(Op::Select(condition, a, b), self.ty(a).dtype)
    }

    /// `a · b + c`, rounded once.
    pub fn mul_add(&mut self, a: V, b: V, c: V) -> V {
        self.emit(Op::MulAdd(a, b, c), self.ty(a).dtype)
    }

    /// To another dtype; to and from half precision through f32.
    pub fn cast(&mut self, a: V, dtype: DType) -> V {
        let from = self.ty(a).dtype;
        let is_direct = |half: DType, other: DType| !half.is_half() || other == half || other == DType::F32;
        if is_direct(from, dtype) && is_direct(dtype, from) {
            return self.emit(Op::Cast(a), dtype);
        }
        let wide = self.emit(Op::Cast(a), DType::F32);
        self.emit(Op::Cast(wide), dtype)
    }

    /// The value once per element: a `Row` value repeated along the row, a `Lane` value itself.
    pub fn repeat(&mut self, a: V) -> V {
        match self.ty(a) {
            Type { extent: Extent::Lane, .. } => a,
            Type { dtype, .. } => self.push(Op::Cast(a), Type::lane(dtype)),
        }
    }

    /// Along the row. A `Row` value counts as repeated along the row first: its sum is `a · length`, its largest and
    /// smallest are `a` itself.
    pub fn reduce(&mut self, op: Reduce, a: V) -> V {
        self.emit(Op::Reduce(op, a), self.ty(a).dtype)
    }

    fn reduce_repeated(&mut self, op: Reduce, a: V) -> Result<V, TypeError> {
        let dtype = self.ty(a).dtype;
        if !op.defined_for(dtype) {
            return Err(TypeError::Undefined { op: Op::Reduce(op, a).name(), dtype });
        }
        if op != Reduce::Sum {
            return Ok(a);
        }
        let length = if dtype.is_float() {
            self.length(dtype)
        } else {
            // Through i64, so that a length beyond the integer type wraps as the sum itself would.
            let length = self.length(DType::F64);
            let length = self.cast(length, DType::I64);
            self.cast(length, dtype)
        };
        Ok(self.binary(Binary::Mul, a, length))
    }

    /// The number of elements of the row, as a float dtype.
    pub fn length(&mut self, dtype: DType) -> V {
        self.emit(Op::Length, dtype)
    }

    /// The same value with no derivative.
    pub fn detach(&mut self, a: V) -> V {
        self.emit(Op::Detach(a), self.ty(a).dtype)
    }

    /// Writes a function into this one, with `args` for its parameters, and gives its outputs.
    ///
    /// Extents follow the arguments: a `Row` argument for a `Lane` parameter makes what depends on it alone `Row`. What
    /// a reduction reads is repeated along the row first, so inlining never changes a bit.
    ///
    /// # Panics
    /// If the number or the dtypes of the arguments are not the parameters', or a `Row` parameter gets a `Lane` value.
    pub fn inline(&mut self, function: &ScalarFn, args: &[V]) -> Vec<V> {
        assert_eq!(args.len(), function.inputs.len(), "inlining needs one argument per parameter");
        for (index, (&arg, parameter)) in args.iter().zip(&function.inputs).enumerate() {
            let ty = self.ty(arg);
            assert!(
                ty.dtype == parameter.dtype && ty.extent <= parameter.extent,
                "argument {index} does not fit its parameter: {ty} for {parameter}"
            );
        }
        let mut map: Vec<V> = Vec::with_capacity(function.values.len());
        for &(op, ty) in &function.values {
            let mapped = op.map_operands(|v| map[v.0 as usize]);
            let value = match (op, mapped) {
                (Op::Input(index), _) => args[index as usize],
                (Op::Reduce(reduce, a), Op::Reduce(_, mapped)) if function.ty(a).extent == Extent::Lane => {
                    let repeated = self.repeat(mapped);
                    self.reduce(reduce, repeated)
                }
                (Op::Cast(a), _) if function.ty(a).extent < ty.extent => self.push(mapped, Type::lane(ty.dtype)),
                _ => self.emit(mapped, ty.dtype),
            };
            map.push(value);
        }
        function.outputs.iter().map(|v| map[v.0 as usize]).collect()
    }

    /// Ends the function.
    pub fn finish(self, outputs: &[V]) -> ScalarFn {
        ScalarFn { outputs: outputs.to_vec(), ..self.function }
    }
}
