//! [`Stack`]: one CPU's stock of tags.

use super::allocator::{Allocator, Stock};
use super::bitmap::Bitmap;
use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed, glance_u64, store_over};
use crate::sync::cell::CellArray;
use crate::sync::{MODELLED, hint, mo, rseq, thread};
use std::mem::MaybeUninit;
use std::slice;

/// The most tags that one section moves: the longer it runs, the likelier it is interrupted, and has to be given up.
const AT_ONCE: usize = 64;

/// Takes the last tag of this CPU's stock, if it has one.
#[inline(always)]
pub(super) fn pop_by_section(mode: &AtomicU64) -> Option<u32> {
    // SAFETY: the kind was asked by the constructor; the mode word is the address of the stocks, which are laid
    // out as sections know it, and written by sections only.
    unsafe {
        rseq::pop(mode, |mode, cpu| {
            let mut tag = MaybeUninit::uninit();
            let popped = Allocator::<Stack>::stock(mode, cpu).pop_plainly(slice::from_mut(&mut tag));
            // Written if it was popped.
            popped.then(|| tag.assume_init())
        })
    }
}

/// Takes as many of the last tags of this CPU's stock as `out` has places, if it has so many.
pub(super) fn pop_many_by_section<'a>(
    mode: &AtomicU64,
    out: &'a mut [MaybeUninit<u32>],
) -> Option<&'a mut [u32]> {
    if out.is_empty() || out.len() > AT_ONCE {
        return None;
    }
    // SAFETY: as in `pop_by_section`; it is not empty.
    unsafe {
        rseq::pop_many(mode, out, |mode, cpu, out| Allocator::<Stack>::stock(mode, cpu).pop_plainly(out))
    }
}

/// Adds a tag to this CPU's stock, if there is room.
#[inline(always)]
pub(super) fn push_by_section(allocator: &Allocator<Stack>, tag: u32) -> bool {
    allocator.mode().is_some_and(|mode| {
        // SAFETY: as in `pop_by_section`.
        unsafe {
            rseq::push(mode, tag, |mode, cpu| Allocator::<Stack>::stock(mode, cpu).push_plainly(&[tag]))
        }
    })
}

/// Adds tags to this CPU's stock, first to last and several at a time, until there is no room; returns how many.
pub(super) fn push_all_by_section(allocator: &Allocator<Stack>, tags: &[u32]) -> usize {
    let Some(mode) = allocator.mode() else { return 0 };
    let at_once = (allocator.batch() as usize).min(AT_ONCE);
    let push = |tags: &&[u32]| {
        // SAFETY: as in `pop_by_section`; a chunk is not empty.
        unsafe {
            rseq::push_many(mode, tags, |mode, cpu| Allocator::<Stack>::stock(mode, cpu).push_plainly(tags))
        }
    };
    tags.chunks(at_once).take_while(push).map(<[u32]>::len).sum()
}

