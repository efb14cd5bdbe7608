//! Events awaited one after the other: [`Context::events`] and [`EventStream`].

use super::deferred::Deferred;
use super::shared::Shared;
use super::{Backend, Context, Event};
use crate::runlist::Waiting;
use crate::sync::hint;
use crate::wait::Listen;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{self, Poll, ready};

impl<B: Backend> Context<B> {
    /// The events of this context as a stream, of no particular runtime. It reads the same queue as
    /// [`get_events`](Self::get_events) and other streams: each event comes to one of them.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::aio::{Backend, Context};
    /// async fn bytes<B: Backend>(context: &Context<B>) -> std::io::Result<usize> {
    ///     let (mut events, mut bytes) = (context.events(), 0);
    ///     // Until the context is destroyed.
    ///     while let Some(event) = events.next().await {
    ///         bytes += event.result?;
    ///     }
    ///     Ok(bytes)
    /// }
    /// ```
    pub fn events(&self) -> EventStream<'_> {
        EventStream { shared: self.shared(), listen: None, waiting: None }
    }
}

/// The events of a context, one after the other. See [`Context::events`].
///
/// It holds nothing back: dropped at any moment, or one of its [`next`](Self::next), it loses no event, and hands a
/// wake-up that was meant for it on. Looking for an event is lock-free; where there is none it blocks on the readers'
/// mutex.
///
/// It has the method of a `Stream` without the trait: `futures::stream::poll_fn(|cx| Pin::new(&mut
/// events).poll_next(cx))` is one.
///
/// # Costs
///
/// Every event comes out of its lane by itself, which is about twice as dear as in batches, and going to sleep is two
/// times a mutex. Where events come in crowds, [`get_events`](Context::get_events) without waiting, after a first event
/// from here, takes the rest at once. Who awaits certain requests rather than any [starts](Context::start) them.
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Context, Request};
/// use ioctx::backend::Null;
/// use std::pin::Pin;
/// use std::task::{Poll, Waker};
/// let context = Context::new(4, Null)?;
/// let mut events = context.events();
/// let mut task = std::task::Context::from_waker(Waker::noop());
/// assert!(Pin::new(&mut events).poll_next(&mut task).is_pending());
/// context.submit(Request::nop().with_user_data(7))?;
/// context.destroy(None)?;
/// let Poll::Ready(Some(event)) = Pin::new(&mut events).poll_next(&mut task) else { panic!("it has come") };
/// assert_eq!(event.request.user_data, 7);
/// assert!(matches!(Pin::new(&mut events).poll_next(&mut task), Poll::Ready(None)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a stream does nothing unless it is polled"]
pub struct EventStream<'a> {
    shared: &'a Shared,
    /// While it sleeps, or is about to.
    listen: Option<Listen<'a>>,
    /// As long as that: what comes into the run list is soon looked at.
    waiting: Option<Waiting<'a, Deferred>>,
}

impl EventStream<'_> {
    /// The next event. `None` once the context is destroyed, every request has completed and every event was read; and
    /// ever after.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// As [`next`](Self::next), by hand: the waker of the last poll is called when there may be an event.
    pub fn poll_next(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Option<Event>> {
        let shared = self.shared;
        loop {
            // Before the look at the ring: every event of a context that is found finished is visible then.
            let finished = shared.is_finished();
            if let Some(event) = shared.take_one() {
                // An announcement that was picked meanwhile is handed on. If it had come true, this was the one event that
                // was counted for it.
                (self.listen, self.waiting) = (None, None);
                return Poll::Ready(Some(event));
            }
            let empty = shared.queue.is_empty();
            if finished && empty {
                return Poll::Ready(None);
            }
            match &mut self.listen {
                // And look once more.
                None => {
                    self.listen = Some(shared.wait.listen(1));
                    // Runs what is there already.
                    self.waiting = shared.help_on_reap();
                }
                Some(listen) if empty => {
                    ready!(Pin::new(listen).poll(context));
                    self.listen = None;
                }
                Some(_) => {
                    // Another reader is at it, and need not tell us if it leaves some: let it get on.
                    hint::contended();
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl fmt::Debug for EventStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("unread", &self.shared.queue.len())
            .field("finished", &self.shared.is_finished())
            .finish_non_exhaustive()
    }
}
