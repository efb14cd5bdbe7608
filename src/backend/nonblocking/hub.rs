//! What all files of a backend share: [`Hub`].

use super::place::{Place, Seat};
use crate::aio::{Backend, Cancellable, Completion, Finished, Submitted};
use crate::backend::Threads;
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use crate::sync::{Arc, Mutex, OnceLock};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// How many descriptors are looked at together.
const CHUNK: usize = 64;
/// How many numbers are made room for at a time.
const ROOM: usize = 1024;

/// Where it is seen that files are ready, and who sees to that.
#[derive(Debug)]
pub(super) struct Hub {
    /// Has the files that requests wait for.
    epoll: OwnedFd,
    /// Whether somebody else than the context's own threads watches that.
    watched: AtomicBool,
    /// Files that the system is to be told of before anybody sleeps.
    unarmed: Mutex<Vec<RawFd>>,
    /// Whether there are any. Written under the lock.
    some_unarmed: AtomicBool,
    /// Whether something has completed since this was last asked.
    moved: AtomicBool,
    /// The thread that looks for events, by an address of its own; 0: none does, `MANY`.
    driver: AtomicUsize,
    /// For what cannot be asked not to wait. `None` if it could not be made.
    pool: OnceLock<Option<Threads>>,
}

/// Several threads look for events.
const MANY: usize = 1;

/// Tells threads that live from each other.
fn me() -> usize {
    std::thread_local!(static HERE: u16 = const { 0 });
    // At the end of a thread: as if it were several.
    HERE.try_with(|here| (&raw const *here).addr()).unwrap_or(MANY)
}

impl Hub {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll,
            watched: AtomicBool::new(false),
            unarmed: Mutex::new(Vec::new()),
            some_unarmed: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            driver: AtomicUsize::new(0),
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

    /// This thread looks for events.
    pub(super) fn drive(&self) {
        // Relaxed, here and below: a thread that submits and looks sees its own write; of others it matters only that
        // one which has slept has written before, and its request is then armed when it is flushed: by the lock of the
        // list of what is not armed, which the sleeper has had since.
        let (before, me) = (self.driver.load(Relaxed), me());
        if before == me || before == MANY {
            return;
        }
        // Relaxed, all three: a number that names a thread, and publishes nothing; see above.
        let claimed = self.driver.compare_exchange(0, me, Relaxed, Relaxed);
        if claimed.is_err() {
            self.driver.store(MANY, Relaxed);
        }
    }

    /// Somebody watches the descriptor for himself, from now on.
    pub(super) fn is_watched(&self) {
        // Relaxed: whoever watches asks for the descriptor before, and tells those who submit, if they are others.
        self.watched.store(true, Relaxed);
    }

    /// Whether this thread is the one that looks for events, so that none sleeps while it submits.
    pub(super) fn is_alone(&self) -> bool {
        // Relaxed: see `is_watched` and `drive`.
        !self.watched.load(Relaxed) && self.driver.load(Relaxed) == me() && me() != MANY
    }

    /// The file is to be armed.
    pub(super) fn list(&self, number: RawFd) {
        let mut unarmed = self.unarmed.lock();
        unarmed.push(number);
        // Relaxed: written under the lock; the thread that flushes what it has submitted sees its own.
        self.some_unarmed.store(true, Relaxed);
    }

    /// Whether files are to be armed.
    pub(super) fn has_unarmed(&self) -> bool {
        // Relaxed: see `list`.
        self.some_unarmed.load(Relaxed)
    }

    /// Those that are to be armed, from now on the caller's.
    fn take_unarmed(&self) -> Vec<RawFd> {
        let mut unarmed = self.unarmed.lock();
        // Relaxed: see `list`.
        self.some_unarmed.store(false, Relaxed);
        mem::take(&mut *unarmed)
    }

    /// Tells the system of all files that somebody waits for.
    pub(super) fn arm(&self, table: &Table) {
        if self.has_unarmed() {
            self.take_unarmed().into_iter().filter_map(|number| table.seat(number)).for_each(|seat| {
                self.arm_one(&seat.place);
            });
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

/// The files, by their numbers. Never smaller.
#[derive(Debug)]
pub(super) struct Table(Box<[OnceLock<Row>]>);

type Row = Box<[OnceLock<Arc<Seat>>]>;

impl Table {
    pub(super) fn new() -> Self {
        Self((0..ROOM).map(|_| OnceLock::new()).collect())
    }

    /// What is known of a number, if anything is.
    pub(super) fn seat(&self, number: RawFd) -> Option<&Arc<Seat>> {
        let number = usize::try_from(number).ok()?;
        self.0.get(number / ROOM)?.get()?[number % ROOM].get()
    }

    /// The same, and it is made if it was not there. `None`: a number beyond all that systems give.
    pub(super) fn seat_or(&self, number: RawFd, make: impl FnOnce() -> Seat) -> Option<&Arc<Seat>> {
        let number = usize::try_from(number).ok()?;
        let row = self.0.get(number / ROOM)?.get_or_init(|| (0..ROOM).map(|_| OnceLock::new()).collect());
        Some(row[number % ROOM].get_or_init(|| Arc::new(make())))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Seat>> {
        self.0.iter().filter_map(OnceLock::get).flatten().filter_map(OnceLock::get)
    }
}
