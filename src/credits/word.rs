//! The pool's word: how many units are in the pool, and who is about.

/// Every stock is closed and empty: what is not in the pool is handed out.
pub(super) const CLOSED: u64 = 1 << 0;
/// Somebody closes the stocks, or opens them.
pub(super) const SWEEPING: u64 = 1 << 1;
/// Somebody waits for units. Only with [`CLOSED`], and until nobody waits the stocks stay closed: so every unit that
/// comes back comes past here.
pub(super) const WAITERS: u64 = 1 << 2;
/// One who moves units between the pool and a stock, so that they are in neither.
pub(super) const MOVER: u64 = 1 << 3;
pub(super) const MOVERS: u64 = (1 << 16) - MOVER;
/// One unit in the pool.
const ONE: u64 = 1 << 16;

/// How many units a pool's word says there are. Less than none if more are handed out than a smaller size allows.
pub(super) fn count(word: u64) -> i64 {
    word as i64 >> ONE.trailing_zeros()
}

/// What to add to a pool's word for `n` units.
pub(super) fn units(n: u32) -> u64 {
    u64::from(n) * ONE
}
