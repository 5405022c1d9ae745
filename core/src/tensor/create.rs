//! Making tensors from data, constants and ranges.

use std::sync::Arc;

use tapeflow_ir::DType;

use super::Tensor;
use super::element::Element;
use super::shape::Shape;
use crate::buffer::Buffer;
use crate::capture::HostCell;
use crate::device::Device;
use crate::error::{Error, Problem};
use crate::generator::default_generator;
use crate::ops::arithmetic::host_value_fits;
use crate::ops::source::{Constant, Iota, Scalar};
use crate::tape::TensorType;
use crate::tape::site::Site;

impl Tensor {
    /// A tensor of these elements, row-major.
    ///
    /// # Errors
    /// Another number of elements than the shape has.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::Tensor;
    /// let x = Tensor::from_vec(vec![1, 2, 3, 4, 5, 6], [2, 3]);
    /// assert_eq!(x.to_vec::<i32>()?, [1, 2, 3, 4, 5, 6]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn from_vec<T: Element>(data: Vec<T>, shape: impl Into<Shape>) -> Tensor {
        Tensor::from_slice(&data, shape)
    }

    /// A tensor of a copy of these elements, row-major.
    #[track_caller]
    pub fn from_slice<T: Element>(data: &[T], shape: impl Into<Shape>) -> Tensor {
        let (site, shape) = (Site::here(), shape.into());
        let fits = shape.is_addressable(size_of::<T>()) && shape.numel() == data.len();
        let ty = TensorType { dtype: T::DTYPE, shape, device: Device::current() };
        let buffer = match fits {
            true => Buffer::from_bytes_on(ty.device.0, T::bytes(data)),
            false => Err(Problem::Length { found: data.len(), shape: ty.shape.clone() }),
        };
        match buffer {
            Ok(buffer) => Tensor::leaf(Arc::new(buffer), ty, false, site),
            Err(problem) => Tensor::mistake(Error::new("from_vec", problem, site), ty),
        }
    }

    /// A tensor from the bytes of its elements in this machine's order, as checkpoints store them.
    #[track_caller]
    pub fn from_bytes(bytes: &[u8], dtype: DType, shape: impl Into<Shape>) -> Tensor {
        let (site, shape) = (Site::here(), shape.into());
        let ty = TensorType { dtype, shape, device: Device::current() };
        let fits = ty.shape.is_addressable(dtype.size()) && ty.shape.numel() * dtype.size() == bytes.len();
        let buffer = match fits {
            true => Buffer::from_bytes_on(ty.device.0, bytes),
            false => Err(Problem::Length { found: bytes.len() / dtype.size(), shape: ty.shape.clone() }),
        };
        match buffer {
            Ok(buffer) => Tensor::leaf(Arc::new(buffer), ty, false, site),
            Err(problem) => Tensor::mistake(Error::new("from_bytes", problem, site), ty),
        }
    }

    /// A single element, shape `()`.
    #[track_caller]
    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor::from_slice(&[value], ())
    }

    /// A host number as a tensor of shape `()`. For floats its value is no part of a program, so a learning rate may
    /// change every step and nothing is compiled again; integers are.
    ///
    /// # Errors
    /// A value `dtype` cannot hold, such as 0.5 for an integer.
    #[track_caller]
    pub fn host(value: f64, dtype: DType) -> Tensor {
        Tensor::host_on(value, dtype, Device::current())
    }

    /// A host number to compute with this tensor, on its device: of its dtype, or f32 beside half precision.
    #[track_caller]
    pub(crate) fn number(&self, value: f64) -> Tensor {
        Tensor::host_on(value, self.dtype().computed(), self.device())
    }

    #[track_caller]
    fn host_on(value: f64, dtype: DType, device: Device) -> Tensor {
        let site = Site::here();
        let ty = TensorType { dtype, shape: Shape::default(), device };
        if !host_value_fits(value, dtype) {
            let problem = Problem::Argument(format!("{value} is no value of {dtype}; `cast` the tensor").into());
            return Tensor::mistake(Error::new("host number", problem, site), ty);
        }
        match dtype.is_float() {
            true => Tensor::record_at(Scalar::new(value), &[], ty, site),
            false => Tensor::record_at(Constant::new(value), &[], ty, site),
        }
    }

    /// A float of the host that is asked for when a program runs, not when this is called: what a captured step needs.
    ///
    /// # Errors
    /// An integer dtype.
    #[track_caller]
    pub fn host_cell(cell: &HostCell, dtype: DType) -> Tensor {
        let site = Site::here();
        let ty = TensorType { dtype, shape: Shape::default(), device: Device::current() };
        if !dtype.is_float() {
            let problem = Problem::DType { found: dtype, wanted: "a float".into() };
            return Tensor::mistake(Error::new("host number", problem, site), ty);
        }
        Tensor::record_at(Scalar::cell(cell), &[], ty, site)
    }

    #[track_caller]
    pub(crate) fn constant(value: f64, dtype: DType, device: Device) -> Tensor {
        Tensor::record(Constant::new(value), &[], TensorType { dtype, shape: Shape::default(), device })
    }

    #[track_caller]
    pub(crate) fn arange_on(n: usize, dtype: DType, device: Device) -> Tensor {
        let ty = TensorType { dtype: DType::I64, shape: Shape::from([n]), device };
        Tensor::record(Iota { axis: 0 }, &[], ty).cast(dtype)
    }

    /// `value` everywhere.
    #[track_caller]
    pub fn full(shape: impl Into<Shape>, value: f64, dtype: DType) -> Tensor {
        let site = Site::here();
        let ty = TensorType { dtype, shape: shape.into(), device: Device::current() };
        if !host_value_fits(value, dtype) {
            let problem = Problem::Argument(format!("{value} is no value of {dtype}").into());
            return Tensor::mistake(Error::new("full", problem, site), ty);
        }
        Tensor::record_at(Constant::new(value), &[], ty, site)
    }

    /// Zeros.
    #[track_caller]
    pub fn zeros(shape: impl Into<Shape>, dtype: DType) -> Tensor {
        Tensor::full(shape, 0.0, dtype)
    }

    /// Ones.
    #[track_caller]
    pub fn ones(shape: impl Into<Shape>, dtype: DType) -> Tensor {
        Tensor::full(shape, 1.0, dtype)
    }

    /// Zeros of this tensor's shape and dtype.
    #[track_caller]
    pub fn zeros_like(&self) -> Tensor {
        let ty = self.ty().clone();
        Tensor::record(Constant::new(0.0), &[], ty)
    }

    /// Ones of this tensor's shape and dtype.
    #[track_caller]
    pub fn ones_like(&self) -> Tensor {
        let ty = self.ty().clone();
        Tensor::record(Constant::new(1.0), &[], ty)
    }

    /// `0, 1, …, n − 1`.
    #[track_caller]
    pub fn arange(n: usize, dtype: DType) -> Tensor {
        Tensor::arange_on(n, dtype, Device::current())
    }

    /// Uniform f32 numbers in [0, 1) from the default generator.
    #[track_caller]
    pub fn rand(shape: impl Into<Shape>) -> Tensor {
        default_generator().rand(shape)
    }

    /// Normal f32 numbers from the default generator.
    #[track_caller]
    pub fn randn(shape: impl Into<Shape>) -> Tensor {
        default_generator().randn(shape)
    }
}
