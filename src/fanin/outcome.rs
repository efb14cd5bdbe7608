//! What became of a request: [`Outcome`], and who waits for it: [`Waiter`].

use crate::sync::time::Instant;
use crate::sync::{Arc, Mutex};
use crate::wait::Gate;
use std::{fmt, io};

/// `ECANCELED`.
#[cfg(unix)]
const CANCELED: i32 = rustix::io::Errno::CANCELED.raw_os_error();
/// `ERROR_OPERATION_ABORTED`.
#[cfg(not(unix))]
const CANCELED: i32 = 995;

/// What is reported for what was dropped.
pub(super) fn canceled() -> io::Error {
    io::Error::from_raw_os_error(CANCELED)
}

/// What became of a request of many parts.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The bytes from the beginning up to the first part, in the order in which they were handed out, that was not
    /// whole, and what that one achieved; or all.
    pub bytes: usize,
    /// Why that part was not whole. `None` if all were, or it just was short, as at the end of a file.
    pub error: Option<io::Error>,
}

impl Outcome {
    /// As a system call would say it: the bytes, if there are any, or the error.
    ///
    /// # Errors
    ///
    /// The [`error`](Self::error), if there are no bytes.
    pub fn into_result(self) -> io::Result<usize> {
        match self.error {
            Some(error) if self.bytes == 0 => Err(error),
            _ => Ok(self.bytes),
        }
    }
}

impl From<io::Result<usize>> for Outcome {
    fn from(result: io::Result<usize>) -> Self {
        match result {
            Ok(bytes) => Self { bytes, error: None },
            Err(error) => Self { bytes: 0, error: Some(error) },
        }
    }
}

/// Waits for the outcome of a request. From [`FanIn::waited`](super::FanIn::waited).
///
/// Dropping it waits for nothing: the outcome is dropped when it is there.
pub struct Waiter(pub(super) Arc<Waited>);

#[derive(Default)]
pub(super) struct Waited {
    outcome: Mutex<Option<Outcome>>,
    there: Gate,
}

impl Waited {
    pub(super) fn set(&self, outcome: Outcome) {
        *self.outcome.lock() = Some(outcome);
        self.there.open();
    }
}

impl Waiter {
    /// Sleeps until the request is complete. Blocking.
    ///
    /// # Errors
    ///
    /// Itself: `deadline` has passed.
    pub fn wait(self, deadline: Option<Instant>) -> Result<Outcome, Self> {
        if self.0.there.wait(deadline) {
            // Set before the gate was opened, and taken by nobody else.
            Ok(self.0.outcome.lock().take().unwrap_or_default())
        } else {
            Err(self)
        }
    }
}

impl fmt::Debug for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiter").field("complete", &self.0.there.is_open()).finish_non_exhaustive()
    }
}
