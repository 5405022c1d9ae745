//! Random groups: functions, layouts, spaces and outputs drawn at random.

use tapeflow_core::driver::{Dims, Group, Layout, OutputKind, Shift, Shifts, Source, Strides};
use tapeflow_ir::{Binary, Builder, Compare, DType, Extent, Op, Reduce, Type, Unary, V};

use super::{Buffer, Rng, check, check_all, contiguous, output};

/// A layout over `space` whose elements fill a buffer of the returned length: axes in a random order, some repeated,
/// some backwards, perhaps with gaps.
fn layout(rng: &mut Rng, space: &[usize], repeats: bool, row: bool) -> (Layout, usize) {
    let mut strides: Strides = space.iter().map(|_| 0).collect();
    let mut order: Vec<usize> = (0..space.len()).rev().collect();
    if rng.below(3) == 0 {
        for i in (1..order.len()).rev() {
            order.swap(i, rng.below(i + 1));
        }
    }
    let (mut stride, mut offset) = (1, 0);
    let gaps = rng.below(5) == 0;
    for axis in order {
        if row && axis + 1 == space.len() || repeats && rng.below(3) == 0 {
            continue;
        }
        if gaps {
            stride += rng.below(3);
        }
        let extent = space[axis].max(1);
        strides[axis] = stride as isize;
        if repeats && rng.below(8) == 0 {
            strides[axis] = -(stride as isize);
            offset += stride * (extent - 1);
        }
        stride *= extent;
    }
    let start = if rng.below(4) == 0 { rng.below(9) } else { 0 };
    let (mut offset, mut shifts) = ((offset + start) as isize, Shifts::new());
    if rng.below(5) == 0 {
        // The host adds 5 · 3, which the offset makes up for.
        shifts.push(Shift { slot: 4, stride: 3 });
        offset -= 15;
    }
    (Layout { offset, shifts, strides }, stride + start + 1)
}

/// A space of at most about `most` elements.
fn space(rng: &mut Rng, most: usize) -> Dims {
    let rank = rng.below(5);
    let mut left = most;
    let mut dims: Dims = Dims::new();
    for _ in 0..rank {
        let extent = match rng.below(12) {
            0 if rng.below(4) == 0 => 0,
            0..=1 => 1,
            2..=5 => 1 + rng.below(7),
            6..=7 => rng.pick(&[16, 17, 31, 64, 65]),
            8..=9 => 1 + rng.below(300),
            _ => 1 + rng.below(5000),
        };
        let extent = extent.min(left);
        left /= extent.max(1);
        dims.push(extent);
    }
    dims
}

struct Function<'a> {
    rng: &'a mut Rng,
    b: Builder,
    values: Vec<V>,
}

impl Function<'_> {
    fn of(&mut self, dtype: DType) -> Option<V> {
        let fitting: Vec<V> = self.values.iter().copied().filter(|&v| self.b.ty(v).dtype == dtype).collect();
        (!fitting.is_empty()).then(|| self.rng.pick(&fitting))
    }

    fn grow(&mut self, row: bool) {
        let a = self.rng.pick(&self.values);
        let ty = self.b.ty(a);
        let dtype = ty.dtype;
        let other = self.of(dtype).unwrap_or(a);
        let (a, other) = if self.rng.below(2) == 0 { (a, other) } else { (other, a) };
        let v = match self.rng.below(12) {
            // Nothing is computed in half precision.
            0..=5 | 8 | 10 if dtype.is_half() => self.b.cast(a, DType::F32),
            6 if dtype.is_half() => return,
            0..=3 => {
                let op = match dtype {
                    DType::Bool => self.rng.pick(&[Binary::And, Binary::Or, Binary::Xor]),
                    DType::F32 | DType::F64 => self.rng.pick(&[
                        Binary::Add,
                        Binary::Sub,
                        Binary::Mul,
                        Binary::Div,
                        Binary::Min,
                        Binary::Max,
                        Binary::Rem,
                    ]),
                    _ => self.rng.pick(&[
                        Binary::Add,
                        Binary::Sub,
                        Binary::Mul,
                        Binary::Div,
                        Binary::Min,
                        Binary::Max,
                        Binary::Rem,
                        Binary::And,
                        Binary::Or,
                        Binary::Xor,
                    ]),
                };
                // Of two equal operands lavapipe's compiler knows results, and drops additions of 0.
                if a == other {
                    return;
                }
                self.b.binary(op, a, other)
            }
            4..=5 => {
                let op = match dtype {
                    DType::Bool => Unary::Not,
                    DType::F32 | DType::F64 => self.rng.pick(&[
                        Unary::Neg,
                        Unary::Abs,
                        Unary::Sign,
                        Unary::Floor,
                        Unary::Ceil,
                        Unary::Round,
                        Unary::Trunc,
                        Unary::Sqrt,
                    ]),
                    _ => self.rng.pick(&[Unary::Neg, Unary::Abs, Unary::Sign, Unary::Not]),
                };
                self.b.unary(op, a)
            }
            6 => {
                let op = self.rng.pick(&[Compare::Eq, Compare::Ne, Compare::Lt, Compare::Le, Compare::Gt, Compare::Ge]);
                self.b.compare(op, a, other)
            }
            7 => match self.of(DType::Bool) {
                Some(condition) => self.b.select(condition, a, other),
                None => return,
            },
            8 if dtype.is_float() => {
                let third = self.of(dtype).unwrap_or(a);
                self.b.mul_add(a, other, third)
            }
            9 => {
                let to = self.rng.pick(&DType::ALL);
                self.b.cast(a, to)
            }
            10 | 11
                if row
                    && dtype != DType::Bool
                    && !dtype.is_half()
                    && ty.extent == Extent::Lane
                    && self.b.ty(a).extent == Extent::Lane =>
            {
                let op = self.rng.pick(&[Reduce::Sum, Reduce::Max, Reduce::Min]);
                self.b.reduce(op, a)
            }
            10 if dtype.is_float() => {
                let value = self.rng.float(false);
                self.b.float(dtype, value)
            }
            11 => self.b.detach(a),
            _ => return,
        };
        self.values.push(v);
    }
}

