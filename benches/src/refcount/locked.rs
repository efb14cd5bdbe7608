//! Locks that readers share. A reader keeps writers out as long as it looks, which a count does not.

use super::Count;
use crossbeam_utils::sync::{ShardedLock, ShardedLockReadGuard};
use std::sync::{RwLock, RwLockReadGuard};

impl Count for parking_lot::RwLock<()> {
    type Ref<'a> = parking_lot::RwLockReadGuard<'a, ()>;

    #[inline]
    fn get(&self) -> Self::Ref<'_> {
        self.read()
    }

    fn held(&self) -> u64 {
        u64::from(self.try_write().is_none())
    }
}

impl Count for RwLock<()> {
    type Ref<'a> = RwLockReadGuard<'a, ()>;

    #[inline]
    fn get(&self) -> Self::Ref<'_> {
        self.read().expect("nobody panics while holding it")
    }

    fn held(&self) -> u64 {
        u64::from(self.try_write().is_err())
    }
}

/// Eight locks, of which a thread reads through its own; whoever writes takes all.
impl Count for ShardedLock<()> {
    type Ref<'a> = ShardedLockReadGuard<'a, ()>;

    #[inline]
    fn get(&self) -> Self::Ref<'_> {
        self.read().expect("nobody panics while holding it")
    }

    fn held(&self) -> u64 {
        u64::from(self.try_write().is_err())
    }
}
