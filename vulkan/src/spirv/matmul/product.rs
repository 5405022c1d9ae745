//! A product as its emitters see it: axes dropped, merged and exchanged so that few cases are left.
//! Owns the strides and what they allow; knows neither tiles nor SPIR-V.

use tapeflow_core::driver::{Layout, Matmul, Shifts};
use tapeflow_ir::DType;

/// One operand of a product. Strides in elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Side {
    /// Its number among the kernel's operands.
    pub operand: u32,
    /// Of its first element, but for the shifts.
    pub offset: i64,
    /// What the host adds.
    pub shifts: Shifts,
    /// From line to line: rows of the left operand, columns of the right one.
    pub line: i64,
    /// From term to term of the sum.
    pub depth: i64,
}

/// A batch axis, with its strides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    pub extent: u64,
    pub left: i64,
    pub right: i64,
    pub out: i64,
}

/// `out[b, i, j] = Σₚ left[b, i, p] · right[b, p, j]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    pub dtype: DType,
    /// None of extent 1; their order means nothing.
    pub batch: Vec<Axis>,
    pub rows: u64,
    pub cols: u64,
    pub depth: u64,
    pub left: Side,
    pub right: Side,
    /// From row to row and from column to column of the result.
    pub out: [i64; 2],
}

impl Product {
    /// The simplest product that gives the same result; `None` if rows, columns or the sum run along several axes that
    /// do not lie one in the other.
    pub fn new(matmul: &Matmul) -> Option<Product> {
        let matmul = &matmul.merged();
        let (dtype, [m, n, k]) = (matmul.dtype, matmul.extents()?);
        let rank = matmul.batch.len();
        let mut product = Product {
            dtype,
            batch: Vec::new(),
            rows: m as u64,
            cols: n as u64,
            depth: k as u64,
            left: side(0, &matmul.a, rank, rank + 1),
            right: side(1, &matmul.b, rank + 1, rank),
            out: [n as i64, 1],
        };
        let mut out = (m * n) as i64;
        for (axis, &extent) in matmul.batch.iter().enumerate().rev() {
            if extent != 1 {
                let (left, right) = (matmul.a.strides[axis] as i64, matmul.b.strides[axis] as i64);
                product.push(Axis { extent: extent as u64, left, right, out });
            }
            out *= extent as i64;
        }
        while product.fold_lines() || product.swapped(Product::fold_lines) {}
        Some(product)
    }

    /// Adds an axis outside of those that are there.
    fn push(&mut self, axis: Axis) {
        if let Some(last) = self.batch.last_mut() {
            let extent = last.extent as i64;
            if axis.left == last.left * extent && axis.right == last.right * extent && axis.out == last.out * extent {
                last.extent *= axis.extent;
                return;
            }
        }
        self.batch.push(axis);
    }

    /// Makes a batch axis that only the left operand has more rows, if it goes on where the rows end.
    fn fold_lines(&mut self) -> bool {
        let rows = self.rows as i64;
        let continues = |axis: &Axis| {
            axis.right == 0 && (rows == 1 || axis.left == self.left.line * rows && axis.out == self.out[0] * rows)
        };
        let Some(at) = self.batch.iter().position(continues) else { return false };
        let axis = self.batch.remove(at);
        if rows == 1 {
            (self.left.line, self.out[0]) = (axis.left, axis.out);
        }
        self.rows *= axis.extent;
        true
    }

    /// The same product the other way round: `outᵀ = rightᵀ · leftᵀ`.
    pub fn transposed(&self) -> Product {
        let mut product = self.clone();
        std::mem::swap(&mut product.left, &mut product.right);
        std::mem::swap(&mut product.rows, &mut product.cols);
        product.out.swap(0, 1);
        product.batch.iter_mut().for_each(|axis| std::mem::swap(&mut axis.left, &mut axis.right));
        product
    }

    /// `change` done to the transposed product.
    fn swapped(&mut self, change: impl FnOnce(&mut Product) -> bool) -> bool {
        let mut other = self.transposed();
        let changed = change(&mut other);
        if changed {
            *self = other.transposed();
        }
        changed
    }

