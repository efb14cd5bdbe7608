//! [`PerCpuRef`].

use crate::percpu::{CachePadded, Counter, PerCpu};
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use crate::sync::{fence, mo};

/// More than all references that can ever be out, and far from overflow in both directions.
const BIAS: u64 = 1 << 62;

/// What giving references back found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "whoever is told `Zero` is the only one who is, and has to release"]
pub enum Put {
    /// Others hold references, or may still get some.
    Held,
    /// The last reference is gone. Told exactly once; everything any holder did before its put is visible.
    Zero,
}

/// A reference count, per CPU until it is killed.
///
/// `get` and `put` are wait-free: one locked instruction on this CPU's own line (two after the kill, one of
/// them on a shared line). `kill` is wait-free as well and takes one instruction per possible CPU. The
/// count is only a count: it owns nothing, and a `put` too many is a bug that it can find in debug builds
/// but not prevent.
///
/// It starts with one reference, which belongs to whoever will call [`kill`](Self::kill).
///
/// # Costs
///
/// 128 bytes per possible CPU. For a few long-lived objects that everybody touches, not for millions of
/// small ones: there `Arc` is smaller, and as fast while one CPU uses it.
///
/// # Examples
///
/// ```
/// use ioctx::refcount::{PerCpuRef, Put};
/// let count = PerCpuRef::new();
/// assert!(count.try_get_live(1));
/// assert_eq!(count.put(1), Put::Held);
/// assert_eq!(count.kill(), Some(Put::Zero));
/// assert!(!count.try_get_live(1));
/// ```
#[derive(Debug)]
pub struct PerCpuRef {
    slots: PerCpu<Counter>,
    global: CachePadded<Global>,
}

#[derive(Debug)]
struct Global {
    /// What is not in the slots. Above `BIAS / 2` until the sum is in; the true count from then on.
    count: AtomicU64,
    /// Set by the first killer, before it closes the first slot.
    dead: AtomicBool,
}

impl Default for PerCpuRef {
    fn default() -> Self {
        Self::new()
    }
}

impl PerCpuRef {
    /// One reference, counted per CPU.
    pub fn new() -> Self {
        Self {
            slots: PerCpu::new(|_| Counter::new()),
            global: CachePadded::new(Global {
                count: AtomicU64::new(BIAS + 1),
                dead: AtomicBool::new(false),
            }),
        }
    }

    /// Takes `n` references. The caller holds one already, so the count cannot be zero.
    #[inline]
    pub fn get(&self, n: u32) {
        if self.slots.local().add(n).is_err() {
            // Relaxed: the caller's own reference keeps the count from zero; nothing is published.
            self.global.count.fetch_add(u64::from(n), Relaxed);
        }
    }

