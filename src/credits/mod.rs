//! Admission to a bounded resource without a shared counter.
//!
//! [`Credits`] hands out counts, [`Tags`] hands out distinct small integers: a tag is a credit with an
//! identity. Both keep a global pool and a stock per CPU. A take is served from this CPU's stock; when that
//! is empty a batch is moved from the pool, and when a put fills it to two batches one is moved back. So a
//! shared line is written once per batch, not once per operation.
//!
//! # The law
//!
//! `pool + sum of stocks + handed out == n`, at every moment at which no move is under way.
//!
//! # Exactness
//!
//! All `n` credits can be out at once, from any CPU. Before a take is refused, every stock is closed,
//! emptied into the pool and reopened. While all are closed and the pool is locked nothing is on its way
//! between the two, so what is not in the pool then is handed out, and stays so until its put has returned.
//! The 2012 allocator, which this descends from, refused while up to half of its slots lay in the stocks of
//! other CPUs.
//!
//! A pool found empty is marked *starved*. While it is, a take is refused by one load and a put goes
//! straight to the pool, which ends the mark: whoever keeps asking an empty pool costs the others nothing.
//! (Asking for more than the few that are free does: each refusal sweeps.)
//!
//! # Progress
//!
//! Takes and puts that a stock can serve are lock-free. Those that move a batch, or find the stock closed,
//! block on the pool's mutex; so does the take that ends in a refusal. A sweep waits for whoever is in the
//! middle of a take or put of a tag, a few instructions, and yields meanwhile: under a real-time scheduling
//! class, where a yield does not let a lesser thread run, that thread must not be preempted for ever.
//!
//! # Orderings
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `credits.count.take` | `Acquire` | `credits.count.put` | what the former holder did happens before what the next one does |
//! | `credits.count.put` | `AcqRel` | `credits.count.take`, `credits.count.close`, `credits.count.open` | as above; and sees the starved mark that a sweep left |
//! | `credits.count.close` | `Acquire` | `credits.count.put` | passes the former holders on, through the pool's mutex |
//! | `credits.count.open` | `Release` | `credits.count.put` | a put that finds the stock reopened sees the starved mark |
//! | `credits.tags.take` | `Acquire` | `credits.tags.give` | the tags of the stock, and what their former holders did |
//! | `credits.tags.give` | `Release` | `credits.tags.take`, `credits.tags.close` | as above |
//! | `credits.tags.close` | `Acquire` | `credits.tags.give` | the closer empties what the last holder left |
//! | `credits.tags.open` | `Release` | `credits.tags.take` | the stock as the closer left it, and the starved mark |
//!
//! The starved mark itself is `Relaxed`: who must see it is ordered by the stock's word or the pool's mutex.
//!
//! Source: "aio: percpu reqs_available" (2012), `percpu_ida`, `sbitmap`.

mod allocator;
mod counts;
mod tags;

pub use counts::{Credit, Credits};
pub use tags::{Tag, Tags};

/// Fewer units were free than were asked for; none was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("not enough credits are free; wait until some are put back, or create with more")
    }
}

impl std::error::Error for Exhausted {}
