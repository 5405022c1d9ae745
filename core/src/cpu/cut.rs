//! How a group's space is cut: into tiles that stay in the first-level cache, and into chunks for the pool.
//! Both follow from shapes alone, never from the number of threads. Knows no functions.

use std::ops::Range;

use super::fold::PIECE;
use super::output::{LEADING_ROWS, Output, Target};
use super::space::{TRANSPOSED_ROWS, product};

/// Nanoseconds of work that a chunk should have.
const CHUNK_NANOS: f64 = 8000.0;
/// Elements of a chunk, at least and at most, where the reductions leave the choice.
const CHUNK_LEAST: usize = 512;
const CHUNK_MOST: usize = 32 << 10;
/// Columns of a chunk that takes but a part of each row, at least.
const COLUMNS_LEAST: usize = 256;

/// Elements of a tile of transposed rows: the cache lines of so many columns stay in the first-level cache.
const TRANSPOSED_TILE: usize = 256;

/// The space as tiles see it.
#[derive(Debug)]
pub struct Shapes {
    /// Whether tiles consist of whole rows.
    pub by_row: bool,
    /// Whether tiles lie within runs of the inner axis.
    pub within: bool,
    /// Whether the tiles of several rows are taken column by column, because an operand is transposed; implies
    /// `within`.
    pub transposed: bool,
    /// Elements of the inner axis.
    pub inner: usize,
    /// Elements of a row, if `by_row`.
    pub length: usize,
    /// All elements.
    pub total: usize,
    /// All rows, if `by_row`.
    pub rows: usize,
    /// Elements of a tile, at most.
    pub tile: usize,
    /// Rows of a tile, at most.
    pub tile_rows: usize,
}

impl Shapes {
    /// Of a space with merged axes `dims`; a tile should have at most `most` elements.
    pub fn new(
        by_row: bool,
        within: bool,
        transposed: bool,
        dims: &[usize],
        outputs: &[Output],
        most: usize,
    ) -> Shapes {
        let inner = dims.last().copied().unwrap_or(1);
        // Sums along rows take their elements in order.
        let in_order = outputs.iter().any(|output| matches!(output.target, Target::Trailing { .. }));
        let transposed = transposed && within && !in_order;
        let most = if transposed { most.min(TRANSPOSED_TILE) } else { most };
        let total = product(dims);
        let rows = if by_row { product(&dims[..dims.len() - 1]) } else { 0 };
        let (mut tile, mut tile_rows) = (most.min(total.max(1)), 1);
        if by_row {
            tile_rows = (most / inner.max(1)).clamp(1, rows.max(1));
            if outputs.iter().any(|output| matches!(output.target, Target::Leading { .. })) {
                // The rows of a tile go to one partial result.
                tile_rows = (1 << tile_rows.ilog2()).min(LEADING_ROWS);
            }
            tile = tile_rows * inner;
        } else if within {
            let pieces = inner.div_ceil(most);
            tile = inner.div_ceil(pieces).next_multiple_of(16).min(most.max(16));
        } else {
            // Whole rows of a short reduction, else whole runs of the inner axis.
            let reduced = outputs.iter().filter_map(|output| match output.target {
                Target::Trailing { n, .. } => Some(n),
                _ => None,
            });
            let unit = match reduced.max() {
                Some(n) if n <= most && n > 0 => n,
                _ => inner,
            };
            if unit > 0 && unit <= tile {
                tile = tile / unit * unit;
            }
        }
        Shapes {
            by_row,
            within,
            transposed,
            inner,
            length: if by_row { inner } else { 0 },
            total,
            rows,
            tile,
            tile_rows,
        }
    }

    /// Calls `tile(start, len, row, rows)` for the tiles of a range of elements (of rows, if `by_row`).
    #[inline(always)]
    pub fn tiles(&self, from: usize, to: usize, mut tile: impl FnMut(usize, usize, usize, usize)) {
        let mut at = from;
        while self.transposed && at < to {
            let block = TRANSPOSED_ROWS * self.inner;
            let end = ((at / block + 1) * block).min(to);
            for col in (0..self.inner).step_by(self.tile) {
                for row in at / self.inner..end.div_ceil(self.inner) {
                    let start = (row * self.inner + col).max(at);
                    let stop = (row * self.inner + (col + self.tile).min(self.inner)).min(end);
                    if start < stop {
                        tile(start, stop - start, 0, 1);
                    }
                }
            }
            at = end;
        }
        while at < to {
            if self.by_row {
                let rows = self.tile_rows.min(to - at);
                tile(at * self.length, rows * self.length, at, rows);
                at += rows;
            } else {
                let mut len = self.tile.min(to - at);
                if self.within {
                    len = len.min(self.inner - at % self.inner);
                }
                tile(at, len, 0, 1);
                at += len;
            }
        }
    }
}

