//! The one way to finish a request: [`Completion`].

use super::id::RequestId;
use super::shared::Shared;
use super::{Cancellable, Request};
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
        let bytes = i64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        let res = failure(error) - (bytes << PARTLY);
        let (shared, id) = self.into_parts();
        // SAFETY: we have the request's reference still.
        unsafe { Finished::new(shared, id, res) }
    }

    /// As [`finish`](Self::finish), but `last` is left to the thread that reads the event: with the request and the
    /// result it makes of it what the reader is told. For work that needs no thread of its own, such as decrypting a
    /// block: who waits for it does it. It runs once, without a lock, before the reader has the event; of an event that
    /// nobody reads it is dropped. If it panics, the reader does, and the event says `EIO`, or is lost to a visitor.
    ///
    /// # Costs
    ///
    /// A box, if `last` has anything in it.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::aio::{Backend, Completion, Context, Request, Submitted};
    /// use std::thread::{self, ThreadId};
    ///
    /// struct Told;
    ///
    /// impl Backend for Told {
    ///     fn submit(&self, work: Completion) -> Submitted {
    ///         let submitter = thread::current().id();
    ///         Submitted::Done(work.finish_in_reader(Ok(1), move |_request, result| {
    ///             assert_ne!(thread::current().id(), submitter);
    ///             result.map(|n| n + 1)
    ///         }))
    ///     }
    /// }
    ///
    /// let context = Context::new(8, Told)?;
    /// thread::scope(|scope| _ = scope.spawn(|| context.submit(Request::nop()).unwrap()));
    /// context.visit(1, 1, None, |event| assert_eq!(event.result().unwrap(), 2))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn finish_in_reader(
        self,
        result: io::Result<usize>,
        last: impl FnOnce(&mut Request, io::Result<usize>) -> io::Result<usize> + Send + 'static,
    ) -> Finished {
        // SAFETY: the slot of our tag is ours.
        let before = unsafe { self.shared().slot(self.id.tag()).set_last(Some(Box::new(last))) };
        drop(before);
        self.finish(result)
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
    id: RequestId,
    res: i64,
}

// SAFETY: as for `Completion`; the request is not touched any more.
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
        unsafe { shared.as_ref() }.slot(id.tag()).finish(id);
        Self { shared, id, res }
    }

    /// Whether its event goes to the readers of that context.
    #[inline(always)]
    pub(super) fn is_for_readers_of(&self, shared: NonNull<Shared>) -> bool {
        self.shared == shared && !self.id.is_awaited()
    }

    /// Runs what its layer makes of it, if it is the request of one, and returns what that has finished; itself if not.
    pub(super) fn settle(self) -> Option<Self> {
        // SAFETY: valid by the request's reference.
        if !self.id.is_awaited() || unsafe { self.shared.as_ref() }.layer.is_none() {
            return Some(self);
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: given up; with it come slot, tag and the request's reference. 2. just looked at.
        unsafe { Shared::settle(this.shared, this.id, this.res) }
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
                Shared::deliver(self.shared, self.id, self.res);
            } else {
                Shared::publish_one(self.shared, self.event());
            }
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

/// What `finish` made of a result, back again; of one that was partly an error, the bytes.
pub(super) fn result(res: i64) -> io::Result<usize> {
    match apart(res) {
        (0, Some(error)) => Err(error),
        (bytes, _) => Ok(bytes),
    }
}

/// The bytes, and the error.
pub(super) fn apart(res: i64) -> (usize, Option<io::Error>) {
    match usize::try_from(res) {
        Ok(bytes) => (bytes, None),
        Err(_) => {
            let (bytes, code) = (-res >> PARTLY, -res & ((1 << PARTLY) - 1));
            (bytes as usize, Some(io::Error::from_raw_os_error(code as i32)))
        }
    }
}

/// What is told of an event while a panic keeps it from being finished.
pub(super) const UNFINISHED: i64 = -(code::UNKNOWN as i64);

#[cfg(test)]
mod tests {
    use super::{PARTLY, apart, failure, result};
    use std::io;

    #[test]
    fn bytes_and_error_come_apart_again() {
        for (bytes, code) in [(0_i64, 5), (1, 1), (4096, 125), (i64::from(u32::MAX), i32::MAX)] {
            let res = failure(io::Error::from_raw_os_error(code)) - (bytes << PARTLY);
            let (told, error) = apart(res);
            assert_eq!((told as i64, error.unwrap().raw_os_error()), (bytes, Some(code)));
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
