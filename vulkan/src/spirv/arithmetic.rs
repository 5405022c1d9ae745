//! The instructions of each operation of the scalar IR, for registers of each dtype, by the rules of
//! `tapeflow_ir`'s evaluator. Transcendental functions stand in `math.rs`, remainders and fused sums in `exact.rs`.

use rspirv::spirv::{GlslStd450Op as GLOp, Op};
use tapeflow_ir::{Binary, Compare, DType, Unary};

use super::asm::{Asm, Id, Ty};
use super::half;

/// Short names of what float code is made of; every result is rounded as it stands.
impl Asm {
    pub(super) fn fadd(&mut self, ty: Ty, a: Id, b: Id) -> Id {
        self.rounded(Op::FAdd, ty, &[a, b])
    }

    pub(super) fn fsub(&mut self, ty: Ty, a: Id, b: Id) -> Id {
        self.rounded(Op::FSub, ty, &[a, b])
    }

    pub(super) fn fmul(&mut self, ty: Ty, a: Id, b: Id) -> Id {
        self.rounded(Op::FMul, ty, &[a, b])
    }

    pub(super) fn fdiv(&mut self, ty: Ty, a: Id, b: Id) -> Id {
        self.rounded(Op::FDiv, ty, &[a, b])
    }

    pub(super) fn fabs(&mut self, ty: Ty, x: Id) -> Id {
        self.glsl(GLOp::FAbs, ty, &[x])
    }

    pub(super) fn is_less(&mut self, a: Id, b: Id) -> Id {
        self.op(Op::FOrdLessThan, Ty::Bool, &[a, b])
    }

    pub(super) fn is_equal(&mut self, a: Id, b: Id) -> Id {
        self.op(Op::FOrdEqual, Ty::Bool, &[a, b])
    }

    pub(super) fn is_nan(&mut self, x: Id) -> Id {
        self.op(Op::FUnordNotEqual, Ty::Bool, &[x, x])
    }

    pub(super) fn both(&mut self, a: Id, b: Id) -> Id {
        self.op(Op::LogicalAnd, Ty::Bool, &[a, b])
    }

    /// The unsigned type of a float's bits.
    pub(super) fn bits_of(ty: Ty) -> Ty {
        if ty == Ty::F64 { Ty::U64 } else { Ty::U32 }
    }

    /// A float's bits.
    pub(super) fn bits(&mut self, ty: Ty, x: Id) -> Id {
        self.op(Op::Bitcast, Self::bits_of(ty), &[x])
    }

    /// The float of these bits.
    pub(super) fn float_of(&mut self, ty: Ty, bits: Id) -> Id {
        self.op(Op::Bitcast, ty, &[bits])
    }

    /// The magnitude of `a` with the sign of `b`.
    pub(super) fn copysign(&mut self, ty: Ty, a: Id, b: Id) -> Id {
        let bits = Self::bits_of(ty);
        let (a, b) = (self.bits(ty, a), self.bits(ty, b));
        let sign = if ty == Ty::F64 { i64::MIN } else { 1 << 31 };
        let (sign, rest) = (self.int(bits, sign), self.int(bits, !sign));
        let (a, b) = (self.op(Op::BitwiseAnd, bits, &[a, rest]), self.op(Op::BitwiseAnd, bits, &[b, sign]));
        let joined = self.op(Op::BitwiseOr, bits, &[a, b]);
        self.float_of(ty, joined)
    }
}

fn is_signed(dtype: DType) -> bool {
    matches!(dtype, DType::I32 | DType::I64)
}

/// Brings an integer back into the range of its dtype: only u8 is narrower than its register.
pub(super) fn wrapped(asm: &mut Asm, dtype: DType, x: Id) -> Id {
    if dtype != DType::U8 {
        return x;
    }
    let mask = asm.u32(0xFF);
    asm.op(Op::BitwiseAnd, Ty::U32, &[x, mask])
}

