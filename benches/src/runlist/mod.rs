//! Who gets a small deferred job done cheapest: [`Defer`].
//!
//! One loop, [`rounds`]: somebody defers jobs and then needs them done, as who completes an operation that was waiting
//! for another. And what finishing one of many parts costs: [`parts`].

mod contenders;
pub mod parts;

pub use contenders::{Channel, Crossbeam, Helped, Pool, Worker};

use std::hint;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Gets jobs done, somewhere, some time.
pub trait Defer: Sized {
    /// One with so many jobs, each of which can be deferred again when it was done.
    fn open(jobs: &[Job]) -> Self;

    /// Defers the job of this number.
    fn defer(&self, job: usize);

    /// What whoever defers does before it waits.
    fn help(&self) {}
}

/// A job: counts, and wakes whoever waits for the last one.
#[derive(Clone, Debug)]
pub struct Job(Arc<Progress>);

#[derive(Debug)]
struct Progress {
    done: AtomicU64,
    wanted: AtomicU64,
    waits: Thread,
}

impl Job {
    fn new() -> Self {
        let (done, wanted) = (AtomicU64::new(0), AtomicU64::new(0));
        Self(Arc::new(Progress { done, wanted, waits: thread::current() }))
    }

    /// Does it.
    pub fn run(&self) {
        if self.0.done.fetch_add(1, AcqRel) + 1 == self.0.wanted.load(Relaxed) {
            self.0.waits.unpark();
        }
    }

    fn is_done(&self) -> bool {
        self.0.done.load(Acquire) == self.0.wanted.load(Relaxed)
    }
}

/// How often one looks before it sleeps.
const SPINS: usize = 100;

/// The loop: defers `batch` jobs and waits until all are done, until `n` were. Returns how many, and how long it took.
///
/// # Panics
///
/// If a job was done twice.
pub fn rounds<D: Defer>(n: u64, batch: usize) -> (u64, Duration) {
    let job = Job::new();
    let jobs = vec![job.clone(); batch];
    let deferred = D::open(&jobs);
    let rounds = n.div_ceil(batch as u64);
    let begun = Instant::now();
    for round in 1..=rounds {
        job.0.wanted.store(round * batch as u64, Release);
        (0..batch).for_each(|job| deferred.defer(job));
        deferred.help();
        for _ in 0..SPINS {
            if job.is_done() {
                break;
            }
            hint::spin_loop();
        }
        while !job.is_done() {
            thread::park();
        }
    }
    let elapsed = begun.elapsed();
    drop(deferred);
    assert_eq!(job.0.done.load(Acquire), rounds * batch as u64, "each job was done once");
    (rounds * batch as u64, elapsed)
}

/// Checks that a contender does every job once.
///
/// # Panics
///
/// If one was done twice. Hangs if one was lost.
pub fn check<D: Defer>() {
    for batch in [1, 7, 32] {
        rounds::<D>(1000, batch);
    }
}
