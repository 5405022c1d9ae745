//! Operands of products that groups make: a few thousand elements once, before all blocks; others line by line for each
//! block, in the scratch of its thread, so that they never lie in memory as a whole.
//!
//! Owns which operands can be made so, where, and what that costs and saves; what runs when stands in `fused`.

use std::ops::Range;

use super::CompileError;
use super::blocks::{Blocked, Wanted};
use super::cut::Area;
use super::group::{self, GroupKernel};
use super::isa::Isa;
use super::space::{is_linear, product};
use crate::program::kernel::{Args, Executable, Kernel, Layout, Made, Matmul, OutputKind, RunError};

/// Elements that one thread has made sooner than others would have heard of them.
const FEW: usize = 4096;
/// Bytes that a block's lines may take of the second-level cache.
const STRIP: usize = 512 << 10;
/// What a step less is worth, in nanoseconds; a byte less to write and to read again; a byte less to write alone, where
/// each element has so many uses that what is computed with it hides that it is read. As measured.
const STEP: f64 = 1500.0;
const BYTE: f64 = 0.06;
const WRITTEN: f64 = 0.015;
const HIDING: usize = 16;
/// What it costs to read an element of a row, and to read and pack one of a column, in nanoseconds.
const READ: f64 = 0.007;
const PACK: f64 = 0.14;
/// Operands of a group, at most.
const MOST: usize = 16;

/// An operand and what makes it.
#[derive(Debug)]
pub struct Strip {
    kernel: GroupKernel,
    /// Its number among the product's operands.
    pub operand: usize,
    /// What the group reads, among the operands of all.
    reads: Range<usize>,
    bytes: usize,
    /// Bytes of an element; elements of a line, which has all terms of a row or a column of the result.
    size: usize,
    width: usize,
    early: bool,
    /// Offset of its place: in the step's partial results if it is made early, else in the scratch.
    place: usize,
}

/// The elements of an operand's line, if lines have all their terms side by side and lie one after the other.
fn lines(of: &Kernel, operand: usize) -> Option<usize> {
    match of {
        Kernel::LinearInt8(linear) if operand == 0 => Some(linear.k),
        Kernel::Matmul(Matmul { batch, m, n, k, a, b, .. }) => {
            let terms = product(k);
            let in_order = |dims: &[usize], layout: &Layout| {
                layout.shifts.is_empty() && layout.offset == 0 && is_linear(dims, &layout.strides)
            };
            let is_so = match operand {
                0 => in_order(&[&batch[..], m, k].concat(), a),
                _ => {
                    let (sums, columns) = b.strides[batch.len()..].split_at(k.len());
                    let turned = Layout { strides: [columns, sums].concat().into(), ..b.clone() };
                    product(batch) == 1 && in_order(&[&n[..], k].concat(), &turned)
                }
            };
            (is_so && terms > 0).then_some(terms)
        }
        _ => None,
    }
}

fn elements(made: &Made) -> usize {
    product(&made.group.space)
}

fn element_size(made: &Made) -> usize {
    let function = &made.group.function;
    function.values[function.outputs[0].0 as usize].1.dtype.size()
}

/// Adds what the operands need of the product's blocks.
pub fn wanted(prologue: &[Made], product: &Kernel, mut wanted: Wanted) -> Wanted {
    for made in prologue.iter().filter(|made| elements(made) > FEW) {
        let line = lines(product, made.operand).unwrap_or(1) * element_size(made);
        wanted.made[made.operand.min(1)] = true;
        wanted.most[made.operand.min(1)] = (STRIP / prologue.len() / line.max(1)).max(1);
    }
    wanted
}

impl Strip {
    /// Compiles what makes an operand. Its place is the first free one, of the partial results or of the scratch.
    ///
    /// # Errors
    /// See [`CompileError`].
    pub fn new(made: &Made, product: &Kernel, reads: Range<usize>, isa: Isa) -> Result<Strip, CompileError> {
        let malformed =
            || CompileError::Malformed("a made operand is stored in order, and its lines are the product's");
        let [output] = &made.group.outputs[..] else { return Err(malformed()) };
        let whole = matches!(&output.kind, OutputKind::Store(layout) if layout.is_contiguous(&made.group.space));
        if !whole || made.group.operands() > MOST || output.operand + 1 != made.group.operands() {
            return Err(malformed());
        }
        let kernel = group::compile(&made.group, isa)?;
        let (size, elements) = (element_size(made), elements(made));
        let early = elements <= FEW;
        let width = if early { elements.max(1) } else { lines(product, made.operand).ok_or_else(malformed)? };
        if !early && (!width.is_multiple_of(kernel.unit()) || !elements.is_multiple_of(width)) {
            return Err(malformed());
        }
        let operand = made.operand;
        Ok(Strip { kernel, operand, reads, bytes: elements * size, size, width, early, place: 0 })
    }

    /// Gives it its places behind what is there, and says how much that is then.
    pub fn lay_out(&mut self, product: &dyn Blocked, (partial, scratch): (&mut usize, &mut usize)) {
        let (place, bytes) = match self.early {
            true => (partial, self.bytes.next_multiple_of(64) + self.kernel.scratch_bytes()),
            false => (scratch, self.largest(product) * self.width * self.size),
        };
        self.place = *place;
        *place += bytes.next_multiple_of(64);
    }

