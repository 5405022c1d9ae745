//! The reference device's arrays: row-major values in their widest form, and the plainest loops over them.

use half::{bf16, f16};
use tapeflow_ir::half::rounded;
use tapeflow_ir::{Column, DType, Extent, Precision, Reduce, ScalarFn};

use crate::error::Problem;
use crate::program::kernel::RunError;
use crate::tape::TensorType;
use crate::tensor::element::Element;
use crate::tensor::shape::Shape;

/// An array in memory order.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub dtype: DType,
    pub shape: Shape,
    pub data: Column,
}

/// Every index of `dims`, in row-major order.
pub(super) fn each_index(dims: &[usize], mut f: impl FnMut(&[usize])) {
    let mut index = vec![0; dims.len()];
    for _ in 0..dims.iter().product::<usize>() {
        f(&index);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            if index[axis] < dims[axis] {
                break;
            }
            index[axis] = 0;
        }
    }
}

pub(super) fn offset(dims: &[usize], index: &[usize]) -> usize {
    dims.iter().zip(index).fold(0, |at, (&d, &i)| at * d + i)
}

fn column(dtype: DType, values: Vec<f64>) -> Column {
    match dtype {
        DType::Bool => Column::Bool(values.into_iter().map(|v| v != 0.0).collect()),
        d if d.is_int() => Column::Int(values.into_iter().map(|v| v as i64).collect()),
        _ => Column::Float(values),
    }
}

fn pick(data: &Column, at: &[usize]) -> Column {
    match data {
        Column::Float(v) => Column::Float(at.iter().map(|&i| v[i]).collect()),
        Column::Int(v) => Column::Int(at.iter().map(|&i| v[i]).collect()),
        Column::Bool(v) => Column::Bool(at.iter().map(|&i| v[i]).collect()),
    }
}

fn append(to: &mut Column, from: Column) {
    match (to, from) {
        (Column::Float(a), Column::Float(b)) => a.extend(b),
        (Column::Int(a), Column::Int(b)) => a.extend(b),
        (Column::Bool(a), Column::Bool(b)) => a.extend(b),
        _ => unreachable!("invariant: a function's outputs keep their dtype"),
    }
}

impl Array {
    pub fn fill(ty: &TensorType, value: f64) -> Array {
        let data = column(ty.dtype, vec![value; ty.shape.numel()]);
        Array { dtype: ty.dtype, shape: ty.shape.clone(), data }
    }

    pub fn from_fn(ty: &TensorType, mut f: impl FnMut(&[usize]) -> f64) -> Array {
        let mut values = Vec::with_capacity(ty.shape.numel());
        each_index(&ty.shape, |index| values.push(f(index)));
        Array { dtype: ty.dtype, shape: ty.shape.clone(), data: column(ty.dtype, values) }
    }

    pub fn from_bytes(ty: &TensorType, bytes: &[u8]) -> Array {
        macro_rules! widen {
            ($t:ty, $kind:ident, $as:ty) => {
                Column::$kind(<$t>::from_bytes(bytes).into_iter().map(<$as>::from).collect())
            };
        }
        let data = match ty.dtype {
            DType::Bool => Column::Bool(bool::from_bytes(bytes)),
            DType::U8 => widen!(u8, Int, i64),
            DType::I32 => widen!(i32, Int, i64),
            DType::U32 => widen!(u32, Int, i64),
            DType::I64 => widen!(i64, Int, i64),
            DType::F16 => widen!(f16, Float, f64),
            DType::BF16 => widen!(bf16, Float, f64),
            DType::F32 => widen!(f32, Float, f64),
            DType::F64 => widen!(f64, Float, f64),
        };
        Array { dtype: ty.dtype, shape: ty.shape.clone(), data }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        macro_rules! narrow {
            ($v:expr, $t:ty) => {
                <$t as Element>::bytes(&$v.iter().map(|&x| x as $t).collect::<Vec<$t>>()).to_vec()
            };
        }
        // The values are rounded already.
        macro_rules! halved {
            ($v:expr, $t:ty) => {
                <$t as Element>::bytes(&$v.iter().map(|&x| <$t>::from_f64(x)).collect::<Vec<$t>>()).to_vec()
            };
        }
        match (&self.data, self.dtype) {
            (Column::Bool(v), _) => bool::bytes(v).to_vec(),
            (Column::Int(v), DType::U8) => narrow!(v, u8),
            (Column::Int(v), DType::I32) => narrow!(v, i32),
            (Column::Int(v), DType::U32) => narrow!(v, u32),
            (Column::Int(v), _) => narrow!(v, i64),
            (Column::Float(v), DType::F16) => halved!(v, f16),
            (Column::Float(v), DType::BF16) => halved!(v, bf16),
            (Column::Float(v), DType::F32) => narrow!(v, f32),
            (Column::Float(v), _) => narrow!(v, f64),
        }
    }

