//! Those who wait for units, against those who put some back. A wake-up that is lost is a deadlock, which loom reports.

use super::Used;
use crate::harness::{Model, nothing};
use ioctx::credits::{Builder, Credits};
use ioctx::sync::model::{set_cpu, use_sections};
use ioctx::sync::time::Instant;
use ioctx::sync::{Arc, thread};
use std::mem::forget;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

fn credits(n: u32, fair: bool) -> Arc<Used<Credits>> {
    let builder = Builder::new(n).batch(1);
    let builder = if fair { builder } else { builder.unfair() };
    Used::new(builder.credits().unwrap(), n as usize)
}

/// One who waits for the only unit, and uses it.
fn waits(used: &Used<Credits>, cpu: u32) {
    set_cpu(cpu);
    let credit = used.by.take(1).unwrap();
    used.touch(0);
    drop(credit);
}

/// Two who wait for each other's unit.
fn handed_to_and_fro(fair: bool) {
    let used = credits(1, fair);
    let theirs = Arc::clone(&used);
    let thread = thread::spawn(move || waits(&theirs, 1));
    waits(&used, 0);
    if !fair {
        // Quicker, perhaps, than the one who was told.
        waits(&used, 0);
    }
    thread.join().unwrap();
    assert_eq!(used.by.available(), 1, "conserved");
    assert!(used.by.try_take(1).is_ok());
}

/// A unit is put while two wait for it, one of whom leaves by `leave`, picked or not.
fn handed_on(fair: bool, leave: fn(&Used<Credits>)) {
    use_sections(true);
    // So many that stocks, once closed, are not opened for one unit: the schedules are of those who wait.
    let used = credits(4, fair);
    let credit = used.by.try_take(1).unwrap();
    forget(used.by.try_take(3).unwrap());
    assert!(used.by.try_take(1).is_err());
    let theirs = Arc::clone(&used);
    let impatient = thread::spawn(move || {
        set_cpu(1);
        leave(&theirs);
    });
    let theirs = Arc::clone(&used);
    let patient = thread::spawn(move || waits(&theirs, 1));
    used.touch(0);
    drop(credit);
    impatient.join().unwrap();
    patient.join().unwrap();
    assert_eq!(used.by.available(), 1, "conserved");
}

/// Whose time is up before it sleeps.
fn times_out(used: &Used<Credits>) {
    if let Ok(credit) = used.by.take_until(1, Instant::now()) {
        used.touch(0);
        drop(credit);
    }
}

/// Who is dropped instead of polled again.
fn dropped(used: &Used<Credits>) {
    let mut future = pin!(used.by.take_async(1));
    if let Poll::Ready(credit) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        used.touch(0);
        drop(credit);
    }
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "credits.wait_put",
            checks: "credits.pool.join, credits.pool.serve: who waits is served, and sees what the last holder did",
            bound: Some(5),
            least: 40_050,
            body: || handed_to_and_fro(true),
            after: nothing,
        },
        Model {
            name: "credits.wait_put_unfair",
            checks: "the same if who waits has to ask again, and another may be quicker",
            bound: Some(2),
            least: 51_103,
            body: || handed_to_and_fro(false),
            after: nothing,
        },
        Model {
            name: "credits.wait_put_sections",
            checks: "the same where stocks are changed by sections",
            bound: None,
            least: 221_318,
            body: || {
                use_sections(true);
                handed_to_and_fro(true);
            },
            after: nothing,
        },
        Model {
            name: "credits.wait_timed_out",
            checks: "one whose time is up when it is picked keeps the unit, and puts it for the next one",
            bound: Some(4),
            least: 94_296,
            body: || handed_on(true, times_out),
            after: nothing,
        },
        Model {
            name: "credits.wait_timed_out_unfair",
            checks: "one whose time is up when it is picked hands on to the next one",
            bound: Some(4),
            least: 71_983,
            body: || handed_on(false, times_out),
            after: nothing,
        },
        Model {
            name: "credits.wait_dropped",
            checks: "a future that is dropped when it is picked gives the unit to the next one",
            bound: Some(4),
            least: 68_040,
            body: || handed_on(true, dropped),
            after: nothing,
        },
        Model {
            name: "credits.wait_dropped_unfair",
            checks: "a future that is dropped when it is picked hands on to the next one",
            bound: Some(4),
            least: 62_361,
            body: || handed_on(false, dropped),
            after: nothing,
        },
        Model {
            name: "credits.wait_resize",
            checks: "a resize to more serves who waits",
            bound: None,
            least: 109,
            body: || {
                let used = credits(0, true);
                let theirs = Arc::clone(&used);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    // There are none at all, or one.
                    theirs.by.take(1).map(forget).is_ok()
                });
                assert_eq!(used.by.resize(1), Ok(0));
                let got = thread.join().unwrap();
                assert_eq!(used.by.available(), 1 - u32::from(got), "conserved");
            },
            after: nothing,
        },
    ]
}
