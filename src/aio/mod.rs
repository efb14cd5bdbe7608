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
//! 5. Cancelling only hastens: a request that nobody has begun completes with `ECANCELED`, at once; any other as it
//!    would have, or as soon as its backend can end it. One atomic word decides between who begins it and who cancels
//!    it.
//! 6. Destroying refuses new requests, cancels what can be cancelled, waits for the rest, and leaves all events to be
//!    read. Dropping does the same and waits as long as it takes.
//!
//! # Layers
//!
//! A backend over another is a layer. It learns of the end of what it passes down in one of two forms:
//!
//! | | a hook: [`Completion::on_end`] | a request of its own: [`Below`] |
//! |---|---|---|
//! | what goes down | the same request, perhaps with another buffer or offset meanwhile | others, one or several |
//! | what is kept | a closure: a function, and a cookie, a word of which needs no memory | any type with the [`Done`] of its own, in which the completion above is embedded |
//! | what it makes | another [`Outcome`], which the next one is told | the end of the request above, whenever it likes |
//! | who does it | the completer, the run list, or who has the event: [`By`] | the completer |
//! | what it costs | some nanoseconds | some 100, and the memory of a context |
//!
//! The first is for what is done *to* a request: counting, checksums, encryption, another place in the file. The second
//! is for what has to submit again: parts, copies on other devices, retries, reads before writes. Both promise the
//! same: once the request is taken, what was asked for is called exactly once, whatever becomes of the request. A layer
//! of the second form may use the first for the requests of its own.
//!
//! # For tasks and loops
//!
//! A request can be a future, [`Context::start`], and the events a stream, [`Context::events`], under any executor and
//! driven by whoever completes; `Context::eventfd` (on Linux) is for loops that sleep in `epoll`. None of them needs a
//! thread of its own, but where the backend has none and nobody waits for events: there a [`Driver`] is one.
//!
//! # What is said
//!
//! With the feature `tracing`: events of the target `ioctx` when a context is created, begins to be destroyed, has
//! finished its last request, and is still not finished at a deadline, with what is stuck (`debug`); when a backend
//! refuses a request (`debug`), and when one is cancelled (`trace`). Nothing on the way of a request that is neither.
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
//! the CPU's own lane and slot, and the request's own lines. Shared lines are written once per batch of tags. That
//! requests can be cancelled costs those that are put aside, see [`Cancellable`]; there is no list of them, since
//! destroying looks at every slot.
//!
//! # Orderings
//!
//! All are those of the parts, but for the words of a request's slot and the place of a context in a [`Table`]:
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `aio.slot.offer` | `Release` | `aio.slot.claim` | what was done to a request, to who cancels it |
//! | `aio.slot.claim` | `Acquire` | `aio.slot.offer` | as above |
//! | `aio.slot.fill` | `Release` | `aio.slot.look` | a request that is found in flight has its user data |
//! | `aio.slot.look` | `Acquire` | `aio.slot.fill` | as above |
//! | `aio.slot.user_data` | `Release` | `aio.slot.look_user_data` | whoever sees the user data of the next request sees that the one before is finished |
//! | `aio.slot.look_user_data` | `Acquire` | `aio.slot.user_data` | as above |
//! | `aio.cancel.offered` | `SeqCst` fence | `aio.cancel.dying` | a request put on offer is found by the destroyer, or its owner finds that the context is being destroyed |
//! | `aio.cancel.dying` | `SeqCst` fence | `aio.cancel.offered` | as above |
//! | `aio.delivery.done` | `Release` | `aio.delivery.look` | the result, and what was done to the request, to the future |
//! | `aio.delivery.done_waking` | `AcqRel` | `aio.delivery.look`, `aio.delivery.leave` | both as `done` and as `see_gone` |
//! | `aio.delivery.look` | `Acquire` | `aio.delivery.done`, `aio.delivery.done_waking` | as there; the next user of the slot comes after a completer that used the waker's cell |
//! | `aio.delivery.wait` | `Release` | `aio.delivery.take_waker` | the waker, to who calls it |
//! | `aio.delivery.take_waker` | `Acquire` | `aio.delivery.wait` | as above |
//! | `aio.delivery.leave` | `Release` | `aio.delivery.see_gone`, `aio.delivery.done_waking` | the next user of the slot comes after a future that used the waker's cell |
//! | `aio.delivery.see_gone` | `Acquire` | `aio.delivery.leave` | as above |
//! | `aio.table.put` | `Release` | `aio.table.get`, `aio.table.take` | an entry is found only whole |
//! | `aio.table.get` | `Acquire` | `aio.table.put` | as above |
//! | `aio.table.take` | `Acquire` | `aio.table.put` | as above |
//!
//! Source: `fs/aio.c` as the 2012 rework left it.

mod aligned;
mod backend;
mod batch;
mod below;
mod buffer;
mod builder;
mod cancellable;
mod completion;
mod context;
mod custom;
mod deferred;
mod delivery;
mod destroy;
mod drive;
mod driver;
mod error;
#[cfg(ioctx_linux)]
mod eventfd;
mod file;
mod future;
mod hook;
mod id;
mod iodesc;
mod readiness;
mod reap;
mod request;
mod shared;
mod slot;
#[cfg(feature = "stats")]
mod stats;
mod stream;
mod table;
mod trace;
mod visit;

pub use crate::fanin::Outcome;
pub use aligned::{AlignedBuffer, AlignedError};
pub use backend::{Backend, Submitted};
pub use below::{Above, Below, Done, Ended, NotTaken};
pub use buffer::{Buffer, BufferMut, IoBuf, IoBufMut, RawBuffer};
pub use builder::Builder;
pub use cancellable::Cancellable;
pub use completion::{Completion, Finished};
pub use context::{Context, MAX_CAPACITY, MAX_LANES};
pub use custom::{Custom, Operation};
pub use destroy::Destroying;
pub use driver::Driver;
pub use error::{
    Argument, BatchError, CancelError, CreateError, DestroyError, GetEventsError, InFlight, Reason,
    SubmitError,
};
#[cfg(ioctx_linux)]
pub use eventfd::EventFd;
pub use file::FileRef;
pub use future::Started;
pub use hook::By;
pub use id::RequestId;
pub use iodesc::{IoDesc, IoSlices, Rest};
pub use readiness::Readiness;
pub use request::{Event, MAX_SEGMENTS, Op, Request};
#[cfg(feature = "stats")]
pub use stats::Stats;
pub use stream::EventStream;
pub use table::{Entered, Handle, Table, TableFull};
pub use visit::Visited;
