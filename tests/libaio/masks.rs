//! `io_pgetevents`: the mask holds while it sleeps, and no longer.

use super::api::*;
use ioctx::capi::{Handle, Iocb, command};
use ioctx::ring::Event;
use std::cell::Cell;
use std::ffi::c_long;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use std::{ptr, thread};

const SHORT: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
const LONG: libc::timespec = libc::timespec { tv_sec: 60, tv_nsec: 0 };

thread_local! {
    /// How often the handler has run, and whether the other signal was blocked then.
    static HANDLED: Cell<(u32, bool)> = const { Cell::new((0, false)) };
}

extern "C" fn handle(_: i32) {
    HANDLED.set((HANDLED.get().0 + 1, is_blocked(libc::SIGUSR2)));
}

fn set(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: ours, and made of numbers.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        signals.iter().for_each(|signal| assert_eq!(libc::sigaddset(&mut set, *signal), 0));
        set
    }
}

fn is_blocked(signal: i32) -> bool {
    let mut now = set(&[]);
    // SAFETY: asks for this thread's mask.
    unsafe {
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut now);
        libc::sigismember(&now, signal) == 1
    }
}

/// Both signals blocked, `SIGUSR1` with a handler; `f` in a thread of its own.
fn blocked<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: a handler that counts; `SA_RESTART`, which makes no difference. This thread's mask.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handle as *const () as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut());
                libc::pthread_sigmask(
                    libc::SIG_BLOCK,
                    &set(&[libc::SIGUSR1, libc::SIGUSR2]),
                    ptr::null_mut(),
                );
            }
            f()
        });
        thread.join().unwrap()
    })
}

/// Runs `f`, and sends this thread a signal meanwhile.
fn kicked<R>(f: impl FnOnce() -> R) -> R {
    // SAFETY: this thread, which waits for the one that uses it.
    let me = unsafe { libc::pthread_self() };
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(30));
            // SAFETY: as above.
            unsafe { libc::pthread_kill(me, libc::SIGUSR1) };
        });
        f()
    })
}

fn get<A: Api>(context: Handle, timeout: &libc::timespec, mask: &[i32]) -> c_long {
    A::masked_get_events(context, 1, 1, &mut Event::default(), timeout, &set(mask))
}

#[test]
fn signals_that_the_mask_lets_through_end_the_sleep_and_others_wait() {
    fn both<A: Api>() -> Vec<(c_long, (u32, bool), bool)> {
        let context = context::<A>(8);
        let mut seen = Vec::new();
        let mut see = |answer| seen.push((answer, HANDLED.get(), is_blocked(libc::SIGUSR1)));
        // SAFETY: this thread.
        let raise = || unsafe { libc::raise(libc::SIGUSR1) };
        see(get::<A>(context, &SHORT, &[]));
        // There before, and while it sleeps. The handler runs with the mask of the call.
        raise();
        see(get::<A>(context, &LONG, &[]));
        see(kicked(|| get::<A>(context, &LONG, &[])));
        see(kicked(|| get::<A>(context, &LONG, &[libc::SIGUSR2])));
        // Less than nothing is for ever.
        see(kicked(|| get::<A>(context, &libc::timespec { tv_sec: -1, tv_nsec: 0 }, &[])));
        // There, but not let through; then let through without a sleep, and nothing to get.
        raise();
        see(get::<A>(context, &SHORT, &[libc::SIGUSR1]));
        see(get::<A>(context, &libc::timespec { tv_sec: 0, tv_nsec: 0 }, &[]));
        // Events count more, and the handler runs all the same.
        let zero = std::fs::File::open("/dev/zero").unwrap();
        let mut ready = Iocb { buf: 1, ..request(command::POLL, zero.as_raw_fd(), 3) };
        see(submit_one::<A>(context, &mut ready));
        raise();
        see(get::<A>(context, &LONG, &[]));
        see(A::destroy(context));
        seen
    }
    assert_eq!(blocked(both::<Ours>), blocked(both::<Kernel>));
}

/// How often this thread has gone to sleep.
fn sleeps() -> i64 {
    // SAFETY: written by the call.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
        usage.ru_nvcsw
    }
}

#[test]
fn a_sleeper_is_woken_by_the_pool_and_by_other_threads_and_does_not_look_for_itself() {
    let context = context::<Ours>(8);
    let address = context.expose_provenance();
    let handle = move || ptr::with_exposed_provenance_mut(address);
    // Long enough for it to be asleep.
    let pause = || thread::sleep(Duration::from_millis(300));
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut buf = [0; 1];
    let mut read = transfer(command::PREAD, reader.as_raw_fd(), &mut buf, 0);
    for by_pool in [true, false, true, false] {
        if by_pool {
            assert_eq!(submit_one::<Ours>(context, &mut read), 1);
        }
        let sleeper = thread::spawn(move || {
            let (before, begun) = (sleeps(), Instant::now());
            let got = get::<Ours>(handle(), &LONG, &[]);
            (got, sleeps() - before, begun.elapsed())
        });
        pause();
        if by_pool {
            writer.write_all(b"x").unwrap();
        } else {
            assert_eq!(submit_one::<Ours>(context, &mut request(command::NOOP, -1, 1)), 1);
        }
        let (got, sleeps, took) = sleeper.join().unwrap();
        assert_eq!(got, 1);
        assert!(sleeps < 100, "{sleeps} sleeps are none");
        // When a sleeper looks by itself, if nobody wakes it.
        assert!(took < Duration::from_secs(9), "{took:?}: nobody has woken it");
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn many_threads_sleep_with_masks_and_each_gets_what_it_waits_for() {
    const THREADS: usize = 8;
    const TURNS: usize = 50;
    let shared = context::<Ours>(64).expose_provenance();
    let handle = |address| ptr::with_exposed_provenance_mut(address);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            // One that all read from, and each its own.
            scope.spawn(|| (0..TURNS).for_each(|_| assert_eq!(get::<Ours>(handle(shared), &LONG, &[]), 1)));
            scope.spawn(|| {
                let own = context::<Ours>(8);
                let (reader, mut writer) = std::io::pipe().unwrap();
                for _ in 0..TURNS {
                    let mut buf = [0; 1];
                    let mut read = transfer(command::PREAD, reader.as_raw_fd(), &mut buf, 0);
                    assert_eq!(submit_one::<Ours>(own, &mut read), 1);
                    let mut nothing = request(command::NOOP, -1, 1);
                    assert_eq!(submit_one::<Ours>(handle(shared), &mut nothing), 1);
                    thread::scope(|scope| {
                        scope.spawn(|| {
                            thread::yield_now();
                            writer.write_all(b"x").unwrap();
                        });
                        assert_eq!(get::<Ours>(own, &LONG, &[]), 1);
                    });
                }
                assert_eq!(Ours::destroy(own), 0);
            });
        }
    });
    assert_eq!(Ours::destroy(handle(shared)), 0);
}

#[test]
fn destroying_a_context_wakes_who_sleeps_with_a_mask() {
    let context = context::<Ours>(8);
    let address = context.expose_provenance();
    let sleeper = thread::spawn(move || get::<Ours>(ptr::with_exposed_provenance_mut(address), &LONG, &[]));
    thread::sleep(Duration::from_millis(50));
    assert_eq!(Ours::destroy(context), 0);
    assert_eq!(sleeper.join().unwrap(), -c_long::from(libc::EINVAL));
}
