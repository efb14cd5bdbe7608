//! A publisher that is preempted between taking the tail and giving it back, at will: for tests.

use super::{CompletionQueue, Event, Refused, Ring};
use std::cell::RefCell;
use std::sync::{Arc, Barrier};
use std::thread;

thread_local! {
    /// Where this thread stops when it has taken a tail: before it goes on, somebody else comes here, twice.
    static HOLD: RefCell<Option<Arc<Barrier>>> = const { RefCell::new(None) };
}

/// Called with the tail taken.
pub(super) fn point() {
    let hold = HOLD.take();
    if let Some(hold) = hold {
        hold.wait();
        hold.wait();
    }
}

/// Runs `meanwhile` while another thread is held in `publish`.
fn while_held(publish: impl FnOnce() + Send, meanwhile: impl FnOnce()) {
    let hold = Arc::new(Barrier::new(2));
    thread::scope(|scope| {
        let theirs = Arc::clone(&hold);
        scope.spawn(move || {
            HOLD.set(Some(theirs));
            publish();
        });
        hold.wait();
        meanwhile();
        hold.wait();
    });
}

fn event(data: u64) -> Event {
    Event { data, ..Event::default() }
}

#[test]
fn seven_publishers_go_on_while_the_eighth_is_held() {
    const EACH: u64 = 2000;
    let queue = CompletionQueue::with_lanes(64, 3);
    let mut seen = vec![0; 7 * EACH as usize + 1];
    let mut read = |queue: &CompletionQueue| {
        queue.read(usize::MAX, |run| run.iter().for_each(|got| seen[got.data as usize] += 1))
    };
    while_held(
        || queue.publish_one(event(7 * EACH)),
        || {
            thread::scope(|scope| {
                for publisher in 0..7 {
                    let queue = &queue;
                    scope.spawn(move || {
                        (0..EACH).for_each(|i| queue.publish_one(event(publisher * EACH + i)));
                    });
                }
                let mut left = 7 * EACH as usize;
                while left > 0 {
                    left -= read(&queue);
                    thread::yield_now();
                }
            });
        },
    );
    assert_eq!(read(&queue), 1, "what was held comes after all");
    assert!(seen.iter().all(|times| *times == 1));
}

#[test]
fn a_single_ring_says_that_it_is_held() {
    let ring = Ring::new(4);
    while_held(
        || ring.try_publish(event(1)).unwrap(),
        || {
            assert_eq!(ring.try_publish(event(2)), Err(Refused::Busy));
            assert!(ring.is_empty(), "a reader is not held up");
        },
    );
    assert_eq!(ring.len(), 1);
}
