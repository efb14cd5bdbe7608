//! Whether contenders do the work that is timed. All of these panic if one does not.

use super::crossed::crossed;
use super::{Apart, Pool, TOTAL, TagPool, bursts, exhausted, pairs, refusals};
use std::collections::HashSet;
use std::thread;

/// Checks that a thread is admitted [`TOTAL`] times and no more, also after two threads have used the pool.
///
/// # Panics
///
/// If it is not.
pub fn check_alone<P: Pool>() {
    let pool = used::<P>();
    for _ in 0..2 {
        let mut held: Vec<_> = (0..TOTAL).map_while(|_| pool.try_take()).collect();
        assert_eq!(held.len(), TOTAL as usize, "all can be out");
        refusals(&*pool, 3);
        held.pop();
        pairs(&*pool, 3);
    }
    refusals(&*exhausted::<P>(), 3);
}

/// Checks that all threads together are admitted [`TOTAL`] times and no more, whoever gives back.
///
/// # Panics
///
/// If they are not.
pub fn check<P: Pool>() {
    check_alone::<P>();
    let pool = crossed_over::<P>();
    for _ in 0..2 {
        let mut held = all_by_two(&*pool);
        refusals(&*pool, 3);
        held.pop();
        pairs(&*pool, 3);
    }
}

/// As [`check`], and that tags are the numbers below [`TOTAL`].
///
/// # Panics
///
/// If they are not.
pub fn check_tags<P: TagPool>() {
    check::<P>();
    let indices = all_indices::<P>();
    assert!(indices.iter().all(|index| *index < TOTAL as usize), "tags are below their number");
}

/// Checks a pool that hands out any number of tags, and so refuses nobody: that they are distinct.
///
/// # Panics
///
/// If they are not.
pub fn check_unbounded<P: TagPool>() {
    drop(used::<P>());
    all_indices::<P>();
}

/// One that two threads have used, each for itself.
fn used<P: Pool>() -> Apart<P> {
    let pool = Apart::new(P::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                pairs(&*pool, 10_000);
                bursts(&*pool, 256, 100);
            });
        }
    });
    pool
}

/// One whose credits were given back by another thread than took them.
fn crossed_over<P: Pool>() -> Apart<P> {
    let pool = Apart::new(P::new());
    crossed(&*pool, 10_000);
    pool
}

/// All credits of a pool, taken by two threads at once.
fn all_by_two<P: Pool>(pool: &P) -> Vec<P::One<'_>> {
    let half = || (0..TOTAL / 2).map_while(|_| pool.try_take()).collect::<Vec<_>>();
    let held: Vec<_> = thread::scope(|scope| {
        let halves = [scope.spawn(half), scope.spawn(half)];
        halves.into_iter().flat_map(|half| half.join().expect("taking does not panic")).collect()
    });
    assert_eq!(held.len(), TOTAL as usize, "all can be out");
    held
}

/// The numbers of all tags of a used pool, each of them once.
fn all_indices<P: TagPool>() -> HashSet<usize> {
    let pool = crossed_over::<P>();
    let held = all_by_two(&*pool);
    let indices: HashSet<_> = held.iter().map(P::index).collect();
    assert_eq!(indices.len(), held.len(), "no tag is out twice");
    indices
}
