//! One context: [`Slot`].

use super::abi::{Errno, MOST_EVENTS};
use super::below::Below;
use crate::credits::{Credit, Credits};
use crate::refcount::{DynamicRef, PerCpuRef, Put};
use crate::ring::{AioRing, Event};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sync::{Condvar, Mutex};
use crate::wait::{EventCount, Key, Listen};
use std::collections::VecDeque;
use std::ptr::NonNull;

/// A place for a context, which is used again by the next one of its size: never freed, so that an old handle finds
/// something that says that it is dead.
pub(super) struct Slot {
    /// One per call that is inside and per request not finished; the initial one belongs to the destroyer.
    users: DynamicRef,
    ring: AioRing,
    /// The kernel's, for direct I/O.
    pub(super) below: Below,
    /// One per request in flight or unread.
    credits: Credits,
    wait: EventCount,
    done: Mutex<Done>,
    /// Whether `users` has reached zero, and nobody has seen to it yet.
    left: Mutex<bool>,
    all_left: Condvar,
    /// Where else the program has moved the ring. 0 if it has not.
    pub(super) moved: AtomicUsize,
    id: u32,
}

/// What was published, and what of it was seen to be read.
#[derive(Default)]
struct Done {
    /// Events that went to the ring.
    published: u64,
    /// Credits that came back. Never more.
    returned: u64,
    /// Events that found no room in the ring: somebody outside has written nonsense to its head.
    held: VecDeque<Event>,
}

