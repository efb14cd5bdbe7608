//! What is done where: [`Way`].

use super::flight::Step;
use crate::aio::{FileRef, Op, Request};
use crate::backend::threads::sys::try_cached;
use rustix::fs::{AtFlags, FileType, OFlags, StatxFlags, fcntl_getfl, statx};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use std::io::{self, IoSlice, IoSliceMut};

/// How a request is carried out.
pub(super) enum Way {
    /// It is done.
    Done(io::Result<usize>),
    /// By the kernel.
    Kernel(Step),
    /// By a thread that waits.
    Pool,
}

impl Way {
    pub(super) fn of(request: &mut Request, inline_cached: bool) -> Self {
        let (file, reads) = match &request.op {
            Op::Nop => return Self::Done(Ok(0)),
            Op::Custom(_) => return Self::Pool,
            Op::Fsync { .. } | Op::Fdatasync { .. } => return Self::Kernel(Step::Whole),
            Op::Poll { .. } => {
                let look = inline_cached.then(|| try_cached(request)).flatten();
                return look.map_or(Self::Kernel(Step::Whole), Self::Done);
            }
            Op::Read { file, .. } | Op::ReadV { file, .. } => (file, true),
            Op::Write { file, .. } | Op::WriteDsync { file, .. } | Op::WriteV { file, .. } => (file, false),
        };
        if is_waited_for(file) {
            return match inline_cached.then(|| try_now(request)) {
                Some(Now::Done(result)) => Self::Done(result),
                _ => Self::Kernel(Step::Wait),
            };
        }
        // A direct read would be done here and now, however long it takes.
        if reads && inline_cached && !is_direct(file) {
            // What is not cached the kernel would wait for in the system call.
            return try_cached(request).map_or(Self::Pool, Self::Done);
        }
        Self::Kernel(Step::Whole)
    }
}

/// What came of trying to read or write without waiting.
pub(super) enum Now {
    Done(io::Result<usize>),
    Waits,
    /// The file does not do that.
    Unknown,
}

/// Reads or writes, if that takes no waiting.
pub(super) fn try_now(request: &mut Request) -> Now {
    const NOW: ReadWriteFlags = ReadWriteFlags::NOWAIT;
    let result = match &mut request.op {
        Op::Read { file, buf, offset } => {
            seekless(*offset, |at| preadv2(&*file, &mut [IoSliceMut::new(buf)], at, NOW))
        }
        Op::Write { file, buf, offset } => {
            seekless(*offset, |at| pwritev2(&*file, &[IoSlice::new(buf)], at, NOW))
        }
        Op::WriteDsync { file, buf, offset } => {
            seekless(*offset, |at| pwritev2(&*file, &[IoSlice::new(buf)], at, NOW | ReadWriteFlags::DSYNC))
        }
        Op::ReadV { file, bufs, offset } => {
            let mut slices: Vec<_> = bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
            seekless(*offset, |at| preadv2(&*file, &mut slices, at, NOW))
        }
        Op::WriteV { file, bufs, offset } => {
            let slices: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
            seekless(*offset, |at| pwritev2(&*file, &slices, at, NOW))
        }
        _ => Err(Errno::OPNOTSUPP),
    };
    match result {
        Err(Errno::AGAIN | Errno::INTR) => Now::Waits,
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Now::Unknown,
        done => Now::Done(done.map_err(io::Error::from)),
    }
}

/// What a file that cannot seek answers is done again without the offset.
fn seekless(
    offset: u64,
    mut call: impl FnMut(u64) -> rustix::io::Result<usize>,
) -> rustix::io::Result<usize> {
    // −1 is where the file is.
    call(offset).or_else(|error| if error == Errno::SPIPE { call(u64::MAX) } else { Err(error) })
}

/// Whether reading and writing may wait for something else than a disk, and be it for ever: pipes, sockets, terminals.
fn is_waited_for(file: &FileRef) -> bool {
    // Without asking a server that the file may be on.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    statx(file, "", flags, StatxFlags::TYPE).map_or(true, |stat| {
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        !matches!(kind, FileType::RegularFile | FileType::BlockDevice)
    })
}

fn is_direct(file: &FileRef) -> bool {
    fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::DIRECT))
}
