//! [`Bell`]: an eventfd that is rung when enough is there.

use super::EventCount;
use crate::sync::Wake;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io;
use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
// The standard library's, in models too: it is what `Waker` takes, and owns a descriptor and nothing else.
use std::sync::Arc;
use std::task::Waker;

/// A descriptor for epoll and its like that becomes readable when enough events are there. Linux only.
///
/// It sleeps as a thread does, but only while armed: a publisher that finds the number there takes it out of
/// the queue and writes to it, once. While it is not armed nobody pays for it or makes a system call.
///
/// As any sleeper it is exclusive: an event it was rung for is not counted for the next. Whoever was rung for
/// and leaves events behind, be it to go away or to arm again, calls [`EventCount::notify`].
///
/// It refers to its event count by what `E` is: a reference, an `Arc`, anything that always leads to the
/// same.
///
/// # Staleness
///
/// The descriptor may be readable though too few events are there: they were there, and somebody else took
/// them, or the bell was armed again while it was being rung.
///
/// # Costs
///
/// Arming: what announcing a sleep costs. Being rung: one `write`. [`clear`](Self::clear): one `read`. Not
/// for threads that can sleep in [`Key::wait`](super::Key::wait), or tasks that can await
/// [`EventCount::listen`]: those pay for one system call, or none.
///
/// # Examples
///
/// ```
/// use ioctx::wait::{Bell, EventCount};
/// use rustix::event::{PollFd, PollFlags, poll};
/// use std::sync::atomic::{AtomicU32, Ordering};
/// let (events, sleepers) = (AtomicU32::new(0), EventCount::new());
/// let mut bell = Bell::new(&sleepers)?;
/// std::thread::scope(|scope| -> std::io::Result<()> {
///     scope.spawn(|| {
///         for _ in 0..3 {
///             events.fetch_add(1, Ordering::Release);
///             sleepers.notify(|| events.load(Ordering::Acquire));
///         }
///     });
///     while events.load(Ordering::Acquire) < 3 {
///         bell.arm(3);
///         // Once more: what came before it was armed does not ring it.
///         if events.load(Ordering::Acquire) < 3 {
///             poll(&mut [PollFd::new(&bell, PollFlags::IN)], None)?;
///             bell.clear();
///         }
///     }
///     Ok(())
/// })?;
/// # Ok::<_, std::io::Error>(())
/// ```
pub struct Bell<E: Deref<Target = EventCount>> {
    events: E,
    /// By which name it is in the queue, or was picked and not looked after yet.
    armed: Option<u64>,
    rope: Arc<Rope>,
    /// Pulls `rope`.
    waker: Waker,
}

thread_local! {
    /// What this thread slept on last, and nobody rings any more.
    static KEPT: Cell<Option<(Arc<Rope>, Waker)>> = const { Cell::new(None) };
}

/// What is pulled to ring. Shared with whoever is about to, so that the descriptor is not closed meanwhile.
struct Rope(OwnedFd);

impl std::task::Wake for Rope {
    fn wake(self: Arc<Self>) {
        // Fails only if it was rung 2^64 - 2 times, and is readable then.
        let _ = io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl<E: Deref<Target = EventCount>> Bell<E> {
    /// Not armed.
    ///
    /// # Errors
    ///
    /// Those of `eventfd`: no descriptor is left, or no memory.
    pub fn new(events: E) -> std::io::Result<Self> {
        let rope = Arc::new(Rope(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?));
        let waker = Waker::from(Arc::clone(&rope));
        Ok(Self { events, armed: None, rope, waker })
    }

    /// As [`new`](Self::new), with what the calling thread has [kept](Self::keep), if it has.
    pub(crate) fn kept(events: E) -> std::io::Result<Self> {
        match KEPT.try_with(Cell::take) {
            Ok(Some((rope, waker))) => Ok(Self { events, armed: None, rope, waker }),
            _ => Self::new(events),
        }
    }

    /// Takes the arming back as [`disarm`](Self::disarm) does, and keeps the descriptor for the next of this thread's,
    /// if that cannot hear what was meant for this one.
    pub(crate) fn keep(mut self) {
        // Not armed: it was picked, rung once for that, and cleared.
        let quiet = self.armed.take().is_none_or(|id| self.events.leave_or_hand_on(id));
        if quiet {
            let _ = KEPT.try_with(|kept| kept.set(Some((Arc::clone(&self.rope), self.waker.clone()))));
        }
    }

    /// Has the bell rung, once, when `min` events are there. The caller looks once more after this, and waits
    /// for the descriptor only if they are not there. Blocks on the event count's mutex.
    ///
    /// An earlier arming is taken back, as by [`disarm`](Self::disarm).
    pub fn arm(&mut self, min: u32) {
        self.disarm();
        self.armed = Some(self.events.join(min, Some(Wake::Task(self.waker.clone()))));
        self.events.announced();
    }

    /// Takes the arming back. If it was picked to be rung meanwhile and [`clear`](Self::clear) has not been
    /// called since, every other sleeper is woken instead. The descriptor stays readable if it is.
    pub fn disarm(&mut self) {
        if let Some(id) = self.armed.take() {
            self.events.leave_or_hand_on(id);
        }
    }

    /// Makes the descriptor unreadable; returns whether the bell was picked to be rung since it was armed, in
    /// which case it has to be armed again. The caller looks at the events after this, not before.
    pub fn clear(&mut self) -> bool {
        // Fails only if it is not readable.
        let _ = io::read(&self.rope.0, &mut [0_u8; 8]);
        let picked = self.armed.is_some_and(|id| !self.events.waits(id));
        if picked {
            self.armed = None;
        }
        picked
    }
}

impl<E: Deref<Target = EventCount>> Drop for Bell<E> {
    fn drop(&mut self) {
        self.disarm();
    }
}

impl<E: Deref<Target = EventCount>> AsFd for Bell<E> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.rope.0.as_fd()
    }
}

impl<E: Deref<Target = EventCount>> AsRawFd for Bell<E> {
    fn as_raw_fd(&self) -> RawFd {
        self.rope.0.as_raw_fd()
    }
}

impl<E: Deref<Target = EventCount>> fmt::Debug for Bell<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("fd", &self.rope.0).field("armed", &self.armed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn is_readable(bell: &Bell<&EventCount>) -> bool {
        poll(&mut [PollFd::new(bell, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn a_thread_keeps_its_bell_unless_it_may_still_ring() {
        let events = EventCount::new();
        let mut bell = Bell::new(&events).unwrap();
        let first = Arc::downgrade(&bell.rope);
        let is_first = |bell: &Bell<_>| std::ptr::eq(first.as_ptr(), Arc::as_ptr(&bell.rope));
        bell.arm(1);
        bell.keep();
        let mut bell = Bell::kept(&events).unwrap();
        assert!(is_first(&bell), "taken back");
        bell.arm(1);
        events.notify(|| 1);
        assert!(is_readable(&bell) && bell.clear());
        bell.keep();
        let mut bell = Bell::kept(&events).unwrap();
        assert!(is_first(&bell) && !is_readable(&bell), "rung and cleared");
        bell.arm(1);
        events.notify(|| 1);
        bell.keep();
        let bell = Bell::kept(&events).unwrap();
        assert!(!is_first(&bell) && !is_readable(&bell), "rung, and nobody looked");
        assert_eq!(first.strong_count(), 0);
    }
}
