//! Those who wait for units, against those who put some back. A wake-up that is lost is a deadlock, which loom reports.

use super::Used;
use crate::harness::{Model, nothing};
use ioctx::credits::{Builder, Credits};
use ioctx::sync::atomic::{AtomicU32, Ordering::Relaxed};
use ioctx::sync::model::{set_cpu, use_sections};
use ioctx::sync::time::Instant;
use ioctx::sync::{Arc, thread};
use std::mem::forget;
use std::task::{Context, Poll, Wake, Waker};

fn build(n: u32, fair: bool) -> Credits {
    let builder = Builder::new(n).batch(1);
    if fair { builder } else { builder.unfair() }.credits().unwrap()
}

fn credits(n: u32, fair: bool) -> Arc<Used<Credits>> {
    Used::new(build(n, fair), n as usize)
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

/// Two units are put, one after the other, while somebody comes to wait for both: stocks are not opened under its feet.
fn waits_for_more() {
    use_sections(true);
    let used = credits(2, true);
    let two = [(); 2].map(|()| used.by.try_take(1).unwrap());
    assert!(used.by.try_take(1).is_err());
    let theirs = Arc::clone(&used);
    let thread = thread::spawn(move || {
        set_cpu(1);
        drop(theirs.by.take(2).unwrap());
    });
    drop(two);
    thread.join().unwrap();
    assert_eq!(used.by.available(), 2, "conserved");
}

/// Whether it was woken.
struct Bell(AtomicU32);

impl Wake for Bell {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(1, Relaxed);
    }
}

/// A unit is put while two wait for it, the first of whom leaves on another thread, by being dropped or by its deadline.
fn handed_on(fair: bool, dropped: bool) {
    let credits = Box::into_raw(Box::new(build(1, fair)));
    // SAFETY: freed below, when nobody uses it any more.
    let shared: &'static Credits = unsafe { &*credits };
    let credit = shared.try_take(1).unwrap();
    let mut first = Box::pin(shared.take_async(1));
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let leaves = thread::spawn(move || {
        set_cpu(1);
        if dropped {
            drop(first);
        } else {
            // Stands behind both.
            drop(shared.take_until(1, Instant::now()));
            drop(first);
        }
    });
    let bell = std::sync::Arc::new(Bell(AtomicU32::new(0)));
    let waker = Waker::from(std::sync::Arc::clone(&bell));
    let mut next = Box::pin(shared.take_async(1));
    if next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        drop(credit);
        leaves.join().unwrap();
        assert_eq!(bell.0.load(Relaxed), 1, "a wake-up is lost");
        assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    } else {
        unreachable!("the unit is not put yet");
    }
    drop(next);
    assert_eq!(shared.drain().len(), 1, "conserved");
    // SAFETY: made above, and the other thread has ended.
    drop(unsafe { Box::from_raw(credits) });
}

/// Two units are put by two threads, one of whom uses them when both are served.
fn two_puts() {
    let used = credits(2, true);
    let mut both = used.by.try_take(2).unwrap();
    assert!(used.by.try_take(1).is_err());
    let mut waits = Box::pin(used.by.take_async(2));
    assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    both.split_off(1).into_raw();
    both.into_raw();
    let theirs = Arc::clone(&used);
    let thread = thread::spawn(move || {
        set_cpu(1);
        theirs.touch(0);
        // SAFETY: one of the two above.
        drop(unsafe { theirs.by.from_raw(1) });
    });
    // SAFETY: the other one.
    drop(unsafe { used.by.from_raw(1) });
    if let Poll::Ready(both) = waits.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        used.touch(0);
        drop(both);
    }
    thread.join().unwrap();
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "credits.wait_put",
            checks: "credits.pool.join, credits.pool.serve: who waits is served, and sees what the last holder did",
            bound: Some(5),
            least: 26_520,
            body: || handed_to_and_fro(true),
            after: nothing,
        },
        Model {
            name: "credits.wait_put_unfair",
            checks: "the same if who waits has to ask again, and another may be quicker",
            bound: Some(2),
            least: 30_859,
            body: || handed_to_and_fro(false),
            after: nothing,
        },
        Model {
            name: "credits.wait_put_sections",
            checks: "the same where stocks are changed by sections",
            bound: Some(4),
            least: 3625,
            body: || {
                use_sections(true);
                handed_to_and_fro(true);
            },
            after: nothing,
        },
        Model {
            name: "credits.wait_timed_out",
            checks: "one whose time is up, and one who is dropped, when they are picked, give the unit to the next one",
            bound: None,
            least: 462,
            body: || handed_on(true, false),
            after: nothing,
        },
        Model {
            name: "credits.wait_timed_out_unfair",
            checks: "one whose time is up, and one who is dropped, when they were told, hand on to the next one",
            bound: None,
            least: 5961,
            body: || handed_on(false, false),
            after: nothing,
        },
        Model {
            name: "credits.wait_dropped",
            checks: "a future that is dropped when it is picked gives the unit to the next one",
            bound: None,
            least: 86,
            body: || handed_on(true, true),
            after: nothing,
        },
        Model {
            name: "credits.wait_dropped_unfair",
            checks: "a future that is dropped when it is picked hands on to the next one",
            bound: None,
            least: 20,
            body: || handed_on(false, true),
            after: nothing,
        },
        Model {
            name: "credits.wait_two_puts",
            checks: "credits.pool.serve: who is served what another thread has put sees what its holder did",
            bound: None,
            least: 530,
            body: two_puts,
            after: nothing,
        },
        Model {
            name: "credits.wait_more",
            checks: "one who begins to wait while a put is about to open the stocks",
            bound: Some(3),
            least: 107_416,
            body: waits_for_more,
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