/// A call that is inside. The context is not destroyed meanwhile.
pub(super) struct Entered<'a>(pub(super) &'a Slot);

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Slot {
    /// With one user, which belongs to whoever will destroy it.
    ///
    /// # Safety
    ///
    /// 1. `base` is aligned to a page and leads to `bytes` bytes of zeroes that may be read and written for good.
    /// 2. Whoever else writes them does so by atomic accesses, or is the program.
    pub(super) unsafe fn new(base: NonNull<u8>, bytes: usize, id: u32) -> Self {
        let capacity = (bytes / 32 - 2) as u32;
        // SAFETY: 1. and 2. as asked; 3. a page has room for 126.
        let ring = unsafe { AioRing::in_memory(base, capacity) };
        // SAFETY: 1. nobody else has it yet.
        unsafe { ring.begin(id) };
        Self {
            users: PerCpuRef::dynamic(),
            ring,
            below: Below::new(),
            credits: Credits::new(capacity),
            wait: EventCount::new(),
            done: Mutex::default(),
            left: Mutex::new(false),
            all_left: Condvar::new(),
            moved: AtomicUsize::new(0),
            id,
        }
    }

    /// As which size of a ring a context for so many events is made.
    ///
    /// # Errors
    ///
    /// `EINVAL` if they are none, or more than the kernel can count, which counts twice as many, in 32 bits; `EAGAIN`
    /// where that has wrapped.
    pub(super) fn size_for(events: u32) -> Result<usize, Errno> {
        if events == 0 || events.wrapping_mul(2) > 2 * MOST_EVENTS {
            return Err(libc::EINVAL);
        }
        if events > MOST_EVENTS {
            return Err(libc::EAGAIN);
        }
        Ok((32 * (events as usize + 2)).next_multiple_of(super::region::PAGE).next_power_of_two())
    }

    /// Begins anew, after [`wait_left`](Self::wait_left).
    pub(super) fn begin(&self) {
        let mut done = self.done.lock();
        // SAFETY: 1. all calls have left, and nobody is told of it yet.
        unsafe { self.ring.begin(self.id) };
        // Of events that the program's own indices have hidden.
        let lost = done.published - done.returned + done.held.len() as u64;
        *done = Done::default();
        drop(done);
        self.give_back(lost as u32);
        // Relaxed: who is told the handle is ordered after this by that.
        self.moved.store(0, Relaxed);
        // Only who has destroyed it does so, once.
        let _ = self.users.reinit();
    }

    /// For the length of a call, unless it is destroyed.
    #[inline]
    pub(super) fn enter(&self) -> Option<Entered<'_>> {
        self.users.try_get_live().then(|| Entered(self))
    }

    /// For a request, until its [`leave`](Self::leave); by who is inside.
    pub(super) fn stay(&self) {
        self.users.get();
    }

    #[inline]
    pub(super) fn leave(&self) {
        if self.users.put() == Put::Zero {
            *self.left.lock() = true;
            self.all_left.notify_all();
        }
    }

    pub(super) fn is_dying(&self) -> bool {
        self.users.is_dying()
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Whether a header that somebody shows is that of this ring.
    pub(super) fn has_header(&self, header: [u32; 8]) -> bool {
        header == [self.id, self.ring.capacity() + 1, header[2], header[3], 0xa10a_10a1, 1, 0, 32]
    }

    /// How many requests can be in flight or unread.
    pub(super) fn capacity(&self) -> u32 {
        self.ring.capacity()
    }

    /// Refuses all from now on: one caller is told `true`, and waits for those inside by
    /// [`wait_left`](Self::wait_left).
    pub(super) fn kill(&self) -> bool {
        let Some(put) = self.users.try_kill() else { return false };
        if put == Put::Zero {
            *self.left.lock() = true;
        }
        self.wait.notify_all();
        true
    }

    /// Waits until all requests are finished and all calls have left, and empties the ring.
    pub(super) fn wait_left(&'static self) {
        let mut left = self.left.lock();
        while !*left {
            left = self.all_left.wait_until(left, None);
        }
        *left = false;
        drop(left);
        self.give_back(self.below.end(self));
        // Twice: first those in the ring, and then those that had no room there.
        for _ in 0..2 {
            while let Some(mut reader) = self.ring.try_reader()
                && reader.pop().is_some()
            {}
            self.refill();
        }
    }

    /// Room for up to `n` requests, at least one.
    ///
    /// # Errors
    ///
    /// `EAGAIN`, if there is none.
    #[inline]
    pub(super) fn room(&self, n: u32) -> Result<Credit<'_>, Errno> {
        self.credits.try_take_up_to(n).or_else(|_| {
            self.refill();
            self.credits.try_take_up_to(n).map_err(|_| libc::EAGAIN)
        })
    }

    /// Gives back what was read since, by us or by the program: what is published and not in the ring any more. Done
    /// only when credits have run out, as in the kernel, so that those who read in place need not tell.
    #[cold]
    fn refill(&self) {
        let mut done = self.done.lock();
        self.publish_held(&mut done);
        // The publishers' lock is ours: nothing comes to the ring meanwhile. Whatever the head says, no more comes back
        // than was published.
        let read = done.published.saturating_sub(self.ring.len().into());
        if let Some(n) = read.checked_sub(done.returned) {
            done.returned = read;
            self.give_back(n as u32);
        }
    }

    /// Gives back the credits of `n` events that are read, or were never to come. Each had been taken by `into_raw`.
    #[inline]
    pub(super) fn give_back(&self, n: u32) {
        if n > 0 {
            // SAFETY: taken as asked, and returned once.
            drop(unsafe { self.credits.from_raw(n) });
        }
    }

    /// Publishes what had no room in the ring, if it has now.
    pub(super) fn look_after_held(&self) {
        self.publish_held(&mut self.done.lock());
    }

    fn publish_held(&self, done: &mut Done) {
        while let Some(event) = done.held.front()
            && self.ring.try_publish(*event).is_ok()
        {
            done.held.pop_front();
            done.published += 1;
        }
    }

    /// Hands events over, whose credits are the ring's from now on, and wakes who waits for them.
    #[inline]
    pub(super) fn publish(&self, events: &[Event]) {
        let mut done = self.done.lock();
        if !done.held.is_empty() {
            self.publish_held(&mut done);
        }
        let n = if done.held.is_empty() { self.ring.try_publish_batch(events).unwrap_or(0) } else { 0 };
        done.published += n as u64;
        done.held.extend(&events[n..]);
        drop(done);
        // The ring's tail and the lock were given back by read-modify-writes.
        self.wait.notify_after_rmw(|| self.ring.len());
    }

    pub(super) fn ring(&self) -> &AioRing {
        &self.ring
    }

    /// Whether so many events are there, or there will be no more.
    pub(super) fn has(&self, wanted: u32) -> bool {
        self.ring.len() >= wanted || self.is_dying()
    }

    /// As [`EventCount::prepare_wait`].
    pub(super) fn prepare_wait(&self, wanted: u32) -> Key<'_> {
        self.wait.prepare_wait(wanted)
    }

    /// As [`EventCount::listen`].
    pub(super) fn listen(&self, wanted: u32) -> Listen<'_> {
        self.wait.listen(wanted)
    }

    /// Has all sleepers look again.
    pub(super) fn wake_all(&self) {
        self.wait.notify_all();
    }
}
