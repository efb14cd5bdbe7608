//! [`Ring`]: one ring, and its publishing side.

use super::layout::{INDEX, MOST};
use super::{AioPage, Event, Layout, Padded};
use crate::sync::atomic::{Ordering::Relaxed, glance};
use crate::sync::{hint, mo, thread};

/// In the private tail while a publisher holds it. No index has bit 31.
const BUSY: u32 = u32::MAX;
/// In the private tail of a closed ring.
const CLOSED: u32 = u32::MAX - 1;

/// Why nothing was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Another publisher is between taking the tail and giving it back. Try again, or another ring.
    Busy,
    /// No slot is free. Nothing changes until a reader commits.
    Full,
    /// The ring was closed. Nothing changes any more.
    Closed,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Busy => "another publisher holds the tail; try again",
            Self::Full => "the ring is full; read and commit some events",
            Self::Closed => "the ring was closed; publish elsewhere",
        })
    }
}

impl std::error::Error for Refused {}

/// A bounded ring of [`Event`]s: any number of publishers, one reader at a time.
///
/// [`try_publish`](Self::try_publish) is wait-free: it never waits for another publisher or for a reader.
/// Reading is wait-free once the reader's side is claimed. The ring does not wake anybody and does not
/// wait, [`close`](Self::close) apart.
///
/// The layout decides where indices and slots are: [`Padded`] unless programs outside this crate are to read
/// the ring in place, for which there is [`AioRing`].
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
pub struct Ring<L: Layout = Padded> {
    pub(super) layout: L,
}

/// A [`Ring`] in the kernel's `aio_ring` layout, which programs outside this crate read in place.
///
/// Publishing is as wait-free as on any ring. Head and tail are in the header, on one line, because that is
/// the interface: a ring that only this crate reads is faster as [`Padded`].
///
/// # What programs outside may do
///
/// Whoever reads the ring from outside loads head and tail, copies events, and stores the new head; all of
/// that by atomic accesses, the tail with acquire and the head with release. At any time there is one
/// reader: a program outside, or a [`Reader`](super::Reader), or a [`RingView`](super::RingView). A program
/// that breaks these rules, or stores nonsense, gets and makes others get wrong events, and may stop
/// publishers for good; it frees no slot that was not published, and makes nobody read or write beside the
/// ring.
///
/// # Examples
///
/// ```
/// use ioctx::ring::{AioRing, Event, Refused};
/// let ring = AioRing::with_capacity(3);
/// assert_eq!(ring.try_publish_batch(&[Event::default(); 4]), Ok(3));
/// assert_eq!(ring.try_publish(Event::default()), Err(Refused::Full));
/// assert_eq!(ring.pop_into(&mut Vec::new(), 9), 3);
/// ```
///
/// Source: `struct aio_ring` in `fs/aio.c`.
pub type AioRing = Ring<AioPage>;

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
        assert!(capacity <= MOST, "at most 2^30 slots, {capacity} asked for");
        Self { layout: Padded::new(capacity, start) }
    }
}

impl AioRing {
    /// An empty ring for exactly `capacity` events (at least 1), in pages of its own.
    ///
    /// # Panics
    ///
    /// If `capacity` is above 2³⁰, or more than the address space has room for.
    pub fn with_capacity(capacity: u32) -> Self {
        assert!(capacity <= MOST, "at most 2^30 events, {capacity} asked for");
        Self { layout: AioPage::new(capacity) }
    }

    /// An empty ring for exactly `capacity` events, in memory that stays its owner's.
    ///
    /// # Safety
    ///
    /// 1. `base` is aligned to a page and leads to `32 * (capacity + 2)` bytes that may be read and written until this
    ///    is dropped. They are zeroes, as far as the indices go.
    /// 2. Whoever else writes them in this process does so by atomic accesses.
    /// 3. `capacity` is at least 1 and at most 2³⁰.
    #[cfg(ioctx_capi)]
    pub(crate) unsafe fn in_memory(base: std::ptr::NonNull<u8>, capacity: u32) -> Self {
        // SAFETY: 1. and 2. are the caller's.
        Self { layout: unsafe { AioPage::at(base, capacity) } }
    }

