//! The machinery that counts and tags share: a pool, a stock per CPU, and the moves between them.

use super::Exhausted;
use crate::cpu;
use crate::percpu::{CachePadded, PerCpu};
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::hint::Backoff;
use crate::sync::rseq::{self, GIVE_UP};
use crate::sync::time::{Duration, micros};
use crate::sync::{MODELLED, hint, mo, section_fence, thread};
use std::ptr::with_exposed_provenance;

/// The most units one allocator can have.
pub(super) const MAX: u32 = (1 << 30) - 1;

/// Every stock is closed and empty: what is not in the pool is handed out.
const CLOSED: u64 = 1 << 0;
/// Somebody closes the stocks, or opens them.
const SWEEPING: u64 = 1 << 1;
/// One who moves units between the pool and a stock, so that they are in neither.
const MOVER: u64 = 1 << 2;
const MOVERS: u64 = (1 << 16) - MOVER;
/// One unit in the pool.
const ONE: u64 = 1 << 16;

/// How many units a pool's word says there are.
fn count(word: u64) -> i64 {
    word as i64 >> ONE.trailing_zeros()
}

fn units(n: u32) -> u64 {
    u64::from(n) * ONE
}

/// With [`GIVE_UP`] in a mode word: stocks are changed by locked instructions.
const OPEN: u64 = 1 << 1;
/// Stocks are aligned to 128 bytes.
const ADDRESS: u64 = !127;
/// Stocks that were closed stay so for at least so many microseconds: opening and closing them for every few units
/// would cost more than doing without. Twice as long each time if they have to be closed again soon after.
const COOL: u64 = if MODELLED { 0 } else { 100 };
/// But not longer.
const COOLEST: u64 = 1_638_400;
/// Soon is within so many times as long as they were closed.
const SOON: u64 = 32;

/// Free units kept on one CPU.
pub(super) trait Stock: Sized {
    /// Which units are in the pool, if that is not just a number.
    type Ids;

    /// Moves up to `n` units, which were taken from the number of those in the pool, into this CPU's stock. Returns
    /// how many.
    fn fill(allocator: &Allocator<Self>, n: u32) -> u32;

    /// Moves up to `n` units out of this CPU's stock, to the pool but for their number. Returns how many.
    fn spill(allocator: &Allocator<Self>, n: u32) -> u32;

    /// Empties a stock, into the pool but for their number, and closes it to locked instructions. Returns how many
    /// units it had.
    fn close(&self, ids: &Self::Ids) -> u32;

    /// Opens a closed stock, at zero.
    fn open(&self);

    /// How many units there are, at no particular moment.
    fn len(&self) -> u32;
}

/// How to take.
pub(super) enum Way<'a> {
    /// By a section that reads this mode word.
    Section(&'a AtomicU64),
    /// Somehow else.
    Slow,
    /// There is too little.
    Refuse,
}

/// A pool, and a stock per CPU.
#[derive(Debug)]
pub(super) struct Allocator<S: Stock> {
    /// How stocks are changed, as sections know it: they give up if `GIVE_UP` is set.
    mode: AtomicU64,
    stocks: PerCpu<S>,
    pub(super) ids: S::Ids,
    total: u32,
    pub(super) batch: u32,
    /// Closed stocks are opened when so many units are in the pool.
    enough: u32,
    portable: bool,
    /// Written once per batch, and by every operation while the stocks are closed.
    pool: CachePadded<Pool>,
}

#[derive(Debug)]
struct Pool {
    word: AtomicU64,
    /// When the stocks were last closed or opened, in microseconds.
    changed: AtomicU64,
    /// How long they stay closed.
    cool: AtomicU64,
}

/// `max(1, n / (4 * cpus))`: all stocks together hold at most about half of the units. But not more than is moved
/// quickly.
pub(super) fn default_batch(total: u32) -> u32 {
    (total / cpu::possible().saturating_mul(4)).clamp(1, 256)
}

impl<S: Stock> Allocator<S> {
    /// All `total` units free, moved `batch` at a time.
    pub(super) fn new(total: u32, batch: u32, portable: bool, ids: S::Ids, stock: impl Fn(u32) -> S) -> Self {
        assert!(total <= MAX, "less than 2^30 credits, {total} asked for");
        let batch = batch.clamp(1, total.max(1));
        let stocks = PerCpu::new(|_| stock(2 * batch));
        let portable = matches!(rseq::kind(), rseq::Kind::Portable(_)) || portable;
        let this = Self {
            mode: AtomicU64::new(0),
            stocks,
            ids,
            total,
            batch,
            // Without sections, closing and opening costs an instruction per CPU: not worth putting off.
            enough: if portable { 1 } else { batch.saturating_mul(cpu::possible()).min((total / 2).max(1)) },
            portable,
            pool: CachePadded::new(Pool {
                word: AtomicU64::new(units(total)),
                changed: AtomicU64::new(micros()),
                cool: AtomicU64::new(COOL),
            }),
        };
        // Relaxed: nobody else knows it yet.
        this.mode.store(this.open_mode(), Relaxed);
        this
    }

