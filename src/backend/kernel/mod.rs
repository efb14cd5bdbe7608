//! [`Kernel`]: direct I/O by the kernel's own AIO, reaped without system calls.

mod error;
mod flight;
mod queues;
mod reaper;
mod sys;
mod way;

pub use error::KernelError;

use super::Threads;
use super::now::{Now, try_now};
use crate::aio::{Backend, Completion, Finished, MAX_CAPACITY, RequestId, Submitted};
use crate::credits::Tags;
use crate::percpu::CachePadded;
use crate::ring::Event;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::process::{count_forks, forks};
use crate::sync::{Mutex, OnceLock};
use flight::{Cell, Ended, Step};
use queues::{BATCH, Queues};
use reaper::Reaper;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{fmt, io, mem, process, ptr};
use sys::Aio;
use way::Way;

/// How many completions are taken out of the ring at a time.
const CHUNK: usize = 64;

/// Carries direct I/O, flushes and polls out by the kernel's own AIO (`io_submit`), and reads the completions where the
/// kernel writes them, without a system call. Linux 4.18 and later for all of it.
///
/// Any thread submits. Requests are held back, a queue for each CPU, and handed to the kernel at the end of a batch,
/// when there are 128, or by whoever waits for events. There is no thread behind them: whoever is in
/// [`get_events`](crate::Context::get_events), or destroys, harvests, and sleeps until there is something. So an event
/// is there only once somebody looks for it; one who watches descriptors watches [this one](Backend::descriptor), and
/// calls `get_events`. It stays readable until a call has found nothing. For futures that others execute there is
/// [`Driver`](crate::aio::Driver).
///
/// The kernel's AIO waits in the system call wherever an operation is not asynchronous. What goes where, therefore:
///
/// | request | carried out |
/// |---|---|
/// | read, write, of a file opened with `O_DIRECT`; write of any other file on a disk | by the kernel; a buffered write is copied into the page cache meanwhile, as by `write` |
/// | read of a file on a disk, not direct | by its submitter if it is cached, and on the pool if it is not, see [`inline_cached`](Self::inline_cached) |
/// | read, write, of anything else: pipe, socket, terminal | by its submitter if it does not wait, otherwise by who harvests when the kernel says that it would not; on the pool if the file cannot be asked not to wait, as pipes before Linux 6.4 |
/// | `fsync`, `fdatasync` | by a worker of the kernel's |
/// | poll | by its submitter if it is ready, otherwise by the kernel |
/// | custom, and whatever the kernel refuses: an operation that it or the file system does not know, a terminal's poll | on the pool |
///
/// The pool is one of [`Threads`], made when it is first needed. What it refuses, it refuses with the right error.
///
/// What waits for its turn can be [cancelled](crate::Context::cancel), and what waits for a pipe or its like to be
/// ready; what is with the disk cannot, nor what runs on the pool. Destroying a context cancels all that can be.
///
/// # Progress
///
/// Submitting takes a lock of its CPU's and one of its request's, harvesting the ring's, each for some instructions.
/// Nobody waits for a thread that lost its CPU who finds another queue, or who can leave the ring to its holder. The
/// system call is as the kernel has it: it waits for memory, for room in the device's queue, and for what the table
/// says.
///
/// # One context of the kernel's
///
/// A backend has one, and not one for each CPU: their sizes all count against `fs.aio-max-nr`, 65 536 for the whole
/// system by default, and each would need room for everything. The kernel counts requests per CPU by itself; what is
/// shared is its ring, which completions of different CPUs write one after the other: two threads that read from the
/// page cache all the time take a tenth longer than with one each, and those that wait for a disk do not notice.
///
/// # Costs
///
/// A descriptor, 64 bytes in the kernel for each of `capacity`, and 128 here. A request is some 400 ns and a system call,
/// of which a batch shares one, and 500 ns more for a file that is not shared, which has to be asked what kind it is. A
/// completion signals a descriptor, some 60 ns, since nobody can tell the kernel afterwards that somebody sleeps; a
/// harvest that finds nothing reads that, one system call for all. Each thread that sleeps in `get_events` is woken by each completion,
/// even if it waits for many, and makes a descriptor for its sleep. Cancelling looks through the whole capacity.
/// Dropping waits for a grace period of the kernel's, milliseconds.
///
/// # When not to use it
///
/// For anything but direct I/O [`Threads`] does the same, and where `io_uring` is allowed that does more. It is for
/// systems without, and to meet in user space what was written for `io_submit`.
///
/// After a fork the child must not submit: the kernel's context is its parent's, and its requests would go to a pool.
/// It may drop what has no requests in flight.
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Backend, Context, Request};
/// use ioctx::backend::{Kernel, Threads};
///
/// let backend: Box<dyn Backend> = match Kernel::new(64) {
///     Ok(kernel) => Box::new(kernel),
///     Err(why) => {
///         eprintln!("{why}");
///         Box::new(Threads::new(4)?)
///     }
/// };
/// let context = Context::new(64, backend)?;
/// context.submit(Request::write(tempfile::tempfile()?, b"hello".to_vec(), 0))?;
/// let mut events = Vec::new();
/// context.get_events(1, 64, None, &mut events)?;
/// assert_eq!(events[0].result.as_ref().unwrap(), &5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `io_submit(2)`, `fs/aio.c`; reading its ring in place, QEMU and fio.
pub struct Kernel {
    /// Who made it: children of the process have no such context.
    process: u32,
    /// The same, for those who cannot wait for a system call to say so.
    forks: u32,
    /// Which cell, and how many.
    tags: Tags,
    cells: Box<[CachePadded<Cell>]>,
    queues: Queues,
    /// Requests whose event, or whose signal, is to come or not yet taken. Written once for each batch.
    due: CachePadded<AtomicU64>,
    /// Locked for some instructions and, if there were events, a system call that does not wait.
    reaper: CachePadded<Mutex<Reaper>>,
    /// The kernel adds one for each completion.
    signals: OwnedFd,
    inline_cached: bool,
    /// Outlives the reaper, by the order of the fields.
    aio: Aio,
    /// For what the kernel does not carry out, or not asynchronously. `None` if it could not be made.
    pool: OnceLock<Option<Threads>>,
}

