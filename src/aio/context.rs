//! [`Context`].

use super::shared::Shared;
use super::{
    Backend, BatchError, Completion, CreateError, DestroyError, Event, Finished, GetEventsError, Reason,
    Request, SubmitError, Submitted,
};
use crate::refcount::Put;
use crate::ring::{self, CompletionQueue};
use crate::sync::time::{Instant, expired};
use crate::sync::{hint, thread};
use crate::wait::Outcome;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;
use std::{fmt, mem, slice};

/// The largest capacity: 2²⁰ requests, which take 128 MiB.
pub const MAX_CAPACITY: u32 = 1 << 20;

/// The most completion lanes: more than any machine has CPUs.
pub const MAX_LANES: u32 = 1 << 13;

/// How many events of one batch are published together.
const TOGETHER: usize = 64;

/// An asynchronous-I/O context that any number of threads share.
///
/// Everything goes through `&self`. [`submit`](Self::submit) is lock-free as long as the CPU's stock of
/// tags serves and the backend is; it never waits for room. [`get_events`](Self::get_events) blocks if
/// asked to. Dropping blocks until the last request has completed.
///
/// # Costs
///
/// 128 bytes per request of capacity for its slot, some 70 to 140 for its tag and its place in the lanes,
/// and some 14 padded lines per possible CPU. Two to four locked instructions per submit, three per
/// completion, one to two per event read, all on this CPU's lines.
///
/// # When not to use it
///
/// One thread that submits and waits is served as well by plain `pread`; one runtime thread per core that
/// never shares, by a ring of its own.
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Context, Request};
/// use ioctx::backend::Threads;
///
/// let context = Context::new(64, Threads::new(2)?)?;
/// let file = tempfile::tempfile()?;
/// context.submit(Request::write(file, b"hello".to_vec(), 0))?;
///
/// let mut events = Vec::new();
/// context.get_events(1, 64, None, &mut events)?;
/// assert_eq!(events[0].result.as_ref().unwrap(), &5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Context<B: Backend> {
    /// Ours; completions point to it as well, until `finished` opens.
    shared: NonNull<Shared>,
    backend: B,
}

// SAFETY: `Shared` is `Send` and `Sync`, and so is every `Backend`.
unsafe impl<B: Backend> Send for Context<B> {}
// SAFETY: as above.
unsafe impl<B: Backend> Sync for Context<B> {}

impl<B: Backend> Context<B> {
    /// A context for up to `capacity` requests in flight or unread, with a completion lane per possible CPU.
    ///
    /// # Errors
    ///
    /// [`CreateError::Capacity`] if it is 0 or above [`MAX_CAPACITY`].
    pub fn new(capacity: u32, backend: B) -> Result<Self, CreateError> {
        Self::with_queue(capacity, CompletionQueue::new, backend)
    }

    /// As [`new`](Self::new), with `lanes` completion lanes. One lane hands events over in the order of
    /// their completion.
    ///
    /// # Errors
    ///
    /// [`CreateError::Capacity`] if it is 0 or above [`MAX_CAPACITY`]; [`CreateError::Lanes`] if they are 0
    /// or above [`MAX_LANES`].
    pub fn with_lanes(capacity: u32, lanes: u32, backend: B) -> Result<Self, CreateError> {
        if !(1..=MAX_LANES).contains(&lanes) {
            return Err(CreateError::Lanes(lanes));
        }
        Self::with_queue(capacity, |capacity| CompletionQueue::with_lanes(capacity, lanes), backend)
    }

    fn with_queue(
        capacity: u32,
        queue: impl FnOnce(u32) -> CompletionQueue,
        backend: B,
    ) -> Result<Self, CreateError> {
        if !(1..=MAX_CAPACITY).contains(&capacity) {
            return Err(CreateError::Capacity(capacity));
        }
        let shared = NonNull::from(Box::leak(Box::new(Shared::new(capacity, queue(capacity)))));
        Ok(Self { shared, backend })
    }

    #[inline]
    pub(super) fn shared(&self) -> &Shared {
        // SAFETY: freed only by our `drop`.
        unsafe { self.shared.as_ref() }
    }

    /// What carries the requests out.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// How many requests can be in flight or unread.
    pub fn capacity(&self) -> u32 {
        self.shared().tags.total()
    }

