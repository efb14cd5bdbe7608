//! [`Ring`]: one ring.

use super::Event;
use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed, give_back, glance};
use crate::sync::cell::{CellArray, UnsafeCell};
use crate::sync::mo;

/// In the private tail while a publisher holds it. No index has bit 31.
const BUSY: u32 = u32::MAX;
/// Indices run freely from 0 to 2³¹ - 1 and wrap to 0; a slot is an index modulo the capacity.
const INDEX: u32 = (1 << 31) - 1;

/// How far `to` is ahead of `from`, both being indices.
#[inline(always)]
fn distance(from: u32, to: u32) -> u32 {
    to.wrapping_sub(from) & INDEX
}

/// The index `n` after `from`.
#[inline(always)]
fn advance(from: u32, n: u32) -> u32 {
    from.wrapping_add(n) & INDEX
}

/// Why nothing was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another publisher is between taking the tail and giving it back. Try again, or another ring.
    Busy,
    /// No slot is free. Nothing changes until a reader commits.
    Full,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Busy => "another publisher holds the tail; try again",
            Self::Full => "the ring is full; read and commit some events",
        })
    }
}

impl std::error::Error for Refused {}

/// A bounded ring of [`Event`]s: any number of publishers, one reader at a time.
///
/// [`try_publish`](Self::try_publish) is wait-free: it never waits for another publisher or for a reader.
/// Reading is wait-free once the reader's side is claimed. The ring does not wake anybody and does not
/// wait.
///
/// # Costs
///
/// 32 bytes per slot and four padded lines. Two locked instructions per call of `try_publish` or
/// [`try_publish_batch`](Self::try_publish_batch), however many events it carries.
///
/// # Examples
///
/// ```
/// use ioctx::ring::{Event, Refused, Ring};
/// let ring = Ring::new(2);
/// let event = |data| Event { data, ..Event::default() };
/// assert_eq!(ring.try_publish_batch(&[event(1), event(2), event(3)]), Ok(2));
/// assert_eq!(ring.try_publish(event(3)), Err(Refused::Full));
///
/// let mut reader = ring.try_reader().expect("nobody else reads");
/// let first = reader.peek(1, |run| run[0].data);
/// reader.commit(1);
/// assert_eq!(first, 1);
/// assert_eq!(ring.try_publish(event(3)), Ok(()));
/// ```
#[derive(Debug)]
pub struct Ring {
    /// Written by publishers.
    publisher: CachePadded<Publisher>,
    /// Written by publishers, read by readers: the index after the last event that can be read.
    public_tail: CachePadded<AtomicU32>,
    /// Written by readers.
    reader: CachePadded<ReaderSide>,
    slots: CellArray<Event>,
    mask: u32,
}

#[derive(Debug)]
struct Publisher {
    /// The index after the last event, or `BUSY`.
    tail: AtomicU32,
    /// The head as last looked up. Never ahead of the true head.
    ///
    /// # Safety
    ///
    /// Touched only by whoever took the tail, until it gives it back.
    head: UnsafeCell<u32>,
}

#[derive(Debug)]
struct ReaderSide {
    /// The index of the first unread event. Changed only by whoever set `claimed`.
    head: AtomicU32,
    /// 1 while somebody reads.
    claimed: AtomicU32,
}

// SAFETY: `head` and `slots` are reached only under the protocol of the tail, of the claim and of the two
// indices.
unsafe impl Sync for Ring {}

impl Ring {
    /// An empty ring of at least `capacity` slots, rounded up to a power of two (at least 1).
    ///
    /// # Panics
    ///
    /// If `capacity` is above 2³⁰.
    pub fn new(capacity: u32) -> Self {
        Self::starting_at(capacity, 0)
    }

    /// As [`new`](Self::new), with the indices starting at `start` (modulo 2³¹), which lets a test reach
    /// the point where they wrap.
    ///
    /// # Panics
    ///
    /// If `capacity` is above 2³⁰.
    pub fn starting_at(capacity: u32, start: u32) -> Self {
        assert!(capacity <= 1 << 30, "at most 2^30 slots, {capacity} asked for");
        let capacity = capacity.next_power_of_two();
        let start = start & INDEX;
        Self {
            publisher: CachePadded::new(Publisher {
                tail: AtomicU32::new(start),
                head: UnsafeCell::new(start),
            }),
            public_tail: CachePadded::new(AtomicU32::new(start)),
            reader: CachePadded::new(ReaderSide { head: AtomicU32::new(start), claimed: AtomicU32::new(0) }),
            slots: CellArray::new(capacity as usize, Event::default()),
            mask: capacity - 1,
        }
    }

