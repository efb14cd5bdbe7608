//! What those who submit leave to the thread that looks for events, and when they may: [`Left`], [`Watch`].
//!
//! A thread that both submits and looks for events does together, once it looks, what others must do before each of
//! their submits is over. Whether there is somebody else, who may be asleep by then, is decided by two stores and two
//! loads:
//!
//! * who submits stores that something is left, and looks who looks for events;
//! * who is about to sleep stores that he looks for events, and looks whether something is left.
//!
//! With a fence between the two on either side, at least one sees the other: then the submitter does it, or the
//! sleeper.
//!
//! # Orderings
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `nonblocking.left.leave` | `SeqCst` fence | `nonblocking.watch.sleep` | what is left is seen by who is about to sleep, or he by who has left it |
//! | `nonblocking.watch.sleep` | `SeqCst` fence | `nonblocking.left.leave` | as above |
//! | `nonblocking.watch.watched` | `SeqCst` fence | `nonblocking.left.leave` | the same for who watches the descriptor |

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use crate::sync::{Mutex, fence, fence_after_rmw, thread_local, unique};
use std::cell::Cell;
use std::mem;

/// Things that are to be done before anybody sleeps.
#[derive(Debug)]
pub(super) struct Left<T> {
    list: Mutex<Vec<T>>,
    /// Whether there are any. Written under the lock.
    some: AtomicBool,
}

impl<T> Left<T> {
    pub(super) fn new() -> Self {
        Self { list: Mutex::new(Vec::new()), some: AtomicBool::new(false) }
    }

    /// Leaves them to whoever looks next, unless [`Watch::is_alone`] says after this that they may not be left.
    /// Blocks on a mutex for some instructions.
    pub(super) fn leave(&self, things: impl IntoIterator<Item = T>) {
        let mut list = self.list.lock();
        list.extend(things);
        // Relaxed: ordered by the fence; and by the lock for those who take it. An exchange, also where it was set, so
        // that the fence costs x86 nothing.
        self.some.swap(true, Relaxed);
        // SeqCst: pairs with `Watch::sleeps`. Of two,
        // * either the sleeper finds this,
        // * or whoever has left it finds that he is not alone.
        fence_after_rmw!("nonblocking.left.leave", SeqCst);
    }

    /// Whether there is nothing, for who has fenced, or has left it himself; for others a hint.
    pub(super) fn is_empty(&self) -> bool {
        // Relaxed: ordered by the caller's fence.
        !self.some.load(Relaxed)
    }

    /// All there is, from now on the caller's. `room`, which is empty, takes what comes next.
    pub(super) fn take(&self, room: Vec<T>) -> Vec<T> {
        let mut list = self.list.lock();
        // Relaxed: under the lock, whose next owner sees it before he says otherwise.
        self.some.store(false, Relaxed);
        mem::replace(&mut *list, room)
    }
}

/// Who looks for events.
#[derive(Debug)]
pub(super) struct Watch {
    /// Whether somebody else than the context's own threads does.
    watched: AtomicBool,
    /// Which thread does; or `NONE`, or `MANY`.
    driver: AtomicUsize,
}

/// No thread looks for events.
const NONE: usize = 0;
/// Several do.
const MANY: usize = 1;

#[allow(clippy::missing_const_for_thread_local, reason = "loom's macro takes no const block")]
mod name {
    use super::{Cell, NONE, thread_local};

    thread_local!(pub(super) static ME: Cell<usize> = Cell::new(NONE));
}

/// Tells threads from each other.
fn me() -> usize {
    name::ME.with(|name| match name.get() {
        NONE => {
            let new = unique() as usize + MANY + 1;
            name.set(new);
            new
        }
        known => known,
    })
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { watched: AtomicBool::new(false), driver: AtomicUsize::new(NONE) }
    }

    /// This thread looks for events. Wait-free.
    pub(super) fn drives(&self) {
        // Relaxed, here and below: the number names a thread and publishes nothing; what follows from it is ordered by
        // the fences of those who leave something and those who sleep. A thread always sees what it wrote itself.
        let (before, me) = (self.driver.load(Relaxed), me());
        if before == me || before == MANY {
            return;
        }
        if self.driver.compare_exchange(NONE, me, Relaxed, Relaxed).is_err() {
            // Never less again: nobody takes it back.
            self.driver.store(MANY, Relaxed);
        }
    }

    /// This thread is about to sleep until files are ready: after this it looks for what is left.
    pub(super) fn sleeps(&self) {
        self.drives();
        // SeqCst: pairs with `Left::leave`.
        fence!("nonblocking.watch.sleep", SeqCst);
    }

    /// Somebody watches the descriptor for himself, from now on; returns whether that is new. Then what is left is the
    /// caller's to do.
    pub(super) fn is_watched(&self) -> bool {
        // Relaxed, both: ordered by the fence.
        if self.watched.load(Relaxed) {
            return false;
        }
        self.watched.store(true, Relaxed);
        // SeqCst: pairs with `Left::leave`, as in `sleeps`.
        fence!("nonblocking.watch.watched", SeqCst);
        true
    }

    /// Whether this thread is the only one that looks for events, so that none sleeps while it submits.
    ///
    /// # Staleness
    ///
    /// Another may begin to look; one that does finds what was left before this was asked.
    pub(super) fn is_alone(&self) -> bool {
        // Relaxed: ordered by the fence of `Left::leave`.
        !self.watched.load(Relaxed) && self.driver.load(Relaxed) == me()
    }
}