/// What a chunk computes: on each of `lines`, `count` elements (rows, if `by_row`) from `line · pitch + first`.
#[derive(Debug)]
pub struct Area {
    /// Usually one.
    pub lines: Range<usize>,
    /// From line to line.
    pub pitch: usize,
    /// Within a line.
    pub first: usize,
    /// Of each line.
    pub count: usize,
    /// Elements per counted thing: the length of a row if `by_row`, else 1.
    scale: usize,
}

impl Area {
    /// The elements in these columns of these lines of `width` elements; lines are counted, or elements.
    pub fn of_lines(lines: Range<usize>, columns: Range<usize>, width: usize, by_row: bool) -> Area {
        if columns.len() == width {
            let (scale, things) = if by_row { (width, 1) } else { (1, width) };
            return Area { lines: 0..1, pitch: 0, first: lines.start * things, count: lines.len() * things, scale };
        }
        Area { lines, pitch: width, first: columns.start, count: columns.len(), scale: 1 }
    }

    /// Neighbouring elements, whole rows of `unit` elements.
    pub fn of_elements(elements: Range<usize>, unit: usize) -> Area {
        Area { lines: 0..1, pitch: 0, first: elements.start / unit, count: elements.len() / unit, scale: unit }
    }

    /// The rows of `cols` elements that the area touches, and which columns of them.
    pub fn lines_of(&self, cols: usize) -> (Range<usize>, Range<usize>) {
        if self.pitch != 0 {
            (self.lines.clone(), self.first..self.first + self.count)
        } else {
            let (from, to) = (self.first * self.scale, (self.first + self.count) * self.scale);
            (from / cols..to.div_ceil(cols), 0..cols)
        }
    }
}

/// How the area of a chunk follows from its number.
#[derive(Debug)]
enum Plan {
    /// Ranges of `per` things.
    Ranges { per: usize },
    /// Rows of `n` elements, each cut into `chunks` ranges of `per` elements.
    Pieces { n: usize, per: usize, chunks: usize },
    /// Groups of `LEADING_ROWS` rows of `cols` elements, each cut into `chunks` ranges of `per` columns.
    Columns { rows: usize, cols: usize, per: usize, chunks: usize },
}

/// Elements that a chunk should have if each takes `nanos`.
pub fn elements_of_chunk(nanos: f64) -> usize {
    ((CHUNK_NANOS / nanos.max(1e-3)) as usize).clamp(CHUNK_LEAST, CHUNK_MOST)
}

/// The chunks of a group.
#[derive(Debug)]
pub struct Cut {
    plan: Plan,
    /// How many there are.
    pub chunks: usize,
    /// Whether there are partial results to combine.
    pub has_finish: bool,
    /// Bytes of them.
    pub partial_bytes: usize,
    /// Whether there is no element, only results of empty reductions.
    pub is_empty: bool,
}

impl Cut {
    /// Cuts a space whose elements take `nanos` each, and gives the reductions among the outputs their partial results.
    pub fn new(shapes: &Shapes, outputs: &mut [Output], nanos: f64) -> Cut {
        let things = if shapes.by_row { shapes.rows } else { shapes.total };
        if things == 0 {
            let writes = outputs.iter().any(|output| output.empty_elements() > 0);
            let plan = Plan::Ranges { per: 1 };
            return Cut { plan, chunks: writes as usize, has_finish: false, partial_bytes: 0, is_empty: true };
        }
        let scale = if shapes.by_row { shapes.length } else { 1 };
        let elements = elements_of_chunk(nanos);
        let (plan, chunks) = plan(shapes, outputs, things, scale, elements);
        let mut partial_bytes = 0;
        for output in outputs.iter_mut() {
            let mut take = |count: usize| {
                let here = partial_bytes;
                partial_bytes += (count * output.size).next_multiple_of(64);
                here
            };
            match &mut output.target {
                Target::Store(_) => {}
                Target::Trailing { n, kept, whole, pieces, .. } => {
                    if matches!(plan, Plan::Pieces { .. }) {
                        let count = n.div_ceil(PIECE);
                        *pieces = Some((take(*kept * count), count));
                    }
                    let tile = if shapes.by_row { shapes.length } else { shapes.tile };
                    *whole = !shapes.within && *n > 0 && tile % *n == 0;
                }
                Target::Leading { rows, cols, partial, .. } => {
                    let groups = rows.div_ceil(LEADING_ROWS);
                    *partial = (groups > 1).then(|| take(groups * *cols));
                }
            }
        }
        Cut { plan, chunks, has_finish: partial_bytes > 0, partial_bytes, is_empty: false }
    }

