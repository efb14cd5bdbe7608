//! What all pointers point to.

use crate::refcount::{PerCpuRef, Policy, Put};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sync::cell::UnsafeCell;
use crate::sync::time::Instant;
use crate::sync::{Condvar, Mutex, fence, mo, time};
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};

/// The count, the value, and what outlives it.
pub(super) struct Inner<T, P: Policy> {
    /// Who may use the value.
    pub(super) count: PerCpuRef<P>,
    /// Who may use this memory: each `Weak` and `Dying`, and all references together.
    keepers: AtomicUsize,
    end: End,
    /// # Safety
    ///
    /// Shared while there are references; whoever finds the count at zero has it alone, to drop it or take it.
    value: UnsafeCell<ManuallyDrop<T>>,
}

/// Who waits for the value to be gone.
#[derive(Debug)]
struct End {
    state: Mutex<State>,
    reached: Condvar,
}

#[derive(Debug)]
struct State {
    released: bool,
    /// Of the one future there can be.
    waker: Option<Waker>,
}

impl<T, P: Policy> Inner<T, P> {
    pub(super) fn new(value: T, count: PerCpuRef<P>) -> NonNull<Self> {
        let inner = Self {
            count,
            keepers: AtomicUsize::new(1),
            end: End { state: Mutex::new(State { released: false, waker: None }), reached: Condvar::new() },
            value: UnsafeCell::new(ManuallyDrop::new(value)),
        };
        NonNull::from(Box::leak(Box::new(inner)))
    }

    /// The value.
    ///
    /// # Safety
    ///
    /// 1. The caller has a reference for as long as the result is used.
    #[inline(always)]
    pub(super) unsafe fn value<'a>(this: NonNull<Self>) -> &'a T {
        // SAFETY: alive by 1., and nobody has the value alone before that reference is put.
        unsafe { this.as_ref() }.value.with(|value| unsafe { &**value })
    }

    /// One more keeper of the memory.
    pub(super) fn keep(&self) {
        // Relaxed: whoever calls keeps it already.
        let before = self.keepers.fetch_add(1, Relaxed);
        if before > isize::MAX as usize {
            // Leaked so often that the number could wrap.
            std::process::abort();
        }
    }

    /// One keeper less; the last one frees the memory.
    ///
    /// # Safety
    ///
    /// 1. The caller is a keeper, and uses `this` no more.
    pub(super) unsafe fn unkeep(this: NonNull<Self>) {
        // SAFETY: alive by 1.
        let keepers = unsafe { &(*this.as_ptr()).keepers };
        // Release: pairs with the fence below, in whoever is the last.
        if keepers.fetch_sub(1, mo!("refcount.typed.put", Release)) == 1 {
            // Acquire: pairs with every other.
            fence!("refcount.typed.free", Acquire, keepers);
            // SAFETY: made by `new`, and there is nobody else. The value was dropped or taken before.
            drop(unsafe { Box::from_raw(this.as_ptr()) });
        }
    }

    /// Gives a reference back, and releases the value if it was the last.
    ///
    /// # Safety
    ///
    /// 1. The caller owns the reference, and uses `this` no more.
    #[inline(always)]
    pub(super) unsafe fn put(this: NonNull<Self>) {
        // SAFETY: alive until the reference is put; whoever is told `Zero` is the one who releases.
        unsafe {
            if PerCpuRef::put_raw(&raw const (*this.as_ptr()).count, 1) == Put::Zero {
                Self::release(this);
            }
        }
    }

    /// Drops the value and tells those who wait, also if dropping it panics.
    ///
    /// # Safety
    ///
    /// 1. The caller was told [`Put::Zero`].
    #[cold]
    pub(super) unsafe fn release(this: NonNull<Self>) {
        let _released = Released(this);
        // SAFETY: alone by 1., and told once. Alive until `_released` is dropped.
        unsafe { this.as_ref() }.value.with_mut(|value| unsafe { ManuallyDrop::drop(&mut *value) });
    }

    /// Takes the value out and tells those who wait.
    ///
    /// # Safety
    ///
    /// 1. The caller was told [`Put::Zero`].
    pub(super) unsafe fn take(this: NonNull<Self>) -> T {
        let _released = Released(this);
        // SAFETY: as in `release`.
        unsafe { this.as_ref() }.value.with_mut(|value| unsafe { ManuallyDrop::take(&mut *value) })
    }

    /// Whether the value was released.
    pub(super) fn is_released(&self) -> bool {
        self.end.state.lock().released
    }

    /// Sleeps until the value was released; returns whether it was before `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.end.state.lock();
        while !state.released {
            if time::expired(deadline) {
                return false;
            }
            state = self.end.reached.wait_until(state, deadline);
        }
        true
    }

    /// The same for tasks.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        // Cloned and dropped without the lock: a waker may own the last handle.
        let waker = Some(context.waker().clone());
        let mut state = self.end.state.lock();
        if state.released {
            return Poll::Ready(());
        }
        let before = std::mem::replace(&mut state.waker, waker);
        drop(state);
        drop(before);
        Poll::Pending
    }

    /// Nobody polls any more.
    pub(super) fn forget_waker(&self) {
        let before = self.end.state.lock().waker.take();
        drop(before);
    }
}

/// When dropped, tells everybody that the value is gone, and keeps the memory no longer on behalf of all
/// references.
struct Released<T, P: Policy>(NonNull<Inner<T, P>>);

impl<T, P: Policy> Drop for Released<T, P> {
    fn drop(&mut self) {
        let waker = {
            // SAFETY: the references together are a keeper until the end of this function.
            let end = unsafe { &(*self.0.as_ptr()).end };
            let mut state = end.state.lock();
            state.released = true;
            end.reached.notify_all();
            state.waker.take()
        };
        // SAFETY: nobody can get a reference any more.
        unsafe { Inner::unkeep(self.0) };
        waker.into_iter().for_each(Waker::wake);
    }
}
