//! The two-sided fence: free on the side that runs often, dear on the side that runs seldom.
//!
//! # Semantics
//!
//! If one thread does *store A; [`light`]; load B* and another *store B; [`heavy`]; load A*, at least
//! one of the two loads sees the other's store:
//!
//! * if `heavy` comes first, the light thread's load, which follows, sees B;
//! * if `light` comes first, its store was made visible by `heavy`, whose load sees A.
//!
//! `light` does **not** pair with `light`: two light threads may both miss the other's store. `heavy`
//! pairs with both.
//!
//! `heavy` is a full fence as well, before its effect on the others and after it. So what it made visible is
//! seen by whoever executes a full fence of his own after it, though he was told by neither side.
//!
//! On Linux `light` stops only the compiler and `heavy` is `membarrier(PRIVATE_EXPEDITED)`, which makes
//! every running thread of the process execute a full fence. Rust's memory model has no word for that; the
//! guarantee is the kernel's (`Documentation/features/sched/membarrier-sync-core`, membarrier(2)). Where it
//! cannot be had (another system, a sandbox, Miri) both sides are `fence(SeqCst)`, which needs no
//! such assumption. [`kind`] says which is in force.
//!
//! # Orderings
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `barrier.light` | `SeqCst` fence | `barrier.heavy` | store before, load after (where membarrier is not in force) |
//! | `barrier.heavy` | `SeqCst` fence | `barrier.light`, itself | store before, load after |
//! | `barrier.heavy_after` | `SeqCst` fence | every full fence of a third thread | what membarrier made visible, before the load after |
//!
//! # Costs
//!
//! `light`: nothing, or 2 ns as a fence. `heavy`: about 0.5 µs, 10 µs and more if other threads of the
//! process are running, growing with their number. The first call of either [`heavy`] or [`kind`] registers
//! with the kernel, which takes some 10 ms in a process that already has threads. Not for use where `heavy`
//! is frequent: two plain fences are cheaper.

use crate::sync::{OnceLock, fence, membarrier};

/// Which fences are in force, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// `light` is a compiler fence, `heavy` a system call.
    Membarrier,
    /// Both sides are full fences, for this reason.
    Fence(&'static str),
}

static KIND: OnceLock<Kind> = OnceLock::new();

/// Which fences are in force. The first call registers with the kernel.
pub fn kind() -> Kind {
    *KIND.get_or_init(|| match membarrier::register() {
        Ok(()) => Kind::Membarrier,
        Err(why) => Kind::Fence(why),
    })
}

/// The side that runs often. Wait-free. Orders a store before it against a load after it, towards [`heavy`]
/// only.
///
/// # Examples
///
/// ```
/// # use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
/// static ENTERED: AtomicBool = AtomicBool::new(false);
/// static CLOSED: AtomicBool = AtomicBool::new(false);
///
/// // Often: announce, then check.
/// ENTERED.store(true, Relaxed);
/// ioctx::barrier::light();
/// let may_stay = !CLOSED.load(Relaxed);
///
/// // Once: close, then look who is in.
/// CLOSED.store(true, Relaxed);
/// ioctx::barrier::heavy();
/// let somebody_is_in = ENTERED.load(Relaxed);
/// assert!(may_stay && somebody_is_in);
/// ```
#[inline]
pub fn light() {
    match KIND.get() {
        // Whoever sees this value issues `membarrier` in `heavy`, since it is set once.
        Some(Kind::Membarrier) => membarrier::compiler_only(),
        // SeqCst: pairs with the fence that `heavy` executes in every kind; also before registration.
        _ => fence!("barrier.light", SeqCst),
    }
}

/// The side that runs seldom. Blocking (a system call). Orders a store before it against a load after it,
/// towards [`light`] and [`heavy`].
///
/// # Panics
///
/// If the kernel granted membarrier to the process and a filter installed later takes it away: going on
/// would be unsound.
pub fn heavy() {
    let kind = kind();
    // SeqCst: pairs with a `light` that ran as a full fence, and with other calls of `heavy`.
    fence!("barrier.heavy", SeqCst);
    if kind == Kind::Membarrier {
        let issued = membarrier::issue();
        // A filter installed after registration can take the call away; going on would be unsound.
        assert!(issued, "membarrier was granted to this process and is now refused");
        // SeqCst: pairs with the fence of a third thread. Either that comes later and shows it what a light thread
        // stored before we interrupted it, or our loads see what the third thread stored.
        fence!("barrier.heavy_after", SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_is_decided_once() {
        heavy();
        let first = kind();
        light();
        assert_eq!(first, kind());
    }
}
