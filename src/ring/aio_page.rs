//! The layout of the kernel's `aio_ring`: in pages of our own, and in whatever memory [`AioMemory`] is.

use super::Event;
use super::layout::Publisher;
use super::layout::sealed::{Publish, Read, Seen};
use crate::percpu::CachePadded;
use crate::sync::atomic::AtomicU32;
use crate::sync::page::{Page, Slot, Words};

impl Seen for Slot {
    #[inline(always)]
    fn event(&self) -> Event {
        self.get()
    }
}

impl Slot {
    /// A copy of the event. Of one that another program overwrites meanwhile, against the rules, some
    /// mixture.
    #[inline(always)]
    pub fn get(&self) -> Event {
        let [data, obj, res, res2] = self.words();
        Event { data, obj, res: res as i64, res2: res2 as i64 }
    }
}

/// Words of the header of the kernel's `aio_ring`.
pub(super) mod word {
    pub(in crate::ring) const NR: usize = 1;
    pub(in crate::ring) const HEAD: usize = 2;
    pub(in crate::ring) const TAIL: usize = 3;
    pub(in crate::ring) const MAGIC: usize = 4;
    pub(in crate::ring) const INCOMPATIBLE: usize = 6;
    pub(in crate::ring) const HEADER_LENGTH: usize = 7;
}

/// What `magic` is in a header that is one.
pub(super) const MAGIC: u32 = 0xa10a_10a1;
/// Bytes in front of the first slot.
pub(super) const HEADER_LENGTH: u32 = 32;

/// Indices from 0 to `nr - 1`, each that of its slot. One slot stays empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct Modulo {
    /// At least 2, at most 2³¹.
    pub(super) nr: u32,
}

impl Modulo {
    #[inline(always)]
    pub(super) fn distance(self, from: u32, to: u32) -> u32 {
        if to >= from { to - from } else { self.nr - from + to }
    }

    #[inline(always)]
    pub(super) fn advance(self, from: u32, n: u32) -> u32 {
        let to = from + n;
        if to >= self.nr { to - self.nr } else { to }
    }

    #[inline(always)]
    pub(super) fn clamp(self, word: u32) -> u32 {
        // No division where the rules are kept.
        if word < self.nr { word } else { word % self.nr }
    }
}

/// The layout of a [`Ring`](super::Ring) that programs outside this crate read in place: the kernel's
/// `aio_ring`.
///
/// A header of eight words (id, nr, head, tail, magic, compatible and incompatible features, header length),
/// then `nr` events, of which one place stays empty. Head and tail are plain indices below `nr`. What
/// publishers keep is elsewhere, where nobody outside can write.
#[derive(Debug)]
pub struct AioPage {
    publisher: CachePadded<Publisher>,
    claimed: CachePadded<AtomicU32>,
    page: Page,
    indices: Modulo,
}

impl AioPage {
    pub(super) fn new(capacity: u32) -> Self {
        let nr = capacity.max(1) + 1;
        let header = [0, nr, 0, 0, MAGIC, 1, 0, HEADER_LENGTH];
        Self {
            publisher: CachePadded::new(Publisher::new(0)),
            claimed: CachePadded::new(AtomicU32::new(0)),
            page: Page::new(header, nr as usize),
            indices: Modulo { nr },
        }
    }

    /// In memory of somebody else's, with all in it as [`begin`](Self::begin) leaves it.
    ///
    /// # Safety
    ///
    /// As [`Page::at`], for `capacity + 1` slots; 1. also of what is published or read later.
    #[cfg(ioctx_capi)]
    pub(super) unsafe fn at(base: std::ptr::NonNull<u8>, capacity: u32) -> Self {
        let nr = capacity + 1;
        Self {
            publisher: CachePadded::new(Publisher::new(0)),
            claimed: CachePadded::new(AtomicU32::new(0)),
            // SAFETY: the caller's.
            page: unsafe { Page::at(base, nr as usize) },
            indices: Modulo { nr },
        }
    }

    /// Writes the header of an empty ring, whatever others have made of it.
    ///
    /// # Safety
    ///
    /// 1. Nobody else publishes or reads meanwhile, but for others in their own way.
    #[cfg(ioctx_capi)]
    pub(super) unsafe fn begin(&self, id: u32) {
        use crate::sync::atomic::Ordering::Relaxed;
        // Relaxed, all: whoever is told the address is ordered after this by that.
        let tail = self.publisher.tail.load(Relaxed);
        // SAFETY: the tail is ours, by 1.
        self.publisher.head.with_mut(|head| unsafe { *head = tail });
        let header = [id, self.indices.nr, tail, tail, MAGIC, 1, 0, HEADER_LENGTH];
        for (word, value) in self.page.words().iter().zip(header) {
            word.store(value, Relaxed);
        }
    }

    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.page.as_ptr()
    }
}

/// Memory in the kernel's layout, whoever writes it.
pub(super) trait AioMemory {
    fn words(&self) -> &Words;
    /// As many as the indices say.
    fn slots(&self) -> &[Slot];
    fn indices(&self) -> Modulo;
}

impl<M: AioMemory> Read for M {
    type Slot = Slot;
    const RUNS_FREELY: bool = false;

    #[inline(always)]
    fn capacity(&self) -> u32 {
        self.indices().nr - 1
    }

    #[inline(always)]
    fn distance(&self, from: u32, to: u32) -> u32 {
        self.indices().distance(from, to)
    }

    #[inline(always)]
    fn advance(&self, from: u32, n: u32) -> u32 {
        self.indices().advance(from, n)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> (usize, u32) {
        (index as usize, self.indices().nr - index)
    }

    #[inline(always)]
    fn clamp(&self, word: u32) -> u32 {
        self.indices().clamp(word)
    }

    #[inline(always)]
    fn head(&self) -> &AtomicU32 {
        &self.words()[word::HEAD]
    }

    #[inline(always)]
    fn public_tail(&self) -> &AtomicU32 {
        &self.words()[word::TAIL]
    }

    #[inline(always)]
    unsafe fn with_slice<R>(&self, start: usize, len: usize, f: impl FnOnce(&[Slot]) -> R) -> R {
        f(&self.slots()[start..start + len])
    }
}

impl AioMemory for AioPage {
    #[inline(always)]
    fn words(&self) -> &Words {
        self.page.words()
    }

    #[inline(always)]
    fn slots(&self) -> &[Slot] {
        self.page.slots()
    }

    #[inline(always)]
    fn indices(&self) -> Modulo {
        self.indices
    }
}

impl Publish for AioPage {
    #[inline(always)]
    fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    #[inline(always)]
    fn claimed(&self) -> &AtomicU32 {
        &self.claimed
    }

    #[inline(always)]
    fn believe(&self, word: u32, known: u32, tail: u32) -> u32 {
        // A head that is not between the last one and the tail would free what was never published.
        let within = word < self.indices.nr && self.distance(known, word) <= self.distance(known, tail);
        if within { word } else { known }
    }

    #[inline(always)]
    unsafe fn write(&self, slot: usize, event: Event) {
        self.page.slots()[slot].set([event.data, event.obj, event.res as u64, event.res2 as u64]);
    }
}
