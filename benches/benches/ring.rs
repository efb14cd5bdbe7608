//! Completion rings beside the queues and channels one would use instead.
//!
//! # What is compared
//!
//! Everybody carries events of 32 bytes and holds 1024 of them. Where one cannot go on the loop waits, the same for all.
//!
//! | contender | publishers | readers | published at once | read at once | what it does not do |
//! |---|---|---|---|---|---|
//! | `CompletionQueue` with credits | any | any | any | any | keep one order |
//! | `CompletionQueue` | any | any | any | any | keep one order; refuse when it is full |
//! | `Ring` | any | one at a time | any | any | let a publisher in while another is at it |
//! | `ArrayQueue`, `ConcurrentQueue`, `ThingBuf`, `crossbeam_channel` | any | any | 1 | 1 | batches |
//! | `thingbuf::mpsc`, `sync_channel` | any | 1 | 1 | 1 | batches |
//! | `kanal`, `flume` | any | any | 1 | all there are | let anybody in while another is at it |
//! | `disruptor`, polled | any | 1 | any | any | hand each event to one of several readers |
//! | `rtrb` | 1 | 1 | any | any | serve a third thread |
//! | `Mutex<VecDeque>` | any | any | any | any | let anybody in while another is at it |
//!
//! The targets are for the first: as it is meant to be used, with a credit taken for every event and put back when it
//! has been read. Where publishers are faster than readers every queue is full most of the time: then all credits are
//! out, which is their dear case.
//!
//! What cannot take part in a contest is left out of it. `disruptor`'s managed consumers are threads of its own, so only
//! its poller fits; and several pollers would each be shown every event. Of those that pass events one by one, two take
//! part where batches go between threads.

use concurrent_queue::ConcurrentQueue;
use crossbeam_queue::ArrayQueue;
use ioctx::ring::{CompletionQueue, Event, Ring};
use ioctx_benches::harness::{Bench, Case, Contest, Run, Target, times};
use ioctx_benches::ring::empty::{Look, kernel, looks, used};
use ioctx_benches::ring::handles::{Crossbeam, Disruptor, Flume, Kanal, Rtrb, SyncChannel, ThingMpsc};
use ioctx_benches::ring::held::{self, BUSY, Held, held};
use ioctx_benches::ring::ours::WithCredits;
use ioctx_benches::ring::pass::pass;
use ioctx_benches::ring::shared::Locked;
use ioctx_benches::ring::{Both, Queue, Shape, alone, check};
use std::sync::Mutex;
use std::time::Duration;
use thingbuf::ThingBuf;

const CREDITS: &str = "ioctx CompletionQueue with credits";
const LANES: &str = "ioctx CompletionQueue";
const RING: &str = "ioctx Ring";
const ARRAY: &str = "crossbeam_queue::ArrayQueue";
const CONCURRENT: &str = "concurrent_queue";
const THING: &str = "thingbuf";
const CROSSBEAM: &str = "crossbeam_channel";
const THING_MPSC: &str = "thingbuf::mpsc";
const SYNC: &str = "std sync_channel";
const KANAL: &str = "kanal";
const FLUME: &str = "flume";
const DISRUPTOR: &str = "disruptor, polled";
const RTRB: &str = "rtrb";
const LOCKED: &str = "Mutex<VecDeque>";

const ALONE: [(&str, usize, &[usize]); 3] = [
    ("one thread publishes and reads, one by one", 1, &[1, 16, 64]),
    ("one thread publishes and reads, up to 16 read at once", 16, &[16, 64]),
    ("one thread publishes and reads, up to 64 read at once", 64, &[64]),
];

const ONE_ONE: &str = "1 publisher, 1 reader, each on a CPU of its own, one by one";
const TWO_ONE: &str = "2 publishers, 1 reader, one by one";
const FOUR_ONE: &str = "4 publishers, 1 reader, one by one";
const ONE_FOUR: &str = "1 publisher, 4 readers, one by one";
const BY_16: [&str; 4] = [
    "1 publisher, 1 reader, each on a CPU of its own, up to 16 read at once",
    "2 publishers, 1 reader, up to 16 read at once",
    "4 publishers, 1 reader, up to 16 read at once",
    "1 publisher, 4 readers, up to 16 read at once",
];
const BY_64: [&str; 2] = [
    "1 publisher, 1 reader, each on a CPU of its own, up to 64 read at once",
    "4 publishers, 1 reader, up to 64 read at once",
];

