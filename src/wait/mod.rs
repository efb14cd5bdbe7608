//! Sleeping until enough has happened, at no cost to those who make it happen while nobody sleeps.
//!
//! [`EventCount`]: a reader announces how many events it wants, looks once more, and sleeps: a thread by its
//! [`Key`], a task by [`Listen`], whoever has descriptors to watch by a `Bell` (on Linux). A publisher
//! publishes, then looks at one word. [`Gate`]: opens once, for all.
//!
//! # No wake-up is lost
//!
//! The reader stores what it wants, fences, and looks at the events; the publisher stores an event, fences,
//! and looks at what is wanted:
//!
//! * if the reader's fence comes first, the publisher sees what is wanted, and wakes;
//! * if the publisher's fence comes first, the reader sees the event, and does not sleep.
//!
//! With several publishers the last one to fence sees the events of all, so the one whose event makes up
//! the number knows.
//!
//! Publishers without a fence ([`notify_light`](EventCount::notify_light)) have the two bullets from
//! [`barrier::light`](crate::barrier::light), and the reader's fence is
//! [`barrier::heavy`](crate::barrier::heavy) then. The light side does not order publishers among themselves. So
//! one that finds somebody asleep executes a fence before it looks how many events there are; and those that
//! found nobody had their events made visible by the heavy side, before the reader looked:
//!
//! * if the publisher's fence comes before the end of the heavy side, the reader sees its event, and those too;
//! * if it comes after, the publisher sees those, and knows.
//!
//! # Signal handlers
//!
//! None may wait, announce a sleep, or publish and notify: with sleepers that takes a mutex, which the thread it
//! interrupted may have.
//!
//! # Orderings
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `wait.sleeper.announce` | `SeqCst` fence | each of the following | what is wanted is stored before the events are looked at |
//! | `wait.publisher.look` | `SeqCst` fence | `wait.sleeper.announce`, itself | an event is stored before what is wanted is looked at |
//! | `wait.publisher.look_rmw` | `SeqCst` fence | `wait.sleeper.announce`, itself | the same where a read-modify-write published the event |
//! | `wait.publisher.look_light` | `SeqCst` fence | itself, `wait.publisher.look`, `barrier.heavy_after` | an event is stored before the others' are looked at |
//! | `wait.publisher.look_all` | `SeqCst` fence | `wait.sleeper.announce` | the same for a change of state that concerns every sleeper |
//!
//! Where the publisher's last access was a locked instruction, as in [`Ring`](crate::ring::Ring), that is
//! the fence on x86.
//!
//! Source: `prepare_to_wait` (2002), "Convert read_events() to hrtimers" (2012), "obey min_nr when doing
//! wakeups" (2023).

#[cfg(ioctx_linux)]
mod bell;
mod event_count;
mod gate;
mod key;
mod queue;

#[cfg(ioctx_linux)]
pub use bell::Bell;
pub use event_count::EventCount;
pub use gate::Gate;
pub use key::{Key, Listen, Outcome};

/// How often somebody slept and was woken, since the beginning.
#[cfg(feature = "stats")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Announcements of a sleep, kept or taken back.
    pub sleeps: u64,
    /// Looks for sleepers to wake, when enough seemed to be there: each wakes one, several or none.
    pub wakes: u64,
}
