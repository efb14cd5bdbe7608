//! [`ReservedRing`]: publishing takes slots that were reserved before.

use super::{Event, Reader, Refused, Ring};
use crate::sync::{self, hint, thread};

/// A [`Ring`] that cannot overflow: publishing takes [`Slots`], of which there are as many as the ring has.
///
/// Whoever starts work that will end in an event reserves its slot first, by having [`Slots`] of length 1.
/// Then publishing never finds the ring full, and does not even look at the head.
/// [`try_publish`](Self::try_publish) is wait-free. Reading gives the slots back.
///
/// Where work is admitted by a count already, as by [`Credits`](crate::credits::Credits), a plain [`Ring`]
/// of that size does without carrying slots about.
///
/// # Costs
///
/// As [`Ring`], less the look-up of the head; a comparison of two words per call.
///
/// # Examples
///
/// ```
/// use ioctx::ring::{Event, ReservedRing};
/// let (ring, mut slots) = ReservedRing::new(4);
/// let mut mine = slots.split_off(1).expect("nobody has taken any");
/// ring.try_publish(&mut mine, &[Event::default()])?;
/// assert!(mine.is_empty());
///
/// let mut reader = ring.try_reader().expect("nobody else reads");
/// let read = reader.peek(9, |run| run.len());
/// slots.merge(reader.commit(read)).expect("of the same ring");
/// assert_eq!(slots.len(), 4);
/// # Ok::<(), ioctx::ring::NotPublished>(())
/// ```
///
/// Source: `get_reqs_available` and `put_reqs_available` in `fs/aio.c`.
#[derive(Debug)]
pub struct ReservedRing {
    ring: Ring,
    id: u64,
}

/// The right to publish so many events to one [`ReservedRing`].
///
/// There is no other way to have one than to get it from the ring, to split it, or to read an event. What
/// is dropped is lost to the ring, which is the smaller by it and right otherwise.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "slots that are dropped are lost to their ring"]
pub struct Slots {
    len: u32,
    /// Of the ring, never given to another one.
    ring: u64,
}

impl Slots {
    /// How many events may be published.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether nothing may be published.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes `n` of the slots away, or none and returns `None` if there are fewer.
    #[inline]
    pub fn split_off(&mut self, n: usize) -> Option<Slots> {
        let n = u32::try_from(n).ok().filter(|n| *n <= self.len)?;
        self.len -= n;
        Some(Self { len: n, ring: self.ring })
    }

    /// Adds `other`.
    ///
    /// # Errors
    ///
    /// [`OtherRing`] gives `other` back.
    #[inline]
    pub fn merge(&mut self, other: Slots) -> Result<(), OtherRing> {
        if other.ring != self.ring {
            return Err(OtherRing(other));
        }
        // Together they are no more than the ring has.
        self.len += other.len;
        Ok(())
    }
}

/// Slots of one ring were to be added to those of another. They are given back.
#[derive(Debug, PartialEq, Eq)]
pub struct OtherRing(pub Slots);

impl std::fmt::Display for OtherRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the slots are of another ring; add them to those of the same")
    }
}

impl std::error::Error for OtherRing {}

/// Why nothing was published. The slots are still where they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotPublished {
    /// Another publisher is between taking the tail and giving it back. Try again.
    Busy,
    /// The ring was closed.
    Closed,
    /// There are fewer slots than events.
    TooFewSlots,
    /// The slots are of another ring.
    OtherRing,
}

impl std::fmt::Display for NotPublished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Busy => "another publisher holds the tail; try again",
            Self::Closed => "the ring was closed; publish elsewhere",
            Self::TooFewSlots => "there are more events than slots; reserve one for each",
            Self::OtherRing => "the slots are of another ring; publish there",
        })
    }
}

impl std::error::Error for NotPublished {}

