//! Images with their labels, and batches of them. A batch is a function of the seed and its number alone.

use tapeflow::{Generator, Tensor};

/// Pixels along each side.
pub const SIDE: usize = 28;
/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;
/// Kinds of digits.
pub const CLASSES: usize = 10;
/// Mean and deviation of MNIST's pixels, which training takes as its origin and unit.
const MEAN: f32 = 0.1307;
const DEVIATION: f32 = 0.3081;

/// Images of one size, each with the digit it shows.
#[derive(Clone, Debug, Default)]
pub struct Images {
    /// One byte per pixel, image after image, row by row; 0 is the background.
    pub pixels: Vec<u8>,
    pub labels: Vec<u8>,
}

/// Some images as the network sees them, `(N, 1, 28, 28)`, and their digits, `(N,)`.
pub struct Batch {
    pub inputs: Tensor,
    pub targets: Tensor,
}

impl Images {
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn image(&self, index: usize) -> &[u8] {
        &self.pixels[index * PIXELS..(index + 1) * PIXELS]
    }

    /// The first `n` images, and the others.
    pub fn split(&self, n: usize) -> (Images, Images) {
        let part = |range: std::ops::Range<usize>| Images {
            pixels: self.pixels[range.start * PIXELS..range.end * PIXELS].to_vec(),
            labels: self.labels[range].to_vec(),
        };
        (part(0..n), part(n..self.len()))
    }

    /// Batch `step` of a training: every image once per epoch, in an order of its own, shifted at random.
    pub fn shuffled(&self, batch: usize, shift: usize, seed: u64, step: u64) -> Batch {
        let per_epoch = (self.len() / batch).max(1) as u64;
        let (epoch, at) = (step / per_epoch, (step % per_epoch) as usize);
        let order = shuffled(self.len(), &Generator::new(mix(seed, epoch)));
        let generator = Generator::new(mix(!seed, step));
        let chosen = order.into_iter().skip(at * batch).take(batch);
        let shifts = chosen.map(|index| {
            let by = || generator.below(2 * shift + 1) as isize - shift as isize;
            (index, [by(), by()])
        });
        self.batch(shifts)
    }

    /// Images `range` as they are.
    pub fn consecutive(&self, range: std::ops::Range<usize>) -> Batch {
        self.batch(range.map(|index| (index, [0, 0])))
    }

    fn batch(&self, chosen: impl Iterator<Item = (usize, [isize; 2])>) -> Batch {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for (index, [down, across]) in chosen {
            let image = self.image(index);
            let at = |row: isize, col: isize| match (usize::try_from(row), usize::try_from(col)) {
                (Ok(row), Ok(col)) if row < SIDE && col < SIDE => image[row * SIDE + col],
                _ => 0,
            };
            for (row, col) in (0..SIDE as isize).flat_map(|row| (0..SIDE as isize).map(move |col| (row, col))) {
                pixels.push((f32::from(at(row - down, col - across)) / 255.0 - MEAN) / DEVIATION);
            }
            labels.push(i64::from(self.labels[index]));
        }
        let n = labels.len();
        Batch { inputs: Tensor::from_vec(pixels, [n, 1, SIDE, SIDE]), targets: Tensor::from_vec(labels, [n]) }
    }
}

/// All numbers below `n` in a random order. Fisher & Yates 1938; Durstenfeld 1964.
fn shuffled(n: usize, generator: &Generator) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, generator.below(i + 1));
    }
    order
}

/// A seed of two numbers.
fn mix(seed: u64, number: u64) -> u64 {
    seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number.wrapping_mul(0xD1B5_4A32_D192_ED03))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(n: usize) -> Images {
        let mut pixels = vec![0; n * PIXELS];
        (0..n).for_each(|i| pixels[i * PIXELS + 5 * SIDE + 7] = 255);
        Images { pixels, labels: (0..n as u8).collect() }
    }

    #[test]
    fn an_epoch_has_every_image_once_and_each_its_own_order() {
        let images = numbered(12);
        let epoch = |epoch: u64| {
            let batches = (0..3).map(|i| images.shuffled(4, 0, 7, epoch * 3 + i));
            batches.flat_map(|b| b.targets.to_vec::<i64>().unwrap()).collect::<Vec<_>>()
        };
        let (first, second) = (epoch(0), epoch(1));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..12).collect::<Vec<i64>>());
        assert_ne!(first, second);
        assert_eq!(first, epoch(0));
    }

    #[test]
    fn shifts_stay_within_their_bound() {
        let images = numbered(8);
        let lit = |step: u64| {
            let batch = images.shuffled(8, 2, 1, step);
            let pixels = batch.inputs.to_vec::<f32>().unwrap();
            pixels.iter().enumerate().filter(|(_, v)| **v > 1.0).map(|(i, _)| i % PIXELS).collect::<Vec<_>>()
        };
        let places: Vec<usize> = (0..6).flat_map(lit).collect();
        assert_eq!(places.len(), 48);
        assert!(places.iter().all(|p| (3..=7).contains(&(p / SIDE)) && (5..=9).contains(&(p % SIDE))));
        assert!(places.iter().any(|p| *p != places[0]));
    }
}
