//! Below a context of ours, one of the kernel's AIO, for direct I/O: [`Below`].
//!
//! It is made at the first request of that kind. Requests are passed down as the program laid them out, so that all
//! answers are the kernel's, and their events come up as they are: whoever is in `io_getevents` takes them straight
//! to where the program wants them; for those who read our ring and do not call, [`watch`](super::watch) brings them
//! there.
//!
//! Who waits sleeps in the kernel, as long as there is a context below: it has *the place*, of which there is one. What
//! is published in our ring meanwhile wakes it by [pokes](super::kernel::poke): it is announced in the context's
//! [`EventCount`](crate::wait::EventCount) as a task whose waker does that. All others sleep there as they always do,
//! and are told when the place is free; while there are others, what the kernel has is published for all.

use super::abi::{Errno, Iocb};
use super::context::Slot;
use super::kernel::{self, Aio, is_poke};
use super::memory;
use super::watch::Watch;
use super::world::World;
use crate::ring::{Event, RingView};
use crate::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use crate::sync::time::Instant;
use crate::sync::{Arc, Mutex};
use std::mem;
use std::task::{Wake, Waker};

/// How many events are published together.
pub(super) const TOGETHER: usize = 32;

/// See the [module](self).
pub(super) struct Below {
    /// Whether there is one. A hint, to those who have not been told otherwise.
    active: AtomicBool,
    /// Requests that were passed down, and whose events have not come up.
    in_flight: AtomicU32,
    /// Changes with every `io_getevents`.
    calls: AtomicU32,
    pub(super) shared: Arc<Shared>,
    /// Pokes who has the place.
    pub(super) waker: Waker,
}

/// What wakers hold on to.
pub(super) struct Shared(pub(super) Mutex<State>);

#[derive(Default)]
pub(super) struct State {
    pub(super) kernel: Option<Kernel>,
    /// Whether the system gave none.
    refused: bool,
    /// How many are in the kernel's `io_getevents`: nobody else may move the head of its ring meanwhile.
    pub(super) inside: u32,
    /// Whether somebody has the place.
    pub(super) taken: bool,
    /// For how many events it sleeps, unless somebody has poked it.
    pub(super) asleep: Option<u32>,
    /// How many wait, or are about to, without having the place.
    pub(super) others: u32,
}

pub(super) struct Kernel {
    pub(super) aio: Aio,
    view: RingView,
    watch: &'static Watch,
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        let mut state = self.0.lock();
        let asleep = state.asleep.take();
        let aio = state.kernel.as_ref().map(|kernel| kernel.aio);
        drop(state);
        // The context is there: whoever wakes is in a call, or has a request that is not finished.
        if let (Some(n), Some(aio)) = (asleep, aio) {
            kernel::poke(aio, n);
        }
    }
}

impl Below {
    /// There is none yet.
    pub(super) fn new() -> Self {
        let shared = Arc::new(Shared(Mutex::default()));
        let waker = Waker::from(Arc::clone(&shared));
        Self {
            active: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            shared,
            waker,
        }
    }

    /// Whether there is one. Who is about to sleep asks after having announced it.
    #[inline]
    pub(super) fn is_active(&self) -> bool {
        // Relaxed: set before all sleepers are notified. Who misses it otherwise finds the kernel's events later.
        self.active.load(Relaxed)
    }

    /// Somebody is in `io_getevents`.
    #[inline]
    pub(super) fn count_call(&self) {
        // Relaxed: for telling whether somebody was there, of which one in a race is enough.
        self.calls.store(self.calls.load(Relaxed).wrapping_add(1), Relaxed);
    }

    pub(super) fn calls(&self) -> u32 {
        // Relaxed: as there.
        self.calls.load(Relaxed)
    }

    /// Whether there may be events to come.
    pub(super) fn is_busy(&self) -> bool {
        // Relaxed: who is about to sleep until it is has announced that, and is notified after it changed.
        self.in_flight.load(Relaxed) > 0
    }

    /// Passes requests down, in order, up to the first that is refused; returns how many. Each has a credit, which
    /// comes back with its event.
    ///
    /// # Errors
    ///
    /// Why the first was refused. `EAGAIN` if there is no room, or no context to be had.
    pub(super) fn submit(
        &self,
        world: &'static World,
        slot: &'static Slot,
        n: u32,
        requests: *const *mut Iocb,
    ) -> Result<u32, Errno> {
        let (aio, watch) = self.kernel(world, slot).ok_or(libc::EAGAIN)?;
        // Relaxed: see `is_busy`; and who ends the context comes after all calls.
        self.in_flight.fetch_add(n, Relaxed);
        let passed = aio.submit(n as usize, requests);
        let refused = n - passed.map_or(0, |passed| passed as u32);
        if refused > 0 {
            // Relaxed: as above.
            self.in_flight.fetch_sub(refused, Relaxed);
        }
        watch.notify();
        Ok(passed? as u32)
    }

