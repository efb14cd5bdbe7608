//! Which process this is: a child of a fork is another one, with a copy of everything. And [`start_thread`], which works
//! there.

// The standard library's in every build: a model has one process.
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

static FORKS: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" {
    fn pthread_atfork(
        before: Option<extern "C" fn()>,
        parent: Option<extern "C" fn()>,
        child: Option<extern "C" fn()>,
    ) -> libc::c_int;
}

/// A number that every fork since the first call of [`count_forks`] has made larger.
#[inline]
pub(crate) fn forks() -> u32 {
    // Relaxed: changed only in a child, before it has a second thread.
    FORKS.load(Relaxed)
}

/// From now on forks are counted, but for those by system calls that the C library knows nothing of.
pub(crate) fn count_forks() {
    extern "C" fn in_child() {
        // Relaxed: there is no other thread yet.
        FORKS.fetch_add(1, Relaxed);
    }
    static COUNTED: AtomicBool = AtomicBool::new(false);
    // Nobody waits for another: a fork may leave a child with neither. Two that come at once make each fork count
    // twice.
    // Relaxed twice: who reads `true` has nothing to do, and forks with a lock that was held to set this.
    if !COUNTED.load(Relaxed) {
        // SAFETY: the function stays as long as it may be called: the C library takes it back when it unloads us.
        unsafe { pthread_atfork(None, None, Some(in_child)) };
        COUNTED.store(true, Relaxed);
    }
}

/// Has `settle` called before each fork from now on, once or more often.
///
/// What is done once and waited for, as by `OnceLock`, would never be done in a child that was forked meanwhile:
/// `settle` sees that all of that is over.
///
/// A signal handler that forks in the middle of it would wait for itself; `_Fork`, which is for handlers, calls nothing.
#[cfg(ioctx_capi)]
pub(crate) fn settle_before_forks(settle: extern "C" fn()) {
    // SAFETY: as in `count_forks`.
    unsafe { pthread_atfork(Some(settle), None, None) };
}

/// Starts a thread that the standard library knows nothing of, on a stack of at least `stack` bytes. It is never
/// joined; if it panics, it ends.
///
/// The standard library's threads lock something while they begin and while they end. If one of a parent's did so at
/// the moment of a fork, the child can start none for ever. Of the C library's threads it can.
///
/// # Errors
///
/// The system's.
#[cfg(ioctx_capi)]
pub(crate) fn start_thread(stack: usize, life: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    type Life = Box<dyn FnOnce() + Send>;
    extern "C" fn run(life: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: from `into_raw`, and given to this thread alone.
        let life = unsafe { Box::from_raw(life.cast::<Life>()) };
        // The hook of panics has told of it.
        let _ = super::caught(*life);
        std::ptr::null_mut()
    }
    let life = Box::into_raw(Box::new(Box::new(life) as Life));
    let mut attributes = std::mem::MaybeUninit::uninit();
    let mut thread = 0;
    // SAFETY: attributes are made first, and taken apart last; `run` is given what it asks for.
    let error = unsafe {
        let mut error = libc::pthread_attr_init(attributes.as_mut_ptr());
        if error == 0 {
            let attributes = attributes.assume_init_mut();
            libc::pthread_attr_setdetachstate(attributes, libc::PTHREAD_CREATE_DETACHED);
            // Of these two the first fails for less than the system's least; the second, where the program has so much
            // thread-local storage that nothing would be left.
            let chosen = libc::pthread_attr_setstacksize(attributes, stack) == 0;
            error = libc::pthread_create(&mut thread, attributes, run, life.cast());
            if error == libc::EINVAL && chosen {
                libc::pthread_attr_setstacksize(attributes, 16 * stack);
                error = libc::pthread_create(&mut thread, attributes, run, life.cast());
            }
            libc::pthread_attr_destroy(attributes);
        }
        error
    };
    if error == 0 {
        return Ok(());
    }
    // SAFETY: from `into_raw`, and there is no thread that has it.
    drop(unsafe { Box::from_raw(life) });
    Err(std::io::Error::from_raw_os_error(error))
}
