//! Deferred work and requests of many parts: the run list beside what one would use instead, and fan-in beside what one
//! would write by hand.
//!
//! | contender | a deferred job is done by |
//! |---|---|
//! | `RunList` | whoever deferred it, before it waits |
//! | the same, worker only | the list's thread, at once |
//! | `std::sync::mpsc`, `crossbeam_channel` | a thread that the channel feeds |
//! | a pool | one of two threads that sleep on a condition variable, woken for each job |
//!
//! Whoever defers waits until its jobs are done: it looks a hundred times, and parks.

use ioctx::credits::Credits;
use ioctx::runlist::RunList;
use ioctx_benches::harness::{Bench, Case, Contest, Target, times, times_switched};
use ioctx_benches::runlist::parts::{self, PARTS};
use ioctx_benches::runlist::{Channel, Crossbeam, Defer, Helped, Pool, Worker, check, rounds};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, mpsc};

const DEFERRED: &str = "a deferred job that is waited for";
const EMPTY: &str = "looking for work where there is none";
const IN_PLACE: &str = "a job deferred and done by the same thread";
const OURS: &str = "ioctx RunList";
const CHANNEL: &str = "std mpsc, a worker";
const POOL: &str = "Mutex+Condvar, a pool";

fn deferred<D: Defer>(name: &str, batch: usize) -> Case<'static> {
    Case::repetitions(name, move |n| rounds::<D>(n, batch))
}

fn each(name: &'static str, mut one: impl FnMut() + Send + 'static) -> Case<'static> {
    let one = Mutex::new(move |n: u64| (0..n).for_each(|_| one()));
    Case::slices(name, 1, 1, move |n| one.lock().expect("one thread")(n))
}

fn main() {
    let mut bench = Bench::start("runlist", env!("CARGO_TARGET_TMPDIR"));
    check::<Helped>();
    check::<Worker>();
    check::<Channel>();
    check::<Crossbeam>();
    check::<Pool>();
    parts::by_hand(10);
    let credits = Arc::new(Credits::new(2 * PARTS));
    parts::fan_in(&credits, 10);

    let mut contest = Contest::new(DEFERRED);
    for batch in [1, 32] {
        let cases = vec![
            deferred::<Helped>(OURS, batch),
            deferred::<Worker>("ioctx RunList, worker only", batch),
            deferred::<Channel>(CHANNEL, batch),
            deferred::<Crossbeam>("crossbeam_channel, a worker", batch),
            deferred::<Pool>(POOL, batch),
        ];
        contest = contest.group(1, batch, cases);
    }
    bench.run(contest);

    let list: RunList<fn()> = RunList::new();
    let queue = Mutex::new(VecDeque::<u64>::new());
    let (_sender, receiver) = mpsc::channel::<u64>();
    let word = AtomicU64::new(0);
    let cases = vec![
        each(OURS, move || _ = black_box(list.help_on_submit())),
        each("Mutex<VecDeque>", move || _ = black_box(queue.lock().expect("one thread").pop_front())),
        each("std mpsc, try_recv", move || _ = black_box(receiver.try_recv())),
        each("a load (floor)", move || _ = black_box(word.load(Relaxed))),
    ];
    bench.run(Contest::new(EMPTY).group(1, 1, cases));

    let list = RunList::new();
    let task = list.task(|| _ = black_box(1));
    let queue = Mutex::new(VecDeque::<fn()>::new());
    let (sender, receiver) = mpsc::channel::<fn()>();
    let nothing: fn() = || _ = black_box(1);
    let cases = vec![
        each(OURS, move || {
            task.kick().expect("the list is there");
            list.help_on_submit();
        }),
        each("Mutex<VecDeque>", move || {
            queue.lock().expect("one thread").push_back(nothing);
            let job = queue.lock().expect("one thread").pop_front();
            job.expect("just put there")();
        }),
        each("std mpsc", move || {
            sender.send(nothing).expect("both ends are here");
            receiver.try_recv().expect("just sent")();
        }),
    ];
    bench.run(Contest::new(IN_PLACE).group(1, 1, cases));

    let cases = vec![
        Case::slices("ioctx FanIn", 1, PARTS, move |n| parts::fan_in(&credits, n)),
        Case::slices("Arc and Mutex, by hand", 1, PARTS, parts::by_hand),
    ];
    bench.run(Contest::new("a part handed out and finished").group(1, 1, cases));

    bench.targets(&[
        Target {
            what: "context switches of a job deferred to a worker, times those of one that is helped with",
            wanted: "at least 100",
            measured: |run| times_switched(run, (DEFERRED, CHANNEL, 1, 1), (DEFERRED, OURS, 1, 1)),
        },
        Target {
            what: "time of a job deferred to a pool, times that of one that is helped with",
            wanted: "at least 10",
            measured: |run| times(run, (DEFERRED, POOL, 1, 1), (DEFERRED, OURS, 1, 1)),
        },
        Target {
            what: "looking for work where there is none, times one load",
            wanted: "about 1",
            measured: |run| times(run, (EMPTY, OURS, 1, 1), (EMPTY, "a load (floor)", 1, 1)),
        },
    ]);
    bench.finish();
}
