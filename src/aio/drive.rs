//! Driving a backend that does not complete by itself, and sleeping meanwhile.

use super::batch::{Events, TOGETHER};
use super::shared::Shared;
use super::{Backend, Context, Finished};
use crate::sync::MODELLED;
use crate::sync::time::{Duration, Instant, expired};
use crate::wait::Outcome;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// How long a destroyer sleeps before it asks again for the early end of what still runs: what is just between two
/// steps when it is asked may miss it. Never in models, where no time passes.
const ASK_AGAIN: Duration = if MODELLED { Duration::from_secs(3600) } else { Duration::from_millis(20) };

/// What the backend has passed on, and how much that was. Published together, also if the backend panics.
struct Harvest<'a> {
    shared: NonNull<Shared>,
    events: Events<'a>,
    n: usize,
}

impl Drop for Harvest<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.n > 0 {
            self.events.publish(self.shared);
        }
    }
}

/// Publishes what the backend has to pass on. Returns how many requests that were.
#[inline(always)]
pub(super) fn harvest<B: Backend + ?Sized>(shared: NonNull<Shared>, backend: &B) -> usize {
    let mut room = [MaybeUninit::uninit(); TOGETHER];
    let mut harvest = Harvest { shared, events: Events::new(&mut room), n: 0 };
    backend.poll(&mut |finished: Finished| {
        harvest.n += 1;
        harvest.events.push(shared, finished);
    });
    harvest.n
}

/// Whether the backend needs somebody to drive it.
#[inline(always)]
pub(super) fn is_driven<B: Backend + ?Sized>(backend: &B) -> bool {
    #[cfg(ioctx_linux)]
    return backend.descriptor().is_some();
    #[cfg(not(ioctx_linux))]
    {
        let _ = backend;
        return false;
    }
}

impl<B: Backend> Context<B> {
    /// [`harvest`] of its backend.
    #[inline(always)]
    pub(super) fn harvest(&self) -> usize {
        harvest(self.shared, &self.backend)
    }

    /// Sleeps until `wanted` events are there, or the backend has something to harvest. `None`, without a sleep, if
    /// what was waited for is `there` once that was announced: so many events, or the end.
    #[inline(always)]
    pub(super) fn sleep(
        &self,
        wanted: u32,
        deadline: Option<Instant>,
        there: impl Fn(u32) -> bool,
    ) -> Option<Outcome> {
        #[cfg(ioctx_linux)]
        if let Some(descriptor) = self.backend.prepare_sleep() {
            let sleepers = &self.shared().wait;
            return watch::park(sleepers, &self.backend, wanted, deadline, &there)
                .unwrap_or_else(|| watch::sleep(sleepers, descriptor, wanted, deadline, &there));
        }
        let key = self.shared().wait.prepare_wait(wanted);
        if there(wanted) { None } else { Some(key.wait(deadline)) }
    }

    /// A submitter finds the context full. The backend may have events, for a reader that sleeps until there are more
    /// than there can be without these.
    #[cold]
    pub(super) fn relieve(&self) {
        if is_driven(&self.backend) {
            self.harvest();
        }
    }

    /// Drives the backend and helps the run list until no request is in flight or `deadline` has passed; returns
    /// whether none is.
    pub(super) fn wait_finished(&self, deadline: Option<Instant>) -> bool {
        let shared = self.shared();
        let driven = is_driven(&self.backend);
        while (driven || shared.run_list().is_some()) && !shared.is_finished() && !expired(deadline) {
            let harvested = self.harvest();
            // Until we have slept. The worker is soon there; and if it has none, we are, now and then.
            let waiting = shared.help_on_reap();
            if harvested > 0 || waiting.as_ref().is_some_and(|waiting| waiting.ran() > 0) {
                continue;
            }
            let soon = Instant::now() + ASK_AGAIN;
            let until = deadline.map_or(soon, |at| at.min(soon));
            if !driven {
                shared.finished.wait(Some(until));
                continue;
            }
            self.sleep(u32::MAX, Some(until), |_| shared.is_finished());
            // Woken perhaps because submitters find the context full: that is for readers.
            shared.wait.notify(|| shared.enough());
            if shared.reqs.is_dying() && expired(Some(soon)) {
                self.backend.cancel_all();
            }
        }
        shared.finished.wait(deadline)
    }
}

/// Sleeping with an eye on a descriptor.
#[cfg(ioctx_linux)]
mod watch {
    use crate::aio::Backend;
    use crate::sync::time::{Duration, Instant};
    use crate::wait::{Bell, EventCount, Outcome};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::io::Errno;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::pin::Pin;
    use std::task::{Context, Waker};

    /// How long to sleep at a time where no bell is to be had: nobody can wake us then.
    const WITHOUT_BELL: Duration = Duration::from_millis(1);

    /// Sleeps as the backend does, if it does: `None` if not. Otherwise as [`sleep`].
    #[cold]
    pub(super) fn park(
        sleepers: &EventCount,
        backend: &dyn Backend,
        wanted: u32,
        deadline: Option<Instant>,
        there: &dyn Fn(u32) -> bool,
    ) -> Option<Option<Outcome>> {
        if wanted == u32::MAX {
            // Who destroys: the last request is the backend's, and the number is there before.
            return None;
        }
        let mut announced = None;
        let mut sleeps = false;
        let outcome = backend.park(wanted, deadline, &mut |min, waker| {
            let listen = announced.insert(sleepers.listen(min));
            let picked = Pin::new(listen).poll(&mut Context::from_waker(waker)).is_ready();
            sleeps = !picked && !there(min);
            sleeps
        })?;
        // If it was picked, the wake-up is the caller's, to use or to hand on. Otherwise the announcement is taken
        // back.
        let picked = announced
            .as_mut()
            .is_some_and(|listen| Pin::new(listen).poll(&mut Context::from_waker(Waker::noop())).is_ready());
        Some(sleeps.then_some(if picked { Outcome::Woken } else { outcome }))
    }

    #[cold]
    pub(super) fn sleep(
        sleepers: &EventCount,
        descriptor: BorrowedFd<'_>,
        wanted: u32,
        deadline: Option<Instant>,
        there: &dyn Fn(u32) -> bool,
    ) -> Option<Outcome> {
        let mut bell = Bell::kept(sleepers).ok();
        if let Some(bell) = &mut bell {
            bell.arm(wanted);
        }
        if there(wanted) {
            bell.into_iter().for_each(Bell::keep);
            return None;
        }
        let mut left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if bell.is_none() {
            left = Some(left.map_or(WITHOUT_BELL, |left| left.min(WITHOUT_BELL)));
        }
        let left = left.map(|left| Timespec {
            tv_sec: left.as_secs().min(u32::MAX.into()) as _,
            tv_nsec: left.subsec_nanos() as _,
        });
        let watched = PollFd::from_borrowed_fd(descriptor, PollFlags::IN);
        let polled = match &mut bell {
            Some(bell) => {
                let mut both = [watched, PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)];
                let polled = poll(&mut both, left.as_ref());
                if !both[1].revents().is_empty() {
                    // From now on the wake-up is the caller's, to use or to hand on. Otherwise keeping the bell does.
                    bell.clear();
                }
                polled
            }
            None => poll(&mut [watched], left.as_ref()),
        };
        bell.into_iter().for_each(Bell::keep);
        Some(match polled {
            Ok(0) => Outcome::TimedOut,
            Err(Errno::INTR) => Outcome::Interrupted,
            _ => Outcome::Woken,
        })
    }
}