/// Between threads: title, publishers, readers, at most so many read at once, published at once.
const PASSED: [(&str, usize, usize, usize, &[usize]); 10] = [
    (ONE_ONE, 1, 1, 1, &[1]),
    (TWO_ONE, 2, 1, 1, &[1]),
    (FOUR_ONE, 4, 1, 1, &[1]),
    (ONE_FOUR, 1, 4, 1, &[1]),
    (BY_16[0], 1, 1, 16, &[16]),
    (BY_16[1], 2, 1, 16, &[16]),
    (BY_16[2], 4, 1, 16, &[16]),
    (BY_16[3], 1, 4, 16, &[16]),
    (BY_64[0], 1, 1, 64, &[64]),
    (BY_64[1], 4, 1, 64, &[1, 64]),
];

const WAYS: &str = "three ways of publishing: 1, 2, 4 and 8 publishers, 1 reader, up to 64 read at once";
const EMPTY: &str = "nothing is there";
const EMPTY_READ: &str = "ioctx CompletionQueue::read";
const HELD: [&str; 3] = [
    "8 threads publish and read: publishing, all but one call in a thousand",
    "who joins them now and then, held up at most when publishing",
    "who joins them now and then, held up at most when reading",
];

/// What between threads takes a repetition each, in the many contests there are.
const ROUNDS: usize = 4;

fn by_itself<Q: Queue>(name: &str, batch: usize, read: usize) -> Case<'static> {
    let ends = Mutex::new(Both::<Q>::new());
    let body = move |n| alone(&mut *ends.try_lock().expect("one thread"), batch, read, n);
    Case::slices(name, 1, batch as u32, body)
}

/// `None` if it is not made for so many.
fn passed<Q: Queue>(name: &str, shape: Shape) -> Option<Case<'static>> {
    let able =
        [shape.publishers, shape.readers].iter().zip(Q::SEVERAL).all(|(count, any)| any || *count == 1);
    able.then(|| Case::repetitions(name, move |n| pass::<Q>(n, shape)))
}

fn looked(name: &str, at: impl Look + 'static) -> Case<'static> {
    let at = Mutex::new(at);
    Case::slices(name, 1, 1, move |n| looks(&mut *at.try_lock().expect("one thread"), n))
}

fn waited<Q: Queue>(name: &str, figure: fn(Held) -> Duration) -> Case<'static> {
    Case::shots(name, 1, move |n| vec![figure(held::<Q>(Duration::from_millis(3 * n as u64)))])
}

/// All who do more than one by one, and what they are measured by.
macro_rules! in_batches {
    ($case:ident $(, $argument:expr)*) => {
        [
            $case::<WithCredits>(CREDITS $(, $argument)*),
            $case::<CompletionQueue>(LANES $(, $argument)*),
            $case::<Ring>(RING $(, $argument)*),
            $case::<ArrayQueue<Event>>(ARRAY $(, $argument)*),
            $case::<ThingMpsc>(THING_MPSC $(, $argument)*),
            $case::<Kanal>(KANAL $(, $argument)*),
            $case::<Flume>(FLUME $(, $argument)*),
            $case::<Disruptor>(DISRUPTOR $(, $argument)*),
            $case::<Rtrb>(RTRB $(, $argument)*),
            $case::<Locked>(LOCKED $(, $argument)*),
        ]
    };
}

/// The others.
macro_rules! one_by_one {
    ($case:ident $(, $argument:expr)*) => {
        [
            $case::<ConcurrentQueue<Event>>(CONCURRENT $(, $argument)*),
            $case::<ThingBuf<Event>>(THING $(, $argument)*),
            $case::<Crossbeam>(CROSSBEAM $(, $argument)*),
            $case::<SyncChannel>(SYNC $(, $argument)*),
        ]
    };
}

