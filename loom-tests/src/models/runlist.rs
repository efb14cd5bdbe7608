//! Kicks against runs, splices, the worker, those who wait, and the end. What a task has is a tracked cell, and so is
//! its link: two runs at once, or a link that is written too early, are found.

use crate::harness::{Model, nothing};
use ioctx::runlist::{Builder, Closed, Run, RunList, Task};
use ioctx::sync::atomic::{AtomicU32, Ordering::Relaxed};
use ioctx::sync::time::Duration;
use ioctx::sync::{Arc, thread};
use ioctx::wait::Gate;
use std::sync::atomic::AtomicUsize;

/// Counts its runs, and notes what the last one saw.
#[derive(Default)]
struct Notes {
    told: Arc<AtomicU32>,
    runs: Arc<AtomicU32>,
    seen: Arc<AtomicU32>,
}

impl Run for Notes {
    fn run(&mut self, _: &Task<Self>) {
        // Relaxed, all: ordered by the kick, or not at all.
        self.seen.store(self.told.load(Relaxed), Relaxed);
        self.runs.store(self.runs.load(Relaxed) + 1, Relaxed);
    }
}

impl Notes {
    /// A task, what it is told, how often it has run, and what it saw.
    fn task(list: &RunList<Self>) -> (Task<Self>, [Arc<AtomicU32>; 3]) {
        let notes = Self::default();
        let words = [&notes.told, &notes.runs, &notes.seen].map(Arc::clone);
        (list.task(notes), words)
    }
}

fn alone<T: Run>() -> Arc<RunList<T>> {
    Arc::new(Builder::new().worker(false).build())
}

/// Kicks that were noted by a run under way, over all iterations.
static NOTED: AtomicUsize = AtomicUsize::new(0);
/// Kicks that met a dropped list, and kicks of a task that had been in it.
static REFUSED: AtomicUsize = AtomicUsize::new(0);

/// Opens its gate once it is told to.
struct Opener(Arc<AtomicU32>, Arc<Gate>);

impl Run for Opener {
    fn run(&mut self, _: &Task<Self>) {
        // Relaxed: ordered by the kick.
        if self.0.load(Relaxed) == 1 {
            self.1.open();
        }
    }
}

impl Opener {
    fn task(list: &RunList<Self>) -> (Task<Self>, Arc<AtomicU32>, Arc<Gate>) {
        let (told, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Gate::new()));
        (list.task(Self(Arc::clone(&told), Arc::clone(&gate))), told, gate)
    }
}

