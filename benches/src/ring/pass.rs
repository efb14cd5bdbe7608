//! Events from some threads to others: [`pass()`].

use super::{End, Event, OWN, Publish, Queue, Read, Shape, Tally, end, event};
use crate::harness::{Place, cpus, together};
use ioctx::percpu::CachePadded;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;
use std::{hint, thread};

/// Spins as long as it has patience, then has somebody else run.
pub(super) struct Pause {
    spins: u32,
    patience: u32,
}

impl Pause {
    pub(super) fn new(patience: u32) -> Self {
        Self { spins: 0, patience }
    }

    /// Whether it let others run.
    pub(super) fn once(&mut self) -> bool {
        let impatient = self.spins >= self.patience;
        if impatient {
            thread::yield_now();
        } else {
            self.spins += 1;
            hint::spin_loop();
        }
        impatient
    }

    fn again(&mut self) {
        self.spins = 0;
    }
}

/// The loop of a publisher.
fn publish(queue: &mut impl Publish, numbers: Range<u64>, batch: usize, patience: u32) {
    let mut events = vec![Event::default(); batch];
    let mut pause = Pause::new(patience);
    let mut next = numbers.start;
    while next < numbers.end {
        for (slot, number) in events.iter_mut().zip(next..) {
            *slot = event(number);
        }
        let mut left = &events[..];
        while !left.is_empty() {
            let published = queue.publish(left);
            left = &left[published..];
            if published > 0 {
                pause.again();
            } else {
                pause.once();
            }
        }
        next += batch as u64;
    }
}

/// What the readers have read, so far as they have said so.
#[derive(Debug, Default)]
struct Total {
    count: AtomicU64,
    sum: AtomicU64,
}

impl Total {
    /// Adds what one reader has read since it last said so; returns how many events that makes.
    fn add(&self, Tally { count, sum }: Tally) -> u64 {
        if count == 0 {
            return self.count.load(Relaxed);
        }
        self.sum.fetch_add(sum, Relaxed);
        self.count.fetch_add(count, Relaxed) + count
    }
}

/// The loop of a reader: until all together have read `count` events.
///
/// It tells the others what it has read only when it has waited for more in vain: otherwise readers would meet at the
/// total, and not at the queue.
fn read(queue: &mut impl Read, max: usize, count: u64, total: &Total, patience: u32) {
    let mut tally = Tally::default();
    let mut pause = Pause::new(patience);
    loop {
        if queue.read(max, |event| tally.add(event)) > 0 {
            pause.again();
            if tally.count < count {
                continue;
            }
        } else if !pause.once() {
            continue;
        }
        if total.add(std::mem::take(&mut tally)) >= count {
            return;
        }
    }
}

/// Passes at least `n` events, and returns how many it were and the time it took.
///
/// # Panics
///
/// If what came out is not what went in.
pub fn pass<Q: Queue>(n: u64, shape: Shape) -> (u64, Duration) {
    let Shape { publishers, readers, batch, read: max } = shape;
    let (to, from) = Q::ends(publishers, readers);
    let to: Vec<End<Q::Publisher>> = to.into_iter().map(end).collect();
    let from: Vec<End<Q::Reader>> = from.into_iter().map(end).collect();
    // As many for each publisher, in whole batches.
    let each = n.div_ceil((publishers * batch) as u64) * batch as u64;
    let count = each * publishers as u64;
    // A pair has two CPUs to itself and spins; any more have to let each other run.
    let (places, patience) = match *cpus() {
        [first, .., last] if (publishers, readers) == (1, 1) => {
            (vec![Place::On(first), Place::On(last)], 1000)
        }
        _ => (vec![Place::Anywhere; publishers + readers], 32),
    };
    let total = CachePadded::new(Total::default());
    let elapsed = together(&places, |worker| match worker.checked_sub(readers) {
        None => read(&mut *from[worker].try_lock().expect(OWN), max, count, &total, patience),
        Some(publisher) => {
            let numbers = publisher as u64 * each..(publisher as u64 + 1) * each;
            publish(&mut *to[publisher].try_lock().expect(OWN), numbers, batch, patience);
        }
    });
    let mut want = Tally::default();
    (0..count).for_each(|number| want.add(&event(number)));
    let got = Tally { count: total.count.load(Relaxed), sum: total.sum.load(Relaxed) };
    assert_eq!(got, want, "every event came out once, whole");
    (count, elapsed)
}
