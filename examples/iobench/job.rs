//! One measurement: contexts, jobs, readers, and when they start and stop.

use crate::Failure;
use crate::interrupt::Watch;
use crate::options::Options;
use crate::tally::{Measured, Tally, Usage};
use crate::target::Target;
use crate::worker::{Spare, Worker, first_requests};
use indicatif::ProgressBar;
use ioctx::aio::{Backend, Context};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Any backend.
pub type AnyContext = Context<Box<dyn Backend>>;

/// What all threads of a measurement share.
pub struct Run<'a> {
    pub options: &'a Options,
    pub target: &'a Target,
    depth: u32,
    contexts: Vec<AnyContext>,
    pub begun: Instant,
    /// A [`Phase`].
    phase: AtomicU8,
    /// Jobs that submit no more.
    stopped: AtomicUsize,
    /// Somebody has given up, so that some requests will never be read.
    broken: AtomicBool,
    /// Of each thread, jobs first.
    moved: Vec<Moved>,
    failed: Mutex<Option<io::Error>>,
}

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Working, but not measured yet.
    Ramp,
    Measured,
    /// Nothing new is submitted.
    Drain,
}

/// How many requests a thread has submitted and read. On lines of its own; written by that thread only.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Moved {
    pub submitted: AtomicU64,
    pub reaped: AtomicU64,
}

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(50);

impl<'a> Run<'a> {
    pub fn new(options: &'a Options, target: &'a Target, depth: u32) -> Result<Self, Failure> {
        let context = |_| -> Result<AnyContext, Failure> {
            Ok(Context::new(options.capacity(), options.backend.open(options)?)?)
        };
        let contexts = if options.per_thread { options.numjobs } else { 1 };
        Ok(Self {
            options,
            target,
            depth,
            contexts: (0..contexts).map(context).collect::<Result<_, _>>()?,
            begun: Instant::now(),
            phase: AtomicU8::new(Phase::Ramp as u8),
            stopped: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            moved: (0..options.numjobs + options.reapers).map(|_| Moved::default()).collect(),
            failed: Mutex::new(None),
        })
    }

    pub fn phase(&self) -> Phase {
        // Relaxed: a hint when to do what; nothing comes with it.
        match self.phase.load(Relaxed) {
            0 => Phase::Ramp,
            1 => Phase::Measured,
            _ => Phase::Drain,
        }
    }

    /// Ends the measurement early, with an error.
    pub fn fail(&self, error: io::Error) {
        self.failed.lock().unwrap().get_or_insert(error);
        self.phase.store(Phase::Drain as u8, Relaxed);
    }

    /// A job submits no more.
    pub fn stopped(&self) {
        // Release: after what it has submitted.
        self.stopped.fetch_add(1, Release);
    }

    /// Whether everything that was submitted has been read, and nothing more will be.
    pub fn drained(&self) -> bool {
        // Acquire: all that was submitted is counted.
        let jobs = self.stopped.load(Acquire);
        let sum =
            |count: fn(&Moved) -> &AtomicU64| self.moved.iter().map(|m| count(m).load(Acquire)).sum::<u64>();
        let all = jobs == self.options.numjobs as usize && sum(|m| &m.reaped) == sum(|m| &m.submitted);
        all || self.broken.load(Relaxed)
    }

    /// Runs all threads, for as long as the options say.
    pub fn measure(&self, bar: &ProgressBar, interrupted: &Watch) -> Result<Measured, Failure> {
        let Options { numjobs, reapers, ramp, runtime, .. } = *self.options;
        let spares: Vec<Spare> = (0..numjobs).map(|_| Spare::default()).collect();
        let mut requests = Vec::new();
        let mut files = Vec::new();
        for _ in 0..numjobs {
            let file = Arc::new(self.target.file()?);
            requests.push(first_requests(self.options, &file, self.depth)?);
            files.push(file);
        }
        let (elapsed, usage, tally) = thread::scope(|scope| -> Result<_, Failure> {
            let spares = &spares[..];
            let worker = |number: usize| {
                let context = &self.contexts[number % self.contexts.len()];
                Worker::new(self, context, &self.moved[number], number)
            };
            let mut threads = Vec::new();
            for (job, (requests, file)) in requests.into_iter().zip(files).enumerate() {
                let mut worker = worker(job);
                let own = (reapers > 0).then(|| &spares[job]);
                let work = move || self.guarded(|| worker.submit_all(requests, &file, own));
                threads.push(self.started(thread::Builder::new().spawn_scoped(scope, work))?);
            }
            for reaper in 0..reapers as usize {
                let mut worker = worker(numjobs as usize + reaper);
                let work = move || self.guarded(|| worker.read_all(spares));
                threads.push(self.started(thread::Builder::new().spawn_scoped(scope, work))?);
            }
            self.wait(ramp, Phase::Measured, bar, interrupted);
            let (start, before) = (Instant::now(), Usage::now());
            self.wait(runtime, Phase::Drain, bar, interrupted);
            let (elapsed, usage) = (start.elapsed(), Usage::now().since(&before));
            let mut tally = Tally::default();
            for thread in threads {
                tally.add(&thread.join().map_err(|_| "a thread panicked")?);
            }
            Ok((elapsed, usage, tally))
        })?;
        match self.failed.lock().unwrap().take() {
            Some(error) => Err(error.into()),
            None => Ok(Measured { depth: self.depth, elapsed, tally, usage }),
        }
    }

    /// If a thread could not be started, the others end.
    fn started<T>(&self, spawned: io::Result<T>) -> Result<T, Failure> {
        spawned.map_err(|error| {
            self.break_off();
            format!("the system gives no more threads: {error}").into()
        })
    }

    fn break_off(&self) {
        self.broken.store(true, Relaxed);
        self.phase.store(Phase::Drain as u8, Relaxed);
    }

    /// If the work panics, nobody waits for what this thread would have read.
    fn guarded<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Broken<'a>(&'a Run<'a>);
        impl Drop for Broken<'_> {
            fn drop(&mut self) {
                if thread::panicking() {
                    self.0.break_off();
                }
            }
        }
        let _broken = Broken(self);
        work()
    }

    /// Lets a while pass, and begins the next phase.
    fn wait(&self, long: Duration, next: Phase, bar: &ProgressBar, interrupted: &Watch) {
        let start = Instant::now();
        let mut before = (start, self.reaped());
        loop {
            let passed = start.elapsed();
            if passed >= long || self.phase() == Phase::Drain || interrupted.seen() {
                break;
            }
            thread::sleep(TICK.min(long - passed));
            let now = (Instant::now(), self.reaped());
            let rate = (now.1 - before.1) as f64 / (now.0 - before.0).as_secs_f64();
            let part = (1000.0 * (start.elapsed().as_secs_f64() / long.as_secs_f64())).min(1000.0);
            bar.set_position(if next == Phase::Measured { 0 } else { part as u64 });
            bar.set_message(if next == Phase::Measured { "ramp".into() } else { format!("{rate:.0} IOPS") });
            before = now;
        }
        // Not back from an early end.
        self.phase.fetch_max(next as u8, Relaxed);
    }

    fn reaped(&self) -> u64 {
        self.moved.iter().map(|moved| moved.reaped.load(Relaxed)).sum()
    }
}
