//! The slots of a count, and the mode word that leads to them.

use super::policy::Stats;
use crate::cpu::CpuId;
use crate::percpu::{ADDRESS, CachePadded, Counter, OPEN, PerCpu};
use crate::sync::atomic::{self, AtomicU64, Ordering::Relaxed};
use crate::sync::cpu;
use crate::sync::rseq::GIVE_UP;
use std::ptr::{NonNull, with_exposed_provenance_mut};

/// As [`OPEN`], but closed: the word counts.
const CLOSED: u64 = 1 << 2;
/// The bits of a mode word that has an address beside [`GIVE_UP`].
pub(super) const WITH_SLOTS: u64 = OPEN | CLOSED;

/// One CPU's share of a count.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Slot {
    pub(super) counter: Counter,
    /// Of CPU 0: [`Stats`], while the slots are closed.
    stats: AtomicU64,
    /// Of CPU 0: [`Note`].
    note: AtomicU64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Models check here that nobody is there any more.
        atomic::exclusive(self.counter.word_mut());
        atomic::exclusive(&mut self.stats);
        atomic::exclusive(&mut self.note);
    }
}

const _: () = assert!(crate::sync::MODELLED || size_of::<CachePadded<Slot>>() == 128, "as sections know");
const _: () = assert!(align_of::<CachePadded<Slot>>() == 128, "the flags of a mode word need room");

impl Slot {
    fn new() -> Self {
        Self { counter: Counter::new(), stats: AtomicU64::new(Stats::new(0).0), note: AtomicU64::new(0) }
    }
}

/// What whoever changes the mode leaves for the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    /// How many [`rest`](super::PerCpuRef::rest)s there are still to be before one goes back to the word.
    pub(super) rests: u32,
    /// The power of two that they began with.
    pub(super) patience: u32,
}

impl Note {
    /// Of a count that was told to be per CPU.
    pub(super) const FOR_EVER: Self = Self { rests: u32::MAX, patience: 0 };
}

/// As many slots as there are possible CPUs, by the address of the first one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots(NonNull<CachePadded<Slot>>);

impl Slots {
    /// Open, at zero.
    pub(super) fn new() -> Self {
        Self(PerCpu::new(|_| Slot::new()).into_first())
    }

    /// The same, unless there is no memory.
    pub(super) fn try_new() -> Option<Self> {
        Some(Self(PerCpu::try_new(|_| Slot::new())?.into_first()))
    }

    /// The slots that a mode word leads to, in the bits of [`ADDRESS`].
    #[inline(always)]
    fn of(mode: u64) -> Self {
        let slot = with_exposed_provenance_mut((mode & ADDRESS) as usize);
        debug_assert!(!<*mut _>::is_null(slot));
        // SAFETY: of slots, and therefore not null.
        Self(unsafe { NonNull::new_unchecked(slot) })
    }

    fn address(self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }

    /// The word of `cpu`'s slot, as a section finds it.
    ///
    /// # Safety
    ///
    /// 1. `mode` is the address of slots that are not freed while the result is used.
    /// 2. `cpu` is possible.
    #[inline(always)]
    pub(super) unsafe fn word<'a>(mode: u64, cpu: u32) -> &'a AtomicU64 {
        // SAFETY: handed on; and `cpu` is below the number of slots.
        unsafe { Self::of(mode).get(cpu) }.counter.word()
    }

    /// The slot of the calling thread's CPU, if slots are open for locked instructions and the CPU is to be had
    /// without a call.
    ///
    /// # Safety
    ///
    /// 1. `mode` was read with Acquire from a count that is not dropped while the result is used.
    #[inline(always)]
    pub(super) unsafe fn quick<'a>(mode: u64) -> Option<&'a Counter> {
        if mode & (GIVE_UP | WITH_SLOTS) != GIVE_UP | OPEN {
            return None;
        }
        // SAFETY: slots for locked instructions stay until the count is dropped; the CPU is possible.
        cpu::quick().map(|cpu| &unsafe { Self::of(mode).get(cpu) }.counter)
    }

    /// # Safety
    ///
    /// 1. The slots are not freed while the result is used.
    /// 2. `cpu` is below the number of slots.
    #[inline(always)]
    unsafe fn get<'a>(self, cpu: u32) -> &'a Slot {
        // SAFETY: valid by 1., in bounds by 2.
        unsafe { self.0.add(cpu as usize).as_ref() }
    }

