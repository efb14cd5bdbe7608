//! Waiting for units.
//!
//! While anybody waits the stocks are closed, and the pool's word says so: every unit that comes back goes by the
//! pool, and whoever brings it sees that somebody waits, in the same access. So no put can miss one who waits, and
//! while nobody does, puts pay nothing.

use super::allocator::{Allocator, Stock};
use super::word::{CLOSED, WAITERS, count, units};
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::time::Instant;
use crate::sync::{Arc, Mutex, MutexGuard, Parked, Parker, Wake, Woken, mo};
use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::{fmt, mem};

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<Queue>);

#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Longest first, which is also by `id`.
    waiting: VecDeque<Waiter>,
    next_id: u64,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    want: u32,
    wake: Wake,
}

/// Why no units came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// More were asked for than there are in all, handed out or not.
    Never {
        /// How many there are.
        total: u32,
    },
    /// The deadline has passed.
    TimedOut,
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never { total } => write!(f, "there are {total} in all; ask for fewer, or resize first"),
            Self::TimedOut => {
                f.write_str("too few were put back before the deadline; put some back, or wait longer")
            }
        }
    }
}

impl std::error::Error for WaitError {}

impl Queue {
    fn place(&self, id: u64) -> Result<usize, usize> {
        self.waiting.binary_search_by_key(&id, |waiter| waiter.id)
    }
}

impl<S: Stock> Allocator<S> {
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.waiters.0.lock()
    }

    /// Takes `want` units from the number of those in the pool; or has `wake` wait for them, and returns by which
    /// name. `told` is whether this was picked before, and only told.
    fn take_or_join(&self, want: u32, wake: Wake, mut told: bool) -> Option<u64> {
        let mut queue = self.queue();
        // Relaxed: read again by the exchange.
        let mut word = self.pool.word.load(Relaxed);
        loop {
            let alone = queue.waiting.is_empty();
            if count(word) >= want.into() && (alone || !self.fair()) {
                let next = (word - units(want)) & if alone { !WAITERS } else { !0 };
                // Acquire: pairs with every addition, as in `take_from_pool`. Relaxed: tried again.
                match self.pool.word.compare_exchange_weak(
                    word,
                    next,
                    mo!("credits.pool.join", Acquire),
                    Relaxed,
                ) {
                    Ok(_) => {
                        drop(queue);
                        self.reopen(next);
                        return None;
                    }
                    Err(now) => word = now,
                }
            } else if word & CLOSED == 0 {
                self.sweep(WAITERS);
                // Relaxed: as above.
                word = self.pool.word.load(Relaxed);
            } else if told && !alone {
                // Others were not told because of what was meant for this one: what is left of it may be enough for
                // them. Before it joins, so that it is not left in the queue if a waker panics.
                told = false;
                drop(queue);
                self.serve();
                queue = self.queue();
                // Relaxed: as above.
                word = self.pool.word.load(Relaxed);
            } else {
                // Relaxed, both: whoever adds units after this sees it, in the word's own order, and then comes for
                // the lock that we have; whoever added before has been counted.
                match self.pool.word.compare_exchange_weak(word, word | WAITERS, Relaxed, Relaxed) {
                    Ok(_) => break,
                    Err(now) => word = now,
                }
            }
        }
        let id = queue.next_id;
        queue.next_id += 1;
        queue.waiting.push_back(Waiter { id, want, wake });
        Some(id)
    }

    /// Wakes those who wait, longest first, as far as the units in the pool go; if it is fair, with units taken for
    /// them.
    #[cold]
    pub(super) fn serve(&self) {
        let mut queue = self.queue();
        let mut woken = Woken::default();
        if self.fair() {
            while let Some(first) = queue.waiting.front() {
                let want = first.want;
                let take = |word| (count(word) >= want.into()).then(|| word - units(want));
                // Acquire: as in `take_from_pool`, for the one who is woken. Relaxed: too few, and whoever brings more
                // comes here.
                if self.pool.word.fetch_update(mo!("credits.pool.serve", Acquire), Relaxed, take).is_err() {
                    break;
                }
                if let Some(waiter) = queue.waiting.pop_front() {
                    woken.push(waiter.wake);
                }
            }
        } else {
            // Relaxed: who is woken looks again.
            let mut left = count(self.pool.word.load(Relaxed));
            for _ in 0..queue.waiting.len() {
                let Some(waiter) = queue.waiting.pop_front() else { break };
                if i64::from(waiter.want) <= left {
                    left -= i64::from(waiter.want);
                    woken.push(waiter.wake);
                } else {
                    queue.waiting.push_back(waiter);
                }
            }
        }
        self.unlock(queue);
        // Unlinked first, woken last, and without the lock: waking may call back.
        woken.wake();
    }

    /// Lets go of the queue. If nobody waits any more, stocks may be opened.
    fn unlock(&self, queue: MutexGuard<'_, Queue>) {
        if !queue.waiting.is_empty() {
            return;
        }
        // Relaxed: nobody has joined since, because of the lock.
        let word = self.pool.word.fetch_and(!WAITERS, Relaxed) & !WAITERS;
        drop(queue);
        self.reopen(word);
    }

    /// Takes the one of this name out of the queue; returns whether it was there, and not picked to be woken.
    fn leave(&self, id: u64) -> bool {
        let mut queue = self.queue();
        let Ok(place) = queue.place(id) else { return false };
        // Dropped last: that may call back.
        let _left = queue.waiting.remove(place);
        let others = !queue.waiting.is_empty();
        self.unlock(queue);
        if self.fair() && others && place == 0 {
            // The next one may want less.
            self.serve();
        }
        true
    }

    /// Takes `want` units from the number of those in the pool, as soon as there are so many; sleeps until then.
    #[cold]
    pub(super) fn wait(&self, want: u32, deadline: Option<Instant>) -> Result<(), WaitError> {
        self.check(want)?;
        let mut told = false;
        loop {
            let parker = Arc::new(Parker::new());
            let wake = Wake::Thread(Arc::clone(&parker));
            let Some(id) = self.take_or_join(want, wake, told) else { return Ok(()) };
            // A signal does not end it.
            let parked = loop {
                match parker.park(deadline) {
                    Parked::Interrupted => {}
                    parked => break parked,
                }
            };
            match parked {
                Parked::TimedOut if self.leave(id) => return Err(WaitError::TimedOut),
                // Picked, if at the last moment: the units are ours.
                _ if self.fair() => return Ok(()),
                Parked::TimedOut => {
                    // There were units when we were picked, which are for the next one now.
                    self.serve();
                    return Err(WaitError::TimedOut);
                }
                // Somebody may have been quicker.
                _ => told = true,
            }
        }
    }

    fn check(&self, want: u32) -> Result<(), WaitError> {
        let total = self.total();
        if want <= total { Ok(()) } else { Err(WaitError::Never { total }) }
    }
}

