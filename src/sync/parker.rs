//! One thread's sleep: [`Parker`].

use super::time::{Instant, expired};

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

#[cfg(all(ioctx_linux, not(all(loom, feature = "loom"))))]
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

#[cfg(not(any(ioctx_linux, all(loom, feature = "loom"))))]
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
