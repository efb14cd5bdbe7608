//! Lanes that sections append to. Places are tracked cells: a torn event, an early overwrite and an early read are all
//! found.

use crate::harness::{Model, nothing};
use ioctx::ring::{CompletionQueue, Event};
use ioctx::sync::atomic::{AtomicU32, Ordering::Relaxed};
use ioctx::sync::model::use_sections;
use ioctx::sync::{Arc, thread};

fn event(data: u64) -> Event {
    Event { data, obj: !data, res: data as i64, res2: 0 }
}

fn read(queue: &CompletionQueue) -> Vec<u64> {
    let mut all = Vec::new();
    queue.read(usize::MAX, |run| {
        run.iter().for_each(|got| assert_eq!(*got, event(got.data), "torn"));
        all.extend(run.iter().map(|got| got.data));
    });
    all
}

fn sorted(mut all: Vec<u64>) -> Vec<u64> {
    all.sort_unstable();
    all
}

fn queue(capacity: u32) -> Arc<CompletionQueue> {
    use_sections(true);
    let queue = Arc::new(CompletionQueue::new(capacity));
    assert_eq!(queue.lanes(), 3, "one for each CPU, and one for all");
    queue
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "ring.append",
            checks: "ring.append.tail: an event is whole when the tail is past it",
            bound: None,
            least: 76,
            body: || {
                let queue = queue(2);
                let theirs = Arc::clone(&queue);
                let thread = thread::spawn(move || {
                    theirs.publish(&[event(0), event(1)]);
                    theirs.publish_one(event(2));
                });
                let mut got = read(&queue);
                got.extend(read(&queue));
                thread.join().unwrap();
                got.extend(read(&queue));
                assert_eq!(sorted(got), [0, 1, 2]);
                assert!(queue.is_empty());
            },
            after: nothing,
        },
        Model {
            name: "ring.append_again",
            checks: "ring.append.commit: a place is written again only after it was read, wherever the next event goes",
            bound: None,
            least: 20,
            body: || {
                let (queue, done) = (queue(1), Arc::new(AtomicU32::new(0)));
                let (theirs, told) = (Arc::clone(&queue), Arc::clone(&done));
                let thread = thread::spawn(move || {
                    theirs.publish_one(event(0));
                    // Relaxed: that there is room must not be known by anything but the queue.
                    let again = told.load(Relaxed) == 1;
                    if again {
                        theirs.publish_one(event(1));
                    }
                    again
                });
                let mut got = read(&queue);
                done.store(got.len() as u32, Relaxed);
                got.extend(read(&queue));
                let again = thread.join().unwrap();
                got.extend(read(&queue));
                assert_eq!(sorted(got).len(), 1 + usize::from(again));
            },
            after: nothing,
        },
        Model {
            name: "ring.append_handed_on",
            checks: "ring.append.limit: a section writes where another thread has found room",
            bound: Some(3),
            least: 37_970,
            body: || {
                let queue = queue(2);
                queue.publish(&[event(0), event(1)]);
                let publishers = [2, 3].map(|data| {
                    let theirs = Arc::clone(&queue);
                    // To the shared lane, if no place is free yet.
                    thread::spawn(move || theirs.publish_one(event(data)))
                });
                let mut got = read(&queue);
                publishers.into_iter().for_each(|thread| thread.join().unwrap());
                got.extend(read(&queue));
                assert_eq!(sorted(got), [0, 1, 2, 3]);
            },
            after: nothing,
        },
        Model {
            name: "ring.append_two_readers",
            checks: "ring.append.claim: readers one after the other: none reads what another has, none misses its head",
            bound: Some(3),
            least: 31,
            body: || {
                let queue = queue(2);
                queue.publish(&[event(0), event(1)]);
                let theirs = Arc::clone(&queue);
                let thread = thread::spawn(move || {
                    let mut got = Vec::new();
                    theirs.read(1, |run| got.extend(run.iter().map(|event| event.data)));
                    got
                });
                let mut got = read(&queue);
                got.extend(thread.join().unwrap());
                got.extend(read(&queue));
                assert_eq!(sorted(got), [0, 1]);
            },
            after: nothing,
        },
        Model {
            name: "ring.append_len",
            checks: "an onlooker never counts more than was published, nor events that were read for many",
            bound: None,
            least: 34,
            body: || {
                let queue = queue(4);
                let theirs = Arc::clone(&queue);
                let onlooker =
                    thread::spawn(move || assert!(theirs.len() <= 2, "counted events that never were"));
                queue.publish_one(event(0));
                queue.publish_one(event(1));
                assert_eq!(read(&queue).len(), 2);
                onlooker.join().unwrap();
                assert!(queue.is_empty());
            },
            after: nothing,
        },
    ]
}
