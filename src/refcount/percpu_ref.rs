//! [`PerCpuRef`]: taking references and giving them back.

use super::policy::{Always, Moves, Policy, Stats, Watch};
use super::site::Site;
use super::slots::{Mode, Slots, WITH_SLOTS};
use super::word::{DEAD, ONE, PER_CPU, refs};
use super::{Builder, site};
use crate::cpu;
use crate::sync::atomic::{self, AtomicU64, Ordering::Relaxed};
use crate::sync::rseq::{self, GIVE_UP};
use crate::sync::{fence, mo};
use std::marker::PhantomData;

/// What giving references back found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "whoever is told `Zero` is the only one who is, and has to release"]
pub enum Put {
    /// Others hold references, or may still get some.
    Held,
    /// The last reference is gone. Told exactly once; everything any holder did before its put is visible.
    Zero,
}

/// A reference count, per CPU or in one word, that changes between the two while it is used.
///
/// `get` and `put` are wait-free: per CPU, one plain store on this CPU's own line, or one locked instruction
/// where the system has no restartable sequences (see [`cpu::kind`](crate::cpu::kind)); in one word, one
/// locked instruction on a shared line. But for a get or put that finds, by the policy [`Moves`] or
/// [`Gets`](super::Gets), that the count is to be per CPU: it calls the allocator. What changes the mode
/// ([`kill`](Self::kill) and the methods after it) is blocking. The count is only a count: it owns nothing, and
/// a `put` too many is a bug that debug builds find and nobody prevents.
///
/// It starts with one reference, which belongs to whoever will call [`kill`](Self::kill). The [`Policy`] `P`
/// says when it is per CPU: with [`Always`] from the start, with the others not before it is worth it
/// ([`DynamicRef`]), and in each case until it is killed or [told otherwise](Self::switch_to_atomic).
///
/// # Costs
///
/// 16 bytes, which every operation reads: keep what is written often off their cache line, for example by
/// [`CachePadded`](crate::percpu::CachePadded). While per CPU, 128 bytes per possible CPU besides. A kill takes
/// half a microsecond, 10 and more while other threads of the process run. So per CPU from the start is for a
/// few long-lived objects that everybody touches, not for millions of small ones.
///
/// In debug builds a count knows where it was made, and panics with that place when it is put too often,
/// killed twice, or dropped while references are out.
///
/// # Examples
///
/// ```
/// use ioctx::refcount::{PerCpuRef, Put};
/// let count = PerCpuRef::new();
/// assert!(count.try_get_live());
/// assert_eq!(count.put(), Put::Held);
/// assert_eq!(count.kill(), Put::Zero);
/// assert!(!count.try_get_live());
/// ```
#[repr(C)]
pub struct PerCpuRef<P: Policy = Always> {
    /// [`Mode`]. First, so that its address is that of the count, which callers have at hand.
    pub(super) mode: AtomicU64,
    /// What is not in slots, and the flags of [`word`](super::word).
    pub(super) word: AtomicU64,
    pub(super) site: Site,
    pub(super) policy: PhantomData<P>,
}

/// A count that is one word until it is really shared: as small as `Arc`'s while it is not, and per CPU from
/// some microseconds after two CPUs began to fight over it.
///
/// # Examples
///
/// ```
/// use ioctx::refcount::{DynamicRef, PerCpuRef, Put};
/// let count: DynamicRef = PerCpuRef::dynamic();
/// count.get();
/// assert!(!count.is_per_cpu());
/// assert_eq!((count.put(), count.kill()), (Put::Held, Put::Zero));
/// ```
pub type DynamicRef<P = Moves> = PerCpuRef<P>;

const _: () = assert!(cfg!(debug_assertions) || crate::sync::MODELLED || size_of::<DynamicRef>() == 16);

impl<P: Policy> Default for PerCpuRef<P> {
    #[track_caller]
    fn default() -> Self {
        PerCpuRef::builder().policy(P::default()).build()
    }
}

impl PerCpuRef {
    /// One reference, counted per CPU.
    #[track_caller]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// As [`new`](Self::new), without restartable sequences even where the system has them.
    #[track_caller]
    pub fn portable() -> Self {
        Self::builder().portable().build()
    }

    /// One reference, counted in one word until the count is shared.
    #[track_caller]
    pub fn dynamic() -> DynamicRef {
        Self::builder().policy(Moves).build()
    }

