//! Which primitive computes which operation of the IR: one line per operation and class of dtypes.
//! Owns the scalar meaning of the operations on the CPU, except the transcendental ones of f32 (`math`); knows no
//! tiles.

use tapeflow_ir::half::{bf16_from_f32, bf16_to_f32, f16_from_f32, f16_to_f32};
use tapeflow_ir::{Binary, Compare, DType, Unary};

use super::isa::Isa;
use super::math;
use super::vector::{Copied, Map, Primitive, Scalar3, Spread, select};

/// A unary primitive of `$a -> $o`.
macro_rules! unary {
    (
        $isa:ident, $a:ty => $o:ty, cheap: $cheap:expr, |$x:ident| $body:expr
        $(, rare: |$r:ident| $rare:expr, $slow:expr)?
    ) => {{
        struct F;
        impl Scalar3 for F {
            type A = $a;
            type B = ();
            type C = ();
            type O = $o;
            const CHEAP: bool = $cheap;
            #[inline(always)]
            fn apply($x: $a, _: (), _: ()) -> $o {
                $body
            }
            $(
                const HAS_RARE: bool = true;
                #[inline(always)]
                fn rare($r: $a, _: ()) -> bool {
                    $rare
                }
                fn slow($r: $a, _: (), _: ()) -> $o {
                    $slow
                }
            )?
        }
        select::<Map<F, false, false, false>>($isa)
    }};
}

/// A binary primitive of `$a, $a -> $o`; the modes say which operands are splats.
macro_rules! binary {
    ($isa:ident, $modes:ident, $a:ty => $o:ty, cheap: $cheap:expr, |$x:ident, $y:ident| $body:expr
     $(, rare: |$r:ident, $s:ident| $rare:expr, $slow:expr)?) => {{
        struct F;
        impl Scalar3 for F {
            type A = $a;
            type B = $a;
            type C = ();
            type O = $o;
            const CHEAP: bool = $cheap;
            #[inline(always)]
            fn apply($x: $a, $y: $a, _: ()) -> $o {
                $body
            }
            $(
                const HAS_RARE: bool = true;
                #[inline(always)]
                fn rare($r: $a, $s: $a) -> bool {
                    $rare
                }
                fn slow($r: $a, $s: $a, _: ()) -> $o {
                    $slow
                }
            )?
        }
        match $modes {
            (false, false) => select::<Map<F, false, false, false>>($isa),
            (false, true) => select::<Map<F, false, true, false>>($isa),
            (true, false) => select::<Map<F, true, false, false>>($isa),
            (true, true) => return None,
        }
    }};
}

/// As `binary!`, without splats: for dtypes where they are not worth the code.
macro_rules! lanes {
    ($isa:ident, $modes:ident, $a:ty => $o:ty, |$x:ident, $y:ident| $body:expr) => {{
        struct F;
        impl Scalar3 for F {
            type A = $a;
            type B = $a;
            type C = ();
            type O = $o;
            #[inline(always)]
            fn apply($x: $a, $y: $a, _: ()) -> $o {
                $body
            }
        }
        if $modes != (false, false) {
            return None;
        }
        select::<Map<F, false, false, false>>($isa)
    }};
}