    /// How many events fit.
    pub fn capacity(&self) -> u32 {
        self.mask + 1
    }

    /// How many events can be read.
    ///
    /// # Staleness
    ///
    /// More may have been published, some may have been read. For an ordering with what was published
    /// before a fence, the caller executes the fence.
    #[inline]
    pub fn len(&self) -> u32 {
        // Acquire: pairs with `commit`, whose reader had seen a tail at least as far; so the tail read next
        // is not behind the head. A head that moves meanwhile makes the number too large, never too small.
        let head = self.reader.head.load(mo!("ring.len.head", Acquire));
        // Relaxed: a number, not the right to read.
        distance(head, self.public_tail.load(Relaxed)).min(self.capacity())
    }

    /// Whether nothing can be read. As stale as [`len`](Self::len).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Publishes one event.
    ///
    /// # Errors
    ///
    /// [`Refused`]: nothing was published.
    #[inline]
    pub fn try_publish(&self, event: Event) -> Result<(), Refused> {
        self.publish_with(1, |_| event).map(drop)
    }

    /// Publishes the first of `events`, as many as there are free slots, and returns how many. They are
    /// adjacent in the ring.
    ///
    /// On x86 the call ends with a full fence; see the [module](super).
    ///
    /// # Errors
    ///
    /// [`Refused`]: nothing was published, though there was something to publish.
    #[inline]
    pub fn try_publish_batch(&self, events: &[Event]) -> Result<usize, Refused> {
        match events.len().try_into().unwrap_or(u32::MAX) {
            0 => Ok(0),
            wanted => self.publish_with(wanted, |i| events[i as usize]),
        }
    }

    /// Publishes up to `wanted` events (at least 1). Each is asked for when its slot is at hand, so that it
    /// is made in place.
    #[inline(always)]
    fn publish_with(&self, wanted: u32, event: impl Fn(u32) -> Event) -> Result<usize, Refused> {
        // Relaxed: look before swapping, so as not to steal the line from a publisher who is about to give
        // back.
        if glance(&self.publisher.tail) == BUSY {
            return Err(Refused::Busy);
        }
        // Acquire: pairs with the give-back of the last publisher, after which its copy of the head is
        // ours, and what it had acquired from readers too.
        let tail = self.publisher.tail.swap(BUSY, mo!("ring.tail.take", Acquire));
        if tail == BUSY {
            return Err(Refused::Busy);
        }
        let n = self.room(tail, wanted).min(wanted);
        for i in 0..n {
            // SAFETY: 1. masked. 2. `room` says that the slot is free: its last event was read and
            // committed, which happens before through `ring.head`, now or in an earlier publisher; no other
            // publisher holds the tail, and readers stay below the public tail.
            unsafe { self.slots.write((advance(tail, i) & self.mask) as usize, event(i)) };
        }
        let end = advance(tail, n);
        if n > 0 {
            // Release: pairs with the load in `Reader::peek`; publishes the events.
            self.public_tail.store(end, mo!("ring.public.store", Release));
        }
        // Release: pairs with the taking by the next publisher. Acquire is not for ordering: it keeps a
        // compiler from making a plain store of a swap whose result nobody uses, since this is the full
        // fence that callers count on.
        self.publisher.tail.swap(end, mo!("ring.tail.give", AcqRel));
        if n == 0 { Err(Refused::Full) } else { Ok(n as usize) }
    }

    /// How many slots are free after `tail`, which this thread has taken; looked up anew if the copy of the
    /// head shows fewer than `wanted`.
    #[inline]
    fn room(&self, tail: u32, wanted: u32) -> u32 {
        self.publisher.head.with_mut(|head| {
            // SAFETY: this thread holds the tail.
            let head = unsafe { &mut *head };
            if self.capacity() - distance(*head, tail) < wanted {
                // Acquire: pairs with the store in `Reader::commit`; the slots up to there have been read.
                *head = self.reader.head.load(mo!("ring.head.refresh", Acquire));
            }
            self.capacity() - distance(*head, tail)
        })
    }

    /// Claims the reader's side, or `None` if somebody else has it. Wait-free.
    #[inline]
    pub fn try_reader(&self) -> Option<Reader<'_>> {
        // Relaxed: look before swapping, so that idle readers share the line.
        // Acquire: pairs with the release by the last reader; its head is ours.
        if glance(&self.reader.claimed) != 0
            || self.reader.claimed.swap(1, mo!("ring.reader.claim", Acquire)) != 0
        {
            return None;
        }
        // Relaxed: only readers write it, and they are ordered by the claim.
        let head = self.reader.head.load(Relaxed);
        Some(Reader { ring: self, head })
    }
}

