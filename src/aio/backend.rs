//! What carries requests out: [`Backend`].

use super::{Completion, Finished, RequestId};
use std::io;

#[cfg(ioctx_linux)]
use crate::sync::time::Instant;
#[cfg(ioctx_linux)]
use crate::wait::Outcome;
#[cfg(ioctx_linux)]
use std::os::fd::BorrowedFd;
#[cfg(ioctx_linux)]
use std::task::Waker;

/// What a backend did with a request.
#[derive(Debug)]
#[must_use]
pub enum Submitted {
    /// It is done; the context hands its event over, together with others that were done in the same call.
    Done(Finished),
    /// The backend keeps the completion and will use it, or has used it already.
    Queued,
    /// The backend cannot take it. The request goes back to its submitter, who is told why.
    Refused(Completion, io::Error),
}

/// Carries requests out. Shared by every thread that submits.
///
/// # Contract
///
/// 1. Every [`Completion`] is used once: completed, finished, refused or dropped (which completes it with
///    `ECANCELED`). Keeping one for ever keeps its context from being destroyed. Forgetting one only leaks.
/// 2. [`submit`](Self::submit) does not wait for a completion, nor for room: what it cannot take it refuses.
/// 3. A request may be completed before `submit` returns, on any thread.
/// 4. What was submitted makes progress after the next [`flush`](Self::flush) at the latest.
/// 5. Dropping the backend leaves no thread behind. The context drops it after its last request has
///    completed.
/// 6. What it queues it puts aside as [`Cancellable`](super::Cancellable), and claims when it begins. Otherwise the
///    rules hold as well, but a request in the queue can neither be cancelled nor does destroying cut it short.
/// 7. A backend that does not complete by itself is driven by those who wait: readers of events and destroyers call
///    [`poll`](Self::poll), any number of them at once, and none may wait for another. Before they sleep they watch its
///    [`descriptor`](Self::descriptor), which is readable for as long as `poll` has something to do.
/// 8. What runs may end early when it is told to ([`cancel`](Self::cancel), [`cancel_all`](Self::cancel_all)), and
///    completes in any case. After `cancel_all` no request of a context that is
///    [being destroyed](Completion::is_dying) is begun that could wait for ever.
/// 9. A panic goes through to the caller of the context. Requests that were accepted before it are as safe
///    as any; the one on its way completes, since its completion is dropped.
///
/// Whether a backend keeps it is what `backend::conformance` looks for, with the feature of that name: a suite of checks
/// that every backend of this crate passes. One that goes on after a short transfer keeps an [`IoDesc`](super::IoDesc).
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Backend, Completion, Context, Request, Submitted};
///
/// /// Completes every request with the length of its user data in bits.
/// struct Bits;
///
/// impl Backend for Bits {
///     fn submit(&self, work: Completion) -> Submitted {
///         let bits = 64 - work.request().user_data.leading_zeros();
///         Submitted::Done(work.finish(Ok(bits as usize)))
///     }
/// }
///
/// let context = Context::new(8, Bits)?;
/// context.submit(Request::nop().with_user_data(1000))?;
/// let mut events = Vec::new();
/// context.get_events(1, 8, None, &mut events)?;
/// assert_eq!(events[0].result.as_ref().unwrap(), &10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Backend: Send + Sync {
    /// Takes one request on.
    fn submit(&self, work: Completion) -> Submitted;

    /// The end of a batch: what was submitted so far must not be held back any longer.
    fn flush(&self) {}

    /// Passes what has completed by now to `done`, without sleeping; the context publishes it together. Submitters call
    /// it only when they find the context full.
    #[inline(always)]
    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        let _ = done;
    }

    /// What a thread watches, besides its own wake-up, before it sleeps until something completes; always the same.
    /// `None` for backends that complete by themselves.
    #[cfg(ioctx_linux)]
    #[inline(always)]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Sleeps until `wanted` requests have completed, here or elsewhere, or the deadline has passed, where that can be
    /// had without a wake-up for each: readers try this before they watch the [`descriptor`](Self::descriptor). `None`,
    /// without a sleep, if not.
    ///
    /// What completes elsewhere the backend does not see. So it divides: it calls `announce`, once, with how many of
    /// these there may be until the waker is called, from then on, and sleeps only if that returns `true`; and then
    /// until the waker is called, or so many have completed here that fewer of both are fewer than `wanted`. It may
    /// wake too early, since the waker may be called at any time, and what has a [future](super::Started) does not wait
    /// for others.
    #[cfg(ioctx_linux)]
    fn park(
        &self,
        wanted: u32,
        deadline: Option<Instant>,
        announce: &mut dyn FnMut(u32, &Waker) -> bool,
    ) -> Option<Outcome> {
        let _ = (wanted, deadline, announce);
        None
    }

    /// A thread of the context's is about to sleep: what it watches meanwhile, which is [`descriptor`](Self::descriptor),
    /// readable at once if `poll` has something to do. For a backend that leaves work to those who are about to sleep.
    #[cfg(ioctx_linux)]
    #[inline(always)]
    fn prepare_sleep(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor()
    }

    /// Asks for the early end of a request that runs; returns whether somebody was asked. The request completes as any
    /// other, with `ECANCELED` or with what it has achieved.
    fn cancel(&self, id: RequestId) -> bool {
        let _ = id;
        false
    }

    /// Begins what is held back, and asks for the early end of every request whose context is being destroyed. Called
    /// by destroyers, and again while they wait.
    fn cancel_all(&self) {
        self.flush();
    }
}

impl<B: Backend + ?Sized> Backend for Box<B> {
    fn submit(&self, work: Completion) -> Submitted {
        (**self).submit(work)
    }

    fn flush(&self) {
        (**self).flush();
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        (**self).poll(done);
    }

    #[cfg(ioctx_linux)]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (**self).descriptor()
    }

    #[cfg(ioctx_linux)]
    fn park(
        &self,
        wanted: u32,
        deadline: Option<Instant>,
        announce: &mut dyn FnMut(u32, &Waker) -> bool,
    ) -> Option<Outcome> {
        (**self).park(wanted, deadline, announce)
    }

    #[cfg(ioctx_linux)]
    fn prepare_sleep(&self) -> Option<BorrowedFd<'_>> {
        (**self).prepare_sleep()
    }

    fn cancel(&self, id: RequestId) -> bool {
        (**self).cancel(id)
    }

    fn cancel_all(&self) {
        (**self).cancel_all();
    }
}
