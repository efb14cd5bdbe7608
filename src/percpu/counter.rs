//! [`Counter`]: a closable count.

use crate::sync::atomic::{self, AtomicU64, Ordering::Relaxed};
use crate::sync::mo;
use crate::sync::rseq::ONE;

/// The counter was closed; nothing was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the per-CPU counter is closed; count globally")
    }
}

impl std::error::Error for Closed {}

/// A signed count that can be closed, and opened again. Wait-free: one locked instruction per operation.
///
/// It may go below zero and wrap: only the sum over all CPUs means something, since what is counted up on one
/// CPU may be counted down on another.
///
/// Source: the per-CPU half of the kernel's `percpu_ref`; the closing `swap` stands in for its grace period.
#[derive(Debug, Default)]
pub struct Counter {
    /// Bit 0: closed. Bits 1 to 63: the count, two's complement. Every operation adds an even number, so
    /// none can change bit 0; what is added once bit 0 is set is meaningless and never read.
    word: AtomicU64,
}

const CLOSED: u64 = 1;

impl Counter {
    /// At zero and open.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts `n` up.
    ///
    /// # Errors
    ///
    /// [`Closed`]: nothing was counted.
    #[inline]
    pub fn add(&self, n: u32) -> Result<(), Closed> {
        // That it is counted exactly once follows from the word's own order:
        // - if it comes before the closing swap, the swap returns it;
        // - if it comes after, it sees bit 0 and the caller counts elsewhere.
        //
        // Acquire: pairs with `open`. Publishes nothing.
        accepted(self.word.fetch_add(u64::from(n) * ONE as u64, mo!("percpu.counter.add", Acquire)))
    }

    /// Counts `n` down; everything the caller did before is visible to the closer.
    ///
    /// # Errors
    ///
    /// [`Closed`]: nothing was counted.
    #[inline]
    pub fn sub(&self, n: u32) -> Result<(), Closed> {
        // Release: what the caller did with the thing it counted happens before the close that collects this.
        accepted(self.word.fetch_sub(u64::from(n) * ONE as u64, mo!("percpu.counter.sub", Release)))
    }

    /// What an open counter holds now. Orders nothing; for whoever knows that nobody counts any more.
    pub(crate) fn value(&self) -> i64 {
        // Relaxed: ordered by what told the caller so.
        self.word.load(Relaxed) as i64 >> 1
    }

    /// The word, for whoever owns the counter.
    pub(crate) fn word_mut(&mut self) -> &mut AtomicU64 {
        &mut self.word
    }

    /// The word, for sections.
    #[inline(always)]
    pub(crate) fn word(&self) -> &AtomicU64 {
        &self.word
    }

    /// Opens a closed counter, at zero. An open one loses what it held.
    pub fn open(&self) {
        // Release: pairs with every `add` that finds it open.
        atomic::store_over(&self.word, 0, mo!("percpu.counter.open", Release));
    }

    /// Closes the counter and returns what it held. Closing a closed one returns garbage.
    pub fn close(&self) -> i64 {
        // Acquire: pairs with every `sub` before it (their read-modify-writes form one release sequence
        // each, which later additions continue). Release is not needed: the closer publishes through its
        // own global word.
        self.word.swap(CLOSED, mo!("percpu.counter.close", Acquire)) as i64 >> 1
    }
}

/// What an operation that found `before` in the word has to say.
#[inline(always)]
fn accepted(before: u64) -> Result<(), Closed> {
    if before & CLOSED == 0 { Ok(()) } else { Err(Closed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_returns_what_was_counted_and_turns_the_rest_away() {
        let counter = Counter::new();
        counter.sub(3).unwrap();
        counter.add(1).unwrap();
        assert_eq!(counter.close(), -2);
        assert_eq!((counter.add(1), counter.sub(7)), (Err(Closed), Err(Closed)));
        counter.open();
        counter.add(1).unwrap();
        assert_eq!(counter.close(), 1);
    }

    #[test]
    fn large_counts_survive() {
        let counter = Counter::new();
        counter.add(u32::MAX).unwrap();
        counter.add(u32::MAX).unwrap();
        assert_eq!(counter.close(), 2 * i64::from(u32::MAX));
    }
}
