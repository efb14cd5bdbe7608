//! One thread's sleep: [`Parker`].

use super::time::{Instant, expired};
use super::{Arc, MODELLED};
use std::cell::Cell;
use std::ops::Deref;

/// How a [`Parker::park`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// [`Parker::unpark`] was called.
    Unparked,
    /// The deadline passed first.
    TimedOut,
    /// A signal handler ran (Linux only; elsewhere the sleep goes on).
    Interrupted,
}

pub use imp::Parker;

#[cfg(all(loom, feature = "loom"))]
mod imp {
    use super::{Instant, Parked, expired};

    use loom::sync::Notify;
    use loom::sync::atomic::{AtomicBool, Ordering::*};

    /// A token that one thread sleeps on and any thread grants, once. Blocking.
    #[derive(Debug)]
    pub struct Parker {
        granted: AtomicBool,
        wake: Notify,
    }

    impl Default for Parker {
        fn default() -> Self {
            Self::new()
        }
    }

    impl Parker {
        /// Not granted yet.
        pub fn new() -> Self {
            Self { granted: AtomicBool::new(false), wake: Notify::new() }
        }

        /// Sleeps until granted. Only a deadline that has passed already times out: loom has no clock.
        pub fn park(&self, deadline: Option<Instant>) -> Parked {
            // Acquire: what the granter did before `unpark` is visible to the one it wakes.
            while !self.granted.load(Acquire) {
                if expired(deadline) {
                    return Parked::TimedOut;
                }
                // May return for no reason, as a futex may.
                self.wake.wait();
            }
            Parked::Unparked
        }

        /// Grants the token.
        pub fn unpark(&self) {
            // Release: pairs with the load in `park`.
            self.granted.store(true, Release);
            self.wake.notify();
        }
    }
}

#[cfg(all(target_os = "linux", not(all(loom, feature = "loom"))))]
mod imp {
    use super::{Instant, Parked, expired};
    use rustix::io::Errno;
    use rustix::thread::futex;
    use std::sync::atomic::{AtomicU32, Ordering::*};

    /// A token that one thread sleeps on and any thread grants, once. Blocking.
    ///
    /// The word is 0 until granted and 1 ever after.
    #[derive(Debug, Default)]
    pub struct Parker(AtomicU32);

    impl Parker {
        /// Not granted yet.
        pub const fn new() -> Self {
            Self(AtomicU32::new(0))
        }

        /// Sleeps until granted or past `deadline`, or until a signal handler has run.
        pub fn park(&self, deadline: Option<Instant>) -> Parked {
            loop {
                // Acquire: what the granter did before `unpark` is visible to the one it wakes.
                if self.0.load(Acquire) == 1 {
                    return Parked::Unparked;
                }
                if expired(deadline) {
                    return Parked::TimedOut;
                }
                let left = deadline.map(|at| {
                    let left = at.saturating_duration_since(Instant::now());
                    // A sleep longer than the kernel can count is cut short and begun again.
                    futex::Timespec {
                        tv_sec: left.as_secs().min(u32::MAX as u64) as _,
                        tv_nsec: left.subsec_nanos() as _,
                    }
                });
                if let Err(Errno::INTR) = futex::wait(&self.0, futex::Flags::PRIVATE, 0, left.as_ref()) {
                    return Parked::Interrupted;
                }
            }
        }

        /// Grants the token. The caller keeps the parker alive until this returns.
        pub fn unpark(&self) {
            // Release: pairs with the load in `park`.
            self.0.store(1, Release);
            // A word without sleepers is no error, and there is no other.
            let _ = futex::wake(&self.0, futex::Flags::PRIVATE, 1);
        }
    }
}

#[cfg(not(any(target_os = "linux", all(loom, feature = "loom"))))]
mod imp {
    use super::super::{Condvar, Mutex};
    use super::{Instant, Parked, expired};

    /// A token that one thread sleeps on and any thread grants, once. Blocking.
    #[derive(Debug, Default)]
    pub struct Parker {
        granted: Mutex<bool>,
        wake: Condvar,
    }

    impl Parker {
        /// Not granted yet.
        pub const fn new() -> Self {
            Self { granted: Mutex::new(false), wake: Condvar::new() }
        }

        /// Sleeps until granted or past `deadline`.
        pub fn park(&self, deadline: Option<Instant>) -> Parked {
            let mut granted = self.granted.lock();
            while !*granted {
                if expired(deadline) {
                    return Parked::TimedOut;
                }
                granted = self.wake.wait_until(granted, deadline);
            }
            Parked::Unparked
        }

        /// Grants the token.
        pub fn unpark(&self) {
            *self.granted.lock() = true;
            self.wake.notify_one();
        }
    }
}

/// A parker of one sleep's own, and of those who are to end it. The thread that drops it uses it again for its next
/// sleep, if nobody shares it any more then.
#[derive(Debug)]
pub(crate) struct OwnParker(Option<Arc<Parker>>);

std::thread_local!(static SPARE: Cell<Option<Arc<Parker>>> = const { Cell::new(None) });

impl OwnParker {
    /// Not granted yet.
    pub(crate) fn new() -> Self {
        // In a model each sleep has its own: what a thread leaves to itself must not reach the next iteration.
        let spare = if MODELLED { None } else { SPARE.try_with(Cell::take).ok().flatten() };
        if let Some(mut spare) = spare
            && let Some(parker) = Arc::get_mut(&mut spare)
        {
            // Not a granter is left, so none can meet a sleep that it was not meant for.
            *parker = Parker::new();
            return Self(Some(spare));
        }
        Self(Some(Arc::new(Parker::new())))
    }

    /// For whoever is to end the sleep.
    pub(crate) fn share(&self) -> Arc<Parker> {
        Arc::clone(self.shared())
    }

    fn shared(&self) -> &Arc<Parker> {
        self.0.as_ref().expect("taken only by `drop`")
    }
}

impl Deref for OwnParker {
    type Target = Parker;

    fn deref(&self) -> &Parker {
        self.shared()
    }
}

impl Drop for OwnParker {
    fn drop(&mut self) {
        if !MODELLED {
            // A thread that is ending has no next sleep.
            let _ = SPARE.try_with(|spare| spare.set(self.0.take()));
        }
    }
}
