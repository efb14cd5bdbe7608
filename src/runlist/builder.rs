//! How a [`RunList`] is to be: [`Builder`].

use super::list::{RunList, Shared};
use super::task::Run;
use crate::sync::Arc;
use crate::sync::time::Duration;

/// Who runs tasks, and when. By default everybody: submitters up to 16 each time, reapers all there is, and the worker
/// after 1 ms while somebody waits, or 100 ms.
///
/// # Examples
///
/// ```
/// use ioctx::runlist::{Builder, RunList};
/// use std::time::Duration;
/// let list: RunList<fn()> = Builder::new()
///     .help_on_submit(4)
///     .help_on_reap(false)
///     .worker_delay(Duration::from_micros(50), Duration::from_millis(10))
///     .build();
/// assert!(!list.has_worker());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    pub(super) submit: usize,
    pub(super) reap: bool,
    pub(crate) worker: bool,
    pub(crate) busy: Duration,
    pub(crate) idle: Duration,
    pub(super) linger: Duration,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// As described above.
    pub fn new() -> Self {
        Self {
            submit: 16,
            reap: true,
            worker: true,
            busy: Duration::from_millis(1),
            idle: Duration::from_millis(100),
            linger: Duration::from_secs(1),
        }
    }

    /// How many tasks [`RunList::help_on_submit`] runs at the most: what a submit may cost more. 0: none.
    pub fn help_on_submit(mut self, most: usize) -> Self {
        self.submit = most;
        self
    }

    /// Whether [`RunList::help_on_reap`] runs tasks. If not, it has the worker hurry.
    pub fn help_on_reap(mut self, help: bool) -> Self {
        self.reap = help;
        self
    }

    /// Whether there may be a worker. Without, tasks wait until somebody helps, if it takes for ever.
    pub fn worker(mut self, worker: bool) -> Self {
        self.worker = worker;
        self
    }

    /// How long tasks wait for others before the worker runs them: while somebody waits, and while nobody does.
    pub fn worker_delay(mut self, busy: Duration, idle: Duration) -> Self {
        (self.busy, self.idle) = (busy, idle);
        self
    }

    /// How long the worker stays when it has nothing to do. The next one is made when it is needed.
    pub fn worker_linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// A list without tasks.
    pub fn build<T: Run>(self) -> RunList<T> {
        RunList(Arc::new(Shared::new(self)))
    }
}