macro_rules! unary_signed {
    ($isa:ident, $op:ident, $t:ty) => {
        match $op {
            Unary::Neg => Some(unary!($isa, $t => $t, cheap: true, |x| x.wrapping_neg())),
            Unary::Abs => Some(unary!($isa, $t => $t, cheap: true, |x| x.wrapping_abs())),
            Unary::Sign => Some(unary!($isa, $t => $t, cheap: true, |x| x.signum())),
            Unary::Not => Some(unary!($isa, $t => $t, cheap: true, |x| !x)),
            _ => None,
        }
    };
}
macro_rules! unary_unsigned {
    ($isa:ident, $op:ident, $t:ty) => {
        match $op {
            Unary::Neg => Some(unary!($isa, $t => $t, cheap: true, |x| x.wrapping_neg())),
            Unary::Abs => Some(unary!($isa, $t => $t, cheap: true, |x| x)),
            Unary::Sign => Some(unary!($isa, $t => $t, cheap: true, |x| (x != 0) as $t)),
            Unary::Not => Some(unary!($isa, $t => $t, cheap: true, |x| !x)),
            _ => None,
        }
    };
}
macro_rules! binary_int {
    ($isa:ident, $op:ident, $modes:ident, $t:ty) => {
        Some(match $op {
            Binary::Add => lanes!($isa, $modes, $t => $t, |x, y| x.wrapping_add(y)),
            Binary::Sub => lanes!($isa, $modes, $t => $t, |x, y| x.wrapping_sub(y)),
            Binary::Mul => lanes!($isa, $modes, $t => $t, |x, y| x.wrapping_mul(y)),
            Binary::Div => lanes!($isa, $modes, $t => $t, |x, y| if y == 0 { 0 } else { x.wrapping_div(y) }),
            Binary::Rem => lanes!($isa, $modes, $t => $t, |x, y| if y == 0 { 0 } else { x.wrapping_rem(y) }),
            Binary::Min => lanes!($isa, $modes, $t => $t, |x, y| x.min(y)),
            Binary::Max => lanes!($isa, $modes, $t => $t, |x, y| x.max(y)),
            Binary::And => lanes!($isa, $modes, $t => $t, |x, y| x & y),
            Binary::Or => lanes!($isa, $modes, $t => $t, |x, y| x | y),
            Binary::Xor => lanes!($isa, $modes, $t => $t, |x, y| x ^ y),
            Binary::Pow | Binary::Atan2 | Binary::Copysign => return None,
        })
    };
}
/// The primitive of a unary operation, if the dtype has it.
pub fn unary(isa: Isa, op: Unary, dtype: DType) -> Option<Primitive> {
    match dtype {
        DType::F32 => unary_f32(isa, op),
        DType::F64 => unary_f64(isa, op),
        DType::I32 => unary_signed!(isa, op, i32),
        DType::I64 => unary_signed!(isa, op, i64),
        DType::U8 => unary_unsigned!(isa, op, u8),
        DType::U32 => unary_unsigned!(isa, op, u32),
        DType::F16 | DType::BF16 => None,
        DType::Bool => match op {
            Unary::Not => Some(unary!(isa, u8 => u8, cheap: true, |x| x ^ 1)),
            _ => None,
        },
    }
}

fn unary_f32(isa: Isa, op: Unary) -> Option<Primitive> {
    Some(match op {
        Unary::Neg => unary!(isa, f32 => f32, cheap: true, |x| -x),
        Unary::Abs => unary!(isa, f32 => f32, cheap: true, |x| x.abs()),
        Unary::Sign => {
            unary!(isa, f32 => f32, cheap: true, |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x + 0.0 })
        }
        Unary::Floor => unary!(isa, f32 => f32, cheap: true, |x| x.floor()),
        Unary::Ceil => unary!(isa, f32 => f32, cheap: true, |x| x.ceil()),
        Unary::Round => unary!(isa, f32 => f32, cheap: true, |x| x.round()),
        Unary::Trunc => unary!(isa, f32 => f32, cheap: true, |x| x.trunc()),
        Unary::Sqrt => unary!(isa, f32 => f32, cheap: true, |x| x.sqrt()),
        Unary::Cbrt => unary!(isa, f32 => f32, cheap: false, |x| (x as f64).cbrt() as f32),
        Unary::Exp => unary!(isa, f32 => f32, cheap: false, |x| math::exp(x)),
        Unary::Exp2 => unary!(isa, f32 => f32, cheap: false, |x| math::exp2(x)),
        Unary::ExpM1 => unary!(isa, f32 => f32, cheap: false, |x| math::expm1(x)),
        Unary::Ln => unary!(isa, f32 => f32, cheap: false, |x| math::ln(x)),
        Unary::Log2 => unary!(isa, f32 => f32, cheap: false, |x| math::log2(x)),
        Unary::Log10 => unary!(isa, f32 => f32, cheap: false, |x| math::log10(x)),
        Unary::Ln1p => unary!(isa, f32 => f32, cheap: false, |x| math::ln1p(x)),
        Unary::Sin => unary!(isa, f32 => f32, cheap: false, |x| math::sin(x),
            rare: |r| math::huge_angle(r), (r as f64).sin() as f32),
        Unary::Cos => unary!(isa, f32 => f32, cheap: false, |x| math::cos(x),
            rare: |r| math::huge_angle(r), (r as f64).cos() as f32),
        Unary::Tan => unary!(isa, f32 => f32, cheap: false, |x| (x as f64).tan() as f32),
        Unary::Asin => unary!(isa, f32 => f32, cheap: false, |x| (x as f64).asin() as f32),
        Unary::Acos => unary!(isa, f32 => f32, cheap: false, |x| (x as f64).acos() as f32),
        Unary::Atan => unary!(isa, f32 => f32, cheap: false, |x| (x as f64).atan() as f32),
        Unary::Sinh => unary!(isa, f32 => f32, cheap: false, |x| (x as f64).sinh() as f32),
        Unary::Cosh => unary!(isa, f32 => f32, cheap: false, |x| (x as f64).cosh() as f32),
        Unary::Tanh => unary!(isa, f32 => f32, cheap: false, |x| math::tanh(x)),
        Unary::Erf => unary!(isa, f32 => f32, cheap: false, |x| math::erf(x)),
        Unary::Not => return None,
    })
}

