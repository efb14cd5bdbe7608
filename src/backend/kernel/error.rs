//! Why there is no kernel AIO: [`KernelError`].

use rustix::io::Errno;
use std::{error, fmt, fs, io};

/// Why a [`Kernel`](super::Kernel) was not made. In each case [`Threads`](crate::backend::Threads) does the same work.
#[derive(Debug)]
#[non_exhaustive]
pub enum KernelError {
    /// The kernel was built without AIO, or a filter says so.
    Missing,
    /// It is forbidden here, by a container's filter of system calls.
    Forbidden,
    /// The requests that all contexts of the system may have in flight together, `fs.aio-max-nr`, are given away.
    Exhausted {
        /// How many were asked for.
        asked: u32,
        /// How many are given away, `fs.aio-nr`, if that can be read.
        used: Option<u64>,
        /// How many there are, `fs.aio-max-nr`, if that can be read.
        max: Option<u64>,
    },
    /// There is no memory for the ring.
    Memory,
    /// The process, or the system, has as many descriptors as it may.
    Descriptors,
    /// Anything else that the system says.
    System(io::Error),
}

impl KernelError {
    /// Why a context for so many requests was not made.
    pub(super) fn of_setup(asked: u32, error: io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::AGAIN) => {
                Self::Exhausted { asked, used: setting("aio-nr"), max: setting("aio-max-nr") }
            }
            _ => Self::from(error),
        }
    }
}

/// A number that the kernel tells of itself.
fn setting(name: &str) -> Option<u64> {
    fs::read_to_string(format!("/proc/sys/fs/{name}")).ok()?.trim().parse().ok()
}

impl From<io::Error> for KernelError {
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

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the kernel has no AIO; use `Threads`"),
            Self::Forbidden => f.write_str(
                "the kernel's AIO is forbidden here; allow io_setup, io_submit, io_getevents, io_cancel and \
                 io_destroy in the container's filter, or use `Threads`",
            ),
            Self::Exhausted { asked, used, max } => {
                write!(f, "{asked} requests are more than the system has left: fs.aio-max-nr is ")?;
                let number = |f: &mut fmt::Formatter<'_>, number: &Option<u64>| match number {
                    Some(number) => write!(f, "{number}"),
                    None => f.write_str("unknown"),
                };
                number(f, max)?;
                f.write_str(", and in use, by fs.aio-nr, ")?;
                number(f, used)?;
                f.write_str("; raise fs.aio-max-nr, ask for fewer, or use `Threads`")
            }
            Self::Memory => {
                f.write_str("there is no memory for the kernel's ring; ask for fewer requests in flight")
            }
            Self::Descriptors => {
                f.write_str("no descriptor is left for an eventfd; close some, or raise RLIMIT_NOFILE")
            }
            Self::System(error) => write!(f, "io_setup: {error}"),
        }
    }
}

impl error::Error for KernelError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::System(error) => Some(error),
            _ => None,
        }
    }
}
