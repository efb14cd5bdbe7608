//! Sleeping until enough is there: who is woken, when, how often, and what becomes of those who leave.

use ioctx::wait::{EventCount, Key, Outcome};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::*};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

fn soon() -> Option<Instant> {
    Some(Instant::now() + Duration::from_millis(20))
}

/// Each kind of event count there is.
fn kinds() -> [EventCount; 2] {
    [EventCount::new(), EventCount::for_light_publishers()]
}

fn nobody_sleeps(events: &EventCount) {
    events.notify(|| unreachable!("somebody seems to sleep"));
    events.notify_light(|| unreachable!("somebody seems to sleep"));
}

/// Calls `then` whenever it is woken, and counts.
struct Bell<F: Fn() + Send + Sync + 'static> {
    rung: AtomicU32,
    then: F,
}

impl<F: Fn() + Send + Sync> Wake for Bell<F> {
    fn wake(self: Arc<Self>) {
        self.rung.fetch_add(1, Relaxed);
        (self.then)();
    }
}

impl<F: Fn() + Send + Sync> Bell<F> {
    fn new(then: F) -> Arc<Self> {
        Arc::new(Self { rung: AtomicU32::new(0), then })
    }

    fn rung(&self) -> u32 {
        self.rung.load(Relaxed)
    }
}

fn poll<F: Future, T: Fn() + Send + Sync>(future: Pin<&mut F>, bell: &Arc<Bell<T>>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(bell))))
}

#[test]
fn times_out_and_leaves_no_trace() {
    for events in kinds() {
        assert_eq!(events.prepare_wait(1).wait(soon()), Outcome::TimedOut);
        drop(events.prepare_wait(5));
        drop(events.listen(5));
        nobody_sleeps(&events);
    }
}

#[test]
fn wakes_those_whose_number_is_there_oldest_first() {
    for events in kinds() {
        let [four, two, one] = [4, 2, 1].map(|min| events.prepare_wait(min));
        events.notify_light(|| 3);
        assert_eq!(two.wait(soon()), Outcome::Woken);
        assert_eq!(one.wait(soon()), Outcome::Woken);
        events.notify_after_rmw(|| 3);
        assert_eq!(four.wait(soon()), Outcome::TimedOut);
        nobody_sleeps(&events);
    }
}

#[test]
fn an_event_is_counted_for_one_sleeper() {
    let events = EventCount::new();
    let [first, second] = [1, 1].map(|min| events.prepare_wait(min));
    events.notify(|| 1);
    assert_eq!(first.wait(soon()), Outcome::Woken);
    assert_eq!(second.wait(soon()), Outcome::TimedOut);
}

#[test]
fn who_was_picked_and_does_not_sleep_hands_on() {
    let events = EventCount::new();
    let [greedy, first, second] = [5, 1, 1].map(|min| events.prepare_wait(min));
    events.notify(|| 1);
    drop(first);
    assert_eq!(second.wait(soon()), Outcome::Woken);
    assert_eq!(greedy.wait(soon()), Outcome::Woken, "everybody looks for himself");
}

#[test]
fn everybody_means_everybody() {
    let events = EventCount::new();
    let keys = [1, u32::MAX].map(|min| events.prepare_wait(min));
    events.notify_all();
    for key in keys {
        assert_eq!(key.wait(None), Outcome::Woken);
    }
}

#[test]
fn keys_may_be_used_in_any_order_and_on_any_thread() {
    let events = EventCount::new();
    for round in 0..100 {
        let mut keys: Vec<Key<'_>> = (0..4).map(|_| events.prepare_wait(1)).collect();
        events.notify(|| 2);
        keys.rotate_left(round % 4);
        let ended: Vec<Outcome> = thread::scope(|scope| {
            let sleep = |key: Key<'_>| key.wait(Some(Instant::now()));
            let threads: Vec<_> = keys.drain(2..).map(|key| scope.spawn(move || sleep(key))).collect();
            let here: Vec<_> = keys.drain(..).map(sleep).collect();
            here.into_iter().chain(threads.into_iter().map(|thread| thread.join().unwrap())).collect()
        });
        assert_eq!(ended.iter().filter(|outcome| **outcome == Outcome::Woken).count(), 2);
    }
    nobody_sleeps(&events);
}

