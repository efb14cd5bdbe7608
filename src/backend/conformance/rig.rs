//! What a check works with: [`Rig`] makes files, threads and contexts, [`Live`] is a context that is never waited for
//! too long.
#![cfg_attr(not(unix), allow(dead_code, reason = "most checks are for Unix"))]

use super::watch::Worker;
use super::{Capability, Failure};
use crate::aio::{Backend, Context, DestroyError, Event, GetEventsError, Request, RequestId};
use crate::sync::time::{Duration, Instant};
use crate::sync::{Arc, Mutex, SharedFile, unique};
use std::fmt::{Debug, Display};
use std::fs::{self, File};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::{io, process};

/// Why a check has ended before its end.
#[derive(Debug)]
pub(super) enum Stop {
    Failed(Failure),
    Skipped(String),
}

pub(super) type Tried<T = ()> = Result<T, Stop>;

pub(super) fn failed<T>(expected: impl Display, came: impl Display) -> Tried<T> {
    Err(Stop::Failed(Failure { expected: expected.to_string(), came: came.to_string() }))
}

pub(super) fn skipped<T>(why: impl Display) -> Tried<T> {
    Err(Stop::Skipped(why.to_string()))
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        let (expected, came) = ("the system to give what the check needs", format!("it says: {error}"));
        Self::Failed(Failure { expected: expected.to_owned(), came })
    }
}

pub(super) fn must(holds: bool, expected: impl Display, came: impl Display) -> Tried {
    if holds { Ok(()) } else { failed(expected, came) }
}

pub(super) fn same<T: PartialEq + Debug>(what: impl Display, came: T, expected: T) -> Tried {
    must(came == expected, format_args!("{what} to be {expected:?}"), format_args!("it is {came:?}"))
}

/// As [`same`], without printing thousands of bytes.
pub(super) fn same_bytes(what: impl Display, came: &[u8], expected: &[u8]) -> Tried {
    if came.len() != expected.len() {
        return failed(
            format_args!("{what} to have {} bytes", expected.len()),
            format_args!("it has {}", came.len()),
        );
    }
    match came.iter().zip(expected).position(|(came, expected)| came != expected) {
        None => Ok(()),
        Some(at) => failed(
            format_args!("byte {at} of {what} to be {:#x}", expected[at]),
            format_args!("it is {:#x}", came[at]),
        ),
    }
}

/// `len` bytes that differ from place to place, and from those of other seeds.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let words = (0..len.div_ceil(8) as u64)
        .flat_map(|word| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ word << 20 | 1).to_le_bytes());
    words.take(len).collect()
}

/// What a suite was told.
pub(super) struct Setup {
    pub(super) make: Box<dyn Fn() -> Box<dyn Backend> + Send + Sync>,
    pub(super) dir: PathBuf,
    pub(super) patience: Duration,
    pub(super) requests: usize,
    pub(super) without: Vec<Capability>,
    /// When a check last got on.
    pub(super) step: Mutex<Instant>,
}

impl Setup {
    /// Something has come that was waited for.
    pub(super) fn step(&self) {
        *self.step.lock() = Instant::now();
    }

    /// When it is certain that a check hangs: long after each of its own waits would have ended.
    pub(super) fn deadline(&self) -> Instant {
        *self.step.lock() + 3 * self.patience
    }
}

/// What a check works with.
pub(super) struct Rig {
    setup: Arc<Setup>,
    scratch: PathBuf,
}

impl Rig {
    /// With a directory of its own, which goes with it.
    pub(super) fn new(setup: Arc<Setup>) -> Tried<Self> {
        let scratch = setup.dir.join(format!("ioctx-conformance-{}-{}", process::id(), unique()));
        fs::create_dir_all(&scratch)?;
        Ok(Self { setup, scratch })
    }

    /// How many requests a long check makes.
    pub(super) fn requests(&self) -> usize {
        self.setup.requests
    }

    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// A context on a new backend.
    pub(super) fn context(&self, capacity: u32) -> Live {
        let context = Context::new(capacity, (self.setup.make)());
        let held = Arc::new(Held(Some(context.expect("within bounds"))));
        Live { held, setup: Arc::clone(&self.setup) }
    }

    /// A file of these bytes, to read and write, and its path.
    pub(super) fn file(&self, bytes: &[u8]) -> Tried<(SharedFile, PathBuf)> {
        let path = self.scratch.join(format!("file-{}", unique()));
        fs::write(&path, bytes)?;
        Ok((SharedFile::new(File::options().read(true).write(true).open(&path)?), path))
    }

