//! What no pool can do without, and so no pool: floors.

use super::{Pool, TOTAL};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering::*};

/// A word per thread. [`TOTAL`] for each thread, since none can learn what the others have; a credit belongs
/// to the thread that drops it.
#[derive(Debug)]
pub struct ThreadLocal;

thread_local! {
    static FREE: Cell<u32> = const { Cell::new(TOTAL) };
}

/// A credit of the thread's.
#[derive(Debug)]
pub struct LocalCredit(());

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
            Some(LocalCredit(()))
        })
    }
}

/// A word that says for ever that nothing is free: what it takes to be refused. Not to be checked.
#[derive(Debug)]
pub struct OneLoad(AtomicU32);

impl Pool for OneLoad {
    type One<'a> = ();

    fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    #[inline]
    fn try_take(&self) -> Option<()> {
        (self.0.load(Acquire) > 0).then_some(())
    }
}

/// No pool at all: what it takes to pass on something as large as a credit, and to look at it. Not to be
/// checked.
#[derive(Debug)]
pub struct HandOver;

/// As large as a credit.
#[derive(Debug)]
pub struct Passed<'a>(&'a HandOver, u32);

impl Drop for Passed<'_> {
    #[inline]
    fn drop(&mut self) {
        black_box((self.0, self.1));
    }
}

impl Pool for HandOver {
    type One<'a> = Passed<'a>;

    fn new() -> Self {
        Self
    }

    #[inline]
    fn try_take(&self) -> Option<Passed<'_>> {
        Some(Passed(self, 1))
    }
}
