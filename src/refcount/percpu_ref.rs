//! [`PerCpuRef`].

use crate::cpu::CpuId;
use crate::percpu::{CachePadded, Counter, PerCpu};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use crate::sync::rseq::{self, GIVE_UP, ONE};
use crate::sync::{fence, mo, section_fence};
use std::mem::offset_of;

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
/// `get` and `put` are wait-free: one plain store on this CPU's own line, or one locked instruction where
/// the system has no restartable sequences (see [`cpu::kind`](crate::cpu::kind)); after the kill, one
/// locked instruction on a shared line. `kill` blocks for a system call in the former case. The count is
/// only a count: it owns nothing, and a `put` too many is a bug that it can find in debug builds but not
/// prevent.
///
/// It starts with one reference, which belongs to whoever will call [`kill`](Self::kill).
///
/// # Costs
///
/// 128 bytes per possible CPU. A kill takes a microsecond, 10 and more while other threads of the process
/// run. For a few long-lived objects that everybody touches, not for millions of small ones: there `Arc` is
/// smaller, and nearly as fast while one CPU uses it.
///
/// # Examples
///
/// ```
/// use ioctx::refcount::{PerCpuRef, Put};
/// let count = PerCpuRef::new();
/// assert!(count.try_get_live());
/// assert_eq!(count.put(), Put::Held);
/// assert_eq!(count.kill(), Some(Put::Zero));
/// assert!(!count.try_get_live());
/// ```
#[derive(Debug)]
#[repr(C)]
pub struct PerCpuRef {
    /// For sections: the address of the slots, with `GIVE_UP` once killed. First, so that its address is that of
    /// the count, which callers have at hand.
    mode: AtomicUsize,
    /// Whether the slots are counted in by sections, and by nothing else. On the line that every get and put reads
    /// anyhow, and that only the killer writes.
    sections: bool,
    slots: PerCpu<Counter>,
    global: CachePadded<Global>,
}

#[derive(Debug)]
struct Global {
    /// What is not in the slots, right at any time. Above `BIAS / 2` until the sum is in; the true count
    /// from then on.
    count: AtomicU64,
    /// Set by the first killer, before it closes the first slot.
    dead: AtomicBool,
}

const _: () = assert!(size_of::<CachePadded<Counter>>() == 128, "the distance that sections know");
const _: () = assert!(offset_of!(PerCpuRef, sections) < 128 && offset_of!(PerCpuRef, global) == 128);

impl Default for PerCpuRef {
    fn default() -> Self {
        Self::new()
    }
}

impl PerCpuRef {
    /// One reference, counted per CPU.
    pub fn new() -> Self {
        Self::with_sections(!matches!(rseq::kind(), rseq::Kind::Portable(_)))
    }

    /// As [`new`](Self::new), without restartable sequences even where the system has them.
    pub fn portable() -> Self {
        Self::with_sections(false)
    }

    fn with_sections(sections: bool) -> Self {
        let slots = PerCpu::new(|_| Counter::new());
        Self {
            mode: AtomicUsize::new(slots.base().expose_provenance()),
            slots,
            global: CachePadded::new(Global {
                count: AtomicU64::new(BIAS + 1),
                dead: AtomicBool::new(false),
            }),
            sections,
        }
    }

    /// Counts `n` up, or down, in this CPU's slot by a section.
    ///
    /// # Safety
    ///
    /// 1. `this` is valid until the section has committed or given up.
    #[inline(always)]
    unsafe fn section<const UP: bool>(this: *const Self, n: u32) -> bool {
        // SAFETY: valid by 1. Nothing is borrowed past the commit. For the section: 1. asked in the
        // constructor, whose answer `sections` is. 2. the slots of possible CPUs, 128 bytes apart, written
        // by sections only.
        unsafe {
            if !(*this).sections {
                return false;
            }
            let mode = &raw const (*this).mode;
            let slots = &raw const (*this).slots;
            let slot = |cpu| (*slots).get(CpuId(cpu)).word();
            match i64::from(n) * ONE {
                ONE => rseq::add_one::<UP>(mode, slot),
                step => rseq::add(mode, if UP { step } else { -step }, slot),
            }
        }
    }

    /// Counts `n` up by a section.
    #[inline(always)]
    fn count_up(&self, n: u32) -> bool {
        // SAFETY: borrowed.
        unsafe { Self::section::<true>(self, n) }
    }

    /// Takes a reference. The caller holds one already, so the count cannot be zero.
    #[inline(always)]
    pub fn get(&self) {
        self.get_many(1);
    }

    /// Takes `n` references. The caller holds one already.
    #[inline(always)]
    pub fn get_many(&self, n: u32) {
        if !self.count_up(n) {
            self.get_slow(n);
        }
    }

