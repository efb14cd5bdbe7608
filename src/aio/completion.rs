//! The one way to finish a request: [`Completion`].

use super::hook::Hook;
use super::id::RequestId;
use super::shared::Shared;
use super::{By, Cancellable, Outcome, Request};
use crate::ring;
use std::mem::{self, ManuallyDrop};
use std::ptr::NonNull;
use std::{fmt, io};

/// What a dropped completion reports, and what is reported for an error that is not the system's.
#[cfg(unix)]
mod code {
    use rustix::io::Errno;
    pub(super) const CANCELED: i32 = Errno::CANCELED.raw_os_error();
    pub(super) const UNKNOWN: i32 = Errno::IO.raw_os_error();
}
/// `ERROR_OPERATION_ABORTED` and `ERROR_IO_DEVICE`.
#[cfg(not(unix))]
mod code {
    pub(super) const CANCELED: i32 = 995;
    pub(super) const UNKNOWN: i32 = 1117;
}

/// A request in flight, and the right to complete it, once.
///
/// Using it consumes it; dropping it completes the request with `ECANCELED`; forgetting it leaks the
/// request and keeps its context from being destroyed. It may be used on any thread, before
/// [`Backend::submit`](super::Backend::submit) returns or long after.
///
/// # Costs
///
/// [`complete`](Self::complete) is two locked instructions for the ring, one for the context's count, and a
/// load to look for sleepers. [`finish`](Self::finish), where it applies, shares the former two among a
/// batch.
pub struct Completion {
    /// Valid while this exists: the request holds one of the context's `reqs` references, put by
    /// `Shared::release`.
    shared: NonNull<Shared>,
    id: RequestId,
}

// SAFETY: `Shared` is `Sync`, and the request in the slot is `Send` and belongs to this completion alone.
unsafe impl Send for Completion {}
// SAFETY: through a shared completion the request can only be read, and it is `Sync`.
unsafe impl Sync for Completion {}

impl Completion {
    /// # Safety
    ///
    /// 1. The caller owns the tag of `id` and one `reqs` reference of `*shared`, and passes both on.
    /// 2. The slot of that tag holds the request of this name.
    #[inline(always)]
    pub(super) unsafe fn new(shared: NonNull<Shared>, id: RequestId) -> Self {
        Self { shared, id }
    }

    /// The name of the request, which [`submit`](super::Context::submit) has returned or will.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Whether the context is being destroyed. `true` stays true; `false` may be out of date.
    pub fn is_dying(&self) -> bool {
        self.shared().is_dying()
    }

    /// Puts the request aside: until the result is [claimed](Cancellable::claim) it can be cancelled. Wait-free, but
    /// where the context is being destroyed: there it is cancelled at once, as by dropping it.
    pub fn cancellable(self) -> Cancellable {
        Cancellable::offer(self)
    }

    fn shared(&self) -> &Shared {
        // SAFETY: valid while this exists.
        unsafe { self.shared.as_ref() }
    }

    /// The request.
    pub fn request(&self) -> &Request {
        // SAFETY: the slot of our tag is ours, and filled; the borrow of `self` keeps it so.
        unsafe { &*self.shared().slot(self.id.tag()).request() }
    }

    /// The request, to fill its buffers.
    pub fn request_mut(&mut self) -> &mut Request {
        // SAFETY: as in `request`; the borrow is exclusive.
        unsafe { &mut *self.shared().slot(self.id.tag()).request_mut() }
    }

    /// Completes the request: publishes its event, or hands it to its [future](super::Started), and wakes who waits for
    /// it. An error that does not carry
    /// the system's number is reported as `EIO`.
    pub fn complete(self, result: io::Result<usize>) {
        drop(self.finish(result));
    }

    /// Settles the result without publishing it yet. For a backend that is done before `submit` returns:
    /// the context publishes what one call has finished together.
    // Out of line, it would return through memory in pieces.
    #[inline(always)]
    pub fn finish(self, result: io::Result<usize>) -> Finished {
        let res = encoded(result);
        let (shared, id) = self.into_parts();
        // SAFETY: we have the request's reference still.
        unsafe { Finished::new(shared, id, res) }
    }

    /// As [`finish`](Self::finish), for a request that has achieved something before its error. A reader of events is
    /// told the bytes, if there are any, as by a system call; a [layer](super::Below) is told both. Of more than 4 GiB
    /// it is told 4 GiB.
    pub fn finish_partly(self, bytes: usize, error: io::Error) -> Finished {
        let res = settled(Outcome { bytes, error: Some(error) });
        let (shared, id) = self.into_parts();
        // SAFETY: we have the request's reference still.
        unsafe { Finished::new(shared, id, res) }
    }

