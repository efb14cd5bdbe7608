//! What is asked for, and what came of it: [`Request`], [`Op`], [`Event`].

use super::{Argument, Buffer, BufferMut, Custom, FileRef, IoBuf, Operation, Readiness, RequestId};
use std::io;
use std::ops::Deref;

/// The most buffers one vectored request can have: the kernel's `UIO_MAXIOV`.
pub const MAX_SEGMENTS: usize = 1024;

/// One operation, with everything it needs: its buffers and its file belong to it until its event has been
/// handed over.
///
/// It comes back whole, in an [`Event`] or in an error, and can be submitted again. Making one neither waits
/// nor allocates, but for what [`FileRef`] and [`IoBuf`] say of their kinds, for vectors of buffers and for
/// boxed operations.
///
/// There is an `unsafe` form of files and buffers, for those who keep descriptors and memory valid
/// themselves: [`FileRef::borrowed`], [`Buffer::from_raw_parts`], [`BufferMut::from_raw_parts`].
///
/// # Examples
///
/// ```
/// use ioctx::aio::Request;
/// let file = std::fs::File::open("/dev/null")?;
/// let request = Request::read(file, vec![0; 4096], 8192).with_user_data(42);
/// assert_eq!(request.user_data, 42);
/// let buffer: Vec<u8> = request.into_buffer().unwrap();
/// assert_eq!(buffer.len(), 4096);
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub op: Op,
    /// The caller's word; never looked at.
    pub user_data: u64,
}

// A cache line: a slot has as much left for what the context knows of it.
const _: () = assert!(size_of::<Request>() <= 64);

/// What a request does.
// A whole word says which, since requests are moved word by word: what was just stored in part would have to leave the
// store buffer before it could be loaded.
#[derive(Debug)]
#[non_exhaustive]
#[repr(u64)]
pub enum Op {
    /// Nothing. Completes with 0.
    Nop,
    /// Reads into `buf`, at most its length.
    Read {
        /// Open for reading.
        file: FileRef,
        /// Filled from its start; its length is never changed.
        buf: BufferMut,
        /// In bytes from the start of the file. Ignored by files that cannot seek.
        offset: u64,
    },
    /// Writes `buf`.
    Write {
        /// Open for writing.
        file: FileRef,
        /// What to write.
        buf: Buffer,
        /// In bytes from the start of the file. Ignored by files that cannot seek.
        offset: u64,
    },
    /// Writes `buf` and brings it to the device, with the metadata needed to read it, before it completes: one request
    /// for a write and the [`Fdatasync`](Op::Fdatasync) that has to follow it, as `O_DSYNC` has it.
    ///
    /// What the event counts as written is on the device, also if that is less than all; an error says that nothing
    /// need be. Nothing is said of other writes to the file. What has no device, a pipe or a socket, is just written.
    WriteDsync {
        /// Open for writing.
        file: FileRef,
        /// What to write.
        buf: Buffer,
        /// In bytes from the start of the file. Ignored by files that cannot seek.
        offset: u64,
    },
    /// Reads into one buffer after the other.
    ReadV {
        /// Open for reading.
        file: FileRef,
        /// Filled in order; their lengths are never changed.
        bufs: Vec<BufferMut>,
        /// In bytes from the start of the file. Ignored by files that cannot seek.
        offset: u64,
    },
    /// Writes one buffer after the other.
    WriteV {
        /// Open for writing.
        file: FileRef,
        /// What to write, in order.
        bufs: Vec<Buffer>,
        /// In bytes from the start of the file. Ignored by files that cannot seek.
        offset: u64,
    },
    /// Brings the file's data and metadata to its device. Completes with 0.
    Fsync {
        /// Any open file.
        file: FileRef,
    },
    /// Brings the file's data, and the metadata needed to read it, to its device. Completes with 0.
    Fdatasync {
        /// Any open file.
        file: FileRef,
    },
    /// Waits until the file is ready. Completes, once, with the bits of what it is ready for:
    /// [`Readiness::from_result`].
    Poll {
        /// A pipe, a socket, a terminal; regular files are always ready.
        file: FileRef,
        /// For any of these. Errors and the end of a connection are reported without being asked for.
        interest: Readiness,
    },
    /// An operation of the user's own. Only some backends carry it out; the others refuse it, or their events say
    /// `EOPNOTSUPP`.
    Custom(Custom),
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

    /// [`Op::Read`]: up to the buffer's length at `offset`.
    pub fn read(file: impl Into<FileRef>, buf: impl Into<BufferMut>, offset: u64) -> Self {
        Self::new(Op::Read { file: file.into(), buf: buf.into(), offset })
    }

    /// [`Op::Write`]: all of the buffer to `offset`.
    pub fn write(file: impl Into<FileRef>, buf: impl Into<Buffer>, offset: u64) -> Self {
        Self::new(Op::Write { file: file.into(), buf: buf.into(), offset })
    }

