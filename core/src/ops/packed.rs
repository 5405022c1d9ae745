//! Weights packed once for the products that read them: panels of columns, each lying in memory in the order in which
//! its sums are computed, so that a product of a few rows reads memory from one end to the other.
//!
//! The format is that of the panels of Goto & van de Geijn 2008, doi:10.1145/1356052.1356053. Owns the format and the
//! primitive; that a parameter may be kept so is `slot`'s, how it is read is the device's.

use std::borrow::Cow;

use smallvec::smallvec;
use tapeflow_ir::DType;
use tapeflow_macros::kernel;

use super::Primitive;
use super::check_index::CheckIndex;
use super::kernel::map;
use super::matmul::Matmul;
use crate::compile::fuse::Lower;
use crate::compile::world::Vjp;
use crate::device::Kind;
use crate::error::{Error, Problem};
use crate::precision::Precision;
use crate::program::kernel::{self, Dims, Kernel, Layout, PANEL, Strides};
use crate::reference::Array;
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

/// Neighbouring terms of a sum that a panel keeps together: those which one instruction multiplies.
pub(crate) fn terms(dtype: DType, inputs: usize) -> usize {
    if dtype == DType::BF16 && inputs.is_multiple_of(2) { 2 } else { 1 }
}

/// Where the terms of a group of a weight's row lie in panels of so many rows; rows below 0 count from the end.
#[kernel]
fn packed_line(row: f32, group: f32, outputs: f32, width: f32, groups: f32) -> f32 {
    let row = (row + outputs) % outputs;
    let panel = row / width;
    (panel * groups + group) * width + row % width
}

/// `y[…, j] = Σₖ x[…, k] · w[j, k]` with a weight in panels `(⌈N / 16⌉, K / t, 16, t)`; `j` counts to their end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LinearPacked;

impl Primitive for LinearPacked {
    fn name(&self) -> Cow<'static, str> {
        "linear_packed".into()
    }

    /// `x̄ = ȳ w`, and of the weight `ȳᵀ x`, packed.
    fn vjp(&self, cx: &mut Vjp<'_>) {
        let (x, panels, c) = (cx.inputs[0], cx.inputs[1], cx.cotangent);
        let (x_shape, packed) = (cx.input_shape(0), cx.input_shape(1));
        let (outputs, inputs) = (packed[0] * PANEL, packed[1] * packed[3]);
        let rows: usize = x_shape[..x_shape.len() - 1].iter().product();
        let c = cx.world.reshape(c, Shape::from([rows, outputs]));
        if cx.wants(0) {
            let weight = cx.world.permute(panels, smallvec![0, 2, 1, 3]);
            let weight = cx.world.reshape(weight, Shape::from([outputs, inputs]));
            let ty = cx.world.with_shape(c, Shape::from([rows, inputs]));
            let value = cx.world.push(Matmul, &[c, weight], ty);
            let value = cx.world.reshape(value, x_shape);
            cx.contribute(0, value);
        }
        if cx.wants(1) {
            let (ct, x) = (cx.world.transpose(c), cx.world.reshape(x, Shape::from([rows, inputs])));
            let ty = cx.world.with_shape(c, Shape::from([outputs, inputs]));
            let value = cx.world.push(Matmul, &[ct, x], ty);
            let value = cx.world.reshape(value, Shape::from([packed[0], PANEL, packed[1], packed[3]]));
            let value = cx.world.permute(value, smallvec![0, 2, 1, 3]);
            cx.contribute(1, value);
        }
    }

    fn reads_memory(&self) -> bool {
        true
    }

    fn is_saved(&self) -> bool {
        true
    }

    fn lower(&self, cx: &mut Lower<'_>) -> Result<(), Problem> {
        let (dtype, x, packed) = (cx.ty().dtype, cx.input_ty(0).shape.clone(), cx.input_ty(1).shape.clone());
        let (panels, groups, terms) = (packed[0], packed[1], packed[3]);
        let m: usize = x[..x.len() - 1].iter().product();
        let rows = [m, groups, terms];
        let (a, layout) = cx.strided(0);
        let (a, a_layout) = match layout.reshape(&x, &rows) {
            Some(layout) => (a, layout),
            None => (cx.stored(0), Layout::contiguous(&rows)),
        };
        let b = cx.stored(1);
        let [group, term] = [PANEL * terms, terms].map(|elements| elements as isize);
        let strides = Strides::from_slice(&[group, 1, groups as isize * group, term]);
        let kernel = kernel::Matmul {
            dtype,
            batch: Dims::new(),
            m: Dims::from_slice(&[m]),
            n: Dims::from_slice(&[panels, PANEL]),
            k: Dims::from_slice(&[groups, terms]),
            a: a_layout,
            b: Layout { offset: 0, shifts: Default::default(), strides },
        };
        cx.emit(Kernel::Matmul(kernel), vec![a, b]);
        Ok(())
    }

    fn evaluate(&self, inputs: &[&Array], ty: &TensorType, _: &[u64]) -> Result<Array, Problem> {
        let (panels, terms) = (inputs[1], inputs[1].shape[3]);
        let weight =
            TensorType { shape: Shape::from([panels.shape[1] * terms, panels.shape[0] * PANEL]), ..ty.clone() };
        let weight = panels.gather_from(&weight, |to, from| {
            from.copy_from_slice(&[to[1] / PANEL, to[0] / terms, to[1] % PANEL, to[0] % terms]);
        });
        Ok(inputs[0].matmul(&weight, ty))
    }
}

