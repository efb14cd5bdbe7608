//! Deferred tasks: what state they are in, who runs them, in which order, and what becomes of them in the end.

mod support;

use ioctx::runlist::{Builder, Closed, Run, RunList, State, Task};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::*};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::Duration;
use support::never_hang;

type Any = Box<dyn FnMut() + Send>;

/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(3600);

/// A list that nobody runs by himself.
fn alone<T: Run>() -> RunList<T> {
    Builder::new().worker(false).build()
}

/// Kicks itself each time, and counts.
struct Endless(Arc<AtomicUsize>);

impl Run for Endless {
    fn run(&mut self, task: &Task<Self>) {
        self.0.fetch_add(1, Relaxed);
        task.kick().unwrap();
    }
}

fn endless(list: &RunList<Endless>) -> (Task<Endless>, Arc<AtomicUsize>) {
    let runs = Arc::new(AtomicUsize::new(0));
    (list.task(Endless(runs.clone())), runs)
}

#[test]
fn a_task_goes_through_its_states() {
    /// Says in which state it was at first, and after each of two kicks.
    struct Looks(Arc<Mutex<Vec<State>>>);

    impl Run for Looks {
        fn run(&mut self, task: &Task<Self>) {
            let mut seen = self.0.lock().unwrap();
            seen.push(task.state());
            if seen.len() == 1 {
                for _ in 0..2 {
                    task.kick().unwrap();
                    seen.push(task.state());
                }
            }
        }
    }

    let (list, seen) = (alone(), Arc::default());
    let task = list.task(Looks(Arc::clone(&seen)));
    assert_eq!((task.state(), list.is_empty()), (State::Idle, true));
    task.kick().unwrap();
    task.kick().unwrap();
    assert_eq!((task.state(), list.is_empty()), (State::Queued, false));
    assert_eq!(list.run(1), 1);
    assert_eq!(task.state(), State::Queued, "kicked while it ran");
    assert_eq!(list.run(usize::MAX), 1, "two kicks, one run");
    assert_eq!((task.state(), list.is_empty()), (State::Idle, true));
    assert_eq!(*seen.lock().unwrap(), [State::Running, State::Kicked, State::Kicked, State::Running]);
}

proptest! {
    /// Against a plain queue: each task once, in order of the kicks, as many as were asked for.
    #[test]
    fn tasks_run_in_the_order_of_their_kicks(steps in prop::collection::vec((0_usize..8, 0_usize..4), 0..60)) {
        let (list, ran) = (alone::<Any>(), Arc::new(Mutex::new(Vec::new())));
        let task = |number| {
            let ran = ran.clone();
            list.task(Box::new(move || ran.lock().unwrap().push(number)) as Any)
        };
        let tasks: Vec<_> = (0..8).map(task).collect();
        let mut queue = VecDeque::new();
        for (kicked, most) in steps {
            tasks[kicked].kick().unwrap();
            if !queue.contains(&kicked) {
                queue.push_back(kicked);
            }
            // A pass does not go beyond what it spliced, so it may end early; but never with nothing.
            let mut wanted = most.min(queue.len());
            while wanted > 0 {
                let done = list.run(wanted);
                prop_assert!((1..=wanted).contains(&done));
                wanted -= done;
                let expected: Vec<_> = queue.drain(..done).collect();
                prop_assert_eq!(std::mem::take(&mut *ran.lock().unwrap()), expected);
            }
            prop_assert_eq!(list.is_empty(), queue.is_empty());
        }
    }
}

#[test]
fn a_list_that_refills_itself_keeps_nobody() {
    never_hang();
    let list = alone();
    let tasks: Vec<_> = (0..10).map(|_| endless(&list)).collect();
    tasks.iter().for_each(|(task, _)| task.kick().unwrap());
    assert_eq!(list.help_on_reap().ran(), 10);
    for (pass, (newcomer, runs)) in [endless(&list), endless(&list)].into_iter().enumerate() {
        newcomer.kick().unwrap();
        // What was there, and at most all that came until it was spliced.
        assert!(list.help_on_reap().ran() <= 2 * (11 + pass));
        assert!(runs.load(Relaxed) >= 1, "starved by the others");
    }
    assert!(tasks.iter().all(|(_, runs)| runs.load(Relaxed) >= 3));
}

