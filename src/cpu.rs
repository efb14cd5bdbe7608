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
/// it is first asked or the first structure that could use them is made. The environment variable
/// `IOCTX_PERCPU=portable` forces the latter. Without the feature `own-rseq` sections need the C library's
/// area; with it, where the library has none, each thread registers one of its own at its first operation,
/// which is then not for allocators or signal handlers.
///
/// ```
/// println!("{:?}", ioctx::cpu::kind());
/// ```
pub fn kind() -> Kind {
    rseq::kind()
}
