//! Sleepers and publishers of every kind, deadlines and drops, more threads than processors: none hangs.

use ioctx::wait::{EventCount, Outcome};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::*};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How much of everything.
mod cfg {
    pub(super) const EVENTS: u32 = 60_000;
    pub(super) const ROUNDS: u32 = 4_000;
    pub(super) const PATIENCE: u64 = 60;
}

/// Ends the process unless `body` comes to its end.
fn watched(say: impl Fn() -> String + Sync, body: impl FnOnce()) {
    let (done, waits) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(|| {
            let waits = waits;
            if waits.recv_timeout(Duration::from_secs(cfg::PATIENCE)) == Err(mpsc::RecvTimeoutError::Timeout)
            {
                eprintln!("somebody hangs: {}", say());
                std::process::abort();
            }
        });
        body();
        drop(done);
    });
}

/// Wakes a thread that polls.
struct Unpark {
    thread: Thread,
    woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Release);
        self.thread.unpark();
    }
}

fn block_on(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    loop {
        let unpark = Arc::new(Unpark { thread: thread::current(), woken: AtomicBool::new(false) });
        if future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&unpark)))).is_ready() {
            return;
        }
        while !unpark.woken.load(Acquire) {
            thread::park();
        }
    }
}

struct Pool {
    there: AtomicU32,
    taken: AtomicU32,
    sleepers: EventCount,
}

impl Pool {
    fn there(&self) -> u32 {
        // Relaxed, as everywhere here: the event count orders the events.
        self.there.load(Relaxed)
    }

    fn finished(&self) -> bool {
        self.taken.load(Relaxed) == cfg::EVENTS
    }

    fn publish(&self, kind: u32) {
        self.there.fetch_add(1, Relaxed);
        match kind % 3 {
            0 => self.sleepers.notify(|| self.there()),
            1 => self.sleepers.notify_after_rmw(|| self.there()),
            _ => self.sleepers.notify_light(|| self.there()),
        }
    }

    /// Takes up to `max` events, and has others come for what is left.
    fn take(&self, max: u32) {
        let left = |there: u32| Some(there - there.min(max));
        let before = self.there.fetch_update(Relaxed, Relaxed, left).unwrap();
        let got = before.min(max);
        if self.taken.fetch_add(got, Relaxed) + got == cfg::EVENTS {
            self.sleepers.notify_all();
        } else if before > got {
            self.sleepers.notify(|| self.there());
        }
    }

    /// Whether somebody who wants `min` events has to sleep.
    fn lacks(&self, min: u32) -> bool {
        self.there() < min && !self.finished()
    }

    fn threads(&self, min: u32, patience: Option<Duration>) {
        while !self.finished() {
            let key = self.sleepers.prepare_wait(min);
            if self.lacks(min) {
                let outcome = key.wait(patience.map(|patience| Instant::now() + patience));
                assert!(patience.is_some() || outcome == Outcome::Woken);
            } else {
                drop(key);
            }
            self.take(min + 1);
        }
    }

    fn tasks(&self, min: u32) {
        block_on(async {
            while !self.finished() {
                let listen = self.sleepers.listen(min);
                if self.lacks(min) {
                    listen.await;
                } else {
                    drop(listen);
                }
                self.take(min + 1);
            }
        });
    }

    /// Announces, is polled, and goes away.
    fn fickle_tasks(&self) {
        while !self.finished() {
            let mut listen = pin!(self.sleepers.listen(1));
            let polled = listen.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            thread::yield_now();
            if polled == Poll::Ready(()) {
                self.sleepers.notify(|| self.there());
            }
        }
    }

    #[cfg(ioctx_linux)]
    fn bells(&self, min: u32) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut bell = ioctx::wait::Bell::new(&self.sleepers).unwrap();
        for round in 0.. {
            if self.finished() {
                break;
            }
            bell.arm(min);
            if self.lacks(min) {
                let short = Timespec { tv_sec: 0, tv_nsec: 50_000 };
                let patience = (round % 2 == 0).then_some(&short);
                let ready = poll(&mut [PollFd::new(&bell, PollFlags::IN)], patience).unwrap();
                assert!(ready == 1 || round % 2 == 0);
                bell.clear();
            }
            self.take(min + 1);
        }
    }

    #[cfg(not(ioctx_linux))]
    fn bells(&self, min: u32) {
        self.threads(min, None);
    }
}

#[test]
fn sleepers_of_all_kinds_end() {
    for sleepers in [EventCount::new(), EventCount::for_light_publishers()] {
        let pool = Pool { there: AtomicU32::new(0), taken: AtomicU32::new(0), sleepers };
        let say =
            || format!("{} there, {} taken, {:?}", pool.there(), pool.taken.load(Relaxed), pool.sleepers);
        let body = || {
            thread::scope(|scope| {
                scope.spawn(|| pool.threads(1, None));
                scope.spawn(|| pool.threads(3, None));
                scope.spawn(|| pool.threads(2, Some(Duration::from_micros(50))));
                scope.spawn(|| pool.tasks(1));
                scope.spawn(|| pool.fickle_tasks());
                scope.spawn(|| pool.bells(2));
                for publisher in 0..2 {
                    let pool = &pool;
                    scope.spawn(move || {
                        for i in 0..cfg::EVENTS / 2 {
                            pool.publish(publisher + i);
                            while pool.there() > 16 {
                                thread::yield_now();
                            }
                        }
                    });
                }
            });
        };
        watched(say, body);
        assert_eq!((pool.there(), pool.taken.load(Relaxed)), (0, cfg::EVENTS));
        pool.sleepers.notify(|| unreachable!("somebody was forgotten"));
    }
}

/// The fences that models replace: two publishers by plain stores, at places of their own, and one that is
/// fenced; a sleeper that wants the events of all three.
#[test]
fn publishers_without_a_fence_are_seen_or_see() {
    let sleepers = EventCount::for_light_publishers();
    let places = [(); 3].map(|()| AtomicU32::new(0));
    let go = AtomicU32::new(0);
    let there = || places.iter().map(|place| place.load(Relaxed)).sum::<u32>();
    let say = || format!("round {}, {places:?}, {sleepers:?}", go.load(Relaxed));
    let body = || {
        thread::scope(|scope| {
            for (at, place) in places.iter().enumerate() {
                let (go, sleepers) = (&go, &sleepers);
                scope.spawn(move || {
                    for round in 1..=cfg::ROUNDS {
                        while go.load(Relaxed) < round {
                            thread::yield_now();
                        }
                        place.store(round, Relaxed);
                        match at {
                            0 => sleepers.notify(there),
                            _ => sleepers.notify_light(there),
                        }
                    }
                });
            }
            for round in 1..=cfg::ROUNDS {
                go.store(round, Relaxed);
                let all = 3 * round;
                while there() < all {
                    let key = sleepers.prepare_wait(all);
                    if there() < all {
                        assert_eq!(key.wait(None), Outcome::Woken);
                    }
                }
            }
        });
    };
    watched(say, body);
}
