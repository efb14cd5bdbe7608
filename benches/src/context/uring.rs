//! `io_uring`, and requests that do nothing: one for all, behind a mutex, or one for each thread.

use super::{CAPACITY, Context, Own, READ};
use io_uring::{IoUring, cqueue, opcode, squeue};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::{fmt, io};

/// An `io_uring` that any thread submits to, and one reaps.
#[derive(Debug)]
pub struct SharedRing(Guarded);

impl Context for SharedRing {
    type Submitter = ();
    type Reaper = ();

    fn open() -> io::Result<Self> {
        Guarded::open().map(Self)
    }

    #[inline]
    fn submit(&self, (): &mut (), first: u64, count: usize) -> usize {
        // SAFETY: 1. they refer to nothing.
        unsafe { self.0.submit((0..count).map(|i| nop(first + i as u64))) }
    }

    #[inline]
    fn reap(&self, (): &mut (), min: usize, mut each: impl FnMut(u64)) -> usize {
        self.0.reap(min, |event| {
            assert!(event.result() == 0, "nothing cannot fail");
            each(event.user_data());
        })
    }
}

/// An `io_uring` of one thread's: nobody else can submit to it or reap from it.
pub struct OwnRing(IoUring);

impl Own for OwnRing {
    fn open() -> io::Result<Self> {
        own_ring().map(Self)
    }

    fn start(&mut self) {
        enable(&self.0);
    }

    #[inline]
    fn submit(&mut self, first: u64, count: usize) {
        // SAFETY: 1. they refer to nothing.
        unsafe { push(&mut self.0.submission(), (0..count).map(|i| nop(first + i as u64))) };
        let accepted = self.0.submit().expect("there is room for every completion");
        assert_eq!(accepted, count, "requests that do nothing are accepted");
    }

    #[inline]
    fn reap(&mut self, min: usize, mut each: impl FnMut(u64)) -> usize {
        let mut read = 0;
        loop {
            for event in self.0.completion().take(READ - read) {
                assert!(event.result() == 0, "nothing cannot fail");
                each(event.user_data());
                read += 1;
            }
            if read >= min {
                return read;
            }
            self.0.submit_and_wait(min - read).expect("nobody interrupts");
        }
    }
}

impl fmt::Debug for OwnRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnRing").finish_non_exhaustive()
    }
}

fn nop(number: u64) -> squeue::Entry {
    opcode::Nop::new().build().user_data(number)
}

/// The cheapest ring there is for one thread: the kernel need not count on others, and leaves completions alone until
/// they are asked for. For the thread that [`enable`]s it.
pub(crate) fn own_ring() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_r_disabled();
    builder.setup_cqsize(CAPACITY).build(READ as u32)
}

/// Makes a ring that nobody has used the calling thread's.
pub(crate) fn enable(ring: &IoUring) {
    ring.submitter().register_enable_rings().expect("it was made to be enabled");
}

/// Puts requests into a submission queue, which has room for them.
///
/// # Safety
///
/// 1. Their files stay open, and their buffers valid and nobody else's, until their events have been reaped.
#[inline]
pub(crate) unsafe fn push(
    queue: &mut squeue::SubmissionQueue<'_>,
    requests: impl Iterator<Item = squeue::Entry>,
) -> usize {
    let mut count = 0;
    for request in requests {
        // SAFETY: by 1.
        unsafe { queue.push(&request) }.expect("the queue was empty, and is longer than a batch");
        count += 1;
    }
    count
}

/// An `io_uring` with a mutex before each of its queues.
pub(super) struct Guarded {
    pub ring: IoUring,
    /// How many were submitted. Its mutex is for whoever uses the submission queue.
    submitted: Mutex<u64>,
    /// How many were reaped: the difference is what must fit into the completion queue.
    reaped: AtomicU64,
    /// For whoever uses the completion queue.
    completions: Mutex<()>,
}

const POISONED: &str = "nobody panics while holding the mutex";

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

impl Guarded {
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            ring: IoUring::builder().setup_cqsize(CAPACITY).build(READ as u32)?,
            submitted: Mutex::new(0),
            reaped: AtomicU64::new(0),
            completions: Mutex::new(()),
        })
    }

    /// Submits requests in one call, and returns how many were accepted: as many as there is room for.
    ///
    /// # Safety
    ///
    /// 1. As of [`push`].
    #[inline]
    pub unsafe fn submit(&self, requests: impl ExactSizeIterator<Item = squeue::Entry>) -> usize {
        let mut submitted = self.submitted.lock().expect(POISONED);
        let unread = *submitted - self.reaped.load(Acquire);
        let count = requests.len().min((u64::from(CAPACITY) - unread) as usize);
        if count == 0 {
            return 0;
        }
        // SAFETY: the mutex keeps every other user of the submission queue out, until the queue is dropped, which is
        // at the end of the statement. 1. is the caller's.
        unsafe { push(&mut self.ring.submission_shared(), requests.take(count)) };
        // Under the mutex, too: the next submitter must find the queue empty.
        let accepted = self.ring.submit().expect("there is room for every completion");
        assert_eq!(accepted, count, "requests that are well-formed are accepted");
        *submitted += count as u64;
        count
    }

    /// Waits until `min` requests have completed, and shows those and up to [`READ`] to `each`. Returns how many.
    #[inline]
    pub fn reap(&self, min: usize, mut each: impl FnMut(cqueue::Entry)) -> usize {
        let mut read = 0;
        loop {
            {
                let _mine = self.completions.lock().expect(POISONED);
                // SAFETY: the mutex keeps every other user of the completion queue out, until the queue is
                // dropped.
                let queue = unsafe { self.ring.completion_shared() };
                for event in queue.take(READ - read) {
                    each(event);
                    read += 1;
                }
            }
            if read >= min {
                break;
            }
            self.wait((min - read) as u32);
        }
        self.reaped.fetch_add(read as u64, Release);
        read
    }

    /// Waits in the kernel until `count` completions can be read.
    fn wait(&self, count: u32) {
        /// `IORING_ENTER_GETEVENTS`.
        const GET_EVENTS: u32 = 1;
        // SAFETY: nothing is submitted, and no argument is passed by pointer.
        let waited = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, count, GET_EVENTS, None) };
        waited.expect("nobody interrupts");
    }
}
