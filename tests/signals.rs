//! Signals that arrive while a reader sleeps.
#![cfg(target_os = "linux")]

use ioctx::aio::{Context, GetEventsError, Request};
use ioctx::backend::Null;
use std::thread;
use std::time::Duration;

extern "C" fn nothing(_: libc::c_int) {}

/// Installs a handler that does nothing and does not restart calls.
fn handle(signal: libc::c_int) {
    // SAFETY: an all-zero `sigaction` is valid; the handler touches nothing.
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    assert_eq!(installed, 0);
}

#[test]
fn a_signal_ends_a_wait_that_has_nothing_and_no_other() {
    handle(libc::SIGUSR1);
    let context = Context::new(4, Null).unwrap();
    for already in [0, 1] {
        let ended = thread::scope(|scope| {
            let (told, tell) = std::sync::mpsc::channel();
            let reader = scope.spawn({
                let context = &context;
                move || {
                    // SAFETY: this thread's own identity.
                    told.send(unsafe { libc::pthread_self() }).unwrap();
                    context.get_events(2, 2, None, &mut Vec::new())
                }
            });
            let thread = tell.recv().unwrap();
            // Asleep before the event comes: too little to wake for, and there when the signal does.
            thread::sleep(Duration::from_millis(50));
            for _ in 0..already {
                context.submit(Request::nop()).unwrap();
            }
            // Again and again, since the first ones may come before the sleep.
            while !reader.is_finished() {
                thread::sleep(Duration::from_millis(5));
                // SAFETY: the thread is not joined before this scope ends its loop.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
            }
            reader.join().unwrap()
        });
        // One event is not enough to return by itself, but it is more than an error.
        assert_eq!(ended, if already == 0 { Err(GetEventsError::Interrupted) } else { Ok(1) });
    }
}
