//! A reference count whose get and put touch only this CPU's cache line, and that still finds zero exactly
//! once.
//!
//! [`PerCpuRef`] counts in one slot per CPU. While it lives nobody asks whether it is zero, so the slots
//! need never be summed. [`kill`](PerCpuRef::kill) closes them, adds their sum to a word in one step, and from
//! then on that word is the count and reaches zero once. [`DynamicRef`] starts with the word, and has slots only
//! while it is shared.
//!
//! # Two words
//!
//! * The *mode* says whether there are slots, where, and how they are counted in. Operations read it, and only
//!   a change of mode writes it; a count in one word keeps there what its [`Policy`] has to remember.
//! * The *word* holds what is not in slots, and flags. Counting in the word is right in every mode: whoever
//!   fails at a slot, because it is closed or because a section was disturbed, does that.
//!
//! Zero is looked for in the word only while the flag `PER_CPU` is clear. It is set before the first slot
//! opens, and goes in the same addition that brings the slots' sum. So no partial sum is ever taken for zero,
//! and no grace period is waited for.
//!
//! Where the system has restartable sequences ([`cpu::kind`](crate::cpu::kind)) a slot is counted in by a
//! section: a plain store that the kernel does not let come in between. Closing sets the mode word that
//! every section reads, and has the kernel restart those that may have read it before. Elsewhere a slot is
//! counted in by a locked instruction, and closed by one `swap`.
//!
//! # Orderings
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `refcount.mode.open` | `Release` | `refcount.mode.quick_get`, `refcount.mode.get`, `refcount.mode.quick_put`, `refcount.mode.put`, every section | who finds slots open finds them made, and comes after the flag `PER_CPU` |
//! | `refcount.mode.quick_get` | `Acquire` | `refcount.mode.open` | as above |
//! | `refcount.mode.quick_put` | `Acquire` | `refcount.mode.open` | as above |
//! | `refcount.mode.get` | `Acquire` | `refcount.mode.open` | as above |
//! | `refcount.mode.put` | `Acquire` | `refcount.mode.open` | as above |
//! | `refcount.mode.undo` | `Release` | as `refcount.mode.open` | if a fence could not be had |
//! | `refcount.mode.close` | `Release` | `refcount.mode.note` | who finds closed slots, and looks for statistics there, finds them made |
//! | `refcount.mode.note` | `Acquire` | `refcount.mode.close` | as above |
//! | `refcount.mode.fence` | `SeqCst` fence | every section | no section counts after the slots were summed; what a thread did before it counted is visible |
//! | `refcount.word.begin` | `Acquire` | `refcount.word.end`, `refcount.word.sum`, `refcount.word.put` | one change of mode sees the one before; who starts anew sees every put |
//! | `refcount.word.look` | `Acquire` | `refcount.word.end`, `refcount.word.sum` | who is told that somebody else has killed comes after the closing |
//! | `refcount.word.end` | `Release` | `refcount.word.begin` | as above |
//! | `refcount.word.sum` | `Release` | `refcount.word.begin` | ends the change that brought the slots' sum |
//! | `refcount.word.put` | `Release` | `refcount.word.zero` | a holder's writes, through the word, to the last holder |
//! | `refcount.word.zero` | `Acquire` fence | `refcount.word.put` | whoever finds zero sees all of them |
//! | `refcount.word.is_zero` | `Acquire` | `refcount.word.put` | so does an onlooker that sees zero |
//!
//! Between slots and the word: `percpu.counter.sub` and `percpu.counter.close`, `percpu.counter.open` and
//! `percpu.counter.add`. What was collected from the slots goes on to whoever finds zero by the later put of
//! the thread that collected it: it has a reference.
//!
//! Source: "Generic dynamic per cpu refcounting" (2012), `lib/percpu-refcount.c`. The closing of slots stands in
//! for its grace period, the flag for its bias.

mod builder;
mod percpu_ref;
mod policy;
mod site;
mod slots;
mod switch;
#[cfg(test)]
mod tests;
mod typed;
mod word;

pub use builder::{Builder, NoSections};
pub use percpu_ref::{DynamicRef, PerCpuRef, Put};
pub use policy::{Always, Gets, Moves, Never, Policy};
pub use switch::ReviveError;
#[cfg(feature = "stats")]
pub use switch::upgrades;
pub use typed::{Dying, Guard, Handle, Owner, StillHeld, Weak};
