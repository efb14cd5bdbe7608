//! [`Auto`]: the best backend that is to be had.

use super::Threads;
use crate::aio::{Backend, Completion, Finished, RequestId, Submitted};
use std::{fmt, io};

#[cfg(ioctx_linux)]
use super::Kernel;
#[cfg(all(ioctx_linux, feature = "uring"))]
use super::Uring;
#[cfg(ioctx_linux)]
use crate::sync::time::Instant;
#[cfg(ioctx_linux)]
use crate::wait::Outcome;
#[cfg(ioctx_linux)]
use std::os::fd::BorrowedFd;
#[cfg(ioctx_linux)]
use std::task::Waker;

/// Carries every operation out by the first of `Uring`, `Kernel` and [`Threads`] that can be made here, and says of each
/// why it was taken or not. As quick as the one it has; a call goes through one branch more.
///
/// What that one cannot do on this kernel it leaves to threads by itself, operation by operation: that is no reason to
/// pass it over.
///
/// # When not to use it
///
/// Who knows his machine, or wants one backend's options, makes that one.
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Context, Request};
/// use ioctx::backend::Auto;
/// let backend = Auto::new(64)?;
/// println!("{backend}");
/// let context = Context::new(64, backend)?;
/// context.submit(Request::write(tempfile::tempfile()?, b"hello".to_vec(), 0))?;
/// let mut events = Vec::new();
/// context.get_events(1, 64, None, &mut events)?;
/// assert_eq!(events[0].result.as_ref().unwrap(), &5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Auto {
    chosen: Chosen,
    tried: Vec<Tried>,
}

/// A backend that was looked at, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tried {
    /// `io_uring`, `kernel AIO` or `threads`.
    pub name: &'static str,
    /// `None` if it was taken; otherwise why not, and what can be done about it.
    pub why_not: Option<String>,
}

#[derive(Debug)]
enum Chosen {
    #[cfg(all(ioctx_linux, feature = "uring"))]
    Uring(Uring),
    #[cfg(ioctx_linux)]
    Kernel(Box<Kernel>),
    Threads(Threads),
}

impl Auto {
    /// For contexts of this capacity.
    ///
    /// # Errors
    ///
    /// What the system says if it does not even give a thread.
    pub fn new(capacity: u32) -> io::Result<Self> {
        let mut tried = Vec::new();
        let chosen = match Chosen::of_the_kernel(capacity, &mut tried) {
            Some(chosen) => chosen,
            None => {
                tried.push(Tried { name: "threads", why_not: None });
                Chosen::Threads(Threads::sized()?)
            }
        };
        Ok(Self { chosen, tried })
    }

    /// Those that were looked at, the one that was taken last.
    pub fn tried(&self) -> &[Tried] {
        &self.tried
    }
}

impl Chosen {
    /// One that the kernel carries out, if there is one.
    #[cfg(ioctx_linux)]
    fn of_the_kernel(capacity: u32, tried: &mut Vec<Tried>) -> Option<Self> {
        fn made<B, E: fmt::Display>(
            name: &'static str,
            made: Result<B, E>,
            tried: &mut Vec<Tried>,
        ) -> Option<B> {
            let (backend, why_not) = match made {
                Ok(backend) => (Some(backend), None),
                Err(why) => (None, Some(why.to_string())),
            };
            tried.push(Tried { name, why_not });
            backend
        }

        #[cfg(feature = "uring")]
        if let Some(uring) = made("io_uring", Uring::new(capacity), tried) {
            return Some(Self::Uring(uring));
        }
        #[cfg(not(feature = "uring"))]
        tried.push(Tried {
            name: "io_uring",
            why_not: Some("it is not built in; build with the feature `uring`".into()),
        });
        made("kernel AIO", Kernel::new(capacity), tried).map(|kernel| Self::Kernel(Box::new(kernel)))
    }

    #[cfg(not(ioctx_linux))]
    fn of_the_kernel(_: u32, tried: &mut Vec<Tried>) -> Option<Self> {
        for name in ["io_uring", "kernel AIO"] {
            tried.push(Tried { name, why_not: Some("it is for Linux, and this is built without".into()) });
        }
        None
    }
}

/// Calls the one that was taken.
macro_rules! with {
    ($self:expr, $backend:ident => $call:expr) => {
        match &$self.chosen {
            #[cfg(all(ioctx_linux, feature = "uring"))]
            Chosen::Uring($backend) => $call,
            #[cfg(ioctx_linux)]
            Chosen::Kernel($backend) => $call,
            Chosen::Threads($backend) => $call,
        }
    };
}

impl Backend for Auto {
    fn submit(&self, work: Completion) -> Submitted {
        with!(self, backend => backend.submit(work))
    }

    fn flush(&self) {
        with!(self, backend => backend.flush());
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        with!(self, backend => backend.poll(done));
    }

    #[cfg(ioctx_linux)]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        with!(self, backend => backend.descriptor())
    }

    #[cfg(ioctx_linux)]
    fn park(
        &self,
        wanted: u32,
        deadline: Option<Instant>,
        announce: &mut dyn FnMut(u32, &Waker) -> bool,
    ) -> Option<Outcome> {
        with!(self, backend => backend.park(wanted, deadline, announce))
    }

    #[cfg(ioctx_linux)]
    fn prepare_sleep(&self) -> Option<BorrowedFd<'_>> {
        with!(self, backend => backend.prepare_sleep())
    }

    fn cancel(&self, id: RequestId) -> bool {
        with!(self, backend => backend.cancel(id))
    }

    fn cancel_all(&self) {
        with!(self, backend => backend.cancel_all());
    }
}

impl fmt::Display for Auto {
    /// A line for each that was looked at.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Tried { name, why_not }) in self.tried.iter().enumerate() {
            let end = if n == 0 { "" } else { "\n" };
            match why_not {
                None => write!(f, "{end}{name}: taken")?,
                Some(why) => write!(f, "{end}{name}: {why}")?,
            }
        }
        Ok(())
    }
}
