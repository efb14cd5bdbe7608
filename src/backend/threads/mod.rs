//! [`Threads`]: real I/O on a pool of threads.

pub(super) mod sys;

use crate::aio::{Backend, Cancellable, Completion, Submitted};
use crate::sync::thread::{self, Builder, JoinHandle};
use crate::sync::{Arc, Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{io, mem};

/// Carries out every operation, on any file, with a fixed number of threads.
///
/// On Linux a read whose data is in the page cache is done by its submitter, without the pool
/// (`RWF_NOWAIT`), and so is, on Unix, a poll of what is ready; everything else is queued. Submitting blocks
/// on the queue's mutex, for a few instructions. Requests are taken in order, but complete in any. One
/// thread is busy with one request until the system call or the custom operation returns: a read or a poll
/// of an empty pipe holds its thread until somebody writes. A custom operation that panics ends with an
/// error, and its thread goes on.
///
/// A request that no thread has begun can be cancelled, one that runs cannot.
///
/// Interrupted calls are repeated. A short transfer is reported as it is.
///
/// # Costs
///
/// One thread each. A queued request costs a wake-up and two moves between CPUs, 10 µs and more.
#[derive(Debug)]
pub struct Threads {
    queue: Arc<Queue>,
    workers: Vec<JoinHandle<()>>,
    inline_cached: bool,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// With those that were cancelled since it last grew.
    waiting: VecDeque<Cancellable>,
    /// Workers asleep that nobody has notified yet.
    idle: usize,
    closed: bool,
}

impl Threads {
    /// A pool of `threads` (at least 1).
    ///
    /// # Errors
    ///
    /// What the system says if it gives no more threads; those already started are joined.
    pub fn new(threads: usize) -> io::Result<Self> {
        let mut pool = Self { queue: Arc::default(), workers: Vec::new(), inline_cached: true };
        for i in 0..threads.max(1) {
            let queue = Arc::clone(&pool.queue);
            let worker = Builder::new().name(format!("ioctx-{i}")).spawn(move || queue.work())?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// A pool of four threads per available CPU: enough to keep a disk busy while most of them wait for it.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn sized() -> io::Result<Self> {
        Self::new(4 * num_cpus::get())
    }

    /// Whether submitters do reads that find their data in the page cache, and polls of what is ready. On by
    /// default.
    pub fn inline_cached(mut self, inline: bool) -> Self {
        self.inline_cached = inline;
        self
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.workers.len()
    }
}

impl Backend for Threads {
    fn submit(&self, mut work: Completion) -> Submitted {
        if self.inline_cached
            && let Some(result) = sys::try_cached(work.request_mut())
        {
            return Submitted::Done(work.finish(result));
        }
        self.queue.push(work.cancellable());
        Submitted::Queued
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queue.state.lock().closed = true;
        self.queue.filled.notify_all();
        for worker in self.workers.drain(..) {
            // One of them may be dropping us: a waker that it called was the last to use the context. It ends when it
            // is back.
            if worker.thread().id() != thread::current().id() {
                // A worker does not panic: `Custom` stops what panics in its users' code. If one did,
                // there is nobody to tell.
                let _ = worker.join();
            }
        }
    }
}

impl State {
    /// Before the queue grows, drops what was cancelled, so that it is about twice as long as what ever waited at most.
    fn make_room(&mut self) {
        if self.waiting.len() == self.waiting.capacity() {
            self.waiting.retain(|waiting| !waiting.is_cancelled());
            self.waiting.reserve(self.waiting.len() + 1);
        }
    }
}

impl Queue {
    fn push(&self, work: Cancellable) {
        let mut state = self.state.lock();
        state.make_room();
        state.waiting.push_back(work);
        if state.idle > 0 {
            // Counted down here and not by the sleeper, so that the next push wakes another.
            state.idle -= 1;
            drop(state);
            self.filled.notify_one();
        }
    }

    /// A worker's life: until closed, and then until nothing waits.
    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(waiting) = state.waiting.pop_front() {
                drop(state);
                // Otherwise it was cancelled.
                if let Some(mut work) = waiting.claim() {
                    let result = sys::execute(work.request_mut());
                    // Wakers of others may panic, and have told of it then.
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work.complete(result))) {
                        // Its payload may panic in turn.
                        mem::forget(panic);
                    }
                }
                state = self.state.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                state = self.filled.wait_until(state, None);
            }
        }
    }
}