fn one(seed: u64) {
    let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let most = rng.pick(&[50, 3000, 3000, 40_000]);
    let space = space(&mut rng, most);
    let row = !space.is_empty() && rng.below(3) == 0;
    let scalars = [rng.float(false).to_bits(), rng.word(), rng.word(), 1.5f64.to_bits(), 5];
    let (mut buffers, mut inputs) = (Vec::new(), Vec::new());
    let mut b = Builder::new();
    let mut values = Vec::new();
    for _ in 0..1 + rng.below(4) {
        let by_row = row && rng.below(4) == 0;
        let mut dtype = rng.pick(&[
            DType::F32,
            DType::F32,
            DType::F32,
            DType::F64,
            DType::I64,
            DType::I32,
            DType::U8,
            DType::Bool,
            DType::U32,
            DType::F16,
            DType::BF16,
        ]);
        let (layout, len) = layout(&mut rng, &space, true, by_row);
        match rng.below(8) {
            0 => {
                dtype = rng.pick(&[DType::F32, DType::F64]);
                inputs.push(Source::Scalar { slot: rng.pick(&[0, 3]) });
            }
            1 => {
                dtype = DType::I64;
                inputs.push(Source::Iota(layout));
            }
            2 => {
                dtype = DType::F32;
                inputs.push(Source::Random { slot: 1, ordinal: 5, layout });
            }
            _ => {
                buffers.push(Buffer::random(&mut rng, dtype, len, true));
                inputs.push(Source::Operand { operand: buffers.len() - 1, layout });
            }
        }
        values.push(b.input(if by_row { Type::row(dtype) } else { Type::lane(dtype) }));
    }
    let mut function = Function { rng: &mut rng, b, values };
    for _ in 0..function.rng.below(12) {
        function.grow(row);
    }
    let Function { mut b, values, .. } = function;
    let reduces = values.iter().any(|&v| matches!(b.op(v), Op::Reduce(..)));
    let (mut outputs, mut results) = (Vec::new(), Vec::new());
    for _ in 0..1 + rng.below(3) {
        let mut v = values[values.len() - 1 - rng.below(values.len().min(4))];
        let dtype = b.ty(v).dtype;
        let mut kind = rng.below(5);
        if dtype == DType::Bool || dtype.is_half() {
            kind = rng.below(3);
        }
        let axes = rng.below(space.len() + 1);
        let op = rng.pick(&[Reduce::Sum, Reduce::Sum, Reduce::Max, Reduce::Min]);
        let (kind, len) = match kind {
            3 if !reduces => {
                v = b.repeat(v);
                let kept: usize = space[..space.len() - axes].iter().product();
                (OutputKind::ReduceTrailing(op, axes), kept)
            }
            3 | 4 => {
                v = b.repeat(v);
                (OutputKind::ReduceLeading(op, axes), space[axes..].iter().product())
            }
            _ if b.ty(v).extent == Extent::Row && !space.is_empty() && rng.below(2) == 0 => {
                let (layout, len) = layout(&mut rng, &space, false, true);
                (OutputKind::Store(layout), len)
            }
            0 => {
                let (layout, len) = layout(&mut rng, &space, false, false);
                (OutputKind::Store(layout), len)
            }
            _ => (OutputKind::Store(contiguous(&space)), space.iter().product()),
        };
        buffers.push(Buffer::new(dtype, len));
        outputs.push(output(buffers.len() - 1, kind));
        results.push(v);
    }
    let function = b.finish(&results);
    assert_eq!(function.verify(), Ok(()));
    // As the compiler gives it.
    let function = function.simplify();
    let group = Group { space, function, inputs, outputs };
    let fused = group.function.values.iter().any(|(op, _)| matches!(op, Op::MulAdd(..)));
    if seed.is_multiple_of(4) && !fused {
        return check_all(&group, &buffers, &scalars);
    }
    check(&group, &buffers, &scalars);
}

#[test]
fn random_groups() {
    let count = std::env::var("TAPEFLOW_RANDOM_GROUPS").ok().and_then(|text| text.parse().ok()).unwrap_or(120);
    let first = std::env::var("TAPEFLOW_RANDOM_FIRST").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    for seed in first..first + count {
        let outcome = std::panic::catch_unwind(|| one(seed));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
