//! [`RunList`].

use super::builder::Builder;
use super::queue::{Pass, Queue};
use super::task::{Closed, Node, Run, Task};
use super::worker::Worker;
use crate::sync::{Arc, fence_after_rmw, thread_local};
use std::cell::Cell;
use std::fmt;

#[allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const block")]
mod helps {
    use super::{Cell, thread_local};

    thread_local!(pub(super) static HELPS: Cell<bool> = Cell::new(false));
}
use helps::HELPS;

/// Tasks that were kicked and wait for somebody to run them.
///
/// Kicking is lock-free, and looking for tasks while there are none is one load. Taking a task out to run it blocks on
/// a mutex for a few instructions, or as many as it takes to turn a stack of tasks round. How long a task runs is up to
/// the task.
///
/// Tasks begin in the order of their kicks, but on several threads they may overtake each other. Nothing is said about
/// when: at the latest when the worker looks (see [`Builder`]), if the system gives a thread to be one; while it
/// does not, tasks wait for helpers, and every kick into an empty list asks again.
///
/// Dropping the list runs nothing: it makes the tasks in it idle and drops its references to them. It waits for the
/// task that the worker is running, unless it is dropped by that task.
///
/// # Panics in tasks
///
/// One reaches whoever helps, from the call that helped; the tasks behind it stay in the list, and are run by others,
/// at the latest by the worker. The worker itself goes on with the next.
///
/// # Costs
///
/// A kick and its run: 30 ns where nobody else is at it, several locked instructions and a mutex; nothing is allocated.
/// A list that only one thread uses is dearer than that thread's own queue. Not for work that blocks, or that should
/// use other CPUs: it runs where it is convenient, not in parallel. For that there are pools of threads.
///
/// # Examples
///
/// ```
/// use ioctx::runlist::RunList;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU32, Ordering};
/// let (list, ready) = (RunList::new(), Arc::new(AtomicU32::new(0)));
/// let theirs = ready.clone();
/// let task = list.task(move || _ = theirs.swap(0, Ordering::Relaxed));
/// // By whoever finds out that there is something to do:
/// ready.fetch_add(3, Ordering::Relaxed);
/// task.kick()?;
/// // By whoever submits:
/// assert_eq!(list.help_on_submit(), 1);
/// assert_eq!(ready.load(Ordering::Relaxed), 0);
/// # Ok::<(), ioctx::runlist::Closed>(())
/// ```
pub struct RunList<T: Run>(pub(super) Arc<Shared<T>>);

pub(super) struct Shared<T: Run> {
    pub(super) queue: Queue<T>,
    pub(super) worker: Worker,
    pub(super) options: Builder,
}

impl<T: Run> Shared<T> {
    pub(super) fn new(options: Builder) -> Self {
        Self { queue: Queue::new(), worker: Worker::new(), options }
    }

    /// Puts a task into the list that the caller has made queued. `soon`: somebody awaits it.
    pub(super) fn enqueue(this: &Arc<Self>, task: Arc<Node<T>>, soon: bool) -> Result<(), Closed> {
        // SAFETY: 1. by the caller, which is `kick` or the end of a run.
        match unsafe { this.queue.push(task) } {
            Ok(first) => {
                if first || soon {
                    Self::look_after(this, soon);
                }
                Ok(())
            }
            Err(task) => {
                task.unqueue();
                Err(Closed)
            }
        }
    }

    /// Sees to it that somebody will run a task that was just kicked.
    pub(super) fn look_after(this: &Arc<Self>, soon: bool) {
        // SeqCst: pairs with those who say that they wait, and with the worker when it is about to look.
        fence_after_rmw!("runlist.kick.look", SeqCst);
        Self::arm(this, soon);
    }

    /// Runs at most `most` of the tasks that are in the list, and of those kicked before it has run what was spliced
    /// before; returns how many it ran.
    #[cold]
    pub(super) fn pass(&self, most: usize) -> usize {
        struct Helping;

        impl Drop for Helping {
            fn drop(&mut self) {
                HELPS.with(|helps| helps.set(false));
            }
        }

        if HELPS.with(|helps| helps.replace(true)) {
            return 0;
        }
        let _helping = Helping;
        let (mut pass, mut ran) = (Pass::default(), 0);
        while ran < most
            && let Some(node) = self.queue.pop(&mut pass)
        {
            ran += 1;
            // SAFETY: just taken out.
            unsafe { Task(node).run() };
        }
        ran
    }
}

impl<T: Run> Default for RunList<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Run> RunList<T> {
    /// A list without tasks, as [`Builder::new`] makes it.
    pub fn new() -> Self {
        Builder::new().build()
    }

