//! What is done where: [`Way`].

use super::flight::Step;
use crate::aio::{FileRef, Op, Request};
use crate::backend::now::{Now, try_now};
use crate::backend::threads::sys::{is_direct, try_cached};
use rustix::fs::{AtFlags, FileType, StatxFlags, statx};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Weak;

/// For how many files a thread keeps what kind they are.
const FILES: usize = 8;

thread_local! {
    static KINDS: [Cell<Option<Kind>>; FILES] = const { [const { Cell::new(None) }; FILES] };
}

/// A file, and what `is_waited_for` says of it.
struct Kind {
    file: Weak<File>,
    waited_for: bool,
}

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
            return match inline_cached.then(|| try_now(request, false)) {
                Some(Now::Done(result)) => Self::Done(result),
                _ => Self::Kernel(Step::Wait),
            };
        }
        // A direct read would be done here and now, however long it takes.
        if reads && inline_cached && !file.with_file(is_direct) {
            // What is not cached the kernel would wait for in the system call.
            return try_cached(request).map_or(Self::Pool, Self::Done);
        }
        Self::Kernel(Step::Whole)
    }
}

/// Whether reading and writing may wait for something else than a disk, and be it for ever: pipes, sockets, terminals.
///
/// Asking takes longer than the rest of what is done for a request. A shared file is asked once: as long as the answer is
/// kept no other comes to be at its address.
fn is_waited_for(file: &FileRef) -> bool {
    let known = |kinds: &[Cell<Option<Kind>>; FILES]| {
        let place = &kinds[file.as_fd().as_raw_fd() as usize % FILES];
        let kind = match place.take().filter(|kind| file.is(&kind.file)) {
            Some(kind) => kind,
            None => Kind { file: file.identity()?, waited_for: ask(file) },
        };
        let waited_for = kind.waited_for;
        place.set(Some(kind));
        Some(waited_for)
    };
    KINDS.try_with(known).ok().flatten().unwrap_or_else(|| ask(file))
}

fn ask(file: &FileRef) -> bool {
    // Without asking a server that the file may be on.
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    statx(file, "", flags, StatxFlags::TYPE).map_or(true, |stat| {
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        !matches!(kind, FileType::RegularFile | FileType::BlockDevice)
    })
}