/// A task that waits for units.
#[derive(Debug)]
pub(super) struct Waiting<'a, S: Stock> {
    allocator: &'a Allocator<S>,
    want: u32,
    /// By which name, if it is in the queue or was picked.
    id: Option<u64>,
}

impl<'a, S: Stock> Waiting<'a, S> {
    pub(super) fn new(allocator: &'a Allocator<S>, want: u32) -> Self {
        Self { allocator, want, id: None }
    }

    /// Takes the units from the number of those in the pool, or waits for them.
    pub(super) fn poll(&mut self, context: &Context<'_>) -> Poll<Result<(), WaitError>> {
        // Cloned and dropped without the lock: a waker may call back.
        let mut wake = Wake::Task(context.waker().clone());
        let told = self.id.is_some();
        if let Some(id) = self.id {
            let mut queue = self.allocator.queue();
            if let Ok(place) = queue.place(id) {
                mem::swap(&mut queue.waiting[place].wake, &mut wake);
                drop(queue);
                return Poll::Pending;
            }
            drop(queue);
            self.id = None;
            if self.allocator.fair() {
                return Poll::Ready(Ok(()));
            }
        }
        self.allocator.check(self.want)?;
        self.id = self.allocator.take_or_join(self.want, wake, told);
        if self.id.is_some() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl<S: Stock> Drop for Waiting<'_, S> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        if self.allocator.leave(id) {
            return;
        }
        // Picked: what was meant for it is for the next one.
        if self.allocator.fair() {
            self.allocator.grow(self.want);
        } else {
            self.allocator.serve();
        }
    }
}
