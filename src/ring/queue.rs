//! [`CompletionQueue`]: a ring per CPU.

use super::append::{AllReadable, Lanes};
use super::{Event, Reader, Refused, Ring};
use crate::cpu;
use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::{Tally, hint, thread};
use std::slice;

/// The most events that can be outstanding.
const MAX: u32 = 1 << 29;

/// Rings that are read as one: a lane per CPU, so that publishers on different CPUs do not meet.
///
/// Where the system has restartable sequences (see [`cpu::kind`](crate::cpu::kind)), a publisher appends to its CPU's
/// lane without a locked instruction, wait-free, and what that lane has no room for goes to one that all share.
/// Elsewhere, or with a number of lanes that was [asked for](Self::with_lanes), a publisher starts at its CPU's lane
/// and takes the next one if that is in use or full.
///
/// As long as no more than `capacity` events are outstanding there is always room. A publisher waits only for another
/// that was preempted in the middle of [`publish`](Self::publish) on a lane that is not of one CPU: on the shared
/// one, or if such hold half of all lanes.
///
/// Events of one lane are read in order. Between lanes there is no order; [`with_lanes(_,
/// 1)`](Self::with_lanes) gives one.
///
/// # Costs
///
/// 96 bytes per event of capacity (64 without restartable sequences, 32 with one lane), up to twice that where lanes
/// are rounded up to powers of two, and two to four padded lines per lane. A reader looks at every lane.
///
/// # Examples
///
/// ```
/// use ioctx::ring::{CompletionQueue, Event};
/// let queue = CompletionQueue::new(8);
/// queue.publish(&[Event { data: 7, ..Event::default() }]);
/// let mut got = Vec::new();
/// queue.read(usize::MAX, |run| got.extend_from_slice(run));
/// assert_eq!(got[0].data, 7);
/// ```
#[derive(Debug)]
pub struct CompletionQueue {
    /// A lane per CPU, if there are sections to append to it.
    own: Option<Lanes>,
    /// Where else to publish: only one, if each CPU has its own.
    lanes: Box<[Ring]>,
    /// Where the next reader starts. Written by readers only.
    next: CachePadded<AtomicU32>,
    tallies: CachePadded<Tallies>,
}

/// Written by publishers that do not find room at once.
#[derive(Debug, Default)]
struct Tallies {
    passed_over: Tally,
    waits: Tally,
}

impl CompletionQueue {
    /// Where the readers' hint is.
    pub(crate) const NEXT: usize = std::mem::offset_of!(Self, next);

    /// Room for `capacity` outstanding events, in a lane per possible CPU.
    ///
    /// # Panics
    ///
    /// If `capacity` is above 2²⁹.
    pub fn new(capacity: u32) -> Self {
        assert!(capacity <= MAX, "at most 2^29 events, {capacity} asked for");
        let cpus = cpu::possible();
        match Lanes::new((2 * capacity).div_ceil(cpus)) {
            Some(own) => Self { own: Some(own), ..Self::with_lanes(capacity, 1) },
            None => Self::with_lanes(capacity, cpus),
        }
    }

    /// As [`new`](Self::new), in `lanes` lanes (at least 1) that any CPU may publish to. One lane gives one order over
    /// all events.
    ///
    /// # Panics
    ///
    /// If `capacity` is above 2²⁹.
    pub fn with_lanes(capacity: u32, lanes: u32) -> Self {
        assert!(capacity <= MAX, "at most 2^29 events, {capacity} asked for");
        let lanes = lanes.max(1);
        // A lone lane needs no spare room: there is no other to go to.
        let per_lane = if lanes == 1 { capacity } else { (2 * capacity).div_ceil(lanes) };
        Self {
            own: None,
            lanes: (0..lanes).map(|_| Ring::new(per_lane)).collect(),
            next: CachePadded::new(AtomicU32::new(0)),
            tallies: CachePadded::default(),
        }
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> usize {
        self.own_lanes() + self.lanes.len()
    }

    /// How many of them are of one CPU; they come first.
    fn own_lanes(&self) -> usize {
        self.own.as_ref().map_or(0, Lanes::len)
    }

    /// Those of one CPU, to be read.
    #[inline(always)]
    fn readable(&self) -> AllReadable<'_> {
        self.own.as_ref().map(Lanes::readable).unwrap_or_default()
    }

    /// How many events can be read.
    ///
    /// # Staleness
    ///
    /// As [`Ring::len`]: never less than what was published before a fence that the caller executed, less
    /// what was read.
    #[inline]
    pub fn len(&self) -> u32 {
        let own = self.readable().iter().map(|lane| lane.len());
        own.chain(self.lanes.iter().map(Ring::len)).fold(0, u32::saturating_add)
    }

