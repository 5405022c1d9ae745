//! The backward pass: weights are computed again from the logarithms of their sums, a strip of queries against a block
//! of keys at a time. Owns the loops. Dao 2023, arXiv:2307.08691, algorithm 2.

use std::fmt;

use tapeflow_ir::DType;

use super::rows::{Dots, Move, Weights};
use super::{CHUNK_WORK, KEYS, Lines, Operand, Panels, Scratch, Shape, Side, Strip};
use crate::cpu::CompileError;
use crate::cpu::isa::Isa;
use crate::cpu::micro::Tile;
use crate::cpu::vector::{Primitive, select};
use crate::program::kernel::{Args, AttentionVjp, Executable, Mask, RunError};

/// Fewer items than this are cut into their blocks of keys, which give partial cotangents of queries: memory for them
/// is taken where there are few.
const SPLIT: usize = 8;

/// [`AttentionVjp`], compiled.
pub struct Backward {
    of: Shape,
    /// The cotangent of the result.
    given: Side,
    /// Chunks of an item, each a block of keys or all, and items of a chunk; one of them is 1.
    blocks: usize,
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
    q: Lines,
    k: Lines,
    v: Lines,
    given: Lines,
    logs: *const f32,
    /// Cotangents of q (or part of them), k and v, and from line to line of each.
    results: [(*mut f32, usize); 3],
    /// The first block of keys that is added to the cotangents of q.
    begins: usize,
}

