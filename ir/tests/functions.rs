//! The verifier refuses what no reader of the IR could make sense of; the evaluator's values dtype by dtype; the
//! printer.

use tapeflow_ir::{
    Binary, Builder, Column, Compare, Const, DType, Op, Precision, Reduce, ScalarFn, Type, TypeError, Unary, V,
    VerifyError,
};

const F32: DType = DType::F32;
const F64: DType = DType::F64;

fn broken(values: &[(Op, Type)], outputs: &[V]) -> String {
    let f = ScalarFn {
        inputs: vec![Type::lane(F32), Type::row(F32), Type::lane(DType::I32)],
        values: [
            (Op::Input(0), Type::lane(F32)),
            (Op::Input(1), Type::row(F32)),
            (Op::Input(2), Type::lane(DType::I32)),
        ]
        .into_iter()
        .chain(values.iter().copied())
        .collect(),
        outputs: outputs.to_vec(),
    };
    f.verify().expect_err("a broken function").to_string()
}

#[test]
fn broken_functions_are_refused() {
    let (x, s, n) = (V(0), V(1), V(2));
    let (lane, row) = (Type::lane(F32), Type::row(F32));
    for (op, ty, message) in [
        (Op::Unary(Unary::Exp, V(3)), lane, "%3 reads %3, which is not before it"),
        (Op::Unary(Unary::Exp, V(9)), lane, "%3 reads %9, which is not before it"),
        (Op::Input(3), lane, "%3: there is no parameter 3 among 3"),
        (Op::Input(0), row, "%3 is declared f32 row, its operands make it f32 lane"),
        (Op::Binary(Binary::Add, x, s), row, "%3 is declared f32 row, its operands make it f32 lane"),
        (Op::Binary(Binary::Add, s, s), lane, "%3 is declared f32 lane, its operands make it f32 row"),
        (Op::Binary(Binary::Add, x, x), Type::lane(F64), "%3 is declared f64 lane, its operands make it f32 lane"),
        (Op::Binary(Binary::Add, x, n), lane, "%3: the operands of `add` have different dtypes, f32 and i32"),
        (Op::Binary(Binary::And, x, x), lane, "%3: `and` is not defined for f32"),
        (Op::Binary(Binary::Pow, n, n), Type::lane(DType::I32), "%3: `pow` is not defined for i32"),
        (Op::MulAdd(n, n, n), Type::lane(DType::I32), "%3: `mul_add` is not defined for i32"),
        (Op::Compare(Compare::Lt, x, x), lane, "%3 is declared f32 lane, its operands make it bool lane"),
        (Op::Select(x, x, x), lane, "%3: the condition of `select` must be bool, not f32"),
        (Op::Const(Const::Float(0.1f64.to_bits())), row, "%3: the constant is not a value of f32"),
        (Op::Const(Const::Int(1)), row, "%3: the constant is not a value of f32"),
        (Op::Const(Const::float(F32, 1.0)), lane, "%3 is declared f32 lane, its operands make it f32 row"),
        (Op::Reduce(Reduce::Sum, x), lane, "%3 is declared f32 lane, its operands make it f32 row"),
        (Op::Reduce(Reduce::Sum, s), row, "%3: `reduce_sum` of a value that occurs once per row"),
        (Op::Length, Type::row(DType::I32), "%3: `length` is not defined for i32"),
        (Op::Cast(x), row, "%3 is declared f32 row, its operands make it f32 lane"),
    ] {
        assert_eq!(broken(&[(op, ty)], &[x]), message);
    }
    assert_eq!(broken(&[], &[x, V(3)]), "output 1 is %3, which does not exist");
}

#[test]
fn errors_carry_their_parts() {
    let f = ScalarFn { inputs: vec![], values: vec![(Op::Length, Type::row(DType::I64))], outputs: vec![] };
    let error = TypeError::Undefined { op: "length", dtype: DType::I64 };
    assert_eq!(f.verify(), Err(VerifyError::Operands { value: V(0), error }));
}

