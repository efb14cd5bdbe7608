//! `Uring`: waits for several events, which the kernel counts, and what has to end them.
#![cfg(ioctx_linux)]

mod support;

use ioctx::aio::{Backend, Context, Event, GetEventsError, Reason, Request};
use ioctx::backend::Uring;
use ioctx::wait::Outcome;
use std::fs::File;
use std::future::Future;
use std::io::{PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::task::Waker;
use std::thread;
use std::time::{Duration, Instant};
use support::{never_hang, skip};

/// All requests go through rings. `None` where there is no `io_uring`.
fn context(capacity: u32) -> Option<Context<Uring>> {
    never_hang();
    let uring = Uring::new(capacity).map_err(skip).ok()?;
    Some(Context::new(capacity, uring.inline_cached(false)).unwrap())
}

/// Reads from empty pipes, which end one by one, when something is written.
fn pipes(n: usize) -> (Vec<Request>, Vec<PipeWriter>) {
    let pipe = |_| {
        let (reader, writer) = std::io::pipe().unwrap();
        (Request::read(File::from(OwnedFd::from(reader)), vec![0; 1], 0), writer)
    };
    (0..n).map(pipe).unzip()
}

fn submit(context: &Context<Uring>, mut requests: Vec<Request>) {
    let n = requests.len();
    assert_eq!(context.submit_batch(&mut requests).unwrap(), n);
}

fn read(context: &Context<Uring>, min: usize) -> Result<Vec<Event>, GetEventsError> {
    let mut events = Vec::new();
    // Long past what anything here takes.
    let late = Instant::now() + Duration::from_secs(10);
    let done = context.get_events(min, 64, Some(late), &mut events);
    assert!(Instant::now() < late, "nobody woke");
    done.map(|_| events)
}

/// Long enough for a reader to fall asleep, on most days.
fn until_it_sleeps() {
    thread::sleep(Duration::from_millis(20));
}

/// How often the calling thread has slept so far.
fn sleeps() -> i64 {
    // SAFETY: all zero is valid, and it may be written.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
        usage.ru_nvcsw
    }
}

/// Runs `during` on another thread, once this one has fallen asleep in waiting for `min` events.
fn waits(
    context: &Context<Uring>,
    min: usize,
    during: impl FnOnce() + Send,
) -> Result<Vec<Event>, GetEventsError> {
    thread::scope(|scope| {
        scope.spawn(|| {
            until_it_sleeps();
            during();
        });
        read(context, min)
    })
}

/// As a thread that stays for as long as its requests are in flight: all in the ring of the same CPU.
fn on_one_cpu() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let mine = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|cpu| mine.is_set(*cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).unwrap();
}

#[test]
fn sixteen_of_sixteen_are_waited_for_in_one_sleep() {
    const N: usize = 16;
    let Some(context) = context(N as u32) else { return };
    thread::scope(|scope| {
        let (submitted, is_submitted) = mpsc::channel();
        let context = &context;
        let submitter = scope.spawn(move || {
            on_one_cpu();
            let (requests, writers) = pipes(N);
            submit(context, requests);
            submitted.send(()).unwrap();
            for mut writer in writers {
                until_it_sleeps();
                writer.write_all(b"x").unwrap();
            }
            // The kernel gives up what is submitted by a thread that ends.
            until_it_sleeps();
        });
        is_submitted.recv().unwrap();
        let before = sleeps();
        let events = read(context, N).unwrap();
        let slept = sleeps() - before;
        assert_eq!(events.len(), N);
        assert!(events.iter().all(|event| matches!(event.result, Ok(1))));
        assert!(slept <= 4, "slept {slept} times for {N} events that came one by one");
        submitter.join().unwrap();
    });
}

#[test]
fn a_wait_ends_when_the_last_is_done_elsewhere() {
    let Some(context) = context(8) else { return };
    for min in [1, 2, 3] {
        let (requests, mut writers) = pipes(2);
        submit(&context, requests);
        let elsewhere = || {
            // On the pool, which completes by itself.
            context.submit(Request::custom(|| Ok(7))).unwrap();
            writers.truncate(min - 1);
            writers.iter_mut().for_each(|writer| writer.write_all(b"x").unwrap());
            // The rest.
            until_it_sleeps();
        };
        assert!(waits(&context, min, elsewhere).unwrap().len() >= min);
        writers.clear();
        read(&context, context.outstanding() as usize).unwrap();
        assert_eq!(context.outstanding(), 0);
    }
}

