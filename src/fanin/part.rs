//! [`Part`], and what all parts of a request share.

use super::outcome::{Outcome, canceled};
use crate::credits::Credits;
use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicPtr, AtomicU32, Ordering::Relaxed, glance_ptr};
use crate::sync::cell::UnsafeCell;
use crate::sync::{Arc, Mutex, call_outside, mo};
use crate::wait::EventCount;
use std::mem::{self, ManuallyDrop};
use std::ptr::{NonNull, null_mut, without_provenance_mut};
use std::{fmt, io};

/// A part of a request, to be carried out and finished, on any thread.
///
/// Using it consumes it; dropping it finishes it with `ECANCELED`; forgetting it leaks it, its credit, and the request,
/// which never completes.
///
/// # Costs
///
/// Finishing: two locked instructions, one after the submitter has gone, and a look for a sleeping submitter.
pub struct Part<P>(ManuallyDrop<Box<Node<P>>>);

/// A part in memory, with a credit and one of the request's counts.
pub(super) struct Node<P> {
    /// Valid while our count is not put.
    shared: NonNull<Shared<P>>,
    /// The part finished before, in the list of those that are to be reaped.
    ///
    /// # Safety
    ///
    /// Belongs to whoever has the node.
    next: UnsafeCell<*mut Self>,
    /// The how-many-eth it is.
    index: u64,
    /// The lengths of those before.
    offset: usize,
    len: usize,
    pub(super) payload: P,
}

// SAFETY: owns a node, which nobody else has; what is shared through it is `Sync`, and takes payloads from thread to
// thread.
unsafe impl<P: Send> Send for Part<P> {}

/// What parts and the submitter share. Freed by the last of them.
pub(super) struct Shared<P> {
    /// Those who are not finished: parts, and the submitter.
    count: CachePadded<AtomicU32>,
    /// Finished parts, the last one first, for the submitter to reap; or [`CLOSED`](Self::CLOSED): it has gone.
    done: CachePadded<AtomicPtr<Node<P>>>,
    /// Where the submitter sleeps until there are some.
    pub(super) submitter: EventCount,
    pub(super) credits: Arc<Credits>,
    /// The first part that is not whole, as far as is known.
    cut: Mutex<Option<Cut>>,
    /// # Safety
    ///
    /// Written by the submitter, read by whoever is last.
    total: UnsafeCell<usize>,
    on_complete: Box<dyn FnOnce(Outcome) + Send>,
}

/// A part that is not whole.
struct Cut {
    index: u64,
    outcome: Outcome,
}

impl<P> Part<P> {
    pub(super) fn new(
        shared: NonNull<Shared<P>>,
        (index, offset, len): (u64, usize, usize),
        payload: P,
    ) -> Self {
        let next = UnsafeCell::new(null_mut());
        Self(ManuallyDrop::new(Box::new(Node { shared, next, index, offset, len, payload })))
    }

    /// The how-many-eth part it is, from 0.
    pub fn index(&self) -> u64 {
        self.0.index
    }

    /// Where it begins in the request, in bytes.
    pub fn offset(&self) -> usize {
        self.0.offset
    }

    /// How many bytes it is to transfer.
    #[expect(clippy::len_without_is_empty, reason = "it is empty only if nothing was asked for")]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// What came with it.
    pub fn payload(&self) -> &P {
        &self.0.payload
    }

    /// What came with it.
    pub fn payload_mut(&mut self) -> &mut P {
        &mut self.0.payload
    }

    /// Ends it: so many bytes, or none and an error. Fewer bytes than its length end the request there; more count as
    /// its length.
    ///
    /// If it is the last, the request completes in this call; a panic of what is called then comes from here.
    pub fn finish(self, result: io::Result<usize>) {
        match result {
            Ok(bytes) => self.end(bytes, None),
            Err(error) => self.end(0, Some(error)),
        }
    }

    /// As [`finish`](Self::finish), for one that has achieved something before its error.
    pub fn finish_partly(self, bytes: usize, error: io::Error) {
        self.end(bytes, Some(error));
    }

    fn end(self, bytes: usize, error: Option<io::Error>) {
        // SAFETY: forgotten here.
        unsafe { ManuallyDrop::new(self).end_once(bytes, error) };
    }

