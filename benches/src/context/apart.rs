//! What sharing is measured against: a context for each thread, which submits to it and reaps from it, [`Own`].

use super::{Shape, sum_below};
use crate::harness::{Place, together};
use crossbeam_utils::CachePadded;
use std::io;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;

/// A context of one thread's. Nobody else can reap what the thread has submitted, not even while it is busy.
pub trait Own: Send + Sized {
    /// One for [`CAPACITY`](super::CAPACITY) requests.
    ///
    /// # Errors
    ///
    /// If the system has no such thing, or does not let us use it.
    fn open() -> io::Result<Self>;

    /// Called by the thread whose it is to be, before anything else.
    fn start(&mut self) {}

    /// Submits `count` requests that do nothing, numbered from `first`. There is room for them.
    fn submit(&mut self, first: u64, count: usize);

    /// Waits until `min` requests have completed, and shows the numbers of those and of up to
    /// [`READ`](super::READ) to `each`. Returns how many.
    fn reap(&mut self, min: usize, each: impl FnMut(u64)) -> usize;
}

/// The loop of a thread: submits `batch` at a time, and reaps whenever `min` are out. Returns the sum of the numbers.
#[inline]
fn turns<O: Own>(own: &mut O, numbers: Range<u64>, batch: usize, min: usize) -> u64 {
    own.start();
    let (mut next, mut reaped, mut sum) = (numbers.start, numbers.start, 0_u64);
    while reaped < numbers.end {
        if next < numbers.end {
            own.submit(next, batch);
            next += batch as u64;
        }
        let min = (min as u64).min(numbers.end - reaped);
        if next - reaped >= min {
            reaped += own.reap(min as usize, |number| sum = sum.wrapping_add(number)) as u64;
        }
    }
    assert_eq!(reaped, numbers.end, "no event came twice");
    sum
}

/// As [`pass`](super::pass), by as many threads as there are submitters there, each with a context of its own.
///
/// # Panics
///
/// If what was reaped is not what was submitted, or the contexts cannot be opened.
pub fn apart<O: Own>(n: u64, Shape { submitters, batch, min }: Shape) -> (u64, Duration) {
    let own = || CachePadded::new(Mutex::new(O::open().expect("it could be opened before")));
    let owns: Vec<_> = (0..submitters).map(|_| own()).collect();
    // As many for each thread, in whole batches.
    let each = n.div_ceil((submitters * batch) as u64) * batch as u64;
    let total = each * submitters as u64;
    let sum = AtomicU64::new(0);
    let elapsed = together(&vec![Place::Anywhere; submitters], |worker| {
        let mut own = owns[worker].try_lock().expect("each worker has its own");
        let first = worker as u64 * each;
        sum.fetch_add(turns(&mut *own, first..first + each, batch, min), Relaxed);
    });
    assert_eq!(sum.into_inner(), sum_below(total), "every request was reaped once");
    (total, elapsed)
}

/// Checks that a contender can be had, and that it loses nothing.
///
/// # Errors
///
/// If it cannot be had.
///
/// # Panics
///
/// If it loses something. Hangs if it loses all of something.
pub fn check_apart<O: Own>() -> io::Result<()> {
    O::open()?;
    for (batch, min) in [(1, 1), (1, 16), (16, 1), (16, 16)] {
        apart::<O>(10_000, Shape { submitters: 4, batch, min });
    }
    Ok(())
}
