//! The threads of [`Threads`](super::Threads), their queue, and who wakes whom: [`Pool`].

use super::sys;
use crate::aio::Cancellable;
use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::thread::{self, Builder, JoinHandle};
use crate::sync::time::{Duration, Instant, expired};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, Tally};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{io, mem};

/// How long a thread without work stays if nobody has said.
const KEEP_IDLE: Duration = Duration::from_secs(10);
/// How long to leave a system alone that has just refused a thread.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// A queue, and the threads that carry out what is in it.
///
/// # Who wakes whom
///
/// At most one thread at a time is *on its way* to the queue: woken, or being started, and not there yet. Whenever
/// nobody has the lock, one of these holds:
///
/// * nothing waits;
/// * a thread is on its way, and, once there, looks whether another is needed;
/// * `held` is set, so the batch that put something into the queue, or whoever is quicker, calls a thread;
/// * every thread is in a call, and will look at the queue after it; and there are as many as there may be.
///
/// Because a thread goes to sleep only when nothing waits, and only a push makes something wait.
///
/// Who takes the last that sleeps away from there, by being it, has another started before it begins its request. So
/// those who submit wake threads and start none, but after the system has refused one.
#[derive(Debug)]
pub(super) struct Pool {
    state: Mutex<State>,
    max: usize,
    /// Whether something waits, and somebody has to be called. Written under the lock, so that the writes are in its
    /// order. Looked at by every submitter, also of what needs no thread: on lines of its own.
    held: CachePadded<AtomicBool>,
    tallies: Tallies,
}

#[derive(Debug)]
struct State {
    /// With those that were cancelled since it last grew.
    waiting: VecDeque<Cancellable>,
    /// Threads asleep that nobody has called; the last has slept least.
    idle: Vec<Arc<Seat>>,
    /// Whether a thread is on its way.
    coming: bool,
    /// How many there are, with one that is being started.
    threads: usize,
    min: usize,
    keep_idle: Duration,
    /// Until when not to ask for another, since the last was refused.
    refused: Option<Instant>,
    /// The name of the next.
    next: u64,
    /// Those that were started, and not joined.
    handles: Vec<(u64, JoinHandle<()>)>,
    /// The names of those that have ended, or do nothing else any more.
    ended: Vec<u64>,
    closed: bool,
}

/// Where a thread sleeps.
#[derive(Debug, Default)]
struct Seat {
    called: Condvar,
    /// Whether it was. Relaxed throughout: under the lock.
    is_called: AtomicBool,
}

#[derive(Debug, Default)]
struct Tallies {
    by_submitters: Tally,
    by_threads: Tally,
    started: Tally,
    ended: Tally,
}

/// What a pool has done so far: [`Threads::stats`](super::Threads::stats).
#[cfg(feature = "stats")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadsStats {
    /// Threads that submitters, or readers for them, have woken.
    pub woken_by_submitters: u64,
    /// Threads that others of the pool have woken.
    pub woken_by_threads: u64,
    /// Threads started.
    pub started: u64,
    /// Threads that had no work for long.
    pub ended: u64,
}

/// Whom the queue needs.
#[must_use = "it is on its way, as far as others know"]
enum Call {
    Nobody,
    Wake(Arc<Seat>),
    /// A new thread, of this name.
    Start(u64),
}

impl State {
    /// Before the queue grows, drops what was cancelled, so that it is about twice as long as what ever waited at most.
    fn make_room(&mut self) {
        if self.waiting.len() == self.waiting.capacity() {
            self.waiting.retain(|waiting| !waiting.is_cancelled());
            self.waiting.reserve(self.waiting.len() + 1);
        }
    }

    /// Whether a thread has to be called for what waits.
    fn wants(&self, max: usize) -> bool {
        !self.coming && !self.waiting.is_empty() && (!self.idle.is_empty() || self.is_short(max))
    }

    /// Whether nobody sleeps, and there may be another.
    fn is_short(&self, max: usize) -> bool {
        self.idle.is_empty()
            && self.threads < max
            && !self.closed
            && self.refused.is_none_or(|until| expired(Some(until)))
    }

