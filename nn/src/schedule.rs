//! Learning rates as functions of the step.
//!
//! A schedule holds no state: the same step always gives the same rate, so a resumed run continues exactly.

/// The learning rate at each step, counted from 0.
pub trait Schedule: Send + Sync {
    /// The learning rate of step `step`.
    fn at(&self, step: u64) -> f64;
}

/// The same learning rate at every step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Constant(pub f64);

impl Schedule for Constant {
    fn at(&self, _step: u64) -> f64 {
        self.0
    }
}

/// Linear warm-up, then half a cosine down to a floor, as nanoGPT's `train.py` does it.
///
/// # Formula
/// With `r` the learning rate, `m` the floor, `w` warm-up steps, `d` decay steps and `t` the step:
/// - `t < w`: `r · (t + 1) / (w + 1)`
/// - `w ≤ t ≤ d`: `m + ½ (1 + cos(π (t − w) / (d − w))) (r − m)`
/// - beyond: `m`
///
/// The cosine is that of Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts.
///
/// ```
/// use tapeflow_nn::schedule::{Schedule, WarmupCosine};
/// let schedule = WarmupCosine { learning_rate: 1e-3, min_lr: 1e-4, warmup_steps: 100, decay_steps: 2000 };
/// assert_eq!(schedule.at(0), 1e-3 / 101.0);
/// assert_eq!(schedule.at(100), 1e-3);
/// assert_eq!(schedule.at(2001), 1e-4);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmupCosine {
    /// The rate at the end of the warm-up, the highest there is.
    pub learning_rate: f64,
    /// The rate at the end of the cosine and ever after.
    pub min_lr: f64,
    /// How many steps the warm-up takes.
    pub warmup_steps: u64,
    /// The step at which the floor is reached, the warm-up included.
    pub decay_steps: u64,
}

impl Schedule for WarmupCosine {
    fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step + 1) as f64 / (self.warmup_steps + 1) as f64;
        }
        // The second condition only matters where warm-up and decay end together: no cosine, no division by zero.
        if step > self.decay_steps || self.decay_steps <= self.warmup_steps {
            return self.min_lr;
        }
        let ratio = (step - self.warmup_steps) as f64 / (self.decay_steps - self.warmup_steps) as f64;
        let share = 0.5 * (1.0 + (std::f64::consts::PI * ratio).cos());
        self.min_lr + share * (self.learning_rate - self.min_lr)
    }
}

/// A learning rate that falls by a factor every so many steps: PyTorch's `StepLR`.
///
/// # Formula
/// `r · f^⌊t / n⌋` with `r` the learning rate, `f` the factor, `n` the steps between and `t` the step.
///
/// ```
/// use tapeflow_nn::schedule::{Schedule, StepDecay};
/// let schedule = StepDecay { learning_rate: 1.0, every: 30, factor: 0.5 };
/// assert_eq!([0, 29, 30, 60].map(|step| schedule.at(step)), [1.0, 1.0, 0.5, 0.25]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepDecay {
    /// The rate of the first steps.
    pub learning_rate: f64,
    /// How many steps have one rate; 0 for all.
    pub every: u64,
    /// What the rate is multiplied by.
    pub factor: f64,
}

impl Schedule for StepDecay {
    fn at(&self, step: u64) -> f64 {
        let falls = step.checked_div(self.every).unwrap_or(0);
        self.learning_rate * self.factor.powi(i32::try_from(falls).unwrap_or(i32::MAX))
    }
}

/// Up to a high rate and down to almost nothing, each along half a cosine: the one-cycle policy of Smith & Topin 2018,
/// arXiv:1708.07120, as PyTorch's `OneCycleLR` computes it.
///
/// # Formula
/// With `m` the highest rate, `n` all steps and `u = 0.3 n − 1` the step of the highest rate:
/// - `t ≤ u`: from `m / 25` to `m` by `½ (1 − cos(π t / u))`
/// - `u < t ≤ n − 1`: from `m` to `m / 250,000` by `½ (1 − cos(π (t − u) / (n − 1 − u)))`
/// - beyond: `m / 250,000`
///
/// ```
/// use tapeflow_nn::schedule::{OneCycle, Schedule};
/// let schedule = OneCycle { learning_rate: 1.0, steps: 100 };
/// assert!((schedule.at(0) - 0.04).abs() < 1e-12 && schedule.at(29) == 1.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneCycle {
    /// The highest rate.
    pub learning_rate: f64,
    /// How many steps the cycle takes.
    pub steps: u64,
}

impl Schedule for OneCycle {
    fn at(&self, step: u64) -> f64 {
        let (highest, first) = (self.learning_rate, self.learning_rate / 25.0);
        let lowest = first / 1e4;
        let (step, end) = (step as f64, self.steps as f64 - 1.0);
        let up = (0.3 * self.steps as f64 - 1.0).max(0.0);
        let between =
            |from: f64, to: f64, share: f64| to + (from - to) / 2.0 * (1.0 + (std::f64::consts::PI * share).cos());
        if step < up {
            between(first, highest, step / up)
        } else if step < end {
            between(highest, lowest, (step - up) / (end - up))
        } else {
            lowest
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warmup_cosine_has_the_values_of_nanogpt() {
        let s = WarmupCosine { learning_rate: 1e-3, min_lr: 1e-4, warmup_steps: 100, decay_steps: 2000 };
        // Values of `get_lr` in nanoGPT's train.py with these settings.
        for (step, rate) in
            [(0, 9.900990099009901e-06), (99, 0.0009900990099009901), (100, 1e-3), (1050, 5.5e-4), (2000, 1e-4)]
        {
            assert!((s.at(step) - rate).abs() < 1e-15, "step {step}: {} and not {rate}", s.at(step));
        }
        assert!((100..2000).all(|t| s.at(t + 1) < s.at(t)));
        assert_eq!(s.at(u64::MAX), 1e-4);
    }

    #[test]
    fn one_cycle_and_steps_follow_pytorchs_formulas() {
        // OneCycleLR(optimizer, max_lr=0.5, total_steps=10), by hand: up at 0, 1, 2, down to 9.
        let s = OneCycle { learning_rate: 0.5, steps: 10 };
        for (step, rate) in [(0, 0.02), (1, 0.26), (2, 0.5), (3, 0.475242), (5, 0.305631), (8, 0.024760), (9, 2e-6)] {
            assert!((s.at(step) - rate).abs() < 1e-5, "step {step}: {} and not {rate}", s.at(step));
        }
        assert_eq!((s.at(9), s.at(u64::MAX)), (2e-6, 2e-6));
        for steps in 0..4 {
            assert!((0..6).all(|step| OneCycle { learning_rate: 1.0, steps }.at(step).is_finite()), "{steps} steps");
        }
        let s = StepDecay { learning_rate: 0.1, every: 0, factor: 0.1 };
        assert_eq!(s.at(1000), 0.1);
        assert_eq!(StepDecay { every: 1, ..s }.at(u64::MAX), 0.0);
    }

    #[test]
    fn no_warmup_and_no_decay_are_defined() {
        let s = WarmupCosine { learning_rate: 1.0, min_lr: 0.5, warmup_steps: 0, decay_steps: 0 };
        assert_eq!(s.at(0), 0.5);
        let s = WarmupCosine { learning_rate: 1.0, min_lr: 0.5, warmup_steps: 3, decay_steps: 3 };
        assert_eq!((s.at(2), s.at(3)), (0.75, 0.5));
        assert_eq!(Constant(0.1).at(7), 0.1);
    }
}