impl Kernel {
    /// With room for so many requests in flight: more are refused with `EAGAIN`. The capacity of the context is always
    /// enough. That many are taken out of `fs.aio-max-nr`, and given back when this is dropped.
    ///
    /// # Errors
    ///
    /// [`KernelError`]: why there is none, and what to do.
    pub fn new(capacity: u32) -> Result<Self, KernelError> {
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        let aio = Aio::new(capacity).map_err(|error| KernelError::of_setup(capacity, error))?;
        let signals = reaper::signals().map_err(io::Error::from)?;
        count_forks();
        // SAFETY: 1. it is dropped first. 2. nobody has the context but us, and each reads with the reaper in hand.
        let reaper = unsafe { Reaper::new(&aio) };
        Ok(Self {
            process: process::id(),
            forks: forks(),
            tags: Tags::new(capacity),
            cells: (0..capacity).map(|_| CachePadded::default()).collect(),
            queues: Queues::new(),
            due: CachePadded::new(AtomicU64::new(0)),
            reaper: CachePadded::new(Mutex::new(reaper)),
            signals,
            inline_cached: true,
            aio,
            pool: OnceLock::new(),
        })
    }

    /// Whether submitters do, by a system call of their own, reads that find their data in the page cache, polls of
    /// what is ready, and what a pipe does without waiting; and leave reads whose data is not cached to the pool. On by
    /// default. Without it reads go to the kernel, which does those that are not direct in the system call that hands
    /// them over, cached or not: cheaper if all are, and otherwise the submitter waits for the disk.
    pub fn inline_cached(mut self, inline: bool) -> Self {
        self.inline_cached = inline;
        self
    }

    /// Whether completions are read in place, from the ring that the kernel has mapped, or by `io_getevents`. On by
    /// default; without effect where the ring is not one that is known.
    pub fn reap_in_user_space(self, in_place: bool) -> Self {
        if !in_place {
            self.reaper.lock().use_system_calls();
        }
        self
    }

    /// Puts a request into a cell, and returns its tag. Otherwise there is no room, or its context is being destroyed.
    fn fill(&self, work: Completion, step: Step) -> Result<u32, Submitted> {
        let Ok(tag) = self.tags.take_raw() else {
            return Err(Submitted::Refused(work, Errno::AGAIN.into()));
        };
        // SAFETY: 1. just taken; put when it has left its cell.
        let filled = unsafe { self.cells[tag as usize].fill(work, step, tag, self.signals.as_fd()) };
        filled.map(|()| tag).map_err(|work| {
            self.tags.put_raw(tag);
            Submitted::Done(work.finish(Err(Errno::CANCELED.into())))
        })
    }

