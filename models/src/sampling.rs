//! From logits to the next token.

use tapeflow_nn::{Error, Generator, Result};

/// Draws tokens from logits: the most likely one, or at random by temperature among the most likely few.
///
/// # Formula
/// Of tokens that were there before, logits z > 0 are divided by the repetition penalty and others multiplied (Keskar
/// et al. 2019, arXiv:1909.05858, in the form of Hugging Face's `transformers`). Then `P(i) ∝ exp(zᵢ / temperature)`
/// over the `top_k` largest, and of these over the fewest largest whose P together is at least `top_p` (nucleus
/// sampling, Holtzman et al. 2020, arXiv:1904.09751).
/// # Numerics
/// Computed in f64 on the host; the draws are a function of the seed and of how many were made before: a sampler has a
/// generator of its own.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f64,
    top_k: Option<usize>,
    top_p: Option<f64>,
    repetition_penalty: f64,
    generator: Generator,
}

impl Sampler {
    /// Always the most likely token; of equals the first.
    pub fn greedy() -> Self {
        Sampler::new(0).temperature(0.0)
    }

    /// At random, with temperature 1 among all tokens.
    pub fn new(seed: u64) -> Self {
        let generator = Generator::new(seed);
        Sampler { temperature: 1.0, top_k: None, top_p: None, repetition_penalty: 1.0, generator }
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

    /// Among the fewest most likely tokens that have at least probability `p` together; of equals at the edge the
    /// first.
    pub fn top_p(mut self, p: impl Into<Option<f64>>) -> Self {
        self.top_p = p.into();
        self
    }

    /// With this penalty on tokens that were there before: above 1 they become less likely, 1 does nothing.
    pub fn repetition_penalty(mut self, penalty: f64) -> Self {
        self.repetition_penalty = penalty;
        self
    }

    /// Whether the settings make sense.
    ///
    /// # Errors
    /// [`Error::Configuration`] naming what is wrong and what would be right.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::Configuration(what));
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return wrong(format!("a temperature of {} is not ≥ 0 and finite", self.temperature));
        }
        if self.top_k == Some(0) {
            return wrong("top-k of 0 leaves no token to draw".into());
        }
        if let Some(p) = self.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return wrong(format!("top-p of {p} is no probability above 0 and at most 1"));
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return wrong(format!("a repetition penalty of {} is not above 0 and finite", self.repetition_penalty));
        }
        Ok(())
    }

    /// The next token; no token counts as repeated.
    ///
    /// # Errors
    /// If there are no logits, one is NaN, or the settings make no sense.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32> {
        self.sample_after(&[], logits)
    }

    /// The next token after those that were `seen`.
    ///
    /// # Errors
    /// As for [`sample`](Sampler::sample).
    pub fn sample_after(&mut self, seen: &[u32], logits: &[f32]) -> Result<u32> {
        self.check()?;
        if let Some(token) = logits.iter().position(|z| z.is_nan()) {
            return Err(Error::Configuration(format!("the logit of token {token} is NaN: the model has diverged")));
        }
        let logits = self.penalised(seen, logits);
        // The first of equals.
        let larger =
            |best: usize, token: usize| if logits[token].total_cmp(&logits[best]).is_gt() { token } else { best };
        let Some(best) = (0..logits.len()).reduce(larger) else {
            return Err(Error::Configuration("there are no logits to sample from".into()));
        };
        if self.temperature == 0.0 {
            return Ok(best as u32);
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        // Stable, as above.
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        order.truncate(self.top_k.unwrap_or(usize::MAX));
        let weight = |&token: &usize| {
            // Where the largest is infinite, its equals share the draw: ∞ − ∞ would be NaN.
            let below = if logits[token] == logits[best] { 0.0 } else { logits[token] - logits[best] };
            (below / self.temperature).exp()
        };
        let mut weights: Vec<f64> = order.iter().map(weight).collect();
        if let Some(p) = self.top_p {
            let enough = p * weights.iter().sum::<f64>();
            let mut sum = 0.0;
            let kept = weights.iter().position(|weight| {
                sum += weight;
                sum >= enough
            });
            weights.truncate(kept.map_or(usize::MAX, |last| last + 1));
        }
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

    /// The logits, less for tokens that were seen.
    fn penalised(&self, seen: &[u32], logits: &[f32]) -> Vec<f64> {
        let mut out: Vec<f64> = logits.iter().map(|&z| f64::from(z)).collect();
        if self.repetition_penalty != 1.0 {
            let mut again = vec![false; out.len()];
            for &token in seen {
                let token = token as usize;
                if token < out.len() && !std::mem::replace(&mut again[token], true) {
                    let factor = self.repetition_penalty;
                    out[token] = if out[token] > 0.0 { out[token] / factor } else { out[token] * factor };
                }
            }
        }
        out
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

    /// What is left to draw from, written as plainly as can be.
    fn probabilities(logits: &[f32], temperature: f64, k: usize, p: f64, penalty: f64, seen: &[u32]) -> Vec<f64> {
        let mut z: Vec<(usize, f64)> = logits.iter().map(|&z| f64::from(z)).enumerate().collect();
        for (token, z) in &mut z {
            if seen.contains(&(*token as u32)) {
                *z = if *z > 0.0 { *z / penalty } else { *z * penalty };
            }
        }
        z.sort_by(|a, b| b.1.total_cmp(&a.1));
        z.truncate(k);
        let softmax = |z: &[(usize, f64)]| {
            let total: f64 = z.iter().map(|(_, z)| (z / temperature).exp()).sum();
            z.iter().map(|(t, z)| (*t, (z / temperature).exp() / total)).collect::<Vec<_>>()
        };
        let mut kept = Vec::new();
        for (token, probability) in softmax(&z) {
            if kept.iter().map(|(_, q)| q).sum::<f64>() >= p {
                break;
            }
            kept.push((token, probability));
        }
        let total: f64 = kept.iter().map(|(_, q)| q).sum();
        let mut out = vec![0.0; logits.len()];
        kept.iter().for_each(|(token, q)| out[*token] = q / total);
        out
    }

    #[test]
    fn draws_are_those_of_a_plain_implementation() {
        let logits = [1.5, -0.5, 0.3, 2.0, -2.0, 0.9, 1.1, -0.1];
        let cases: [(f64, usize, f64, f64, &[u32]); 6] = [
            (1.0, 8, 0.8, 1.0, &[]),
            (0.7, 8, 0.5, 1.0, &[]),
            (1.3, 4, 0.9, 1.0, &[3]),
            (1.0, 8, 1.0, 1.5, &[3, 0, 4, 3]),
            (0.8, 5, 0.85, 0.7, &[1, 2]),
            (1.0, 8, 1e-9, 1.0, &[]),
        ];
        for (temperature, k, p, penalty, seen) in cases {
            let expected = probabilities(&logits, temperature, k, p, penalty, seen);
            let sampler = Sampler::new(5).temperature(temperature).top_k(k).top_p(p);
            let mut sampler = sampler.repetition_penalty(penalty);
            let mut found = [0.0f64; 8];
            for _ in 0..20_000 {
                found[sampler.sample_after(seen, &logits).unwrap() as usize] += 1.0 / 20_000.0;
            }
            for (token, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_eq!(*found > 0.0, *expected > 0.0, "token {token} at {temperature} {k} {p} {penalty}");
                assert!((found - expected).abs() < 0.015, "token {token}: {found} and not {expected}");
            }
        }
        let mut greedy = Sampler::greedy().repetition_penalty(2.0);
        assert_eq!(greedy.sample_after(&[3], &logits).unwrap(), 0);
        assert_eq!(greedy.sample_after(&[3, 0], &logits).unwrap(), 6);
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        assert!(Sampler::new(0).top_p(0.0).sample(&[1.0]).unwrap_err().to_string().contains("top-p of 0"));
        assert!(Sampler::new(0).top_p(1.1).sample(&[1.0]).is_err());
        assert!(Sampler::new(0).top_p(f64::NAN).sample(&[1.0]).is_err());
        assert!(Sampler::new(0).repetition_penalty(0.0).sample(&[1.0]).is_err());
        assert!(Sampler::new(0).repetition_penalty(f64::INFINITY).sample(&[1.0]).is_err());
        assert!(Sampler::new(0).sample(&[]).is_err());
        assert!(Sampler::new(0).top_k(0).sample(&[1.0]).is_err());
        assert!(Sampler::new(0).temperature(-1.0).sample(&[1.0]).is_err());
        assert!(Sampler::new(0).sample(&[1.0, f32::NAN]).unwrap_err().to_string().contains("token 1"));
        assert_eq!(Sampler::new(0).sample(&[f32::INFINITY, 1.0]).unwrap(), 0);
    }
}
