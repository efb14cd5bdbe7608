//! [`Tags`]: which one.

use super::Exhausted;
use super::allocator::{Allocator, Way};
use super::bitmap::Bitmap;
use super::builder::{Builder, TooMany};
use super::stack::{Stack, pop_by_section, pop_many_by_section, push_all_by_section, push_by_section};
use super::waiters::{WaitError, Waiting};
use super::withdrawn::Withdrawn;
use crate::sync::rseq;
use crate::sync::time::Instant;
use std::future::Future;
use std::mem::{self, MaybeUninit};
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The integers `0..n`, each handed out to at most one holder at a time.
///
/// A tag indexes a table: what it names belongs to its holder. Wait-free while the CPU's own stock serves: one
/// plain store on this CPU's own line, or a locked instruction where the system has no restartable sequences (see
/// [`cpu::kind`](crate::cpu::kind)). Lock-free when a batch must be moved, and blocking when all are out (see the
/// [module](super)). Last in, first out per CPU, so that what a tag names is likely still in that CPU's cache. To keep
/// tags in numbers that can be told from older ones, see [`Handles`](super::Handles).
///
/// # Costs
///
/// 128 bytes per possible CPU, 640 for the pool and those who wait, and less than 3 bytes per tag. Two loads to refuse
/// while all are out. Several at a time cost little more than one, up to 64.
///
/// # Examples
///
/// ```
/// use ioctx::credits::Tags;
/// let tags = Tags::new(4);
/// let (a, b) = (tags.try_take()?, tags.try_take()?);
/// assert_ne!(a.index(), b.index());
/// let mut rest = tags.try_take_many(2)?;
/// assert!(tags.try_take().is_err());
/// rest.pop().unwrap().put();
/// assert!(tags.try_take().is_ok());
/// # Ok::<(), ioctx::credits::Exhausted>(())
/// ```
#[derive(Debug)]
pub struct Tags {
    free: Allocator<Stack>,
    /// How many there can be.
    bound: u32,
    withdrawn: Withdrawn,
}

impl Tags {
    /// Where the pool's words are, the set of tags in it, and those who wait.
    pub(crate) const POOL: usize = mem::offset_of!(Self, free.pool);
    pub(crate) const IDS: usize = mem::offset_of!(Self, free.ids);
    pub(crate) const WAITERS: usize = mem::offset_of!(Self, free.waiters);

    /// The tags `0..n`, shared out as [`Builder::new`] does.
    ///
    /// # Panics
    ///
    /// If `n` is more than [`MAX`](super::MAX); [`Builder::tags`] returns an error instead.
    pub fn new(n: u32) -> Self {
        Builder::new(n).tags().unwrap_or_else(|error| panic!("{n} tags: {error}"))
    }

    pub(super) fn build(builder: Builder) -> Self {
        let (total, bound) = (builder.capacity(builder.total), builder.bound());
        let limit = 2 * builder.batch_of(bound);
        Self {
            free: Allocator::new(builder, Bitmap::full(total, bound), || Stack::new(limit)),
            bound,
            withdrawn: Withdrawn::new(total..bound),
        }
    }

