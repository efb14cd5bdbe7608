//! What carries requests out. Each implements [`Backend`](crate::aio::Backend); the context names none of
//! them.
//!
//! | backend | carries out | where |
//! |---|---|---|
//! | [`Null`] | nothing, like `/dev/null` | in the submitter |
//! | [`Zero`] | nothing, like `/dev/zero` | in the submitter |
//! | [`Threads`] | real I/O on any file, polls, operations of the user's own | what is cached in the submitter, the rest on a pool |

mod null;
mod threads;

pub use null::{Null, Zero};
pub use threads::Threads;
