//! Where there are no restartable sequences, or Miri does not know them.

use super::Kind;
use crate::sync::atomic::{AtomicU64, AtomicUsize};

/// Portable.
pub(crate) fn kind() -> Kind {
    Kind::Portable("sections are written for Linux on x86-64 only")
}

/// Never adds.
///
/// # Safety
///
/// None to keep.
#[inline(always)]
pub(crate) unsafe fn add<'a>(_: *const AtomicUsize, _: i64, _: impl Fn(u32) -> &'a AtomicU64) -> bool {
    false
}

/// Never adds.
///
/// # Safety
///
/// None to keep.
#[inline(always)]
pub(crate) unsafe fn add_one<'a, const UP: bool>(
    _: *const AtomicUsize,
    _: impl Fn(u32) -> &'a AtomicU64,
) -> bool {
    false
}

/// Never called, since nothing was ever added.
pub(crate) fn fence() {
    unreachable!("there are no sections");
}

/// Never called, since nothing was ever added.
pub(crate) fn rejoin() -> bool {
    false
}
