//! Rings under threads: handlers that nest, closing, slots that go round.

mod support;

use ioctx::ring::{AioRing, CompletionQueue, Event, Layout, NotPublished, Refused, ReservedRing, Ring};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;

const PUBLISHERS: u64 = 3;

fn event(publisher: u64, i: u64) -> Event {
    Event { data: publisher << 32 | i, obj: !i, res: i as i64, res2: -(i as i64) }
}

/// Publisher and number of an event that is whole.
fn number(got: Event) -> (usize, u64) {
    let (publisher, i) = (got.data >> 32, got.data & 0xffff_ffff);
    assert_eq!(got, event(publisher, i), "torn");
    (publisher as usize, i)
}

/// Publishes, in small batches, until refused for good or `each` are out; returns how many.
fn publish<L: Layout>(ring: &Ring<L>, publisher: u64, each: u64) -> u64 {
    let mut next = 0;
    while next < each {
        let batch: Vec<_> = (next..each.min(next + 1 + next % 3)).map(|i| event(publisher, i)).collect();
        match ring.try_publish_batch(&batch) {
            Ok(n) => next += n as u64,
            Err(Refused::Closed) => break,
            Err(Refused::Busy | Refused::Full) => thread::yield_now(),
        }
    }
    next
}

fn nested_consumers<L: Layout + Sync>(ring: &Ring<L>) {
    const EACH: u64 = 5_000;
    let handed = AtomicUsize::new(0);
    let lists: Vec<Vec<(usize, u64)>> = thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            scope.spawn(move || publish(ring, publisher, EACH));
        }
        let consumer = || {
            let mut got = Vec::new();
            while handed.load(Relaxed) < (PUBLISHERS * EACH) as usize {
                let mut n = ring.consume(3, |outer| {
                    got.push(number(outer));
                    let inner = ring.consume(2, |inner| got.push(number(inner)));
                    handed.fetch_add(inner, Relaxed);
                });
                handed.fetch_add(n, Relaxed);
                let mut out = Vec::new();
                n += ring.pop_into(&mut out, 2);
                handed.fetch_add(out.len(), Relaxed);
                got.extend(out.into_iter().map(number));
                if n == 0 {
                    thread::yield_now();
                }
            }
            got
        };
        let consumers = [scope.spawn(consumer), scope.spawn(consumer)];
        consumers.map(|consumer| consumer.join().unwrap()).into()
    });
    let mut all = Vec::new();
    for list in lists {
        let mut last = [None; PUBLISHERS as usize];
        for (publisher, i) in list {
            assert!(last[publisher].replace(i) < Some(i), "out of order");
            all.push((publisher, i));
        }
    }
    all.sort_unstable();
    assert!(all.into_iter().eq((0..PUBLISHERS as usize).flat_map(|p| (0..EACH).map(move |i| (p, i)))));
}

#[test]
fn nested_consumers_in_several_threads_get_each_event_once() {
    nested_consumers(&Ring::new(8));
    nested_consumers(&AioRing::with_capacity(7));
}

/// A run is of one lane, which has each publisher's events in order.
fn runs_are_in_order(queue: &CompletionQueue) {
    const EACH: u64 = 10_000;
    support::never_hang();
    let seen: Vec<_> = (0..PUBLISHERS * EACH).map(|_| AtomicUsize::new(0)).collect();
    let [read, wrong] = [(); 2].map(|()| AtomicUsize::new(0));
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            scope.spawn(move || {
                let mut next = 0;
                while next < EACH {
                    let end = EACH.min(next + 1 + next % 5);
                    queue.publish(&(next..end).map(|i| event(publisher, i)).collect::<Vec<_>>());
                    next = end;
                }
            });
        }
        for reader in 0..2 {
            let (seen, read, wrong) = (&seen, &read, &wrong);
            scope.spawn(move || {
                while read.load(Relaxed) < seen.len() {
                    let n = queue.read(7 + reader, |run| {
                        let mut last = [None; PUBLISHERS as usize];
                        for got in run {
                            let (publisher, i) =
                                (((got.data >> 32) % PUBLISHERS) as usize, (got.data & 0xffff_ffff) % EACH);
                            // Told in the end: publishers wait for whoever fails here.
                            if *got != event(publisher as u64, i) || last[publisher].replace(i) >= Some(i) {
                                wrong.fetch_add(1, Relaxed);
                            }
                            seen[publisher * EACH as usize + i as usize].fetch_add(1, Relaxed);
                        }
                    });
                    if n == 0 {
                        thread::yield_now();
                    }
                    read.fetch_add(n, Relaxed);
                }
            });
        }
    });
    assert_eq!(wrong.into_inner(), 0, "torn, or out of order");
    assert!(seen.iter().all(|times| times.load(Relaxed) == 1), "lost or doubled");
}

#[test]
fn each_run_of_a_queue_is_in_order() {
    for queue in [CompletionQueue::new(64), CompletionQueue::new(3), CompletionQueue::with_lanes(64, 3)] {
        runs_are_in_order(&queue);
    }
}

#[test]
fn what_was_published_before_closing_is_all_there_is() {
    for round in 0..300 {
        let ring = &AioRing::with_capacity(50);
        let (sent, got) = thread::scope(|scope| {
            let publishers: Vec<_> = (0..PUBLISHERS)
                .map(|publisher| scope.spawn(move || publish(ring, publisher, u64::MAX)))
                .collect();
            let mut got = Vec::new();
            for _ in 0..round {
                ring.pop_into(&mut got, 10);
            }
            let other = scope.spawn(|| ring.close());
            ring.close();
            assert_eq!(ring.try_publish(event(0, 0)), Err(Refused::Closed));
            while ring.pop_into(&mut got, 10) > 0 {}
            other.join().unwrap();
            assert!(ring.is_closed() && ring.is_empty());
            (publishers.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>(), got)
        });
        assert_eq!(sent, got.len() as u64);
        got.into_iter().for_each(|event| {
            number(event);
        });
    }
}

#[test]
fn slots_go_round_between_threads() {
    const EACH: u64 = 10_000;
    let (ring, mut slots) = ReservedRing::new(8);
    let (give, take) = mpsc::channel();
    give.send(slots.split_off(5).unwrap()).unwrap();
    give.send(slots).unwrap();
    let take = std::sync::Mutex::new(take);
    let left = thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let (ring, take) = (&ring, &take);
                scope.spawn(move || {
                    let mut mine = ring.no_slots();
                    for i in 0..EACH {
                        while mine.is_empty() {
                            mine.merge(take.lock().unwrap().recv().unwrap()).unwrap();
                        }
                        ring.publish(&mut mine, &[event(publisher, i)]).unwrap();
                    }
                    mine
                })
            })
            .collect();
        let mut next = [0; PUBLISHERS as usize];
        while next != [EACH; PUBLISHERS as usize] {
            let mut out = Vec::new();
            let freed = ring.try_reader().unwrap().pop_into(&mut out, 3);
            for (publisher, i) in out.into_iter().map(number) {
                assert_eq!(i, next[publisher], "lost, doubled or out of order");
                next[publisher] += 1;
            }
            if freed.is_empty() {
                thread::yield_now();
            } else {
                give.send(freed).unwrap();
            }
        }
        publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect::<Vec<_>>()
    });
    let mut all = ring.no_slots();
    for slots in left.into_iter().chain(take.into_inner().unwrap().try_iter()) {
        all.merge(slots).unwrap();
    }
    assert_eq!(all.len(), 8, "none lost, none made");
    ring.close();
    assert_eq!(ring.try_publish(&mut all, &[event(0, 0)]), Err(NotPublished::Closed));
}