#[test]
fn a_task_is_woken_by_the_waker_of_its_last_poll() {
    let events = EventCount::new();
    let [first, second] = [(); 2].map(|()| Bell::new(|| ()));
    let mut listen = pin!(events.listen(2));
    assert!(poll(listen.as_mut(), &first).is_pending());
    assert!(poll(listen.as_mut(), &second).is_pending());
    events.notify(|| 1);
    assert!(poll(listen.as_mut(), &second).is_pending());
    events.notify(|| 2);
    assert_eq!((first.rung(), second.rung()), (0, 1));
    assert!(poll(listen.as_mut(), &first).is_ready());
    assert!(poll(listen.as_mut(), &first).is_ready(), "ever after");
    nobody_sleeps(&events);
}

#[test]
fn a_task_is_announced_before_it_is_polled() {
    let events = EventCount::new();
    let bell = Bell::new(|| ());
    let mut listen = pin!(events.listen(1));
    events.notify(|| 1);
    assert!(poll(listen.as_mut(), &bell).is_ready());
    assert_eq!(bell.rung(), 0);
}

#[test]
fn a_dropped_task_hands_on_if_it_was_picked_and_only_then() {
    let events = EventCount::new();
    let bells = [(); 3].map(|()| Bell::new(|| ()));
    let mut tasks = bells.each_ref().map(|bell| {
        let mut listen = Box::pin(events.listen(1));
        assert!(poll(listen.as_mut(), bell).is_pending());
        Some(listen)
    });
    let rung = || bells.each_ref().map(|bell| bell.rung());
    tasks[1] = None;
    assert_eq!(rung(), [0, 0, 0]);
    events.notify(|| 1);
    assert_eq!(rung(), [1, 0, 0]);
    tasks[0] = None;
    assert_eq!(rung(), [1, 0, 1]);
    // Told, so it is its own business now.
    assert!(poll(tasks[2].as_mut().unwrap().as_mut(), &bells[2]).is_ready());
    let key = events.prepare_wait(1);
    tasks[2] = None;
    assert_eq!(key.wait(soon()), Outcome::TimedOut);
}

#[test]
fn a_waker_may_call_back() {
    let events = Arc::new(EventCount::new());
    let calls = Arc::clone(&events);
    let bell = Bell::new(move || {
        calls.notify(|| 1);
        drop(calls.listen(1));
        assert_eq!(calls.prepare_wait(1).wait(Some(Instant::now())), Outcome::TimedOut);
    });
    let mut listen = pin!(events.listen(1));
    assert!(poll(listen.as_mut(), &bell).is_pending());
    events.notify(|| 1);
    assert_eq!(bell.rung(), 1);
    assert!(poll(listen.as_mut(), &bell).is_ready());
    nobody_sleeps(&events);
}

/// Calls back where a waker is dropped.
struct Last(Arc<EventCount>);

impl Drop for Last {
    fn drop(&mut self) {
        drop(self.0.listen(1));
        self.0.notify(|| 1);
    }
}

