//! The forward pass: weights of a strip of queries, normalised as blocks of keys come by. Owns the loops.

use std::fmt;

use super::rows::{Finish, Softmax};
use super::{CHUNK_WORK, KEYS, Operand, Scratch, Shape, Strip};
use crate::cpu::CompileError;
use crate::cpu::isa::Isa;
use crate::cpu::micro::Tile;
use crate::cpu::vector::{Primitive, select};
use crate::program::kernel::{Args, Attention, Executable, Mask, RunError};

/// Queries of a chunk: what is packed for them is packed again for the next.
const QUERIES: usize = 256;

/// [`Attention`], compiled.
pub struct Forward {
    of: Shape,
    /// Chunks of an item, and items of a chunk; one of them is 1.
    blocks: usize,
    per: usize,
    softmax: Primitive,
    finish: Primitive,
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { items, queries, keys, depth, width, .. } = self.of;
        write!(f, "Attention({items}x{queries}x{keys}, {depth}, {width})")
    }
}

impl Forward {
    /// # Errors
    /// [`CompileError::Malformed`] for layouts of another rank and other dtypes.
    pub fn new(of: &Attention, isa: Isa) -> Result<Forward, CompileError> {
        let of = Shape::new(of, isa)?;
        let blocks = of.queries.div_ceil(QUERIES);
        let per = match blocks {
            0 | 1 => of.items_of_chunk(CHUNK_WORK),
            _ => 1,
        };
        Ok(Forward { of, blocks, per, softmax: select::<Softmax<'static>>(isa), finish: select::<Finish>(isa) })
    }

    /// Elements of keys, values, a strip, its sums of values, each query's largest score and sum, and of what is
    /// widened: queries of a strip; keys, then values.
    fn parts(&self) -> [usize; 7] {
        let of = &self.of;
        let keys = KEYS.min(of.keys);
        // Sums of values wait for further keys if there are more than a block.
        let waiting = if of.keys > KEYS { QUERIES.min(of.queries) } else { of.strip() };
        let width = of.panels(of.width).1;
        let (queries, lines) = match of.k.widen {
            Some(_) => (of.strip() * of.depth, keys * of.depth.max(of.width)),
            None => (0, 0),
        };
        [of.panels(keys).1 * of.depth, keys * width, of.strip() * of.pitch(), waiting * width, waiting, queries, lines]
    }

    /// Queries `from..to` of an item.
    ///
    /// # Safety
    /// As for `run_chunk`.
    unsafe fn item(&self, item: usize, (from, to): (usize, usize), args: &Args<'_>, scratch: *mut f32) {
        let of = &self.of;
        let [q, k, v] = [0, 1, 2].map(|number| Operand::new(args, number, item));
        let cached = of.mask == Mask::Cached;
        // SAFETY: as our caller promised; the result is y and then a logarithm for each query.
        unsafe {
            let seen = of.seen(item, args, 3);
            let result = args.operands[3 + usize::from(cached)].cast::<f32>();
            let (start, line) = of.place(item, of.queries, of.width);
            let y = result.add(start);
            let logs = result.add((of.items * of.width + item) * of.queries);
            let [a, b, c, d, e, f, g] = self.parts();
            let mut scratch = Scratch(scratch);
            let parts = [a, b, c, d, e, e, f, g].map(|n| scratch.take(n));
            let [packed_k, packed_v, scores, sums, largest, total, wide_q, wide] = parts;
            let (pitch, width) = (of.pitch(), of.panels(of.width).1);
            let (reach, height) = (seen.at(to - 1), of.micro.height());
            for key in (0..reach.max(1)).step_by(KEYS) {
                let keys = KEYS.min(reach - key);
                let k = of.columns(packed_k, of.k.lines(&k, (key, keys), of.depth, wide), of.depth, keys);
                let v = of.v.lines(&v, (key, keys), of.width, wide);
                let v = of.rows(packed_v, v, keys, of.width, to - from <= height);
                for query in (from..to).step_by(of.strip()) {
                    let rows = of.strip().min(to - query);
                    let strip = Strip { seen, query, rows, key, keys, pitch };
                    if strip.end() == 0 && key > 0 {
                        continue;
                    }
                    let waiting = if of.keys > KEYS { query - from } else { 0 };
                    let sums = sums.add(waiting * width);
                    let (largest, total) = (largest.add(waiting), total.add(waiting));
                    let q = of.q.lines(&q, (query, rows), of.depth, wide_q);
                    of.scores(&strip, of.depth, q, &k, scores);
                    for r in (0..rows).step_by(height) {
                        let rows = height.min(rows - r);
                        let end = strip.count(r + rows - 1);
                        let (at, sums) = (scores.add(r * pitch), sums.add(r * width));
                        Softmax {
                            strip: &strip,
                            rows: (r, rows),
                            end,
                            at,
                            scale: of.scale,
                            largest: largest.add(r),
                            total: total.add(r),
                            sums: (sums, width),
                        }
                        .run(self.softmax);
                        let tile = Tile {
                            k: end,
                            a: at,
                            a_step: (pitch as isize, 1),
                            b: at,
                            b_step: 0,
                            c: sums,
                            pitch: width,
                            add: key > 0,
                        };
                        of.product(&v, of.width, rows, tile);
                    }
                    if seen.at(query + rows - 1) <= key + KEYS {
                        Finish {
                            rows,
                            of: (sums.cast_const(), width, of.width),
                            largest,
                            total,
                            empty: of.keys == 0,
                            y: (y.add(query * line), line),
                            logs: logs.add(query),
                        }
                        .run(self.finish);
                    }
                }
            }
        }
    }
}

impl Executable for Forward {
    fn chunks(&self) -> usize {
        self.of.items.div_ceil(self.per) * self.blocks
    }

    fn scratch_bytes(&self) -> usize {
        let [a, b, c, d, e, f, g] = self.parts();
        Scratch::bytes(&[a, b, c, d, e, e, f, g])
    }

    fn cost(&self) -> u64 {
        50 + (self.of.items.saturating_mul(self.of.work(self.of.queries)) / 80) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let (group, block) = (chunk / self.blocks, chunk % self.blocks);
        let queries = (block * QUERIES, ((block + 1) * QUERIES).min(self.of.queries));
        for item in group * self.per..((group + 1) * self.per).min(self.of.items) {
            // SAFETY: operands are as described, and nobody else writes these queries' results.
            unsafe { self.item(item, queries, args, scratch.as_mut_ptr().cast()) };
        }
        Ok(())
    }
}
