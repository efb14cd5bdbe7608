//! [`Tags`]: which one.

use super::Exhausted;
use super::allocator::{Allocator, Pile, Stock, default_batch};
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed, give_back, glance};
use crate::sync::cell::UnsafeCell;
use crate::sync::{hint, mo, thread};

/// The integers `0..n`, each handed out to at most one holder at a time.
///
/// A tag indexes a table: what it names belongs to its holder. Lock-free while the CPU's own stock serves;
/// blocking when a batch must be moved or all are out (see the [module](super)). Last in, first out per
/// CPU, so that what a tag names is likely still in that CPU's cache.
///
/// # Costs
///
/// 128 bytes per possible CPU, 4 bytes per tag for the pool and about 2 more for the stocks. One locked
/// instruction per take and per put, plus a mutex per batch.
///
/// # Examples
///
/// ```
/// use ioctx::credits::Tags;
/// let tags = Tags::new(2);
/// let (a, b) = (tags.try_take()?, tags.try_take()?);
/// assert_ne!(a.index(), b.index());
/// assert!(tags.try_take().is_err());
/// # Ok::<(), ioctx::credits::Exhausted>(())
/// ```
#[derive(Debug)]
pub struct Tags(Allocator<Stack>);

impl Tags {
    /// The tags `0..n` (fewer than 2³⁰), moved in batches of `max(1, n / (4 * possible CPUs))`.
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
        Self(Allocator::new((0..n).rev().collect(), batch))
    }

    /// Takes a tag.
    ///
    /// # Errors
    ///
    /// [`Exhausted`]: at one moment during the call none was free, not counting one whose put has not
    /// returned yet.
    #[inline]
    pub fn try_take(&self) -> Result<Tag<'_>, Exhausted> {
        self.take_raw().map(|index| Tag { tags: self, index })
    }

    /// How many tags there are in all.
    pub fn total(&self) -> u32 {
        self.0.total()
    }

    /// How many tags are free.
    ///
    /// # Staleness
    ///
    /// Exact only while nobody takes or puts. Blocks on the pool's mutex.
    pub fn available(&self) -> u32 {
        self.0.free()
    }

    /// Whether the last one who asked found none, and none has come back since.
    #[inline]
    pub(crate) fn is_starved(&self) -> bool {
        self.0.starved()
    }

    /// Takes a tag that does not give itself back.
    #[inline]
    pub(crate) fn take_raw(&self) -> Result<u32, Exhausted> {
        match self.0.local().take() {
            Some(tag) => Ok(tag),
            None => self.0.take_from_pool(1, |pool| pool.pop().expect("the pool has one")),
        }
    }

    /// Puts back a tag that [`take_raw`](Self::take_raw) returned and nobody has put back since.
    #[inline]
    pub(crate) fn put_raw(&self, tag: u32) {
        self.put_all_raw(&[tag]);
    }

    /// [`put_raw`](Self::put_raw) for several, in one go.
    #[inline]
    pub(crate) fn put_all_raw(&self, tags: &[u32]) {
        let mut left = tags;
        if !self.0.starved() {
            let stock = self.0.local();
            if let Some((fit, len)) = stock.put(tags) {
                left = &tags[fit..];
                self.0.after_put(stock, len);
            }
        }
        if !left.is_empty() {
            self.0.put_to_pool(|pool| pool.extend_from_slice(left));
        }
    }
}

/// A tag that is handed out. Dropping it gives it back; forgetting it leaks it.
#[derive(Debug)]
#[must_use = "dropped at once, the tag goes back"]
pub struct Tag<'a> {
    tags: &'a Tags,
    index: u32,
}

impl Tag<'_> {
    /// The integer, below the total.
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl Drop for Tag<'_> {
    #[inline]
    fn drop(&mut self) {
        self.tags.put_raw(self.index);
    }
}

impl Pile for Vec<u32> {
    fn len(&self) -> u32 {
        self.len() as u32
    }

    fn move_to(&mut self, n: u32, other: &mut Self) {
        other.extend(self.drain(self.len() - n as usize..));
    }
}

/// One CPU's stack of free tags.
#[derive(Debug)]
struct Stack {
    /// Bit 31: closed, the tags belong to the closer. Bit 30: busy, they belong to whoever set it, for a few
    /// instructions. The rest: how many, while neither is set.
    ///
    /// * open(len) -> busy -> open(len') by whoever takes, puts, fills or empties
    /// * open(len) -> closed -> open(0) by the one sweeper
    word: AtomicU32,
    /// # Safety
    ///
    /// Touched only by the thread that set busy or closed, until it clears it.
    tags: UnsafeCell<Vec<u32>>,
    limit: u32,
}

