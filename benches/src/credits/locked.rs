//! A count or a stack behind a mutex.

use super::{Pool, TOTAL, TagPool};
use std::sync::PoisonError;

/// A mutex, whoever made it.
pub trait Lock<T>: Send + Sync {
    /// Around `value`.
    fn new(value: T) -> Self;

    /// What `change` makes of the value, which nobody else sees meanwhile.
    fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R;
}

impl<T: Send> Lock<T> for std::sync::Mutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    #[inline]
    fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        // Poisoned or not, the value is whole.
        change(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T: Send> Lock<T> for parking_lot::Mutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    #[inline]
    fn with<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.lock())
    }
}

/// How many are free.
#[derive(Debug)]
pub struct Locked<M>(M);

/// A credit of [`Locked`].
#[derive(Debug)]
pub struct LockedCredit<'a, M: Lock<u32>>(&'a M);

impl<M: Lock<u32>> Drop for LockedCredit<'_, M> {
    #[inline]
    fn drop(&mut self) {
        self.0.with(|free| *free += 1);
    }
}

impl<M: Lock<u32>> Pool for Locked<M> {
    type One<'a>
        = LockedCredit<'a, M>
    where
        M: 'a;

    fn new() -> Self {
        Self(M::new(TOTAL))
    }

    #[inline]
    fn try_take(&self) -> Option<LockedCredit<'_, M>> {
        self.0.with(|free| {
            *free = free.checked_sub(1)?;
            Some(LockedCredit(&self.0))
        })
    }
}

/// The tags that are free, the last one given back on top.
#[derive(Debug)]
pub struct LockedStack<M>(M);

/// A tag of [`LockedStack`].
#[derive(Debug)]
pub struct StackTag<'a, M: Lock<Vec<u32>>>(&'a M, u32);

impl<M: Lock<Vec<u32>>> Drop for StackTag<'_, M> {
    #[inline]
    fn drop(&mut self) {
        self.0.with(|free| free.push(self.1));
    }
}

impl<M: Lock<Vec<u32>>> Pool for LockedStack<M> {
    type One<'a>
        = StackTag<'a, M>
    where
        M: 'a;

    fn new() -> Self {
        Self(M::new((0..TOTAL).collect()))
    }

    #[inline]
    fn try_take(&self) -> Option<StackTag<'_, M>> {
        self.0.with(|free| free.pop()).map(|tag| StackTag(&self.0, tag))
    }
}

impl<M: Lock<Vec<u32>>> TagPool for LockedStack<M> {
    fn index(tag: &StackTag<'_, M>) -> usize {
        tag.1 as usize
    }
}
