//! The machinery that counts and tags share: a pool, a stock per CPU, and the moves between them.

use super::Exhausted;
use super::builder::{Builder, Policy};
use super::waiters::Waiters;
use super::word::{CLOSED, MOVER, MOVERS, SWEEPING, WAITERS, count, units};
use crate::percpu::{ADDRESS, CachePadded, OPEN, PerCpu};
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use crate::sync::rseq::{self, GIVE_UP};
use crate::sync::time::micros;
use crate::sync::{Tally, mo};
use std::fmt;
use std::ptr::with_exposed_provenance;

/// Free units kept on one CPU.
pub(super) trait Stock: Sized {
    /// Which units are in the pool, if that is not just a number.
    type Ids: fmt::Debug;

    /// Moves up to `n` units, which were taken from the number of those in the pool, into this CPU's stock. Returns
    /// how many.
    fn fill(allocator: &Allocator<Self>, n: u32) -> u32;

    /// Moves up to `n` units out of this CPU's stock, to the pool but for their number. Returns how many.
    fn spill(allocator: &Allocator<Self>, n: u32) -> u32;

    /// Empties a stock that sections change, while none can, into the pool but for their number. Returns how many
    /// units it had.
    fn gather(&self, ids: &Self::Ids) -> u32;

    /// Empties a stock, into the pool but for their number, and closes it to locked instructions. Returns how many
    /// units it had.
    fn close(&self, ids: &Self::Ids) -> u32;

    /// Opens a closed stock to locked instructions, at zero. It is closed to them at first.
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
    pub(super) mode: AtomicU64,
    /// How many units there are in all, handed out or not.
    total: AtomicU32,
    /// How many are moved at a time. Relaxed: any is right.
    batch: AtomicU32,
    pub(super) stocks: PerCpu<S>,
    pub(super) ids: S::Ids,
    built: Builder,
    pub(super) portable: bool,
    /// Written once per batch, and by every operation while the stocks are closed.
    pub(super) pool: CachePadded<Pool>,
    pub(super) waiters: CachePadded<Waiters>,
}

#[derive(Debug)]
pub(super) struct Pool {
    /// See [`word`](super::word).
    pub(super) word: AtomicU64,
    /// When the stocks were last closed or opened, in microseconds.
    pub(super) changed: AtomicU64,
    /// How long they stay closed.
    pub(super) cool: AtomicU64,
    pub(super) refills: Tally,
    pub(super) spills: Tally,
    pub(super) sweeps: Tally,
}

impl<S: Stock> Allocator<S> {
    /// All units free.
    pub(super) fn new(built: Builder, ids: S::Ids, stock: impl Fn() -> S) -> Self {
        let stocks = PerCpu::new(|_| stock());
        let portable = matches!(rseq::kind(), rseq::Kind::Portable(_)) || built.portable;
        let total = built.capacity(built.total);
        let this = Self {
            mode: AtomicU64::new(0),
            total: AtomicU32::new(total),
            batch: AtomicU32::new(built.batch_of(total)),
            stocks,
            ids,
            portable,
            pool: CachePadded::new(Pool {
                word: AtomicU64::new(units(total)),
                changed: AtomicU64::new(micros()),
                cool: AtomicU64::new(0),
                refills: Tally::default(),
                spills: Tally::default(),
                sweeps: Tally::default(),
            }),
            waiters: CachePadded::new(Waiters::default()),
            built,
        };
        if portable {
            this.stocks.iter().for_each(S::open);
        }
        let mode = if portable { this.closed_mode() | OPEN } else { this.sections_mode() };
        // Relaxed: nobody else knows it yet.
        this.mode.store(mode, Relaxed);
        this
    }

    pub(super) fn closed_mode(&self) -> u64 {
        self.stocks.first().expose_provenance() as u64 | GIVE_UP
    }

    pub(super) fn sections_mode(&self) -> u64 {
        self.closed_mode() & !GIVE_UP
    }

    #[inline(always)]
    pub(super) fn total(&self) -> u32 {
        // Relaxed: whoever resizes tells those who have to know.
        self.total.load(Relaxed)
    }

    #[inline(always)]
    pub(super) fn batch(&self) -> u32 {
        // Relaxed: any is right.
        self.batch.load(Relaxed)
    }

    /// Whether who waits comes before who does not.
    pub(super) fn fair(&self) -> bool {
        self.built.fair
    }

    /// How many units there are if `n` are asked for.
    pub(super) fn capacity(&self, n: u32) -> u32 {
        self.built.capacity(n)
    }

