//! [`Threads`]: real I/O on a pool of threads.

mod pool;
pub(super) mod sys;

use crate::aio::{Backend, Completion, Finished, Submitted};
use crate::sync::Arc;
use crate::sync::time::Duration;
use pool::Pool;
use std::io;

#[cfg(feature = "stats")]
pub use pool::ThreadsStats;

/// Carries out every operation, on any file, with threads: as many as are busy at once and one more, up to a number.
///
/// On Linux a read whose data is in the page cache is done by its submitter, without the pool
/// (`RWF_NOWAIT`), and so is, on Unix, a poll of what is ready; everything else is queued. Submitting blocks
/// on the queue's mutex, for a few instructions. Requests are taken in order, but complete in any. One
/// thread is busy with one request until the system call or the custom operation returns: a read or a poll
/// of an empty pipe holds its thread until somebody writes. A custom operation that panics ends with an
/// error, and its thread goes on.
///
/// A request that no thread has begun can be cancelled, one that runs cannot.
///
/// Interrupted calls are repeated. A short transfer is reported as it is.
///
/// # Threads
///
/// The first is started by [`new`](Self::new), each other by one that finds itself to be the last to have work, so all
/// have the signal mask, the CPUs and the priority of who made the pool, and no submitter pays for them. If the system
/// gives no more, those that there are go on, and ask again later. A thread without work for
/// [`keep_idle`](Self::keep_idle) ends, as long as there are [`min_threads`](Self::min_threads) left. The one that has
/// worked last is the first to work again.
///
/// Whoever drops the pool, with its context, waits for its threads to end, but a thread of its own.
///
/// # Costs
///
/// The threads. A queued request costs a move between CPUs and back, 10 µs and more. A batch wakes one thread at most,
/// at its [end](Backend::flush), and none while one is on its way; a thread that was woken and leaves something in the
/// queue wakes the next.
///
/// # When not to use it
///
/// For much I/O that waits for devices: a ring of the kernel's does the same with a quarter of the CPU's time.
#[derive(Debug)]
pub struct Threads {
    pool: Arc<Pool>,
    inline_cached: bool,
}

impl Threads {
    /// A pool of up to `threads` (at least 1). One is started at once.
    ///
    /// # Errors
    ///
    /// What the system says if it does not even give one.
    pub fn new(threads: usize) -> io::Result<Self> {
        let pool = Arc::new(Pool::new(threads.max(1)));
        Pool::begin(&pool)?;
        Ok(Self { pool, inline_cached: true })
    }

    /// A pool of up to four threads per available CPU: enough to keep a disk busy while most of them wait for it.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn sized() -> io::Result<Self> {
        Self::new(4 * num_cpus::get())
    }

    /// Whether submitters do reads that find their data in the page cache, and polls of what is ready. On by
    /// default.
    ///
    /// Not those of files that were opened with `O_DIRECT`. How a file was opened is asked once for 32 reads of each
    /// descriptor: as many may be done on the wrong side if its number comes to mean another file.
    ///
    /// Writes always go to the pool: ext4 does none without waiting (Linux 6.18).
    pub fn inline_cached(mut self, inline: bool) -> Self {
        self.inline_cached = inline;
        self
    }

    /// How many threads stay, once started, however long they have no work; 1 by default and at least.
    pub fn min_threads(self, threads: usize) -> Self {
        self.pool.set_min(threads.max(1));
        self
    }

    /// How long a thread without work stays; 10 seconds by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::{Context, backend::Threads};
    /// use std::time::Duration;
    /// // Up to a hundred for bursts, and not for long.
    /// let threads = Threads::new(100)?.min_threads(4).keep_idle(Duration::from_secs(1));
    /// let context = Context::new(1000, threads)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn keep_idle(self, time: Duration) -> Self {
        self.pool.set_keep_idle(time);
        self
    }

    /// How many threads there are.
    ///
    /// # Staleness
    ///
    /// Out of date as soon as it is read: for reports, not for deciding.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// What the pool has done so far.
    ///
    /// # Staleness
    ///
    /// Exact only while nothing is submitted and no thread works.
    #[cfg(feature = "stats")]
    pub fn stats(&self) -> ThreadsStats {
        self.pool.stats()
    }
}

impl Backend for Threads {
    fn submit(&self, mut work: Completion) -> Submitted {
        if self.inline_cached
            && let Some(result) = sys::try_cached(work.request_mut())
        {
            return Submitted::Done(work.finish(result));
        }
        self.pool.push(work.cancellable());
        Submitted::Queued
    }

    #[inline]
    fn flush(&self) {
        Pool::flush(&self.pool);
    }

    /// Begins what a batch holds back that did not come to its end.
    #[inline]
    fn poll(&self, _: &mut dyn FnMut(Finished)) {
        Pool::flush(&self.pool);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.pool.close();
    }
}
