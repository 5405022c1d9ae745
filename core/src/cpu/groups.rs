//! Several groups run as one step: their chunks are numbered one after another. Owns the numbering only.

use std::ops::Range;

use super::CompileError;
use super::group::{self, GroupKernel};
use super::isa::Isa;
use crate::program::kernel::{Args, Executable, Group, RunError};

/// One of the groups.
#[derive(Debug)]
struct Part {
    kernel: GroupKernel,
    /// Its chunks among those of all.
    chunks: Range<usize>,
    /// Its operands among those of all.
    operands: Range<usize>,
    /// Offset of its shared partial results.
    partial: usize,
}

/// Compiled groups that do not depend on each other.
#[derive(Debug)]
pub struct GroupsKernel {
    parts: Vec<Part>,
    partial_bytes: usize,
}

/// Compiles groups that run as one step.
///
/// # Errors
/// See [`CompileError`].
pub fn compile(groups: &[Group], isa: Isa) -> Result<GroupsKernel, CompileError> {
    let mut parts: Vec<Part> = Vec::with_capacity(groups.len());
    let mut partial_bytes: usize = 0;
    for group in groups {
        let kernel = group::compile(group, isa)?;
        let (chunk, operand) = parts.last().map_or((0, 0), |p| (p.chunks.end, p.operands.end));
        let (chunks, operands) = (chunk..chunk + kernel.chunks(), operand..operand + group.operands());
        let partial = partial_bytes;
        partial_bytes += kernel.partial_bytes().next_multiple_of(64);
        parts.push(Part { kernel, chunks, operands, partial });
    }
    Ok(GroupsKernel { parts, partial_bytes })
}

impl Part {
    fn args<'a>(&self, args: &Args<'a>) -> Args<'a> {
        Args {
            operands: &args.operands[self.operands.clone()],
            partial: args.partial.wrapping_add(self.partial),
            ..*args
        }
    }
}

impl Executable for GroupsKernel {
    fn chunks(&self) -> usize {
        self.parts.last().map_or(0, |p| p.chunks.end)
    }

    fn scratch_bytes(&self) -> usize {
        self.parts.iter().map(|p| p.kernel.scratch_bytes()).max().unwrap_or(0)
    }

    fn partial_bytes(&self) -> usize {
        self.partial_bytes
    }

    fn cost(&self) -> u64 {
        self.parts.iter().map(|p| p.kernel.cost()).sum()
    }

    unsafe fn run_chunk(&self, chunk: usize, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        let part = &self.parts[self.parts.partition_point(|p| p.chunks.end <= chunk)];
        // SAFETY: the part's operands are as our caller promised for all.
        unsafe { part.kernel.run_chunk(chunk - part.chunks.start, &part.args(args), scratch) }
    }

    fn has_finish(&self) -> bool {
        self.parts.iter().any(|p| p.kernel.has_finish())
    }

    unsafe fn finish(&self, args: &Args<'_>, scratch: &mut [u8]) -> Result<(), RunError> {
        self.parts.iter().filter(|p| p.kernel.has_finish()).try_for_each(|p| {
            // SAFETY: as above.
            unsafe { p.kernel.finish(&p.args(args), scratch) }
        })
    }
}