    /// What a chunk computes.
    pub fn area(&self, chunk: usize, shapes: &Shapes) -> Area {
        let scale = if shapes.by_row { shapes.length } else { 1 };
        match self.plan {
            Plan::Ranges { per } => {
                let things = if shapes.by_row { shapes.rows } else { shapes.total };
                let first = chunk * per;
                Area { lines: 0..1, pitch: 0, first, count: per.min(things - first), scale }
            }
            Plan::Pieces { n, per, chunks } => {
                let first = chunk % chunks * per;
                Area { lines: 0..1, pitch: 0, first: chunk / chunks * n + first, count: per.min(n - first), scale }
            }
            Plan::Columns { rows, cols, per, chunks } => {
                let (line, first) = (chunk / chunks * LEADING_ROWS, chunk % chunks * per);
                let lines = line..(line + LEADING_ROWS).min(rows);
                Area { lines, pitch: cols, first, count: per.min(cols - first), scale }
            }
        }
    }
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x.max(1)).saturating_mul(b)
}

fn plan(shapes: &Shapes, outputs: &[Output], things: usize, scale: usize, elements: usize) -> (Plan, usize) {
    // Chunks are multiples of a unit: whole rows of what is reduced along rows, whole groups of what is reduced down
    // columns.
    let mut unit = 1;
    let (mut trailing, mut leading) = (Vec::new(), Vec::new());
    for output in outputs {
        match output.target {
            Target::Trailing { n, .. } if n > 0 => {
                trailing.push(n);
                unit = lcm(unit, (n / scale.max(1)).max(1));
            }
            Target::Leading { rows, cols, .. } if cols > 0 => {
                leading.push((rows, cols));
                unit = lcm(unit, (cols / scale.max(1)).max(1).saturating_mul(LEADING_ROWS));
            }
            _ => {}
        }
    }
    if let ([first, rest @ ..], [], false) = (&trailing[..], &leading[..], shapes.by_row)
        && rest.iter().all(|n| n == first)
        && *first >= 2 * elements.max(PIECE)
    {
        let (n, per) = (*first, (elements / PIECE).max(1) * PIECE);
        let chunks = n.div_ceil(per);
        return (Plan::Pieces { n, per, chunks }, shapes.total / n * chunks);
    }
    if let ([first, rest @ ..], [], false) = (&leading[..], &trailing[..], shapes.by_row)
        && rest.iter().all(|other| other == first)
        && first.1 * LEADING_ROWS.min(first.0) >= 2 * elements
        && first.1 >= 2 * COLUMNS_LEAST
    {
        let (rows, cols) = *first;
        let parts = (cols * LEADING_ROWS.min(rows)).div_ceil(elements).min(cols / COLUMNS_LEAST).max(1);
        let per = cols.div_ceil(parts).next_multiple_of(64);
        let chunks = cols.div_ceil(per);
        return (Plan::Columns { rows, cols, per, chunks }, rows.div_ceil(LEADING_ROWS) * chunks);
    }
    let unit = unit.min(things);
    let wanted = (elements / scale.max(1)).max(1);
    // Tiles are not cut in two where nothing else decides.
    let grain = match () {
        _ if unit > 1 => unit,
        _ if shapes.by_row => shapes.tile_rows,
        _ if shapes.transposed && shapes.inner <= CHUNK_MOST / 8 => TRANSPOSED_ROWS * shapes.inner,
        _ if shapes.within && shapes.inner <= wanted => shapes.inner,
        _ => shapes.tile,
    };
    let per = (wanted / grain.max(1)).max(1) * grain.max(1);
    // A space of little more than one chunk is one chunk.
    let per = if things < per + per / 2 { things.next_multiple_of(unit) } else { per };
    (Plan::Ranges { per }, things.div_ceil(per))
}
