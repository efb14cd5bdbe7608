//! What is known of a file, and what is asked of the system about one.

use crate::aio::{FileRef, Op, Readiness, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
// The standard library's in models too: see `SharedFile`.
use std::sync::Weak;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    In,
    Out,
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What is written at one end is read at the other.
    Pipe,
    Socket,
    /// Another one that can be ready or not, and may be able to seek.
    Other,
    /// A disk's, or one that cannot be asked not to wait.
    Threads,
}

impl Kind {
    /// Whether it cannot seek for certain.
    pub(super) fn is_stream(self) -> bool {
        matches!(self, Self::Pipe | Self::Socket)
    }
}

/// What tells a pipe from others.
pub(super) type Inode = (u32, u32, u64);

/// A file as it was last seen under this number.
#[derive(Debug)]
pub(super) struct Known {
    /// `None`: not ours, and so looked at each time.
    pub(super) identity: Option<Weak<File>>,
    pub(super) kind: Kind,
    pub(super) inode: Inode,
}

impl Known {
    /// Whether it is this file, for certain.
    pub(super) fn is(&self, file: &FileRef) -> bool {
        self.identity.as_ref().is_some_and(|identity| file.is(identity))
    }

    /// Which pipe it is, if it is one, and will be as long as a request for it waits.
    pub(super) fn pipe(&self) -> Option<Inode> {
        (self.kind == Kind::Pipe && self.identity.is_some()).then_some(self.inode)
    }
}

/// What kind of file it is, and which.
pub(super) fn ask(file: &FileRef) -> (Kind, Inode) {
    // Without asking a server that the file may be on.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let Ok(stat) = statx(file, "", flags, StatxFlags::TYPE | StatxFlags::INO) else {
        return (Kind::Other, (0, 0, 0));
    };
    let kind = match FileType::from_raw_mode(stat.stx_mode.into()) {
        FileType::RegularFile | FileType::BlockDevice | FileType::Directory => Kind::Threads,
        FileType::Fifo => Kind::Pipe,
        FileType::Socket => Kind::Socket,
        _ => Kind::Other,
    };
    (kind, (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
}

/// What a file is ready for, of `interest`; nothing if that cannot be said.
pub(super) fn look(number: RawFd, interest: Readiness) -> u16 {
    // SAFETY: as in `Place::arm`.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::from_bits_retain(interest.bits() as _))];
    let _ = poll(&mut fds, Some(&Timespec::default()));
    let ready = fds[0].revents();
    if ready.contains(PollFlags::NVAL) { 0 } else { ready.bits() }
}

/// The file that a request reads or writes.
pub(super) fn file(request: &Request) -> Option<&FileRef> {
    match &request.op {
        Op::Read { file, .. } | Op::ReadV { file, .. } => Some(file),
        Op::Write { file, .. } | Op::WriteDsync { file, .. } | Op::WriteV { file, .. } => Some(file),
        Op::Poll { file, .. } => Some(file),
        _ => None,
    }
}

/// How many bytes a request is to move.
pub(super) fn length(request: &Request) -> usize {
    match &request.op {
        Op::Read { buf, .. } => buf.len(),
        Op::Write { buf, .. } | Op::WriteDsync { buf, .. } => buf.len(),
        Op::ReadV { bufs, .. } => bufs.iter().map(|buf| buf.len()).sum(),
        Op::WriteV { bufs, .. } => bufs.iter().map(|buf| buf.len()).sum(),
        _ => 0,
    }
}
