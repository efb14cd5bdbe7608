//! Publishers without a fence, on CPUs of their own, against a sleeper that executes one for all.

use crate::harness::{Model, nothing};
use ioctx::barrier;
use ioctx::sync::atomic::{AtomicU32, Ordering::Relaxed};
use ioctx::sync::model::{set_cpu, use_membarrier};
use ioctx::sync::{Arc, thread};
use ioctx::wait::EventCount;

/// Events in a place per publisher.
struct Events {
    there: [AtomicU32; 2],
    sleepers: EventCount,
}

impl Events {
    fn new() -> Arc<Self> {
        use_membarrier();
        assert_eq!(barrier::kind(), barrier::Kind::Membarrier);
        let there = [AtomicU32::new(0), AtomicU32::new(0)];
        Arc::new(Self { there, sleepers: EventCount::for_light_publishers() })
    }

    /// One event by a plain store, on a CPU of its own.
    fn publish(&self, place: usize, light: bool) {
        set_cpu(place as u32);
        // Relaxed: only the fences may order it.
        self.there[place].store(1, Relaxed);
        if light {
            self.sleepers.notify_light(|| self.there());
        } else {
            self.sleepers.notify(|| self.there());
        }
    }

    fn there(&self) -> u32 {
        // Relaxed: as above.
        self.there.iter().map(|there| there.load(Relaxed)).sum()
    }

    fn sleep_until(&self, min: u32) {
        for _ in 0..3 {
            let key = self.sleepers.prepare_wait(min);
            if self.there() >= min {
                return;
            }
            let _ = key.wait(None);
        }
        assert!(self.there() >= min, "woken again and again for nothing");
    }

    /// Publishers at both places, light or not, and a sleeper that wants both events.
    fn both(light: [bool; 2]) {
        let events = Self::new();
        let threads = [0, 1].map(|place| {
            let events = Arc::clone(&events);
            thread::spawn(move || events.publish(place, light[place]))
        });
        events.sleep_until(2);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "wait.light",
            checks: "barrier.heavy against barrier.light: a sleeper sees the event or is seen",
            bound: None,
            least: 1679,
            body: || {
                let events = Events::new();
                let theirs = Arc::clone(&events);
                let thread = thread::spawn(move || theirs.publish(0, true));
                set_cpu(1);
                events.sleep_until(1);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "wait.light_two",
            checks: "wait.publisher.look_light against itself: of two light publishers one sees both events",
            bound: Some(3),
            least: 41_097,
            body: || Events::both([true, true]),
            after: nothing,
        },
        Model {
            name: "wait.light_mixed",
            checks: "wait.publisher.look_light against wait.publisher.look: the same if one publisher is fenced",
            bound: Some(3),
            least: 23_025,
            body: || Events::both([true, false]),
            after: nothing,
        },
    ]
}
