//! Random words as a pure function of a counter: Philox4x32-10 of Salmon, Moraes, Dror & Shaw, *Parallel Random
//! Numbers: As Easy as 1, 2, 3*, SC 2011. Owns the generator and the layout of streams; every device gives these bits.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Four random words from a 128-bit counter and a 64-bit key.
#[inline(always)]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut k, mut l]) = (counter, key);
    for _ in 0..ROUNDS {
        let p = u64::from(MULTIPLIERS[0]) * u64::from(a);
        let q = u64::from(MULTIPLIERS[1]) * u64::from(c);
        (a, b, c, d) = ((q >> 32) as u32 ^ b ^ k, q as u32, (p >> 32) as u32 ^ d ^ l, p as u32);
        (k, l) = (k.wrapping_add(WEYL[0]), l.wrapping_add(WEYL[1]));
    }
    [a, b, c, d]
}

/// A uniform f32 in [0, 1): the 24 high bits of a word, times 2⁻²⁴.
#[inline(always)]
pub fn uniform(word: u32) -> f32 {
    // Through i32, whose conversion every vector unit has; 24 bits are exact in it.
    (word >> 8) as i32 as f32 * (1.0 / 16_777_216.0)
}

/// One stream of words, addressed by number.
///
/// Word `w` of stream (seed, counter, ordinal) is word `w mod 4` of Philox with the seed as key and the counter
/// `[⌊w/4⌋ low, ordinal, counter low, counter high ⊕ ⌊w/4⌋ high]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Of the generator.
    pub seed: u64,
    /// How often the generator has been drawn from.
    pub counter: u64,
    /// Which draw of a program.
    pub ordinal: u32,
}

impl Stream {
    /// Words `4·block ..= 4·block + 3`.
    #[inline(always)]
    pub fn block(&self, block: u64) -> [u32; 4] {
        let high = (self.counter >> 32) as u32 ^ (block >> 32) as u32;
        philox4x32(
            [block as u32, self.ordinal, self.counter as u32, high],
            [self.seed as u32, (self.seed >> 32) as u32],
        )
    }

    /// Word number `word`.
    pub fn word(&self, word: u64) -> u32 {
        self.block(word / 4)[(word % 4) as usize]
    }

    /// Uniform values of the words from `first` on.
    #[inline(always)]
    pub fn fill(&self, first: u64, out: &mut [f32]) {
        /// Blocks made at once, so that the rounds become vector code.
        const WIDTH: usize = 16;
        let head = ((4 - first % 4) % 4).min(out.len() as u64) as usize;
        let (start, out) = out.split_at_mut(head);
        for (i, out) in start.iter_mut().enumerate() {
            *out = uniform(self.word(first + i as u64));
        }
        let mut block = (first + head as u64) / 4;
        let mut groups = out.chunks_exact_mut(4 * WIDTH);
        for group in &mut groups {
            let mut blocks = [[0; 4]; WIDTH];
            for (l, words) in blocks.iter_mut().enumerate() {
                *words = self.block(block.wrapping_add(l as u64));
            }
            for (out, &word) in group.iter_mut().zip(blocks.as_flattened()) {
                *out = uniform(word);
            }
            block = block.wrapping_add(WIDTH as u64);
        }
        for (i, out) in groups.into_remainder().iter_mut().enumerate() {
            *out = uniform(self.block(block.wrapping_add(i as u64 / 4))[i % 4]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of Random123's `kat_vectors`, lines `philox4x32 10`.
    #[test]
    fn known_answers() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32(counter, key), expected);
        }
    }

    #[test]
    fn filling_gives_the_words_in_order_from_any_start() {
        let stream = Stream { seed: 0x1234_5678_9abc_def0, counter: 7 << 31, ordinal: 3 };
        for first in [0, 1, 2, 3, 17, (1 << 34) - 5] {
            for n in [0, 1, 3, 5, 64, 131, 300] {
                let mut out = vec![-1.0; n];
                stream.fill(first, &mut out);
                for (i, &value) in out.iter().enumerate() {
                    assert_eq!(value, uniform(stream.word(first + i as u64)));
                    assert!((0.0..1.0).contains(&value));
                }
            }
        }
    }
}
