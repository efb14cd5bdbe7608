//! The rings, and who sleeps in one of them: [`Rings`].

use super::ring::Ring;
use crate::cpu;
use crate::sync::time::Instant;
use crate::sync::{Arc, Mutex, OnceLock};
use crate::wait::Outcome;
use std::task::{Wake, Waker};

/// One for each CPU, made when it is first needed. In one of them, at a time, one may sleep until several requests have
/// completed.
pub(super) struct Rings {
    /// `None` if it could not be made.
    rings: Box<[OnceLock<Option<Ring>>]>,
    /// In which ring somebody sleeps, or is about to. Before the lock of that one, and any, is taken, this is let go.
    parked: Mutex<Option<usize>>,
}

impl Rings {
    pub(super) fn new() -> Self {
        Self { rings: (0..cpu::possible()).map(|_| OnceLock::new()).collect(), parked: Mutex::default() }
    }

    /// The place of this CPU's ring.
    #[inline(always)]
    fn home(&self) -> usize {
        let (cpu, n) = (cpu::hint().0 as usize, self.rings.len());
        // A division takes as long as all the rest.
        if cpu < n { cpu } else { cpu % n }
    }

    /// Has this CPU's ring made, unless it was.
    pub(super) fn make_home(&self, make: impl FnOnce() -> Option<Ring>) {
        self.rings[self.home()].get_or_init(make);
    }

    /// The one that was made first, if no other was yet.
    pub(super) fn first(&self) -> &Ring {
        self.all().next().expect("one is made with it").1
    }

    /// The ring there, if it was made.
    pub(super) fn at(&self, place: usize) -> Option<&Ring> {
        self.rings[place].get()?.as_ref()
    }

    /// This CPU's ring, if it was made, and its place.
    #[inline]
    pub(super) fn here(&self) -> Option<(usize, &Ring)> {
        let home = self.home();
        Some((home, self.at(home)?))
    }

    /// Every ring that was made, this CPU's first, and its place.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, &Ring)> {
        let (home, n) = (self.home(), self.rings.len());
        (home..n).chain(0..home).filter_map(|place| Some((place, self.at(place)?)))
    }

    /// As [`Backend::park`](crate::aio::Backend::park), in the one ring that has requests in flight. `None` if there
    /// are several, or somebody else sleeps so.
    ///
    /// Whatever completes in that ring the kernel counts; what else is to end the sleep calls [`wake`](Self::wake): the
    /// waker, and the first request in another ring.
    pub(super) fn park(
        this: &Arc<Self>,
        wanted: u32,
        deadline: Option<Instant>,
        announce: &mut dyn FnMut(u32, &Waker) -> bool,
    ) -> Option<Outcome> {
        let (place, ring) = this.all().find(|(_, ring)| ring.in_flight() > 0)?;
        {
            let mut parked = this.parked.lock();
            if parked.is_some() {
                return None;
            }
            *parked = Some(place);
        }
        let _leaves = Leaves(this, ring);
        let (elsewhere, least) = ring.park(wanted)?;
        // Whoever puts a request into another ring has done so before this look, or is told by that ring to wake us.
        if this.all().any(|(other, ring)| other != place && ring.tell() > 0) {
            return None;
        }
        if !announce(elsewhere, &Waker::from(Arc::clone(this))) {
            return Some(Outcome::Woken);
        }
        Some(ring.sleep(least, deadline.map(|at| at.saturating_duration_since(Instant::now()))))
    }

    /// Wakes who sleeps in a ring, or is about to.
    pub(super) fn wake_parked(&self) {
        let parked = *self.parked.lock();
        if let Some(ring) = parked.and_then(|place| self.at(place)) {
            ring.wake();
        }
    }
}

/// One who sleeps in this ring, until this is dropped.
struct Leaves<'a>(&'a Rings, &'a Ring);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.1.unpark();
        *self.0.parked.lock() = None;
    }
}

impl Wake for Rings {
    fn wake(self: std::sync::Arc<Self>) {
        self.wake_parked();
    }

    fn wake_by_ref(self: &std::sync::Arc<Self>) {
        self.wake_parked();
    }
}
