//! From samples to batches: what samples are made of gets an axis of its own in front.

use tapeflow_core::{Element, Tensor, no_grad};

use crate::error::{Error, Result};

/// Samples that can be one batch. PyTorch's `default_collate`.
///
/// | sample | batch of B |
/// |---|---|
/// | a number or bool | tensor `(B,)` |
/// | arrays and vectors of them, `[[f32; 28]; 28]` | tensor `(B, 28, 28)` |
/// | a tensor `(…)` | tensor `(B, …)` |
/// | a tuple | a tuple of batches |
///
/// ```
/// use tapeflow_nn::data::Collate;
/// let (pixels, digits) = Collate::collate(vec![([0.0f32, 1.0], 7i64), ([1.0, 0.5], 3)])?;
/// assert_eq!((pixels.shape().to_vec(), digits.to_vec::<i64>()?), (vec![2, 2], vec![7, 3]));
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
pub trait Collate: Sized {
    /// What several of them are together.
    type Batch;

    /// The batch of these samples, in their order.
    ///
    /// # Errors
    /// [`Error::Configuration`] if they have different shapes; what computing sample tensors reports.
    fn collate(samples: Vec<Self>) -> Result<Self::Batch>;
}

/// Numbers, and nested arrays and vectors of numbers.
pub trait Cells {
    /// The numbers.
    type Element: Element;

    /// The extents that every value of the type has, outermost first; `None` if they depend on the value.
    fn fixed_extents() -> Option<Vec<usize>>;

    /// The extents, outermost first; `None` if parts of it have different ones.
    fn extents(&self) -> Option<Vec<usize>>;

    /// Adds all numbers, row-major.
    fn write(&self, out: &mut Vec<Self::Element>);
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Cells for $number {
            type Element = $number;

            fn fixed_extents() -> Option<Vec<usize>> {
                Some(Vec::new())
            }

            fn extents(&self) -> Option<Vec<usize>> {
                Some(Vec::new())
            }

            fn write(&self, out: &mut Vec<$number>) {
                out.push(*self);
            }
        }

        impl Collate for $number {
            type Batch = Tensor;

            fn collate(samples: Vec<$number>) -> Result<Tensor> {
                cells(&samples)
            }
        }
    )*};
}

numbers!(f32, f64, bool, u8, i32, u32, i64);

impl<C: Cells> Cells for Vec<C> {
    type Element = C::Element;

    fn fixed_extents() -> Option<Vec<usize>> {
        None
    }

    fn extents(&self) -> Option<Vec<usize>> {
        common(self).map(|inner| [vec![self.len()], inner].concat())
    }

    fn write(&self, out: &mut Vec<C::Element>) {
        self.iter().for_each(|c| c.write(out));
    }
}

impl<C: Cells, const N: usize> Cells for [C; N] {
    type Element = C::Element;

    fn fixed_extents() -> Option<Vec<usize>> {
        C::fixed_extents().map(|inner| [vec![N], inner].concat())
    }

    fn extents(&self) -> Option<Vec<usize>> {
        common(self).map(|inner| [vec![N], inner].concat())
    }

    fn write(&self, out: &mut Vec<C::Element>) {
        self.iter().for_each(|c| c.write(out));
    }
}

/// The extents of each of them, looked at one by one only where their type does not say.
fn common<C: Cells>(cells: &[C]) -> Option<Vec<usize>> {
    if let Some(extents) = C::fixed_extents() {
        return Some(extents);
    }
    let first = cells.first().map_or(Some(Vec::new()), Cells::extents)?;
    cells.iter().all(|c| c.extents().as_ref() == Some(&first)).then_some(first)
}

impl<C: Cells> Collate for Vec<C> {
    type Batch = Tensor;

    fn collate(samples: Vec<Vec<C>>) -> Result<Tensor> {
        cells(&samples)
    }
}

impl<C: Cells, const N: usize> Collate for [C; N] {
    type Batch = Tensor;

