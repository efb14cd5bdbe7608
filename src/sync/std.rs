//! The facade over the standard library.

/// Atomics and fences.
pub mod atomic {
    pub(crate) use std::sync::atomic::AtomicPtr;
    pub use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

    /// Frees a word that was taken by `swap`: a plain store.
    #[inline(always)]
    pub fn give_back(word: &AtomicU32, value: u32, order: Ordering) {
        word.store(value, order);
    }

    /// Stores over what others may be changing by read-modify-writes: a plain store.
    #[inline(always)]
    pub(crate) fn store_over(word: &AtomicU64, value: u64, order: Ordering) {
        word.store(value, order);
    }

    /// Loads a value that is only a hint: what follows is right whatever it is.
    #[inline(always)]
    pub fn glance(word: &AtomicU32) -> u32 {
        word.load(Ordering::Relaxed)
    }

    /// [`glance`] at a larger word.
    #[inline(always)]
    pub(crate) fn glance_u64(word: &AtomicU64) -> u64 {
        word.load(Ordering::Relaxed)
    }

    /// [`glance`] at a pointer.
    #[inline(always)]
    pub(crate) fn glance_ptr<T>(word: &AtomicPtr<T>) -> *mut T {
        word.load(Ordering::Relaxed)
    }

    /// Reads a word that nobody else can reach.
    pub(crate) fn exclusive(word: &mut AtomicU64) -> u64 {
        *word.get_mut()
    }

    /// A store-load fence for code whose last access was a read-modify-write.
    ///
    /// x86 executes every locked instruction as a full fence, so there only the compiler must be
    /// stopped. Miri checks the abstract machine, which knows no such rule.
    #[inline(always)]
    pub(crate) fn after_rmw(order: Ordering) {
        if cfg!(all(any(target_arch = "x86", target_arch = "x86_64"), not(miri))) {
            std::sync::atomic::compiler_fence(order);
        } else {
            fence(order);
        }
    }
}

/// The ordering of a site. See the [module's documentation](self).
macro_rules! mo {
    ($site:literal, $order:ident) => {
        $crate::sync::atomic::Ordering::$order
    };
}

/// The fence of a site. With a word: one that completes the caller's last access of that word, where a load does as
/// well.
macro_rules! fence {
    ($site:literal, $order:ident) => {
        $crate::sync::atomic::fence($crate::sync::atomic::Ordering::$order)
    };
    ($site:literal, $order:ident, $word:expr) => {
        if $crate::sync::SANITIZED {
            $word.load($crate::sync::atomic::Ordering::$order);
        } else {
            fence!($site, $order);
        }
    };
}

/// The fence of a site whose last access was a read-modify-write.
macro_rules! fence_after_rmw {
    ($site:literal, $order:ident) => {
        $crate::sync::atomic::after_rmw($crate::sync::atomic::Ordering::$order)
    };
}

/// The fence of a site that restarts sections. Says whether it could be had.
macro_rules! section_fence {
    ($site:literal, $order:ident) => {
        $crate::sync::rseq::fence()
    };
}
pub(crate) use {fence, fence_after_rmw, mo, section_fence};

/// Cells whose every access is a closure, so that a checker can see where it begins and ends.
pub mod cell {
    /// `std::cell::UnsafeCell` in loom's shape.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// Wraps `value`.
        pub const fn new(value: T) -> Self {
            Self(std::cell::UnsafeCell::new(value))
        }

        /// Calls `f` with a pointer for reading. Dereferencing it is what is `unsafe`.
        #[inline(always)]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Calls `f` with a pointer for writing. Dereferencing it is what is `unsafe`.
        #[inline(always)]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }

