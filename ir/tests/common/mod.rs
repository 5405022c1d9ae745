//! What the tests of the IR share: numbers that look random, and the comparison of derivatives with central
//! differences.
#![allow(dead_code)] // Each test file uses its part.

use tapeflow_ir::{
    Binary, Builder, Column, Compare, Const, DType, Extent, Op, Precision, Reduce, ScalarFn, Type, Unary, V,
};

/// SplitMix64 (Steele, Lea & Flood 2014).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % bound as u64) as usize
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn column(&mut self, ty: Type, length: usize, low: f64, high: f64) -> Column {
        let count = if ty.extent == Extent::Lane { length } else { 1 };
        Column::Float((0..count).map(|_| self.between(low, high)).collect())
    }
}

pub fn floats(column: &Column) -> &[f64] {
    column.as_floats().expect("a float column")
}

/// Compares each derivative of `f` (f64 functions) with central differences at `inputs`, then the derivatives' own
/// derivatives, to
/// `order`. Returns how many derivatives were compared.
pub fn check_derivatives(name: &str, f: &ScalarFn, inputs: &[Column], length: usize, order: usize) -> usize {
    let mut compared = 0;
    f.verify().unwrap_or_else(|error| panic!("{name}: {error}\n{f}"));
    for output in 0..f.outputs.len() {
        if !f.output_type(output).dtype.is_float() {
            continue;
        }
        let cotangent = Random(output as u64 + 17).column(f.output_type(output), length, 0.5, 1.5);
        let numeric: Vec<Option<Vec<f64>>> =
            inputs.iter().enumerate().map(|(i, _)| differences(f, inputs, length, output, i, &cotangent)).collect();
        for (input, numeric) in numeric.iter().enumerate() {
            let Some(numeric) = numeric else { continue };
            let Some(vjp) = f.vjp(output, input) else {
                assert!(numeric.iter().all(|&d| d.abs() < 1e-7), "{name}: no vjp of {output} by {input}\n{f}");
                continue;
            };
            vjp.verify().unwrap_or_else(|error| panic!("{name}: {error}\n{vjp}"));
            assert_eq!(vjp.output_type(0), f.inputs[input], "{name}");
            let mut arguments = inputs.to_vec();
            arguments.push(cotangent.clone());
            let exact = vjp.eval(&arguments, length, Precision::Exact);
            for (index, (&exact, &numeric)) in floats(&exact[0]).iter().zip(numeric).enumerate() {
                let tolerance = 2e-6 * (1.0 + numeric.abs());
                assert!(
                    (exact - numeric).abs() <= tolerance,
                    "{name}: by input {input}[{index}]: {exact}, by differences {numeric}\n{f}\n{vjp}"
                );
                compared += 1;
            }
            if order > 1 {
                let name = format!("{name}'{input}");
                compared += check_derivatives(&name, &vjp, &arguments, length, order - 1);
            }
        }
    }
    compared
}

/// `d Σ cotangent · output / d input[j]` for each element j; none if the input is no float.
fn differences(
    f: &ScalarFn,
    inputs: &[Column],
    length: usize,
    output: usize,
    input: usize,
    cotangent: &Column,
) -> Option<Vec<f64>> {
    let values = inputs[input].as_floats()?;
    let loss = |index: usize, x: f64| -> f64 {
        let mut inputs = inputs.to_vec();
        let mut moved = values.to_vec();
        moved[index] = x;
        inputs[input] = Column::Float(moved);
        let outputs = f.eval(&inputs, length, Precision::Exact);
        floats(&outputs[output]).iter().zip(floats(cotangent)).map(|(y, c)| y * c).sum()
    };
    let derivative = |(index, &x): (usize, &f64)| {
        // Fourth order: the error is h⁴ and not h².
        let h = 2e-4 * x.abs().max(0.1);
        let (near, far) =
            (loss(index, x + h) - loss(index, x - h), loss(index, x + 2.0 * h) - loss(index, x - 2.0 * h));
        (8.0 * near - far) / (12.0 * h)
    };
    Some(values.iter().enumerate().map(derivative).collect())
}

/// Floats at which rewriting goes wrong first.
const SPECIAL: [f64; 22] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    2.0,
    -0.5,
    0.25,
    3.0,
    0.1,
    -7.3,
    1e-40,
    -1e-45,
    5e-324,
    1e-310,
    3e38,
    1e300,
    16777217.0,
    4e9,
    -2147483649.0,
    f64::INFINITY,
    f64::NEG_INFINITY,
    f64::NAN,
];