/// The ways of publishing.
macro_rules! ways {
    ($case:ident, $shape:expr) => {
        [
            $case::<CompletionQueue>("ioctx CompletionQueue: appended per CPU", $shape),
            $case::<Ring>("ioctx Ring: one swap", $shape),
            $case::<Locked>("Mutex<VecDeque>: a mutex", $shape),
        ]
    };
}

/// Those that several threads can read.
macro_rules! contended {
    ($case:ident, $figure:expr) => {
        vec![
            $case::<CompletionQueue>(LANES, $figure),
            $case::<WithCredits>(CREDITS, $figure),
            $case::<Ring>(RING, $figure),
            $case::<ArrayQueue<Event>>(ARRAY, $figure),
            $case::<Locked>(LOCKED, $figure),
            $case::<held::Own>("a queue for each thread (floor)", $figure),
        ]
    };
}

/// The bounded queues for any number of publishers.
const GENERAL: [&str; 10] =
    [ARRAY, CONCURRENT, THING, CROSSBEAM, THING_MPSC, SYNC, KANAL, FLUME, DISRUPTOR, LOCKED];

/// How many times ours another takes.
fn over(run: &Run, title: &str, other: &str, threads: usize, batch: usize) -> Option<f64> {
    times(run, (title, other, threads, batch), (title, CREDITS, threads, batch))
}

/// The same of the best of those for many publishers.
fn over_best(run: &Run, title: &str, threads: usize) -> Option<f64> {
    GENERAL.iter().filter_map(|other| over(run, title, other, threads, 1)).reduce(f64::min)
}

macro_rules! targets {
    ($($what:literal, $wanted:literal, |$run:ident| $measured:expr;)*) => {
        &[$(Target { what: $what, wanted: $wanted, measured: |$run| $measured }),*]
    };
}

const TARGETS: &[Target] = targets! {
    "1:1, one by one, ArrayQueue: times ours", ">= 2.5", |run| over(run, ONE_ONE, ARRAY, 2, 1);
    "2:1, one by one, ArrayQueue: times ours", ">= 3.5", |run| over(run, TWO_ONE, ARRAY, 3, 1);
    "4:1, one by one, ArrayQueue: times ours", ">= 4.5", |run| over(run, FOUR_ONE, ARRAY, 5, 1);
    "1:4, one by one, ArrayQueue: times ours", ">= 2.5", |run| over(run, ONE_FOUR, ARRAY, 5, 1);
    "2:1, one by one, the best peer: times ours", ">= 2", |run| over_best(run, TWO_ONE, 3);
    "4:1, one by one, the best peer: times ours", ">= 2", |run| over_best(run, FOUR_ONE, 5);
    "1:1, by 16, ArrayQueue: times ours", ">= 9", |run| over(run, BY_16[0], ARRAY, 2, 16);
    "2:1, by 16, ArrayQueue: times ours", ">= 9", |run| over(run, BY_16[1], ARRAY, 3, 16);
    "4:1, by 16, ArrayQueue: times ours", ">= 9", |run| over(run, BY_16[2], ARRAY, 5, 16);
    "1:4, by 16, ArrayQueue: times ours", ">= 9", |run| over(run, BY_16[3], ARRAY, 5, 16);
    "1:1, by 16, Mutex<VecDeque>: times ours", ">= 5", |run| over(run, BY_16[0], LOCKED, 2, 16);
    "2:1, by 16, Mutex<VecDeque>: times ours", ">= 5", |run| over(run, BY_16[1], LOCKED, 3, 16);
    "4:1, by 16, Mutex<VecDeque>: times ours", ">= 5", |run| over(run, BY_16[2], LOCKED, 5, 16);
    "1:4, by 16, Mutex<VecDeque>: times ours", ">= 5", |run| over(run, BY_16[3], LOCKED, 5, 16);
    "1:1, by 16, rtrb's chunks: times ours", ">= 1", |run| over(run, BY_16[0], RTRB, 2, 16);
    "4:1, up to 64 read at once, a single ring: times lanes", ">= 1.7", |run| {
        times(run, (BY_64[1], RING, 5, 1), (BY_64[1], LANES, 5, 1))
    };
    "alone, one by one: ns", "<= 9", |run| run.ns(ALONE[0].0, CREDITS, 1, 1);
    "alone, by 16: ns", "<= 5", |run| run.ns(ALONE[1].0, CREDITS, 1, 16);
    "alone, by 64: ns", "<= 5", |run| run.ns(ALONE[2].0, CREDITS, 1, 64);
    "an empty read: ns", "<= 2.5", |run| run.ns(EMPTY, EMPTY_READ, 1, 1);
};

