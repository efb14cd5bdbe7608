//! [`EventCount`].

use super::key::{Key, Listen};
use super::queue::{EVERYBODY, NOBODY, Queue};
use crate::barrier;
use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::{Mutex, Tally, Wake, fence, fence_after_rmw};

/// Where threads and tasks sleep until enough events are there.
///
/// A publisher pays one load of a line that nobody writes while nobody sleeps: [`notify`](Self::notify) is
/// wait-free then. With sleepers it blocks on a mutex, and only if what the most modest of them wants is
/// there. The count of events is not kept here: both sides look it up where the events are.
///
/// Threads sleep in [`Key::wait`], tasks by awaiting [`listen`](Self::listen), and those who wait for many
/// descriptors at once have a `Bell`, on Linux. All are in one queue.
///
/// Sleepers are exclusive: an event that one was woken for is not counted for the next. So whoever was
/// woken and leaves events behind, be it to go away or to sleep again, has to call [`notify`](Self::notify)
/// itself. One that was picked but never slept hands on by dropping its key or future. One that is forgotten
/// ([`mem::forget`](std::mem::forget)) stays in the queue, and the wake-up it is picked for is lost.
///
/// Wakers of tasks are called, and dropped, without a lock: they may call back. One that panics keeps nobody
/// else from being woken.
///
/// # Costs
///
/// `notify` while nobody sleeps: a fence and a load, 2 to 6 ns; [`notify_light`](Self::notify_light), and
/// [`notify_after_rmw`](Self::notify_after_rmw) on x86, less than 1 ns. Announcing a sleep and taking it
/// back: 40 ns, of which two times the mutex. Waking: the mutex once, and a system call for each thread. Not
/// where many sleepers come and go by the microsecond: they meet in the mutex; nor where a mutex is held
/// anyway: a condition variable does.
///
/// 256 bytes, and on Linux up to 88 per sleeper (216 for the first): 24 while it sleeps, and its place in the queue, of
/// which there stay as many as there have been at once.
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
    watched: CachePadded<Watched>,
    queue: CachePadded<Mutex<Queue>>,
    tallies: CachePadded<Tallies>,
}

/// Written by those who sleep and those who wake them.
#[derive(Debug, Default)]
struct Tallies {
    sleeps: Tally,
    wakes: Tally,
}

/// What every publisher looks at.
#[derive(Debug)]
struct Watched {
    /// [`Queue::wanted`], written under the queue's lock.
    wanted: AtomicU32,
    /// Whether publishers may run without a fence, so that sleepers execute one for all.
    light: bool,
}

impl Default for EventCount {
    fn default() -> Self {
        Self::new()
    }
}

impl EventCount {
    /// Where what publishers look at is, and the queue of sleepers.
    pub(crate) const WATCHED: usize = std::mem::offset_of!(Self, watched);
    pub(crate) const QUEUE: usize = std::mem::offset_of!(Self, queue);

    /// With nobody asleep.
    pub fn new() -> Self {
        Self::with(false)
    }

    /// With nobody asleep, for publishers that call [`notify_light`](Self::notify_light).
    ///
    /// # Costs
    ///
    /// Every announcement is a [`barrier::heavy`], 0.5 µs, or 10 µs and more while others run, so that
    /// publishers need no fence. Not for sleepers that come as often as events do, nor for publishers that
    /// have just executed a locked instruction: [`notify_after_rmw`](Self::notify_after_rmw) is as cheap to
    /// them. The first call in a process registers with the kernel. Where the kernel has no such fence, this
    /// is [`new`](Self::new).
    ///
    /// # Panics
    ///
    /// Announcing a sleep does where [`barrier::heavy`] does; nobody is announced then.
    pub fn for_light_publishers() -> Self {
        Self::with(barrier::kind() == barrier::Kind::Membarrier)
    }

    fn with(light: bool) -> Self {
        Self {
            watched: CachePadded::new(Watched { wanted: AtomicU32::new(NOBODY), light }),
            queue: CachePadded::new(Mutex::new(Queue::default())),
            tallies: CachePadded::default(),
        }
    }

    /// How often somebody slept and was woken.
    #[cfg(feature = "stats")]
    pub fn stats(&self) -> super::Stats {
        super::Stats { sleeps: self.tallies.sleeps.get(), wakes: self.tallies.wakes.get() }
    }