    /// # Safety
    ///
    /// 1. The part is not used any more.
    unsafe fn end_once(&mut self, bytes: usize, error: Option<io::Error>) {
        // SAFETY: once, by 1.
        let node = unsafe { ManuallyDrop::take(&mut self.0) };
        // SAFETY: the part's count, which it does not put otherwise. Put last, also if a payload panics.
        let put = unsafe { Put::new(node.shared) };
        let shared = put.shared();
        if bytes < node.len || error.is_some() {
            let outcome = Outcome { bytes: node.offset.saturating_add(bytes.min(node.len)), error };
            shared.cut(node.index, outcome);
        }
        match shared.push(node) {
            Ok(()) => shared.submitter.notify_after_rmw(|| 1),
            Err(node) => shared.reap(node.payload, drop),
        }
    }
}

impl<P> Drop for Part<P> {
    fn drop(&mut self) {
        // SAFETY: dropped, and used by nobody any more.
        unsafe { self.end_once(0, Some(canceled())) };
    }
}

impl<P> fmt::Debug for Part<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Node { index, offset, len, .. } = &**self.0;
        f.debug_struct("Part").field("index", index).field("offset", offset).field("len", len).finish()
    }
}

impl<P> Shared<P> {
    /// The submitter has gone. No node has this address: it is not aligned as one.
    const CLOSED: *mut Node<P> = without_provenance_mut(1);

    /// Counted for the submitter.
    pub(super) fn new(credits: Arc<Credits>, on_complete: Box<dyn FnOnce(Outcome) + Send>) -> NonNull<Self> {
        const { assert!(mem::align_of::<Node<P>>() > 1) };
        let shared = Self {
            count: CachePadded::new(AtomicU32::new(1)),
            done: CachePadded::new(AtomicPtr::new(null_mut())),
            submitter: EventCount::new(),
            credits,
            cut: Mutex::new(None),
            total: UnsafeCell::new(0),
            on_complete,
        };
        NonNull::from(Box::leak(Box::new(shared)))
    }

    /// Counts a part.
    pub(super) fn get(&self) {
        // Relaxed: the submitter's own count keeps it above zero. Not too many: there are fewer credits.
        self.count.fetch_add(1, Relaxed);
    }

    /// Notes that a part was not whole.
    pub(super) fn cut(&self, index: u64, outcome: Outcome) {
        let mut cut = self.cut.lock();
        if cut.as_ref().is_none_or(|first| index < first.index) {
            let before = cut.replace(Cut { index, outcome });
            drop(cut);
            // Not under the lock: an error of the user's own may do anything.
            drop(before);
        }
    }

    /// Says how many bytes there are in all.
    ///
    /// # Safety
    ///
    /// 1. The caller is the submitter.
    pub(super) unsafe fn set_total(&self, bytes: usize) {
        // SAFETY: read only when the submitter has put its count.
        self.total.with_mut(|total| unsafe { *total = bytes });
    }

    /// Leaves a finished part to the submitter, unless it has gone.
    fn push(&self, node: Box<Node<P>>) -> Result<(), Box<Node<P>>> {
        // Relaxed: read again by the exchange, and followed only by the submitter.
        let mut head = self.done.load(Relaxed);
        let node = Box::into_raw(node);
        while head != Self::CLOSED {
            // SAFETY: ours until it is pushed.
            unsafe { &*node }.next.with_mut(|next| unsafe { *next = head });
            // Release: pairs with `take` and `close`; the part. Those before are passed on by the exchanges that
            // follow each other. Relaxed: tried again.
            match self.done.compare_exchange_weak(head, node, mo!("fanin.done.push", Release), Relaxed) {
                Ok(_) => return Ok(()),
                Err(now) => head = now,
            }
        }
        // SAFETY: not pushed, so it is ours still.
        Err(unsafe { Box::from_raw(node) })
    }

    /// Whether finished parts are there to be reaped, for the submitter, which has announced that it sleeps.
    pub(super) fn has_done(&self) -> bool {
        // Relaxed: ordered by the announcement's fence.
        !self.done.load(Relaxed).is_null()
    }

