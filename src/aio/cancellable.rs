//! Requests that wait to be begun: [`Cancellable`].

use super::completion::Completion;
use super::id::RequestId;
use super::shared::Shared;
use crate::sync::fence;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

/// A request that nobody has begun, on offer to whoever comes first: the backend that [claims](Self::claim) it to
/// begin, or [`Context::cancel`](super::Context::cancel), which completes it with `ECANCELED` at once.
///
/// A backend exchanges its [`Completion`] for this when it puts the request aside, and back when it begins. Dropped, it
/// claims and drops the completion. Forgotten, it leaks memory, but the request can still be cancelled and so does not
/// keep its context from being destroyed. A token whose request was cancelled is good for nothing and may stay in its
/// queue: it keeps the context's memory, and neither the request nor the context's end waits for it.
///
/// Claiming is wait-free. A backend that keeps tokens in a queue drops those that are [cancelled](Self::is_cancelled)
/// now and then, or a client that submits and cancels makes the queue as long as it likes.
///
/// # Costs
///
/// A fence and two per-CPU counts for making one, a locked instruction for claiming. A request that is never put aside
/// pays nothing.
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Backend, Cancellable, Completion, Context, Request, Submitted};
/// use std::sync::Mutex;
///
/// /// Begins requests when told to.
/// #[derive(Default)]
/// struct Lazy(Mutex<Vec<Cancellable>>);
///
/// impl Backend for Lazy {
///     fn submit(&self, work: Completion) -> Submitted {
///         self.0.lock().unwrap().push(work.cancellable());
///         Submitted::Queued
///     }
/// }
///
/// let context = Context::new(8, Lazy::default())?;
/// let first = context.submit(Request::nop())?;
/// let second = context.submit(Request::nop())?;
/// context.cancel(first)?;
/// let begun = context.backend().0.lock().unwrap().drain(..).filter_map(Cancellable::claim).count();
/// assert_eq!(begun, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `kiocb_set_cancel_fn` of the 2013 rework, which made cancelling a matter of those requests alone that can be
/// cancelled.
#[must_use = "dropped, it completes the request with ECANCELED"]
pub struct Cancellable {
    /// Valid while this exists: we hold one of the references of `memory`, put when this is dropped.
    shared: NonNull<Shared>,
    id: RequestId,
}

// SAFETY: `Shared` is `Sync`, and what is claimed is a `Completion`, which is `Send`.
unsafe impl Send for Cancellable {}
// SAFETY: through a shared token only words are read.
unsafe impl Sync for Cancellable {}

impl Cancellable {
    /// Puts the request of a completion on offer.
    pub(super) fn offer(work: Completion) -> Self {
        let (shared, id) = work.into_parts();
        {
            // SAFETY: valid by the request's reference, which we have until the word below.
            let shared = unsafe { shared.as_ref() };
            shared.memory.get();
            shared.slot(id.tag()).offer(id);
        }
        let token = Self { shared, id };
        // SeqCst: pairs with the fence in `Shared::cancel_all`. Of two,
        // * either the destroyer finds the request on offer,
        // * or we find here that the context is being destroyed.
        fence!("aio.cancel.offered", SeqCst);
        if token.shared().is_dying() {
            drop(token.take());
        }
        token
    }

    fn shared(&self) -> &Shared {
        // SAFETY: valid while this exists.
        unsafe { self.shared.as_ref() }
    }

    /// The name of the request, which [`submit`](super::Context::submit) has returned or will.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Takes the request back, to begin it. `None` if it was cancelled: its event is on its way, or was read long ago.
    pub fn claim(self) -> Option<Completion> {
        let token = ManuallyDrop::new(self);
        let work = token.take();
        // SAFETY: ours, and this is our last use of it.
        unsafe { Shared::forget(token.shared) };
        work
    }

    /// Whether the request was cancelled. `true` stays true; `false` may be out of date.
    pub fn is_cancelled(&self) -> bool {
        self.shared().slot(self.id.tag()).is_claimed(self.id)
    }

    fn take(&self) -> Option<Completion> {
        // SAFETY: our reference of `memory`.
        unsafe { Shared::claim(self.shared, self.id) }.ok()
    }
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        drop(self.take());
        // SAFETY: ours, and this is our last use of it.
        unsafe { Shared::forget(self.shared) };
    }
}

impl fmt::Debug for Cancellable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancellable").field("id", &self.id).field("cancelled", &self.is_cancelled()).finish()
    }
}
