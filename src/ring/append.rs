//! [`Lanes`]: a ring per CPU, to which sections append.

use super::Event;
use crate::percpu::{CachePadded, PerCpu};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, give_back, glance};
use crate::sync::cell::CellArray;
use crate::sync::{MODELLED, mo, rseq};
use std::ptr::with_exposed_provenance;

/// The most events that one section appends: the longer it runs, the likelier it is interrupted, and has to be given
/// up.
const AT_ONCE: usize = 16;

/// A ring per CPU, whose tail is moved by sections that run on that CPU.
#[derive(Debug)]
pub(super) struct Lanes {
    /// The address of the lanes, as sections know it. Never changes: a queue that is in use is not freed.
    mode: AtomicU64,
    lanes: PerCpu<Lane>,
    readers: PerCpu<ReaderSide>,
}

/// What is written on one CPU, by its sections, but for the limit.
#[derive(Debug)]
#[repr(C)]
struct Lane {
    /// The index after the last event. Counts on for ever; an event's place is its index modulo the capacity.
    tail: AtomicU64,
    /// Of `events`, for sections.
    address: *const Event,
    /// How far the tail may go: a capacity after the head, as somebody has last seen it.
    limit: AtomicU64,
    mask: u64,
    /// # Safety
    ///
    /// Written by sections on the lane's CPU from tail to limit, read by who has claimed the reader's side from head
    /// to tail.
    events: CellArray<Event>,
}

const _: () = assert!(MODELLED || size_of::<CachePadded<Lane>>() == 128, "the distance that sections know");

// SAFETY: `address` is that of `events`, which are reached as their comment says.
unsafe impl Send for Lane {}
// SAFETY: as above.
unsafe impl Sync for Lane {}

#[derive(Debug)]
struct ReaderSide {
    /// The index of the first unread event. Changed only by whoever set `claimed`.
    head: AtomicU64,
    /// 1 while somebody reads.
    claimed: AtomicU32,
}

impl Lanes {
    /// If there are sections: at least `capacity` places for each CPU.
    pub(super) fn new(capacity: u32) -> Option<Self> {
        if matches!(rseq::kind(), rseq::Kind::Portable(_)) {
            return None;
        }
        let capacity = capacity.next_power_of_two();
        let lanes = PerCpu::new(|_| Lane::new(capacity));
        let mode = AtomicU64::new(lanes.first().expose_provenance() as u64);
        let readers = PerCpu::new(|_| ReaderSide { head: AtomicU64::new(0), claimed: AtomicU32::new(0) });
        Some(Self { mode, lanes, readers })
    }

    /// How many lanes there are.
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Appends events to this CPU's lane, first to last and several at a time, until there is no room or a section
    /// was given up; returns how many. They are visible to whoever reads afterwards; a full fence comes with none.
    #[inline(always)]
    pub(super) fn append(&self, events: &[Event]) -> usize {
        let append = |events: &&[Event]| self.append_all(events);
        events.chunks(AT_ONCE).take_while(append).map(<[Event]>::len).sum()
    }

    /// Appends `events`, at least one and not more than are appended at once; or none of them.
    #[inline(always)]
    pub(super) fn append_all(&self, events: &[Event]) -> bool {
        let body = |mode: u64, cpu: u32| {
            let first = with_exposed_provenance::<CachePadded<Lane>>(mode as usize);
            // SAFETY: our lanes, one for each possible CPU; and this is what a section does.
            unsafe { (*first.add(cpu as usize)).append_plainly(events) }
        };
        // SAFETY: there are sections, as `new` has found; the mode word is the address of the lanes, which are laid out
        // as sections know it. They are not empty. From tail to limit nobody reads or writes but sections, since the
        // limit is a capacity after a head that was, and heads do not go back.
        unsafe { rseq::append(&self.mode, Event::words(events), body) }
    }

    /// Does what can be done about an [`append`](Self::append) that fell short: looks how far the readers are, and
    /// gives this thread its area if it has none.
    #[cold]
    pub(super) fn refresh(&self) {
        rseq::rejoin();
        let cpu = crate::cpu::hint();
        // Acquire: pairs with the commit of the reader; the places up to there have been read.
        let head = self.readers.get(cpu).head.load(mo!("ring.append.refresh", Acquire));
        let lane = self.lanes.get(cpu);
        // Release: pairs with the section that looks at it next, which passes the above on. An older limit that
        // overwrites a newer one only refuses too early.
        lane.limit.store(head + lane.mask + 1, mo!("ring.append.limit", Release));
    }

    /// The lanes, to be read.
    #[inline(always)]
    pub(super) fn readable(&self) -> AllReadable<'_> {
        AllReadable { lanes: self.lanes.all(), sides: self.readers.all() }
    }
}

