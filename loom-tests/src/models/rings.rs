//! Closing, the kernel's layout, views, reserved slots and handlers that nest.

use super::ring::event;
use crate::harness::{Model, nothing};
use ioctx::ring::{AioRing, Event, Layout, Refused, ReservedRing, Ring, RingView, Slots};
use ioctx::sync::{Arc, Mutex, thread};

/// Takes what is there, checks that it is whole, and returns it.
fn pop<L: Layout>(ring: &Ring<L>) -> Vec<u64> {
    let mut out = Vec::new();
    ring.pop_into(&mut out, usize::MAX);
    whole(&out)
}

fn whole(events: &[Event]) -> Vec<u64> {
    events.iter().for_each(|got| assert_eq!(*got, event(got.data), "torn"));
    events.iter().map(|got| got.data).collect()
}

fn view(ring: &AioRing) -> RingView {
    // SAFETY: 1. to 3. every caller keeps the ring longer than the view.
    unsafe { RingView::new(ring.as_ptr(), ring.size()) }.unwrap()
}

/// What a view finds, in place.
fn peek(view: &mut RingView) -> Vec<u64> {
    let got = view.peek(usize::MAX, |run| run.iter().map(|cell| cell.get()).collect::<Vec<_>>());
    view.commit(got.len()).unwrap();
    whole(&got)
}

/// A ring for `capacity` events whose next one goes into the slot `at`.
fn aio_ring(capacity: u32, at: u32) -> Arc<AioRing> {
    let ring = AioRing::with_capacity(capacity);
    for _ in 0..at {
        ring.try_publish(event(0)).unwrap();
        assert_eq!(pop(&ring), [0]);
    }
    Arc::new(ring)
}