fn main() {
    let mut bench = Bench::start("ring", env!("CARGO_TARGET_TMPDIR"));
    // Named, so that the lists can be the same.
    fn checked<Q: Queue>(_name: &str) {
        check::<Q>();
    }
    in_batches!(checked);
    one_by_one!(checked);

    for (title, read, batches) in ALONE {
        let group = |contest: Contest<'static>, batch: &usize| {
            let mut cases = Vec::from(in_batches!(by_itself, *batch, read));
            cases.extend(one_by_one!(by_itself, *batch, read));
            contest.group(1, *batch, cases)
        };
        bench.run(batches.iter().fold(Contest::new(title), group));
    }

    for (title, publishers, readers, read, batches) in PASSED {
        let group = |contest: Contest<'static>, batch: &usize| {
            let shape = Shape { publishers, readers, batch: *batch, read };
            let mut cases: Vec<_> = in_batches!(passed, shape).into_iter().flatten().collect();
            if read == 1 {
                cases.extend(one_by_one!(passed, shape).into_iter().flatten());
            }
            contest.group(publishers + readers, *batch, cases)
        };
        bench.run(batches.iter().fold(Contest::new(title).rounds(ROUNDS), group));
    }

    let mut contest = Contest::new(WAYS).rounds(ROUNDS);
    for publishers in [1, 2, 4, 8] {
        for batch in [1, 16] {
            let shape = Shape { publishers, readers: 1, batch, read: 64 };
            contest =
                contest.group(publishers + 1, batch, ways!(passed, shape).into_iter().flatten().collect());
        }
    }
    bench.run(contest);

    let (lanes, ring) = (CompletionQueue::new(512), Ring::new(1024));
    let mut cases = vec![
        looked(EMPTY_READ, used::<CompletionQueue>()),
        looked("ioctx CompletionQueue::is_empty", move || lanes.is_empty()),
        looked("ioctx Ring::try_reader and peek", used::<Ring>()),
        looked("ioctx Ring::is_empty", move || ring.is_empty()),
        looked(ARRAY, used::<ArrayQueue<Event>>()),
        looked(CONCURRENT, used::<ConcurrentQueue<Event>>()),
        looked(THING, used::<ThingBuf<Event>>()),
        looked(THING_MPSC, used::<ThingMpsc>()),
        looked(CROSSBEAM, used::<Crossbeam>()),
        looked(SYNC, used::<SyncChannel>()),
        looked(KANAL, used::<Kanal>()),
        looked(FLUME, used::<Flume>()),
        looked(DISRUPTOR, used::<Disruptor>()),
        looked(RTRB, used::<Rtrb>()),
        looked(LOCKED, used::<Locked>()),
    ];
    cases.extend(kernel().map(|kernel| looked("kernel AIO io_getevents", kernel)));
    bench.run(Contest::new(EMPTY).group(1, 1, cases));

    let figures: [fn(Held) -> Duration; 3] =
        [|held| held::p999(held.busy), |held| held::longest(held.publish), |held| held::longest(held.read)];
    for (title, figure) in HELD.into_iter().zip(figures) {
        let cases = contended!(waited, figure);
        bench.run(Contest::in_microseconds(title).rounds(ROUNDS).group(BUSY + 2, 1, cases));
    }

    bench.targets(TARGETS);
    bench.finish();
}