    /// Takes a reference unless the count is zero. Succeeds on a dying count that somebody still holds.
    ///
    /// Lock-free after the kill.
    #[inline]
    pub fn try_get(&self) -> bool {
        self.count_up(1) || self.local_get(1) || self.global_get(|count| count != 0)
    }

    /// Takes a reference unless the count was killed.
    ///
    /// # Staleness
    ///
    /// May succeed while a [`kill`](Self::kill) is under way; never after it returned. Success says that the
    /// count will not reach zero before this reference is put, not that nobody has killed it since.
    #[inline(always)]
    pub fn try_get_live(&self) -> bool {
        self.count_up(1) || self.try_get_live_slow()
    }

    #[inline(never)]
    fn get_slow(&self, n: u32) {
        if !self.local_get(n) {
            // Relaxed: the caller's own reference keeps the count from zero; nothing is published.
            self.global.count.fetch_add(u64::from(n), Relaxed);
        }
    }

    #[inline(never)]
    fn try_get_live_slow(&self) -> bool {
        self.local_get(1)
            // Only while the bias is in: taking it out is the last that a kill does.
            || (self.sections && self.global_get(|count| count > BIAS / 2))
    }

    /// Counts up in this CPU's slot where a section could not: by a locked instruction, or by another section
    /// if the thread is only now made known to the kernel.
    #[inline]
    fn local_get(&self, n: u32) -> bool {
        if self.sections { rseq::rejoin() && self.count_up(n) } else { self.slots.local().add(n).is_ok() }
    }

    /// Takes a reference in the global word, if `may` agrees with what is there.
    #[cold]
    fn global_get(&self, may: impl Fn(u64) -> bool) -> bool {
        let add = |count| may(count).then(|| count + 1);
        // Relaxed twice: as in `get_many`; whoever found zero, or took the bias out, sees no success after
        // it, by the word's own order.
        self.global.count.fetch_update(Relaxed, Relaxed, add).is_ok()
    }

    /// Gives a reference back. Everything the caller did before is visible to whoever is told [`Put::Zero`].
    #[inline(always)]
    pub fn put(&self) -> Put {
        self.put_many(1)
    }

    /// Gives `n` references back.
    #[inline(always)]
    pub fn put_many(&self, n: u32) -> Put {
        // SAFETY: `self` is borrowed for the whole call.
        unsafe { Self::put_raw(self, n) }
    }

    /// [`put_many`](Self::put_many) for a count that may be freed, by somebody else, as soon as these
    /// references are gone.
    ///
    /// Nothing of `*this` is touched after the references are given back, unless the result is
    /// [`Put::Zero`]: then the caller is the one who decides about the memory.
    ///
    /// # Safety
    ///
    /// 1. `this` is valid until the references are given back, which the references themselves may ensure.
    #[inline(always)]
    pub unsafe fn put_raw(this: *const Self, n: u32) -> Put {
        // SAFETY: valid by 1.
        if unsafe { Self::section::<false>(this, n) } {
            return Put::Held;
        }
        // SAFETY: handed on; the references are not given back yet.
        unsafe { Self::put_slow(this, n) }
    }

