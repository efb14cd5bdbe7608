//! [`Gate`]: opens once, for all.

use crate::sync::time::{Instant, expired};
use crate::sync::{Condvar, Mutex};

/// Closed until somebody opens it, and open ever after. Blocking.
///
/// Whoever passes sees everything that was done before it was opened.
///
/// # Examples
///
/// ```
/// let gate = ioctx::wait::Gate::new();
/// assert!(!gate.wait(Some(std::time::Instant::now())));
/// gate.open();
/// assert!(gate.wait(None));
/// ```
#[derive(Debug, Default)]
pub struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// Closed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens it and wakes everybody. Opening it again does nothing.
    ///
    /// The gate is touched until this returns: whoever may free it when it opens shares its ownership with
    /// the opener.
    pub fn open(&self) {
        *self.open.lock() = true;
        self.opened.notify_all();
    }

    /// Whether it is open. `false` may be out of date.
    pub fn is_open(&self) -> bool {
        *self.open.lock()
    }

    /// Sleeps until it is open or `deadline` has passed; returns whether it is open.
    pub fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut open = self.open.lock();
        while !*open && !expired(deadline) {
            open = self.opened.wait_until(open, deadline);
        }
        *open
    }
}