    /// Everything else about a new count.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl<P: Policy> PerCpuRef<P> {
    /// What a get of `n` adds to the word.
    #[inline(always)]
    const fn up(n: u32) -> u64 {
        refs(n).wrapping_add(P::TICK)
    }

    /// How many references `word` says are not in slots.
    #[inline(always)]
    pub(super) const fn count_in(word: u64) -> i64 {
        let above = if P::TICK == 0 { 0 } else { P::TICK.leading_zeros() + 1 };
        (word << above) as i64 >> (above + ONE.trailing_zeros())
    }

    /// Counts `n` up, or down, in this CPU's slot by a section.
    ///
    /// # Safety
    ///
    /// 1. `this` is valid until the section has committed or given up.
    #[inline(always)]
    unsafe fn section<const UP: bool>(this: *const Self, n: u32) -> bool {
        // SAFETY: valid by 1. Nothing is borrowed past the commit. For the section: 1. asked before the count was
        // made. 2. a mode word without `GIVE_UP` is the address of slots of possible CPUs, written by sections
        // only, and freed after a fence that follows the change of the word. 3. looked at. Relaxed: the section
        // reads it again.
        unsafe {
            let mode = &raw const (*this).mode;
            if !(rseq::ALWAYS_AN_AREA && P::STARTS_PER_CPU) && (*mode).load(Relaxed) & GIVE_UP != 0 {
                return false;
            }
            let slot = |mode, cpu| Slots::word(mode, cpu);
            match i64::from(n) * rseq::ONE {
                rseq::ONE => rseq::add_one::<UP>(mode, slot),
                step => rseq::add(mode, if UP { step } else { -step }, slot),
            }
        }
    }

    /// Takes a reference. The caller holds one already, so the count cannot be zero.
    #[inline(always)]
    pub fn get(&self) {
        self.get_many(1);
    }

    /// Takes `n` references. The caller holds one already.
    #[inline(always)]
    pub fn get_many(&self, n: u32) {
        // SAFETY: borrowed.
        if unsafe { Self::section::<true>(self, n) } {
            return;
        }
        if self.is_settled() {
            return self.get_in_word(n);
        }
        self.get_slow(n);
    }

    /// Whether the mode says that the word counts, and there is nothing to note about that.
    #[inline(always)]
    fn is_settled(&self) -> bool {
        if P::STARTS_PER_CPU {
            // Usually per CPU: in the word it counts out of line.
            return false;
        }
        // Relaxed: counting in the word is right in every mode.
        let mode = self.mode.load(Relaxed);
        match P::WATCH {
            Watch::Moves => Stats::is_of(mode, cpu::hint()),
            Watch::Gets | Watch::Nothing => mode & GIVE_UP != 0 && mode & WITH_SLOTS == 0,
        }
    }

    /// Takes `n` references in the word, which is right in every mode.
    #[inline(always)]
    fn get_in_word(&self, n: u32) {
        // Relaxed: the caller's own reference keeps the count from zero; nothing is published.
        let before = self.word.fetch_add(Self::up(n), Relaxed);
        if P::WATCH == Watch::Gets && (n > 1 || before.leading_ones() > P::TICK.leading_zeros()) {
            self.ticked(before);
        }
    }

    #[inline(never)]
    fn get_slow(&self, n: u32) {
        if !self.get_quickly(n) {
            self.get_slower(n);
        }
    }

    /// Where there are no sections: counts in this CPU's slot. Calls nothing, since every store before a locked
    /// instruction is a store that it waits for.
    #[inline(always)]
    fn get_quickly(&self, n: u32) -> bool {
        // Acquire: pairs with the opening of slots. What was done before is visible, first of all the slots.
        let mode = self.mode.load(mo!("refcount.mode.quick_get", Acquire));
        // SAFETY: read so, and borrowed.
        unsafe { Slots::quick(mode) }.is_some_and(|slot| slot.add(n).is_ok())
    }

    #[cold]
    fn get_slower(&self, n: u32) {
        self.note_move();
        if !self.get_in_slot(n) {
            self.get_in_word(n);
        }
    }

