//! Why there is no `io_uring`: [`UringError`].

use rustix::io::Errno;
use std::{error, fmt, io};

/// Why a [`Uring`](super::Uring) was not made. In each case [`Threads`](crate::backend::Threads) does the same work.
#[derive(Debug)]
#[non_exhaustive]
pub enum UringError {
    /// The kernel was built without `io_uring`, or is older than it, or a filter says so.
    Missing,
    /// It is forbidden here: by a container's filter of system calls, or by `kernel.io_uring_disabled`.
    Forbidden,
    /// There is no memory for the rings, or their locked memory is limited.
    Memory,
    /// The process, or the system, has as many descriptors as it may.
    Descriptors,
    /// The kernel has an `io_uring` that lacks this; Linux 5.12 has all.
    TooOld(&'static str),
    /// Anything else that the system says.
    System(io::Error),
}

impl From<io::Error> for UringError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSYS) => Self::Missing,
            Some(Errno::PERM | Errno::ACCESS) => Self::Forbidden,
            Some(Errno::NOMEM) => Self::Memory,
            Some(Errno::MFILE | Errno::NFILE) => Self::Descriptors,
            _ => Self::System(error),
        }
    }
}

impl fmt::Display for UringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the kernel has no io_uring; use `Threads`"),
            Self::Forbidden => f.write_str(
                "io_uring is forbidden here; allow io_uring_setup, io_uring_enter and io_uring_register in the \
                 container's filter, look at kernel.io_uring_disabled, or use `Threads`",
            ),
            Self::Memory => f.write_str(
                "there is no memory for the rings; ask for fewer requests in flight, or raise RLIMIT_MEMLOCK",
            ),
            Self::Descriptors => {
                f.write_str("no descriptor is left for the rings; close some, or raise RLIMIT_NOFILE")
            }
            Self::TooOld(what) => {
                write!(f, "the kernel's io_uring has no {what}; use Linux 5.12 or later, or `Threads`")
            }
            Self::System(error) => write!(f, "io_uring: {error}"),
        }
    }
}

impl error::Error for UringError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::System(error) => Some(error),
            _ => None,
        }
    }
}
