//! The ways of doing it: this crate, and what one would do without it.

use crate::{Arguments, Backend};
use ioctx::aio::{Context, Event, Op, Reason, Request, RequestId};
use ioctx::backend::{Null, Threads, Zero};
use std::collections::VecDeque;
use std::error::Error;
use std::sync::atomic::{AtomicU32, Ordering::*};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

/// A way to have requests carried out and to be told.
pub trait Engine: Send + Sync + Sized {
    const NAME: &'static str;
    fn new(arguments: &Arguments, backend: Backend) -> Result<Self, Box<dyn Error>>;
    /// Hands a request over; gives it back if there is no room.
    fn submit(&self, thread: usize, request: Request) -> Result<(), Request>;
    /// Appends up to `max` events, waiting up to `wait` for `min`, or for one where that cannot be said.
    fn reap(&self, min: usize, max: usize, wait: Duration, out: &mut Vec<Event>);
    /// Ends everything that was begun; an error if something is left behind.
    fn finish(&self) -> Result<(), Box<dyn Error>>;
}

/// One shared context.
pub struct Shared(Context<Box<dyn ioctx::aio::Backend>>);

impl Engine for Shared {
    const NAME: &'static str = "ioctx: one shared context";

    fn new(arguments: &Arguments, backend: Backend) -> Result<Self, Box<dyn Error>> {
        let backend: Box<dyn ioctx::aio::Backend> = match backend {
            Backend::Threads => Box::new(Threads::new(arguments.pool as usize)?),
            Backend::Null => Box::new(Null),
            Backend::Zero => Box::new(Zero),
        };
        // Every submitter has an equal share of the depth, rounded up.
        let capacity = arguments.depth.div_ceil(arguments.threads) * arguments.threads;
        Ok(Self(Context::new(capacity, backend)?))
    }

    fn submit(&self, _thread: usize, request: Request) -> Result<(), Request> {
        self.0.submit(request).map(drop).map_err(|refused| {
            assert!(matches!(refused.reason, Reason::Full), "{refused}");
            refused.request
        })
    }

    fn reap(&self, min: usize, max: usize, wait: Duration, out: &mut Vec<Event>) {
        let deadline = Some(Instant::now() + wait);
        self.0.get_events(min, max, deadline, out).expect("the context is alive");
    }

    fn finish(&self) -> Result<(), Box<dyn Error>> {
        match self.0.outstanding() {
            0 => {}
            lost => return Err(format!("{lost} requests were never handed over").into()),
        }
        Ok(self.0.destroy(None)?)
    }
}

/// Carries one request out, in the thread that calls.
fn execute(backend: Backend, request: &mut Request) -> io::Result<usize> {
    match (&mut request.op, backend) {
        (Op::Read { .. }, Backend::Null) => Ok(0),
        (Op::Read { buf, .. }, Backend::Zero) => {
            buf.fill(0);
            Ok(buf.len())
        }
        (Op::Write { buf, .. }, Backend::Null | Backend::Zero) => Ok(buf.len()),
        #[cfg(unix)]
        (Op::Read { file, buf, offset }, Backend::Threads) => {
            file.with_file(|file| std::os::unix::fs::FileExt::read_at(file, buf, *offset))
        }
        #[cfg(unix)]
        (Op::Write { file, buf, offset }, Backend::Threads) => {
            file.with_file(|file| std::os::unix::fs::FileExt::write_at(file, buf, *offset))
        }
        #[cfg(windows)]
        (Op::Read { file, buf, offset }, Backend::Threads) => {
            file.with_file(|file| std::os::windows::fs::FileExt::seek_read(file, buf, *offset))
        }
        #[cfg(windows)]
        (Op::Write { file, buf, offset }, Backend::Threads) => {
            file.with_file(|file| std::os::windows::fs::FileExt::seek_write(file, buf, *offset))
        }
        _ => unreachable!("only reads and writes are submitted here"),
    }
}

/// A queue that threads put things into and take things out of, behind a mutex.
struct Queue<T> {
    items: Mutex<(VecDeque<T>, bool)>,
    came: Condvar,
}

impl<T> Queue<T> {
    fn new() -> Self {
        Self { items: Mutex::new((VecDeque::new(), false)), came: Condvar::new() }
    }

    fn push(&self, item: T) {
        self.items.lock().unwrap().0.push_back(item);
        self.came.notify_one();
    }

