//! Where a ring keeps its indices and slots, and how indices count. The publishing and the reading code is
//! written once, over these traits.

use super::{AioPage, Event};
use crate::percpu::CachePadded;
use crate::sync::atomic::AtomicU32;
use crate::sync::cell::{CellArray, UnsafeCell};

/// The largest index there can be: what is above means that there is none.
pub(super) const INDEX: u32 = (1 << 31) - 1;
/// The largest capacity.
pub(super) const MOST: u32 = 1 << 30;

/// A layout of a [`Ring`](super::Ring): [`Padded`] or [`AioPage`]. Nobody else can implement it.
///
/// Readers of the former see [`Event`]s in place, those of the latter [`EventCell`](super::EventCell)s,
/// since programs outside may be writing.
pub trait Layout: sealed::Publish {}

impl Layout for Padded {}
impl Layout for AioPage {}

pub(super) mod sealed {
    use super::{AtomicU32, Event, Publisher};

    /// What a slot looks like to its reader.
    pub trait Seen {
        /// A copy of the event in it.
        fn event(&self) -> Event;
    }

    /// What a reader needs.
    pub trait Read {
        /// A slot, as a reader sees it in place.
        type Slot: Seen;
        /// Whether an index comes back only after so many events that nobody mistakes it for the old one.
        const RUNS_FREELY: bool;

        /// How many events fit.
        fn capacity(&self) -> u32;
        /// How far `to` is ahead of `from`, both being indices.
        fn distance(&self, from: u32, to: u32) -> u32;
        /// The index `n` after `from`; `n` is at most the capacity.
        fn advance(&self, from: u32, n: u32) -> u32;
        /// The slot of an index, and how many there are from it to the edge.
        fn slot(&self, index: u32) -> (usize, u32);
        /// An index made of a word that anybody may have written.
        fn clamp(&self, word: u32) -> u32;
        /// The index of the first unread event. Changed only by the reader, or by programs outside.
        fn head(&self) -> &AtomicU32;
        /// The index after the last event that can be read.
        fn public_tail(&self) -> &AtomicU32;
        /// Calls `f` with the slots from `start` to `start + len`, in place.
        ///
        /// # Safety
        ///
        /// 1. `start + len` is at most the number of slots.
        /// 2. Unless programs outside break the rules, nobody writes those slots until this returns.
        unsafe fn with_slice<R>(&self, start: usize, len: usize, f: impl FnOnce(&[Self::Slot]) -> R) -> R;
    }

    /// What a publisher needs.
    pub trait Publish: Read {
        /// The publishers' own.
        fn publisher(&self) -> &Publisher;
        /// 1 while somebody of this process reads.
        fn claimed(&self) -> &AtomicU32;
        /// The head to go on with, of `word` as it was loaded and the one known so far: between that one and
        /// `tail`.
        fn believe(&self, word: u32, known: u32, tail: u32) -> u32;
        /// Writes a slot.
        ///
        /// # Safety
        ///
        /// 1. `slot` came from [`slot`](Read::slot).
        /// 2. Unless programs outside break the rules, nobody else reads or writes it until this returns.
        unsafe fn write(&self, slot: usize, event: Event);
    }
}
use sealed::{Publish, Read, Seen};

/// What publishers share. Named by the sealed traits only.
#[derive(Debug)]
pub struct Publisher {
    /// The index after the last event, or `BUSY`, or `CLOSED`.
    pub(super) tail: AtomicU32,
    /// 1 once the ring has been closed. Changed only by whoever took the tail.
    pub(super) closed: AtomicU32,
    /// The head as last looked up. Never ahead of the true head.
    ///
    /// # Safety
    ///
    /// Touched only by whoever took the tail, until it gives it back.
    pub(super) head: UnsafeCell<u32>,
}

// SAFETY: `head` is reached only under the protocol of the tail.
unsafe impl Sync for Publisher {}

impl Publisher {
    pub(super) fn new(start: u32) -> Self {
        Self { tail: AtomicU32::new(start), closed: AtomicU32::new(0), head: UnsafeCell::new(start) }
    }
}

impl Seen for Event {
    #[inline(always)]
    fn event(&self) -> Event {
        *self
    }
}

/// The layout of a [`Ring`](super::Ring) that stays inside one program: head, private tail and public tail
/// on lines of their own, as many slots as a power of two, indices that run freely.
#[derive(Debug)]
pub struct Padded {
    /// Written by publishers.
    publisher: CachePadded<Publisher>,
    /// Written by publishers, read by readers.
    public_tail: CachePadded<AtomicU32>,
    /// Written by readers.
    reader: CachePadded<ReaderSide>,
    slots: CellArray<Event>,
    mask: u32,
}

#[derive(Debug)]
struct ReaderSide {
    head: AtomicU32,
    claimed: AtomicU32,
}

impl Padded {
    pub(super) fn new(capacity: u32, start: u32) -> Self {
        let capacity = capacity.next_power_of_two();
        let start = start & INDEX;
        Self {
            publisher: CachePadded::new(Publisher::new(start)),
            public_tail: CachePadded::new(AtomicU32::new(start)),
            reader: CachePadded::new(ReaderSide { head: AtomicU32::new(start), claimed: AtomicU32::new(0) }),
            slots: CellArray::new(capacity as usize, Event::default()),
            mask: capacity - 1,
        }
    }
}

impl Read for Padded {
    type Slot = Event;
    const RUNS_FREELY: bool = true;

    #[inline(always)]
    fn capacity(&self) -> u32 {
        self.mask + 1
    }

    #[inline(always)]
    fn distance(&self, from: u32, to: u32) -> u32 {
        to.wrapping_sub(from) & INDEX
    }

    #[inline(always)]
    fn advance(&self, from: u32, n: u32) -> u32 {
        from.wrapping_add(n) & INDEX
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> (usize, u32) {
        let slot = index & self.mask;
        (slot as usize, self.capacity() - slot)
    }

    #[inline(always)]
    fn clamp(&self, word: u32) -> u32 {
        word
    }

    #[inline(always)]
    fn head(&self) -> &AtomicU32 {
        &self.reader.head
    }

    #[inline(always)]
    fn public_tail(&self) -> &AtomicU32 {
        &self.public_tail
    }

    #[inline(always)]
    unsafe fn with_slice<R>(&self, start: usize, len: usize, f: impl FnOnce(&[Event]) -> R) -> R {
        // SAFETY: 1. and 2. are the caller's; there are no programs outside.
        unsafe { self.slots.with_slice(start, len, f) }
    }
}

impl Publish for Padded {
    #[inline(always)]
    fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    #[inline(always)]
    fn claimed(&self) -> &AtomicU32 {
        &self.reader.claimed
    }

    #[inline(always)]
    fn believe(&self, word: u32, _known: u32, _tail: u32) -> u32 {
        word
    }

    #[inline(always)]
    unsafe fn write(&self, slot: usize, event: Event) {
        // SAFETY: 1. `slot` masks. 2. the caller's; there are no programs outside.
        unsafe { self.slots.write(slot, event) }
    }
}
