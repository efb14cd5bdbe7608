//! Bounded completion rings: the tail is taken by one `swap`, events are read in place.
//!
//! [`Ring`] is one ring, many publishers, one reader at a time. [`CompletionQueue`] is a ring per CPU (a
//! *lane*): a publisher uses the lane of its CPU, so publishers on different CPUs do not meet.
//!
//! # How an event gets across
//!
//! The private tail is the lock and the value in one word: a publisher swaps `BUSY` in and gets the index;
//! it writes the event, stores the public tail, which is what readers look at, and swaps the new index back
//! in. That second swap is also the full fence that whoever wakes readers needs between publishing and
//! looking for sleepers. Readers never see `BUSY`.
//!
//! Where there are restartable sequences, a lane of a [`CompletionQueue`] has no lock: a section on the lane's own CPU
//! writes the event and, as its last instruction, the tail. One that is interrupted has done nothing. So nobody ever
//! waits behind a publisher that was preempted; but no fence comes with it either.
//!
//! # Never overrun
//!
//! A publisher keeps a copy of the head beside the private tail and looks the true one up only when the
//! copy shows too little room: once per round of a ring that its reader keeps up with. Whoever makes the
//! ring as large as the number of events that can be outstanding never sees [`Refused::Full`].
//!
//! [`ReservedRing`] makes that a matter of types: to publish takes a slot that was reserved before, and
//! reading gives slots back.
//!
//! # Signal handlers
//!
//! They may publish to a [`Ring`] by its `try_` forms, which at worst are refused as [`Refused::Busy`]. What waits for
//! other publishers, as [`CompletionQueue::publish`], [`ReservedRing::publish`] and [`Ring::close`] do, would wait for
//! ever for the thread that the handler interrupted.
//!
//! # Programs outside
//!
//! [`AioRing`] is a ring in the layout of the kernel's `aio_ring`, for others to read in place.
//! [`RingView`] reads such a ring, the kernel's or ours. Whatever they write into its indices, nothing is
//! read or written beside it.
//!
//! # Orderings
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `ring.tail.take` | `Acquire` | `ring.tail.give` | the copy of the head, and the right to write slots |
//! | `ring.tail.give` | `AcqRel` | `ring.tail.take` | as above; `Acquire` only to keep it a swap |
//! | `ring.public.store` | `Release` | `ring.public.load` | an index is published after its event |
//! | `ring.public.load` | `Acquire` | `ring.public.store` | as above |
//! | `ring.head.store` | `Release` | `ring.head.refresh`, `ring.len.head` | a slot is given up after it was read |
//! | `ring.head.refresh` | `Acquire` | `ring.head.store` | as above |
//! | `ring.len.head` | `Acquire` | `ring.head.store` | the tail that is read next is not behind the head |
//! | `ring.len.tail` | `Acquire` | `ring.public.store` | if it came round, the head has moved |
//! | `ring.reader.claim` | `Acquire` | `ring.reader.release` | the head, and the right to read slots |
//! | `ring.append.tail` | `Release` | `ring.append.read` | an event is written before the tail, by a section's last store |
//! | `ring.append.read` | `Acquire` | `ring.append.tail` | as above |
//! | `ring.append.commit` | `Release` | `ring.append.refresh` | a place is given up after it was read |
//! | `ring.append.refresh` | `Acquire` | `ring.append.commit` | as above |
//! | `ring.append.limit` | `Release` | `ring.append.look` | passes it on to the section that writes there |
//! | `ring.append.look` | `Acquire` | `ring.append.limit` | as above; in a section, the order of a load and the stores that depend on it |
//! | `ring.append.claim` | `Acquire` | `ring.append.release` | as `ring.reader.claim` |
//! | `ring.append.release` | `Release` | `ring.append.claim` | as above |
//! | `ring.reader.release` | `Release` | `ring.reader.claim` | as above |
//! | `ring.close.take` | `Acquire` | `ring.tail.give`, `ring.close.give` | after closing all can be read |
//! | `ring.close.give` | `Release` | `ring.close.take` | who closes a closed ring knows that it is |
//! | `ring.closed.store` | `Release` | `ring.closed.load` | so can who knows that it was closed |
//! | `ring.closed.load` | `Acquire` | `ring.closed.store` | as above |
//!
//! Source: "aio: use xchg() instead of completion_lock" (2012), `fs/aio.c`, QEMU's `io_getevents_peek`
//! (2016).

mod aio_page;
mod append;
#[cfg(test)]
mod held;
mod lane;
mod layout;
mod queue;
mod reader;
mod reserved;
mod view;

pub use crate::sync::page::Slot as EventCell;
pub use aio_page::AioPage;
pub use lane::{AioRing, Refused, Ring};
pub use layout::{Layout, Padded};
pub use queue::CompletionQueue;
pub use reader::Reader;
pub use reserved::{NotPublished, OtherRing, ReservedReader, ReservedRing, Slots};
pub use view::{NotShown, RingView, Unusable};

/// How often publishers did not find room at once, since the beginning.
#[cfg(feature = "stats")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Times at which a publisher's first lane was in use or full, or a section on it was given up.
    pub passed_over: u64,
    /// Times at which it gave its CPU away, after every lane had been in use or full again and again.
    pub waits: u64,
}

/// What a ring carries: 32 bytes, laid out like the kernel's `io_event`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Event {
    /// The submitter's word.
    pub data: u64,
    /// What the event is about.
    pub obj: u64,
    /// The outcome: not negative, or a negated error number.
    pub res: i64,
    /// A second outcome.
    pub res2: i64,
}

const _: () = assert!(size_of::<Event>() == 32 && align_of::<Event>() == align_of::<[u64; 4]>());

impl Event {
    /// Events as plain words.
    fn words(events: &[Self]) -> &[[u64; 4]] {
        // SAFETY: four words each, all of them numbers, and aligned alike.
        unsafe { std::slice::from_raw_parts(events.as_ptr().cast(), events.len()) }
    }
}
