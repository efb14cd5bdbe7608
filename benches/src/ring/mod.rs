//! Who gets events from publishers to readers cheapest: [`Queue`].
//!
//! | module | contenders |
//! |---|---|
//! | [`ours`] | `CompletionQueue` with and without credits, `Ring` |
//! | [`shared`] | queues that everybody uses through one reference |
//! | [`handles`] | queues that give each thread an end of its own, among them those for one publisher and one reader |
//!
//! Four loops: [`alone`] on one thread, [`pass`](pass::pass) between threads, [`held`](held::held), in which more
//! threads than CPUs publish and read and calls are timed one by one, and [`looks`](empty::looks) at what is empty.
//!
//! Where a queue has calls that sleep, those that do not are used, and the loops wait, the same for all: what a channel
//! does for sleepers is not measured here.

pub mod empty;
pub mod handles;
pub mod held;
pub mod ours;
pub mod pass;
pub mod shared;

use ioctx::percpu::CachePadded;
use ioctx::ring::Event;
use std::hint;
use std::sync::Mutex;

/// How many events every queue holds.
pub const SLOTS: u32 = 1024;

/// A bounded queue.
pub trait Queue: 'static {
    /// What one thread publishes with.
    type Publisher: Publish;
    /// What one thread reads with.
    type Reader: Read;

    /// Whether there can be several publishers, and several readers that share the events out among them.
    const SEVERAL: [bool; 2];

    /// The ends of a new one, with room for [`SLOTS`] events.
    fn ends(publishers: usize, readers: usize) -> (Vec<Self::Publisher>, Vec<Self::Reader>);
}

/// A publisher's end.
pub trait Publish: Send {
    /// Publishes the first of `events`, as many as there is room for, and returns how many. Does not wait.
    fn publish(&mut self, events: &[Event]) -> usize;
}

/// A reader's end.
pub trait Read: Send {
    /// Takes out up to `max` events, shows them to `each`, and returns how many. Does not wait.
    fn read(&mut self, max: usize, each: impl FnMut(&Event)) -> usize;
}

/// Who publishes and reads, and how.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many publishers.
    pub publishers: usize,
    /// How many readers.
    pub readers: usize,
    /// How many events a publisher has ready at a time.
    pub batch: usize,
    /// How many events a reader takes at a time, at the most.
    pub read: usize,
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

/// One end for each thread that works with it, which takes it out of here.
type End<E> = CachePadded<Mutex<E>>;

fn end<E>(end: E) -> End<E> {
    CachePadded::new(Mutex::new(end))
}

/// What is said if a thread has failed with its end, or two have the same one.
const OWN: &str = "each thread has an end of its own";

/// Both ends, for one thread.
#[derive(Debug)]
pub struct Both<Q: Queue> {
    publisher: Q::Publisher,
    reader: Q::Reader,
}

impl<Q: Queue> Both<Q> {
    /// Of a new queue.
    pub fn new() -> Self {
        let (publishers, readers) = Q::ends(1, 1);
        let [publisher] = publishers.try_into().unwrap_or_else(|_| unreachable!("one was asked for"));
        let [reader] = readers.try_into().unwrap_or_else(|_| unreachable!("one was asked for"));
        Self { publisher, reader }
    }
}

impl<Q: Queue> Default for Both<Q> {
    fn default() -> Self {
        Self::new()
    }
}

/// Publishes a batch and reads it, up to `max` events at a time, `n` times, on one thread.
///
/// # Panics
///
/// If an event is missing.
#[inline]
pub fn alone<Q: Queue>(ends: &mut Both<Q>, batch: usize, max: usize, n: u64) {
    let Both { publisher, reader } = ends;
    let events: Vec<Event> = (0..batch as u64).map(event).collect();
    let mut tally = Tally::default();
    for _ in 0..n {
        let mut left = &events[..];
        while !left.is_empty() {
            left = &left[publisher.publish(left)..];
        }
        let mut read = 0;
        while read < batch {
            read += reader.read(max, |event| tally.add(event));
        }
    }
    assert_eq!(tally.count, n * batch as u64, "every event came out once");
    hint::black_box(tally);
}

/// Checks that a contender passes everything on, and holds what it has to.
///
/// # Panics
///
/// If it does not. Hangs if an event is lost.
pub fn check<Q: Queue>() {
    let several = |side: usize| if Q::SEVERAL[side] { &[1, 4][..] } else { &[1] };
    for &publishers in several(0) {
        for &readers in several(1) {
            for (batch, read) in [(1, 1), (16, 16), (64, 1), (1, 64)] {
                pass::pass::<Q>(20_000, Shape { publishers, readers, batch, read });
            }
        }
    }
    let mut ends = Both::<Q>::new();
    alone(&mut ends, 16, 16, 1000);
    alone(&mut ends, 64, 1, 100);
    alone(&mut ends, SLOTS as usize, 64, 3);
}
