//! Threads that are waited for only so long.

use super::rig::{Tried, failed};
use crate::sync::thread::Builder;
use crate::sync::time::{Instant, expired};
use crate::sync::{Arc, Condvar, Mutex};
use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Where a thread leaves what it has found.
struct Place<T> {
    found: Mutex<Option<Tried<T>>>,
    filled: Condvar,
}

/// A thread that is at work. Left alone if it is dropped.
pub(super) struct Worker<T> {
    name: &'static str,
    place: Arc<Place<T>>,
}

impl<T: Send + 'static> Worker<T> {
    /// Does `work` on a thread of its own. A panic there is a failure.
    pub(super) fn start(
        name: &'static str,
        work: impl FnOnce() -> Tried<T> + Send + 'static,
    ) -> io::Result<Self> {
        let place = Arc::new(Place { found: Mutex::new(None), filled: Condvar::new() });
        let mine = Arc::clone(&place);
        Builder::new().name(format!("ioctx-{name}")).spawn(move || {
            let found = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
                failed("no panic", format_args!("the backend, or what it calls, panicked: {}", text(panic)))
            });
            *mine.found.lock() = Some(found);
            mine.filled.notify_all();
        })?;
        Ok(Self { name, place })
    }
}

impl<T> Worker<T> {
    /// What it has found; a failure if it is still at it when the deadline, which may move, has passed.
    pub(super) fn wait(self, deadline: impl Fn() -> Instant) -> Tried<T> {
        let mut found = self.place.found.lock();
        loop {
            match found.take() {
                Some(found) => return found,
                None if expired(Some(deadline())) => {
                    return failed(
                        format_args!("`{}` to end", self.name),
                        "it hangs in a call of the context or of the backend",
                    );
                }
                None => found = self.place.filled.wait_until(found, Some(deadline())),
            }
        }
    }
}

/// What a panic says.
fn text(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    // Its payload may panic in turn.
    std::mem::forget(panic);
    text.unwrap_or_else(|| "with something that is no text".to_owned())
}
