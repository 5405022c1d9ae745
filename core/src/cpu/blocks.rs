//! How a product is cut: its sums into blocks of terms, which are part of the arithmetic, its result into blocks for
//! the pool. Owns these rules; they look at shapes alone, never at the number of threads.

use std::ops::Range;

use crate::program::kernel::Executable;

/// Multiplications of a block, about: enough to hide that each block packs its operands again, few enough to share out.
const BLOCK_WORK: usize = 8 << 20;
/// From this many on a product is cut in two.
pub const SPLIT_WORK: usize = 4 << 20;
/// Blocks of one product, about, at most.
const BLOCKS: usize = 16;
/// What it costs to read and pack an element of `b`, in rows: it counts where few use it.
pub const PACKING: usize = 8;
/// Blocks are multiples of the largest tile, rows of the result by columns; narrow ones, to be even, of its vectors.
const ROWS: usize = 8;
const COLUMNS: usize = 48;
const VECTOR: usize = 16;
/// From so many columns on a block is wide.
const WIDE: usize = 192;
/// Rows of `a` that pass by a panel, at most: a block of terms of them stays in the second-level cache.
pub const HEIGHT: usize = 1024;
/// Length of a block of terms, at most: a panel of `b` for the widest tiles is 36 KiB, three quarters of a first-level
/// cache of 48. Part of the arithmetic.
pub const DEPTH: usize = 192;
/// Bytes of `b` in a block of a product whose `b` passes by, about, at least; it has up to `PORTIONS` blocks of more.
const PORTION: usize = 64 << 10;
const PORTIONS: usize = 16;
/// What it costs to make an element of an operand, as an element of `b` to pack.
const MAKING: f64 = 2.0;
/// Their columns are multiples of this where columns lie side by side.
const PASSING: usize = 128;

/// An extent in parts, as even as can be: multiples of a grain, but for the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    extent: usize,
    grain: usize,
    pub count: usize,
}

impl Parts {
    /// `count` parts, or as many as there are grains; one if there is nothing.
    pub fn new(extent: usize, count: usize, grain: usize) -> Parts {
        Parts { extent, grain, count: count.clamp(1, extent.div_ceil(grain).max(1)) }
    }

    /// Where a part begins, and its extent.
    pub fn part(&self, number: usize) -> (usize, usize) {
        let grains = self.extent.div_ceil(self.grain);
        let start = |number: usize| (number * grains / self.count * self.grain).min(self.extent);
        (start(number), start(number + 1) - start(number))
    }

    /// The extent of the largest part.
    pub fn largest(&self) -> usize {
        let grains = self.extent.div_ceil(self.grain);
        (grains.div_ceil(self.count) * self.grain).min(self.extent)
    }
}

/// What is asked of a product's blocks.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Whether each has whole lines of the result.
    pub whole: bool,
    /// What their lines begin at multiples of.
    pub grain: usize,
    /// Which of the operands are made anew for each block.
    pub made: [bool; 2],
    /// Rows and columns, at most, about.
    pub most: [usize; 2],
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted { whole: false, grain: ROWS, made: [false; 2], most: [usize::MAX; 2] }
    }
}

impl Wanted {
    /// Rows of blocks, and blocks of a row, at least.
    fn least(self, m: usize, n: usize) -> [usize; 2] {
        [m.div_ceil(self.most[0]).max(1), n.div_ceil(self.most[1]).max(1)]
    }
}

/// A kernel that makes a result of lines, block by block.
pub trait Blocked: Executable {
    /// The lines of all items together, and the columns.
    fn lines(&self) -> (usize, usize);
    /// The lines and the columns that a chunk makes; `None` if its columns are no neighbours.
    fn block(&self, chunk: usize) -> Option<[Range<usize>; 2]>;
}

/// The length of a block of `k` terms.
pub fn depth(k: usize) -> usize {
    Parts::new(k, k.div_ceil(DEPTH), 16).largest().max(1)
}