#[test]
fn a_submitter_runs_no_more_than_it_was_told() {
    for most in [0, 1, 7] {
        let list: RunList<Endless> = Builder::new().worker(false).help_on_submit(most).build();
        assert_eq!(list.help_on_submit(), 0);
        let tasks: Vec<_> = (0..20).map(|_| endless(&list)).collect();
        tasks.iter().for_each(|(task, _)| task.kick().unwrap());
        let ran: usize = (0..10).map(|_| list.help_on_submit()).inspect(|ran| assert!(*ran <= most)).sum();
        assert_eq!(ran, tasks.iter().map(|(_, runs)| runs.load(Relaxed)).sum());
        assert!(ran >= 9 * most, "it stopped early too often");
    }
}

#[test]
fn helping_within_a_task_runs_nothing() {
    let (list, order) = (Arc::new(alone::<Any>()), Arc::new(Mutex::new(Vec::new())));
    let first = {
        let (list, order) = (list.clone(), order.clone());
        move || {
            order.lock().unwrap().push(1);
            assert_eq!(list.run(usize::MAX) + list.help_on_submit() + list.help_on_reap().ran(), 0);
            order.lock().unwrap().push(2);
        }
    };
    let second = {
        let order = order.clone();
        move || order.lock().unwrap().push(3)
    };
    let tasks = [list.task(Box::new(first)), list.task(Box::new(second))];
    tasks.iter().for_each(|task| task.kick().unwrap());
    assert_eq!(list.run(usize::MAX), 2);
    assert_eq!(*order.lock().unwrap(), [1, 2, 3]);
}

#[test]
fn a_panic_reaches_the_helper_and_the_list_goes_on() {
    let (list, runs) = (alone::<Any>(), Arc::new(AtomicU32::new(0)));
    let told = runs.clone();
    let bad = list.task(Box::new(move || {
        if told.fetch_add(1, Relaxed) == 0 {
            panic!("as meant");
        }
    }));
    let told = runs.clone();
    let good = list.task(Box::new(move || _ = told.fetch_add(10, Relaxed)));
    bad.kick().unwrap();
    good.kick().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| list.help_on_submit())).is_err());
    assert_eq!((bad.state(), good.state()), (State::Idle, State::Queued));
    assert_eq!(list.help_on_submit(), 1);
    bad.kick().unwrap();
    assert_eq!((list.help_on_submit(), runs.load(Relaxed)), (1, 12));
}

#[test]
fn what_a_panic_leaves_in_the_list_of_a_reaper_the_worker_runs() {
    never_hang();
    let list: RunList<Any> = Builder::new().worker_delay(Duration::ZERO, NEVER).build();
    let (done, wait) = channel();
    let bad = list.task(Box::new(|| panic!("as meant")));
    let good = list.task(Box::new(move || done.send(()).unwrap()));
    bad.kick().unwrap();
    good.kick().unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| list.help_on_reap().ran())).is_err());
    wait.recv().unwrap();
}

#[test]
fn a_panic_does_not_end_the_worker() {
    never_hang();
    let list: RunList<Any> = Builder::new().worker_delay(Duration::ZERO, Duration::ZERO).build();
    let (done, wait) = channel();
    let bad = list.task(Box::new(|| panic!("as meant")));
    let good = list.task(Box::new(move || done.send(thread::current().id()).unwrap()));
    let mut workers = Vec::new();
    for _ in 0..3 {
        bad.kick().unwrap();
        good.kick().unwrap();
        workers.push(wait.recv().unwrap());
    }
    assert!(workers.iter().all(|worker| *worker == workers[0]));
    assert!(list.has_worker());
}

