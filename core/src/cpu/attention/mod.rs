//! Attention in one pass: blocks of scores that never leave the cache. Owns how operands are read, which keys a query
//! sees, and the tiles of the products; the arithmetic of rows is `rows`', the order of the loops `forward`'s and
//! `backward`'s.
//!
//! A row of the result depends on the query and the keys it sees alone: scores are chains along D, weights are summed
//! over 16 lanes by the key's number and then in a tree, values are chains along the keys of a block. So its bits are
//! those of a longer sequence, or of a single query against a cache. Dao 2023, arXiv:2307.08691.

mod backward;
mod forward;
mod rows;

pub use backward::Backward;
pub use forward::Forward;

use tapeflow_ir::DType;

use super::isa::Isa;
use super::micro::{Element, Micro, Tile};
use super::pack::Columns;
use super::space::Walk;
use super::vector::{Call, Primitive};
use super::{CompileError, table};
use crate::program::kernel::{Args, Attention, Layout, Mask};

/// Keys of a block: their weights are summed before those of the next. Part of the arithmetic.
const KEYS: usize = 512;
/// Tiles of a strip of queries, one above the other: the panels of keys stay in the first-level cache for so many.
const STRIP: usize = 4;
/// Multiplications that make a chunk worth its start.
const CHUNK_WORK: usize = 2 << 20;
/// What packing a key costs, in queries.
const PACKING: usize = 8;
/// Elements that rows are worked on together: the longest vector's.
const BLOCK: usize = super::vector::BLOCK;

/// How an operand is read: from line to line and from element to element, and what widens half precision.
struct Side {
    items: Walk,
    line: isize,
    element: isize,
    widen: Option<Primitive>,
}

impl Side {
    fn new(batch: &[usize], layout: &Layout, dtype: DType, isa: Isa) -> Side {
        let [.., line, element] = layout.strides[..] else { unreachable!("invariant: a layout over lines") };
        Side { items: Walk::new(batch, layout), line, element, widen: table::cast(isa, dtype, DType::F32) }
    }

    /// The lines of an item from `first` on, `count` of them with `elements` elements: as they lie, or widened to
    /// `dst`.
    ///
    /// # Safety
    /// The operand is the kernel's and has those lines; `dst` has room for them if they are widened.
    unsafe fn lines(&self, of: &Operand<'_>, (first, count): (usize, usize), elements: usize, dst: *mut f32) -> Lines {
        let at = self.items.offset(of.item) + self.items.shift(of.scalars) + first as isize * self.line;
        let base = of.base.cast_const();
        // SAFETY: the layout stays within the operand.
        unsafe {
            let Some(widen) = self.widen else {
                return Lines { at: base.cast::<f32>().offset(at), line: self.line, element: self.element };
            };
            let src = base.cast::<u16>().offset(at);
            let widened = |dst: *mut f32, src: *const u16, cols: usize| {
                widen(&Call { dst: dst.cast(), src: [src.cast(); 3], step: [0; 3], rows: 1, cols });
            };
            match (self.line, self.element) {
                (line, 1) if line == elements as isize => widened(dst, src, count * elements),
                (line, 1) => {
                    (0..count).for_each(|r| widened(dst.add(r * elements), src.offset(r as isize * line), elements));
                }
                (line, element) => {
                    let mut block = [0; BLOCK];
                    for (r, j) in (0..count).flat_map(|r| (0..elements).step_by(BLOCK).map(move |j| (r, j))) {
                        let cols = BLOCK.min(elements - j);
                        let src = src.offset(r as isize * line + j as isize * element);
                        (0..cols).for_each(|l| block[l] = *src.offset(l as isize * element));
                        widened(dst.add(r * elements + j), block.as_ptr(), cols);
                    }
                }
            }
        }
        Lines { at: dst, line: elements as isize, element: 1 }
    }
}

/// An item of an operand.
#[derive(Clone, Copy)]
struct Operand<'a> {
    base: *mut u8,
    item: usize,
    scalars: &'a [u64],
}

