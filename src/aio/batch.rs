//! Batches: [`Context::submit_batch`].

use super::shared::Shared;
use super::{Backend, BatchError, Context, Finished, Reason, Request, RequestId};
use crate::ring;
use std::mem::{self, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::slice;

/// How many events of one batch are published together.
pub(super) const TOGETHER: usize = 64;

impl<B: Backend> Context<B> {
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
        self.submit_batch_with(batch, |_| {})
    }

    /// [`submit_batch`](Self::submit_batch) that tells `accepted` the name of each request that was, in their order.
    /// By then the request may have completed, and its event may have been read by another thread.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::aio::{Context, Request};
    /// use ioctx::backend::Null;
    /// let context = Context::new(8, Null)?;
    /// let mut ids = Vec::new();
    /// let mut batch = vec![Request::nop(), Request::nop()];
    /// assert_eq!(context.submit_batch_with(&mut batch, |id| ids.push(id))?, ids.len());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn submit_batch_with(
        &self,
        batch: &mut Vec<Request>,
        mut accepted: impl FnMut(RequestId),
    ) -> Result<usize, BatchError> {
        let (mut tags, mut events) = ([MaybeUninit::uninit(); TOGETHER], [MaybeUninit::uninit(); TOGETHER]);
        // Dropped last.
        let ends = Ends(&self.backend);
        let mut progress = Progress::new(self.shared, batch, &mut tags, &mut events);
        let mut stopped = None;
        while let Some(request) = progress.next() {
            // SAFETY: a whole request, which stays in the batch if it is refused.
            let placed = Self::check(unsafe { &*request }).and_then(|()| progress.place());
            let done = |finished| progress.events.push(self.shared, finished);
            // SAFETY: 1. taken for it. 2. a whole request. 3. passed over, unless it is given back to the batch.
            match placed.and_then(|tag| unsafe { self.accept(tag, request, done) }) {
                Ok(id) => accepted(id),
                Err(reason) => {
                    progress.give_back();
                    stopped = Some(reason);
                    break;
                }
            }
        }
        let accepted = progress.accepted;
        drop(progress);
        mem::forget(ends);
        self.flush();
        if matches!(stopped, Some(Reason::Full)) {
            self.relieve();
        }
        match stopped {
            Some(reason) if accepted == 0 => Err(BatchError(reason)),
            _ => Ok(accepted),
        }
    }
}

/// A batch that has not come to its end. Dropped, which is by a panic of the backend's or the caller's, it ends: what was
/// accepted is not held back until somebody else comes by.
struct Ends<'a, B: Backend>(&'a B);

impl<B: Backend> Drop for Ends<'_, B> {
    fn drop(&mut self) {
        // A second panic would abort.
        let _ = catch_unwind(AssertUnwindSafe(|| self.0.flush()));
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
    tags: &'a mut [MaybeUninit<u32>; TOGETHER],
    places: usize,
    events: Events<'a>,
}

impl<'a> Progress<'a> {
    #[inline]
    fn new(
        shared: NonNull<Shared>,
        batch: &'a mut Vec<Request>,
        tags: &'a mut [MaybeUninit<u32>; TOGETHER],
        events: &'a mut Room,
    ) -> Self {
        let total = batch.len();
        // SAFETY: shorter. Until our `drop` the elements are ours.
        unsafe { batch.set_len(0) };
        Self { shared, batch, accepted: 0, total, tags, places: 0, events: Events::new(events) }
    }

    /// A tag, and a reference of `reqs` for it, of several that are taken at a time.
    #[inline]
    fn place(&mut self) -> Result<u32, Reason> {
        if self.places == 0 {
            // The one that asks is already counted as accepted.
            let want = (self.total - self.accepted + 1).min(TOGETHER);
            // SAFETY: it is whose batch we submit.
            self.places = unsafe { Shared::places(self.shared, &mut self.tags[..want]) }?;
            // SAFETY: the references are ours.
            let shared = unsafe { self.shared.as_ref() };
            // All on their way at once: stores would wait for one after the other.
            for tag in &self.tags[..self.places] {
                // SAFETY: written.
                shared.slot(unsafe { tag.assume_init() }).prefetch();
            }
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
        if left > 0 {
            let start = self.batch.as_mut_ptr();
            // SAFETY: the last `left` of the elements it had move to the front, and are what it has then.
            unsafe {
                start.copy_from(start.add(self.accepted), left);
                self.batch.set_len(left);
            }
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

/// Where [`Events`] are collected: the caller's, since it would be copied each time they are moved.
pub(super) type Room = [MaybeUninit<ring::Event>; TOGETHER];

/// Finished requests whose events are to be published together. Each comes with the duty to do so.
pub(super) struct Events<'a> {
    events: &'a mut Room,
    /// How many have been written.
    ready: usize,
}

impl<'a> Events<'a> {
    #[inline]
    pub(super) fn new(room: &'a mut Room) -> Self {
        Self { events: room, ready: 0 }
    }

    #[inline]
    pub(super) fn push(&mut self, shared: NonNull<Shared>, finished: Finished) {
        if finished.is_for_readers_of(shared) {
            self.events[self.ready].write(finished.into_event());
            self.ready += 1;
            if self.ready == TOGETHER {
                self.publish(shared);
            }
        } else {
            self.push_other(shared, finished);
        }
    }

    /// [`push`](Self::push) of one that has hooks, or is not for readers of this context: that publishes itself.
    #[cold]
    fn push_other(&mut self, shared: NonNull<Shared>, finished: Finished) {
        if let Some(finished) = finished.called()
            && finished.is_for_readers_of(shared)
        {
            self.push(shared, finished);
        }
    }

    pub(super) fn publish(&mut self, shared: NonNull<Shared>) {
        let ready = &self.events[..mem::take(&mut self.ready)];
        // SAFETY: written; `MaybeUninit<T>` has the layout of `T`.
        let ready = unsafe { slice::from_raw_parts(ready.as_ptr().cast(), ready.len()) };
        // SAFETY: `into_event` gave us the tags and the references.
        unsafe { Shared::publish(shared, ready) };
    }
}