impl Backward {
    /// # Errors
    /// [`CompileError::Malformed`] for layouts of another rank, and half precision.
    pub fn new(vjp: &AttentionVjp, isa: Isa) -> Result<Backward, CompileError> {
        let of = Shape::new(&vjp.of, isa)?;
        if vjp.cotangent.strides.len() != vjp.of.batch.len() + 2 {
            return Err(CompileError::Malformed("a cotangent's layout has the axes of what it belongs to"));
        }
        if vjp.of.dtype != DType::F32 {
            return Err(CompileError::Malformed("cotangents of attention are those of operands in f32"));
        }
        let given = Side::new(&vjp.of.batch, &vjp.cotangent, DType::F32, isa);
        let per = of.items_of_chunk(CHUNK_WORK / 2);
        let blocks = if of.items < SPLIT { of.keys.div_ceil(KEYS).max(1) } else { 1 };
        let [dots, weights, moves] = [select::<Dots>(isa), select::<Weights<'static>>(isa), select::<Move>(isa)];
        Ok(Backward { of, given, blocks, per: if blocks > 1 { 1 } else { per }, dots, weights, moves })
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

    /// Where the cotangents of an item's queries begin, and from line to line.
    fn queries_of(&self, item: usize, result: *mut f32) -> (*mut f32, usize) {
        let (start, line) = self.of.place(item, self.of.queries, self.of.depth);
        (result.wrapping_add(start), line)
    }

    /// Elements of what a block of keys gives to an item's queries.
    fn partial(&self) -> usize {
        self.of.queries * self.of.depth
    }

    fn result(&self, args: &Args<'_>) -> *mut f32 {
        args.operands[5 + usize::from(self.of.mask == Mask::Cached)].cast()
    }

    /// Keys `from..to` of an item.
    ///
    /// # Safety
    /// As for `run_chunk`.
    unsafe fn item(&self, item: usize, (from, to): (usize, usize), args: &Args<'_>, scratch: *mut f32) {
        let of = &self.of;
        let mut scratch = Scratch(scratch);
        let parts = self.parts().map(|n| scratch.take(n));
        let [columns_k, columns_v, rows_k, rows_q, rows_given, scores, weights, sums_k, sums_v, sums_q, dots] = parts;
        // SAFETY: as our caller promised; scratch is as large as its parts.
        unsafe {
            let read = |side: &Side, number: usize, lines: usize, elements: usize| {
                side.lines(&Operand::new(args, number, item), (0, lines), elements, std::ptr::null_mut())
            };
            let (seen, forward) = (of.seen(item, args, 5), args.operands[3].cast::<f32>());
            let result = self.result(args);
            let own = match self.blocks {
                1 => self.queries_of(item, result),
                blocks => {
                    let at = (item * blocks + from / KEYS) * self.partial();
                    (args.partial.cast::<f32>().add(at), of.depth)
                }
            };
            let (q, k) = (of.items * of.queries * of.depth, of.items * of.keys * of.depth);
            let place = |from: usize, lines: usize, elements: usize| {
                let (start, line) = of.place(item, lines, elements);
                (result.add(from + start), line)
            };
            let at = Item {
                q: read(&of.q, 0, of.queries, of.depth),
                k: read(&of.k, 1, of.keys, of.depth),
                v: read(&of.v, 2, of.keys, of.width),
                given: read(&self.given, 4, of.queries, of.width),
                logs: forward.add((of.items * of.width + item) * of.queries),
                results: [own, place(q, of.keys, of.depth), place(q + k, of.keys, of.width)],
                begins: from,
            };
            let (start, line) = of.place(item, of.queries, of.width);
            Dots {
                rows: of.queries,
                n: of.width,
                a: (at.given.at, at.given.line, at.given.element),
                b: (forward.add(start), line),
                to: dots,
            }
            .run(self.dots);
            let reach = seen.at(of.queries.saturating_sub(1));
            let sums = |at: *mut f32, cols: usize| Sums { at, cols, pitch: of.panels(cols).1 };
            let (sums_q, sums_k, sums_v) = (sums(sums_q, of.depth), sums(sums_k, of.depth), sums(sums_v, of.width));
            for key in (from..to.max(1)).step_by(KEYS) {
                let keys = KEYS.min(to - key);
                // Keys that any query sees.
                let used = if of.queries == 0 { 0 } else { keys.min(reach.saturating_sub(key)) };
                for sums in [sums_k, sums_v] {
                    sums.at.write_bytes(0, keys * sums.pitch);
                }
                let by_key = of.columns(columns_k, at.k.from(key), of.depth, used);
                let by_value = of.columns(columns_v, at.v.from(key), of.width, used);
                let k = of.rows(rows_k, at.k.from(key), used, of.depth, false);
                for query in (0..of.queries).step_by(of.strip()) {
                    let rows = of.strip().min(of.queries - query);
                    let strip = Strip { seen, query, rows, key, keys: used, pitch: of.pitch() };
                    if strip.end() == 0 && key > at.begins {
                        continue;
                    }
                    let (q, given) = (at.q.from(query), at.given.from(query));
                    of.scores(&strip, of.depth, q, &by_key, scores);
                    of.scores(&strip, of.width, given, &by_value, weights);
                    let (logs, dots) = (at.logs.add(query), dots.add(query));
                    let scale = of.scale;
                    let height = of.micro.height();
                    Weights { strip: &strip, height, scores, weights, scale, logs, dots }.run(self.weights);
                    // `scores` are now the cotangents of scores.
                    self.queries(&strip, &k, scores, sums_q, &at);
                    let q = of.rows(rows_q, q, rows, of.depth, true);
                    let given = of.rows(rows_given, given, rows, of.width, true);
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
    unsafe fn queries(&self, strip: &Strip, k: &Panels, scores: *mut f32, sums: Sums, of: &Item) {
        let (to, line) = of.results[0];
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
            self.give(sums, strip.rows, (to.add(strip.query * line), line), strip.key > of.begins);
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
        self.of.items.div_ceil(self.per) * self.blocks
    }

    fn partial_bytes(&self) -> usize {
        if self.blocks > 1 { self.of.items * self.blocks * self.partial() * size_of::<f32>() } else { 0 }
    }

    fn scratch_bytes(&self) -> usize {
        Scratch::bytes(&self.parts())
    }

    fn cost(&self) -> u64 {
        50 + (self.of.items.saturating_mul(self.of.work(self.of.queries)) / 32) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let (group, block) = (chunk / self.blocks, chunk % self.blocks);
        let keys =
            if self.blocks > 1 { (block * KEYS, ((block + 1) * KEYS).min(self.of.keys)) } else { (0, self.of.keys) };
        for item in group * self.per..((group + 1) * self.per).min(self.of.items) {
            // SAFETY: operands are as described, and nobody else writes these keys' results.
            unsafe { self.item(item, keys, args, scratch.as_mut_ptr().cast()) };
        }
        Ok(())
    }

    fn has_finish(&self) -> bool {
        self.blocks > 1
    }

    /// Adds what the blocks of keys gave to the queries, in their order.
    unsafe fn finish(&self, args: &Args<'_>, _: &mut [u8]) -> Result<(), RunError> {
        let (rows, n, result) = (self.of.queries, self.of.depth, self.result(args));
        for (item, block) in (0..self.of.items * self.blocks).map(|at| (at / self.blocks, at % self.blocks)) {
            let at = (item * self.blocks + block) * self.partial();
            // SAFETY: all chunks have run; nobody else writes results.
            unsafe {
                let from = (args.partial.cast::<f32>().add(at).cast_const(), n);
                Move { rows, n, from, to: self.queries_of(item, result), add: block > 0 }.run(self.moves);
            }
        }
        Ok(())
    }
}
