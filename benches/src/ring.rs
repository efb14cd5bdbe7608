//! Who gets events from publishers to a reader cheapest: [`Queue`].

mod peers;

pub use peers::{Channel, Flume, Locked, ThingMpsc};

use crate::harness::{Place, cpus, together};
use ioctx::ring::{CompletionQueue, Event, Ring};
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;
use std::{hint, thread};

/// How many events every queue holds.
pub const SLOTS: u32 = 1024;
/// How many events the reader takes at a time, at the most.
const READ: usize = 64;

/// A bounded queue with any number of publishers and one reader. Neither blocks: the loops wait, all in the
/// same way.
pub trait Queue: Send + Sync {
    /// One with [`SLOTS`] slots.
    fn new() -> Self;

    /// Publishes the first of `events`, as many as there is room for, and returns how many.
    fn publish(&self, events: &[Event]) -> usize;

    /// Takes out up to `max` events, shows them to `each`, and returns how many.
    fn read(&self, max: usize, each: impl FnMut(&Event)) -> usize;
}

/// Who publishes, how, and where.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many publishers.
    pub publishers: usize,
    /// How many events a publisher has ready at a time.
    pub batch: usize,
}

/// What was read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    count: u64,
    sum: u64,
}

impl Tally {
    #[inline]
    fn add(&mut self, event: &Event) {
        self.count += 1;
        // Events made of halves of two others would not add up.
        self.sum = self.sum.wrapping_add(event.data.wrapping_mul(3) ^ event.obj);
    }
}

/// The event with this number.
#[inline]
fn event(number: u64) -> Event {
    Event { data: number, obj: !number, res: 4096, res2: 0 }
}

/// Waits a little longer each time, then for somebody else to run.
struct Pause {
    spins: u32,
    patience: u32,
}

impl Pause {
    fn once(&mut self) {
        if self.spins < self.patience {
            self.spins += 1;
            hint::spin_loop();
        } else {
            thread::yield_now();
        }
    }
}

/// The loop of a publisher.
fn publish(queue: &impl Queue, numbers: std::ops::Range<u64>, batch: usize, patience: u32) {
    let mut events = vec![Event::default(); batch];
    let mut pause = Pause { spins: 0, patience };
    let mut next = numbers.start;
    while next < numbers.end {
        for (slot, number) in events.iter_mut().zip(next..) {
            *slot = event(number);
        }
        let mut left = &events[..];
        while !left.is_empty() {
            let published = queue.publish(left);
            left = &left[published..];
            if published == 0 { pause.once() } else { pause.spins = 0 }
        }
        next += batch as u64;
    }
}

/// The loop of the reader.
fn read(queue: &impl Queue, count: u64, patience: u32) -> Tally {
    let mut tally = Tally::default();
    let mut pause = Pause { spins: 0, patience };
    while tally.count < count {
        let read = queue.read(READ, |event| tally.add(event));
        if read == 0 { pause.once() } else { pause.spins = 0 }
    }
    tally
}

/// Passes at least `n` events, and returns how many it were and the time it took.
///
/// # Panics
///
/// If what came out is not what went in.
pub fn pass<Q: Queue>(n: u64, shape: Shape) -> (u64, Duration) {
    let Shape { publishers, batch } = shape;
    let queue = Q::new();
    // As many for each publisher, in whole batches.
    let each = n.div_ceil((publishers * batch) as u64) * batch as u64;
    let total = each * publishers as u64;
    // A pair has two CPUs to itself and spins; any more have to let each other run.
    let (places, patience) = match *cpus() {
        [first, .., last] if publishers == 1 => (vec![Place::On(first), Place::On(last)], 1000),
        _ => (vec![Place::Anywhere; publishers + 1], 32),
    };
    let sum = AtomicU64::new(0);
    let elapsed = together(&places, |worker| match worker.checked_sub(1) {
        None => sum.store(read(&queue, total, patience).sum, Relaxed),
        Some(publisher) => {
            let first = publisher as u64 * each;
            publish(&queue, first..first + each, batch, patience);
        }
    });
    let mut want = Tally::default();
    (0..total).for_each(|number| want.add(&event(number)));
    assert_eq!(sum.into_inner(), want.sum, "every event came out once, whole");
    (total, elapsed)
}

/// Publishes a batch and reads it, `n` times, on one thread.
#[inline]
pub fn alone<Q: Queue>(queue: &Q, batch: usize, n: u64) {
    let events: Vec<Event> = (0..batch as u64).map(event).collect();
    let mut tally = Tally::default();
    for _ in 0..n {
        let mut left = &events[..];
        while !left.is_empty() {
            left = &left[queue.publish(left)..];
        }
        let mut read = 0;
        while read < batch {
            read += queue.read(READ, |event| tally.add(event));
        }
    }
    assert_eq!(tally.count, n * batch as u64, "every event came out once");
    hint::black_box(tally);
}

/// Checks that a contender passes everything on.
///
/// # Panics
///
/// If it does not. Hangs if an event is lost.
pub fn check<Q: Queue>() {
    for publishers in [1, 4] {
        for batch in [1, 16] {
            pass::<Q>(20_000, Shape { publishers, batch });
        }
    }
    alone(&Q::new(), 16, 1000);
}

/// Ours, a ring per CPU. Half the capacity, since it has twice the slots: so all contenders have as many.
/// When all are taken it waits by itself.
impl Queue for CompletionQueue {
    fn new() -> Self {
        Self::new(SLOTS / 2)
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        self.publish(events);
        events.len()
    }

    #[inline]
    fn read(&self, max: usize, mut each: impl FnMut(&Event)) -> usize {
        self.read(max, |run| run.iter().for_each(&mut each))
    }
}

/// Ours, one ring, and so one order over all events.
impl Queue for Ring {
    fn new() -> Self {
        Self::new(SLOTS)
    }

    #[inline]
    fn publish(&self, events: &[Event]) -> usize {
        // Busy or full, the loop tries again.
        self.try_publish_batch(events).unwrap_or(0)
    }

    #[inline]
    fn read(&self, max: usize, mut each: impl FnMut(&Event)) -> usize {
        let Some(mut reader) = self.try_reader() else { return 0 };
        let read = reader.peek(max, |run| {
            run.iter().for_each(&mut each);
            run.len()
        });
        reader.commit(read);
        read
    }
}
