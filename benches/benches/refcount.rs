//! Getting and putting references: per-CPU counts beside what one would use instead.
//!
//! # What is compared
//!
//! Everybody keeps an object while somebody uses it; that is all they have in common.
//!
//! | contender | holds | tells the last holder | what it does not do |
//! |---|---|---|---|
//! | `PerCpuRef`, `DynamicRef` | one object, as long as one likes | yes, after `kill` | find zero before it is killed |
//! | `Arc`, `triomphe::Arc`, one atomic | one object, as long as one likes | yes | keep CPUs off one line |
//! | `ArcSwap::load` | one object, briefly: a thread has 8 slots for it | no | (it finds out which object, too) |
//! | `ArcSwap::load_full` | one object, as long as one likes | yes | as `Arc` |
//! | `crossbeam_epoch::pin` | every object of the process | no | free anything while somebody is pinned |
//! | `seize` | every object of its collector | no | free what is retired while a guard is out |
//! | `haphazard` | one object per hazard pointer | no | hold a second one (it finds out which object, too) |
//! | read locks | one object | no | let writers in while somebody looks |
//! | thread-local words | nothing | no | tell any other thread |
//!
//! For short looks at objects that come and go, `pin` and hazard pointers are the right thing; a count is
//! for a request that takes its time, and for whoever has to know when the last one is done. `haphazard`
//! is measured at its best: one hazard pointer per thread, found through a thread-local, pointed at the
//! object and reset. The epoch and `seize` are entered and left for every single object, which a program
//! would do once for many.
//!
//! # Where nothing is gained
//!
//! * Alone on a CPU, with 50 ns and more of independent work between operations, nobody can be told from
//!   `Arc`: the processor counts beside the work. With a second CPU on the same object it hides that,
//!   too, as long as the two share a cache; it no longer does when they are far apart.
//! * A dynamic count that is not shared: it takes what `Arc` takes, a little more.
//! * Without restartable sequences, on one CPU: a slot is changed by a locked instruction as well, and
//!   has to be found first. After stores that miss the caches that kind takes twice what `Arc` takes.
//! * In loops over many objects whose references are kept in memory: keeping them there costs more than
//!   counting.
//! * Objects that each stay on one CPU: `Arc` is freed at once, and needs nobody to kill it.
//! * Counts that live for a thousand operations: what they save goes into the kill, if other threads of
//!   the process run meanwhile. `kill_all` shares that among many.
//! * After the kill: one word for all, found on a detour.
//!
//! What is gained is two or more CPUs on the same objects, and operations back to back. `Arc` on 8 objects
//! takes three times as long on CPUs that share no cache, while on one object it takes less: each CPU keeps
//! the line for longer. Where the host of a virtual machine has put them decides more than anything here,
//! so the tables are split by it.

use crossbeam_utils::sync::ShardedLock;
use ioctx::refcount::{Gets, Moves, Never, PerCpuRef};
use ioctx_benches::harness::{Bench, Case, Contest, Run, Target, Which, cpus, times};
use ioctx_benches::refcount::between::{Scatter, Work};
use ioctx_benches::refcount::counted::{Loaded, LoadedFull, Object, SharedAtomic};
use ioctx_benches::refcount::deferred::{Epoch, Hazard, Seize};
#[cfg(target_arch = "x86_64")]
use ioctx_benches::refcount::floor::Assembly;
use ioctx_benches::refcount::floor::{Nothing, ThreadLocal};
use ioctx_benches::refcount::kill::{self, Other, latencies, used};
use ioctx_benches::refcount::ours::{self, Called, Dying, Get, Handles, Portable, TryGetLive};
use ioctx_benches::refcount::upgrade;
use ioctx_benches::refcount::{Apart, Count, OBJECTS, all_at_once, check, pairs, pairs_between, several};
use std::hint::black_box;
use std::sync::{Arc, RwLock};
use std::time::Duration;

/// How much work there is after each operation of the fourth.
const WORK: Duration = Duration::from_nanos(54);
/// How many counts are killed at once.
const KILLED: [usize; 3] = [10, 100, 1000];

const ONE: &str = "get+put on one shared object";
const EIGHT: &str = "get all, then put all, of 8 shared objects";
const MISSES: &str = "get+put after a store that misses the caches";
const WORKING: &str = "get, 54 ns of work, put, 54 ns of work";
const KILL_IDLE: &str = "end of a count while the other CPU is idle";
const KILL_BUSY: &str = "end of a count while the other CPU gets and puts";