#[test]
fn printed() {
    let mut b = Builder::new();
    let x = b.input(Type::lane(F32));
    let k = b.float(F32, 0.1);
    let wide = b.float(F64, 0.1);
    let infinite = b.float(F32, f64::NEG_INFINITY);
    let n = b.int(DType::U8, 300);
    let yes = b.bool(true);
    let scaled = b.binary(Binary::Mul, x, k);
    let largest = b.reduce(Reduce::Max, scaled);
    let chosen = b.select(yes, largest, infinite);
    let length = b.length(F32);
    let repeated = b.repeat(chosen);
    let fused = b.mul_add(repeated, length, x);
    let detached = b.detach(fused);
    let f = b.finish(&[detached, wide, n]);
    f.verify().unwrap();
    assert_eq!(
        f.to_string(),
        "fn(f32 lane)\n\
         %0: f32 lane = input 0\n\
         %1: f32 row = const 0.1\n\
         %2: f64 row = const 0.1\n\
         %3: f32 row = const -inf\n\
         %4: u8 row = const 44\n\
         %5: bool row = const true\n\
         %6: f32 lane = mul %0, %1\n\
         %7: f32 row = reduce_max %6\n\
         %8: f32 row = select %5, %7, %3\n\
         %9: f32 row = length\n\
         %10: f32 lane = cast %8\n\
         %11: f32 lane = mul_add %10, %9, %0\n\
         %12: f32 lane = detach %11\n\
         return %12, %2, %4"
    );
    assert_eq!(ScalarFn::default().to_string(), "fn()\nreturn");
}

fn eval1(ty: Type, input: Column, length: usize, write: impl FnOnce(&mut Builder, V) -> V) -> Column {
    let mut b = Builder::new();
    let x = b.input(ty);
    let y = write(&mut b, x);
    let f = b.finish(&[y]);
    f.verify().unwrap();
    f.eval(&[input], length, Precision::Exact).remove(0)
}

#[test]
fn f32_rounds_after_each_operation() {
    let third = |ty| {
        eval1(Type::lane(ty), Column::Float(vec![1.0]), 1, |b, x| {
            let three = b.float(ty, 3.0);
            b.binary(Binary::Div, x, three)
        })
    };
    assert_eq!(third(F32), Column::Float(vec![f64::from(1.0f32 / 3.0)]));
    assert_eq!(third(F64), Column::Float(vec![1.0 / 3.0]));
    // 1 + 2⁻²³ + 2⁻²⁴ − 2⁻⁷⁰ rounds down to f32; by way of f64 it would become a tie and round up.
    let (a, b, c) = ((1.0 + f32::EPSILON) / 4096.0, (1.0 - f32::EPSILON) / 4096.0, 1.0 + f32::EPSILON);
    let mut builder = Builder::new();
    let v: Vec<V> = (0..3).map(|_| builder.input(Type::lane(F32))).collect();
    let fused = builder.mul_add(v[0], v[1], v[2]);
    let f = builder.finish(&[fused]);
    let columns = [a, b, c].map(|x| Column::Float(vec![x.into()]));
    assert_eq!(f.eval(&columns, 1, Precision::Exact)[0], Column::Float(vec![c.into()]));
    let wide = f64::from(a).mul_add(b.into(), c.into());
    assert_eq!(f.eval(&columns, 1, Precision::Wide)[0], Column::Float(vec![wide]));
    assert!(wide as f32 != c);
}

