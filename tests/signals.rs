//! Signals, while a reader sleeps and in the middle of everything.
#![cfg(target_os = "linux")]

use ioctx::credits::Builder;
use ioctx::refcount::{PerCpuRef, Put};
use ioctx::ring::{CompletionQueue, Event};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

extern "C" fn nothing(_: libc::c_int) {}

/// Installs a handler that does nothing and does not restart calls.
fn handle(signal: libc::c_int) {
    // SAFETY: an all-zero `sigaction` is valid; the handler touches nothing.
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    assert_eq!(installed, 0);
}

// Elsewhere the sleep goes on.
#[cfg(ioctx_linux)]
#[test]
fn a_signal_ends_a_wait_that_has_nothing_and_no_other() {
    use ioctx::aio::{Context, GetEventsError, Request};
    use ioctx::backend::Null;

    handle(libc::SIGUSR1);
    let context = Context::new(4, Null).unwrap();
    for already in [0, 1] {
        let ended = thread::scope(|scope| {
            let (told, tell) = std::sync::mpsc::channel();
            let reader = scope.spawn({
                let context = &context;
                move || {
                    // SAFETY: this thread's own identity.
                    told.send(unsafe { libc::pthread_self() }).unwrap();
                    context.get_events(2, 2, None, &mut Vec::new())
                }
            });
            let thread = tell.recv().unwrap();
            // Asleep before the event comes: too little to wake for, and there when the signal does.
            thread::sleep(Duration::from_millis(50));
            for _ in 0..already {
                context.submit(Request::nop()).unwrap();
            }
            // Again and again, since the first ones may come before the sleep.
            while !reader.is_finished() {
                thread::sleep(Duration::from_millis(5));
                // SAFETY: the thread is not joined before this scope ends its loop.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            }
            reader.join().unwrap()
        });
        // One event is not enough to return by itself, but it is more than an error.
        assert_eq!(ended, if already == 0 { Err(GetEventsError::Interrupted) } else { Ok(1) });
    }
}

#[test]
fn counts_are_exact_under_signals_and_migrations() {
    handle(libc::SIGUSR2);
    for round in 0..20 {
        let count = PerCpuRef::new();
        let (zeros, running) = (AtomicU32::new(0), AtomicBool::new(true));
        thread::scope(|scope| {
            let (told, tell) = std::sync::mpsc::channel();
            let users: Vec<_> = (0..6)
                .map(|user| {
                    let (count, zeros, told) = (&count, &zeros, told.clone());
                    scope.spawn(move || {
                        // SAFETY: this thread's own identity.
                        told.send(unsafe { libc::pthread_self() }).unwrap();
                        for i in 0_u32.. {
                            if !count.try_get_live() {
                                break;
                            }
                            if i % 64 == user {
                                migrate(i);
                            }
                            zeros.fetch_add(u32::from(count.put() == Put::Zero), Ordering::Relaxed);
                        }
                    })
                })
                .collect();
            let threads: Vec<_> = users.iter().map(|_| tell.recv().unwrap()).collect();
            let running = &running;
            let storm = scope.spawn(move || {
                while running.load(Ordering::Relaxed) {
                    for thread in &threads {
                        // SAFETY: joined only after the storm has ended.
                        unsafe { libc::pthread_kill(*thread, libc::SIGUSR2) };
                    }
                }
            });
            thread::sleep(Duration::from_millis(round + 5));
            zeros.fetch_add(u32::from(count.kill() == Put::Zero), Ordering::Relaxed);
            assert!(!count.try_get_live());
            running.store(false, Ordering::Relaxed);
            storm.join().unwrap();
            users.into_iter().for_each(|user| user.join().unwrap());
        });
        assert_eq!((zeros.into_inner(), count.count()), (1, Some(0)));
    }
}

#[test]
fn credits_and_tags_are_exact_under_signals_and_migrations() {
    const USERS: u32 = 6;
    handle(libc::SIGUSR2);
    // Enough for everybody's two, so that no refusal is right; and too few, so that everybody sweeps.
    for n in [2 * USERS, USERS, 64] {
        let (tags, credits) =
            (Builder::new(n).batch(2).tags().unwrap(), Builder::new(n).batch(2).credits().unwrap());
        let held: Vec<_> = (0..n).map(|_| AtomicBool::new(false)).collect();
        let (out, running) = (AtomicU32::new(0), AtomicBool::new(true));
        thread::scope(|scope| {
            let (told, tell) = std::sync::mpsc::channel();
            let users: Vec<_> = (0..USERS)
                .map(|user| {
                    let (tags, credits, held, out) = (&tags, &credits, &held, &out);
                    let (running, told) = (&running, told.clone());
                    scope.spawn(move || {
                        // SAFETY: this thread's own identity.
                        told.send(unsafe { libc::pthread_self() }).unwrap();
                        let mut refused = 0;
                        for i in 0_u32.. {
                            if !running.load(Ordering::Relaxed) {
                                break;
                            }
                            let both = [tags.try_take(), tags.try_take()];
                            for tag in both.iter().flatten() {
                                let before = held[tag.index() as usize].swap(true, Ordering::Acquire);
                                assert!(!before, "{} is in two hands", tag.index());
                            }
                            let credit = credits.try_take(2);
                            if let Ok(credit) = &credit {
                                let before = out.fetch_add(credit.len(), Ordering::Relaxed);
                                assert!(before + credit.len() <= n, "more out than there are");
                            }
                            refused +=
                                both.iter().filter(|tag| tag.is_err()).count() + usize::from(credit.is_err());
                            if i % 64 == user {
                                migrate(i);
                            }
                            if let Ok(credit) = credit {
                                out.fetch_sub(credit.len(), Ordering::Relaxed);
                            }
                            for tag in both.iter().flatten() {
                                held[tag.index() as usize].store(false, Ordering::Release);
                            }
                        }
                        refused
                    })
                })
                .collect();
            let threads: Vec<_> = users.iter().map(|_| tell.recv().unwrap()).collect();
            for _ in 0..300 {
                for thread in &threads {
                    // SAFETY: joined below.
                    unsafe { libc::pthread_kill(*thread, libc::SIGUSR2) };
                }
                thread::sleep(Duration::from_millis(1));
            }
            running.store(false, Ordering::Relaxed);
            let refused: usize = users.into_iter().map(|user| user.join().unwrap()).sum();
            assert!(refused == 0 || n < 2 * USERS, "{refused} were refused though there were enough");
        });
        assert_eq!((tags.available(), credits.available()), (n, n));
        assert_eq!(credits.try_take(n).unwrap().len(), n);
        let all: std::collections::HashSet<_> = std::iter::from_fn(|| tags.try_take().ok())
            .map(|tag| (tag.index(), std::mem::forget(tag)).0)
            .collect();
        assert_eq!(all.len() as u32, n);
    }
}

#[test]
fn lanes_are_exact_under_signals_and_migrations() {
    const PUBLISHERS: u64 = 6;
    const EVENTS: u64 = 40_000;
    handle(libc::SIGUSR2);
    let queue = CompletionQueue::new(256);
    let event = |data: u64| Event { data, obj: !data, res: data as i64, res2: -(data as i64) };
    let running = AtomicBool::new(true);
    let mut seen = vec![false; (PUBLISHERS * EVENTS) as usize];
    thread::scope(|scope| {
        let (told, tell) = std::sync::mpsc::channel();
        let publishers = (0..PUBLISHERS).map(|publisher| {
            let (queue, told) = (&queue, told.clone());
            scope.spawn(move || {
                // SAFETY: this thread's own identity.
                told.send(unsafe { libc::pthread_self() }).unwrap();
                let mut next = publisher * EVENTS;
                let end = next + EVENTS;
                while next < end {
                    let n = (1 + next % 20).min(end - next);
                    queue.publish(&(next..next + n).map(event).collect::<Vec<_>>());
                    next += n;
                    if next % 64 < n {
                        migrate(next as u32);
                    }
                }
            })
        });
        let publishers: Vec<_> = publishers.collect();
        let threads: Vec<_> = (0..PUBLISHERS).map(|_| tell.recv().unwrap()).collect();
        let running = &running;
        let storm = scope.spawn(move || {
            while running.load(Ordering::Relaxed) {
                for thread in &threads {
                    // SAFETY: joined only after the storm has ended.
                    unsafe { libc::pthread_kill(*thread, libc::SIGUSR2) };
                }
                thread::sleep(Duration::from_micros(200));
            }
        });
        let mut left = seen.len();
        while left > 0 {
            left -= queue.read(usize::MAX, |run| {
                for got in run {
                    assert_eq!(*got, event(got.data), "torn");
                    assert!(
                        !std::mem::replace(&mut seen[got.data as usize], true),
                        "{} came twice",
                        got.data
                    );
                }
            });
            thread::yield_now();
        }
        running.store(false, Ordering::Relaxed);
        storm.join().unwrap();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    });
    assert!(queue.is_empty());
}

/// Moves the calling thread to one CPU, as far as it may.
fn migrate(i: u32) {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    // SAFETY: an all-zero set is a valid one, and the size is its own.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(i as usize / 64 % cpus, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}
