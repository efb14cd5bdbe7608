//! Who can admit up to so many cheapest: [`Pool`].

use ioctx::credits::{Credit, Credits};
use ioctx::percpu::CachePadded;
use std::cell::Cell;
use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering::*};
use std::{mem, thread};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many credits every pool has.
pub const TOTAL: u32 = 1024;

/// A pool of [`TOTAL`] credits.
pub trait Pool: Send + Sync {
    /// One credit. Dropping it gives it back.
    type One<'a>
    where
        Self: 'a;

    /// With every credit free.
    fn new() -> Self;

    /// Takes a credit, if one is free.
    fn try_take(&self) -> Option<Self::One<'_>>;
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
pub fn exhausted<P: Pool>() -> P {
    let pool = P::new();
    while let Some(credit) = pool.try_take() {
        mem::forget(credit);
    }
    pool
}

/// Checks that a contender admits [`TOTAL`] and no more, also after two threads have used it.
///
/// # Panics
///
/// If it does not.
pub fn check<P: Pool>() {
    let pool = P::new();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                pairs(&pool, 10_000);
                bursts(&pool, 256, 100);
            });
        }
    });
    for _ in 0..2 {
        let mut held: Vec<_> = (0..TOTAL).map_while(|_| pool.try_take()).collect();
        assert_eq!(held.len(), TOTAL as usize, "all can be out");
        refusals(&pool, 3);
        held.pop();
        pairs(&pool, 3);
    }
    refusals(&exhausted::<P>(), 3);
}

impl Pool for Credits {
    type One<'a> = Credit<'a>;

    fn new() -> Self {
        Self::new(TOTAL)
    }

    #[inline]
    fn try_take(&self) -> Option<Credit<'_>> {
        self.try_take(1).ok()
    }
}

/// One word for all, changed by compare-and-swap so that it never goes below zero.
#[derive(Debug)]
pub struct SharedCas(CachePadded<AtomicU32>);

/// A credit of [`SharedCas`].
#[derive(Debug)]
pub struct CasCredit<'a>(&'a AtomicU32);

impl Drop for CasCredit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.fetch_add(1, Release);
    }
}

impl Pool for SharedCas {
    type One<'a> = CasCredit<'a>;

    fn new() -> Self {
        Self(CachePadded::new(AtomicU32::new(TOTAL)))
    }

    #[inline]
    fn try_take(&self) -> Option<CasCredit<'_>> {
        let take = self.0.fetch_update(Acquire, Relaxed, |free| free.checked_sub(1));
        take.is_ok().then(|| CasCredit(&self.0))
    }
}

/// One word for all, decremented first and incremented again if it was too much. May refuse while another
/// thread is between the two.
#[derive(Debug)]
pub struct SharedUndo(CachePadded<AtomicI64>);

/// A credit of [`SharedUndo`].
#[derive(Debug)]
pub struct UndoCredit<'a>(&'a AtomicI64);

impl Drop for UndoCredit<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.fetch_add(1, Release);
    }
}

impl Pool for SharedUndo {
    type One<'a> = UndoCredit<'a>;

    fn new() -> Self {
        Self(CachePadded::new(AtomicI64::new(TOTAL.into())))
    }

    #[inline]
    fn try_take(&self) -> Option<UndoCredit<'_>> {
        if self.0.fetch_sub(1, Acquire) > 0 {
            return Some(UndoCredit(&self.0));
        }
        self.0.fetch_add(1, Relaxed);
        None
    }
}

/// One word for all behind a mutex.
#[derive(Debug)]
pub struct Locked(CachePadded<Mutex<u32>>);

/// A credit of [`Locked`].
#[derive(Debug)]
pub struct LockedCredit<'a>(&'a Mutex<u32>);

impl Drop for LockedCredit<'_> {
    #[inline]
    fn drop(&mut self) {
        // Poisoned or not, the number is right.
        *self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += 1;
    }
}

impl Pool for Locked {
    type One<'a> = LockedCredit<'a>;

    fn new() -> Self {
        Self(CachePadded::new(Mutex::new(TOTAL)))
    }

    #[inline]
    fn try_take(&self) -> Option<LockedCredit<'_>> {
        let mut free = self.0.lock().expect("nobody panics while holding it");
        *free = free.checked_sub(1)?;
        Some(LockedCredit(&self.0))
    }
}

impl Pool for Semaphore {
    type One<'a> = SemaphorePermit<'a>;

    fn new() -> Self {
        Self::new(TOTAL as usize)
    }

    #[inline]
    fn try_take(&self) -> Option<SemaphorePermit<'_>> {
        self.try_acquire().ok()
    }
}

/// A word per thread: the floor. [`TOTAL`] for each thread, since none can learn what the others have.
#[derive(Debug)]
pub struct ThreadLocal;

thread_local! {
    static FREE: Cell<u32> = const { Cell::new(TOTAL) };
}

/// A credit of [`ThreadLocal`].
#[derive(Debug)]
pub struct LocalCredit(PhantomData<*const ()>);

impl Drop for LocalCredit {
    #[inline]
    fn drop(&mut self) {
        // Through `black_box`, or the compiler would see that taking and giving back comes to nothing.
        FREE.with(|free| black_box(free).set(free.get() + 1));
    }
}

impl Pool for ThreadLocal {
    type One<'a> = LocalCredit;

    fn new() -> Self {
        FREE.set(TOTAL);
        Self
    }

    #[inline]
    fn try_take(&self) -> Option<LocalCredit> {
        FREE.with(|free| {
            let free = black_box(free);
            free.set(free.get().checked_sub(1)?);
            Some(LocalCredit(PhantomData))
        })
    }
}
