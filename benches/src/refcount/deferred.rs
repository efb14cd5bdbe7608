//! No count: whoever frees an object waits until nobody can be looking at it.
//!
//! None of these tells the last holder that it is the last. What a reference to one of them holds is said
//! with each; [`held`](Count::held) retires an object and looks whether it is kept.

use super::Count;
use haphazard::{Domain, HazardPointer};
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::sync::Arc;

/// `crossbeam_epoch::pin`: holds every object of the process at once. Meanwhile nothing is freed, so it is
/// for short looks, not for a request that takes its time.
#[derive(Debug, Default)]
pub struct Epoch;

impl Count for Epoch {
    type Ref<'a> = crossbeam_epoch::Guard;

    #[inline]
    fn get(&self) -> crossbeam_epoch::Guard {
        crossbeam_epoch::pin()
    }

    fn held(&self) -> u64 {
        let (alive, retired) = pair();
        crossbeam_epoch::pin().defer(move || drop(retired));
        // Some epochs later, unless there is no next one.
        (0..100).for_each(|_| crossbeam_epoch::pin().flush());
        kept(&alive)
    }
}

/// `seize::Collector::enter`: holds every object of its collector at once, and delays freeing only of what
/// was retired meanwhile.
#[derive(Debug)]
pub struct Seize(seize::Collector);

impl Default for Seize {
    fn default() -> Self {
        Self(seize::Collector::new())
    }
}

impl Count for Seize {
    type Ref<'a> = seize::LocalGuard<'a>;

    #[inline]
    fn get(&self) -> seize::LocalGuard<'_> {
        self.0.enter()
    }

    fn held(&self) -> u64 {
        use seize::Guard;
        let (alive, retired) = pair();
        let guard = self.0.enter();
        // SAFETY: from a box, known to nobody else, retired once, by the function for boxes.
        unsafe { guard.defer_retire(Box::into_raw(Box::new(retired)), seize::reclaim::boxed) };
        guard.flush();
        drop(guard);
        kept(&alive)
    }
}

/// A hazard pointer: holds the one object that it points at, having found out which one that is.
///
/// One per thread, which is pointed at the object and reset, over and over: the cheapest use there is. So a
/// thread holds one object at a time here; it would need a further hazard pointer for each further one.
#[derive(Debug)]
pub struct Hazard {
    /// The object. The last one is never freed: nobody could tell when.
    object: haphazard::AtomicPtr<Arc<()>>,
    /// What all objects are clones of, to see how many there are.
    alive: Arc<()>,
}

/// What the thread's hazard pointer protects.
#[derive(Debug)]
pub struct HazardRef(PhantomData<*const ()>);

thread_local! {
    static HAZARD: UnsafeCell<HazardPointer<'static>> = UnsafeCell::new(HazardPointer::new());
}

/// Works with the thread's hazard pointer. Not to be called by `work`.
#[inline]
fn with_hazard<T>(work: impl FnOnce(&mut HazardPointer<'static>) -> T) -> T {
    // SAFETY: no other thread has it, and neither of the two functions below comes here again.
    HAZARD.with(|hazard| work(unsafe { &mut *hazard.get() }))
}

impl Default for Hazard {
    fn default() -> Self {
        let alive = Arc::new(());
        Self { object: Box::new(alive.clone()).into(), alive }
    }
}

impl Drop for HazardRef {
    #[inline]
    fn drop(&mut self) {
        with_hazard(|hazard| hazard.reset_protection());
    }
}

impl Count for Hazard {
    type Ref<'a> = HazardRef;

    #[inline]
    fn get(&self) -> HazardRef {
        let found = with_hazard(|hazard| self.object.safe_load(hazard).is_some());
        assert!(found, "there always is an object");
        HazardRef(PhantomData)
    }

    fn held(&self) -> u64 {
        let old = self.object.swap(Box::new(self.alive.clone())).expect("there always is an object");
        // SAFETY: it was replaced, so that nobody can newly come to it; nothing else retires it; all use the
        // global domain.
        unsafe { old.retire() };
        Domain::global().eager_reclaim();
        Arc::strong_count(&self.alive) as u64 - 2
    }
}

/// An object to retire, and the same to see whether it is there.
fn pair() -> (Arc<()>, Arc<()>) {
    let object = Arc::new(());
    (object.clone(), object)
}

/// 1 if what was retired has not been freed.
fn kept(object: &Arc<()>) -> u64 {
    Arc::strong_count(object) as u64 - 1
}
