//! From logits to the next token.

use tapeflow_nn::{Error, Generator, Result};

/// Draws tokens from logits: the most likely one, or at random by temperature among the most likely few.
///
/// # Formula
/// `P(i) ∝ exp(zᵢ / temperature)` over the `top_k` largest logits z. Computed in f64 on the host; the draws are a
/// function of the seed and of how many were made before: a sampler has a generator of its own.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f64,
    top_k: Option<usize>,
    generator: Generator,
}

impl Sampler {
    /// Always the most likely token; of equals the first.
    pub fn greedy() -> Self {
        Sampler { temperature: 0.0, top_k: None, generator: Generator::new(0) }
    }

    /// At random, with temperature 1 among all tokens.
    pub fn new(seed: u64) -> Self {
        Sampler { temperature: 1.0, top_k: None, generator: Generator::new(seed) }
    }

    /// With this temperature: below 1 the likely become likelier, 0 is greedy.
    pub fn temperature(mut self, temperature: f64) -> Self {
        self.temperature = temperature;
        self
    }

    /// Among the `k` most likely tokens; of equals at the edge the first.
    pub fn top_k(mut self, k: impl Into<Option<usize>>) -> Self {
        self.top_k = k.into();
        self
    }

    /// The next token.
    ///
    /// # Errors
    /// If there are no logits, one is NaN, or the settings make no sense.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::Configuration(format!("a temperature of {} is not ≥ 0 and finite", self.temperature)));
        }
        if self.top_k == Some(0) {
            return Err(Error::Configuration("top-k of 0 leaves no token to draw".into()));
        }
        if let Some(token) = logits.iter().position(|z| z.is_nan()) {
            return Err(Error::Configuration(format!("the logit of token {token} is NaN: the model has diverged")));
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        // Stable, hence the first of equals comes first.
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        let Some(&best) = order.first() else {
            return Err(Error::Configuration("there are no logits to sample from".into()));
        };
        if self.temperature == 0.0 {
            return Ok(best as u32);
        }
        order.truncate(self.top_k.unwrap_or(usize::MAX));
        let largest = f64::from(logits[best]);
        let weight = |&token: &usize| {
            // Where the largest is infinite, its equals share the draw: ∞ − ∞ would be NaN.
            let below = if logits[token] == logits[best] { 0.0 } else { f64::from(logits[token]) - largest };
            (below / self.temperature).exp()
        };
        let weights: Vec<f64> = order.iter().map(weight).collect();
        let mut left = f64::from(self.generator.next_f32()) * weights.iter().sum::<f64>();
        for (&token, &weight) in order.iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return Ok(token as u32);
            }
        }
        // Rounding may leave a little; it belongs to the last token that can be drawn.
        let last = order.iter().zip(&weights).rev().find(|(_, w)| **w > 0.0).map_or(best, |(&token, _)| token);
        Ok(last as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_of_the_largest() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        assert_eq!(Sampler::greedy().sample(&logits).unwrap(), 1);
        assert_eq!(Sampler::new(3).temperature(0.0).sample(&logits).unwrap(), 1);
        assert_eq!(Sampler::new(3).top_k(1).sample(&logits).unwrap(), 1);
    }

    #[test]
    fn draws_follow_the_distribution_and_the_seed() {
        let logits = [0.0, f32::ln(3.0), f32::NEG_INFINITY, f32::ln(4.0)];
        let draw = |seed| {
            let mut sampler = Sampler::new(seed);
            (0..40_000).map(|_| sampler.sample(&logits).unwrap()).collect::<Vec<_>>()
        };
        let tokens = draw(1);
        assert_eq!(tokens, draw(1));
        assert_ne!(tokens, draw(2));
        for (token, share) in [(0, 0.125), (1, 0.375), (2, 0.0), (3, 0.5)] {
            let found = tokens.iter().filter(|&&t| t == token).count() as f64 / tokens.len() as f64;
            assert!((found - share).abs() < 0.01, "token {token}: {found} and not {share}");
        }
        let mut top2 = Sampler::new(1).top_k(2);
        assert!((0..1000).map(|_| top2.sample(&logits).unwrap()).all(|t| t == 1 || t == 3));
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        assert!(Sampler::new(0).sample(&[]).is_err());
        assert!(Sampler::new(0).top_k(0).sample(&[1.0]).is_err());
        assert!(Sampler::new(0).temperature(-1.0).sample(&[1.0]).is_err());
        assert!(Sampler::new(0).sample(&[1.0, f32::NAN]).unwrap_err().to_string().contains("token 1"));
        assert_eq!(Sampler::new(0).sample(&[f32::INFINITY, 1.0]).unwrap(), 0);
    }
}
