//! What the tests share that put the crate into hostile surroundings.
#![allow(dead_code, reason = "each test file uses a part of it")]

#[cfg(ioctx_linux)]
pub mod driven;
pub mod executor;
#[cfg(unix)]
pub mod hostile;
#[cfg(target_os = "linux")]
pub mod process;
pub mod requests;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod seccomp;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod tracee;

use ioctx::refcount::{PerCpuRef, Put};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread;

/// Says that something was not tested, and why.
pub fn skip(why: impl std::fmt::Display) {
    println!("SKIPPED: {why}");
}

/// Ends this process in a minute from now, should something hang; does so anew for each test.
pub fn never_hang() {
    #[cfg(all(unix, not(miri)))]
    // SAFETY: has no conditions.
    unsafe {
        libc::alarm(60)
    };
}

/// Set when this goes, even by a panic, lest other threads run on.
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Lets `users` threads take and put references until the count is killed, and sees that zero is found once.
/// They do `disturb` in between; this thread does `meanwhile` before it kills.
pub fn use_and_kill(users: usize, disturb: impl Fn(u32) + Sync, meanwhile: impl FnOnce()) {
    never_hang();
    let count = PerCpuRef::new();
    let zeros = AtomicU32::new(0);
    let tell = |put| zeros.fetch_add(u32::from(put == Put::Zero), Relaxed);
    let all_have_counted = Barrier::new(users + 1);
    thread::scope(|scope| {
        for _ in 0..users {
            scope.spawn(|| {
                for turn in 0.. {
                    if !count.try_get_live() {
                        break;
                    }
                    count.get_many(2);
                    disturb(turn);
                    tell(count.put());
                    if turn == 0 {
                        all_have_counted.wait();
                    }
                    tell(count.put_many(2));
                }
            });
        }
        all_have_counted.wait();
        meanwhile();
        tell(count.kill());
        assert!(!count.try_get_live());
    });
    assert_eq!((zeros.into_inner(), count.count()), (1, Some(0)));
}