impl Wake for Last {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn the_drop_of_a_waker_may_call_back() {
    let events = Arc::new(EventCount::new());
    let waker = || Waker::from(Arc::new(Last(Arc::clone(&events))));
    let mut listen = Box::pin(events.listen(7));
    for _ in 0..3 {
        assert!(listen.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
    }
    drop(listen);
    let mut listen = pin!(events.listen(7));
    assert!(listen.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
    events.notify_all();
    nobody_sleeps(&events);
}

#[test]
fn a_waker_that_panics_harms_nobody_else() {
    let events = EventCount::new();
    let [bad, worse] = ["bad", "worse"].map(|what| Bell::new(move || std::panic::panic_any(what)));
    let good = Bell::new(|| ());
    let mut tasks = [(); 3].map(|()| Box::pin(events.listen(1)));
    assert!(poll(tasks[0].as_mut(), &bad).is_pending());
    assert!(poll(tasks[1].as_mut(), &worse).is_pending());
    assert!(poll(tasks[2].as_mut(), &good).is_pending());
    let thread = events.prepare_wait(1);
    let panic = catch_unwind(AssertUnwindSafe(|| events.notify(|| 4))).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"bad"), "the first one goes on");
    assert_eq!((bad.rung(), worse.rung(), good.rung()), (1, 1, 1));
    assert_eq!(thread.wait(soon()), Outcome::Woken);
    nobody_sleeps(&events);
}

#[test]
fn a_panic_whose_payload_panics_as_well_harms_nobody_else() {
    struct Payload;

    impl Drop for Payload {
        fn drop(&mut self) {
            panic!("once more");
        }
    }

    let events = EventCount::new();
    let bad = [(); 2].map(|()| Bell::new(|| std::panic::panic_any(Payload)));
    let mut tasks = [(); 2].map(|()| Box::pin(events.listen(1)));
    for (task, bad) in tasks.iter_mut().zip(&bad) {
        assert!(poll(task.as_mut(), bad).is_pending());
    }
    let thread = events.prepare_wait(1);
    let panic = catch_unwind(AssertUnwindSafe(|| events.notify(|| 3))).unwrap_err();
    let first = panic.downcast::<Payload>().expect("the first one goes on");
    std::mem::forget(first);
    assert_eq!(thread.wait(soon()), Outcome::Woken);
    nobody_sleeps(&events);
}

#[test]
fn a_waker_that_panics_while_its_caller_unwinds_aborts_nothing() {
    let events = EventCount::new();
    let bad = Bell::new(|| panic!("the other one"));
    let first = events.listen(1);
    let mut second = pin!(events.listen(1));
    assert!(poll(second.as_mut(), &bad).is_pending());
    events.notify(|| 1);
    let unwinding = AssertUnwindSafe(|| {
        // Picked: hands on.
        let _first = first;
        panic!("this one");
    });
    let panic = catch_unwind(unwinding).unwrap_err();
    assert_eq!((panic.downcast_ref(), bad.rung()), (Some(&"this one"), 1));
}

#[test]
fn a_number_that_cannot_be_looked_up_harms_nobody() {
    let events = EventCount::new();
    let key = events.prepare_wait(1);
    assert!(catch_unwind(AssertUnwindSafe(|| events.notify(|| panic!("lost count")))).is_err());
    events.notify(|| 1);
    assert_eq!(key.wait(soon()), Outcome::Woken);
}

/// Publishers on several threads, and one sleeper that wants `MIN` and takes what is there: it is woken once
/// per `MIN` events at most.
#[test]
fn wakes_once_per_min_events_at_most() {
    const MIN: u32 = 16;
    const PUBLISHERS: u32 = 4;
    const EACH: u32 = 20_000;
    const TOTAL: u32 = PUBLISHERS * EACH;
    for sleepers in kinds() {
        let there = AtomicU32::new(0);
        // Relaxed: the event count orders them.
        let available = || there.load(Relaxed);
        let (mut taken, mut wake_ups) = (0, 0);
        thread::scope(|scope| {
            for _ in 0..PUBLISHERS {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        there.fetch_add(1, Relaxed);
                        sleepers.notify_light(available);
                        while available() > 4 * MIN {
                            thread::yield_now();
                        }
                    }
                });
            }
            while taken < TOTAL {
                // The last ones may be fewer.
                let min = MIN.min(TOTAL - taken);
                let key = sleepers.prepare_wait(min);
                if available() < min {
                    assert_eq!(key.wait(None), Outcome::Woken);
                    wake_ups += 1;
                    assert!(available() >= min, "woken for too few");
                }
                taken += there.swap(0, Relaxed);
            }
        });
        assert!(wake_ups <= TOTAL / MIN, "{wake_ups} wake-ups for {TOTAL} events");
    }
}

