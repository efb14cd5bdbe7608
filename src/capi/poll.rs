//! Requests that wait for readiness: one thread of the pool waits for all of them.

use super::abi::{Errno, check};
use super::context::Slot;
use super::pool::Pool;
use super::work::{Descriptor, Op, Work, signal};
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::{Arc, Mutex};
use std::ptr;

/// A poll that has not completed, by which it is found to be cancelled.
pub(super) struct Waiting {
    /// Whose, and which: the address of the caller's request.
    pub(super) slot: &'static Slot,
    pub(super) request: u64,
    pub(super) interest: i16,
    /// Changed under the lock of `Polls::waiting`, by whoever takes it out to cancel it.
    cancelled: AtomicBool,
}

/// See the [module](self).
pub(super) struct Polls {
    waiting: Mutex<Vec<Arc<Waiting>>>,
    arrived: Mutex<Vec<Polled>>,
    /// An eventfd of the pool's table.
    bell: i32,
}

struct Polled {
    work: Work,
    waiting: Arc<Waiting>,
    fd: Descriptor,
    eventfd: Option<Descriptor>,
}

impl Polls {
    /// In the pool's table.
    pub(super) fn new() -> Result<Self, Errno> {
        // SAFETY: has no conditions.
        let bell = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) } as isize)?;
        Ok(Self { waiting: Mutex::default(), arrived: Mutex::default(), bell: bell as i32 })
    }

    /// Makes a poll known, that is about to be sent.
    pub(super) fn register(&self, slot: &'static Slot, request: u64, interest: i16) -> Arc<Waiting> {
        let waiting = Arc::new(Waiting { slot, request, interest, cancelled: AtomicBool::new(false) });
        self.waiting.lock().push(Arc::clone(&waiting));
        waiting
    }

    /// Takes out the first that `is` says is it; returns whether there was one.
    fn take(&self, is: impl Fn(&Waiting) -> bool) -> Option<Arc<Waiting>> {
        let mut all = self.waiting.lock();
        let place = all.iter().position(|waiting| is(waiting))?;
        Some(all.swap_remove(place))
    }

    /// Takes out one that was not sent, or that is finished; returns whether it was there, and not cancelled.
    pub(super) fn unregister(&self, waiting: &Arc<Waiting>) -> bool {
        self.take(|other| ptr::eq(other, &**waiting)).is_some()
    }

    /// Has one completed without being ready.
    ///
    /// # Errors
    ///
    /// `EINVAL`, if there is none.
    pub(super) fn cancel(&self, pool: &Pool, slot: &'static Slot, request: u64) -> Result<(), Errno> {
        let is = |waiting: &Waiting| ptr::eq(waiting.slot, slot) && waiting.request == request;
        let waiting = self.take(is).ok_or(libc::EINVAL)?;
        // Relaxed: the message that follows orders it.
        waiting.cancelled.store(true, Relaxed);
        pool.look(slot);
        Ok(())
    }

    /// As [`cancel`](Self::cancel), for all of a context.
    pub(super) fn cancel_all(&self, pool: &Pool, slot: &'static Slot) {
        let mut any = false;
        while let Some(waiting) = self.take(|waiting| ptr::eq(waiting.slot, slot)) {
            // Relaxed: as there.
            waiting.cancelled.store(true, Relaxed);
            any = true;
        }
        if any {
            pool.look(slot);
        }
    }

    /// Has the poller look at what has changed.
    pub(super) fn look(&self) {
        signal(self.bell);
    }

    /// From now on `work` waits for `fd`.
    pub(super) fn add(&self, work: Work, fd: Descriptor, eventfd: Option<Descriptor>) {
        let Op::Poll(waiting) = &work.op else { return };
        let waiting = Arc::clone(waiting);
        self.arrived.lock().push(Polled { work, waiting, fd, eventfd });
        self.look();
    }

    /// The poller's life.
    pub(super) fn run(&self) {
        let mut all: Vec<Polled> = Vec::new();
        let mut fds = Vec::new();
        loop {
            fds.clear();
            fds.push(libc::pollfd { fd: self.bell, events: libc::POLLIN, revents: 0 });
            fds.extend(all.iter().map(|polled| libc::pollfd {
                fd: polled.fd.0,
                events: polled.waiting.interest,
                revents: 0,
            }));
            // SAFETY: all of it ours.
            if unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as _, -1) } < 0 {
                continue;
            }
            if fds[0].revents != 0 {
                // SAFETY: eight bytes of ours.
                unsafe { libc::read(self.bell, ptr::from_mut(&mut 0_u64).cast(), 8) };
            }
            // Before the look at what was cancelled: these may have been on their way here, and the bell is silent now.
            all.append(&mut self.arrived.lock());
            for place in (0..all.len()).rev() {
                let ready = fds.get(place + 1).map_or(0, |fd| fd.revents);
                // Relaxed: a cancelled one that is not seen yet is seen when the bell rings.
                if ready == 0 && !all[place].waiting.cancelled.load(Relaxed) {
                    continue;
                }
                let Polled { work, waiting, fd, eventfd } = all.swap_remove(place);
                drop(fd);
                let result = if self.unregister(&waiting) { i64::from(ready as u16) } else { 0 };
                work.finish(result, eventfd);
            }
        }
    }
}
