//! Where rings lie: each [`Region`] is mapped twice, for us and for the program.
//!
//! The program reads its rings in place, and may write their heads; it may also move a ring elsewhere (`mremap`), unmap
//! it, or fill it with nonsense. We never go through its addresses: the same pages are mapped a second time, and that
//! is where events are written. A handle is nothing but a number from which the region and the place in it are found.
//!
//! Children have neither mapping: what happens there cannot reach the parent's rings, and every handle of the parent's
//! is unknown.

use super::abi::{Errno, errno};
use super::context::Slot;
use super::memory;
use crate::sync::OnceLock;
use std::ptr::{self, NonNull};

pub(super) const PAGE: usize = 4096;
/// What is mapped at a time, at least.
const REGION: usize = 16 << 20;
/// What is given memory at a time, at least.
const CHUNK: usize = 64 << 10;

/// Rings of one size.
pub(super) struct Region {
    /// Our mapping, and the program's.
    own: NonNull<u8>,
    program: usize,
    /// How large a ring is: a power of two, in pages.
    stride: usize,
    /// Made when a place is used for the first time, and then for good: whoever holds an old handle may look at one at
    /// any time.
    slots: Box<[OnceLock<Box<Slot>>]>,
}

// SAFETY: the memory behind the pointer is reached through atomics only.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Room for rings of `stride` bytes.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, if the system maps no more.
    pub(super) fn new(stride: usize) -> Result<Self, Errno> {
        let len = stride.max(REGION);
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: anywhere, and backed by nothing.
        let own =
            unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if own == libc::MAP_FAILED {
            return Err(libc::ENOMEM);
        }
        // SAFETY: of a shared mapping, an old size of 0 asks for a second mapping of its pages, anywhere.
        let program = unsafe { libc::mremap(own, 0, len, libc::MREMAP_MAYMOVE) };
        if program == libc::MAP_FAILED {
            // SAFETY: mapped above, and nobody was told.
            unsafe { libc::munmap(own, len) };
            return Err(libc::ENOMEM);
        }
        for mapping in [own, program] {
            for advice in [libc::MADV_DONTFORK, libc::MADV_DONTDUMP] {
                // SAFETY: mapped above. Fails at worst without an effect.
                unsafe { libc::madvise(mapping, len, advice) };
            }
        }
        let own = NonNull::new(own.cast()).ok_or(libc::ENOMEM)?;
        let slots = (0..len / stride).map(|_| OnceLock::new()).collect();
        Ok(Self { own, program: program.addr(), stride, slots })
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// How many rings it has room for.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The context whose ring begins at that address of the program's.
    #[inline]
    pub(super) fn find(&self, address: usize) -> Option<&Slot> {
        let offset = address.wrapping_sub(self.program);
        let place = offset / self.stride;
        if !offset.is_multiple_of(self.stride) {
            return None;
        }
        self.slots.get(place)?.get().map(|slot| &**slot)
    }

    /// The context in that place, if there ever was one.
    pub(super) fn get(&self, place: usize) -> Option<&Slot> {
        self.slots.get(place)?.get().map(|slot| &**slot)
    }

    /// Where the program sees the ring of that place.
    pub(super) fn address(&self, place: usize) -> usize {
        self.program + place * self.stride
    }

    /// Makes the context of a place that was not used before.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, if there is no memory for the ring.
    pub(super) fn make(&self, place: usize, id: u32) -> Result<&Slot, Errno> {
        let (at, len) = (place * self.stride, self.stride.max(CHUNK));
        if at.is_multiple_of(len) {
            // Now, and not when it is written to: then there would be nobody to tell that there is no memory.
            // SAFETY: within the mapping, whose size is a multiple of `len`.
            let filled =
                unsafe { libc::madvise(self.own.as_ptr().add(at).cast(), len, libc::MADV_POPULATE_WRITE) };
            // What an older kernel does not know is not done.
            if filled != 0 && errno() != libc::EINVAL {
                return Err(libc::ENOMEM);
            }
        }
        // SAFETY: within the mapping.
        let base = unsafe { self.own.add(at) };
        // SAFETY: 1. mapped for good, aligned to a page, this place's alone, and zeroes. 2. the program's side.
        Ok(self.slots[place].get_or_init(|| Box::new(unsafe { Slot::new(base, self.stride, id) })))
    }

    /// Whether the program still has the ring of that place, `slot`'s, where it was. It may have something else there.
    pub(super) fn has_ring(&self, slot: &Slot, place: usize) -> bool {
        let header = memory::peek(ptr::with_exposed_provenance(self.address(place)));
        header.is_some_and(|header| slot.has_header(header))
    }
}
