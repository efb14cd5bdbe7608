//! The loop of threads that submit and reap, each for itself or all by what they share.

use super::{Engine, Own, Shape};
use crate::context::cached::{Block, Look, Numbered, Random, Reads, Ticket, expect};
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Threads that share an engine.
struct Group {
    threads: usize,
    /// How many of them have done their part.
    left: AtomicUsize,
    /// How many blocks they have.
    blocks: usize,
}

/// Reads at least `n` blocks by threads that each have an engine of their own. Returns how many it were and the time it
/// took, the opening left out.
///
/// # Panics
///
/// If a block was not the right one, or was lost; if an engine cannot be opened.
pub fn crew<E: Own>(file: &Numbered, n: u64, shape: Shape, look: Look) -> (u64, Duration) {
    file.warm();
    run(n, shape, |member, quota, barrier| {
        let (mut engine, mut free) = E::open(file.file(), shape.depth).expect("it could be opened before");
        let group = Group { threads: 1, left: AtomicUsize::new(0), blocks: free.len() };
        timed(barrier, || work(&mut engine, &mut free, &group, quota, shape.batch, look, member))
    })
}

/// The same by threads that share a context, and reap what comes, whoever has submitted it.
///
/// # Panics
///
/// As [`crew`].
pub fn crew_sharing<C: Reads>(file: &Numbered, n: u64, shape: Shape, look: Look) -> (u64, Duration) {
    file.warm();
    let blocks = shape.threads * shape.depth;
    let (context, free) = C::open(file.file(), blocks).expect("it could be opened before");
    let group = Group { threads: shape.threads, left: AtomicUsize::new(0), blocks };
    let free = Mutex::new(free);
    run(n, shape, |member, quota, barrier| {
        let mut engine = Member::new(&context);
        let mut mine = {
            let mut free = free.lock().expect("nobody panics while holding it");
            let rest = free.len() - shape.depth;
            free.split_off(rest)
        };
        timed(barrier, || work(&mut engine, &mut mine, &group, quota, shape.batch, look, member))
    })
}

/// When a member began and ended, and how many blocks it has read.
type Lap = (Instant, Instant, u64);

fn timed(barrier: &Barrier, work: impl FnOnce() -> u64) -> Lap {
    barrier.wait();
    let start = Instant::now();
    let done = work();
    let end = Instant::now();
    // The kernel gives up what a thread has submitted to a ring when the thread ends.
    barrier.wait();
    (start, end, done)
}

/// Runs `member` on so many threads: its number, and how many blocks it is to read.
fn run(n: u64, shape: Shape, member: impl Fn(usize, u64, &Barrier) -> Lap + Sync) -> (u64, Duration) {
    let quota = n.div_ceil(shape.threads as u64);
    let barrier = Barrier::new(shape.threads);
    thread::scope(|scope| {
        let (member, barrier) = (&member, &barrier);
        let threads: Vec<_> =
            (0..shape.threads).map(|number| scope.spawn(move || member(number, quota, barrier))).collect();
        let laps = threads.into_iter().map(|thread| thread.join().expect("a member of a crew failed"));
        let all = laps.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1), a.2 + b.2));
        let (start, end, done) = all.expect("there is at least one thread");
        (done, end - start)
    })
}

/// The loop of a member: returns how many blocks it has read, at least `quota`.
fn work<E: Engine>(
    engine: &mut E,
    free: &mut Vec<E::Block>,
    group: &Group,
    quota: u64,
    batch: usize,
    look: Look,
    member: usize,
) -> u64 {
    let mut random = Random::new(member);
    let mut next = Vec::with_capacity(batch);
    let mut done = 0;
    loop {
        // All there are, also when leaving: others who wait must have something to wait for.
        while let Some(mut block) = free.pop() {
            block.aim(Ticket { owner: 0, number: random.block() });
            next.push(block);
            if next.len() == batch || free.is_empty() {
                while !next.is_empty() {
                    engine.submit(&mut next);
                }
            }
        }
        if done >= quota {
            break;
        }
        done += engine.reap(batch, |block| free.push(block)) as u64;
        free.iter().for_each(|block| expect(block.ticket().number, engine.bytes(block), look));
    }
    if group.left.fetch_add(1, AcqRel) + 1 == group.threads {
        // The last one: nobody else reaps any more.
        while free.len() < group.blocks {
            let before = free.len();
            done += engine.reap(batch.min(group.blocks - before), |block| free.push(block)) as u64;
            free[before..].iter().for_each(|block| expect(block.ticket().number, engine.bytes(block), look));
        }
        assert_eq!(free.len(), group.blocks, "no block came twice");
    }
    done
}

/// A thread that uses a context.
pub(super) struct Member<C: Reads, R: std::ops::Deref<Target = C>> {
    context: R,
    submitter: C::Submitter,
    reaper: C::Reaper,
}

impl<C: Reads, R: std::ops::Deref<Target = C>> Member<C, R> {
    pub fn new(context: R) -> Self {
        Self { context, submitter: C::Submitter::default(), reaper: C::Reaper::default() }
    }
}

impl<C: Reads, R: std::ops::Deref<Target = C>> Engine for Member<C, R> {
    type Block = C::Block;

    #[inline]
    fn bytes<'a>(&'a self, block: &'a C::Block) -> &'a [u8] {
        self.context.bytes(block)
    }

    #[inline]
    fn submit(&mut self, batch: &mut Vec<C::Block>) {
        if self.context.submit(&mut self.submitter, batch) == 0 {
            thread::yield_now();
        }
    }

    #[inline]
    fn reap(&mut self, min: usize, each: impl FnMut(C::Block)) -> usize {
        self.context.reap(&mut self.reaper, min, each)
    }
}
