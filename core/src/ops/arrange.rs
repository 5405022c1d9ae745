//! Arrangements composed of views, comparisons with indices and selections: roll, triangles, one-hot rows.

use tapeflow_ir::DType;

use super::check_index::CheckIndex;
use crate::error::{Error, Problem};
use crate::tape::TensorType;
use crate::tape::site::Site;
use crate::tensor::Tensor;
use crate::tensor::shape::Shape;

impl Tensor {
    /// Element `i` of `axis` goes to `i + shift`, what passes an end comes in at the other; NumPy's `roll`.
    ///
    /// # Example
    /// ```
    /// # use tapeflow_core::Tensor;
    /// assert_eq!(Tensor::from_vec(vec![1, 2, 3], [3]).roll(1, 0).to_vec::<i32>()?, [3, 1, 2]);
    /// # Ok::<(), tapeflow_core::Error>(())
    /// ```
    #[track_caller]
    pub fn roll(&self, shift: isize, axis: isize) -> Tensor {
        let extent = match self.shape().axis(axis) {
            Ok(axis) => self.shape()[axis],
            Err(problem) => {
                let error = Error::new("roll", problem, Site::here());
                return Tensor::mistake_in(&[self], error, self.ty().clone());
            }
        };
        let first = shift.checked_rem_euclid(extent as isize).unwrap_or(0) as usize;
        if first == 0 {
            return self.clone();
        }
        let cut = extent - first;
        Tensor::cat(&[self.slice(axis, cut..), self.slice(axis, ..cut)], axis)
    }

    /// The lower triangle of the matrices in the last two axes: what lies above diagonal number `diagonal` (0 the main
    /// one, positive above it) is zero.
    ///
    /// # Errors
    /// Fewer than two axes.
    #[track_caller]
    pub fn tril(&self, diagonal: isize) -> Tensor {
        self.triangle("tril", diagonal, |column, bound| column.le(bound))
    }

    /// The upper triangle of the matrices in the last two axes: what lies below diagonal number `diagonal` is zero.
    ///
    /// # Errors
    /// Fewer than two axes.
    #[track_caller]
    pub fn triu(&self, diagonal: isize) -> Tensor {
        self.triangle("triu", diagonal, |column, bound| column.ge(bound))
    }

    #[track_caller]
    fn triangle(&self, name: &'static str, diagonal: isize, keep: impl Fn(&Tensor, &Tensor) -> Tensor) -> Tensor {
        let [.., rows, columns] = self.shape()[..] else {
            let problem = Problem::Rank { shape: self.shape().clone(), wanted: 2 };
            return Tensor::mistake_in(&[self], Error::new(name, problem, Site::here()), self.ty().clone());
        };
        // No matrix has more diagonals than a float counts exactly.
        let diagonal = diagonal.clamp(-(rows as isize), columns as isize);
        let row = Tensor::arange_on(rows, DType::I64, self.device()).unsqueeze(-1);
        let bound = &row + &row.number(diagonal as f64);
        let column = Tensor::arange_on(columns, DType::I64, self.device());
        keep(&column, &bound).where_(self, &self.zeros_like())
    }

    /// For each index a row of zeros with a one in the index's column, as i64; PyTorch's `one_hot`.
    ///
    /// # Shapes
    /// `(…)` integers in `0..classes` (negative ones count from the end) → `(…, classes)`
    /// # Errors
    /// Another dtype than i32, u32 or i64; an index outside the classes is an error of the run.
    #[track_caller]
    pub fn one_hot(&self, classes: usize) -> Tensor {
        let site = Site::here();
        if !self.dtype().is_int() || self.dtype() == DType::U8 {
            let problem = Problem::DType { found: self.dtype(), wanted: "i32, u32 or i64 as index".into() };
            let shape = Shape::from(&[&self.shape()[..], &[classes]].concat()[..]);
            let ty = TensorType { dtype: DType::I64, shape, device: self.device() };
            return Tensor::mistake_in(&[self], Error::new("one_hot", problem, site), ty);
        }
        let checked = Tensor::record_at(CheckIndex { extent: classes }, &[self], self.ty().clone(), site);
        let index = checked.cast(DType::I64).unsqueeze(-1);
        let wrapped = index.lt(&index.number(0.0)).where_(&(&index + &index.number(classes as f64)), &index);
        wrapped.eq(&Tensor::arange_on(classes, DType::I64, self.device())).cast(DType::I64)
    }
}
