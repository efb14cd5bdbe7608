//! The caller's memory: looked at before it is touched.
//!
//! The kernel copies from and to its callers and says `EFAULT` where there is nothing; a library would die. So a page
//! that this thread has not met yet is first shown to the kernel, by a system call that reads or writes eight bytes of
//! it and does nothing else (`rt_sigprocmask`). The pages met last are remembered, by each thread for itself, so that
//! those who use the same memory again and again pay once.
//!
//! What is remembered may be out of date: memory that was good when it was met, and that the caller has unmapped since,
//! is not noticed until others have taken its place.

use super::abi::{Errno, errno};
use std::cell::Cell;
use std::ptr;

/// The smallest page there is.
const PAGE: usize = 4096;
/// How many pages each thread remembers.
const REMEMBERED: usize = 256;
/// The lowest bit of what is remembered of a page: written to.
const WRITABLE: usize = 1;
/// No page, not even the first one.
const NONE: usize = 2;

thread_local! {
    /// Addresses of pages, at a place that their number gives.
    static MET: [Cell<usize>; REMEMBERED] = const { [const { Cell::new(NONE) }; REMEMBERED] };
}

/// Asks the kernel to read eight bytes at `at`, or to write them.
#[cold]
fn probe(at: usize, writable: usize) -> bool {
    // No such way to change the mask: the set is read, and nothing is done.
    const NO_WAY: usize = 99;
    let (way, set, old) = if writable == 0 { (NO_WAY, at, 0) } else { (0, 0, at) };
    // SAFETY: the kernel checks the addresses. What it writes are bytes that the caller is about to write over.
    let done = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, way, set, old, 8_usize) };
    done == 0 || errno() != libc::EFAULT
}

/// Whether `len` bytes at `at` may be read or written.
#[inline]
fn check(at: usize, len: usize, writable: usize) -> Result<(), Errno> {
    // The first page is nobody's, and cannot be asked for: no set is no question.
    let Some(end) = at.checked_add(len).filter(|_| at >= PAGE) else { return Err(libc::EFAULT) };
    let mut page = at & !(PAGE - 1);
    while page < end {
        let known = MET.with(|met| {
            let place = &met[(page / PAGE) % REMEMBERED];
            if place.get() | writable == place.get() && place.get() & !WRITABLE == page {
                return true;
            }
            // Eight bytes of this page, and if they are to be written, of those that will be: an event is larger, and
            // what of it is on this page may be smaller.
            let from = if writable == 0 { page } else { at.max(page).min(end - 8).min(page + PAGE - 8) };
            let good = probe(from, writable);
            if good {
                place.set(page | writable);
            }
            good
        });
        if !known {
            return Err(libc::EFAULT);
        }
        page += PAGE;
    }
    Ok(())
}

/// A copy of what is at `from`.
///
/// # Errors
///
/// `EFAULT`.
#[inline]
pub(super) fn read<T: Copy>(from: *const T) -> Result<T, Errno> {
    check(from.addr(), size_of::<T>(), 0)?;
    // SAFETY: readable, as just checked; `T` is made of numbers, whatever they are.
    Ok(unsafe { from.read_unaligned() })
}

/// As [`read`], of a page that may have been unmapped since it was met.
///
/// # Errors
///
/// `EFAULT`.
#[cold]
pub(super) fn read_anew<T: Copy>(from: *const T) -> Result<T, Errno> {
    MET.with(|met| met[(from.addr() / PAGE) % REMEMBERED].set(NONE));
    read(from)
}

/// Copies of the `len` things at `from`.
///
/// # Errors
///
/// `EFAULT`.
pub(super) fn read_all<T: Copy>(from: *const T, len: usize) -> Result<Vec<T>, Errno> {
    if len > 0 {
        check(from.addr(), size_of::<T>() * len, 0)?;
    }
    // SAFETY: readable, as just checked; `T` is made of numbers, whatever they are.
    Ok((0..len).map(|i| unsafe { from.add(i).read_unaligned() }).collect())
}

/// Whether `len` things, of at least eight bytes each, can be written at `to`. Each of its pages may be overwritten in
/// part: all of it has to be written then.
///
/// # Errors
///
/// `EFAULT`.
#[inline]
pub(super) fn writable<T>(to: *mut T, len: usize) -> Result<(), Errno> {
    const { assert!(size_of::<T>() >= 8) };
    check(to.addr(), size_of::<T>() * len, WRITABLE)
}

/// Copies `value` to `to`.
///
/// # Errors
///
/// `EFAULT`.
#[inline]
pub(super) fn write<T: Copy>(to: *mut T, value: T) -> Result<(), Errno> {
    writable(to, 1)?;
    // SAFETY: writable, as just checked.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// Writes four bytes, too few to be asked for by [`writable`].
///
/// # Errors
///
/// `EFAULT`.
#[cold]
pub(super) fn write_word(to: *mut u32, value: u32) -> Result<(), Errno> {
    let local = libc::iovec { iov_base: ptr::from_ref(&value).cast_mut().cast(), iov_len: 4 };
    let remote = libc::iovec { iov_base: to.cast(), iov_len: 4 };
    // SAFETY: `local` is ours; the kernel checks `remote`, which is of this process as well.
    match unsafe { libc::process_vm_writev(libc::getpid(), &local, 1, &remote, 1, 0) } {
        4 => Ok(()),
        _ => Err(libc::EFAULT),
    }
}