/// `op x`
pub(super) fn unary(asm: &mut Asm, op: Unary, dtype: DType, x: Id) -> Id {
    let ty = Ty::of(dtype);
    match dtype {
        DType::Bool => asm.op(Op::LogicalNot, Ty::Bool, &[x]),
        DType::F32 | DType::F64 => float_unary(asm, op, ty, x),
        _ => {
            let zero = asm.int(ty, 0);
            let y = match op {
                Unary::Neg => asm.op(Op::SNegate, ty, &[x]),
                Unary::Not => asm.op(Op::Not, ty, &[x]),
                Unary::Abs if is_signed(dtype) => {
                    let (negative, y) = (asm.op(Op::SLessThan, Ty::Bool, &[x, zero]), asm.op(Op::SNegate, ty, &[x]));
                    asm.select(ty, negative, y, x)
                }
                Unary::Abs => x,
                _ => {
                    let (one, minus) = (asm.int(ty, 1), asm.int(ty, -1));
                    let some = asm.op(Op::INotEqual, Ty::Bool, &[x, zero]);
                    let y = asm.select(ty, some, one, zero);
                    if is_signed(dtype) {
                        let negative = asm.op(Op::SLessThan, Ty::Bool, &[x, zero]);
                        asm.select(ty, negative, minus, y)
                    } else {
                        y
                    }
                }
            };
            wrapped(asm, dtype, y)
        }
    }
}

fn float_unary(asm: &mut Asm, op: Unary, ty: Ty, x: Id) -> Id {
    match op {
        Unary::Neg => asm.op(Op::FNegate, ty, &[x]),
        Unary::Abs => asm.fabs(ty, x),
        Unary::Sign => {
            let [zero, one, minus] = [0.0, 1.0, -1.0].map(|value| asm.float(ty, value));
            // ±0 becomes +0; a NaN stays.
            let none = asm.is_equal(x, zero);
            let y = asm.select(ty, none, zero, x);
            let more = asm.is_less(zero, x);
            let y = asm.select(ty, more, one, y);
            let less = asm.is_less(x, zero);
            asm.select(ty, less, minus, y)
        }
        Unary::Floor => asm.glsl(GLOp::Floor, ty, &[x]),
        Unary::Ceil => asm.glsl(GLOp::Ceil, ty, &[x]),
        Unary::Trunc => asm.glsl(GLOp::Trunc, ty, &[x]),
        Unary::Round => {
            let whole = asm.glsl(GLOp::Trunc, ty, &[x]);
            let rest = asm.fsub(ty, x, whole);
            let (rest, half, one) = (asm.fabs(ty, rest), asm.float(ty, 0.5), asm.float(ty, 1.0));
            let away = asm.op(Op::FOrdGreaterThanEqual, Ty::Bool, &[rest, half]);
            let step = asm.copysign(ty, one, x);
            let next = asm.fadd(ty, whole, step);
            asm.select(ty, away, next, whole)
        }
        Unary::Sqrt => asm.glsl(GLOp::Sqrt, ty, &[x]),
        _ if ty == Ty::F64 => super::double::unary(asm, op, x),
        _ => super::math::unary(asm, op, x),
    }
}

/// `a op b`
pub(super) fn binary(asm: &mut Asm, op: Binary, dtype: DType, a: Id, b: Id) -> Id {
    let ty = Ty::of(dtype);
    match (dtype, op) {
        (DType::Bool, Binary::And) => asm.op(Op::LogicalAnd, ty, &[a, b]),
        (DType::Bool, Binary::Or) => asm.op(Op::LogicalOr, ty, &[a, b]),
        (DType::Bool, _) => asm.op(Op::LogicalNotEqual, ty, &[a, b]),
        (DType::F32 | DType::F64, _) => match op {
            Binary::Add => sum(asm, ty, a, b),
            Binary::Sub => asm.fsub(ty, a, b),
            Binary::Mul => asm.fmul(ty, a, b),
            Binary::Div => asm.fdiv(ty, a, b),
            Binary::Rem => super::exact::remainder(asm, ty, a, b),
            Binary::Min => extreme(asm, ty, false, a, b),
            Binary::Max => extreme(asm, ty, true, a, b),
            Binary::Copysign => asm.copysign(ty, a, b),
            _ if ty == Ty::F64 => super::double::binary(asm, op, a, b),
            _ => super::math::binary(asm, op, a, b),
        },
        (_, Binary::Div | Binary::Rem) => quotient(asm, op, dtype, a, b),
        (_, Binary::Min | Binary::Max) => {
            let less = if is_signed(dtype) { Op::SLessThan } else { Op::ULessThan };
            let less = asm.op(less, Ty::Bool, &[a, b]);
            if op == Binary::Min { asm.select(ty, less, a, b) } else { asm.select(ty, less, b, a) }
        }
        _ => {
            let op = match op {
                Binary::Add => Op::IAdd,
                Binary::Sub => Op::ISub,
                Binary::Mul => Op::IMul,
                Binary::And => Op::BitwiseAnd,
                Binary::Or => Op::BitwiseOr,
                _ => Op::BitwiseXor,
            };
            let y = asm.op(op, ty, &[a, b]);
            wrapped(asm, dtype, y)
        }
    }
}

