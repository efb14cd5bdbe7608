//! The word that a count is when it is not per CPU, and the flags beside it.

/// The last reference that the count started with is gone, or going: no [`try_get_live`] succeeds here.
///
/// [`try_get_live`]: super::PerCpuRef::try_get_live
pub(super) const DEAD: u64 = 1 << 0;
/// There are, or may be, references counted in slots: the word alone says nothing, least of all zero.
pub(super) const PER_CPU: u64 = 1 << 1;
/// Somebody changes the mode; another who wants to has to wait.
pub(super) const SWITCHING: u64 = 1 << 2;
/// The count was told to stay in one word.
pub(super) const STICKY: u64 = 1 << 3;
/// Slots are counted in by locked instructions, whatever the system offers.
pub(super) const PORTABLE: u64 = 1 << 4;
/// One reference. Below are the flags, which are therefore never borrowed from.
pub(super) const ONE: u64 = 1 << 5;

/// `n` references.
#[inline(always)]
pub(super) const fn refs(n: u32) -> u64 {
    n as u64 * ONE
}