    /// The oldest item; `None` once closed and empty.
    fn pop(&self) -> Option<T> {
        let mut items = self.items.lock().unwrap();
        loop {
            if let Some(item) = items.0.pop_front() {
                return Some(item);
            }
            if items.1 {
                return None;
            }
            items = self.came.wait(items).unwrap();
        }
    }

    /// Up to `max` items, waiting up to `wait` for the first.
    fn pop_many(&self, max: usize, wait: Duration, out: &mut Vec<T>) {
        let items = self.items.lock().unwrap();
        let mut items = self.came.wait_timeout_while(items, wait, |items| items.0.is_empty()).unwrap().0;
        let n = items.0.len().min(max);
        out.extend(items.0.drain(..n));
    }

    fn close(&self) {
        self.items.lock().unwrap().1 = true;
        self.came.notify_all();
    }
}

/// A thread pool between two queues, each behind a mutex.
pub struct Locked {
    jobs: Arc<Queue<Request>>,
    done: Arc<Queue<Event>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
}

impl Engine for Locked {
    const NAME: &'static str = "mutex-guarded queues and a pool";

    fn new(arguments: &Arguments, backend: Backend) -> Result<Self, Box<dyn Error>> {
        let (jobs, done) = (Arc::new(Queue::<Request>::new()), Arc::new(Queue::new()));
        let workers = (0..arguments.pool).map(|_| {
            let (jobs, done) = (Arc::clone(&jobs), Arc::clone(&done));
            thread::spawn(move || {
                while let Some(mut request) = jobs.pop() {
                    let result = execute(backend, &mut request);
                    done.push(Event { id: RequestId::from_raw(0), request, result });
                }
            })
        });
        let workers = Mutex::new(workers.collect());
        Ok(Self { jobs, done, workers })
    }

    fn submit(&self, _thread: usize, request: Request) -> Result<(), Request> {
        self.jobs.push(request);
        Ok(())
    }

    fn reap(&self, _min: usize, max: usize, wait: Duration, out: &mut Vec<Event>) {
        self.done.pop_many(max, wait, out);
    }

    fn finish(&self) -> Result<(), Box<dyn Error>> {
        self.jobs.close();
        self.workers
            .lock()
            .unwrap()
            .drain(..)
            .try_for_each(JoinHandle::join)
            .map_err(|_| "a worker panicked")?;
        Ok(())
    }
}

/// A pool per submitter, their results brought together by a channel.
pub struct Channels {
    pools: Vec<Arc<Queue<Request>>>,
    /// Readers take turns.
    results: Mutex<Receiver<Event>>,
    workers: Mutex<Vec<JoinHandle<()>>>,
    lost: Arc<AtomicU32>,
}

impl Engine for Channels {
    const NAME: &'static str = "a pool per thread and a channel";

    fn new(arguments: &Arguments, backend: Backend) -> Result<Self, Box<dyn Error>> {
        let (sender, results): (Sender<Event>, _) = mpsc::channel();
        let pools: Vec<_> = (0..arguments.threads).map(|_| Arc::new(Queue::<Request>::new())).collect();
        let lost = Arc::new(AtomicU32::new(0));
        let each = arguments.pool.div_ceil(arguments.threads);
        let mut workers = Vec::new();
        for pool in &pools {
            for _ in 0..each {
                let (pool, sender, lost) = (Arc::clone(pool), sender.clone(), Arc::clone(&lost));
                workers.push(thread::spawn(move || {
                    while let Some(mut request) = pool.pop() {
                        let result = execute(backend, &mut request);
                        if sender.send(Event { id: RequestId::from_raw(0), request, result }).is_err() {
                            lost.fetch_add(1, Relaxed);
                        }
                    }
                }));
            }
        }
        Ok(Self { pools, results: Mutex::new(results), workers: Mutex::new(workers), lost })
    }

    fn submit(&self, thread: usize, request: Request) -> Result<(), Request> {
        self.pools[thread].push(request);
        Ok(())
    }

    fn reap(&self, _min: usize, max: usize, wait: Duration, out: &mut Vec<Event>) {
        let results = self.results.lock().unwrap();
        out.extend(results.recv_timeout(wait));
        out.extend(results.try_iter().take(max - 1));
    }

    fn finish(&self) -> Result<(), Box<dyn Error>> {
        self.pools.iter().for_each(|pool| pool.close());
        self.workers
            .lock()
            .unwrap()
            .drain(..)
            .try_for_each(JoinHandle::join)
            .map_err(|_| "a worker panicked")?;
        match self.lost.load(Relaxed) {
            0 => Ok(()),
            lost => Err(format!("{lost} results found no reader").into()),
        }
    }
}