    /// Writes the header of an empty ring, with this `id`, whatever others have made of it.
    ///
    /// # Safety
    ///
    /// 1. Nobody else publishes or reads meanwhile, but for others in their own way.
    #[cfg(ioctx_capi)]
    pub(crate) unsafe fn begin(&self, id: u32) {
        // SAFETY: 1. as asked.
        unsafe { self.layout.begin(id) };
    }

    /// The address of the header, aligned to a page. It stays until the ring is dropped. Under loom it is
    /// good for [`RingView`](super::RingView) only.
    pub fn as_ptr(&self) -> *mut u8 {
        self.layout.as_ptr()
    }

    /// How many bytes there are at [`as_ptr`](Self::as_ptr), header included.
    pub fn size(&self) -> usize {
        32 * (self.capacity() as usize + 2)
    }
}

impl<L: Layout> Ring<L> {
    /// How many events fit.
    pub fn capacity(&self) -> u32 {
        self.layout.capacity()
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
        let head = self.layout.head().load(mo!("ring.len.head", Acquire));
        if !L::RUNS_FREELY {
            return self.len_of_plain_indices(head);
        }
        // Relaxed: a number, not the right to read.
        self.layout.distance(head, self.layout.public_tail().load(Relaxed)).min(self.capacity())
    }

    /// [`len`](Self::len) where a tail that was read later may have come round to the head.
    fn len_of_plain_indices(&self, mut head: u32) -> u32 {
        // A few times only: readers, and others, may be moving the head all the time.
        for _ in 0..4 {
            // Acquire: pairs with the store by a publisher, who knew the head. If the tail has come round,
            // the head that is read next has moved.
            let tail = self.layout.public_tail().load(mo!("ring.len.tail", Acquire));
            // Relaxed: for comparing. A head that is the same because it came round as well means that
            // everything that there was at the beginning has been read, of which no number is too small.
            let again = self.layout.head().load(Relaxed);
            if again == head {
                return self.layout.distance(self.layout.clamp(head), self.layout.clamp(tail));
            }
            head = again;
        }
        self.capacity()
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
        let tail = self.take_tail()?;
        let n = self.room(tail, wanted).min(wanted);
        // SAFETY: 1. taken above. 2. `room` says that the slots are free: their last events were read and
        // committed, which happens before through `ring.head`, now or in an earlier publisher.
        unsafe { self.fill(tail, n, event) };
        if n == 0 { Err(Refused::Full) } else { Ok(n as usize) }
    }

    /// Takes the tail, which is an index then.
    #[inline(always)]
    pub(super) fn take_tail(&self) -> Result<u32, Refused> {
        let word = &self.layout.publisher().tail;
        // Relaxed: look before swapping, so as not to steal the line from a publisher who is about to give
        // back.
        let seen = glance(word);
        if seen > INDEX {
            return Err(self.why_not(seen));
        }
        // Acquire: pairs with the give-back of the last publisher, after which its copy of the head is
        // ours, and what it had acquired from readers too.
        let tail = word.swap(BUSY, mo!("ring.tail.take", Acquire));
        if tail > INDEX {
            if tail == CLOSED {
                // Relaxed: puts back what was there. Whoever closes once more is ordered after the first
                // who did all the same, since only read-modify-writes have come in between.
                word.swap(CLOSED, Relaxed);
            }
            return Err(self.why_not(tail));
        }
        #[cfg(test)]
        super::held::point();
        Ok(tail)
    }

    /// What it means that `tail` is no index.
    #[cold]
    fn why_not(&self, tail: u32) -> Refused {
        // Relaxed: 1 only after the last publisher. It is a publisher that came too late, and puts back what
        // it took, whom we see holding the tail of a closed ring.
        if tail == CLOSED || self.layout.publisher().closed.load(Relaxed) != 0 {
            Refused::Closed
        } else {
            Refused::Busy
        }
    }

