//! What all files of a backend share: [`Hub`].

use super::handover::{Pair, Room};
use super::left::{Left, Watch};
use super::place::Place;
use super::table::Table;
use crate::aio::{Backend, Cancellable, Completion, Finished, Submitted};
use crate::backend::Threads;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::{Mutex, OnceLock};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// How many descriptors are looked at together.
const CHUNK: usize = 64;

/// Where it is seen that files are ready, and who sees to that.
#[derive(Debug)]
pub(super) struct Hub {
    /// Has the files that requests wait for.
    epoll: OwnedFd,
    /// Who looks for what that says.
    pub(super) watch: Watch,
    /// Files that the system is to be told of.
    pub(super) unarmed: Left<RawFd>,
    /// Writes, and the reads that are to have their data.
    pub(super) pairs: Left<Pair>,
    /// What was handed over, to be published together.
    pub(super) handed: Left<Finished>,
    /// For the next pairs. `None`: somebody uses it.
    pub(super) room: Mutex<Option<Room>>,
    /// Whether something has completed since this was last asked.
    moved: AtomicBool,
    /// For what cannot be asked not to wait. `None` if it could not be made.
    pool: OnceLock<Option<Threads>>,
}

impl Hub {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll,
            watch: Watch::new(),
            unarmed: Left::new(),
            pairs: Left::new(),
            handed: Left::new(),
            room: Mutex::new(None),
            moved: AtomicBool::new(false),
            pool: OnceLock::new(),
        })
    }

    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    pub(super) fn pool(&self) -> Option<&Threads> {
        self.pool.get_or_init(|| Threads::sized().ok()).as_ref()
    }

    pub(super) fn made_pool(&self) -> Option<&Threads> {
        self.pool.get()?.as_ref()
    }

    pub(super) fn flush_pool(&self) {
        if let Some(pool) = self.made_pool() {
            pool.flush();
        }
    }

    /// Has a thread wait for it. Done, perhaps.
    pub(super) fn leave_to_pool(&self, work: Completion) -> Option<Finished> {
        let Some(pool) = self.pool() else { return Some(work.finish(Err(Errno::OPNOTSUPP.into()))) };
        let submitted = pool.submit(work);
        pool.flush();
        match submitted {
            Submitted::Done(finished) => Some(finished),
            Submitted::Queued => None,
            Submitted::Refused(work, error) => Some(work.finish(Err(error))),
        }
    }

    /// Something has completed: whoever looks next has no reason to sleep.
    pub(super) fn has_moved(&self) {
        // Relaxed, here and in `take_moved`: a hint. Missed, somebody looks at files in vain; seen too late, again.
        if !self.moved.load(Relaxed) {
            self.moved.store(true, Relaxed);
        }
    }

    /// Whether something has completed since this was last asked.
    pub(super) fn take_moved(&self) -> bool {
        // Relaxed: see `has_moved`.
        let moved = self.moved.load(Relaxed);
        if moved {
            self.moved.store(false, Relaxed);
        }
        moved
    }

    /// Tells the system of all files that somebody waits for.
    pub(super) fn arm(&self, table: &Table) {
        if !self.unarmed.is_empty() {
            let unarmed = self.unarmed.take(Vec::new());
            unarmed
                .into_iter()
                .filter_map(|number| table.seat(number))
                .for_each(|seat| self.arm_one(&seat.place));
        }
    }

    /// Tells it of this one.
    pub(super) fn arm_one(&self, place: &Place) {
        if place.arm(self.epoll.as_fd()) {
            let left = place.evict().into_iter().filter_map(Cancellable::claim);
            // Published when all are with the pool: what is woken may panic.
            let _finished: Vec<_> = left.filter_map(|work| self.leave_to_pool(work)).collect();
        }
    }

    /// Looks which files are ready, and kicks their tasks.
    pub(super) fn look(&self, table: &Table) {
        loop {
            let mut room = [MaybeUninit::uninit(); CHUNK];
            let now = Timespec::default();
            let Ok((events, _)) = epoll::wait(&self.epoll, &mut room, Some(&now)) else { return };
            for event in &*events {
                if let Some(seat) = table.seat(event.data.u64() as RawFd) {
                    seat.is_ready(event.flags);
                }
            }
            if events.len() < CHUNK {
                return;
            }
        }
    }
}