    /// Rounded to its storage dtype, as at every boundary between operations.
    pub fn rounded(mut self, ty: &TensorType) -> Array {
        if let Column::Float(values) = &mut self.data {
            values.iter_mut().for_each(|v| *v = rounded(ty.dtype, *v));
        }
        self
    }

    pub fn with_type(&self, ty: &TensorType) -> Array {
        Array { dtype: ty.dtype, shape: ty.shape.clone(), data: self.data.clone() }
    }

    /// The array of `ty` whose element at `to` is this array's element at `from`; `f` writes `from`.
    pub fn gather_from(&self, ty: &TensorType, f: impl Fn(&[usize], &mut [usize])) -> Array {
        let mut at = Vec::with_capacity(ty.shape.numel());
        let mut from = vec![0; self.shape.len()];
        each_index(&ty.shape, |to| {
            f(to, &mut from);
            at.push(offset(&self.shape, &from));
        });
        Array { dtype: ty.dtype, shape: ty.shape.clone(), data: pick(&self.data, &at) }
    }

    /// Writes this array's elements to places of `out` that `f` names.
    pub fn scatter_into(&self, out: &mut Array, f: impl Fn(&[usize], &mut [usize])) {
        let mut to = vec![0; out.shape.len()];
        let mut n = 0;
        each_index(&self.shape, |from| {
            f(from, &mut to);
            let at = offset(&out.shape, &to);
            match (&mut out.data, &self.data) {
                (Column::Float(o), Column::Float(v)) => o[at] = v[n],
                (Column::Int(o), Column::Int(v)) => o[at] = v[n],
                (Column::Bool(o), Column::Bool(v)) => o[at] = v[n],
                _ => unreachable!("invariant: both have one dtype"),
            }
            n += 1;
        });
    }

    pub(super) fn floats(&self) -> &[f64] {
        self.data.as_floats().unwrap_or(&[])
    }

    pub(super) fn ints(&self) -> &[i64] {
        self.data.as_ints().unwrap_or(&[])
    }

    /// Reduces over `axes`.
    pub fn reduce(&self, op: Reduce, axes: &[usize], ty: &TensorType) -> Array {
        let mut lists: Vec<Vec<usize>> = vec![Vec::new(); ty.shape.numel()];
        let mut n = 0;
        each_index(&self.shape, |index| {
            let kept: Vec<usize> = (0..index.len()).filter(|a| !axes.contains(a)).map(|a| index[a]).collect();
            lists[offset(&ty.shape, &kept)].push(n);
            n += 1;
        });
        let mut b = tapeflow_ir::Builder::new();
        let x = b.input(tapeflow_ir::Type { dtype: self.dtype.computed(), extent: Extent::Lane });
        let r = b.reduce(op, x);
        let function = b.finish(&[r]);
        let mut data = column(ty.dtype, Vec::new());
        for list in lists {
            // A row of one value would be taken for a repeated one, which is the same.
            let out = function.eval(&[pick(&self.data, &list)], list.len(), Precision::Wide);
            out.into_iter().for_each(|c| append(&mut data, c));
        }
        Array { dtype: ty.dtype, shape: ty.shape.clone(), data }
    }

