//! [`EventCount`].

use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::time::Instant;
use crate::sync::{Arc, Mutex, Parked, Parker, fence, fence_after_rmw};

/// In `wanted` while nobody sleeps.
const NOBODY: u32 = u32::MAX;

/// Where threads sleep until enough events are there.
///
/// A publisher pays one load of a line that nobody writes while nobody sleeps: [`notify`](Self::notify) is
/// wait-free then. With sleepers it blocks on a mutex, and only if what the most modest of them wants is
/// there. The count of events is not kept here: both sides look it up where the events are.
///
/// Sleepers are exclusive: an event that one was woken for is not counted for the next. So whoever was
/// woken and leaves events behind, be it to go away or to sleep again, has to call [`notify`](Self::notify)
/// itself. One that was picked but never slept hands on by dropping its key.
///
/// # Examples
///
/// ```
/// use ioctx::wait::{EventCount, Outcome};
/// use std::sync::atomic::{AtomicU32, Ordering};
/// let (events, sleepers) = (AtomicU32::new(0), EventCount::new());
/// std::thread::scope(|scope| {
///     scope.spawn(|| {
///         for _ in 0..3 {
///             events.fetch_add(1, Ordering::Release);
///             sleepers.notify(|| events.load(Ordering::Acquire));
///         }
///     });
///     while events.load(Ordering::Acquire) < 3 {
///         let key = sleepers.prepare_wait(3);
///         if events.load(Ordering::Acquire) < 3 {
///             assert_eq!(key.wait(None), Outcome::Woken);
///         }
///     }
/// });
/// ```
#[derive(Debug)]
pub struct EventCount {
    /// The fewest events any sleeper wants; `NOBODY` without sleepers. Written under `sleepers`' lock.
    wanted: CachePadded<AtomicU32>,
    sleepers: CachePadded<Mutex<Sleepers>>,
}

#[derive(Debug, Default)]
struct Sleepers {
    /// Oldest first.
    queue: Vec<Sleeper>,
    next_id: u64,
}

#[derive(Debug)]
struct Sleeper {
    id: u64,
    min: u32,
    /// Shared with the waker, so that a sleeper that has left takes nothing away from under it.
    parker: Arc<Parker>,
}

/// How a [`Key::wait`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a sleeper that was woken and leaves events behind has to notify the next"]
pub enum Outcome {
    /// Somebody found that enough was there, or woke everybody.
    Woken,
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran on this thread.
    Interrupted,
}

impl Default for EventCount {
    fn default() -> Self {
        Self::new()
    }
}

impl EventCount {
    /// With nobody asleep.
    pub fn new() -> Self {
        Self {
            wanted: CachePadded::new(AtomicU32::new(NOBODY)),
            sleepers: CachePadded::new(Mutex::new(Sleepers::default())),
        }
    }

    /// Announces that the caller is about to sleep until `min` events are there. The caller looks once more
    /// after this, and sleeps only if they are not there; dropping the key takes the announcement back.
    pub fn prepare_wait(&self, min: u32) -> Key<'_> {
        let parker = Arc::new(Parker::new());
        let mut sleepers = self.sleepers.lock();
        let id = sleepers.next_id;
        sleepers.next_id += 1;
        let min = min.min(NOBODY - 1);
        sleepers.queue.push(Sleeper { id, min, parker: Arc::clone(&parker) });
        self.publish_wanted(&sleepers);
        drop(sleepers);
        // SeqCst: the announcement above comes before the caller's look at the events; pairs with `notify`.
        fence!("wait.sleeper.announce", SeqCst);
        Key { events: self, id, parker, listed: true }
    }

    /// Wakes those sleepers whose number is there, oldest first, as far as `available` events go. Called
    /// after publishing; `available` looks up how many events there are. It is called only if somebody
    /// sleeps, and under a lock: it must not call back.
    #[inline]
    pub fn notify(&self, available: impl Fn() -> u32) {
        // SeqCst: the caller's event comes before the look below; pairs with `prepare_wait`.
        fence!("wait.publisher.look", SeqCst);
        self.look(available);
    }

    /// [`notify`](Self::notify) for a caller whose last access, or the one that published, was a
    /// read-modify-write of an atomic with nothing but reads since: on x86 no further fence is needed.
    #[inline]
    pub fn notify_after_rmw(&self, available: impl Fn() -> u32) {
        // SeqCst: as in `notify`.
        fence_after_rmw!("wait.publisher.look_rmw", SeqCst);
        self.look(available);
    }

    #[inline]
    fn look(&self, available: impl Fn() -> u32) {
        // Relaxed: ordered by the fence before.
        let wanted = self.wanted.load(Relaxed);
        if wanted != NOBODY && available() >= wanted {
            self.wake(available);
        }
    }

    /// Wakes every sleeper, whatever it wants.
    pub fn notify_all(&self) {
        // SeqCst: what the caller did, which sleepers look at after announcing themselves, comes before.
        fence!("wait.publisher.look_all", SeqCst);
        // Relaxed: ordered by the fence.
        if self.wanted.load(Relaxed) != NOBODY {
            self.wake(|| u32::MAX);
        }
    }

    #[cold]
    fn wake(&self, available: impl Fn() -> u32) {
        let mut sleepers = self.sleepers.lock();
        let everybody = u32::MAX;
        let mut left = available();
        let mut woken = Vec::new();
        sleepers.queue.retain(|sleeper| {
            if sleeper.min > left {
                return true;
            }
            if left != everybody {
                left -= sleeper.min;
            }
            woken.push(Arc::clone(&sleeper.parker));
            false
        });
        self.publish_wanted(&sleepers);
        drop(sleepers);
        // Unlinked first, woken last, through a share of the parker: nothing of the sleeper is touched
        // afterwards.
        woken.iter().for_each(|parker| parker.unpark());
    }

    /// Brings `wanted` up to date with the locked list.
    fn publish_wanted(&self, sleepers: &Sleepers) {
        let wanted = sleepers.queue.iter().map(|sleeper| sleeper.min).min().unwrap_or(NOBODY);
        // Relaxed: ordered by the fence in `prepare_wait` where somebody was added; a value that is too low
        // costs a look.
        self.wanted.store(wanted, Relaxed);
    }
}

