//! Operations of the user's own: [`Operation`], [`Custom`].

use crate::sync::caught;
use std::any::Any;
use std::{fmt, io};

/// Something to be done by a backend that runs its users' code, as [`Threads`](crate::backend::Threads) does.
///
/// Every `FnMut() -> io::Result<usize>` is one. An own type comes back with what it found out: see
/// [`Custom::downcast`].
///
/// It may block, and submit to its own context; it must not wait there for events that its backend can only
/// bring once it has returned, nor drop that context.
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Context, Op, Operation, Request};
/// use ioctx::backend::Threads;
///
/// /// How many bytes a directory's files have.
/// struct Usage {
///     path: std::path::PathBuf,
///     files: usize,
/// }
///
/// impl Operation for Usage {
///     fn run(&mut self) -> std::io::Result<usize> {
///         let mut bytes = 0;
///         for entry in std::fs::read_dir(&self.path)? {
///             bytes += entry?.metadata()?.len() as usize;
///             self.files += 1;
///         }
///         Ok(bytes)
///     }
/// }
///
/// let context = Context::new(8, Threads::new(1)?)?;
/// let directory = tempfile::tempdir()?;
/// std::fs::write(directory.path().join("file"), b"text")?;
/// context.submit(Request::custom(Usage { path: directory.path().into(), files: 0 }))?;
/// let mut events = Vec::new();
/// context.get_events(1, 8, None, &mut events)?;
/// let event = events.remove(0);
/// let Op::Custom(custom) = event.request.op else { panic!() };
/// assert_eq!((event.result?, custom.downcast::<Usage>().unwrap().files), (4, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Operation: Any + Send {
    /// Does it. The result becomes the event's; an error that does not carry the system's number is reported
    /// as `EIO`.
    fn run(&mut self) -> io::Result<usize>;
}

impl<F: FnMut() -> io::Result<usize> + Send + 'static> Operation for F {
    fn run(&mut self) -> io::Result<usize> {
        self()
    }
}

/// An [`Operation`] of any type, boxed.
pub struct Custom(Box<dyn Operation>);

// SAFETY: a shared one gives access to nothing but the address, so that an operation need not be `Sync`.
unsafe impl Sync for Custom {}

impl Custom {
    /// Boxes an operation.
    pub fn new(operation: impl Operation) -> Self {
        Self(Box::new(operation))
    }

    /// Runs it, for backends: as long as it takes, in the calling thread.
    ///
    /// # Errors
    ///
    /// Its own; and one without a number, for an event that says `EIO`, if it panics. The panic ends here,
    /// and the operation can be had back in whatever state that left it.
    pub fn run(&mut self) -> io::Result<usize> {
        caught(|| self.0.run()).unwrap_or_else(|| Err(io::Error::other("the operation panicked")))
    }

    /// The operation, if it is a `T`; itself if not.
    ///
    /// # Errors
    ///
    /// Itself, then.
    pub fn downcast<T: Operation>(self) -> Result<Box<T>, Self> {
        let operation: &dyn Any = &*self.0;
        if !operation.is::<T>() {
            return Err(self);
        }
        let operation: Box<dyn Any> = self.0;
        Ok(operation.downcast().expect("just looked at"))
    }
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Custom").finish_non_exhaustive()
    }
}