const OURS: &str = "ioctx PerCpuRef get";
const CALLED: &str = "ioctx PerCpuRef get, by call";
const PORTABLE: &str = "ioctx PerCpuRef portable";
const DYNAMIC: &str = "ioctx DynamicRef get";
const ONE_WORD: &str = "ioctx DynamicRef that never goes per CPU";
const UPGRADE: &str = "two CPUs fight until a dynamic count is per CPU";
const MOVES: &str = "ioctx DynamicRef";
const ARC: &str = "Arc clone+drop";
const PIN: &str = "crossbeam_epoch::pin";
const CELL: &str = "thread-local cell (floor)";
const NOTHING: &str = "nothing else";
const WORK_ONLY: &str = "work only";
const KILL: &str = "ioctx kill";
const KILL_PORTABLE: &str = "ioctx kill, portable";
const KILL_ALL: &str = "ioctx kill_all, each";
const MEMBARRIER: &str = "membarrier alone";

fn one<C: Count + 'static>(name: &str, threads: usize) -> Case<'static> {
    let count = Apart::<C>::default();
    Case::slices(name, threads, 1, move |n| pairs(&*count, n))
}

fn eight<C: Count + 'static>(name: &str, threads: usize) -> Case<'static> {
    let counts = several::<C>();
    Case::slices(name, threads, OBJECTS as u32, move |n| all_at_once(&counts, n))
}

fn missing<C: Count + 'static>(name: &str, threads: usize) -> Case<'static> {
    let count = Apart::<C>::default();
    Case::slices(name, threads, 1, move |n| pairs_between(&*count, Scatter::take(), n).give_back())
}

fn working<C: Count + 'static>(name: &str, threads: usize, work: Work) -> Case<'static> {
    let count = Apart::<C>::default();
    Case::slices(name, threads, 1, move |n| {
        black_box(pairs_between(&*count, work, n));
    })
}

fn on_one_object(threads: usize) -> Vec<Case<'static>> {
    vec![
        one::<Get>(OURS, threads),
        one::<TryGetLive>("ioctx PerCpuRef try_get_live", threads),
        one::<Called>(CALLED, threads),
        one::<Portable>(PORTABLE, threads),
        one::<Handles>("ioctx Handle clone+drop", threads),
        one::<Get<Moves>>(DYNAMIC, threads),
        one::<Get<Gets>>("ioctx DynamicRef, the rule of 2012", threads),
        one::<Get<Never>>(ONE_WORD, threads),
        one::<Dying>("ioctx PerCpuRef after kill", threads),
        one::<Arc<Object>>(ARC, threads),
        one::<triomphe::Arc<Object>>("triomphe::Arc clone+drop", threads),
        one::<SharedAtomic>("one shared atomic", threads),
        one::<Epoch>(PIN, threads),
        one::<Seize>("seize enter+drop", threads),
        one::<Hazard>("haphazard protect+reset", threads),
        one::<Loaded>("arc_swap load", threads),
        one::<LoadedFull>("arc_swap load_full", threads),
        one::<parking_lot::RwLock<()>>("parking_lot RwLock read", threads),
        one::<RwLock<()>>("RwLock read", threads),
        one::<ShardedLock<()>>("crossbeam ShardedLock read", threads),
        one::<ThreadLocal>(CELL, threads),
        #[cfg(target_arch = "x86_64")]
        one::<Assembly>("thread-local word, assembly (floor)", threads),
    ]
}

/// Without those that hold all objects by one word, so that the other seven cost them nothing, and without
/// the hazard pointer, of which there would have to be eight.
fn on_eight_objects(threads: usize) -> Vec<Case<'static>> {
    vec![
        eight::<Get>(OURS, threads),
        eight::<Called>(CALLED, threads),
        eight::<Portable>(PORTABLE, threads),
        eight::<Get<Moves>>(DYNAMIC, threads),
        eight::<Arc<Object>>(ARC, threads),
        eight::<triomphe::Arc<Object>>("triomphe::Arc clone+drop", threads),
        eight::<SharedAtomic>("one shared atomic each", threads),
        eight::<Loaded>("arc_swap load", threads),
        eight::<parking_lot::RwLock<()>>("parking_lot RwLock read", threads),
        eight::<RwLock<()>>("RwLock read", threads),
        eight::<ShardedLock<()>>("crossbeam ShardedLock read", threads),
        eight::<ThreadLocal>(CELL, threads),
    ]
}

