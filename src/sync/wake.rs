//! Those who are to be woken: [`Wake`], [`Woken`].

use super::thread::panicking;
use super::{Arc, Parker};
use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

/// How to wake one who waits. Dropping it may call back, as waking may: neither is done under a lock.
#[derive(Debug)]
pub(crate) enum Wake {
    /// Shared with the waker, so that one who has left takes nothing away from under it.
    Thread(Arc<Parker>),
    Task(Waker),
}

/// Those who were taken out of a queue, to be woken without its lock.
#[derive(Debug, Default)]
#[must_use = "nobody else wakes them"]
pub(crate) struct Woken(Vec<Wake>);

impl Woken {
    pub(crate) fn push(&mut self, wake: Wake) {
        self.0.push(wake);
    }

    /// Wakes all, in order, also if waking one panics; the first panic goes on afterwards.
    pub(crate) fn wake(self) {
        let mut panic = None;
        for wake in self.0 {
            match wake {
                Wake::Thread(parker) => parker.unpark(),
                Wake::Task(waker) => {
                    // Nothing of ours is half-changed while a waker runs.
                    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
                        // A second one is leaked: dropped, it may panic in turn.
                        match panic {
                            None => panic = Some(payload),
                            Some(_) => mem::forget(payload),
                        }
                    }
                }
            }
        }
        if let Some(payload) = panic {
            go_on(payload);
        }
    }
}

/// Calls code that is not ours, when nothing of ours is half-changed. If it panics, that goes on, but not while the
/// thread is unwinding.
pub(crate) fn call_outside(code: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(code)) {
        go_on(payload);
    }
}

/// Calls code that is not ours and whose panics end here: `None`. What was thrown may panic once more when it is
/// dropped; what that throws is leaked.
#[inline(always)]
pub(crate) fn caught<R>(code: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(code)).map_err(discard).ok()
}

#[cold]
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(another);
    }
}

fn go_on(payload: Box<dyn Any + Send>) {
    if panicking() {
        // A second panic would abort, and so may dropping its payload.
        mem::forget(payload);
    } else {
        resume_unwind(payload);
    }
}