fn unary_f64(isa: Isa, op: Unary) -> Option<Primitive> {
    Some(match op {
        Unary::Neg => unary!(isa, f64 => f64, cheap: true, |x| -x),
        Unary::Abs => unary!(isa, f64 => f64, cheap: true, |x| x.abs()),
        Unary::Sign => {
            unary!(isa, f64 => f64, cheap: true, |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x + 0.0 })
        }
        Unary::Floor => unary!(isa, f64 => f64, cheap: true, |x| x.floor()),
        Unary::Ceil => unary!(isa, f64 => f64, cheap: true, |x| x.ceil()),
        Unary::Round => unary!(isa, f64 => f64, cheap: true, |x| x.round()),
        Unary::Trunc => unary!(isa, f64 => f64, cheap: true, |x| x.trunc()),
        Unary::Sqrt => unary!(isa, f64 => f64, cheap: true, |x| x.sqrt()),
        Unary::Cbrt => unary!(isa, f64 => f64, cheap: false, |x| x.cbrt()),
        Unary::Exp => unary!(isa, f64 => f64, cheap: false, |x| x.exp()),
        Unary::Exp2 => unary!(isa, f64 => f64, cheap: false, |x| x.exp2()),
        Unary::ExpM1 => unary!(isa, f64 => f64, cheap: false, |x| x.exp_m1()),
        Unary::Ln => unary!(isa, f64 => f64, cheap: false, |x| x.ln()),
        Unary::Log2 => unary!(isa, f64 => f64, cheap: false, |x| x.log2()),
        Unary::Log10 => unary!(isa, f64 => f64, cheap: false, |x| x.log10()),
        Unary::Ln1p => unary!(isa, f64 => f64, cheap: false, |x| x.ln_1p()),
        Unary::Sin => unary!(isa, f64 => f64, cheap: false, |x| x.sin()),
        Unary::Cos => unary!(isa, f64 => f64, cheap: false, |x| x.cos()),
        Unary::Tan => unary!(isa, f64 => f64, cheap: false, |x| x.tan()),
        Unary::Asin => unary!(isa, f64 => f64, cheap: false, |x| x.asin()),
        Unary::Acos => unary!(isa, f64 => f64, cheap: false, |x| x.acos()),
        Unary::Atan => unary!(isa, f64 => f64, cheap: false, |x| x.atan()),
        Unary::Sinh => unary!(isa, f64 => f64, cheap: false, |x| x.sinh()),
        Unary::Cosh => unary!(isa, f64 => f64, cheap: false, |x| x.cosh()),
        Unary::Tanh => unary!(isa, f64 => f64, cheap: false, |x| x.tanh()),
        Unary::Erf => unary!(isa, f64 => f64, cheap: false, |x| tapeflow_ir::math::erf(x)),
        Unary::Not => return None,
    })
}