        /// Gives the value back.
        pub fn into_inner(self) -> T {
            self.0.into_inner()
        }
    }

    /// A run of cells that can be read in place as one slice.
    #[derive(Debug)]
    pub struct CellArray<T>(Box<[std::cell::UnsafeCell<T>]>);

    impl<T: Copy> CellArray<T> {
        /// `len` cells of `value`.
        pub fn new(len: usize, value: T) -> Self {
            Self((0..len).map(|_| std::cell::UnsafeCell::new(value)).collect())
        }

        /// The address of the first cell.
        pub(crate) fn as_ptr(&self) -> *const T {
            self.0.as_ptr().cast()
        }

        /// Writes one cell.
        ///
        /// # Safety
        ///
        /// 1. `index` is below the length.
        /// 2. Nobody else reads or writes that cell until this returns.
        #[inline(always)]
        pub unsafe fn write(&self, index: usize, value: T) {
            // SAFETY: in bounds by 1., unaliased by 2.
            unsafe { *self.0.get_unchecked(index).get() = value }
        }

        /// Calls `f` with the cells from `start` to `start + len`, in place.
        ///
        /// # Safety
        ///
        /// 1. `start + len` is at most the length.
        /// 2. Nobody writes those cells until this returns.
        #[inline(always)]
        pub unsafe fn with_slice<R>(&self, start: usize, len: usize, f: impl FnOnce(&[T]) -> R) -> R {
            // SAFETY: in bounds by 1.; `UnsafeCell<T>` has the layout of `T`; shared and unwritten by 2.
            f(unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(start).cast::<T>(), len) })
        }
    }

    // SAFETY: the cells are reached only by the two methods above, whose callers rule out races. A value is
    // moved between threads by a write and a read (`Send`), and read in place by several at once (`Sync`).
    unsafe impl<T: Send + Sync> Sync for CellArray<T> {}
}

/// Spinning.
pub mod hint {
    pub use std::hint::spin_loop;

    /// Marks the branch of a loop that waits for another thread. Only a model checker listens.
    #[inline(always)]
    pub fn contended() {}

    /// Waiting a little longer each time, before it is worth sleeping: spins, then lets other threads run.
    #[derive(Debug, Default)]
    pub struct Backoff(u32);

    impl Backoff {
        const SPINS: u32 = 32;
        const YIELDS: u32 = 4;

        /// Waits a little; returns whether it did. If not, what is waited for takes long.
        #[inline]
        pub fn wait(&mut self) -> bool {
            if self.0 >= Self::SPINS + Self::YIELDS {
                return false;
            }
            if self.0 < Self::SPINS {
                spin_loop()
            } else {
                super::thread::yield_now()
            }
            self.0 += 1;
            true
        }
    }
}

/// Threads.
pub mod thread {
    pub use std::thread::{Builder, JoinHandle, current, panicking, sleep, spawn, yield_now};
}

pub use std::sync::{Arc, MutexGuard, OnceLock};
pub(crate) use std::thread_local;

/// A mutex without poisoning: what it guards here is never left half-changed by a panic.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Wraps `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Blocks until the lock is held.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        while SANITIZED {
            match self.0.try_lock() {
                Ok(guard) => return guard,
                Err(std::sync::TryLockError::Poisoned(guard)) => return guard.into_inner(),
                Err(std::sync::TryLockError::WouldBlock) => thread::yield_now(),
            }
        }
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The lock, if nobody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

/// A condition variable.
#[derive(Debug, Default)]
pub struct Condvar(std::sync::Condvar);

impl Condvar {
    /// With nobody waiting.
    pub const fn new() -> Self {
        Self(std::sync::Condvar::new())
    }