    /// `(self − mean)²`, where an axis of `mean` that is 1 repeats.
    pub fn squared_deviations(&self, mean: &Array, ty: &TensorType) -> Array {
        let ty = TensorType { shape: self.shape.clone(), ..ty.clone() };
        let (x, means) = (self.floats(), mean.floats());
        let mut at = 0;
        Array::from_fn(&ty, |index| {
            let of_mean: Vec<usize> =
                index.iter().zip(&mean.shape[..]).map(|(&i, &d)| if d == 1 { 0 } else { i }).collect();
            let deviation = x[at] - means[offset(&mean.shape, &of_mean)];
            at += 1;
            deviation * deviation
        })
    }

    pub fn matmul(&self, other: &Array, ty: &TensorType) -> Array {
        let (a, b) = (self.floats(), other.floats());
        let k = self.shape[self.shape.len() - 1];
        let rank = ty.shape.len();
        let at = |array: &Array, batch: &[usize], row: usize, col: usize| {
            let lead = array.shape.len() - 2;
            let skip = rank - 2 - lead;
            let mut index: Vec<usize> =
                (0..lead).map(|x| if array.shape[x] == 1 { 0 } else { batch[x + skip] }).collect();
            index.extend([row, col]);
            offset(&array.shape, &index)
        };
        Array::from_fn(ty, |index| {
            let (batch, tail) = index.split_at(rank - 2);
            (0..k).map(|p| a[at(self, batch, tail[0], p)] * b[at(other, batch, p, tail[1])]).sum()
        })
    }

    /// `self` times the rows of a weight of codes and scales.
    pub fn linear_int8(&self, codes: &Array, scales: &Array, ty: &TensorType) -> Array {
        let (x, codes, scales) = (self.floats(), codes.ints(), scales.floats());
        let k = self.shape[self.shape.len() - 1];
        Array::from_fn(ty, |index| {
            let (lead, j) = index.split_at(index.len() - 1);
            let row = offset(&self.shape[..lead.len()], lead) * k;
            let sum: f64 = (0..k).map(|p| x[row + p] * (codes[j[0] * k + p] - 128) as f64).sum();
            sum * scales[j[0]]
        })
    }

    pub fn check_index(&self, extent: usize) -> Result<(), Problem> {
        match self.ints().iter().find(|&&i| i < -(extent as i64) || i >= extent as i64) {
            Some(&index) => Err(RunError::Index { index, extent }.into()),
            None => Ok(()),
        }
    }

    fn index_at(&self, at: usize, extent: usize) -> usize {
        let i = self.ints()[at];
        if i < 0 { (i + extent as i64) as usize } else { i as usize }
    }

    /// For every element of the gather's result (of shape `shape`): the index into data.
    fn gather_places(data: &Shape, index: &Array, axis: usize, along: bool, shape: &Shape) -> Vec<usize> {
        let mut places = Vec::with_capacity(shape.numel());
        let n = index.shape.len();
        each_index(shape, |to| {
            let mut from: Vec<usize> = to[..axis].to_vec();
            if along {
                from.push(index.index_at(offset(&index.shape, to), data[axis]));
                from.extend(&to[axis + 1..]);
            } else {
                from.push(index.index_at(offset(&index.shape, &to[axis..axis + n]), data[axis]));
                from.extend(&to[axis + n..]);
            }
            places.push(offset(data, &from));
        });
        places
    }

    pub fn gather(&self, index: &Array, axis: usize, along: bool, ty: &TensorType) -> Result<Array, Problem> {
        index.check_index(self.shape[axis])?;
        let places = Array::gather_places(&self.shape, index, axis, along, &ty.shape);
        Ok(Array { dtype: ty.dtype, shape: ty.shape.clone(), data: pick(&self.data, &places) })
    }

    pub fn scatter_add(&self, index: &Array, axis: usize, along: bool, ty: &TensorType) -> Result<Array, Problem> {
        index.check_index(ty.shape[axis])?;
        let places = Array::gather_places(&ty.shape, index, axis, along, &self.shape);
        let mut out = Array::fill(ty, 0.0);
        match (&mut out.data, &self.data) {
            (Column::Float(o), Column::Float(v)) => places.iter().zip(v).for_each(|(&p, &x)| o[p] += x),
            (Column::Int(o), Column::Int(v)) => places.iter().zip(v).for_each(|(&p, &x)| o[p] = o[p].wrapping_add(x)),
            _ => {}
        }
        Ok(out)
    }