/// The primitive of a binary operation; `modes` says which operands are splats. `None` if the dtype lacks the
/// operation, or this combination of splats is not compiled (the caller then spreads them).
pub fn binary(isa: Isa, op: Binary, dtype: DType, modes: (bool, bool)) -> Option<Primitive> {
    match dtype {
        DType::F32 => Some(match op {
            Binary::Add => binary!(isa, modes, f32 => f32, cheap: true, |x, y| x + y),
            Binary::Sub => binary!(isa, modes, f32 => f32, cheap: true, |x, y| x - y),
            Binary::Mul => binary!(isa, modes, f32 => f32, cheap: true, |x, y| x * y),
            Binary::Div => binary!(isa, modes, f32 => f32, cheap: true, |x, y| x / y),
            Binary::Min => binary!(isa, modes, f32 => f32, cheap: true, |x, y| math::min32(x, y)),
            Binary::Max => binary!(isa, modes, f32 => f32, cheap: true, |x, y| math::max32(x, y)),
            Binary::Pow => binary!(isa, modes, f32 => f32, cheap: false, |x, y| math::pow(x, y),
                rare: |r, s| math::pow_rare(r, s), (r as f64).powf(s as f64) as f32),
            Binary::Rem => lanes!(isa, modes, f32 => f32, |x, y| x % y),
            Binary::Atan2 => lanes!(isa, modes, f32 => f32, |x, y| (x as f64).atan2(y as f64) as f32),
            Binary::Copysign => lanes!(isa, modes, f32 => f32, |x, y| x.copysign(y)),
            Binary::And | Binary::Or | Binary::Xor => return None,
        }),
        DType::F64 => Some(match op {
            Binary::Add => binary!(isa, modes, f64 => f64, cheap: true, |x, y| x + y),
            Binary::Sub => binary!(isa, modes, f64 => f64, cheap: true, |x, y| x - y),
            Binary::Mul => binary!(isa, modes, f64 => f64, cheap: true, |x, y| x * y),
            Binary::Div => binary!(isa, modes, f64 => f64, cheap: true, |x, y| x / y),
            Binary::Min => lanes!(isa, modes, f64 => f64, |x, y| math::min64(x, y)),
            Binary::Max => lanes!(isa, modes, f64 => f64, |x, y| math::max64(x, y)),
            Binary::Pow => lanes!(isa, modes, f64 => f64, |x, y| x.powf(y)),
            Binary::Rem => lanes!(isa, modes, f64 => f64, |x, y| x % y),
            Binary::Atan2 => lanes!(isa, modes, f64 => f64, |x, y| x.atan2(y)),
            Binary::Copysign => lanes!(isa, modes, f64 => f64, |x, y| x.copysign(y)),
            Binary::And | Binary::Or | Binary::Xor => return None,
        }),
        DType::I32 => binary_int!(isa, op, modes, i32),
        DType::U32 => binary_int!(isa, op, modes, u32),
        DType::I64 => binary_int!(isa, op, modes, i64),
        DType::U8 => binary_int!(isa, op, modes, u8),
        DType::Bool => Some(match op {
            Binary::And | Binary::Min => lanes!(isa, modes, u8 => u8, |x, y| x & y),
            Binary::Or | Binary::Max => lanes!(isa, modes, u8 => u8, |x, y| x | y),
            Binary::Xor => lanes!(isa, modes, u8 => u8, |x, y| x ^ y),
            _ => return None,
        }),
        DType::F16 | DType::BF16 => None,
    }
}

/// The primitive of a comparison, as [`binary`].
pub fn compare(isa: Isa, op: Compare, dtype: DType, modes: (bool, bool)) -> Option<Primitive> {
    macro_rules! all {
        ($kind:ident, $t:ty $(, $cheap:ident : $yes:expr)?) => {
            Some(match op {
                Compare::Eq => $kind!(isa, modes, $t => u8 $(, $cheap: $yes)?, |x, y| (x == y) as u8),
                Compare::Ne => $kind!(isa, modes, $t => u8 $(, $cheap: $yes)?, |x, y| (x != y) as u8),
                Compare::Lt => $kind!(isa, modes, $t => u8 $(, $cheap: $yes)?, |x, y| (x < y) as u8),
                Compare::Le => $kind!(isa, modes, $t => u8 $(, $cheap: $yes)?, |x, y| (x <= y) as u8),
                Compare::Gt => $kind!(isa, modes, $t => u8 $(, $cheap: $yes)?, |x, y| (x > y) as u8),
                Compare::Ge => $kind!(isa, modes, $t => u8 $(, $cheap: $yes)?, |x, y| (x >= y) as u8),
            })
        };
    }
    match dtype {
        DType::F32 => all!(binary, f32, cheap: true),
        DType::F64 => all!(lanes, f64),
        DType::I32 => all!(lanes, i32),
        DType::U32 => all!(lanes, u32),
        DType::I64 => all!(binary, i64, cheap: true),
        DType::U8 | DType::Bool => all!(lanes, u8),
        DType::F16 | DType::BF16 => None,
    }
}

