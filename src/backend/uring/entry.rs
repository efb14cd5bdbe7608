//! Requests as the kernel wants them: [`Known::prepare`].

use super::UringError;
use super::registered::Registered;
use crate::aio::{Buffer, Completion, FileRef, Op};
use io_uring::types::FsyncFlags;
use io_uring::{IoUring, Probe, opcode, squeue};
use std::io;

/// What the kernel is told of a vectored request; it may read that for as long as the request runs.
#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Read by the kernel alone.
    _list: Box<[libc::iovec]>,
}

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

    /// A plain read as an entry of a ring: what [`prepare`](Self::prepare) makes of it. `None` for all else.
    ///
    /// Inlined, so that its fields go straight to the ring. In pieces, and then copied as a whole, they would be waited
    /// for: that was half of what it takes to put a request there.
    #[inline(always)]
    pub(super) fn prepare_read(
        self,
        work: &mut Completion,
        registered: &Registered,
    ) -> Option<squeue::Entry> {
        let id = work.id().into_raw();
        match &mut work.request_mut().op {
            Op::Read { file, buf, offset } if !registered.has(buf) && self.has(opcode::Read::CODE) => {
                let (fd, how) = registered.place(file);
                let entry = opcode::Read::new(fd, buf.as_mut_ptr(), length(buf)).offset(*offset);
                Some(entry.build().flags(how).user_data(id))
            }
            _ => None,
        }
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
        let mut list: Box<[libc::iovec]> = Box::default();
        let on = |file| registered.place(file);
        let (code, entry, how) = match &mut work.request_mut().op {
            Op::Read { file, buf, offset } => {
                let ((fd, how), at, len) = (on(file), buf.as_mut_ptr(), length(buf));
                if registered.has(buf) {
                    let entry = opcode::ReadFixed::new(fd, at, len, 0).offset(*offset);
                    (opcode::ReadFixed::CODE, entry.build(), how)
                } else {
                    let entry = opcode::Read::new(fd, at, len).offset(*offset);
                    (opcode::Read::CODE, entry.build(), how)
                }
            }
            Op::Write { file, buf, offset } => write(registered, file, buf, *offset, 0),
            // By a flag and not by a linked fsync: one entry and one completion, and the sync is of what was
            // written, be it short, where a link would be cut.
            Op::WriteDsync { file, buf, offset } => write(registered, file, buf, *offset, libc::RWF_DSYNC),
            Op::ReadV { file, bufs, offset } => {
                list = bufs.iter_mut().map(|buf| segment(buf.as_mut_ptr(), buf.len())).collect();
                let ((fd, how), at, n) = (on(file), list.as_ptr(), list.len() as u32);
                (opcode::Readv::CODE, opcode::Readv::new(fd, at, n).offset(*offset).build(), how)
            }
            Op::WriteV { file, bufs, offset } => {
                list = bufs.iter().map(|buf| segment(buf.as_ptr().cast_mut(), buf.len())).collect();
                let ((fd, how), at, n) = (on(file), list.as_ptr(), list.len() as u32);
                (opcode::Writev::CODE, opcode::Writev::new(fd, at, n).offset(*offset).build(), how)
            }
            Op::Fsync { file } => {
                let (fd, how) = on(file);
                (opcode::Fsync::CODE, opcode::Fsync::new(fd).build(), how)
            }
            Op::Fdatasync { file } => {
                let (fd, how) = on(file);
                (opcode::Fsync::CODE, opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(), how)
            }
            Op::Poll { file, interest } => {
                let ((fd, how), bits) = (on(file), interest.bits().into());
                (opcode::PollAdd::CODE, opcode::PollAdd::new(fd, bits).build(), how)
            }
            Op::Nop | Op::Custom(_) => return None,
        };
        self.has(code).then(|| (entry.flags(how).user_data(id), Segments { _list: list }))
    }
}

/// A write, with the flags of `pwritev2`.
fn write(
    registered: &Registered,
    file: &FileRef,
    buf: &Buffer,
    offset: u64,
    flags: i32,
) -> (u8, squeue::Entry, squeue::Flags) {
    let ((fd, how), at, len) = (registered.place(file), buf.as_ptr(), length(buf));
    if registered.has(buf) {
        let entry = opcode::WriteFixed::new(fd, at, len, 0).offset(offset).rw_flags(flags);
        (opcode::WriteFixed::CODE, entry.build(), how)
    } else {
        let entry = opcode::Write::new(fd, at, len).offset(offset).rw_flags(flags);
        (opcode::Write::CODE, entry.build(), how)
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