    fn collate(samples: Vec<[C; N]>) -> Result<Tensor> {
        cells(&samples)
    }
}

fn cells<C: Cells>(samples: &[C]) -> Result<Tensor> {
    let extents: Vec<Option<Vec<usize>>> = samples.iter().map(Cells::extents).collect();
    let first = same(&extents, |e| e.as_ref().map_or("different shapes in itself".into(), |e| format!("{e:?}")))?;
    let Some(inner) = first.map_or(Some(Vec::new()), Clone::clone) else {
        return Err(Error::Configuration("the samples have rows of different lengths: no tensor holds them".into()));
    };
    let mut values = Vec::with_capacity(samples.len() * inner.iter().product::<usize>());
    samples.iter().for_each(|sample| sample.write(&mut values));
    Ok(Tensor::from_vec(values, [vec![samples.len()], inner].concat()))
}

/// What all have in common, if there are any.
fn same<T: PartialEq>(all: &[T], said: impl Fn(&T) -> String) -> Result<Option<&T>> {
    let Some(first) = all.first() else { return Ok(None) };
    match all.iter().position(|one| one != first) {
        None => Ok(Some(first)),
        Some(at) => Err(Error::Configuration(format!(
            "sample {at} of the batch has the shape {}, sample 0 has {}: a batch needs equal shapes",
            said(&all[at]),
            said(first)
        ))),
    }
}

impl Collate for Tensor {
    type Batch = Tensor;

    fn collate(samples: Vec<Tensor>) -> Result<Tensor> {
        let shapes: Vec<Vec<usize>> = samples.iter().map(|t| t.shape().to_vec()).collect();
        same(&shapes, |shape| format!("{shape:?}"))?;
        let batch = no_grad(|| Tensor::stack(&samples, 0));
        // A leaf, so that a step's program does not depend on how its batch was made.
        batch.realize()?;
        Ok(batch)
    }
}

macro_rules! tuples {
    ($(($($part:ident $index:tt),+))*) => {$(
        impl<$($part: Collate),+> Collate for ($($part,)+) {
            type Batch = ($($part::Batch,)+);

            fn collate(samples: Vec<Self>) -> Result<Self::Batch> {
                let mut parts = ($(Vec::<$part>::with_capacity(samples.len()),)+);
                for sample in samples {
                    $(parts.$index.push(sample.$index);)+
                }
                Ok(($($part::collate(parts.$index)?,)+))
            }
        }
    )*};
}

tuples! {
    (A 0)
    (A 0, B 1)
    (A 0, B 1, C 2)
    (A 0, B 1, C 2, D 3)
    (A 0, B 1, C 2, D 3, E 4)
    (A 0, B 1, C 2, D 3, E 4, F 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_know_their_extents_and_vectors_are_looked_at() -> Result<()> {
        assert_eq!(<[[f32; 3]; 2]>::fixed_extents(), Some(vec![2, 3]));
        assert_eq!(<[Vec<f32>; 2]>::fixed_extents(), None);
        assert_eq!(Collate::collate(vec![[[1.0f32; 3]; 2]; 4])?.shape().to_vec(), [4, 2, 3]);
        assert_eq!(Collate::collate(vec![[vec![1.0f32; 3], vec![2.0; 3]]; 4])?.shape().to_vec(), [4, 2, 3]);
        assert_eq!(Collate::collate(vec![vec![[1i64; 3]; 2]; 4])?.shape().to_vec(), [4, 2, 3]);
        let ragged = <[Vec<f32>; 2]>::collate(vec![[vec![1.0f32; 3], vec![2.0; 2]]]).unwrap_err().to_string();
        assert!(ragged.contains("rows of different lengths"), "{ragged}");
        let unequal = Vec::<[u8; 2]>::collate(vec![vec![[1, 2]], vec![[1, 2], [3, 4]]]).unwrap_err().to_string();
        assert!(unequal.contains("sample 1 of the batch has the shape [2, 2], sample 0 has [1, 2]"), "{unequal}");
        Ok(())
    }
}
