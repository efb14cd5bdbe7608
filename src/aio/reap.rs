//! Reading events: [`Context::get_events`] and [`Context::visit`].

use super::drive::is_driven;
use super::shared::Shared;
use super::{Backend, Context, Event, GetEventsError, Visited};
use crate::sync::time::{Instant, expired};
use crate::sync::{hint, thread};
use crate::wait::Outcome;
use std::mem;

impl<B: Backend> Context<B> {
    /// Reads events: appends at most `max` to `out` and returns how many. Sleeps until it has `min`, or
    /// `deadline` has passed, or the context is destroyed and has no more; with a passed deadline, or `min`
    /// 0, it does not sleep. A signal handler ends the sleep, too, unless the system resumes it
    /// (`SA_RESTART` without a deadline).
    ///
    /// Whatever ends it, events that were read are returned rather than an error. A reader that waits for
    /// more than the capacity reads what there is whenever a submitter finds the context full.
    ///
    /// # Errors
    ///
    /// [`GetEventsError`]; no event was read then.
    pub fn get_events(
        &self,
        min: usize,
        max: usize,
        deadline: Option<Instant>,
        out: &mut Vec<Event>,
    ) -> Result<usize, GetEventsError> {
        self.reap(min, max, deadline, |max| self.shared().read(max, out))
    }

    /// As [`get_events`](Self::get_events), but shows each event to `visitor`, in place: its request is not moved
    /// unless the visitor takes it out, and is dropped otherwise. The result counts both.
    ///
    /// The visitor runs without a lock: it may submit, cancel and read. Events come out of the ring up to 64 at a
    /// time, and those after the one it is shown are not seen by other readers meanwhile; one who waits in the
    /// visitor for certain others visits with a `max` of 1. If the visitor panics, what it was not shown goes back,
    /// behind what has come meanwhile; a reader may have been told of the end of a destroyed context before.
    ///
    /// # Errors
    ///
    /// As there; no event was visited then.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::aio::{Context, Request};
    /// use ioctx::backend::Null;
    /// let context = Context::new(4, Null)?;
    /// context.submit(Request::nop().with_user_data(7))?;
    /// context.visit(1, 4, None, |mut event| {
    ///     // Once more, from within.
    ///     assert_eq!(event.request().user_data, 7);
    ///     event.request_mut().user_data += 1;
    ///     context.submit(event.into_event().request).unwrap();
    /// })?;
    /// context.visit(1, 4, None, |event| assert_eq!(event.request().user_data, 8))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn visit(
        &self,
        min: usize,
        max: usize,
        deadline: Option<Instant>,
        mut visitor: impl FnMut(Visited<'_>),
    ) -> Result<usize, GetEventsError> {
        self.reap(min, max, deadline, |max| self.shared().visit(max, &mut visitor))
    }

    /// Both of them: `read_up_to` reads at most so many events, and says how many.
    #[inline(always)]
    fn reap(
        &self,
        min: usize,
        max: usize,
        deadline: Option<Instant>,
        mut read_up_to: impl FnMut(usize) -> usize,
    ) -> Result<usize, GetEventsError> {
        if min > max {
            return Err(GetEventsError::Range { min, max });
        }
        self.harvest();
        let read = if max > 0 { read_up_to(max) } else { 0 };
        // With an event in hand, nothing else is worth a report.
        if read >= min.max(1) { Ok(read) } else { self.reap_more(min, max, deadline, read, read_up_to) }
    }

    /// [`reap`](Self::reap) where the first look was not enough, which found `read` events.
    #[inline(never)]
    fn reap_more(
        &self,
        min: usize,
        max: usize,
        deadline: Option<Instant>,
        mut read: usize,
        mut read_up_to: impl FnMut(usize) -> usize,
    ) -> Result<usize, GetEventsError> {
        let shared = self.shared();
        let mut backoff = hint::Backoff::default();
        // A wake-up that was meant for us is handed on, if there is something left to wake for; also if the visitor
        // panics.
        let mut announced = Announced(shared, false);
        let mut interrupted = false;
        let ended = loop {
            if shared.is_finished() {
                // Every event there will be is visible now.
                if read < max {
                    read += read_up_to(max - read);
                }
                if shared.queue.is_empty() {
                    break Some(GetEventsError::Dying);
                }
            }
            if interrupted {
                break Some(GetEventsError::Interrupted);
            }
            if read >= min || expired(deadline) {
                break None;
            }
            let mut slept = false;
            // What the run list has may be what we wait for: done before we spin.
            if !shared.help() && !backoff.wait() {
                // Until we have slept: what comes into the run list meanwhile is soon looked at.
                let waiting = shared.help_on_reap();
                // Not more than can be there, or nobody would ever wake us.
                let wanted = (min - read).min(self.capacity() as usize) as u32;
                let ran = waiting.as_ref().is_some_and(|waiting| waiting.ran() > 0);
                let there = |wanted| ran || shared.enough() >= wanted || shared.is_finished();
                let outcome = self.sleep(wanted, deadline, there);
                slept = outcome.is_some();
                interrupted = outcome == Some(Outcome::Interrupted);
                if mem::replace(&mut announced.1, true) && !slept {
                    // Not the first time: another reader holds the lane. Let it get on.
                    hint::contended();
                    thread::yield_now();
                }
            }
            if self.harvest() == 0 && slept && is_driven(&self.backend) {
                // Woken for what somebody else harvests at the moment, or has: let it get on.
                hint::contended();
                thread::yield_now();
            }
            if read < max {
                read += read_up_to(max - read);
            }
        };
        drop(announced);
        match ended {
            Some(error) if read == 0 => Err(error),
            _ => Ok(read),
        }
    }
}

/// A reader, and whether it has announced that it sleeps: then it may have been woken, which is handed on.
struct Announced<'a>(&'a Shared, bool);

impl Drop for Announced<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.1 {
            self.0.wait.notify(|| self.0.enough());
        }
    }
}
