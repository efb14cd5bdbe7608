//! Taking completions out of the kernel's ring: [`Reaper`].

use super::sys::Aio;
use crate::ring::{Event, RingView};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io;
use std::os::fd::OwnedFd;

/// An eventfd for the kernel to signal completions by.
pub(super) fn signals() -> io::Result<OwnedFd> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
}

/// How many completions were signalled since this was last asked.
fn take_signals(signals: &OwnedFd) -> i64 {
    let mut n = [0; 8];
    // Fails only if there are none.
    let read = io::read(signals, &mut n);
    read.map_or(0, |_| i64::from_ne_bytes(n))
}

/// Whoever has it is the one reader of the ring, and of the eventfd.
#[derive(Debug)]
pub(super) struct Reaper {
    /// `None` where the ring is read by the system call.
    view: Option<RingView>,
    /// How many more events were taken out than signals. Not negative between calls: a signal comes after its event.
    owed: i64,
}

impl Reaper {
    /// # Safety
    ///
    /// 1. `aio` outlives the reaper.
    /// 2. Nobody else reads its ring.
    pub(super) unsafe fn new(aio: &Aio) -> Self {
        // SAFETY: 1. by 1. 2. nobody writes but the kernel, by 2. An unknown ring is read by the system call.
        let view = unsafe { RingView::of_kernel(aio.name()) }.ok();
        Self { view, owed: 0 }
    }

    /// From now on, reads by the system call.
    pub(super) fn use_system_calls(&mut self) {
        self.view = None;
    }

    /// Whether the ring is read in place.
    pub(super) fn reads_in_place(&self) -> bool {
        self.view.is_some()
    }

    /// Takes events out; returns how many, and for how many requests both event and signal have been taken now. If there
    /// are none, the signals of earlier ones have been taken, too, and whatever comes from now on makes `signals`
    /// readable: who has an event does not sleep, and needs no system call for that.
    pub(super) fn take(&mut self, aio: &Aio, signals: &OwnedFd, out: &mut [Event]) -> (usize, u64) {
        let before = self.owed;
        let mut taken = 0;
        loop {
            let n = self.pop(aio, &mut out[taken..]);
            taken += n;
            self.owed += n as i64;
            if taken < out.len() {
                // The ring was empty: the event of every signal that was taken has been seen. If somebody else has
                // written to the eventfd there are more signals, which do not count.
                self.owed = self.owed.max(0);
            }
            // Whose signals have all been taken needs no system call, either.
            let all = taken > 0 || self.owed == 0;
            // Otherwise the ring is looked at once more: what came since that look may have been signalled before the
            // signals are taken. Those that are late wake a reader for nothing.
            match if all { 0 } else { take_signals(signals) } {
                0 => return (taken, (before + taken as i64 - self.owed) as u64),
                n => self.owed -= n,
            }
        }
    }

    fn pop(&mut self, aio: &Aio, out: &mut [Event]) -> usize {
        let Some(view) = &mut self.view else { return aio.events(out) };
        let mut popped = 0;
        // A ring has two runs at most: to its edge, and from its start.
        for _ in 0..2 {
            let room = &mut out[popped..];
            let n = view.peek(room.len(), |run| {
                room.iter_mut().zip(run).for_each(|(place, cell)| *place = cell.get());
                run.len()
            });
            // So many were shown.
            let _ = view.commit(n);
            popped += n;
        }
        popped
    }
}
