//! What the last run of a captured step left to read. Knows no runs.

use super::CapturedStep;
use super::replay::Source;
use crate::error::{Error, Problem, Result};
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::element::Element;

impl CapturedStep {
    /// The only element of result `index` of the last run.
    ///
    /// # Errors
    /// No such result, several elements, another dtype than `T`'s.
    #[track_caller]
    pub fn item<T: Element>(&self, index: usize) -> Result<T> {
        self.result::<T, _>(index, |bytes, ty| match ty.shape.numel() {
            1 => Ok(T::first(bytes)),
            _ => Err(Problem::NotAScalar { shape: ty.shape.clone(), hint: "; `to_vec` reads them all" }),
        })
    }

    /// The elements of result `index` of the last run.
    ///
    /// # Errors
    /// No such result, another dtype than `T`'s.
    #[track_caller]
    pub fn to_vec<T: Element>(&self, index: usize) -> Result<Vec<T>> {
        self.result::<T, _>(index, |bytes, _| Ok(T::from_bytes(bytes)))
    }

    #[track_caller]
    fn result<T: Element, R>(
        &self,
        index: usize,
        read: impl FnOnce(&[u8], &TensorType) -> std::result::Result<R, Problem>,
    ) -> Result<R> {
        self.read(index, |bytes, ty| match ty.dtype == T::DTYPE {
            true => read(bytes, ty),
            false => Err(Problem::DType { found: ty.dtype, wanted: T::DTYPE.name().into() }),
        })
    }

    #[track_caller]
    fn read<R>(
        &self,
        index: usize,
        read: impl FnOnce(&[u8], &TensorType) -> std::result::Result<R, Problem>,
    ) -> Result<R> {
        let site = Site::here();
        let refused = |problem| Error::new("captured result", problem, site);
        let Some((source, ty)) = self.results.get(index) else {
            let why = format!("there are {} results and no number {index}", self.results.len());
            return Err(refused(Problem::Argument(why.into())));
        };
        let buffer = match source {
            Source::Output(output) => &*self.outputs[*output],
            Source::Update { copy, .. } => copy,
        };
        // SAFETY: the capture filled it with the first run's values, every run writes it whole or not at all, and runs
        // need `&mut self`.
        read(unsafe { buffer.bytes() }, ty).map_err(refused)
    }

    /// Result `index` of the last run, as a tensor of its own.
    ///
    /// # Errors
    /// No such result.
    #[track_caller]
    pub fn tensor(&self, index: usize) -> Result<Tensor> {
        self.read(index, |bytes, ty| Ok(Tensor::from_bytes(bytes, ty.dtype, ty.shape.clone())))
    }
}
