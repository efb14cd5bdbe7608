//! One `io_uring` for all, shared behind a mutex: requests that do nothing.

use super::{CAPACITY, Context, READ};
use io_uring::{IoUring, opcode};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::*};

/// An `io_uring` that any thread submits to, and one reaps.
pub struct SharedRing {
    ring: IoUring,
    /// How many were submitted. Its mutex is for whoever uses the submission queue.
    submitted: Mutex<u64>,
    /// How many were reaped: the difference is what must fit into the completion queue.
    reaped: AtomicU64,
    /// For whoever uses the completion queue.
    completions: Mutex<()>,
}

const POISONED: &str = "nobody panics while holding the mutex";

impl std::fmt::Debug for SharedRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SharedRing").finish_non_exhaustive()
    }
}

impl Context for SharedRing {
    type Submitter = ();
    type Reaper = ();

    fn open() -> io::Result<Self> {
        Ok(Self {
            ring: IoUring::builder().setup_cqsize(CAPACITY).build(READ as u32)?,
            submitted: Mutex::new(0),
            reaped: AtomicU64::new(0),
            completions: Mutex::new(()),
        })
    }

    #[inline]
    fn submit(&self, (): &mut (), first: u64, count: usize) -> usize {
        let mut submitted = self.submitted.lock().expect(POISONED);
        let unread = *submitted - self.reaped.load(Acquire);
        let count = count.min((u64::from(CAPACITY) - unread) as usize);
        if count == 0 {
            return 0;
        }
        {
            // SAFETY: the mutex keeps every other user of the submission queue out, until the queue is
            // dropped.
            let mut queue = unsafe { self.ring.submission_shared() };
            for number in (first..).take(count) {
                // SAFETY: it refers to nothing.
                let pushed = unsafe { queue.push(&opcode::Nop::new().build().user_data(number)) };
                pushed.expect("the queue was empty, and is longer than a batch");
            }
        }
        // Under the mutex, too: the next submitter must find the queue empty.
        let accepted = self.ring.submit().expect("there is room for every completion");
        assert_eq!(accepted, count, "requests that do nothing are accepted");
        *submitted += count as u64;
        count
    }

    #[inline]
    fn reap(&self, (): &mut (), min: usize, mut each: impl FnMut(u64)) -> usize {
        let mut read = 0;
        loop {
            {
                let _mine = self.completions.lock().expect(POISONED);
                // SAFETY: the mutex keeps every other user of the completion queue out, until the queue is
                // dropped.
                let queue = unsafe { self.ring.completion_shared() };
                for event in queue.take(READ - read) {
                    assert!(event.result() == 0, "nothing cannot fail");
                    each(event.user_data());
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
}

impl SharedRing {
    /// Waits in the kernel until `count` completions can be read.
    fn wait(&self, count: u32) {
        /// `IORING_ENTER_GETEVENTS`.
        const GET_EVENTS: u32 = 1;
        // SAFETY: nothing is submitted, and no argument is passed by pointer.
        let waited = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, count, GET_EVENTS, None) };
        waited.expect("nobody interrupts");
    }
}
