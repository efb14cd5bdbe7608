//! [`Nonblocking`], on Linux.

use super::hub::Hub;
use super::known::{Direction, Inode, file};
use super::place::{Place, Seat, Tried};
use super::retry::Retry;
use super::table::Table;
use crate::aio::{Backend, Completion, FileRef, Finished, Op, Readiness, RequestId, Submitted};
use crate::backend::threads::sys::try_cached;
use crate::runlist::{Builder, RunList};
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::{Arc, Mutex};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::{fmt, io};

/// Of so many looks for tasks one looks at the files, too, though there are tasks.
const SELDOM: u32 = 32;

/// The two ends of a pipe, as far as they were seen.
type Ends = [Option<Arc<Seat>>; 2];

/// Carries out reads and writes of pipes, sockets and their like where somebody is at it anyway: in who submits them if
/// they need not wait, and otherwise, once they need not, in whoever submits or waits next. Linux, with 6.4 for pipes;
/// elsewhere it is [`Threads`](super::super::Threads).
///
/// An operation that would wait is parked on its file until the system says that the file is ready (`epoll`), or
/// until a request of this backend has moved something at the other end of the pipe. Then the file's task is kicked,
/// in a [`RunList`]: submitters run some tasks at the end of each batch, readers of events all of them before they
/// sleep, and a thread those that neither has run for a while: how many and how long says a [`Builder`](Self::with).
/// So data that goes through a pipe between two requests costs the two calls that move it, or less, and no switch.
///
/// The requests for one direction of a file are served first in, first out, as far as they were submitted one after
/// the other. A transfer may be short, as those of files that are `O_NONBLOCK`: a write of more than fits says how
/// much did.
///
/// Reads and writes of files on disks, syncs, custom operations, and files that cannot be asked not to wait (terminals,
/// pipes before Linux 6.4) are left to a pool of [`Threads`](super::super::Threads), made when it is first needed.
///
/// What waits can be [cancelled](crate::Context::cancel), and is when its context is destroyed; what the pool runs
/// cannot.
///
/// # Data that is handed over
///
/// A write of up to 4 KiB to a pipe at whose other end a read waits that takes all of it is carried out at the end of
/// its batch. If the pipe is empty then, of which one `poll` makes sure for up to 64 pipes, the data is copied from
/// the one buffer to the other: as if the write had been carried out at that moment, and the read right after it.
/// Nobody else can tell, but for what the system does on the side: the pipe's time stamps stay as they are, and who
/// watches the pipe is told of nothing. Otherwise both go through the pipe. Descriptors that are [not
/// ours](crate::aio::FileRef::borrowed) always do.
///
/// # Progress
///
/// Submitting takes a few locks, of the file and the list, for some instructions, and makes calls that do not wait.
/// Somebody has to look for events: whoever is in [`get_events`](crate::Context::get_events), or destroys. One who
/// watches descriptors watches [this one](Backend::descriptor) or [an eventfd](crate::Context::eventfd), and calls
/// `get_events`; so does an executor of [futures](crate::Context::start), as with `Uring`, or a
/// [`Driver`](crate::aio::Driver) for it.
///
/// # Costs
///
/// Two descriptors, and 16 KiB per thousand numbers of descriptors. A request that need not wait: its system call and
/// some 200 ns. Data that is handed over: some 150 ns for each of the two requests, and one system call for a batch of
/// them, with 20 ns for each pipe. A request that waits: a system call to watch its file, unless the other end is here,
/// too, and one thread both submits and waits. The pool's threads. A file keeps a few hundred bytes for good, by its
/// number, and the allocation of the last `Arc<File>` that it had: `Arc::get_mut` fails meanwhile. A file of its own
/// for each request, or a descriptor that somebody else keeps open, costs a call more each time.
///
/// # When not to use it
///
/// For files on disks alone, where [`Threads`](super::super::Threads) is the same. For sockets by the thousand that are
/// rarely ready `Uring` makes fewer system calls.
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Context, Request};
/// use ioctx::backend::Nonblocking;
/// use std::os::fd::OwnedFd;
///
/// let (reader, writer) = std::io::pipe()?;
/// let context = Context::new(8, Nonblocking::new()?)?;
/// let read = context.submit(Request::read(OwnedFd::from(reader), vec![0; 5], 0))?;
/// // Parked until this is done, and then carried out by the same call.
/// context.submit(Request::write(OwnedFd::from(writer), b"hello".to_vec(), 0))?;
/// let mut events = Vec::new();
/// context.get_events(2, 2, None, &mut events)?;
/// assert!(events.iter().any(|event| event.id == read && event.result.as_ref().unwrap() == &5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: the retries of the kernel's AIO of 2004 (`aio_run_iocb`, `kick_iocb`), and the patches that had submitters
/// and readers run them.
pub struct Nonblocking {
    list: RunList<Retry>,
    hub: Arc<Hub>,
    table: Table,
    /// Of pipes.
    ends: Mutex<HashMap<Inode, Ends>>,
    /// Looks for tasks.
    looks: AtomicU32,
    hands_over: bool,
}

