//! How tiles reach a group's outputs: scattered, folded along rows, folded down columns.
//! Owns the position of partial results; the arithmetic stands in `fold`, the cut into chunks in `cut`.

use tapeflow_ir::DType;

use super::CompileError;
use super::cut::Area;
use super::fold::{Folds, PIECE, folds};
use super::isa::Isa;
use super::space::{Walk, product};
use super::step::Write;
use super::vector::{Call, Primitive};
use crate::program::kernel::{Args, OutputKind};

/// Rows that one partial result of a column sum takes.
pub use tapeflow_ir::reduce::LEADING_CHUNK as LEADING_ROWS;

/// One output of a group.
#[derive(Debug)]
pub struct Output {
    /// Its operand.
    pub operand: usize,
    /// Bytes of an element.
    pub size: usize,
    /// How it takes its value.
    pub write: Write,
    /// Where the value goes.
    pub target: Target,
}

/// Where a value goes.
pub enum Target {
    /// To the operand, element by element.
    Store(Walk),
    /// Rows of `n` elements become one each.
    Trailing {
        /// The arithmetic.
        folds: Folds,
        /// Elements of a row.
        n: usize,
        /// How many rows.
        kept: usize,
        /// Whether every tile consists of whole rows.
        whole: bool,
        /// Scratch offset of the stream.
        state: usize,
        /// If rows are cut into pieces: the offset of their results in the shared partials, and how many a row has.
        pieces: Option<(usize, usize)>,
    },
    /// Columns of `rows` elements become one each.
    Leading {
        /// The arithmetic.
        folds: Folds,
        /// Elements of a column.
        rows: usize,
        /// How many columns.
        cols: usize,
        /// The offset of the chunks' results in the shared partials, if there are several.
        partial: Option<usize>,
    },
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Target::Store(_) => f.write_str("Store"),
            Target::Trailing { n, kept, pieces, .. } => write!(f, "Trailing({kept}x{n}, {pieces:?})"),
            Target::Leading { rows, cols, .. } => write!(f, "Leading({rows}x{cols})"),
        }
    }
}

impl Target {
    /// Of a reduction over the group's space.
    pub fn of(kind: &OutputKind, space: &[usize], dtype: DType, isa: Isa) -> Result<Target, CompileError> {
        let (reduce, axes) = match *kind {
            OutputKind::ReduceTrailing(reduce, axes) | OutputKind::ReduceLeading(reduce, axes) => (reduce, axes),
            OutputKind::Store(_) => return Err(CompileError::Malformed("a store has a layout")),
        };
        if axes > space.len() {
            return Err(CompileError::Malformed("more axes are reduced than there are"));
        }
        let folds =
            folds(isa, reduce, dtype).ok_or_else(|| CompileError::Undefined { op: format!("{reduce:?}"), dtype })?;
        Ok(if let OutputKind::ReduceTrailing(..) = kind {
            let (kept, n) = space.split_at(space.len() - axes);
            Target::Trailing { folds, n: product(n), kept: product(kept), whole: false, state: 0, pieces: None }
        } else {
            let (rows, cols) = space.split_at(axes);
            Target::Leading { folds, rows: product(rows), cols: product(cols), partial: None }
        })
    }
}

unsafe fn fill(dst: *mut u8, size: usize, bits: u64, n: usize) {
    // SAFETY: our caller's `dst` has `n` aligned elements of `size` bytes.
    unsafe {
        match size {
            1 => (0..n).for_each(|i| *dst.add(i) = bits as u8),
            2 => (0..n).for_each(|i| *dst.cast::<u16>().add(i) = bits as u16),
            4 => (0..n).for_each(|i| *dst.cast::<u32>().add(i) = bits as u32),
            _ => (0..n).for_each(|i| *dst.cast::<u64>().add(i) = bits),
        }
    }
}

unsafe fn call(primitive: Primitive, dst: *mut u8, src: *const u8, rows: usize, cols: usize) {
    // SAFETY: our caller's addresses suit the primitive.
    unsafe { primitive(&Call { dst, src: [src; 3], step: [0; 3], rows, cols }) }
}

impl Output {
    /// Before the tiles of a chunk.
    ///
    /// # Safety
    /// Operands, partials and scratch are those of the compiled group; so for all methods.
    pub unsafe fn begin(&self, args: &Args<'_>, scratch: *mut u8, area: &Area) {
        // SAFETY: the stream has its place in the scratch; the chunk owns the columns of its area.
        unsafe {
            match &self.target {
                Target::Store(_) => {}
                Target::Trailing { whole: true, .. } => {}
                Target::Trailing { folds, state, .. } => call(folds.begin, scratch.add(*state), scratch, 1, 1),
                Target::Leading { folds, rows, cols, partial } => {
                    if *cols == 0 {
                        return;
                    }
                    let (lines, columns) = area.lines_of(*cols);
                    for group in lines.start / LEADING_ROWS..lines.end.min(*rows).div_ceil(LEADING_ROWS) {
                        let dst = self.partial(args, *partial, group * cols + columns.start);
                        fill(dst, self.size, folds.identity, columns.len());
                    }
                }
            }
        }
    }