/// All lanes, to be read.
#[derive(Clone, Copy, Default)]
pub(super) struct AllReadable<'a> {
    lanes: &'a [CachePadded<Lane>],
    /// As many.
    sides: &'a [CachePadded<ReaderSide>],
}

impl<'a> AllReadable<'a> {
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    #[inline(always)]
    pub(super) fn iter(self) -> impl Iterator<Item = Readable<'a>> {
        self.lanes.iter().zip(self.sides).map(|(lane, side)| Readable { lane, side })
    }

    #[inline(always)]
    pub(super) fn get(&self, lane: usize) -> Option<Readable<'a>> {
        Some(Readable { lane: self.lanes.get(lane)?, side: self.sides.get(lane)? })
    }
}

/// A lane, to be read.
pub(super) struct Readable<'a> {
    lane: &'a Lane,
    side: &'a ReaderSide,
}

impl Readable<'_> {
    /// How many events can be read. As stale as [`Ring::len`](super::Ring::len).
    #[inline]
    pub(super) fn len(&self) -> u32 {
        // Relaxed, both: a number, not the right to read. A tail behind the head is of events that have been read.
        let head = self.side.head.load(Relaxed);
        self.lane.tail.load(Relaxed).saturating_sub(head).min(self.lane.mask + 1) as u32
    }

    /// Whether nothing can be read. As stale as [`len`](Self::len).
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        // Relaxed, both: as in `len`.
        self.lane.tail.load(Relaxed) <= self.side.head.load(Relaxed)
    }

    /// Shows up to `max` events to `f`, run by run and in place, and takes them out; returns how many. None if
    /// somebody else is reading here.
    #[inline(always)]
    pub(super) fn read(&self, max: usize, f: &mut impl FnMut(&[Event])) -> usize {
        let side = self.side;
        // Relaxed: look before swapping. Acquire: pairs with the release by the last reader; its head is ours.
        if glance(&side.claimed) != 0 || side.claimed.swap(1, mo!("ring.append.claim", Acquire)) != 0 {
            return 0;
        }
        // Relaxed: only readers write it, and they are ordered by the claim.
        Reader { lane: self.lane, side, head: side.head.load(Relaxed) }.read(max, f)
    }
}

/// One who has claimed a lane's reader's side.
struct Reader<'a> {
    lane: &'a Lane,
    side: &'a ReaderSide,
    head: u64,
}

impl Reader<'_> {
    fn read(&mut self, max: usize, f: &mut impl FnMut(&[Event])) -> usize {
        // Acquire: pairs with the commit of the section; the events before it are written.
        let tail = self.lane.tail.load(mo!("ring.append.read", Acquire));
        let mut read = 0;
        // To the edge, and from the start.
        while read < max && self.head < tail {
            let start = self.head & self.lane.mask;
            let to_edge = self.lane.mask + 1 - start;
            let run = (tail - self.head).min(to_edge).min((max - read) as u64);
            // SAFETY: 1. within the edge. 2. between head and tail nobody writes until the head has passed.
            unsafe { self.lane.events.with_slice(start as usize, run as usize, &mut *f) };
            self.head += run;
            // Release: pairs with `refresh`; the places were read before they can be written again.
            self.side.head.store(self.head, mo!("ring.append.commit", Release));
            read += run as usize;
        }
        read
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        // Release: pairs with the claim by the next reader.
        give_back(&self.side.claimed, 0, mo!("ring.append.release", Release));
    }
}

impl Lane {
    fn new(capacity: u32) -> Self {
        let events = CellArray::new(capacity as usize, Event::default());
        Self {
            tail: AtomicU64::new(0),
            address: events.as_ptr(),
            limit: AtomicU64::new(capacity.into()),
            mask: u64::from(capacity) - 1,
            events,
        }
    }

    /// What a section does, for model checkers.
    fn append_plainly(&self, events: &[Event]) -> bool {
        // Relaxed: kept whole by the model of a section. Acquire: pairs with `refresh`, as loads do on which a store
        // depends.
        let tail = self.tail.load(Relaxed);
        if tail + events.len() as u64 > self.limit.load(mo!("ring.append.look", Acquire)) {
            return false;
        }
        for (index, event) in (tail..).zip(events) {
            // SAFETY: 1. masked. 2. up to the limit places are the section's.
            unsafe { self.events.write((index & self.mask) as usize, *event) };
        }
        // Release: pairs with the reader's look at the tail, as the section's last store does.
        self.tail.store(tail + events.len() as u64, mo!("ring.append.tail", Release));
        true
    }
}
