//! What can go wrong. Each error gives back what it was given.

use super::{Request, RequestId};
use std::{error, fmt, io};

/// An argument that no backend could accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Argument {
    /// `offset`, or the end of the transfer, is beyond `i64::MAX`.
    Offset,
    /// The buffers together are longer than `isize::MAX`.
    Length,
    /// More than [`MAX_SEGMENTS`](super::MAX_SEGMENTS) buffers.
    Segments,
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offset => {
                "`offset` plus the length of the buffers is beyond i64::MAX; ask for an earlier range"
            }
            Self::Length => "the buffers together are longer than isize::MAX; split the request",
            Self::Segments => "`bufs` has more than 1024 buffers; split the request",
        })
    }
}

/// Why a request was not accepted.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// As many requests as the context has room for are in flight or wait to be read: call `get_events`.
    Full,
    /// The context was destroyed.
    Dying,
    /// This argument is wrong.
    Invalid(Argument),
    /// The backend would not take it.
    Refused(io::Error),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the context is full; read some events and submit again"),
            Self::Dying => f.write_str("the context was destroyed; submit to another"),
            Self::Invalid(argument) => argument.fmt(f),
            Self::Refused(error) => write!(f, "the backend refused the request: {error}"),
        }
    }
}

/// A request was not accepted, and why.
#[derive(Debug)]
pub struct SubmitError {
    /// The request, untouched.
    pub request: Request,
    /// Why.
    pub reason: Reason,
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl error::Error for SubmitError {}

/// The first request of a batch was not accepted, and why. All requests are still in the batch.
#[derive(Debug)]
pub struct BatchError(pub Reason);

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl error::Error for BatchError {}

/// Why no events were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetEventsError {
    /// More events were asked for at least than at most.
    Range {
        /// At least.
        min: usize,
        /// At most.
        max: usize,
    },
    /// The context was destroyed, every request has completed and every event was read.
    Dying,
    /// A signal handler ran while there was no event to return.
    Interrupted,
}

impl fmt::Display for GetEventsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { min, max } => write!(f, "`min` ({min}) is above `max` ({max})"),
            Self::Dying => f.write_str("the context was destroyed and has no events left"),
            Self::Interrupted => f.write_str("interrupted by a signal before the first event; call again"),
        }
    }
}

impl error::Error for GetEventsError {}

/// Why a request was not cancelled. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelError {
    /// The context has no request of this name in flight: it is finished, or never was, or is of another context.
    Unknown,
    /// The request is being carried out, or not yet where it could be cancelled. Its event will come.
    Running,
}

impl fmt::Display for CancelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => {
                "no such request is in flight; its event has come, or the id is of another context"
            }
            Self::Running => "the request is being carried out; wait for its event",
        })
    }
}

impl error::Error for CancelError {}

/// A request in flight, in an error that says what is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InFlight {
    /// What [`submit`](super::Context::submit) has returned, or will.
    pub id: RequestId,
    /// The user data with which it was submitted.
    pub user_data: u64,
}

/// Why a context is not, or not yet, destroyed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DestroyError {
    /// Somebody else destroys it, or has.
    Already,
    /// Requests are still in flight. The context accepts no new ones; `wait_destroyed` and dropping it wait
    /// for them.
    TimedOut {
        /// How many.
        in_flight: u64,
        /// Some of them, at most 8; those that were finishing meanwhile may be missing.
        named: Vec<InFlight>,
    },
}

impl fmt::Display for DestroyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Already => f.write_str("the context was destroyed before"),
            Self::TimedOut { in_flight, named } => {
                write!(f, "{in_flight} requests are still in flight")?;
                for (place, request) in named.iter().enumerate() {
                    let before = if place == 0 { ", among them those with user data" } else { "," };
                    write!(f, "{before} {}", request.user_data)?;
                }
                f.write_str("; keep the context until they complete")
            }
        }
    }
}

impl error::Error for DestroyError {}

/// Why a context was not created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateError {
    /// The capacity is zero or above [`MAX_CAPACITY`](super::MAX_CAPACITY).
    Capacity(u32),
    /// There are no completion lanes, or more than [`MAX_LANES`](super::MAX_LANES).
    Lanes(u32),
}

impl fmt::Display for CreateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, most, asked) = match self {
            Self::Capacity(asked) => ("capacity", super::MAX_CAPACITY, asked),
            Self::Lanes(asked) => ("lanes", super::MAX_LANES, asked),
        };
        write!(f, "`{name}` must be between 1 and {most}, {asked} asked for")
    }
}

impl error::Error for CreateError {}
