//! A context shared by submitters and a reaper: on a device that does nothing, and reading a file in the page cache.
//!
//! # What is compared
//!
//! Everybody has room for 1024 requests. Where one cannot go on the loop yields, the same for all.
//!
//! | contender | submitters | reapers | what it does not do |
//! |---|---|---|---|
//! | `ioctx::Context` | any | any | keep one order |
//! | kernel AIO | any | any | submit without a system call; return from the submit of a cached read before it is done |
//! | `io_uring` behind a mutex | one at a time | one at a time | let a submitter in while another is at it |
//! | `Mutex<VecDeque>` of requests, of words | one at a time | one at a time | refer to the requests in flight; the latter gives back no request |
//! | `io_uring` per thread, `ioctx::Context` per thread | its own thread | its own thread | let anybody else reap: what a thread has submitted waits for that thread |
//! | `pread` loops | | | anything while a read takes its time |
//!
//! Those per thread, and the loops, run on as many threads as there are submitters, without a reaper, and so with
//! nothing to hand over: they are what sharing is measured against. A ring per thread is set up for one issuer and for
//! deferred work, the cheapest there is.
//!
//! # Reads
//!
//! Of 4 KiB each, of random blocks of a file of 16 MiB, which is read before each repetition so that it is in the page
//! cache. It lies in cargo's target directory: on tmpfs neither `RWF_NOWAIT` nor `io_uring` can read without handing
//! the read to a worker, and the bench says if that is so. All threads share one descriptor. `ioctx::Context` is one
//! over `backend::Threads`: submitters do reads of what is cached themselves, as kernel AIO has them do.
//!
//! Buffers are aligned, and go round: 256 for each submitter, which come back from the reaper by a queue of one
//! producer and one consumer. Before a submitter uses one again it looks whether the first word in it is that of the
//! right block. Of ours whole requests come back and are submitted again, with buffer and file, of the others a word.
//! Those per thread have as many buffers as they read at a time, the loops of `pread` one each, which stay in the
//! nearest cache, or 256 in turn, as the submitters have: what the caches have to do with it. Before anybody is timed, every byte is looked at.
//!
//! How much of that time is ours is told by an identical run over a backend that leaves the system call out: its time
//! over the time of the run that reads. That is an upper bound, since it has in it what the loop itself does, the
//! queues between the reaper and the submitters, and more contention than there is beside reads.

use ioctx::Event;
use ioctx::backend::Null;
use ioctx_benches::context::{Context, Locked, Own, OwnContext, Shape, Word};
#[cfg(target_os = "linux")]
use ioctx_benches::context::{KernelAio, OwnRing, SharedRing};
use ioctx_benches::context::{alone, apart, check, check_apart, pass, polls};
use ioctx_benches::harness::{Bench, Case, Contest, Run, Target, times, times_switched};

const OURS: &str = "ioctx Context";
const KERNEL: &str = "kernel AIO";
const SHARED_RING: &str = "io_uring behind a mutex";
const OWN_RING: &str = "io_uring per thread, no reaper";
const OWN: &str = "ioctx Context per thread, no reaper";
const PREAD: &str = "pread loops, no reaper (floor)";
const PREAD_ROUND: &str = "pread loops, 256 buffers each, no reaper";
const NO_READ: &str = "ioctx Context, reads left out";

const SUBMITTERS: usize = 4;
const BY_1: &str = "4 submitters, 1 reaper that waits for 1 event";
const BY_16: &str = "4 submitters, 1 reaper that waits for 16 events";
const CACHED: &str =
    "reads of 4 KiB from the page cache: 4 submitters, 1 reaper that waits for as many as are submitted";
const ALONE: &str = "one thread submits and reaps";

/// One contender among those that are shared, by its type.
struct Contender {
    name: &'static str,
    pass: fn(&str, Shape) -> Case<'static>,
    alone: fn(&str, usize) -> Case<'static>,
    poll: fn(&str) -> Case<'static>,
}

impl Contender {
    /// `None`, and a word why, if it cannot be had here.
    fn new<C: Context + 'static>(name: &'static str) -> Option<Self> {
        fn open<C: Context>() -> C {
            C::open().expect("it could be opened before")
        }
        had(name, check::<C>()).map(|name| Self {
            name,
            pass: |name, shape| Case::repetitions(name, move |n| pass::<C>(n, shape)),
            alone: |name, batch| {
                let context = open::<C>();
                Case::slices(name, 1, batch as u32, move |n| alone(&context, batch, n))
            },
            poll: |name| {
                let context = open::<C>();
                Case::slices(name, 1, 1, move |n| polls(&context, n))
            },
        })
    }
}

