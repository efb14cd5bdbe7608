//! Who can hold an object cheapest: [`Count`].

use ioctx::percpu::CachePadded;
use ioctx::refcount::{PerCpuRef, Put};
use std::cell::Cell;
use std::hint::black_box;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::*, fence};
use std::{array, thread};

/// What keeps an object while somebody uses it.
pub trait Count: Default + Send + Sync {
    /// One reference. Dropping it gives it back.
    type Ref<'a>
    where
        Self: 'a;

    /// Takes a reference.
    fn get(&self) -> Self::Ref<'_>;

    /// How many references this thread can see to be out. The count may be slower from then on.
    fn held(&self) -> u64;
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

/// The other loop: takes one reference to each of `N` objects, gives them all back, `n` times.
#[inline]
pub fn all_at_once<C: Count, const N: usize>(counts: &[C; N], n: u64) {
    for _ in 0..n {
        let held: [C::Ref<'_>; N] = array::from_fn(|i| counts[i].get());
        black_box(());
        drop(held);
    }
}

/// Checks that a contender counts.
///
/// # Panics
///
/// If it does not.
pub fn check<C: Count>() {
    let counts: [C; 2] = array::from_fn(|_| C::default());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                pairs(&counts[0], 10_000);
                all_at_once(&counts, 10_000);
            });
        }
    });
    let held = counts[0].get();
    assert_eq!(counts[0].held(), 1, "one reference is out");
    drop(held);
    assert_eq!(counts.map(|count| count.held()), [0, 0], "every reference was given back");
}

/// [`PerCpuRef::get`]: ours, for those who have a reference already.
#[derive(Debug, Default)]
pub struct Ours(PerCpuRef);

/// [`PerCpuRef::try_get_live`]: ours, for those who have none.
#[derive(Debug, Default)]
pub struct OursLive(PerCpuRef);

/// A reference to one of ours.
#[derive(Debug)]
pub struct OurRef<'a>(&'a PerCpuRef);

impl Drop for OurRef<'_> {
    #[inline]
    fn drop(&mut self) {
        assert!(self.0.put() == Put::Held || self.0.is_dying(), "nobody has killed it");
    }
}

/// Ours tells how many are out only after the kill.
fn held_of_ours(count: &PerCpuRef) -> u64 {
    let _first = count.kill();
    count.count().expect("it was killed")
}

impl Count for Ours {
    type Ref<'a> = OurRef<'a>;

    #[inline]
    fn get(&self) -> OurRef<'_> {
        self.0.get();
        OurRef(&self.0)
    }

    fn held(&self) -> u64 {
        held_of_ours(&self.0)
    }
}

impl Count for OursLive {
    type Ref<'a> = OurRef<'a>;

    #[inline]
    fn get(&self) -> OurRef<'_> {
        assert!(self.0.try_get_live(), "nobody has killed it");
        OurRef(&self.0)
    }

    fn held(&self) -> u64 {
        held_of_ours(&self.0)
    }
}

impl Count for Arc<()> {
    type Ref<'a> = Self;

    #[inline]
    fn get(&self) -> Self {
        Self::clone(self)
    }

    fn held(&self) -> u64 {
        Self::strong_count(self) as u64 - 1
    }
}

/// One word for all, as `Arc` has it, without what `Arc` does about overflow and memory.
#[derive(Debug)]
pub struct SharedAtomic(CachePadded<AtomicU64>);

impl Default for SharedAtomic {
    /// With the owner's reference.
    fn default() -> Self {
        Self(CachePadded::new(AtomicU64::new(1)))
    }
}

/// A reference counted in one word.
#[derive(Debug)]
pub struct AtomicRef<'a>(&'a AtomicU64);

impl Drop for AtomicRef<'_> {
    #[inline]
    fn drop(&mut self) {
        // Release, and Acquire for the last one: what giving a reference back needs.
        if self.0.fetch_sub(1, Release) == 1 {
            fence(Acquire);
        }
    }
}

impl Count for SharedAtomic {
    type Ref<'a> = AtomicRef<'a>;

    #[inline]
    fn get(&self) -> AtomicRef<'_> {
        self.0.fetch_add(1, Relaxed);
        AtomicRef(&self.0)
    }

    fn held(&self) -> u64 {
        self.0.load(Acquire) - 1
    }
}

/// `crossbeam_epoch::pin`: holds every object of the process at once, and delays freeing instead of counting.
#[derive(Debug, Default)]
pub struct Epoch;

impl Count for Epoch {
    type Ref<'a> = crossbeam_epoch::Guard;

    #[inline]
    fn get(&self) -> crossbeam_epoch::Guard {
        crossbeam_epoch::pin()
    }

    fn held(&self) -> u64 {
        u64::from(crossbeam_epoch::is_pinned())
    }
}

/// A word per thread: the floor. No other thread can learn of such a reference.
#[derive(Debug, Default)]
pub struct ThreadLocal;

thread_local! {
    static HELD: Cell<u64> = const { Cell::new(0) };
}

fn add_local(n: u64) {
    // Through `black_box`, or the compiler would see that it comes to nothing.
    HELD.with(|held| black_box(held).set(held.get().wrapping_add(n)));
}

/// A reference counted in the thread's word.
#[derive(Debug)]
pub struct LocalRef(PhantomData<*const ()>);

impl Drop for LocalRef {
    #[inline]
    fn drop(&mut self) {
        add_local(u64::MAX);
    }
}

impl Count for ThreadLocal {
    type Ref<'a> = LocalRef;

    #[inline]
    fn get(&self) -> LocalRef {
        add_local(1);
        LocalRef(PhantomData)
    }

    fn held(&self) -> u64 {
        HELD.get()
    }
}
