//! A descriptor for other people's loops: [`Context::eventfd`] and [`EventFd`].

use super::deferred::Deferred;
use super::shared::Shared;
use super::{Backend, Context};
use crate::runlist::Waiting;
use crate::wait::{Bell, EventCount};
use rustix::event::epoll;
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::{fmt, io, mem};

impl<B: Backend> Context<B> {
    /// A descriptor that becomes readable when events are there, for a loop that sleeps in `poll` or `epoll`. Linux
    /// only. A context may have several.
    ///
    /// # Errors
    ///
    /// Those of `eventfd` and `epoll_create`: no descriptor is left, or no memory.
    pub fn eventfd(&self) -> io::Result<EventFd<'_>> {
        let shared = self.shared();
        let bell = Bell::new(&shared.wait)?;
        let driven =
            self.backend.descriptor().map(|descriptor| both(bell.as_fd(), descriptor)).transpose()?;
        Ok(EventFd { shared, backend: &self.backend, bell, driven, rung: false, waiting: None })
    }
}

/// A descriptor that is readable when either of these is.
fn both(bell: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for one in [bell, descriptor] {
        epoll::add(&both, one, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    }
    Ok(both)
}

/// An eventfd that becomes readable, once, when as many events are there as it was [armed](Self::arm) for. See
/// [`Context::eventfd`].
///
/// The loop's part is always the same: read events without waiting until there are too few; arm, and read again if
/// that says that it is no use; sleep until the descriptor is readable; [clear](Self::clear). While it is not armed
/// completers pay nothing for it.
///
/// It is one of the readers: an event it became readable for is not counted for another that sleeps. What its owner
/// leaves behind is handed on to others by the next arming, by [`disarm`](Self::disarm) and by dropping it.
///
/// Where a backend does not complete by itself, the descriptor is also readable while there is something to harvest,
/// armed or not: reading events does that.
///
/// # Staleness
///
/// It may be readable though too few events are there: somebody else has read them, or it was armed anew meanwhile.
///
/// # Costs
///
/// Those of [`Bell`]: arming is announcing a sleep, becoming readable one `write`, clearing one `read`. Threads that
/// wait for nothing else sleep in [`get_events`](Context::get_events), which is cheaper.
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Context, GetEventsError, Request};
/// use ioctx::backend::Threads;
/// use rustix::event::{PollFd, PollFlags, poll};
/// let context = Context::new(8, Threads::new(1)?)?;
/// let file = std::sync::Arc::new(tempfile::tempfile()?);
/// for i in 0..3 {
///     context.submit(Request::write(file.clone(), vec![0; 8], 8 * i))?;
/// }
/// let mut ready = context.eventfd()?;
/// let mut events = Vec::new();
/// loop {
///     context.get_events(0, 8, None, &mut events)?;
///     if events.len() == 3 {
///         break;
///     }
///     if ready.arm(1) {
///         // With whatever else there is to wait for.
///         poll(&mut [PollFd::new(&ready, PollFlags::IN)], None)?;
///         ready.clear();
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EventFd<'a> {
    shared: &'a Shared,
    backend: &'a dyn Backend,
    bell: Bell<&'a EventCount>,
    /// Readable also if a backend that does not complete by itself has something to harvest. `None` for others.
    driven: Option<OwnedFd>,
    /// Whether it was picked, and has left others to sleep for it, since it was armed.
    rung: bool,
    /// Once it was armed: what comes into the run list is soon looked at, since its owner sleeps elsewhere.
    waiting: Option<Waiting<'a, Deferred>>,
}

impl EventFd<'_> {
    /// Has the descriptor become readable when `min` events are there (or as many as there can be), or a submitter
    /// finds the context full with some unread, or the context has been destroyed and its last request has completed.
    /// If that is so already it is not armed, and `false` is returned: there is something to read, or nothing to wait
    /// for any more. Blocks on the readers' mutex.
    ///
    /// An earlier arming is taken back, as by [`disarm`](Self::disarm).
    #[must_use = "if it is not armed it will not become readable"]
    pub fn arm(&mut self, min: usize) -> bool {
        self.disarm();
        let shared = self.shared;
        // What is in the run list is done now: it may be what is waited for.
        self.waiting = shared.help_on_reap();
        let wanted = min.min(shared.tags.total() as usize) as u32;
        self.bell.arm(wanted);
        // Once more: what came before does not ring it.
        let armed = shared.enough() < wanted && !shared.is_finished();
        if !armed {
            self.bell.disarm();
        } else if self.driven.is_some() {
            // What the backend leaves to those who are about to sleep.
            let _ = self.backend.prepare_sleep();
        }
        armed
    }

    /// Takes the arming back. The descriptor stays readable if it is.
    pub fn disarm(&mut self) {
        self.bell.disarm();
        if mem::take(&mut self.rung) {
            self.shared.wait.notify(|| self.shared.enough());
        }
    }

    /// Makes the descriptor unreadable, as far as it was for events. Events are looked for after this, not before.
    pub fn clear(&mut self) {
        self.rung |= self.bell.clear();
    }
}

impl Drop for EventFd<'_> {
    fn drop(&mut self) {
        self.disarm();
    }
}

impl AsFd for EventFd<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.driven.as_ref().map_or_else(|| self.bell.as_fd(), OwnedFd::as_fd)
    }
}

impl AsRawFd for EventFd<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl fmt::Debug for EventFd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventFd").field("bell", &self.bell).field("rung", &self.rung).finish_non_exhaustive()
    }
}