/// One CPU's stack of free tags.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Stack {
    /// How many there are, if sections change them.
    word: AtomicU64,
    /// Of `tags`, for sections.
    address: *const u32,
    limit: u64,
    /// How many there are, if locked instructions change them. A word of its own, since whoever is late with a locked
    /// instruction must not meet a section.
    ///
    /// * bit 63: closed, the tags belong to the closer, or to sections;
    /// * bit 62: busy, they belong to whoever set it, for a few instructions.
    ///
    /// * open(len) -> busy -> open(len') by whoever takes or puts
    /// * open(len) -> closed -> open(0) by the one sweeper
    locked: AtomicU64,
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
    pub(super) fn new(limit: u32) -> Self {
        let tags = CellArray::new(limit as usize, 0);
        let (word, locked) = (AtomicU64::new(0), AtomicU64::new(CLOSED));
        Self { word, address: tags.as_ptr(), limit: limit.into(), locked, tags }
    }

    /// Takes the last tag put in.
    #[inline]
    pub(super) fn pop(&self) -> Option<u32> {
        self.busy(|len| len > 0, |len| (self.get(len - 1), len - 1))
    }

    /// Takes as many of the last tags as `out` has places, if there are so many and it can be done at once.
    pub(super) fn pop_many(&self, out: &mut [MaybeUninit<u32>]) -> bool {
        let n = out.len() as u64;
        let pop = |len| {
            (len - n..).zip(out).for_each(|(index, out)| _ = out.write(self.get(index)));
            ((), len - n)
        };
        self.busy(|len| len >= n, pop).is_some()
    }

    /// Puts in as many of `tags` as there is room for, if it can be done at once; returns how many.
    #[inline]
    pub(super) fn push_all(&self, tags: &[u32]) -> usize {
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
    fn pop_plainly(&self, out: &mut [MaybeUninit<u32>]) -> bool {
        // Relaxed: kept whole by the model of a section.
        let Some(left) = self.word.load(Relaxed).checked_sub(out.len() as u64) else { return false };
        (left..).zip(out).for_each(|(index, out)| _ = out.write(self.get(index)));
        self.word.store(left, Relaxed);
        true
    }

    /// What a section does, for model checkers.
    fn push_plainly(&self, tags: &[u32]) -> bool {
        // Relaxed: as above.
        let len = self.word.load(Relaxed);
        let fits = len + tags.len() as u64 <= self.limit;
        if fits {
            (len..).zip(tags).for_each(|(index, tag)| self.set(index, *tag));
            self.word.store(len + tags.len() as u64, Relaxed);
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
        let word = glance_u64(&self.locked);
        // Acquire: pairs with the giving back below, by the last holder. One try: who fails goes to the pool.
        if word & (CLOSED | BUSY) != 0
            || !fits(word)
            || self
                .locked
                .compare_exchange(word, word | BUSY, mo!("credits.tags.take", Acquire), Relaxed)
                .is_err()
        {
            return None;
        }
        let (done, len) = change(word);
        // Release: pairs with the exchange of the next holder, or of the closer.
        store_over(&self.locked, len, mo!("credits.tags.give", Release));
        Some(done)
    }
}

impl Stock for Stack {
    type Ids = Bitmap;

    fn fill(allocator: &Allocator<Self>, n: u32) -> u32 {
        if let Some(stock) = allocator.local() {
            return stock.fill_from(n, &allocator.ids);
        }
        // What is refused ends it: if sections give up here, the rest is not taken out in vain.
        let mut filled = 0;
        while filled < n {
            let mut some = [0; AT_ONCE];
            let want = (n - filled).min(AT_ONCE as u32);
            let mut places = some.iter_mut();
            allocator.ids.take(want, |tag| *places.next().expect("not more than asked for") = tag);
            let some = &some[..want as usize];
            let fit = push_all_by_section(allocator, some);
            filled += fit as u32;
            if fit < some.len() {
                allocator.ids.put_all(some[fit..].iter().copied());
                break;
            }
        }
        filled
    }

    fn spill(allocator: &Allocator<Self>, n: u32) -> u32 {
        if let Some(stock) = allocator.local() {
            return stock.spill_to(n, &allocator.ids);
        }
        let mut spilled = 0;
        while spilled < n {
            let mut some = [MaybeUninit::uninit(); AT_ONCE];
            let some = &mut some[..(n - spilled).min(AT_ONCE as u32) as usize];
            let popped = allocator.mode().and_then(|mode| pop_many_by_section(mode, some));
            let Some(popped) = popped else { break };
            allocator.ids.put_all(popped.iter().copied());
            spilled += popped.len() as u32;
        }
        spilled
    }

    fn gather(&self, ids: &Bitmap) -> u32 {
        // Relaxed, both: after the fence that keeps sections out, and before the store that lets them in again.
        let len = self.word.load(Relaxed);
        ids.put_all((0..len).map(|index| self.get(index)));
        self.word.store(0, Relaxed);
        len as u32
    }

    fn close(&self, ids: &Bitmap) -> u32 {
        let len = loop {
            // Relaxed: a guess, which the exchange confirms.
            let word = glance_u64(&self.locked);
            // Acquire: pairs with the giving back by the last holder.
            if word & BUSY == 0
                && self
                    .locked
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
        store_over(&self.locked, 0, mo!("credits.tags.open", Release));
    }

    fn len(&self) -> u32 {
        // Relaxed, both: numbers to report.
        let (word, locked) = (self.word.load(Relaxed), self.locked.load(Relaxed));
        (word + if locked & (CLOSED | BUSY) == 0 { locked } else { 0 }) as u32
    }
}