/// One that has something for each thread.
struct Apart {
    name: &'static str,
    pass: fn(&str, Shape) -> Case<'static>,
}

impl Apart {
    /// `None`, and a word why, if it cannot be had here.
    fn new<O: Own + 'static>(name: &'static str) -> Option<Self> {
        let pass = |name: &str, shape| Case::repetitions(name, move |n| apart::<O>(n, shape));
        had(name, check_apart::<O>()).map(|name| Self { name, pass })
    }
}

/// The name, unless it was checked in vain: says so.
fn had(name: &'static str, checked: std::io::Result<()>) -> Option<&'static str> {
    checked.map_err(|error| println!("\n{name} is left out: {error}.")).ok().map(|()| name)
}

#[cfg(target_os = "linux")]
mod reads {
    use super::*;
    use ioctx::backend::Threads;
    use ioctx_benches::context::cached::{
        IN_FLIGHT, KernelReads, Look, NoRead, Numbered, OwnReads, Pread, Reader, Reads, Rig, SharedReads,
        apart, check, check_apart,
    };
    use std::path::Path;
    use std::sync::Arc;

    /// Makes the case of one contender.
    type Maker = Box<dyn Fn(Shape) -> Case<'static>>;

    fn shared<C: Reads + 'static>(name: &'static str, file: &Arc<Numbered>, look: Look) -> Option<Maker> {
        had(name, check::<C>(file, look))?;
        let file = file.clone();
        Some(Box::new(move |shape| {
            let (file, mut rig) = (file.clone(), None);
            Case::repetitions(name, move |n| {
                let open = || Rig::<C>::open(&file, shape).expect("it could be opened before");
                rig.get_or_insert_with(open).pass(&file, n, Look::First)
            })
        }))
    }

    fn own<R: Reader + 'static>(name: &'static str, file: &Arc<Numbered>) -> Option<Maker> {
        had(name, check_apart::<R>(file))?;
        let file = file.clone();
        Some(Box::new(move |shape| {
            let file = file.clone();
            Case::repetitions(name, move |n| apart::<R>(&file, n, shape, Look::First))
        }))
    }

    /// The contest of reads.
    pub fn contest(dir: &Path) -> Contest<'static> {
        let file = Numbered::new(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        if file.on_tmpfs().expect("it is open") {
            println!(
                "\nThe file that is read lies on tmpfs: reads of ioctx and io_uring go to their workers."
            );
        }
        let file = &Arc::new(file);
        let makers = [
            shared::<ioctx::Context<Threads>>(OURS, file, Look::All),
            shared::<KernelReads>(KERNEL, file, Look::All),
            shared::<SharedReads>(SHARED_RING, file, Look::All),
            own::<OwnReads>(OWN_RING, file),
            own::<Pread<1>>(PREAD, file),
            own::<Pread<IN_FLIGHT>>(PREAD_ROUND, file),
            shared::<ioctx::Context<NoRead>>(NO_READ, file, Look::First),
        ];
        [1, 16].into_iter().fold(Contest::new(CACHED), |contest, batch| {
            let shape = Shape { submitters: SUBMITTERS, batch, min: batch };
            let cases = makers.iter().flatten().map(|make| make(shape)).collect();
            contest.group(SUBMITTERS + 1, batch, cases)
        })
    }
}

/// How many times ours another takes.
fn over(run: &Run, title: &str, other: &str, batch: usize) -> Option<f64> {
    let which = |case| (title, case, SUBMITTERS + 1, batch);
    times(run, which(other), which(OURS))
}

/// How many times another ours takes.
fn under(run: &Run, title: &str, other: &str, batch: usize) -> Option<f64> {
    over(run, title, other, batch).map(f64::recip)
}

/// How many times as often another switches as ours.
fn switched(run: &Run, title: &str, other: &str, batch: usize) -> Option<f64> {
    let which = |case| (title, case, SUBMITTERS + 1, batch);
    times_switched(run, which(other), which(OURS))
}

macro_rules! targets {
    ($($what:literal, $wanted:literal, |$run:ident| $measured:expr;)*) => {
        &[$(Target { what: $what, wanted: $wanted, measured: |$run| $measured }),*]
    };
}

