//! A suite of checks for whoever writes a [`Backend`]: does it keep the contract?
//!
//! ```
//! use ioctx::backend::{Threads, conformance::Suite};
//!
//! let report = Suite::new(|| Threads::new(2).unwrap()).requests(1_000).run();
//! report.assert();
//! ```
//!
//! Every [`Check`] makes contexts of its own on new backends, and looks from outside: at events, at files, at what is
//! left when the context is gone. Nothing in it depends on how a backend works, so that a check that fails has found a
//! broken rule, and says which, what it expected and what came. The rules are those of [`Backend`], of
//! [`aio`](crate::aio), and of the system calls after which the operations are named.
//!
//! No check hangs: each wait has a deadline, [`patience`](Suite::patience), and a check that is stuck in a call of the
//! backend is left where it is, on a thread of its own, and has failed. A context whose requests never end is leaked.
//! A panic is the failure of its check.
//!
//! # What a backend need not do
//!
//! One that does no I/O, or does not know an operation, says so: [`without`](Suite::without). Single checks are
//! [skipped](Suite::skip) for a reason, which is in the report. Some skip themselves where the machine does not
//! have what they need: a full device, direct I/O, the right to make a small file system.
//!
//! # What is not looked for
//!
//! Data races and memory errors: run the suite under sanitizers. Lost power: `fsync` is seen to come after the
//! writes before it, not to reach a device. Threads that a backend leaves behind. How fast it is.
//!
//! Needs the feature `conformance`. The checks of pipes and errors are for Unix; some are for Linux.

mod buffers;
mod cancel;
mod destroy;
mod ends;
#[cfg(unix)]
mod errors;
mod events;
#[cfg(unix)]
mod in_flight;
mod load;
mod operations;
#[cfg(unix)]
mod pipes;
mod report;
mod rig;
mod watch;

pub use report::{Failure, Outcome, Report};

use crate::aio::Backend;
use crate::sync::time::{Duration, Instant};
use crate::sync::{Arc, Mutex};
use rig::{Rig, Setup, Stop, Tried};
use std::path::PathBuf;
use std::{env, fmt};
use watch::Worker;

/// The largest capacity of a context that a check makes: as many requests has each backend to take.
pub const CAPACITY: u32 = 256;

/// What not every backend can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// Reads and writes of regular files, syncs, and what goes wrong with them.
    Files,
    /// Reads and writes of pipes, which may have to wait.
    Pipes,
    /// Polls.
    Poll,
    /// Operations of the user's own.
    Custom,
}

/// One rule, tried on a backend.
pub struct Check {
    /// What it is called.
    pub name: &'static str,
    /// The rule.
    pub says: &'static str,
    /// What a backend that cannot do this is spared.
    pub needs: &'static [Capability],
    run: fn(&Rig) -> Tried,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .field("says", &self.says)
            .field("needs", &self.needs)
            .finish_non_exhaustive()
    }
}

/// All there are, in the order in which they are run.
///
/// ```
/// for check in ioctx::backend::conformance::checks() {
///     println!("{}: {}", check.name, check.says);
/// }
/// ```
pub fn checks() -> impl Iterator<Item = &'static Check> {
    let everywhere =
        [operations::CHECKS, buffers::CHECKS, ends::CHECKS, events::CHECKS, cancel::CHECKS, destroy::CHECKS];
    #[cfg(unix)]
    let here = [pipes::CHECKS, errors::CHECKS, in_flight::CHECKS];
    #[cfg(not(unix))]
    let here: [&[Check]; 0] = [];
    everywhere.into_iter().chain(here).chain([load::CHECKS]).flatten()
}

/// The checks, and what they are run on.
///
/// # Examples
///
/// For a backend of one's own that knows one operation:
///
/// ```
/// use ioctx::aio::{Backend, Completion, Op, Submitted};
/// use ioctx::backend::conformance::{Capability, Suite};
/// use std::io;
///
/// /// Does nothing, and refuses everything else.
/// struct Idle;
///
/// impl Backend for Idle {
///     fn submit(&self, work: Completion) -> Submitted {
///         match work.request().op {
///             Op::Nop => Submitted::Done(work.finish(Ok(0))),
///             _ => Submitted::Refused(work, io::ErrorKind::Unsupported.into()),
///         }
///     }
/// }
///
/// let report = Suite::new(|| Idle)
///     .without(Capability::Files)
///     .without(Capability::Pipes)
///     .without(Capability::Poll)
///     .without(Capability::Custom)
///     .skip("buffers_come_back", "it takes no buffers")
///     .run();
/// println!("{report}");
/// report.assert();
/// ```
#[must_use = "a suite does nothing until it is run"]
pub struct Suite {
    make: Box<dyn Fn() -> Box<dyn Backend> + Send + Sync>,
    dir: PathBuf,
    patience: Duration,
    requests: usize,
    without: Vec<Capability>,
    skipped: Vec<(String, String)>,
    only: Option<Vec<String>>,
}

