//! The caller's memory: touched only where it is.
//!
//! The kernel copies from and to its callers and says `EFAULT` where there is nothing; a library would die. Of two
//! kinds of memory it is known that they are there, by two comparisons: the calling thread's stack, above this very
//! call, and the heap below the break (`brk`). They are touched as they are. Of everything else each page is shown to
//! the kernel in every call, just before it is touched, by a system call that reads or writes eight bytes and does
//! nothing else (`rt_sigprocmask`).
//!
//! What another thread unmaps between the two would not be noticed. So from the first bad address on, a process is not
//! trusted any more: then the kernel copies everything itself, from the process to itself (`process_vm_readv`,
//! `process_vm_writev`), which takes ten times as long and says so if there is nothing, whoever has unmapped it and
//! whenever.

use super::abi::{Errno, check, errno};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use crate::sync::process;
use std::cell::Cell;
use std::mem::{MaybeUninit, size_of_val};
use std::{ptr, slice};

/// The smallest page there is.
const PAGE: usize = 4096;
/// How much of the stack below its end is taken for granted. Above that, the system maps nothing else: it keeps more
/// than this free for the main thread's to grow.
const STACK: usize = 64 << 20;
/// How many things are written by one system call.
pub(super) const TOGETHER: usize = 32;

thread_local! {
    /// The thread's stack, looked up when it is needed first.
    static BOUNDS: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    /// After how many forks, and this process's number then.
    static SELF: Cell<(u32, libc::pid_t)> = const { Cell::new((0, 0)) };
}

/// Whether `len` bytes at `at` are there to be read and written, and stay for as long as the call does.
#[inline]
fn stays(at: usize, len: usize) -> bool {
    let Some(end) = at.checked_add(len) else { return false };
    let here = (&raw const end).addr();
    let (low, high) = BOUNDS.get();
    if at >= here && end <= high && here >= low {
        return true;
    }
    stays_in_heap(at, end) || (high == 0 && look_at_stack(at, end))
}

#[inline]
fn stays_in_heap(at: usize, end: usize) -> bool {
    // SAFETY: asks for the break, and moves nothing.
    at >= heap() && end <= unsafe { libc::sbrk(0) }.addr()
}

/// Where the heap begins; above all addresses, if the system does not say so.
#[inline]
fn heap() -> usize {
    static START: AtomicUsize = AtomicUsize::new(0);
    #[cold]
    fn look_up() -> usize {
        let stat = std::fs::read("/proc/self/stat").unwrap_or_default();
        // What follows the program's name, which may have anything in it. The 47th of all fields.
        let after = stat.rsplit(|byte| *byte == b')').next().unwrap_or_default();
        let start = str::from_utf8(after).ok().and_then(|fields| fields.split_whitespace().nth(47 - 3));
        start.and_then(|start| start.parse().ok()).filter(|start| *start > 0).unwrap_or(usize::MAX)
    }
    // Relaxed twice: whoever looks it up comes to the same, and nobody waits for another, who may be left behind by
    // a fork.
    match START.load(Relaxed) {
        0 => {
            let start = look_up();
            START.store(start, Relaxed);
            start
        }
        start => start,
    }
}

#[cold]
fn look_at_stack(at: usize, end: usize) -> bool {
    let mut attributes = MaybeUninit::uninit();
    let (mut low, mut len) = (ptr::null_mut(), 0);
    // SAFETY: of this thread; used if it was written, and given back once.
    unsafe {
        if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 {
            libc::pthread_attr_getstack(attributes.as_ptr(), &mut low, &mut len);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
        }
    }
    let high = low.addr() + len;
    // If it is not known, nothing lies on it.
    let bounds = if high == 0 { (usize::MAX, 1) } else { (low.addr().max(high.saturating_sub(STACK)), high) };
    BOUNDS.set(bounds);
    let here = (&raw const end).addr();
    at >= here && end <= bounds.1 && here >= bounds.0
}

/// Whether there was a bad address once.
static DISTRUSTED: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy, PartialEq)]
enum Way {
    In,
    Out,
}

