//! What a contraction computes: a sum of products over axes that two operands share. Owns the description and its
//! simplest form; knows neither tiles nor panels.

use tapeflow_ir::{Binary, Builder, DType, Extent, Reduce, Type};

use super::kernel::{Dims, Group, Layout, Output, OutputKind, Source, Strides};

/// Columns that an operand kept in panels has side by side: a cache line of f32, or of pairs of half precision.
pub const PANEL: usize = 16;

/// `c[b, m, n] = Σₖ a[b, m, k] · b[b, k, n]` in f32 or f64, k in fixed order; operands 0, 1 → 2. Half precision is
/// summed in f32, and the sums are rounded once.
///
/// Rows, columns and the sum may each run over several axes, row-major, with a stride of its own per axis and operand.
/// So the windows of a convolution are an operand without ever lying in memory: they overlap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Matmul {
    /// Of both operands and the result; a float.
    pub dtype: DType,
    /// Batch axes.
    pub batch: Dims,
    /// Axes of the rows of the result.
    pub m: Dims,
    /// Axes of its columns.
    pub n: Dims,
    /// Axes of the sum; an extent of 0 gives zeros.
    pub k: Dims,
    /// Over (batch…, m…, k…).
    pub a: Layout,
    /// Over (batch…, k…, n…).
    pub b: Layout,
}

impl Matmul {
    /// The same product with axes merged wherever they lie one in the other: of rows, of columns and of the sum at
    /// least one axis is left, and just one where its operands allow it.
    ///
    /// ```
    /// use tapeflow_core::{DType, driver::{Layout, Matmul}};
    /// let layout = |strides: &[isize]| Layout {
    ///     offset: 0, shifts: Default::default(), strides: strides.iter().copied().collect(),
    /// };
    /// let dims = |extents: &[usize]| extents.iter().copied().collect();
    /// let (a, b) = (layout(&[12, 4, 1]), layout(&[20, 5, 1]));
    /// let [batch, m, n, k] = [&[][..], &[2], &[5], &[3, 4]].map(dims);
    /// let product = Matmul { dtype: DType::F32, batch, m, n, k, a, b };
    /// assert_eq!(product.merged().extents(), Some([2, 5, 12]));
    /// ```
    pub fn merged(&self) -> Matmul {
        let (batch, rows, cols) = (self.batch.len(), self.m.len(), self.n.len());
        let sums = self.k.len();
        let (a, b) = (&self.a.strides, &self.b.strides);
        let (m, [a_rows]) = merge(&self.m, [&a[batch..batch + rows]]);
        let (n, [b_cols]) = merge(&self.n, [&b[batch + sums..batch + sums + cols]]);
        let (k, [a_sums, b_sums]) = merge(&self.k, [&a[batch + rows..], &b[batch..batch + sums]]);
        let layout = |of: &Layout, first: Strides, second: Strides| Layout {
            offset: of.offset,
            shifts: of.shifts.clone(),
            strides: of.strides[..batch].iter().copied().chain(first).chain(second).collect(),
        };
        let (a, b) = (layout(&self.a, a_rows, a_sums), layout(&self.b, b_sums, b_cols));
        Matmul { dtype: self.dtype, batch: self.batch.clone(), m, n, k, a, b }
    }

    /// `[m, n, k]` if each is a single axis.
    pub fn extents(&self) -> Option<[usize; 3]> {
        match (&self.m[..], &self.n[..], &self.k[..]) {
            (&[m], &[n], &[k]) => Some([m, n, k]),
            _ => None,
        }
    }

    /// The same sums as a fused loop nest, for devices whose products know single axes only: each result reads its
    /// operands anew.
    pub fn as_group(&self) -> Group {
        let (batch, rows, sums) = (self.batch.len(), self.m.len(), self.k.len());
        let (a, b) = (&self.a.strides, &self.b.strides);
        let zeros = |n: usize| std::iter::repeat_n(0, n);
        let a_strides = a[..batch + rows].iter().copied().chain(zeros(self.n.len())).chain(a[batch + rows..].to_vec());
        let b_strides = (b[..batch].iter().copied().chain(zeros(rows)))
            .chain(b[batch + sums..].to_vec())
            .chain(b[batch..batch + sums].to_vec());
        let layouts = [(&self.a, a_strides.collect::<Strides>()), (&self.b, b_strides.collect())];
        let mut builder = Builder::new();
        let ty = Type { dtype: self.dtype, extent: Extent::Lane };
        let [x, y] = [(); 2].map(|()| builder.input(ty));
        let term = builder.binary(Binary::Mul, x, y);
        let inputs = layouts.into_iter().enumerate().map(|(operand, (layout, strides))| Source::Operand {
            operand,
            layout: Layout { strides, ..layout.clone() },
        });
        Group {
            space: [&self.batch, &self.m, &self.n, &self.k].into_iter().flatten().copied().collect(),
            function: builder.finish(&[term]),
            inputs: inputs.collect(),
            outputs: vec![Output { operand: 2, kind: OutputKind::ReduceTrailing(Reduce::Sum, sums) }],
        }
    }

    /// Whether the layouts have as many axes as there are.
    pub fn is_well_formed(&self) -> bool {
        let outer = self.batch.len() + self.k.len();
        self.a.strides.len() == outer + self.m.len() && self.b.strides.len() == outer + self.n.len()
    }
}

/// Merges neighbouring axes where all strides allow it, and drops axes of 1; at least one axis is left.
fn merge<const N: usize>(dims: &[usize], strides: [&[isize]; N]) -> (Dims, [Strides; N]) {
    let mut merged = Dims::new();
    let mut out: [Strides; N] = std::array::from_fn(|_| Strides::new());
    for (axis, &extent) in dims.iter().enumerate().filter(|(_, extent)| **extent != 1) {
        let continues = out.iter().zip(strides).all(|(out, s)| out.last() == Some(&(s[axis] * extent as isize)));
        match merged.last_mut() {
            Some(outer) if continues => {
                *outer *= extent;
                out.iter_mut().for_each(|out| {
                    out.pop();
                });
            }
            _ => merged.push(extent),
        }
        out.iter_mut().zip(strides).for_each(|(out, s)| out.push(s[axis]));
    }
    if merged.is_empty() {
        // A single axis of 1 keeps its stride: it says how a vector lies.
        merged.push(1);
        out.iter_mut().zip(strides).for_each(|(out, s)| out.push(s.last().copied().unwrap_or(0)));
    }
    (merged, out)
}
