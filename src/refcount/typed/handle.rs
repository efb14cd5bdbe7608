//! [`Handle`], [`Weak`] and [`Guard`].

use super::inner::Inner;
use crate::refcount::{Always, Policy};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;

/// A share of a value, to be cloned and dropped like an `Arc`: what is shared lives while a handle does.
///
/// Cloning and dropping are wait-free, as [`get`](crate::refcount::PerCpuRef::get) and
/// [`put`](crate::refcount::PerCpuRef::put). The last one to be dropped after the [`Owner`](super::Owner) was
/// killed drops the value, on its thread.
///
/// # Examples
///
/// ```
/// use ioctx::refcount::Owner;
/// let owner = Owner::new(String::from("shared"));
/// let handle = owner.handle();
/// let thread = std::thread::spawn({
///     let handle = handle.clone();
///     move || handle.len()
/// });
/// assert_eq!(thread.join().unwrap(), 6);
/// let dying = owner.kill();
/// assert_eq!(*handle, "shared");
/// drop(handle);
/// dying.wait();
/// ```
pub struct Handle<T, P: Policy = Always> {
    /// Valid while our reference is out.
    pub(super) inner: NonNull<Inner<T, P>>,
    owns: PhantomData<T>,
}

// SAFETY: a shared reference to the value, which any handle may also be the last to drop.
unsafe impl<T: Send + Sync, P: Policy> Send for Handle<T, P> {}
// SAFETY: as above; from a shared handle others can be cloned.
unsafe impl<T: Send + Sync, P: Policy> Sync for Handle<T, P> {}

impl<T: RefUnwindSafe, P: Policy> UnwindSafe for Handle<T, P> {}
impl<T: RefUnwindSafe, P: Policy> RefUnwindSafe for Handle<T, P> {}

impl<T, P: Policy> Handle<T, P> {
    /// # Safety
    ///
    /// 1. The caller owns a reference, which is the handle's from now on.
    #[inline(always)]
    pub(super) unsafe fn from_reference(inner: NonNull<Inner<T, P>>) -> Self {
        Self { inner, owns: PhantomData }
    }

    /// A handle that does not keep the value.
    pub fn downgrade(&self) -> Weak<T, P> {
        // SAFETY: valid while our reference is out.
        unsafe { Weak::of(self.inner) }
    }

    /// Whether both are shares of one value.
    pub fn ptr_eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl<T, P: Policy> Clone for Handle<T, P> {
    #[inline(always)]
    fn clone(&self) -> Self {
        // SAFETY: valid while our reference is out; the new one is the new handle's.
        unsafe {
            self.inner.as_ref().count.get();
            Self::from_reference(self.inner)
        }
    }
}

impl<T, P: Policy> Drop for Handle<T, P> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: our reference, and our last use.
        unsafe { Inner::put(self.inner) };
    }
}

impl<T, P: Policy> Deref for Handle<T, P> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: we have a reference.
        unsafe { Inner::value(self.inner) }
    }
}

impl<T: fmt::Debug, P: Policy> fmt::Debug for Handle<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&**self).finish()
    }
}

/// A handle that keeps the memory but not the value: it can be used only until the owner is killed.
///
/// Cloned and dropped by one locked instruction on a shared line each: to be kept, not to be passed about.
///
/// # Examples
///
/// ```
/// use ioctx::refcount::Owner;
/// let owner = Owner::new(1);
/// let weak = owner.downgrade();
/// assert_eq!(weak.upgrade().as_deref(), Some(&1));
/// assert_eq!(weak.guard().as_deref(), Some(&1));
/// drop(owner);
/// assert!(weak.upgrade().is_none());
/// ```
pub struct Weak<T, P: Policy = Always> {
    /// Valid while we keep it.
    inner: NonNull<Inner<T, P>>,
    owns: PhantomData<T>,
}

// SAFETY: as for `Handle`, which it gives out.
unsafe impl<T: Send + Sync, P: Policy> Send for Weak<T, P> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync, P: Policy> Sync for Weak<T, P> {}

impl<T: RefUnwindSafe, P: Policy> UnwindSafe for Weak<T, P> {}
impl<T: RefUnwindSafe, P: Policy> RefUnwindSafe for Weak<T, P> {}

impl<T, P: Policy> Weak<T, P> {
    /// # Safety
    ///
    /// 1. `inner` is valid.
    pub(super) unsafe fn of(inner: NonNull<Inner<T, P>>) -> Self {
        // SAFETY: 1.
        unsafe { inner.as_ref() }.keep();
        Self { inner, owns: PhantomData }
    }

    /// A share of the value, unless its owner was killed. As
    /// [`try_get_live`](crate::refcount::PerCpuRef::try_get_live).
    #[inline]
    pub fn upgrade(&self) -> Option<Handle<T, P>> {
        // SAFETY: valid while we keep it; the reference is the handle's.
        unsafe { self.inner.as_ref().count.try_get_live().then(|| Handle::from_reference(self.inner)) }
    }

    /// The same for as long as this weak handle is borrowed.
    #[inline]
    pub fn guard(&self) -> Option<Guard<'_, T, P>> {
        Some(Guard { handle: self.upgrade()?, weak: PhantomData })
    }
}

impl<T, P: Policy> Clone for Weak<T, P> {
    fn clone(&self) -> Self {
        // SAFETY: valid while we keep it.
        unsafe { Self::of(self.inner) }
    }
}

impl<T, P: Policy> Drop for Weak<T, P> {
    fn drop(&mut self) {
        // SAFETY: we keep it, until now.
        unsafe { Inner::unkeep(self.inner) };
    }
}

impl<T, P: Policy> fmt::Debug for Weak<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Weak")
    }
}

/// A share of a value for a while: it cannot outlive the [`Weak`] handle it was taken through.
#[derive(Debug)]
pub struct Guard<'a, T, P: Policy = Always> {
    handle: Handle<T, P>,
    weak: PhantomData<&'a Weak<T, P>>,
}

impl<'a, T, P: Policy> Guard<'a, T, P> {
    /// A share without that limit.
    #[inline]
    pub fn into_handle(self) -> Handle<T, P> {
        self.handle
    }
}

impl<T, P: Policy> Deref for Guard<'_, T, P> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.handle
    }
}