    /// For each rank along the last axis the index of the element that has it; a NaN is largest, equals keep order.
    pub fn arg_sort(&self, descending: bool, ty: &TensorType) -> Array {
        let length = self.shape.last().copied().unwrap_or(1);
        let before = |a: usize, b: usize| {
            let order = match &self.data {
                Column::Float(v) => v[a].partial_cmp(&v[b]).unwrap_or_else(|| v[a].is_nan().cmp(&v[b].is_nan())),
                Column::Int(v) => v[a].cmp(&v[b]),
                Column::Bool(v) => v[a].cmp(&v[b]),
            };
            if descending { order.reverse() } else { order }
        };
        let mut ranks: Vec<usize> = (0..self.shape.numel()).collect();
        ranks.chunks_mut(length.max(1)).for_each(|row| row.sort_by(|&a, &b| before(a, b)));
        let mut ranks = ranks.into_iter();
        Array::from_fn(ty, |_| ranks.next().map_or(0.0, |at| (at % length.max(1)) as f64))
    }

    /// Sums up to and including each element of the last axis.
    pub fn cum_sum(&self, ty: &TensorType) -> Array {
        let length = self.shape.last().copied().unwrap_or(1).max(1);
        let mut out = self.with_type(ty);
        match &mut out.data {
            Column::Float(v) => v.chunks_mut(length).for_each(|row| {
                (1..row.len()).for_each(|i| row[i] += row[i - 1]);
            }),
            Column::Int(v) => v.chunks_mut(length).for_each(|row| {
                (1..row.len()).for_each(|i| row[i] = row[i].wrapping_add(row[i - 1]));
            }),
            Column::Bool(_) => {}
        }
        out
    }

    /// The index of the first extreme along the last axis; a NaN wins.
    pub fn arg_reduce(&self, max: bool, ty: &TensorType) -> Array {
        let length = self.shape[self.shape.len() - 1];
        let value = |i: usize| match &self.data {
            Column::Float(v) => v[i],
            Column::Int(v) => v[i] as f64,
            Column::Bool(v) => f64::from(u8::from(v[i])),
        };
        let better = |a: f64, b: f64| if max { a > b } else { a < b };
        let mut row = 0;
        Array::from_fn(ty, |_| {
            let start = row * length;
            row += 1;
            let first = (0..length).fold(0, |best, i| {
                let (a, b) = (value(start + i), value(start + best));
                if !b.is_nan() && (a.is_nan() || better(a, b)) { i } else { best }
            });
            first as f64
        })
    }
}

/// A scalar or row function of broadcast operands; rows are the last axis of `space`.
pub(crate) fn apply(function: &ScalarFn, inputs: &[&Array], space: &Shape, ty: &TensorType) -> Array {
    let (lead, length) = match space.split_last() {
        Some((&length, lead)) => (Shape::from(lead), length),
        None => (Shape::default(), 1),
    };
    let per_row = function.ty(function.outputs[0]).extent == Extent::Row;
    let mut data = column(ty.dtype, Vec::new());
    each_index(&lead, |row| {
        let columns: Vec<Column> = inputs
            .iter()
            .zip(&function.inputs)
            .map(|(array, parameter)| {
                let skip = space.len() - array.shape.len();
                let n = if parameter.extent == Extent::Row { 1 } else { length };
                let at: Vec<usize> = (0..n)
                    .map(|i| {
                        let full: Vec<usize> = row.iter().copied().chain([i]).collect();
                        let index: Vec<usize> = (0..array.shape.len())
                            .map(|a| if array.shape[a] == 1 { 0 } else { full[a + skip] })
                            .collect();
                        offset(&array.shape, &index)
                    })
                    .collect();
                pick(&array.data, &at)
            })
            .collect();
        let mut out = function.eval(&columns, length, Precision::Wide).swap_remove(0);
        // Results of constants alone are one per row, whatever the result's shape says.
        if per_row && ty.shape.numel() == space.numel() && out.len() == 1 {
            out = pick(&out, &vec![0; length]);
        }
        append(&mut data, out);
    });
    Array { dtype: ty.dtype, shape: ty.shape.clone(), data }
}
