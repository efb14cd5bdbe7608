//! `PerCpuRef`, in every way it can be used.

use super::{Apart, Count};
use ioctx::refcount::{Always, Handle, Owner, PerCpuRef, Policy, Put};

/// The end of a count that nobody else ends.
pub fn kill(count: &PerCpuRef) -> Put {
    count.kill()
}

/// The end of many.
pub fn kill_all(counts: &[Apart<PerCpuRef>]) {
    PerCpuRef::kill_all(counts.iter().map(|count| &**count), |_, _| ());
}

/// A count tells how many references are out only after the kill.
fn held<P: Policy>(count: &PerCpuRef<P>) -> u64 {
    if !count.is_dying() {
        let _ = count.kill();
    }
    count.count().expect("it was killed")
}

/// A reference to one of ours.
#[derive(Debug)]
pub struct OurRef<'a, P: Policy = Always>(&'a PerCpuRef<P>);

impl<P: Policy> Drop for OurRef<'_, P> {
    #[inline]
    fn drop(&mut self) {
        assert!(self.0.put() == Put::Held || self.0.is_dying(), "nobody has killed it");
    }
}

/// [`PerCpuRef::get`], for those who have a reference already.
#[derive(Debug, Default)]
pub struct Get<P: Policy = Always>(PerCpuRef<P>);

impl<P: Policy> Count for Get<P> {
    type Ref<'a> = OurRef<'a, P>;

    #[inline]
    fn get(&self) -> OurRef<'_, P> {
        self.0.get();
        OurRef(&self.0)
    }

    fn held(&self) -> u64 {
        held(&self.0)
    }
}

/// [`Handle`]s, cloned and dropped like `Arc`s.
#[derive(Debug)]
pub struct Handles(Owner<()>, Handle<()>);

impl Default for Handles {
    fn default() -> Self {
        let owner = Owner::new(());
        let handle = owner.handle();
        Self(owner, handle)
    }
}

impl Count for Handles {
    type Ref<'a> = Handle<()>;

    #[inline]
    fn get(&self) -> Handle<()> {
        self.1.clone()
    }

    fn held(&self) -> u64 {
        self.0.switch_to_atomic();
        self.0.handles().expect("in one word") - 1
    }
}

/// [`PerCpuRef::try_get_live`], for those who have none.
#[derive(Debug, Default)]
pub struct TryGetLive(PerCpuRef);

impl Count for TryGetLive {
    type Ref<'a> = OurRef<'a>;

    #[inline]
    fn get(&self) -> OurRef<'_> {
        assert!(self.0.try_get_live(), "nobody has killed it");
        OurRef(&self.0)
    }

    fn held(&self) -> u64 {
        held(&self.0)
    }
}

/// [`PerCpuRef::get`] and [`PerCpuRef::put`] by a function call each, as where the compiler inlines neither.
#[derive(Debug, Default)]
pub struct Called(PerCpuRef);

/// A reference that is given back by a function call.
#[derive(Debug)]
pub struct CalledRef<'a>(&'a PerCpuRef);

#[inline(never)]
fn get_by_call(count: &PerCpuRef) {
    count.get();
}

#[inline(never)]
fn put_by_call(count: &PerCpuRef) -> Put {
    count.put()
}

impl Drop for CalledRef<'_> {
    #[inline]
    fn drop(&mut self) {
        assert!(put_by_call(self.0) == Put::Held || self.0.is_dying(), "nobody has killed it");
    }
}

impl Count for Called {
    type Ref<'a> = CalledRef<'a>;

    #[inline]
    fn get(&self) -> CalledRef<'_> {
        get_by_call(&self.0);
        CalledRef(&self.0)
    }

    fn held(&self) -> u64 {
        held(&self.0)
    }
}

/// [`PerCpuRef::portable`]: a locked instruction on this CPU's line, for systems without restartable
/// sequences.
#[derive(Debug)]
pub struct Portable(PerCpuRef);

impl Default for Portable {
    fn default() -> Self {
        Self(PerCpuRef::portable())
    }
}

impl Count for Portable {
    type Ref<'a> = OurRef<'a>;

    #[inline]
    fn get(&self) -> OurRef<'_> {
        self.0.get();
        OurRef(&self.0)
    }

    fn held(&self) -> u64 {
        held(&self.0)
    }
}

/// After the kill: counted in one word for all.
#[derive(Debug)]
pub struct Dying(PerCpuRef);

impl Default for Dying {
    /// With a reference that is never given back, and keeps the count above zero.
    fn default() -> Self {
        let count = PerCpuRef::new();
        count.get();
        assert_eq!(kill(&count), Put::Held, "a reference is out");
        Self(count)
    }
}

impl Drop for Dying {
    fn drop(&mut self) {
        let _ = self.0.put();
    }
}

impl Count for Dying {
    type Ref<'a> = OurRef<'a>;

    #[inline]
    fn get(&self) -> OurRef<'_> {
        self.0.get();
        OurRef(&self.0)
    }

    fn held(&self) -> u64 {
        self.0.count().expect("it was killed") - 1
    }
}
