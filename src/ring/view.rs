//! [`RingView`]: reading an `aio_ring` that somebody else writes.

use super::aio_page::{AioMemory, HEADER_LENGTH, MAGIC, Modulo, word};
use super::layout::MOST;
use super::layout::sealed::Read;
use super::reader::Cursor;
use super::{Event, EventCell};
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::page::{self, Words};
use std::ptr::NonNull;

/// The reading side of an `aio_ring` in memory that somebody else writes: a ring of the kernel's AIO, or an
/// [`AioRing`](super::AioRing).
///
/// Reading is wait-free and makes no system call. Events are seen in place, one cell each, since nobody can
/// promise what else goes on in such memory. Every index is clamped before it is used: whatever anybody
/// writes into the header, the view stays within the memory that it was given, and does not panic.
///
/// At any time a ring has one reader, which [`peek`](Self::peek) makes sure of for one view only: meanwhile
/// nobody calls `io_getevents`, nor reads through another view. If two read, both get wrong events. Between
/// calls others may read, and the view goes on from where they stopped; so `io_getevents` can wait for what
/// the view did not find.
///
/// # Costs
///
/// Three words, and the header's line for each call, which is also the publisher's.
///
/// # Examples
///
/// ```
/// use ioctx::ring::{AioRing, Event, RingView};
/// let ring = AioRing::with_capacity(3);
/// ring.try_publish_batch(&[Event { data: 7, ..Event::default() }; 2])?;
/// // SAFETY: 1. and 2. the ring outlives the view. 3. nobody else writes but the ring.
/// let mut view = unsafe { RingView::new(ring.as_ptr(), ring.size())? };
/// let datas: Vec<u64> = view.peek(9, |run| run.iter().map(|cell| cell.get().data).collect());
/// view.commit(datas.len())?;
/// assert_eq!(datas, [7, 7]);
/// assert!(ring.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: QEMU's `io_getevents_peek` and `io_getevents_commit` (2016).
#[derive(Debug)]
pub struct RingView {
    memory: Memory,
    cursor: Cursor,
}

/// Why memory cannot be read as an `aio_ring`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unusable {
    /// The address is null or not a multiple of 8.
    Address,
    /// There is not even a header: so many bytes were given.
    TooShort(usize),
    /// This is in the place of the magic number.
    Magic(u32),
    /// The ring has these features, without which nobody can read it, and which are not known here.
    Incompatible(u32),
    /// The header says that it is so long, which is less than it is or not a multiple of 8.
    HeaderLength(u32),
    /// The header says that there are so many slots, which is fewer than 2 or more than there is memory.
    Slots(u32),
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address => f.write_str("the ring's address is null or unaligned; pass what io_setup gave"),
            Self::TooShort(len) => {
                write!(f, "{len} bytes are no aio_ring, whose header has 32; pass all of it")
            }
            Self::Magic(magic) => {
                write!(f, "the magic number is {magic:#x}, not {MAGIC:#x}: no aio_ring; call io_getevents")
            }
            Self::Incompatible(bits) => {
                write!(f, "the ring has the unknown incompatible features {bits:#x}; call io_getevents")
            }
            Self::HeaderLength(len) => {
                write!(f, "a header of {len} bytes is no aio_ring's; call io_getevents")
            }
            Self::Slots(nr) => {
                write!(f, "{nr} slots are not in the memory given, or too few; pass all of it")
            }
        }
    }
}

impl std::error::Error for Unusable {}

/// More events were to be given up than had been shown, which were so many. None was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotShown(pub usize);

impl std::fmt::Display for NotShown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "only {} events had been shown; commit at most those", self.0)
    }
}

impl std::error::Error for NotShown {}

impl RingView {
    /// The ring in the `len` bytes at `base`. What is checked now is not looked at again.
    ///
    /// # Errors
    ///
    /// [`Unusable`]: this is no ring, or not one that is known here. Nothing was written.
    ///
    /// # Safety
    ///
    /// Until the view is last used:
    /// 1. `base` leads to `len` bytes that may be read and written.
    /// 2. They are initialised.
    /// 3. Whoever else writes them in this process does so by atomic accesses. The kernel counts as such.
    ///
    /// Under loom, `base` is from [`AioRing::as_ptr`](super::AioRing::as_ptr) of a ring that is still there.
    pub unsafe fn new(base: *mut u8, len: usize) -> Result<Self, Unusable> {
        let base =
            NonNull::new(base).filter(|base| base.cast::<u64>().is_aligned()).ok_or(Unusable::Address)?;
        if len < HEADER_LENGTH as usize {
            return Err(Unusable::TooShort(len));
        }
        // SAFETY: 1. aligned, and long enough; the rest is the caller's.
        let words = unsafe { page::words_at(base.as_ptr()) };
        // Relaxed, here and below: written before the address was passed on.
        let word = |at: usize| words[at].load(Relaxed);
        if word(word::MAGIC) != MAGIC {
            return Err(Unusable::Magic(word(word::MAGIC)));
        }
        if word(word::INCOMPATIBLE) != 0 {
            return Err(Unusable::Incompatible(word(word::INCOMPATIBLE)));
        }
        // Each is loaded once: it may change after it was checked.
        let header_length = word(word::HEADER_LENGTH);
        if header_length < HEADER_LENGTH || header_length % 8 != 0 {
            return Err(Unusable::HeaderLength(header_length));
        }
        let nr = word(word::NR);
        if !(2..=MOST + 1).contains(&nr) || u64::from(header_length) + 32 * u64::from(nr) > len as u64 {
            return Err(Unusable::Slots(nr));
        }
        let memory = Memory { base, header_length, indices: Modulo { nr } };
        Ok(Self { cursor: Cursor::new(&memory), memory })
    }

