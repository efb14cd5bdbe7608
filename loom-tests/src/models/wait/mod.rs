//! Sleep against publish. A lost wake-up is a deadlock, which loom reports.

#[cfg(target_os = "linux")]
mod bells;
mod light;
mod tasks;

use crate::harness::{Model, nothing};
use ioctx::sync::atomic::{AtomicU32, Ordering::Relaxed};
use ioctx::sync::cell::UnsafeCell;
use ioctx::sync::time::Instant;
use ioctx::sync::{Arc, thread};
use ioctx::wait::{EventCount, Gate, Outcome};

#[derive(Default)]
struct Events {
    there: AtomicU32,
    sleepers: EventCount,
}

impl Events {
    /// One event, published by a plain store or by a read-modify-write.
    fn publish(&self, plain: bool) {
        if plain {
            // Relaxed: only the fence of `notify` may order it.
            self.there.store(1, Relaxed);
            self.sleepers.notify(|| self.there());
        } else {
            self.there.fetch_add(1, Relaxed);
            self.sleepers.notify_after_rmw(|| self.there());
        }
    }

    fn there(&self) -> u32 {
        // Relaxed: only the fence of `prepare_wait` may order it.
        self.there.load(Relaxed)
    }

    /// Takes `n` events, if they are there.
    fn take(&self, n: u32) -> bool {
        // Relaxed: as above.
        self.there.fetch_update(Relaxed, Relaxed, |there| there.checked_sub(n)).is_ok()
    }

    /// Sleeps until `n` events are there, and takes them; what is left is for the next.
    fn sleep_and_take(&self, n: u32) {
        for _ in 0..4 {
            let key = self.sleepers.prepare_wait(n);
            if self.take(n) {
                // If it was picked, dropping the key wakes the others.
                return;
            }
            let _ = key.wait(None);
            if self.take(n) {
                return self.sleepers.notify_after_rmw(|| self.there());
            }
        }
        panic!("woken again and again for nothing");
    }

    /// Sleeps until `min` events are there.
    fn sleep_until(&self, min: u32) {
        // Bounded: a sleeper can be woken for nothing, but not for ever.
        for _ in 0..4 {
            let key = self.sleepers.prepare_wait(min);
            if self.there() >= min {
                return;
            }
            let _ = key.wait(None);
        }
        assert!(self.there() >= min, "woken again and again for nothing");
    }
}

pub(super) fn models() -> Vec<Model> {
    let parts = [
        threads(),
        tasks::models(),
        light::models(),
        #[cfg(target_os = "linux")]
        bells::models(),
    ];
    parts.into_iter().flatten().collect()
}