#[test]
fn a_wait_ends_when_the_last_comes_by_another_ring() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Some(context) = context(8) else { return };
    let mine = sched_getaffinity(None).unwrap();
    let only = |cpu: &usize| {
        let mut one = CpuSet::new();
        one.set(*cpu);
        sched_setaffinity(None, &one).unwrap();
    };
    let cpus: Vec<_> = (0..CpuSet::MAX_CPU).filter(|cpu| mine.is_set(*cpu)).take(2).collect();
    let [first, other] = &cpus[..] else { return skip("there is one CPU") };
    // One that is made while the reader sleeps, and then one that was there.
    for _ in 0..2 {
        let (mut requests, mut writers) = pipes(2);
        let second = requests.pop().unwrap();
        only(first);
        submit(&context, requests);
        let during = || {
            only(other);
            context.submit(second).unwrap();
            until_it_sleeps();
            writers.iter_mut().for_each(|writer| writer.write_all(b"x").unwrap());
            // Not before its request.
            while context.outstanding() > 0 {
                thread::sleep(Duration::from_millis(1));
            }
        };
        assert_eq!(waits(&context, 2, during).unwrap().len(), 2);
    }
    sched_setaffinity(None, &mine).unwrap();
}

#[test]
fn cancelling_ends_a_wait() {
    let Some(context) = context(8) else { return };
    let (requests, _writers) = pipes(4);
    let ids: Vec<_> = requests.into_iter().map(|request| context.submit(request).unwrap()).collect();
    let during = || ids.iter().for_each(|id| context.cancel(*id).unwrap());
    let events = waits(&context, 4, during).unwrap();
    assert_eq!(events.len(), 4);
    assert!(events.iter().all(|event| event.result.is_err()));
}

#[test]
fn destroying_ends_a_wait_for_more_than_there_will_be() {
    let Some(context) = context(8) else { return };
    let (requests, _writers) = pipes(4);
    submit(&context, requests);
    let events = waits(&context, 6, || context.destroy(None).unwrap()).unwrap();
    assert_eq!(events.len(), 4);
    assert_eq!(read(&context, 1).unwrap_err(), GetEventsError::Dying);
}

#[test]
fn destroying_that_nobody_drives_ends_a_wait() {
    let Some(context) = context(8) else { return };
    let (requests, _writers) = pipes(4);
    submit(&context, requests);
    let events = waits(&context, 6, || drop(context.destroy_async())).unwrap();
    assert_eq!(events.len(), 4);
}

#[test]
fn a_deadline_and_a_signal_end_a_wait() {
    extern "C" fn nothing(_: libc::c_int) {}
    let Some(context) = context(8) else { return };
    let (requests, _writers) = pipes(4);
    submit(&context, requests);
    let mut events = Vec::new();
    let soon = Some(Instant::now() + Duration::from_millis(30));
    assert_eq!(context.get_events(4, 4, soon, &mut events), Ok(0));
    // SAFETY: all zero is valid, the handler touches nothing, and the thread waits for the signal.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
        let (sleeper, woke) = (libc::pthread_self(), AtomicBool::new(false));
        let interrupted = thread::scope(|scope| {
            // Again, if it was not asleep yet.
            scope.spawn(|| {
                while !woke.load(Relaxed) {
                    until_it_sleeps();
                    assert_eq!(libc::pthread_kill(sleeper, libc::SIGUSR1), 0);
                }
            });
            let read = read(&context, 4);
            woke.store(true, Relaxed);
            read
        });
        assert_eq!(interrupted.unwrap_err(), GetEventsError::Interrupted);
    }
}

#[test]
fn a_future_does_not_wait_for_what_a_reader_waits_for() {
    let Some(context) = context(8) else { return };
    // Of those in flight with it, and of those that come while the reader sleeps.
    for before in [true, false] {
        let (requests, mut writers) = pipes(4);
        let (awaited, mut writer) = pipes(1);
        let mut awaited = awaited.into_iter();
        let mut started = before.then(|| context.start(awaited.next().unwrap()).unwrap());
        submit(&context, requests);
        let during = || {
            let mut future =
                pin!(started.take().unwrap_or_else(|| context.start(awaited.next().unwrap()).unwrap()));
            until_it_sleeps();
            writer[0].write_all(b"x").unwrap();
            let deadline = Instant::now() + Duration::from_secs(5);
            let mut task = std::task::Context::from_waker(Waker::noop());
            while future.as_mut().poll(&mut task).is_pending() {
                assert!(Instant::now() < deadline, "the reader has not seen to it");
                thread::sleep(Duration::from_millis(1));
            }
            writers.iter_mut().for_each(|writer| writer.write_all(b"x").unwrap());
        };
        assert_eq!(waits(&context, 4, during).unwrap().len(), 4);
    }
}

