//! Rust's number types as elements of tensors.

use half::{bf16, f16};
use tapeflow_ir::DType;

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that tensors can be made of and read as.
pub trait Element: sealed::Sealed + Copy + Send + Sync + std::fmt::Debug + 'static {
    /// Its dtype.
    const DTYPE: DType;
    /// As the bytes a tensor stores.
    fn bytes(values: &[Self]) -> &[u8];
    /// From the bytes a tensor stores.
    fn from_bytes(bytes: &[u8]) -> Vec<Self>;
    /// The first element of such bytes, of which there is at least one.
    #[doc(hidden)]
    fn first(bytes: &[u8]) -> Self;
}

macro_rules! elements {
    ($($t:ty = $dtype:ident),*) => {$(
        impl sealed::Sealed for $t {}
        impl Element for $t {
            const DTYPE: DType = DType::$dtype;
            fn bytes(values: &[$t]) -> &[u8] {
                // SAFETY: numbers and bools have no padding, and every byte of them is initialised.
                unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
            }
            fn from_bytes(bytes: &[u8]) -> Vec<$t> {
                let (chunks, _) = bytes.as_chunks::<{ size_of::<$t>() }>();
                chunks.iter().map(|c| <$t>::from_ne_bytes(*c)).collect()
            }
            fn first(bytes: &[u8]) -> $t {
                bytes.first_chunk().map_or(<$t>::default(), |c| <$t>::from_ne_bytes(*c))
            }
        }
    )*};
}
elements!(u8 = U8, i32 = I32, u32 = U32, i64 = I64, f16 = F16, bf16 = BF16, f32 = F32, f64 = F64);

impl sealed::Sealed for bool {}
impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn bytes(values: &[bool]) -> &[u8] {
        // SAFETY: a bool is one initialised byte.
        unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
    }
    fn from_bytes(bytes: &[u8]) -> Vec<bool> {
        bytes.iter().map(|&b| b != 0).collect()
    }
    fn first(bytes: &[u8]) -> bool {
        bytes.first().is_some_and(|&b| b != 0)
    }
}