impl Suite {
    /// For backends that `make` makes, dozens of them, one after the other. Each takes [`CAPACITY`] requests, and can
    /// carry out one that waits.
    ///
    /// If it panics, the check has failed that asked for one.
    pub fn new<B: Backend + 'static>(make: impl Fn() -> B + Send + Sync + 'static) -> Self {
        Self {
            make: Box::new(move || Box::new(make())),
            dir: env::temp_dir(),
            patience: Duration::from_secs(10),
            requests: 100_000,
            without: Vec::new(),
            skipped: Vec::new(),
            only: None,
        }
    }

    /// Where the files are to be: in a directory there, which is made and removed by each check. The system's directory
    /// for temporary files if this is not called.
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = dir.into();
        self
    }

    /// How long to wait for what should come at once, before it has failed: 10 seconds if this is not called. With much
    /// less, a machine that is busy makes good backends fail.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How many requests the check `load` makes: 100 000 if this is not called.
    pub fn requests(mut self, requests: usize) -> Self {
        self.requests = requests;
        self
    }

    /// The backend cannot do this, and the checks that need it are skipped.
    pub fn without(mut self, capability: Capability) -> Self {
        self.without.push(capability);
        self
    }

    /// Skips the check of this name, for the reason that the report gives.
    pub fn skip(mut self, name: impl Into<String>, reason: impl Into<String>) -> Self {
        self.skipped.push((name.into(), reason.into()));
        self
    }

    /// Only the checks of these names: the others are not in the report.
    pub fn only(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.only.get_or_insert_default().extend(names.into_iter().map(Into::into));
        self
    }

    /// Runs the checks, one after the other. Blocks until the last has ended, or was given up.
    pub fn run(self) -> Report {
        let Self { make, dir, patience, requests, without, skipped, only } = self;
        let setup =
            Arc::new(Setup { make, dir, patience, requests, without, step: Mutex::new(Instant::now()) });
        let reason = |check: &Check| {
            let named = skipped.iter().find(|(name, _)| name == check.name).map(|(_, reason)| reason.clone());
            let lacking = || check.needs.iter().find(|need| setup.without.contains(need));
            named.or_else(|| lacking().map(|need| format!("the backend is without {need:?}")))
        };
        let asked_for =
            |check: &&Check| only.as_ref().is_none_or(|only| only.iter().any(|name| name == check.name));
        let outcomes = checks()
            .filter(asked_for)
            .map(|check| (check, reason(check).map_or_else(|| tried(check, &setup), Outcome::Skipped)));
        let outcomes = outcomes.collect();
        let named = skipped.iter().map(|(name, _)| name).chain(only.iter().flatten());
        let unknown = named.filter(|name| checks().all(|check| check.name != **name)).cloned().collect();
        Report { outcomes, unknown }
    }
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite")
            .field("dir", &self.dir)
            .field("patience", &self.patience)
            .field("requests", &self.requests)
            .field("without", &self.without)
            .field("skipped", &self.skipped)
            .field("only", &self.only)
            .finish_non_exhaustive()
    }
}

/// What comes of one check.
fn tried(check: &'static Check, setup: &Arc<Setup>) -> Outcome {
    setup.step();
    let theirs = Arc::clone(setup);
    let work = move || (check.run)(&Rig::new(theirs)?);
    let found = Worker::start(check.name, work).map_err(Stop::from);
    match found.and_then(|worker| worker.wait(|| setup.deadline())) {
        Ok(()) => Outcome::Passed,
        Err(Stop::Failed(how)) => Outcome::Failed(how),
        Err(Stop::Skipped(why)) => Outcome::Skipped(why),
    }
}
