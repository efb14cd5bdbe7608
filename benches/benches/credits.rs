//! Admission to a bounded resource: credits and tags per CPU beside what everybody shares.
//!
//! # What is compared
//!
//! Everybody admits 1024 and refuses the next. How many:
//!
//! | contender | callers can wait | what it does not do |
//! |---|---|---|
//! | `Credits` | no | say which one |
//! | one atomic, compare-and-swap | no | keep CPUs off one line |
//! | one atomic, `fetch_sub` and undo | no | refuse only when none is free |
//! | semaphores of `tokio` and `async_lock` | yes | keep CPUs off one line |
//! | a number behind a mutex | no | keep CPUs off one line |
//! | thread-local cell | no | tell any other thread |
//!
//! Which one, too:
//!
//! | contender | what it does not do |
//! |---|---|
//! | `Tags` | hand them out in any order one could name |
//! | `ArrayQueue` of free tags | keep CPUs off two lines; hand out again what was used last |
//! | a stack of free tags behind a mutex | keep CPUs off its lines |
//! | `sharded_slab` | refuse, since it grows; number a table: a key has a thread and a generation in it |
//!
//! # Crossed
//!
//! What one CPU takes the other gives back, as where requests end elsewhere than they began. All hand over in
//! the same way, and both CPUs work at once: the time is that of the slower of them, or of the ring between
//! them, whose own is the row "hand-over alone". It is in every other row as well, hidden or not: so the
//! ratios are less than what the pools alone would show.

use crossbeam_queue::ArrayQueue;
use ioctx::credits::{Credits, Tags};
use ioctx_benches::credits::check::{check, check_alone, check_tags, check_unbounded};
use ioctx_benches::credits::counted::{SharedCas, SharedUndo};
use ioctx_benches::credits::crossed::crossed;
use ioctx_benches::credits::floor::{HandOver, OneLoad, ThreadLocal};
use ioctx_benches::credits::locked::{Locked, LockedStack};
use ioctx_benches::credits::ours::{PortableCredits, PortableTags};
use ioctx_benches::credits::{Apart, Pool, bursts, exhausted, pairs, refusals};
use ioctx_benches::harness::{Bench, Case, Contest, Target, cpus, times};
use sharded_slab::Slab;
use std::sync::Mutex;

/// How many credits a thread of the second contest holds at the most. Two threads together leave some over.
const BURST: usize = 256;

const PAIR: &str = "take+put of one credit";
const MANY: &str = "256 credits taken one by one, then put one by one";
const CROSSED: &str = "one CPU takes credits, the other puts them, handed over by 32";
const REFUSED: &str = "refused, since all 1024 credits are out";
const TAG_PAIR: &str = "take+put of one tag";
const TAG_MANY: &str = "256 tags taken one by one, then put one by one";
const TAG_CROSSED: &str = "one CPU takes tags, the other puts them, handed over by 32";
const TAG_REFUSED: &str = "refused, since all 1024 tags are out";

const OURS: &str = "ioctx Credits";
const PORTABLE: &str = "ioctx Credits portable";
const CAS: &str = "one shared atomic, compare-and-swap";
const TOKIO: &str = "tokio Semaphore";
const CELL: &str = "thread-local cell (floor)";
const LOAD: &str = "one shared load (floor)";
const HAND_OVER: &str = "hand-over alone";
const SLAB: &str = "sharded_slab, which has no bound";

fn pair<P: Pool + 'static>(name: &str, threads: usize) -> Case<'static> {
    let pool = Apart::new(P::new());
    Case::slices(name, threads, 1, move |n| pairs(&*pool, n))
}

fn burst<P: Pool + 'static>(name: &str, threads: usize) -> Case<'static> {
    let pool = Apart::new(P::new());
    Case::slices(name, threads, BURST as u32, move |n| bursts(&*pool, BURST, n))
}

fn crossing<P: Pool + 'static>(name: &str) -> Case<'static> {
    let pool = Apart::new(P::new());
    Case::repetitions(name, move |n| crossed(&*pool, n))
}

fn refusal<P: Pool + 'static>(name: &str, threads: usize) -> Case<'static> {
    let pool = exhausted::<P>();
    Case::slices(name, threads, 1, move |n| refusals(&*pool, n))
}

/// All who count.
macro_rules! credits {
    ($case:ident $(, $threads:expr)?) => {
        vec![
            $case::<Credits>(OURS $(, $threads)?),
            $case::<PortableCredits>(PORTABLE $(, $threads)?),
            $case::<SharedCas>(CAS $(, $threads)?),
            $case::<SharedUndo>("one shared atomic, fetch_sub and undo" $(, $threads)?),
            $case::<Locked<Mutex<u32>>>("Mutex<u32>" $(, $threads)?),
            $case::<Locked<parking_lot::Mutex<u32>>>("parking_lot Mutex<u32>" $(, $threads)?),
            $case::<tokio::sync::Semaphore>(TOKIO $(, $threads)?),
            $case::<async_lock::Semaphore>("async_lock Semaphore" $(, $threads)?),
        ]
    };
}

/// All who say which one, and refuse.
macro_rules! tags {
    ($case:ident $(, $threads:expr)?) => {
        vec![
            $case::<Tags>("ioctx Tags" $(, $threads)?),
            $case::<PortableTags>("ioctx Tags portable" $(, $threads)?),
            $case::<ArrayQueue<u32>>("crossbeam_queue::ArrayQueue<u32>" $(, $threads)?),
            $case::<LockedStack<Mutex<Vec<u32>>>>("Mutex<Vec<u32>>" $(, $threads)?),
            $case::<LockedStack<parking_lot::Mutex<Vec<u32>>>>("parking_lot Mutex<Vec<u32>>" $(, $threads)?),
        ]
    };
}