    /// Gives the lock back, sleeps until notified or past `deadline`, takes the lock again. May wake for no
    /// reason.
    pub fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<super::time::Instant>,
    ) -> MutexGuard<'a, T> {
        use std::sync::PoisonError;
        match deadline {
            None => self.0.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Some(at) => {
                let left = at.saturating_duration_since(super::time::Instant::now());
                self.0.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Wakes one sleeper.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes every sleeper.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Whether ThreadSanitizer is to follow what happens: told by `--cfg ioctx_tsan`, since stable Rust cannot ask. It does
/// not know fences, and does not see what a mutex of the standard library does out of line, when it is contended. So
/// the fences that publish are loads there, and locks are tried until they are got.
pub(crate) const SANITIZED: bool = cfg!(ioctx_tsan);

/// Whether this is a model: what is sized for models to come to an end is small then.
pub(crate) const MODELLED: bool = false;

/// The clock.
pub(super) mod clock {
    use std::sync::OnceLock;
    use std::time::Instant;

    /// Microseconds since the first call.
    pub(in crate::sync) fn micros() -> u64 {
        static BEGUN: OnceLock<Instant> = OnceLock::new();
        BEGUN.get_or_init(Instant::now).elapsed().as_micros() as u64
    }
}

/// The raw CPU number, and how many there can be.
pub(crate) mod cpu {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// The number of the CPU this thread runs on, or a number that stays with the thread where the
    /// system gives none. Out of date as soon as it is read.
    #[inline]
    pub(crate) fn raw() -> u32 {
        #[cfg(all(ioctx_linux, not(miri)))]
        {
            #[cfg(all(
                any(target_arch = "x86_64", target_arch = "aarch64"),
                target_pointer_width = "64",
                target_endian = "little"
            ))]
            if let Some(cpu) = crate::sync::rseq::cpu_id() {
                return cpu;
            }
            // SAFETY: has no conditions. Not rustix's, which looks for the kernel's own code where valgrind
            // has none.
            let cpu = unsafe { libc::sched_getcpu() };
            u32::try_from(cpu).unwrap_or(0)
        }
        #[cfg(not(all(ioctx_linux, not(miri))))]
        {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            // Relaxed: only the numbers' distinctness matters; the counter publishes nothing.
            std::thread_local!(static STRIPE: u32 = NEXT.fetch_add(1, Relaxed));
            STRIPE.try_with(|stripe| *stripe).unwrap_or(0)
        }
    }

    /// As [`raw`], if it is to be had without a call, and is a CPU that was counted.
    #[inline(always)]
    pub(crate) fn quick() -> Option<u32> {
        // Relaxed: 0, or what it always is.
        crate::sync::rseq::quick_cpu_id().filter(|cpu| *cpu < POSSIBLE.load(Relaxed))
    }

    static POSSIBLE: AtomicU32 = AtomicU32::new(0);

    /// How many CPUs this machine can ever have, at least 1. Counted once.
    pub(crate) fn possible() -> u32 {
        #[cold]
        fn count() -> u32 {
            let cpus = listed().unwrap_or(0).max(num_cpus::get() as u32).max(1);
            // Relaxed twice: whoever counts comes to the same; but if the system changes its mind, the first one
            // is right.
            match POSSIBLE.compare_exchange(0, cpus, Relaxed, Relaxed) {
                Ok(_) => cpus,
                Err(before) => before,
            }
        }
        // Relaxed: as above.
        match POSSIBLE.load(Relaxed) {
            0 => count(),
            cpus => cpus,
        }
    }

    /// Whether the system itself has said so, so that no thread can ever be on a CPU beyond.
    #[cfg_attr(
        not(all(
            ioctx_linux,
            any(target_arch = "x86_64", target_arch = "aarch64"),
            target_pointer_width = "64",
            target_endian = "little",
            not(miri)
        )),
        expect(dead_code, reason = "asked by sections")
    )]
    pub(crate) fn possible_is_certain() -> bool {
        listed().is_some()
    }

    /// What the system says of possible CPUs. Read once.
    fn listed() -> Option<u32> {
        static LISTED: std::sync::OnceLock<Option<u32>> = std::sync::OnceLock::new();
        *LISTED.get_or_init(|| {
            let list = std::fs::read_to_string("/sys/devices/system/cpu/possible").ok()?;
            highest(&list).map(|highest| highest + 1)
        })
    }

    /// The highest number in a list like `0-3,8-11`.
    fn highest(list: &str) -> Option<u32> {
        list.trim().split([',', '-']).filter_map(|number| number.parse().ok()).max()
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn reads_cpu_lists() {
            for (list, want) in
                [("0-1\n", Some(1)), ("0", Some(0)), ("0-3,8-11\n", Some(11)), ("", None), ("x", None)]
            {
                assert_eq!(super::highest(list), want, "{list:?}");
            }
        }
    }
}

/// The process-wide barrier of the system.
pub(crate) mod membarrier {
    use std::sync::atomic::{Ordering, compiler_fence};

