//! The facade over loom.

/// Atomics and fences.
pub mod atomic {
    pub(crate) use loom::sync::atomic::AtomicPtr;
    pub use loom::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

    /// Frees a word that was taken by `swap`. A plain store outside loom.
    pub fn give_back(word: &AtomicU32, value: u32, order: Ordering) {
        word.swap(value, order);
    }

    /// [`glance`] at a larger word.
    pub(crate) fn glance_u64(word: &AtomicU64) -> u64 {
        word.fetch_add(0, Ordering::Relaxed)
    }

    /// [`glance`] at a pointer.
    pub(crate) fn glance_ptr<T>(word: &AtomicPtr<T>) -> *mut T {
        let null = std::ptr::null_mut();
        match word.compare_exchange(null, null, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(value) | Err(value) => value,
        }
    }

    /// Stores over what others may be changing by read-modify-writes. A plain store outside loom.
    pub(crate) fn store_over(word: &AtomicU64, value: u64, order: Ordering) {
        word.swap(value, order);
    }

    /// Reads a word that nobody else can reach; loom checks that nobody can.
    pub(crate) fn exclusive(word: &mut AtomicU64) -> u64 {
        word.with_mut(|word| *word)
    }

    /// Loads a value that is only a hint. A plain load outside loom; the module's documentation says why
    /// not here.
    pub fn glance(word: &AtomicU32) -> u32 {
        word.fetch_add(0, Ordering::Relaxed)
    }
}

/// The ordering of a site. See the [module's documentation](self).
macro_rules! mo {
    ($site:literal, $order:ident) => {
        $crate::sync::model::ordering($site, $crate::sync::atomic::Ordering::$order)
    };
}

/// The fence of a site.
macro_rules! fence {
    ($site:literal, $order:ident) => {
        if let Some(order) = $crate::sync::model::fence($site, $crate::sync::atomic::Ordering::$order) {
            $crate::sync::atomic::fence(order)
        }
    };
    ($site:literal, $order:ident, $word:expr) => {{
        let _ = &$word;
        fence!($site, $order)
    }};
}

/// The fence of a site that restarts sections. Says whether it could be had.
macro_rules! section_fence {
    ($site:literal, $order:ident) => {
        $crate::sync::model::fence($site, $crate::sync::atomic::Ordering::$order).is_none()
            || $crate::sync::rseq::fence()
    };
}
pub(crate) use {fence, fence as fence_after_rmw, mo, section_fence};

/// Cells whose every access is a closure, so that loom sees where it begins and ends.
pub mod cell {
    pub use loom::cell::UnsafeCell;

    /// A run of cells that can be read in place as one slice; each cell is tracked by itself.
    #[derive(Debug)]
    pub struct CellArray<T> {
        values: Box<[std::cell::UnsafeCell<T>]>,
        tracks: Box<[UnsafeCell<()>]>,
    }

    impl<T: Copy> CellArray<T> {
        /// `len` cells of `value`.
        pub fn new(len: usize, value: T) -> Self {
            Self {
                values: (0..len).map(|_| std::cell::UnsafeCell::new(value)).collect(),
                tracks: (0..len).map(|_| UnsafeCell::new(())).collect(),
            }
        }

        /// The address of the first cell, for code that is not modelled.
        pub(crate) fn as_ptr(&self) -> *const T {
            self.values.as_ptr().cast()
        }

        /// Writes one cell.
        ///
        /// # Safety
        ///
        /// 1. `index` is below the length.
        /// 2. Nobody else reads or writes that cell until this returns.
        pub unsafe fn write(&self, index: usize, value: T) {
            let _track = self.tracks[index].get_mut();
            // SAFETY: unaliased by 2., which the track has just checked.
            unsafe { *self.values[index].get() = value }
        }