#[test]
fn a_dropped_list_runs_nothing_and_drops_its_references() {
    let (list, alive) = (alone::<Any>(), Arc::new(AtomicU32::new(0)));
    let task = |_| {
        let held = alive.clone();
        list.task(Box::new(move || _ = held.fetch_add(1, Relaxed)) as Any)
    };
    let [spliced, in_front, on_stack] = [0, 1, 2].map(task);
    spliced.kick().unwrap();
    in_front.kick().unwrap();
    assert_eq!(list.run(1), 1);
    on_stack.kick().unwrap();
    drop((spliced, on_stack));
    assert_eq!(Arc::strong_count(&alive), 3, "one is gone, one in the list only");
    drop(list);
    assert_eq!((Arc::strong_count(&alive), alive.load(Relaxed)), (2, 1));
    assert_eq!((in_front.state(), in_front.kick()), (State::Idle, Err(Closed)));
    assert_eq!((in_front.state(), in_front.kick()), (State::Idle, Err(Closed)));
}

/// Counts when it is dropped, and panics if it is told to.
struct Dropped(Arc<AtomicU32>, bool);

impl Run for Dropped {
    fn run(&mut self, _: &Task<Self>) {}
}

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
        assert!(!self.1, "as meant");
    }
}

#[test]
fn a_task_that_panics_when_it_is_dropped_keeps_no_others() {
    let (list, drops) = (alone(), Arc::new(AtomicU32::new(0)));
    for number in 0..5 {
        list.task(Dropped(drops.clone(), number == 1)).kick().unwrap();
    }
    assert!(catch_unwind(AssertUnwindSafe(|| drop(list))).is_err());
    assert_eq!(drops.load(Relaxed), 5);
}

#[test]
fn a_task_may_drop_its_list_in_the_worker() {
    never_hang();
    let slot = Arc::new(Mutex::new(None::<RunList<Any>>));
    let list: RunList<Any> = Builder::new().worker_delay(Duration::ZERO, Duration::ZERO).build();
    let (done, wait) = channel();
    let theirs = slot.clone();
    let (filled, go) = channel::<()>();
    let task = list.task(Box::new(move || {
        go.recv().unwrap();
        drop(theirs.lock().unwrap().take());
        done.send(()).unwrap();
    }));
    task.kick().unwrap();
    *slot.lock().unwrap() = Some(list);
    filled.send(()).unwrap();
    wait.recv().unwrap();
    while task.state() != State::Idle {
        thread::yield_now();
    }
    assert_eq!(task.kick(), Err(Closed));
}

#[test]
fn dropping_a_list_waits_for_the_task_in_the_worker() {
    never_hang();
    let list: RunList<Any> = Builder::new().worker_delay(Duration::ZERO, Duration::ZERO).build();
    let (begun, wait) = channel();
    let ended = Arc::new(AtomicBool::new(false));
    let told = ended.clone();
    let task = list.task(Box::new(move || {
        begun.send(()).unwrap();
        thread::sleep(Duration::from_millis(20));
        told.store(true, Relaxed);
    }));
    task.kick().unwrap();
    wait.recv().unwrap();
    drop(list);
    assert!(ended.load(Relaxed));
}