const SPECIAL_INTS: [i64; 10] = [0, 1, -1, 2, 7, 255, i32::MIN as i64, u32::MAX as i64, i64::MAX, i64::MIN];

/// Inputs full of special values for any types.
pub fn special_inputs(random: &mut Random, types: &[Type], length: usize) -> Vec<Column> {
    let column = |ty: &Type| {
        let count = if ty.extent == Extent::Lane { length } else { 1 };
        let constants = (0..count).map(|_| special_constant(random, ty.dtype)).collect::<Vec<_>>();
        if ty.dtype.is_float() {
            Column::Float(constants.iter().map(|c| c.as_float().expect("a float")).collect())
        } else if ty.dtype.is_int() {
            Column::Int(constants.iter().map(|c| c.as_int().expect("an integer")).collect())
        } else {
            Column::Bool(constants.iter().map(|&c| c == Const::Bool(true)).collect())
        }
    };
    types.iter().map(column).collect()
}

pub fn special_constant(random: &mut Random, dtype: DType) -> Const {
    if dtype.is_float() {
        Const::float(dtype, random.pick(&SPECIAL))
    } else if dtype.is_int() {
        Const::int(dtype, random.pick(&SPECIAL_INTS))
    } else {
        Const::Bool(random.below(2) == 1)
    }
}

/// A function of about `size` values with every operation, dtype and extent; well typed.
pub fn random_function(random: &mut Random, size: usize) -> ScalarFn {
    let mut b = Builder::new();
    let mut values: Vec<V> = Vec::new();
    for dtype in [DType::F32, DType::F32, DType::F64, random.pick(&DType::ALL), DType::Bool] {
        let ty = if random.below(3) == 0 { Type::row(dtype) } else { Type::lane(dtype) };
        values.push(b.input(ty));
    }
    while values.len() < size {
        // Recent values more often, so that chains grow.
        let near = |random: &mut Random| {
            let window = if random.below(2) == 0 { values.len() } else { values.len().min(6) };
            values[values.len() - 1 - random.below(window)]
        };
        let first = near(random);
        let dtype = b.ty(first).dtype;
        let others: Vec<V> = values.iter().copied().filter(|&v| b.ty(v).dtype == dtype).collect();
        let bools: Vec<V> = values.iter().copied().filter(|&v| b.ty(v).dtype == DType::Bool).collect();
        let second = random.pick(&others);
        let third = random.pick(&others);
        let op = match random.below(13) {
            0 => {
                let dtype = random.pick(&DType::ALL);
                let constant = special_constant(random, dtype.computed());
                let constant = b.push(Op::Const(constant), Type::row(dtype.computed()));
                values.push(b.cast(constant, dtype));
                continue;
            }
            1 if !dtype.is_half() => {
                // A constant as an operand is what most rules look for.
                let constant = b.push(Op::Const(special_constant(random, dtype)), Type::row(dtype));
                values.push(constant);
                let op = random.pick(&Binary::ALL);
                if random.below(2) == 0 { Op::Binary(op, first, constant) } else { Op::Binary(op, constant, first) }
            }
            2 | 3 => Op::Unary(random.pick(&Unary::ALL), first),
            4 => Op::Unary(Unary::Neg, first),
            5..=7 => Op::Binary(random.pick(&Binary::ALL), first, second),
            8 => Op::Compare(random.pick(&Compare::ALL), first, second),
            9 => Op::Select(random.pick(&bools), first, second),
            10 => Op::MulAdd(first, second, third),
            11 => {
                let to = random.pick(&DType::ALL);
                let cast = b.cast(first, to);
                values.push(if random.below(3) == 0 { b.repeat(cast) } else { cast });
                continue;
            }
            _ if random.below(4) == 0 => Op::Detach(first),
            _ if random.below(4) == 0 => Op::Length,
            _ => Op::Reduce(random.pick(&Reduce::ALL), first),
        };
        if let Ok(value) = b.try_emit(op, dtype) {
            values.push(value);
        }
    }
    let outputs: Vec<V> = (0..3).map(|_| random.pick(&values)).chain(values.last().copied()).collect();
    b.finish(&outputs)
}
