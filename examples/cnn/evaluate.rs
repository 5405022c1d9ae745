//! How well a network reads images: accuracy, loss, the confusion matrix, and which images it reads worst.

use tapeflow::{Forward, Module, ModuleExt, Result, no_grad};

use crate::images::{CLASSES, Images};

/// What a network made of some images.
pub struct Reading {
    /// `counts[digit][read]`
    pub counts: [[usize; CLASSES]; CLASSES],
    /// Mean cross entropy in nats.
    pub loss: f64,
    pub mistakes: Vec<Mistake>,
}

/// An image that was taken for another digit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mistake {
    pub index: usize,
    pub digit: usize,
    pub read: usize,
    /// The cross entropy of this image.
    pub loss: f64,
}

/// Images at once: bounds the memory of an evaluation.
const AT_ONCE: usize = 250;

/// Reads all images, in evaluation mode.
pub fn read(model: &(impl Module + Forward), images: &Images) -> Result<Reading> {
    let mut reading = Reading { counts: Default::default(), loss: 0.0, mistakes: Vec::new() };
    for (batch, start) in images.consecutive(AT_ONCE).epoch(0).zip((0..).step_by(AT_ONCE)) {
        let (inputs, _) = batch?;
        let scores = no_grad(|| model.eval(|| model.forward(&inputs).log_softmax(-1))).to_vec::<f32>()?;
        for (index, scores) in (start..).zip(scores.chunks(CLASSES)) {
            let digit = usize::from(images.labels[index]);
            let read = scores.iter().enumerate().fold(0, |best, (i, &s)| if s > scores[best] { i } else { best });
            let loss = -f64::from(scores[digit]);
            reading.counts[digit][read] += 1;
            reading.loss += loss / images.len() as f64;
            if read != digit {
                reading.mistakes.push(Mistake { index, digit, read, loss });
            }
        }
    }
    reading.mistakes.sort_by(|a, b| b.loss.total_cmp(&a.loss).then(a.index.cmp(&b.index)));
    Ok(reading)
}

impl Reading {
    /// The share of images read right.
    pub fn accuracy(&self) -> f64 {
        let all: usize = self.counts.iter().flatten().sum();
        let right: usize = (0..CLASSES).map(|digit| self.counts[digit][digit]).sum();
        right as f64 / all.max(1) as f64
    }

    /// The confusion matrix as a table: a line per digit, a column per what it was read as.
    pub fn table(&self) -> String {
        let mut table = String::from("digit     read as");
        for read in 0..CLASSES {
            table += &format!("{read:>5}");
        }
        for (digit, line) in self.counts.iter().enumerate() {
            let all: usize = line.iter().sum();
            let share = 100.0 * line[digit] as f64 / all.max(1) as f64;
            table += &format!("\n{digit:>5}  {share:>6.1} %  ");
            for &count in line {
                table += &if count == 0 { format!("{:>5}", "·") } else { format!("{count:>5}") };
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_counts_what_was_taken_for_what() {
        let mut reading = Reading { counts: Default::default(), loss: 0.0, mistakes: Vec::new() };
        (0..CLASSES).for_each(|digit| reading.counts[digit][digit] = 9);
        reading.counts[3][5] = 1;
        assert!((reading.accuracy() - 90.0 / 91.0).abs() < 1e-12);
        let table = reading.table();
        assert_eq!(table.lines().count(), 11);
        assert!(table.lines().nth(4).unwrap().contains("90.0 %"), "{table}");
    }
}
