//! Which CPU: an index to spread work by, never a promise.

use crate::sync::{cpu, rseq};

pub use crate::sync::rseq::Kind;

/// The number of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CpuId(pub u32);

/// How many CPUs this machine can ever have, at least 1. The number of slots of a
/// [`PerCpu`](crate::percpu::PerCpu).
///
/// Counted over *possible* CPUs, not over those online or allowed: a thread may be moved to any of them.
/// Read once from the system.
pub fn possible() -> u32 {
    cpu::possible()
}

/// The CPU the calling thread runs on. Wait-free, 0.5 to 3 ns.
///
/// Where the system gives no CPU number, a number that stays with the thread, so that threads still
/// spread.
///
/// # Staleness
///
/// Out of date as soon as it is read: the thread may be moved at any instruction. Right for choosing a
/// slot that any thread may use, wrong for claiming that no other thread uses it.
///
/// ```
/// let slot = ioctx::cpu::hint().0 % ioctx::cpu::possible();
/// assert!(slot < ioctx::cpu::possible());
/// ```
#[inline]
pub fn hint() -> CpuId {
    CpuId(cpu::raw())
}

/// Whether per-CPU operations are restartable sequences or locked instructions, and why. Decided once, when
/// it is first asked or the first structure that could use them is made.
///
/// Sections need an area that each thread shares with the kernel. It is the C library's, where there is one
/// (glibc 2.35 and later); otherwise, with the default feature `own-rseq`, one of this crate's, which each thread
/// registers at its first operation. That first operation calls the allocator, so that there it must not happen
/// in an allocator or a signal handler. The feature takes 32 bytes of static thread-local storage; a library to be
/// loaded at run time, of which such storage is scarce, may do without it.
///
/// A process made by `vfork`, or by `clone` with the memory shared and the threads apart, must use nothing of this
/// before it calls `exec`: the kernel does not restart its sections.
///
/// The environment variable `IOCTX_PERCPU` restricts the choice: `libc` or `own` to that kind of area, `portable`
/// to locked instructions, `auto` not at all. A single count is restricted by its
/// [`Builder`](crate::refcount::Builder).
///
/// ```
/// println!("{:?}", ioctx::cpu::kind());
/// ```
pub fn kind() -> Kind {
    rseq::kind()
}
