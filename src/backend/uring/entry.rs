//! Requests as the kernel wants them: [`Known::prepare`].

use super::UringError;
use crate::aio::{Completion, FileRef, Op};
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, Probe, opcode, squeue};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// What the kernel is told of a vectored request; it may read that for as long as the request runs.
#[derive(Debug, Default)]
pub(super) struct Segments(Vec<libc::iovec>);

// SAFETY: pointers to buffers whose request goes with them; nothing is done with them here.
unsafe impl Send for Segments {}

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
    pub(super) fn prepare(self, work: &mut Completion) -> Option<(squeue::Entry, Segments)> {
        let id = work.id().into_raw();
        let mut segments = Segments::default();
        let list = &mut segments.0;
        let (code, entry) = match &mut work.request_mut().op {
            Op::Read { file, buf, offset } => {
                let entry = opcode::Read::new(fd(file), buf.as_mut_ptr(), length(buf)).offset(*offset);
                (opcode::Read::CODE, entry.build())
            }
            Op::Write { file, buf, offset } => {
                let entry = opcode::Write::new(fd(file), buf.as_ptr(), length(buf)).offset(*offset);
                (opcode::Write::CODE, entry.build())
            }
            // By a flag and not by a linked fsync: one entry and one completion, and the sync is of what was
            // written, be it short, where a link would be cut.
            Op::WriteDsync { file, buf, offset } => {
                let entry = opcode::Write::new(fd(file), buf.as_ptr(), length(buf)).offset(*offset);
                (opcode::Write::CODE, entry.rw_flags(libc::RWF_DSYNC).build())
            }
            Op::ReadV { file, bufs, offset } => {
                list.extend(bufs.iter_mut().map(|buf| segment(buf.as_mut_ptr(), buf.len())));
                let entry = opcode::Readv::new(fd(file), list.as_ptr(), list.len() as u32).offset(*offset);
                (opcode::Readv::CODE, entry.build())
            }
            Op::WriteV { file, bufs, offset } => {
                list.extend(bufs.iter().map(|buf| segment(buf.as_ptr().cast_mut(), buf.len())));
                let entry = opcode::Writev::new(fd(file), list.as_ptr(), list.len() as u32).offset(*offset);
                (opcode::Writev::CODE, entry.build())
            }
            Op::Fsync { file } => (opcode::Fsync::CODE, opcode::Fsync::new(fd(file)).build()),
            Op::Fdatasync { file } => {
                let entry = opcode::Fsync::new(fd(file)).flags(FsyncFlags::DATASYNC);
                (opcode::Fsync::CODE, entry.build())
            }
            Op::Poll { file, interest } => {
                (opcode::PollAdd::CODE, opcode::PollAdd::new(fd(file), interest.bits().into()).build())
            }
            Op::Nop | Op::Custom(_) => return None,
        };
        self.has(code).then(|| (entry.user_data(id), segments))
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

fn fd(file: &FileRef) -> Fd {
    Fd(file.as_fd().as_raw_fd())
}

/// More than this the kernel does not transfer at once, and so the rest of it is a short transfer.
fn length(buf: &[u8]) -> u32 {
    buf.len().min(0x7fff_f000) as u32
}

fn segment(base: *mut u8, len: usize) -> libc::iovec {
    libc::iovec { iov_base: base.cast(), iov_len: len }
}