#[cfg(ioctx_linux)]
mod bell {
    use super::{kinds, nobody_sleeps, soon};
    use ioctx::wait::{Bell, EventCount, Outcome};
    use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::*};
    use std::thread;

    fn is_readable(bell: impl AsFd) -> bool {
        poll(&mut [PollFd::new(&bell, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap()
            == 1
    }

    /// What has been written to it since it was last read, read past the bell.
    fn written(bell: impl AsFd) -> u64 {
        let mut counter = [0; 8];
        rustix::io::read(bell, &mut counter).map_or(0, |_| u64::from_ne_bytes(counter))
    }

    #[test]
    fn rings_once_and_only_while_armed() {
        for events in kinds() {
            let mut bell = Bell::new(&events).unwrap();
            nobody_sleeps(&events);
            events.notify_all();
            assert!(!is_readable(&bell));
            bell.arm(2);
            events.notify(|| 1);
            assert!(!is_readable(&bell) && !bell.clear());
            (0..5).for_each(|_| events.notify_light(|| 2));
            assert!(is_readable(&bell));
            assert_eq!(written(&bell), 1);
            nobody_sleeps(&events);
            assert!(bell.clear() && !bell.clear());
            assert!(!is_readable(&bell));
        }
    }

    #[test]
    fn armed_again_wants_what_it_was_armed_for_last() {
        let events = EventCount::new();
        let mut bell = Bell::new(&events).unwrap();
        bell.arm(1);
        bell.arm(3);
        events.notify(|| 2);
        assert!(!is_readable(&bell));
        events.notify(|| 3);
        assert!(is_readable(&bell) && bell.clear());
        bell.arm(1);
        bell.disarm();
        events.notify_all();
        assert!(!is_readable(&bell));
    }

    #[test]
    fn hands_on_unless_it_was_looked_after() {
        let events = EventCount::new();
        for drops in [false, true] {
            let mut bell = Bell::new(&events).unwrap();
            bell.arm(1);
            let key = events.prepare_wait(1);
            events.notify(|| 1);
            if drops {
                drop(bell)
            } else {
                bell.disarm()
            }
            assert_eq!(key.wait(soon()), Outcome::Woken);
        }
        let mut bell = Bell::new(&events).unwrap();
        bell.arm(1);
        let key = events.prepare_wait(1);
        events.notify(|| 1);
        assert!(bell.clear());
        drop(bell);
        assert_eq!(key.wait(soon()), Outcome::TimedOut);
        nobody_sleeps(&events);
    }

    #[test]
    fn sleeps_in_epoll() {
        const EVENTS: u32 = 30_000;
        const MIN: u32 = 3;
        let there = Arc::new(AtomicU32::new(0));
        let sleepers = Arc::new(EventCount::for_light_publishers());
        let mut bell = Bell::new(Arc::clone(&sleepers)).unwrap();
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        epoll::add(&poller, &bell, epoll::EventData::new_u64(7), epoll::EventFlags::IN).unwrap();
        let publishers = [(); 2].map(|()| {
            let (there, sleepers) = (Arc::clone(&there), Arc::clone(&sleepers));
            thread::spawn(move || {
                for _ in 0..EVENTS / 2 {
                    there.fetch_add(1, Relaxed);
                    sleepers.notify_light(|| there.load(Relaxed));
                    while there.load(Relaxed) > 20 {
                        thread::yield_now();
                    }
                }
            })
        });
        let (mut taken, mut rung) = (0, 0);
        while taken < EVENTS {
            // The last ones may be fewer.
            let min = MIN.min(EVENTS - taken);
            bell.arm(min);
            if there.load(Relaxed) < min {
                let mut ready = Vec::with_capacity(4);
                epoll::wait(&poller, rustix::buffer::spare_capacity(&mut ready), None).unwrap();
                let [epoll::Event { data, .. }] = ready[..] else { panic!("{} are ready", ready.len()) };
                assert_eq!({ data }.u64(), 7);
                rung += u32::from(bell.clear());
            }
            taken += there.swap(0, Relaxed);
        }
        assert!(rung <= EVENTS / MIN, "rung {rung} times for {EVENTS} events");
        publishers.into_iter().for_each(|thread| thread.join().unwrap());
        bell.disarm();
        nobody_sleeps(&sleepers);
    }
}
