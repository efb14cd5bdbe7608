//! [`Uring`]: every operation in the kernel, by a ring for each CPU.

mod entry;
mod error;
mod flights;
mod registered;
mod ring;
mod rings;

pub use error::UringError;
pub use registered::RegisteredBuffer;

use super::Threads;
use super::threads::sys;
use crate::aio::{Backend, Completion, Finished, Op, RequestId, Submitted};
use crate::backend::held_back::HeldBack;
use crate::sync::time::Instant;
use crate::sync::{Arc, OnceLock, SharedFile};
use crate::wait::Outcome;
use entry::{Known, Segments};
use flights::Flight;
use io_uring::squeue::Entry;
use registered::Registered;
use ring::{NotPushed, Ring};
use rings::Rings;
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::Waker;
use std::{fmt, io};

/// Carries requests out by the kernel's `io_uring`, with a ring for each CPU, made when it is first used there. Linux
/// 5.12 and later.
///
/// Any thread submits: to the ring of the CPU it is on or, if a thread that lost its CPU has that one's lock, to
/// another, so that nobody waits for who does not run. Entries are handed to the kernel at the end of a batch, when
/// there are 128, or by whoever waits for events. There is no thread behind it: whoever is in
/// [`get_events`](crate::Context::get_events), or destroys, harvests the completions of all rings, and sleeps until
/// there are some in any. So an event is there only once somebody looks for it; one who watches descriptors watches
/// [this one](Backend::descriptor), and calls `get_events`. So does an executor of [futures](crate::Context::start),
/// with 0 for `max`: `examples/async_uring.rs` has one. For executors that cannot there is
/// [`Driver`](crate::aio::Driver).
///
/// A no-op is done by its submitter, and so is a read whose data is in the page cache, and a poll of what is ready, see
/// [`inline_cached`](Self::inline_cached). What the kernel does not know, and custom operations, go to a small pool of
/// [`Threads`], made when it is first needed.
///
/// Everything can be [cancelled](crate::Context::cancel) but what is with the device or, on the pool, runs. Destroying
/// a context cancels all that can be. A request whose submitting thread ends before it, which makes the kernel give
/// it up, is begun again by whoever harvests, up to 8 times.
///
/// # Progress
///
/// Submitting and harvesting hold one lock per ring, for some instructions and never during a system call; nobody
/// waits for it who finds another ring, or who can leave it to its holder. The system call itself is as the kernel has
/// it: one thread at a time in each ring, and it may wait for memory. A ring's completions may need the thread that
/// submitted to run for some instructions in the kernel; it is interrupted for that wherever it is, but for
/// uninterruptible sleep.
///
/// # Costs
///
/// A descriptor for each CPU that is used, and one to watch them. Per ring 64 bytes for each of 128 entries, 32 for
/// each of `capacity` and 64 more, and 40 to 80 for each of `capacity`. A request is some 200 ns and a system call, of
/// which a batch shares one; what the file system cannot do without waiting costs a move to a worker of the kernel's
/// and back, as on a pool. A ring that serves several contexts looks for their requests a little longer.
///
/// While one ring alone has requests in flight, one reader sleeps in it until as many have completed as it waits for,
/// up to 64 at a time: one system call, and one switch. Who leaves the looking to it, as a
/// [stream](crate::Context::events) does, has its events when that reader has what it waits for. Other readers, and all
/// where several rings have some or a [future](crate::Context::start) is among them, are woken by each completion, and
/// keep a descriptor for their sleeps. What a thread itself has submitted costs a switch within the kernel for each
/// completion that is not there at once.
///
/// # When not to use it
///
/// Where containers forbid it ([`UringError::Forbidden`]), and where nobody waits in `get_events`.
///
/// After a fork the child must not submit: its rings are its parent's, and are not mapped there.
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Context, Request};
/// use ioctx::backend::{Threads, Uring};
/// use ioctx::aio::Backend;
///
/// let backend: Box<dyn Backend> = match Uring::new(64) {
///     Ok(uring) => Box::new(uring),
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
/// Source: `io_uring(7)`, and the request of its users for one ring that threads share without a lock of their own.
pub struct Uring {
    held_back: HeldBack,
    /// Shared with who is about to wake a reader.
    rings: Arc<Rings>,
    /// Has the descriptors of all rings.
    watched: OwnedFd,
    known: Known,
    registered: Registered,
    capacity: u32,
    cooperative: bool,
    inline_cached: bool,
    /// For what the kernel does not know. `None` if it could not be made.
    pool: OnceLock<Option<Threads>>,
}

impl Uring {
    /// With room for so many requests in flight on each CPU, at most 32 736: more are refused with `EAGAIN`. The
    /// capacity of the context is always enough. The kernel has room for every completion, therefore.
    ///
    /// # Errors
    ///
    /// [`UringError`]: why there is none, and what to do.
    pub fn new(capacity: u32) -> Result<Self, UringError> {
        Self::made(capacity, false)
    }