    /// The kernel's context; made if there was none.
    fn kernel(&self, world: &'static World, slot: &'static Slot) -> Option<(Aio, &'static Watch)> {
        let mut state = self.shared.0.lock();
        if let Some(kernel) = &state.kernel {
            return Some((kernel.aio, kernel.watch));
        }
        if mem::replace(&mut state.refused, true) {
            return None;
        }
        let watch = world.pool()?.watch();
        kernel::prepare_pokes().ok()?;
        // The kernel has twice as many slots as it is asked for, since it counts them by CPU; so it gives a ring of the
        // size of ours.
        let aio = Aio::setup(slot.capacity() / 2 - 1).ok()?;
        // SAFETY: 1. the view goes first. 2. nobody writes but the kernel, and us through this view.
        let Ok(view) = (unsafe { RingView::of_kernel(aio.0) }) else {
            aio.destroy();
            return None;
        };
        state.kernel = Some(Kernel { aio, view, watch });
        state.refused = false;
        // Relaxed: see `is_active`.
        self.active.store(true, Relaxed);
        drop(state);
        // Those who sleep do so in the kernel from now on. The watch would see to the others, but later.
        slot.wake_all();
        watch.add(slot);
        Some((aio, watch))
    }

    /// Ends the context, and waits for its requests; returns how many credits come back by that. Nobody else is inside.
    pub(super) fn end(&self, slot: &'static Slot) -> u32 {
        let kernel = {
            let mut state = self.shared.0.lock();
            state.refused = false;
            state.kernel.take()
        };
        let Some(Kernel { aio, watch, .. }) = kernel else { return 0 };
        watch.remove(slot);
        // Relaxed twice: all others have left.
        self.active.store(false, Relaxed);
        aio.destroy();
        self.in_flight.swap(0, Relaxed)
    }

    /// Copies up to `max` events that the kernel has to `out`, without waiting; returns how many.
    ///
    /// # Errors
    ///
    /// `EFAULT`, if none was copied.
    pub(super) fn harvest(&self, max: usize, out: *mut Event) -> Result<usize, Errno> {
        let mut state = self.shared.0.lock();
        let State { kernel: Some(kernel), inside, .. } = &mut *state else { return Ok(0) };
        let aio = kernel.aio;
        let harvested = if *inside == 0 {
            harvest_in_place(&mut kernel.view, max, out)
        } else if kernel.view.peek(1, <[_]>::is_empty) {
            Ok(0)
        } else {
            *inside += 1;
            drop(state);
            let got = aio.get_events(0, max, out, Some(Instant::now()), None);
            let (n, pokes) = got.map_or((0, 0), |n| without_pokes(out, n));
            let mut state = self.shared.0.lock();
            state.inside -= 1;
            let asleep = state.taken;
            drop(state);
            if asleep && pokes > 0 {
                // They were for who sleeps there, and may not have seen them yet.
                kernel::poke(aio, pokes as u32);
            }
            got.map(|_| n)
        };
        harvested.inspect(|n| self.came_up(*n))
    }

    pub(super) fn came_up(&self, n: usize) {
        if n > 0 {
            // Relaxed: see `submit`.
            self.in_flight.fetch_sub(n as u32, Relaxed);
        }
    }

    /// Publishes what the kernel has; returns whether there was anything.
    pub(super) fn bring_up(&self, slot: &Slot) -> bool {
        let mut events = [Event::default(); TOGETHER];
        // There is room.
        let n = self.harvest(TOGETHER, events.as_mut_ptr()).unwrap_or(0);
        if n > 0 {
            slot.publish(&events[..n]);
        }
        n > 0
    }
}

fn harvest_in_place(view: &mut RingView, max: usize, out: *mut Event) -> Result<usize, Errno> {
    let mut harvested = 0;
    // Two runs at most, to the edge and from the start; more only if there are pokes among them.
    loop {
        let room = max - harvested;
        let shown = view.peek(room, |run| {
            let pokes = run.iter().take_while(|cell| is_poke(&cell.get())).count();
            let run = &run[pokes..];
            let n = run.iter().take_while(|cell| !is_poke(&cell.get())).count();
            memory::write_each(out.wrapping_add(harvested), n, |i| run[i].get())?;
            harvested += n;
            Ok(pokes + n)
        });
        match shown {
            Ok(0) => return Ok(harvested),
            // So many were shown.
            Ok(n) => _ = view.commit(n),
            Err(_) if harvested > 0 => return Ok(harvested),
            Err(error) => return Err(error),
        }
    }
}

/// Moves the pokes out of the `n` events at `out`, where the kernel has just written them; returns how many others
/// there are, and how many pokes.
pub(super) fn without_pokes(out: *mut Event, n: usize) -> (usize, usize) {
    let mut kept = 0;
    for place in 0..n {
        // SAFETY: within what was written.
        let event = unsafe { out.add(place).read_unaligned() };
        if !is_poke(&event) {
            if kept < place {
                // SAFETY: as above.
                unsafe { out.add(kept).write_unaligned(event) };
            }
            kept += 1;
        }
    }
    (kept, n - kept)
}