    /// Has `hook` called when the request has ended, however it does: once, with the request and what has come of it so
    /// far, by whom `by` says. What it makes of that is what the hook before is told, and in the end the reader: the
    /// one that came last is called first, as it is the innermost. For a [layer](super#layers) that has no request of
    /// its own to submit: it passes this one down.
    ///
    /// `Queued` means that it will be called, or was already; also if the completion is dropped, cancelled or
    /// destroyed. If the request is refused it is called, too, by the submitter, who is told no bytes: a hook that
    /// gives the request its buffer back does so in any case.
    ///
    /// A hook does not block. If it panics, the outcome is `EIO`, the others are called still, and the panic ends
    /// there.
    ///
    /// # Costs
    ///
    /// A closure with a word or less in it lies in a stack that the request's place in the context keeps, once it had
    /// one: some 4 ns for it to be kept and called, and as much again for the first. A larger one is boxed. Requests
    /// without hooks pay a load.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::aio::{Backend, By, Completion, Context, Request, Submitted};
    /// use ioctx::backend::Null;
    /// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    ///
    /// /// Counts what has moved.
    /// struct Counted<B>(B, &'static AtomicUsize);
    ///
    /// impl<B: Backend> Backend for Counted<B> {
    ///     fn submit(&self, mut work: Completion) -> Submitted {
    ///         let count = self.1;
    ///         work.on_end(By::Completer, move |_request, outcome| {
    ///             count.fetch_add(outcome.bytes, Relaxed);
    ///             outcome
    ///         });
    ///         self.0.submit(work)
    ///     }
    /// #   fn flush(&self) { self.0.flush() }
    ///     // And so on: the others as they are.
    /// }
    ///
    /// static COUNT: AtomicUsize = AtomicUsize::new(0);
    /// let context = Context::new(8, Counted(Null, &COUNT))?;
    /// context.submit(Request::write(tempfile::tempfile()?, vec![0; 5], 0))?;
    /// assert_eq!(COUNT.load(Relaxed), 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Source: `file_endio_t` (2007: a function and a cookie, count and error apart).
    #[inline]
    pub fn on_end(&mut self, by: By, hook: impl FnOnce(&mut Request, Outcome) -> Outcome + Send + 'static) {
        // SAFETY: 1. the slot of our tag is ours.
        unsafe { self.shared().slot(self.id.tag()).push_hook(Hook::new(by, hook)) };
    }

    /// What the request belongs to.
    pub(super) fn owner(&self) -> NonNull<Shared> {
        self.shared
    }

    /// Whether this is the request of this name in that context.
    pub(super) fn is(&self, shared: NonNull<Shared>, id: RequestId) -> bool {
        self.shared == shared && self.id == id
    }

    /// Gives up the duty to complete.
    pub(super) fn into_parts(self) -> (NonNull<Shared>, RequestId) {
        let parts = (self.shared, self.id);
        mem::forget(self);
        parts
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        // SAFETY: ours, and given up.
        drop(unsafe { Finished::new(self.shared, self.id, -i64::from(code::CANCELED)) });
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").field("id", &self.id).field("request", self.request()).finish()
    }
}

/// A request whose result is settled. Dropping it publishes the event, or hands it to the request's future.
pub struct Finished {
    /// As in `Completion`.
    shared: NonNull<Shared>,
    /// As if it were awaited, if hooks are to be called: so one look says that it is as most are.
    id: RequestId,
    res: i64,
}

// SAFETY: as for `Completion`.
unsafe impl Send for Finished {}
// SAFETY: a shared `Finished` gives access to nothing.
unsafe impl Sync for Finished {}

impl Finished {
    /// # Safety
    ///
    /// 1. As [`Completion::new`].
    #[inline(always)]
    unsafe fn new(shared: NonNull<Shared>, id: RequestId, res: i64) -> Self {
        // SAFETY: valid by the request's reference.
        let slot = unsafe { shared.as_ref() }.slot(id.tag());
        slot.finish(id);
        // SAFETY: 1. it is ours still.
        let id = id.with(unsafe { slot.mark() });
        Self { shared, id, res }
    }

    /// Whether its event goes to the readers of that context.
    #[inline(always)]
    pub(super) fn is_for_readers_of(&self, shared: NonNull<Shared>) -> bool {
        self.shared == shared && !self.id.is_awaited()
    }

    /// Runs what its hooks and its layer make of it, if it has any, and returns what that has finished; itself if not.
    pub(super) fn settle(self) -> Option<Self> {
        if !self.id.is_awaited() {
            return Some(self);
        }
        let this = self.called()?;
        // SAFETY: valid by the request's reference.
        if !this.id.is_awaited() || unsafe { this.shared.as_ref() }.layer.is_none() {
            return Some(this);
        }
        let this = ManuallyDrop::new(this);
        // SAFETY: given up; with it come slot, tag and the request's reference. 2. just looked at.
        unsafe { Shared::settle(this.shared, this.id, this.res) }
    }

