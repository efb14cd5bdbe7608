//! The end of contexts: [`Context::destroy`], and its kin.

use super::deferred::Deferred;
use super::shared::{Shared, for_all};
use super::trace::report;
use super::{Backend, Context, DestroyError, drive};
use crate::refcount::{PerCpuRef, Put};
use crate::runlist::Waiting;
use crate::sync::thread;
use crate::sync::time::Instant;
use crate::wait::Listen;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{self, Poll, ready};

/// How many of the requests in flight an error names.
const NAMED: usize = 8;

impl<B: Backend> Context<B> {
    /// Refuses new requests, cancels those that can be [cancelled](Self::cancel), and waits until the others have
    /// completed, or until `deadline`. The events of all can still be read, here or on other threads, which are woken
    /// when the last has come.
    ///
    /// # Errors
    ///
    /// [`DestroyError::Already`] for all but the first caller. [`DestroyError::TimedOut`] if requests are in flight at
    /// the deadline, and which: the context stays destroyed, and dropping it waits for them.
    ///
    /// # Panics
    ///
    /// As [`PerCpuRef::kill`]; the context is not destroyed then. If the backend does, or what is woken; then it is.
    pub fn destroy(&self, deadline: Option<Instant>) -> Result<(), DestroyError> {
        self.begin_destroy()?;
        self.wait_destroyed(deadline)
    }

    /// Destroys many contexts, as [`destroy`](Self::destroy) does each: all refuse new requests, at the price of one
    /// (a fence that interrupts other CPUs, some microseconds), and cancel, before the first is waited for. Contexts
    /// of different backends have `Box<dyn Backend>` in common.
    ///
    /// # Errors
    ///
    /// As there, one result for each, in their order.
    ///
    /// # Panics
    ///
    /// As there, when all have been destroyed.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::aio::{Context, Request};
    /// use ioctx::backend::Null;
    /// let contexts = [Context::new(4, Null)?, Context::new(4, Null)?];
    /// contexts[0].submit(Request::nop())?;
    /// assert_eq!(Context::destroy_all(&contexts, None), [Ok(()), Ok(())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn destroy_all<'a>(
        contexts: impl IntoIterator<Item = &'a Self>,
        deadline: Option<Instant>,
    ) -> Vec<Result<(), DestroyError>>
    where
        B: 'a,
    {
        let contexts: Vec<&Self> = contexts.into_iter().collect();
        let first = Self::kill_all(&contexts);
        let mine = |(context, first)| if first { Some(context) } else { None };
        for_all(
            contexts.iter().zip(&first).map(|(context, first)| (context, *first)).filter_map(mine),
            |context| {
                context.hasten();
            },
        );
        let end = |(context, first): (&Self, bool)| {
            if first { context.wait_destroyed(deadline) } else { Err(DestroyError::Already) }
        };
        contexts.into_iter().zip(first).map(end).collect()
    }

    /// [`destroy`](Self::destroy) as a future, of no particular runtime: ready when the last request has completed.
    /// It has no deadline: whoever has a timer drops it. The context is destroyed by this call, polled or not.
    ///
    /// # Costs
    ///
    /// Nothing while it waits, but with a backend that is [driven](Backend::poll) by those who wait: then it asks to be
    /// polled again and again, until what runs has been cancelled or has completed.
    ///
    /// # Panics
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::aio::{Backend, Context, DestroyError, Event};
    /// async fn end<B: Backend>(context: &Context<B>) -> Vec<Event> {
    ///     let _ = context.destroy_async().await;
    ///     let mut rest = Vec::new();
    ///     let _ = context.get_events(0, usize::MAX, None, &mut rest);
    ///     rest
    /// }
    /// ```
    pub fn destroy_async(&self) -> Destroying<'_> {
        let already = self.begin_destroy().err();
        // Runs what is in the run list. What comes meanwhile is soon looked at.
        let waiting = self.shared().help_on_reap();
        Destroying { shared: self.shared(), backend: &self.backend, already, listen: None, _waiting: waiting }
    }

    /// Waits until a context that is being destroyed, by whomever, has no request in flight, or until
    /// `deadline`. Waits also for the destroying to begin.
    ///
    /// # Errors
    ///
    /// [`DestroyError::TimedOut`].
    pub fn wait_destroyed(&self, deadline: Option<Instant>) -> Result<(), DestroyError> {
        let shared = self.shared();
        if self.wait_finished(deadline) {
            return Ok(());
        }
        // Counted exactly once killed; it may have become 0 since.
        let in_flight = shared.reqs.count().unwrap_or_else(|| shared.in_flight().count() as u64);
        let named: Vec<_> = shared.in_flight().take(NAMED).collect();
        report!(debug, context = ?self.shared, in_flight, ?named, "not destroyed at the deadline");
        Err(DestroyError::TimedOut { in_flight, named })
    }

    /// All of destroying but the waiting.
    fn begin_destroy(&self) -> Result<(), DestroyError> {
        let [true] = Self::kill_all(&[self])[..] else { return Err(DestroyError::Already) };
        self.hasten();
        Ok(())
    }

    /// Has all of `contexts` refuse new requests; returns for each whether this call was the first to.
    fn kill_all(contexts: &[&Self]) -> Vec<bool> {
        let counts = contexts.iter().flat_map(|context| {
            let shared = context.shared();
            // In this order: see the places below.
            [&*shared.reqs, &*shared.memory]
        });
        let mut reqs = vec![None; contexts.len()];
        PerCpuRef::kill_all(counts, |place, put| {
            if place % 2 == 0 {
                reqs[place / 2] = put;
            }
            // Of `memory` the contexts' own references are left.
        });
        let first = || contexts.iter().zip(&reqs).filter(|(_, put)| put.is_some());
        let say: &dyn Fn() = &|| {
            for_all(first(), |(_context, _)| {
                report!(debug, context = ?_context.shared, "destroying");
            });
        };
        let end: &dyn Fn() = &|| {
            let zero = first().filter(|(_, put)| **put == Some(Put::Zero));
            // SAFETY: we were told.
            for_all(zero, |(context, _)| unsafe { Shared::last(context.shared) });
        };
        for_all([say, end].into_iter(), |step| step());
        reqs.into_iter().map(|put| put.is_some()).collect()
    }

    /// Cancels what can be, and has the backend begin what it holds back. The context was killed.
    fn hasten(&self) {
        if self.shared().is_finished() {
            return;
        }
        // SAFETY: alive.
        let cancel: &dyn Fn() = &|| unsafe { Shared::cancel_all(self.shared) };
        for_all([cancel, &|| self.backend.cancel_all()].into_iter(), |step| step());
    }
}