        /// Calls `f` with the cells from `start` to `start + len`, in place.
        ///
        /// # Safety
        ///
        /// 1. `start + len` is at most the length.
        /// 2. Nobody writes those cells until this returns.
        pub unsafe fn with_slice<R>(&self, start: usize, len: usize, f: impl FnOnce(&[T]) -> R) -> R {
            let _tracks: Vec<_> = self.tracks[start..start + len].iter().map(UnsafeCell::get).collect();
            let cells = &self.values[start..start + len];
            // SAFETY: `UnsafeCell<T>` has the layout of `T`; unwritten by 2., which the tracks check.
            f(unsafe { std::slice::from_raw_parts(cells.as_ptr().cast::<T>(), len) })
        }
    }

    // SAFETY: the cells are reached only by the two methods above, whose callers rule out races. A value is
    // moved between threads by a write and a read (`Send`), and read in place by several at once (`Sync`).
    unsafe impl<T: Send + Sync> Sync for CellArray<T> {}
}

/// Spinning.
pub mod hint {
    pub use loom::hint::spin_loop;

    /// Marks the branch of a loop that waits for another thread: what follows on this schedule differs
    /// from another one only in how often it went round, so it is not branched further.
    pub fn contended() {
        loom::skip_branch();
    }

    /// Waiting before sleeping. Models do not: it only repeats what was seen.
    #[derive(Debug, Default)]
    pub struct Backoff(());

    impl Backoff {
        /// Returns that it did not wait.
        pub fn wait(&mut self) -> bool {
            false
        }
    }
}

/// Threads.
pub mod thread {
    pub use loom::thread::{Builder, JoinHandle, current, spawn, yield_now};
    pub use std::thread::panicking;

    /// Time stands still: lets the others run.
    pub fn sleep(_: std::time::Duration) {
        yield_now();
    }
}

pub use loom::sync::{Arc, MutexGuard};
pub(crate) use loom::thread_local;
pub use std::sync::OnceLock;

/// A mutex without poisoning.
#[derive(Debug, Default)]
pub struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Wraps `value`.
    pub fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    /// Blocks until the lock is held.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("a model ends at its first panic")
    }

    /// The lock, if nobody has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}

/// A condition variable.
#[derive(Debug, Default)]
pub struct Condvar(loom::sync::Condvar);

impl Condvar {
    /// With nobody waiting.
    pub fn new() -> Self {
        Self(loom::sync::Condvar::new())
    }

    /// Gives the lock back, sleeps until notified, takes the lock again. Loom has no clock: a passed
    /// deadline returns at once, any other is waited for as if there were none.
    pub fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Option<super::time::Instant>,
    ) -> MutexGuard<'a, T> {
        if super::time::expired(deadline) {
            return guard;
        }
        self.0.wait(guard).expect("a model ends at its first panic")
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

/// Whether this is a model.
pub(crate) const MODELLED: bool = true;

/// The clock, which stands still.
pub(super) mod clock {
    /// 0.
    pub(in crate::sync) fn micros() -> u64 {
        0
    }
}

/// The raw CPU number, and how many there can be.
pub(crate) mod cpu {
    use std::cell::Cell;

    loom::thread_local!(pub(super) static CPU: Cell<u32> = Cell::new(0));

    /// What the model said with `set_cpu`.
    pub(crate) fn raw() -> u32 {
        CPU.with(Cell::get)
    }

    /// As [`raw`].
    pub(crate) fn quick() -> Option<u32> {
        Some(raw())
    }

    /// Models have two CPUs.
    pub(crate) fn possible() -> u32 {
        2
    }
}

/// What a model says about its world. Exists only under loom.
pub mod model {
    use super::atomic::Ordering;
    use std::sync::Mutex;

    /// Puts the calling thread on `cpu` (0 or 1) until it says otherwise.
    pub fn set_cpu(cpu: u32) {
        super::cpu::CPU.with(|cell| cell.set(cpu));
    }

