//! [`Tags`]: which one.

use super::Exhausted;
use super::allocator::{Allocator, Stock, Way, default_batch};
use super::bitmap::Bitmap;
use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed, glance_u64, store_over};
use crate::sync::cell::CellArray;
use crate::sync::{MODELLED, hint, mo, rseq, thread};

/// The integers `0..n`, each handed out to at most one holder at a time.
///
/// A tag indexes a table: what it names belongs to its holder. Wait-free while the CPU's own stock serves: one
/// plain store on this CPU's own line, or a locked instruction where the system has no restartable sequences (see
/// [`cpu::kind`](crate::cpu::kind)). Lock-free when a batch must be moved, and blocking when all are out (see the
/// [module](super)). Last in, first out per CPU, so that what a tag names is likely still in that CPU's cache.
///
/// # Costs
///
/// 128 bytes per possible CPU, two lines for the pool, and less than 3 bytes per tag. Two loads to refuse while
/// all are out.
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
        Self(Allocator::new(n, batch, false, Bitmap::full(n), Stack::new))
    }

    /// As [`new`](Self::new), without restartable sequences even where the system has them.
    ///
    /// # Panics
    ///
    /// If `n` is 2³⁰ or more.
    pub fn portable(n: u32) -> Self {
        Self(Allocator::new(n, default_batch(n), true, Bitmap::full(n), Stack::new))
    }

    /// Takes a tag.
    ///
    /// # Errors
    ///
    /// [`Exhausted`]: at one moment during the call none was free, not counting one whose put has not
    /// returned yet.
    ///
    /// # Panics
    ///
    /// If the kernel granted membarrier to the process and a filter installed later takes it away.
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
    /// Exact only while nobody takes or puts.
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
        match self.0.way(1) {
            Way::Section(mode) => pop_by_section(mode).map_or_else(|| self.take_slow(), Ok),
            Way::Slow => self.take_slow(),
            Way::Refuse => Err(Exhausted),
        }
    }

    #[inline(never)]
    fn take_slow(&self) -> Result<u32, Exhausted> {
        match self.0.quick().and_then(Stack::pop) {
            Some(tag) => Ok(tag),
            None => self.take_slower(),
        }
    }

    #[cold]
    fn take_slower(&self) -> Result<u32, Exhausted> {
        if rseq::rejoin()
            && let Some(tag) = self.0.mode().and_then(pop_by_section)
        {
            return Ok(tag);
        }
        if let Some(tag) = self.0.local().and_then(Stack::pop) {
            return Ok(tag);
        }
        self.0.take_from_pool(1)?;
        let mut taken = 0;
        self.0.ids.take(1, |tag| taken = tag);
        Ok(taken)
    }

    /// Puts back a tag that [`take_raw`](Self::take_raw) returned and nobody has put back since.
    #[inline]
    pub(crate) fn put_raw(&self, tag: u32) {
        if !push_by_section(&self.0, tag) {
            self.put_rest(&[tag]);
        }
    }

    /// [`put_raw`](Self::put_raw) for several, in one go.
    #[inline]
    pub(crate) fn put_all_raw(&self, tags: &[u32]) {
        let fit = tags.iter().take_while(|tag| push_by_section(&self.0, **tag)).count();
        if fit < tags.len() {
            self.put_rest(&tags[fit..]);
        }
    }

    /// Puts back what no section did.
    #[inline(never)]
    fn put_rest(&self, tags: &[u32]) {
        let fit = match self.0.local() {
            Some(stock) => stock.push_all(tags),
            None if rseq::rejoin() => tags.iter().take_while(|tag| push_by_section(&self.0, **tag)).count(),
            None => 0,
        };
        let rest = &tags[fit..];
        if !rest.is_empty() {
            self.0.ids.put_all(rest.iter().copied());
            self.0.put_to_pool(rest.len() as u32);
        }
    }
}

/// Takes the last tag of this CPU's stock, if it has one.
#[inline(always)]
fn pop_by_section(mode: &AtomicU64) -> Option<u32> {
    // SAFETY: the kind was asked by the constructor; the mode word is the address of the stocks, which are laid
    // out as sections know it, and written by sections only.
    unsafe { rseq::pop(mode, |mode, cpu| Allocator::<Stack>::stock(mode, cpu).pop_plainly()) }
}

/// Adds a tag to this CPU's stock, if there is room.
#[inline(always)]
fn push_by_section(allocator: &Allocator<Stack>, tag: u32) -> bool {
    allocator.mode().is_some_and(|mode| {
        // SAFETY: as in `pop_by_section`.
        unsafe { rseq::push(mode, tag, |mode, cpu| Allocator::<Stack>::stock(mode, cpu).push_plainly(tag)) }
    })
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

/// One CPU's stack of free tags.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Stack {
    /// How many there are. If they are changed by locked instructions, also:
    /// bit 63: closed, the tags belong to the closer;
    /// bit 62: busy, they belong to whoever set it, for a few instructions.
    ///
    /// * open(len) -> busy -> open(len') by whoever takes or puts
    /// * open(len) -> closed -> open(0) by the one sweeper
    word: AtomicU64,
    /// Of `tags`, for sections.
    address: *const u32,
    limit: u64,
    /// # Safety
    ///
    /// Touched only by a section, or by the thread that set busy or closed, until it clears it.
    tags: CellArray<u32>,
}

const _: () = assert!(MODELLED || size_of::<CachePadded<Stack>>() == 128, "the distance that sections know");

// SAFETY: `address` is that of `tags`, which are reached as their comment says.
unsafe impl Send for Stack {}
// SAFETY: as above: by one thread at a time.
unsafe impl Sync for Stack {}

