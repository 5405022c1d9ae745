//! Batches of a data set's samples: which samples, in which order, changed how.
//!
//! Owns that a batch is a function of (seed, epoch, number); the thread that makes batches ahead of time is
//! `loader`'s.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use tapeflow_core::{Device, Generator};

use super::draw;
use super::{Collate, Dataset, Loader};
use crate::error::{Error, Result};

/// Batches of the samples of a [`Dataset`], epoch after epoch. PyTorch's `DataLoader`.
///
/// Batches are numbered through all epochs, and batch `step` is a function of the seed and `step` alone: a run that
/// goes on after `step` steps asks for [`steps`](DataLoader::steps)`(step..end)` and sees what it would have seen.
///
/// ```
/// use tapeflow_nn::data::DataLoader;
/// let samples: Vec<(f32, i64)> = (0..10).map(|i| (i as f32, i)).collect();
/// let loader = DataLoader::new(samples, 4).shuffle(7).map(|(x, label), _| Ok((x / 10.0, label)));
/// assert_eq!(loader.batches_per_epoch(), 3);
/// let mut seen = Vec::new();
/// for batch in loader.epoch(0) {
///     let (x, labels) = batch?;
///     assert_eq!(x.dims(), labels.dims::<1>());
///     seen.extend(labels.to_vec::<i64>()?);
/// }
/// seen.sort();
/// assert_eq!(seen, (0..10).collect::<Vec<i64>>());
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
pub struct DataLoader<D: Dataset, S = <D as Dataset>::Sample> {
    dataset: Arc<D>,
    change: Change<D::Sample, S>,
    batch_size: usize,
    /// `None`: in order.
    seed: Option<u64>,
    drop_last: bool,
    /// The order of the epoch that was asked for last.
    order: Arc<Mutex<Order>>,
}

/// An epoch and its order.
type Order = Option<(u64, Arc<Vec<usize>>)>;

/// What is made of a sample.
type Change<T, S> = Arc<dyn Fn(T, &Generator) -> Result<S> + Send + Sync>;

impl<D: Dataset, S> Clone for DataLoader<D, S> {
    fn clone(&self) -> Self {
        DataLoader {
            dataset: self.dataset.clone(),
            change: self.change.clone(),
            batch_size: self.batch_size,
            seed: self.seed,
            drop_last: self.drop_last,
            order: self.order.clone(),
        }
    }
}

impl<D: Dataset> DataLoader<D> {
    /// The samples in order, `batch_size` at a time; the last batch of an epoch may be smaller.
    pub fn new(dataset: D, batch_size: usize) -> Self {
        DataLoader {
            dataset: Arc::new(dataset),
            change: Arc::new(|sample, _| Ok(sample)),
            batch_size,
            seed: None,
            drop_last: false,
            order: Arc::default(),
        }
    }
}

impl<D: Dataset, S> DataLoader<D, S> {
    /// In a new random order every epoch: a function of `seed` and the epoch.
    pub fn shuffle(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self.order = Arc::default();
        self
    }

    /// Without a last batch that would be smaller.
    pub fn drop_last(mut self, wanted: bool) -> Self {
        self.drop_last = wanted;
        self
    }

