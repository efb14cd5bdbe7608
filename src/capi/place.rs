//! The place: who waits, and where. See [`below`](super::below).

use super::abi::Errno;
use super::below::{Below, State, TOGETHER, without_pokes};
use super::context::Slot;
use super::kernel::{self, MOST_POKES};
use crate::ring::Event;
use crate::sync::time::Instant;
use std::mem::MaybeUninit;
use std::pin::pin;
use std::task::Context;

/// One who waits.
pub(super) struct Waiter<'a> {
    /// How many events it wants, and has room for.
    pub(super) wanted: u32,
    pub(super) max: usize,
    /// `None` if what comes up is to be published.
    pub(super) out: Option<*mut Event>,
    pub(super) deadline: Option<Instant>,
    pub(super) mask: Option<&'a libc::sigset_t>,
    /// Whether events come from elsewhere, too: then it looks at each.
    pub(super) mixed: &'a mut bool,
}

impl Below {
    /// Sleeps until there may be something; returns how many events were copied to where the waiter wants them. `None`
    /// if somebody else has the place.
    ///
    /// # Errors
    ///
    /// As [`Aio::get_events`](kernel::Aio::get_events).
    pub(super) fn sleep(&self, slot: &Slot, waiter: &mut Waiter) -> Option<Result<usize, Errno>> {
        let mut state = self.shared.0.lock();
        let State { kernel: Some(kernel), taken: taken @ false, asleep, others, inside, .. } = &mut *state
        else {
            return None;
        };
        let aio = kernel.aio;
        let own = waiter.out.filter(|_| *others == 0);
        let least = if own.is_some() && !*waiter.mixed { waiter.wanted.min(MOST_POKES) } else { 1 };
        *taken = true;
        *asleep = Some(least);
        *inside += 1;
        drop(state);

        let mut events = [const { MaybeUninit::<Event>::uninit() }; TOGETHER];
        let (max, out) = own.map_or((TOGETHER, events.as_mut_ptr().cast()), |own| (waiter.max, own));
        // Who waits for several in the kernel looks at whatever comes from elsewhere.
        let wanted = if least > 1 { 1 } else { waiter.wanted };
        let got = {
            let mut listen = pin!(slot.listen(wanted));
            let announced = listen.as_mut().poll(&mut Context::from_waker(&self.waker)).is_pending();
            if announced && !slot.has(wanted) {
                aio.get_events(least as usize, max, out, waiter.deadline, waiter.mask)
            } else {
                Ok(0)
            }
        };

        let mut state = self.shared.0.lock();
        state.taken = false;
        state.asleep = None;
        state.inside -= 1;
        let others = state.others > 0;
        drop(state);
        let (n, pokes) = got.map_or((0, 0), |n| without_pokes(out, n));
        *waiter.mixed |= pokes > 0;
        self.came_up(n);
        if own.is_none() && n > 0 {
            // SAFETY: the first `n` were written; `MaybeUninit<T>` has the layout of `T`.
            slot.publish(unsafe { std::slice::from_raw_parts(events.as_ptr().cast(), n) });
        }
        if others {
            // One of them has the place next. The watch would see to them, but later.
            slot.wake_all();
        }
        Some(got.map(|_| if own.is_some() { n } else { 0 }))
    }

    /// Whether somebody has the place.
    pub(super) fn is_slept_in(&self) -> bool {
        self.shared.0.lock().taken
    }

    /// Whether somebody waits without having the place.
    pub(super) fn has_others(&self) -> bool {
        self.shared.0.lock().others > 0
    }

    /// From here on the caller is one of those who wait without the place.
    pub(super) fn join_others(&self) -> Other<'_> {
        let mut state = self.shared.0.lock();
        state.others += 1;
        // Who sleeps for several leaves nothing to others. If it goes on with that, it has seen us.
        let asleep = state.asleep.take_if(|least| *least > 1);
        let aio = state.kernel.as_ref().map(|kernel| kernel.aio);
        drop(state);
        if let (Some(n), Some(aio)) = (asleep, aio) {
            kernel::poke(aio, n);
        }
        Other(self)
    }
}

/// See [`Below::join_others`].
pub(super) struct Other<'a>(&'a Below);

impl Other<'_> {
    /// Whether somebody still has the place, who will tell when it is free those who have announced that they sleep.
    pub(super) fn place_is_taken(&self) -> bool {
        self.0.shared.0.lock().taken
    }
}

impl Drop for Other<'_> {
    fn drop(&mut self) {
        self.0.shared.0.lock().others -= 1;
    }
}
