//! Announced sleeps: [`Key`] for threads, [`Listen`] for tasks.

use super::EventCount;
use crate::sync::time::Instant;
use crate::sync::{Arc, Parked, Parker, Wake};
use std::pin::Pin;
use std::task::{Context, Poll};

/// An announcement. Dropped, it is taken back; if it was picked meanwhile, every other sleeper is woken
/// instead.
#[derive(Debug)]
struct Announced<'a> {
    events: &'a EventCount,
    /// By which name, until it is known to have been picked.
    id: Option<u64>,
}

impl<'a> Announced<'a> {
    fn new(events: &'a EventCount, min: u32, wake: Option<Wake>) -> Self {
        // Owned before the fence, which may panic.
        let announced = Self { events, id: Some(events.join(min, wake)) };
        events.announced();
        announced
    }

    /// Takes it back; returns whether it was still there, and not picked.
    fn leave(&mut self) -> bool {
        self.id.take().is_some_and(|id| self.events.leave(id))
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.events.leave_or_hand_on(id);
        }
    }
}

/// How a [`Key::wait`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a sleeper that was woken and leaves events behind has to notify the next"]
pub enum Outcome {
    /// Somebody found that enough was there, or woke everybody.
    Woken,
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran on this thread. Not if there is no deadline and the handler was installed with
    /// `SA_RESTART`: then the system goes on with the sleep.
    Interrupted,
}

/// An announced sleep of a thread. See [`EventCount::prepare_wait`].
///
/// Dropping it takes the announcement back. If it was picked to be woken meanwhile, every other sleeper is
/// woken instead, and looks for itself.
#[derive(Debug)]
#[must_use = "dropped, the announcement is taken back"]
pub struct Key<'a> {
    announced: Announced<'a>,
    /// Of this sleep alone: to keep it for the thread's next one is no cheaper than to allocate it.
    parker: Arc<Parker>,
}

impl<'a> Key<'a> {
    pub(super) fn new(events: &'a EventCount, min: u32) -> Self {
        let parker = Arc::new(Parker::new());
        Self { announced: Announced::new(events, min, Some(Wake::Thread(Arc::clone(&parker)))), parker }
    }
}

impl Key<'_> {
    /// Sleeps until woken, past `deadline` or interrupted by a signal. Blocking. May wake though too few
    /// events are there: they were there, and somebody else took them.
    pub fn wait(mut self, deadline: Option<Instant>) -> Outcome {
        match self.parker.park(deadline) {
            Parked::Unparked => {
                // Unlinked by the waker, whose last access to the event count that was.
                self.announced.id = None;
                Outcome::Woken
            }
            // Whoever unlinked this sleeper meant to wake it: then that is the outcome, whatever ended the
            // sleep, so that the wake-up is handed on and not lost.
            _ if !self.announced.leave() => Outcome::Woken,
            Parked::TimedOut => Outcome::TimedOut,
            Parked::Interrupted => Outcome::Interrupted,
        }
    }
}

/// An announced sleep of a task: a future that is ready once the task was picked. See [`EventCount::listen`].
/// It has no deadline: whoever has a timer drops it.
///
/// Dropping it takes the announcement back. If it was picked meanwhile and nobody has polled it since, every
/// other sleeper is woken instead, and looks for itself.
#[derive(Debug)]
#[must_use = "dropped, the announcement is taken back"]
pub struct Listen<'a>(Announced<'a>);

impl<'a> Listen<'a> {
    pub(super) fn new(events: &'a EventCount, min: u32) -> Self {
        Self(Announced::new(events, min, None))
    }
}

impl Future for Listen<'_> {
    type Output = ();

    /// Ready once picked, and ever after. Blocks on the event count's mutex. The waker of the last poll is
    /// the one that is woken.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(id) = self.0.id else { return Poll::Ready(()) };
        if self.0.events.wake_instead(id, Wake::Task(context.waker().clone())) {
            return Poll::Pending;
        }
        self.0.id = None;
        Poll::Ready(())
    }
}
