//! Averages of a model's parameters over the steps of its training. Owns the averages and when they stand in for the
//! parameters; knows no optimizer.

use tapeflow_core::{Slot, Tensor, commit, no_grad};

use crate::Parameter;
use crate::checkpoint::assign;
use crate::error::{Error, Result};
use crate::module::{Buffer, Leaf, Module, ModuleExt};

/// Exponential moving averages of the parameters of a module: often a better model than the last step's.
///
/// # Formula
/// `a ← a + (1 − decay)(p − a)` after each step, from `a = p` at the start. Polyak & Juditsky 1992, "Acceleration of
/// stochastic approximation by averaging", in exponential form.
/// # Numerics
/// In the parameters' dtypes; all averages are updated in place by one program.
///
/// ```
/// use tapeflow_nn::{Ema, Forward, Linear, Optimizer, Sgd, Tensor, DType};
/// let model = Linear::new(2, 1)?;
/// let (mut optimizer, average) = (Sgd::new(&model).learning_rate(0.1), Ema::new(&model, 0.9)?);
/// let x = Tensor::ones([4, 2], DType::F32);
/// for _ in 0..10 {
///     optimizer.step(model.forward(&x).square().mean().backward()?)?;
///     average.update()?;
/// }
/// let loss = |model: &Linear| model.forward(&x).square().mean().item::<f32>();
/// let (last, averaged) = (loss(&model)?, average.stand_in(|| loss(&model))??);
/// assert!(averaged >= last); // it lags behind
/// # Ok::<(), tapeflow_nn::Error>(())
/// ```
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    members: Vec<(String, Parameter, Buffer)>,
}

impl Ema {
    /// Averages that begin as the parameters are now, and keep a share `decay` of themselves at each update.
    ///
    /// # Errors
    /// [`Error::Configuration`] if `decay` does not lie in 0 ≤ decay < 1, or the error of a pending computation.
    pub fn new(module: &(impl Module + ?Sized), decay: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&decay) {
            return Err(Error::Configuration(format!("a decay of {decay} does not lie in 0 ≤ decay < 1")));
        }
        let member = |(path, parameter): (String, Parameter)| {
            let begin = own(&parameter.tensor())?;
            Ok((path, parameter, Buffer::new(begin)?))
        };
        let members = module.named_parameters().into_iter().map(member).collect::<Result<_>>()?;
        Ok(Ema { decay, members })
    }

    /// Takes the present parameters into the averages.
    ///
    /// # Errors
    /// A failure of the program; the averages are then as they were. A parameter of another shape or dtype than before.
    pub fn update(&self) -> Result<()> {
        let new = |(_, parameter, average): &(String, Parameter, Buffer)| {
            let (p, a) = (parameter.tensor(), average.tensor());
            no_grad(|| &a + (p - &a) * (1.0 - self.decay))
        };
        let new: Vec<Tensor> = self.members.iter().map(new).collect();
        let slots = self.members.iter().map(|(.., average)| average.slot());
        let updates: Vec<(&Slot, Tensor)> = slots.zip(new).collect();
        Ok(commit(&updates)?)
    }

    /// Runs `f` with the averages in the place of the parameters.
    ///
    /// # Errors
    /// A parameter of another shape or dtype than before; a step that is being captured.
    pub fn stand_in<T>(&self, f: impl FnOnce() -> T) -> Result<T> {
        /// Puts the parameters back, also when `f` panics.
        struct Restore<'e>(Vec<(&'e Parameter, Tensor)>);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                for (parameter, value) in self.0.drain(..) {
                    // What was there fits.
                    let _ = parameter.set(&value);
                }
            }
        }
        let mut restore = Restore(Vec::with_capacity(self.members.len()));
        for (_, parameter, average) in &self.members {
            let old = parameter.tensor().detach();
            parameter.set(&average.tensor())?;
            restore.0.push((parameter, old));
        }
        Ok(f())
    }

    /// The averages by the paths of their parameters.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.members.iter().map(|(path, _, average)| (path.clone(), average.tensor())).collect()
    }

    /// Goes on from a [`state`](Ema::state); all of it, or nothing.
    ///
    /// # Errors
    /// [`Error::CheckpointMismatch`] listing every name that is missing, unexpected, or of another shape or dtype.
    pub fn load_state(&self, state: Vec<(String, Tensor)>) -> Result<()> {
        let leaf = |(path, _, average): &(String, Parameter, Buffer)| (path.clone(), Leaf::Buffer(average.clone()));
        assign(self.members.iter().map(leaf).collect(), state, "the averages")
    }
}

/// The same values in memory of their own, which updates in place may write over.
fn own(value: &Tensor) -> Result<Tensor> {
    let copy = |bytes: &[u8]| value.device().scope(|| Tensor::from_bytes(bytes, value.dtype(), value.shape()));
    Ok(value.with_bytes(copy)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Linear;

    fn weights(model: &Linear) -> Vec<f32> {
        model.weight.tensor().to_vec().unwrap()
    }

    #[test]
    fn averages_follow_the_formula_and_stand_in_for_a_while() -> Result<()> {
        let model = Linear::from_tensors(Tensor::from_vec(vec![1.0f32, 2.0], [1, 2]), None)?;
        let average = Ema::new(&model, 0.75)?;
        let mut expected = [1.0f32, 2.0];
        for step in 1..=5 {
            let new = [step as f32 * 4.0, -3.0];
            model.weight.set(&Tensor::from_vec(new.to_vec(), [1, 2]))?;
            average.update()?;
            for (a, p) in expected.iter_mut().zip(new) {
                *a += (p - *a) * 0.25;
            }
            assert_eq!(average.stand_in(|| weights(&model))?, expected);
            assert_eq!(weights(&model), new);
        }
        assert!(model.weight.is_trainable() && model.weight.tensor().requires_grad());
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| average.stand_in(|| panic!("no"))));
        assert!(panicked.is_err());
        assert_eq!(weights(&model), [20.0, -3.0]);

        let other = Ema::new(&model, 0.75)?;
        other.load_state(average.state())?;
        assert_eq!(other.stand_in(|| weights(&model))?, expected);
        assert!(other.load_state(Vec::new()).unwrap_err().to_string().contains("missing (1): weight"));
        assert!(Ema::new(&model, 1.0).unwrap_err().to_string().contains("a decay of 1"));
        Ok(())
    }
}
