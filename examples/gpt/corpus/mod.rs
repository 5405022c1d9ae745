//! The text the example trains on if it is given none: tales of a village by the sea, made by a small grammar.
//!
//! Owns the text's size, its random numbers and the order of its pieces. The text is a pure function of nothing: the
//! same bytes on every machine, so that results can be compared. What the village looks like stands in `village`, what
//! can be written about it in `pieces`, `talk` and `verse`.

mod pieces;
mod talk;
mod verse;
mod village;

use village::Words;

/// The length at which the text ends, at the next end of a piece.
const BYTES: usize = 400_000;

/// The whole text, about 400 KB of plain ASCII, its pieces parted by empty lines.
pub fn text() -> String {
    let mut words = Words::new(Random::new(1926));
    let mut text = String::with_capacity(BYTES + 4096);
    while text.len() < BYTES {
        let piece = match words.random.below(20) {
            0..=6 => pieces::tale(&mut words),
            7..=11 => talk::dialogue(&mut words),
            12 | 13 => verse::rhyme(&mut words),
            14 => verse::counting(&mut words),
            15 | 16 => pieces::letter(&mut words),
            17 => pieces::log(&mut words),
            18 => talk::riddles(&mut words),
            _ => pieces::how_to(&mut words),
        };
        text.push_str(piece.trim_end());
        text.push_str("\n\n");
    }
    text
}

/// SplitMix64 (Steele, Lea & Flood 2014): integer arithmetic only, hence the same everywhere.
pub struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `n`; the bias of a few in 2³² does not matter here.
    fn below(&mut self, n: usize) -> usize {
        ((self.next() >> 32).wrapping_mul(n as u64) >> 32) as usize
    }

    fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_the_same_everywhere() {
        let text = text();
        // FNV-1a, 64 bits.
        let hash = text.bytes().fold(0xCBF2_9CE4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01B3));
        assert_eq!((text.len(), hash), (400_383, 12_386_389_521_651_248_638));
    }

    #[test]
    fn the_text_is_clean() {
        let text = text();
        assert!(text.is_ascii());
        assert!(!text.contains("  ") && !text.contains("\n\n\n") && !text.contains(" \n") && !text.contains('{'));
        let words: std::collections::BTreeSet<String> =
            text.split(|c: char| !c.is_ascii_alphabetic()).map(str::to_lowercase).collect();
        assert!((400..900).contains(&words.len()), "{} words", words.len());
        // No piece takes more than its share by being said again and again.
        let pieces: Vec<&str> = text.split("\n\n").collect();
        let distinct: std::collections::BTreeSet<&str> = pieces.iter().copied().collect();
        assert!(distinct.len() * 100 > pieces.len() * 95, "{} of {} pieces differ", distinct.len(), pieces.len());
    }
}
