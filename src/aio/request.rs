//! What is asked for, and what came of it: [`Request`], [`Op`], [`Event`].

use super::{Argument, RequestId};
use crate::sync::SharedFile;
use std::io;

/// The most buffers one vectored request can have: the kernel's `UIO_MAXIOV`.
pub const MAX_SEGMENTS: usize = 1024;

/// One operation, with everything it needs: its buffers and its file belong to it until its event has been
/// handed over.
///
/// It comes back whole, in an [`Event`] or in an error, and can be submitted again.
///
/// # Examples
///
/// ```
/// use ioctx::aio::Request;
/// let file = std::fs::File::open("/dev/null")?;
/// let request = Request::read(file, vec![0; 4096], 8192).with_user_data(42);
/// assert_eq!(request.user_data, 42);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub op: Op,
    /// The caller's word; never looked at.
    pub user_data: u64,
}

/// What a request does.
#[derive(Debug)]
#[non_exhaustive]
pub enum Op {
    /// Nothing. Completes with 0.
    Nop,
    /// Reads into `buf`, at most its length.
    Read {
        /// Open for reading.
        file: SharedFile,
        /// Filled from its start; its length is never changed.
        buf: Vec<u8>,
        /// In bytes from the start of the file. Ignored by files that cannot seek.
        offset: u64,
    },
    /// Writes `buf`.
    Write {
        /// Open for writing.
        file: SharedFile,
        /// What to write.
        buf: Vec<u8>,
        /// In bytes from the start of the file. Ignored by files that cannot seek.
        offset: u64,
    },
    /// Reads into one buffer after the other.
    ReadV {
        /// Open for reading.
        file: SharedFile,
        /// Filled in order; their lengths are never changed.
        bufs: Vec<Vec<u8>>,
        /// In bytes from the start of the file. Ignored by files that cannot seek.
        offset: u64,
    },
    /// Writes one buffer after the other.
    WriteV {
        /// Open for writing.
        file: SharedFile,
        /// What to write, in order.
        bufs: Vec<Vec<u8>>,
        /// In bytes from the start of the file. Ignored by files that cannot seek.
        offset: u64,
    },
    /// Brings the file's data and metadata to its device. Completes with 0.
    Fsync {
        /// Any open file.
        file: SharedFile,
    },
    /// Brings the file's data, and the metadata needed to read it, to its device. Completes with 0.
    Fdatasync {
        /// Any open file.
        file: SharedFile,
    },
}

impl Request {
    /// A request for `op`, with user data 0.
    pub fn new(op: Op) -> Self {
        Self { op, user_data: 0 }
    }

    /// [`Op::Nop`].
    pub fn nop() -> Self {
        Self::new(Op::Nop)
    }

    /// [`Op::Read`]: up to `buf.len()` bytes at `offset`.
    pub fn read(file: impl Into<SharedFile>, buf: Vec<u8>, offset: u64) -> Self {
        Self::new(Op::Read { file: file.into(), buf, offset })
    }

    /// [`Op::Write`]: all of `buf` to `offset`.
    pub fn write(file: impl Into<SharedFile>, buf: Vec<u8>, offset: u64) -> Self {
        Self::new(Op::Write { file: file.into(), buf, offset })
    }

    /// [`Op::ReadV`].
    pub fn readv(file: impl Into<SharedFile>, bufs: Vec<Vec<u8>>, offset: u64) -> Self {
        Self::new(Op::ReadV { file: file.into(), bufs, offset })
    }

    /// [`Op::WriteV`].
    pub fn writev(file: impl Into<SharedFile>, bufs: Vec<Vec<u8>>, offset: u64) -> Self {
        Self::new(Op::WriteV { file: file.into(), bufs, offset })
    }

    /// [`Op::Fsync`].
    pub fn fsync(file: impl Into<SharedFile>) -> Self {
        Self::new(Op::Fsync { file: file.into() })
    }

    /// [`Op::Fdatasync`].
    pub fn fdatasync(file: impl Into<SharedFile>) -> Self {
        Self::new(Op::Fdatasync { file: file.into() })
    }

    /// The same request with this user data.
    pub fn with_user_data(mut self, user_data: u64) -> Self {
        self.user_data = user_data;
        self
    }

    /// The buffer of a [`Read`](Op::Read) or [`Write`](Op::Write); `None` for any other operation.
    pub fn into_buffer(self) -> Option<Vec<u8>> {
        match self.op {
            Op::Read { buf, .. } | Op::Write { buf, .. } => Some(buf),
            _ => None,
        }
    }

    /// The buffers of a vectored operation; empty for any other.
    pub fn into_buffers(self) -> Vec<Vec<u8>> {
        match self.op {
            Op::ReadV { bufs, .. } | Op::WriteV { bufs, .. } => bufs,
            _ => Vec::new(),
        }
    }

    /// Whether the arguments make sense to every backend.
    pub(super) fn check(&self) -> Result<(), Argument> {
        let (segments, len, offset) = match &self.op {
            Op::Read { buf, offset, .. } | Op::Write { buf, offset, .. } => (1, buf.len() as u64, *offset),
            Op::ReadV { bufs, offset, .. } | Op::WriteV { bufs, offset, .. } => {
                (bufs.len(), bufs.iter().map(|buf| buf.len() as u64).fold(0, u64::saturating_add), *offset)
            }
            Op::Nop | Op::Fsync { .. } | Op::Fdatasync { .. } => return Ok(()),
        };
        if segments > MAX_SEGMENTS {
            return Err(Argument::Segments);
        }
        if len > isize::MAX as u64 {
            return Err(Argument::Length);
        }
        // The end must be a valid offset too: file offsets are signed.
        match offset.checked_add(len) {
            Some(end) if end <= i64::MAX as u64 => Ok(()),
            _ => Err(Argument::Offset),
        }
    }
}

/// What came of a request, and the request itself.
#[derive(Debug)]
pub struct Event {
    /// What [`submit`](super::Context::submit) has returned.
    pub id: RequestId,
    /// The request as it was submitted; a read has filled the front of its buffers.
    pub request: Request,
    /// Bytes transferred, which may be fewer than asked for, or why not.
    pub result: io::Result<usize>,
}