/// The rows and columns of a product's blocks: of all grids with about as many blocks as wanted, the one that reads and
/// packs the least. It matters whether terms lie along rows of `a`, where they are asked for early, and columns of `b`
/// side by side.
pub fn grid((m, n, k): (usize, usize, usize), along: bool, side_by_side: bool, asked: Wanted) -> [Parts; 2] {
    let work = (m + PACKING).saturating_mul(n).saturating_mul(k);
    let least = if work >= SPLIT_WORK { 2 } else { 1 };
    let wanted = work.div_ceil(BLOCK_WORK).clamp(least, BLOCKS);
    // A remainder keeps all threads but one idle.
    let wanted = wanted.next_multiple_of(wanted.next_power_of_two().min(4));
    let [least_down, least_across] = asked.least(m, n);
    let grids = (least_down..=wanted.max(least_down)).map(|down| {
        let rows = Parts::new(m, down, asked.grain.next_multiple_of(ROWS));
        let across = if asked.whole { 1 } else { wanted.div_ceil(rows.count).max(least_across) };
        [rows, Parts::new(n, across, if n < WIDE * across { VECTOR } else { COLUMNS })]
    });
    let price = |[rows, cols]: &[Parts; 2]| {
        // Every row of blocks packs all of `b`, once for each `HEIGHT` rows, every column of blocks reads all of `a`.
        // Weights as measured.
        let [making_a, making_b] = asked.made.map(|is_made| if is_made { MAKING } else { 0.0 });
        let reading = if along { 0.1 } else { 0.3 } + making_a;
        let packing = if side_by_side { 1.0 } else { 2.0 } + making_b;
        let passes = rows.count * rows.largest().div_ceil(HEIGHT);
        let packed = (cols.count * m * k) as f64 * reading + (passes * n * k) as f64 * packing;
        let blocks = rows.count * cols.count;
        let missing = wanted.saturating_sub(blocks) as f64 / wanted as f64;
        let uneven = (rows.largest() * cols.largest() * blocks) as f64 / (m * n).max(1) as f64;
        packed * uneven * (1.0 + 2.0 * missing)
    };
    grids.min_by(|x, y| price(x).total_cmp(&price(y))).unwrap_or([Parts::new(m, 1, ROWS), Parts::new(n, 1, VECTOR)])
}

/// The parts of `n` columns that pass by in so many lanes, `column` bytes a column: of turns, one column in each lane,
/// or of columns side by side if there is one lane.
pub fn portions(n: usize, column: usize, lanes: usize, asked: Wanted) -> Parts {
    let count = (n.saturating_mul(column) / PORTION).clamp(1, PORTIONS).max(asked.least(1, n)[1]);
    Parts::new(n / lanes, count, if lanes == 1 { PASSING } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_an_extent_once() {
        for (extent, count, grain) in
            [(0, 3, 8), (1, 1, 8), (7, 9, 8), (512, 3, 8), (512, 6, 16), (2304, 16, 16), (50257, 16, 16), (100, 7, 1)]
        {
            let parts = Parts::new(extent, count, grain);
            let mut end = 0;
            for number in 0..parts.count {
                let (start, len) = parts.part(number);
                assert_eq!(start, end, "{parts:?}");
                assert!(len <= parts.largest() && (extent == 0 || len > 0), "{parts:?}: {len}");
                assert!(parts.largest() < len + 2 * grain, "{parts:?}: {len} is far from even");
                assert!(start % grain == 0, "{parts:?}");
                end += len;
            }
            assert_eq!(end, extent, "{parts:?}");
        }
    }

    #[test]
    fn blocks_of_terms_are_even_and_bounded() {
        for k in [1usize, 15, 16, 191, 192, 193, 512, 768, 1000, 4096] {
            let blocks = k.div_ceil(depth(k));
            assert!(depth(k) <= DEPTH && depth(k) * blocks >= k, "{k} in blocks of {}", depth(k));
            assert_eq!(blocks, k.div_ceil(DEPTH), "{k} in blocks of {}", depth(k));
        }
    }
}