    fn closed_mode(&self) -> u64 {
        self.stocks.first().expose_provenance() as u64 | GIVE_UP
    }

    fn open_mode(&self) -> u64 {
        if self.portable { self.closed_mode() | OPEN } else { self.closed_mode() & !GIVE_UP }
    }

    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// The mode word, if sections may be begun with it.
    #[inline(always)]
    pub(super) fn mode(&self) -> Option<&AtomicU64> {
        // Relaxed: the section reads it again.
        (rseq::ALWAYS_AN_AREA || self.mode.load(Relaxed) & GIVE_UP == 0).then_some(&self.mode)
    }

    /// What to do about a take of `want` units, as far as two loads can tell.
    #[inline(always)]
    pub(super) fn way(&self, want: u32) -> Way<'_> {
        // The section reads it again; and only if the stocks are closed is the next word worth looking at. That alone
        // says that they are empty, and how much there is; and what is refused takes nothing. Acquire: pairs with
        // the closing: the next word is not an older one.
        let mode = self.mode.load(mo!("credits.mode.way", Acquire));
        if mode & GIVE_UP == 0 {
            return Way::Section(&self.mode);
        }
        if mode & OPEN != 0 {
            return Way::Slow;
        }
        let word = self.pool.word.load(Relaxed);
        if word & CLOSED != 0 && count(word) < i64::from(want) { Way::Refuse } else { Way::Slow }
    }

    /// The stock of `cpu`, as a section finds it.
    ///
    /// # Safety
    ///
    /// 1. `mode` is the mode word of an allocator that lives while the result is used.
    pub(super) unsafe fn stock<'a>(mode: u64, cpu: u32) -> &'a S {
        let first = with_exposed_provenance::<CachePadded<S>>((mode & ADDRESS) as usize);
        // SAFETY: the allocator's slots, one for each possible CPU.
        unsafe { &*first.add(cpu as usize) }
    }

    /// This CPU's stock, if it is to be changed by locked instructions.
    #[inline]
    pub(super) fn local(&self) -> Option<&S> {
        // Relaxed: a closed stock turns everybody away by itself.
        (self.mode.load(Relaxed) & (GIVE_UP | OPEN) == GIVE_UP | OPEN).then(|| self.stocks.local())
    }

    /// [`local`](Self::local), if the CPU is to be had without a call: every store before a locked instruction is
    /// one that it waits for.
    #[inline(always)]
    pub(super) fn quick(&self) -> Option<&S> {
        // Relaxed: as in `local`.
        let mode = self.mode.load(Relaxed);
        if mode & (GIVE_UP | OPEN) != GIVE_UP | OPEN {
            return None;
        }
        // SAFETY: our mode word; the CPU is possible.
        crate::sync::cpu::quick().map(|cpu| unsafe { Self::stock(mode, cpu) })
    }

    /// Takes `want` units, which this CPU's stock did not have, from the number of those in the pool. If there are
    /// more, the stock is refilled.
    #[cold]
    pub(super) fn take_from_pool(&self, want: u32) -> Result<(), Exhausted> {
        if want > self.total {
            return Err(Exhausted);
        }
        // Acquire: pairs with the opening of the stocks, which a section may have seen: the next word is not an older
        // one.
        self.mode.load(mo!("credits.mode.take", Acquire));
        // Relaxed: read again by the exchange; and what is refused takes nothing, from a word that says both that
        // the stocks are empty and how much there is.
        let mut word = self.pool.word.load(Relaxed);
        loop {
            let left = count(word) - i64::from(want);
            if left < 0 {
                if word & CLOSED != 0 {
                    return Err(Exhausted);
                }
                if self.sweep().is_some_and(|free| free < want.into()) {
                    return Err(Exhausted);
                }
                word = self.pool.word.load(Relaxed);
                continue;
            }
            let moves = word & (CLOSED | SWEEPING) == 0 && word & MOVERS != MOVERS;
            let extra = if moves { left.min(self.batch.into()) as u32 } else { 0 };
            let next = word - units(want) - units(extra) + if extra > 0 { MOVER } else { 0 };
            // Acquire: pairs with every addition: what the former holders did, and which units there are. Relaxed:
            // tried again.
            match self.pool.word.compare_exchange_weak(word, next, mo!("credits.pool.take", Acquire), Relaxed)
            {
                Ok(_) if extra > 0 => {
                    let left = extra - S::fill(self, extra);
                    self.add(units(left).wrapping_sub(MOVER));
                    return Ok(());
                }
                Ok(_) => {
                    self.reopen(next);
                    return Ok(());
                }
                Err(now) => word = now,
            }
        }
    }

    /// Puts `n` units, which this CPU's stock did not take, to the number of those in the pool. With them goes a
    /// batch from the stock, which is usually full.
    #[cold]
    pub(super) fn put_to_pool(&self, n: u32) {
        if self.portable && n > 0 && self.put_and_open(n) {
            return;
        }
        let mut change = units(n);
        if self.begin_move() {
            change = change.wrapping_add(units(S::spill(self, self.batch))).wrapping_sub(MOVER);
        }
        let word = self.add(change);
        self.reopen(word);
    }

    /// Puts `n` units to a pool whose stocks are closed, and opens them, in as few accesses as can be.
    fn put_and_open(&self, n: u32) -> bool {
        let put =
            |word| (word & (CLOSED | SWEEPING) == CLOSED).then_some((word ^ (CLOSED | SWEEPING)) + units(n));
        // Release: as in `add`. Acquire: as in `reopen_slow`. Relaxed: the stocks are open, or somebody is at it.
        let begun = self.pool.word.fetch_update(mo!("credits.pool.put", AcqRel), Relaxed, put).is_ok();
        if begun {
            self.open_stocks();
        }
        begun
    }

    /// Announces that units are going to be in neither stock nor pool for a while, unless the stocks are closed.
    fn begin_move(&self) -> bool {
        let moves =
            |word| (word & (CLOSED | SWEEPING) == 0 && word & MOVERS != MOVERS).then_some(word + MOVER);
        // Relaxed twice: a sweeper sees it in the word's own order, and waits for what follows.
        self.pool.word.fetch_update(Relaxed, Relaxed, moves).is_ok()
    }

    /// Changes the pool's word, and returns what it is then.
    fn add(&self, change: u64) -> u64 {
        // Release: pairs with whoever takes the units, and with a sweeper who waits for the move.
        self.pool.word.fetch_add(change, mo!("credits.pool.add", Release)).wrapping_add(change)
    }

    /// Closes every stock and brings what is in them to the pool, so that its word tells the truth. Returns how many
    /// units were free then, or `None` if somebody else has found out. Waits for whoever is doing that already, and
    /// for those who are in the middle of a move.
    #[cold]
    fn sweep(&self) -> Option<i64> {
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
            if free > 0 {
                // Worth keeping open: closing them again costs little.
                self.open_stocks();
            } else {
                self.add(CLOSED.wrapping_sub(SWEEPING));
            }
            return Some(free);
        }
        // Relaxed, all of them: hints, which whoever closes or opens writes, one after the other.
        let (now, cool) = (micros(), self.pool.cool.load(Relaxed));
        let soon = now.saturating_sub(self.pool.changed.load(Relaxed)) < SOON * cool;
        self.pool.cool.store(if soon { (2 * cool).min(COOLEST) } else { COOL }, Relaxed);
        self.pool.changed.store(now, Relaxed);
        Some(count(self.add(units(brought).wrapping_add(CLOSED).wrapping_sub(SWEEPING))))
    }

    /// Opens closed stocks, if `word`, which the pool's just was, has enough for them and they were closed for
    /// long enough.
    #[inline]
    fn reopen(&self, word: u64) {
        if word & (CLOSED | SWEEPING) == CLOSED && count(word) >= self.enough.into() {
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
            (word & (CLOSED | SWEEPING) == CLOSED && count(word) >= self.enough.into())
                .then_some(word ^ (CLOSED | SWEEPING))
        };
        // Acquire: pairs with the end of the sweep. Relaxed: somebody else did it, or the units are gone.
        if self.pool.word.fetch_update(mo!("credits.pool.open", Acquire), Relaxed, begin).is_err() {
            return;
        }
        self.open_stocks();
    }

    /// Opens the stocks, for whoever has set `SWEEPING`.
    fn open_stocks(&self) {
        self.stocks.iter().for_each(S::open);
        if !self.portable {
            // Relaxed: a hint.
            self.pool.changed.store(micros(), Relaxed);
        }
        // Release: pairs with every section: the stocks are empty, and the pool's word does not say closed.
        self.mode.store(self.open_mode(), mo!("credits.mode.open", Release));
        self.add(0_u64.wrapping_sub(SWEEPING));
    }

    /// Whether the last one who asked found nothing, and nothing has come back since.
    #[inline]
    pub(super) fn starved(&self) -> bool {
        // Relaxed: a hint.
        let word = self.pool.word.load(Relaxed);
        word & CLOSED != 0 && count(word) == 0
    }

    /// How many units are free, at no particular moment unless nobody takes or puts.
    pub(super) fn free(&self) -> u32 {
        // Relaxed: a number to report.
        let word = self.pool.word.load(Relaxed);
        let in_stocks = if word & CLOSED != 0 { 0 } else { self.stocks.iter().map(S::len).sum() };
        (count(word) as u32 + in_stocks).min(self.total)
    }
}
