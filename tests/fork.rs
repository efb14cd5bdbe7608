//! A fork has copies of all counts, and of the one thread that called it.
#![cfg(target_os = "linux")]

mod support;

use ioctx::credits::Builder;
use ioctx::refcount::{PerCpuRef, Put};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use support::{SetAtEnd, never_hang};

/// A fork of this process that is still running.
#[must_use]
struct Fork(libc::pid_t);

impl Fork {
    /// Runs `child` in a fork, which ends with what it returns; 0 is success. It must not allocate, since
    /// another thread may have held the allocator's lock.
    fn new(child: impl Fn() -> u8) -> Self {
        // SAFETY: until it ends, the fork does only what is allowed in a signal handler: what is tested, and
        // two system calls.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: have no conditions. The alarm ends a fork that hangs.
                unsafe {
                    libc::alarm(10);
                    libc::_exit(never_unwinds(&child).into())
                }
            }
            fork => {
                assert!(fork > 0, "{}", std::io::Error::last_os_error());
                Self(fork)
            }
        }
    }

    fn status(self) -> ExitStatus {
        let mut status = 0;
        // SAFETY: the status is written to `status`.
        assert_eq!(unsafe { libc::waitpid(self.0, &raw mut status, 0) }, self.0);
        ExitStatus::from_raw(status)
    }
}

/// A panic in a fork must not go on into the test harness: here it aborts.
extern "C" fn never_unwinds<F: Fn() -> u8>(child: &F) -> u8 {
    child()
}

/// Gives back `held` references to a count that has none but these; whether zero was found, once and last.
fn zero_comes_last(count: &PerCpuRef, held: u64) -> bool {
    (1..=held).all(|put| (count.put() == Put::Zero) == (put == held)) && count.is_zero()
}

#[test]
fn counts_are_apart_after_a_fork() {
    const THREADS: u64 = 3;
    let count = PerCpuRef::new();
    let [taken, over] = [0, 1].map(|_| Barrier::new(THREADS as usize + 1));
    let held = 5 + 7 * THREADS;
    never_hang();
    count.get_many(5);
    let status = thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                count.get_many(7);
                taken.wait();
                over.wait();
            });
        }
        taken.wait();
        let fork = Fork::new(|| {
            for _ in 0..1000 {
                count.get();
            }
            for _ in 0..1000 {
                if !count.try_get_live() || count.put_many(2) != Put::Held {
                    return 1;
                }
            }
            match count.kill() {
                Put::Held if count.count() != Some(held) => 2,
                Put::Held if !count.try_get_live() && zero_comes_last(&count, held) => 0,
                _ => 3,
            }
        });
        // Meanwhile the original counts on.
        for _ in 0..1000 {
            count.get();
            assert_eq!(count.put(), Put::Held);
        }
        let status = fork.status();
        over.wait();
        status
    });
    assert!(status.success(), "the fork: {status}");
    assert_eq!((count.count(), count.is_dying()), (None, false));
    assert_eq!((count.kill(), count.count()), (Put::Held, Some(held)));
    assert!(zero_comes_last(&count, held));
}

#[test]
fn forks_made_while_another_thread_counts_are_exact() {
    never_hang();
    for round in 0..50 {
        let count = PerCpuRef::new();
        let (counted, stop) = (Barrier::new(2), AtomicBool::new(false));
        let status = thread::scope(|scope| {
            scope.spawn(|| {
                count.get();
                counted.wait();
                while !stop.load(Relaxed) {
                    count.get();
                    assert_eq!(count.put(), Put::Held);
                }
                let _ = count.put();
            });
            let _at_end = SetAtEnd(&stop);
            counted.wait();
            for _ in 0..round % 7 {
                thread::yield_now();
            }
            let fork = Fork::new(|| {
                count.get_many(3);
                if count.put() != Put::Held || count.kill() != Put::Held {
                    return 1;
                }
                match count.count() {
                    // What the other thread held when it vanished: one reference, or one more.
                    Some(3) => u8::from(!zero_comes_last(&count, 3)),
                    Some(4) => u8::from(!zero_comes_last(&count, 4)),
                    _ => 2,
                }
            });
            fork.status()
        });
        assert!(status.success(), "the fork in round {round}: {status}");
        assert_eq!((count.kill(), count.count()), (Put::Zero, Some(0)));
    }
}

#[test]
fn tags_are_apart_after_a_fork() {
    const N: u32 = 64;
    never_hang();
    for portable in [false, true] {
        let builder = Builder::new(N).batch(4);
        let tags = if portable { builder.portable() } else { builder }.tags().unwrap();
        let all = |held: &[u32]| {
            let mut seen = held.iter().fold(0_u64, |seen, tag| seen | 1 << tag);
            while let Ok(tag) = tags.try_take() {
                let bit = 1_u64 << tag.index();
                std::mem::forget(tag);
                if seen & bit != 0 {
                    return false;
                }
                seen |= bit;
            }
            seen == u64::MAX
        };
        // Some are held across the fork; others lie in this CPU's stock.
        let held =
            [(); 5].map(|()| tags.try_take().map(|tag| (tag.index(), std::mem::forget(tag)).0).unwrap());
        let fork = Fork::new(|| u8::from(!all(&held)));
        assert!(all(&held), "each once, here");
        let status = fork.status();
        assert!(status.success(), "the fork: {status}");
    }
}
