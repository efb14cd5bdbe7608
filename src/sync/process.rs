//! Which process this is: a child of a fork is another one, with a copy of everything.

// The standard library's in every build: a model has one process.
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks lead from the process that first called [`count_forks`] to this one.
#[inline]
pub(crate) fn forks() -> u32 {
    // Relaxed: changed only in a child, before it has a second thread.
    FORKS.load(Relaxed)
}

/// From now on forks are counted, but for those by system calls that the C library knows nothing of.
pub(crate) fn count_forks() {
    unsafe extern "C" {
        fn pthread_atfork(
            before: Option<extern "C" fn()>,
            parent: Option<extern "C" fn()>,
            child: Option<extern "C" fn()>,
        ) -> libc::c_int;
    }
    extern "C" fn in_child() {
        // Relaxed: there is no other thread yet.
        FORKS.fetch_add(1, Relaxed);
    }
    static COUNTED: OnceLock<()> = OnceLock::new();
    // SAFETY: the function stays as long as it may be called: the C library takes it back when it unloads us.
    COUNTED.get_or_init(|| unsafe {
        pthread_atfork(None, None, Some(in_child));
    });
}