    /// Counts `n` up in this CPU's slot, if there are slots, where the fast path could not: by a locked
    /// instruction, or by another section if the thread is only now made known to the kernel.
    #[inline]
    fn get_in_slot(&self, n: u32) -> bool {
        // Acquire: pairs with the opening of slots. What was done before is visible, first of all the slots.
        match Mode::of(self.mode.load(mo!("refcount.mode.get", Acquire))) {
            // SAFETY: borrowed.
            Mode::Sections(_) => rseq::rejoin() && unsafe { Self::section::<true>(self, n) },
            // SAFETY: slots that were ever open stay until the count is dropped, and it is borrowed.
            Mode::Open(slots) => unsafe { slots.local() }.add(n).is_ok(),
            Mode::Closed(_) | Mode::Word(_) => false,
        }
    }

    /// Takes a reference unless the count is zero. Succeeds on a dying count that somebody still holds.
    ///
    /// Lock-free while in one word, wait-free while per CPU.
    #[inline]
    pub fn try_get(&self) -> bool {
        self.try_get_where(|word| word & PER_CPU != 0 || Self::count_in(word) != 0)
    }

    /// Takes a reference unless the count was killed.
    ///
    /// Lock-free while in one word, wait-free while per CPU.
    ///
    /// # Staleness
    ///
    /// May succeed while a [`kill`](Self::kill) is under way; never after it returned. Success says that the
    /// count will not reach zero before this reference is put, not that nobody has killed it since.
    #[inline(always)]
    pub fn try_get_live(&self) -> bool {
        self.try_get_where(|word| word & DEAD == 0)
    }

    /// Takes a reference per CPU, where that is never refused, or in the word if `may` agrees.
    #[inline(always)]
    fn try_get_where(&self, may: impl Fn(u64) -> bool) -> bool {
        // SAFETY: borrowed.
        if unsafe { Self::section::<true>(self, 1) } {
            return true;
        }
        self.try_get_slow(may)
    }

    #[inline(never)]
    fn try_get_slow(&self, may: impl Fn(u64) -> bool) -> bool {
        self.get_quickly(1) || self.try_get_slower(may)
    }

    #[inline(never)]
    fn try_get_slower(&self, may: impl Fn(u64) -> bool) -> bool {
        if self.get_in_slot(1) {
            return true;
        }
        let add = |word| may(word).then(|| word.wrapping_add(Self::up(1)));
        // Relaxed twice: as in `get_in_word`. Who found zero, or killed, sees no success after it, by the
        // word's own order.
        let Ok(before) = self.word.fetch_update(Relaxed, Relaxed, add) else { return false };
        // Only now: the reference keeps the count from being freed meanwhile.
        if P::WATCH == Watch::Gets && before.leading_ones() > P::TICK.leading_zeros() {
            self.ticked(before);
        }
        self.note_move();
        true
    }

    /// Gives a reference back. Everything the caller did before is visible to whoever is told [`Put::Zero`].
    #[inline(always)]
    #[track_caller]
    pub fn put(&self) -> Put {
        self.put_many(1)
    }

    /// Gives `n` references back. None is never the last.
    #[inline(always)]
    #[track_caller]
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
    #[track_caller]
    pub unsafe fn put_raw(this: *const Self, n: u32) -> Put {
        // SAFETY: valid by 1. Nothing is borrowed past the moment at which the references are given back.
        unsafe {
            if Self::section::<false>(this, n) {
                return Put::Held;
            }
            if (*this).is_settled() {
                return Self::put_in_word(this, n);
            }
            Self::put_slow(this, n)
        }
    }

    /// As [`get_slow`](Self::get_slow).
    ///
    /// # Safety
    ///
    /// As [`put_raw`](Self::put_raw).
    #[inline(never)]
    #[track_caller]
    unsafe fn put_slow(this: *const Self, n: u32) -> Put {
        // SAFETY: valid until the references are given back, read so, and not dropped before. Acquire: as in
        // `get_slow`.
        let slot = unsafe { Slots::quick((*this).mode.load(mo!("refcount.mode.quick_put", Acquire))) };
        if slot.is_some_and(|slot| slot.sub(n).is_ok()) {
            return Put::Held;
        }
        // SAFETY: handed on; the references are not given back yet.
        unsafe { Self::put_slower(this, n) }
    }