impl Nonblocking {
    /// As [`Builder::new`] has it.
    ///
    /// # Errors
    ///
    /// Those of `epoll_create` and `eventfd`: no descriptor is left, or no memory.
    pub fn new() -> io::Result<Self> {
        Self::with(Builder::new())
    }

    /// With tasks run as told. Without help by submitters and readers, and without a worker, nothing is done that has
    /// waited.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::{backend::Nonblocking, runlist::Builder};
    /// use std::time::Duration;
    /// // Submitters carry out at most one file's requests of others.
    /// let backend = Nonblocking::with(Builder::new().help_on_submit(1))?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn with(builder: Builder) -> io::Result<Self> {
        Ok(Self {
            list: builder.build(),
            hub: Arc::new(Hub::new()?),
            table: Table::new(),
            ends: Mutex::new(HashMap::new()),
            looks: AtomicU32::new(0),
            hands_over: true,
        })
    }

    /// Whether data may go from a write to a read that waits for it without the pipe between them, which is the
    /// default: see [above](Self#data-that-is-handed-over). If not, every byte goes through its pipe, by two system
    /// calls.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::backend::Nonblocking;
    /// let backend = Nonblocking::new()?.hand_over(false);
    /// # std::io::Result::Ok(())
    /// ```
    #[must_use]
    pub fn hand_over(mut self, may: bool) -> Self {
        self.hands_over = may;
        self
    }

    /// What is known of a file by its number. `None`: it is a number as no system gives.
    fn seat(&self, file: &FileRef) -> Option<&Arc<Seat>> {
        let number = file.as_fd().as_raw_fd();
        self.table.seat_or(number, || {
            let place = Arc::new(Place::new(number, Arc::clone(&self.hub)));
            Seat { task: self.list.task(Retry::new(Arc::clone(&place))), place }
        })
    }

    /// Makes the two ends of a pipe known to each other.
    fn introduce(&self, seat: &Arc<Seat>, direction: Direction, inode: Inode) {
        let mut all = self.ends.lock();
        // What this number was before it is no more.
        all.retain(|_, ends| {
            ends.iter_mut().for_each(|end| _ = end.take_if(|end| Arc::ptr_eq(end, seat)));
            ends.iter().any(Option::is_some)
        });
        let ends = all.entry(inode).or_default();
        ends[direction as usize] = Some(Arc::clone(seat));
        let both = ends.clone();
        drop(all);
        if let [Some(input), Some(output)] = both {
            input.place.meet(Some(Arc::clone(&output)));
            output.place.meet(Some(input));
        }
    }

    /// Has it tried, parked, or left to the pool.
    fn submit_to(&self, mut work: Completion, direction: Direction) -> Submitted {
        let mut learnt = false;
        while let Some(seat) = file(work.request()).and_then(|file| self.seat(file)) {
            match seat.place.submit(work, direction, &seat.task, learnt, self.hands_over) {
                Tried::Done(finished) => {
                    self.hub.has_moved();
                    return Submitted::Done(finished);
                }
                Tried::Waits => return Submitted::Queued,
                Tried::Threads(left) => {
                    work = left;
                    break;
                }
                Tried::Unknown(unknown) => {
                    work = unknown;
                    let pipe = file(work.request()).and_then(|file| seat.place.learn(file));
                    if let Some(inode) = pipe {
                        self.introduce(seat, direction, inode);
                    }
                    learnt = true;
                }
            }
        }
        self.submit_to_pool(work)
    }

    /// Runs what was kicked, for one who is about to sleep; returns whether there was anything.
    fn help(&self) -> bool {
        !self.list.is_empty() && self.list.help_on_reap().ran() > 0
    }

    /// What submitters have left to whoever looks next, who may be about to sleep.
    fn do_what_is_left(&self) {
        self.hub.publish(&mut drop);
        self.hub.arm(&self.table);
    }

    fn submit_to_pool(&self, work: Completion) -> Submitted {
        match self.hub.pool() {
            Some(pool) => pool.submit(work),
            None => Submitted::Done(work.finish(Err(Errno::OPNOTSUPP.into()))),
        }
    }

    /// Has a poll looked at or parked.
    fn submit_poll(&self, mut work: Completion, interest: Readiness) -> Submitted {
        if let Some(result) = try_cached(work.request_mut()) {
            self.hub.has_moved();
            return Submitted::Done(work.finish(result));
        }
        let Some(seat) = file(work.request()).and_then(|file| self.seat(file)) else {
            return self.submit_to_pool(work);
        };
        if let Some(file) = file(work.request())
            && !seat.place.knows(file)
        {
            seat.place.learn(file);
        }
        seat.place.submit_poll(work, interest, &seat.task);
        Submitted::Queued
    }
}

