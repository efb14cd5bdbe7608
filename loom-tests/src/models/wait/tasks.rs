//! Tasks, and bells, which are woken as tasks are.

use super::Events;
use crate::harness::{Model, nothing};
use ioctx::sync::{Arc, Parker, thread};
use ioctx::wait::{Bell, Listen};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
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

/// Whether the descriptor was written to.
fn is_readable(bell: impl AsFd) -> bool {
    let mut file = File::from(bell.as_fd().try_clone_to_owned().unwrap());
    file.read(&mut [0; 8]).is_ok()
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
        Model {
            name: "wait.bell",
            checks: "wait.sleeper.announce against wait.publisher.look, for a bell: the event is seen, or rings it",
            bound: None,
            least: 15,
            body: || {
                let events = Arc::new(Events::default());
                let theirs = Arc::clone(&events);
                let thread = thread::spawn(move || theirs.publish(true));
                let mut bell = Bell::new(&events.sleepers).unwrap();
                bell.arm(1);
                let seen = events.there() == 1;
                thread.join().unwrap();
                let rung = is_readable(&bell);
                assert!(seen || rung, "neither seen nor rung");
                assert_eq!(bell.clear(), rung, "rung without having been picked, or the other way round");
            },
            after: nothing,
        },
        Model {
            name: "wait.bell_dropped",
            checks: "a bell that is picked and disarmed hands on; one that is not is never rung",
            bound: Some(2),
            least: 334,
            body: || {
                let events = Arc::new(Events::default());
                let mut bell = Bell::new(&events.sleepers).unwrap();
                bell.arm(1);
                let theirs = Arc::clone(&events);
                let sleeper = thread::spawn(move || theirs.sleep_until(1));
                let theirs = Arc::clone(&events);
                let publisher = thread::spawn(move || theirs.publish(true));
                bell.disarm();
                drop(bell);
                sleeper.join().unwrap();
                publisher.join().unwrap();
            },
            after: nothing,
        },
    ]
}
