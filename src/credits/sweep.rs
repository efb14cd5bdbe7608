//! Closing the stocks, so that one word says how many units are free, and opening them again.

use super::allocator::{Allocator, Stock};
use super::word::{CLOSED, MOVERS, SWEEPING, WAITERS, count, units};
use crate::percpu::OPEN;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::hint::Backoff;
use crate::sync::rseq::GIVE_UP;
use crate::sync::time::{Duration, micros};
use crate::sync::{MODELLED, hint, mo, section_fence, thread};

/// Stocks are changed by locked instructions for at least so many microseconds after units ran out: to close them to
/// sections takes a system call. Twice as long each time if they run out again soon after.
const COOL: u64 = if MODELLED { 0 } else { 100 };
/// But not longer.
const COOLEST: u64 = 1_638_400;
/// Soon is within so many times as long.
const SOON: u64 = 32;

impl<S: Stock> Allocator<S> {
    /// Closes every stock and brings what is in them to the pool, so that its word tells the truth. Returns how many
    /// units were free then, or `None` if somebody else has found out. Waits for whoever is doing that already, and
    /// for those who are in the middle of a move.
    ///
    /// If there were some, the stocks are opened again. `then` is 0; or [`CLOSED`], so that they stay closed; or
    /// [`WAITERS`] for one who has their lock, with the same effect.
    #[cold]
    pub(super) fn sweep(&self, then: u64) -> Option<i64> {
        if !self.begin_sweep() {
            return None;
        }
        let brought = self.close_stocks();
        // This is the moment of truth.
        let free = count(self.add(units(brought)));
        if free > 0 && then == 0 {
            self.open_stocks();
        } else {
            self.add((CLOSED | then).wrapping_sub(SWEEPING));
        }
        Some(free)
    }

    /// Sets `SWEEPING`; or waits while somebody else has, unless the stocks are closed.
    fn begin_sweep(&self) -> bool {
        let mut patience = Patience::default();
        // Relaxed: read again by the exchange.
        let mut word = self.pool.word.load(Relaxed);
        loop {
            if word & CLOSED != 0 {
                return false;
            }
            if word & SWEEPING != 0 {
                while word & SWEEPING != 0 {
                    patience.wait();
                    word = self.pool.word.load(Relaxed);
                }
                return false;
            }
            // Acquire: pairs with the end of the last opening. Relaxed: tried again.
            let next = word | SWEEPING;
            match self.pool.word.compare_exchange_weak(
                word,
                next,
                mo!("credits.pool.sweep", Acquire),
                Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Closes every stock and empties it, into the pool but for the number of those in it. Returns how many there
    /// were. For whoever has set `SWEEPING`; nobody moves any units afterwards.
    fn close_stocks(&self) -> u32 {
        self.pool.sweeps.one();
        // Relaxed: changed only with `SWEEPING`.
        let sections = self.mode.load(Relaxed) & GIVE_UP == 0;
        // The fence orders it before every section that begins, or begins again, after it; locked instructions find
        // each stock closed. Release: pairs with whoever is going to refuse.
        self.mode.store(self.closed_mode(), mo!("credits.mode.close", Release));
        // Relaxed, here and below: hints, which whoever has set `SWEEPING` writes, one after the other.
        let now = micros();
        let before = self.pool.changed.load(Relaxed);
        self.pool.changed.store(now, Relaxed);
        let brought = if sections {
            // SeqCst, for every thread of the process: pairs with every section.
            let fenced = section_fence!("credits.mode.fence", SeqCst);
            if !fenced {
                // Relaxed: pairs with nobody. The stocks are as they were, so that a section may see this at any time;
                // and whoever still sees the stocks closed finds in the pool's word that they are not.
                self.mode.store(self.sections_mode(), Relaxed);
                self.add(0_u64.wrapping_sub(SWEEPING));
                panic!("membarrier was granted to this process and is now refused");
            }
            let cool = self.pool.cool.load(Relaxed);
            let soon = now.saturating_sub(before) < SOON * cool;
            self.pool.cool.store(if soon { (2 * cool).min(COOLEST) } else { COOL }, Relaxed);
            self.stocks.iter().map(|stock| stock.gather(&self.ids)).sum()
        } else {
            self.stocks.iter().map(|stock| stock.close(&self.ids)).sum()
        };
        let mut patience = Patience::default();
        // Acquire: pairs with the addition that ends a move.
        while self.pool.word.load(mo!("credits.pool.movers", Acquire)) & MOVERS != 0 {
            patience.wait();
        }
        brought
    }

    /// Opens closed stocks, if `word`, which the pool's just was, has anything for them.
    #[inline]
    pub(super) fn reopen(&self, word: u64) {
        if word & (CLOSED | SWEEPING | WAITERS) == CLOSED && count(word) > 0 {
            self.reopen_slow();
        }
    }

    #[cold]
    fn reopen_slow(&self) {
        let begin = |word| {
            (word & (CLOSED | SWEEPING | WAITERS) == CLOSED && count(word) > 0)
                .then_some(word ^ (CLOSED | SWEEPING))
        };
        // Acquire: pairs with the end of the sweep. Relaxed: somebody else did it, or the units are gone.
        if self.pool.word.fetch_update(mo!("credits.pool.open", Acquire), Relaxed, begin).is_ok() {
            self.open_stocks();
        }
    }

    /// Opens the stocks to locked instructions, for whoever has set `SWEEPING`: units have just run out, and may
    /// again.
    pub(super) fn open_stocks(&self) {
        self.stocks.iter().for_each(S::open);
        // Release: pairs with whoever puts or takes next: the pool's word does not say closed.
        self.mode.store(self.closed_mode() | OPEN, mo!("credits.mode.open", Release));
        self.add(0_u64.wrapping_sub(SWEEPING));
    }

    /// Gives the stocks back to sections, if they are changed by locked instructions only because units ran out, and
    /// that was long enough ago. Called when units have been moved: once per batch.
    #[inline]
    pub(super) fn calm_down(&self) {
        // Relaxed: a guess.
        if !self.portable && self.mode.load(Relaxed) & GIVE_UP != 0 {
            self.calm_down_slow();
        }
    }

    #[cold]
    fn calm_down_slow(&self) {
        // Relaxed, both: hints.
        let calm = micros().saturating_sub(self.pool.changed.load(Relaxed)) >= self.pool.cool.load(Relaxed);
        // Relaxed twice: a guess. If somebody else is at it, it is not calm.
        if !calm || self.pool.word.load(Relaxed) & (CLOSED | SWEEPING) != 0 || !self.begin_sweep() {
            return;
        }
        let brought = self.close_stocks();
        // Release: pairs with every section: the stocks are empty, and the pool's word does not say closed.
        self.mode.store(self.sections_mode(), mo!("credits.mode.resume", Release));
        self.add(units(brought).wrapping_sub(SWEEPING));
    }
}

/// Waits for what another thread is about to do, a little longer each time.
#[derive(Default)]
struct Patience {
    backoff: Backoff,
    yields: u32,
}

impl Patience {
    fn wait(&mut self) {
        if self.backoff.wait() {
            return;
        }
        hint::contended();
        self.yields += 1;
        // Sleeping takes longer than a sweep; but whoever sweeps may be of a lesser class, and must run.
        match self.yields {
            ..100 => thread::yield_now(),
            _ => thread::sleep(Duration::from_micros(50)),
        }
    }
}
