//! Templates become functions: holes, calls, extents, and every mistake with its message.

use tapeflow_ir::{
    Binary, Column, Compare, DType, Extent, Hole, Precision, Reduce, Template, TemplateInput, TemplateRow as Row, Unary,
};

const fn lane(name: &'static str) -> TemplateInput {
    TemplateInput { name, ty: Hole::Kernel, extent: Extent::Lane }
}

const fn row(name: &'static str) -> TemplateInput {
    TemplateInput { name, ty: Hole::Kernel, extent: Extent::Row }
}

const X: &[TemplateInput] = &[lane("x")];

const fn scalar(name: &'static str, rows: &'static [Row], outputs: &'static [u16]) -> Template {
    Template { name, row: false, inputs: X, rows, outputs }
}

static SIGMOID: Template = scalar(
    "sigmoid",
    &[
        Row::Input(0),
        Row::Float(1.0),
        Row::Unary(Unary::Neg, 0),
        Row::Unary(Unary::Exp, 2),
        Row::Binary(Binary::Add, 1, 3),
        Row::Binary(Binary::Div, 1, 4),
    ],
    &[5],
);

static SILU: Template = scalar(
    "silu",
    &[Row::Input(0), Row::Call { template: &SIGMOID, output: 0, args: &[0] }, Row::Binary(Binary::Mul, 0, 1)],
    &[2],
);

/// `x · silu(max(x)) · scale`: a scalar kernel of a value of the row.
static GATE: Template = Template {
    name: "gate",
    row: true,
    inputs: &[lane("x"), row("scale")],
    rows: &[
        Row::Input(0),
        Row::Input(1),
        Row::Reduce(Reduce::Max, 0),
        Row::Call { template: &SILU, output: 0, args: &[2] },
        Row::Binary(Binary::Mul, 0, 3),
        Row::Binary(Binary::Mul, 4, 1),
        Row::Length,
    ],
    outputs: &[5, 3, 6],
};

#[test]
fn holes_are_filled_and_calls_inlined() {
    let silu = SILU.instantiate(DType::F32).unwrap();
    silu.verify().unwrap();
    assert_eq!(
        silu.to_string(),
        "fn(f32 lane)\n\
         %0: f32 lane = input 0\n\
         %1: f32 row = const 1.0\n\
         %2: f32 lane = neg %0\n\
         %3: f32 lane = exp %2\n\
         %4: f32 lane = add %1, %3\n\
         %5: f32 lane = div %1, %4\n\
         %6: f32 lane = mul %0, %5\n\
         return %6"
    );
    assert_eq!(SILU.instantiate(DType::F64).unwrap().to_string(), silu.to_string().replace("f32", "f64"));
}

#[test]
fn a_scalar_kernel_of_a_row_value_stays_of_the_row() {
    let gate = GATE.instantiate(DType::F64).unwrap();
    gate.verify().unwrap();
    assert_eq!(gate.output_type(0).extent, Extent::Lane);
    assert_eq!(gate.output_type(1).extent, Extent::Row);
    let outputs = gate.eval(&[Column::Float(vec![1.0, -2.0, 0.5]), Column::Float(vec![10.0])], 3, Precision::Exact);
    let silu = 1.0 / (1.0 + (-1.0f64).exp());
    assert_eq!(outputs[1], Column::Float(vec![silu]));
    assert_eq!(outputs[0], Column::Float(vec![silu * 10.0, -2.0 * silu * 10.0, 0.5 * silu * 10.0]));
    assert_eq!(outputs[2], Column::Float(vec![3.0]));
}

static FIXED: Template = Template {
    name: "fixed",
    row: false,
    inputs: &[lane("x"), TemplateInput { name: "n", ty: Hole::Fixed(DType::U8), extent: Extent::Lane }],
    rows: &[
        Row::Input(0),
        Row::Input(1),
        Row::Int(3, DType::U8),
        Row::Compare(Compare::Lt, 1, 2),
        Row::Cast(1, Hole::Kernel),
        Row::Select(3, 0, 4),
        Row::Float(0.1),
        Row::MulAdd(5, 6, 0),
        Row::Detach(7),
        Row::Bool(true),
        Row::Cast(8, Hole::Fixed(DType::I64)),
    ],
    outputs: &[8, 9, 10],
};

#[test]
fn every_kind_of_row() {
    assert_eq!(
        FIXED.instantiate(DType::F32).unwrap().to_string(),
        "fn(f32 lane, u8 lane)\n\
         %0: f32 lane = input 0\n\
         %1: u8 lane = input 1\n\
         %2: u8 row = const 3\n\
         %3: bool lane = lt %1, %2\n\
         %4: f32 lane = cast %1\n\
         %5: f32 lane = select %3, %0, %4\n\
         %6: f32 row = const 0.1\n\
         %7: f32 lane = mul_add %5, %6, %0\n\
         %8: f32 lane = detach %7\n\
         %9: bool row = const true\n\
         %10: i64 lane = cast %8\n\
         return %8, %9, %10"
    );
}

static RELU: Template =
    scalar("relu", &[Row::Input(0), Row::Float(0.0), Row::Compare(Compare::Gt, 0, 1), Row::Select(2, 0, 1)], &[3]);

#[test]
fn whole_constants_fit_integer_kernels() {
    let relu = RELU.instantiate(DType::I32).unwrap();
    relu.verify().unwrap();
    assert_eq!(relu.eval(&[Column::Int(vec![-3, 4])], 2, Precision::Exact), [Column::Int(vec![0, 4])]);
}