/// An announced sleep. See [`EventCount::prepare_wait`].
///
/// Dropping it takes the announcement back. If it was picked to be woken meanwhile, every other sleeper is
/// woken instead, and looks for itself.
#[derive(Debug)]
#[must_use = "dropped, the announcement is taken back"]
pub struct Key<'a> {
    events: &'a EventCount,
    id: u64,
    parker: Arc<Parker>,
    /// Whether [`unlink`](Self::unlink) has not been called yet.
    listed: bool,
}

impl Key<'_> {
    /// Sleeps until woken, past `deadline` or interrupted by a signal. Blocking. May wake though too few
    /// events are there: they were there, and somebody else took them.
    pub fn wait(mut self, deadline: Option<Instant>) -> Outcome {
        let parked = self.parker.park(deadline);
        // Whoever unlinked this sleeper meant to wake it: then that is the outcome, whatever ended the
        // sleep, so that the wake-up is handed on and not lost.
        match (parked, self.unlink()) {
            (Parked::Unparked, _) | (_, false) => Outcome::Woken,
            (Parked::TimedOut, true) => Outcome::TimedOut,
            (Parked::Interrupted, true) => Outcome::Interrupted,
        }
    }

    /// Takes the announcement back; returns whether it was still there.
    fn unlink(&mut self) -> bool {
        if !std::mem::take(&mut self.listed) {
            return false;
        }
        let mut sleepers = self.events.sleepers.lock();
        let before = sleepers.queue.len();
        sleepers.queue.retain(|sleeper| sleeper.id != self.id);
        let was_there = sleepers.queue.len() < before;
        self.events.publish_wanted(&sleepers);
        was_there
    }
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        if self.listed && !self.unlink() {
            // The events that were counted for this sleeper are there for others: each looks for itself.
            self.events.wake(|| u32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(20))
    }

    #[test]
    fn times_out_and_leaves_no_trace() {
        let events = EventCount::new();
        assert_eq!(events.prepare_wait(1).wait(soon()), Outcome::TimedOut);
        drop(events.prepare_wait(5));
        assert_eq!(events.wanted.load(Relaxed), NOBODY);
        events.notify(|| unreachable!("nobody sleeps"));
    }

    #[test]
    fn wakes_those_whose_number_is_there_oldest_first() {
        let events = EventCount::new();
        let [four, two, one] = [4, 2, 1].map(|min| events.prepare_wait(min));
        events.notify(|| 3);
        assert_eq!(events.wanted.load(Relaxed), 4);
        assert_eq!(two.wait(soon()), Outcome::Woken);
        assert_eq!(one.wait(soon()), Outcome::Woken);
        events.notify(|| 3);
        assert_eq!(four.wait(soon()), Outcome::TimedOut);
    }

    #[test]
    fn an_event_is_counted_for_one_sleeper() {
        let events = EventCount::new();
        let [first, second] = [1, 1].map(|min| events.prepare_wait(min));
        events.notify(|| 1);
        assert_eq!(first.wait(soon()), Outcome::Woken);
        assert_eq!(second.wait(soon()), Outcome::TimedOut);
    }

    #[test]
    fn who_was_picked_and_does_not_sleep_hands_on() {
        let events = EventCount::new();
        let [greedy, first, second] = [5, 1, 1].map(|min| events.prepare_wait(min));
        events.notify(|| 1);
        drop(first);
        assert_eq!(second.wait(soon()), Outcome::Woken);
        assert_eq!(greedy.wait(soon()), Outcome::Woken, "everybody looks for himself");
    }

    #[test]
    fn everybody_means_everybody() {
        let events = EventCount::new();
        let keys = [1, u32::MAX].map(|min| events.prepare_wait(min));
        events.notify_all();
        for key in keys {
            assert_eq!(key.wait(None), Outcome::Woken);
        }
    }
}
