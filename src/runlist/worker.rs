//! The thread that runs what nobody else has: [`Worker`].

use super::list::Shared;
use super::task::Run;
use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::thread::{self, JoinHandle};
use crate::sync::time::{Instant, expired};
use crate::sync::{Arc, Condvar, Mutex, caught, fence};

/// It will not look.
const NEVER: u32 = 0;
/// It will look in a while: somebody helps, most likely.
const LATER: u32 = 1;
/// It will look soon: somebody waits.
const SOON: u32 = 2;

/// When the worker looks, and for whom.
#[derive(Debug)]
pub(super) struct Worker {
    looked_at: CachePadded<LookedAt>,
    lazy: CachePadded<Mutex<Lazy>>,
    bell: Condvar,
}

/// What a kick into an empty list looks at.
#[derive(Debug)]
struct LookedAt {
    /// `NEVER`, `LATER` or `SOON`; written under the lock.
    armed: AtomicU32,
    /// How many wait for what tasks do.
    waiters: AtomicU32,
}

#[derive(Debug, Default)]
struct Lazy {
    /// When it looks. `None`: `NEVER`.
    due: Option<Instant>,
    /// Whether the thread looks after `due`. Otherwise there is none, or it is leaving.
    alive: bool,
    thread: Option<JoinHandle<()>>,
    closed: bool,
}

impl Worker {
    pub(super) fn new() -> Self {
        let looked_at = LookedAt { armed: AtomicU32::new(NEVER), waiters: AtomicU32::new(0) };
        Self {
            looked_at: CachePadded::new(looked_at),
            lazy: CachePadded::new(Mutex::new(Lazy::default())),
            bell: Condvar::new(),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.lazy.lock().alive
    }

    /// Counts one who waits. It fences, and looks for tasks.
    pub(super) fn join(&self) {
        // Relaxed: ordered by the fence.
        self.looked_at.waiters.fetch_add(1, Relaxed);
    }

    /// Counts one who waits no more.
    pub(super) fn leave(&self) {
        // Relaxed: one too many costs the worker a look.
        self.looked_at.waiters.fetch_sub(1, Relaxed);
    }
}

impl<T: Run> Shared<T> {
    /// Has the worker look at tasks that are in the list: soon if that is said, or somebody waits. The caller has
    /// fenced since.
    #[inline]
    pub(super) fn arm(this: &Arc<Self>, soon: bool) {
        let LookedAt { armed, waiters } = &*this.worker.looked_at;
        // Relaxed, both: ordered by the fence.
        let wanted = if soon || waiters.load(Relaxed) > 0 { SOON } else { LATER };
        if this.options.worker && armed.load(Relaxed) < wanted {
            Self::arm_slow(this, wanted);
        }
    }

    #[cold]
    fn arm_slow(this: &Arc<Self>, wanted: u32) {
        let worker = &this.worker;
        let mut lazy = worker.lazy.lock();
        // Relaxed: written under the lock.
        if lazy.closed || worker.looked_at.armed.load(Relaxed) >= wanted {
            return;
        }
        if !lazy.alive {
            let theirs = Arc::clone(this);
            // The one before is leaving, or has.
            lazy.thread =
                thread::Builder::new().name("ioctx-runlist".into()).spawn(move || theirs.work()).ok();
            if lazy.thread.is_none() {
                // The next kick into an empty list tries again; whoever helps runs this one.
                return;
            }
            lazy.alive = true;
        }
        let delay = if wanted == SOON { this.options.busy } else { this.options.idle };
        // None: past the end of time.
        lazy.due = [lazy.due, Instant::now().checked_add(delay)].into_iter().flatten().min();
        // Relaxed: ordered by the lock against the worker, and for those who kick by their fence.
        worker.looked_at.armed.store(if lazy.due.is_some() { wanted } else { NEVER }, Relaxed);
        drop(lazy);
        worker.bell.notify_one();
    }

    /// The worker's life: until it had nothing to do for a while.
    fn work(&self) {
        let worker = &self.worker;
        let leave = || Instant::now().checked_add(self.options.linger);
        let mut until = leave();
        let mut lazy = worker.lazy.lock();
        while !lazy.closed {
            match lazy.due {
                Some(due) if expired(Some(due)) => {
                    lazy.due = None;
                    // Relaxed: ordered by the fence.
                    worker.looked_at.armed.store(NEVER, Relaxed);
                    drop(lazy);
                    self.run_all();
                    until = leave();
                    lazy = worker.lazy.lock();
                }
                None if expired(until) => break,
                due => lazy = worker.bell.wait_until(lazy, due.or(until)),
            }
        }
        lazy.alive = false;
    }

    /// Runs tasks until there are none.
    fn run_all(&self) {
        // SeqCst: pairs with the fence of a kick. Either it sees that we have to be told, or we see its task.
        fence!("runlist.worker.disarm", SeqCst);
        while !self.queue.is_empty() {
            // Nothing of ours is half-changed while a task runs. If it panics, the system's hook has told of it.
            caught(|| self.pass(usize::MAX));
        }
    }

    /// Ends the worker, and waits until it has, unless that is the caller.
    pub(super) fn dismiss(&self) {
        let mut lazy = self.worker.lazy.lock();
        lazy.closed = true;
        let thread = lazy.thread.take();
        drop(lazy);
        self.worker.bell.notify_one();
        if let Some(thread) = thread
            && thread.thread().id() != thread::current().id()
        {
            // It does not panic: `run_all` stops what panics in tasks. If it did, there is nobody to tell.
            let _ = thread.join();
        }
    }
}