    /// Calls what the completer is to call, under its own name from then on. `None` if the rest is left to the run
    /// list.
    #[inline]
    pub(super) fn called(self) -> Option<Self> {
        let Self { shared, id, res } = *ManuallyDrop::new(self);
        // SAFETY: 1. ours, and given up.
        let (id, res) = unsafe { Shared::call_hooks(shared, id, res) }?;
        Some(Self { shared, id, res })
    }

    /// One that was settled and given up before, under its own name.
    ///
    /// # Safety
    ///
    /// 1. As [`Completion::new`].
    pub(super) unsafe fn again(shared: NonNull<Shared>, id: RequestId, res: i64) -> Self {
        Self { shared, id, res }
    }

    /// The event to publish for readers, and with it the duty to publish it and then to release the request's reference.
    #[inline(always)]
    pub(super) fn into_event(self) -> ring::Event {
        let event = self.event();
        mem::forget(self);
        event
    }

    /// What its `drop` does.
    #[inline(always)]
    pub(super) fn publish(self) {
        let this = ManuallyDrop::new(self);
        // SAFETY: ours, and given up.
        unsafe { this.hand_over() };
    }

    /// # Safety
    ///
    /// 1. The duty to publish is passed on.
    #[inline(always)]
    unsafe fn hand_over(&self) {
        // SAFETY: with it come slot, tag and the request's reference, which is put as the last act. 2. by its name.
        unsafe {
            if self.id.is_awaited() {
                let Some((id, res)) = Shared::call_hooks(self.shared, self.id, self.res) else { return };
                if id.is_awaited() {
                    return Shared::deliver(self.shared, id, res);
                }
                return Shared::publish_one(self.shared, event_of(id, res));
            }
            Shared::publish_one(self.shared, self.event());
        }
    }

    #[inline(always)]
    fn event(&self) -> ring::Event {
        event_of(self.id, self.res)
    }
}

impl Drop for Finished {
    fn drop(&mut self) {
        // SAFETY: given up.
        unsafe { self.hand_over() };
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finished").field("id", &self.id).field("res", &self.res).finish()
    }
}

/// What is published of a request.
#[inline(always)]
pub(super) fn event_of(id: RequestId, res: i64) -> ring::Event {
    ring::Event { data: id.into_raw(), obj: 0, res, res2: 0 }
}

/// Above the number of an error: the bytes that were transferred before it.
const PARTLY: u32 = 31;

/// What is published of a result.
#[inline(always)]
pub(super) fn encoded(result: io::Result<usize>) -> i64 {
    match result {
        Ok(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
        Err(error) => failure(error),
    }
}

/// What `finish` makes of an error.
#[cold]
fn failure(error: io::Error) -> i64 {
    -i64::from(error.raw_os_error().filter(|code| *code > 0).unwrap_or(code::UNKNOWN))
}

/// What is published of an outcome. Of more than 4 GiB before an error it is 4 GiB.
pub(super) fn settled(outcome: Outcome) -> i64 {
    match outcome.error {
        None => encoded(Ok(outcome.bytes)),
        Some(error) => {
            failure(error) - (i64::from(u32::try_from(outcome.bytes).unwrap_or(u32::MAX)) << PARTLY)
        }
    }
}

/// What `finish` made of a result, back again; of one that was partly an error, the bytes.
pub(super) fn result(res: i64) -> io::Result<usize> {
    apart(res).into_result()
}

/// The bytes, and the error.
pub(super) fn apart(res: i64) -> Outcome {
    match usize::try_from(res) {
        Ok(bytes) => Outcome { bytes, error: None },
        Err(_) => {
            let (bytes, code) = (-res >> PARTLY, -res & ((1 << PARTLY) - 1));
            Outcome { bytes: bytes as usize, error: Some(io::Error::from_raw_os_error(code as i32)) }
        }
    }
}

/// What is told of a request whose hook has panicked.
pub(super) const BROKEN: i64 = -(code::UNKNOWN as i64);

#[cfg(test)]
mod tests {
    use super::{Outcome, apart, result, settled};
    use std::io;

    #[test]
    fn bytes_and_error_come_apart_again() {
        for (bytes, code) in [(0, 5), (1, 1), (4096, 125), (u32::MAX as usize, i32::MAX)] {
            let error = Some(io::Error::from_raw_os_error(code));
            let res = settled(Outcome { bytes, error });
            let told = apart(res);
            assert_eq!((told.bytes, told.error.unwrap().raw_os_error()), (bytes, Some(code)));
            assert_eq!(result(res).is_ok(), bytes > 0);
        }
    }

    #[test]
    fn results_keep_their_meaning() {
        assert_eq!(result(0).unwrap(), 0);
        assert_eq!(result(i64::from(i32::MAX)).unwrap(), i32::MAX as usize);
        assert_eq!(result(-9).unwrap_err().raw_os_error(), Some(9));
    }
}