/// Copies between `own` and what is at the addresses of `theirs`; returns how many bytes, from the start, were there.
///
/// # Safety
///
/// 1. `own` leads to as many bytes as `theirs` say altogether: to be written on the way in, to be read on the way out.
#[cold]
unsafe fn copy(way: Way, own: *mut u8, theirs: &[libc::iovec]) -> usize {
    let len = theirs.iter().map(|part| part.iov_len).sum();
    // Relaxed, as the store: who does not know yet is as careful as everybody was.
    if !DISTRUSTED.load(Relaxed) {
        // SAFETY: 1. handed on.
        let done = unsafe { copy_shown(way, own, theirs) };
        if done < len {
            DISTRUSTED.store(true, Relaxed);
        }
        return done;
    }
    // SAFETY: 1. handed on, twice.
    unsafe { copy_by_kernel(way, own, theirs).unwrap_or_else(|| copy_shown(way, own, theirs)) }
}

/// As [`copy`], by the kernel; `None` where that is not allowed, or not known.
///
/// # Safety
///
/// 1. As there.
unsafe fn copy_by_kernel(way: Way, own: *mut u8, theirs: &[libc::iovec]) -> Option<usize> {
    let forks = process::forks();
    let pid = match SELF.get() {
        (then, pid) if pid != 0 && then == forks => pid,
        // SAFETY: has no conditions.
        _ => unsafe { libc::getpid() },
    };
    SELF.set((forks, pid));
    let local = libc::iovec { iov_base: own.cast(), iov_len: theirs.iter().map(|part| part.iov_len).sum() };
    let (theirs_ptr, n) = (theirs.as_ptr(), theirs.len() as u64);
    // SAFETY: 1. as asked, for `local`; the kernel checks the others.
    let done = unsafe {
        match way {
            Way::In => libc::process_vm_readv(pid, &local, 1, theirs_ptr, n, 0),
            Way::Out => libc::process_vm_writev(pid, &local, 1, theirs_ptr, n, 0),
        }
    };
    match check(done) {
        Ok(n) => Some(n),
        Err(libc::EPERM | libc::ENOSYS) => None,
        Err(_) => Some(0),
    }
}

/// As [`copy`], of pages that are shown to the kernel first.
///
/// # Safety
///
/// 1. As there.
unsafe fn copy_shown(way: Way, mut own: *mut u8, theirs: &[libc::iovec]) -> usize {
    // No page begins at 1.
    let (mut done, mut shown) = (0, 1);
    for part in theirs {
        let (mut at, mut left) = (part.iov_base.cast::<u8>(), part.iov_len);
        while left > 0 {
            let len = left.min(PAGE - at.addr() % PAGE);
            let page = at.addr() - at.addr() % PAGE;
            if page != shown && !is_shown(way, at.addr(), len) {
                return done;
            }
            shown = page;
            // SAFETY: 1. as asked; `at` is on a page that is there.
            unsafe {
                match way {
                    Way::In => ptr::copy(at, own, len),
                    Way::Out => ptr::copy(own, at, len),
                }
                (at, own) = (at.wrapping_add(len), own.add(len));
            }
            (left, done) = (left - len, done + len);
        }
    }
    done
}

/// Asks the kernel to read eight bytes of the page of `at`, or to write the first of the `len` ones there.
fn is_shown(way: Way, at: usize, len: usize) -> bool {
    // No such way to change the mask: the set is read, and nothing is done.
    const NO_WAY: usize = 99;
    let page = at - at % PAGE;
    // The first page is nobody's, and cannot be asked for: no set is no question.
    if page == 0 {
        return false;
    }
    // SAFETY: the kernel checks the addresses. What it writes, eight bytes or four, are bytes that the caller is about
    // to write over.
    let done = unsafe {
        match (way, len) {
            (Way::In, _) => libc::syscall(libc::SYS_rt_sigprocmask, NO_WAY, page, 0, 8_usize),
            (Way::Out, 8..) => libc::syscall(libc::SYS_rt_sigprocmask, 0, 0, at, 8_usize),
            (Way::Out, 4..) => libc::syscall(libc::SYS_sched_getparam, 0, at),
            // Which nothing that is aligned comes to.
            (Way::Out, _) => return false,
        }
    };
    done == 0 || errno() != libc::EFAULT
}

/// Where `n` things of the caller's lie.
fn place<T>(at: *const T, n: usize) -> libc::iovec {
    libc::iovec { iov_base: at.cast_mut().cast(), iov_len: n * size_of::<T>() }
}

