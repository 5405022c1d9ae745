//! The backward pass: weights are computed again from the logarithms of their sums, a strip of queries against a block
//! of keys at a time. Owns the loops. Dao 2023, arXiv:2307.08691, algorithm 2.

use std::fmt;

use super::rows::{Dots, Move, Weights};
use super::{CHUNK_WORK, KEYS, Panels, Scratch, Shape, Side, Strip};
use crate::cpu::CompileError;
use crate::cpu::isa::Isa;
use crate::cpu::micro::{Element, Tile};
use crate::cpu::vector::{Primitive, select};
use crate::program::kernel::{Args, AttentionVjp, Executable, Mask, RunError};

/// [`AttentionVjp`], compiled.
pub struct Backward {
    of: Shape,
    /// The cotangent of the result.
    given: Side,
    /// Items of a chunk.
    per: usize,
    dots: Primitive,
    weights: Primitive,
    moves: Primitive,
}

impl fmt::Debug for Backward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { items, queries, keys, depth, width, .. } = self.of;
        write!(f, "AttentionVjp({items}x{queries}x{keys}, {depth}, {width})")
    }
}

/// Sums of a block of keys' cotangents, or of a strip's: `cols` columns, `pitch` apart.
#[derive(Clone, Copy)]
struct Sums {
    at: *mut f32,
    cols: usize,
    pitch: usize,
}

/// Where an item's operands and results begin.
struct Item {
    q: *const f32,
    k: *const f32,
    v: *const f32,
    given: *const f32,
    logs: *const f32,
    /// Cotangents of q, k and v, and from line to line of each.
    results: [(*mut f32, usize); 3],
}