    /// Makes a task of this list, which is idle until it is kicked.
    pub fn task(&self, work: T) -> Task<T> {
        Task::new(Arc::clone(&self.0), work)
    }

    /// For those who submit: runs some tasks, at most as many as [`Builder::help_on_submit`] says; returns how many.
    /// Within a task it runs nothing.
    ///
    /// One load if there are none.
    #[inline]
    pub fn help_on_submit(&self) -> usize {
        if self.0.queue.seems_empty() { 0 } else { self.0.pass(self.0.options.submit) }
    }

    /// For those who are about to sleep: runs the tasks that are there, once, if [`Builder::help_on_reap`] says so, and
    /// has the worker be quick with others for as long as the result lives. Within a task it runs nothing.
    ///
    /// Whatever tasks have done by now, the caller looks at after this, and then sleeps.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::runlist::{RunList, Task};
    /// use ioctx::wait::EventCount;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// fn wait_for(min: u32, events: &AtomicU32, sleepers: &EventCount, list: &RunList<fn()>) {
    ///     while events.load(Ordering::Acquire) < min {
    ///         let _waiting = list.help_on_reap();
    ///         let key = sleepers.prepare_wait(min);
    ///         if events.load(Ordering::Acquire) < min {
    ///             let _ = key.wait(None);
    ///         }
    ///     }
    /// }
    /// # static EVENTS: AtomicU32 = AtomicU32::new(0);
    /// # let list = RunList::new();
    /// # let task: Task<fn()> = list.task(|| EVENTS.store(1, Ordering::Release));
    /// # task.kick().unwrap();
    /// # wait_for(1, &EVENTS, &EventCount::new(), &list);
    /// ```
    pub fn help_on_reap(&self) -> Waiting<'_, T> {
        self.0.worker.join();
        // Counted down also if a task panics; and if tasks are left then, the worker hurries.
        let mut waiting = Waiting { list: self, ran: 0 };
        // SeqCst: pairs with the fence of a kick. Either it sees that we wait, or we see its task.
        fence_after_rmw!("runlist.waiter.announce", SeqCst);
        if !self.0.queue.is_empty() {
            let _hurry = Hurry(self);
            if self.0.options.reap {
                waiting.ran = self.0.pass(usize::MAX);
            }
        }
        waiting
    }

    /// Runs at most `most` of the tasks that are there; returns how many. For those who are neither of the above.
    /// Within a task it runs nothing.
    pub fn run(&self, most: usize) -> usize {
        if self.0.queue.seems_empty() { 0 } else { self.0.pass(most) }
    }

    /// Whether no task waits to be run. Those that are being run do not count.
    ///
    /// # Staleness
    ///
    /// Anybody may kick or run one meanwhile.
    pub fn is_empty(&self) -> bool {
        self.0.queue.seems_empty()
    }

    /// Whether there is a worker. Blocks on a mutex.
    ///
    /// # Staleness
    ///
    /// As [`is_empty`](Self::is_empty).
    pub fn has_worker(&self) -> bool {
        self.0.worker.is_alive()
    }
}

/// Has the worker look soon at what is left.
struct Hurry<'a, T: Run>(&'a RunList<T>);

impl<T: Run> Drop for Hurry<'_, T> {
    fn drop(&mut self) {
        // Before this, tasks were in the list that one who did not see us wait had put there. Afterwards, who puts
        // some into an empty list sees us.
        if !self.0.0.queue.is_empty() {
            Shared::arm(&self.0.0, false);
        }
    }
}

/// One who sleeps, or is about to. See [`RunList::help_on_reap`].
#[must_use = "dropped, the worker takes its time"]
pub struct Waiting<'a, T: Run> {
    list: &'a RunList<T>,
    ran: usize,
}

impl<T: Run> Waiting<'_, T> {
    /// How many tasks were run.
    pub fn ran(&self) -> usize {
        self.ran
    }
}

impl<T: Run> Drop for Waiting<'_, T> {
    fn drop(&mut self) {
        self.list.0.worker.leave();
    }
}

impl<T: Run> Drop for RunList<T> {
    fn drop(&mut self) {
        // First, so that no worker is made any more, and dropped tasks that panic leave none behind.
        let tasks = self.0.queue.close();
        self.0.dismiss();
        drop(tasks);
    }
}

impl<T: Run> fmt::Debug for RunList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunList").field("is_empty", &self.is_empty()).field("worker", &self.0.worker).finish()
    }
}

impl<T: Run> fmt::Debug for Waiting<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").field("ran", &self.ran).finish_non_exhaustive()
    }
}
