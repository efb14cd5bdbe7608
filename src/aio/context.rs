//! [`Context`].

use super::shared::{GROUPS, Shared};
use super::trace::report;
use super::{
    Backend, Builder, CancelError, Completion, CreateError, Finished, Reason, Request, RequestId,
    SubmitError, Submitted,
};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// The largest capacity: 2²⁰ requests, which take 128 MiB.
pub const MAX_CAPACITY: u32 = 1 << 20;

/// The most completion lanes: more than any machine has CPUs.
pub const MAX_LANES: u32 = 1 << 13;

/// An asynchronous-I/O context that any number of threads share.
///
/// Everything goes through `&self`. [`submit`](Self::submit) is lock-free as long as the CPU's stock of
/// tags serves and the backend is; it never waits for room. [`get_events`](Self::get_events) blocks if
/// asked to. Dropping cancels what has not begun, and blocks until the last request has completed.
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
    /// Valid: we hold one of the references of `memory`, put by our `drop`. Completions point to it as well, until
    /// `finished` opens.
    pub(super) shared: NonNull<Shared>,
    pub(super) backend: B,
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
        Builder::new(capacity).build(backend)
    }

    /// As [`new`](Self::new), with `lanes` completion lanes. One lane hands events over in the order of
    /// their completion.
    ///
    /// # Errors
    ///
    /// [`CreateError::Capacity`] if it is 0 or above [`MAX_CAPACITY`]; [`CreateError::Lanes`] if they are 0
    /// or above [`MAX_LANES`].
    pub fn with_lanes(capacity: u32, lanes: u32, backend: B) -> Result<Self, CreateError> {
        Builder::new(capacity).lanes(lanes).build(backend)
    }

    /// The end of what a submitter does.
    #[inline(always)]
    pub(super) fn flush(&self) {
        self.backend.flush();
        self.shared().help_on_submit();
    }

    #[inline]
    pub(super) fn shared(&self) -> &Shared {
        // SAFETY: valid until our `drop`.
        unsafe { self.shared.as_ref() }
    }

    /// Where the fields that all share lie, by name, in an allocation of their own, which is the last one of a context.
    /// For the test that finds who writes them, and nothing else: it has to name what it finds.
    #[doc(hidden)]
    pub fn layout() -> [(&'static str, usize); 11] {
        GROUPS
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

    /// Hands one request over; returns by which name it can be [cancelled](Self::cancel), and its event known.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the request: see [`Reason`].
    #[inline]
    pub fn submit(&self, request: Request) -> Result<RequestId, SubmitError> {
        let mut request = ManuallyDrop::new(request);
        // In place: by its `drop` it would go through memory, in pieces, and each load would wait.
        let done = |finished: Finished| finished.publish();
        // SAFETY: 1. ours. 2. a whole request. 3. left alone unless it comes back.
        let accepted = Self::check(&request)
            .and_then(|()| self.place())
            .and_then(|tag| unsafe { self.accept(tag, &raw mut *request, done) });
        match accepted {
            Ok(id) => {
                self.flush();
                Ok(id)
            }
            Err(reason) => Err(self.not_accepted(request, reason)),
        }
    }

    /// What a submitter is told.
    #[cold]
    pub(super) fn not_accepted(&self, request: ManuallyDrop<Request>, reason: Reason) -> SubmitError {
        let error = SubmitError { request: ManuallyDrop::into_inner(request), reason };
        if matches!(error.reason, Reason::Full) {
            self.relieve();
        }
        error
    }

    /// Completes a request with `ECANCELED`, now and here, if no one has begun it. Its event comes as any other's, and
    /// whoever waits for it is woken by this thread. Lock-free but for that waking, and for the backend.
    ///
    /// Which requests can be cancelled is their backend's affair: those that it has put aside, see
    /// [`Cancellable`](super::Cancellable), and those that run where it can ask for their early end, see
    /// [`Backend::cancel`]: then this succeeds, and the event says what came of it.
    ///
    /// # Errors
    ///
    /// [`CancelError`]; nothing was changed then.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::aio::{CancelError, Context, Request};
    /// use ioctx::backend::Threads;
    /// let (reader, writer) = std::io::pipe()?;
    /// let reader = std::fs::File::from(std::os::fd::OwnedFd::from(reader));
    /// let context = Context::new(8, Threads::new(1)?)?;
    /// // The one thread reads from the empty pipe; the other request waits for it.
    /// context.submit(Request::read(reader.try_clone()?, vec![0; 1], 0))?;
    /// let second = context.submit(Request::read(reader, vec![0; 1], 0))?;
    /// context.cancel(second)?;
    /// assert_eq!(context.cancel(second), Err(CancelError::Unknown));
    /// let mut events = Vec::new();
    /// context.get_events(1, 1, None, &mut events)?;
    /// assert_eq!(events[0].id, second);
    /// drop(writer);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cancel(&self, id: RequestId) -> Result<(), CancelError> {
        // SAFETY: 1. we are alive.
        match unsafe { Shared::cancel(self.shared, id) } {
            Err(CancelError::Running) if self.backend.cancel(id) => Ok(()),
            done => done,
        }
    }

    /// A tag, and a reference of `reqs` for it.
    #[inline(always)]
    pub(super) fn place(&self) -> Result<u32, Reason> {
        let shared = self.shared();
        // Put by the completer, in `Shared::publish`; in `accept` if the request goes no further.
        if !shared.reqs.try_get_live() {
            return Err(Reason::Dying);
        }
        // SAFETY: the reference is ours.
        shared.tags.take_raw().map_err(|_| unsafe { Shared::full(self.shared) })
    }

    /// Whether the arguments make sense to every backend.
    #[inline(always)]
    pub(super) fn check(request: &Request) -> Result<(), Reason> {
        request.check().map_err(Reason::Invalid)
    }

    /// Moves the request at `request` to the slot of `tag` and gives it to the backend. One that is done is passed to
    /// `done`, and not through the result: from there it would be loaded otherwise than it was stored, and that waits.
    /// On an error the request is still, or again, where it was, and the tag is put.
    ///
    /// # Safety
    ///
    /// 1. The caller owns `tag` and one of the `reqs` references, and passes both on.
    /// 2. `request` holds one.
    /// 3. Unless this returns an error, it is not used there any more; also if this panics.
    #[inline(always)]
    pub(super) unsafe fn accept(
        &self,
        tag: u32,
        request: *mut Request,
        done: impl FnOnce(Finished),
    ) -> Result<RequestId, Reason> {
        // SAFETY: 1. by 1., and nobody left anything in its slot. 2. by 2. and 3.
        let id = RequestId::new(unsafe { self.shared().slot(tag).fill(request, 0) }, tag);
        // SAFETY: 1. by 1., and just filled. 2. by 3.
        unsafe { self.hand_over(id, request, done, || ()) }?;
        Ok(id)
    }

    /// Gives the request in the slot of `id` to the backend, with `done` as for [`accept`](Self::accept). On an error
    /// it is moved to `request`, and the tag is put, after `back` was called.
    ///
    /// # Safety
    ///
    /// 1. The caller owns the tag of `id`, whose slot is filled under this name, and one of the `reqs` references, and
    ///    passes them on.
    /// 2. `request` is valid for one. Unless this returns an error, what is there is not used any more; also if this
    ///    panics.
    #[inline(always)]
    pub(super) unsafe fn hand_over(
        &self,
        id: RequestId,
        request: *mut Request,
        done: impl FnOnce(Finished),
        back: impl FnOnce(),
    ) -> Result<(), Reason> {
        // SAFETY: 1. and 2. by 1.
        match self.backend.submit(unsafe { Completion::new(self.shared, id) }) {
            Submitted::Refused(work, error) if work.is(self.shared, id) => {
                report!(debug, context = ?self.shared, id = id.into_raw(), %error, "refused by the backend");
                work.into_parts();
                let shared = self.shared();
                let slot = shared.slot(id.tag());
                slot.finish(id);
                // SAFETY: 1. tag and slot are ours again.
                let error = unsafe { slot.refused(error) };
                back();
                // What is in the slot, unchanged by the backend or not, is what the caller gets back.
                //
                // SAFETY: with the completion we have tag and slot back, and the reference. The caller's
                // place is free, and not shared.
                unsafe {
                    request.copy_from_nonoverlapping(slot.request(), 1);
                    shared.tags.put_raw(id.tag());
                    Shared::release(self.shared, 1);
                }
                return Err(Reason::Refused(error));
            }
            Submitted::Done(finished) => done(finished),
            // Somebody else's completion, against the contract: dropped, it completes; ours is still out.
            other => drop(other),
        }
        Ok(())
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
