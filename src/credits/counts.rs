//! [`Credits`]: how many.

use super::Exhausted;
use super::allocator::{Allocator, Stock, Way};
use super::builder::{Builder, MAX, TooMany};
use super::waiters::{WaitError, Waiting};
use super::word::{self, count, units};
use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed, store_over};
use crate::sync::time::Instant;
use crate::sync::{MODELLED, mo, rseq};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// `n` interchangeable units, taken and put back by any thread, without a shared counter.
///
/// Wait-free while the CPU's own stock serves: one plain store on this CPU's own line, or one locked instruction
/// where the system has no restartable sequences (see [`cpu::kind`](crate::cpu::kind)). Lock-free when a batch
/// must be moved, and blocking when the pool has run out (see the [module](super)). The `try_` forms do not wait for
/// units; [`take`](Self::take), [`take_until`](Self::take_until) and [`take_async`](Self::take_async) do.
///
/// # Costs
///
/// 128 bytes per possible CPU, and 384 for the pool and those who wait. Two loads to refuse while all are out. Not
/// worth it for a resource that one
/// thread uses, or where units are so few that every take moves one (`n` below four per CPU).
///
/// # Examples
///
/// ```
/// use ioctx::credits::{Credits, Exhausted};
/// let credits = Credits::new(8);
/// let most = credits.try_take(6)?;
/// assert_eq!(credits.try_take(3).unwrap_err(), Exhausted);
/// assert_eq!(credits.try_take_up_to(3)?.len(), 2);
/// drop(most);
/// assert_eq!(credits.try_take(8)?.len(), 8);
/// # Ok::<(), Exhausted>(())
/// ```
///
/// Units end exactly once: a credit cannot be copied, and putting it back consumes it.
///
/// ```compile_fail,E0382
/// let credits = ioctx::credits::Credits::new(8);
/// let one = credits.try_take(1).unwrap();
/// one.put();
/// one.put();
/// ```
#[derive(Debug)]
pub struct Credits(Allocator<Count>);

impl Credits {
    /// `n` units, shared out as [`Builder::new`] does.
    ///
    /// # Panics
    ///
    /// If `n` is more than [`MAX`]; [`Builder::credits`] returns an error instead.
    pub fn new(n: u32) -> Self {
        Builder::new(n).credits().unwrap_or_else(|error| panic!("{n} credits: {error}"))
    }

    pub(super) fn build(builder: Builder) -> Self {
        Self(Allocator::new(builder, (), Count::default))
    }

