//! Who carries requests from submitters to a reaper cheapest: [`Context`]. Beside it, what it would cost not to share:
//! [`Own`].
//!
//! The device is one that does nothing, so that only the overhead is left; [`cached`] has one that reads.

mod apart;
#[cfg(target_os = "linux")]
pub mod cached;
#[cfg(target_os = "linux")]
mod kernel;
mod locked;
mod ours;
#[cfg(target_os = "linux")]
mod uring;

pub use apart::{Own, apart, check_apart};
#[cfg(target_os = "linux")]
pub use kernel::KernelAio;
#[cfg(target_os = "linux")]
pub(crate) use kernel::{Aio, Blocks, Iocb};
pub use locked::{Done, Locked, Word};
pub use ours::OwnContext;
#[cfg(target_os = "linux")]
pub use uring::{OwnRing, SharedRing};
#[cfg(target_os = "linux")]
pub(crate) use uring::{enable, own_ring, push};

use crate::harness::{Place, together};
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::Duration;
use std::{io, thread};

/// How many requests can be in flight or unread.
pub const CAPACITY: u32 = 1024;
/// How many events the reaper takes at a time, at the most.
pub const READ: usize = 256;

/// A context that any number of threads submit to, and that one thread reads.
pub trait Context: Send + Sync + Sized {
    /// What a submitter keeps from one call to the next.
    type Submitter: Default;
    /// What the reaper keeps from one call to the next.
    type Reaper: Default;

    /// One for [`CAPACITY`] requests.
    ///
    /// # Errors
    ///
    /// If the system has no such thing, or does not let us use it.
    fn open() -> io::Result<Self>;

    /// Submits up to `count` requests that do nothing, numbered from `first`, and returns how many were
    /// accepted. None, if the context is full. What was not accepted is submitted again in the next call.
    fn submit(&self, submitter: &mut Self::Submitter, first: u64, count: usize) -> usize;

    /// Waits until `min` requests have completed (at most [`READ`]), and shows the numbers of those and of
    /// up to [`READ`] to `each`. Returns how many.
    fn reap(&self, reaper: &mut Self::Reaper, min: usize, each: impl FnMut(u64)) -> usize;
}

/// Who submits, and how.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many submitters.
    pub submitters: usize,
    /// How many requests are submitted in one call.
    pub batch: usize,
    /// How many events the reaper waits for.
    pub min: usize,
}

/// The loop of a submitter.
#[inline]
fn submit<C: Context>(context: &C, numbers: std::ops::Range<u64>, batch: usize) {
    let mut submitter = C::Submitter::default();
    let mut next = numbers.start;
    while next < numbers.end {
        let end = next + batch as u64;
        while next < end {
            let accepted = context.submit(&mut submitter, next, (end - next) as usize);
            next += accepted as u64;
            if accepted == 0 {
                thread::yield_now();
            }
        }
    }
}

/// The loop of the reaper. Returns the sum of the numbers.
#[inline]
fn reap<C: Context>(context: &C, count: u64, min: usize) -> u64 {
    let mut reaper = C::Reaper::default();
    let (mut reaped, mut sum) = (0, 0_u64);
    while reaped < count {
        let min = (min as u64).min(count - reaped) as usize;
        reaped += context.reap(&mut reaper, min, |number| sum = sum.wrapping_add(number)) as u64;
    }
    assert_eq!(reaped, count, "no event came twice");
    sum
}

/// The sum of the numbers below `end`.
fn sum_below(end: u64) -> u64 {
    // One of the two factors is even; the halved one cannot overflow.
    let (even, odd) = if end.is_multiple_of(2) { (end, end.wrapping_sub(1)) } else { (end - 1, end) };
    (even / 2).wrapping_mul(odd)
}

/// Passes at least `n` requests, and returns how many it were and the time it took.
///
/// # Panics
///
/// If what was reaped is not what was submitted, or the context cannot be opened.
pub fn pass<C: Context>(n: u64, shape: Shape) -> (u64, Duration) {
    let Shape { submitters, batch, min } = shape;
    let context = C::open().expect("it could be opened before");
    // As many for each submitter, in whole batches.
    let each = n.div_ceil((submitters * batch) as u64) * batch as u64;
    let total = each * submitters as u64;
    let sum = AtomicU64::new(0);
    let elapsed = together(&vec![Place::Anywhere; submitters + 1], |worker| match worker.checked_sub(1) {
        None => sum.store(reap(&context, total, min), Relaxed),
        Some(submitter) => {
            let first = submitter as u64 * each;
            submit(&context, first..first + each, batch);
        }
    });
    assert_eq!(sum.into_inner(), sum_below(total), "every request was reaped once");
    (total, elapsed)
}

/// Submits a batch and reaps it, `n` times, on one thread.
#[inline]
pub fn alone<C: Context>(context: &C, batch: usize, n: u64) {
    let mut submitter = C::Submitter::default();
    let mut reaper = C::Reaper::default();
    let mut sum = 0_u64;
    for turn in 0..n {
        let first = turn * batch as u64;
        let mut submitted = 0;
        while submitted < batch {
            submitted += context.submit(&mut submitter, first + submitted as u64, batch - submitted);
        }
        let mut reaped = 0;
        while reaped < batch {
            reaped += context.reap(&mut reaper, batch - reaped, |number| sum = sum.wrapping_add(number));
        }
    }
    assert_eq!(sum, sum_below(n * batch as u64), "every request was reaped once");
}

/// Looks for events where there are none, `n` times.
#[inline]
pub fn polls<C: Context>(context: &C, n: u64) {
    let mut reaper = C::Reaper::default();
    for _ in 0..n {
        let read = context.reap(&mut reaper, 0, |_| unreachable!("nothing was submitted"));
        assert_eq!(read, 0, "nothing was submitted");
    }
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
pub fn check<C: Context>() -> io::Result<()> {
    let context = C::open()?;
    alone(&context, 16, 100);
    polls(&context, 100);
    for (batch, min) in [(1, 1), (16, 16)] {
        pass::<C>(10_000, Shape { submitters: 4, batch, min });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::sum_below;

    #[test]
    fn sums() {
        for end in 0..9 {
            assert_eq!(sum_below(end), (0..end).sum::<u64>());
        }
    }
}