    /// Writes and publishes `n` events, and gives the tail back.
    ///
    /// # Safety
    ///
    /// 1. This thread took the tail, and it was `tail`.
    /// 2. The `n` slots from there on are free, and whatever was read from them was read before.
    #[inline(always)]
    pub(super) unsafe fn fill(&self, tail: u32, n: u32, event: impl Fn(u32) -> Event) {
        for i in 0..n {
            let (slot, _) = self.layout.slot(self.layout.advance(tail, i));
            // SAFETY: 1. as asked. 2. free by 2.; no other publisher holds the tail, and readers stay below
            // the public tail.
            unsafe { self.layout.write(slot, event(i)) };
        }
        let end = self.layout.advance(tail, n);
        if n > 0 {
            // Release: pairs with the load by a reader; publishes the events.
            self.layout.public_tail().store(end, mo!("ring.public.store", Release));
        }
        // Release: pairs with the taking by the next publisher. Acquire is not for ordering: it keeps a
        // compiler from making a plain store of a swap whose result nobody uses, since this is the full
        // fence that callers count on.
        self.layout.publisher().tail.swap(end, mo!("ring.tail.give", AcqRel));
    }

    /// How many slots are free after `tail`, which this thread has taken; looked up anew if the copy of the
    /// head shows fewer than `wanted`.
    #[inline]
    fn room(&self, tail: u32, wanted: u32) -> u32 {
        let layout = &self.layout;
        layout.publisher().head.with_mut(|head| {
            // SAFETY: this thread holds the tail.
            let head = unsafe { &mut *head };
            if self.capacity() - layout.distance(*head, tail) < wanted {
                // Acquire: pairs with the store by a reader; the slots up to there have been read.
                let word = layout.head().load(mo!("ring.head.refresh", Acquire));
                *head = layout.believe(word, *head, tail);
            }
            self.capacity() - layout.distance(*head, tail)
        })
    }

    /// Refuses all publishers from now on. What was published stays and can be read; what a reader is looking
    /// at stays where it is. Closing a closed ring does nothing.
    ///
    /// Blocking: waits, spinning and then yielding, for a publisher that holds the tail. Once it has
    /// returned, every event that will ever be in the ring can be read.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::ring::{Event, Refused, Ring};
    /// let ring = Ring::new(2);
    /// ring.try_publish(Event::default())?;
    /// ring.close();
    /// assert_eq!(ring.try_publish(Event::default()), Err(Refused::Closed));
    /// assert_eq!(ring.pop_into(&mut Vec::new(), 2), 1);
    /// # Ok::<(), Refused>(())
    /// ```
    #[cold]
    pub fn close(&self) {
        let publisher = self.layout.publisher();
        let mut backoff = hint::Backoff::default();
        loop {
            // Acquire: pairs with the give-back of the last publisher, whose events can then be read, or of
            // whoever has closed before.
            match publisher.tail.swap(BUSY, mo!("ring.close.take", Acquire)) {
                BUSY if backoff.wait() => {}
                BUSY => {
                    hint::contended();
                    thread::yield_now();
                }
                CLOSED => break,
                _ => {
                    // Release: pairs with `is_closed`; hands on what the last publisher published.
                    publisher.closed.store(1, mo!("ring.closed.store", Release));
                    break;
                }
            }
        }
        // Release: pairs with the taking by whoever closes once more, for whom the ring is then closed.
        publisher.tail.swap(CLOSED, mo!("ring.close.give", Release));
    }