    /// Takes `n` references unless the count is zero. Succeeds on a dying count that somebody still holds.
    ///
    /// Lock-free after the kill.
    #[inline]
    pub fn try_get(&self, n: u32) -> bool {
        if self.slots.local().add(n).is_ok() {
            return true;
        }
        let add = |count: u64| (count != 0).then(|| count + u64::from(n));
        // Relaxed twice: as in `get`; whoever found zero sees no success after it, by the word's own order.
        self.global.count.fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    /// Takes `n` references unless the count was killed.
    ///
    /// # Staleness
    ///
    /// May succeed while a [`kill`](Self::kill) is under way; never after it returned. Success says that
    /// the count will not reach zero before these references are put, not that nobody has killed it since.
    #[inline]
    pub fn try_get_live(&self, n: u32) -> bool {
        self.slots.local().add(n).is_ok()
    }

    /// Gives `n` references back. Everything the caller did before is visible to whoever is told
    /// [`Put::Zero`].
    #[inline]
    pub fn put(&self, n: u32) -> Put {
        // SAFETY: `self` is borrowed for the whole call.
        unsafe { Self::put_raw(self, n) }
    }

    /// [`put`](Self::put) for a count that may be freed, by somebody else, as soon as these references are
    /// gone.
    ///
    /// Nothing of `*this` is touched after the references are given back, unless the result is
    /// [`Put::Zero`]: then the caller is the one who decides about the memory.
    ///
    /// # Safety
    ///
    /// 1. `this` is valid until the references are given back, which the references themselves may ensure.
    #[inline]
    pub unsafe fn put_raw(this: *const Self, n: u32) -> Put {
        // SAFETY: valid by 1. What is borrowed past this line is atomics only: the slot, until it took the
        // references back, and the global word, touched only if the slot did not.
        let (slot, count) = unsafe {
            let this = &*this;
            (this.slots.local(), &this.global.count)
        };
        if slot.sub(n).is_ok() {
            return Put::Held;
        }
        // Release: pairs with the fence in `found`, in whoever takes the last one.
        let before = count.fetch_sub(u64::from(n), mo!("refcount.count.put", Release));
        debug_assert!(before >= u64::from(n), "{n} references were put, only {before} were out");
        found(before == u64::from(n))
    }

    /// Ends the per-CPU life of the count and drops the reference it started with. `None` if somebody else
    /// killed it first.
    ///
    /// Once it has returned `Some`, no [`try_get_live`](Self::try_get_live) succeeds on any CPU, and the
    /// count is exact.
    pub fn kill(&self) -> Option<Put> {
        // Relaxed: chooses one killer and publishes nothing; the slots tell everybody else.
        if self.global.dead.swap(true, Relaxed) {
            return None;
        }
        // Sum first, add once: adding slot by slot could pass through zero.
        let sum: i64 = self.slots.iter().map(Counter::close).sum();
        let change = (sum as u64).wrapping_sub(BIAS + 1);
        // AcqRel. Release: hands on what `close` acquired from the slots. Acquire: if this finds zero, the
        // puts that went to the global word meanwhile are visible.
        let before = self.global.count.fetch_add(change, mo!("refcount.count.sum", AcqRel));
        let left = before.wrapping_add(change);
        debug_assert!(left < BIAS / 2, "more references were put than taken before the kill");
        Some(if left == 0 { Put::Zero } else { Put::Held })
    }

    /// Whether [`kill`](Self::kill) was called.
    ///
    /// # Staleness
    ///
    /// `true` stays true. `false` may be out of date.
    #[inline]
    pub fn is_dying(&self) -> bool {
        // Relaxed: a hint; the slots decide.
        self.global.dead.load(Relaxed)
    }

    /// How many references are out, if the count was killed; `None` while they are counted per CPU.
    ///
    /// # Staleness
    ///
    /// Zero stays zero. Any other number may be out of date.
    pub fn count(&self) -> Option<u64> {
        // Relaxed: a number to report; who needs to *act* on zero is told so by `put`.
        Some(self.global.count.load(Relaxed)).filter(|count| *count < BIAS / 2)
    }

    /// Whether the last reference is gone. Then everything that any holder did before its put is visible to
    /// the caller.
    ///
    /// # Staleness
    ///
    /// `true` stays true, but does not say that whoever found zero has finished releasing.
    #[inline]
    pub fn is_zero(&self) -> bool {
        // Acquire: pairs with every put, and with the killer's sum, as the fence in `found` does.
        self.global.count.load(mo!("refcount.count.is_zero", Acquire)) == 0
    }
}

/// Turns the outcome of the last decrement into the caller's duty.
#[inline]
fn found(zero: bool) -> Put {
    if !zero {
        return Put::Held;
    }
    // Acquire: pairs with the Release of every other put, and with the killer's sum.
    fence!("refcount.count.zero", Acquire);
    Put::Zero
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::{Arc, thread};

    #[test]
    fn counts_through_its_whole_life() {
        let count = PerCpuRef::new();
        count.get(3);
        assert!(count.try_get(1));
        assert_eq!(count.put(2), Put::Held);
        assert_eq!((count.count(), count.is_dying()), (None, false));
        assert_eq!(count.kill(), Some(Put::Held));
        assert_eq!((count.count(), count.is_dying()), (Some(2), true));
        assert!(!count.try_get_live(1));
        assert!(count.try_get(1));
        count.get(1);
        assert_eq!(count.kill(), None);
        assert_eq!(count.put(3), Put::Held);
        assert_eq!(count.put(1), Put::Zero);
        assert!(count.is_zero() && !count.try_get(1));
    }

    #[test]
    fn zero_is_found_once_under_load() {
        for round in 0..200 {
            let count = Arc::new(PerCpuRef::new());
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    count.get(1);
                    let count = Arc::clone(&count);
                    thread::spawn(move || {
                        let mut zeros = 0;
                        for _ in 0..round {
                            count.get(1);
                            zeros += u32::from(count.put(1) == Put::Zero);
                        }
                        zeros + u32::from(count.put(1) == Put::Zero)
                    })
                })
                .collect();
            let killed = u32::from(count.kill() == Some(Put::Zero));
            let zeros: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(zeros + killed, 1);
        }
    }
}
