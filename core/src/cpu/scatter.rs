//! Rows added into (`ScatterAdd`): every destination has one owner, which adds its sources in the order of the indices.
//! Owns the division among owners; knows nothing of how indices are written (`index`).

use tapeflow_ir::Reduce;

use super::CompileError;
use super::fold::folds;
use super::index::Indices;
use super::isa::Isa;
use super::vector::{Call, Primitive};
use crate::program::kernel::{Args, Executable, Gather, RunError};

/// Elements, read and written, that a chunk should have.
const CHUNK: usize = 16 << 10;
/// Every owner reads the whole list of indices: more owners than this cost more than they share.
const OWNERS: usize = 64;

/// A compiled `ScatterAdd`.
#[derive(Debug)]
pub struct ScatterAddKernel {
    gather: Gather,
    indices: Indices,
    add: Added,
    /// With one list for all: destination rows of a chunk, chunks of an outer item. Else columns of a chunk and chunks
    /// of an outer item.
    per: usize,
    parts: usize,
    /// Outer items of a chunk; 1 unless an item is one chunk.
    items: usize,
}

/// Adds a row into a row.
#[derive(Clone, Copy)]
struct Added(Primitive);

impl std::fmt::Debug for Added {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("add")
    }
}

impl ScatterAddKernel {
    /// Compiles.
    pub fn new(gather: &Gather, isa: Isa) -> Result<ScatterAddKernel, CompileError> {
        let indices = Indices::new(gather.index_dtype, gather.extent)?;
        let undefined = || CompileError::Undefined { op: "scatter_add".into(), dtype: gather.dtype };
        let add = Added(folds(isa, Reduce::Sum, gather.dtype).ok_or_else(undefined)?.down);
        let Gather { outer, extent, inner, picks, along, .. } = *gather;
        let work = (extent + picks) * inner;
        let (things, most) = if along { (inner, inner / 16) } else { (extent, (inner / 4).clamp(4, OWNERS)) };
        let parts = (work / CHUNK).clamp(1, most.max(1)).min(things.max(1));
        let per = things.div_ceil(parts).max(1);
        let parts = things.div_ceil(per).max(1);
        let items = if parts > 1 { 1 } else { (CHUNK / work.max(1)).clamp(1, outer.max(1)) };
        Ok(ScatterAddKernel { gather: gather.clone(), indices, add, per, parts, items })
    }

    /// Zeroes and fills destination rows `rows` of an outer item, from one list of indices.
    unsafe fn rows(&self, outer: usize, rows: std::ops::Range<usize>, args: &Args<'_>) -> Result<(), RunError> {
        let Gather { dtype, extent, inner, picks, .. } = self.gather;
        let bytes = inner * dtype.size();
        // SAFETY: places are within the axis, and within the rows that this chunk owns.
        unsafe {
            let data = args.operands[0].add(outer * picks * bytes);
            let out = args.operands[2].add(outer * extent * bytes);
            std::ptr::write_bytes(out.add(rows.start * bytes), 0, rows.len() * bytes);
            for pick in 0..picks {
                let place = self.indices.get(args.operands[1].cast_const(), pick)?;
                if rows.contains(&place) {
                    let src = [data.add(pick * bytes).cast_const(); 3];
                    (self.add.0)(&Call { dst: out.add(place * bytes), src, step: [0; 3], rows: 1, cols: inner });
                }
            }
        }
        Ok(())
    }

    /// Zeroes and fills columns `columns` of an outer item, from an index for every element.
    unsafe fn columns(&self, outer: usize, columns: std::ops::Range<usize>, args: &Args<'_>) -> Result<(), RunError> {
        let Gather { dtype, extent, inner, picks, .. } = self.gather;
        let size = dtype.size();
        // SAFETY: places are within the axis; only this chunk writes these columns.
        unsafe {
            let data = args.operands[0].add(outer * picks * inner * size);
            let out = args.operands[2].add(outer * extent * inner * size);
            for row in 0..extent {
                std::ptr::write_bytes(out.add((row * inner + columns.start) * size), 0, columns.len() * size);
            }
            for pick in 0..picks {
                for l in columns.clone() {
                    let at = (outer * picks + pick) * inner + l;
                    let place = self.indices.get(args.operands[1].cast_const(), at)?;
                    let src = [data.add((pick * inner + l) * size).cast_const(); 3];
                    let dst = out.add((place * inner + l) * size);
                    (self.add.0)(&Call { dst, src, step: [0; 3], rows: 1, cols: 1 });
                }
            }
        }
        Ok(())
    }
}

impl Executable for ScatterAddKernel {
    fn chunks(&self) -> usize {
        if self.gather.inner == 0 || self.gather.extent == 0 && self.gather.picks == 0 {
            return 0;
        }
        self.gather.outer.div_ceil(self.items) * self.parts
    }

    fn scratch_bytes(&self) -> usize {
        0
    }

    fn cost(&self) -> u64 {
        let Gather { outer, extent, inner, picks, along, .. } = self.gather;
        let each = if along { 4.0 } else { 0.1 };
        let scan = if along { 0 } else { picks * self.parts };
        let moved = (picks * inner) as f64 * each + (extent * inner) as f64 * 0.1;
        (50.0 + outer as f64 * (moved + scan as f64)) as u64
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, _scratch: &mut [u8]) -> Result<(), RunError> {
        let Gather { outer, extent, inner, along, .. } = self.gather;
        let (first, part) = (chunk / self.parts * self.items, chunk % self.parts);
        let things = if along { inner } else { extent };
        let range = part * self.per..((part + 1) * self.per).min(things);
        for outer in first..(first + self.items).min(outer) {
            // SAFETY: operands are as described.
            unsafe {
                if along {
                    self.columns(outer, range.clone(), args)?;
                } else {
                    self.rows(outer, range.clone(), args)?;
                }
            }
        }
        Ok(())
    }
}
