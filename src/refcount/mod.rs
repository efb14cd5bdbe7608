//! A reference count whose get and put touch only this CPU's cache line, and that still finds zero exactly
//! once.
//!
//! [`PerCpuRef`] counts in one slot per CPU. While it lives nobody asks whether it is zero, so the slots
//! need never be summed. [`kill`](PerCpuRef::kill) closes them, adds their sum to a global word in one
//! step, and from then on that word is the count and reaches zero once.
//!
//! Where the system has restartable sequences ([`cpu::kind`](crate::cpu::kind)) a slot is counted in by a
//! section: a plain store that the kernel does not let come in between. Closing sets the mode word that
//! every section reads, and has the kernel restart those that may have read it before. Elsewhere a slot is
//! counted in by a locked instruction, and closed by one `swap`.
//!
//! Why a bias: between the closing of the first slot and the adding of the sum, the global word holds only
//! some of the count. It starts at `BIAS + 1`, which no number of early puts can bring to zero; the bias
//! goes in the same addition that brings the sum.
//!
//! # Orderings
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `percpu.counter.sub` | `Release` | `percpu.counter.close` | a holder's writes, through its slot, to the killer |
//! | `refcount.mode.fence` | `SeqCst` fence | every section | no section counts after the slots were summed; what a thread did before it counted is visible |
//! | `refcount.count.sum` | `AcqRel` | `refcount.count.put`, `refcount.count.zero` | the killer passes on what it collected, and finds zero itself |
//! | `refcount.count.put` | `Release` | `refcount.count.zero` | a holder's writes, through the global word, to the last holder |
//! | `refcount.count.zero` | `Acquire` fence | `refcount.count.put`, `refcount.count.sum` | whoever finds zero sees all of them |
//! | `refcount.count.is_zero` | `Acquire` | `refcount.count.put`, `refcount.count.sum` | so does an onlooker that sees zero |
//!
//! Source: "Generic dynamic per cpu refcounting" (2012), `lib/percpu-refcount.c`.

mod percpu_ref;

pub use percpu_ref::{PerCpuRef, Put};
