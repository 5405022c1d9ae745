//! What batches are made from: samples by number.

use std::sync::Arc;

use crate::error::Result;

/// Samples by number, from 0 on. PyTorch's map-style `Dataset`.
///
/// A sample is a function of its number: loaders ask for it from threads of their own, in any order and more than once.
///
/// ```
/// use tapeflow_nn::data::Dataset;
/// use tapeflow_nn::{Error, Result};
/// /// Pairs of a number and its square.
/// struct Squares;
/// impl Dataset for Squares {
///     type Sample = (f32, f32);
///     fn len(&self) -> usize {
///         100
///     }
///     fn get(&self, index: usize) -> Result<(f32, f32)> {
///         let x = index as f32 / 100.0;
///         Ok((x, x * x))
///     }
/// }
/// assert_eq!(Squares.get(50)?, (0.5, 0.25));
/// # Ok::<(), Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// One of them; what [`DataLoader`](super::DataLoader) makes batches of is [`Collate`](super::Collate).
    type Sample;

    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sample `index`, which is below `len`.
    ///
    /// # Errors
    /// Whatever keeps it from being read; loaders add its number.
    fn get(&self, index: usize) -> Result<Self::Sample>;
}

/// Samples in memory.
impl<T: Clone + Send + Sync> Dataset for Vec<T> {
    type Sample = T;

    fn len(&self) -> usize {
        Vec::len(self)
    }

    fn get(&self, index: usize) -> Result<T> {
        Ok(self[index].clone())
    }
}

macro_rules! pointers {
    ($($pointer:ident),*) => {$(
        impl<D: Dataset + ?Sized> Dataset for $pointer<D> {
            type Sample = D::Sample;

            fn len(&self) -> usize {
                (**self).len()
            }

            fn get(&self, index: usize) -> Result<D::Sample> {
                (**self).get(index)
            }
        }
    )*};
}

pointers!(Arc, Box);