// SAFETY: `tags` is reached only under the busy or closed bit, which one thread at a time holds.
unsafe impl Sync for Stack {}

const CLOSED: u32 = 1 << 31;
const BUSY: u32 = 1 << 30;

impl Stack {
    /// Takes the last tag put in.
    #[inline]
    fn take(&self) -> Option<u32> {
        self.busy(|tags| tags.pop(), |len| len > 0).map(|(tag, _)| tag.expect("there is one"))
    }

    /// Puts in as many of `tags` as there is room for; returns how many, and how many are there now. `None`
    /// if it is closed, in use or full.
    #[inline]
    fn put(&self, tags: &[u32]) -> Option<(usize, u32)> {
        let put = |stack: &mut Vec<u32>| {
            // Does not allocate: the vector was made with room for `limit`.
            let fit = tags.len().min(self.limit as usize - stack.len());
            stack.extend_from_slice(&tags[..fit]);
            fit
        };
        self.busy(put, |len| len < self.limit)
    }

    /// Runs `f` on the tags if they can be had at once and there are as many as `fits` likes. Returns
    /// also how many are there then.
    #[inline]
    fn busy<R>(&self, f: impl FnOnce(&mut Vec<u32>) -> R, fits: impl Fn(u32) -> bool) -> Option<(R, u32)> {
        // Relaxed: a guess, which the exchange confirms.
        let word = glance(&self.word);
        // Acquire: pairs with the giving back below, by the last holder. One try: who fails goes to the pool.
        if word & (CLOSED | BUSY) != 0
            || !fits(word)
            || self
                .word
                .compare_exchange(word, word | BUSY, mo!("credits.tags.take", Acquire), Relaxed)
                .is_err()
        {
            return None;
        }
        let (done, len) = self.tags.with_mut(|tags| {
            // SAFETY: this thread has just set the busy bit.
            let tags = unsafe { &mut *tags };
            (f(tags), tags.len() as u32)
        });
        // Release: pairs with the exchange of the next holder, or of the closer.
        give_back(&self.word, len, mo!("credits.tags.give", Release));
        Some((done, len))
    }
}

impl Stock for Stack {
    type Pile = Vec<u32>;

    fn new(limit: u32) -> Self {
        Self { word: AtomicU32::new(0), tags: UnsafeCell::new(Vec::with_capacity(limit as usize)), limit }
    }

    fn len(&self) -> u32 {
        // Relaxed: a number to report.
        let word = self.word.load(Relaxed);
        if word & (CLOSED | BUSY) == 0 { word } else { 0 }
    }

    fn fill(&self, n: u32, from: &mut Vec<u32>) {
        let fits = |len| len < self.limit;
        self.busy(|tags| from.move_to(n.min(Pile::len(from)).min(self.limit - Pile::len(tags)), tags), fits);
    }

    fn empty(&self, n: u32, to: &mut Vec<u32>) {
        self.busy(|tags| tags.move_to(n.min(Pile::len(tags)), to), |len| len > 0);
    }

    fn close(&self, to: &mut Vec<u32>) {
        loop {
            // Relaxed: a guess, which the exchange confirms.
            let word = glance(&self.word);
            // Acquire: pairs with the giving back by the last holder.
            if word & BUSY == 0
                && self
                    .word
                    .compare_exchange(word, CLOSED, mo!("credits.tags.close", Acquire), Relaxed)
                    .is_ok()
            {
                break;
            }
            // Somebody is between two instructions, or was preempted there: it must be waited for, or
            // a refusal would prove nothing.
            hint::contended();
            thread::yield_now();
        }
        self.tags.with_mut(|tags| {
            // SAFETY: this thread has just set the closed bit.
            let tags = unsafe { &mut *tags };
            tags.move_to(Pile::len(tags), to);
        });
    }

    fn open(&self) {
        // Release: pairs with the exchange of the next holder, which then sees the starved mark too.
        give_back(&self.word, 0, mo!("credits.tags.open", Release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn hands_out_each_tag_once() {
        for batch in 1..5 {
            let tags = Tags::with_batch(9, batch);
            let all: Vec<_> = std::iter::from_fn(|| tags.try_take().ok()).collect();
            let distinct: HashSet<u32> = all.iter().map(Tag::index).collect();
            assert_eq!((all.len(), distinct.len(), tags.available()), (9, 9, 0));
            assert!(distinct.iter().all(|tag| *tag < 9));
            drop(all);
            assert_eq!(tags.available(), tags.total());
        }
    }

    #[test]
    fn the_last_one_back_is_the_next_one_out() {
        let tags = Tags::new(64);
        let first = tags.try_take().unwrap().index();
        assert_eq!(tags.try_take().unwrap().index(), first);
    }
}
