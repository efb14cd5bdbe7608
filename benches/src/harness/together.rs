//! [`together`]: workers that start at once.

use super::os;
use std::sync::Barrier;
use std::time::{Duration, Instant};
use std::{hint, thread};

/// Where a worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On this CPU only.
    On(usize),
    /// Wherever the system puts it.
    Anywhere,
}

/// Runs `work(0)`, `work(1)` and so on, each at its place on a thread of its own, and returns the time from
/// the first start to the last end.
///
/// The workers take the time themselves. With more workers than CPUs, whoever releases the barrier may get
/// to run only when much of the work is done.
pub fn together(places: &[Place], work: impl Fn(usize) + Sync) -> Duration {
    let barrier = Barrier::new(places.len());
    let run = |worker: usize, place: Place| {
        if let Place::On(cpu) = place {
            os::pin(cpu);
        }
        barrier.wait();
        let start = Instant::now();
        work(worker);
        (start, Instant::now())
    };
    thread::scope(|scope| {
        let run = &run;
        let workers: Vec<_> =
            places.iter().enumerate().map(|(i, place)| scope.spawn(move || run(i, *place))).collect();
        let times = workers.into_iter().map(|worker| worker.join().expect("a worker failed"));
        let (start, end) =
            times.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).expect("there is at least one worker");
        end - start
    })
}

/// Spins until `ready`. The one it waits for may have been switched out, on this very CPU: so it yields now
/// and then.
pub fn spin_until(ready: impl Fn() -> bool) {
    let mut spins = 0_u32;
    while !ready() {
        hint::spin_loop();
        spins = spins.wrapping_add(1);
        if spins.is_multiple_of(0x4000) {
            thread::yield_now();
        }
    }
}
