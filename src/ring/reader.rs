//! The reading side: [`Reader`], and taking events out of a [`Ring`] in one call.

use super::layout::sealed::{Read, Seen};
use super::{Event, Layout, Padded, Ring};
use crate::sync::atomic::{Ordering::Relaxed, give_back, glance};
use crate::sync::mo;
use std::cell::Cell;

/// Where a reader is. All that reads a ring, of whichever layout and whoever publishes, reads through this.
#[derive(Debug)]
pub(super) struct Cursor {
    /// The index of the first unread event.
    head: u32,
    /// The public tail when it was last looked at: what may be committed ends there.
    tail: Cell<u32>,
}

impl Cursor {
    /// At the head as it is now.
    #[inline(always)]
    pub(super) fn new<L: Read>(ring: &L) -> Self {
        // Relaxed: only readers write it, and they are ordered by the claim. What others wrote is clamped.
        let head = ring.clamp(ring.head().load(Relaxed));
        Self { head, tail: Cell::new(head) }
    }

    /// Shows up to `max` events that lie next to each other.
    #[inline(always)]
    pub(super) fn peek<L: Read, R>(&self, ring: &L, max: usize, f: impl FnOnce(&[L::Slot]) -> R) -> R {
        // Acquire: pairs with the store by a publisher; the events below it are written.
        let tail = ring.clamp(ring.public_tail().load(mo!("ring.public.load", Acquire)));
        self.tail.set(tail);
        let (start, to_edge) = ring.slot(self.head);
        let run = ring.distance(self.head, tail).min(to_edge).min(max.try_into().unwrap_or(u32::MAX));
        // SAFETY: 1. within the edge. 2. between head and public tail nobody writes until the head has
        // passed.
        unsafe { ring.with_slice(start, run as usize, f) }
    }

    /// How many events may be committed.
    #[inline(always)]
    pub(super) fn seen<L: Read>(&self, ring: &L) -> usize {
        ring.distance(self.head, self.tail.get()) as usize
    }

    /// Gives up the oldest `n` events, at most [`seen`](Self::seen).
    #[inline(always)]
    pub(super) fn commit<L: Read>(&mut self, ring: &L, n: usize) {
        self.head = ring.advance(self.head, n as u32);
        // Release: pairs with the load in `room`; the slots were read before they can be written again.
        ring.head().store(self.head, mo!("ring.head.store", Release));
    }

    /// Moves up to `max` events to the end of `out`, and returns how many. Those that are not in `out`, if
    /// there is no memory for them, are still in the ring.
    #[inline]
    pub(super) fn pop_into<L: Read>(&mut self, ring: &L, out: &mut Vec<Event>, max: usize) -> usize {
        let mut popped = 0;
        // A ring has two runs at most: to its edge, and from its start.
        for _ in 0..2 {
            let n = self.peek(ring, max - popped, |run| {
                out.extend(run.iter().map(Seen::event));
                run.len()
            });
            if n == 0 {
                break;
            }
            self.commit(ring, n);
            popped += n;
        }
        popped
    }

    /// Takes the oldest event out.
    #[inline]
    pub(super) fn pop<L: Read>(&mut self, ring: &L) -> Option<Event> {
        let event = self.peek(ring, 1, |run| run.first().map(Seen::event))?;
        self.commit(ring, 1);
        Some(event)
    }
}

/// The reader's side of a [`Ring`], for as long as this lives.
///
/// [`peek`](Self::peek) shows events in place, [`commit`](Self::commit) gives up those that were handled.
/// What was not committed is seen again, by this reader or the next.
#[derive(Debug)]
pub struct Reader<'a, L: Layout = Padded> {
    ring: &'a Ring<L>,
    cursor: Cursor,
}

