//! Who can wake a sleeper cheapest, if there is one: [`Bell`].
//!
//! Three loops: [`rings`] while nobody sleeps, [`round_trips`] of two that wake each other, and [`wakes`], in which one
//! that is surely asleep is woken, and both sides are timed.

mod bells;
mod latency;

#[cfg(target_os = "linux")]
pub use bells::Futex;
pub use bells::{AfterRmw, Always, IfAsleep, Light, Nothing, Park};
pub use latency::{Wake, wakes};

use crate::harness::{Place, together};
use ioctx::percpu::CachePadded;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::thread;
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
    wakes::<B>(3, [Place::Anywhere; 2]);
}