    /// Announces that the calling thread is about to sleep until `min` events are there. The caller looks
    /// once more after this, and sleeps only if they are not there; dropping the key takes the announcement
    /// back.
    pub fn prepare_wait(&self, min: u32) -> Key<'_> {
        Key::new(self, min)
    }

    /// Announces that the calling task is about to sleep until `min` events are there. The caller looks once
    /// more after this, and awaits only if they are not there; dropping the future takes the announcement
    /// back. It is announced from here on, polled or not.
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::wait::EventCount;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    /// async fn until(min: u32, events: &AtomicU32, sleepers: &EventCount) {
    ///     while events.load(Ordering::Acquire) < min {
    ///         let listen = sleepers.listen(min);
    ///         if events.load(Ordering::Acquire) < min {
    ///             listen.await;
    ///         }
    ///     }
    /// }
    /// ```
    pub fn listen(&self, min: u32) -> Listen<'_> {
        Listen::new(self, min)
    }

    /// Wakes those sleepers whose number is there, oldest first, as far as `available` events go. Called
    /// after publishing; `available` looks up how many events there are. It is called only if somebody
    /// sleeps, and under a lock: it must not call back.
    ///
    /// # Panics
    ///
    /// If a task's waker does, when all others have been woken.
    #[inline]
    pub fn notify(&self, available: impl Fn() -> u32) {
        // SeqCst: the caller's event comes before the look below; pairs with `announced`.
        fence!("wait.publisher.look", SeqCst);
        self.look(available);
    }

    /// [`notify`](Self::notify) for a caller whose last access, or the one that published, was a
    /// read-modify-write of an atomic with nothing but reads since: on x86 no further fence is needed.
    ///
    /// # Panics
    ///
    /// As [`notify`](Self::notify).
    #[inline]
    pub fn notify_after_rmw(&self, available: impl Fn() -> u32) {
        // SeqCst: as in `notify`.
        fence_after_rmw!("wait.publisher.look_rmw", SeqCst);
        self.look(available);
    }

    /// [`notify`](Self::notify) for a caller that published by plain stores: without a fence while nobody
    /// sleeps, if the event count was made [for such](Self::for_light_publishers). Otherwise this is
    /// [`notify`](Self::notify).
    ///
    /// # Panics
    ///
    /// As [`notify`](Self::notify).
    #[inline]
    pub fn notify_light(&self, available: impl Fn() -> u32) {
        if !self.watched.light {
            return self.notify(available);
        }
        // Pairs with the heavy side in `announced`: the caller's event comes before the look below.
        barrier::light();
        // Relaxed: ordered by that.
        if self.watched.wanted.load(Relaxed) != NOBODY {
            self.look_light(available);
        }
    }

    #[cold]
    fn look_light(&self, available: impl Fn() -> u32) {
        // SeqCst: the caller's event comes before its look at the others' events. Pairs with every
        // publisher's fence: the light side does not order two publishers, of whom one has to see both
        // events; and with the second fence of the heavy side, for the events of those who found nobody
        // asleep.
        fence!("wait.publisher.look_light", SeqCst);
        self.look(available);
    }

    #[inline]
    fn look(&self, available: impl Fn() -> u32) {
        // Relaxed: ordered by the fence before.
        let wanted = self.watched.wanted.load(Relaxed);
        if wanted != NOBODY && available() >= wanted {
            self.wake(available);
        }
    }

    /// Wakes every sleeper, whatever it wants.
    ///
    /// # Panics
    ///
    /// As [`notify`](Self::notify).
    pub fn notify_all(&self) {
        // SeqCst: what the caller did, which sleepers look at after announcing themselves, comes before.
        fence!("wait.publisher.look_all", SeqCst);
        // Relaxed: ordered by the fence.
        if self.watched.wanted.load(Relaxed) != NOBODY {
            self.wake(|| EVERYBODY);
        }
    }

    #[cold]
    fn wake(&self, available: impl Fn() -> u32) {
        self.tallies.wakes.one();
        let mut queue = self.queue.lock();
        let woken = queue.pick(available());
        self.publish_wanted(&queue);
        // Unlinked first, woken last, and without the lock: waking may call back. That was the last access to
        // the event count, and what is left of a sleeper is shared.
        drop(queue);
        woken.wake();
    }

    /// Puts one who wants `min` events into the queue; returns by which name. [`announced`](Self::announced)
    /// has to be called before it looks at the events.
    pub(super) fn join(&self, min: u32, wake: Option<Wake>) -> u64 {
        self.tallies.sleeps.one();
        let mut queue = self.queue.lock();
        let id = queue.push(min, wake);
        self.publish_wanted(&queue);
        id
    }

    /// Orders the caller's [`join`](Self::join) before its look at the events, against every publisher.
    pub(super) fn announced(&self) {
        if self.watched.light {
            // Pairs with `notify_light`, and being a fence as well, with all others.
            barrier::heavy();
        } else {
            // SeqCst: pairs with every fence of a publisher.
            fence!("wait.sleeper.announce", SeqCst);
        }
    }

    /// Has the one of this name woken by `wake` from now on; returns whether it was not picked before.
    pub(super) fn wake_instead(&self, id: u64, wake: Wake) -> bool {
        let mut wake = Some(wake);
        let waits = self.queue.lock().swap_wake(id, &mut wake);
        // What it was woken by until now, dropped without the lock: that may call back.
        drop(wake);
        waits
    }

    /// Takes the one of this name out of the queue; returns whether it was there, and not picked.
    pub(super) fn leave(&self, id: u64) -> bool {
        let mut queue = self.queue.lock();
        let left = queue.remove(id);
        self.publish_wanted(&queue);
        drop(queue);
        // Dropped here, without the lock: that may call back.
        left.is_some()
    }

    /// Takes the one of this name out of the queue, for good. If it was picked, the events that were counted
    /// for it are there for others: each looks for itself. Returns whether it was not.
    pub(super) fn leave_or_hand_on(&self, id: u64) -> bool {
        let left = self.leave(id);
        if !left {
            self.wake(|| EVERYBODY);
        }
        left
    }

    /// Whether the one of this name is in the queue, and was not picked.
    #[cfg(ioctx_linux)]
    pub(super) fn waits(&self, id: u64) -> bool {
        self.queue.lock().has(id)
    }

    /// Shows publishers what the locked queue wants.
    fn publish_wanted(&self, queue: &Queue) {
        // Relaxed: ordered by `announced` where somebody was added; a value that is too low costs a look.
        self.watched.wanted.store(queue.wanted(), Relaxed);
    }
}