impl ReservedRing {
    /// An empty ring of at least `capacity` slots, rounded up to a power of two (at least 1), and all of its
    /// slots.
    ///
    /// # Panics
    ///
    /// If `capacity` is above 2³⁰.
    pub fn new(capacity: u32) -> (Self, Slots) {
        Self::starting_at(capacity, 0)
    }

    /// As [`new`](Self::new), with the indices starting where [`Ring::starting_at`] would.
    ///
    /// # Panics
    ///
    /// If `capacity` is above 2³⁰.
    pub fn starting_at(capacity: u32, start: u32) -> (Self, Slots) {
        let (ring, id) = (Ring::starting_at(capacity, start), sync::unique());
        let slots = Slots { len: ring.capacity(), ring: id };
        (Self { ring, id }, slots)
    }

    /// Publishes all of `events`, adjacent in the ring, and takes as many of `slots`.
    ///
    /// On x86 the call ends with a full fence, unless there was nothing to publish; see the [module](super).
    ///
    /// # Errors
    ///
    /// [`NotPublished`]: nothing was published, and `slots` is as it was.
    #[inline]
    pub fn try_publish(&self, slots: &mut Slots, events: &[Event]) -> Result<(), NotPublished> {
        if slots.ring != self.id {
            return Err(NotPublished::OtherRing);
        }
        if events.len() > slots.len() {
            return Err(NotPublished::TooFewSlots);
        }
        if events.is_empty() {
            return Ok(());
        }
        let n = events.len() as u32;
        let tail = self.ring.take_tail().map_err(|refused| match refused {
            Refused::Closed => NotPublished::Closed,
            Refused::Busy | Refused::Full => NotPublished::Busy,
        })?;
        slots.len -= n;
        // SAFETY: 1. taken above. 2. slots out, and events not committed, are together never more than the
        // capacity: a slot is made with the ring, or by a commit, and ends here. So as many commits as it
        // takes to free these places have made the slots that were spent up to here. Those happened before,
        // since they came with our slots, or with those of a publisher who had the tail before us.
        unsafe { self.ring.fill(tail, n, |i| events[i as usize]) };
        Ok(())
    }

    /// As [`try_publish`](Self::try_publish), and waits for other publishers.
    ///
    /// Blocking: spins, then yields, while another publisher holds the tail.
    ///
    /// # Errors
    ///
    /// [`NotPublished`], but never [`Busy`](NotPublished::Busy): nothing was published, and `slots` is as it
    /// was.
    #[inline]
    pub fn publish(&self, slots: &mut Slots, events: &[Event]) -> Result<(), NotPublished> {
        let mut backoff = hint::Backoff::default();
        loop {
            match self.try_publish(slots, events) {
                Err(NotPublished::Busy) if backoff.wait() => {}
                Err(NotPublished::Busy) => {
                    hint::contended();
                    thread::yield_now();
                }
                done => return done,
            }
        }
    }

    /// Claims the reader's side, or `None` if somebody else has it. Wait-free.
    #[inline]
    pub fn try_reader(&self) -> Option<ReservedReader<'_>> {
        self.ring.try_reader().map(|reader| ReservedReader { reader, id: self.id })
    }

    /// No slots of this ring: what others can be added to.
    pub fn no_slots(&self) -> Slots {
        Slots { len: 0, ring: self.id }
    }

    /// How many events fit.
    pub fn capacity(&self) -> u32 {
        self.ring.capacity()
    }

    /// How many events can be read. As stale as [`Ring::len`].
    #[inline]
    pub fn len(&self) -> u32 {
        self.ring.len()
    }

    /// Whether nothing can be read. As stale as [`Ring::len`].
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Refuses all publishers from now on, as [`Ring::close`].
    pub fn close(&self) {
        self.ring.close();
    }

    /// Whether the ring was closed, as [`Ring::is_closed`].
    pub fn is_closed(&self) -> bool {
        self.ring.is_closed()
    }
}

/// The reader's side of a [`ReservedRing`], for as long as this lives.
#[derive(Debug)]
pub struct ReservedReader<'a> {
    reader: Reader<'a>,
    id: u64,
}