    /// The slot of the calling thread's CPU.
    ///
    /// # Safety
    ///
    /// 1. The slots are not freed while the result is used.
    #[inline]
    pub(super) unsafe fn local<'a>(self) -> &'a Counter {
        let CpuId(cpu) = crate::cpu::hint();
        let slots = cpu::possible();
        // SAFETY: handed on; numbers past the end wrap round.
        &unsafe { self.get(if cpu < slots { cpu } else { cpu % slots }) }.counter
    }

    /// All of them.
    ///
    /// # Safety
    ///
    /// 1. The slots are not freed while the result is used.
    unsafe fn iter<'a>(self) -> impl Iterator<Item = &'a Slot> {
        // SAFETY: handed on.
        (0..cpu::possible()).map(move |cpu| unsafe { self.get(cpu) })
    }

    /// What sections counted in all of them.
    ///
    /// # Safety
    ///
    /// 1. The slots are not freed before this returns.
    pub(super) unsafe fn sum(self) -> i64 {
        // SAFETY: handed on.
        unsafe { self.iter() }.map(|slot| slot.counter.value()).sum()
    }

    /// What locked instructions counted in all of them, and no more from now on.
    ///
    /// # Safety
    ///
    /// 1. The slots are not freed before this returns, and are open.
    pub(super) unsafe fn close(self) -> i64 {
        // SAFETY: handed on.
        unsafe { self.iter() }.map(|slot| slot.counter.close()).sum()
    }

    /// Opens closed slots, at zero.
    ///
    /// # Safety
    ///
    /// 1. The slots are not freed before this returns.
    pub(super) unsafe fn open(self) {
        // SAFETY: handed on.
        unsafe { self.iter() }.for_each(|slot| slot.counter.open());
    }

    /// The note of whoever changes the mode.
    ///
    /// # Safety
    ///
    /// 1. The slots are not freed before this returns.
    pub(super) unsafe fn note(self) -> Note {
        // SAFETY: handed on. Relaxed: changed only by whoever changes the mode, one after the other.
        let note = unsafe { self.get(0) }.note.load(Relaxed);
        Note { rests: (note >> 32) as u32, patience: note as u32 }
    }

    /// Replaces the note.
    ///
    /// # Safety
    ///
    /// 1. The slots are not freed before this returns.
    pub(super) unsafe fn set_note(self, note: Note) {
        let note = u64::from(note.rests) << 32 | u64::from(note.patience);
        // SAFETY: handed on. Relaxed: as above.
        unsafe { self.get(0) }.note.store(note, Relaxed);
    }

    /// What a count in one word remembers, if it keeps closed slots.
    ///
    /// # Safety
    ///
    /// 1. The slots are not freed while the result is used.
    pub(super) unsafe fn statistics<'a>(self) -> &'a AtomicU64 {
        // SAFETY: handed on.
        &unsafe { self.get(0) }.stats
    }

    /// Gives the memory back.
    ///
    /// # Safety
    ///
    /// 1. Nobody uses the slots any more.
    pub(super) unsafe fn free(self) {
        // SAFETY: handed on; made by `new` or `try_new`.
        drop(unsafe { PerCpu::from_first(self.0, cpu::possible()) });
    }
}

/// What a mode word says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    /// Sections count in slots.
    Sections(Slots),
    /// Locked instructions count in slots.
    Open(Slots),
    /// The word counts; these slots are closed. They stay, because somebody who found them open may come
    /// late.
    Closed(Slots),
    /// The word counts, and there are no slots.
    Word(Stats),
}

impl Mode {
    #[inline]
    pub(super) fn of(word: u64) -> Self {
        if word & GIVE_UP == 0 {
            return Self::Sections(Slots::of(word));
        }
        match word & WITH_SLOTS {
            OPEN => Self::Open(Slots::of(word)),
            CLOSED => Self::Closed(Slots::of(word)),
            _ => Self::Word(Stats(word)),
        }
    }

    pub(super) fn word(self) -> u64 {
        match self {
            Self::Sections(slots) => slots.address(),
            Self::Open(slots) => slots.address() | GIVE_UP | OPEN,
            Self::Closed(slots) => slots.address() | GIVE_UP | CLOSED,
            Self::Word(stats) => stats.0,
        }
    }
}