    /// Takes `n` units, or none.
    ///
    /// # Errors
    ///
    /// [`Exhausted`]: at one moment during the call fewer than `n` were free, not counting what a put, a resize or a
    /// leaving waiter that has not returned yet brings, nor what is kept for those who wait. By
    /// [`Policy::Aio2012`](super::Policy::Aio2012), perhaps earlier.
    ///
    /// # Panics
    ///
    /// If the kernel granted membarrier to the process and a filter installed later takes it away.
    #[inline]
    pub fn try_take(&self, n: u32) -> Result<Credit<'_>, Exhausted> {
        match self.0.way(n) {
            Way::Section(mode) if take_by_section(mode, n) => {}
            Way::Refuse if n > 0 => return Err(Exhausted),
            _ => self.take_slow(n)?,
        }
        Ok(Credit { credits: self, n })
    }

    /// Takes `n` units, or all that are free if they are fewer.
    ///
    /// # Errors
    ///
    /// [`Exhausted`]: none at all. As with [`try_take`](Self::try_take), at one moment; and if it takes fewer than
    /// `n`, then because at one moment fewer were free. Asking for nothing is no error.
    ///
    /// # Panics
    ///
    /// As there.
    #[inline]
    pub fn try_take_up_to(&self, n: u32) -> Result<Credit<'_>, Exhausted> {
        match self.0.way(1) {
            Way::Section(mode) if take_by_section(mode, n) => Ok(Credit { credits: self, n }),
            Way::Refuse if n > 0 => Err(Exhausted),
            _ => self.up_to_slow(n).map(|n| Credit { credits: self, n }),
        }
    }

    /// Takes `n` units as soon as so many are free; sleeps until then. Blocking.
    ///
    /// Units that come back go to whoever has waited longest, who is not passed by others that want less, nor by the
    /// `try_` forms; unless the builder was told [`unfair`](Builder::unfair). While anybody waits, the stocks are
    /// closed and every put looks after those who wait, under a lock: so a signal handler must not put into credits
    /// that anybody waits for.
    ///
    /// # Errors
    ///
    /// [`WaitError::Never`]: there are fewer than `n`. (Who waits when a resize makes them fewer waits on, for the
    /// next one.)
    ///
    /// # Panics
    ///
    /// As [`try_take`](Self::try_take).
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::credits::{Credits, WaitError};
    /// use std::time::{Duration, Instant};
    /// let credits = Credits::new(2);
    /// let all = credits.take(2)?;
    /// let soon = Instant::now() + Duration::from_millis(1);
    /// assert_eq!(credits.take_until(1, soon).unwrap_err(), WaitError::TimedOut);
    /// std::thread::scope(|scope| {
    ///     let waiting = scope.spawn(|| credits.take(1).map(|credit| credit.len()));
    ///     all.put();
    ///     assert_eq!(waiting.join().unwrap(), Ok(1));
    /// });
    /// assert_eq!(credits.take(3).unwrap_err(), WaitError::Never { total: 2 });
    /// # Ok::<(), WaitError>(())
    /// ```
    pub fn take(&self, n: u32) -> Result<Credit<'_>, WaitError> {
        self.take_by(n, None)
    }

    /// [`take`](Self::take), but not longer than until `deadline`.
    ///
    /// # Errors
    ///
    /// As there, or [`WaitError::TimedOut`].
    ///
    /// # Panics
    ///
    /// As there.
    pub fn take_until(&self, n: u32, deadline: Instant) -> Result<Credit<'_>, WaitError> {
        self.take_by(n, Some(deadline))
    }

    fn take_by(&self, n: u32, deadline: Option<Instant>) -> Result<Credit<'_>, WaitError> {
        if let Ok(credit) = self.try_take(n) {
            return Ok(credit);
        }
        self.0.wait(n, deadline)?;
        Ok(Credit { credits: self, n })
    }

    /// [`take`](Self::take) as a future. It stands in line from when it is first polled until it is dropped.
    /// Forgotten, it stands there for ever, and what it is given is lost.
    ///
    /// # Examples
    ///
    /// ```
    /// # use ioctx::credits::{Credits, WaitError};
    /// async fn send(window: &Credits) -> Result<(), WaitError> {
    ///     let room = window.take_async(1).await?;
    ///     // Sends something, and waits for the answer.
    ///     room.put();
    ///     Ok(())
    /// }
    /// ```
    pub fn take_async(&self, n: u32) -> Take<'_> {
        Take { credits: self, n, waiting: None }
    }

    /// Takes all units that are free at one moment.
    ///
    /// # Panics
    ///
    /// As [`try_take`](Self::try_take).
    pub fn drain(&self) -> Credit<'_> {
        Credit { credits: self, n: self.0.drain() }
    }

    /// Makes it `n` units in all; returns how many there were. Blocks on other resizes and on those who begin to wait.
    ///
    /// If more are handed out, none can be taken until so many have come back that fewer than `n` are out. The batch
    /// is chosen anew, unless the builder was told one.
    ///
    /// # Errors
    ///
    /// [`TooMany`]: more than [`MAX`], with the policy's surplus; nothing was changed.
    ///
    /// # Panics
    ///
    /// As [`try_take`](Self::try_take).
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::credits::Credits;
    /// let credits = Credits::new(4);
    /// let three = credits.try_take(3).unwrap();
    /// assert_eq!(credits.resize(2), Ok(4));
    /// assert!(credits.try_take(1).is_err());
    /// drop(three);
    /// assert_eq!(credits.drain().len(), 2);
    /// ```
    pub fn resize(&self, n: u32) -> Result<u32, TooMany> {
        self.0.resize(n)
    }

    /// A credit for units that were let go of by [`Credit::into_raw`].
    ///
    /// # Safety
    ///
    /// 1. `n` units of these credits were, and nobody has made a credit for them since. (Nothing here depends on it;
    ///    but whoever counts on there being no more than `total` may.)
    #[inline]
    pub unsafe fn from_raw(&self, n: u32) -> Credit<'_> {
        Credit { credits: self, n }
    }

    /// How many units there are in all.
    pub fn total(&self) -> u32 {
        self.0.total()
    }

    /// How often stocks were refilled, and so on.
    #[cfg(feature = "stats")]
    pub fn stats(&self) -> super::Stats {
        self.0.stats()
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
            _ => self.0.take_from_pool(n, n).map(drop),
        }
    }

    #[cold]
    fn up_to_slow(&self, n: u32) -> Result<u32, Exhausted> {
        if self.0.local().is_some_and(|stock| stock.take(n)) {
            Ok(n)
        } else {
            self.0.take_from_pool(1.min(n), n)
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
            Some(have) if have <= 2 * u64::from(self.0.batch()) => {}
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
            Some(have) if have <= 2 * u64::from(self.0.batch()) => {}
            Some(_) => self.0.put_to_pool(0),
            None => self.0.put_to_pool(n),
        }
    }
}