impl<B: Backend> Drop for Context<B> {
    fn drop(&mut self) {
        let killed = catch_unwind(AssertUnwindSafe(|| drop(Self::kill_all(&[self]))));
        if let (Err(panic), false) = (killed, self.shared().reqs.is_dying()) {
            // Nothing may be freed.
            resume_unwind(panic);
        }
        // Also if somebody else has begun to, and was interrupted by a panic.
        let hastened = catch_unwind(AssertUnwindSafe(|| self.hasten()));
        let shared = self.shared();
        let waited = catch_unwind(AssertUnwindSafe(|| self.wait_finished(None)));
        if waited.is_err() {
            // The backend has panicked while it was driven; the requests are still in flight.
            shared.finished.wait(None);
        }
        // Events nobody has read.
        let cleared = catch_unwind(AssertUnwindSafe(|| shared.clear()));
        // SAFETY: 1. ours, as `shared` says; no completion is left (the gate is open, and opening it was the last
        // access of the last one), and no caller, since we are being dropped. 2. boxed by `Builder::build`, and
        // cleared.
        unsafe { Shared::forget(self.shared) };
        if let Err(panic) = hastened.and(waited).and(cleared)
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// A context that is being destroyed: a future that is ready when its last request has completed. See
/// [`Context::destroy_async`].
///
/// Dropped, it leaves the context destroyed.
#[must_use = "the context is destroyed; only waiting for its requests is not done"]
pub struct Destroying<'a> {
    shared: &'a Shared,
    backend: &'a dyn Backend,
    already: Option<DestroyError>,
    /// As one who waits for more events than there can be, and so is woken by the end.
    listen: Option<Listen<'a>>,
    _waiting: Option<Waiting<'a, Deferred>>,
}

impl Future for Destroying<'_> {
    type Output = Result<(), DestroyError>;

    /// Blocks on the readers' mutex.
    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        if let Some(error) = &self.already {
            return Poll::Ready(Err(error.clone()));
        }
        loop {
            // After the announcement: whoever finishes the last request either finds us, or is found here.
            if self.shared.is_finished() {
                return Poll::Ready(Ok(()));
            }
            if drive::is_driven(self.backend) {
                // Nobody else may be there to do it, and a task has no descriptors to watch.
                if drive::harvest(NonNull::from(self.shared), self.backend) == 0 {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                continue;
            }
            let shared = self.shared;
            match &mut self.listen {
                None => self.listen = Some(shared.wait.listen(u32::MAX)),
                Some(listen) => {
                    // Woken by the end, or because submitters find the context full.
                    ready!(Pin::new(listen).poll(context));
                    self.listen = None;
                }
            }
        }
    }
}

impl fmt::Debug for Destroying<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Destroying")
            .field("already", &self.already)
            .field("finished", &self.shared.is_finished())
            .finish()
    }
}
