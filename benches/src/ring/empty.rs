//! What it takes to learn that nothing is there.

use super::{Both, Publish, Queue, Read, event};
#[cfg(target_os = "linux")]
use crate::context::{Context, KernelAio};

/// Can be asked whether there is an event.
pub trait Look: Send {
    /// Whether nothing is there.
    fn nothing(&mut self) -> bool;
}

/// The loop: asks one that is empty, `n` times.
///
/// # Panics
///
/// If it is not.
#[inline]
pub fn looks(at: &mut impl Look, n: u64) {
    for _ in 0..n {
        assert!(at.nothing(), "nobody publishes");
    }
}

/// By trying to read.
impl<Q: Queue> Look for Both<Q> {
    #[inline]
    fn nothing(&mut self) -> bool {
        self.reader.read(64, |_| {}) == 0
    }
}

/// By a question that takes nothing out.
impl<F: FnMut() -> bool + Send> Look for F {
    #[inline]
    fn nothing(&mut self) -> bool {
        self()
    }
}

/// A queue through which something has gone.
pub fn used<Q: Queue>() -> Both<Q> {
    let mut ends = Both::<Q>::new();
    ends.publisher.publish(&[event(1)]);
    assert!(!ends.nothing(), "an event was published");
    ends
}

/// A question to the kernel by `io_getevents`, which is not to wait. `None` where the system has no such thing, or does
/// not let us use it.
#[cfg(target_os = "linux")]
pub fn kernel() -> Option<impl Look> {
    let (context, mut events) = (KernelAio::open().ok()?, Default::default());
    Some(move || context.reap(&mut events, 0, |_| {}) == 0)
}

/// There is none.
#[cfg(not(target_os = "linux"))]
pub fn kernel() -> Option<fn() -> bool> {
    None
}