    /// Changes every sample: scales it, moves it at random, takes what is needed of it. The generator is the sample's
    /// own: its numbers are a function of the seed, the epoch and the sample.
    pub fn map<T>(self, f: impl Fn(S, &Generator) -> Result<T> + Send + Sync + 'static) -> DataLoader<D, T>
    where
        D::Sample: 'static,
        S: 'static,
    {
        let DataLoader { dataset, change, batch_size, seed, drop_last, order } = self;
        let change = move |sample, generator: &Generator| f(change(sample, generator)?, generator);
        DataLoader { dataset, change: Arc::new(change), batch_size, seed, drop_last, order }
    }

    /// The samples it is made of.
    pub fn dataset(&self) -> &D {
        &self.dataset
    }

    /// How many batches an epoch has.
    pub fn batches_per_epoch(&self) -> u64 {
        let (samples, batch) = (self.dataset.len(), self.batch_size.max(1));
        if self.drop_last { (samples / batch) as u64 } else { samples.div_ceil(batch) as u64 }
    }

    /// The numbers of the samples in batch `step`, and its epoch.
    fn chosen(&self, step: u64) -> Result<(u64, Vec<usize>)> {
        let (samples, batch) = (self.dataset.len(), self.batch_size);
        if batch == 0 || self.batches_per_epoch() == 0 {
            return Err(Error::Configuration(format!(
                "{samples} samples make no batch of {batch}: a batch has at least one sample, and without the last one \
                 there must be as many samples as a batch has"
            )));
        }
        let (epoch, at) = (step / self.batches_per_epoch(), (step % self.batches_per_epoch()) as usize);
        let range = at * batch..samples.min((at + 1) * batch);
        Ok((
            epoch,
            match self.seed {
                None => range.collect(),
                Some(seed) => self.order_of(seed, epoch)[range].to_vec(),
            },
        ))
    }

    fn order_of(&self, seed: u64, epoch: u64) -> Arc<Vec<usize>> {
        let mut last = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((of, order)) if *of == epoch => order.clone(),
            _ => {
                let order = Arc::new(draw::order(self.dataset.len(), [seed, ORDER, epoch]));
                *last = Some((epoch, order.clone()));
                order
            }
        }
    }
}

/// What tells the two uses of a seed from each other.
const ORDER: u64 = 0;
const SAMPLE: u64 = 1;

impl<D: Dataset, S: Collate> DataLoader<D, S> {
    /// Batch number `step`, counted through all epochs, made here and now.
    ///
    /// # Errors
    /// [`Error::Configuration`] if there are no batches; [`Error::Sample`] with the sample's number if one cannot be
    /// made, or with all numbers if they make no batch together.
    pub fn batch(&self, step: u64) -> Result<S::Batch> {
        let (epoch, chosen) = self.chosen(step)?;
        let sample = |&index: &usize| {
            let seed = draw::mixed([self.seed.unwrap_or(0), SAMPLE, epoch, index as u64]);
            let made = self.dataset.get(index).and_then(|sample| (self.change)(sample, &Generator::new(seed)));
            made.map_err(|e| Error::Sample { which: format!("sample {index}"), source: Box::new(e) })
        };
        let samples = chosen.iter().map(sample).collect::<Result<Vec<S>>>()?;
        S::collate(samples).map_err(|e| Error::Sample {
            which: format!("batch {step}, of the samples {chosen:?}"),
            source: Box::new(e),
        })
    }
}