    /// How many products there are.
    pub fn items(&self) -> u64 {
        self.batch.iter().map(|axis| axis.extent).product()
    }

    /// Elements of the result.
    pub fn elements(&self) -> u64 {
        self.items() * self.rows * self.cols
    }

    /// Multiplications.
    pub fn work(&self) -> u64 {
        self.elements().saturating_mul(self.depth)
    }

    /// Whether two neighbours along the columns of the right operand always form an aligned pair.
    pub fn pairs_of_columns(&self) -> bool {
        let side = &self.right;
        self.cols.is_multiple_of(2) && side.line == 1 && even(side.depth) && self.right_starts_even()
    }

    /// Whether two neighbours along the depth of the right operand always form an aligned pair.
    pub fn pairs_of_depth(&self) -> bool {
        self.depth.is_multiple_of(2) && self.right.depth == 1 && even(self.right.line) && self.right_starts_even()
    }

    /// Whether two neighbours along the columns of the result always form an aligned pair.
    pub fn pairs_of_results(&self) -> bool {
        let [row, col] = self.out;
        self.cols.is_multiple_of(2) && col == 1 && even(row) && self.batch.iter().all(|axis| even(axis.out))
    }

    fn right_starts_even(&self) -> bool {
        even(self.right.offset)
            && self.right.shifts.iter().all(|shift| even(shift.stride as i64))
            && self.batch.iter().all(|axis| even(axis.right))
    }
}

fn even(stride: i64) -> bool {
    stride % 2 == 0
}

fn side(operand: u32, layout: &Layout, line: usize, depth: usize) -> Side {
    Side {
        operand,
        offset: layout.offset as i64,
        shifts: layout.shifts.clone(),
        line: layout.strides[line] as i64,
        depth: layout.strides[depth] as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(strides: &[isize]) -> Layout {
        Layout { offset: 0, shifts: Shifts::new(), strides: strides.iter().copied().collect() }
    }

    fn product(batch: &[usize], [m, n, k]: [usize; 3], a: &[isize], b: &[isize]) -> Product {
        let batch = batch.iter().copied().collect();
        let [m, n, k] = [m, n, k].map(|extent| [extent].into_iter().collect());
        Product::new(&Matmul { dtype: DType::F32, batch, m, n, k, a: layout(a), b: layout(b) }).expect("single axes")
    }

    #[test]
    fn weights_shared_by_a_batch_make_one_product() {
        let product = product(&[4, 6], [5, 7, 3], &[90, 15, 3, 1], &[0, 0, 7, 1]);
        assert_eq!((product.rows, product.batch.len()), (120, 0));
        assert_eq!((product.left.line, product.out), (3, [7, 1]));
    }

    #[test]
    fn batch_axes_that_go_on_are_one() {
        let product = product(&[2, 3], [5, 7, 4], &[60, 20, 4, 1], &[84, 28, 7, 1]);
        assert_eq!(product.batch, [Axis { extent: 6, left: 20, right: 28, out: 35 }]);
    }

    #[test]
    fn single_rows_are_rows_of_a_larger_product() {
        let product = product(&[9], [1, 7, 4], &[50, 4, 1], &[0, 7, 1]);
        assert_eq!((product.rows, product.left.line, product.out), (9, 50, [7, 1]));
        assert_eq!(product.transposed().transposed(), product);
    }

    #[test]
    fn pairs_need_even_strides() {
        let row_major = |n, k| product(&[], [4, n, k], &[k as isize, 1], &[n as isize, 1]);
        assert!(row_major(6, 3).pairs_of_columns() && row_major(6, 3).pairs_of_results());
        assert!(!row_major(5, 3).pairs_of_columns() && !row_major(6, 3).pairs_of_depth());
        let transposed = |n, k| product(&[], [4, n, k], &[k as isize, 1], &[1, k as isize]);
        assert!(transposed(5, 6).pairs_of_depth() && !transposed(5, 7).pairs_of_depth());
    }
}
