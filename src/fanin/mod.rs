//! One request carried out as many parts, and completed exactly once.
//!
//! A submitter cuts a request into [`Part`]s, hands them to whoever carries them out, in any order and on any thread,
//! and says when it has handed out the last one. Whoever is the last to be finished, a part or the submitter,
//! completes the request: the count of those who are not begins at 1, for the submitter, so that nothing completes
//! while parts are still to come.
//!
//! # What is bounded
//!
//! A part takes a [credit](crate::credits::Credits) with it and, through [`FanIn::try_part`], whatever memory it needs.
//! Both come back when the part is *reaped*: by the submitter, every 64 parts and whenever credits have run out, while
//! it is still submitting, and so that the memory is still in its cache; or, when it is not submitting any more, by
//! whoever finishes the part. So however long the request is, there are never more parts, nor memory behind them, than
//! credits.
//!
//! # What is reported
//!
//! Bytes and error, apart: what a loop over the parts would have achieved that stops at the first one that is not
//! whole. Parts behind that one may have been transferred, too, but nobody can rely on it. See [`Outcome`].
//!
//! # Where it completes
//!
//! In the completer: [`FanIn::new`] takes what is called, by whoever is last. In one who waits: [`FanIn::waited`]. In a
//! [run list](crate::runlist): what is called kicks a task.
//!
//! # Orderings
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `fanin.count.put` | `AcqRel` | itself | whoever is last sees what the others did, and frees what they shared |
//! | `fanin.done.push` | `Release` | `fanin.done.take`, `fanin.done.close` | a finished part, and what was done with its memory |
//! | `fanin.done.take` | `Acquire` | `fanin.done.push` | as above |
//! | `fanin.done.close` | `Acquire` | `fanin.done.push` | as above |
//!
//! Source: `struct dio` of asynchronous direct I/O (2002: one count for the submitter and one for each bio,
//! `dio_bio_reap`), `file_endio_t` (2007: count and error apart).

mod fan;
mod outcome;
mod part;

pub use fan::FanIn;
pub use outcome::{Outcome, Waiter};
pub use part::Part;
