//! Ctrl-C: the first ends the measuring, with the figures so far; the next ends the program.

use std::sync::atomic::{AtomicBool, Ordering::*};

static SEEN: AtomicBool = AtomicBool::new(false);

/// Watches for as long as it lives.
pub struct Watch(());

impl Watch {
    /// Whether it was pressed.
    pub fn seen(&self) -> bool {
        // Relaxed: nothing comes with it.
        SEEN.load(Relaxed)
    }
}

#[cfg(unix)]
mod signal {
    use super::*;

    extern "C" fn handle(signal: libc::c_int) {
        SEEN.store(true, Relaxed);
        // SAFETY: this may be called from a handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }

    pub fn set() {
        let handle = handle as extern "C" fn(libc::c_int);
        // SAFETY: the handler does only what a handler may.
        unsafe { libc::signal(libc::SIGINT, handle as libc::sighandler_t) };
    }

    pub fn reset() {
        // SAFETY: what it was before.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    }
}

/// Elsewhere Ctrl-C ends the program at once.
#[cfg(not(unix))]
mod signal {
    pub fn set() {}
    pub fn reset() {}
}

/// From now on.
pub fn watch() -> Watch {
    SEEN.store(false, Relaxed);
    signal::set();
    Watch(())
}

impl Drop for Watch {
    fn drop(&mut self) {
        signal::reset();
    }
}