/// What is wrong with panels of `outputs` rows, `inputs` long if that is said.
fn misfit(panels: &Tensor, outputs: usize, inputs: Option<&usize>) -> Option<Problem> {
    let fits = match panels.shape()[..] {
        [count, groups, PANEL, terms] => {
            count == outputs.div_ceil(PANEL) && inputs.is_none_or(|&inputs| inputs == groups * terms)
        }
        _ => false,
    };
    let rule = match inputs {
        Some(inputs) => format!("a weight ({outputs}, {inputs}) in panels is needed, as `prepack` makes them"),
        None => format!("a weight of {outputs} rows in panels is needed, as `prepack` makes them"),
    };
    (!fits).then(|| Problem::Shapes { shapes: vec![panels.shape().clone()], rule: rule.into() })
}

impl Tensor {
    /// This weight in panels, which products of few rows read faster than rows: what [`Tensor::linear_packed`] reads
    /// and [`Tensor::unpack`] makes a weight of again. Beyond the last row a panel has zeros.
    ///
    /// # Shapes
    /// `(N, K)` → `(⌈N / 16⌉, K / t, 16, t)`, where `t` is 2 in bf16 if `K` is even, else 1
    /// # Formula
    /// `panels[p, g, j, i] = w[16 p + j, t g + i]`
    /// # Errors
    /// Another number of axes than two, no float.
    /// # Example
    /// ```
    /// # use tapeflow_core::Tensor;
    /// let (weight, x) = (Tensor::randn([40, 8]), Tensor::randn([3, 8]));
    /// let panels = weight.prepack();
    /// assert_eq!(panels.dims(), [3, 8, 16, 1]);
    /// assert_eq!(panels.unpack(40).to_vec::<f32>()?, weight.to_vec::<f32>()?);
    /// assert_eq!(x.linear_packed(&panels, 40).to_vec::<f32>()?, x.matmul(&weight.t()).to_vec::<f32>()?);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn prepack(&self) -> Tensor {
        let problem = match (&self.shape()[..], self.dtype().is_float()) {
            (&[n, k], true) => {
                let (terms, panels) = (terms(self.dtype(), k), n.div_ceil(PANEL));
                let whole = self.pad(&[(0, panels * PANEL - n), (0, 0)]);
                return whole.reshape([panels, PANEL, k / terms, terms]).permute([0, 2, 1, 3]);
            }
            (_, false) => Problem::DType { found: self.dtype(), wanted: "a float".into() },
            _ => Problem::Rank { shape: self.shape().clone(), wanted: 2 },
        };
        Tensor::mistake_in(&[self], Error::new("prepack", problem, Site::here()), self.ty().clone())
    }

    /// The weight of `outputs` rows that was packed; see [`Tensor::prepack`].
    ///
    /// # Shapes
    /// `(⌈N / 16⌉, K / t, 16, t)` → `(N, K)`, where `N` is `outputs`
    /// # Errors
    /// Panels of another number of rows.
    #[track_caller]
    pub fn unpack(&self, outputs: usize) -> Tensor {
        if let Some(problem) = misfit(self, outputs, None) {
            return Tensor::mistake_in(&[self], Error::new("unpack", problem, Site::here()), self.ty().clone());
        }
        let (panels, inputs) = (self.shape()[0], self.shape()[1] * self.shape()[3]);
        self.permute([0, 2, 1, 3]).reshape([panels * PANEL, inputs]).narrow(0, 0, outputs)
    }

    /// The product `x wᵀ` with a weight of `outputs` rows that was packed; see [`Tensor::prepack`]. As
    /// [`Tensor::matmul`], to the bit. On a GPU it is the product with what [`Tensor::unpack`] makes.
    ///
    /// # Shapes
    /// `x: (…, K)`, panels of a weight `(N, K)` → `(…, N)`, where `N` is `outputs`
    /// # Gradient
    /// `x̄ = ȳ w`; of the weight `ȳᵀ x`, packed.
    /// # Errors
    /// Shapes that do not fit, two dtypes.
    #[track_caller]
    pub fn linear_packed(&self, panels: &Tensor, outputs: usize) -> Tensor {
        let precision = Precision::current();
        let (x, panels) = (precision.operand(self), precision.operand(panels));
        let problem = if x.dtype() != panels.dtype() {
            Some(Problem::DTypes { left: x.dtype(), right: panels.dtype() })
        } else if !x.dtype().is_float() {
            Some(Problem::DType { found: x.dtype(), wanted: "a float".into() })
        } else if x.ndim() == 0 {
            Some(Problem::Rank { shape: x.shape().clone(), wanted: 1 })
        } else {
            misfit(&panels, outputs, x.shape().last())
        };
        if let Some(problem) = problem {
            let error = Error::new("linear_packed", problem, Site::here());
            return Tensor::mistake_in(&[&x, &panels], error, x.ty().clone());
        }
        if matches!(x.device().0, Kind::Driven(_)) {
            return x.matmul(&panels.unpack(outputs).t());
        }
        let mut shape: Shape = x.shape().clone();
        if let Some(last) = shape.0.last_mut() {
            *last = panels.shape()[0] * PANEL;
        }
        let ty = TensorType { shape, ..x.ty().clone() };
        Tensor::record_at(LinearPacked, &[&x, &panels], ty, Site::here()).narrow(-1, 0, outputs)
    }

    /// The rows that `index` names of a weight of `outputs` rows that was packed; no other row is read.
    ///
    /// # Shapes
    /// panels of a weight `(N, K)`, index `(…)` → `(…, K)`
    #[track_caller]
    pub(crate) fn packed_rows(&self, outputs: usize, index: &Tensor) -> Tensor {
        let [panels, groups, _, terms] = self.dims();
        let site = Site::here();
        // The terms that a panel keeps together are the rows of a table.
        let table = self.reshape([panels * groups * PANEL, terms]);
        let mut shape: Vec<usize> = index.shape().to_vec();
        shape.push(groups * terms);
        let checked = Tensor::record_at(CheckIndex { extent: outputs }, &[index], index.ty().clone(), site);
        let row = checked.cast(DType::I64).unsqueeze(-1);
        let device = self.ty().device;
        let group = Tensor::arange_on(groups, DType::I64, device);
        let [outputs, width, groups] =
            [outputs, PANEL, groups].map(|value| Tensor::constant(value as f64, DType::I64, device));
        let [lines] = map(packed_line::TEMPLATE, &[&row, &group, &outputs, &width, &groups]);
        table.embedding(&lines).reshape(shape)
    }
}
