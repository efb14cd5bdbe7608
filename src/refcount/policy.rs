//! [`Policy`]: when a count goes per CPU by itself. What is remembered for that, while the count is one word,
//! stands in the mode word: [`Stats`].

use super::slots::WITH_SLOTS;
use crate::cpu::{self, CpuId};
use crate::sync::MODELLED;
use crate::sync::rseq::GIVE_UP;

/// When a count goes per CPU by itself: one of [`Always`], [`Moves`], [`Gets`] and [`Never`].
pub trait Policy: sealed::Policy + Copy + std::fmt::Debug + Default + Send + Sync + 'static {}

impl<P: sealed::Policy + Copy + std::fmt::Debug + Default + Send + Sync + 'static> Policy for P {}

/// Per CPU from the start: for what is known to be shared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Always;

/// One word until its cache line is seen to move between CPUs often: 16 times, forgetting one each 32 µs.
///
/// Moves are what sharing costs, and they are seen for free: beside the count, on its line, stands the CPU that
/// touched it last. Whoever comes from another CPU pays for the line anyway, and notes the move. So a CPU that
/// is alone never makes the count per CPU, however hot it is, and neither do threads that take turns
/// leisurely.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moves;

/// One word until 16384 references were taken within a second. The rule of 2012; it cannot tell a hot count
/// from a shared one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gets;

/// One word until [`switch_to_percpu`](super::PerCpuRef::switch_to_percpu).
#[derive(Clone, Copy, Debug, Default)]
pub struct Never;

/// What a policy looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Nothing.
    Nothing,
    /// CPUs.
    Moves,
    /// References taken.
    Gets,
}

pub(super) mod sealed {
    use super::Watch;

    pub trait Policy {
        /// Whether a count is per CPU when it is made, and again when it is revived.
        const STARTS_PER_CPU: bool = false;
        const WATCH: Watch = Watch::Nothing;
        /// What a get adds to the word besides the reference.
        const TICK: u64 = 0;
    }

    impl Policy for super::Always {
        const STARTS_PER_CPU: bool = true;
    }

    impl Policy for super::Moves {
        const WATCH: Watch = Watch::Moves;
    }

    impl Policy for super::Gets {
        const WATCH: Watch = Watch::Gets;
        /// Counted in the highest 14 bits, whose overflow harms nothing, and nothing depends on them.
        const TICK: u64 = 1 << 50;
    }

    impl Policy for super::Never {}
}

/// How many moves, less those forgotten, make a count per CPU.
const ENOUGH: u64 = if MODELLED { 2 } else { 16 };
/// A move is forgotten every 32 µs.
const FORGET: u32 = 5;
/// Within so many microseconds the references of [`Gets`] have to be taken.
const SECOND: u64 = 1_000_000;

/// What the mode word of a count in one word says:
///
/// | bits | |
/// |---|---|
/// | 0 | [`GIVE_UP`] |
/// | 1 to 3 | 0: there are no slots |
/// | 4 to 15 | the CPU that touched the count last |
/// | 16 to 20 | how many moves are remembered |
/// | 21 to 24 | how long the count was to stay per CPU the last time, as a power of two |
/// | 25 to 63 | when the last move was, in microseconds, or the last tick of `Gets` |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stats(pub(super) u64);

const CPU: Field = Field { at: 4, bits: 12 };
const SCORE: Field = Field { at: 16, bits: 5 };
const PATIENCE: Field = Field { at: 21, bits: 4 };
/// The longest stay, as a power of two.
pub(super) const MAX_PATIENCE: u32 = 15;
const STAMP: Field = Field { at: 25, bits: 39 };

struct Field {
    at: u32,
    bits: u32,
}

impl Field {
    const fn max(&self) -> u64 {
        (1 << self.bits) - 1
    }

    const fn mask(&self) -> u64 {
        self.max() << self.at
    }

    const fn get(&self, word: u64) -> u64 {
        word >> self.at & self.max()
    }

    const fn set(&self, word: u64, value: u64) -> u64 {
        word & !self.mask() | (value & self.max()) << self.at
    }
}

impl Stats {
    /// Of a count that nobody has touched before `now`.
    pub(super) const fn new(now: u64) -> Self {
        Self(STAMP.set(CPU.mask() | GIVE_UP, now))
    }

    /// Whether `cpu` touched the count last. Never, if `mode` is not [`Stats`].
    #[inline(always)]
    pub(super) fn is_of(mode: u64, cpu: CpuId) -> bool {
        (mode ^ (u64::from(cpu.0) << CPU.at | GIVE_UP)) & (CPU.mask() | WITH_SLOTS | GIVE_UP) == 0
    }

    /// After a move to the calling thread's CPU at `now`; whether it is enough.
    pub(super) fn moved(self, now: u64) -> (Self, bool) {
        let since = now.wrapping_sub(STAMP.get(self.0)) & STAMP.max();
        let score = SCORE.get(self.0).saturating_sub(since >> FORGET) + 1;
        let word = CPU.set(self.0, u64::from(cpu::hint().0));
        (Self(STAMP.set(SCORE.set(word, score.min(ENOUGH)), now)), score >= ENOUGH)
    }

    /// After 16384 references at `now`; whether they were taken within a second.
    pub(super) fn ticked(self, now: u64) -> (Self, bool) {
        let since = now.wrapping_sub(STAMP.get(self.0)) & STAMP.max();
        (Self(STAMP.set(self.0, now)), since < SECOND)
    }

    /// How many [`rest`](super::PerCpuRef::rest)s the count is to stay per CPU, as a power of two.
    pub(super) fn patience(self) -> u32 {
        PATIENCE.get(self.0) as u32
    }

    /// With another patience, at most [`MAX_PATIENCE`], and no moves remembered.
    pub(super) fn with_patience(self, patience: u32) -> Self {
        Self(SCORE.set(PATIENCE.set(self.0, patience.into()), 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moves_add_up_unless_they_are_seldom() {
        let moves = |apart: u64, n: u64| {
            let begun = (Stats::new(0), false);
            (1..=n).fold(begun, |(stats, _), i| stats.moved(i * apart)).1
        };
        assert!(!moves(0, ENOUGH - 1) && moves(0, ENOUGH));
        assert!(moves(8, 2 * ENOUGH) && !moves(32, 1000) && !moves(1_000_000, 1000));
        // Over the end of the clock.
        let (stats, _) = Stats::new(STAMP.max()).moved(STAMP.max());
        assert_eq!(SCORE.get(stats.moved(STAMP.max() + 1).0.0), 2);
    }

    #[test]
    fn statistics_know_their_cpu_and_what_is_not_statistics() {
        let (stats, _) = Stats::new(7).with_patience(MAX_PATIENCE).moved(9);
        let here = cpu::hint();
        assert!(Stats::is_of(CPU.set(stats.0, here.0.into()), here));
        assert!(!Stats::is_of(CPU.set(stats.0, u64::from(here.0) + 1), here));
        assert!(!Stats::is_of(stats.0 & !GIVE_UP, here) && !Stats::is_of(stats.0 | 2, here));
        assert_eq!(stats.patience(), MAX_PATIENCE);
    }

    #[test]
    fn gets_tick_within_a_second_or_not() {
        let (stats, enough) = Stats::new(5).ticked(5 + SECOND);
        assert!(!enough && stats.ticked(4 + 2 * SECOND).1);
    }
}