/// `a + b`. Adding +0 is spelled out, because lavapipe drops it: −0 + 0 is +0.
fn sum(asm: &mut Asm, ty: Ty, a: Id, b: Id) -> Id {
    let zero = asm.float(ty, 0.0);
    let other = match (a == zero, b == zero) {
        (true, _) => b,
        (_, true) => a,
        _ => return asm.fadd(ty, a, b),
    };
    let none = asm.is_equal(other, zero);
    asm.select(ty, none, zero, other)
}

/// IEEE 754-2019 `minimum` and `maximum`.
fn extreme(asm: &mut Asm, ty: Ty, max: bool, a: Id, b: Id) -> Id {
    let first = if max { asm.is_less(b, a) } else { asm.is_less(a, b) };
    let r = asm.select(ty, first, a, b);
    // Of equal ones only zeros differ in their bits.
    let bits = Asm::bits_of(ty);
    let (x, y) = (asm.bits(ty, a), asm.bits(ty, b));
    let joined = asm.op(if max { Op::BitwiseAnd } else { Op::BitwiseOr }, bits, &[x, y]);
    let joined = asm.float_of(ty, joined);
    let equal = asm.is_equal(a, b);
    let r = asm.select(ty, equal, joined, r);
    let nan = asm.is_nan(a);
    asm.select(ty, nan, a, r)
}

/// Division and remainder of integers: by zero gives 0, the least by −1 wraps.
fn quotient(asm: &mut Asm, op: Binary, dtype: DType, a: Id, b: Id) -> Id {
    let ty = Ty::of(dtype);
    let [zero, one, minus] = [0, 1, -1].map(|value| asm.int(ty, value));
    let by_zero = asm.op(Op::IEqual, Ty::Bool, &[b, zero]);
    let safe = asm.select(ty, by_zero, one, b);
    let quotient = if is_signed(dtype) {
        let by_minus = asm.op(Op::IEqual, Ty::Bool, &[b, minus]);
        let safe = asm.select(ty, by_minus, one, safe);
        let (quotient, negated) = (asm.op(Op::SDiv, ty, &[a, safe]), asm.op(Op::SNegate, ty, &[a]));
        asm.select(ty, by_minus, negated, quotient)
    } else {
        asm.op(Op::UDiv, ty, &[a, safe])
    };
    let y = if op == Binary::Div {
        quotient
    } else {
        // Not OpSRem, which Vulkan leaves undefined for negative operands.
        let product = asm.op(Op::IMul, ty, &[quotient, safe]);
        asm.op(Op::ISub, ty, &[a, product])
    };
    asm.select(ty, by_zero, zero, y)
}

/// `a op b` of operands of `dtype`, as a bool.
pub(super) fn compare(asm: &mut Asm, op: Compare, dtype: DType, a: Id, b: Id) -> Id {
    let number = |asm: &mut Asm, x: Id| {
        let (zero, one) = (asm.u32(0), asm.u32(1));
        asm.select(Ty::U32, x, one, zero)
    };
    let (a, b) = if dtype == DType::Bool { (number(asm, a), number(asm, b)) } else { (a, b) };
    let [float, signed, unsigned] = match op {
        Compare::Eq => [Op::FOrdEqual, Op::IEqual, Op::IEqual],
        Compare::Ne => [Op::FUnordNotEqual, Op::INotEqual, Op::INotEqual],
        Compare::Lt => [Op::FOrdLessThan, Op::SLessThan, Op::ULessThan],
        Compare::Le => [Op::FOrdLessThanEqual, Op::SLessThanEqual, Op::ULessThanEqual],
        Compare::Gt => [Op::FOrdGreaterThan, Op::SGreaterThan, Op::UGreaterThan],
        Compare::Ge => [Op::FOrdGreaterThanEqual, Op::SGreaterThanEqual, Op::UGreaterThanEqual],
    };
    let op = match dtype {
        _ if dtype.is_float() => float,
        _ if is_signed(dtype) => signed,
        _ => unsigned,
    };
    asm.op(op, Ty::Bool, &[a, b])
}

