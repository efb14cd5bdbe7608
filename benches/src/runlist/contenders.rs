//! Ours and what one would use instead.

use super::{Defer, Job};
use ioctx::runlist::{Builder, RunList, Task};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What a task does.
type Work = Box<dyn FnMut() + Send>;

fn tasks(list: &RunList<Work>, jobs: &[Job]) -> Vec<Task<Work>> {
    let task = |job: &Job| {
        let job = job.clone();
        list.task(Box::new(move || job.run()))
    };
    jobs.iter().map(task).collect()
}

/// Ours, run by whoever defers.
#[derive(Debug)]
pub struct Helped(RunList<Work>, Vec<Task<Work>>);

impl Defer for Helped {
    fn open(jobs: &[Job]) -> Self {
        let list = Builder::new().help_on_submit(jobs.len()).build();
        let tasks = tasks(&list, jobs);
        Self(list, tasks)
    }

    fn defer(&self, job: usize) {
        self.1[job].kick().expect("the list is there");
    }

    fn help(&self) {
        self.0.help_on_submit();
    }
}

/// Ours, run by the worker only, at once.
#[derive(Debug)]
pub struct Worker(Helped);

impl Defer for Worker {
    fn open(jobs: &[Job]) -> Self {
        let list = Builder::new().worker_delay(Duration::ZERO, Duration::ZERO).build();
        let tasks = tasks(&list, jobs);
        Self(Helped(list, tasks))
    }

    fn defer(&self, job: usize) {
        self.0.defer(job);
    }
}

/// A thread that a channel of the standard library feeds.
pub struct Channel {
    jobs: Vec<Job>,
    sender: Option<mpsc::Sender<Job>>,
    worker: Option<JoinHandle<()>>,
}

const ALIVE: &str = "the worker lives until the channel is closed";

impl Defer for Channel {
    fn open(jobs: &[Job]) -> Self {
        let (sender, receiver) = mpsc::channel::<Job>();
        let worker = thread::spawn(move || receiver.iter().for_each(|job| job.run()));
        Self { jobs: jobs.to_vec(), sender: Some(sender), worker: Some(worker) }
    }

    fn defer(&self, job: usize) {
        self.sender.as_ref().and_then(|sender| sender.send(self.jobs[job].clone()).ok()).expect(ALIVE);
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        drop(self.sender.take());
        self.worker.take().map(JoinHandle::join).expect(ALIVE).expect(ALIVE);
    }
}

/// A thread that `crossbeam_channel` feeds.
pub struct Crossbeam {
    jobs: Vec<Job>,
    sender: Option<crossbeam_channel::Sender<Job>>,
    worker: Option<JoinHandle<()>>,
}

impl Defer for Crossbeam {
    fn open(jobs: &[Job]) -> Self {
        let (sender, receiver) = crossbeam_channel::unbounded::<Job>();
        let worker = thread::spawn(move || receiver.iter().for_each(|job| job.run()));
        Self { jobs: jobs.to_vec(), sender: Some(sender), worker: Some(worker) }
    }

    fn defer(&self, job: usize) {
        self.sender.as_ref().and_then(|sender| sender.send(self.jobs[job].clone()).ok()).expect(ALIVE);
    }
}

impl Drop for Crossbeam {
    fn drop(&mut self) {
        drop(self.sender.take());
        self.worker.take().map(JoinHandle::join).expect(ALIVE).expect(ALIVE);
    }
}

/// Two threads that sleep on a condition variable, one of which is woken for each job.
pub struct Pool {
    jobs: Vec<Job>,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<(VecDeque<Job>, bool)>,
    filled: Condvar,
}

const POISONED: &str = "nobody panics while holding the mutex";

impl Shared {
    fn work(&self) {
        let mut queue = self.queue.lock().expect(POISONED);
        loop {
            if let Some(job) = queue.0.pop_front() {
                drop(queue);
                job.run();
                queue = self.queue.lock().expect(POISONED);
            } else if queue.1 {
                return;
            } else {
                queue = self.filled.wait(queue).expect(POISONED);
            }
        }
    }
}

impl Defer for Pool {
    fn open(jobs: &[Job]) -> Self {
        let shared = Arc::new(Shared::default());
        let worker = |_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.work())
        };
        let workers = (0..2).map(worker).collect();
        Self { jobs: jobs.to_vec(), shared, workers }
    }

    fn defer(&self, job: usize) {
        self.shared.queue.lock().expect(POISONED).0.push_back(self.jobs[job].clone());
        self.shared.filled.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue.lock().expect(POISONED).1 = true;
        self.shared.filled.notify_all();
        self.workers.drain(..).for_each(|worker| worker.join().expect(ALIVE));
    }
}

/// Only their names: the rest says nothing.
macro_rules! named {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )*};
}
named!(Channel, Crossbeam, Pool);
