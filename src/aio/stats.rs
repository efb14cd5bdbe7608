//! [`Stats`].

use super::{Backend, Context};
use crate::{credits, refcount, ring, wait};

/// What a context has done so far, off its fast paths.
///
/// # Staleness
///
/// Each number is exact only while nobody uses the context, and they are not of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Requests in flight or unread, as [`Context::outstanding`].
    pub outstanding: u32,
    /// Batches of tags moved between CPUs' stocks and the pool.
    pub tags: credits::Stats,
    /// Completers that found their lane in use or full.
    pub queue: ring::Stats,
    /// Readers that slept and were woken.
    pub wait: wait::Stats,
    /// Of the whole process: counts that have become per CPU because they were shared.
    pub upgrades: u64,
}

impl<B: Backend> Context<B> {
    /// What has happened so far. Wait-free; nothing is stopped for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::{Context, Request, backend::Null};
    /// let context = Context::new(8, Null)?;
    /// context.submit(Request::nop())?;
    /// let stats = context.stats();
    /// assert_eq!((stats.outstanding, stats.tags.refills), (1, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Costs
    ///
    /// With the feature `stats`, an uncontended locked instruction for every batch of tags, sleep, wake-up and lane
    /// passed over; without it nothing.
    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        Stats {
            outstanding: self.outstanding(),
            tags: shared.tags.stats(),
            queue: shared.queue.stats(),
            wait: shared.wait.stats(),
            upgrades: refcount::upgrades(),
        }
    }
}