    /// Whether the ring was closed. If so, every event that will ever be in it can be read.
    ///
    /// # Staleness
    ///
    /// A ring that was open may be closed by now; a publisher may have been refused already.
    #[inline]
    pub fn is_closed(&self) -> bool {
        // Acquire: pairs with `close`; the public tail that is read next is the last one.
        self.layout.publisher().closed.load(mo!("ring.closed.load", Acquire)) != 0
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
    fn plain_indices_keep_order_across_every_wrap() {
        for capacity in [0, 1, 2, 3, 4, 6, 127] {
            let ring = AioRing::with_capacity(capacity);
            let capacity = u64::from(capacity.max(1));
            assert_eq!(u64::from(ring.capacity()), capacity);
            assert_eq!(ring.as_ptr() as usize % 4096, 0);
            let mut next = 0;
            let mut want = 0;
            for step in (0..5 * capacity).map(|i| i * 7 % (capacity + 2)) {
                let events: Vec<_> = (next..next + step).map(event).collect();
                let sent = ring.try_publish_batch(&events).unwrap_or(0);
                next += sent as u64;
                assert_eq!(u64::from(ring.len()), next - want);
                let mut got = Vec::new();
                ring.pop_into(&mut got, step as usize / 2 + 1);
                assert_eq!(got, (want..want + got.len() as u64).map(event).collect::<Vec<_>>());
                want += got.len() as u64;
            }
            assert!(want > capacity, "went round");
        }
    }

    #[test]
    fn what_outsiders_write_into_the_head_frees_only_what_was_published() {
        use crate::ring::layout::sealed::Read;
        let ring = AioRing::with_capacity(4);
        assert_eq!(ring.try_publish_batch(&[1, 2, 3, 4].map(event)), Ok(4));
        for nonsense in [5, 6, 1 << 31, u32::MAX] {
            ring.layout.head().store(nonsense, Relaxed);
            assert_eq!(ring.try_publish(event(9)), Err(Refused::Full), "the head is no index");
            assert!(ring.len() <= 4);
            assert!(ring.pop_into(&mut Vec::new(), 0) == 0);
        }
        ring.layout.head().store(2, Relaxed);
        assert_eq!(ring.try_publish(event(5)), Ok(()));
        ring.layout.head().store(1, Relaxed);
        assert_eq!(ring.try_publish_batch(&[event(6), event(9)]), Ok(1), "the head went back");
        ring.layout.head().store(2, Relaxed);
        let mut got = Vec::new();
        ring.pop_into(&mut got, 9);
        assert_eq!(got, [3, 4, 5, 6].map(event));
    }

    #[test]
    fn a_closed_ring_is_drained() {
        let ring = Ring::new(4);
        ring.try_publish_batch(&[event(1), event(2)]).unwrap();
        assert!(!ring.is_closed());
        let mut reader = ring.try_reader().unwrap();
        reader.peek(2, |run| {
            ring.close();
            ring.close();
            assert_eq!(run, [event(1), event(2)]);
        });
        reader.commit(1);
        drop(reader);
        assert!(ring.is_closed());
        assert_eq!(ring.try_publish(event(3)), Err(Refused::Closed));
        assert_eq!(ring.try_publish_batch(&[event(3)]), Err(Refused::Closed));
        assert_eq!(drain(&ring, 4), [2]);
    }

    #[test]
    fn nested_handlers_get_each_event_once_and_in_order() {
        fn nest(ring: &Ring, depth: u32, order: &mut Vec<u64>) {
            ring.consume(2, |event| {
                order.push(event.data);
                if depth > 0 {
                    nest(ring, depth - 1, order);
                }
            });
        }
        let ring = Ring::new(16);
        for depth in 0..4 {
            ring.try_publish_batch(&(0..13).map(event).collect::<Vec<_>>()).unwrap();
            let mut order = Vec::new();
            while !ring.is_empty() {
                nest(&ring, depth, &mut order);
            }
            assert_eq!(order, (0..13).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_handler_that_panics_has_had_its_event_and_no_other() {
        use std::panic::{AssertUnwindSafe, catch_unwind};
        let ring = Ring::new(8);
        ring.try_publish_batch(&(0..6).map(event).collect::<Vec<_>>()).unwrap();
        let mut order = Vec::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            ring.consume(9, |outer| {
                order.push(outer.data);
                ring.consume(2, |inner| {
                    order.push(inner.data);
                    assert_ne!(inner.data, 2, "as planned");
                });
            })
        }));
        assert!(outcome.is_err());
        assert_eq!(ring.consume(9, |event| order.push(event.data)), 3);
        assert_eq!(order, [0, 1, 2, 3, 4, 5]);
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
