//! Who can hold an object cheapest: [`Count`].
//!
//! | module | contenders |
//! |---|---|
//! | [`ours`] | `PerCpuRef`, in every way it can be used |
//! | [`counted`] | one count per object, in one word |
//! | [`locked`] | locks that readers share |
//! | [`deferred`] | no count: freeing waits until nobody can be looking |
//! | [`floor`] | what no other thread can learn of |
//!
//! Three loops, the same for all: [`pairs`], [`all_at_once`], and [`pairs_between`], which has something else
//! to do besides. [`kill`] is about the end of a count instead, [`upgrade`]
//! about the moment at which it becomes per CPU.

pub mod between;
pub mod counted;
pub mod deferred;
pub mod floor;
pub mod kill;
pub mod locked;
pub mod ours;
pub mod upgrade;

use between::Between;
use ioctx::percpu::CachePadded;
use std::hint::black_box;
use std::{array, thread};

/// What keeps an object while somebody uses it.
pub trait Count: Default + Send + Sync {
    /// One reference. Dropping it gives it back.
    type Ref<'a>
    where
        Self: 'a;

    /// Takes a reference.
    fn get(&self) -> Self::Ref<'_>;

    /// How many references this thread can see to be out; those who do not count say 1 if there are any. The
    /// count may be slower from then on.
    fn held(&self) -> u64;
}

/// One on cache lines of its own, so that no contender is slowed down by its neighbour.
pub type Apart<C> = CachePadded<C>;

/// How many objects [`all_at_once`] holds.
pub const OBJECTS: usize = 8;

/// As many, each [`Apart`].
pub fn several<C: Count>() -> [Apart<C>; OBJECTS] {
    array::from_fn(|_| Apart::default())
}

/// The loop: takes and gives back, `n` times.
#[inline]
pub fn pairs<C: Count>(count: &C, n: u64) {
    for _ in 0..n {
        let held = count.get();
        // Whatever it protects would be used here.
        black_box(());
        drop(held);
    }
}

/// The other loop: takes one reference to each object, gives them all back in the same order, `n` times.
///
/// In a tuple: an array of references would be kept in memory, and cost more than taking them does.
#[inline]
pub fn all_at_once<C: Count>(counts: &[Apart<C>; OBJECTS], n: u64) {
    let [a, b, c, d, e, f, g, h] = counts;
    for _ in 0..n {
        let held = (a.get(), b.get(), c.get(), d.get(), e.get(), f.get(), g.get(), h.get());
        black_box(());
        drop(held);
    }
}

/// The loop with something else to do before each get and between get and put, which is handed back.
#[inline]
pub fn pairs_between<C: Count, B: Between>(count: &C, mut other: B, n: u64) -> B {
    for _ in 0..n {
        other.before();
        let held = count.get();
        other.while_held();
        drop(held);
    }
    other
}

/// Checks that a contender holds what it is asked to hold.
///
/// # Panics
///
/// If it does not.
pub fn check<C: Count>() {
    let counts = several::<C>();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                pairs(&*counts[0], 10_000);
                all_at_once(&counts, 10_000);
            });
        }
    });
    let held = counts[0].get();
    assert_eq!(counts[0].held(), 1, "one reference is out");
    drop(held);
    assert_eq!(counts.map(|count| count.held()), [0; OBJECTS], "every reference was given back");
}