#[test]
fn the_worker_exists_only_while_it_is_needed() {
    never_hang();
    let list: RunList<Any> =
        Builder::new().worker_delay(Duration::ZERO, Duration::ZERO).worker_linger(Duration::ZERO).build();
    let (done, wait) = channel();
    let task = list.task(Box::new(move || done.send(()).unwrap()));
    assert!(!list.has_worker(), "nobody kicked yet");
    for _ in 0..3 {
        task.kick().unwrap();
        wait.recv().unwrap();
        while list.has_worker() {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn no_worker_is_made_if_there_may_be_none() {
    let list = alone::<Any>();
    let task = list.task(Box::new(|| {}));
    task.kick().unwrap();
    let _waiting = list.help_on_reap();
    task.kick().unwrap();
    assert!(!list.has_worker());
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn without_a_thread_to_be_had_helpers_do_everything() {
    use support::seccomp::Refusal;
    never_hang();
    let list: RunList<Any> = Builder::new().worker_delay(Duration::ZERO, Duration::ZERO).build();
    let (done, wait) = channel();
    let task = list.task(Box::new(move || done.send(()).unwrap()));
    thread::scope(|scope| {
        scope.spawn(|| {
            for call in [libc::SYS_clone3, libc::SYS_clone] {
                if let Err(error) = Refusal::install(&Refusal::of(call, libc::EAGAIN).filter()) {
                    return support::skip(format_args!("seccomp: {error}"));
                }
            }
            for _ in 0..3 {
                task.kick().unwrap();
                assert!(!list.has_worker());
                assert_eq!(list.help_on_submit(), 1);
            }
        });
    });
    wait.try_iter().for_each(drop);
    // Another thread is allowed to.
    task.kick().unwrap();
    wait.recv().unwrap();
    assert!(list.has_worker());
}

#[test]
fn while_somebody_waits_the_worker_is_quick() {
    never_hang();
    for help in [false, true] {
        let builder = Builder::new().help_on_reap(help).worker_delay(Duration::from_millis(1), NEVER);
        let list: RunList<Any> = builder.build();
        let (done, wait) = sync_channel(2);
        let task = list.task(Box::new(move || done.send(()).unwrap()));
        // Before anybody waits: the worker has an hour.
        task.kick().unwrap();
        assert!(list.has_worker());
        assert!(wait.recv_timeout(Duration::from_millis(20)).is_err(), "nobody waits");
        let waiting = list.help_on_reap();
        assert_eq!(waiting.ran(), usize::from(help));
        wait.recv().unwrap();
        // And while somebody does, though it has been told of the hour.
        task.kick().unwrap();
        wait.recv().unwrap();
        drop(waiting);
    }
}

#[test]
fn a_task_with_a_clone_of_itself_can_be_got_rid_of() {
    /// Kicks itself from afar, through the clone.
    struct Again(Arc<OnceLock<Task<Again>>>);

    impl Run for Again {
        fn run(&mut self, _: &Task<Self>) {
            // What was put there was this very task: gone when the run is over.
            self.0 = Arc::default();
        }
    }

    let (list, own) = (alone(), Arc::new(OnceLock::new()));
    let task = list.task(Again(own.clone()));
    own.set(task.clone()).unwrap();
    task.kick().unwrap();
    assert_eq!(list.run(1), 1);
    drop(task);
    assert_eq!(own.get().unwrap().state(), State::Idle);
}

/// Notes how much it was asked for, without an atomic: whoever runs it is alone.
struct Notes {
    asked: Arc<AtomicUsize>,
    seen: Arc<AtomicUsize>,
    runs: usize,
    running: bool,
}

impl Run for Notes {
    fn run(&mut self, _: &Task<Self>) {
        assert!(!std::mem::replace(&mut self.running, true), "two runs at once");
        self.runs += 1;
        self.seen.store(self.asked.load(Relaxed), Relaxed);
        std::hint::black_box(&mut *self);
        self.running = false;
    }
}

#[test]
fn no_kick_is_lost_whoever_runs_it() {
    const TASKS: usize = 5;
    const KICKS: usize = 10_000;
    for worker in [false, true] {
        never_hang();
        let delay = Duration::from_micros(20);
        let list: RunList<Notes> = Builder::new().worker(worker).worker_delay(delay, delay).build();
        let words: Vec<[Arc<AtomicUsize>; 2]> = (0..TASKS).map(|_| Default::default()).collect();
        let task = |[asked, seen]: &[Arc<AtomicUsize>; 2]| {
            list.task(Notes { asked: asked.clone(), seen: seen.clone(), runs: 0, running: false })
        };
        let tasks: Vec<_> = words.iter().map(task).collect();
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let kickers: Vec<_> = (0..3)
                .map(|kicker| {
                    let (tasks, words, list) = (&tasks, &words, &list);
                    scope.spawn(move || {
                        for kick in 0..KICKS {
                            let which = (kick * 7 + kicker) % TASKS;
                            words[which][0].fetch_add(1, Relaxed);
                            tasks[which].kick().unwrap();
                            if kick % 3 == kicker {
                                list.help_on_submit();
                            }
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                while !ended.load(Acquire) {
                    drop(list.help_on_reap());
                    thread::yield_now();
                }
            });
            let _end = support::SetAtEnd(&ended);
            kickers.into_iter().for_each(|kicker| kicker.join().unwrap());
        });
        while tasks.iter().any(|task| task.state() != State::Idle) {
            list.run(usize::MAX);
            thread::yield_now();
        }
        for [asked, seen] in &words {
            assert_eq!(asked.load(Relaxed), seen.load(Relaxed), "a kick was not answered");
        }
    }
}

#[test]
fn lists_come_and_go_while_they_are_kicked() {
    never_hang();
    for round in 0..100 {
        let delay = Duration::from_micros(round % 3 * 20);
        let list: RunList<Any> = Builder::new().worker_delay(delay, delay).worker_linger(delay).build();
        let runs = Arc::new(AtomicUsize::new(0));
        let told = runs.clone();
        let task = list.task(Box::new(move || _ = told.fetch_add(1, Relaxed)));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while task.kick().is_ok() {
                        thread::yield_now();
                    }
                });
            }
            while runs.load(Relaxed) == 0 {
                list.help_on_submit();
                thread::yield_now();
            }
            drop(list);
        });
        assert_eq!(task.state(), State::Idle);
        drop(task);
        assert_eq!(Arc::strong_count(&runs), 1, "a reference was lost");
    }
}

