//! Credits that another thread gives back: [`crossed`].

use super::Pool;
use crate::harness::{Place, cpus, spin_until, together};
use rtrb::{Consumer, Producer, RingBuffer};
use std::iter;
use std::sync::Mutex;
use std::time::Duration;

/// How many credits are handed over at a time.
pub const CHUNK: usize = 32;
/// How many the ring between the threads holds: so few that no pool runs out, wherever it keeps the rest.
const SLOTS: usize = 8 * CHUNK;

/// A credit on its way. As large for everybody.
#[repr(align(16))]
struct Slot<T>(T);

/// The fourth loop: one thread takes at least `n` credits, another gives them back, each on a CPU of its own.
/// Returns how many it were and the time it took.
///
/// Both threads keep a chunk to themselves while they take it or give it back: otherwise each locked
/// instruction of a pool would wait for the ring's lines, too.
///
/// # Panics
///
/// If a credit is refused.
pub fn crossed<P: Pool>(pool: &P, n: u64) -> (u64, Duration) {
    const { assert!(size_of::<Slot<P::One<'_>>>() == 16, "nobody's slots are larger") };
    let chunks = n.div_ceil(CHUNK as u64);
    let (producer, consumer) = RingBuffer::<Slot<P::One<'_>>>::new(SLOTS);
    // Each is taken out by its thread, and dropped with it: so that neither waits for one that has failed.
    let (producer, consumer) = (Mutex::new(Some(producer)), Mutex::new(Some(consumer)));
    let places = [cpus().len() - 1, 0].map(|index| Place::On(cpus()[index]));
    let elapsed = together(&places, |side| {
        if side == 0 {
            take(pool, out_of(&producer), chunks);
        } else {
            put(out_of(&consumer), chunks);
        }
    });
    (chunks * CHUNK as u64, elapsed)
}

fn out_of<T>(end: &Mutex<Option<T>>) -> T {
    end.lock().expect("one thread uses it").take().expect("once")
}

/// The loop of the thread that takes.
fn take<'a, P: Pool>(pool: &'a P, mut ring: Producer<Slot<P::One<'a>>>, chunks: u64) {
    let mut taken = Vec::with_capacity(CHUNK);
    for _ in 0..chunks {
        taken.extend(iter::repeat_with(|| pool.try_take().expect("one is free")).take(CHUNK));
        // The other thread's index is looked at only if the ring was full the last time.
        if ring.cached_slots() < CHUNK {
            spin_until(|| ring.slots() >= CHUNK || ring.is_abandoned());
        }
        let chunk = ring.write_chunk_uninit(CHUNK).expect("the other thread has not failed");
        chunk.fill_from_iter(taken.drain(..).map(Slot));
    }
}

/// The loop of the thread that gives back.
fn put<T>(mut ring: Consumer<Slot<T>>, chunks: u64) {
    let mut arrived = Vec::with_capacity(CHUNK);
    for _ in 0..chunks {
        if ring.cached_slots() < CHUNK {
            spin_until(|| ring.slots() >= CHUNK || ring.is_abandoned());
        }
        let chunk = ring.read_chunk(CHUNK).expect("the other thread has not failed");
        arrived.extend(chunk);
        arrived.clear();
    }
}
