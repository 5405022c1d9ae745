//! Every operation of every dtype on awkward values; f32 functions of the mathematics library by their errors.

use tapeflow_core::driver::{Group, Kernel, OutputKind, Source};
use tapeflow_ir::half::{bf16_from_f32, bf16_to_f32, f16_from_f32, f16_to_f32};
use tapeflow_ir::{Binary, Builder, Compare, DType, Reduce, Type, Unary};
use tapeflow_vulkan::stage::Target;

use super::{Buffer, Rng, check, check_all, elementwise, layout, run_for, run_on_cpu, targets};

/// Values where operations go wrong, then random ones.
fn awkward(rng: &mut Rng, dtype: DType, count: usize) -> Buffer {
    let floats = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        2.5,
        -2.5,
        0.49999997,
        255.5,
        256.0,
        -1e-3,
        1e-40,
        -1e-45,
        3.4e38,
        1e30,
        2147483647.0,
        2147483648.0,
        -2147483648.0,
        -2147483904.0,
        4294967295.0,
        4294967296.0,
        9.3e18,
        -9.3e18,
        8388609.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        1e300,
        5e-324,
        0.1,
        3.0,
        -7.0,
        1e-8,
    ];
    let integers = [
        0,
        1,
        -1,
        2,
        -2,
        7,
        -7,
        255,
        256,
        128,
        i64::MAX,
        i64::MIN,
        1 << 31,
        -(1 << 31),
        (1 << 31) - 1,
        1 << 32,
        (1 << 24) + 1,
        (1 << 53) + 1,
        100,
        3,
    ];
    let mut bytes = Vec::new();
    for i in 0..count {
        let float = floats.get(i % 97).copied().unwrap_or_else(|| match rng.below(2) {
            0 => rng.float(false),
            _ => f32::from_bits(rng.word() as u32).into(),
        });
        let integer = integers.get(i % 53).copied().unwrap_or_else(|| rng.word() as i64 >> rng.below(60));
        match dtype {
            DType::Bool => bytes.push(rng.below(2) as u8),
            DType::U8 => bytes.push(integer as u8),
            DType::I32 | DType::U32 => bytes.extend((integer as i32).to_le_bytes()),
            DType::I64 => bytes.extend(integer.to_le_bytes()),
            DType::F16 => bytes.extend(f16_from_f32(float as f32).to_le_bytes()),
            DType::BF16 => bytes.extend(bf16_from_f32(float as f32).to_le_bytes()),
            DType::F32 => bytes.extend((float as f32).to_le_bytes()),
            DType::F64 => bytes.extend(float.to_le_bytes()),
        }
    }
    Buffer { dtype, bytes }
}

fn is_exact(op: Unary) -> bool {
    use Unary::{Abs, Ceil, Floor, Neg, Not, Round, Sign, Sqrt, Trunc};
    matches!(op, Abs | Ceil | Floor | Neg | Not | Round | Sign | Sqrt | Trunc)
}

const COUNT: usize = 4000;