    /// Calls one that sleeps if something waits.
    fn wake(&mut self) -> Call {
        if self.coming || self.waiting.is_empty() {
            return Call::Nobody;
        }
        let Some(seat) = self.idle.pop() else { return Call::Nobody };
        self.coming = true;
        // Relaxed, here and wherever it is used: under the lock of the state.
        seat.is_called.store(true, Relaxed);
        Call::Wake(seat)
    }

    /// Has another started if nobody is left to be called.
    fn start(&mut self, max: usize) -> Call {
        if self.coming || !self.is_short(max) {
            return Call::Nobody;
        }
        self.coming = true;
        self.threads += 1;
        self.next += 1;
        Call::Start(self.next)
    }

    /// Those that have ended, to be joined.
    fn take_ended(&mut self) -> Vec<JoinHandle<()>> {
        let ended = mem::take(&mut self.ended);
        let (known, unknown): (Vec<_>, _) = ended.into_iter().partition(|name| self.place(*name).is_some());
        // Whoever has started them has not come to say so.
        self.ended = unknown;
        known.into_iter().filter_map(|name| Some(self.handles.swap_remove(self.place(name)?).1)).collect()
    }

    fn place(&self, name: u64) -> Option<usize> {
        self.handles.iter().position(|(other, _)| *other == name)
    }
}