const TARGETS: &[Target] = targets! {
    "alone, one by one: ns", "<= 14", |run| run.ns(ALONE, OURS, 1, 1);
    "alone, by 32: ns", "<= 7", |run| run.ns(ALONE, OURS, 1, 32);
    "4:1, one by one, for 1, kernel AIO: times ours", ">= 15 near, 6 far", |run| over(run, BY_1, KERNEL, 1);
    "4:1, one by one, for 16, kernel AIO: times ours", ">= 15 near, 6 far", |run| over(run, BY_16, KERNEL, 1);
    "4:1, by 16, for 16, kernel AIO: times ours", ">= 25", |run| over(run, BY_16, KERNEL, 16);
    "4:1, one by one, for 1, io_uring per thread: times ours", ">= 6", |run| over(run, BY_1, OWN_RING, 1);
    "4:1, by 16, for 16, io_uring per thread: times ours", ">= 5", |run| over(run, BY_16, OWN_RING, 16);
    "4:1, one by one, for 1, io_uring behind a mutex: times ours", ">= 25", |run| {
        over(run, BY_1, SHARED_RING, 1)
    };
    "4:1, one by one, for 1, ours: times a context per thread", "<= 1.2", |run| under(run, BY_1, OWN, 1);
    "4:1, by 16, for 16, ours: times a context per thread", "<= 1.2", |run| under(run, BY_16, OWN, 16);
    "4:1, one by one, for 1, switches of kernel AIO: times ours", ">= 50", |run| {
        switched(run, BY_1, KERNEL, 1)
    };
    "4:1, by 16, for 16, switches of kernel AIO: times ours", ">= 50", |run| switched(run, BY_16, KERNEL, 16);
    "reads, one by one, kernel AIO: times ours", ">= 1.8", |run| over(run, CACHED, KERNEL, 1);
    "reads, by 16, kernel AIO: times ours", ">= 1.5", |run| over(run, CACHED, KERNEL, 16);
    "reads, one by one, ours: times pread loops", "<= 1.1", |run| under(run, CACHED, PREAD, 1);
    "reads, by 16, ours: times pread loops", "<= 1.1", |run| under(run, CACHED, PREAD, 16);
    "reads, one by one, ours: times pread loops with as many buffers", "<= 1.1", |run| {
        under(run, CACHED, PREAD_ROUND, 1)
    };
    "reads, by 16, ours: times pread loops with as many buffers", "<= 1.1", |run| {
        under(run, CACHED, PREAD_ROUND, 16)
    };
    "reads, one by one, switches of kernel AIO: times ours", ">= 50", |run| switched(run, CACHED, KERNEL, 1);
    "reads, by 16, switches of kernel AIO: times ours", ">= 50", |run| switched(run, CACHED, KERNEL, 16);
    "reads, one by one, without the system call: % of the time", "< 3", |run| {
        over(run, CACHED, NO_READ, 1).map(|part| 100.0 * part)
    };
    "reads, by 16, without the system call: % of the time", "< 3", |run| {
        over(run, CACHED, NO_READ, 16).map(|part| 100.0 * part)
    };
};

fn main() {
    let mut bench = Bench::start("context", env!("CARGO_TARGET_TMPDIR"));
    let contenders: Vec<Contender> = [
        Contender::new::<ioctx::Context<Null>>(OURS),
        #[cfg(target_os = "linux")]
        Contender::new::<KernelAio>(KERNEL),
        #[cfg(target_os = "linux")]
        Contender::new::<SharedRing>(SHARED_RING),
        Contender::new::<Locked<Event>>("Mutex<VecDeque> of requests"),
        Contender::new::<Locked<Word>>("Mutex<VecDeque> of words"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let aparts: Vec<Apart> = [
        Apart::new::<OwnContext>(OWN),
        #[cfg(target_os = "linux")]
        Apart::new::<OwnRing>(OWN_RING),
    ]
    .into_iter()
    .flatten()
    .collect();

    for (min, title) in [(1, BY_1), (16, BY_16)] {
        let contest = [1, 16].into_iter().fold(Contest::new(title), |contest, batch| {
            let shape = Shape { submitters: SUBMITTERS, batch, min };
            let shared = contenders.iter().map(|contender| (contender.pass)(contender.name, shape));
            let cases = shared.chain(aparts.iter().map(|apart| (apart.pass)(apart.name, shape)));
            contest.group(SUBMITTERS + 1, batch, cases.collect())
        });
        bench.run(contest);
    }
    #[cfg(target_os = "linux")]
    bench.run(reads::contest(env!("CARGO_TARGET_TMPDIR").as_ref()));

    let mut contest = Contest::new(ALONE);
    for batch in [1, 16, 32] {
        let cases = contenders.iter().map(|contender| (contender.alone)(contender.name, batch));
        contest = contest.group(1, batch, cases.collect());
    }
    bench.run(contest);
    let cases = contenders.iter().map(|contender| (contender.poll)(contender.name));
    bench.run(Contest::new("nothing to reap, and no wish to wait").group(1, 1, cases.collect()));

    bench.targets(TARGETS);
    bench.finish();
}