    /// Whether structures made from now on count in restartable sequences. The same in every iteration of a
    /// model.
    pub fn use_sections(sections: bool) {
        crate::sync::rseq::use_sections(sections);
    }

    /// Grants the process-wide barrier, of which the light side is no fence. To be called first, in every iteration
    /// of a model.
    pub fn use_membarrier() {
        super::membarrier::grant();
    }

    /// Makes the next restartable sequence of the calling thread give up, as if the thread had been
    /// preempted.
    pub fn abort_next_section() {
        crate::sync::rseq::abort();
    }

    /// The half of an ordering that a mutant takes away.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Weaken {
        /// No acquire: `AcqRel` becomes `Release`, `Acquire` becomes `Relaxed`.
        Acquire,
        /// No release: `AcqRel` becomes `Acquire`, `Release` becomes `Relaxed`.
        Release,
        /// A fence is left out.
        Fence,
    }

    static MUTANT: Mutex<Option<(String, Weaken)>> = Mutex::new(None);

    /// Weakens one site in every model that follows in this process; `None` restores all.
    pub fn weaken(site: Option<(&str, Weaken)>) {
        *MUTANT.lock().unwrap() = site.map(|(name, how)| (name.to_owned(), how));
    }

    fn mutated(site: &str) -> Option<Weaken> {
        let mutant = MUTANT.lock().unwrap();
        mutant.as_ref().filter(|(name, _)| name == site).map(|&(_, how)| how)
    }

    pub(crate) fn ordering(site: &str, order: Ordering) -> Ordering {
        use Ordering::*;
        match (mutated(site), order) {
            (Some(Weaken::Acquire), Acquire) | (Some(Weaken::Release), Release) => Relaxed,
            (Some(Weaken::Acquire), AcqRel) => Release,
            (Some(Weaken::Release), AcqRel) => Acquire,
            _ => order,
        }
    }

    pub(crate) fn fence(site: &str, order: Ordering) -> Option<Ordering> {
        (mutated(site) != Some(Weaken::Fence)).then_some(order)
    }
}

/// The process-wide barrier of the system, where the model asked for it; elsewhere both sides of `barrier` are full
/// fences.
///
/// A word per CPU stands for the CPU: the light side comes before or after the heavy one's visit there, and is
/// ordered against nothing else. The kernel's guarantee is that and no more.
pub(crate) mod membarrier {
    use super::atomic::{AtomicU64, Ordering::AcqRel, Ordering::SeqCst};
    use super::{cpu, model};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    loom::lazy_static! {
        static ref CPUS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];
    }

    static GRANTED: AtomicBool = AtomicBool::new(false);

    /// Grants it from now on. The same in every iteration of a model.
    pub(in crate::sync) fn grant() {
        GRANTED.store(true, Relaxed);
        // Made before there are threads: whoever made it would be ordered before all others.
        let _ = &*CPUS;
    }

    /// What the model said.
    pub(crate) fn register() -> Result<(), &'static str> {
        if GRANTED.load(Relaxed) { Ok(()) } else { Err("models have membarrier only where they say so") }
    }

    /// Visits every CPU, unless the mutant is that it does not.
    pub(crate) fn issue() -> bool {
        if model::fence("barrier.heavy", SeqCst).is_some() {
            CPUS.iter().for_each(|cpu| _ = cpu.fetch_add(1, AcqRel));
        }
        true
    }

    /// Is where it is in the order of its CPU, unless the mutant is that it is nowhere.
    pub(crate) fn compiler_only() {
        if model::fence("barrier.light", SeqCst).is_some() {
            CPUS[cpu::raw() as usize].fetch_add(1, AcqRel);
        }
    }
}

/// A place that holds at most one value, replaced while others read it; what is taken out lives on until
/// they have finished, and no longer.
///
/// `crossbeam-epoch` frees a little later than this does, and its own accesses are checked by its own models.
#[derive(Debug)]
pub(crate) struct EpochCell<T> {
    word: loom::sync::atomic::AtomicPtr<T>,
    /// Bumped by every pin and unpin, as the real one is fenced there: who pins after a value was freed
    /// sees that it was taken out.
    order: loom::sync::atomic::AtomicUsize,
    epoch: std::sync::Mutex<Epoch<T>>,
}

