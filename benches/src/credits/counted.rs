//! One count for all, in one word.

use super::{Pool, TOTAL};
use async_lock::SemaphoreGuard;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering::*};
use tokio::sync::SemaphorePermit;

/// Changed by compare-and-swap, so that it never goes below zero.
#[derive(Debug)]
pub struct SharedCas(AtomicU32);

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
        Self(AtomicU32::new(TOTAL))
    }

    #[inline]
    fn try_take(&self) -> Option<CasCredit<'_>> {
        let take = self.0.fetch_update(Acquire, Relaxed, |free| free.checked_sub(1));
        take.is_ok().then(|| CasCredit(&self.0))
    }
}

/// Decremented first and incremented again if it was too much. May refuse while another thread is between the
/// two.
#[derive(Debug)]
pub struct SharedUndo(AtomicI64);

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
        Self(AtomicI64::new(TOTAL.into()))
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

/// Taken as from [`SharedCas`]; given back under the mutex that guards those who wait.
impl Pool for tokio::sync::Semaphore {
    type One<'a> = SemaphorePermit<'a>;

    fn new() -> Self {
        Self::new(TOTAL as usize)
    }

    #[inline]
    fn try_take(&self) -> Option<SemaphorePermit<'_>> {
        self.try_acquire().ok()
    }
}

/// Taken as from [`SharedCas`]; whoever gives back looks whether anybody waits.
impl Pool for async_lock::Semaphore {
    type One<'a> = SemaphoreGuard<'a>;

    fn new() -> Self {
        Self::new(TOTAL as usize)
    }

    #[inline]
    fn try_take(&self) -> Option<SemaphoreGuard<'_>> {
        self.try_acquire()
    }
}
