//! [`Credits`]: how many.

use super::Exhausted;
use super::allocator::{Allocator, Stock, Way, default_batch};
use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed, store_over};
use crate::sync::{MODELLED, mo, rseq};

/// `n` interchangeable units, taken and put back by any thread, without a shared counter.
///
/// Wait-free while the CPU's own stock serves: one plain store on this CPU's own line, or one locked instruction
/// where the system has no restartable sequences (see [`cpu::kind`](crate::cpu::kind)). Lock-free when a batch
/// must be moved, and blocking when the pool has run out (see the [module](super)). It does not wait for
/// units: a take that cannot be served is refused.
///
/// # Costs
///
/// 128 bytes per possible CPU, and two lines for the pool. Not worth it for a resource that one thread uses, or
/// where units are so few that every take moves one (`n` below four per CPU).
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
        Self(Allocator::new(n, batch, false, (), |_| Count::default()))
    }

    /// As [`new`](Self::new), without restartable sequences even where the system has them.
    ///
    /// # Panics
    ///
    /// If `n` is 2³⁰ or more.
    pub fn portable(n: u32) -> Self {
        Self(Allocator::new(n, default_batch(n), true, (), |_| Count::default()))
    }

    /// Takes `n` units, or none.
    ///
    /// # Errors
    ///
    /// [`Exhausted`]: at one moment during the call fewer than `n` were free, not counting what a put that
    /// has not returned yet brings.
    ///
    /// # Panics
    ///
    /// If the kernel granted membarrier to the process and a filter installed later takes it away.
    #[inline]
    pub fn try_take(&self, n: u32) -> Result<Credit<'_>, Exhausted> {
        match self.0.way(n) {
            Way::Section(mode) if take_by_section(mode, n) => {}
            Way::Refuse => return Err(Exhausted),
            _ => self.take_slow(n)?,
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
    /// Exact only while nobody takes or puts.
    pub fn available(&self) -> u32 {
        self.0.free()
    }

    #[inline(never)]
    fn take_slow(&self, n: u32) -> Result<(), Exhausted> {
        match self.0.quick() {
            Some(stock) if stock.take(n) => Ok(()),
            _ => self.take_slower(n),
        }
    }

    #[cold]
    fn take_slower(&self, n: u32) -> Result<(), Exhausted> {
        if rseq::rejoin() && self.0.mode().is_some_and(|mode| take_by_section(mode, n)) {
            return Ok(());
        }
        match self.0.local() {
            Some(stock) if stock.take(n) => Ok(()),
            _ => self.0.take_from_pool(n),
        }
    }

    #[inline(always)]
    fn put(&self, n: u32) {
        if !put_by_section(&self.0, n) {
            self.put_slow(n);
        }
    }

    #[inline(never)]
    fn put_slow(&self, n: u32) {
        // More than two batches would only be spilled again.
        match self.0.quick().filter(|_| room_for(&self.0, n).is_some()).and_then(|stock| stock.put(n)) {
            Some(have) if have <= 2 * u64::from(self.0.batch) => {}
            Some(_) => self.0.put_to_pool(0),
            None => self.put_slower(n),
        }
    }

    #[cold]
    fn put_slower(&self, n: u32) {
        if rseq::rejoin() && put_by_section(&self.0, n) {
            return;
        }
        match self.0.local().filter(|_| room_for(&self.0, n).is_some()).and_then(|stock| stock.put(n)) {
            Some(have) if have <= 2 * u64::from(self.0.batch) => {}
            Some(_) => self.0.put_to_pool(0),
            None => self.0.put_to_pool(n),
        }
    }
}

/// How many units a stock may have at most, for `n` more to make no more than two batches.
#[inline(always)]
fn room_for(allocator: &Allocator<Count>, n: u32) -> Option<u64> {
    (2 * u64::from(allocator.batch)).checked_sub(n.into())
}