/// These and what belongs beside them.
fn with<const N: usize>(mut cases: Vec<Case<'static>>, others: [Case<'static>; N]) -> Vec<Case<'static>> {
    cases.extend(others);
    cases
}

const TARGETS: &[Target] = &[
    Target {
        what: "take+put, 1 thread: times a thread-local cell",
        wanted: "<= 1.8",
        measured: |run| times(run, (PAIR, OURS, 1, 1), (PAIR, CELL, 1, 1)),
    },
    Target {
        what: "take+put, 2 threads: times a thread-local cell",
        wanted: "<= 1.8",
        measured: |run| times(run, (PAIR, OURS, 2, 1), (PAIR, CELL, 2, 1)),
    },
    Target {
        what: "shared compare-and-swap, 1 thread: times ours",
        wanted: ">= 2.3",
        measured: |run| times(run, (PAIR, CAS, 1, 1), (PAIR, OURS, 1, 1)),
    },
    Target {
        what: "shared compare-and-swap, 2 threads: times ours",
        wanted: ">= 7",
        measured: |run| times(run, (PAIR, CAS, 2, 1), (PAIR, OURS, 2, 1)),
    },
    Target {
        what: "tokio's semaphore, 1 thread: times ours",
        wanted: ">= 4.5",
        measured: |run| times(run, (PAIR, TOKIO, 1, 1), (PAIR, OURS, 1, 1)),
    },
    Target {
        what: "tokio's semaphore, 2 threads: times ours",
        wanted: ">= 28",
        measured: |run| times(run, (PAIR, TOKIO, 2, 1), (PAIR, OURS, 2, 1)),
    },
    Target {
        what: "crossed, shared compare-and-swap: times ours",
        wanted: ">= 3",
        measured: |run| times(run, (CROSSED, CAS, 2, 1), (CROSSED, OURS, 2, 1)),
    },
    Target {
        what: "crossed, tokio's semaphore: times ours",
        wanted: ">= 6",
        measured: |run| times(run, (CROSSED, TOKIO, 2, 1), (CROSSED, OURS, 2, 1)),
    },
    Target {
        what: "refused, 1 thread: times one shared load",
        wanted: "<= 1.5",
        measured: |run| times(run, (REFUSED, OURS, 1, 1), (REFUSED, LOAD, 1, 1)),
    },
    Target {
        what: "refused, 2 threads: times one shared load",
        wanted: "<= 1.5",
        measured: |run| times(run, (REFUSED, OURS, 2, 1), (REFUSED, LOAD, 2, 1)),
    },
    Target {
        what: "portable, 1 thread: times a shared compare-and-swap",
        wanted: "<= 1.15",
        measured: |run| times(run, (PAIR, PORTABLE, 1, 1), (PAIR, CAS, 1, 1)),
    },
    Target {
        what: "shared compare-and-swap, 2 threads: times portable",
        wanted: ">= 3.5",
        measured: |run| times(run, (PAIR, CAS, 2, 1), (PAIR, PORTABLE, 2, 1)),
    },
];

fn check_all() {
    check::<Credits>();
    check::<PortableCredits>();
    check::<SharedCas>();
    check::<SharedUndo>();
    check::<Locked<Mutex<u32>>>();
    check::<Locked<parking_lot::Mutex<u32>>>();
    check::<tokio::sync::Semaphore>();
    check::<async_lock::Semaphore>();
    check_alone::<ThreadLocal>();
    check_tags::<Tags>();
    check_tags::<PortableTags>();
    check_tags::<ArrayQueue<u32>>();
    check_tags::<LockedStack<Mutex<Vec<u32>>>>();
    check_tags::<LockedStack<parking_lot::Mutex<Vec<u32>>>>();
    check_unbounded::<Slab<()>>();
}

fn main() {
    let mut bench = Bench::start("credits", env!("CARGO_TARGET_TMPDIR"));
    check_all();

    let [mut one, mut many, mut refused] = [PAIR, MANY, REFUSED].map(Contest::new);
    let [mut one_tag, mut many_tags, mut no_tag] = [TAG_PAIR, TAG_MANY, TAG_REFUSED].map(Contest::new);
    for threads in [1, 2].into_iter().filter(|threads| *threads <= cpus().len()) {
        one = one.group(threads, 1, with(credits!(pair, threads), [pair::<ThreadLocal>(CELL, threads)]));
        many =
            many.group(threads, BURST, with(credits!(burst, threads), [burst::<ThreadLocal>(CELL, threads)]));
        refused =
            refused.group(threads, 1, with(credits!(refusal, threads), [refusal::<OneLoad>(LOAD, threads)]));
        one_tag = one_tag.group(threads, 1, with(tags!(pair, threads), [pair::<Slab<()>>(SLAB, threads)]));
        many_tags =
            many_tags.group(threads, BURST, with(tags!(burst, threads), [burst::<Slab<()>>(SLAB, threads)]));
        no_tag = no_tag.group(threads, 1, with(tags!(refusal, threads), [refusal::<OneLoad>(LOAD, threads)]));
    }
    let [mut over, mut tags_over] = [CROSSED, TAG_CROSSED].map(Contest::new);
    if cpus().len() > 1 {
        over = over.group(2, 1, with(credits!(crossing), [crossing::<HandOver>(HAND_OVER)]));
        let others = [crossing::<Slab<()>>(SLAB), crossing::<HandOver>(HAND_OVER)];
        tags_over = tags_over.group(2, 1, with(tags!(crossing), others));
    }
    let contests = [one, many, over, refused, one_tag, many_tags, tags_over, no_tag];
    contests.into_iter().for_each(|contest| bench.run(contest));
    bench.targets(TARGETS);
    bench.finish();
}