impl Backend for Nonblocking {
    fn submit(&self, work: Completion) -> Submitted {
        match &work.request().op {
            Op::Nop => Submitted::Done(work.finish(Ok(0))),
            Op::Read { .. } | Op::ReadV { .. } => self.submit_to(work, Direction::In),
            Op::Write { .. } | Op::WriteDsync { .. } | Op::WriteV { .. } => {
                self.submit_to(work, Direction::Out)
            }
            Op::Poll { interest, .. } => {
                let interest = *interest;
                self.submit_poll(work, interest)
            }
            Op::Fsync { .. } | Op::Fdatasync { .. } | Op::Custom(_) => self.submit_to_pool(work),
        }
    }

    fn flush(&self) {
        self.hub.flush_pool();
        self.hub.hand_over(&self.table);
        self.list.help_on_submit();
        // Others may be asleep.
        if !self.hub.watch.is_alone() {
            self.hub.arm(&self.table);
        }
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        self.hub.flush_pool();
        self.hub.watch.drives();
        self.hub.publish(done);
        // Relaxed: nothing follows from it.
        let seldom = self.looks.fetch_add(1, Relaxed).is_multiple_of(SELDOM);
        let helped = self.help();
        // What has completed is read first.
        if seldom || !(self.hub.take_moved() || helped) {
            self.hub.arm(&self.table);
            self.hub.look(&self.table);
            self.help();
            if !self.hub.watch.is_alone() {
                // What the system has told is told once: those who watch must not miss what this was not about.
                self.hub.arm(&self.table);
            }
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        if self.hub.watch.is_watched() {
            self.do_what_is_left();
        }
        Some(self.hub.descriptor())
    }

    fn prepare_sleep(&self) -> Option<BorrowedFd<'_>> {
        self.hub.watch.sleeps();
        self.do_what_is_left();
        Some(self.hub.descriptor())
    }

    fn cancel(&self, id: RequestId) -> bool {
        self.table.all().any(|seat| seat.place.ask(id))
    }
}

impl Drop for Nonblocking {
    /// Files know their pipes' other ends, and so each other.
    fn drop(&mut self) {
        self.table.all().for_each(|seat| seat.place.meet(None));
    }
}

impl fmt::Debug for Nonblocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nonblocking")
            .field("list", &self.list)
            .field("files", &self.table.all().count())
            .field("pool", &self.hub.made_pool())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::Nonblocking;
    use crate::aio::{Context, Request};
    use std::fs::File;
    use std::os::fd::OwnedFd;

    #[test]
    fn pipes_that_are_no_more_are_forgotten() {
        const PIPES: usize = 300;
        let context = Context::new(8, Nonblocking::new().unwrap()).unwrap();
        for _ in 0..PIPES {
            let (reader, writer) = std::io::pipe().unwrap();
            let file = |end: OwnedFd| File::from(end);
            context.submit(Request::write(file(writer.into()), vec![1], 0)).unwrap();
            context.submit(Request::read(file(reader.into()), vec![0], 0)).unwrap();
            // With the events the files go, so that numbers come again.
            context.get_events(2, 2, None, &mut Vec::new()).unwrap();
        }
        let known = context.backend().ends.lock().len();
        assert!(known < PIPES / 2, "{known} pipes are known");
    }
}