/// Those that differ, where there is something else to do.
macro_rules! a_few {
    ($case:ident, $nothing:expr, $($shape:expr),+) => {
        vec![
            $case::<Nothing>($nothing, $($shape),+),
            $case::<Get>(OURS, $($shape),+),
            $case::<Called>(CALLED, $($shape),+),
            $case::<Portable>(PORTABLE, $($shape),+),
            $case::<Arc<Object>>(ARC, $($shape),+),
            $case::<Epoch>(PIN, $($shape),+),
            $case::<parking_lot::RwLock<()>>("parking_lot RwLock read", $($shape),+),
            $case::<ThreadLocal>(CELL, $($shape),+),
        ]
    };
}

fn end_of_one(other: Other) -> Vec<Case<'static>> {
    let end = |name, make: fn() -> PerCpuRef| {
        let kill = |counts: &Vec<Apart<PerCpuRef>>| {
            let _ = black_box(ours::kill(&counts[0]));
        };
        Case::shots(name, 1, move |shots| latencies(shots, other, || used(make, 1), kill))
    };
    let mut cases = vec![end(KILL, PerCpuRef::new), end(KILL_PORTABLE, PerCpuRef::portable)];
    cases.extend(
        kill::membarrier().map(|issue| {
            Case::shots(MEMBARRIER, 1, move |shots| latencies(shots, other, || (), |()| issue()))
        }),
    );
    cases
}

fn end_of_many(other: Other, how_many: usize) -> Vec<Case<'static>> {
    let kill = |counts: &Vec<Apart<PerCpuRef>>| ours::kill_all(counts);
    let shots = move |shots| latencies(shots, other, || used(PerCpuRef::new, how_many), kill);
    vec![Case::shots(KILL_ALL, how_many as u32, shots)]
}

