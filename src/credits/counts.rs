//! [`Credits`]: how many.

use super::Exhausted;
use super::allocator::{Allocator, Pile, Stock, default_batch};
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed, give_back};
use crate::sync::mo;

/// `n` interchangeable units, taken and put back by any thread, without a shared counter.
///
/// Lock-free while the CPU's own stock serves; blocking when a batch must be moved or the pool is empty
/// (see the [module](super)). It does not wait for units: a take that cannot be served is refused at once.
///
/// # Costs
///
/// 128 bytes per possible CPU, and one line for the pool. One locked instruction per take and per put, plus
/// a mutex per batch. Not worth it for a resource that one thread uses, or where units are so few that
/// every take moves one (`n` below four per CPU).
///
/// # Examples
///
/// ```
/// use ioctx::credits::{Credits, Exhausted};
/// let credits = Credits::new(8);
/// let most = credits.try_take(6)?;
/// assert_eq!(credits.try_take(3).unwrap_err(), Exhausted);
/// drop(most);
/// assert_eq!(credits.try_take(8)?.len(), 8);
/// # Ok::<(), Exhausted>(())
/// ```
#[derive(Debug)]
pub struct Credits(Allocator<Count>);

impl Credits {
    /// `n` units (fewer than 2³⁰), moved in batches of `max(1, n / (4 * possible CPUs))`.
    ///
    /// # Panics
    ///
    /// If `n` is 2³⁰ or more.
    pub fn new(n: u32) -> Self {
        Self::with_batch(n, default_batch(n))
    }

    /// As [`new`](Self::new), moved `batch` (at least 1) at a time.
    ///
    /// # Panics
    ///
    /// If `n` is 2³⁰ or more.
    pub fn with_batch(n: u32, batch: u32) -> Self {
        Self(Allocator::new(n, batch))
    }

    /// Takes `n` units, or none.
    ///
    /// # Errors
    ///
    /// [`Exhausted`]: at one moment during the call fewer than `n` were free, not counting what a put that
    /// has not returned yet brings.
    #[inline]
    pub fn try_take(&self, n: u32) -> Result<Credit<'_>, Exhausted> {
        if !self.0.local().take(n) {
            self.0.take_from_pool(n, |pool| *pool -= n)?;
        }
        Ok(Credit { credits: self, n })
    }

    /// How many units there are in all.
    pub fn total(&self) -> u32 {
        self.0.total()
    }

    /// How many units are free.
    ///
    /// # Staleness
    ///
    /// Exact only while nobody takes or puts. Blocks on the pool's mutex.
    pub fn available(&self) -> u32 {
        self.0.free()
    }

    #[inline]
    fn put(&self, n: u32) {
        if !self.0.starved() {
            let stock = self.0.local();
            if let Some(len) = stock.put(n) {
                return self.0.after_put(stock, len);
            }
        }
        self.0.put_to_pool(|pool| *pool += n);
    }
}

/// Units that are handed out. Dropping it gives them back; forgetting it leaks them.
#[derive(Debug)]
#[must_use = "dropped at once, the units go back"]
pub struct Credit<'a> {
    credits: &'a Credits,
    n: u32,
}

impl Credit<'_> {
    /// How many units.
    #[expect(clippy::len_without_is_empty, reason = "it may be empty only if nothing was asked for")]
    pub fn len(&self) -> u32 {
        self.n
    }

    /// Splits `n` units off, or as many as there are.
    pub fn split_off(&mut self, n: u32) -> Self {
        let n = n.min(self.n);
        self.n -= n;
        Self { credits: self.credits, n }
    }
}

impl Drop for Credit<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.n > 0 {
            self.credits.put(self.n);
        }
    }
}

impl Pile for u32 {
    fn len(&self) -> u32 {
        *self
    }

    fn move_to(&mut self, n: u32, other: &mut Self) {
        *self -= n;
        *other += n;
    }
}

/// One CPU's count of free units.
#[derive(Debug)]
struct Count {
    /// Bit 31: closed. The rest: how many, while open. What is added while closed is meaningless: `open`
    /// wipes it, and it cannot reach bit 31, since no more than 2³⁰ units exist.
    word: AtomicU32,
}

const CLOSED: u32 = 1 << 31;

impl Count {
    /// Takes `n` units if they are there.
    #[inline]
    fn take(&self, n: u32) -> bool {
        // Acquire: pairs with `put`. Relaxed on failure: nothing was taken.
        // A closed word is too large to be mistaken for units only because it is checked first.
        let take = |word: u32| if word & CLOSED == 0 { word.checked_sub(n) } else { None };
        self.word.fetch_update(mo!("credits.count.take", Acquire), Relaxed, take).is_ok()
    }

    /// Adds `n` units and returns how many are there now; `None` if it is closed and nothing was added.
    #[inline]
    fn put(&self, n: u32) -> Option<u32> {
        // AcqRel. Release: what the caller did with the units happens before what their next holder does.
        // Acquire: pairs with `open`, whose sweep may have left the starved mark that the caller reads next.
        let before = self.word.fetch_add(n, mo!("credits.count.put", AcqRel));
        (before & CLOSED == 0).then(|| before + n)
    }
}

impl Stock for Count {
    type Pile = u32;

    fn new(_limit: u32) -> Self {
        Self { word: AtomicU32::new(0) }
    }

    fn len(&self) -> u32 {
        // Relaxed: a number to report.
        let word = self.word.load(Relaxed);
        if word & CLOSED == 0 { word } else { 0 }
    }

    fn fill(&self, n: u32, from: &mut u32) {
        let n = n.min(*from);
        if self.put(n).is_some() {
            *from -= n;
        }
    }

    fn empty(&self, n: u32, to: &mut u32) {
        let n = n.min(self.len());
        if self.take(n) {
            *to += n;
        }
    }

    fn close(&self, to: &mut u32) {
        // Acquire: pairs with `put`; the pool's mutex passes on what it saw.
        // A put is either before this swap, which then returns it, or after, and told that it was too late.
        *to += self.word.swap(CLOSED, mo!("credits.count.close", Acquire));
    }

    fn open(&self) {
        // Release: pairs with `put`, which then sees the starved mark.
        give_back(&self.word, 0, mo!("credits.count.open", Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_can_be_out_and_no_more() {
        let credits = Credits::with_batch(10, 2);
        let one = credits.try_take(1).unwrap();
        let mut rest = credits.try_take(9).unwrap();
        assert!(credits.try_take(1).is_err());
        assert!(credits.try_take(0).is_ok());
        drop(one);
        drop(credits.try_take(1).unwrap());
        let some = rest.split_off(4);
        drop(rest);
        assert_eq!((some.len(), credits.available()), (4, 6));
        assert!(credits.try_take(7).is_err());
        drop(some);
        assert_eq!(credits.try_take(10).unwrap().len(), 10);
        assert_eq!(credits.available(), credits.total());
    }

    #[test]
    fn none_at_all() {
        let credits = Credits::new(0);
        assert!(credits.try_take(1).is_err());
        assert_eq!(credits.try_take(0).unwrap().len(), 0, "nothing is there even when nothing is left");
    }
}
