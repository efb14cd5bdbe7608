//! Who can admit up to so many cheapest: [`Pool`]. If it also says which one: [`TagPool`].
//!
//! | module | contenders |
//! |---|---|
//! | [`ours`] | `Credits` and `Tags`, with and without restartable sequences |
//! | [`counted`] | one count for all, in one word; semaphores among them |
//! | [`locked`] | a count or a stack behind a mutex |
//! | [`tagged`] | what hands out distinct numbers |
//! | [`floor`] | what no pool can do without |
//!
//! Four loops, the same for all: [`pairs`], [`bursts`], [`refusals`], and [`crossed`](crossed::crossed), in
//! which one thread takes what another gives back.

pub mod check;
pub mod counted;
pub mod crossed;
pub mod floor;
pub mod locked;
pub mod ours;
pub mod tagged;

use ioctx::percpu::CachePadded;
use std::hint::black_box;
use std::mem;

/// How many credits every pool has.
pub const TOTAL: u32 = 1024;

/// One on cache lines of its own, so that no contender is slowed down by its neighbour.
pub type Apart<P> = CachePadded<P>;

/// A pool of [`TOTAL`] credits.
pub trait Pool: Send + Sync {
    /// One credit. Dropping it gives it back.
    type One<'a>: Send
    where
        Self: 'a;

    /// With every credit free.
    fn new() -> Self;

    /// Takes a credit, if one is free.
    fn try_take(&self) -> Option<Self::One<'_>>;
}

/// A pool whose credits can be told apart.
pub trait TagPool: Pool {
    /// A number that no other credit has while this one is out.
    fn index(tag: &Self::One<'_>) -> usize;
}

/// The loop: takes a credit and gives it back, `n` times.
#[inline]
pub fn pairs<P: Pool>(pool: &P, n: u64) {
    for _ in 0..n {
        let credit = pool.try_take();
        assert!(credit.is_some(), "one is free");
        // Whatever it admits to would be done here.
        black_box(());
        drop(credit);
    }
}

/// The second loop: takes `burst` credits one by one, then gives them back one by one, `n` times.
#[inline]
pub fn bursts<P: Pool>(pool: &P, burst: usize, n: u64) {
    let mut held = Vec::with_capacity(burst);
    for _ in 0..n {
        for _ in 0..burst {
            let Some(credit) = pool.try_take() else { panic!("enough are free") };
            held.push(credit);
        }
        black_box(());
        held.clear();
    }
}

/// The third loop: asks a pool that has none left, `n` times.
#[inline]
pub fn refusals<P: Pool>(pool: &P, n: u64) {
    for _ in 0..n {
        assert!(pool.try_take().is_none(), "none is free");
    }
}

/// A pool whose credits are gone for good.
pub fn exhausted<P: Pool>() -> Apart<P> {
    let pool = Apart::new(P::new());
    while let Some(credit) = pool.try_take() {
        mem::forget(credit);
    }
    pool
}