impl<'a> Operand<'a> {
    fn new(args: &Args<'a>, number: usize, item: usize) -> Operand<'a> {
        Operand { base: args.operands[number], item, scalars: args.scalars }
    }
}

/// Lines of an operand, in f32.
#[derive(Clone, Copy)]
struct Lines {
    at: *const f32,
    line: isize,
    element: isize,
}

impl Lines {
    /// Those from `number` on.
    fn from(self, number: usize) -> Lines {
        Lines { at: self.at.wrapping_offset(number as isize * self.line), ..self }
    }
}

/// What forward and backward share: extents, operands, the instruction set's products.
struct Shape {
    items: usize,
    /// Items of a row of the cache.
    per_row: usize,
    /// The last batch axis, which lies within a line of a result.
    heads: usize,
    queries: usize,
    keys: usize,
    depth: usize,
    width: usize,
    mask: Mask,
    scale: f32,
    q: Side,
    k: Side,
    v: Side,
    micro: &'static Micro<f32>,
}

impl Shape {
    fn new(of: &Attention, isa: Isa) -> Result<Shape, CompileError> {
        if !of.is_well_formed() {
            return Err(CompileError::Malformed("attention's layouts have its batch axes, lines and elements"));
        }
        let [q, k, v] = [&of.q, &of.k, &of.v].map(|layout| Side::new(&of.batch, layout, of.dtype, isa));
        Ok(Shape {
            items: of.items(),
            per_row: of.batch.iter().skip(1).product(),
            heads: of.batch.last().copied().unwrap_or(1),
            queries: of.queries,
            keys: of.keys,
            depth: of.depth,
            width: of.width,
            mask: of.mask,
            scale: (1.0 / (of.depth.max(1) as f64).sqrt()) as f32,
            q,
            k,
            v,
            micro: f32::micro(isa),
        })
    }

    /// Multiplications of `queries` queries of an item, packing included.
    fn work(&self, queries: usize) -> usize {
        let keys = if self.mask == Mask::Causal { self.keys - self.queries / 2 } else { self.keys };
        (queries + PACKING).saturating_mul(keys).saturating_mul(self.depth + self.width)
    }

    /// Items of a chunk, where an item is no more than one, of at least so many multiplications. A multiple of four
    /// chunks, if there are so many items: a remainder would keep all threads but one idle.
    fn items_of_chunk(&self, least: usize) -> usize {
        let per = (least / self.work(self.queries).max(1)).clamp(1, self.items.max(1));
        let chunks = self.items.div_ceil(per).next_multiple_of(4);
        self.items.div_ceil(chunks.max(1)).max(1)
    }

    /// The element of a result in the order (B, lines, H, elements) where an item begins, and from line to line.
    fn place(&self, item: usize, lines: usize, elements: usize) -> (usize, usize) {
        let (row, head) = (item / self.heads, item % self.heads);
        ((row * lines * self.heads + head) * elements, self.heads * elements)
    }

    /// What the queries of an item see; the places are operand `first`.
    ///
    /// # Safety
    /// The operands are the kernel's.
    unsafe fn seen(&self, item: usize, args: &Args<'_>, first: usize) -> Seen {
        let base = match self.mask {
            Mask::None => self.keys as i64,
            Mask::Causal => (self.keys - self.queries) as i64 + 1,
            // SAFETY: one place for each row of the cache.
            Mask::Cached => unsafe { *args.operands[first].cast::<i64>().add(item / self.per_row) }.saturating_add(1),
        };
        Seen { base, slope: i64::from(self.mask != Mask::None), keys: self.keys }
    }

    /// Queries of a strip.
    fn strip(&self) -> usize {
        (STRIP * self.micro.height()).min(self.queries).max(1)
    }

    /// How `cols` columns are packed: vectors of a panel, as even as can be, and elements of a row of all panels.
    fn panels(&self, cols: usize) -> (usize, usize) {
        let (lanes, widest) = (self.micro.lanes, self.micro.vectors());
        let vectors = cols.div_ceil(lanes).max(1);
        let each = vectors.div_ceil(vectors.div_ceil(widest));
        (each, vectors.div_ceil(each) * each * lanes)
    }

    /// From row to row of a strip of scores.
    fn pitch(&self) -> usize {
        self.panels(KEYS.min(self.keys)).1.next_multiple_of(BLOCK)
    }

    /// Lines of `cols` elements as rows of panels: as they lie, or packed to `dst`.
    ///
    /// # Safety
    /// `rows` rows can be read; `dst` has as many rows of panels as there are, if they are packed.
    unsafe fn rows(&self, dst: *mut f32, src: Lines, rows: usize, cols: usize, few: bool) -> Panels {
        let contiguous = few || src.line == cols as isize;
        if src.element == 1 && cols.is_multiple_of(self.micro.lanes) && contiguous {
            let vectors = self.panels(cols).0;
            return Panels { at: src.at, vectors, next: vectors * self.micro.lanes, row: src.line };
        }
        // SAFETY: as our caller promised.
        unsafe { self.pack(dst, src.at, (src.line, src.element), rows, cols) }
    }

    /// Lines of `k` elements as columns of panels, packed to `dst`.
    ///
    /// # Safety
    /// As for `rows`.
    unsafe fn columns(&self, dst: *mut f32, src: Lines, k: usize, cols: usize) -> Panels {
        // SAFETY: as our caller promised.
        unsafe { self.pack(dst, src.at, (src.element, src.line), k, cols) }
    }