#[test]
fn operations_of_every_dtype() {
    let mut rng = Rng(31);
    for dtype in DType::ALL {
        let mut b = Builder::new();
        let (x, y, z) = (b.input(Type::lane(dtype)), b.input(Type::lane(dtype)), b.input(Type::lane(dtype)));
        let mut results = Vec::new();
        results.extend(
            Unary::ALL.into_iter().filter(|op| op.defined_for(dtype) && is_exact(*op)).map(|op| b.unary(op, x)),
        );
        let inexact = |op: Binary| matches!(op, Binary::Pow | Binary::Atan2);
        let binaries = Binary::ALL.into_iter().filter(|op| op.defined_for(dtype) && !inexact(*op));
        results.extend(binaries.map(|op| b.binary(op, x, y)));
        // Half precision is converted and chosen from, and nothing else.
        let [less, more] = [x, y].map(|v| b.cast(v, dtype.computed()));
        let compared: Vec<_> = Compare::ALL.into_iter().map(|op| b.compare(op, less, more)).collect();
        results.push(b.select(compared[2], y, z));
        results.extend(compared);
        results.extend(DType::ALL.into_iter().filter(|to| *to != dtype).map(|to| b.cast(x, to)));
        if dtype.is_float() && !dtype.is_half() {
            results.push(b.mul_add(x, y, z));
        }
        let types: Vec<DType> = results.iter().map(|v| b.ty(*v).dtype).collect();
        let function = b.finish(&results);
        let n = COUNT;
        let inputs: Vec<Buffer> = (0..3)
            .map(|shift| {
                let mut buffer = awkward(&mut rng, dtype, n);
                buffer.bytes.rotate_left(shift * 41 * dtype.size());
                buffer
            })
            .collect();
        // A few results at a time: small shaders say more when they fail.
        for (at, (v, ty)) in function.outputs.iter().zip(&types).enumerate() {
            let mut one = function.clone();
            one.outputs = vec![*v];
            let mut buffers = inputs.clone();
            buffers.push(Buffer::new(*ty, n));
            let result = std::panic::catch_unwind(|| check(&elementwise(&[n], one.clone()), &buffers, &[]));
            assert!(result.is_ok(), "{dtype} result {at}: {:?}", function.op(*v));
        }
    }
}

/// Every pattern of half precision to f32 and back, and f32 at and beside every boundary between two of them.
#[test]
fn half_precision_of_every_pattern() {
    for half in [DType::F16, DType::BF16] {
        let widen = if half == DType::F16 { f16_to_f32 } else { bf16_to_f32 };
        let mut b = Builder::new();
        let (x, y) = (b.input(Type::lane(half)), b.input(Type::lane(DType::F32)));
        let wide = b.cast(x, DType::F32);
        let (back, narrow) = (b.cast(wide, half), b.cast(y, half));
        let function = b.finish(&[wide, back, narrow]);
        let n = 3 << 16;
        let patterns = (0..n as u32).map(|i| (i / 3) as u16);
        let between = patterns.clone().enumerate().map(|(i, bits)| {
            let (low, high) = (f64::from(widen(bits)), f64::from(widen(bits.wrapping_add(1))));
            let middle = ((low + high) / 2.0) as f32;
            [middle.next_down(), middle, middle.next_up()][i % 3]
        });
        let buffers = [
            Buffer { dtype: half, bytes: patterns.flat_map(u16::to_le_bytes).collect() },
            Buffer::f32s(between),
            Buffer::new(DType::F32, n),
            Buffer::new(half, n),
            Buffer::new(half, n),
        ];
        check_all(&elementwise(&[n], function), &buffers, &[]);
    }
}

/// Remainders of all sizes, every bit.
#[test]
fn remainders() {
    let mut rng = Rng(32);
    for dtype in [DType::F32, DType::F64] {
        let n = 10_000;
        let mut bits = |_| match dtype {
            DType::F32 => (rng.word() as u32).to_le_bytes().to_vec(),
            _ => rng.word().to_le_bytes().to_vec(),
        };
        let a = Buffer { dtype, bytes: (0..n).flat_map(&mut bits).collect() };
        let b = Buffer { dtype, bytes: (0..n).flat_map(&mut bits).collect() };
        let mut builder = Builder::new();
        let (x, y) = (builder.input(Type::lane(dtype)), builder.input(Type::lane(dtype)));
        let r = builder.binary(Binary::Rem, x, y);
        let group = elementwise(&[n], builder.finish(&[r]));
        check(&group, &[a.clone(), b.clone(), Buffer::new(dtype, n)], &[]);
        // Within a row, where lavapipe limits the iterations of both loops together.
        let mut sum = group;
        sum.outputs[0].kind = OutputKind::ReduceTrailing(Reduce::Max, 1);
        check(&sum, &[a, b, Buffer::new(dtype, 1)], &[]);
    }
}

/// How far two f32 lie apart, in units in the last place.
fn distance(a: f32, b: f32) -> u64 {
    let ordered =
        |x: f32| if x.is_sign_negative() { -((x.to_bits() & 0x7fff_ffff) as i64) } else { x.to_bits().into() };
    match (a.is_nan(), b.is_nan()) {
        (true, true) => 0,
        (false, false) if a == 0.0 && b == 0.0 && a.to_bits() != b.to_bits() => u64::MAX,
        (false, false) => ordered(a).abs_diff(ordered(b)),
        _ => u64::MAX,
    }
}

