//! Closing the stocks, so that one word says how many units are free, and opening them again.

use super::allocator::{Allocator, Stock};
use super::word::{CLOSED, MOVERS, SWEEPING, WAITERS, count, units};
use crate::cpu;
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::hint::Backoff;
use crate::sync::time::{Duration, micros};
use crate::sync::{MODELLED, hint, mo, section_fence, thread};

/// Stocks that were closed stay so for at least so many microseconds: opening and closing them for every few units
/// would cost more than doing without. Twice as long each time if they have to be closed again soon after.
const COOL: u64 = if MODELLED { 0 } else { 100 };
/// But not longer.
const COOLEST: u64 = 1_638_400;
/// Soon is within so many times as long as they were closed.
const SOON: u64 = 32;

impl<S: Stock> Allocator<S> {
    /// Closes every stock and brings what is in them to the pool, so that its word tells the truth. Returns how many
    /// units were free then, or `None` if somebody else has found out. Waits for whoever is doing that already, and
    /// for those who are in the middle of a move.
    ///
    /// `then` is 0; or [`CLOSED`], so that the stocks stay closed; or [`WAITERS`] for one who has their lock, with the
    /// same effect.
    #[cold]
    pub(super) fn sweep(&self, then: u64) -> Option<i64> {
        let (mut backoff, mut yields) = (Backoff::default(), 0);
        let mut wait = || {
            if backoff.wait() {
                return;
            }
            hint::contended();
            yields += 1;
            // Sleeping takes longer than a sweep; but whoever sweeps may be of a lesser class, and must run.
            match yields {
                ..100 => thread::yield_now(),
                _ => thread::sleep(Duration::from_micros(50)),
            }
        };
        // Relaxed: read again by the exchange.
        let mut word = self.pool.word.load(Relaxed);
        loop {
            if word & CLOSED != 0 {
                return None;
            }
            if word & SWEEPING != 0 {
                while word & SWEEPING != 0 {
                    wait();
                    word = self.pool.word.load(Relaxed);
                }
                return None;
            }
            // Acquire: pairs with the end of the last opening. Relaxed: tried again.
            let next = word | SWEEPING;
            match self.pool.word.compare_exchange_weak(
                word,
                next,
                mo!("credits.pool.sweep", Acquire),
                Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        // The fence orders it before every section that begins, or begins again, after it; locked instructions find
        // each stock closed. Release: pairs with whoever is going to refuse.
        self.mode.store(self.closed_mode(), mo!("credits.mode.close", Release));
        if !self.portable {
            // SeqCst, for every thread of the process: pairs with every section.
            let fenced = section_fence!("credits.mode.fence", SeqCst);
            if !fenced {
                // Relaxed: nothing was changed.
                self.mode.store(self.open_mode(), Relaxed);
                self.add(0_u64.wrapping_sub(SWEEPING));
                panic!("membarrier was granted to this process and is now refused");
            }
        }
        let brought: u32 = self.stocks.iter().map(|stock| stock.close(&self.ids)).sum();
        // Acquire: pairs with the addition that ends a move.
        while self.pool.word.load(mo!("credits.pool.movers", Acquire)) & MOVERS != 0 {
            wait();
        }
        if self.portable {
            // All stocks are closed and empty: this is the moment of truth.
            let free = count(self.add(units(brought)));
            if free > 0 && then == 0 {
                // Worth keeping open: closing them again costs little.
                self.open_stocks();
            } else {
                self.add((CLOSED | then).wrapping_sub(SWEEPING));
            }
            return Some(free);
        }
        // Relaxed, all of them: hints, which whoever closes or opens writes, one after the other.
        let (now, cool) = (micros(), self.pool.cool.load(Relaxed));
        let soon = now.saturating_sub(self.pool.changed.load(Relaxed)) < SOON * cool;
        self.pool.cool.store(if soon { (2 * cool).min(COOLEST) } else { COOL }, Relaxed);
        self.pool.changed.store(now, Relaxed);
        Some(count(self.add(units(brought).wrapping_add(CLOSED | then).wrapping_sub(SWEEPING))))
    }

    /// Closed stocks are opened when so many units are in the pool.
    fn enough(&self) -> i64 {
        if self.portable {
            // Closing and opening costs an instruction per CPU: not worth putting off.
            return 1;
        }
        self.batch().saturating_mul(cpu::possible()).min((self.total() / 2).max(1)).into()
    }

    /// Opens closed stocks, if `word`, which the pool's just was, has enough for them and they were closed for
    /// long enough.
    #[inline]
    pub(super) fn reopen(&self, word: u64) {
        if word & (CLOSED | SWEEPING | WAITERS) == CLOSED && count(word) >= self.enough() {
            self.reopen_slow();
        }
    }

    #[cold]
    fn reopen_slow(&self) {
        // Relaxed: hints.
        if !self.portable
            && micros().saturating_sub(self.pool.changed.load(Relaxed)) < self.pool.cool.load(Relaxed)
        {
            return;
        }
        let begin = |word| {
            (word & (CLOSED | SWEEPING | WAITERS) == CLOSED && count(word) >= self.enough())
                .then_some(word ^ (CLOSED | SWEEPING))
        };
        // Acquire: pairs with the end of the sweep. Relaxed: somebody else did it, or the units are gone.
        if self.pool.word.fetch_update(mo!("credits.pool.open", Acquire), Relaxed, begin).is_err() {
            return;
        }
        self.open_stocks();
    }

    /// Opens the stocks, for whoever has set `SWEEPING`.
    pub(super) fn open_stocks(&self) {
        self.stocks.iter().for_each(S::open);
        if !self.portable {
            // Relaxed: a hint.
            self.pool.changed.store(micros(), Relaxed);
        }
        // Release: pairs with every section: the stocks are empty, and the pool's word does not say closed.
        self.mode.store(self.open_mode(), mo!("credits.mode.open", Release));
        self.add(0_u64.wrapping_sub(SWEEPING));
    }
}
