//! [`Owner`] and [`Dying`].

use super::inner::Inner;
use super::{Handle, Weak};
use crate::refcount::{Always, Builder, DynamicRef, Moves, PerCpuRef, Policy, Put};
use crate::sync::time::Instant;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

/// The one owner of a value that others share by [`Handle`]s. The value lives until the owner is killed and
/// the last handle dropped.
///
/// Dropping the owner kills it. Both are blocking as [`kill`](PerCpuRef::kill) is, and do not wait for handles:
/// that is [`Dying`]'s to do.
///
/// # Costs
///
/// Some 70 bytes beside the value, and what the count takes while it is per CPU. Keep what is written often off
/// the line of the count by [`CachePadded`](crate::percpu::CachePadded) around the value. Cloning or dropping a
/// [`Weak`] handle writes that line.
///
/// # Examples
///
/// ```
/// use ioctx::refcount::Owner;
/// let owner = Owner::new(vec![1, 2, 3]);
/// let weak = owner.downgrade();
/// assert_eq!(weak.upgrade().unwrap().len(), 3);
/// owner.kill().wait();
/// assert!(weak.upgrade().is_none());
/// ```
pub struct Owner<T, P: Policy = Always> {
    /// Valid while the first reference is ours.
    inner: NonNull<Inner<T, P>>,
    owns: PhantomData<T>,
}

// SAFETY: as for `Handle`, which it gives out.
unsafe impl<T: Send + Sync, P: Policy> Send for Owner<T, P> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync, P: Policy> Sync for Owner<T, P> {}

impl<T> Owner<T> {
    /// Shares `value`, counted per CPU from the start.
    #[track_caller]
    pub fn new(value: T) -> Self {
        Self::with_count(value, PerCpuRef::builder())
    }
}

impl<T> Owner<T, Moves> {
    /// Shares `value`, counted in one word until it is really shared.
    #[track_caller]
    pub fn dynamic(value: T) -> Self {
        Self::with_count(value, PerCpuRef::builder().policy(Moves))
    }
}

const _: () = assert!(
    cfg!(debug_assertions)
        || crate::sync::MODELLED
        || size_of::<Inner<(), Moves>>() <= size_of::<DynamicRef>() + 56
);

impl<T: RefUnwindSafe, P: Policy> UnwindSafe for Owner<T, P> {}
impl<T: RefUnwindSafe, P: Policy> RefUnwindSafe for Owner<T, P> {}

impl<T, P: Policy> Owner<T, P> {
    /// Shares `value`, counted as `count` says.
    #[track_caller]
    pub fn with_count(value: T, count: Builder<P>) -> Self {
        let count = count.build();
        // One that was to start dead has an owner now.
        let _ = count.reinit();
        Self { inner: Inner::new(value, count), owns: PhantomData }
    }

    fn count(&self) -> &PerCpuRef<P> {
        // SAFETY: valid while the first reference is ours.
        unsafe { &self.inner.as_ref().count }
    }

    /// A share of the value.
    #[inline]
    pub fn handle(&self) -> Handle<T, P> {
        self.count().get();
        // SAFETY: the reference just taken.
        unsafe { Handle::from_reference(self.inner) }
    }

    /// A handle that does not keep the value.
    pub fn downgrade(&self) -> Weak<T, P> {
        // SAFETY: valid while the first reference is ours.
        unsafe { Weak::of(self.inner) }
    }

    /// See [`PerCpuRef::switch_to_atomic`].
    ///
    /// # Panics
    ///
    /// As there.
    pub fn switch_to_atomic(&self) {
        self.count().switch_to_atomic();
    }

    /// See [`PerCpuRef::switch_to_percpu`].
    pub fn switch_to_percpu(&self) {
        self.count().switch_to_percpu();
    }

    /// See [`PerCpuRef::rest`].
    ///
    /// # Panics
    ///
    /// As there.
    pub fn rest(&self) -> bool {
        self.count().rest()
    }

    /// See [`PerCpuRef::is_per_cpu`].
    pub fn is_per_cpu(&self) -> bool {
        self.count().is_per_cpu()
    }

    /// How many handles there are; `None` while they are counted per CPU. Out of date as soon as it is read.
    pub fn handles(&self) -> Option<u64> {
        self.count().count().map(|references| references - 1)
    }

    /// Ends the sharing: no [`Weak`] handle can be upgraded any more, and the value goes with the last
    /// [`Handle`], which may be now. Drop the result, or wait with it.
    ///
    /// # Panics
    ///
    /// If the kernel granted membarrier to the process and a filter installed later takes it away; then the value
    /// is leaked. If the value goes now, as its `drop` does.
    pub fn kill(self) -> Dying<T, P> {
        let (dying, put) = self.begin_kill();
        if put == Put::Zero {
            // SAFETY: told so.
            unsafe { Inner::release(dying.inner) };
        }
        dying
    }

    fn begin_kill(self) -> (Dying<T, P>, Put) {
        let this = ManuallyDrop::new(self);
        // SAFETY: valid while the first reference is ours; kept from now on.
        let dying = unsafe {
            this.inner.as_ref().keep();
            Dying { inner: this.inner, owns: PhantomData }
        };
        // SAFETY: kept.
        let put = unsafe { PerCpuRef::kill_raw(&raw const (*this.inner.as_ptr()).count, || {}) };
        (dying, put.expect("only its owner kills it"))
    }

