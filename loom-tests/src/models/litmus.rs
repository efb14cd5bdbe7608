//! What loom can see and what it cannot, pinned: the models of the parts lean on the first and are silent
//! about the second.
//!
//! Each test collects the outcomes of all schedules and compares them with what loom 0.7.2 is known to
//! produce. A difference means that a newer loom sees more, or less, and that the facade's documentation
//! has to follow.

use crate::harness::{Model, nothing};
use ioctx::barrier;
use ioctx::sync::Arc;
use ioctx::sync::atomic::{AtomicUsize, Ordering, Ordering::*, fence};
use ioctx::sync::model::{set_cpu, use_membarrier};
use ioctx::sync::thread;
use std::collections::BTreeSet;
use std::sync::Mutex;

type Outcome = (usize, usize);
static SEEN: Mutex<BTreeSet<Outcome>> = Mutex::new(BTreeSet::new());

fn seen(outcome: Outcome) {
    SEEN.lock().unwrap().insert(outcome);
}

fn expect(outcomes: &[Outcome]) {
    assert_eq!(*SEEN.lock().unwrap(), outcomes.iter().copied().collect());
}

/// Runs `left` and `right` on two threads over two words that start at zero.
fn two(left: fn(&AtomicUsize, &AtomicUsize) -> usize, right: fn(&AtomicUsize, &AtomicUsize) -> usize) {
    let words = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let theirs = Arc::clone(&words);
    let thread = thread::spawn(move || left(&theirs.0, &theirs.1));
    let right = right(&words.0, &words.1);
    seen((thread.join().unwrap(), right));
}

/// Store one's own word, then load the other's.
fn announce(mine: &AtomicUsize, other: &AtomicUsize, order: (Ordering, Ordering), fenced: bool) -> usize {
    mine.store(1, order.0);
    if fenced {
        fence(SeqCst);
    }
    other.load(order.1)
}