    /// # Safety
    ///
    /// As [`put_raw`](Self::put_raw).
    #[cold]
    #[track_caller]
    unsafe fn put_slower(this: *const Self, n: u32) -> Put {
        // SAFETY: valid until the references are given back. What is borrowed past this block is the slot,
        // an atomic, until it has taken the references.
        let slot = unsafe {
            let this = &*this;
            this.note_move();
            // Acquire: as in `get_in_slot`.
            match Mode::of(this.mode.load(mo!("refcount.mode.put", Acquire))) {
                Mode::Sections(_) if rseq::rejoin() && Self::section::<false>(this, n) => return Put::Held,
                Mode::Open(slots) => Some(slots.local()),
                _ => None,
            }
        };
        if slot.is_some_and(|slot| slot.sub(n).is_ok()) {
            return Put::Held;
        }
        // SAFETY: handed on; the references are not given back yet.
        unsafe { Self::put_in_word(this, n) }
    }

    /// Gives `n` references back in the word, which is right in every mode.
    ///
    /// # Safety
    ///
    /// As [`put_raw`](Self::put_raw).
    #[inline(always)]
    #[track_caller]
    pub(super) unsafe fn put_in_word(this: *const Self, n: u32) -> Put {
        // SAFETY: valid until the references are given back; the site is copied.
        let (word, site) = unsafe { (&(*this).word, (*this).site) };
        // Release: pairs with the fence below, in whoever puts the last one.
        let before = word.fetch_sub(refs(n), mo!("refcount.word.put", Release));
        if before & PER_CPU != 0 {
            return Put::Held;
        }
        site.check_put(Self::count_in(before) - i64::from(before & DEAD == 0), n);
        if n == 0 || Self::count_in(before) != i64::from(n) {
            return Put::Held;
        }
        // Acquire: pairs with the Release of every other put, and with the killer's sum.
        fence!("refcount.word.zero", Acquire, word);
        Put::Zero
    }

    /// Whether [`kill`](Self::kill) was called.
    ///
    /// # Staleness
    ///
    /// Out of date as soon as it is read, in both directions if the count may be revived.
    #[inline]
    pub fn is_dying(&self) -> bool {
        // Relaxed: a hint; the slots decide.
        self.word.load(Relaxed) & DEAD != 0
    }

    /// Whether references are counted per CPU.
    ///
    /// # Staleness
    ///
    /// Out of date as soon as it is read.
    #[inline]
    pub fn is_per_cpu(&self) -> bool {
        // Relaxed: a hint.
        self.word.load(Relaxed) & PER_CPU != 0
    }

    /// How many references are out, the initial one included; `None` while they are counted per CPU.
    ///
    /// # Staleness
    ///
    /// Zero stays zero unless the count is revived. Any other number may be out of date.
    pub fn count(&self) -> Option<u64> {
        // Relaxed: a number to report; who needs to *act* on zero is told so by `put`.
        let word = self.word.load(Relaxed);
        (word & PER_CPU == 0).then(|| Self::count_in(word) as u64)
    }

    /// Whether the last reference is gone. Then everything that any holder did before its put is visible to
    /// the caller.
    ///
    /// # Staleness
    ///
    /// `true` stays true unless the count is revived, but does not say that whoever found zero has finished
    /// releasing.
    #[inline]
    pub fn is_zero(&self) -> bool {
        // Acquire: pairs with every put, and with the killer's sum, as the fence in `put_in_word` does.
        let word = self.word.load(mo!("refcount.word.is_zero", Acquire));
        word & PER_CPU == 0 && Self::count_in(word) == 0
    }
}

impl<P: Policy> Drop for PerCpuRef<P> {
    fn drop(&mut self) {
        let mode = Mode::of(atomic::exclusive(&mut self.mode));
        let word = atomic::exclusive(&mut self.word);
        let in_slots = match mode {
            // SAFETY: ours alone, and freed below.
            Mode::Sections(slots) | Mode::Open(slots) => unsafe { slots.sum() },
            Mode::Closed(_) | Mode::Word(_) => 0,
        };
        if let Mode::Sections(slots) | Mode::Open(slots) | Mode::Closed(slots) = mode {
            // SAFETY: nobody but us has a way to them any more.
            unsafe { slots.free() };
        }
        let initial = u64::from(word & DEAD == 0);
        self.site.check_drop((Self::count_in(word) + in_slots) as u64, initial);
    }
}

impl<P: Policy> std::fmt::Debug for PerCpuRef<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PerCpuRef")
            .field("count", &self.count())
            .field("dying", &self.is_dying())
            .field("made", &site::shown(self.site))
            .finish()
    }
}