    /// # Safety
    ///
    /// As [`put_raw`](Self::put_raw).
    #[inline(never)]
    unsafe fn put_slow(this: *const Self, n: u32) -> Put {
        // SAFETY: valid until the references are given back. What is borrowed past this block is atomics
        // only: the slot until it has taken the references, and the global word if nothing else did.
        let (slot, count) = unsafe {
            if (*this).sections && rseq::rejoin() && Self::section::<false>(this, n) {
                return Put::Held;
            }
            let this = &*this;
            ((!this.sections).then(|| this.slots.local()), &this.global.count)
        };
        if slot.is_some_and(|slot| slot.sub(n).is_ok()) {
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
    ///
    /// # Panics
    ///
    /// If the kernel granted membarrier to the process and a filter installed later takes it away: going on
    /// would be unsound.
    pub fn kill(&self) -> Option<Put> {
        if !self.begin_kill() {
            return None;
        }
        if self.sections {
            Self::fence_sections();
        }
        Some(self.finish_kill())
    }

    /// [`kill`](Self::kill) for many counts, which share what costs most: one fence for all. Tells `found`,
    /// with the place in the list, what each kill found, as `kill` would.
    ///
    /// # Panics
    ///
    /// As [`kill`](Self::kill). If `counts` or `found` panics, counts that were begun with and not told of
    /// are dying and never found zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::refcount::{PerCpuRef, Put};
    /// let counts = [PerCpuRef::new(), PerCpuRef::new()];
    /// counts[1].get();
    /// let mut found = Vec::new();
    /// PerCpuRef::kill_all(&counts, |_, put| found.push(put));
    /// assert_eq!(found, [Some(Put::Zero), Some(Put::Held)]);
    /// ```
    pub fn kill_all<'a>(
        counts: impl IntoIterator<Item = &'a Self>,
        mut found: impl FnMut(usize, Option<Put>),
    ) {
        let begun: Vec<_> = counts.into_iter().map(|count| (count, count.begin_kill())).collect();
        if begun.iter().any(|(count, mine)| *mine && count.sections) {
            Self::fence_sections();
        }
        for (place, (count, mine)) in begun.into_iter().enumerate() {
            found(place, mine.then(|| count.finish_kill()));
        }
    }

    /// Marks the count as dying and makes sections give up; returns whether this call was the first.
    fn begin_kill(&self) -> bool {
        // Relaxed: chooses one killer and publishes nothing; the slots tell everybody else.
        if self.global.dead.swap(true, Relaxed) {
            return false;
        }
        if self.sections {
            // Relaxed: the fence orders it before every section that begins, or begins again, after it.
            self.mode.fetch_or(GIVE_UP, Relaxed);
        }
        true
    }

    /// Between the marking of counts and the summing of their slots.
    ///
    /// * A section that saw the mode word before it was marked has committed before the fence returns, or
    ///   is restarted by it and gives up. What it counted, and everything its thread did before, is ordered
    ///   before what follows.
    /// * One that comes later sees the mark.
    fn fence_sections() {
        // SeqCst, for every thread of the process: pairs with every section.
        section_fence!("refcount.mode.fence", SeqCst);
    }

    /// Brings the slots' sum into the global word, and takes the bias and the initial reference out.
    fn finish_kill(&self) -> Put {
        // Sum first, add once: adding slot by slot could pass through zero.
        let sum: i64 = if self.sections {
            self.slots.iter().map(Counter::value).sum()
        } else {
            self.slots.iter().map(Counter::close).sum()
        };
        let change = (sum as u64).wrapping_sub(BIAS + 1);
        // AcqRel. Release: hands on what `close` acquired from the slots. Acquire: if this finds zero, the
        // puts that went to the global word meanwhile are visible.
        let before = self.global.count.fetch_add(change, mo!("refcount.count.sum", AcqRel));
        let left = before.wrapping_add(change);
        debug_assert!(left < BIAS / 2, "more references were put than taken before the kill");
        if left == 0 { Put::Zero } else { Put::Held }
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
        [PerCpuRef::new(), PerCpuRef::portable()].iter().for_each(live);
    }

    #[test]
    fn many_are_killed_behind_one_fence() {
        let counts: Vec<_> =
            (0..100).map(|i| if i % 3 == 0 { PerCpuRef::portable() } else { PerCpuRef::new() }).collect();
        counts.iter().step_by(2).for_each(PerCpuRef::get);
        assert_eq!(counts[7].kill(), Some(Put::Zero));
        let mut found = Vec::new();
        PerCpuRef::kill_all(&counts, |place, put| found.push((place, put)));
        let want = |i| match i {
            7 => None,
            i if i % 2 == 0 => Some(Put::Held),
            _ => Some(Put::Zero),
        };
        assert_eq!(found, (0..100).map(|i| (i, want(i))).collect::<Vec<_>>());
        assert!(counts.iter().all(|count| !count.try_get_live()));
        assert!(counts.iter().step_by(2).all(|count| count.put() == Put::Zero));
    }

    fn live(count: &PerCpuRef) {
        count.get_many(3);
        assert!(count.try_get());
        assert_eq!(count.put_many(2), Put::Held);
        assert_eq!((count.count(), count.is_dying()), (None, false));
        assert_eq!(count.kill(), Some(Put::Held));
        assert_eq!((count.count(), count.is_dying()), (Some(2), true));
        assert!(!count.try_get_live());
        assert!(count.try_get());
        count.get();
        assert_eq!(count.kill(), None);
        assert_eq!(count.put_many(3), Put::Held);
        assert_eq!(count.put(), Put::Zero);
        assert!(count.is_zero() && !count.try_get());
    }

    #[test]
    fn zero_is_found_once_under_load() {
        for round in 0..200 {
            let count = Arc::new(if round % 2 == 0 { PerCpuRef::new() } else { PerCpuRef::portable() });
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    count.get();
                    let count = Arc::clone(&count);
                    thread::spawn(move || {
                        let mut zeros = 0;
                        for _ in 0..round {
                            count.get();
                            zeros += u32::from(count.put() == Put::Zero);
                        }
                        zeros + u32::from(count.put() == Put::Zero)
                    })
                })
                .collect();
            let killed = u32::from(count.kill() == Some(Put::Zero));
            let zeros: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            assert_eq!(zeros + killed, 1);
        }
    }
}
