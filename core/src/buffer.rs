//! Buffers: the memory of one tensor, wherever it lies. Owns the difference between host memory and a device's.

use std::borrow::Cow;
use std::sync::Arc;

use crate::device::{self, Kind};
use crate::driver::Memory;
use crate::error::Problem;
use crate::memory::Block;

/// Memory of one tensor.
#[derive(Debug)]
pub(crate) enum Buffer {
    Host(Block),
    Device {
        memory: Arc<dyn Memory>,
        len: usize,
        /// Where, for error messages.
        on: Kind,
    },
}

impl Buffer {
    /// Host memory with unspecified contents.
    pub fn new(len: usize, purpose: &'static str) -> Result<Buffer, Problem> {
        Block::new(len, purpose).map(Buffer::Host)
    }

    /// Memory of a device with unspecified contents.
    pub fn new_on(on: Kind, len: usize, purpose: &'static str) -> Result<Buffer, Problem> {
        let Some(driver) = device::driver(on) else { return Buffer::new(len, purpose) };
        let memory = driver.allocate(len, purpose).map_err(|e| device::problem(on, e))?;
        Ok(Buffer::Device { memory, len, on })
    }

    /// A copy of `bytes` in host memory.
    pub fn from_bytes(bytes: &[u8]) -> Result<Buffer, Problem> {
        Block::from_bytes(bytes).map(Buffer::Host)
    }

    /// A copy of `bytes` in the memory of a device.
    pub fn from_bytes_on(on: Kind, bytes: &[u8]) -> Result<Buffer, Problem> {
        let buffer = match device::driver(on) {
            None => return Buffer::from_bytes(bytes),
            Some(_) => Buffer::new_on(on, bytes.len(), "a tensor")?,
        };
        if let Buffer::Device { memory, .. } = &buffer {
            memory.write(bytes).map_err(|e| device::problem(on, e))?;
        }
        Ok(buffer)
    }

    /// The bytes asked for.
    pub fn len(&self) -> usize {
        match self {
            Buffer::Host(block) => block.len(),
            Buffer::Device { len, .. } => *len,
        }
    }

    /// The first byte, of host memory.
    pub fn as_ptr(&self) -> *mut u8 {
        match self {
            Buffer::Host(block) => block.as_ptr(),
            Buffer::Device { .. } => unreachable!("invariant: a program of the host is given host memory"),
        }
    }

    /// The device's memory, if it is no host memory.
    pub fn memory(&self) -> Option<&Arc<dyn Memory>> {
        match self {
            Buffer::Host(_) => None,
            Buffer::Device { memory, .. } => Some(memory),
        }
    }

    /// The contents of host memory.
    ///
    /// # Safety
    /// All bytes were written, and nobody writes them while the slice lives.
    pub unsafe fn bytes(&self) -> &[u8] {
        match self {
            // SAFETY: as our caller promised.
            Buffer::Host(block) => unsafe { block.bytes() },
            Buffer::Device { .. } => unreachable!("invariant: a program of the host is given host memory"),
        }
    }

    /// The contents, copied to the host if they are not there.
    ///
    /// # Safety
    /// All bytes were written, and nobody writes them while the result lives.
    pub unsafe fn read(&self) -> Result<Cow<'_, [u8]>, Problem> {
        match self {
            // SAFETY: as our caller promised.
            Buffer::Host(block) => Ok(Cow::Borrowed(unsafe { block.bytes() })),
            Buffer::Device { memory, len, on } => {
                let mut bytes = vec![0; *len];
                memory.read(&mut bytes).map_err(|e| device::problem(*on, e))?;
                Ok(Cow::Owned(bytes))
            }
        }
    }
}
