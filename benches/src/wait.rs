//! Who can wake a sleeper cheapest, if there is one: [`Bell`].

use crate::harness::{Place, together};
use event_listener::{Event, Listener, listener};
use ioctx::percpu::CachePadded;
use ioctx::wait::EventCount;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::*, fence};
use std::sync::{Condvar, Mutex, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

/// Wakes one sleeper.
pub trait Bell: Default + Send + Sync {
    /// Carries out `change`, then wakes the sleeper if there is one.
    fn ring(&self, change: impl FnOnce());

    /// Sleeps until `ready`. One thread at a time.
    fn sleep_until(&self, ready: impl Fn() -> bool);
}

/// The loop: rings a bell that nobody listens to, `n` times.
#[inline]
pub fn rings<B: Bell>(bell: &B, n: u64) {
    for _ in 0..n {
        bell.ring(|| black_box(()));
    }
}

/// The other loop: two threads wake each other in turn, `n` times each, on the CPUs given. Returns the time
/// it took.
///
/// Between two CPUs it can happen that each finds the ball before it falls asleep, for a while: then the
/// time is that of a cache line, and few context switches are counted.
///
/// # Panics
///
/// If the ball was not where it had to be in the end.
pub fn round_trips<B: Bell>(n: u64, places: [Place; 2]) -> Duration {
    let bells = [CachePadded::new(B::default()), CachePadded::new(B::default())];
    let ball = CachePadded::new(AtomicU64::new(0));
    let elapsed = together(&places, |side| {
        for trip in 0..n {
            let mine = 2 * trip + side as u64;
            bells[side].sleep_until(|| ball.load(Acquire) == mine);
            bells[1 - side].ring(|| ball.store(mine + 1, Release));
        }
    });
    assert_eq!(ball.load(Acquire), 2 * n, "every trip was made");
    elapsed
}

/// A bell that has been rung for a sleeper before: some set up what they need only then.
pub fn used<B: Bell>() -> B {
    let (bell, done) = (B::default(), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(1));
            bell.ring(|| done.store(1, Release));
        });
        bell.sleep_until(|| done.load(Acquire) == 1);
    });
    bell
}

/// Checks that a contender loses no wake-up.
///
/// # Panics
///
/// If one goes astray. Hangs if one is lost.
pub fn check<B: Bell>() {
    round_trips::<B>(1000, [Place::Anywhere; 2]);
    rings(&used::<B>(), 1000);
}

impl Bell for EventCount {
    #[inline]
    fn ring(&self, change: impl FnOnce()) {
        change();
        self.notify(|| 1);
    }

    fn sleep_until(&self, ready: impl Fn() -> bool) {
        while !ready() {
            let key = self.prepare_wait(1);
            if !ready() {
                // However it ended, the loop looks again.
                let _outcome = key.wait(None);
            }
        }
    }
}

/// Ours, rung by somebody whose change ends with a read-modify-write, which is part of the figure.
#[derive(Debug, Default)]
pub struct AfterRmw(EventCount);

thread_local! {
    /// What is changed: a word of the thread's own, as a ring per CPU has it.
    static CHANGED: AtomicU64 = const { AtomicU64::new(0) };
}

impl Bell for AfterRmw {
    #[inline]
    fn ring(&self, change: impl FnOnce()) {
        change();
        CHANGED.with(|word| word.fetch_add(1, Release));
        self.0.notify_after_rmw(|| 1);
    }

    fn sleep_until(&self, ready: impl Fn() -> bool) {
        self.0.sleep_until(ready);
    }
}

impl Bell for Event {
    #[inline]
    fn ring(&self, change: impl FnOnce()) {
        change();
        self.notify(1);
    }

    fn sleep_until(&self, ready: impl Fn() -> bool) {
        while !ready() {
            listener!(self => listener);
            if !ready() {
                listener.wait();
            }
        }
    }
}

/// A condition variable that is notified every time.
#[derive(Debug, Default)]
pub struct Always {
    mutex: Mutex<()>,
    changed: Condvar,
}

const POISONED: &str = "nobody panics while holding the mutex";

impl Bell for Always {
    #[inline]
    fn ring(&self, change: impl FnOnce()) {
        // Under the mutex, or a sleeper between its look and its sleep would miss it.
        let guard = self.mutex.lock().expect(POISONED);
        change();
        drop(guard);
        self.changed.notify_one();
    }

    fn sleep_until(&self, ready: impl Fn() -> bool) {
        let guard = self.mutex.lock().expect(POISONED);
        drop(self.changed.wait_while(guard, |()| !ready()).expect(POISONED));
    }
}

/// A condition variable that is notified only if somebody sleeps, which saves the system call.
#[derive(Debug, Default)]
pub struct IfAsleep {
    sleepers: Mutex<usize>,
    changed: Condvar,
}

impl Bell for IfAsleep {
    #[inline]
    fn ring(&self, change: impl FnOnce()) {
        let sleepers = self.sleepers.lock().expect(POISONED);
        change();
        let asleep = *sleepers > 0;
        drop(sleepers);
        if asleep {
            self.changed.notify_one();
        }
    }

    fn sleep_until(&self, ready: impl Fn() -> bool) {
        let mut sleepers = self.sleepers.lock().expect(POISONED);
        while !ready() {
            *sleepers += 1;
            sleepers = self.changed.wait(sleepers).expect(POISONED);
            *sleepers -= 1;
        }
    }
}

/// `thread::park`: for one sleeper, which the waker must know. What sleeping costs by itself.
#[derive(Debug, Default)]
pub struct Park(OnceLock<Thread>);

impl Bell for Park {
    #[inline]
    fn ring(&self, change: impl FnOnce()) {
        change();
        // SeqCst: pairs with the sleeper's. Either we see the sleeper, or it sees the change.
        fence(SeqCst);
        if let Some(sleeper) = self.0.get() {
            sleeper.unpark();
        }
    }

    fn sleep_until(&self, ready: impl Fn() -> bool) {
        self.0.get_or_init(thread::current);
        fence(SeqCst);
        while !ready() {
            thread::park();
        }
    }
}

/// Wakes nobody: the loop itself.
#[derive(Debug, Default)]
pub struct Nothing;

impl Bell for Nothing {
    #[inline]
    fn ring(&self, change: impl FnOnce()) {
        change();
    }

    fn sleep_until(&self, _ready: impl Fn() -> bool) {}
}