    /// As [`new`](Self::new), for threads that submit and read by turns. The kernel does not interrupt them for their
    /// completions, but sees to these at the thread's next system call: less work, and several at a time for who waits
    /// for several. If one thread reads what another has submitted, and this one computes meanwhile, it waits for that
    /// thread's next tick of the clock, some milliseconds. Before Linux 5.19 it makes no difference.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn cooperative(capacity: u32) -> Result<Self, UringError> {
        Self::made(capacity, true)
    }

    fn made(capacity: u32, cooperative: bool) -> Result<Self, UringError> {
        let ring = Ring::new(capacity, cooperative)?;
        let known = Known::ask(ring.io())?;
        let watched = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let uring = Self {
            held_back: HeldBack::new(),
            rings: Arc::new(Rings::new()),
            watched,
            known,
            registered: Registered::default(),
            capacity,
            cooperative,
            inline_cached: true,
            pool: OnceLock::new(),
        };
        uring.watch(&ring)?;
        uring.rings.make_home(|| Some(ring));
        Ok(uring)
    }

    /// Whether submitters do reads that find their data in the page cache, and polls of what is ready, by a system call
    /// of their own. On by default; batches of reads that are all cached are cheaper without.
    pub fn inline_cached(mut self, inline: bool) -> Self {
        self.inline_cached = inline;
        self
    }

    /// Has the kernel look up these files once and for all: requests on them, as shared files, need not. They stay open for
    /// as long as this exists.
    ///
    /// Once: a second time is refused with `EBUSY`.
    ///
    /// # Errors
    ///
    /// What the system says, such as `EMFILE` for more than the limit of open files. Everything works as before, then.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::aio::{Context, Request};
    /// use ioctx::backend::Uring;
    /// use std::sync::Arc;
    /// let file = Arc::new(tempfile::tempfile()?);
    /// let Ok(mut backend) = Uring::new(64) else { return Ok(()) };
    /// backend.register_files([file.clone()])?;
    /// backend.register_buffers(16, 4096)?;
    /// let context = Context::new(64, backend)?;
    /// let mut buffer = context.backend().buffer().expect("none is in use");
    /// buffer.fill(7);
    /// context.submit(Request::write(file, buffer, 0))?;
    /// let mut events = Vec::new();
    /// context.get_events(1, 64, None, &mut events)?;
    /// assert_eq!(events[0].result.as_ref().unwrap(), &4096);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn register_files(&mut self, files: impl IntoIterator<Item = SharedFile>) -> io::Result<()> {
        let (rings, files) = (Arc::clone(&self.rings), files.into_iter().collect());
        self.registered.add_files(rings.first(), files)
    }

    /// Makes so many buffers of `len` bytes each, and has the kernel pin them: requests with one of them,
    /// [`buffer`](Self::buffer), need no look-up of its pages. Aligned to pages as far as `len` is. With a registered file
    /// that saves about a seventh of a read of 4 KiB, from the page cache or past it.
    ///
    /// Once: a second time is refused with `EBUSY`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for none, or for more than 1 GiB; `ENOMEM` for more than there is, or than the limit of locked memory
    /// (`ulimit -l`). Everything works as before, then.
    pub fn register_buffers(&mut self, count: u32, len: usize) -> io::Result<()> {
        let rings = Arc::clone(&self.rings);
        self.registered.add_buffers(rings.first(), count, len)
    }

    /// One of the [registered](Self::register_buffers) buffers, with whatever is in it; `None` if all are in use.
    pub fn buffer(&self) -> Option<RegisteredBuffer> {
        self.registered.buffer()
    }

    fn watch(&self, ring: &Ring) -> io::Result<()> {
        let data = epoll::EventData::new_u64(0);
        Ok(epoll::add(&self.watched, ring.descriptor(), data, epoll::EventFlags::IN)?)
    }

    /// Puts a request into a ring, which was begun so often before; returns its place.
    #[inline]
    fn place(&self, mut work: Completion, again: u8) -> Result<usize, NotPlaced> {
        let Some(entry) = self.known.prepare_read(&mut work, &self.registered) else {
            return match self.known.prepare(&mut work, &self.registered) {
                Some((entry, segments)) => self.place_anywhere((work, segments), again, &entry),
                None => Err(NotPlaced::Unknown(work)),
            };
        };
        let mut parts = (work, Segments::default());
        if let Some((place, ring)) = self.rings.here() {
            // SAFETY: 1. just prepared.
            match unsafe { ring.push(parts, again, &entry, false) } {
                Ok(wakes) => return Ok(self.placed(place, wakes)),
                Err((back, _)) => parts = back,
            }
        }
        // A copy: so this one itself need not lie in memory.
        self.place_anywhere(parts, again, &entry.clone())
    }

    /// [`place`](Self::place) of what was prepared.
    #[inline(never)]
    fn place_anywhere(
        &self,
        mut parts: (Completion, Segments),
        again: u8,
        entry: &Entry,
    ) -> Result<usize, NotPlaced> {
        self.rings.make_home(|| {
            // One that does not take what is registered could not carry out what is meant for it.
            let ring = Ring::new(self.capacity, self.cooperative).ok();
            ring.filter(|ring| self.registered.with(ring) && self.watch(ring).is_ok())
        });
        for wait in [false, true] {
            for (place, ring) in self.rings.all() {
                loop {
                    // SAFETY: 1. prepared by our callers.
                    let (back, why) = match unsafe { ring.push(parts, again, entry, wait) } {
                        Ok(wakes) => return Ok(self.placed(place, wakes)),
                        Err(back) => back,
                    };
                    parts = back;
                    match why {
                        NotPushed::Unsent => ring.enter(),
                        NotPushed::Busy | NotPushed::Full => break,
                        NotPushed::Dying => return Err(NotPlaced::Dying(parts.0)),
                    }
                }
            }
        }
        Err(NotPlaced::Full(parts.0))
    }

    #[inline(always)]
    fn placed(&self, place: usize, wakes: bool) -> usize {
        if wakes {
            self.rings.wake_parked();
        }
        place
    }

    /// Begins a request again that lost its thread.
    fn again(&self, flight: Flight, done: &mut dyn FnMut(Finished)) {
        match self.place(flight.work, flight.again) {
            Ok(place) => self.enter(place),
            Err(NotPlaced::Dying(work) | NotPlaced::Full(work) | NotPlaced::Unknown(work)) => {
                done(work.finish(Err(Errno::CANCELED.into())));
            }
        }
    }

    fn enter(&self, place: usize) {
        if let Some(ring) = self.rings.at(place) {
            ring.enter();
        }
    }

    fn pool(&self) -> Option<&Threads> {
        self.pool.get_or_init(|| Threads::new(num_cpus::get()).ok()).as_ref()
    }

    fn flush_pool(&self) {
        if let Some(Some(pool)) = self.pool.get() {
            pool.flush();
        }
    }
}