    /// Whether nothing can be read. As stale as [`len`](Self::len).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.readable().iter().all(|lane| lane.is_empty()) && self.lanes.iter().all(Ring::is_empty)
    }

    /// How often publishers did not find room at once.
    #[cfg(feature = "stats")]
    pub fn stats(&self) -> super::Stats {
        super::Stats { passed_over: self.tallies.passed_over.get(), waits: self.tallies.waits.get() }
    }

    /// Publishes all of `events`. They are in order, and adjacent unless they had to be split between lanes.
    ///
    /// Waits, spinning and yielding, where there is no room: if more than the capacity is outstanding, until
    /// somebody reads.
    #[inline]
    pub fn publish(&self, events: &[Event]) {
        let done = match &self.own {
            Some(own) => own.append(events),
            None => self.lanes[self.home()].try_publish_batch(events).unwrap_or(0),
        };
        if done < events.len() {
            self.publish_slow(&events[done..]);
        }
    }

    /// [`publish`](Self::publish) for one event.
    #[inline]
    pub fn publish_one(&self, event: Event) {
        let done = match &self.own {
            Some(own) => own.append_all(slice::from_ref(&event)),
            None => self.lanes[self.home()].try_publish(event).is_ok(),
        };
        if !done {
            self.publish_slow(&[event]);
        }
    }

    /// Whether publishing ends with a locked instruction.
    #[inline]
    pub(crate) fn ends_with_rmw(&self) -> bool {
        self.own.is_none()
    }

    /// Publishes what the lane of this CPU would not take, in whichever takes it first.
    #[cold]
    fn publish_slow(&self, mut events: &[Event]) {
        self.tallies.passed_over.one();
        let (mut lane, mut tried) = (self.home(), 0);
        let mut backoff = hint::Backoff::default();
        loop {
            if tried % self.lanes.len() == 0
                && let Some(own) = &self.own
            {
                own.refresh();
                events = &events[own.append(events)..];
            }
            if events.is_empty() {
                return;
            }
            lane = self.after(lane);
            match self.lanes[lane].try_publish_batch(events) {
                Ok(n) => events = &events[n..],
                // Lanes are never closed.
                Err(Refused::Busy | Refused::Full | Refused::Closed) => {
                    tried += 1;
                    if tried % self.lanes.len() == 0 && !backoff.wait() {
                        // Every lane has been tried, again and again: somebody was preempted in one.
                        self.tallies.waits.one();
                        hint::contended();
                        thread::yield_now();
                    }
                }
            }
        }
    }

    /// The lane after `lane`, round and round.
    #[inline]
    fn after(&self, lane: usize) -> usize {
        if lane + 1 < self.lanes.len() { lane + 1 } else { 0 }
    }

    /// The lane of this thread's CPU.
    #[inline]
    fn home(&self) -> usize {
        let cpu = cpu::hint().0 as usize;
        if cpu < self.lanes.len() { cpu } else { cpu % self.lanes.len() }
    }

    /// Shows up to `max` events to `f`, run by run and in place, and takes them out. Returns how many.
    ///
    /// Goes over every lane once, from where the last reader stopped, passing over lanes that another
    /// thread is reading. Wait-free but for `f`. If `f` panics, the run it was shown is seen again.
    pub fn read(&self, max: usize, mut f: impl FnMut(&[Event])) -> usize {
        // Relaxed twice: spreads readers over the lanes; any value will do.
        let mut lane = self.next.load(Relaxed) as usize;
        let own = self.readable();
        let (rings, lanes) = (&self.lanes[..], self.lanes());
        let mut read = 0;
        for _ in 0..lanes {
            let this = lane;
            lane = if lane + 1 < lanes { lane + 1 } else { 0 };
            // Relaxed, in both: as `len`.
            if let Some(lane) = own.get(this) {
                if lane.is_empty() {
                    continue;
                }
                read += lane.read(max - read, &mut f);
            } else if let Some(ring) = rings.get(this - own.len()) {
                if ring.is_empty() {
                    continue;
                }
                read += read_ring(ring, max - read, &mut f);
            }
            if read == max {
                // Whoever comes next begins behind this lane, so that none is starved. Relaxed: as above.
                self.next.store(lane as u32, Relaxed);
                break;
            }
        }
        read
    }
}

/// Shows the two runs that a ring can have: to its edge, and from its start. Nothing if somebody else is reading there.
#[inline(never)]
fn read_ring(ring: &Ring, max: usize, f: &mut impl FnMut(&[Event])) -> usize {
    ring.try_reader().map_or(0, |mut reader| drain(&mut reader, max, f))
}

fn drain(reader: &mut Reader<'_>, max: usize, f: &mut impl FnMut(&[Event])) -> usize {
    let mut read = 0;
    for _ in 0..2 {
        let n = reader.peek(max - read, |run| {
            if !run.is_empty() {
                f(run);
            }
            run.len()
        });
        if n == 0 {
            break;
        }
        reader.commit(n);
        read += n;
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(range: std::ops::Range<u64>) -> Vec<Event> {
        range.map(|data| Event { data, ..Event::default() }).collect()
    }

    fn read(queue: &CompletionQueue, max: usize) -> Vec<u64> {
        let mut all = Vec::new();
        let n = queue.read(max, |run| all.extend(run.iter().map(|event| event.data)));
        assert_eq!(n, all.len());
        all
    }

    #[test]
    fn one_lane_keeps_one_order() {
        let queue = CompletionQueue::with_lanes(6, 1);
        queue.publish(&events(0..3));
        assert_eq!(read(&queue, 2), [0, 1]);
        queue.publish(&events(3..8));
        assert_eq!(queue.len(), 6);
        assert_eq!(read(&queue, 100), (2..8).collect::<Vec<_>>());
    }

    #[test]
    fn a_lane_in_use_or_full_is_passed_over() {
        let queue = CompletionQueue::with_lanes(8, 3);
        let capacity: u32 = queue.lanes.iter().map(Ring::capacity).sum();
        queue.publish(&events(0..u64::from(capacity)));
        assert_eq!(queue.len(), capacity);
        let claimed = queue.lanes[0].try_reader().unwrap();
        assert_eq!(read(&queue, 100).len() as u32, capacity - queue.lanes[0].capacity());
        drop(claimed);
        assert_eq!(read(&queue, 100).len() as u32, queue.lanes[0].capacity());
        assert!(queue.is_empty());
    }

    #[test]
    fn a_small_appetite_starves_no_lane() {
        let queue = CompletionQueue::with_lanes(8, 2);
        let half = u64::from(queue.lanes[0].capacity());
        queue.publish(&events(0..2 * half));
        let first = read(&queue, 1)[0];
        let second = read(&queue, 1)[0];
        assert_ne!(first < half, second < half, "the second read is from the other lane");
    }
}
