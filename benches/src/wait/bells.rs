//! Ours and what one would use instead.

use super::Bell;
use event_listener::{Event, Listener, listener};
use ioctx::wait::EventCount;
#[cfg(target_os = "linux")]
use rustix::thread::futex;
#[cfg(target_os = "linux")]
use std::sync::atomic::AtomicU32;
use std::sync::atomic::{AtomicU64, Ordering::*, fence};
use std::sync::{Condvar, Mutex, OnceLock};
use std::thread::{self, Thread};

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

/// Ours, where the change is published by a plain store, and sleepers execute the fence for all.
#[derive(Debug)]
pub struct Light(EventCount);

impl Default for Light {
    fn default() -> Self {
        Self(EventCount::for_light_publishers())
    }
}

impl Bell for Light {
    #[inline]
    fn ring(&self, change: impl FnOnce()) {
        change();
        self.0.notify_light(|| 1);
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

/// A word that the system sleeps on, for one sleeper.
#[cfg(target_os = "linux")]
#[derive(Debug, Default)]
pub struct Futex(AtomicU32);

#[cfg(target_os = "linux")]
impl Futex {
    /// Somebody sleeps, or is about to.
    const ASLEEP: u32 = 1;
    const NOBODY: u32 = 0;
}

#[cfg(target_os = "linux")]
impl Bell for Futex {
    #[inline]
    fn ring(&self, change: impl FnOnce()) {
        change();
        // SeqCst: pairs with the sleeper's. Either we see that it sleeps, or it sees the change.
        fence(SeqCst);
        if self.0.load(Relaxed) == Self::ASLEEP {
            self.0.store(Self::NOBODY, Relaxed);
            futex::wake(&self.0, futex::Flags::PRIVATE, 1).expect("the word is there");
        }
    }

    fn sleep_until(&self, ready: impl Fn() -> bool) {
        loop {
            self.0.store(Self::ASLEEP, Relaxed);
            fence(SeqCst);
            if ready() {
                self.0.store(Self::NOBODY, Relaxed);
                return;
            }
            // However it ended, the loop looks again.
            let _outcome = futex::wait(&self.0, futex::Flags::PRIVATE, Self::ASLEEP, None);
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
