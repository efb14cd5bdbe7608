//! [`Task`]: what is run, and its state.

use super::list::Shared;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::cell::UnsafeCell;
use crate::sync::{Arc, mo};
use std::fmt;
use std::ptr::null_mut;

/// What a task does when it is run.
///
/// Every `FnMut()` is one.
pub trait Run: Sized + Send + 'static {
    /// Does what there is to do. Never called twice at once for one task, nor for nothing: there was a kick since the
    /// last time began.
    ///
    /// It runs in a thread that had something else to do, so it does not block, and kicks `task`, itself, rather than
    /// do much at once. It may kick and submit; helping within a task runs nothing, so that the stack stays bounded.
    /// If it panics, the panic reaches whoever ran it; the task is as any other afterwards.
    fn run(&mut self, task: &Task<Self>);
}

impl<F: FnMut() + Send + 'static> Run for F {
    fn run(&mut self, _: &Task<Self>) {
        self();
    }
}

/// A task, in one of its [states](super). Clones are the same task.
///
/// It lives for as long as there are clones, or it is in the list; one that has a clone of itself lives until it drops
/// that.
pub struct Task<T: Run>(pub(super) Arc<Node<T>>);

/// Where a task is between two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is to be done.
    Idle,
    /// It is in the list.
    Queued,
    /// It is being run.
    Running,
    /// It is being run, and was kicked meanwhile.
    Kicked,
}

/// The [`RunList`](super::RunList) of the task was dropped; nobody will run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the run list was dropped, so the task will not run; keep the list as long as its tasks are kicked")
    }
}

impl std::error::Error for Closed {}

/// A kick was not answered by a run yet.
const KICKED: u32 = 1;
/// Somebody runs it. Without `KICKED` otherwise: idle; with only `KICKED`: queued.
const RUNNING: u32 = 2;
/// Somebody awaits the run that `KICKED` asks for; never without that.
const AWAITED: u32 = 4;

/// A task in memory.
pub(super) struct Node<T: Run> {
    /// `KICKED`, `RUNNING` and `AWAITED`.
    state: AtomicU32,
    /// The next one in whatever chain this is part of, which owns a reference to it.
    ///
    /// # Safety
    ///
    /// Belongs to whoever set `KICKED` without `RUNNING`, or took `RUNNING` off a task that was kicked; from the push
    /// on, to whoever has the chain; until it is taken out.
    pub(super) next: UnsafeCell<*mut Self>,
    list: Arc<Shared<T>>,
    /// # Safety
    ///
    /// Belongs to whoever has set `RUNNING`.
    work: UnsafeCell<T>,
}

// SAFETY: one thread at a time has the work, which may be sent; links belong to one thread at a time, too.
unsafe impl<T: Run> Send for Node<T> {}
// SAFETY: as above; a shared node gives access to its atomic word and nothing else.
unsafe impl<T: Run> Sync for Node<T> {}

impl<T: Run> Task<T> {
    pub(super) fn new(list: Arc<Shared<T>>, work: T) -> Self {
        let (state, next) = (AtomicU32::new(0), UnsafeCell::new(null_mut()));
        Self(Arc::new(Node { state, next, list, work: UnsafeCell::new(work) }))
    }

    /// Has the task run, once more if it is running: somebody will begin a run after this, and sees what was done
    /// before. Lock-free, but for the kick that finds the worker not told to look yet: that blocks on a mutex, and
    /// makes the thread if there is none.
    ///
    /// Not for signal handlers, because of that.
    ///
    /// # Errors
    ///
    /// [`Closed`]: the list was dropped. One that is dropped at this moment, or while the task runs, may take the kick
    /// and run nothing.
    #[inline]
    pub fn kick(&self) -> Result<(), Closed> {
        self.kick_as(KICKED)
    }

    /// As [`kick`](Self::kick), for what somebody awaits who does not say so by
    /// [`help_on_reap`](super::RunList::help_on_reap), as one who sleeps in `epoll` or is a task of an executor: the
    /// worker hurries.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn kick_soon(&self) -> Result<(), Closed> {
        self.kick_as(KICKED | AWAITED)
    }

    #[inline]
    fn kick_as(&self, kick: u32) -> Result<(), Closed> {
        let soon = kick & AWAITED != 0;
        // Release: pairs with `start`; what the caller did. Acquire: pairs with `finish` and `unqueue`; whoever used
        // the link before.
        match self.0.state.fetch_or(kick, mo!("runlist.task.kick", AcqRel)) {
            0 => return Shared::enqueue(&self.0.list, Arc::clone(&self.0), soon),
            // In the list already, and the worker takes its time.
            KICKED if soon => Shared::look_after(&self.0.list, soon),
            _ => {}
        }
        Ok(())
    }

    /// Where it is.
    ///
    /// # Staleness
    ///
    /// Anybody may kick or run it meanwhile.
    pub fn state(&self) -> State {
        // Relaxed: nothing follows from it.
        match self.0.state.load(Relaxed) & (KICKED | RUNNING) {
            0 => State::Idle,
            KICKED => State::Queued,
            RUNNING => State::Running,
            _ => State::Kicked,
        }
    }

    /// Runs it.
    ///
    /// # Safety
    ///
    /// 1. The caller has taken it out of the list and has done nothing else with it.
    pub(super) unsafe fn run(&self) {
        // Acquire: pairs with `kick`. A kick before this is answered by this run, one after it sees `RUNNING`.
        self.0.state.swap(RUNNING, mo!("runlist.task.start", Acquire));
        let _finish = Finish(&self.0);
        // SAFETY: queued by 1., and so not running until we set `RUNNING`; ours until `_finish` takes that off.
        self.0.work.with_mut(|work| unsafe { (*work).run(self) });
    }
}

/// Ends a run, also one that panicked.
struct Finish<'a, T: Run>(&'a Arc<Node<T>>);

impl<T: Run> Drop for Finish<'_, T> {
    fn drop(&mut self) {
        // Release: pairs with `kick`; we have used the link, and the work, which the push hands on.
        let before = self.0.state.fetch_sub(RUNNING, mo!("runlist.task.finish", Release));
        if before != RUNNING {
            // Kicked meanwhile: queued from here on, by us. If the list was dropped, nobody runs it any more.
            let _ = Shared::enqueue(&self.0.list, Arc::clone(self.0), before & AWAITED != 0);
        }
    }
}

impl<T: Run> Node<T> {
    /// Makes a task that nobody will run idle.
    pub(super) fn unqueue(&self) {
        // Release: pairs with `kick`; we have used the link.
        self.state.fetch_and(!(KICKED | AWAITED), mo!("runlist.task.unqueue", Release));
    }
}

impl<T: Run> Clone for Task<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Run> fmt::Debug for Task<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("state", &self.state()).finish_non_exhaustive()
    }
}
