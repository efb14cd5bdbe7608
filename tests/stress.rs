//! More threads than processors, kill and destroy in the middle of work: nothing is lost, nothing comes
//! twice.

use ioctx::aio::{Context, GetEventsError, Reason, Request};
use ioctx::backend::{Null, Threads};
use ioctx::credits::{Builder, Handle};
use ioctx::refcount::{PerCpuRef, Put};
use ioctx::ring::{CompletionQueue, Event, Ring};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How much of everything.
mod cfg {
    pub(super) const THREADS: u64 = 8;
    pub(super) const EVENTS: u64 = 40_000;
    pub(super) const ROUNDS: u64 = 200;
}

fn event(data: u64) -> Event {
    Event { data, obj: !data, res: data as i64, res2: -(data as i64) }
}

/// Publishers with numbers of their own; what is read is whole, in order per publisher where `ordered`, and
/// complete.
fn publish_and_read(publish: impl Fn(Event) + Sync, read: impl Fn(&mut Vec<Event>) + Sync, ordered: bool) {
    let total = cfg::THREADS * cfg::EVENTS;
    let read_all = AtomicU64::new(0);
    let seen: Vec<AtomicU32> = (0..total).map(|_| AtomicU32::new(0)).collect();
    thread::scope(|scope| {
        for publisher in 0..cfg::THREADS {
            let publish = &publish;
            scope.spawn(move || (0..cfg::EVENTS).for_each(|i| publish(event(publisher * cfg::EVENTS + i))));
        }
        for _ in 0..if ordered { 1 } else { 2 } {
            scope.spawn(|| {
                let mut last = vec![None; cfg::THREADS as usize];
                let mut got = Vec::new();
                while read_all.load(Acquire) < total {
                    got.clear();
                    read(&mut got);
                    for one in &got {
                        assert_eq!(*one, event(one.data), "torn");
                        let before = seen[one.data as usize].fetch_add(1, Relaxed);
                        assert_eq!(before, 0, "{} came twice", one.data);
                        if ordered {
                            let last = &mut last[(one.data / cfg::EVENTS) as usize];
                            assert!(last.is_none_or(|last| last < one.data), "out of order");
                            *last = Some(one.data);
                        }
                    }
                    read_all.fetch_add(got.len() as u64, Release);
                    if got.is_empty() {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    assert!(seen.iter().all(|seen| seen.load(Relaxed) == 1), "one was lost");
}

#[test]
fn a_ring_loses_doubles_tears_and_reorders_nothing() {
    for (capacity, start) in [(2, 0), (64, (1 << 31) - 20_000)] {
        let ring = Ring::starting_at(capacity, start);
        let publish = |event| {
            while ring.try_publish(event).is_err() {
                thread::yield_now();
            }
        };
        let read = |out: &mut Vec<Event>| {
            let Some(mut reader) = ring.try_reader() else { return };
            let n = reader.peek(usize::MAX, |run| {
                out.extend_from_slice(run);
                run.len()
            });
            reader.commit(n);
        };
        publish_and_read(publish, read, true);
    }
}

#[test]
fn lanes_lose_double_and_tear_nothing() {
    for queue in [CompletionQueue::with_lanes(64, 3), CompletionQueue::new(64), CompletionQueue::new(1)] {
        let read = |out: &mut Vec<Event>| {
            queue.read(17, |run| out.extend_from_slice(run));
        };
        publish_and_read(|event| queue.publish(&[event]), read, false);
    }
}

#[test]
fn credits_and_tags_are_conserved() {
    let credits = Builder::new(10).batch(2).credits().unwrap();
    let tags = Builder::new(10).batch(2).tags().unwrap();
    let out = AtomicU32::new(0);
    let held: Vec<AtomicBool> = (0..10).map(|_| AtomicBool::new(false)).collect();
    let (got, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    thread::scope(|scope| {
        for i in 0..cfg::THREADS as u32 {
            let (credits, tags, out, held, got, refused) = (&credits, &tags, &out, &held, &got, &refused);
            scope.spawn(move || {
                for round in 0..cfg::EVENTS as u32 {
                    let n = (i + round) % 4;
                    if let Ok(credit) = credits.try_take(n) {
                        assert!(out.fetch_add(n, Relaxed) + n <= 10, "more out than there are");
                        out.fetch_sub(n, Relaxed);
                        drop(credit);
                        got.fetch_add(1, Relaxed);
                    } else {
                        refused.fetch_add(1, Relaxed);
                    }
                    if let Ok(tag) = tags.try_take() {
                        assert!(!held[tag.index() as usize].swap(true, Acquire), "in two hands");
                        held[tag.index() as usize].store(false, Release);
                    }
                }
            });
        }
    });
    assert_eq!((credits.available(), tags.available()), (10, 10));
    assert_eq!(credits.try_take(10).unwrap().len(), 10);
    assert_eq!(std::iter::from_fn(|| tags.try_take().ok()).collect::<Vec<_>>().len(), 10);
    assert!(got.into_inner() > 0);
}

#[test]
fn a_refusal_is_never_wrong() {
    // Never more out than there are credits: no take may be refused, whatever lies in whose stock.
    let credits = Builder::new(cfg::THREADS as u32).batch(2).credits().unwrap();
    let tags = Builder::new(cfg::THREADS as u32).batch(2).tags().unwrap();
    thread::scope(|scope| {
        for _ in 0..cfg::THREADS {
            scope.spawn(|| {
                for _ in 0..cfg::EVENTS {
                    drop(credits.try_take(1).expect("one is free"));
                    drop(tags.try_take().expect("one is free"));
                }
            });
        }
    });
}

#[test]
fn tags_in_batches_and_handles_while_they_become_fewer_and_more() {
    const MOST: u32 = 24;
    for portable in [false, true] {
        let builder = Builder::new(MOST).batch(2);
        let handles = if portable { builder.portable() } else { builder }.handles().unwrap();
        let held: Vec<AtomicBool> = (0..MOST).map(|_| AtomicBool::new(false)).collect();
        // Handles that are left for anybody to claim, each perhaps by several at once.
        let left: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
        let hold = |tag: u32| assert!(!held[tag as usize].swap(true, Acquire), "{tag} is in two hands");
        let let_go = |tag: u32| held[tag as usize].store(false, Release);
        let users = AtomicU64::new(cfg::THREADS);
        thread::scope(|scope| {
            for i in 0..cfg::THREADS as usize {
                let (handles, left, users) = (&handles, &left, &users);
                scope.spawn(move || {
                    for round in 0..cfg::EVENTS as usize / 8 {
                        let n = 1 + (i + round) as u32 % 6;
                        let tags = handles.tags();
                        let batch =
                            if round % 2 == 0 { tags.try_take_up_to(n) } else { tags.try_take_many(n) };
                        if let Ok(mut batch) = batch {
                            batch.iter().copied().for_each(hold);
                            let place = &left[(i + round) % left.len()];
                            if let Some(tag) = batch.pop() {
                                let handle = handles.leave(tag).unwrap();
                                let before = Handle::from_bits(place.swap(handle.to_bits(), AcqRel));
                                if let Ok(tag) = handles.claim(before) {
                                    let_go(tag.index());
                                }
                            }
                            batch.iter().copied().for_each(let_go);
                        }
                        // By many at once, with a handle that is old by now.
                        let handle = Handle::from_bits(left[round % left.len()].load(Acquire));
                        if let Ok(tag) = handles.claim(handle) {
                            let_go(tag.index());
                        }
                    }
                    users.fetch_sub(1, Relaxed);
                });
            }
            let mut n = MOST;
            while users.load(Relaxed) > 0 {
                n = 4 + (n * 7 + 3) % (MOST - 3);
                handles.tags().resize(n).unwrap();
                let batch = handles.tags().try_take_up_to(3);
                if let Ok(batch) = batch {
                    assert!(batch.iter().all(|tag| *tag < n), "withdrawn, and handed out");
                    batch.iter().copied().for_each(hold);
                    batch.iter().copied().for_each(let_go);
                }
                thread::yield_now();
            }
        });
        for handle in left {
            drop(handles.claim(Handle::from_bits(handle.into_inner())));
        }
        handles.tags().resize(MOST).unwrap();
        assert_eq!(handles.tags().drain().len() as u32, MOST);
    }
}

#[test]
fn zero_is_found_once_however_the_kill_falls() {
    for round in 0..cfg::ROUNDS {
        let count = Arc::new(PerCpuRef::new());
        let alive = Arc::new(AtomicBool::new(true));
        let zeros = Arc::new(AtomicUsize::new(0));
        let users: Vec<_> = (0..cfg::THREADS)
            .map(|_| {
                let (count, alive, zeros) = (Arc::clone(&count), Arc::clone(&alive), Arc::clone(&zeros));
                thread::spawn(move || {
                    while count.try_get_live() {
                        assert!(alive.load(Acquire), "used after release");
                        if count.put() == Put::Zero {
                            alive.store(false, Release);
                            zeros.fetch_add(1, Relaxed);
                        }
                    }
                })
            })
            .collect();
        thread::sleep(Duration::from_micros(round * 7 % 300));
        if count.kill() == Put::Zero {
            alive.store(false, Release);
            zeros.fetch_add(1, Relaxed);
        }
        assert!(!count.try_get_live());
        users.into_iter().for_each(|user| user.join().unwrap());
        assert_eq!(zeros.load(Relaxed), 1);
    }
}

/// Submitters and readers share one context until it is destroyed; what was accepted is read, once.
fn destroy_under_load<B: ioctx::aio::Backend + 'static>(
    context: Context<B>,
    request: impl Fn(u64) -> Request + Sync,
    after: Duration,
) {
    let accepted = AtomicU64::new(0);
    let sums = Mutex::new((0_u64, 0_u64));
    let sum_in = AtomicU64::new(0);
    thread::scope(|scope| {
        for thread in 0..cfg::THREADS {
            let (context, request, accepted, sum_in) = (&context, &request, &accepted, &sum_in);
            scope.spawn(move || {
                for i in (thread..).step_by(cfg::THREADS as usize) {
                    let mut next = request(i);
                    loop {
                        match context.submit(next) {
                            Ok(_) => break,
                            Err(refused) if matches!(refused.reason, Reason::Full) => {
                                assert_eq!(refused.request.user_data, i);
                                next = refused.request;
                                thread::yield_now();
                            }
                            Err(refused) => return assert!(matches!(refused.reason, Reason::Dying)),
                        }
                    }
                    accepted.fetch_add(1, Relaxed);
                    sum_in.fetch_add(i, Relaxed);
                }
            });
        }
        for min in [1, 5] {
            let (context, sums) = (&context, &sums);
            scope.spawn(move || {
                let mut events = Vec::new();
                while context.get_events(min, 64, None, &mut events) != Err(GetEventsError::Dying) {
                    let mut sums = sums.lock().unwrap();
                    for event in events.drain(..) {
                        if let Err(error) = event.result {
                            assert_eq!(
                                error.raw_os_error(),
                                Some(libc::ECANCELED),
                                "in the queue when destroyed"
                            );
                        }
                        sums.0 += 1;
                        sums.1 += event.request.user_data;
                    }
                }
            });
        }
        thread::sleep(after);
        assert_eq!(context.destroy(None), Ok(()));
    });
    let (read, sum_out) = sums.into_inner().unwrap();
    assert_eq!((read, sum_out), (accepted.into_inner(), sum_in.into_inner()));
    assert_eq!(context.outstanding(), 0);
}

#[test]
fn contexts_are_destroyed_under_load() {
    for round in 0..12 {
        let context = Context::new(16 << (round % 5), Null).unwrap();
        let request = |i| Request::nop().with_user_data(i);
        destroy_under_load(context, request, Duration::from_millis(round * 3));
    }
    let file = Arc::new(tempfile::tempfile().unwrap());
    for inline in [false, true] {
        let context = Context::new(32, Threads::new(3).unwrap().inline_cached(inline)).unwrap();
        let request = |i: u64| {
            let file = Arc::clone(&file);
            let offset = i % 64 * 512;
            let request = match i % 3 {
                0 => Request::write(file, vec![i as u8; 512], offset),
                _ => Request::read(file, vec![0; 512], offset),
            };
            request.with_user_data(i)
        };
        destroy_under_load(context, request, Duration::from_millis(150));
    }
    assert_eq!(Arc::strong_count(&file), 1, "no request is left");
}

#[test]
fn no_wake_up_is_lost_between_lone_events() {
    // One event at a time and a reader that has to sleep for each: a lost wake-up is a hang, which the
    // deadline turns into a failure.
    let context = Context::new(1, Null).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..cfg::EVENTS / 10 {
                while context.submit(Request::nop().with_user_data(i)).is_err() {
                    thread::yield_now();
                }
            }
        });
        let mut events = Vec::new();
        for i in 0..cfg::EVENTS / 10 {
            let deadline = Instant::now() + Duration::from_secs(20);
            assert_eq!(context.get_events(1, 1, Some(deadline), &mut events), Ok(1), "event {i} never came");
            assert_eq!(events.pop().unwrap().request.user_data, i);
        }
    });
}