/// The largest distance, and where.
fn worst(target: &Target, group: &Group, buffers: &[Buffer]) -> Option<(u64, usize, f32, f32)> {
    let kernel = Kernel::Group(group.clone());
    let (device, cpu) = (run_for(target, &kernel, buffers, &[])?, run_on_cpu(&kernel, buffers, &[]));
    let floats = |buffers: &[Buffer]| -> Vec<f32> {
        let bytes = buffers.iter().next_back().map_or(&[][..], |buffer| &buffer.bytes);
        bytes.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect()
    };
    let pairs = floats(&device).into_iter().zip(floats(&cpu)).enumerate();
    pairs.map(|(at, (a, b))| (distance(a, b), at, a, b)).max_by_key(|(distance, ..)| *distance)
}

pub(crate) fn inputs(rng: &mut Rng) -> Vec<f32> {
    let specials = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        2.0,
        -2.0,
        3.0,
        -3.0,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        1e-45,
        -1e-45,
        1e-38,
        3.4e38,
        -3.4e38,
        88.7,
        88.8,
        -87.3,
        -103.9,
        -104.1,
        1e6,
        1.1e6,
        1e10,
        -1e20,
        3e30,
        8388609.0,
        16777216.0,
        127.9,
        128.0,
        -149.0,
        -150.5,
        0.99999994,
        1.0000001,
        -0.99999994,
        1e-4,
        5e-8,
        9.0,
        4.0,
    ];
    let mut values = specials.to_vec();
    values.extend((0..30_000).map(|i| match i % 4 {
        0 => f32::from_bits(rng.word() as u32),
        1 => rng.float(false) as f32 * 30.0,
        2 => rng.float(false) as f32 / 4.0,
        _ => rng.float(false) as f32,
    }));
    values
}

#[test]
fn functions_of_f32() {
    let mut rng = Rng(33);
    let values = inputs(&mut rng);
    let n = values.len();
    for op in Unary::ALL.into_iter().filter(|op| op.defined_for(DType::F32)) {
        let mut b = Builder::new();
        let x = b.input(Type::lane(DType::F32));
        let y = b.unary(op, x);
        let group = elementwise(&[n], b.finish(&[y]));
        let buffers = [Buffer::f32s(values.iter().copied()), Buffer::new(DType::F32, n)];
        let Some(target) = targets().into_iter().next() else { return };
        let Some((distance, at, a, expected)) = worst(&target, &group, &buffers) else { return };
        use Unary::{Acos, Asin, Atan, Cbrt, Cos, Cosh, Sin, Sinh, Tan};
        // Where the processor calls the mathematics library: a tie may fall to the other side.
        let most = u64::from(matches!(op, Acos | Asin | Atan | Cbrt | Cos | Cosh | Sin | Sinh | Tan));
        assert!(distance <= most, "{op} of {:e}: {a:e} instead of {expected:e}", values[at]);
    }
}

#[test]
fn functions_of_two_f32() {
    let mut rng = Rng(34);
    let mut a = inputs(&mut rng);
    let mut b: Vec<f32> = (0..a.len()).map(|i| a[(i * 7 + 3) % 41]).collect();
    // Every pair of special values.
    for i in 0..40 {
        for j in 0..40 {
            a.push(a[i]);
            b.push(a[j]);
        }
    }
    let half = a.len() / 2;
    b[100..half].iter_mut().for_each(|b| *b = rng.float(false) as f32 * 10.0);
    let n = a.len();
    for op in [Binary::Pow, Binary::Atan2, Binary::Copysign] {
        let mut builder = Builder::new();
        let (x, y) = (builder.input(Type::lane(DType::F32)), builder.input(Type::lane(DType::F32)));
        let z = builder.binary(op, x, y);
        let group = elementwise(&[n], builder.finish(&[z]));
        let buffers = [Buffer::f32s(a.iter().copied()), Buffer::f32s(b.iter().copied()), Buffer::new(DType::F32, n)];
        let Some(target) = targets().into_iter().next() else { return };
        let Some((distance, at, got, expected)) = worst(&target, &group, &buffers) else { return };
        let most = u64::from(op != Binary::Copysign);
        assert!(distance <= most, "{op} of {:e}, {:e}: {got:e} instead of {expected:e}", a[at], b[at]);
    }
}