/// The reader's side of a [`Ring`], for as long as this lives.
///
/// [`peek`](Self::peek) shows events in place, [`commit`](Self::commit) gives up those that were handled.
/// What was not committed is seen again, by this reader or the next.
#[derive(Debug)]
pub struct Reader<'a> {
    ring: &'a Ring,
    head: u32,
}

impl Reader<'_> {
    /// Shows up to `max` events that lie next to each other in memory, oldest first, in place. An empty run
    /// means that there was nothing to read; a run that ends at the ring's edge may be followed by another.
    ///
    /// # Staleness
    ///
    /// What is shown stays until it is committed. More may have been published since.
    #[inline]
    pub fn peek<R>(&self, max: usize, f: impl FnOnce(&[Event]) -> R) -> R {
        // Acquire: pairs with the store in `try_publish_batch`; the events below it are written.
        let tail = self.ring.public_tail.load(mo!("ring.public.load", Acquire));
        let start = self.head & self.ring.mask;
        let to_edge = self.ring.capacity() - start;
        let run = distance(self.head, tail).min(to_edge).min(max.try_into().unwrap_or(u32::MAX));
        // SAFETY: 1. within the edge. 2. between head and public tail nobody writes until the head has
        // passed.
        unsafe { self.ring.slots.with_slice(start as usize, run as usize, f) }
    }

    /// Gives up the oldest `n` events, of those that [`peek`](Self::peek) has shown.
    ///
    /// # Panics
    ///
    /// If more are given up than there are.
    #[inline]
    pub fn commit(&mut self, n: usize) {
        // Relaxed: a bound; who has peeked has acquired these events already.
        let tail = self.ring.public_tail.load(Relaxed);
        assert!(n <= distance(self.head, tail) as usize, "committed events that were not there");
        self.head = advance(self.head, n as u32);
        // Release: pairs with the load in `room`; the slots were read before they can be written again.
        self.ring.reader.head.store(self.head, mo!("ring.head.store", Release));
    }
}

impl Drop for Reader<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the claim by the next reader.
        give_back(&self.ring.reader.claimed, 0, mo!("ring.reader.release", Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: u64) -> Event {
        Event { data, ..Event::default() }
    }

    fn drain(ring: &Ring, max: usize) -> Vec<u64> {
        let mut all = Vec::new();
        let mut reader = ring.try_reader().unwrap();
        loop {
            let n = reader.peek(max, |run| {
                all.extend(run.iter().map(|event| event.data));
                run.len()
            });
            if n == 0 {
                return all;
            }
            reader.commit(n);
        }
    }

    #[test]
    fn keeps_order_across_every_wrap() {
        for start in [0, INDEX - 1, INDEX - 5, u32::MAX] {
            let ring = Ring::starting_at(4, start);
            for round in 0..9 {
                assert_eq!(ring.try_publish_batch(&[0, 1, 2, 3, 4].map(|i| event(round * 10 + i))), Ok(4));
                assert_eq!(ring.try_publish(event(99)), Err(Refused::Full));
                assert_eq!(drain(&ring, 3), [0, 1, 2, 3].map(|i| round * 10 + i));
                assert!(ring.is_empty());
                assert_eq!(ring.try_publish(event(7)), Ok(()));
                assert_eq!((ring.len(), drain(&ring, usize::MAX)), (1, vec![7]));
            }
        }
    }

    #[test]
    fn what_is_not_committed_is_seen_again() {
        let ring = Ring::new(4);
        assert_eq!(ring.try_publish_batch(&[event(1), event(2)]), Ok(2));
        let mut reader = ring.try_reader().unwrap();
        assert!(ring.try_reader().is_none());
        assert_eq!(reader.peek(usize::MAX, <[Event]>::len), 2);
        reader.commit(1);
        drop(reader);
        assert_eq!(drain(&ring, 1), [2]);
    }

    #[test]
    #[should_panic(expected = "were not there")]
    fn committing_too_much_is_caught() {
        let ring = Ring::new(4);
        ring.try_publish(event(1)).unwrap();
        ring.try_reader().unwrap().commit(2);
    }

    #[test]
    fn one_slot_is_enough() {
        let ring = Ring::new(0);
        assert_eq!(ring.capacity(), 1);
        for i in 0..5 {
            assert_eq!(ring.try_publish_batch(&[event(i), event(9)]), Ok(1));
            assert_eq!(drain(&ring, 8), [i]);
        }
    }
}