pub(super) fn models() -> Vec<Model> {
    let all = None;
    vec![
        Model {
            name: "litmus.sb_relaxed",
            checks: "store buffering is explored: both may miss",
            bound: all,
            least: 30,
            body: || {
                two(
                    |x, y| announce(x, y, (Relaxed, Relaxed), false),
                    |x, y| announce(y, x, (Relaxed, Relaxed), false),
                )
            },
            after: || expect(&[(0, 0), (0, 1), (1, 0), (1, 1)]),
        },
        Model {
            name: "litmus.sb_fences",
            checks: "SeqCst fences on both sides forbid that both miss",
            bound: all,
            least: 15,
            body: || {
                two(
                    |x, y| announce(x, y, (Relaxed, Relaxed), true),
                    |x, y| announce(y, x, (Relaxed, Relaxed), true),
                )
            },
            after: || expect(&[(0, 1), (1, 0), (1, 1)]),
        },
        Model {
            name: "litmus.sb_one_fence",
            checks: "a fence on one side forbids nothing",
            bound: all,
            least: 30,
            body: || {
                two(
                    |x, y| announce(x, y, (Relaxed, Relaxed), true),
                    |x, y| announce(y, x, (Relaxed, Relaxed), false),
                )
            },
            after: || expect(&[(0, 0), (0, 1), (1, 0), (1, 1)]),
        },
        Model {
            name: "litmus.sb_seqcst_accesses",
            checks: "false alarm: loom treats SeqCst accesses as AcqRel, so this crate has none",
            bound: all,
            least: 30,
            body: || {
                two(
                    |x, y| announce(x, y, (SeqCst, SeqCst), false),
                    |x, y| announce(y, x, (SeqCst, SeqCst), false),
                )
            },
            after: || expect(&[(0, 0), (0, 1), (1, 0), (1, 1)]),
        },
        Model {
            name: "litmus.mp_relaxed",
            checks: "message passing without orderings may show the flag before the message",
            bound: all,
            least: 21,
            body: || message(Relaxed, Relaxed),
            after: || expect(&[(0, 0), (0, 1), (1, 0), (1, 1)]),
        },
        Model {
            name: "litmus.mp_release_acquire",
            checks: "message passing with Release and Acquire does not",
            bound: all,
            least: 19,
            body: || message(Release, Acquire),
            after: || expect(&[(0, 0), (0, 1), (1, 1)]),
        },
        Model {
            name: "litmus.lb_relaxed",
            checks: "missed: load buffering, which the language allows, is never explored",
            bound: all,
            least: 15,
            body: || two(swap_over, |x, y| swap_over(y, x)),
            after: || expect(&[(0, 0), (0, 1), (1, 0)]),
        },
        Model {
            name: "litmus.own_load_hides",
            checks: "missed: a write that its thread's own load precedes is not raced with an earlier load of another thread",
            bound: all,
            least: 1,
            body: || {
                let words = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
                let theirs = Arc::clone(&words);
                let thread = thread::spawn(move || {
                    let before = theirs.0.load(Relaxed);
                    theirs.0.store(before + 1, Relaxed);
                });
                // In truth this may be 1; the facade's `glance` is how the parts keep clear of it.
                seen((words.0.load(Relaxed), 0));
                thread.join().unwrap();
            },
            after: || expect(&[(0, 0)]),
        },
        Model {
            name: "litmus.release_sequence",
            checks: "a read-modify-write of another thread continues a release sequence",
            bound: all,
            least: 1368,
            body: || {
                let words = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
                let [writer, bumper] = [Arc::clone(&words), Arc::clone(&words)];
                let writer = thread::spawn(move || {
                    writer.0.store(1, Relaxed);
                    writer.1.store(1, Release);
                });
                let bumper = thread::spawn(move || bumper.1.compare_exchange(1, 2, Relaxed, Relaxed).is_ok());
                let flag = words.1.load(Acquire);
                let message = words.0.load(Relaxed);
                writer.join().unwrap();
                bumper.join().unwrap();
                if flag == 2 {
                    seen((flag, message));
                }
            },
            after: || expect(&[(2, 1)]),
        },
        Model {
            name: "barrier.light_heavy",
            checks: "barrier.light against barrier.heavy: one side sees the other's store",
            bound: all,
            least: 15,
            body: || {
                two(light, |x, y| heavy(y, x));
            },
            after: || expect(&[(0, 1), (1, 0), (1, 1)]),
        },
        Model {
            name: "barrier.membarrier",
            checks: "the same with a light side that is no fence, on another CPU",
            bound: all,
            least: 38,
            body: || {
                granted();
                two(light, |x, y| heavy(y, x));
            },
            after: || expect(&[(0, 1), (1, 0), (1, 1)]),
        },
        Model {
            name: "barrier.third_thread",
            checks: "barrier.heavy_after: what heavy made visible is seen by a third thread that is fenced after it",
            bound: all,
            least: 1646,
            body: || {
                granted();
                let words = Arc::new([(); 3].map(|()| AtomicUsize::new(0)));
                let ring: [fn(&AtomicUsize, &AtomicUsize) -> usize; 3] =
                    [light, heavy, |mine, other| announce(mine, other, (Relaxed, Relaxed), true)];
                let [first, second] = [0, 1].map(|at| {
                    let words = Arc::clone(&words);
                    thread::spawn(move || ring[at](&words[at], &words[at + 1]))
                });
                let third = ring[2](&words[2], &words[0]);
                let saw = [first.join().unwrap(), second.join().unwrap(), third];
                assert_ne!(saw, [0; 3], "each missed the next one's store");
            },
            after: nothing,
        },
        Model {
            name: "barrier.light_light",
            checks: "two light sides that are no fences do not pair: both may miss",
            bound: all,
            least: 30,
            body: || {
                granted();
                two(light, |x, y| light(y, x));
            },
            after: || expect(&[(0, 0), (0, 1), (1, 0), (1, 1)]),
        },
        Model {
            name: "barrier.heavy_heavy",
            checks: "barrier.heavy against itself",
            bound: all,
            least: 15,
            body: || {
                two(heavy, |x, y| heavy(y, x));
            },
            after: || expect(&[(0, 1), (1, 0), (1, 1)]),
        },
    ]
}

/// With membarrier; the calling thread is on the second CPU, threads that it starts on the first.
fn granted() {
    use_membarrier();
    assert_eq!(barrier::kind(), barrier::Kind::Membarrier);
    set_cpu(1);
}

/// Store one's own word, `barrier::light`, load the other's.
fn light(mine: &AtomicUsize, other: &AtomicUsize) -> usize {
    mine.store(1, Relaxed);
    barrier::light();
    other.load(Relaxed)
}

/// Store one's own word, `barrier::heavy`, load the other's.
fn heavy(mine: &AtomicUsize, other: &AtomicUsize) -> usize {
    mine.store(1, Relaxed);
    barrier::heavy();
    other.load(Relaxed)
}

/// Write a message, raise a flag; look at the flag, then at the message.
fn message(raise: Ordering, look: Ordering) {
    let words = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let theirs = Arc::clone(&words);
    let writer = thread::spawn(move || {
        theirs.0.store(1, Relaxed);
        theirs.1.store(1, raise);
    });
    let flag = words.1.load(look);
    seen((flag, words.0.load(Relaxed)));
    writer.join().unwrap();
}

/// Load the other's word, then store one's own.
fn swap_over(mine: &AtomicUsize, other: &AtomicUsize) -> usize {
    let value = other.load(Relaxed);
    mine.store(1, Relaxed);
    value
}