    /// How many requests are in flight or unread.
    ///
    /// # Staleness
    ///
    /// Exact only while nobody submits or reads: for reports, not for deciding.
    pub fn outstanding(&self) -> u32 {
        self.capacity().saturating_sub(self.shared().tags.available())
    }

    /// Hands one request over.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the request: see [`Reason`].
    #[inline]
    pub fn submit(&self, request: Request) -> Result<(), SubmitError> {
        let mut request = ManuallyDrop::new(request);
        // SAFETY: 1. a whole request. 2. left alone unless it comes back.
        match unsafe { self.accept(&raw mut *request, || self.place()) } {
            Ok(submitted) => {
                match submitted {
                    // In place: by its `drop` it would go through memory, in pieces, and each load would wait.
                    Submitted::Done(finished) => finished.publish(),
                    other => drop(other),
                }
                self.backend.flush();
                Ok(())
            }
            Err(reason) => Err(SubmitError { request: ManuallyDrop::into_inner(request), reason }),
        }
    }

    /// Hands requests over, first to last, until one is not accepted. Those that were are removed from
    /// `batch`; the result says how many. Events of requests that are done at once are published together. Places are
    /// taken for up to 64 requests at a time: meanwhile others may find the context full, and a request that has one
    /// is still accepted if the context is destroyed.
    ///
    /// # Errors
    ///
    /// [`BatchError`] if the first one was not accepted; an empty batch is no error. To learn why a later
    /// one was not, submit the rest again.
    pub fn submit_batch(&self, batch: &mut Vec<Request>) -> Result<usize, BatchError> {
        let mut progress = Progress::new(self.shared, batch);
        let mut stopped = None;
        while let Some(request) = progress.next() {
            // SAFETY: 1. a whole request. 2. passed over, unless it is given back to the batch.
            let submitted = unsafe { self.accept(request, || progress.place()) };
            match submitted {
                Ok(Submitted::Done(finished)) => progress.events.push(self.shared, finished),
                Ok(_) => {}
                Err(reason) => {
                    progress.give_back();
                    stopped = Some(reason);
                    break;
                }
            }
        }
        let accepted = progress.accepted;
        drop(progress);
        self.backend.flush();
        match stopped {
            Some(reason) if accepted == 0 => Err(BatchError(reason)),
            _ => Ok(accepted),
        }
    }

    /// A tag, and a reference of `reqs` for it.
    #[inline(always)]
    fn place(&self) -> Result<u32, Reason> {
        let shared = self.shared();
        // Put by the completer, in `Shared::publish`; in `accept` if the request goes no further.
        if !shared.reqs.try_get_live() {
            return Err(Reason::Dying);
        }
        // SAFETY: the reference is ours.
        shared.tags.take_raw().map_err(|_| unsafe { Shared::full(self.shared) })
    }

    /// Moves the request at `request` to a `place`, which is a tag and a reference, and gives it to the backend. On an
    /// error it is still, or again, there.
    ///
    /// # Safety
    ///
    /// 1. `request` holds one.
    /// 2. Unless this returns an error, it is not used there any more; also if this panics.
    #[inline(always)]
    unsafe fn accept(
        &self,
        request: *mut Request,
        place: impl FnOnce() -> Result<u32, Reason>,
    ) -> Result<Submitted, Reason> {
        // SAFETY: valid by 1.
        if let Err(argument) = unsafe { (*request).check() } {
            return Err(Reason::Invalid(argument));
        }
        let shared = self.shared();
        let tag = place()?;
        // SAFETY: 1. the tag just taken is ours, and nobody left anything in its slot. 2. by 1. and 2.
        unsafe { shared.fill(tag, request) };
        // SAFETY: 1. tag and reference are ours and are passed on. 2. just filled.
        match self.backend.submit(unsafe { Completion::new(self.shared, tag) }) {
            Submitted::Refused(work, error) if work.is(self.shared, tag) => {
                work.into_parts();
                // What is in the slot, unchanged by the backend or not, is what the caller gets back.
                //
                // SAFETY: with the completion we have tag and slot back, and the reference. The caller's
                // place is free, and not shared.
                unsafe {
                    request.copy_from_nonoverlapping(shared.slot(tag), 1);
                    shared.tags.put_raw(tag);
                    Shared::release(self.shared, 1);
                }
                Err(Reason::Refused(error))
            }
            // Somebody else's completion, against the contract: dropped, it completes; ours is still out.
            submitted => Ok(submitted),
        }
    }