impl ReservedReader<'_> {
    /// Shows up to `max` adjacent events in place, as [`Reader::peek`].
    #[inline]
    pub fn peek<R>(&self, max: usize, f: impl FnOnce(&[Event]) -> R) -> R {
        self.reader.peek(max, f)
    }

    /// Gives up the oldest `n` events, of those that [`peek`](Self::peek) has shown, for their slots.
    ///
    /// # Panics
    ///
    /// If more are given up than there were at the last `peek`.
    #[inline]
    pub fn commit(&mut self, n: usize) -> Slots {
        self.reader.commit(n);
        Slots { len: n as u32, ring: self.id }
    }

    /// Moves up to `max` events to the end of `out`, oldest first, and returns their slots.
    ///
    /// # Panics
    ///
    /// As [`Vec::reserve`]; the slots of what was moved before are lost then.
    #[inline]
    pub fn pop_into(&mut self, out: &mut Vec<Event>, max: usize) -> Slots {
        Slots { len: self.reader.pop_into(out, max) as u32, ring: self.id }
    }

    /// Takes the oldest event out, with its slot, or `None` if there is none.
    #[inline]
    pub fn pop(&mut self) -> Option<(Event, Slots)> {
        self.reader.pop().map(|event| (event, Slots { len: 1, ring: self.id }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(data: u64) -> Event {
        Event { data, ..Event::default() }
    }

    #[test]
    fn slots_go_round() {
        let (ring, mut slots) = ReservedRing::starting_at(3, u32::MAX >> 1);
        assert_eq!((ring.capacity(), slots.len()), (4, 4));
        for round in 0..9 {
            let events = [0, 1, 2].map(|i| event(3 * round + i));
            ring.publish(&mut slots, &events).unwrap();
            assert_eq!(slots.len(), 1);
            assert_eq!(ring.try_publish(&mut slots, &events), Err(NotPublished::TooFewSlots));
            let mut reader = ring.try_reader().unwrap();
            let (first, slot) = reader.pop().unwrap();
            let mut rest = Vec::new();
            let mut more = reader.pop_into(&mut rest, 9);
            more.merge(slot).unwrap();
            slots.merge(more).unwrap();
            assert_eq!((first, &rest[..]), (events[0], &events[1..]));
            assert_eq!(slots.len(), 4);
        }
    }

    #[test]
    fn slots_of_another_ring_come_back() {
        let (ring, mut slots) = ReservedRing::new(2);
        let (other, mut others) = ReservedRing::new(2);
        assert_eq!(ring.publish(&mut others, &[event(1)]), Err(NotPublished::OtherRing));
        let OtherRing(back) = slots.merge(others).unwrap_err();
        assert_eq!((slots.len(), back.len()), (2, 2));
        others = back;
        drop(ring);
        let (third, _slots) = ReservedRing::new(2);
        assert_eq!(third.publish(&mut slots, &[event(1)]), Err(NotPublished::OtherRing), "outlived its ring");
        other.publish(&mut others, &[event(1), event(2)]).unwrap();
        assert!(slots.split_off(3).is_none());
        assert!(slots.split_off(usize::MAX).is_none());
    }

    #[test]
    fn dropped_slots_only_leak_and_refused_ones_stay() {
        let (ring, mut slots) = ReservedRing::new(4);
        let _leaked = slots.split_off(3);
        for data in 0..9 {
            ring.publish(&mut slots, &[event(data)]).unwrap();
            let mut reader = ring.try_reader().unwrap();
            assert_eq!(reader.peek(9, <[Event]>::len), 1);
            slots.merge(reader.commit(1)).unwrap();
        }
        ring.close();
        assert!(ring.is_closed());
        assert_eq!(ring.publish(&mut slots, &[event(9)]), Err(NotPublished::Closed));
        assert_eq!(slots.len(), 1);
    }
}
