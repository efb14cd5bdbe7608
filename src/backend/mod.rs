//! What carries requests out. Each implements [`Backend`](crate::aio::Backend); the context names none of
//! them.
//!
//! | backend | carries out | where |
//! |---|---|---|
//! | [`Null`] | nothing, like `/dev/null` | in the submitter |
//! | [`Zero`] | nothing, like `/dev/zero` | in the submitter |
//! | [`Auto`] | the same, by the best of those below and [`Threads`] that can be made here, and says why | as that one |
//! | [`Nonblocking`] | real I/O on any file | pipes and sockets in whoever submits or waits, the rest as [`Threads`] |
//! | [`Threads`] | real I/O on any file, polls, operations of the user's own | what is cached in the submitter, the rest on a pool |
//!
//! On Linux there are also `Kernel`, direct I/O and polls by the kernel's AIO, and, with the feature `uring`, `Uring`:
//! every operation on any file, in the kernel; and `Direct`, which has one of them carry out large direct reads and
//! writes in parts. With the feature `conformance` there are the checks that each of them
//! has to pass.

mod auto;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(ioctx_linux)]
mod direct;
#[cfg(ioctx_linux)]
mod held_back;
#[cfg(ioctx_linux)]
mod kernel;
mod nonblocking;
#[cfg(ioctx_linux)]
mod now;
mod null;
mod threads;
#[cfg(all(ioctx_linux, feature = "uring"))]
mod uring;

pub use auto::{Auto, Tried};
#[cfg(ioctx_linux)]
pub use direct::{Direct, Peak};
#[cfg(ioctx_linux)]
pub use kernel::{Kernel, KernelError};
pub use nonblocking::Nonblocking;
pub use null::{Null, Zero};
pub use threads::Threads;
#[cfg(feature = "stats")]
pub use threads::ThreadsStats;
#[cfg(all(ioctx_linux, feature = "uring"))]
pub use uring::{RegisteredBuffer, Uring, UringError};