/// Without f64 they are computed in f32: near over the whole range, and right at its ends.
#[test]
fn functions_of_f32_without_f64() {
    let mut rng = Rng(35);
    let values = inputs(&mut rng);
    let n = values.len();
    for target in targets().into_iter().take(1).map(|target| Target { has_f64: false, ..target }) {
        for op in Unary::ALL.into_iter().filter(|op| op.defined_for(DType::F32)) {
            let mut b = Builder::new();
            let x = b.input(Type::lane(DType::F32));
            let y = b.unary(op, x);
            let group = elementwise(&[n], b.finish(&[y]));
            let buffers = [Buffer::f32s(values.iter().copied()), Buffer::new(DType::F32, n)];
            let Some((distance, at, a, expected)) = worst(&target, &group, &buffers) else { return };
            println!("{op}: {distance} at {:e}", values[at]);
            assert!(distance <= 8, "{op} of {:e}: {a:e} instead of {expected:e}", values[at]);
        }
        let (mut a, mut b) = (values.clone(), values.clone());
        b.rotate_left(41);
        for i in 0..40 {
            for j in 0..40 {
                a.push(values[i]);
                b.push(values[j]);
            }
        }
        // Powers that stay within the range.
        b[100..n / 2].iter_mut().for_each(|b| *b = rng.float(false) as f32 * 10.0);
        let n = a.len();
        for op in [Binary::Pow, Binary::Atan2] {
            let mut builder = Builder::new();
            let (x, y) = (builder.input(Type::lane(DType::F32)), builder.input(Type::lane(DType::F32)));
            let z = builder.binary(op, x, y);
            let group = elementwise(&[n], builder.finish(&[z]));
            let buffers =
                [Buffer::f32s(a.iter().copied()), Buffer::f32s(b.iter().copied()), Buffer::new(DType::F32, n)];
            let Some((distance, at, got, expected)) = worst(&target, &group, &buffers) else { return };
            println!("{op}: {distance} at {:e}, {:e}", a[at], b[at]);
            assert!(distance <= 8, "{op} of {:e}, {:e}: {got:e} instead of {expected:e}", a[at], b[at]);
        }
    }
}

/// Integers of one dtype cast to another and compared with constants, which Mesa's compiler gets wrong if they are
/// extended in the plain way.
#[test]
fn casts_compared_with_constants() {
    let mut rng = Rng(37);
    let integers = [DType::U8, DType::I32, DType::U32, DType::I64];
    for from in integers {
        for to in integers.into_iter().filter(|to| *to != from) {
            let n = 500;
            let mut b = Builder::new();
            let (x, i) = (b.input(Type::lane(from)), b.input(Type::lane(DType::I64)));
            let (x, i) = (b.cast(x, to), b.cast(i, to));
            let mut results = Vec::new();
            for value in [0, 7, -3, 100, 200] {
                let constant = b.int(to, value);
                for op in Compare::ALL {
                    results.push(b.compare(op, x, constant));
                    results.push(b.compare(op, constant, i));
                }
                results.push(b.binary(Binary::Max, x, constant));
                results.push(b.binary(Binary::Min, i, constant));
            }
            results.extend(Compare::ALL.map(|op| b.compare(op, x, i)));
            let types: Vec<DType> = results.iter().map(|v| b.ty(*v).dtype).collect();
            let mut group = elementwise(&[n], b.finish(&results));
            group.inputs[1] = Source::Iota(layout(-200, &[1]));
            group.outputs.iter_mut().for_each(|output| output.operand -= 1);
            let mut buffers = vec![awkward(&mut rng, from, n)];
            buffers.extend(types.into_iter().map(|dtype| Buffer::new(dtype, n)));
            check(&group, &buffers, &[]);
        }
    }
}
