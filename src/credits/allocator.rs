//! The machinery that counts and tags share: a pool, a stock per CPU, and the moves between them.

use super::Exhausted;
use crate::cpu;
use crate::percpu::{CachePadded, PerCpu};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The most units one allocator can have: a stock's word keeps two bits for itself.
pub(super) const MAX: u32 = (1 << 30) - 1;

/// Free units in bulk.
pub(super) trait Pile {
    /// How many units.
    fn len(&self) -> u32;
    /// Moves `n` units, which this pile has, to `other`.
    fn move_to(&mut self, n: u32, other: &mut Self);
}

/// Free units kept on one CPU.
pub(super) trait Stock: Sized {
    type Pile: Pile;
    /// Empty and open; moves at most `limit` units in at a time.
    fn new(limit: u32) -> Self;
    /// How many units are in it, at some moment.
    fn len(&self) -> u32;
    /// Moves up to `n` units in. Fewer, or none, if it is closed or in use.
    fn fill(&self, n: u32, from: &mut Self::Pile);
    /// Moves up to `n` units out. Fewer, or none, if it is closed or in use.
    fn empty(&self, n: u32, to: &mut Self::Pile);
    /// Moves everything out and turns later takes and puts away. One closer at a time.
    fn close(&self, to: &mut Self::Pile);
    /// Lets takes and puts in again.
    fn open(&self);
}

/// A pool, and a stock per CPU.
#[derive(Debug)]
pub(super) struct Allocator<S: Stock> {
    stocks: PerCpu<S>,
    /// Read by every put and by every take that its stock cannot serve; written when a sweep finds nothing,
    /// and when the first unit after that comes back.
    starved: CachePadded<AtomicBool>,
    /// Written once per batch.
    pool: CachePadded<Mutex<S::Pile>>,
    total: u32,
    batch: u32,
}

/// `max(1, n / (4 * cpus))`: all stocks together hold at most about half of the units.
pub(super) fn default_batch(total: u32) -> u32 {
    (total / cpu::possible().saturating_mul(4)).max(1)
}

impl<S: Stock> Allocator<S> {
    /// All units of `pool` free, moved `batch` at a time.
    pub(super) fn new(pool: S::Pile, batch: u32) -> Self {
        let total = pool.len();
        assert!(total <= MAX, "less than 2^30 credits, {total} asked for");
        let batch = batch.clamp(1, total.max(1));
        Self {
            stocks: PerCpu::new(|_| S::new((2 * batch).min(MAX))),
            starved: CachePadded::new(AtomicBool::new(false)),
            pool: CachePadded::new(Mutex::new(pool)),
            total,
            batch,
        }
    }

    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// This CPU's stock.
    #[inline]
    pub(super) fn local(&self) -> &S {
        self.stocks.local()
    }

    /// Serves a take of `want` units that the local stock could not: `take` removes them from the pool,
    /// which has at least that many. Then the local stock is refilled.
    #[cold]
    pub(super) fn take_from_pool<R>(
        &self,
        want: u32,
        take: impl FnOnce(&mut S::Pile) -> R,
    ) -> Result<R, Exhausted> {
        // Relaxed: a put that is not seen here has not returned, so refusing is still right.
        if self.starved.load(Relaxed) && want > 0 {
            return Err(Exhausted);
        }
        let mut pool = self.pool.lock();
        if pool.len() < want {
            self.sweep(&mut pool);
            if pool.len() < want {
                return Err(Exhausted);
            }
        }
        let taken = take(&mut pool);
        self.local().fill(self.batch, &mut pool);
        Ok(taken)
    }

    /// Puts units back, `put` adding them to the pool.
    #[cold]
    pub(super) fn put_to_pool(&self, put: impl FnOnce(&mut S::Pile)) {
        let mut pool = self.pool.lock();
        put(&mut pool);
        // Also if nothing came: a spill that found the stock in use leaves a unit there, which the next
        // sweep must look for. Relaxed twice: the pool's mutex orders the mark's changes. Looked at before
        // it is written, since every put reads it.
        if self.starved.load(Relaxed) {
            self.starved.store(false, Relaxed);
        }
    }

    /// Whether puts should go to the pool.
    #[inline]
    pub(super) fn starved(&self) -> bool {
        // Relaxed: before a put it is a hint. After a put into a stock it sees the mark of every sweep that
        // reopened the stock before, because the put acquired the reopening.
        self.starved.load(Relaxed)
    }

    /// What follows a put that left `len` units in `stock`.
    #[inline]
    pub(super) fn after_put(&self, stock: &S, len: u32) {
        if len >= 2 * self.batch {
            self.spill(stock, self.batch);
        }
        if self.starved() {
            // A sweep found nothing just before this put: bring the unit where the next take looks.
            self.spill(stock, u32::MAX);
        }
    }

    /// Moves up to `n` units from `stock` to the pool.
    #[cold]
    fn spill(&self, stock: &S, n: u32) {
        self.put_to_pool(|pool| stock.empty(n, pool));
    }

    /// Brings every free unit into the locked pool, and marks it starved if there was none.
    fn sweep(&self, pool: &mut S::Pile) {
        self.stocks.iter().for_each(|stock| stock.close(pool));
        // Every stock is closed and every move needs the pool's lock: what is not in the pool is handed out.
        // Relaxed: published by the reopening of each stock, and by the pool's mutex.
        self.starved.store(pool.len() == 0, Relaxed);
        self.stocks.iter().for_each(S::open);
    }

    /// How many units are free, at no particular moment unless nobody takes or puts.
    pub(super) fn free(&self) -> u32 {
        let pool = self.pool.lock();
        pool.len() + self.stocks.iter().map(S::len).sum::<u32>()
    }
}
