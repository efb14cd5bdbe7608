//! Sections as loom can see them: atomic with respect to the fence and to each other on one CPU, and
//! nothing more.
//!
//! A lock per CPU stands for the CPU itself: a section holds it, and the fence takes each in turn. What the
//! kernel does is that and no more: whoever runs on a CPU after a section there was preempted, or after the
//! fence interrupted it, sees what came before. Aborts come when the model says so.

use super::{GIVE_UP, Kind, ONE};
use crate::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed},
};
use crate::sync::cpu;
use loom::sync::Mutex;
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicBool;

loom::lazy_static! {
    static ref CPUS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
}

static SECTIONS: AtomicBool = AtomicBool::new(false);
loom::thread_local!(static ABORT: Cell<bool> = Cell::new(false));

/// Whether structures made from now on use sections. The same in every iteration of a model.
pub(in crate::sync) fn use_sections(sections: bool) {
    SECTIONS.store(sections, std::sync::atomic::Ordering::Relaxed);
}

/// Makes the next section of the calling thread give up, as if it had been preempted.
pub(in crate::sync) fn abort() {
    ABORT.with(|abort| abort.set(true));
}

/// There is nothing to arm.
pub(crate) const ALWAYS_AN_AREA: bool = true;

/// What the model said.
pub(crate) fn kind() -> Kind {
    match SECTIONS.load(std::sync::atomic::Ordering::Relaxed) {
        true => Kind::LibcArea,
        false => Kind::Portable("models use sections only where they say so"),
    }
}

/// Runs `body`, which is given the mode word and the CPU, as a section; `None` if that gives up.
///
/// # Safety
///
/// `mode` is valid, and what it leads to.
unsafe fn section<R>(mode: *const AtomicU64, body: impl FnOnce(u64, u32) -> Option<R>) -> Option<R> {
    // Without sections there is no slot to be counted in by one: no need to model that it gives up.
    if kind() != Kind::LibcArea || ABORT.with(Cell::take) {
        return None;
    }
    let cpu = cpu::raw();
    let _preemption_waits = CPUS[cpu as usize].lock().unwrap();
    // Acquire stands for what processors keep to without being told: the slot's address comes from this load,
    // so the slot is not reached before it; nor is anything stored before it that depends on it.
    // SAFETY: valid, as outside loom.
    let mode = unsafe { &*mode }.load(Acquire);
    if mode & GIVE_UP != 0 { None } else { body(mode, cpu) }
}

/// Adds `delta` to this CPU's slot unless the mode word says to give up.
///
/// # Safety
///
/// As [`section`].
pub(crate) unsafe fn add<'a>(
    mode: *const AtomicU64,
    delta: i64,
    slot: impl Fn(u64, u32) -> &'a AtomicU64,
) -> bool {
    let body = |mode, cpu| {
        // A plain addition: only the lock keeps it whole.
        let slot = slot(mode, cpu);
        slot.store(slot.load(Relaxed).wrapping_add_signed(delta), Relaxed);
        Some(())
    };
    // SAFETY: handed on.
    unsafe { section(mode, body) }.is_some()
}

/// `body`, which does plainly what the section does.
///
/// # Safety
///
/// As [`section`].
pub(crate) unsafe fn take(mode: *const AtomicU64, _: u64, body: impl FnOnce(u64, u32) -> bool) -> bool {
    // SAFETY: handed on.
    unsafe { section(mode, |mode, cpu| body(mode, cpu).then_some(())) }.is_some()
}

/// `body`, which does plainly what the section does.
///
/// # Safety
///
/// As [`section`].
pub(crate) unsafe fn put(
    mode: *const AtomicU64,
    _: u64,
    _: u64,
    body: impl FnOnce(u64, u32) -> bool,
) -> bool {
    // SAFETY: handed on.
    unsafe { take(mode, 0, body) }
}

/// `body`, which does plainly what the section does.
///
/// # Safety
///
/// As [`section`].
pub(crate) unsafe fn pop(mode: *const AtomicU64, body: impl FnOnce(u64, u32) -> Option<u32>) -> Option<u32> {
    // SAFETY: handed on.
    unsafe { section(mode, body) }
}

/// `body`, which does plainly what the section does.
///
/// # Safety
///
/// As [`section`].
pub(crate) unsafe fn push(mode: *const AtomicU64, _: u32, body: impl FnOnce(u64, u32) -> bool) -> bool {
    // SAFETY: handed on.
    unsafe { take(mode, 0, body) }
}

/// `body`, which does plainly what the section does.
///
/// # Safety
///
/// As [`section`]; and `body` has written every item if it says that it did.
pub(crate) unsafe fn pop_many(
    mode: *const AtomicU64,
    items: &mut [MaybeUninit<u32>],
    body: impl FnOnce(u64, u32, &mut [MaybeUninit<u32>]) -> bool,
) -> Option<&mut [u32]> {
    // SAFETY: handed on.
    let popped = unsafe { take(mode, 0, |mode, cpu| body(mode, cpu, items)) };
    // SAFETY: if so, they are all written.
    popped.then(|| unsafe { &mut *(std::ptr::from_mut(items) as *mut [u32]) })
}

/// `body`, which does plainly what the section does.
///
/// # Safety
///
/// As [`section`].
pub(crate) unsafe fn push_many(
    mode: *const AtomicU64,
    _: &[u32],
    body: impl FnOnce(u64, u32) -> bool,
) -> bool {
    // SAFETY: handed on.
    unsafe { take(mode, 0, body) }
}

/// `body`, which does plainly what the section does.
///
/// # Safety
///
/// As [`section`].
pub(crate) unsafe fn append(
    mode: *const AtomicU64,
    _: &[[u64; 4]],
    body: impl FnOnce(u64, u32) -> bool,
) -> bool {
    // SAFETY: handed on.
    unsafe { take(mode, 0, body) }
}

/// [`add`] of one unit.
///
/// # Safety
///
/// As there.
pub(crate) unsafe fn add_one<'a, const UP: bool>(
    mode: *const AtomicU64,
    slot: impl Fn(u64, u32) -> &'a AtomicU64,
) -> bool {
    // SAFETY: handed on.
    unsafe { add(mode, if UP { ONE } else { -ONE }, slot) }
}

/// Orders every section before against everything after, and what came before against every section after.
pub(crate) fn fence() -> bool {
    CPUS.iter().for_each(|cpu| drop(cpu.lock().unwrap()));
    true
}

/// Threads of a model are always known to the kernel.
pub(crate) fn rejoin() -> bool {
    false
}
