//! [`CompletionQueue`]: a ring per CPU.

use super::{Event, Reader, Refused, Ring};
use crate::cpu;
use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::{hint, thread};

/// Rings that are read as one: a lane per CPU, so that publishers on different CPUs do not meet.
///
/// A publisher starts at its CPU's lane and takes the next one if that is in use or full. The lanes
/// together hold twice what was asked for: as long as no more than `capacity` events are outstanding, and
/// publishers preempted in the middle of [`publish`](Self::publish) hold no more than half of the lanes,
/// the others go on without waiting. Otherwise they wait, as every publisher does behind a preempted one
/// where there is a single lane.
///
/// Events of one lane are read in order. Between lanes there is no order; [`with_lanes(_,
/// 1)`](Self::with_lanes) gives one.
///
/// # Costs
///
/// 64 bytes per event of capacity (32 with one lane), up to twice that where lanes are rounded up to powers
/// of two, and four padded lines per lane. A reader looks at every lane.
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
    lanes: Box<[Ring]>,
    /// Where the next reader starts. Written by readers only.
    next: CachePadded<AtomicU32>,
}

impl CompletionQueue {
    /// Room for `capacity` outstanding events, in a lane per possible CPU.
    ///
    /// # Panics
    ///
    /// If `capacity` is above 2²⁹.
    pub fn new(capacity: u32) -> Self {
        Self::with_lanes(capacity, cpu::possible())
    }

    /// As [`new`](Self::new), in `lanes` lanes (at least 1). One lane gives one order over all events.
    ///
    /// # Panics
    ///
    /// If `capacity` is above 2²⁹.
    pub fn with_lanes(capacity: u32, lanes: u32) -> Self {
        assert!(capacity <= 1 << 29, "at most 2^29 events, {capacity} asked for");
        let lanes = lanes.max(1);
        // A lone lane needs no spare room: there is no other to go to.
        let per_lane = if lanes == 1 { capacity } else { (2 * capacity).div_ceil(lanes) };
        Self {
            lanes: (0..lanes).map(|_| Ring::new(per_lane)).collect(),
            next: CachePadded::new(AtomicU32::new(0)),
        }
    }

    /// How many lanes there are.
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// How many events can be read.
    ///
    /// # Staleness
    ///
    /// As [`Ring::len`]: never less than what was published before a fence that the caller executed, less
    /// what was read.
    #[inline]
    pub fn len(&self) -> u32 {
        self.lanes.iter().map(Ring::len).fold(0, u32::saturating_add)
    }

    /// Whether nothing can be read. As stale as [`len`](Self::len).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(Ring::is_empty)
    }

    /// Publishes all of `events`. They are in order, and adjacent unless they had to be split between lanes.
    ///
    /// Waits, spinning and yielding, where there is no room: if more than the capacity is outstanding, until
    /// somebody reads.
    #[inline]
    pub fn publish(&self, events: &[Event]) {
        let home = self.home();
        let done = self.lanes[home].try_publish_batch(events).unwrap_or(0);
        if done < events.len() {
            self.publish_elsewhere(home, &events[done..]);
        }
    }

    /// [`publish`](Self::publish) for one event.
    #[inline]
    pub fn publish_one(&self, event: Event) {
        let home = self.home();
        if self.lanes[home].try_publish(event).is_err() {
            self.publish_elsewhere(home, &[event]);
        }
    }

    /// Publishes what `lane` would not take, in whichever takes it first.
    #[cold]
    fn publish_elsewhere(&self, mut lane: usize, mut events: &[Event]) {
        let mut tried = 0;
        let mut backoff = hint::Backoff::default();
        while !events.is_empty() {
            lane = self.after(lane);
            match self.lanes[lane].try_publish_batch(events) {
                Ok(n) => events = &events[n..],
                Err(Refused::Busy | Refused::Full) => {
                    tried += 1;
                    if tried % self.lanes.len() == 0 && !backoff.wait() {
                        // Every lane has been tried, again and again: somebody was preempted in one.
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
        let mut read = 0;
        for _ in 0..self.lanes.len() {
            let ring = &self.lanes[lane];
            lane = self.after(lane);
            if ring.is_empty() {
                continue;
            }
            let Some(mut reader) = ring.try_reader() else { continue };
            read += drain(&mut reader, max - read, &mut f);
            if read == max {
                // Whoever comes next begins behind this lane, so that none is starved. Relaxed: as above.
                self.next.store(lane as u32, Relaxed);
                break;
            }
        }
        read
    }
}

/// Shows the two runs that a ring can have: to its edge, and from its start.
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
