//! Aligned memory for what is not: [`Bounce`], and where those are that nobody uses: [`Bounces`].

use crate::aio::{AlignedBuffer, AlignedError};
use crate::sync::{Arc, Mutex};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

/// The size of a huge page, on most machines.
const HUGE: usize = 2 << 20;

/// A buffer as long as a part, on a multiple of its length.
#[derive(Debug)]
pub(super) struct Bounce {
    /// # Safety
    ///
    /// `len` bytes of `_chunk` that are no other's. Nobody accesses them but through this.
    at: NonNull<u8>,
    len: usize,
    /// Kept.
    _chunk: Arc<AlignedBuffer>,
}

// SAFETY: owned memory, as is the rest of its chunk, which nobody accesses by way of that.
unsafe impl Send for Bounce {}

impl Deref for Bounce {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: initialised, and kept by the chunk.
        unsafe { slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl DerefMut for Bounce {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; nobody else has these bytes, and we are borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

/// As many buffers as parts, made when they are first needed: several at once where they have room in a huge page
/// together.
#[derive(Debug)]
pub(super) struct Bounces {
    /// The length of each, a power of two.
    len: usize,
    spare: Mutex<Spare>,
}

#[derive(Debug)]
struct Spare {
    made: Vec<Bounce>,
    to_make: u32,
}

impl Bounces {
    pub(super) fn new(count: u32, len: usize) -> Self {
        Self { len, spare: Mutex::new(Spare { made: Vec::new(), to_make: count }) }
    }

    /// One, for somebody with a credit: there are as many. Makes some if there are none to be used again, so that
    /// others wait who want one meanwhile.
    pub(super) fn take(&self) -> Result<Bounce, AlignedError> {
        let mut spare = self.spare.lock();
        if spare.made.is_empty() {
            let count = (HUGE / self.len).clamp(1, spare.to_make.max(1) as usize);
            let all = count * self.len;
            let mut chunk = AlignedBuffer::new(all, if all < HUGE { self.len } else { HUGE.max(self.len) })?;
            let at = NonNull::from(&mut *chunk).cast::<u8>();
            let chunk = Arc::new(chunk);
            spare.to_make = spare.to_make.saturating_sub(count as u32);
            spare.made.extend((0..count).map(|n| {
                // SAFETY: within the chunk.
                let at = unsafe { at.add(n * self.len) };
                Bounce { at, len: self.len, _chunk: Arc::clone(&chunk) }
            }));
        }
        Ok(spare.made.pop().expect("some were made"))
    }

    pub(super) fn put(&self, bounce: Bounce) {
        self.spare.lock().made.push(bounce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_as_parts_and_none_overlaps() {
        for (count, len) in
            [(1, 64 << 10), (3, 64 << 10), (40, 64 << 10), (3, 1 << 20), (2, 2 << 20), (2, 4 << 20)]
        {
            let bounces = Bounces::new(count, len);
            for _ in 0..2 {
                let mut all: Vec<_> = (0..count).map(|_| bounces.take().unwrap()).collect();
                assert_eq!(bounces.spare.lock().to_make, 0);
                assert!(bounces.spare.lock().made.is_empty(), "not one more than parts");
                for (n, bounce) in all.iter_mut().enumerate() {
                    assert!(bounce.len() == len && bounce.as_ptr().addr().is_multiple_of(len));
                    bounce.fill(n as u8 + 1);
                }
                for (n, bounce) in all.into_iter().enumerate() {
                    assert!(bounce.iter().all(|byte| *byte == n as u8 + 1));
                    bounces.put(bounce);
                }
            }
        }
    }
}
