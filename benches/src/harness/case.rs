//! [`Case`]: one contender in one contest, ready to be timed.

use super::cpus;
use super::os;
use super::plan::Plan;
use super::stats::quantile;
use super::together::spin_until;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::time::{Duration, Instant};
use std::{fmt, thread};

/// A slice counts if its threads began within this part of it.
const SKEW: f64 = 0.03;
/// How often a turn is repeated if too many of its slices were disturbed.
const TRIES: usize = 4;

/// One contender in one contest.
pub struct Case<'a> {
    pub(super) name: String,
    pub(super) turn: Box<dyn FnMut(&Plan) -> Sample + 'a>,
}

/// What one turn yielded.
#[derive(Debug, Default)]
pub(super) struct Sample {
    /// Nanoseconds per operation: one figure per slice, or one per repetition.
    pub ns: Vec<f64>,
    /// Context switches per operation of the whole process, where they belong to the matter.
    pub switches: Option<f64>,
}

impl fmt::Debug for Case<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Case<'a> {
    /// A loop that every thread runs by itself: `body(n)` does `n` times `operations` operations. Each of
    /// the `threads` threads is pinned to a CPU of its own; the figure is the time an operation takes on
    /// each of them.
    pub fn slices(
        name: impl Into<String>,
        threads: usize,
        operations: u32,
        body: impl Fn(u64) + Sync + 'a,
    ) -> Self {
        let mut n = None;
        let turn = move |plan: &Plan| {
            let turns = *n.get_or_insert_with(|| calibrate(threads, plan.slice, &body));
            let mut walls = Vec::new();
            for _ in 0..TRIES {
                let slices = cut(threads, plan.slices, turns, &body);
                walls.extend(slices.iter().filter(|slice| slice.counts()).map(|slice| slice.wall));
                if walls.len() >= plan.slices / 2 {
                    break;
                }
            }
            if walls.is_empty() {
                // Slices of the wrong length are all disturbed: measured anew the next time.
                n = None;
            }
            let total = turns as f64 * f64::from(operations);
            Sample { ns: walls.into_iter().map(|wall| wall / total).collect(), switches: None }
        };
        Self { name: name.into(), turn: Box::new(turn) }
    }

    /// A loop of threads that feed each other: `run(n)` makes them do at least `n` operations, and says how
    /// many it were and how long they took.
    pub fn repetitions(name: impl Into<String>, mut run: impl FnMut(u64) -> (u64, Duration) + 'a) -> Self {
        let mut n = None;
        let turn = move |plan: &Plan| {
            let now = n.unwrap_or_else(|| enough(plan.repetition, &mut run));
            let before = os::process_switches();
            let (done, elapsed) = run(now);
            let switches = os::process_switches() - before;
            let ns = elapsed.as_nanos() as f64 / done as f64;
            // As many as would have been right this time. Not many more at once: some loops have a fast
            // state that they soon leave.
            let right = plan.repetition.as_nanos() as f64 / ns;
            n = Some((right as u64).clamp(1000.min(now), 2 * now));
            Sample { ns: vec![ns], switches: Some(switches as f64 / done as f64) }
        };
        Self { name: name.into(), turn: Box::new(turn) }
    }

    /// What takes too long for a loop, or cannot be done twice: `run(n)` prepares and does it about `n` times
    /// and says how long each took, the preparations left out; each time it is `operations` operations.
    pub fn shots(
        name: impl Into<String>,
        operations: u32,
        run: impl Fn(usize) -> Vec<Duration> + 'a,
    ) -> Self {
        let turn = move |plan: &Plan| {
            let each = |time: Duration| time.as_nanos() as f64 / f64::from(operations);
            Sample { ns: run(plan.shots).into_iter().map(each).collect(), switches: None }
        };
        Self { name: name.into(), turn: Box::new(turn) }
    }
}