/// `if a { b } else { c }` of values of `size` bytes; `modes` says whether `b` and `c` are splats.
pub fn select_value(isa: Isa, size: usize, modes: (bool, bool)) -> Primitive {
    macro_rules! of {
        ($t:ty) => {{
            struct F;
            impl Scalar3 for F {
                type A = u8;
                type B = $t;
                type C = $t;
                type O = $t;
                #[inline(always)]
                fn apply(a: u8, b: $t, c: $t) -> $t {
                    if a != 0 { b } else { c }
                }
            }
            match modes {
                (false, false) => select::<Map<F, false, false, false>>(isa),
                (false, true) => select::<Map<F, false, false, true>>(isa),
                (true, false) => select::<Map<F, false, true, false>>(isa),
                (true, true) => select::<Map<F, false, true, true>>(isa),
            }
        }};
    }
    match size {
        1 => of!(u8),
        2 => of!(u16),
        4 => of!(u32),
        _ => of!(u64),
    }
}

/// `a · b + c` rounded once; `modes` says which operands are splats.
pub fn mul_add(isa: Isa, dtype: DType, modes: (bool, bool, bool)) -> Option<Primitive> {
    macro_rules! of {
        ($t:ty) => {{
            struct F;
            impl Scalar3 for F {
                type A = $t;
                type B = $t;
                type C = $t;
                type O = $t;
                #[inline(always)]
                fn apply(a: $t, b: $t, c: $t) -> $t {
                    a.mul_add(b, c)
                }
            }
            match modes {
                (false, false, false) => Some(select::<Map<F, false, false, false>>(isa)),
                (false, true, false) => Some(select::<Map<F, false, true, false>>(isa)),
                (false, true, true) => Some(select::<Map<F, false, true, true>>(isa)),
                (false, false, true) => Some(select::<Map<F, false, false, true>>(isa)),
                _ => None,
            }
        }};
    }
    match dtype {
        DType::F32 => of!(f32),
        DType::F64 => of!(f64),
        _ => None,
    }
}

/// Conversion as Rust's `as`; to bool it is `!= 0`. `None` where nothing changes. Half precision is reached from f32
/// and left to it.
pub fn cast(isa: Isa, from: DType, to: DType) -> Option<Primitive> {
    let indirect = || unreachable!("invariant: half precision is reached from f32 alone, and left to it");
    macro_rules! to {
        ($a:ty) => {
            Some(match to {
                DType::Bool => unary!(isa, $a => u8, cheap: true, |x| (x != (0 as $a)) as u8),
                DType::U8 => unary!(isa, $a => u8, cheap: true, |x| x as u8),
                DType::I32 => unary!(isa, $a => i32, cheap: true, |x| x as i32),
                DType::U32 => unary!(isa, $a => u32, cheap: true, |x| x as u32),
                DType::I64 => unary!(isa, $a => i64, cheap: true, |x| x as i64),
                DType::F32 => unary!(isa, $a => f32, cheap: true, |x| x as f32),
                DType::F64 => unary!(isa, $a => f64, cheap: true, |x| x as f64),
                DType::F16 | DType::BF16 => return indirect(),
            })
        };
    }
    if from == to || (from == DType::Bool && to == DType::U8) {
        return None;
    }
    match (from, to) {
        (DType::F32, DType::F16) => return Some(unary!(isa, f32 => u16, cheap: true, |x| f16_from_f32(x))),
        (DType::F32, DType::BF16) => return Some(unary!(isa, f32 => u16, cheap: true, |x| bf16_from_f32(x))),
        (DType::F16, DType::F32) => return Some(unary!(isa, u16 => f32, cheap: true, |x| f16_to_f32(x))),
        (DType::BF16, DType::F32) => return Some(unary!(isa, u16 => f32, cheap: true, |x| bf16_to_f32(x))),
        _ => {}
    }
    match from {
        DType::Bool | DType::U8 => to!(u8),
        DType::I32 => to!(i32),
        DType::U32 => to!(u32),
        DType::I64 => to!(i64),
        DType::F32 => to!(f32),
        DType::F64 => to!(f64),
        DType::F16 | DType::BF16 => indirect(),
    }
}

/// Repeats one element of `size` bytes per row along the row.
pub fn spread(isa: Isa, size: usize) -> Primitive {
    match size {
        1 => select::<Spread<u8>>(isa),
        2 => select::<Spread<u16>>(isa),
        4 => select::<Spread<u32>>(isa),
        _ => select::<Spread<u64>>(isa),
    }
}

/// Copies contiguous elements of `size` bytes.
pub fn copied(isa: Isa, size: usize) -> Primitive {
    match size {
        1 => select::<Copied<u8>>(isa),
        2 => select::<Copied<u16>>(isa),
        4 => select::<Copied<u32>>(isa),
        _ => select::<Copied<u64>>(isa),
    }
}
