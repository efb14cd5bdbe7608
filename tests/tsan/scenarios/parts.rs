//! Counts, credits, tags and rings: each hands payloads over, and nothing else does.

use super::raw::{Lock, Payload, THREADS, run, touch_all, until};
use ioctx::credits::{Builder, Handle};
use ioctx::refcount::{Moves, Owner, PerCpuRef, Policy, Put};
use ioctx::ring::{AioRing, CompletionQueue, Event, Layout, ReservedRing, Ring};
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};

const ROUNDS: usize = 30;
const TURNS: usize = 60;

/// Whoever finds zero has every holder's word alone.
fn last_holder<P: Policy>(planted: bool, count: &PerCpuRef<P>, meanwhile: impl Fn(usize, usize) + Sync) {
    let words = Payload::many(THREADS);
    let zeros = AtomicU32::new(0);
    count.get_many(THREADS as u32);
    run(&|place| {
        let told = |put| {
            if put == Put::Zero {
                zeros.fetch_add(1, Relaxed);
                // SAFETY: 1. the others have put their references, the last thing they do.
                unsafe { touch_all(&words) };
            }
        };
        for turn in 0..TURNS {
            count.get();
            // SAFETY: 1. this thread's, until its last reference is put.
            unsafe { words[place].touch() };
            told(count.put());
            if (place, turn) == (0, TURNS / 2) {
                told(count.kill());
            }
            meanwhile(place, turn);
        }
        told(count.put());
        if planted {
            // SAFETY: 1. to be found out.
            unsafe { words[place].touch() };
        }
    });
    assert_eq!(zeros.into_inner(), 1);
}

pub fn counts(planted: bool) {
    for _ in 0..ROUNDS {
        last_holder(planted, &PerCpuRef::new(), |_, _| ());
        last_holder(planted, &PerCpuRef::builder().atomic().build(), |_, _| ());
        last_holder(planted, &PerCpuRef::builder().policy(Moves).build(), |_, _| ());
    }
}

pub fn counts_that_change_their_mode(planted: bool) {
    for round in 0..ROUNDS {
        let count = PerCpuRef::new();
        last_holder(planted, &count, |place, turn| match (place, (turn + round) % 6) {
            (1, 0) => count.switch_to_atomic(),
            (1, 3) => count.switch_to_percpu(),
            _ => (),
        });
    }
}

/// Touches what it guards when nobody else can any more.
struct Guarded<'a>(&'a [Payload]);

impl Drop for Guarded<'_> {
    fn drop(&mut self) {
        // SAFETY: 1. no handle is left.
        unsafe { touch_all(self.0) };
    }
}

pub fn owners(planted: bool) {
    for round in 0..ROUNDS {
        let words = Payload::many(THREADS);
        let owner = Owner::new(Guarded(&words));
        let weak = owner.downgrade();
        let owner = Lock::new(Some(owner));
        let weaks = Lock::new((0..THREADS).map(|_| weak.clone()).collect::<Vec<_>>());
        drop(weak);
        run(&|place| {
            let weak = weaks.with(Vec::pop).unwrap();
            for turn in 0.. {
                let Some(handle) = weak.upgrade() else { break };
                // SAFETY: 1. this thread's, while it has a handle.
                unsafe { handle.clone().0[place].touch() };
                if (place, turn) == (0, round % TURNS) {
                    let dying = owner.with(Option::take).unwrap().kill();
                    drop(handle);
                    until(|| dying.is_released().then_some(()));
                    // SAFETY: 1. it was dropped, and that was the last to use them.
                    unsafe { touch_all(&words) };
                }
            }
            if planted {
                // SAFETY: 1. to be found out.
                unsafe { words[place].touch() };
            }
        });
    }
}

pub fn credits(planted: bool) {
    for _ in 0..ROUNDS / 5 {
        let credits = Builder::new(2).batch(1).credits().unwrap();
        let word = Payload::default();
        run(&|place| {
            for turn in 0..TURNS {
                if (turn + place) % 4 == 0 {
                    drop(credits.try_take(1));
                }
                let all = if turn % 3 == 0 {
                    let mut taken = pin!(credits.take_async(2));
                    until(|| match taken.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(taken) => Some(taken.unwrap()),
                        Poll::Pending => None,
                    })
                } else {
                    until(|| credits.try_take(2).ok())
                };
                // SAFETY: 1. every unit is ours.
                unsafe { word.touch() };
                all.put();
            }
            if planted {
                // SAFETY: 1. to be found out.
                unsafe { word.touch() };
            }
        });
        // SAFETY: 1. all threads have ended.
        assert!(planted || unsafe { word.touched() } == (THREADS * TURNS) as u64);
    }
}

