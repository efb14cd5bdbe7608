//! Tasks.

use super::Events;
use crate::harness::{Model, nothing};
use ioctx::sync::{Arc, Parker, thread};
use ioctx::wait::Listen;
use std::pin::pin;
use std::task::{Context, Poll, Wake, Waker};

/// Wakes the thread that polls.
#[derive(Default)]
struct Unpark(Parker);

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls until ready.
fn run(listen: Listen<'_>) {
    let mut listen = pin!(listen);
    for _ in 0..3 {
        let unpark = std::sync::Arc::new(Unpark::default());
        let waker = Waker::from(std::sync::Arc::clone(&unpark));
        if listen.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            return;
        }
        let _ = unpark.0.park(None);
    }
    panic!("woken, but not ready");
}

impl Events {
    /// [`sleep_until`](Self::sleep_until) for a task.
    fn listen_until(&self, min: u32) {
        for _ in 0..4 {
            let listen = self.sleepers.listen(min);
            if self.there() >= min {
                return;
            }
            run(listen);
        }
        assert!(self.there() >= min, "woken again and again for nothing");
    }
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "wait.task",
            checks: "wait.sleeper.announce against wait.publisher.look, for a task: looks, is ready, or is woken",
            bound: None,
            least: 337,
            body: || {
                let events = Arc::new(Events::default());
                let theirs = Arc::clone(&events);
                let thread = thread::spawn(move || theirs.publish(true));
                events.listen_until(1);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "wait.task_moves",
            checks: "a task that is polled by another waker while it is picked is woken by one that it still has",
            bound: None,
            least: 48,
            body: || {
                let events = Arc::new(Events::default());
                let mut listen = pin!(events.sleepers.listen(1));
                let first = listen.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert_eq!(first, Poll::Pending);
                let theirs = Arc::clone(&events);
                let thread = thread::spawn(move || theirs.publish(true));
                let unpark = std::sync::Arc::new(Unpark::default());
                let waker = Waker::from(std::sync::Arc::clone(&unpark));
                if listen.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                    let _ = unpark.0.park(None);
                    assert!(listen.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
                }
                assert_eq!(events.there(), 1);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "wait.task_dropped",
            checks: "a task that is picked and dropped hands on, polled before or not",
            bound: Some(2),
            least: 1646,
            body: || {
                let events = Arc::new(Events::default());
                let theirs = Arc::clone(&events);
                let fickle = thread::spawn(move || {
                    let mut listen = Box::pin(theirs.sleepers.listen(1));
                    if theirs.there() == 0 {
                        let polled = listen.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                        if polled.is_ready() {
                            // Told, and leaves without taking anything.
                            theirs.sleepers.notify(|| theirs.there());
                        }
                    }
                    drop(listen);
                });
                let theirs = Arc::clone(&events);
                let publisher = thread::spawn(move || theirs.publish(true));
                events.listen_until(1);
                fickle.join().unwrap();
                publisher.join().unwrap();
            },
            after: nothing,
        },
    ]
}
