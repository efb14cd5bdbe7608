//! Requests as the kernel wants them: [`Known::prepare`].

use super::UringError;
use super::registered::Registered;
use crate::aio::{Buffer, Completion, FileRef, Op};
use io_uring::types::{Fd, Fixed, FsyncFlags};
use io_uring::{IoUring, Probe, opcode, squeue};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What the kernel is told of a vectored request; it may read that for as long as the request runs.
#[derive(Debug, Default)]
pub(super) struct Segments(Vec<libc::iovec>);

// SAFETY: pointers to buffers whose request goes with them; nothing is done with them here.
unsafe impl Send for Segments {}

/// An entry for a file: by its index, if it is registered.
macro_rules! on {
    ($registered:expr, $file:expr, $fd:ident => $entry:expr) => {
        match $registered.file($file) {
            Some(index) => {
                let $fd = Fixed(index);
                $entry.build()
            }
            None => {
                let $fd = Fd($file.as_fd().as_raw_fd());
                $entry.build()
            }
        }
    };
}

/// The operations that the kernel knows: a bit for each code.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known(u64);

impl Known {
    /// Asks the kernel. What is needed to cancel has to be there.
    pub(super) fn ask(io: &IoUring) -> Result<Self, UringError> {
        let mut probe = Probe::new();
        match io.submitter().register_probe(&mut probe) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                return Err(UringError::TooOld("list of its operations"));
            }
            probed => probed?,
        }
        let known =
            Self((0..64).filter(|code| probe.is_supported(*code)).fold(0, |bits, code| bits | 1 << code));
        if known.has(opcode::AsyncCancel::CODE) { Ok(known) } else { Err(UringError::TooOld("cancelling")) }
    }

    fn has(self, code: u8) -> bool {
        self.0 >> code & 1 == 1
    }

    /// The request as an entry of a ring. `None` if the kernel cannot carry it out, or need not.
    ///
    /// The entry points to the request's buffers and to the segments: it is good for as long as both stay.
    pub(super) fn prepare(
        self,
        work: &mut Completion,
        registered: &Registered,
    ) -> Option<(squeue::Entry, Segments)> {
        let id = work.id().into_raw();
        let mut segments = Segments::default();
        let list = &mut segments.0;
        let (code, entry) = match &mut work.request_mut().op {
            Op::Read { file, buf, offset } => {
                let (at, len) = (buf.as_mut_ptr(), length(buf));
                if registered.has(buf) {
                    let entry =
                        on!(registered, file, fd => opcode::ReadFixed::new(fd, at, len, 0).offset(*offset));
                    (opcode::ReadFixed::CODE, entry)
                } else {
                    (
                        opcode::Read::CODE,
                        on!(registered, file, fd => opcode::Read::new(fd, at, len).offset(*offset)),
                    )
                }
            }
            Op::Write { file, buf, offset } => write(registered, file, buf, *offset, 0),
            // By a flag and not by a linked fsync: one entry and one completion, and the sync is of what was
            // written, be it short, where a link would be cut.
            Op::WriteDsync { file, buf, offset } => write(registered, file, buf, *offset, libc::RWF_DSYNC),
            Op::ReadV { file, bufs, offset } => {
                list.extend(bufs.iter_mut().map(|buf| segment(buf.as_mut_ptr(), buf.len())));
                let (at, n) = (list.as_ptr(), list.len() as u32);
                (
                    opcode::Readv::CODE,
                    on!(registered, file, fd => opcode::Readv::new(fd, at, n).offset(*offset)),
                )
            }
            Op::WriteV { file, bufs, offset } => {
                list.extend(bufs.iter().map(|buf| segment(buf.as_ptr().cast_mut(), buf.len())));
                let (at, n) = (list.as_ptr(), list.len() as u32);
                (
                    opcode::Writev::CODE,
                    on!(registered, file, fd => opcode::Writev::new(fd, at, n).offset(*offset)),
                )
            }
            Op::Fsync { file } => (opcode::Fsync::CODE, on!(registered, file, fd => opcode::Fsync::new(fd))),
            Op::Fdatasync { file } => (
                opcode::Fsync::CODE,
                on!(registered, file, fd => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC)),
            ),
            Op::Poll { file, interest } => {
                let bits = interest.bits().into();
                (opcode::PollAdd::CODE, on!(registered, file, fd => opcode::PollAdd::new(fd, bits)))
            }
            Op::Nop | Op::Custom(_) => return None,
        };
        self.has(code).then(|| (entry.user_data(id), segments))
    }
}

/// A write, with the flags of `pwritev2`.
fn write(
    registered: &Registered,
    file: &FileRef,
    buf: &Buffer,
    offset: u64,
    how: i32,
) -> (u8, squeue::Entry) {
    let (at, len) = (buf.as_ptr(), length(buf));
    if registered.has(buf) {
        let entry = on!(registered, file, fd => {
            opcode::WriteFixed::new(fd, at, len, 0).offset(offset).rw_flags(how)
        });
        (opcode::WriteFixed::CODE, entry)
    } else {
        let entry = on!(registered, file, fd => opcode::Write::new(fd, at, len).offset(offset).rw_flags(how));
        (opcode::Write::CODE, entry)
    }
}

/// What the kernel's answer means.
pub(super) fn result(op: &Op, res: i32) -> io::Result<usize> {
    match (usize::try_from(res), op) {
        // Sixteen bits, as `poll` gives them.
        (Ok(ready), Op::Poll { .. }) => Ok(ready & 0xffff),
        (Ok(n), _) => Ok(n),
        (Err(_), _) => Err(io::Error::from_raw_os_error(-res)),
    }
}

/// More than this the kernel does not transfer at once, and so the rest of it is a short transfer.
fn length(buf: &[u8]) -> u32 {
    buf.len().min(0x7fff_f000) as u32
}

fn segment(base: *mut u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: base.cast(), iov_len: len }
}
