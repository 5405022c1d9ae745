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
    fn no_warmup_and_no_decay_are_defined() {
        let s = WarmupCosine { learning_rate: 1.0, min_lr: 0.5, warmup_steps: 0, decay_steps: 0 };
        assert_eq!(s.at(0), 0.5);
        let s = WarmupCosine { learning_rate: 1.0, min_lr: 0.5, warmup_steps: 3, decay_steps: 3 };
        assert_eq!((s.at(2), s.at(3)), (0.75, 0.5));
        assert_eq!(Constant(0.1).at(7), 0.1);
    }
}