    /// Takes a tag.
    ///
    /// # Errors
    ///
    /// As [`Credits::try_take`](super::Credits::try_take); nor does it count what a take of several tags puts back,
    /// because after a resize some were not to be had any more.
    ///
    /// # Panics
    ///
    /// If the kernel granted membarrier to the process and a filter installed later takes it away.
    #[inline]
    pub fn try_take(&self) -> Result<Tag<'_>, Exhausted> {
        self.take_raw().map(|index| Tag { tags: self, index })
    }

    /// Takes `n` tags, or none.
    ///
    /// # Errors
    ///
    /// As [`try_take`](Self::try_take).
    ///
    /// # Panics
    ///
    /// As there.
    pub fn try_take_many(&self, n: u32) -> Result<Batch<'_>, Exhausted> {
        self.batch(n, n)
    }

    /// Takes `n` tags, or all that are free if they are fewer.
    ///
    /// # Errors
    ///
    /// As [`Credits::try_take_up_to`](super::Credits::try_take_up_to).
    ///
    /// # Panics
    ///
    /// As [`try_take`](Self::try_take).
    pub fn try_take_up_to(&self, n: u32) -> Result<Batch<'_>, Exhausted> {
        self.batch(1.min(n), n.min(self.bound))
    }

    /// Takes all tags that are free at one moment.
    ///
    /// # Panics
    ///
    /// As [`try_take`](Self::try_take).
    pub fn drain(&self) -> Batch<'_> {
        let mut indices = Vec::new();
        self.free.ids.take(self.free.drain(), |tag| indices.push(tag));
        indices.retain(|tag| self.is_ours(*tag));
        Batch { tags: self, indices }
    }

    /// Takes a tag as soon as one is free; sleeps until then. Blocking. See
    /// [`Credits::take`](super::Credits::take), also for who is served first.
    ///
    /// # Errors
    ///
    /// [`WaitError::Never`]: there are none at all.
    ///
    /// # Panics
    ///
    /// As [`try_take`](Self::try_take).
    pub fn take(&self) -> Result<Tag<'_>, WaitError> {
        self.take_by(None)
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
    pub fn take_until(&self, deadline: Instant) -> Result<Tag<'_>, WaitError> {
        self.take_by(Some(deadline))
    }

    fn take_by(&self, deadline: Option<Instant>) -> Result<Tag<'_>, WaitError> {
        if let Ok(tag) = self.try_take() {
            return Ok(tag);
        }
        loop {
            self.free.wait(1, deadline)?;
            if let Some(index) = self.take_counted() {
                return Ok(Tag { tags: self, index });
            }
        }
    }

    /// [`take`](Self::take) as a future. It stands in line from when it is first polled until it is dropped.
    pub fn take_async(&self) -> TakeTag<'_> {
        TakeTag { tags: self, waiting: None }
    }

    /// Makes them `0..n`; returns how many there were. Blocks on other resizes.
    ///
    /// If they become fewer, no tag from `n` on is handed out any more. Those that are stay with their holders; when
    /// they come back they count as free until somebody would get one.
    ///
    /// # Errors
    ///
    /// [`TooMany`]: more than the builder was told, with the policy's surplus; nothing was changed.
    ///
    /// # Panics
    ///
    /// As [`try_take`](Self::try_take).
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::credits::{Builder, TooMany};
    /// let tags = Builder::new(2).most(4).tags()?;
    /// let one = tags.try_take().unwrap();
    /// assert_eq!(tags.resize(4), Ok(2));
    /// assert_eq!(tags.drain().len(), 3);
    /// assert_eq!(tags.resize(5), Err(TooMany { most: 4 }));
    /// # Ok::<(), TooMany>(())
    /// ```
    pub fn resize(&self, n: u32) -> Result<u32, TooMany> {
        if self.free.capacity(n) > self.bound {
            return Err(TooMany { most: self.bound });
        }
        let mut withdrawn = self.withdrawn.lock();
        let (before, total) = self.free.set_total(n);
        let back: Vec<u32> = if total < before {
            let mut free = Vec::new();
            self.free.ids.take(self.free.drain(), |tag| free.push(tag));
            free.retain(|tag| *tag < total || !withdrawn.insert(*tag));
            free
        } else {
            (before..total).filter(|tag| withdrawn.remove(*tag)).collect()
        };
        self.free.ids.put_all(back.iter().copied());
        // Without the lock: this may wake somebody, who may call back. Until it is done these are there, but do not
        // count.
        drop(withdrawn);
        self.free.grow(back.len() as u32);
        Ok(before)
    }

    /// The tag that was let go of by [`Tag::into_raw`].
    ///
    /// # Safety
    ///
    /// 1. `index` was, of these tags, and nobody has made a tag of it since.
    #[inline]
    pub unsafe fn from_raw(&self, index: u32) -> Tag<'_> {
        Tag { tags: self, index }
    }

    /// How many tags there are in all.
    pub fn total(&self) -> u32 {
        self.free.total()
    }

    /// How many tags there can be after a [`resize`](Self::resize).
    pub(super) fn bound(&self) -> u32 {
        self.bound
    }

    /// How often stocks were refilled, and so on.
    #[cfg(feature = "stats")]
    pub fn stats(&self) -> super::Stats {
        self.free.stats()
    }

    /// How many tags are free.
    ///
    /// # Staleness
    ///
    /// Exact only while nobody takes or puts.
    pub fn available(&self) -> u32 {
        self.free.free()
    }

    /// Whether the last one who asked found none, and none has come back since.
    #[inline]
    pub(crate) fn is_starved(&self) -> bool {
        self.free.starved()
    }

    /// Takes a tag that does not give itself back.
    #[inline]
    pub(crate) fn take_raw(&self) -> Result<u32, Exhausted> {
        match self.free.way(1) {
            Way::Section(mode) => match pop_by_section(mode) {
                Some(tag) if tag < self.total() => Ok(tag),
                tag => self.take_slow(tag),
            },
            Way::Slow => self.take_slow(None),
            Way::Refuse => Err(Exhausted),
        }
    }

    /// Takes a tag somehow, but not `taken` if it is not ours any more.
    #[inline(never)]
    fn take_slow(&self, taken: Option<u32>) -> Result<u32, Exhausted> {
        let mut taken = taken.or_else(|| self.free.quick().and_then(Stack::pop));
        loop {
            match taken {
                Some(tag) if self.is_ours(tag) => return Ok(tag),
                _ => taken = Some(self.take_slower()?),
            }
        }
    }

    #[cold]
    fn take_slower(&self) -> Result<u32, Exhausted> {
        if rseq::rejoin()
            && let Some(tag) = self.free.mode().and_then(pop_by_section)
        {
            return Ok(tag);
        }
        if let Some(tag) = self.free.local().and_then(Stack::pop) {
            return Ok(tag);
        }
        self.free.take_from_pool(1, 1)?;
        let mut taken = 0;
        self.free.ids.take(1, |tag| taken = tag);
        Ok(taken)
    }

    /// The tag to a unit that was taken from the number of those in the pool; `None` if it is not ours any more.
    fn take_counted(&self) -> Option<u32> {
        let mut taken = 0;
        self.free.ids.take(1, |tag| taken = tag);
        self.is_ours(taken).then_some(taken)
    }

    /// Whether a tag that was taken may be handed out. If not, it is withdrawn now.
    #[inline]
    fn is_ours(&self, tag: u32) -> bool {
        tag < self.total() || self.is_ours_still(tag)
    }

    #[cold]
    fn is_ours_still(&self, tag: u32) -> bool {
        let mut withdrawn = self.withdrawn.lock();
        // Read again, with the lock.
        let ours = tag < self.total();
        if !ours {
            withdrawn.insert(tag);
        }
        ours
    }

    fn batch(&self, least: u32, most: u32) -> Result<Batch<'_>, Exhausted> {
        if least > self.total() {
            return Err(Exhausted);
        }
        let mut indices = Vec::with_capacity(most as usize);
        let taken = self.take_many_raw(least, &mut indices.spare_capacity_mut()[..most as usize])?;
        // SAFETY: so many were written.
        unsafe { indices.set_len(taken) };
        Ok(Batch { tags: self, indices })
    }

    /// Takes as many tags as `out` has places, or all that are free, but `least`. Returns how many it has written.
    pub(crate) fn take_many_raw(&self, least: u32, out: &mut [MaybeUninit<u32>]) -> Result<usize, Exhausted> {
        loop {
            let mode = self.free.mode();
            let here = mode.is_some_and(|mode| pop_many_by_section(mode, out).is_some())
                || self.free.local().is_some_and(|stock| stock.pop_many(out));
            let taken = if here {
                out.len()
            } else {
                let taken = self.free.take_from_pool(least, out.len() as u32)?;
                let mut places = out.iter_mut();
                self.free.ids.take(taken, |tag| _ = places.next().map(|place| place.write(tag)));
                taken as usize
            };
            // SAFETY: so many were written; `MaybeUninit<T>` has the layout of `T`.
            let tags = unsafe { std::slice::from_raw_parts(out.as_ptr().cast::<u32>(), taken) };
            if tags.iter().all(|tag| *tag < self.total()) {
                return Ok(taken);
            }
            let ours: Vec<u32> = tags.iter().copied().filter(|tag| self.is_ours(*tag)).collect();
            self.put_all_raw(&ours);
        }
    }

    /// Puts back a tag that [`take_raw`](Self::take_raw) returned and nobody has put back since.
    #[inline]
    pub(crate) fn put_raw(&self, tag: u32) {
        if !push_by_section(&self.free, tag) {
            self.put_rest(&[tag]);
        }
    }

    /// [`put_raw`](Self::put_raw) for several, in one go.
    #[inline]
    pub(crate) fn put_all_raw(&self, tags: &[u32]) {
        let fit = push_all_by_section(&self.free, tags);
        if fit < tags.len() {
            self.put_rest(&tags[fit..]);
        }
    }

    /// Puts back what no section did.
    #[inline(never)]
    fn put_rest(&self, tags: &[u32]) {
        let fit = match self.free.local() {
            Some(stock) => stock.push_all(tags),
            None if rseq::rejoin() => push_all_by_section(&self.free, tags),
            None => 0,
        };
        let rest = &tags[fit..];
        if !rest.is_empty() {
            self.free.ids.put_all(rest.iter().copied());
            self.free.put_to_pool(rest.len() as u32);
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
    /// The integer, below the total as it was when the tag was taken.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Gives the tag back, as dropping it does.
    #[inline]
    pub fn put(self) {}

    /// Keeps the tag handed out, for somebody who carries only a number. As [`forget`](mem::forget), until
    /// [`Tags::from_raw`] makes a tag of it again. [`Handles`](super::Handles) do that without being unsafe.
    #[inline]
    pub fn into_raw(self) -> u32 {
        mem::ManuallyDrop::new(self).index
    }

    pub(super) fn is_of(&self, tags: &Tags) -> bool {
        std::ptr::eq(self.tags, tags)
    }
}

impl Drop for Tag<'_> {
    #[inline]
    fn drop(&mut self) {
        self.tags.put_raw(self.index);
    }
}