#[test]
fn casts() {
    let cast = |from, to, column| eval1(Type::lane(from), column, 4, |b, x| b.cast(x, to));
    let floats = || Column::Float(vec![f64::NAN, -1.5, 300.7, 1e20]);
    assert_eq!(cast(F32, DType::U8, floats()), Column::Int(vec![0, 0, 255, 255]));
    assert_eq!(cast(F32, DType::I32, floats()), Column::Int(vec![0, -1, 300, i32::MAX.into()]));
    assert_eq!(cast(F64, DType::U32, floats()), Column::Int(vec![0, 0, 300, u32::MAX.into()]));
    assert_eq!(cast(F64, DType::I64, floats()), Column::Int(vec![0, -1, 300, i64::MAX]));
    assert_eq!(
        cast(F64, DType::Bool, Column::Float(vec![0.0, -0.0, 0.1, f64::NAN])),
        Column::Bool(vec![false, false, true, true])
    );
    assert_eq!(
        cast(F64, F32, Column::Float(vec![0.1, 1e300, 1e-300, 1.0])),
        Column::Float(vec![0.1f32.into(), f64::INFINITY, 0.0, 1.0])
    );
    let ints = || Column::Int(vec![-1, 256, i64::MAX, (1 << 24) + 1]);
    assert_eq!(cast(DType::I64, DType::U8, ints()), Column::Int(vec![255, 0, 255, 1]));
    assert_eq!(cast(DType::I64, DType::I32, ints()), Column::Int(vec![-1, 256, -1, (1 << 24) + 1]));
    assert_eq!(
        cast(DType::I64, F32, ints()),
        Column::Float(vec![-1.0, 256.0, (i64::MAX as f32).into(), f64::from(1 << 24)])
    );
    assert_eq!(
        cast(DType::I64, DType::Bool, Column::Int(vec![0, 1, -5, 256])),
        Column::Bool(vec![false, true, true, true])
    );
    let bools = Column::Bool(vec![true, false, true, true]);
    assert_eq!(cast(DType::Bool, F32, bools.clone()), Column::Float(vec![1.0, 0.0, 1.0, 1.0]));
    assert_eq!(cast(DType::Bool, DType::I64, bools), Column::Int(vec![1, 0, 1, 1]));
}

#[test]
fn reductions_of_nothing_and_of_nan() {
    let reduce = |op, dtype, column: Column| {
        let length = column.len();
        eval1(Type::lane(dtype), column, length, |b, x| b.reduce(op, x))
    };
    let (inf, nan) = (f64::INFINITY, f64::NAN);
    assert_eq!(reduce(Reduce::Sum, F32, Column::Float(vec![])), Column::Float(vec![0.0]));
    assert_eq!(reduce(Reduce::Max, F32, Column::Float(vec![])), Column::Float(vec![-inf]));
    assert_eq!(reduce(Reduce::Min, F64, Column::Float(vec![])), Column::Float(vec![inf]));
    assert_eq!(reduce(Reduce::Max, DType::I32, Column::Int(vec![])), Column::Int(vec![i32::MIN.into()]));
    assert_eq!(reduce(Reduce::Min, DType::U8, Column::Int(vec![])), Column::Int(vec![255]));
    assert!(reduce(Reduce::Max, F32, Column::Float(vec![1.0, nan, inf])).same_bits(&Column::Float(vec![nan])));
    assert_eq!(reduce(Reduce::Sum, DType::U8, Column::Int(vec![200, 100])), Column::Int(vec![44]));
    assert_eq!(reduce(Reduce::Min, DType::I64, Column::Int(vec![3, -4, 5])), Column::Int(vec![-4]));
    // The law, and not the order of the row: 2²⁴ + 1 rounds to 2²⁴, 1 + 1 first does not.
    let mut row = vec![0.0; 17];
    (row[0], row[1], row[2]) = (16_777_216.0, 1.0, 1.0);
    assert_eq!(reduce(Reduce::Sum, F32, Column::Float(row)), Column::Float(vec![16_777_216.0]));
    let mut row = vec![0.0; 17];
    (row[0], row[1], row[9]) = (16_777_216.0, 1.0, 1.0);
    assert_eq!(reduce(Reduce::Sum, F32, Column::Float(row)), Column::Float(vec![16_777_218.0]));
}

#[test]
fn integer_sum_of_a_row_value() {
    let sum = eval1(Type::row(DType::U8), Column::Int(vec![100]), 3, |b, x| b.reduce(Reduce::Sum, x));
    assert_eq!(sum, Column::Int(vec![44]));
}

#[test]
#[should_panic(expected = "column 0 of 2 values does not fit f32 lane in a row of 3")]
fn columns_must_fit() {
    eval1(Type::lane(F32), Column::Float(vec![1.0, 2.0]), 3, |_, x| x);
}