/// Ends of counts; `threads` is how many run.
fn ends(title: &'static str, other: Other, threads: usize) -> Contest<'static> {
    let contest = Contest::in_microseconds(title).group(threads, 1, end_of_one(other));
    KILLED
        .into_iter()
        .fold(contest, |contest, how_many| contest.group(threads, how_many, end_of_many(other, how_many)))
}

fn ns(run: &Run, (title, case, threads, batch): Which<'_>) -> Option<f64> {
    run.ns(title, case, threads, batch)
}

/// How many times `that` is in `this`, if they are not of one group.
fn times_apart(run: &Run, this: Which<'_>, that: Which<'_>) -> Option<f64> {
    Some(ns(run, this)? / ns(run, that)?)
}

/// By how many microseconds `this` is more than `that`, if they took turns.
fn more(run: &Run, this: Which<'_>, that: Which<'_>) -> Option<f64> {
    Some(ns(run, this)? * (1.0 - times(run, that, this)?) / 1000.0)
}

const TARGETS: &[Target] = &[
    Target {
        what: "get+put, 1 thread: times a thread-local cell",
        wanted: "<= 1.2",
        measured: |run| times(run, (ONE, OURS, 1, 1), (ONE, CELL, 1, 1)),
    },
    Target {
        what: "get+put: 2 threads, times 1 thread",
        wanted: "<= 1.0 to 1.15",
        measured: |run| times_apart(run, (ONE, OURS, 2, 1), (ONE, OURS, 1, 1)),
    },
    Target {
        what: "`Arc`, 1 thread: times ours",
        wanted: ">= 2.8",
        measured: |run| times(run, (ONE, ARC, 1, 1), (ONE, OURS, 1, 1)),
    },
    Target {
        what: "`Arc`, 2 threads: times ours",
        wanted: ">= 12",
        measured: |run| times(run, (ONE, ARC, 2, 1), (ONE, OURS, 2, 1)),
    },
    Target {
        what: "`Arc`, 8 objects, 2 threads: times ours",
        wanted: ">= 30",
        measured: |run| times(run, (EIGHT, ARC, 2, OBJECTS), (EIGHT, OURS, 2, OBJECTS)),
    },
    Target {
        what: "`crossbeam_epoch::pin`, 1 thread: times ours",
        wanted: ">= 1.7",
        measured: |run| times(run, (ONE, PIN, 1, 1), (ONE, OURS, 1, 1)),
    },
    Target {
        what: "`crossbeam_epoch::pin`, 2 threads: times ours",
        wanted: ">= 6",
        measured: |run| times(run, (ONE, PIN, 2, 1), (ONE, OURS, 2, 1)),
    },
    Target {
        what: "`Arc`, 2 threads: times ours by call",
        wanted: ">= 4",
        measured: |run| times(run, (ONE, ARC, 2, 1), (ONE, CALLED, 2, 1)),
    },
    Target {
        what: "portable, 1 thread: times `Arc`",
        wanted: "<= 1.25",
        measured: |run| times(run, (ONE, PORTABLE, 1, 1), (ONE, ARC, 1, 1)),
    },
    Target {
        what: "`Arc`, 2 threads: times portable",
        wanted: ">= 3",
        measured: |run| times(run, (ONE, ARC, 2, 1), (ONE, PORTABLE, 2, 1)),
    },
    Target {
        what: "dynamic, 1 thread: times `Arc`",
        wanted: "<= 1.15",
        measured: |run| times(run, (ONE, DYNAMIC, 1, 1), (ONE, ARC, 1, 1)),
    },
    Target {
        what: "dynamic, two CPUs: µs until per CPU",
        wanted: "<= 100",
        measured: |run| Some(ns(run, (UPGRADE, MOVES, 2, 1))? / 1000.0),
    },
    Target {
        what: "kill, other CPU idle: µs more than membarrier",
        wanted: "<= 0.3",
        measured: |run| more(run, (KILL_IDLE, KILL, 1, 1), (KILL_IDLE, MEMBARRIER, 1, 1)),
    },
    Target {
        what: "kill, other CPU busy: µs more than membarrier",
        wanted: "<= 0.3",
        measured: |run| more(run, (KILL_BUSY, KILL, 2, 1), (KILL_BUSY, MEMBARRIER, 2, 1)),
    },
    Target {
        what: "kill_all of 1000, other CPU busy: µs each",
        wanted: "<= 0.06",
        measured: |run| Some(ns(run, (KILL_BUSY, KILL_ALL, 2, 1000))? / 1000.0),
    },
    Target {
        what: "portable kill, other CPU busy: µs",
        wanted: "<= 0.3",
        measured: |run| Some(ns(run, (KILL_BUSY, KILL_PORTABLE, 2, 1))? / 1000.0),
    },
];

fn check_all() {
    check::<Get>();
    check::<TryGetLive>();
    check::<Called>();
    check::<Portable>();
    check::<Handles>();
    check::<Get<Moves>>();
    check::<Get<Gets>>();
    check::<Get<Never>>();
    check::<Dying>();
    check::<Arc<Object>>();
    check::<triomphe::Arc<Object>>();
    check::<SharedAtomic>();
    check::<Epoch>();
    check::<Seize>();
    check::<Hazard>();
    check::<Loaded>();
    check::<LoadedFull>();
    check::<parking_lot::RwLock<()>>();
    check::<RwLock<()>>();
    check::<ShardedLock<()>>();
    check::<ThreadLocal>();
    #[cfg(target_arch = "x86_64")]
    check::<Assembly>();
    kill::check();
}

fn main() {
    let mut bench = Bench::start("refcount", env!("CARGO_TARGET_TMPDIR"));
    check_all();

    let work = Work::lasting(WORK);
    let [mut shared, mut many, mut misses, mut spaced] = [ONE, EIGHT, MISSES, WORKING].map(Contest::new);
    for threads in [1, 2].into_iter().filter(|threads| *threads <= cpus().len()) {
        shared = shared.group(threads, 1, on_one_object(threads));
        many = many.group(threads, OBJECTS, on_eight_objects(threads));
        misses = misses.group(threads, 1, a_few!(missing, NOTHING, threads));
        spaced = spaced.group(threads, 1, a_few!(working, WORK_ONLY, threads, work));
    }
    [shared, many, misses, spaced].into_iter().for_each(|contest| bench.run(contest));
    bench.remark(
        |run| run.ns(WORKING, WORK_ONLY, 1, 1),
        |both| format!("The work after each operation came to {:.1} ns.", both / 2.0),
    );
    bench.run(ends(KILL_IDLE, Other::Idle, 1));
    if cpus().len() > 1 {
        bench.run(ends(KILL_BUSY, Other::Gets, 2));
        let upgrades = vec![
            Case::shots(MOVES, 1, upgrade::latencies::<Moves>),
            Case::shots("ioctx DynamicRef, the rule of 2012", 1, upgrade::latencies::<Gets>),
        ];
        bench.run(Contest::in_microseconds(UPGRADE).group(2, 1, upgrades));
    }
    bench.targets(TARGETS);
    bench.finish();
}