    /// Writes down that there are `n` units, or what the policy makes of it; returns how many there were and are.
    /// One at a time.
    pub(super) fn set_total(&self, n: u32) -> (u32, u32) {
        let total = self.built.capacity(n);
        // Relaxed, both: one at a time.
        let before = self.total.swap(total, Relaxed);
        self.batch.store(self.built.batch_of(total), Relaxed);
        (before, total)
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

    /// Takes `most` units, which this CPU's stock did not have, from the number of those in the pool; if there are
    /// fewer anywhere, but `least`, all of them. Returns how many. If the pool has more, the stock is refilled.
    #[cold]
    pub(super) fn take_from_pool(&self, least: u32, most: u32) -> Result<u32, Exhausted> {
        self.take_if(least, most, self.built.policy == Policy::Exact, 0)
    }

    /// [`take_from_pool`](Self::take_from_pool), for all there are at one moment.
    pub(super) fn drain(&self) -> u32 {
        self.take_if(1, u32::MAX, true, CLOSED).unwrap_or(0)
    }

    /// With a `then` of [`CLOSED`], less than `most` is taken from closed stocks only: then nothing is left in any.
    fn take_if(&self, least: u32, most: u32, exact: bool, then: u64) -> Result<u32, Exhausted> {
        // Nothing is there even if others wait, or the pool has less than nothing.
        if most == 0 {
            return Ok(0);
        }
        if least > self.total() {
            return Err(Exhausted);
        }
        // Acquire: pairs with the opening of the stocks, which a section may have seen: the next word is not an older
        // one.
        self.mode.load(mo!("credits.mode.take", Acquire));
        // Relaxed: read again by the exchange; and what is refused takes nothing, from a word that says both that
        // the stocks are empty and how much there is.
        let mut word = self.pool.word.load(Relaxed);
        let mut swept = false;
        loop {
            let (free, closed) = (count(word), word & CLOSED != 0);
            // Who waits comes first; and the old way is not to look any further.
            if self.fair() && word & WAITERS != 0 || !closed && !exact && free < self.batch().into() {
                return Err(Exhausted);
            }
            let n = if free >= most.into() {
                most
            } else if (swept || closed || !exact) && free >= least.into() {
                free as u32
            } else if closed || !exact {
                return Err(Exhausted);
            } else {
                match self.sweep(then) {
                    Some(free) if free < least.into() => return Err(Exhausted),
                    Some(free) => swept |= then == 0 && free < most.into(),
                    None => {}
                }
                word = self.pool.word.load(Relaxed);
                continue;
            };
            let moves = word & (CLOSED | SWEEPING) == 0 && word & MOVERS != MOVERS;
            let batch = if exact { self.batch() } else { self.batch().saturating_sub(n) };
            let extra = if moves { (free - i64::from(n)).min(batch.into()) as u32 } else { 0 };
            let next = word - units(n) - units(extra) + if extra > 0 { MOVER } else { 0 };
            // Acquire: pairs with every addition: what the former holders did, and which units there are. Relaxed:
            // tried again.
            match self.pool.word.compare_exchange_weak(word, next, mo!("credits.pool.take", Acquire), Relaxed)
            {
                Ok(_) if extra > 0 => {
                    self.pool.refills.one();
                    let left = extra - S::fill(self, extra);
                    self.add(units(left).wrapping_sub(MOVER));
                    self.calm_down();
                    return Ok(n);
                }
                Ok(_) => {
                    self.reopen(next);
                    return Ok(n);
                }
                Err(now) => word = now,
            }
        }
    }

    /// Puts `n` units, which this CPU's stock did not take, to the number of those in the pool. With them goes a
    /// batch from the stock, which is usually full.
    #[cold]
    pub(super) fn put_to_pool(&self, n: u32) {
        if n > 0 && self.put_and_open(n) {
            return;
        }
        let mut change = units(n);
        let moved = self.begin_move();
        if moved {
            self.pool.spills.one();
            change = change.wrapping_add(units(S::spill(self, self.batch()))).wrapping_sub(MOVER);
        }
        self.settle(self.add(change));
        if moved {
            self.calm_down();
        }
    }

    /// Puts `n` units to the number of those in the pool.
    pub(super) fn grow(&self, n: u32) {
        self.settle(self.add(units(n)));
    }

    /// What there is to do about `word`, which the pool's was when units had come to it.
    pub(super) fn settle(&self, word: u64) {
        if word & WAITERS != 0 {
            self.serve();
        } else {
            self.reopen(word);
        }
    }

    /// Puts `n` units to a pool whose stocks are closed, and opens them, in as few accesses as can be.
    fn put_and_open(&self, n: u32) -> bool {
        let put = |word: u64| {
            let idle = word & (CLOSED | SWEEPING | WAITERS) == CLOSED;
            let next = word.wrapping_add(units(n));
            (idle && count(next) > 0).then_some(next ^ (CLOSED | SWEEPING))
        };
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
    pub(super) fn add(&self, change: u64) -> u64 {
        // Release: pairs with whoever takes the units, and with a sweeper who waits for the move.
        self.pool.word.fetch_add(change, mo!("credits.pool.add", Release)).wrapping_add(change)
    }

    /// Whether the last one who asked found nothing, and nothing has come back since.
    #[inline]
    pub(super) fn starved(&self) -> bool {
        // Relaxed: a hint.
        let word = self.pool.word.load(Relaxed);
        word & CLOSED != 0 && count(word) == 0
    }

    /// What has happened so far.
    #[cfg(feature = "stats")]
    pub(super) fn stats(&self) -> super::Stats {
        let Pool { refills, spills, sweeps, .. } = &*self.pool;
        super::Stats { refills: refills.get(), spills: spills.get(), sweeps: sweeps.get() }
    }

    /// How many units are free, at no particular moment unless nobody takes or puts.
    pub(super) fn free(&self) -> u32 {
        // Relaxed: a number to report.
        let word = self.pool.word.load(Relaxed);
        let in_stocks = if word & CLOSED != 0 { 0_u32 } else { self.stocks.iter().map(S::len).sum() };
        (count(word) + i64::from(in_stocks)).clamp(0, self.total().into()) as u32
    }
}
