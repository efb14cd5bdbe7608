//! The kernel's AIO by its system calls: [`Aio`].

use crate::ring::Event;
use std::{io, ptr};

/// What the kernel is told of a request: `struct iocb`.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Block {
    /// Comes back with the event.
    pub(super) data: u64,
    /// Which the kernel writes, and wants to see again in a cancel. On big-endian machines behind the next.
    #[cfg(target_endian = "little")]
    pub(super) _key: u32,
    /// As of `pwritev2`.
    pub(super) how: u32,
    #[cfg(target_endian = "big")]
    pub(super) _key: u32,
    pub(super) operation: u16,
    pub(super) _priority: i16,
    pub(super) file: u32,
    pub(super) buffer: u64,
    pub(super) length: u64,
    pub(super) offset: i64,
    pub(super) _reserved: u64,
    pub(super) flags: u32,
    pub(super) eventfd: u32,
}

const _: () = assert!(size_of::<Block>() == 64);

/// The operations, of [`Block::operation`].
pub(super) mod operation {
    pub(in crate::backend::kernel) const READ: u16 = 0;
    pub(in crate::backend::kernel) const WRITE: u16 = 1;
    pub(in crate::backend::kernel) const FSYNC: u16 = 2;
    pub(in crate::backend::kernel) const FDATASYNC: u16 = 3;
    pub(in crate::backend::kernel) const POLL: u16 = 5;
    pub(in crate::backend::kernel) const READV: u16 = 7;
    pub(in crate::backend::kernel) const WRITEV: u16 = 8;
}

/// Of [`Block::flags`]: completing adds one to the block's eventfd.
pub(super) const SIGNALS: u32 = 1;

/// A context of the kernel's: the address of its ring, which is also its name.
#[derive(Debug)]
pub(super) struct Aio(libc::c_ulong);

impl Aio {
    pub(super) fn new(capacity: u32) -> io::Result<Self> {
        let mut name: libc::c_ulong = 0;
        // SAFETY: `name` may be written, and is 0 as it has to be.
        count(unsafe { libc::syscall(libc::SYS_io_setup, capacity, &raw mut name) })?;
        Ok(Self(name))
    }

    /// What `RingView::of_kernel` wants.
    #[allow(clippy::useless_conversion, reason = "32 bits on some systems")]
    pub(super) fn name(&self) -> u64 {
        self.0.into()
    }

    /// Hands requests over, first to last, and returns how many were taken, at least 1. Waits where an operation does
    /// that the kernel cannot carry out asynchronously.
    ///
    /// # Errors
    ///
    /// Why the first was not taken.
    ///
    /// # Safety
    ///
    /// 1. Each block may be read and written until this returns or its event is there.
    /// 2. Its file stays open until this returns; its buffers, and vectors of them, stay valid and nobody else's until
    ///    its event is there.
    pub(super) unsafe fn submit(&self, blocks: &[*mut Block]) -> io::Result<usize> {
        // SAFETY: so many pointers may be read; what they lead to is the caller's.
        count(unsafe { libc::syscall(libc::SYS_io_submit, self.0, blocks.len(), blocks.as_ptr()) })
    }

    /// Asks for the early end of a request, if the kernel has it and can. Its event comes in any case. Does not wait.
    ///
    /// # Safety
    ///
    /// 1. The block may be read.
    pub(super) unsafe fn cancel(&self, block: *const Block) {
        let mut unused = Event::default();
        // SAFETY: 1., and there is room for an event, though the kernel has not written one for long.
        unsafe { libc::syscall(libc::SYS_io_cancel, self.0, block, &raw mut unused) };
    }

    /// Takes events out, without waiting; returns how many.
    pub(super) fn events(&self, out: &mut [Event]) -> usize {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: so many events may be written, and look like the kernel's; the time is read.
        let taken = unsafe {
            let (least, most) = (0 as libc::c_long, out.len() as libc::c_long);
            let out: *mut Event = out.as_mut_ptr();
            libc::syscall(libc::SYS_io_getevents, self.0, least, most, out, ptr::from_ref(&at_once))
        };
        // Fails in a child of the process, which has no such context.
        count(taken).unwrap_or(0)
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // SAFETY: ours, and not used again. In a child of the process it is no context, and nothing happens.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

/// What a system call returned.
fn count(returned: libc::c_long) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}
