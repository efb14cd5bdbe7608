//! Admission to a bounded resource without a shared counter.
//!
//! [`Credits`] hands out counts, [`Tags`] hands out distinct small integers: a tag is a credit with an
//! identity. [`Handles`] are tags that may be left in plain numbers. All are built by [`Builder`], or `new`,
//! and keep a global pool and a stock per CPU. A take is served from this CPU's stock; when that is empty a
//! batch is moved from the pool, and when a put finds two batches there, one is moved back. So a shared line
//! is written once per batch, not once per operation.
//!
//! # The law
//!
//! `pool + sum of stocks + handed out == n`, at every moment at which no move is under way. After a resize to
//! fewer than are handed out, the pool of [`Credits`] has less than nothing; [`Tags`] that are too many count until
//! somebody would get them.
//!
//! # Exactness
//!
//! All `n` credits can be out at once, from any CPU. Before a take is refused, every stock is closed and emptied into
//! the pool. From then on, until the stocks are opened again, the pool's one word says how many units are free: a
//! single load of it proves that there are too few. The 2012 allocator, which this descends from, refused while up
//! to half of its slots lay in the stocks of other CPUs; [`Policy::Aio2012`] still does.
//!
//! Between the pool and a stock units are in neither for a moment. Whoever moves some says so in the pool's word, in
//! the same access that takes them out, and a sweep waits until nobody does.
//!
//! # Running out
//!
//! To close stocks that sections change takes a system call. So when units have run out, stocks are opened again to
//! locked instructions only, to which they can be closed by one instruction each: as without restartable sequences. They
//! go back to sections when no units have run out for 100 µs; twice as long each time they run out again soon. So a
//! resource that hovers about its limit costs an uncontended locked instruction, and a batch moved now and then.
//!
//! While all are out the stocks are closed: a refusal is two loads, and whoever keeps asking an empty pool costs the
//! others nothing.
//!
//! # Waiting
//!
//! Whoever waits for units stands in a queue, under a lock, and says so in the pool's word; until nobody waits the stocks
//! stay closed. So every unit that comes back goes by the pool, and whoever brings it sees that somebody waits in the
//! same access: no wake-up is lost, and while nobody waits a put pays nothing for it. Units go to whoever has waited
//! longest, taken from the pool by the one who brought them, so that one who does not wait cannot come between; or, if
//! it is to be [unfair](Builder::unfair), who waits is only told, and asks again. Whoever leaves the queue after it was
//! picked hands on what was meant for it.
//!
//! # Progress
//!
//! Takes and puts that a stock can serve are wait-free, by sections, or lock-free. Those that move a batch, or find the
//! stocks closed, are lock-free. A take that finds the pool empty and stocks open sweeps, or waits for who does: a
//! system call, where there are sections, and a wait for those who are in the middle of a move or, without sections,
//! of a take or put of a tag. Under a real-time scheduling class these must not be preempted for ever, and a signal
//! handler must not take at all: it may have interrupted one of them. It may put, unless somebody waits for units or
//! resizes: then a put blocks for a moment on the queue's lock.
//!
//! # Orderings
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `credits.pool.take` | `Acquire` | `credits.pool.add` | what the former holders did happens before what the next ones do |
//! | `credits.pool.add` | `Release` | `credits.pool.take`, `credits.pool.sweep`, `credits.pool.movers`, `credits.pool.open` | as above; ends a move, a sweep, an opening |
//! | `credits.pool.join` | `Acquire` | `credits.pool.add` | as `credits.pool.take`, for one who was going to wait |
//! | `credits.pool.serve` | `Acquire` | `credits.pool.add` | as `credits.pool.take`, on behalf of one who waits; its lock or parker passes it on |
//! | `credits.pool.put` | `AcqRel` | `credits.pool.take`, `credits.pool.add` | as both, where a put opens the stocks |
//! | `credits.pool.sweep` | `Acquire` | `credits.pool.add` | one sweep sees the stocks as the last opening left them |
//! | `credits.pool.movers` | `Acquire` | `credits.pool.add` | the sweep sees what those who moved units did with them |
//! | `credits.pool.open` | `Acquire` | `credits.pool.add` | an opening finds the stocks as the sweep left them |
//! | `credits.mode.fence` | `SeqCst` fence | every section | no section changes a stock after the sweep has emptied it; what a thread did before it put is visible |
//! | `credits.mode.open` | `Release` | `credits.mode.take` | whoever finds the stocks open finds the pool's word not older |
//! | `credits.mode.resume` | `Release` | every section, `credits.mode.take` | whoever finds the stocks open to sections finds them empty, and the pool's word not older |
//! | `credits.mode.close` | `Release` | `credits.mode.way` | whoever finds the stocks closed reads no older word of the pool |
//! | `credits.mode.way` | `Acquire` | `credits.mode.close` | as above |
//! | `credits.mode.take` | `Acquire` | `credits.mode.open` | as above |
//! | `credits.count.take` | `Acquire` | `credits.count.put` | what the former holder did happens before what the next one does |
//! | `credits.count.put` | `AcqRel` | `credits.count.take`, `credits.count.close`, `credits.count.open` | as above; who puts into an opened stock knows that it is open |
//! | `credits.count.open` | `Release` | `credits.count.put` | as above |
//! | `credits.count.close` | `Acquire` | `credits.count.put` | passes the former holders on, through the pool |
//! | `credits.tags.take` | `Acquire` | `credits.tags.give`, `credits.tags.open` | the tags of the stock, and what their former holders did |
//! | `credits.tags.give` | `Release` | `credits.tags.take`, `credits.tags.close` | as above |
//! | `credits.tags.close` | `Acquire` | `credits.tags.give` | the closer empties what the last holder left |
//! | `credits.tags.open` | `Release` | `credits.tags.take` | the stock as the closer left it |
//! | `credits.ids.take` | `Acquire` | `credits.ids.put` | what the former holder of a tag did |
//! | `credits.ids.put` | `Release` | `credits.ids.take` | as above |
//! | `credits.handles.leave` | `Release` | `credits.handles.claim` | what the holder of a tag did before it left it |
//! | `credits.handles.claim` | `Acquire` | `credits.handles.leave` | as above |
//!
//! That no put misses one who waits needs no ordering: both change the pool's word, and whoever comes second sees the
//! first.
//!
//! Source: "aio: percpu reqs_available" (2012), `percpu_ida`, `sbitmap`.

mod allocator;
mod bitmap;
mod builder;
mod counts;
mod handles;
mod stack;
mod sweep;
mod tags;
mod waiters;
mod withdrawn;
mod word;

pub use builder::{Builder, MAX, Policy, TooMany};
pub use counts::{Credit, Credits, Take};
pub use handles::{Handle, Handles, Stale};
pub use tags::{Batch, Tag, Tags, TakeTag};
pub use waiters::WaitError;

/// How often takes and puts have left the stocks, since the beginning.
#[cfg(feature = "stats")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Batches that were moved from the pool to a stock.
    pub refills: u64,
    /// Batches that were moved from a stock to the pool.
    pub spills: u64,
    /// Times at which all stocks were closed: because too little was left, or to give them back to sections.
    pub sweeps: u64,
}

/// Fewer units were free than were asked for; none was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not enough credits are free; wait until some are put back, or create with more")
    }
}

impl std::error::Error for Exhausted {}