pub fn tags(planted: bool) {
    for n in [1, 2, 8] {
        let tags = Builder::new(n).batch(n.div_ceil(4)).tags().unwrap();
        let words = Payload::many(n as usize);
        run(&|_| {
            for turn in 0..ROUNDS * TURNS {
                if turn % 16 == 0 {
                    // SAFETY: 1. a tag is in one hand.
                    tags.drain().iter().for_each(|tag| unsafe { words[*tag as usize].touch() });
                }
                let Ok(tag) = tags.try_take() else { continue };
                // SAFETY: 1. as above.
                unsafe { words[tag.index() as usize].touch() };
                tag.put();
            }
            if planted {
                // SAFETY: 1. to be found out.
                unsafe { touch_all(&words) };
            }
        });
        assert_eq!(tags.available(), n);
    }
}

pub fn handles(planted: bool) {
    let handles = Builder::new(4).batch(1).handles().unwrap();
    let words = Payload::many(4);
    // Says which, and orders nothing.
    let left = AtomicU64::new(u64::MAX);
    // SAFETY: 1. a tag is in one hand.
    let touch = |index: u32| unsafe { words[index as usize].touch() };
    run(&|_| {
        for _ in 0..ROUNDS * TURNS {
            if let Ok(tag) = handles.tags().try_take() {
                touch(tag.index());
                let mine = handles.leave(tag).unwrap().to_bits();
                let theirs = left.swap(mine, Relaxed);
                if let Ok(tag) = handles.claim(Handle::from_bits(theirs)) {
                    touch(tag.index());
                }
            }
        }
        if planted {
            (0..4).for_each(touch);
        }
    });
    drop(handles.claim(Handle::from_bits(left.into_inner())));
    assert_eq!(handles.tags().available(), 4);
}

/// Two threads publish which words they have touched, one reads and touches them.
fn published(planted: bool, publish: impl Fn(&[Event]) + Sync, read: impl Fn(&mut dyn FnMut(&Event)) + Sync) {
    const EACH: usize = 400;
    let words = Payload::many(2 * EACH);
    let got = AtomicUsize::new(0);
    run(&|place| {
        if place < 2 {
            let mine = place * EACH..(place + 1) * EACH;
            let batches: Vec<_> = mine.clone().collect();
            for batch in batches.chunks(1 + place) {
                // SAFETY: 1. not published yet.
                batch.iter().for_each(|word| unsafe { words[*word].touch() });
                let events: Vec<_> =
                    batch.iter().map(|word| Event { data: *word as u64, ..Event::default() }).collect();
                publish(&events);
            }
            if planted {
                // SAFETY: 1. to be found out.
                mine.for_each(|word| unsafe { words[word].touch() });
            }
            // They read as well, once they have published.
        }
        while got.load(Relaxed) < words.len() {
            let mut n = 0;
            read(&mut |event| {
                // SAFETY: 1. published, and read once.
                unsafe { words[event.data as usize].touch() };
                n += 1;
            });
            got.fetch_add(n, Relaxed);
            std::thread::yield_now();
        }
    });
    // SAFETY: 1. all threads have ended.
    assert!(planted || words.iter().all(|word| unsafe { word.touched() } == 2), "once by each side");
}

pub fn rings(planted: bool) {
    fn ring<L: Layout + Sync>(planted: bool, ring: &Ring<L>) {
        let publish = |mut events: &[Event]| {
            while !events.is_empty() {
                let n = ring.try_publish_batch(events).unwrap_or(0);
                events = &events[n..];
                std::thread::yield_now();
            }
        };
        published(planted, publish, |f| {
            ring.consume(3, |event| f(&event));
        });
    }
    ring(planted, &Ring::new(4));
    ring(planted, &AioRing::with_capacity(3));

    let (reserved, slots) = ReservedRing::new(4);
    let slots = Lock::new(slots);
    published(
        planted,
        |events| {
            let mut mine = until(|| slots.with(|slots| slots.split_off(events.len())));
            until(|| reserved.try_publish(&mut mine, events).ok());
        },
        |f| {
            let Some(mut reader) = reserved.try_reader() else { return };
            let n = reader.peek(2, |run| {
                run.iter().for_each(&mut *f);
                run.len()
            });
            let read = reader.commit(n);
            slots.with(|slots| slots.merge(read)).unwrap();
        },
    );
}

pub fn queues(planted: bool) {
    for queue in
        [CompletionQueue::new(8), CompletionQueue::with_lanes(8, 1), CompletionQueue::with_lanes(8, 3)]
    {
        let publish = |events: &[Event]| queue.publish(events);
        published(planted, publish, |f| {
            queue.read(5, |run| run.iter().for_each(&mut *f));
        });
    }
}