    /// [`Op::WriteDsync`]: all of the buffer to `offset`, and to the device.
    ///
    /// ```
    /// use ioctx::{Context, Request, backend::Threads};
    /// let context = Context::new(4, Threads::new(1)?)?;
    /// context.submit(Request::write_dsync(tempfile::tempfile()?, b"committed".to_vec(), 0))?;
    /// context.visit(1, 1, None, |event| assert_eq!(event.result().unwrap(), 9))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_dsync(file: impl Into<FileRef>, buf: impl Into<Buffer>, offset: u64) -> Self {
        Self::new(Op::WriteDsync { file: file.into(), buf: buf.into(), offset })
    }

    /// [`Op::ReadV`], into buffers of one type or, as [`BufferMut`], of several.
    pub fn readv<T: Into<BufferMut>>(
        file: impl Into<FileRef>,
        bufs: impl IntoIterator<Item = T>,
        offset: u64,
    ) -> Self {
        Self::new(Op::ReadV { file: file.into(), bufs: bufs.into_iter().map(Into::into).collect(), offset })
    }

    /// [`Op::WriteV`], from buffers of one type or, as [`Buffer`], of several.
    pub fn writev<T: Into<Buffer>>(
        file: impl Into<FileRef>,
        bufs: impl IntoIterator<Item = T>,
        offset: u64,
    ) -> Self {
        Self::new(Op::WriteV { file: file.into(), bufs: bufs.into_iter().map(Into::into).collect(), offset })
    }

    /// [`Op::Fsync`].
    pub fn fsync(file: impl Into<FileRef>) -> Self {
        Self::new(Op::Fsync { file: file.into() })
    }

    /// [`Op::Fdatasync`].
    pub fn fdatasync(file: impl Into<FileRef>) -> Self {
        Self::new(Op::Fdatasync { file: file.into() })
    }

    /// [`Op::Poll`].
    pub fn poll(file: impl Into<FileRef>, interest: Readiness) -> Self {
        Self::new(Op::Poll { file: file.into(), interest })
    }

    /// [`Op::Custom`].
    pub fn custom(operation: impl Operation) -> Self {
        Self::new(Op::Custom(Custom::new(operation)))
    }

    /// The same request with this user data.
    pub fn with_user_data(mut self, user_data: u64) -> Self {
        self.user_data = user_data;
        self
    }

    /// The buffer of a [`Read`](Op::Read), [`Write`](Op::Write) or [`WriteDsync`](Op::WriteDsync), as what it was made
    /// of.
    ///
    /// # Errors
    ///
    /// The request: it does something else, or its buffer is no `T`.
    pub fn into_buffer<T: IoBuf>(self) -> Result<T, Self> {
        match self.op {
            Op::Read { buf, .. } if buf.is::<T>() => Ok(expect(buf)),
            Op::Write { buf, .. } | Op::WriteDsync { buf, .. } if buf.is::<T>() => Ok(expect(buf)),
            _ => Err(self),
        }
    }

    /// The buffers of a vectored operation, as what they were made of.
    ///
    /// # Errors
    ///
    /// The request: it does something else, or not all of its buffers are `T`s.
    pub fn into_buffers<T: IoBuf>(self) -> Result<Vec<T>, Self> {
        match self.op {
            Op::ReadV { bufs, .. } if bufs.iter().all(|buf| buf.is::<T>()) => {
                Ok(bufs.into_iter().map(expect).collect())
            }
            Op::WriteV { bufs, .. } if bufs.iter().all(Buffer::is::<T>) => {
                Ok(bufs.into_iter().map(expect).collect())
            }
            _ => Err(self),
        }
    }

    /// Whether the arguments make sense to every backend.
    pub(super) fn check(&self) -> Result<(), Argument> {
        fn total<B: Deref<Target = [u8]>>(bufs: &[B]) -> u64 {
            bufs.iter().map(|buf| buf.len() as u64).fold(0, u64::saturating_add)
        }
        let (segments, len, offset) = match &self.op {
            Op::Read { buf, offset, .. } => (1, buf.len() as u64, *offset),
            Op::Write { buf, offset, .. } | Op::WriteDsync { buf, offset, .. } => {
                (1, buf.len() as u64, *offset)
            }
            Op::ReadV { bufs, offset, .. } => (bufs.len(), total(bufs), *offset),
            Op::WriteV { bufs, offset, .. } => (bufs.len(), total(bufs), *offset),
            Op::Nop | Op::Fsync { .. } | Op::Fdatasync { .. } | Op::Poll { .. } | Op::Custom(_) => {
                return Ok(());
            }
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

/// The owner of a buffer that was just found to be a `T`.
fn expect<T: IoBuf>(buf: impl Into<Buffer>) -> T {
    buf.into().downcast().expect("looked at before")
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