/// How long a single shot takes; `None` if the thread was switched out meanwhile.
///
/// Includes reading the clock, some 20 ns.
pub fn undisturbed(shot: impl FnOnce()) -> Option<Duration> {
    let before = os::thread_switches();
    let start = Instant::now();
    shot();
    let elapsed = start.elapsed();
    (os::thread_switches() == before).then_some(elapsed)
}

/// How many operations take about as long as a repetition should, or longer.
fn enough(length: Duration, run: &mut impl FnMut(u64) -> (u64, Duration)) -> u64 {
    // Too few to judge by: starting the threads takes as long as this many operations.
    let mut n = 500;
    loop {
        let (done, elapsed) = run(n);
        let per_operation = elapsed.as_nanos() as f64 / done as f64;
        if elapsed >= length / 2 {
            return ((length.as_nanos() as f64 / per_operation) as u64).max(n / 2);
        }
        n *= 4;
    }
}

/// One slice, over all its threads.
struct Slice {
    /// Nanoseconds from the first start to the last end.
    wall: f64,
    /// Nanoseconds from the first start to the last.
    skew: f64,
    switched: bool,
}

impl Slice {
    fn counts(&self) -> bool {
        !self.switched && self.skew <= SKEW * self.wall
    }
}

/// How many turns of the loop take as long as a slice should.
fn calibrate(threads: usize, length: Duration, body: &(impl Fn(u64) + Sync)) -> u64 {
    let length = length.as_nanos() as f64;
    let mut n = 8;
    loop {
        // Skewed or not: while they are short, all are.
        let slices: Vec<Slice> = (0..TRIES).flat_map(|_| cut(threads, 4, n, body)).collect();
        let walls: Vec<f64> = slices.iter().filter(|slice| !slice.switched).map(|slice| slice.wall).collect();
        let Some(fastest) = quantile(&walls, 0.0) else { continue };
        if fastest >= length / 2.0 || n >= 1 << 32 {
            return ((n as f64 * length / fastest) as u64).max(1);
        }
        n *= 2;
    }
}

/// One slice, on one of its threads: nanoseconds since a common origin.
struct Lap {
    start: f64,
    end: f64,
    switched: bool,
}

/// Runs `body(n)` on every thread, `count` times. The first time is a warm-up and is not in the result.
fn cut(threads: usize, count: usize, n: u64, body: &(impl Fn(u64) + Sync)) -> Vec<Slice> {
    assert!(threads <= cpus().len(), "each thread of a slice needs a CPU");
    let arrived = AtomicUsize::new(0);
    let origin = Instant::now();
    let now = || origin.elapsed().as_nanos() as f64;
    let work = |cpu: usize| -> Vec<Lap> {
        os::pin(cpu);
        let lap = |turn: usize| {
            let before = os::thread_switches();
            arrived.fetch_add(1, SeqCst);
            spin_until(|| arrived.load(SeqCst) >= turn * threads);
            let start = now();
            body(n);
            let end = now();
            // A switch while waiting for the others cannot be told from one in the slice, so it spoils the
            // slice too.
            Lap { start, end, switched: os::thread_switches() != before }
        };
        (1..=count + 1).map(lap).collect()
    };
    let all: Vec<Vec<Lap>> = thread::scope(|scope| {
        let work = &work;
        // From the last CPU down: the first one is where interrupts go.
        let cpus = cpus().iter().rev().take(threads);
        let workers: Vec<_> = cpus.map(|cpu| scope.spawn(move || work(*cpu))).collect();
        workers.into_iter().map(|worker| worker.join().expect("the body of a slice failed")).collect()
    });
    let slice = |turn: usize| {
        let laps = || all.iter().map(|laps| &laps[turn]);
        let first = laps().map(|lap| lap.start).fold(f64::INFINITY, f64::min);
        let last = laps().map(|lap| lap.start).fold(0.0, f64::max);
        let end = laps().map(|lap| lap.end).fold(0.0, f64::max);
        Slice { wall: end - first, skew: last - first, switched: laps().any(|lap| lap.switched) }
    };
    (1..=count).map(slice).collect()
}