#[derive(Debug)]
struct Epoch<T> {
    /// Calls of `read` and `take` under way.
    pinned: usize,
    /// Taken out, and to be freed when nothing is under way.
    garbage: Vec<*mut T>,
}

// SAFETY: the pointers are owned by the cell and lead to values that may be sent and shared.
unsafe impl<T: Send + Sync> Send for EpochCell<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for EpochCell<T> {}

/// Keeps what is taken out alive.
struct Pin<'a, T>(&'a EpochCell<T>);

impl<T> Drop for Pin<'_, T> {
    fn drop(&mut self) {
        self.0.order.fetch_add(1, atomic::Ordering::AcqRel);
        let mut epoch = self.0.epoch.lock().unwrap();
        epoch.pinned -= 1;
        let garbage = if epoch.pinned == 0 { std::mem::take(&mut epoch.garbage) } else { Vec::new() };
        drop(epoch);
        for value in garbage {
            // SAFETY: boxed by `put`, taken out once, and nobody is reading.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

impl<T: Send + Sync + 'static> EpochCell<T> {
    /// Empty.
    pub(crate) fn new() -> Self {
        Self {
            word: loom::sync::atomic::AtomicPtr::new(std::ptr::null_mut()),
            order: loom::sync::atomic::AtomicUsize::new(0),
            epoch: std::sync::Mutex::new(Epoch { pinned: 0, garbage: Vec::new() }),
        }
    }

    fn pin(&self) -> Pin<'_, T> {
        self.order.fetch_add(1, atomic::Ordering::AcqRel);
        self.epoch.lock().unwrap().pinned += 1;
        Pin(self)
    }

    /// Calls `f` with the value, if there is one.
    pub(crate) fn read<R>(&self, order: atomic::Ordering, f: impl FnOnce(&T) -> R) -> Option<R> {
        let _pin = self.pin();
        // SAFETY: null, or a value that lives while we are pinned.
        unsafe { self.word.load(order).as_ref() }.map(f)
    }

    /// Puts a value into the empty cell. The caller sees to it that nobody else does.
    pub(crate) fn put(&self, value: T, order: atomic::Ordering) {
        self.word.store(Box::into_raw(Box::new(value)), order);
    }

    /// Takes the value out if it is the one that `wanted` means. One caller gets it.
    pub(crate) fn take(
        &self,
        order: atomic::Ordering,
        wanted: impl FnOnce(&T) -> bool,
    ) -> Option<Taken<'_, T>> {
        let _pin = self.pin();
        let value = self.word.load(order);
        // SAFETY: as in `read`.
        unsafe { value.as_ref() }.filter(|value| wanted(value))?;
        let null = std::ptr::null_mut();
        self.word.compare_exchange(value, null, order, atomic::Ordering::Relaxed).ok()?;
        Some(Taken { cell: self, value })
    }
}

impl<T> Drop for EpochCell<T> {
    fn drop(&mut self) {
        let value = self.word.with_mut(|value| *value);
        if !value.is_null() {
            // SAFETY: boxed by `put` and not taken out.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}

/// A value that was taken out of its cell by this thread, and that others may still be reading.
#[derive(Debug)]
pub(crate) struct Taken<'a, T: Send + Sync + 'static> {
    cell: &'a EpochCell<T>,
    value: *mut T,
}

impl<T: Send + Sync + 'static> std::ops::Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: freed only after our `drop`.
        unsafe { &*self.value }
    }
}

impl<T: Send + Sync + 'static> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        let _pin = self.cell.pin();
        self.cell.epoch.lock().unwrap().garbage.push(self.value);
    }
}