    /// Asks the kernel for the right to call [`issue`]; says why it cannot be had.
    #[cfg(all(ioctx_linux, not(miri)))]
    pub(crate) fn register() -> Result<(), &'static str> {
        use rustix::thread::{MembarrierCommand, membarrier, membarrier_query};
        if !membarrier_query().contains_command(MembarrierCommand::RegisterPrivateExpedited) {
            return Err("the kernel has no membarrier(PRIVATE_EXPEDITED), or forbids it here");
        }
        membarrier(MembarrierCommand::RegisterPrivateExpedited)
            .map_err(|_| "the kernel refused to register for membarrier(PRIVATE_EXPEDITED)")
    }

    /// Asks the kernel for the right to call [`issue`]; says why it cannot be had.
    #[cfg(not(all(ioctx_linux, not(miri))))]
    pub(crate) fn register() -> Result<(), &'static str> {
        Err("membarrier is a Linux system call, and not used by `--cfg ioctx_portable`")
    }

    /// Makes every running thread of the process execute a full fence. Returns whether it did.
    pub(crate) fn issue() -> bool {
        #[cfg(all(ioctx_linux, not(miri)))]
        {
            use rustix::thread::{MembarrierCommand, membarrier};
            membarrier(MembarrierCommand::PrivateExpedited).is_ok()
        }
        #[cfg(not(all(ioctx_linux, not(miri))))]
        {
            false
        }
    }

    /// Keeps the compiler from moving accesses across; the processor is seen to by [`issue`].
    #[inline(always)]
    pub(crate) fn compiler_only() {
        compiler_fence(Ordering::SeqCst);
    }
}

/// A place that holds at most one value, replaced while others read it; what is taken out lives on until
/// they have finished.
///
/// Reclamation is `crossbeam-epoch`'s.
#[derive(Debug)]
pub(crate) struct EpochCell<T>(crossbeam_epoch::Atomic<T>);

impl<T: Send + Sync + 'static> EpochCell<T> {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self(crossbeam_epoch::Atomic::null())
    }

    /// Calls `f` with the value, if there is one.
    #[inline]
    pub(crate) fn read<R>(&self, order: atomic::Ordering, f: impl FnOnce(&T) -> R) -> Option<R> {
        let guard = crossbeam_epoch::pin();
        // SAFETY: what is loaded while pinned is not freed before the guard goes; values are only ever put
        // in whole.
        unsafe { self.0.load(order, &guard).as_ref() }.map(f)
    }

    /// Puts a value into the empty cell. The caller sees to it that nobody else does.
    pub(crate) fn put(&self, value: T, order: atomic::Ordering) {
        self.0.store(crossbeam_epoch::Owned::new(value), order);
    }

    /// Takes the value out if it is the one that `wanted` means. One caller gets it.
    pub(crate) fn take(&self, order: atomic::Ordering, wanted: impl FnOnce(&T) -> bool) -> Option<Taken<T>> {
        let guard = crossbeam_epoch::pin();
        let shared = self.0.load(order, &guard);
        // SAFETY: as in `read`.
        unsafe { shared.as_ref() }.filter(|value| wanted(value))?;
        let null = crossbeam_epoch::Shared::null();
        self.0.compare_exchange(shared, null, order, atomic::Ordering::Relaxed, &guard).ok()?;
        Some(Taken(shared.as_raw()))
    }
}

impl<T> Drop for EpochCell<T> {
    fn drop(&mut self) {
        // SAFETY: nobody else can reach the cell any more.
        drop(unsafe { std::mem::replace(&mut self.0, crossbeam_epoch::Atomic::null()).try_into_owned() });
    }
}

/// A value that was taken out of its cell by this thread, and that others may still be reading.
#[derive(Debug)]
pub(crate) struct Taken<T: Send + Sync + 'static>(*const T);

impl<T: Send + Sync + 'static> std::ops::Deref for Taken<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: freed only after our `drop`.
        unsafe { &*self.0 }
    }
}

impl<T: Send + Sync + 'static> Drop for Taken<T> {
    fn drop(&mut self) {
        let guard = crossbeam_epoch::pin();
        // SAFETY: the value came from `Owned`, is out of its cell, and one thread was told so.
        unsafe { guard.defer_destroy(crossbeam_epoch::Shared::from(self.0)) };
    }
}