#[test]
fn a_submitter_that_finds_the_context_full_gets_the_room_that_a_reader_waits_for() {
    let Some(context) = context(8) else { return };
    let (requests, mut writers) = pipes(8);
    submit(&context, requests);
    let during = || {
        writers.iter_mut().take(6).for_each(|writer| writer.write_all(b"x").unwrap());
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut next = Request::nop();
        loop {
            match context.submit(next) {
                Ok(_) => break,
                Err(refused) => {
                    assert!(matches!(refused.reason, Reason::Full), "{:?}", refused.reason);
                    assert!(Instant::now() < deadline, "the reader keeps the room");
                    next = refused.request;
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        context.submit(Request::nop()).unwrap();
    };
    assert_eq!(waits(&context, 8, during).unwrap().len(), 8);
    writers.clear();
    assert_eq!(read(&context, 2).map(|events| events.len()), Ok(2));
}

#[test]
fn nobody_takes_from_under_a_sleeper_what_is_to_wake_it() {
    let Some(context) = context(8) else { return };
    let (requests, _writers) = pipes(4);
    submit(&context, requests);
    let late = Some(Instant::now() + Duration::from_secs(10));
    // Woken between the last look and the sleep, with a reader that is quicker.
    let slept = context.backend().park(4, late, &mut |elsewhere, waker| {
        assert_eq!(elsewhere, 1);
        waker.wake_by_ref();
        context.backend().poll(&mut drop);
        true
    });
    assert_eq!(slept, Some(Outcome::Woken));
    // Of one who slept before, nothing is left.
    context.backend().poll(&mut drop);
    let soon = Some(Instant::now() + Duration::from_millis(30));
    assert_eq!(context.backend().park(4, soon, &mut |_, _| true), Some(Outcome::TimedOut));
    // One at a time sleeps so.
    let both = context.backend().park(4, soon, &mut |_, _| {
        assert_eq!(context.backend().park(4, soon, &mut |_, _| unreachable!()), None);
        false
    });
    assert_eq!(both, Some(Outcome::Woken));
}

#[test]
fn no_wake_up_is_lost_whatever_comes_from_where() {
    const EACH: u64 = 3000;
    let Some(context) = context(64) else { return };
    let context = &context;
    let read = AtomicU64::new(0);
    let file = Arc::new(tempfile::tempfile().unwrap());
    let null = Arc::new(File::open("/dev/null").unwrap());
    thread::scope(|scope| {
        let readers: Vec<_> = (1..=3)
            .map(|reader: u64| {
                let read = &read;
                scope.spawn(move || {
                    let mut state = reader;
                    let mut events = Vec::new();
                    loop {
                        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(reader);
                        let min = 1 + (state >> 60) as usize;
                        let late = Instant::now() + Duration::from_secs(10);
                        match context.get_events(min, 32, Some(late), &mut events) {
                            Ok(n) => {
                                read.fetch_add(n as u64, Relaxed);
                                assert!(Instant::now() < late || n >= min, "nobody woke for {min}");
                            }
                            Err(error) => {
                                assert_eq!(error, GetEventsError::Dying);
                                break;
                            }
                        }
                        events.clear();
                    }
                })
            })
            .collect();
        let poller = scope.spawn(|| {
            // Takes completions out from under the readers.
            let mut events = Vec::new();
            while let Ok(n) = context.get_events(0, 3, None, &mut events) {
                read.fetch_add(n as u64, Relaxed);
                events.clear();
            }
        });
        let submitters: Vec<_> = (0..3_u64)
            .map(|submitter| {
                let (file, null) = (&file, &null);
                scope.spawn(move || {
                    let mut batch = Vec::new();
                    let mut n = 0;
                    while n < EACH {
                        for i in 0..1 + n % 7 {
                            batch.push(match (n + i + submitter) % 5 {
                                0 => Request::custom(|| Ok(1)),
                                1 => Request::write(file.clone(), vec![1; 64], 64 * i),
                                2 => Request::read(file.clone(), vec![1; 64], 64 * i),
                                _ => Request::read(null.clone(), vec![1; 1], 0),
                            });
                        }
                        n += batch.len() as u64;
                        while !batch.is_empty() {
                            if context.submit_batch(&mut batch).is_err() {
                                thread::yield_now();
                            }
                        }
                        if n % 11 == 0 {
                            // Let all fall asleep.
                            thread::sleep(Duration::from_millis(1));
                        }
                    }
                    n
                })
            })
            .collect();
        let submitted: u64 = submitters.into_iter().map(|submitter| submitter.join().unwrap()).sum();
        context.destroy(None).unwrap();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        poller.join().unwrap();
        assert_eq!(read.load(Relaxed), submitted);
    });
}
