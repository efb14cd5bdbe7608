//! Bells, with real eventfds.

use super::Events;
use crate::harness::{Model, nothing};
use ioctx::sync::{Arc, thread};
use ioctx::wait::Bell;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

/// Whether the descriptor was written to.
fn is_readable(bell: impl AsFd) -> bool {
    let mut file = File::from(bell.as_fd().try_clone_to_owned().unwrap());
    file.read(&mut [0; 8]).is_ok()
}

pub(super) fn models() -> Vec<Model> {
    vec![
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