    /// [`kill`](Self::kill) for many owners, which share what costs most: one fence for all.
    ///
    /// # Panics
    ///
    /// As there. If the `drop`s of values panic, with the panic of the first, after all of them.
    pub fn kill_all(owners: impl IntoIterator<Item = Self>) -> Vec<Dying<T, P>> {
        let owners: Vec<_> = owners.into_iter().map(ManuallyDrop::new).collect();
        let dying: Vec<_> = owners
            .iter()
            .map(|owner| {
                // SAFETY: valid while the first reference is ours; kept from now on.
                unsafe { owner.inner.as_ref() }.keep();
                Dying { inner: owner.inner, owns: PhantomData }
            })
            .collect();
        // SAFETY: kept.
        let counts = dying.iter().map(|dying| unsafe { &dying.inner.as_ref().count });
        let mut zero = Vec::with_capacity(dying.len());
        PerCpuRef::kill_all(counts, |place, put| {
            if put == Some(Put::Zero) {
                zero.push(dying[place].inner);
            }
        });
        let mut panics = zero.into_iter().filter_map(|inner| {
            // SAFETY: told so. What a value that panics leaves behind is its own affair.
            catch_unwind(AssertUnwindSafe(|| unsafe { Inner::release(inner) })).err()
        });
        let first = panics.next();
        panics.for_each(drop);
        if let Some(panic) = first {
            resume_unwind(panic);
        }
        dying
    }

    /// Kills the owner and takes the value out, if nobody has a handle.
    ///
    /// # Errors
    ///
    /// Somebody has; the value goes with the last handle.
    ///
    /// # Panics
    ///
    /// As [`kill`](Self::kill).
    pub fn into_inner(self) -> Result<T, Dying<T, P>> {
        let (dying, put) = self.begin_kill();
        match put {
            // SAFETY: told so.
            Put::Zero => Ok(unsafe { Inner::take(dying.inner) }),
            Put::Held => Err(dying),
        }
    }
}

impl<T, P: Policy> Deref for Owner<T, P> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the first reference is ours.
        unsafe { Inner::value(self.inner) }
    }
}

impl<T, P: Policy> Drop for Owner<T, P> {
    fn drop(&mut self) {
        // SAFETY: the first reference is ours, and this our last use; whoever is told `Zero` releases.
        unsafe {
            if PerCpuRef::kill_raw(&raw const (*self.inner.as_ptr()).count, || {}) == Some(Put::Zero) {
                Inner::release(self.inner);
            }
        }
    }
}

impl<T: fmt::Debug, P: Policy> fmt::Debug for Owner<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owner").field("value", &**self).field("count", self.count()).finish()
    }
}

/// A value whose owner was killed, and that its last handle will drop: to wait for that, blocking, with a
/// deadline, or as a future. Dropping this changes nothing.
///
/// Waiting for ever is easy: hold a handle of one's own.
///
/// # Examples
///
/// ```
/// use ioctx::refcount::{Owner, StillHeld};
/// use std::time::{Duration, Instant};
/// let owner = Owner::new(1);
/// let handle = owner.handle();
/// let dying = owner.kill();
/// let soon = Instant::now() + Duration::from_millis(1);
/// assert_eq!(dying.wait_until(soon), Err(StillHeld { handles: 1 }));
/// drop(handle);
/// assert_eq!(dying.wait_until(soon), Ok(()));
/// ```
pub struct Dying<T, P: Policy = Always> {
    /// Valid while we keep it.
    inner: NonNull<Inner<T, P>>,
    owns: PhantomData<T>,
}

// SAFETY: as for `Owner`, which it can become again.
unsafe impl<T: Send + Sync, P: Policy> Send for Dying<T, P> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync, P: Policy> Sync for Dying<T, P> {}

/// The deadline has passed, and there are so many handles still. None means that the value is being dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StillHeld {
    /// How many.
    pub handles: u64,
}

impl fmt::Display for StillHeld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} handles are still held; drop them, or wait longer", self.handles)
    }
}

impl std::error::Error for StillHeld {}

impl<T: RefUnwindSafe, P: Policy> UnwindSafe for Dying<T, P> {}
impl<T: RefUnwindSafe, P: Policy> RefUnwindSafe for Dying<T, P> {}

impl<T, P: Policy> Dying<T, P> {
    fn inner(&self) -> &Inner<T, P> {
        // SAFETY: valid while we keep it.
        unsafe { self.inner.as_ref() }
    }

    /// Whether the value is gone: its `drop` has returned, or panicked.
    pub fn is_released(&self) -> bool {
        self.inner().is_released()
    }

    /// Sleeps until the value is gone.
    pub fn wait(&self) {
        self.inner().wait(None);
    }

    /// Sleeps until the value is gone, or `deadline` has passed.
    ///
    /// # Errors
    ///
    /// [`StillHeld`].
    pub fn wait_until(&self, deadline: Instant) -> Result<(), StillHeld> {
        match self.inner().wait(Some(deadline)) {
            true => Ok(()),
            false => Err(StillHeld { handles: self.inner().count.count().unwrap_or(0) }),
        }
    }

    /// Takes the kill back, if there are handles.
    ///
    /// # Errors
    ///
    /// There are none, and the value is gone or going.
    pub fn resurrect(self) -> Result<Owner<T, P>, Self> {
        match self.inner().count.resurrect() {
            Ok(()) => Ok(Owner { inner: self.inner, owns: PhantomData }),
            Err(_) => Err(self),
        }
    }
}

impl<T, P: Policy> Future for Dying<T, P> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.inner().poll(context)
    }
}

impl<T, P: Policy> Unpin for Dying<T, P> {}

impl<T, P: Policy> Drop for Dying<T, P> {
    fn drop(&mut self) {
        self.inner().forget_waker();
        // SAFETY: we keep it, until now.
        unsafe { Inner::unkeep(self.inner) };
    }
}

impl<T, P: Policy> fmt::Debug for Dying<T, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dying").field("count", &self.inner().count).finish()
    }
}
