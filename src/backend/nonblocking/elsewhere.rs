//! [`Nonblocking`] where calls cannot be asked not to wait: threads.

use crate::aio::{Backend, Completion, Finished, Submitted};
use crate::backend::Threads;
use crate::runlist::Builder;
use std::io;

/// Carries out every operation, on any file, as [`Threads`] does: here calls cannot be asked not to wait. On Linux
/// pipes and sockets need no threads.
#[derive(Debug)]
pub struct Nonblocking(Threads);

impl Nonblocking {
    /// A pool of threads.
    ///
    /// # Errors
    ///
    /// As [`Threads::new`].
    pub fn new() -> io::Result<Self> {
        Self::with(Builder::new())
    }

    /// The same: there are no tasks to be run.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn with(_: Builder) -> io::Result<Self> {
        Threads::sized().map(Self)
    }

    /// Without effect: every byte goes through its pipe.
    #[must_use]
    pub fn hand_over(self, _: bool) -> Self {
        self
    }
}

impl Backend for Nonblocking {
    fn submit(&self, work: Completion) -> Submitted {
        self.0.submit(work)
    }

    fn flush(&self) {
        self.0.flush();
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        self.0.poll(done);
    }
}
