//! One padded slot per possible CPU.
//!
//! A thread works on the slot of the CPU it happens to run on. Since it may be moved at any
//! instruction, a slot is *mostly* touched by one CPU, never only by one: every operation on a slot is
//! atomic, it is merely seldom contended. [`Counter`] can be *closed*, which turns later operations away and
//! hands what it held to the closer, all in one instruction. That is how per-CPU state becomes global state
//! without waiting for anybody.
//!
//! # Orderings
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `percpu.counter.add` | `Acquire` | `percpu.counter.open` | who counts up in an opened counter comes after whatever the opener did before |
//! | `percpu.counter.sub` | `Release` | `percpu.counter.close` | what the holder did before giving back is visible to the closer |
//! | `percpu.counter.close` | `Acquire` | `percpu.counter.sub` | as above |
//! | `percpu.counter.open` | `Release` | `percpu.counter.add` | as above |
//!
//! That an operation is counted exactly once needs no ordering: it is before or after the closing `swap` in the
//! order of the slot itself.

mod counter;
mod padded;

pub use counter::{Closed, Counter};
pub use padded::CachePadded;

use crate::cpu::{self, CpuId};
use std::ptr::NonNull;

/// With [`GIVE_UP`](crate::sync::rseq::GIVE_UP) in a mode word: slots are changed by locked instructions, and are at
/// the address in the bits of [`ADDRESS`].
pub(crate) const OPEN: u64 = 1 << 1;
/// The bits of a mode word that may be the address of slots.
pub(crate) const ADDRESS: u64 = !(align_of::<CachePadded<u8>>() as u64 - 1);

/// One `T` per possible CPU, each on cache lines of its own.
///
/// Wait-free. Says nothing about who else uses a slot: `T` must be safe to share.
///
/// # Costs
///
/// 128 bytes per possible CPU (more for a larger `T`), allocated once. Not for small objects in large
/// numbers.
///
/// # Examples
///
/// ```
/// use ioctx::percpu::{Counter, PerCpu};
/// let hits = PerCpu::new(|_| Counter::new());
/// hits.local().add(1).unwrap();
/// let total: i64 = hits.iter().map(Counter::close).sum();
/// assert_eq!(total, 1);
/// ```
#[derive(Debug)]
pub struct PerCpu<T>(Box<[CachePadded<T>]>);

impl<T> PerCpu<T> {
    /// A slot for each of [`cpu::possible`] CPUs.
    pub fn new(init: impl FnMut(CpuId) -> T) -> Self {
        Self::with_slots(cpu::possible(), init)
    }

    /// `slots` slots (at least one); CPUs beyond share them round robin.
    pub fn with_slots(slots: u32, init: impl FnMut(CpuId) -> T) -> Self {
        Self((0..slots.max(1)).map(CpuId).map(init).map(CachePadded::new).collect())
    }

    /// The slot of the CPU this thread runs on.
    ///
    /// # Staleness
    ///
    /// The thread may be elsewhere by the time the slot is used. See [`cpu::hint`].
    #[inline]
    pub fn local(&self) -> &T {
        self.get(cpu::hint())
    }

    /// The slot of `cpu`. Never fails: numbers past the end wrap round.
    #[inline]
    pub fn get(&self, cpu: CpuId) -> &T {
        let index = cpu.0 as usize;
        match self.0.get(index) {
            Some(slot) => slot,
            None => &self.0[index % self.0.len()],
        }
    }

    /// [`new`](Self::new) that does not end the program if there is no memory.
    pub(crate) fn try_new(init: impl FnMut(CpuId) -> T) -> Option<Self> {
        let cpus = cpu::possible();
        let mut slots = Vec::new();
        slots.try_reserve_exact(cpus as usize).ok()?;
        slots.extend((0..cpus).map(CpuId).map(init).map(CachePadded::new));
        Some(Self(slots.into_boxed_slice()))
    }

    /// The address of the first slot; the others follow, `size_of::<CachePadded<T>>()` bytes apart.
    pub(crate) fn first(&self) -> *const CachePadded<T> {
        self.0.as_ptr()
    }

    /// Gives the slots away, as the address of the first one; the others follow, `size_of::<CachePadded<T>>()`
    /// bytes apart.
    pub(crate) fn into_first(self) -> NonNull<CachePadded<T>> {
        NonNull::from(Box::leak(self.0)).cast()
    }

    /// Takes `slots` of them back.
    ///
    /// # Safety
    ///
    /// 1. `first` is what [`into_first`](Self::into_first) gave, of as many slots, and nobody uses them any more.
    pub(crate) unsafe fn from_first(first: NonNull<CachePadded<T>>, slots: u32) -> Self {
        // SAFETY: 1.; the slice is the one that was leaked.
        Self(unsafe { Box::from_raw(NonNull::slice_from_raw_parts(first, slots as usize).as_ptr()) })
    }

    /// How many slots there are.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "there is always a slot")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Every slot, by the number of its CPU.
    #[inline]
    pub(crate) fn all(&self) -> &[CachePadded<T>] {
        &self.0
    }

    /// Every slot, in order of CPU.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|slot| &**slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_stand_on_lines_of_their_own() {
        let slots = PerCpu::with_slots(3, |cpu| cpu.0);
        assert_eq!(slots.iter().copied().collect::<Vec<_>>(), [0, 1, 2]);
        let at = |cpu| std::ptr::from_ref(slots.get(CpuId(cpu))) as usize;
        assert!(at(1) - at(0) >= 128 && at(0) % 128 == 0);
    }

    #[test]
    fn cpus_past_the_end_wrap_round() {
        let slots = PerCpu::with_slots(2, |cpu| cpu.0);
        assert_eq!(*slots.get(CpuId(5)), 1);
        assert_eq!(*PerCpu::with_slots(0, |cpu| cpu.0).get(CpuId(u32::MAX)), 0);
    }
}