fn threads() -> Vec<Model> {
    vec![
        Model {
            name: "wait.sleep_publish",
            checks: "wait.sleeper.announce against wait.publisher.look: either it does not sleep or it is woken",
            bound: None,
            least: 736,
            body: || {
                let events = Arc::new(Events::default());
                let theirs = Arc::clone(&events);
                let thread = thread::spawn(move || theirs.publish(true));
                events.sleep_until(1);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "wait.two_publishers",
            checks: "two publishers, a sleeper that wants both events: whoever makes up the number knows",
            bound: Some(3),
            least: 9591,
            body: || {
                let events = Arc::new(Events::default());
                let threads = [(); 2].map(|()| {
                    let events = Arc::clone(&events);
                    thread::spawn(move || events.publish(false))
                });
                events.sleep_until(2);
                threads.into_iter().for_each(|thread| thread.join().unwrap());
            },
            after: nothing,
        },
        Model {
            name: "wait.two_sleepers",
            checks: "one event wakes one of two sleepers, and the one that leaves hands on",
            bound: Some(3),
            least: 33_820,
            body: || {
                let events = Arc::new(Events::default());
                let theirs = Arc::clone(&events);
                let sleeper = thread::spawn(move || {
                    theirs.sleep_until(1);
                    theirs.sleepers.notify(|| theirs.there());
                });
                let theirs = Arc::clone(&events);
                let publisher = thread::spawn(move || theirs.publish(true));
                events.sleep_until(1);
                events.sleepers.notify(|| events.there());
                sleeper.join().unwrap();
                publisher.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "wait.timed_out_sleeper",
            checks: "a sleeper whose time is up while it is picked hands the wake-up on",
            bound: Some(3),
            least: 15_134,
            body: || {
                let events = Arc::new(Events::default());
                let theirs = Arc::clone(&events);
                let impatient = thread::spawn(move || {
                    let key = theirs.sleepers.prepare_wait(1);
                    if theirs.there() == 0 && key.wait(Some(Instant::now())) == Outcome::Woken {
                        // Leaves without taking anything.
                        theirs.sleepers.notify(|| theirs.there());
                    }
                });
                let theirs = Arc::clone(&events);
                let publisher = thread::spawn(move || theirs.publish(true));
                events.sleep_until(1);
                impatient.join().unwrap();
                publisher.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "wait.picked_and_dropped",
            checks: "a sleeper that is picked but does not sleep hands on, past one that wants more than there is",
            bound: Some(2),
            least: 1399,
            body: || {
                let events = Arc::new(Events::default());
                // Listed first and wants more than will come: it must not swallow the wake-up.
                let greedy = events.sleepers.prepare_wait(5);
                let theirs = Arc::clone(&events);
                let fickle = thread::spawn(move || drop(theirs.sleepers.prepare_wait(1)));
                let theirs = Arc::clone(&events);
                let publisher = thread::spawn(move || theirs.publish(true));
                events.sleep_until(1);
                fickle.join().unwrap();
                publisher.join().unwrap();
                drop(greedy);
            },
            after: nothing,
        },
        Model {
            name: "wait.thresholds",
            checks: "wait.publisher.look_rmw: of two sleepers that want different numbers each gets its own",
            bound: Some(2),
            least: 24_869,
            body: || {
                let events = Arc::new(Events::default());
                let theirs = Arc::clone(&events);
                let modest = thread::spawn(move || theirs.sleep_and_take(1));
                let theirs = Arc::clone(&events);
                let publisher = thread::spawn(move || {
                    for n in [1, 2] {
                        theirs.there.fetch_add(n, Relaxed);
                        theirs.sleepers.notify_after_rmw(|| theirs.there());
                    }
                });
                events.sleep_and_take(2);
                modest.join().unwrap();
                publisher.join().unwrap();
                assert_eq!(events.there(), 0);
            },
            after: nothing,
        },
        Model {
            name: "wait.woken_sees",
            checks: "whoever is woken sees what was done before, and may let go of all that it slept by at once",
            bound: None,
            least: 162,
            body: || {
                let shared = Arc::new((Events::default(), UnsafeCell::new(0)));
                let theirs = Arc::clone(&shared);
                let key = shared.0.sleepers.prepare_wait(1);
                let thread = thread::spawn(move || {
                    // SAFETY: the sleeper looks only when it was woken.
                    theirs.1.with_mut(|event| unsafe { *event = 7 });
                    theirs.0.publish(true);
                });
                assert_eq!(key.wait(None), Outcome::Woken);
                // SAFETY: written once, before we were woken.
                assert_eq!(shared.1.with(|event| unsafe { *event }), 7);
                drop(shared);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "wait.notify_all",
            checks: "a state that is stored before notify_all is seen by whoever does not sleep",
            bound: None,
            least: 736,
            body: || {
                let events = Arc::new(Events::default());
                let theirs = Arc::clone(&events);
                let thread = thread::spawn(move || {
                    theirs.there.store(1, Relaxed);
                    theirs.sleepers.notify_all();
                });
                events.sleep_until(1);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "wait.gate",
            checks: "whoever passes the gate sees what was done before it was opened; the opener may be outlived",
            bound: None,
            least: 20,
            body: || {
                let gate = Arc::new(Gate::new());
                let done = Arc::new(AtomicU32::new(0));
                let (theirs, told) = (Arc::clone(&gate), Arc::clone(&done));
                let thread = thread::spawn(move || {
                    told.store(1, Relaxed);
                    theirs.open();
                });
                assert!(gate.wait(None));
                assert_eq!(done.load(Relaxed), 1);
                drop(gate);
                thread.join().unwrap();
            },
            after: nothing,
        },
    ]
}