    /// The ring of the kernel's AIO context `context`, which says itself how long it is.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    ///
    /// # Safety
    ///
    /// 1. `context` is what `io_setup` gave, and is not destroyed before the view is last used.
    /// 2. Whoever writes into the context's ring in this process does so by atomic accesses, and has not
    ///    written its number of slots or the length of its header.
    #[cfg(ioctx_linux)]
    pub unsafe fn of_kernel(context: u64) -> Result<Self, Unusable> {
        let base = std::ptr::with_exposed_provenance_mut::<u8>(context as usize);
        if base.is_null() || !base.cast::<u64>().is_aligned() {
            return Err(Unusable::Address);
        }
        // SAFETY: 1. to 3. the kernel has mapped a page at least, and 2.
        let words = unsafe { page::words_at(base) };
        // Relaxed: written by `io_setup`.
        let [nr, header] = [word::NR, word::HEADER_LENGTH].map(|at| words[at].load(Relaxed) as usize);
        // SAFETY: 1. to 3. the kernel has mapped as much as the header says, and 2.
        unsafe { Self::new(base, nr.saturating_mul(32).saturating_add(header)) }
    }

    /// How many events fit.
    pub fn capacity(&self) -> u32 {
        self.memory.capacity()
    }

    /// Shows up to `max` events that lie next to each other in memory, oldest first, in place. An empty run
    /// means that there was nothing to read; a run that ends at the ring's edge may be followed by another.
    ///
    /// # Staleness
    ///
    /// What is shown stays until it is committed, if everybody keeps the rules. More may have been published
    /// since.
    #[inline]
    pub fn peek<R>(&mut self, max: usize, f: impl FnOnce(&[EventCell]) -> R) -> R {
        self.cursor = Cursor::new(&self.memory);
        self.cursor.peek(&self.memory, max, f)
    }

    /// Gives up the oldest `n` events, of those that were there at the last [`peek`](Self::peek) and have
    /// not been given up.
    ///
    /// # Errors
    ///
    /// [`NotShown`]: there were fewer. Nothing was given up.
    #[inline]
    pub fn commit(&mut self, n: usize) -> Result<(), NotShown> {
        let seen = self.cursor.seen(&self.memory);
        if n > seen {
            return Err(NotShown(seen));
        }
        if n > 0 {
            self.cursor.commit(&self.memory, n);
        }
        Ok(())
    }

    /// Moves up to `max` events to the end of `out`, oldest first, and returns how many.
    ///
    /// # Panics
    ///
    /// As [`Vec::reserve`]; what did not fit is still in the ring.
    #[inline]
    pub fn pop_into(&mut self, out: &mut Vec<Event>, max: usize) -> usize {
        self.cursor = Cursor::new(&self.memory);
        self.cursor.pop_into(&self.memory, out, max)
    }

    /// Takes the oldest event out, or `None` if there is none. A handler called with it may be given the
    /// view, and gets what comes after.
    #[inline]
    pub fn pop(&mut self) -> Option<Event> {
        self.cursor = Cursor::new(&self.memory);
        self.cursor.pop(&self.memory)
    }
}

/// Somebody else's memory.
#[derive(Debug)]
struct Memory {
    /// Leads to a header of `header_length` bytes and `indices.nr` slots, as promised to [`RingView::new`].
    base: NonNull<u8>,
    header_length: u32,
    indices: Modulo,
}

// SAFETY: reached through atomics only; who promised the memory promised it to whoever has the view.
unsafe impl Send for Memory {}

impl AioMemory for Memory {
    #[inline(always)]
    fn words(&self) -> &Words {
        // SAFETY: promised to `RingView::new`, where alignment and length were checked.
        unsafe { page::words_at(self.base.as_ptr()) }
    }

    #[inline(always)]
    fn slots(&self) -> &[EventCell] {
        let (offset, nr) = (self.header_length as usize, self.indices.nr as usize);
        // SAFETY: as above.
        unsafe { page::slots_at(self.base.as_ptr(), offset, nr) }
    }

    #[inline(always)]
    fn indices(&self) -> Modulo {
        self.indices
    }
}