    /// Scratch for making lines, beside the place for these.
    pub fn scratch_bytes(&self) -> usize {
        if self.early { 0 } else { self.kernel.scratch_bytes() }
    }

    /// Whether it is made once, before the blocks.
    pub fn is_early(&self) -> bool {
        self.early
    }

    /// Lines of the operand that a block of the product needs; all if they are no neighbours.
    fn of_block(&self, product: &dyn Blocked, chunk: usize) -> Range<usize> {
        match product.block(chunk) {
            Some([rows, columns]) => {
                if self.operand == 0 {
                    rows
                } else {
                    columns
                }
            }
            None => 0..self.bytes / (self.width * self.size),
        }
    }

    fn largest(&self, product: &dyn Blocked) -> usize {
        (0..product.chunks()).map(|chunk| self.of_block(product, chunk).len()).max().unwrap_or(0)
    }

    /// Whether the lines of every block stay in the cache.
    pub fn fits(&self, product: &dyn Blocked) -> bool {
        self.early || self.largest(product) * self.width * self.size <= STRIP + STRIP / 2
    }

    /// How often each element is made.
    fn times(&self, product: &dyn Blocked) -> f64 {
        if self.early {
            return 1.0;
        }
        let made: usize = (0..product.chunks()).map(|chunk| self.of_block(product, chunk).len()).sum();
        (made * self.width * self.size) as f64 / self.bytes.max(1) as f64
    }

    /// Nanoseconds of making it as often as it is.
    pub fn cost(&self, product: &dyn Blocked) -> f64 {
        self.times(product) * self.kernel.cost() as f64
    }

    /// Nanoseconds that are lost by making it so: what is made again, what one thread makes while others wait, and what
    /// the product reads and packs more often than in its usual blocks.
    pub fn loss(&self, product: &dyn Blocked, usual: &dyn Blocked) -> f64 {
        let once = self.kernel.cost() as f64;
        let is_alone = self.early || product.chunks() == 1;
        let waiting = if is_alone && self.kernel.chunks() > 1 { once / 2.0 } else { 0.0 };
        let reading = |of: &dyn Blocked| -> f64 {
            let blocks = (0..of.chunks()).filter_map(|chunk| of.block(chunk));
            blocks
                .map(|[rows, columns]| (rows.len() as f64 * READ + columns.len() as f64 * PACK) * self.width as f64)
                .sum()
        };
        let has_neighbours = !self.early && usual.block(0).is_some();
        let reading = if has_neighbours { (reading(product) - reading(usual)).max(0.0) } else { 0.0 };
        (self.times(product) - 1.0).max(0.0) * once + waiting + reading
    }

    /// Nanoseconds that are saved: its way to memory and back, unless what is computed with each element hides that.
    pub fn gain(&self, product: &dyn Blocked) -> f64 {
        let (lines, columns) = product.lines();
        let uses = if self.operand == 0 { columns } else { lines };
        STEP + self.bytes as f64 * if uses < HIDING { BYTE } else { WRITTEN }
    }

    /// Makes all of it.
    ///
    /// # Safety
    /// As for [`Executable::prepare`].
    pub unsafe fn make_all(&self, args: &Args<'_>) {
        let at = args.partial.wrapping_add(self.place);
        let scratch = at.wrapping_add(self.bytes.next_multiple_of(64));
        // SAFETY: the partial results have room for both, and nobody else has heard of them yet.
        unsafe {
            let scratch = std::slice::from_raw_parts_mut(scratch, self.kernel.scratch_bytes());
            self.with(args, at, |args| {
                let made = (0..self.kernel.chunks()).try_for_each(|chunk| self.kernel.run_chunk(chunk, args, scratch));
                made.and_then(|()| self.kernel.finish(args, scratch))
            })
            .expect("invariant: a group cannot fail");
        }
    }

    /// Makes the lines that a block of the product needs, and says where the operand would begin.
    ///
    /// # Safety
    /// As for [`Executable::run_chunk`]; `places` is the scratch in which it has its place.
    pub unsafe fn make(
        &self,
        product: &dyn Blocked,
        chunk: usize,
        args: &Args<'_>,
        (places, scratch): (*mut u8, &mut [u8]),
    ) -> *mut u8 {
        if self.early {
            return args.partial.wrapping_add(self.place);
        }
        let lines = self.of_block(product, chunk);
        let elements = lines.start * self.width..lines.end * self.width;
        let at = places.wrapping_add(self.place).wrapping_sub(elements.start * self.size);
        // SAFETY: the place has room for the lines, which are all that is written.
        unsafe {
            self.with(args, at, |args| {
                self.kernel.run_area(&Area::of_elements(elements, self.kernel.unit()), args, scratch);
                Ok(())
            })
            .expect("invariant: a group cannot fail");
        }
        at
    }

    /// Calls `f` with the operands of the group, the last of which is `at`.
    fn with(
        &self,
        args: &Args<'_>,
        at: *mut u8,
        f: impl FnOnce(&Args<'_>) -> Result<(), RunError>,
    ) -> Result<(), RunError> {
        let (mut operands, count) = ([std::ptr::null_mut(); MOST], self.reads.len());
        operands[..count].copy_from_slice(&args.operands[self.reads.clone()]);
        operands[count] = at;
        f(&Args { operands: &operands[..count + 1], ..*args })
    }
}