impl<L: Layout> Reader<'_, L> {
    /// Shows up to `max` events that lie next to each other in memory, oldest first, in place. An empty run
    /// means that there was nothing to read; a run that ends at the ring's edge may be followed by another.
    ///
    /// # Staleness
    ///
    /// What is shown stays until it is committed. More may have been published since.
    #[inline]
    pub fn peek<R>(&self, max: usize, f: impl FnOnce(&[L::Slot]) -> R) -> R {
        self.cursor.peek(&self.ring.layout, max, f)
    }

    /// Gives up the oldest `n` events, of those that [`peek`](Self::peek) has shown.
    ///
    /// # Panics
    ///
    /// If more are given up than there were at the last `peek`.
    #[inline]
    pub fn commit(&mut self, n: usize) {
        assert!(n <= self.cursor.seen(&self.ring.layout), "committed events that were not there");
        self.cursor.commit(&self.ring.layout, n);
    }

    /// Moves up to `max` events to the end of `out`, oldest first, and returns how many.
    ///
    /// # Panics
    ///
    /// As [`Vec::reserve`]; what did not fit is still in the ring.
    #[inline]
    pub fn pop_into(&mut self, out: &mut Vec<Event>, max: usize) -> usize {
        self.cursor.pop_into(&self.ring.layout, out, max)
    }

    /// Takes the oldest event out, or `None` if there is none.
    #[inline]
    pub fn pop(&mut self) -> Option<Event> {
        self.cursor.pop(&self.ring.layout)
    }
}

impl<L: Layout> Drop for Reader<'_, L> {
    #[inline]
    fn drop(&mut self) {
        // Release: pairs with the claim by the next reader.
        give_back(self.ring.layout.claimed(), 0, mo!("ring.reader.release", Release));
    }
}

impl<L: Layout> Ring<L> {
    /// Claims the reader's side, or `None` if somebody else has it. Wait-free.
    #[inline]
    pub fn try_reader(&self) -> Option<Reader<'_, L>> {
        let claimed = self.layout.claimed();
        // Relaxed: look before swapping, so that idle readers share the line.
        // Acquire: pairs with the release by the last reader; its head is ours.
        if glance(claimed) != 0 || claimed.swap(1, mo!("ring.reader.claim", Acquire)) != 0 {
            return None;
        }
        Some(Reader { ring: self, cursor: Cursor::new(&self.layout) })
    }

    /// Moves up to `max` events to the end of `out`, oldest first, and returns how many: 0 if there is none
    /// or if somebody else is reading. Wait-free but for `out`'s allocation.
    ///
    /// # Panics
    ///
    /// As [`Vec::reserve`]; what did not fit is still in the ring.
    ///
    /// # Costs
    ///
    /// One copy of each event and one locked instruction. [`Reader::peek`] copies nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::ring::{Event, Ring};
    /// let ring = Ring::new(4);
    /// ring.try_publish_batch(&[Event::default(); 3])?;
    /// let mut events = Vec::new();
    /// assert_eq!(ring.pop_into(&mut events, 2), 2);
    /// assert_eq!(ring.pop_into(&mut events, 2), 1);
    /// # Ok::<(), ioctx::ring::Refused>(())
    /// ```
    #[inline]
    pub fn pop_into(&self, out: &mut Vec<Event>, max: usize) -> usize {
        self.try_reader().map_or(0, |mut reader| reader.pop_into(out, max))
    }

    /// Hands up to `max` events to `handler`, oldest first and one by one, and returns how many.
    ///
    /// Each is taken out, and the reader's side given back, before the handler sees it. So the handler may
    /// itself consume from this ring, as nested event loops do, and gets what comes after; every event is
    /// handed to exactly one handler, in order, and a handler that panics has had its event, no other.
    /// Stops early where there is nothing to read or somebody else is reading. Wait-free but for the
    /// handlers.
    ///
    /// # Costs
    ///
    /// One locked instruction per event. Handlers that do not come back to the ring are better served by
    /// [`Reader::peek`], at one per run.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::ring::{Event, Ring};
    /// let ring = Ring::new(4);
    /// ring.try_publish_batch(&[1, 2, 3].map(|data| Event { data, ..Event::default() }))?;
    /// let mut order = Vec::new();
    /// ring.consume(1, |outer| {
    ///     order.push(outer.data);
    ///     ring.consume(usize::MAX, |inner| order.push(inner.data));
    /// });
    /// assert_eq!(order, [1, 2, 3]);
    /// # Ok::<(), ioctx::ring::Refused>(())
    /// ```
    ///
    /// Source: QEMU's `qemu_laio_process_completions`, which repeats events if its count is taken before
    /// nested calls.
    pub fn consume(&self, max: usize, mut handler: impl FnMut(Event)) -> usize {
        for handed in 0..max {
            let Some(event) = self.try_reader().and_then(|mut reader| reader.pop()) else { return handed };
            handler(event);
        }
        max
    }
}