/// Takes `n` units out of this CPU's stock, if it has as many.
#[inline(always)]
fn take_by_section(mode: &AtomicU64, n: u32) -> bool {
    // SAFETY: the kind was asked by the constructor; the mode word is the address of the stocks, the word of which
    // comes first, and which are written by sections only.
    unsafe {
        rseq::take(mode, n.into(), |mode, cpu| {
            Allocator::<Count>::stock(mode, cpu).plainly(|have| have.checked_sub(n.into()))
        })
    }
}

/// Puts `n` units into this CPU's stock, unless that would make more than two batches.
#[inline(always)]
fn put_by_section(allocator: &Allocator<Count>, n: u32) -> bool {
    let (Some(mode), Some(most)) = (allocator.mode(), room_for(allocator, n)) else { return false };
    // SAFETY: as in `take_by_section`.
    unsafe {
        rseq::put(mode, n.into(), most, |mode, cpu| {
            let put = |have| (have <= most).then_some(have + u64::from(n));
            Allocator::<Count>::stock(mode, cpu).plainly(put)
        })
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

/// One CPU's count of free units.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Count {
    /// How many. Bit 63, if they are counted by locked instructions: closed.
    word: AtomicU64,
}

const _: () = assert!(MODELLED || size_of::<CachePadded<Count>>() == 128, "the distance that sections know");

const CLOSED: u64 = 1 << 63;

impl Count {
    /// What a section does, for model checkers.
    fn plainly(&self, change: impl FnOnce(u64) -> Option<u64>) -> bool {
        // Relaxed: kept whole by the model of a section.
        let changed = change(self.word.load(Relaxed));
        changed.map(|have| self.word.store(have, Relaxed)).is_some()
    }

    /// Takes `n` units if they are there.
    #[inline]
    fn take(&self, n: u32) -> bool {
        let take = |word: u64| if word & CLOSED == 0 { word.checked_sub(n.into()) } else { None };
        // Acquire: pairs with `put`. Relaxed on failure: nothing was taken.
        self.word.fetch_update(mo!("credits.count.take", Acquire), Relaxed, take).is_ok()
    }

    /// Puts `n` units, and returns how many there are then; `None` if the stock is closed and nothing was put.
    /// (What is added to a closed one is wiped by its opening, and cannot reach bit 63.)
    #[inline]
    fn put(&self, n: u32) -> Option<u64> {
        // Release: what the caller did with the units happens before what their next holder does. Acquire: pairs with
        // `open`: whoever puts into an opened stock does not take the pool for closed afterwards.
        let before = self.word.fetch_add(n.into(), mo!("credits.count.put", AcqRel));
        (before & CLOSED == 0).then(|| before + u64::from(n))
    }
}

impl Stock for Count {
    type Ids = ();

    fn fill(allocator: &Allocator<Self>, n: u32) -> u32 {
        let here = || allocator.local().is_some_and(|stock| stock.put(n).is_some());
        if put_by_section(allocator, n) || here() { n } else { 0 }
    }

    fn spill(allocator: &Allocator<Self>, n: u32) -> u32 {
        let by_section = allocator.mode().is_some_and(|mode| take_by_section(mode, n));
        if by_section || allocator.local().is_some_and(|stock| stock.take(n)) { n } else { 0 }
    }

    fn close(&self, (): &()) -> u32 {
        // Acquire: pairs with `put`; the pool's word passes on what it saw. A put is either before this swap, which
        // then returns it, or after, and turned away.
        self.word.swap(CLOSED, mo!("credits.count.close", Acquire)) as u32
    }

    fn open(&self) {
        // Release: pairs with `put`.
        store_over(&self.word, 0, mo!("credits.count.open", Release));
    }

    fn len(&self) -> u32 {
        // Relaxed: a number to report.
        let word = self.word.load(Relaxed);
        if word & CLOSED == 0 { word as u32 } else { 0 }
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
