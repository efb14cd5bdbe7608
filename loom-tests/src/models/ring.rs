//! Rings and lanes. Slots are tracked cells, so a torn event, an early overwrite and an early read are all
//! found.

use crate::harness::{Model, nothing};
use ioctx::ring::{CompletionQueue, Event, Refused, Ring};
use ioctx::sync::model::set_cpu;
use ioctx::sync::{Arc, thread};

pub(super) fn event(data: u64) -> Event {
    Event { data, obj: !data, res: data as i64, res2: 0 }
}

/// Reads what is there, checks that it is whole, and returns it.
fn read(ring: &Ring) -> Vec<u64> {
    let Some(mut reader) = ring.try_reader() else { return Vec::new() };
    let got: Vec<u64> = reader.peek(usize::MAX, |run| {
        run.iter().for_each(|got| assert_eq!(*got, event(got.data), "torn"));
        run.iter().map(|got| got.data).collect()
    });
    reader.commit(got.len());
    got
}

/// `publishers` threads publish one event each, the main thread tries to read meanwhile; then what was
/// published has been read, once.
fn publish_and_read(capacity: u32, start: u32, publishers: u64, reads: usize) {
    let ring = Arc::new(Ring::starting_at(capacity, start));
    let threads: Vec<_> = (0..publishers)
        .map(|data| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || ring.try_publish(event(data)).is_ok().then_some(data))
        })
        .collect();
    let mut got: Vec<u64> = (0..reads).flat_map(|_| read(&ring)).collect();
    let mut sent: Vec<u64> = threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
    got.extend(read(&ring));
    got.extend(read(&ring));
    got.sort_unstable();
    sent.sort_unstable();
    assert_eq!(got, sent);
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "ring.one_publisher",
            checks: "an event is whole when its index is public; a slot is read before it is written again",
            bound: None,
            least: 557,
            body: || {
                let ring = Arc::new(Ring::new(1));
                let theirs = Arc::clone(&ring);
                let thread = thread::spawn(move || {
                    (0..3).filter(|data| theirs.try_publish(event(*data)).is_ok()).collect::<Vec<_>>()
                });
                let mut got = read(&ring);
                got.extend(read(&ring));
                let sent = thread.join().unwrap();
                got.extend(read(&ring));
                assert_eq!(got, sent, "in order, none lost, none twice");
            },
            after: nothing,
        },
        Model {
            name: "ring.two_publishers",
            checks: "two publishers and a reader over two slots",
            bound: None,
            least: 2498,
            body: || publish_and_read(2, 0, 2, 1),
            after: nothing,
        },
        Model {
            name: "ring.two_publishers_wrap",
            checks: "the same where the indices wrap, over one slot: the ring is full, the copy of the head is handed on",
            bound: None,
            least: 5820,
            body: || publish_and_read(1, u32::MAX >> 1, 2, 1),
            after: nothing,
        },
        Model {
            name: "ring.head_handed_on",
            checks: "a publisher that writes where another one found room",
            bound: None,
            least: 2696,
            body: || {
                let ring = Arc::new(Ring::new(2));
                ring.try_publish_batch(&[event(0), event(1)]).unwrap();
                let publishers = [2, 3].map(|data| {
                    let ring = Arc::clone(&ring);
                    thread::spawn(move || ring.try_publish(event(data)))
                });
                let mut got = read(&ring);
                let sent = publishers.map(|thread| thread.join().unwrap());
                got.extend(read(&ring));
                assert_eq!(got.len(), 2 + sent.iter().filter(|sent| sent.is_ok()).count());
            },
            after: nothing,
        },
        Model {
            name: "ring.two_readers",
            checks: "readers claim one after the other: none reads what another has, none misses its head",
            bound: None,
            least: 31,
            body: || {
                let ring = Arc::new(Ring::new(2));
                ring.try_publish_batch(&[event(0), event(1)]).unwrap();
                let theirs = Arc::clone(&ring);
                let thread = thread::spawn(move || {
                    let Some(mut reader) = theirs.try_reader() else { return 0 };
                    let n = reader.peek(1, <[Event]>::len);
                    reader.commit(n);
                    n
                });
                let mut got = read(&ring).len();
                got += thread.join().unwrap();
                got += read(&ring).len();
                assert_eq!(got, 2);
                assert_eq!(ring.try_publish_batch(&[event(2), event(3)]), Ok(2));
            },
            after: nothing,
        },
        Model {
            name: "ring.slot_freed_by_another_reader",
            checks: "a publisher writes a slot only after every reader of it, through claim and head",
            bound: None,
            least: 1339,
            body: || {
                let ring = Arc::new(Ring::new(1));
                ring.try_publish(event(0)).unwrap();
                let theirs = Arc::clone(&ring);
                let looker = thread::spawn(move || {
                    if let Some(reader) = theirs.try_reader() {
                        // Looks and leaves: somebody else will commit.
                        reader.peek(1, |run| run.iter().for_each(|got| assert_eq!(*got, event(got.data))));
                    }
                });
                let theirs = Arc::clone(&ring);
                let publisher = thread::spawn(move || theirs.try_publish(event(1)));
                let mut got = read(&ring);
                let sent = publisher.join().unwrap();
                looker.join().unwrap();
                got.extend(read(&ring));
                got.extend(read(&ring));
                assert_eq!(got.len(), 1 + usize::from(sent.is_ok()));
            },
            after: nothing,
        },
        Model {
            name: "ring.len_is_modest",
            checks: "an onlooker never counts more than was published",
            bound: None,
            least: 30,
            body: || {
                let ring = Arc::new(Ring::new(4));
                let theirs = Arc::clone(&ring);
                let onlooker =
                    thread::spawn(move || assert!(theirs.len() <= 2, "counted events that never were"));
                ring.try_publish(event(0)).unwrap();
                ring.try_publish(event(1)).unwrap();
                assert_eq!(read(&ring).len(), 2);
                onlooker.join().unwrap();
                assert!(ring.is_empty());
            },
            after: nothing,
        },
        Model {
            name: "ring.batch_against_single",
            checks: "a batch stays together; a publisher that finds the tail taken is told so and loses nothing",
            bound: None,
            least: 31,
            body: || {
                let ring = Arc::new(Ring::new(4));
                let theirs = Arc::clone(&ring);
                let thread = thread::spawn(move || theirs.try_publish_batch(&[event(1), event(2)]));
                let single = ring.try_publish(event(9));
                let batch = thread.join().unwrap();
                let got = read(&ring);
                let want: &[u64] = match (single, batch) {
                    (Ok(()), Ok(2)) if got[0] == 9 => &[9, 1, 2],
                    (Ok(()), Ok(2)) => &[1, 2, 9],
                    (Ok(()), Err(Refused::Busy)) => &[9],
                    (Err(Refused::Busy), Ok(2)) => &[1, 2],
                    unexpected => panic!("{unexpected:?}"),
                };
                assert_eq!(got, want);
            },
            after: nothing,
        },
        Model {
            name: "queue.lanes",
            checks: "publishers on one CPU pass each other by in the other lane; a reader finds all",
            bound: None,
            least: 9131,
            body: || {
                let queue = Arc::new(CompletionQueue::with_lanes(2, 2));
                let threads = [1, 2].map(|data| {
                    let queue = Arc::clone(&queue);
                    thread::spawn(move || {
                        set_cpu(0);
                        queue.publish(&[event(data)]);
                    })
                });
                let mut got = Vec::new();
                queue.read(usize::MAX, |run| got.extend(run.iter().map(|got| got.data)));
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                queue.read(usize::MAX, |run| got.extend(run.iter().map(|got| got.data)));
                got.sort_unstable();
                assert_eq!(got, [1, 2]);
            },
            after: nothing,
        },
    ]
}