impl Pool {
    /// Up to `max` threads, and none yet.
    pub(super) fn new(max: usize) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            idle: Vec::new(),
            coming: false,
            threads: 0,
            min: 1,
            keep_idle: KEEP_IDLE,
            refused: None,
            next: 0,
            handles: Vec::new(),
            ended: Vec::new(),
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            max,
            held: CachePadded::new(AtomicBool::new(false)),
            tallies: Tallies::default(),
        }
    }

    /// Starts the first thread.
    pub(super) fn begin(this: &Arc<Self>) -> io::Result<()> {
        let call = this.state.lock().start(this.max);
        match call {
            Call::Start(name) => Self::spawn(this, name),
            Call::Nobody | Call::Wake(_) => Ok(()),
        }
    }

    pub(super) fn set_min(&self, threads: usize) {
        self.set(|state| state.min = threads);
    }

    pub(super) fn set_keep_idle(&self, time: Duration) {
        self.set(|state| state.keep_idle = time);
    }

    /// Changes what those asleep sleep by, and has them look at it.
    fn set(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        state.idle.iter().for_each(|seat| seat.called.notify_one());
    }

    pub(super) fn threads(&self) -> usize {
        self.state.lock().threads
    }

    #[cfg(feature = "stats")]
    pub(super) fn stats(&self) -> ThreadsStats {
        ThreadsStats {
            woken_by_submitters: self.tallies.by_submitters.get(),
            woken_by_threads: self.tallies.by_threads.get(),
            started: self.tallies.started.get(),
            ended: self.tallies.ended.get(),
        }
    }

    /// Appends a request, to be begun at the next [`flush`](Self::flush) at the latest.
    pub(super) fn push(&self, work: Cancellable) {
        let mut state = self.state.lock();
        state.make_room();
        state.waiting.push_back(work);
        if state.wants(self.max) {
            // Relaxed: whoever has it unset has seen our request, under the lock; the pusher itself sees its own
            // write, or one after it.
            self.held.store(true, Relaxed);
        }
    }

    /// Calls a thread if one is needed for what was pushed.
    #[inline]
    pub(super) fn flush(this: &Arc<Self>) {
        // Relaxed: see `push`.
        if this.held.load(Relaxed) {
            Self::call(this);
        }
    }

    #[cold]
    fn call(this: &Arc<Self>) {
        let mut state = this.state.lock();
        // Relaxed: see `push`.
        this.held.store(false, Relaxed);
        let mut call = state.wake();
        if let Call::Nobody = call
            && state.wants(this.max)
        {
            // The system would not give one before.
            call = state.start(this.max);
        }
        drop(state);
        Self::follow(this, call, &this.tallies.by_submitters);
    }

    /// Does as it is told.
    fn follow(this: &Arc<Self>, mut call: Call, woken: &Tally) {
        loop {
            match call {
                Call::Nobody => return,
                Call::Wake(seat) => {
                    woken.one();
                    return seat.called.notify_one();
                }
                Call::Start(name) => {
                    if Self::spawn(this, name).is_ok() {
                        return;
                    }
                    // Somebody may have pushed, and another gone to sleep, in the belief that one was coming.
                    call = this.state.lock().wake();
                }
            }
        }
    }

    fn spawn(this: &Arc<Self>, name: u64) -> io::Result<()> {
        let pool = Arc::clone(this);
        let spawned = Builder::new().name(format!("ioctx-{name}")).spawn(move || Self::work(&pool, name));
        let mut state = this.state.lock();
        match spawned {
            Ok(handle) => {
                state.handles.push((name, handle));
                this.tallies.started.one();
                Ok(())
            }
            Err(error) => {
                state.threads -= 1;
                state.coming = false;
                state.refused = Some(Instant::now() + ASK_AGAIN);
                Err(error)
            }
        }
    }

    /// A thread's life: until closed, and then until nothing waits; or until it had no work for long.
    fn work(this: &Arc<Self>, name: u64) {
        let seat = Arc::new(Seat::default());
        let mut state = this.state.lock();
        // Whether we are the one on its way.
        let mut called = true;
        loop {
            let arrived = mem::take(&mut called);
            if arrived {
                state.coming = false;
            }
            if let Some(waiting) = state.waiting.pop_front() {
                // Only by one that was called: what else waits is part of a batch that has not come to its end.
                let next = if arrived { state.wake() } else { Call::Nobody };
                let next = if let Call::Nobody = next { state.start(this.max) } else { next };
                drop(state);
                Self::follow(this, next, &this.tallies.by_threads);
                carry_out(waiting);
                state = this.state.lock();
            } else if state.closed {
                return;
            } else if let Some(again) = this.sleep(state, &seat) {
                state = again;
                called = true;
            } else {
                return this.end(name);
            }
        }
    }

    /// Sleeps until called. `None`: for long, and is counted no more.
    fn sleep<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        seat: &Arc<Seat>,
    ) -> Option<MutexGuard<'a, State>> {
        state.idle.push(Arc::clone(seat));
        let since = Instant::now();
        loop {
            // The last one stays while others are in calls: nobody else would start another.
            let leaves = state.threads > state.min && state.idle.len() > 1;
            let end = leaves.then(|| since.checked_add(state.keep_idle)).flatten();
            if expired(end) {
                state.idle.retain(|other| !Arc::ptr_eq(other, seat));
                state.threads -= 1;
                self.tallies.ended.one();
                return None;
            }
            state = seat.called.wait_until(state, end);
            // Relaxed: as in `wake`.
            if seat.is_called.load(Relaxed) {
                seat.is_called.store(false, Relaxed);
                return Some(state);
            }
        }
    }

    /// The end of one that had no work: the next to end, or to drop the pool, waits for it.
    fn end(&self, name: u64) {
        let mut state = self.state.lock();
        let before = state.take_ended();
        state.ended.push(name);
        drop(state);
        before.into_iter().for_each(join);
    }

    /// Ends all threads, and waits for them.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for seat in mem::take(&mut state.idle) {
            // Relaxed: as in `wake`.
            seat.is_called.store(true, Relaxed);
            seat.called.notify_one();
        }
        // One that is joined may have started another, and has said so then.
        while !state.handles.is_empty() {
            let handles = mem::take(&mut state.handles);
            drop(state);
            handles.into_iter().for_each(|(_, handle)| join(handle));
            state = self.state.lock();
        }
    }
}

fn carry_out(waiting: Cancellable) {
    // Otherwise it was cancelled.
    if let Some(mut work) = waiting.claim() {
        let result = sys::execute(work.request_mut());
        // Wakers of others may panic, and have told of it then.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work.complete(result))) {
            // Its payload may panic in turn.
            mem::forget(panic);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    // One of them may be dropping the pool: a waker that it called was the last to use the context. It ends when it is
    // back.
    if thread.thread().id() != thread::current().id() {
        // A worker does not panic: `Custom` stops what panics in its users' code. If one did, there is nobody to tell.
        let _ = thread.join();
    }
}