/// What could not be put into a ring.
enum NotPlaced {
    Dying(Completion),
    Full(Completion),
    /// The kernel does not know the operation.
    Unknown(Completion),
}

impl Backend for Uring {
    fn submit(&self, mut work: Completion) -> Submitted {
        if matches!(work.request().op, Op::Nop) {
            return Submitted::Done(work.finish(Ok(0)));
        }
        if self.inline_cached
            && let Some(result) = sys::try_cached(work.request_mut())
        {
            return Submitted::Done(work.finish(result));
        }
        match self.place(work, 0) {
            Ok(place) => {
                if let Some(place) = self.held_back.hold(place) {
                    self.enter(place);
                }
                Submitted::Queued
            }
            Err(NotPlaced::Dying(work)) => Submitted::Done(work.finish(Err(Errno::CANCELED.into()))),
            Err(NotPlaced::Full(work)) => Submitted::Refused(work, Errno::AGAIN.into()),
            Err(NotPlaced::Unknown(work)) => match self.pool() {
                Some(pool) => pool.submit(work),
                None => Submitted::Done(work.finish(Err(Errno::OPNOTSUPP.into()))),
            },
        }
    }

    fn flush(&self) {
        if let Some(place) = self.held_back.take() {
            self.enter(place);
        }
        self.flush_pool();
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        self.flush_pool();
        for (_, ring) in self.rings.all() {
            loop {
                let mut harvested = ring.harvest();
                for flight in harvested.orphans.drain(..) {
                    self.again(flight, done);
                }
                // If one panics the others are dropped, which publishes them as well.
                harvested.finished.drain(..).for_each(&mut *done);
                if !harvested.more {
                    break;
                }
            }
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.watched.as_fd())
    }

    fn park(
        &self,
        wanted: u32,
        deadline: Option<Instant>,
        announce: &mut dyn FnMut(u32, &Waker) -> bool,
    ) -> Option<Outcome> {
        Rings::park(&self.rings, wanted, deadline, announce)
    }

    fn cancel(&self, id: RequestId) -> bool {
        self.rings.all().any(|(_, ring)| ring.cancel(id.into_raw()))
    }

    fn cancel_all(&self) {
        for (_, ring) in self.rings.all() {
            ring.cancel_if(|flight| flight.work.is_dying());
        }
    }
}

impl Drop for Uring {
    /// Cancels and waits for what is in flight: the kernel has its buffers. A context has nothing in flight by then.
    fn drop(&mut self) {
        while self.rings.all().map(|(_, ring)| ring.cancel_if(|_| true)).sum::<usize>() > 0 {
            let soon = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            // Whatever it says, there may be something.
            let _ = poll(&mut [PollFd::new(&self.watched, PollFlags::IN)], Some(&soon));
            self.poll(&mut drop);
        }
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uring")
            .field("rings", &self.rings.all().count())
            .field("registered", &self.registered)
            .field("capacity", &self.capacity)
            .field("cooperative", &self.cooperative)
            .field("inline_cached", &self.inline_cached)
            .field("pool", &self.pool.get())
            .finish_non_exhaustive()
    }
}
