//! How far apart two CPUs are.

use super::cpus;
use super::stats::median;
use super::together::{Place, spin_until, together};
use ioctx::percpu::CachePadded;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

/// How far apart two CPUs are, by the round trip of a cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Distance {
    /// Under 45 ns: most likely siblings on one core, which share all caches.
    Siblings,
    /// Under 150 ns: most likely cores that share a cache.
    Near,
    /// More: they share none.
    Far,
}

impl Distance {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Siblings, Self::Near, Self::Far];

    fn of(round_trip: f64) -> Self {
        match round_trip {
            ..45.0 => Self::Siblings,
            ..150.0 => Self::Near,
            _ => Self::Far,
        }
    }

    /// What it was between two round trips, if that is certain.
    pub fn between(before: Option<f64>, after: Option<f64>) -> Option<Self> {
        let before = before.map(Self::of);
        before.filter(|_| before == after.map(Self::of))
    }

    /// For a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Siblings => "siblings",
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

/// Round trips that are timed together. Few, so that most bursts are not disturbed.
const BURST: u64 = 50;
const BURSTS: u64 = 50;
/// What is enough if the CPUs are busy otherwise.
const ENOUGH: Duration = Duration::from_millis(20);
/// Nothing takes that long by itself, in nanoseconds: somebody else had one of the CPUs.
const DISTURBED: f64 = 10_000.0;
/// In place of a number: the end.
const STOP: u64 = u64::MAX;

/// The time a cache line takes from the first CPU to the last and back, in nanoseconds. `None` if there is
/// one CPU only, or one was busy with something else.
///
/// On a virtual machine it changes while one watches, with the real CPUs that the virtual ones are on;
/// whatever passes lines between threads changes with it.
pub fn line_round_trip() -> Option<f64> {
    let [first, .., last] = *cpus() else { return None };
    let line = CachePadded::new(AtomicU64::new(0));
    let bursts = Mutex::new(Vec::new());
    let serve = || {
        let began = Instant::now();
        for burst in 0..BURSTS {
            let start = Instant::now();
            for trip in burst * BURST..(burst + 1) * BURST {
                line.store(2 * trip + 1, Release);
                spin_until(|| line.load(Acquire) == 2 * trip + 2);
            }
            let elapsed = start.elapsed().as_nanos() as f64;
            bursts.lock().expect("one thread uses it").push(elapsed / BURST as f64);
            if began.elapsed() > ENOUGH {
                break;
            }
        }
        line.store(STOP, Release);
    };
    let give_back = || {
        let mut seen = 0;
        loop {
            spin_until(|| line.load(Acquire) != seen);
            match line.load(Acquire) {
                STOP => return,
                trip => seen = trip + 1,
            }
            line.store(seen, Release);
        }
    };
    together(&[Place::On(first), Place::On(last)], |side| if side == 0 { serve() } else { give_back() });
    median(&bursts.into_inner().expect("one thread used it")).filter(|time| *time < DISTURBED)
}