/// A copy of what is at `from`, if that can be had without a system call.
#[inline]
pub(super) fn read_at_once<T: Copy>(from: *const T) -> Option<T> {
    // SAFETY: there, as just checked; `T` is made of numbers, whatever they are.
    stays(from.addr(), size_of::<T>()).then(|| unsafe { from.read_unaligned() })
}

/// A copy of what is at `from`.
///
/// # Errors
///
/// `EFAULT`.
#[inline]
pub(super) fn read<T: Copy>(from: *const T) -> Result<T, Errno> {
    match read_at_once(from) {
        Some(value) => Ok(value),
        None => {
            let mut value = [MaybeUninit::uninit()];
            gather(&[place(from, 1)], &mut value).first().copied().ok_or(libc::EFAULT)
        }
    }
}

/// A copy of what is at `from`, where it may well be that there is nothing, or that it goes while this is called.
pub(super) fn peek<T: Copy>(from: *const T) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: 1. as large as a `T`.
    match unsafe { copy_by_kernel(Way::In, value.as_mut_ptr().cast(), &[place(from, 1)]) } {
        // SAFETY: written, whatever the numbers are that `T` is made of.
        Some(n) => (n == size_of::<T>()).then(|| unsafe { value.assume_init() }),
        None => read(from).ok(),
    }
}

/// Copies of the first things at `from`, as far as they are there and fit.
pub(super) fn read_some<T: Copy>(from: *const T, into: &mut [MaybeUninit<T>]) -> &[T] {
    if stays(from.addr(), size_of_val(into)) {
        for (i, value) in into.iter_mut().enumerate() {
            // SAFETY: there, as just checked; `T` is made of numbers, whatever they are.
            value.write(unsafe { from.add(i).read_unaligned() });
        }
        // SAFETY: written.
        return unsafe { slice::from_raw_parts(into.as_ptr().cast(), into.len()) };
    }
    gather(&[place(from, into.len())], into)
}

/// Copies of the first of the things at `from`, as far as they are there.
pub(super) fn read_each<T: Copy>(from: &[*mut T; TOGETHER], into: &mut [MaybeUninit<T>]) -> usize {
    gather(&from.map(|from| place(from, 1))[..into.len()], into).len()
}

fn gather<'a, T: Copy>(from: &[libc::iovec], into: &'a mut [MaybeUninit<T>]) -> &'a [T] {
    // SAFETY: 1. whoever calls this makes them as large as `into`.
    let n = unsafe { copy(Way::In, into.as_mut_ptr().cast(), from) } / size_of::<T>();
    // SAFETY: so many were written, whatever the numbers are that `T` is made of.
    unsafe { slice::from_raw_parts(into.as_ptr().cast(), n) }
}

/// Copies `value` to `to`.
///
/// # Errors
///
/// `EFAULT`.
#[inline]
pub(super) fn write<T: Copy>(to: *mut T, value: T) -> Result<(), Errno> {
    write_each(to, 1, |_| value)
}

/// Writes `n` things to `to`, of which `each` gives the one of a number.
///
/// # Errors
///
/// `EFAULT`, and then some of them may be written.
#[inline]
pub(super) fn write_each<T: Copy>(to: *mut T, n: usize, each: impl Fn(usize) -> T) -> Result<(), Errno> {
    if stays(to.addr(), size_of::<T>() * n) {
        for i in 0..n {
            // SAFETY: there, as just checked.
            unsafe { to.add(i).write_unaligned(each(i)) };
        }
        return Ok(());
    }
    write_elsewhere(to, n, each)
}

#[cold]
fn write_elsewhere<T: Copy>(to: *mut T, n: usize, each: impl Fn(usize) -> T) -> Result<(), Errno> {
    let mut values = [const { MaybeUninit::<T>::uninit() }; TOGETHER];
    for first in (0..n).step_by(TOGETHER) {
        let len = TOGETHER.min(n - first);
        for (i, value) in values[..len].iter_mut().enumerate() {
            value.write(each(first + i));
        }
        // SAFETY: 1. `len` of them were written.
        let done =
            unsafe { copy(Way::Out, values.as_mut_ptr().cast(), &[place(to.wrapping_add(first), len)]) };
        if done < len * size_of::<T>() {
            return Err(libc::EFAULT);
        }
    }
    Ok(())
}
