//! Reading tensors: where what was recorded is computed, and where mistakes come out.

use std::fmt;
use std::sync::{Arc, Weak};

use half::{bf16, f16};
use tapeflow_ir::DType;

use super::Tensor;
use super::display::{Elements, format_array};
use super::element::Element;
use crate::buffer::Buffer;
use crate::compile::realize;
use crate::error::{Error, Problem, Result};
use crate::tape;
use crate::tape::site::Site;

impl Tensor {
    /// Computes the value now and keeps it.
    ///
    /// # Errors
    /// The first mistake made on the way to this value, with its place; failures of the run (an index out of range,
    /// memory).
    #[track_caller]
    pub fn realize(&self) -> Result<()> {
        realize(&[self], &[]).map(drop)
    }

    /// Computes several values as one program.
    ///
    /// # Errors
    /// As [`Tensor::realize`].
    pub fn realize_all(tensors: &[&Tensor]) -> Result<()> {
        realize(tensors, &[]).map(drop)
    }

    /// Whether the value has been computed.
    pub fn is_realized(&self) -> bool {
        tape::lock().buffer[self.node().index()].is_some()
    }

    pub(crate) fn buffer(&self) -> Result<Arc<Buffer>> {
        realize(&[self], &[])?;
        let tape = tape::lock();
        let found = tape.buffer[self.node().index()].clone();
        drop(tape);
        if let Some(buffer) = &found {
            self.0.known.get_or_init(|| Arc::downgrade(buffer));
        }
        let gone = || Problem::Argument("the value was taken over by an update that is running".into());
        found.ok_or_else(|| Error::new("read", gone(), Site::here()))
    }

    /// As `buffer`, with no lock if the contents were seen before: those of leaves made from data, and what was read.
    pub(crate) fn known_buffer(&self) -> Result<Arc<Buffer>> {
        self.check()?;
        match self.0.known.get().and_then(Weak::upgrade) {
            Some(buffer) => Ok(buffer),
            None => self.buffer(),
        }
    }

    /// Calls `f` with the elements' bytes, row-major, in this machine's order.
    ///
    /// # Errors
    /// As [`Tensor::realize`].
    pub fn with_bytes<R>(&self, f: impl FnOnce(&[u8]) -> R) -> Result<R> {
        let buffer = self.buffer()?;
        // SAFETY: realised buffers are written whole, and are taken over only when nobody else holds them.
        let bytes = unsafe { buffer.read() }.map_err(|p| Error::new("read", p, Site::here()))?;
        Ok(f(&bytes))
    }

    /// The elements, row-major.
    ///
    /// # Errors
    /// Another dtype than `T`'s; what [`Tensor::realize`] reports.
    #[track_caller]
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        self.check()?;
        if self.dtype() != T::DTYPE {
            let problem =
                Problem::DType { found: self.dtype(), wanted: format!("{} to be read as that", T::DTYPE).into() };
            return Err(Error::new("to_vec", problem, Site::here()));
        }
        self.with_bytes(T::from_bytes)
    }

    /// The only element.
    ///
    /// # Errors
    /// Several elements, another dtype than `T`'s; what [`Tensor::realize`] reports.
    #[track_caller]
    pub fn item<T: Element>(&self) -> Result<T> {
        self.check()?;
        if self.numel() != 1 {
            let problem = Problem::NotAScalar { shape: self.shape().clone(), hint: "; `to_vec` reads them all" };
            return Err(Error::new("item", problem, Site::here()));
        }
        Ok(self.to_vec::<T>()?[0])
    }
}

impl fmt::Display for Tensor {
    /// As NumPy prints arrays. Computes the value; a mistake is printed in its place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.with_bytes(|bytes| {
            macro_rules! text {
                ($($dtype:ident $t:ty),*) => {
                    match self.dtype() {
                        $(DType::$dtype => format_array(Elements::$dtype(&<$t>::from_bytes(bytes)), self.shape()),)*
                    }
                };
            }
            text!(Bool bool, U8 u8, I32 i32, U32 u32, I64 i64, F16 f16, BF16 bf16, F32 f32, F64 f64)
        });
        match text {
            Ok(text) => f.write_str(&text),
            Err(error) => write!(f, "<{error}>"),
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {})", self.dtype(), self.shape())
    }
}