    /// Packs `k` rows of `cols` columns that lie `step` apart.
    ///
    /// # Safety
    /// As for `rows`.
    unsafe fn pack(&self, dst: *mut f32, src: *const f32, step: (isize, isize), k: usize, cols: usize) -> Panels {
        let vectors = self.panels(cols).0;
        let width = vectors * self.micro.lanes;
        for j in (0..cols).step_by(width) {
            // SAFETY: as our caller promised.
            unsafe {
                let (dst, src) = (dst.add(j * k), src.offset(j as isize * step.1));
                let cols = width.min(cols - j);
                (self.micro.columns)(&Columns { dst, width, src, row: step.0, col: step.1, k, cols });
            }
        }
        Panels { at: dst, vectors, next: width * k, row: width as isize }
    }

    /// A tile of a product: rows of `a` by the first `vectors` vectors of panel `number` of `b`.
    ///
    /// # Safety
    /// As for [`super::micro::TileFn`].
    #[inline(always)]
    unsafe fn tile(&self, b: &Panels, number: usize, size: (usize, usize), mut tile: Tile<f32>) {
        let (rows, vectors) = size;
        // SAFETY: as our caller promised.
        unsafe {
            tile.b = b.at.add(number * b.next);
            tile.b_step = b.row;
            self.micro.tiles[vectors - 1][rows - 1](&tile);
        }
    }

    /// `rows` rows of `a` by all of `b`, whose rows are `cols` columns.
    ///
    /// # Safety
    /// As for `tile`.
    unsafe fn product(&self, b: &Panels, cols: usize, rows: usize, tile: Tile<f32>) {
        let all = cols.div_ceil(self.micro.lanes);
        for (number, at) in (0..all).step_by(b.vectors).enumerate() {
            let c = tile.c.wrapping_add(at * self.micro.lanes);
            // SAFETY: as our caller promised.
            unsafe { self.tile(b, number, (rows, b.vectors.min(all - at)), Tile { c, ..tile }) };
        }
    }

    /// Scores of a strip, or what is made like them: lines of `a` by columns of `b`, as far as they are
    /// seen.
    ///
    /// # Safety
    /// As for `tile`.
    unsafe fn scores(&self, strip: &Strip, k: usize, a: Lines, b: &Panels, c: *mut f32) {
        let (height, lanes) = (self.micro.height(), self.micro.lanes);
        let width = b.vectors * lanes;
        for (number, start) in (0..strip.end()).step_by(width).enumerate() {
            for r in (0..strip.rows).step_by(height) {
                let rows = height.min(strip.rows - r);
                let Some(cols) = strip.count(r + rows - 1).checked_sub(start).filter(|&cols| cols > 0) else {
                    continue;
                };
                let tile = Tile {
                    k,
                    a: a.from(r).at,
                    a_step: (a.line, a.element),
                    b: b.at,
                    b_step: b.row,
                    c: c.wrapping_add(r * strip.pitch + start),
                    pitch: strip.pitch,
                    add: false,
                };
                // SAFETY: as our caller promised.
                unsafe { self.tile(b, number, (rows, b.vectors.min(cols.div_ceil(lanes))), tile) };
            }
        }
    }
}

/// How many keys a query sees: the first ones.
#[derive(Clone, Copy)]
struct Seen {
    base: i64,
    slope: i64,
    keys: usize,
}

impl Seen {
    fn at(&self, query: usize) -> usize {
        self.base.saturating_add(self.slope * query as i64).clamp(0, self.keys as i64) as usize
    }

    /// The first of `queries` queries that sees `key`, or how many there are.
    fn first(&self, key: usize, queries: std::ops::Range<usize>) -> usize {
        if self.slope == 0 {
            return if key < self.at(0) { queries.start } else { queries.end };
        }
        let first = (key as i64 + 1).saturating_sub(self.base);
        (first.max(0) as usize).clamp(queries.start, queries.end)
    }
}

/// Queries `query..query + rows` against keys `key..key + keys`.
struct Strip {
    seen: Seen,
    query: usize,
    rows: usize,
    key: usize,
    keys: usize,
    pitch: usize,
}

impl Strip {
    /// How many of the keys row `r` sees.
    fn count(&self, r: usize) -> usize {
        self.seen.at(self.query + r).saturating_sub(self.key).min(self.keys)
    }

    /// How many of them any row sees.
    fn end(&self) -> usize {
        self.count(self.rows - 1)
    }
}

/// The right operand of a product, in panels of `vectors` vectors.
#[derive(Clone, Copy)]
struct Panels {
    at: *const f32,
    vectors: usize,
    /// From panel to panel, and from row to row.
    next: usize,
    row: isize,
}

/// Cuts scratch into parts.
struct Scratch(*mut f32);

impl Scratch {
    /// The next `n` elements, aligned to whole vectors.
    fn take(&mut self, n: usize) -> *mut f32 {
        let at = self.0;
        self.0 = at.wrapping_add(n.next_multiple_of(BLOCK));
        at
    }

    fn bytes(parts: &[usize]) -> usize {
        parts.iter().map(|n| n.next_multiple_of(BLOCK)).sum::<usize>() * size_of::<f32>()
    }
}
