//! What crosses the interface: the layouts of `linux/aio_abi.h`, and error numbers.

use std::ffi::c_int;

/// A positive error number, as the interface gives it back negated.
pub(super) type Errno = c_int;

/// A request as the caller lays it out: `struct iocb`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Iocb {
    /// Comes back as the event's `data`.
    pub data: u64,
    /// Of the library's own; 0.
    #[cfg(target_endian = "little")]
    pub key: u32,
    /// `RWF_…`
    pub rw_flags: i32,
    /// Of the library's own; 0.
    #[cfg(target_endian = "big")]
    pub key: u32,
    /// What to do, see [`command`].
    pub opcode: u16,
    /// The priority of the I/O, with [`FLAG_IOPRIO`].
    pub reqprio: i16,
    /// The descriptor.
    pub fildes: i32,
    /// The address of the buffer, or of the vector; the events to poll for.
    pub buf: u64,
    /// Bytes, or parts of the vector.
    pub nbytes: u64,
    /// Where in the file.
    pub offset: i64,
    /// 0.
    pub reserved2: u64,
    /// [`FLAG_RESFD`], [`FLAG_IOPRIO`].
    pub flags: u32,
    /// The eventfd to signal, with [`FLAG_RESFD`].
    pub resfd: i32,
}

const _: () = assert!(size_of::<Iocb>() == 64);

/// Values of [`Iocb::opcode`].
pub mod command {
    /// `pread`
    pub const PREAD: u16 = 0;
    /// `pwrite`
    pub const PWRITE: u16 = 1;
    /// `fsync`
    pub const FSYNC: u16 = 2;
    /// `fdatasync`
    pub const FDSYNC: u16 = 3;
    /// `poll` for once.
    pub const POLL: u16 = 5;
    /// Nothing, with the result 0.
    pub const NOOP: u16 = 6;
    /// `preadv`
    pub const PREADV: u16 = 7;
    /// `pwritev`
    pub const PWRITEV: u16 = 8;
}

/// Signal `resfd` when the event is there.
pub const FLAG_RESFD: u32 = 1;
/// `reqprio` is a priority as of `ioprio_set`.
pub const FLAG_IOPRIO: u32 = 2;

/// The most requests of one context: what the kernel's arithmetic allows.
pub(super) const MOST_EVENTS: u32 = 0x1000_0000 / 32 / 2;

/// The number of the last system call's error.
pub(super) fn errno() -> Errno {
    // SAFETY: the thread's own word.
    unsafe { *libc::__errno_location() }
}

/// Calls `call` without a trace in `errno`, which this interface leaves alone.
#[inline]
pub(super) fn keeping_errno<R>(call: impl FnOnce() -> R) -> R {
    // SAFETY: the thread's own word.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let before = unsafe { *place };
    let result = call();
    // SAFETY: as above.
    unsafe { *place = before };
    result
}

/// What a system call has returned, or why not.
#[inline]
pub(super) fn check(returned: isize) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| errno())
}
