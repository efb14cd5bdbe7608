//! A part of a request, and how far it is: [`Piece`].

use super::align::Align;
use super::bounce::Bounce;
use crate::aio::{Buffer, BufferMut, FileRef, Op, Request};
use crate::sync::SharedFile;
use rustix::fs::{OFlags, fcntl_getfl};
use rustix::io::Errno;
use std::fs::File;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::{io, slice};

/// What is to be done with a range of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    /// To the device.
    WriteDsync,
}

/// How it gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// From and to the caller's memory.
    Straight,
    /// By a buffer that is aligned.
    Bounced,
    /// Through the page cache: the unaligned end of a write.
    Cached,
}

/// The caller's memory: as many bytes as the range of the file that goes with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory(pub(super) *mut u8);

// SAFETY: a pointer into the buffers of a request that is kept until its last piece has ended, each piece to bytes of
// its own.
unsafe impl Send for Memory {}

/// A request that is cut into pieces, and what is left of it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) kind: Kind,
    pub(super) align: Align,
    pub(super) memory: Memory,
    pub(super) left: Range<u64>,
}

impl Plan {
    /// The next piece, of at most `most` bytes, a multiple of what is needed.
    pub(super) fn next(&mut self, most: u64) -> Option<Piece> {
        if self.left.is_empty() {
            return None;
        }
        let unit = if self.kind == Kind::Read { self.align.read } else { self.align.write };
        let (start, whole) = (self.left.start, self.left.end - self.left.end % unit);
        let aligned = start.is_multiple_of(unit) && start < whole;
        let end = if aligned {
            whole.min(start + most)
        } else {
            self.left.end.min((start + 1).next_multiple_of(unit))
        };
        let in_place = self.memory.0.addr().is_multiple_of(self.align.memory);
        let route = match (aligned, self.kind) {
            (true, _) if in_place => Route::Straight,
            (true, _) | (false, Kind::Read) => Route::Bounced,
            (false, _) => Route::Cached,
        };
        let piece = Piece {
            kind: self.kind,
            route,
            unit,
            memory: self.memory,
            left: start..end,
            done: 0,
            bounce: None,
        };
        self.left.start = end;
        self.memory = piece.after(end - start);
        Some(piece)
    }
}

/// A part of a request: which bytes are still to be transferred, and where they are. What an I/O descriptor is to a
/// driver: it goes on where a short transfer has ended.
#[derive(Debug)]
pub(super) struct Piece {
    kind: Kind,
    pub(super) route: Route,
    unit: u64,
    memory: Memory,
    left: Range<u64>,
    pub(super) done: usize,
    /// For those that need one, from its hand-out on.
    pub(super) bounce: Option<Bounce>,
}

/// What is to be done about a piece.
#[derive(Debug)]
pub(super) enum Next {
    /// The rest of it.
    Rest,
    /// Nothing more: it is whole, or the file has ended, or this has.
    End(Option<io::Error>),
}

impl Piece {
    pub(super) fn len(&self) -> usize {
        (self.left.end - self.left.start) as usize
    }

    fn after(&self, bytes: u64) -> Memory {
        // Not beyond the end of what goes with `left`.
        Memory(self.memory.0.wrapping_add(bytes as usize))
    }

    /// The range that is transferred, for what is left: more than that if only blocks can be read.
    fn range(&self) -> Range<u64> {
        match self.route {
            Route::Bounced => {
                self.left.start - self.left.start % self.unit..self.left.end.next_multiple_of(self.unit)
            }
            Route::Straight | Route::Cached => self.left.clone(),
        }
    }

    /// The request for what is left.
    ///
    /// # Safety
    ///
    /// 1. The caller's memory, this piece's buffer, and the file of this number are kept until the request has ended,
    ///    and nobody else uses that memory.
    pub(super) unsafe fn request(&mut self, fd: RawFd, cached: Option<&SharedFile>) -> Request {
        let range = self.range();
        let file = match cached {
            Some(file) => FileRef::from(SharedFile::clone(file)),
            // SAFETY: by 1.; not −1, as it is open.
            None => unsafe { FileRef::borrowed(BorrowedFd::borrow_raw(fd)) },
        };
        let (offset, len) = (range.start, (range.end - range.start) as usize);
        let ptr = match &mut self.bounce {
            None => self.memory.0,
            Some(bounce) => {
                if self.kind != Kind::Read {
                    // SAFETY: by 1. Of writes only whole blocks are bounced, so that the two ranges are one.
                    bounce[..len].copy_from_slice(unsafe { slice::from_raw_parts(self.memory.0, len) });
                }
                bounce[..len].as_mut_ptr()
            }
        };
        // SAFETY: 1. and 2. by 1.
        let read = || unsafe { BufferMut::from_raw_parts(ptr, len) };
        // SAFETY: as above.
        let write = || unsafe { Buffer::from_raw_parts(ptr, len) };
        Request::new(match self.kind {
            Kind::Read => Op::Read { file, buf: read(), offset },
            Kind::Write => Op::Write { file, buf: write(), offset },
            Kind::WriteDsync => Op::WriteDsync { file, buf: write(), offset },
        })
    }

    /// Takes in that so many bytes have been transferred, and what was wrong. Returns what comes next.
    ///
    /// # Safety
    ///
    /// 1. As 1. of [`request`](Self::request), which has ended.
    pub(super) unsafe fn take(&mut self, bytes: usize, error: Option<io::Error>) -> Next {
        let range = self.range();
        let skip = (self.left.start - range.start) as usize;
        let useful = bytes.saturating_sub(skip).min(self.len());
        if let (Kind::Read, Some(bounce)) = (self.kind, &self.bounce) {
            let from = &bounce[skip..skip + useful];
            // SAFETY: by 1. the memory is there, and nobody else uses it.
            unsafe { self.memory.0.copy_from_nonoverlapping(from.as_ptr(), useful) };
        }
        self.memory = self.after(useful as u64);
        self.left.start += useful as u64;
        self.done += useful;
        // One that ends within a block has met the end of the file.
        let within = self.route != Route::Cached && !(bytes as u64).is_multiple_of(self.unit);
        if error.is_some() || self.left.is_empty() || useful == 0 || within {
            Next::End(error)
        } else {
            Next::Rest
        }
    }
}

/// Opens the file once more, to be written through the page cache; for nothing that it was not opened for.
pub(super) fn cached(fd: BorrowedFd<'_>) -> io::Result<SharedFile> {
    let flags = fcntl_getfl(fd)?;
    if flags & OFlags::ACCMODE == OFlags::RDONLY {
        return Err(Errno::BADF.into());
    }
    let keep = (flags & (OFlags::DSYNC | OFlags::SYNC)).bits();
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    Ok(SharedFile::new(File::options().write(true).custom_flags(keep as i32).open(path)?))
}