/// Tags that are handed out together. Dropping it gives all of them back; forgetting it leaks them.
///
/// It is a slice of integers, each below the total as it was then.
#[derive(Debug)]
#[must_use = "dropped at once, the tags go back"]
pub struct Batch<'a> {
    tags: &'a Tags,
    indices: Vec<u32>,
}

impl<'a> Batch<'a> {
    /// Takes the last one out, if there is one.
    pub fn pop(&mut self) -> Option<Tag<'a>> {
        self.indices.pop().map(|index| Tag { tags: self.tags, index })
    }

    /// Gives the tags back, as dropping it does.
    pub fn put(self) {}
}

impl Deref for Batch<'_> {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.indices
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.tags.put_all_raw(&mem::take(&mut self.indices));
    }
}

/// A tag that is waited for. From [`Tags::take_async`].
#[derive(Debug)]
#[must_use = "it takes nothing unless polled"]
pub struct TakeTag<'a> {
    tags: &'a Tags,
    waiting: Option<Waiting<'a, Stack>>,
}

impl<'a> Future for TakeTag<'a> {
    type Output = Result<Tag<'a>, WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let tags = self.tags;
        if self.waiting.is_none()
            && let Ok(tag) = tags.try_take()
        {
            return Poll::Ready(Ok(tag));
        }
        let waiting = self.waiting.get_or_insert_with(|| Waiting::new(&tags.free, 1));
        loop {
            std::task::ready!(waiting.poll(context))?;
            if let Some(index) = tags.take_counted() {
                return Poll::Ready(Ok(Tag { tags, index }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn hands_out_each_tag_once() {
        for batch in 1..5 {
            let tags = Builder::new(9).batch(batch).tags().unwrap();
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

    #[test]
    fn fewer_tags_and_more_again() {
        let tags = Builder::new(8).batch(2).tags().unwrap();
        let all = tags.drain();
        assert_eq!(tags.resize(3), Ok(8));
        assert!(tags.try_take().is_err(), "all are out");
        drop(all);
        let few: HashSet<u32> = std::iter::from_fn(|| tags.try_take().ok())
            .map(|tag| {
                let index = tag.index();
                mem::forget(tag);
                index
            })
            .collect();
        assert_eq!(few, HashSet::from([0, 1, 2]));
        assert_eq!(tags.resize(8), Ok(3));
        let rest: HashSet<u32> = tags.drain().iter().copied().collect();
        assert_eq!(rest, HashSet::from([3, 4, 5, 6, 7]));
    }
}