#[track_caller]
fn fails(template: &'static Template, dtype: DType, message: &str) {
    match template.instantiate(dtype) {
        Ok(function) => panic!("instantiated:\n{function}"),
        Err(error) => assert_eq!(error.to_string(), message),
    }
}

#[test]
fn undefined_operations() {
    static EXP: Template = scalar("exp", &[Row::Input(0), Row::Unary(Unary::Exp, 0)], &[1]);
    fails(&EXP, DType::I32, "kernel `exp` for i32, row 1: `exp` is not defined for i32");
    fails(&EXP, DType::Bool, "kernel `exp` for bool, row 1: `exp` is not defined for bool");
    // The mistake is in the called kernel, and it is the one that is named.
    fails(&SILU, DType::U32, "kernel `sigmoid` for u32, row 3: `exp` is not defined for u32");
    static HALF: Template = scalar("half", &[Row::Input(0), Row::Float(0.5), Row::Binary(Binary::Mul, 0, 1)], &[2]);
    fails(&HALF, DType::I32, "kernel `half` for i32, row 1: the constant 0.5 is not a value of i32");
    static LENGTH: Template = Template { name: "n", row: true, inputs: &[], rows: &[Row::Length], outputs: &[0] };
    fails(&LENGTH, DType::I32, "kernel `n` for i32, row 0: `length` is not defined for i32");
}

#[test]
fn mismatched_dtypes() {
    static MIXED: Template =
        scalar("mixed", &[Row::Input(0), Row::Int(1, DType::I32), Row::Binary(Binary::Add, 0, 1)], &[2]);
    fails(
        &MIXED,
        DType::F32,
        "kernel `mixed` for f32, row 2: the operands of `add` have different dtypes, f32 and i32",
    );
    MIXED.instantiate(DType::I32).unwrap();
    static CONDITION: Template = scalar("pick", &[Row::Input(0), Row::Select(0, 0, 0)], &[1]);
    fails(&CONDITION, DType::F64, "kernel `pick` for f64, row 1: the condition of `select` must be bool, not f64");
    static LARGE: Template = scalar("large", &[Row::Int(256, DType::U8)], &[0]);
    fails(&LARGE, DType::F64, "kernel `large` for f64, row 0: the constant is not a value of u8");
}

#[test]
fn wrong_calls() {
    static TWO: Template =
        scalar("two", &[Row::Input(0), Row::Call { template: &SILU, output: 0, args: &[0, 0] }], &[1]);
    fails(&TWO, DType::F32, "kernel `two` for f32, row 1: `silu` has 1 parameters, 2 arguments are given");
    static NONE: Template =
        scalar("none", &[Row::Input(0), Row::Call { template: &SILU, output: 1, args: &[0] }], &[1]);
    fails(&NONE, DType::F32, "kernel `none` for f32, row 1: `silu` has 1 outputs, there is no output 1");
    static WHOLE: Template =
        scalar("whole", &[Row::Int(1, DType::I32), Row::Call { template: &SILU, output: 0, args: &[0] }], &[1]);
    fails(
        &WHOLE,
        DType::F32,
        "kernel `whole` for f32, row 1: parameter `x` of `silu` is f32 lane, the argument is i32 row",
    );
    static LANES: Template = Template {
        name: "lanes",
        row: true,
        inputs: &[lane("x")],
        rows: &[Row::Input(0), Row::Call { template: &GATE, output: 0, args: &[0, 0] }],
        outputs: &[1],
    };
    fails(
        &LANES,
        DType::F32,
        "kernel `lanes` for f32, row 1: parameter `scale` of `gate` is f32 row, the argument is f32 lane",
    );
    static PING: Template =
        scalar("ping", &[Row::Input(0), Row::Call { template: &PONG, output: 0, args: &[0] }], &[1]);
    static PONG: Template =
        scalar("pong", &[Row::Input(0), Row::Call { template: &PING, output: 0, args: &[0] }], &[1]);
    fails(&PING, DType::F32, "kernel `pong` for f32, row 1: the call of `ping` never ends");
}

#[test]
fn wrong_rows() {
    static LATER: Template = scalar("later", &[Row::Input(0), Row::Unary(Unary::Exp, 2)], &[1]);
    fails(&LATER, DType::F32, "kernel `later` for f32, row 1: row 2 is not before it");
    static OUTPUT: Template = scalar("output", &[Row::Input(0)], &[1]);
    fails(&OUTPUT, DType::F32, "kernel `output` for f32, outputs: row 1 is not before it");
    static PARAMETER: Template = scalar("parameter", &[Row::Input(1)], &[0]);
    fails(&PARAMETER, DType::F32, "kernel `parameter` for f32, row 0: there is no parameter 1 among 1");
    static SUM: Template = scalar("sum", &[Row::Input(0), Row::Reduce(Reduce::Sum, 0)], &[1]);
    fails(&SUM, DType::F32, "kernel `sum` for f32, row 1: `reduce_sum` exists in row kernels only");
}

#[test]
fn a_reduction_of_a_row_value_counts_it_as_repeated() {
    static TWICE: Template = Template {
        name: "twice",
        row: true,
        inputs: &[lane("x"), row("s")],
        rows: &[Row::Input(1), Row::Reduce(Reduce::Sum, 0), Row::Reduce(Reduce::Max, 0)],
        outputs: &[1, 2],
    };
    let f = TWICE.instantiate(DType::F64).unwrap();
    f.verify().unwrap();
    let outputs = f.eval(&[Column::Float(vec![0.0; 3]), Column::Float(vec![7.0])], 3, Precision::Exact);
    assert_eq!(outputs, [Column::Float(vec![21.0]), Column::Float(vec![7.0])]);
}