    /// The address of partial result `at`; of the output itself if there is but one set of partial results.
    unsafe fn partial(&self, args: &Args<'_>, partial: Option<usize>, at: usize) -> *mut u8 {
        // SAFETY: `at` is below the number of partial results, or of results.
        unsafe {
            match partial {
                Some(offset) => args.partial.add(offset + at * self.size),
                None => args.operands[self.operand].add(at * self.size),
            }
        }
    }

    /// Where row `row` of the space is folded to, if its columns are those of the output.
    ///
    /// # Safety
    /// As for `begin`.
    pub unsafe fn folded_row(&self, args: &Args<'_>, row: usize) -> *mut u8 {
        match self.target {
            // SAFETY: there is a partial result for every group of rows.
            Target::Leading { cols, partial, .. } => unsafe { self.partial(args, partial, row / LEADING_ROWS * cols) },
            _ => std::ptr::null_mut(),
        }
    }

    /// Folds elements `start..start + len` of the space, which lie at `src`.
    ///
    /// # Safety
    /// As for `begin`; a chunk folds its elements in order.
    pub unsafe fn fold(&self, args: &Args<'_>, scratch: *mut u8, src: *mut u8, start: usize, len: usize) {
        // SAFETY: positions follow from those of the elements, which are within the space.
        unsafe {
            match self.target {
                Target::Store(_) => {}
                Target::Trailing { folds, n, whole: true, .. } => {
                    if len > 0 {
                        call(folds.rows, self.partial(args, None, start / n), src, len / n, n);
                    }
                }
                Target::Trailing { folds, n, state, pieces, .. } => {
                    let state = scratch.add(state);
                    let (mut at, end) = (start, start + len);
                    while at < end {
                        let (row, col) = (at / n, at % n);
                        let stop = if pieces.is_some() { n.min((col / PIECE + 1) * PIECE) } else { n };
                        let take = (stop - col).min(end - at);
                        call(folds.feed, state, src.add((at - start) * self.size), 1, take);
                        if col + take == stop {
                            let dst = match pieces {
                                Some((offset, count)) => self.partial(args, Some(offset), row * count + col / PIECE),
                                None => self.partial(args, None, row),
                            };
                            call(folds.end, dst, state, 1, 1);
                            call(folds.begin, state, state, 1, 1);
                        }
                        at += take;
                    }
                }
                Target::Leading { folds, cols, partial, .. } => {
                    let (mut at, end) = (start, start + len);
                    while at < end {
                        let (row, col) = (at / cols, at % cols);
                        let (rows, width) = if col == 0 && end - at >= cols {
                            (((end - at) / cols).min(LEADING_ROWS - row % LEADING_ROWS), cols)
                        } else {
                            (1, (cols - col).min(end - at))
                        };
                        let dst = self.partial(args, partial, row / LEADING_ROWS * cols + col);
                        call(folds.down, dst, src.add((at - start) * self.size), rows, width);
                        at += rows * width;
                    }
                }
            }
        }
    }

    /// Scatters elements `start..start + n` of a store.
    ///
    /// # Safety
    /// As for `begin`.
    pub unsafe fn store(&self, args: &Args<'_>, src: *mut u8, start: usize, n: usize) {
        let Target::Store(walk) = &self.target else { return };
        let shift = walk.shift(args.scalars) * self.size as isize;
        // SAFETY: the layout stays within the operand.
        unsafe {
            let base = args.operands[self.operand].offset(shift);
            match self.size {
                1 => walk.scatter::<u8>(base, src, start, n),
                2 => walk.scatter::<u16>(base.cast(), src.cast(), start, n),
                4 => walk.scatter::<u32>(base.cast(), src.cast(), start, n),
                _ => walk.scatter::<u64>(base.cast(), src.cast(), start, n),
            }
        }
    }

    /// Writes the results of reductions over no elements.
    ///
    /// # Safety
    /// As for `begin`.
    pub unsafe fn fill_empty(&self, args: &Args<'_>) {
        let dst = args.operands[self.operand];
        // SAFETY: the output has one element per row kept, or per column.
        unsafe {
            match self.target {
                Target::Trailing { folds, n: 0, kept, .. } => fill(dst, self.size, folds.empty, kept),
                Target::Leading { folds, rows: 0, cols, .. } => fill(dst, self.size, folds.empty, cols),
                _ => {}
            }
        }
    }

    /// Elements that `fill_empty` writes.
    pub fn empty_elements(&self) -> usize {
        match self.target {
            Target::Trailing { n: 0, kept, .. } => kept,
            Target::Leading { rows: 0, cols, .. } => cols,
            _ => 0,
        }
    }

    /// Combines the partial results of all chunks.
    ///
    /// # Safety
    /// As for `begin`; all chunks have run.
    pub unsafe fn finish(&self, args: &Args<'_>) {
        let dst = args.operands[self.operand];
        // SAFETY: every partial result was written by its chunk.
        unsafe {
            match self.target {
                Target::Trailing { folds, kept, pieces: Some((offset, count)), .. } => {
                    call(folds.rows, dst, args.partial.add(offset), kept, count);
                }
                Target::Leading { folds, rows, cols, partial: Some(offset) } => {
                    fill(dst, self.size, folds.identity, cols);
                    call(folds.down, dst, args.partial.add(offset), rows.div_ceil(LEADING_ROWS), cols);
                }
                _ => {}
            }
        }
    }
}
