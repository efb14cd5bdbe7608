//! [`Withdrawn`]: which tags there are not, but could be.

use crate::sync::{Mutex, MutexGuard};
use std::ops::Range;

/// Tags that are neither free nor handed out, because a smaller size does not have them.
#[derive(Debug)]
pub(super) struct Withdrawn(Mutex<Bits>);

/// A bit for each.
#[derive(Debug)]
pub(super) struct Bits(Vec<u64>);

impl Withdrawn {
    pub(super) fn new(tags: Range<u32>) -> Self {
        let mut bits = Bits(vec![0; tags.end.div_ceil(64) as usize]);
        tags.for_each(|tag| _ = bits.insert(tag));
        Self(Mutex::new(bits))
    }

    /// Whoever resizes keeps the lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, Bits> {
        self.0.lock()
    }
}

impl Bits {
    /// Returns whether it was not there.
    pub(super) fn insert(&mut self, tag: u32) -> bool {
        let (word, bit) = (&mut self.0[tag as usize / 64], 1 << (tag % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Returns whether it was there.
    pub(super) fn remove(&mut self, tag: u32) -> bool {
        let (word, bit) = (&mut self.0[tag as usize / 64], 1 << (tag % 64));
        let old = *word & bit != 0;
        *word &= !bit;
        old
    }
}
