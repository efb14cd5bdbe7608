//! The only door to atomics, cells, threads, parking, time and the CPU number.
//!
//! Everything concurrent or nondeterministic in this crate enters here, so that the code a model
//! checks is the code that ships. Built with the feature `loom` *and* `--cfg loom`, this module hands
//! out loom's types; otherwise the standard library's. The rest of the crate cannot tell.
//!
//! # What differs under loom
//!
//! The facade may be stronger under loom, never weaker:
//!
//! * [`atomic::give_back`], the plain store that frees a word taken by `swap`, is a `swap`, and so is
//!   `atomic::store_over`, the plain store over a word that others change: loom 0.7.2 does not order a plain
//!   store after racing read-modify-writes and would report a livelock, or a lost store, that cannot happen.
//! * [`atomic::glance`], the load of a hint, is a read-modify-write: loom 0.7.2 looks for a race only with
//!   the last access of a word, so a thread that loads a word and then writes it hides its write from those
//!   who loaded it before (the model `litmus.own_load_hides` shows it).
//! * `fence_after_rmw!` is a full fence (on x86 the locked instruction before it is one already, and
//!   the macro only stops the compiler).
//! * Threads sleep and lock by loom's own means: [`Parker`], [`Mutex`] and [`Condvar`] are other
//!   implementations of the same contracts there, signals do not exist, and the futex word of the Linux
//!   parker is checked by stress alone.
//! * `membarrier` exists where the model says so (`model::use_membarrier`): a word per CPU stands for the CPU that is
//!   interrupted. Elsewhere both sides of `barrier` are full fences.
//! * Eventfds are real ones; loom does not see what they order, so nothing may depend on it.
//! * What is reclaimed by epochs is freed as soon as nobody reads it; `crossbeam-epoch` has models of its
//!   own.
//! * A page that programs outside read too (`sync::page`) is memory of the facade's own, its address is good
//!   for nothing but [`RingView`](crate::ring::RingView), and its slots are tracked cells instead of atomics.
//! * Time stands still: a deadline that has passed before the wait times out at once, any other never.
//! * There are two CPUs, and the model says which one a thread is on (`model::set_cpu`).
//!
//! # Sites
//!
//! Every ordering but `Relaxed` is written `mo!("part.object.step", Ordering)` and every fence
//! `fence!("part.object.step", Ordering)`. Outside loom the macros leave only the ordering. Under loom
//! one site at a time can be weakened by `model::weaken`, which is how `cargo weaken` shows that each
//! ordering is needed. The names are those of the `# Orderings` table of each module.

#[cfg(all(loom, feature = "loom"))]
#[path = "loom.rs"]
mod imp;
#[cfg(not(all(loom, feature = "loom")))]
#[path = "std.rs"]
mod imp;

pub(crate) mod page;
mod parker;
#[cfg(ioctx_linux)]
pub(crate) mod process;
pub(crate) mod rseq;
mod tally;
mod wake;

pub use imp::*;
pub use parker::{Parked, Parker};
pub(crate) use tally::Tally;
pub(crate) use wake::{Wake, Woken, call_outside, caught};

/// A file shared by requests. Ownership of a caller's resource takes part in no protocol of this
/// crate, so this is the standard library's type in every build.
pub type SharedFile = std::sync::Arc<std::fs::File>;

/// Bytes shared by requests: the standard library's type in every build, as [`SharedFile`].
pub type SharedBytes = std::sync::Arc<[u8]>;

/// A number that this process has not seen before. Names things and takes part in no protocol, so the
/// counter is the standard library's in every build.
pub(crate) fn unique() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Has the processor fetch the line at `place`, to be written, while it does other things. No access: any address will
/// do. Nothing where no instruction for it is known here.
#[inline(always)]
pub(crate) fn prefetch_to_write(place: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: changes neither memory nor registers, and does not fault.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) place, options(nostack, preserves_flags, readonly));
    }
    let _ = place;
}

/// Time as the crate sees it.
pub mod time {
    pub use std::time::{Duration, Instant};

    /// Microseconds on a clock of the process's own, for telling often from seldom. 0 under loom.
    pub(crate) fn micros() -> u64 {
        super::imp::clock::micros()
    }

    /// Whether `deadline` has passed. `None` never passes.
    pub(crate) fn expired(deadline: Option<Instant>) -> bool {
        deadline.is_some_and(|at| Instant::now() >= at)
    }
}
