//! Restartable sequences (rseq(2)): short stretches of code that end in one store, and that the kernel does
//! not let run across a preemption, a migration or a signal.
//!
//! A thread that is taken off its CPU inside a section continues at the section's abort address. Here an
//! abort never tries again: it reports failure, and the caller uses the global side of its structure, which
//! is right in every mode. So a section is wait-free, and a debugger can step through it.
//!
//! # The area
//!
//! The kernel and each thread share a small area: the CPU number (`cpu_id`, negative while not registered)
//! and a pointer to the section that the thread is in (`rseq_cs`, the only field that is ever written
//! here). The C library registers one for every thread (glibc 2.35 and later, unless told not to by
//! `glibc.pthread.rseq=0`). Where it does not, and the feature `own-rseq` is on, each thread has one of
//! this module's, registered at the thread's first failed section and unregistered when the thread ends.
//! All areas lie at one offset from the thread pointer, so that a section needs no look-up.
//!
//! `own-rseq` makes the object it is linked into use static thread-local storage, of which a library that is
//! loaded at run time can have only little. For that, each thread has an area in any case, and a section may
//! begin before it is known whether it can count: two instructions fewer. Where the C library has no area, a
//! thread's first operation calls the allocator and the kernel, so that none may happen in an allocator or a
//! signal handler.
//!
//! # What makes a section right
//!
//! 1. Its descriptor and its abort address, preceded by the signature the kernel was told, stay in the
//!    program for good: a library that contains them is kept from being unloaded, since `rseq_cs` may point
//!    there long after.
//! 2. It makes no call, leaves the stack pointer alone, and commits by its last instruction. What it stores
//!    before that means nothing until it commits: it goes to a buffer that the caller lends it, or above the
//!    top of a slot's stack.
//! 3. It reads the CPU number inside the section, and gives up if it is negative.
//! 4. A slot is written by sections only, each on the slot's own CPU; whoever else wants to read it first
//!    makes sections give up, by a word they all read, and then has the kernel restart those that may have
//!    read it before ([`fence`]). After that nobody reaches the slots any more, so that they may be freed.
//!
//! # The mode word
//!
//! One word says whether sections may count, and where: it is the address of CPU 0's slot, behind which those of
//! the other possible CPUs lie, 128 bytes apart; or it has the bit [`GIVE_UP`] set, and the rest belongs to
//! whoever set it.

#[cfg(all(loom, feature = "loom"))]
#[path = "loom.rs"]
mod imp;
#[cfg(all(
    ioctx_linux,
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64",
    target_endian = "little",
    not(miri),
    not(all(loom, feature = "loom"))
))]
#[path = "linux.rs"]
mod imp;
#[cfg(not(any(
    all(
        ioctx_linux,
        any(target_arch = "x86_64", target_arch = "aarch64"),
        target_pointer_width = "64",
        target_endian = "little",
        not(miri)
    ),
    all(loom, feature = "loom")
)))]
#[path = "none.rs"]
mod imp;

pub(crate) use imp::*;

/// Whether per-CPU operations are sections, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// They are, in the area that the C library has registered.
    LibcArea,
    /// They are, in an area of this crate's, since the C library has none.
    OwnArea,
    /// They are locked instructions, for this reason.
    Portable(&'static str),
}

/// The bit of a mode word that makes sections give up.
pub(crate) const GIVE_UP: u64 = 1;

/// The unit in which slots are counted: bit 0 belongs to those that are closed by locked instructions.
pub(crate) const ONE: i64 = 2;