    /// Reads events: appends at most `max` to `out` and returns how many. Sleeps until it has `min`, or
    /// `deadline` has passed, or the context is destroyed and has no more; with a passed deadline, or `min`
    /// 0, it does not sleep. A signal handler ends the sleep, too, unless the system resumes it
    /// (`SA_RESTART` without a deadline).
    ///
    /// Whatever ends it, events that were read are returned rather than an error. A reader that waits for
    /// more than the capacity reads what there is whenever a submitter finds the context full.
    ///
    /// # Errors
    ///
    /// [`GetEventsError`]; no event was read then.
    pub fn get_events(
        &self,
        min: usize,
        max: usize,
        deadline: Option<Instant>,
        out: &mut Vec<Event>,
    ) -> Result<usize, GetEventsError> {
        if min > max {
            return Err(GetEventsError::Range { min, max });
        }
        let shared = self.shared();
        let mut read = 0;
        let mut backoff = hint::Backoff::default();
        let mut announced = false;
        let mut interrupted = false;
        let ended = loop {
            // Before the look at the ring: every event of a context that is found finished is visible then.
            let finished = shared.is_finished();
            if read < max {
                read += shared.read(max - read, out);
            }
            if finished && shared.queue.is_empty() {
                break Some(GetEventsError::Dying);
            }
            if interrupted {
                break Some(GetEventsError::Interrupted);
            }
            if read >= min || expired(deadline) {
                break None;
            }
            if backoff.wait() {
                continue;
            }
            // Not more than can be there, or nobody would ever wake us.
            let wanted = (min - read).min(self.capacity() as usize) as u32;
            let key = shared.wait.prepare_wait(wanted);
            if shared.enough() >= wanted || shared.is_finished() {
                if mem::replace(&mut announced, true) {
                    // Not the first time: another reader holds the lane. Let it get on.
                    hint::contended();
                    thread::yield_now();
                }
                continue;
            }
            announced = true;
            interrupted = key.wait(deadline) == Outcome::Interrupted;
        };
        if announced {
            // A wake-up that was meant for us is handed on, if there is something left to wake for.
            shared.wait.notify(|| shared.enough());
        }
        match ended {
            Some(error) if read == 0 => Err(error),
            _ => Ok(read),
        }
    }

    /// Refuses new requests and waits until those in flight have completed, or until `deadline`. Their
    /// events can still be read, here or on other threads, which are woken when the last has come.
    ///
    /// # Errors
    ///
    /// [`DestroyError::Already`] for all but the first caller. [`DestroyError::TimedOut`] if requests are
    /// in flight at the deadline: the context stays destroyed, and dropping it waits for them.
    pub fn destroy(&self, deadline: Option<Instant>) -> Result<(), DestroyError> {
        if !self.kill() {
            return Err(DestroyError::Already);
        }
        self.wait_destroyed(deadline)
    }

    /// Waits until a context that is being destroyed, by whomever, has no request in flight, or until
    /// `deadline`. Waits also for the destroying to begin.
    ///
    /// # Errors
    ///
    /// [`DestroyError::TimedOut`].
    pub fn wait_destroyed(&self, deadline: Option<Instant>) -> Result<(), DestroyError> {
        if self.shared().finished.wait(deadline) {
            return Ok(());
        }
        // Counted exactly once killed; it may have become 0 since.
        Err(DestroyError::TimedOut { in_flight: self.shared().reqs.count().unwrap_or(0) })
    }

    /// Refuses new requests; returns whether this call was the first.
    fn kill(&self) -> bool {
        let Some(put) = self.shared().reqs.try_kill() else {
            return false;
        };
        if put == Put::Zero {
            // SAFETY: we were told.
            unsafe { Shared::last(self.shared) };
        }
        self.backend.flush();
        true
    }
}

/// A batch on its way in. Dropping it, also when a backend panics, hands over what is finished and leaves
/// in the batch what was not accepted.
struct Progress<'a> {
    shared: NonNull<Shared>,
    /// Its length is 0 meanwhile: requests before `accepted` are gone, those from there to `total` are
    /// still in it.
    batch: &'a mut Vec<Request>,
    accepted: usize,
    total: usize,
    /// Tags for those to come, and a reference for each: the first `places` of these.
    tags: [MaybeUninit<u32>; TOGETHER],
    places: usize,
    events: Events,
}

