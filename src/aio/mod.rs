//! The context: any thread submits, any thread reads what came of it.
//!
//! A [`Context`] is made of the parts of this crate and adds only the requests: `Tags` say how many and
//! which slot, a `PerCpuRef` counts those in flight, a `CompletionQueue` carries their events and an
//! `EventCount` the sleep of readers. What carries them out is a [`Backend`].
//!
//! # Rules
//!
//! 1. Every accepted request yields exactly one [`Event`]. One that is not accepted comes back to its
//!    submitter, whole, with the reason.
//! 2. A request owns its buffers and its file until its event has been handed over. Forgetting a
//!    [`Completion`] leaks its request, and its context waits for it for ever.
//! 3. Capacity bounds requests in flight *and* events not yet read: completing never waits for a reader.
//! 4. [`Completion`] is the one way to finish a request, and consumes itself.
//! 5. Destroying refuses new requests, waits for those in flight, and leaves their events to be read.
//!    Dropping does the same and waits as long as it takes.
//!
//! # Signals and forks
//!
//! Nothing here may be called from a signal handler: it may interrupt the same code in the middle of a
//! lock. After a fork the child has none of the threads that would complete its requests: it must neither
//! use nor drop a context of its parent's that has requests in flight.
//!
//! # What a submit writes
//!
//! Its own CPU's slot of the count, its own CPU's stock of tags, the request's own lines; completing writes
//! the CPU's own lane and slot. Shared lines are written once per batch of tags.
//!
//! # Orderings
//!
//! All are those of the parts, but for the place of a context in a [`Table`]:
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `aio.table.put` | `Release` | `aio.table.get`, `aio.table.take` | an entry is found only whole |
//! | `aio.table.get` | `Acquire` | `aio.table.put` | as above |
//! | `aio.table.take` | `Acquire` | `aio.table.put` | as above |
//!
//! Source: `fs/aio.c` as the 2012 rework left it.

mod backend;
mod completion;
mod context;
mod error;
mod request;
mod shared;
#[cfg(feature = "stats")]
mod stats;
mod table;

pub use backend::{Backend, Submitted};
pub use completion::{Completion, Finished};
pub use context::{Context, MAX_CAPACITY, MAX_LANES};
pub use error::{Argument, BatchError, CreateError, DestroyError, GetEventsError, Reason, SubmitError};
pub use request::{Event, MAX_SEGMENTS, Op, Request};
#[cfg(feature = "stats")]
pub use stats::Stats;
pub use table::{Entered, Handle, Table, TableFull};
