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
        self.shared().reqs.is_dying()
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
        let res = match result {
            Ok(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
            Err(error) => failure(error),
        };
        let (shared, id) = self.into_parts();
        // SAFETY: we have the request's reference still.
        unsafe { Finished::new(shared, id, res) }
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

/// What `finish` makes of an error.
#[cold]
fn failure(error: io::Error) -> i64 {
    -i64::from(error.raw_os_error().filter(|code| *code > 0).unwrap_or(code::UNKNOWN))
}

/// What `finish` made of a result, back again.
pub(super) fn result(res: i64) -> io::Result<usize> {
    usize::try_from(res).map_err(|_| io::Error::from_raw_os_error((-res) as i32))
}

#[cfg(test)]
mod tests {
    use super::result;

    #[test]
    fn results_keep_their_meaning() {
        assert_eq!(result(0).unwrap(), 0);
        assert_eq!(result(i64::from(i32::MAX)).unwrap(), i32::MAX as usize);
        assert_eq!(result(-9).unwrap_err().raw_os_error(), Some(9));
    }
}
