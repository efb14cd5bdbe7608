//! Who sleeps, and what for: [`Queue`].

use crate::sync::{Wake, Woken};
use std::collections::VecDeque;
use std::mem;

/// What is wanted while nobody sleeps.
pub(super) const NOBODY: u32 = u32::MAX;
/// As many events as anybody may want, and for each his own.
pub(super) const EVERYBODY: u32 = u32::MAX;

/// Those who announced that they sleep, and were neither picked nor have left.
#[derive(Debug)]
pub(super) struct Queue {
    /// Oldest first, which is also by `id`.
    sleepers: VecDeque<Sleeper>,
    /// Counts up and never wraps, so no two sleepers ever share one.
    next_id: u64,
    /// The fewest events any of them wants; `NOBODY` without any.
    wanted: u32,
}

#[derive(Debug)]
pub(super) struct Sleeper {
    id: u64,
    min: u32,
    /// `None`: a task that has not been polled yet, and will see that it was picked when it is.
    wake: Option<Wake>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { sleepers: VecDeque::new(), next_id: 0, wanted: NOBODY }
    }
}

impl Queue {
    /// The fewest events any sleeper wants; [`NOBODY`] without any.
    pub(super) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Appends one who wants `min` events; returns by which name.
    pub(super) fn push(&mut self, min: u32, wake: Option<Wake>) -> u64 {
        let (id, min) = (self.next_id, min.min(NOBODY - 1));
        self.next_id += 1;
        self.sleepers.push_back(Sleeper { id, min, wake });
        self.wanted = self.wanted.min(min);
        id
    }

    /// Takes out those whose number is there, oldest first, as far as `available` events go.
    pub(super) fn pick(&mut self, available: u32) -> Woken {
        let mut left = available;
        let mut woken = Woken::default();
        self.wanted = NOBODY;
        self.sleepers.retain_mut(|sleeper| {
            if sleeper.min > left {
                self.wanted = self.wanted.min(sleeper.min);
                return true;
            }
            if available != EVERYBODY {
                left -= sleeper.min;
            }
            // Taken, so that nothing is dropped here that may call back.
            if let Some(wake) = sleeper.wake.take() {
                woken.push(wake);
            }
            false
        });
        woken
    }

    /// Has the one of this name woken by what `wake` holds, and leaves there what it was woken by; returns
    /// whether it is here still.
    pub(super) fn swap_wake(&mut self, id: u64, wake: &mut Option<Wake>) -> bool {
        let Ok(place) = self.place(id) else { return false };
        mem::swap(&mut self.sleepers[place].wake, wake);
        true
    }

    /// Takes out the one of this name, to be dropped without the lock; `None` if it was picked.
    #[must_use = "dropped under the lock, it may call back"]
    pub(super) fn remove(&mut self, id: u64) -> Option<Sleeper> {
        let left = self.sleepers.remove(self.place(id).ok()?)?;
        if left.min == self.wanted {
            self.wanted = self.sleepers.iter().map(|sleeper| sleeper.min).min().unwrap_or(NOBODY);
        }
        Some(left)
    }

    /// Whether the one of this name was neither picked nor has left.
    #[cfg(ioctx_linux)]
    pub(super) fn has(&self, id: u64) -> bool {
        self.place(id).is_ok()
    }

    fn place(&self, id: u64) -> Result<usize, usize> {
        self.sleepers.binary_search_by_key(&id, |sleeper| sleeper.id)
    }
}