/// `x` of dtype `from` as a `to`, as Rust's `as`; to bool it is `x != 0`.
pub(super) fn cast(asm: &mut Asm, from: DType, to: DType, x: Id) -> Id {
    let (source, target) = (Ty::of(from), Ty::of(to));
    if from == to {
        return x;
    }
    // The IR goes to and from half precision by f32; a number of the host may have to be brought there.
    if from.is_half() {
        let x = half::widened(asm, from, x);
        return cast(asm, DType::F32, to, x);
    }
    if to.is_half() {
        let x = cast(asm, from, DType::F32, x);
        return half::narrowed(asm, to, x);
    }
    if from == DType::Bool {
        let [zero, one] = [0, 1].map(|value| match target {
            Ty::F32 | Ty::F64 => asm.float(target, f64::from(value)),
            _ => asm.int(target, value.into()),
        });
        return asm.select(target, x, one, zero);
    }
    match (from.is_float(), to.is_float()) {
        (true, true) => asm.op(Op::FConvert, target, &[x]),
        (true, false) if to == DType::Bool => {
            let zero = asm.float(source, 0.0);
            asm.op(Op::FUnordNotEqual, Ty::Bool, &[x, zero])
        }
        (true, false) => saturated(asm, source, to, x),
        (false, true) if is_signed(from) => asm.convert_signed(Op::ConvertSToF, source, target, x),
        (false, true) => asm.op(Op::ConvertUToF, target, &[x]),
        (false, false) if to == DType::Bool => {
            let zero = asm.int(source, 0);
            asm.op(Op::INotEqual, Ty::Bool, &[x, zero])
        }
        (false, false) => {
            let y = match (source, target) {
                (Ty::U32, Ty::U64) if is_signed(from) => asm.convert_signed(Op::SConvert, source, target, x),
                _ if source != target => asm.op(Op::UConvert, target, &[x]),
                _ => x,
            };
            wrapped(asm, to, y)
        }
    }
}

/// Float to integer: saturates, NaN gives 0.
fn saturated(asm: &mut Asm, ty: Ty, to: DType, x: Id) -> Id {
    let target = Ty::of(to);
    // The least integer, the greatest, and the float after the greatest: a power of two.
    let (low, high, beyond) = match to {
        DType::U8 => (0, u8::MAX.into(), 256.0),
        DType::I32 => (i32::MIN.into(), i32::MAX.into(), 2_147_483_648.0),
        DType::U32 => (0, u32::MAX.into(), 4_294_967_296.0),
        _ => (i64::MIN, i64::MAX, 9_223_372_036_854_775_808.0),
    };
    let (least, beyond) = (asm.float(ty, low as f64), asm.float(ty, beyond));
    let small = asm.is_less(x, least);
    let big = asm.op(Op::FOrdGreaterThanEqual, Ty::Bool, &[x, beyond]);
    let odd = asm.op(Op::LogicalOr, Ty::Bool, &[small, big]);
    let nan = asm.is_nan(x);
    let odd = asm.op(Op::LogicalOr, Ty::Bool, &[odd, nan]);
    let (zero, low, high) = (asm.float(ty, 0.0), asm.int(target, low), asm.int(target, high));
    let inside = asm.select(ty, odd, zero, x);
    let y = match is_signed(to) {
        true => asm.convert_signed(Op::ConvertFToS, ty, target, inside),
        false => asm.op(Op::ConvertFToU, target, &[inside]),
    };
    let y = asm.select(target, small, low, y);
    asm.select(target, big, high, y)
}