    /// Has the kernel take these, which are nobody else's to hand over.
    fn enter(&self, tags: &[u32]) {
        let mut blocks = [ptr::null_mut(); BATCH];
        let mut handed = [0; BATCH];
        let mut n = 0;
        // Completed when all others are with the kernel: what is woken may panic.
        let mut over = Vec::new();
        for tag in tags {
            let cell = &self.cells[*tag as usize];
            match cell.hand_over() {
                Ok(()) => {
                    (blocks[n], handed[n]) = (cell.block(), *tag);
                    n += 1;
                }
                Err(cancelled) => {
                    self.tags.put_raw(*tag);
                    over.extend(cancelled);
                }
            }
        }
        // Relaxed: who finds nothing due for want of this sleeps until there is a signal, which comes after the system
        // call below, and looks again.
        self.due.fetch_add(n as u64, Relaxed);
        let mut taken = 0;
        while taken < n {
            // SAFETY: 1. the cells stay, and with them the blocks. 2. the requests are in their cells until somebody
            // has their events.
            match unsafe { self.aio.submit(&blocks[taken..n]) } {
                Ok(some) if some > 0 => taken += some,
                // The first was not begun: the kernel does not know the operation, or not of this file, or has no
                // memory for the moment.
                _ => {
                    // Relaxed: as above; none of these events comes.
                    self.due.fetch_sub(1, Relaxed);
                    over.extend(self.cells[handed[taken] as usize].refused());
                    self.tags.put_raw(handed[taken]);
                    taken += 1;
                }
            }
        }
        handed[..n].iter().for_each(|tag| self.cells[*tag as usize].see_asked(&self.aio));
        drop(self.go_on(over));
    }

    /// Does what is left to be done of requests, or has it done; returns what is finished.
    fn go_on(&self, ended: Vec<Ended>) -> Vec<Finished> {
        ended.into_iter().filter_map(|ended| self.go_on_with(ended)).collect()
    }

    fn go_on_with(&self, ended: Ended) -> Option<Finished> {
        let submitted = match ended {
            Ended::Done(work, result) => Submitted::Done(work.finish(result)),
            Ended::Left(work) => self.submit_to_pool(work),
            Ended::Ready(mut work, asked) => match try_now(work.request_mut(), false) {
                Now::Done(result) => Submitted::Done(work.finish(result)),
                Now::Unknown => self.submit_to_pool(work),
                Now::Waits if asked => Submitted::Done(work.finish(Err(Errno::CANCELED.into()))),
                // Somebody else was quicker.
                Now::Waits => match self.fill(work, Step::Wait) {
                    Ok(tag) => {
                        self.enter(&[tag]);
                        Submitted::Queued
                    }
                    Err(submitted) => submitted,
                },
            },
        };
        match submitted {
            Submitted::Done(finished) => Some(finished),
            Submitted::Queued => None,
            // Others have taken its place meanwhile, of a context with more requests than were asked for here.
            Submitted::Refused(work, _) => Some(work.finish(Err(Errno::CANCELED.into()))),
        }
    }

    fn submit_to_pool(&self, work: Completion) -> Submitted {
        match self.pool.get_or_init(|| Threads::sized().ok()) {
            Some(pool) => pool.submit(work),
            None => Submitted::Done(work.finish(Err(Errno::OPNOTSUPP.into()))),
        }
    }

    /// What was left to the pool is not held back any longer.
    fn flush_pool(&self) {
        if let Some(Some(pool)) = self.pool.get() {
            pool.flush();
        }
    }

    /// Takes events out of the ring; returns how many. None if somebody else is about to.
    fn reap(&self, events: &mut [Event; CHUNK]) -> usize {
        let Some(mut reaper) = self.reaper.try_lock() else { return 0 };
        let (n, over) = reaper.take(&self.aio, &self.signals, events);
        // Relaxed: whoever still finds them due looks in vain.
        self.due.fetch_sub(over, Relaxed);
        n
    }

    /// Takes what the events tell of out of its cells.
    fn settle(&self, events: &[Event]) -> Vec<Ended> {
        let mut tags = [0; CHUNK];
        let mut ended = Vec::with_capacity(events.len());
        for event in events {
            let cell = usize::try_from(event.data).ok().and_then(|index| self.cells.get(index));
            if let Some(end) = cell.and_then(|cell| cell.complete(event)) {
                tags[ended.len()] = event.data as u32;
                ended.push(end);
            }
        }
        self.tags.put_all_raw(&tags[..ended.len()]);
        ended
    }

    /// Asks for the early end of what is `wanted`, and has the kernel begin what is held back. Returns how much is
    /// wanted.
    fn cancel_if(&self, wanted: impl Fn(&Completion) -> bool) -> usize {
        let asked = self.cells.iter().filter(|cell| cell.cancel(&self.aio, &wanted).is_some()).count();
        self.queues.flush_all(|tags| self.enter(tags));
        self.flush_pool();
        asked
    }
}

