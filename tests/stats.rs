//! What the feature `stats` counts: each number moves when, and only when, its thing happens.

use ioctx::credits::Credits;
use ioctx::refcount::{Gets, PerCpuRef, upgrades};
use ioctx::ring::{CompletionQueue, Event};
use ioctx::wait::EventCount;
use ioctx::{
    Context, Request,
    backend::{Null, Threads},
};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

/// Stays on one CPU from here on: on another it would find another stock, and another lane.
fn stay() {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let all = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
        let mut one = CpuSet::new();
        one.set(first);
        sched_setaffinity(None, &one).unwrap();
    }
}

/// Whether it holds when nothing interferes: a section that is interrupted takes from the pool instead.
fn undisturbed(holds: impl Fn() -> bool) -> bool {
    (0..20).any(|_| holds())
}

#[test]
fn a_batch_is_counted_once() {
    stay();
    let once = || {
        let credits = Credits::new(1 << 16);
        let held = credits.try_take(1).unwrap();
        let one = credits.stats();
        // What a stock has is taken without any of them.
        drop(credits.try_take(1).unwrap());
        let still = credits.stats();
        drop(held);
        assert!(credits.try_take(1 << 16).is_ok(), "a sweep brings all of them together");
        let swept = credits.stats();
        (one.refills, one.spills, one.sweeps) == (1, 0, 0)
            && still == one
            && (swept.refills, swept.sweeps) == (1, 1)
    };
    assert!(undisturbed(once));
}

#[test]
fn puts_spill() {
    stay();
    let credits = Credits::new(1 << 10);
    let held: Vec<_> = (0..1 << 10).map(|_| credits.try_take(1).unwrap()).collect();
    let before = credits.stats();
    drop(held);
    assert!(credits.stats().spills > before.spills, "no stock holds them all");
}

#[test]
fn sleeps_and_wakes_are_counted() {
    let count = EventCount::new();
    count.notify(|| 1);
    assert_eq!((count.stats().sleeps, count.stats().wakes), (0, 0), "nobody sleeps");
    let key = count.prepare_wait(1);
    count.notify(|| 0);
    assert_eq!((count.stats().sleeps, count.stats().wakes), (1, 0), "there is not enough");
    count.notify(|| 1);
    assert_eq!((count.stats().sleeps, count.stats().wakes), (1, 1));
    drop(key);
}

#[test]
fn lanes_passed_over_are_counted() {
    stay();
    let queue = CompletionQueue::with_lanes(4, 2);
    let event = Event::default();
    for _ in 0..4 {
        queue.publish_one(event);
    }
    assert_eq!(queue.stats().passed_over, 0, "each lane has room for four");
    queue.publish_one(event);
    assert_eq!((queue.stats().passed_over, queue.stats().waits), (1, 0), "the other one has room");
}

#[test]
fn upgrades_are_counted() {
    let before = upgrades();
    // Per CPU from the start is no upgrade.
    drop(PerCpuRef::new());
    assert_eq!(upgrades(), before);
    let count = PerCpuRef::builder().policy(Gets).build();
    // As often as it takes within a second, however slow the machine.
    while upgrades() == before {
        count.get();
        let _ = count.put();
    }
    assert_eq!(upgrades(), before + 1);
}

#[test]
fn a_context_sums_up() {
    stay();
    let context = Context::new(64, Null).unwrap();
    for _ in 0..64 {
        context.submit(Request::nop()).unwrap();
    }
    assert!(context.submit(Request::nop()).is_err());
    let stats = context.stats();
    assert_eq!(stats.outstanding, 64);
    assert!(stats.tags.refills >= 1 && stats.tags.sweeps >= 1, "{stats:?}");
    assert_eq!(context.get_events(64, 64, None, &mut Vec::new()), Ok(64));
    assert_eq!(context.stats().outstanding, 0);
}

#[test]
fn a_batch_wakes_one_thread_of_a_pool() {
    let threads = Threads::new(4).unwrap().inline_cached(false);
    let context = Context::new(64, threads).unwrap();
    let run = |n: usize| {
        let before = context.backend().stats();
        let mut batch: Vec<_> = (0..n).map(|_| Request::nop()).collect();
        assert_eq!(context.submit_batch(&mut batch).unwrap(), n);
        assert_eq!(context.get_events(n, n, None, &mut Vec::new()), Ok(n));
        context.backend().stats().woken_by_submitters - before.woken_by_submitters
    };
    for _ in 0..100 {
        assert!(run(32) <= 1);
    }
    // If it is asleep.
    let once = || {
        thread::sleep(Duration::from_millis(2));
        run(1) == 1
    };
    assert!(undisturbed(once));
    assert!((2..=4).contains(&context.backend().stats().started), "one that works and one to spare");
}

#[test]
fn threads_of_a_pool_wake_each_other_and_go() {
    let threads = Threads::new(3).unwrap().keep_idle(Duration::from_millis(10));
    let context = Context::new(64, threads).unwrap();
    let together = || {
        let barrier = Arc::new(Barrier::new(3));
        let wait = || {
            let barrier = Arc::clone(&barrier);
            Request::custom(move || {
                barrier.wait();
                Ok(1)
            })
        };
        let mut batch = vec![wait(), wait(), wait()];
        assert_eq!(context.submit_batch(&mut batch).unwrap(), 3);
        assert_eq!(context.get_events(3, 3, None, &mut Vec::new()), Ok(3));
        thread::sleep(Duration::from_millis(1));
        context.backend().stats().woken_by_threads > 0
    };
    assert!(undisturbed(together));
    assert!(context.backend().stats().started >= 3);
    let one_is_left = || {
        thread::sleep(Duration::from_millis(50));
        let stats = context.backend().stats();
        context.backend().threads() == 1 && stats.started - stats.ended == 1
    };
    assert!(undisturbed(one_is_left));
}