impl<'a> Progress<'a> {
    fn new(shared: NonNull<Shared>, batch: &'a mut Vec<Request>) -> Self {
        let total = batch.len();
        // SAFETY: shorter. Until our `drop` the elements are ours.
        unsafe { batch.set_len(0) };
        let tags = [MaybeUninit::uninit(); TOGETHER];
        Self { shared, batch, accepted: 0, total, tags, places: 0, events: Events::new() }
    }

    /// A tag, and a reference of `reqs` for it, of several that are taken at a time.
    #[inline]
    fn place(&mut self) -> Result<u32, Reason> {
        if self.places == 0 {
            // The one that asks is already counted as accepted.
            let want = (self.total - self.accepted + 1).min(TOGETHER);
            // SAFETY: it is whose batch we submit.
            self.places = unsafe { Shared::places(self.shared, &mut self.tags[..want]) }?;
        }
        self.places -= 1;
        // SAFETY: written, as are all before it.
        Ok(unsafe { self.tags[self.places].assume_init() })
    }

    /// The next request, which is no longer in the batch.
    #[inline]
    fn next(&mut self) -> Option<*mut Request> {
        if self.accepted == self.total {
            return None;
        }
        self.accepted += 1;
        // SAFETY: within the elements it had.
        Some(unsafe { self.batch.as_mut_ptr().add(self.accepted - 1) })
    }

    /// The last one is in the batch after all.
    fn give_back(&mut self) {
        self.accepted -= 1;
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        let left = self.total - self.accepted;
        let start = self.batch.as_mut_ptr();
        // SAFETY: the last `left` of the elements it had move to the front, and are what it has then.
        unsafe {
            start.copy_from(start.add(self.accepted), left);
            self.batch.set_len(left);
        }
        self.events.publish(self.shared);
        if self.places > 0 {
            // SAFETY: the first so many are tags, which are ours with their references.
            unsafe {
                let tags = slice::from_raw_parts(self.tags.as_ptr().cast(), self.places);
                self.shared.as_ref().tags.put_all_raw(tags);
                Shared::release(self.shared, self.places as u32);
            }
        }
    }
}

/// Finished requests whose events are to be published together. Each comes with the duty to do so.
struct Events {
    events: [MaybeUninit<ring::Event>; TOGETHER],
    /// How many have been written.
    ready: usize,
}

impl Events {
    #[inline]
    fn new() -> Self {
        Self { events: [const { MaybeUninit::uninit() }; TOGETHER], ready: 0 }
    }

    #[inline]
    fn push(&mut self, shared: NonNull<Shared>, finished: Finished) {
        // What is not of this context publishes itself.
        if finished.is_of(shared) {
            self.events[self.ready].write(finished.into_event());
            self.ready += 1;
            if self.ready == TOGETHER {
                self.publish(shared);
            }
        }
    }

    fn publish(&mut self, shared: NonNull<Shared>) {
        let ready = &self.events[..mem::take(&mut self.ready)];
        // SAFETY: written; `MaybeUninit<T>` has the layout of `T`.
        let ready = unsafe { std::slice::from_raw_parts(ready.as_ptr().cast(), ready.len()) };
        // SAFETY: `into_event` gave us the tags and the references.
        unsafe { Shared::publish(shared, ready) };
    }
}

impl<B: Backend> Drop for Context<B> {
    fn drop(&mut self) {
        self.kill();
        self.shared().finished.wait(None);
        // SAFETY: leaked by `with_lanes`. No completion is left (the gate is open, and opening it was the
        // last access of the last one), and no caller, since we are being dropped. Events nobody read are
        // dropped with their requests, in the slots.
        drop(unsafe { Box::from_raw(self.shared.as_ptr()) });
    }
}

impl<B: Backend> fmt::Debug for Context<B> {
    /// Takes no lock.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("capacity", &self.capacity())
            .field("lanes", &self.shared().queue.lanes())
            .field("unread", &self.shared().queue.len())
            .field("destroyed", &self.shared().reqs.is_dying())
            .finish_non_exhaustive()
    }
}