    /// Does `work` on a thread of its own.
    pub(super) fn thread<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Tried<T> + Send + 'static,
    ) -> Tried<Worker<T>> {
        Ok(Worker::start(name, work)?)
    }

    /// What a thread has found. It hangs if nobody gets on.
    pub(super) fn join<T>(&self, worker: Worker<T>) -> Tried<T> {
        self.setup.step();
        let found = worker.wait(|| *self.setup.step.lock() + 2 * self.setup.patience)?;
        self.setup.step();
        Ok(found)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // What cannot be removed is left: the check has its result.
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// A context whose calls do not wait for ever. Cloned for other threads.
#[derive(Clone)]
pub(super) struct Live {
    held: Arc<Held>,
    setup: Arc<Setup>,
}

/// Leaks its context if requests do not end when it is dropped. There is one until then.
struct Held(Option<Context<Box<dyn Backend>>>);

impl Drop for Held {
    fn drop(&mut self) {
        let Some(context) = self.0.take() else { return };
        let soon = Some(Instant::now() + Duration::from_millis(100));
        let ended = catch_unwind(AssertUnwindSafe(|| match context.destroy(soon) {
            Err(DestroyError::Already) => context.wait_destroyed(soon),
            ended => ended,
        }));
        if !matches!(ended, Ok(Ok(()))) {
            mem::forget(context);
        }
    }
}

impl Live {
    pub(super) fn context(&self) -> &Context<Box<dyn Backend>> {
        self.held.0.as_ref().expect("taken only when it goes")
    }

    /// The context itself, for which nobody looks any more. No other thread has it.
    pub(super) fn into_context(mut self) -> Context<Box<dyn Backend>> {
        Arc::get_mut(&mut self.held).and_then(|held| held.0.take()).expect("not shared")
    }

    /// The `n`th request of a mixture of what the backend can do at once, which all succeed. The file has some bytes.
    pub(super) fn any(&self, n: u64, file: &SharedFile) -> Request {
        match n % 3 {
            1 if self.has_files() => Request::read(file.clone(), vec![0; 4], 0),
            2 if self.has_files() => Request::fsync(file.clone()),
            _ => Request::nop(),
        }
    }

    fn has_files(&self) -> bool {
        !self.setup.without.contains(&Capability::Files)
    }

    /// From now on, as long as everything may take.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Some(Instant::now() + self.setup.patience)
    }

    pub(super) fn submit(&self, request: Request) -> Tried<RequestId> {
        match self.context().submit(request) {
            Ok(id) => {
                self.setup.step();
                Ok(id)
            }
            Err(error) => failed(
                "the request to be accepted",
                format_args!("it was not: {} ({:?})", error, error.request),
            ),
        }
    }

    /// The next `n` events.
    pub(super) fn events(&self, n: usize) -> Tried<Vec<Event>> {
        let (mut events, deadline) = (Vec::new(), self.deadline());
        while events.len() < n {
            let wanted = n - events.len();
            match self.context().get_events(wanted, wanted, deadline, &mut events) {
                Ok(_) if events.len() < n && deadline < Some(Instant::now()) => {
                    return failed(
                        format_args!("{n} events"),
                        format_args!("{} came in {:?}", events.len(), self.setup.patience),
                    );
                }
                Ok(_) | Err(GetEventsError::Interrupted) => {}
                Err(error) => {
                    return failed(
                        format_args!("{n} events"),
                        format_args!("{} came, and then: {error}", events.len()),
                    );
                }
            }
        }
        self.setup.step();
        Ok(events)
    }

    /// The next event.
    pub(super) fn event(&self) -> Tried<Event> {
        Ok(self.events(1)?.remove(0))
    }

    /// How long to wait for what comes at once.
    pub(super) fn patience(&self) -> Duration {
        self.setup.patience
    }

    /// That something has come, for checks that read events themselves.
    pub(super) fn step(&self) {
        self.setup.step();
    }

    /// What is there now.
    pub(super) fn some_events(&self, events: &mut Vec<Event>) {
        // Not even an error is one more event.
        let _ = self.context().get_events(0, usize::MAX, None, events);
    }

    /// One request from its beginning to its end, and whether the event is its own.
    pub(super) fn one(&self, request: Request) -> Tried<Event> {
        let user_data = unique();
        let id = self.submit(request.with_user_data(user_data))?;
        let event = self.event()?;
        same("the name in the event", event.id, id)?;
        same("the user data in the event", event.request.user_data, user_data)?;
        Ok(event)
    }

    /// One request that has to succeed with this result.
    pub(super) fn gives(&self, what: &str, request: Request, expected: usize) -> Tried<Event> {
        let event = self.one(request)?;
        match &event.result {
            Ok(came) => same(format_args!("the result of {what}"), *came, expected)?,
            Err(error) => {
                return failed(format_args!("{what} to give {expected}"), format_args!("it failed: {error}"));
            }
        }
        Ok(event)
    }

    /// Sees that no event comes for a moment.
    pub(super) fn nothing(&self, why: &str) -> Tried {
        let mut events = Vec::new();
        let soon = Some(Instant::now() + Duration::from_millis(20));
        match self.context().get_events(1, 1, soon, &mut events) {
            Ok(1) => failed(format_args!("no event: {why}"), format_args!("{:?} came", events[0])),
            _ => Ok(()),
        }
    }

    /// Destroys the context, and sees that nothing is left of it. Every event was read.
    pub(super) fn end(self) -> Tried {
        let rest = self.destroyed()?;
        if let Some(event) = rest.first() {
            return failed("every event to have come once", format_args!("then came {event:?}"));
        }
        same("the number of requests of a destroyed context", self.context().outstanding(), 0)
    }

    /// Destroys the context; returns the events that nobody has read.
    pub(super) fn destroyed(&self) -> Tried<Vec<Event>> {
        match self.context().destroy(self.deadline()) {
            Ok(()) => {}
            Err(DestroyError::Already) => self.finished()?,
            Err(error) => return failed("destroying to end", error),
        }
        let mut rest = Vec::new();
        self.some_events(&mut rest);
        Ok(rest)
    }

    /// Waits for the last request of a context that is being destroyed.
    pub(super) fn finished(&self) -> Tried {
        self.context().wait_destroyed(self.deadline()).or_else(|error| failed("destroying to end", error))
    }
}