/// A kick against one who is about to wait; the worker comes by itself only if somebody waits.
fn kick_against_waiter(help: bool) {
    let options = Builder::new().help_on_reap(help).worker_delay(Duration::ZERO, Duration::from_secs(1));
    let list = Arc::new(options.build());
    let (task, told, gate) = Opener::task(&list);
    let thread = thread::spawn(move || {
        told.store(1, Relaxed);
        task.kick().unwrap();
    });
    let waiting = list.help_on_reap();
    // A deadlock if nobody runs the task.
    assert!(gate.wait(None));
    drop(waiting);
    thread.join().unwrap();
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "runlist.kick_running",
            checks: "runlist.task.kick, start: a run begins after each kick and sees what was done before, one at a time",
            bound: None,
            least: 444,
            body: || {
                let list = alone();
                let (task, [told, runs, seen]) = Notes::task(&list);
                task.kick().unwrap();
                let theirs = task.clone();
                let thread = thread::spawn(move || {
                    told.store(1, Relaxed);
                    theirs.kick().unwrap();
                });
                let first = list.run(usize::MAX);
                let again = list.run(usize::MAX);
                thread.join().unwrap();
                let rest = list.run(usize::MAX);
                assert_eq!(runs.load(Relaxed) as usize, first + again + rest);
                assert!(first >= 1 && first + again + rest <= 2);
                assert_eq!(seen.load(Relaxed), 1, "a kick was lost");
                // Relaxed: counted for `after`.
                NOTED.fetch_add(again, std::sync::atomic::Ordering::Relaxed);
            },
            after: || assert!(NOTED.load(std::sync::atomic::Ordering::Relaxed) > 0),
        },
        Model {
            name: "runlist.two_runners",
            checks: "runlist.task.finish, runlist.list.push, splice: who runs a task has it alone, whoever kicked it and ran it before",
            bound: None,
            least: 11_997,
            body: || {
                let list = alone();
                let (task, [told, runs, seen]) = Notes::task(&list);
                let (their_list, theirs) = (Arc::clone(&list), task.clone());
                let thread = thread::spawn(move || {
                    told.store(1, Relaxed);
                    theirs.kick().unwrap();
                    their_list.run(usize::MAX)
                });
                task.kick().unwrap();
                let ours = list.run(usize::MAX);
                let ran = ours + thread.join().unwrap() + list.run(usize::MAX);
                assert!((1..=2).contains(&ran) && runs.load(Relaxed) as usize == ran);
                assert_eq!(seen.load(Relaxed), 1, "a kick was lost");
            },
            after: nothing,
        },
        Model {
            name: "runlist.order",
            checks: "splice against kick: tasks begin in the order of their kicks, each once",
            bound: None,
            least: 8591,
            body: || {
                let list: Arc<RunList<Box<dyn FnMut() + Send>>> = alone();
                let order = Arc::new(std::sync::Mutex::new(Vec::new()));
                let tasks = [0, 1, 2].map(|number| {
                    let order = Arc::clone(&order);
                    list.task(Box::new(move || order.lock().unwrap().push(number)))
                });
                let [zero, one, two] = tasks;
                zero.kick().unwrap();
                let thread = thread::spawn(move || {
                    one.kick().unwrap();
                    two.kick().unwrap();
                });
                // The first of two bounds its helper.
                list.run(1);
                list.run(2);
                thread.join().unwrap();
                while list.run(usize::MAX) > 0 {}
                assert!(list.is_empty());
                assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
            },
            after: nothing,
        },
        Model {
            name: "runlist.close",
            checks: "runlist.list.close, runlist.task.unqueue: the end against kicks: taken or refused, and nothing is leaked",
            bound: None,
            least: 13,
            body: || {
                let list: Arc<RunList<Notes>> = alone();
                let (task, [_, runs, _]) = Notes::task(&list);
                let thread = thread::spawn(move || {
                    let kicks = [(); 2].map(|()| task.kick());
                    // Relaxed: counted for `after`.
                    let refused = kicks.iter().filter(|kick| **kick == Err(Closed)).count();
                    REFUSED.fetch_add(refused, std::sync::atomic::Ordering::Relaxed);
                    task
                });
                drop(list);
                let task = thread.join().unwrap();
                assert_eq!(task.kick(), Err(Closed));
                assert_eq!(task.kick(), Err(Closed));
                assert_eq!(runs.load(Relaxed), 0);
            },
            after: || assert!(REFUSED.load(std::sync::atomic::Ordering::Relaxed) > 0),
        },
        Model {
            name: "runlist.worker",
            checks: "runlist.worker.disarm against runlist.kick.look: the worker is told anew, or finds the task",
            bound: Some(3),
            least: 699,
            body: || {
                let list = Builder::new().worker_delay(Duration::ZERO, Duration::ZERO).build();
                let (task, told, gate) = Opener::task(&list);
                task.kick().unwrap();
                told.store(1, Relaxed);
                task.kick().unwrap();
                // A deadlock if the worker does not come.
                assert!(gate.wait(None));
            },
            after: nothing,
        },
        Model {
            name: "runlist.worker_or_helper",
            checks: "a worker and a helper: every kick is answered, by one of them",
            bound: Some(3),
            least: 3490,
            body: || {
                let list = Builder::new().worker_delay(Duration::ZERO, Duration::ZERO).build();
                let (task, told, gate) = Opener::task(&list);
                task.kick().unwrap();
                list.help_on_submit();
                told.store(1, Relaxed);
                task.kick().unwrap();
                assert!(gate.wait(None));
            },
            after: nothing,
        },
        Model {
            name: "runlist.waiter",
            checks: "runlist.waiter.announce against runlist.kick.look: the reaper runs the task, or the worker is quick",
            bound: Some(3),
            least: 879,
            body: || kick_against_waiter(true),
            after: nothing,
        },
        Model {
            name: "runlist.hurry",
            checks: "a reaper that does not help has the worker hurry with what is there",
            bound: Some(3),
            least: 1816,
            body: || kick_against_waiter(false),
            after: nothing,
        },
    ]
}
