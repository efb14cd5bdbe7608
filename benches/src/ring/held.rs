//! How long one call is held up by a thread that has lost its CPU in the middle of another: [`held`].
//!
//! Whoever needs what such a thread holds, a lock or a slot, waits until it runs again: for as long as other threads'
//! turns take. Here [`BUSY`] threads publish and read as fast as they can, and some of their calls are timed.
//! Most of the long ones among these are of threads that lost their CPU in a call of their own, whatever the queue does.
//! So there are two more threads, which sleep between their calls: they take their CPU from a busy one, wherever that
//! is just then, and are hardly ever switched out themselves. Their longest calls show how long one is held up; the
//! floor is [`Own`], where nobody waits for anybody.
//!
//! Everybody reads one event after each that it has published: so no queue is ever full, and no reader waits because
//! there is nothing to read.

use super::pass::Pause;
use super::{End, Event, OWN, Publish, Queue, Read, SLOTS, end, event};
use crate::harness::{Place, together};
use ioctx::percpu::CachePadded;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::thread;
use std::time::{Duration, Instant};

/// How many threads publish and read without a pause.
pub const BUSY: usize = 8;
/// One in how many of their calls is timed.
const SAMPLED: u64 = 8;
/// How many threads sleep between their calls.
const TIMED: usize = 2;
/// How long these sleep, at least. The system adds as much again.
const SLEEP: Duration = Duration::from_micros(50);
/// Spins before letting others run: whoever holds us up can need our CPU.
const PATIENCE: u32 = 32;

/// How long calls took.
#[derive(Debug, Default)]
pub struct Held {
    /// Busy threads, from the first try to the one that published the event.
    pub busy: Vec<Duration>,
    /// Those that sleep in between, the same.
    pub publish: Vec<Duration>,
    /// Those that sleep in between, from the first try to the one that found an event.
    pub read: Vec<Duration>,
}

/// The time that all but one in a thousand calls kept within.
///
/// # Panics
///
/// If there was no call.
pub fn p999(mut calls: Vec<Duration>) -> Duration {
    let last = calls.len() - 1;
    *calls.select_nth_unstable(last * 999 / 1000).1
}

/// The time of the longest.
///
/// # Panics
///
/// If there was no call.
pub fn longest(calls: Vec<Duration>) -> Duration {
    calls.into_iter().max().expect("calls were timed")
}

/// Has the threads that sleep between their calls make some for about so long.
///
/// # Panics
///
/// If the queue is not for several on both sides.
pub fn held<Q: Queue>(length: Duration) -> Held {
    assert!(Q::SEVERAL == [true; 2], "everybody publishes and reads");
    let threads = BUSY + TIMED;
    let (to, from) = Q::ends(threads, threads);
    let to: Vec<End<Q::Publisher>> = to.into_iter().map(end).collect();
    let from: Vec<End<Q::Reader>> = from.into_iter().map(end).collect();
    let (all, done) = (Mutex::new(Held::default()), CachePadded::new(AtomicUsize::new(0)));
    together(&vec![Place::Anywhere; threads], |worker| {
        let (mut to, mut from) = (to[worker].try_lock().expect(OWN), from[worker].try_lock().expect(OWN));
        let mut calls = Held::default();
        if worker < TIMED {
            let began = Instant::now();
            while began.elapsed() < length {
                thread::sleep(SLEEP);
                calls.publish.push(timed(|| publish(&mut *to)));
                // Or whoever has just waited for a lock would find it free now.
                thread::sleep(SLEEP);
                calls.read.push(timed(|| read(&mut *from)));
            }
            done.fetch_add(1, Relaxed);
        }
        // Those that are done with it join in.
        while done.load(Relaxed) < TIMED {
            calls.busy.push(timed(|| publish(&mut *to)));
            read(&mut *from);
            for _ in 1..SAMPLED {
                publish(&mut *to);
                read(&mut *from);
            }
        }
        let mut all = all.lock().expect("no thread has failed");
        all.busy.append(&mut calls.busy);
        all.publish.append(&mut calls.publish);
        all.read.append(&mut calls.read);
    });
    all.into_inner().expect("no thread has failed")
}

/// How long it takes. Includes reading the clock.
fn timed(call: impl FnOnce()) -> Duration {
    let start = Instant::now();
    call();
    start.elapsed()
}

fn publish(to: &mut impl Publish) {
    let mut pause = Pause::new(PATIENCE);
    while to.publish(&[event(1)]) == 0 {
        pause.once();
    }
}

fn read(from: &mut impl Read) {
    let mut pause = Pause::new(PATIENCE);
    while from.read(1, |event| assert_eq!(event.obj, !event.data, "it came out whole")) == 0 {
        pause.once();
    }
}

/// A queue for each thread: nobody waits for anybody. Passes nothing from one thread to another.
#[derive(Debug)]
pub struct Own;

impl Queue for Own {
    type Publisher = Producer<Event>;
    type Reader = Consumer<Event>;
    const SEVERAL: [bool; 2] = [true; 2];

    fn ends(publishers: usize, readers: usize) -> (Vec<Producer<Event>>, Vec<Consumer<Event>>) {
        assert!(publishers == readers, "each thread has both ends");
        (0..publishers).map(|_| RingBuffer::new(SLOTS as usize)).unzip()
    }
}