impl Backward {
    /// # Errors
    /// [`CompileError::Malformed`] for layouts of another rank.
    pub fn new(vjp: &AttentionVjp, isa: Isa) -> Result<Backward, CompileError> {
        let of = Shape::new(&vjp.of, f32::micro(isa))?;
        if vjp.cotangent.strides.len() != vjp.of.batch.len() + 2 {
            return Err(CompileError::Malformed("a cotangent's layout has the axes of what it belongs to"));
        }
        let given = Side::new(&vjp.of.batch, &vjp.cotangent);
        let per = (CHUNK_WORK / 2 / of.work(of.queries).max(1)).clamp(1, of.items.max(1));
        let [dots, weights, moves] = [select::<Dots>(isa), select::<Weights<'static>>(isa), select::<Move>(isa)];
        Ok(Backward { of, given, per, dots, weights, moves })
    }

    /// Elements of: keys and values by columns, keys by rows, queries and cotangents of a strip, scores, weights, sums
    /// for keys, for values and for queries, and the products of cotangents and results.
    fn parts(&self) -> [usize; 11] {
        let of = &self.of;
        let (keys, strip) = (KEYS.min(of.keys), of.strip());
        let (columns, depth, width) = (of.panels(keys).1, of.panels(of.depth).1, of.panels(of.width).1);
        let scores = strip * of.pitch();
        [
            columns * of.depth,
            columns * of.width,
            keys * depth,
            strip * depth,
            strip * width,
            scores,
            scores,
            keys * depth,
            keys * width,
            strip * depth,
            of.queries,
        ]
    }

    /// # Safety
    /// As for `run_chunk`.
    unsafe fn item(&self, item: usize, args: &Args<'_>, scratch: *mut f32) {
        let of = &self.of;
        let cached = usize::from(of.mask == Mask::Cached);
        let mut scratch = Scratch(scratch);
        let parts = self.parts().map(|n| scratch.take(n));
        let [columns_k, columns_v, rows_k, rows_q, rows_given, scores, weights, sums_k, sums_v, sums_q, dots] = parts;
        // SAFETY: as our caller promised; scratch is as large as its parts.
        unsafe {
            let read = |side: &Side, operand: usize| side.of(args.operands[operand], item, args.scalars);
            let (seen, forward) = (of.seen(item, args, 5), args.operands[3].cast::<f32>());
            let result = args.operands[5 + cached].cast::<f32>();
            let (q, k) = (of.items * of.queries * of.depth, of.items * of.keys * of.depth);
            let place = |from: usize, lines: usize, elements: usize| {
                let (start, line) = of.place(item, lines, elements);
                (result.add(from + start), line)
            };
            let at = Item {
                q: read(&of.q, 0),
                k: read(&of.k, 1),
                v: read(&of.v, 2),
                given: read(&self.given, 4),
                logs: forward.add((of.items * of.width + item) * of.queries),
                results: [place(0, of.queries, of.depth), place(q, of.keys, of.depth), place(q + k, of.keys, of.width)],
            };
            let (start, line) = of.place(item, of.queries, of.width);
            Dots {
                rows: of.queries,
                n: of.width,
                a: (at.given, self.given.line, self.given.element),
                b: (forward.add(start), line),
                to: dots,
            }
            .run(self.dots);
            let reach = seen.at(of.queries.saturating_sub(1));
            let sums = |at: *mut f32, cols: usize| Sums { at, cols, pitch: of.panels(cols).1 };
            let (sums_q, sums_k, sums_v) = (sums(sums_q, of.depth), sums(sums_k, of.depth), sums(sums_v, of.width));
            for key in (0..of.keys.max(1)).step_by(KEYS) {
                let keys = KEYS.min(of.keys - key);
                // Keys that any query sees.
                let used = if of.queries == 0 { 0 } else { keys.min(reach.saturating_sub(key)) };
                for sums in [sums_k, sums_v] {
                    sums.at.write_bytes(0, keys * sums.pitch);
                }
                let (k, v) = (at.k.offset(key as isize * of.k.line), at.v.offset(key as isize * of.v.line));
                let by_key = of.pack(columns_k, k, (of.k.element, of.k.line), of.depth, used);
                let by_value = of.pack(columns_v, v, (of.v.element, of.v.line), of.width, used);
                let k = of.lines(rows_k, k, &of.k, used, of.depth, false);
                for query in (0..of.queries).step_by(of.strip()) {
                    let rows = of.strip().min(of.queries - query);
                    let strip = Strip { seen, query, rows, key, keys: used, pitch: of.pitch() };
                    if strip.end() == 0 && key > 0 {
                        continue;
                    }
                    let q = at.q.offset(query as isize * of.q.line);
                    let given = at.given.offset(query as isize * self.given.line);
                    of.scores(&strip, of.depth, q, (of.q.line, of.q.element), &by_key, scores);
                    of.scores(&strip, of.width, given, (self.given.line, self.given.element), &by_value, weights);
                    let (logs, dots) = (at.logs.add(query), dots.add(query));
                    let scale = of.scale;
                    let height = of.micro.height();
                    Weights { strip: &strip, height, scores, weights, scale, logs, dots }.run(self.weights);
                    // `scores` are now the cotangents of scores.
                    self.queries(&strip, &k, scores, sums_q, at.results[0]);
                    let q = of.lines(rows_q, q, &of.q, rows, of.depth, true);
                    let given = of.lines(rows_given, given, &self.given, rows, of.width, true);
                    self.keys(&strip, weights, &given, sums_v);
                    self.keys(&strip, scores, &q, sums_k);
                }
                for (sums, (to, line)) in [sums_k, sums_v].into_iter().zip(&at.results[1..]) {
                    self.give(sums, keys, (to.add(key * line), *line), false);
                }
            }
        }
    }

    /// Adds the strip's part of the cotangents of queries.
    ///
    /// # Safety
    /// As for `item`.
    unsafe fn queries(&self, strip: &Strip, k: &Panels, scores: *mut f32, sums: Sums, (to, line): (*mut f32, usize)) {
        let height = self.of.micro.height();
        // SAFETY: as our caller promised.
        unsafe {
            for r in (0..strip.rows).step_by(height) {
                let rows = height.min(strip.rows - r);
                let a = scores.add(r * strip.pitch);
                let tile = Tile {
                    k: strip.count(r + rows - 1),
                    a,
                    a_step: (strip.pitch as isize, 1),
                    b: a,
                    b_step: 0,
                    c: sums.at.add(r * sums.pitch),
                    pitch: sums.pitch,
                    add: false,
                };
                self.of.product(k, sums.cols, rows, tile);
            }
            self.give(sums, strip.rows, (to.add(strip.query * line), line), strip.key > 0);
        }
    }

    /// Adds the strip's part of sums that belong to keys: of `lines` of its queries, times what each has for the key.
    ///
    /// # Safety
    /// As for `item`.
    unsafe fn keys(&self, strip: &Strip, of: *const f32, lines: &Panels, sums: Sums) {
        let height = self.of.micro.height();
        for j in (0..strip.end()).step_by(height) {
            let rows = height.min(strip.keys - j);
            let first = strip.seen.first(strip.key + j, strip.query..strip.query + strip.rows) - strip.query;
            // SAFETY: as our caller promised; the rows from `first` on have something for all these keys.
            unsafe {
                let a = of.add(first * strip.pitch + j);
                let tile = Tile {
                    k: strip.rows - first,
                    a,
                    a_step: (1, strip.pitch as isize),
                    b: a,
                    b_step: 0,
                    c: sums.at.add(j * sums.pitch),
                    pitch: sums.pitch,
                    add: true,
                };
                let lines = Panels { at: lines.at.offset(first as isize * lines.row), ..*lines };
                self.of.product(&lines, sums.cols, rows, tile);
            }
        }
    }

    /// Writes sums to the result, or adds them.
    ///
    /// # Safety
    /// As for `item`.
    unsafe fn give(&self, sums: Sums, rows: usize, to: (*mut f32, usize), add: bool) {
        let of = Move { rows, n: sums.cols, from: (sums.at.cast_const(), sums.pitch), to, add };
        // SAFETY: as our caller promised.
        unsafe { of.run(self.moves) }
    }
}

impl Executable for Backward {
    fn chunks(&self) -> usize {
        self.of.items.div_ceil(self.per)
    }

    fn scratch_bytes(&self) -> usize {
        Scratch::bytes(&self.parts())
    }

    fn cost(&self) -> u64 {
        50 + (self.of.items.saturating_mul(self.of.work(self.of.queries)) / 32) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        for item in chunk * self.per..((chunk + 1) * self.per).min(self.of.items) {
            // SAFETY: operands are as described, and nobody else writes this item's results.
            unsafe { self.item(item, args, scratch.as_mut_ptr().cast()) };
        }
        Ok(())
    }
}
