//! Where there are no restartable sequences, Miri does not know them, or they are not wanted.

use super::Kind;
use crate::sync::atomic::AtomicU64;
use std::mem::MaybeUninit;

/// There is nothing to arm.
pub(crate) const ALWAYS_AN_AREA: bool = true;

/// Portable.
pub(crate) fn kind() -> Kind {
    Kind::Portable(if cfg!(ioctx_portable) {
        "the crate was built with `--cfg ioctx_portable`"
    } else {
        "sections are written for Linux on x86-64 and aarch64 only"
    })
}

/// Never adds.
///
/// # Safety
///
/// None to keep.
#[inline(always)]
pub(crate) unsafe fn add<'a>(_: *const AtomicU64, _: i64, _: impl Fn(u64, u32) -> &'a AtomicU64) -> bool {
    false
}

/// Never adds.
///
/// # Safety
///
/// None to keep.
#[inline(always)]
pub(crate) unsafe fn add_one<'a, const UP: bool>(
    _: *const AtomicU64,
    _: impl Fn(u64, u32) -> &'a AtomicU64,
) -> bool {
    false
}

/// Never takes.
///
/// # Safety
///
/// None to keep.
#[inline(always)]
pub(crate) unsafe fn take(_: *const AtomicU64, _: u64, _: impl FnOnce(u64, u32) -> bool) -> bool {
    false
}

/// Never puts.
///
/// # Safety
///
/// None to keep.
#[inline(always)]
pub(crate) unsafe fn put(_: *const AtomicU64, _: u64, _: u64, _: impl FnOnce(u64, u32) -> bool) -> bool {
    false
}

/// Never pops.
///
/// # Safety
///
/// None to keep.
#[inline(always)]
pub(crate) unsafe fn pop(_: *const AtomicU64, _: impl FnOnce(u64, u32) -> Option<u32>) -> Option<u32> {
    None
}

/// Never pushes.
///
/// # Safety
///
/// None to keep.
#[inline(always)]
pub(crate) unsafe fn push(_: *const AtomicU64, _: u32, _: impl FnOnce(u64, u32) -> bool) -> bool {
    false
}

/// Never pops.
///
/// # Safety
///
/// None to keep.
#[inline(always)]
pub(crate) unsafe fn pop_many(
    _: *const AtomicU64,
    _: &mut [MaybeUninit<u32>],
    _: impl FnOnce(u64, u32, &mut [MaybeUninit<u32>]) -> bool,
) -> Option<&mut [u32]> {
    None
}

/// Never pushes.
///
/// # Safety
///
/// None to keep.
#[inline(always)]
pub(crate) unsafe fn push_many(_: *const AtomicU64, _: &[u32], _: impl FnOnce(u64, u32) -> bool) -> bool {
    false
}

/// Never appends.
///
/// # Safety
///
/// None to keep.
#[inline(always)]
pub(crate) unsafe fn append(_: *const AtomicU64, _: &[[u64; 4]], _: impl FnOnce(u64, u32) -> bool) -> bool {
    false
}

/// Never called, since nothing was ever added.
pub(crate) fn fence() -> bool {
    unreachable!("there are no sections");
}

/// Not without a call.
pub(in crate::sync) fn quick_cpu_id() -> Option<u32> {
    None
}

/// Never called, since nothing was ever added.
pub(crate) fn rejoin() -> bool {
    false
}