    /// Takes the finished parts, of `out`, from which those are subtracted that were reaped.
    ///
    /// # Safety
    ///
    /// 1. The caller is the submitter, and has not closed the list.
    pub(super) unsafe fn take_done<'a>(&'a self, out: &'a mut u32) -> Done<'a, P> {
        // Those that come meanwhile are for the next time; most of the time there are none.
        if glance_ptr(&self.done).is_null() {
            return Done { shared: self, out, first: null_mut() };
        }
        // Acquire: pairs with `push`.
        Done { shared: self, out, first: self.done.swap(null_mut(), mo!("fanin.done.take", Acquire)) }
    }

    /// Takes the finished parts for the last time: others are reaped by whoever finishes them.
    ///
    /// # Safety
    ///
    /// 1. As [`take_done`](Self::take_done).
    pub(super) unsafe fn close<'a>(&'a self, out: &'a mut u32) -> Done<'a, P> {
        // Acquire: pairs with `push`.
        Done { shared: self, out, first: self.done.swap(Self::CLOSED, mo!("fanin.done.close", Acquire)) }
    }

    /// Ends a finished part: `each` has its payload, then its credit goes back.
    fn reap(&self, payload: P, each: impl FnOnce(P)) {
        // SAFETY: taken for this part by `FanIn::hand_out`, and given up there. Back also if `each` panics.
        let _credit = unsafe { self.credits.from_raw(1) };
        each(payload);
    }

    /// The outcome, for whoever is last, and what is to be called with it.
    fn into_outcome(self: Box<Self>) -> (Outcome, Box<dyn FnOnce(Outcome) + Send>) {
        let cut = self.cut.lock().take();
        // SAFETY: nobody else has this any more.
        let bytes = self.total.with(|total| unsafe { *total });
        (cut.map_or(Outcome { bytes, error: None }, |cut| cut.outcome), self.on_complete)
    }
}

/// Finished parts, to be reaped; dropped, they are.
pub(super) struct Done<'a, P> {
    shared: &'a Shared<P>,
    /// How many are still out.
    out: &'a mut u32,
    first: *mut Node<P>,
}

impl<P> Done<'_, P> {
    /// Reaps one; returns whether there was one.
    pub(super) fn reap_one(&mut self, each: impl FnOnce(P)) -> bool {
        if self.first.is_null() {
            return false;
        }
        // SAFETY: taken out of the list with all that follow it, so it is ours.
        let node = unsafe { Box::from_raw(self.first) };
        // SAFETY: as above.
        self.first = node.next.with(|next| unsafe { *next });
        *self.out -= 1;
        self.shared.reap(node.payload, each);
        true
    }
}

impl<P> Drop for Done<'_, P> {
    fn drop(&mut self) {
        while !self.first.is_null() {
            // If dropping a payload panics, the others are reaped meanwhile.
            let first = mem::replace(&mut self.first, null_mut());
            let mut others = Done { shared: self.shared, out: self.out, first };
            others.reap_one(drop);
            self.first = mem::replace(&mut others.first, null_mut());
        }
    }
}

/// One count, put when this goes. Completes the request if it is the last.
pub(super) struct Put<P>(NonNull<Shared<P>>);

impl<P> Put<P> {
    /// # Safety
    ///
    /// 1. The caller has a count of `*shared`, and passes it on.
    pub(super) unsafe fn new(shared: NonNull<Shared<P>>) -> Self {
        Self(shared)
    }

    pub(super) fn shared(&self) -> &Shared<P> {
        // SAFETY: lives while we have a count.
        unsafe { self.0.as_ref() }
    }
}

impl<P> Drop for Put<P> {
    fn drop(&mut self) {
        // Release: what we did. Acquire: what all others did, for the last.
        if self.shared().count.fetch_sub(1, mo!("fanin.count.put", AcqRel)) == 1 {
            // SAFETY: leaked by `Shared::new`, and nobody else has a count any more.
            let shared = unsafe { Box::from_raw(self.0.as_ptr()) };
            let (outcome, on_complete) = shared.into_outcome();
            call_outside(|| on_complete(outcome));
        }
    }
}
