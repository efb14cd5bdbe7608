//! What the scenarios use in place of the standard library's.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::{mem, ptr, thread};

/// How many threads there are in a scenario.
pub const THREADS: usize = 3;

/// A word that several threads use in turn, as the protocol under test has it.
#[derive(Default)]
pub struct Payload(UnsafeCell<u64>);

// SAFETY: the one access demands that there be no other.
unsafe impl Sync for Payload {}

impl Payload {
    /// So many of them.
    pub fn many(n: usize) -> Vec<Self> {
        (0..n).map(|_| Self::default()).collect()
    }

    /// Adds one.
    ///
    /// # Safety
    ///
    /// 1. Nobody else uses it meanwhile; or this is the process that has to be found out.
    pub unsafe fn touch(&self) {
        let word = self.0.get();
        // SAFETY: ours by 1. Volatile, lest an access that races be optimised away.
        unsafe { word.write_volatile(word.read_volatile() + 1) };
    }

    /// How often it was touched.
    ///
    /// # Safety
    ///
    /// 1. Nobody touches it meanwhile.
    pub unsafe fn touched(&self) -> u64 {
        // SAFETY: unchanged by 1.
        unsafe { self.0.get().read_volatile() }
    }

    /// Where it is.
    pub fn as_ptr(&self) -> *mut u8 {
        self.0.get().cast()
    }
}

/// Touches all of `words`.
///
/// # Safety
///
/// 1. As [`Payload::touch`], for each.
pub unsafe fn touch_all(words: &[Payload]) {
    // SAFETY: 1.
    words.iter().for_each(|word| unsafe { word.touch() });
}

/// Runs `work` with 0, 1 and so on, in as many threads as there are in a scenario. They come after the call, and
/// before its return; among themselves they are ordered by nothing.
pub fn run(work: &(dyn Fn(usize) + Sync)) {
    struct Start<'a>(&'a (dyn Fn(usize) + Sync), usize);

    extern "C" fn enter(start: *mut c_void) -> *mut c_void {
        // SAFETY: one of those below, which is there until we are joined. A panic ends the process.
        let Start(work, place) = unsafe { &*start.cast::<Start<'_>>() };
        work(*place);
        ptr::null_mut()
    }

    let starts: [_; THREADS] = std::array::from_fn(|place| Start(work, place));
    // SAFETY: `pthread_t` is a number or a pointer, and the call below fills it.
    let mut threads: [libc::pthread_t; THREADS] = unsafe { mem::zeroed() };
    for (start, thread) in starts.iter().zip(&mut threads) {
        let argument = ptr::from_ref(start).cast_mut().cast();
        // SAFETY: what is pointed to outlives the thread, which is joined below: between here and there nothing panics
        // but what is wrong for good, and `starts` is only read.
        let refused = unsafe { libc::pthread_create(thread, ptr::null(), enter, argument) };
        if refused != 0 {
            std::process::abort();
        }
    }
    for thread in threads {
        // SAFETY: made above, and joined once.
        unsafe { libc::pthread_join(thread, ptr::null_mut()) };
    }
}

/// Yields until there is something.
pub fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        thread::yield_now();
    }
}

/// A lock whose every access the sanitizer sees.
#[derive(Default)]
pub struct Lock<T>(AtomicBool, UnsafeCell<T>);

// SAFETY: one thread at a time, by `with`.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// Around `value`.
    pub fn new(value: T) -> Self {
        Self(AtomicBool::new(false), UnsafeCell::new(value))
    }

    /// Shows the value to `f`, which does not panic, or the others wait for ever.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        until(|| (!self.0.swap(true, Acquire)).then_some(()));
        // SAFETY: ours until the store below.
        let result = f(unsafe { &mut *self.1.get() });
        self.0.store(false, Release);
        result
    }
}
