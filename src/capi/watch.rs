//! Events of the kernel's for those who read our ring and do not call: [`Watch`].
//!
//! A thread of the pool looks, while requests are in flight, whether somebody calls `io_getevents`; as long as that is
//! so, more and more seldom. Where nobody does it brings the kernel's events up, and if these are then read without a
//! call, the context gets a thread that waits for the kernel's events and brings them up at once, until somebody calls
//! or nothing is in flight any more.

use super::context::{Entered, Slot};
use super::place::Waiter;
use super::pool::Pool;
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::thread;
use crate::sync::time::{Duration, Instant};
use crate::sync::{Arc, Mutex};
use crate::wait::EventCount;
use std::mem;
use std::ptr;

/// Between two looks.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(64);
/// How often nothing is found before it sleeps until a request comes, each time for longer.
const PATIENCE: u32 = 10;
/// For how long the thread of a context waits for the first event of a request, and then ends.
const IDLE: Duration = Duration::from_millis(500);

/// See the [module](self).
pub(super) struct Watch {
    contexts: Mutex<Vec<Watched>>,
    /// Where it sleeps.
    bell: EventCount,
}

struct Watched {
    slot: &'static Slot,
    /// How many calls there had been at the last look.
    calls: u32,
    /// Whether it has brought events up, and nobody has called since.
    gave: bool,
    /// Whether the context has a thread.
    eager: Arc<AtomicBool>,
}

/// What a look has found, in order of importance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    Nothing,
    /// Somebody looks after the events.
    Calls,
    /// Nobody does so far.
    Silence,
}

impl Watch {
    pub(super) fn new() -> Self {
        Self { contexts: Mutex::default(), bell: EventCount::new() }
    }

    pub(super) fn add(&self, slot: &'static Slot) {
        let watched =
            Watched { slot, calls: slot.below.calls(), gave: false, eager: Arc::new(AtomicBool::new(false)) };
        self.contexts.lock().push(watched);
    }

    pub(super) fn remove(&self, slot: &'static Slot) {
        self.contexts.lock().retain(|watched| !ptr::eq(watched.slot, slot));
    }

    /// Requests were passed down.
    #[inline]
    pub(super) fn notify(&self) {
        self.bell.notify(|| 1);
    }

    /// The life of the thread.
    pub(super) fn run(&self, pool: &'static Pool) {
        let (mut pause, mut idle) = (SHORTEST, 0);
        loop {
            let found = self
                .contexts
                .lock()
                .iter_mut()
                .map(|watched| watched.look(pool))
                .max()
                .unwrap_or(Found::Nothing);
            idle = if found == Found::Nothing { idle + 1 } else { 0 };
            pause = if found == Found::Silence { SHORTEST } else { LONGEST.min(2 * pause) };
            if idle < PATIENCE {
                thread::sleep(pause);
                continue;
            }
            let key = self.bell.prepare_wait(1);
            if !self.contexts.lock().iter().any(|watched| watched.slot.below.is_busy()) {
                let _ = key.wait(None);
            }
            (pause, idle) = (SHORTEST, 0);
        }
    }
}

impl Watched {
    fn look(&mut self, pool: &'static Pool) -> Found {
        let Some(entered) = self.slot.enter() else { return Found::Nothing };
        let below = &self.slot.below;
        let calls = below.calls();
        // Relaxed: whether there is one a moment later or not.
        if mem::replace(&mut self.calls, calls) != calls || self.eager.load(Relaxed) {
            self.gave = false;
            return Found::Calls;
        }
        if self.gave && self.slot.ring().is_empty() {
            self.gave = false;
            self.be_eager(entered, pool);
            return Found::Silence;
        }
        match () {
            () if below.is_slept_in() => Found::Calls,
            () if below.bring_up(self.slot) => {
                self.gave = true;
                Found::Silence
            }
            () if below.is_busy() => Found::Silence,
            () => Found::Nothing,
        }
    }

    /// Gives the context a thread of its own. Where there is none to be had, looking has to do.
    fn be_eager(&self, entered: Entered<'static>, pool: &'static Pool) {
        let eager = Arc::clone(&self.eager);
        // Relaxed: as in `look`.
        eager.store(true, Relaxed);
        let life = move |_: &Pool| {
            bring_up_eagerly(&entered);
            // Relaxed: as above.
            eager.store(false, Relaxed);
        };
        if pool.spawn(life).is_err() {
            // Relaxed: as above.
            self.eager.store(false, Relaxed);
        }
    }
}

fn bring_up_eagerly(entered: &Entered<'static>) {
    let slot = entered.0;
    loop {
        let until = Instant::now() + IDLE;
        let (out, deadline) = (None, Some(until));
        // Never woken by what is published, but when the context is destroyed.
        let mut waiter = Waiter { wanted: u32::MAX, max: 0, out, deadline, mask: None, mixed: &mut true };
        let has_place = slot.below.sleep(slot, &mut waiter).is_some();
        let idle = !slot.below.is_busy() && Instant::now() >= until;
        if !has_place || slot.below.has_others() || idle || slot.is_dying() {
            return;
        }
    }
}