#[test]
fn what_is_awaited_has_the_worker_hurry() {
    never_hang();
    // Where nobody waits the worker does not come.
    let list: RunList<Any> = Builder::new().worker_delay(Duration::ZERO, NEVER).build();
    let (ran, runs) = channel();
    let task = |number| {
        let ran = ran.clone();
        list.task(Box::new(move || ran.send(number).unwrap()) as Any)
    };
    let (first, second) = (task(1), task(2));
    first.kick().unwrap();
    assert!(runs.recv_timeout(Duration::from_millis(20)).is_err());
    // Not the first in the list, and it is in order.
    second.kick_soon().unwrap();
    assert_eq!([runs.recv().unwrap(), runs.recv().unwrap()], [1, 2]);
    // One that is in the list already; or the worker was still there, and it runs once more.
    first.kick().unwrap();
    first.kick_soon().unwrap();
    first.kick_soon().unwrap();
    assert_eq!(runs.recv().unwrap(), 1);
    // Once it has run, nobody awaits it any more, and the worker, once it has left, does not come.
    let left = (0..100).any(|_| {
        // It gets to leaving.
        thread::sleep(Duration::from_millis(5));
        first.kick().unwrap();
        let stays = runs.recv_timeout(Duration::from_millis(20)).is_err();
        if stays {
            assert_eq!((list.run(1), runs.recv().unwrap()), (1, 1));
        }
        stays
    });
    assert!(left, "the worker hurries always");
}

#[test]
fn what_is_awaited_while_it_runs_has_the_worker_hurry() {
    /// Kicks itself once.
    struct Again(std::sync::mpsc::Sender<thread::ThreadId>, bool);

    impl Run for Again {
        fn run(&mut self, task: &Task<Self>) {
            self.0.send(thread::current().id()).unwrap();
            if !std::mem::replace(&mut self.1, true) {
                assert_eq!(task.state(), State::Running);
                task.kick_soon().unwrap();
                assert_eq!(task.state(), State::Kicked);
                // The worker looks in vain meanwhile.
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    never_hang();
    let list = Builder::new().worker_delay(Duration::ZERO, NEVER).build();
    let (ran, runs) = channel();
    let task = list.task(Again(ran, false));
    task.kick().unwrap();
    assert_eq!(list.run(1), 1);
    assert_eq!(runs.recv().unwrap(), thread::current().id());
    assert_ne!(runs.recv().unwrap(), thread::current().id());
}
