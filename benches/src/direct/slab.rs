//! [`Slab`].

use super::{BLOCK, PLACES, Shape};
use ioctx::aio::{AlignedBuffer, IoBuf, RawBuffer};
use std::io;

/// Memory that all contenders read into, one after the other: [`PLACES`] blocks, and a bit, in huge pages if there are
/// any.
#[derive(Debug)]
pub struct Slab(RawBuffer);

// SAFETY: owned memory; it is accessed by pointers only, by one reader at a time.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Slab {
    /// The size of a huge page, on most machines.
    pub(super) const HUGE: usize = 2 << 20;

    /// Zeroes.
    ///
    /// # Errors
    ///
    /// Out of memory.
    pub fn new() -> io::Result<Self> {
        let len = (PLACES * BLOCK).next_multiple_of(Self::HUGE) + Self::HUGE;
        Ok(Self(AlignedBuffer::new(len, Self::HUGE).map_err(io::Error::other)?.into_raw()))
    }

    /// Where the memory of a reader's request of this number begins: of those in flight at once, each has its own.
    pub(super) fn at(&self, request: usize, shape: Shape) -> *mut u8 {
        assert!(request < shape.depth && shape.depth * shape.blocks <= PLACES && shape.shift < BLOCK);
        self.0.ptr.as_ptr().wrapping_add(request * shape.blocks * BLOCK + shape.shift)
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: 1. taken apart in `new`, and used by nobody any more.
        drop(unsafe { AlignedBuffer::from_raw(self.0) });
    }
}
