//! A publisher that is preempted between taking the tail and giving it back, at will: for tests.

use super::{CompletionQueue, Event, Refused, Ring};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

thread_local! {
    /// What holds this thread up when it has taken a tail, once.
    static HOLD: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// Called with the tail taken.
pub(super) fn point() {
    if let Some(hold) = HOLD.take() {
        hold();
    }
}

/// Runs `meanwhile` while another thread is held in `publish`.
fn while_held(publish: impl FnOnce() + Send, meanwhile: impl FnOnce()) {
    let hold = Arc::new(Barrier::new(2));
    thread::scope(|scope| {
        let theirs = Arc::clone(&hold);
        scope.spawn(move || {
            HOLD.set(Some(Box::new(move || {
                // Before it goes on, somebody else comes here, twice.
                theirs.wait();
                theirs.wait();
            })));
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

/// A queue whose publishers can be held.
trait Queue: Sync {
    fn publish(&self, event: Event);
    /// Takes out what there is; returns how many.
    fn read(&self, f: &mut dyn FnMut(Event)) -> usize;
}

impl Queue for CompletionQueue {
    fn publish(&self, event: Event) {
        self.publish_one(event);
    }

    fn read(&self, f: &mut dyn FnMut(Event)) -> usize {
        self.read(usize::MAX, |run| run.iter().for_each(|got| f(*got)))
    }
}

impl Queue for Mutex<VecDeque<Event>> {
    fn publish(&self, event: Event) {
        let mut events = self.lock().unwrap();
        point();
        events.push_back(event);
    }

    fn read(&self, f: &mut dyn FnMut(Event)) -> usize {
        let events = std::mem::take(&mut *self.lock().unwrap());
        let n = events.len();
        events.into_iter().for_each(f);
        n
    }
}

/// Keeps this thread on the first two CPUs it may use, if it can be kept.
fn stay_on_two_cpus() {
    #[cfg(target_os = "linux")]
    {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        let Ok(allowed) = sched_getaffinity(None) else { return };
        let mut two = CpuSet::new();
        (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).take(2).for_each(|cpu| two.set(cpu));
        let _ = sched_setaffinity(None, &two);
    }
}

/// How long calls took of 8 publishers and a reader on two CPUs. Each publisher is held once in a while, where a
/// preemption does the most harm, and its own call is not counted then.
fn calls(queue: &dyn Queue) -> [Vec<Duration>; 2] {
    const PUBLISHERS: usize = 8;
    const EACH: usize = 128;
    const TURNS: usize = 2 * PUBLISHERS;
    const HELD: Duration = Duration::from_millis(2);
    /// Between calls, so that nobody waits for a CPU.
    const PAUSE: Duration = Duration::from_micros(100);

    let timed = |calls: &mut Vec<Duration>, call: &mut dyn FnMut()| {
        let start = Instant::now();
        call();
        calls.push(start.elapsed());
        thread::sleep(PAUSE);
    };
    let seen: Vec<_> = (0..PUBLISHERS * EACH).map(|_| AtomicUsize::new(0)).collect();
    let times = thread::scope(|scope| {
        let publisher = |publisher: usize| {
            stay_on_two_cpus();
            let mut calls = Vec::new();
            for turn in 0..EACH {
                let hold = turn % TURNS == 2 * publisher;
                if hold {
                    HOLD.set(Some(Box::new(|| thread::sleep(HELD))));
                }
                timed(&mut calls, &mut || queue.publish(event((publisher * EACH + turn) as u64)));
                if hold {
                    calls.pop();
                }
                // Nothing was held that others need: held after all, or what they are compared with would be less work.
                point();
            }
            calls
        };
        let publishers: Vec<_> = (0..PUBLISHERS).map(|i| scope.spawn(move || publisher(i))).collect();
        stay_on_two_cpus();
        let (mut reads, mut left) = (Vec::new(), PUBLISHERS * EACH);
        while left > 0 {
            timed(&mut reads, &mut || {
                left -= queue.read(&mut |got| _ = seen[got.data as usize].fetch_add(1, Relaxed));
            });
        }
        [publishers.into_iter().flat_map(|publisher| publisher.join().unwrap()).collect(), reads]
    });
    assert!(seen.iter().all(|times| times.load(Relaxed) == 1), "an event was lost or doubled");
    times
}

/// A report, with `--nocapture`. How long it took depends on what else the machine has to do, and is not asserted.
#[test]
fn how_long_others_are_held_at_most() {
    // In a thread of its own, which alone is kept on two CPUs.
    let report = || {
        let queues: [(&str, Box<dyn Queue>); 4] = [
            ("lanes, as the system has them", Box::new(CompletionQueue::new(1024))),
            ("8 lanes, locked instructions", Box::new(CompletionQueue::with_lanes(1024, 8))),
            ("a single ring", Box::new(CompletionQueue::with_lanes(1024, 1))),
            ("a mutex", Box::new(Mutex::new(VecDeque::new()))),
        ];
        for (name, queue) in queues {
            let [publish, read] = calls(&*queue).map(|mut calls| {
                calls.sort_unstable();
                [calls[calls.len() * 99 / 100], calls[calls.len() - 1]]
            });
            println!(
                "{name}: publishers 99 % {:?}, at most {:?}; readers {:?}, {:?}",
                publish[0], publish[1], read[0], read[1]
            );
        }
    };
    thread::scope(|scope| scope.spawn(report).join().unwrap());
}