impl Backend for Kernel {
    fn submit(&self, mut work: Completion) -> Submitted {
        match Way::of(work.request_mut(), self.inline_cached) {
            Way::Done(result) => Submitted::Done(work.finish(result)),
            Way::Kernel(step) => match self.fill(work, step) {
                Ok(tag) => {
                    self.queues.hold_back(tag, |tags| self.enter(tags));
                    Submitted::Queued
                }
                Err(submitted) => submitted,
            },
            Way::Pool => self.submit_to_pool(work),
        }
    }

    fn flush(&self) {
        self.queues.flush(|tags| self.enter(tags));
        self.flush_pool();
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        let mut found = false;
        if forks() != self.forks {
            // A child of the process shares ring and signals with its parent, whose they are.
            return;
        }
        // Relaxed: as in `enter`.
        while self.due.load(Relaxed) > 0 {
            let mut events = [Event::default(); CHUNK];
            let n = self.reap(&mut events);
            if n > 0 {
                found = true;
                // If one panics the others are dropped, which completes them as well.
                self.go_on(self.settle(&events[..n])).into_iter().for_each(&mut *done);
            }
            if n < CHUNK {
                break;
            }
        }
        if !found {
            // Before somebody sleeps: a batch may be waiting for him.
            self.queues.try_flush_all(|tags| self.enter(tags));
        }
        self.flush_pool();
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.signals.as_fd())
    }

    fn cancel(&self, id: RequestId) -> bool {
        self.cells.iter().find_map(|cell| cell.cancel(&self.aio, |work| work.id() == id)) == Some(true)
    }

    fn cancel_all(&self) {
        self.cancel_if(Completion::is_dying);
    }
}

impl Drop for Kernel {
    /// Cancels and waits for what is in flight: the kernel has its buffers. A context has nothing in flight by then.
    fn drop(&mut self) {
        if process::id() != self.process {
            // A child of the process has neither the kernel's context nor the pool's threads.
            mem::forget(self.pool.take());
            return;
        }
        while self.cancel_if(|_| true) > 0 {
            let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            // Whatever it says, there may be something.
            let _ = poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], Some(&soon));
            self.poll(&mut drop);
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("capacity", &self.tags.total())
            .field("inline_cached", &self.inline_cached)
            .field("reads_in_place", &self.reaper.try_lock().map(|reaper| reaper.reads_in_place()))
            .field("pool", &self.pool.get())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aio::Request;
    use crate::{Context, Event as Outcome};

    #[test]
    fn events_that_nobody_waits_for_are_passed_over() {
        let Ok(kernel) = Kernel::new(4) else { return println!("SKIPPED: no AIO") };
        let strange = [u64::MAX, 1 << 32, 4, 3, 0].map(|data| Event { data, obj: 0, res: 8, res2: 0 });
        assert!(kernel.settle(&strange).is_empty());
        // Held back, and so not the kernel's to complete.
        let context = Context::new(4, kernel).unwrap();
        let file = tempfile::tempfile().unwrap();
        let mut batch = vec![Request::write(file, vec![0; 8], 0)];
        context
            .submit_batch_with(&mut batch, |_| {
                let all = (0..4).map(|data| Event { data, obj: 0, res: 3, res2: 0 }).collect::<Vec<_>>();
                assert!(context.backend().settle(&all).is_empty());
            })
            .unwrap();
        let mut events: Vec<Outcome> = Vec::new();
        context.get_events(1, 1, None, &mut events).unwrap();
        assert_eq!(events[0].result.as_ref().unwrap(), &8);
        // Somebody else's signals change nothing of what is due.
        let file = tempfile::tempfile().unwrap();
        let id = context.submit(Request::write(file, vec![0; 4], 0)).unwrap();
        rustix::io::write(context.backend().descriptor().unwrap(), &1000_u64.to_ne_bytes()).unwrap();
        context.get_events(1, 1, None, &mut events).unwrap();
        assert_eq!(events[1].id, id);
        // Nor does what the kernel refuses.
        let reader = std::os::fd::OwnedFd::from(std::io::pipe().unwrap().0);
        context.submit(Request::fsync(reader)).unwrap();
        context.get_events(1, 1, None, &mut events).unwrap();
        assert_eq!(events[2].result.as_ref().unwrap_err().raw_os_error(), Some(libc::EINVAL));
        // Signals are left until there is nothing else.
        context.get_events(0, 1, None, &mut events).unwrap();
        assert_eq!(context.backend().due.load(Relaxed), 0);
        assert_eq!(context.backend().tags.available(), 4);
    }
}