const CLOSED: u64 = 1 << 63;
const BUSY: u64 = 1 << 62;

impl Stack {
    fn new(limit: u32) -> Self {
        let tags = CellArray::new(limit as usize, 0);
        Self { word: AtomicU64::new(0), address: tags.as_ptr(), limit: limit.into(), tags }
    }

    /// Takes the last tag put in.
    #[inline]
    fn pop(&self) -> Option<u32> {
        self.busy(|len| len > 0, |len| (self.get(len - 1), len - 1))
    }

    /// Puts in as many of `tags` as there is room for, if it can be done at once; returns how many.
    #[inline]
    fn push_all(&self, tags: &[u32]) -> usize {
        let push = |len| {
            let fit = tags.len().min((self.limit - len) as usize);
            (len..).zip(&tags[..fit]).for_each(|(index, tag)| self.set(index, *tag));
            (fit, len + fit as u64)
        };
        self.busy(|len| len < self.limit, push).unwrap_or(0)
    }

    /// Puts in `n` of `ids`, or as many as there is room for, if it can be done at once; returns how many.
    fn fill_from(&self, n: u32, ids: &Bitmap) -> u32 {
        let fill = |len| {
            let fit = u64::from(n).min(self.limit - len);
            let mut index = len;
            ids.take(fit as u32, |tag| {
                self.set(index, tag);
                index += 1;
            });
            (fit as u32, index)
        };
        self.busy(|len| len < self.limit, fill).unwrap_or(0)
    }

    /// Takes the last `n` out, or as many as there are, if it can be done at once; returns how many.
    fn spill_to(&self, n: u32, ids: &Bitmap) -> u32 {
        let spill = |len: u64| {
            let left = len.saturating_sub(n.into());
            ids.put_all((left..len).map(|index| self.get(index)));
            ((len - left) as u32, left)
        };
        self.busy(|len| len > 0, spill).unwrap_or(0)
    }

    /// What a section does, for model checkers.
    fn pop_plainly(&self) -> Option<u32> {
        // Relaxed: kept whole by the model of a section.
        let len = self.word.load(Relaxed).checked_sub(1)?;
        let tag = self.get(len);
        self.word.store(len, Relaxed);
        Some(tag)
    }

    /// What a section does, for model checkers.
    fn push_plainly(&self, tag: u32) -> bool {
        // Relaxed: as above.
        let len = self.word.load(Relaxed);
        let fits = len < self.limit;
        if fits {
            self.set(len, tag);
            self.word.store(len + 1, Relaxed);
        }
        fits
    }

    /// The tag at `index`, for whoever has the tags.
    fn get(&self, index: u64) -> u32 {
        // SAFETY: below the limit, and nobody else's.
        unsafe { self.tags.with_slice(index as usize, 1, |tags| tags[0]) }
    }

    /// Writes the tag at `index`, for whoever has the tags.
    fn set(&self, index: u64, tag: u32) {
        // SAFETY: below the limit, and nobody else's.
        unsafe { self.tags.write(index as usize, tag) }
    }

    /// Has `change` made to the tags, which is given how many there are and says how many there are then, if they
    /// can be had at once and there are as many as `fits` likes.
    #[inline]
    fn busy<R>(&self, fits: impl Fn(u64) -> bool, change: impl FnOnce(u64) -> (R, u64)) -> Option<R> {
        // Relaxed: a guess, which the exchange confirms.
        let word = glance_u64(&self.word);
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
        let (done, len) = change(word);
        // Release: pairs with the exchange of the next holder, or of the closer.
        store_over(&self.word, len, mo!("credits.tags.give", Release));
        Some(done)
    }
}

impl Stock for Stack {
    type Ids = Bitmap;

    fn fill(allocator: &Allocator<Self>, n: u32) -> u32 {
        if let Some(stock) = allocator.local() {
            return stock.fill_from(n, &allocator.ids);
        }
        // The first that is refused ends it: if sections give up here, the rest is not taken out in vain.
        let mut filled = 0;
        let mut refused = false;
        while filled < n && !refused {
            allocator.ids.take((n - filled).min(16), |tag| {
                refused = refused || !push_by_section(allocator, tag);
                if refused {
                    allocator.ids.put(tag);
                } else {
                    filled += 1;
                }
            });
        }
        filled
    }

    fn spill(allocator: &Allocator<Self>, n: u32) -> u32 {
        if let Some(stock) = allocator.local() {
            return stock.spill_to(n, &allocator.ids);
        }
        let tags = std::iter::from_fn(|| allocator.mode().and_then(pop_by_section)).take(n as usize);
        tags.map(|tag| allocator.ids.put(tag)).count() as u32
    }

    fn close(&self, ids: &Bitmap) -> u32 {
        let len = loop {
            // Relaxed: a guess, which the exchange confirms.
            let word = glance_u64(&self.word);
            // Acquire: pairs with the giving back by the last holder.
            if word & BUSY == 0
                && self
                    .word
                    .compare_exchange(word, CLOSED, mo!("credits.tags.close", Acquire), Relaxed)
                    .is_ok()
            {
                break word;
            }
            // Somebody is between two instructions, or was preempted there: it must be waited for, or
            // a refusal would prove nothing.
            hint::contended();
            thread::yield_now();
        };
        ids.put_all((0..len).map(|index| self.get(index)));
        len as u32
    }

    fn open(&self) {
        // Release: pairs with the exchange of the next holder.
        store_over(&self.word, 0, mo!("credits.tags.open", Release));
    }

    fn len(&self) -> u32 {
        // Relaxed: a number to report.
        let word = self.word.load(Relaxed);
        if word & (CLOSED | BUSY) == 0 { word as u32 } else { 0 }
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
