//! Images with their labels, as a data set, and the batches made of them.

use tapeflow::data::{DataLoader, Dataset};
use tapeflow::{Generator, Result};

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

    /// For training: in a new order every epoch, each image shifted at random by `shift` pixels at most.
    pub fn shuffled(&self, batch: usize, shift: usize, seed: u64) -> Batches {
        let shifted = move |(image, label): (Image, u8), generator: &Generator| {
            let by = || generator.below(2 * shift + 1) as isize - shift as isize;
            let (down, across) = (by(), by());
            Ok((seen(&image, down, across), i64::from(label)))
        };
        DataLoader::new(self.clone(), batch).shuffle(seed).drop_last(true).map(shifted)
    }

    /// For testing: in order, as they are.
    pub fn consecutive(&self, batch: usize) -> Batches {
        DataLoader::new(self.clone(), batch).map(|(image, label), _| Ok((seen(&image, 0, 0), i64::from(label))))
    }
}

/// The pixels of one image.
pub type Image = [u8; PIXELS];
/// An image as the network sees it, and the digit it shows.
pub type Sample = ([[[f32; SIDE]; SIDE]; 1], i64);
/// Batches `(N, 1, 28, 28)` with digits `(N,)`.
pub type Batches = DataLoader<Images, Sample>;

impl Dataset for Images {
    type Sample = (Image, u8);

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn get(&self, index: usize) -> Result<(Image, u8)> {
        let mut image = [0; PIXELS];
        image.copy_from_slice(self.image(index));
        Ok((image, self.labels[index]))
    }
}

/// An image moved, with what training takes as origin and unit.
fn seen(image: &Image, down: isize, across: isize) -> [[[f32; SIDE]; SIDE]; 1] {
    let at = |row: isize, col: isize| match (usize::try_from(row), usize::try_from(col)) {
        (Ok(row), Ok(col)) if row < SIDE && col < SIDE => image[row * SIDE + col],
        _ => 0,
    };
    let value = |row: usize, col: usize| f32::from(at(row as isize - down, col as isize - across));
    let line = |row: usize| std::array::from_fn(|col| (value(row, col) / 255.0 - MEAN) / DEVIATION);
    [std::array::from_fn(line)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_stay_within_their_bound() {
        let mut pixels = vec![0; 8 * PIXELS];
        (0..8).for_each(|i| pixels[i * PIXELS + 5 * SIDE + 7] = 255);
        let images = Images { pixels, labels: (0..8).collect() };
        let batches = images.shuffled(8, 2, 1);
        let lit = |step: u64| {
            let pixels = batches.batch(step).unwrap().0.to_vec::<f32>().unwrap();
            pixels.iter().enumerate().filter(|(_, v)| **v > 1.0).map(|(i, _)| i % PIXELS).collect::<Vec<_>>()
        };
        let places: Vec<usize> = (0..6).flat_map(lit).collect();
        assert_eq!(places.len(), 48);
        assert!(places.iter().all(|p| (3..=7).contains(&(p / SIDE)) && (5..=9).contains(&(p % SIDE))));
        assert!(places.iter().any(|p| *p != places[0]));
        let (inputs, digits) = images.consecutive(8).batch(0).unwrap();
        assert_eq!((inputs.dims(), digits.dims()), ([8, 1, SIDE, SIDE], [8]));
        assert!(inputs.to_vec::<f32>().unwrap()[5 * SIDE + 7] > 1.0);
    }
}