/// Two threads publish one event each, the main thread reads meanwhile; then what was published has been
/// read, once.
fn two_publishers(ring: &Arc<AioRing>, mut read: impl FnMut() -> Vec<u64>) {
    let threads = [1, 2].map(|data| {
        let ring = Arc::clone(ring);
        thread::spawn(move || ring.try_publish(event(data)).is_ok().then_some(data))
    });
    let mut got = read();
    let mut sent: Vec<u64> = threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
    got.extend(read());
    got.extend(read());
    got.sort_unstable();
    sent.sort_unstable();
    assert_eq!(got, sent);
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "ring.close_against_publish",
            checks: "who has closed can read all that was published; from then on publishers are refused",
            bound: None,
            least: 190,
            body: || {
                let ring = Arc::new(Ring::new(2));
                let theirs = Arc::clone(&ring);
                let thread = thread::spawn(move || {
                    let sent: Vec<_> = (0..2).map(|data| theirs.try_publish(event(data))).collect();
                    assert!(sent[0].is_ok() || sent[1] != Ok(()), "open again");
                    sent.into_iter().filter(Result::is_ok).count() as u64
                });
                ring.close();
                assert_eq!(ring.try_publish(event(9)), Err(Refused::Closed));
                let got = pop(&ring);
                assert_eq!(got, (0..thread.join().unwrap()).collect::<Vec<_>>());
                assert_eq!(ring.try_publish(event(9)), Err(Refused::Closed));
                assert_eq!(pop(&ring), []);
            },
            after: nothing,
        },
        Model {
            name: "ring.close_seen",
            checks: "whoever sees that a ring is closed can read all there will be",
            bound: None,
            least: 21,
            body: || {
                let ring = Arc::new(Ring::new(2));
                let theirs = Arc::clone(&ring);
                let reader = thread::spawn(move || {
                    let closed = theirs.is_closed();
                    let got = pop(&theirs);
                    assert!(!closed || got == [1]);
                    got.len()
                });
                ring.try_publish(event(1)).unwrap();
                ring.close();
                assert_eq!(reader.join().unwrap() + pop(&ring).len(), 1);
            },
            after: nothing,
        },
        Model {
            name: "ring.close_twice",
            checks: "two close against a publisher: either can read all there will be when it is done",
            bound: Some(3),
            least: 385,
            body: || {
                let ring = Arc::new(Ring::new(1));
                let theirs = Arc::clone(&ring);
                let publisher = thread::spawn(move || theirs.try_publish(event(1)).is_ok());
                let theirs = Arc::clone(&ring);
                let closer = thread::spawn(move || theirs.close());
                ring.close();
                let got = pop(&ring);
                assert!(ring.is_closed());
                closer.join().unwrap();
                assert_eq!(got.len(), usize::from(publisher.join().unwrap()));
                assert_eq!(ring.try_publish(event(2)), Err(Refused::Closed));
            },
            after: nothing,
        },
        Model {
            name: "ring.nested_consume",
            checks: "handlers that consume, and another thread that does: each event once and in order",
            bound: None,
            least: 402,
            body: || {
                let ring = Arc::new(Ring::new(2));
                ring.try_publish_batch(&[event(0), event(1)]).unwrap();
                let theirs = Arc::clone(&ring);
                let thread = thread::spawn(move || {
                    let mut got = Vec::new();
                    theirs.consume(1, |outer| got.push(outer));
                    whole(&got)
                });
                let mut got = Vec::new();
                ring.consume(2, |outer| {
                    got.push(outer);
                    ring.consume(1, |inner| got.push(inner));
                });
                let mut got = whole(&got);
                assert!(got.is_sorted());
                got.extend(thread.join().unwrap());
                got.extend(pop(&ring));
                got.sort_unstable();
                assert_eq!(got, [0, 1]);
            },
            after: nothing,
        },
        Model {
            name: "ring.nested_consume_refilled",
            checks: "a slot is written again while the handler of its event consumes",
            bound: None,
            least: 20,
            body: || {
                let ring = Arc::new(Ring::new(1));
                ring.try_publish(event(0)).unwrap();
                let theirs = Arc::clone(&ring);
                let publisher = thread::spawn(move || theirs.try_publish(event(1)).is_ok());
                let mut got = Vec::new();
                ring.consume(1, |outer| {
                    got.push(outer);
                    ring.consume(1, |inner| got.push(inner));
                });
                let sent = publisher.join().unwrap();
                let mut got = whole(&got);
                got.extend(pop(&ring));
                assert_eq!(got, (0..1 + u64::from(sent)).collect::<Vec<_>>());
            },
            after: nothing,
        },
        Model {
            name: "ring.aio_one_publisher",
            checks: "the kernel's layout with two slots: written before it is read, read before it is written again",
            bound: None,
            least: 283,
            body: || {
                let ring = aio_ring(1, 0);
                let theirs = Arc::clone(&ring);
                let thread = thread::spawn(move || {
                    (0..3).filter(|data| theirs.try_publish(event(*data)).is_ok()).collect::<Vec<_>>()
                });
                let mut got = pop(&ring);
                got.extend(pop(&ring));
                let sent = thread.join().unwrap();
                got.extend(pop(&ring));
                assert_eq!(got, sent, "in order, none lost, none twice");
            },
            after: nothing,
        },
        Model {
            name: "ring.aio_two_slots",
            checks: "two publishers and a reader over two slots, one of which stays empty, coming round",
            bound: None,
            least: 3961,
            body: || {
                let ring = aio_ring(1, 1);
                two_publishers(&ring, || pop(&ring));
            },
            after: nothing,
        },
        Model {
            name: "ring.aio_three_slots",
            checks: "two publishers and a reader over three slots, coming round, beginning with one unread",
            bound: Some(3),
            least: 2931,
            body: || {
                let ring = aio_ring(2, 2);
                ring.try_publish(event(0)).unwrap();
                let mut first = true;
                two_publishers(&ring, || {
                    let mut got = pop(&ring);
                    if std::mem::take(&mut first) {
                        assert_eq!(got.remove(0), 0);
                    }
                    got
                });
            },
            after: nothing,
        },
        Model {
            name: "ring.aio_len",
            checks: "an onlooker whose tail has come round to its head does not think that there is nothing",
            bound: None,
            least: 61,
            body: || {
                let ring = aio_ring(2, 0);
                ring.try_publish_batch(&[event(0), event(1)]).unwrap();
                let theirs = Arc::clone(&ring);
                let onlooker =
                    thread::spawn(move || assert!(!theirs.is_empty(), "there was one at any time"));
                assert_eq!(ring.try_reader().unwrap().pop(), Some(event(0)));
                ring.try_publish(event(2)).unwrap();
                onlooker.join().unwrap();
                assert_eq!(pop(&ring), [1, 2]);
            },
            after: nothing,
        },
        Model {
            name: "ring.view",
            checks: "a view of a ring that another thread writes: written before it is read, read before it is written again",
            bound: None,
            least: 98,
            body: || {
                let ring = aio_ring(1, 0);
                let mut view = view(&ring);
                let theirs = Arc::clone(&ring);
                let thread = thread::spawn(move || {
                    (0..3).filter(|data| theirs.try_publish(event(*data)).is_ok()).collect::<Vec<_>>()
                });
                let mut got = peek(&mut view);
                got.extend(peek(&mut view));
                let sent = thread.join().unwrap();
                got.extend(peek(&mut view));
                assert_eq!(got, sent, "in order, none lost, none twice");
            },
            after: nothing,
        },
        Model {
            name: "ring.view_two_publishers",
            checks: "a view while two threads publish, coming round",
            bound: None,
            least: 2520,
            body: || {
                let ring = aio_ring(1, 1);
                let mut view = view(&ring);
                two_publishers(&ring, || peek(&mut view));
            },
            after: nothing,
        },
        Model {
            name: "ring.reserved",
            checks: "with slots of one's own nothing overflows, and nobody looks at the head",
            bound: Some(3),
            least: 545,
            body: || {
                let (ring, mut slots) = ReservedRing::starting_at(2, u32::MAX >> 1);
                let ring = Arc::new(ring);
                let threads = [1, 2].map(|data| {
                    let (ring, mut slot) = (Arc::clone(&ring), slots.split_off(1).unwrap());
                    thread::spawn(move || ring.publish(&mut slot, &[event(data)]).unwrap())
                });
                let mut got = Vec::new();
                // Publishes again with what it has just read, against the two.
                if let Some((first, mut slot)) = ring.try_reader().unwrap().pop() {
                    got.push(first);
                    ring.publish(&mut slot, &[event(3)]).unwrap();
                    assert!(slot.is_empty());
                }
                let refilled = got.len();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                slots.merge(ring.try_reader().unwrap().pop_into(&mut got, 9)).unwrap();
                assert_eq!((slots.len(), got.len()), (2, 2 + refilled));
                let mut got = whole(&got);
                got.sort_unstable();
                assert_eq!(got, (1..3 + refilled as u64).collect::<Vec<_>>());
            },
            after: nothing,
        },
        Model {
            name: "ring.reserved_handed_on",
            checks: "slots that another thread has read: it writes the place that the first commit freed, or the second",
            bound: None,
            least: 64,
            body: || {
                let (ring, mut slots) = ReservedRing::new(2);
                ring.publish(&mut slots, &[event(0), event(1)]).unwrap();
                let shared = Arc::new((ring, Mutex::new(None::<Slots>)));
                let theirs = Arc::clone(&shared);
                let thread = thread::spawn(move || {
                    let Some(mut slot) = theirs.1.lock().take() else { return 0 };
                    theirs.0.publish(&mut slot, &[event(2)]).unwrap();
                    1
                });
                let (ring, place) = &*shared;
                let mut reader = ring.try_reader().unwrap();
                let (first, mut mine) = reader.pop().unwrap();
                let (second, yours) = reader.pop().unwrap();
                assert_eq!(whole(&[first, second]), [0, 1]);
                *place.lock() = Some(yours);
                ring.publish(&mut mine, &[event(3)]).unwrap();
                let sent = 1 + thread.join().unwrap();
                let mut out = Vec::new();
                assert_eq!(reader.pop_into(&mut out, 9).len(), sent);
                whole(&out);
            },
            after: nothing,
        },
    ]
}