impl<D: Dataset + 'static, S: Collate + 'static> DataLoader<D, S>
where
    D::Sample: 'static,
    S::Batch: Send + 'static,
{
    /// The batches with these numbers, made ahead of time by a thread of their own, on the device that is current now.
    /// A run that was stopped after `n` of them continues with `steps(n..)`.
    pub fn steps(&self, steps: Range<u64>) -> Loader<S::Batch> {
        let (loader, device) = (self.clone(), Device::current());
        Loader::new(steps, move |step| device.scope(|| loader.batch(step)))
    }

    /// The batches of one epoch, as [`steps`](DataLoader::steps).
    pub fn epoch(&self, epoch: u64) -> Loader<S::Batch> {
        let batches = self.batches_per_epoch();
        self.steps(epoch * batches..(epoch + 1) * batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapeflow_core::Tensor;

    fn numbers(n: i64) -> Vec<i64> {
        (0..n).collect()
    }

    fn labels(loader: &DataLoader<Vec<i64>>, steps: Range<u64>) -> Vec<Vec<i64>> {
        loader.steps(steps).map(|b| b.unwrap().to_vec::<i64>().unwrap()).collect()
    }

    #[test]
    fn an_epoch_has_every_sample_once_in_an_order_of_its_own() {
        let loader = DataLoader::new(numbers(10), 4).shuffle(3);
        let epochs: Vec<Vec<i64>> = (0..3).map(|e| labels(&loader, e * 3..(e + 1) * 3).concat()).collect();
        for epoch in &epochs {
            let mut sorted = epoch.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, numbers(10));
        }
        assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2] && epochs[0] != numbers(10));
        assert_ne!(labels(&loader.clone().shuffle(4), 0..3).concat(), epochs[0]);
        assert_eq!(labels(&DataLoader::new(numbers(10), 4), 0..3), [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
    }

    #[test]
    fn a_run_that_goes_on_sees_what_it_would_have_seen() {
        let loader = || DataLoader::new(numbers(7), 2).shuffle(1).drop_last(true).map(|x, g| Ok((x, g.next_f32())));
        let seen = |steps: Range<u64>| -> Vec<(Vec<i64>, Vec<f32>)> {
            let made = loader().steps(steps).map(Result::unwrap);
            made.map(|(x, drawn)| (x.to_vec::<i64>().unwrap(), drawn.to_vec::<f32>().unwrap())).collect()
        };
        let whole = seen(0..12);
        assert_eq!(loader().batches_per_epoch(), 3);
        for stop in 0..12 {
            assert_eq!(seen(stop..12), whole[stop as usize..]);
        }
        // What is drawn for a sample is another number in every epoch.
        let drawn: Vec<u32> = whole.iter().flat_map(|(_, d)| d.iter().map(|v| v.to_bits())).collect();
        assert!((1..drawn.len()).all(|i| !drawn[..i].contains(&drawn[i])));
    }

    #[test]
    fn errors_name_the_sample() {
        let failing = |x: i64, _: &Generator| match x {
            5 => Err(Error::Configuration("it is torn".into())),
            x => Ok(x),
        };
        let loader = DataLoader::new(numbers(8), 2).map(failing);
        let made: Vec<Result<Tensor>> = loader.epoch(0).collect();
        assert_eq!(made.len(), 3);
        assert_eq!(made[2].as_ref().unwrap_err().to_string(), "sample 5: it is torn");
        let ragged = DataLoader::new(vec![vec![1.0f32, 2.0], vec![3.0]], 2);
        let said = ragged.batch(0).unwrap_err().to_string();
        assert_eq!(
            said,
            "batch 0, of the samples [0, 1]: sample 1 of the batch has the shape [1], sample 0 has [2]: a batch needs \
             equal shapes"
        );
        let tensors = vec![Tensor::from_vec(vec![1f32], [1]), Tensor::from_vec(vec![1f32; 2], [2])];
        assert!(DataLoader::new(tensors, 2).batch(0).unwrap_err().to_string().contains("the shape [2]"));
        assert!(DataLoader::new(vec![vec![vec![1u8], vec![]]], 1).batch(0).is_err());
        for (samples, batch, drop_last) in [(0, 3, false), (2, 3, true), (2, 0, false)] {
            let loader = DataLoader::new(numbers(samples), batch).drop_last(drop_last);
            assert!(loader.batch(0).unwrap_err().to_string().contains("make no batch"));
        }
    }

    #[test]
    fn batches_have_an_axis_of_their_own() -> Result<()> {
        let sample =
            |i: usize| ([[i as f32; 3]; 2], vec![i as u8; 4], Tensor::from_vec(vec![i as f64; 2], [2]), i == 1);
        let loader = DataLoader::new((0..3).map(sample).collect::<Vec<_>>(), 3);
        let (cells, list, tensors, flags) = loader.batch(0)?;
        assert_eq!(
            [cells.shape().to_vec(), list.shape().to_vec(), tensors.shape().to_vec()],
            [vec![3, 2, 3], vec![3, 4], vec![3, 2]]
        );
        assert_eq!(tensors.to_vec::<f64>()?, [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]);
        assert_eq!(flags.to_vec::<bool>()?, [false, true, false]);
        Ok(())
    }
}