/// How many units a stock may have at most, for `n` more to make no more than two batches.
#[inline(always)]
fn room_for(allocator: &Allocator<Count>, n: u32) -> Option<u64> {
    (2 * u64::from(allocator.batch())).checked_sub(n.into())
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

    /// Gives the units back, as dropping it does.
    #[inline]
    pub fn put(self) {}

    /// Keeps the units handed out, for somebody who carries only a number. As [`forget`](std::mem::forget), until
    /// [`Credits::from_raw`] makes a credit of it again.
    #[inline]
    pub fn into_raw(self) -> u32 {
        std::mem::ManuallyDrop::new(self).n
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

/// Units that are waited for. From [`Credits::take_async`].
#[derive(Debug)]
#[must_use = "it takes nothing unless polled"]
pub struct Take<'a> {
    credits: &'a Credits,
    n: u32,
    waiting: Option<Waiting<'a, Count>>,
}

impl<'a> Future for Take<'a> {
    type Output = Result<Credit<'a>, WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let (credits, n) = (self.credits, self.n);
        if self.waiting.is_none()
            && let Ok(credit) = credits.try_take(n)
        {
            return Poll::Ready(Ok(credit));
        }
        let waiting = self.waiting.get_or_insert_with(|| Waiting::new(&credits.0, n));
        waiting.poll(context).map_ok(|()| Credit { credits, n })
    }
}

/// One CPU's count of free units.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Count {
    /// How many sections have put.
    word: AtomicU64,
    /// How many locked instructions have put. Bit 63: closed. A word of its own, since whoever is late with a locked
    /// instruction must not meet a section.
    locked: AtomicU64,
}

const _: () = assert!(MODELLED || size_of::<CachePadded<Count>>() == 128, "the distance that sections know");

const CLOSED: u64 = 1 << 63;

impl Default for Count {
    fn default() -> Self {
        Self { word: AtomicU64::new(0), locked: AtomicU64::new(CLOSED) }
    }
}

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
        self.locked.fetch_update(mo!("credits.count.take", Acquire), Relaxed, take).is_ok()
    }

    /// Puts `n` units, and returns how many there are then; `None` if the stock is closed and nothing was put.
    /// (What is added to a closed one is wiped by its opening, and cannot reach bit 63.)
    #[inline]
    fn put(&self, n: u32) -> Option<u64> {
        // Release: what the caller did with the units happens before what their next holder does. Acquire: pairs with
        // `open`: whoever puts into an opened stock does not take the pool for closed afterwards.
        let before = self.locked.fetch_add(n.into(), mo!("credits.count.put", AcqRel));
        (before & CLOSED == 0).then(|| before + u64::from(n))
    }
}

impl Allocator<Count> {
    fn resize(&self, n: u32) -> Result<u32, TooMany> {
        if self.capacity(n) > MAX {
            return Err(TooMany { most: MAX });
        }
        // Nobody else resizes, or begins to wait.
        let queue = self.queue();
        let (before, total) = self.set_total(n);
        let more = i64::from(total) - i64::from(before);
        let mut now = self.add(units(more.unsigned_abs() as u32).wrapping_mul(more.signum() as u64));
        while count(now) < 0 && now & word::CLOSED == 0 {
            // What was taken away is still in stocks, or handed out: then nobody gets any.
            self.sweep(0);
            // Relaxed: this thread's own addition is in it.
            now = self.pool.word.load(Relaxed);
        }
        drop(queue);
        self.settle(now);
        Ok(before)
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

    fn gather(&self, (): &()) -> u32 {
        // Relaxed, both: after the fence that keeps sections out, and before the store that lets them in again.
        let have = self.word.load(Relaxed);
        self.word.store(0, Relaxed);
        have as u32
    }

    fn close(&self, (): &()) -> u32 {
        // Acquire: pairs with `put`; the pool's word passes on what it saw. A put is either before this swap, which
        // then returns it, or after, and turned away.
        self.locked.swap(CLOSED, mo!("credits.count.close", Acquire)) as u32
    }

    fn open(&self) {
        // Release: pairs with `put`.
        store_over(&self.locked, 0, mo!("credits.count.open", Release));
    }

    fn len(&self) -> u32 {
        // Relaxed, both: numbers to report.
        let (word, locked) = (self.word.load(Relaxed), self.locked.load(Relaxed));
        (word + if locked & CLOSED == 0 { locked } else { 0 }) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_can_be_out_and_no_more() {
        let credits = Builder::new(10).batch(2).credits().unwrap();
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
