//! Large direct reads and writes, in parts: [`Direct`].

mod align;
mod bounce;
mod piece;
mod pump;

use crate::aio::{Backend, Below, Completion, CreateError, Finished, Op, RequestId, Submitted};
use crate::fanin::FanIn;
use crate::sync::Arc;
use align::Align;
use piece::{Kind, Memory, Plan};
use pump::{Carried, Entry, Pump};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// Bytes of a part, unless said otherwise. With less there is more to do for each byte, which a device is slower by
/// that carries out one part after the other; with more there is less that others can do at once.
const PART: usize = 1 << 20;
/// The least: more than any block of a device or a file system that can be used.
const LEAST: usize = 64 << 10;
/// The most.
const MOST: usize = 1 << 30;

/// A layer that has direct reads and writes carried out in parts, by any backend: Linux.
///
/// A [`Read`](Op::Read), [`Write`](Op::Write) or [`WriteDsync`](Op::WriteDsync) of a file that was opened with
/// `O_DIRECT` is cut into aligned parts, which are in flight together, also with those of other requests. Everything
/// else, and what is aligned and not longer than a part, is passed on as it is: vectored operations, too.
///
/// What the file asks for is learnt by `statx` (`STATX_DIOALIGN`, Linux 6.1); before, 4096 bytes will do. What is not
/// aligned so is carried out as well, where the kernel would say `EINVAL`:
///
/// * memory that is not aligned is copied, part by part;
/// * the ends of a read that begin or end within a block are read with the rest of that block, and copied;
/// * the ends of a write, within a page or a block of the file system, go through the page cache, for which the file is
///   opened once more, through `/proc`: nothing is read and written back, so that nobody else's bytes are lost.
///
/// # Bounds
///
/// There are never more parts in flight than the layer was made for, nor more memory for copies than so many parts
/// have; both are taken when a part begins and come back, to be used again, when it ends. [`peak`](Self::peak) says how
/// many there were. Requests that find none wait their turn, and are handed out in order by whoever ends parts;
/// submitting never waits. They can be cancelled meanwhile, and afterwards as far as the backend can end what runs.
///
/// # What a result says
///
/// The bytes up to the first part that was not whole: with a request that came short or has an error behind its first
/// byte, what is behind may have been transferred, too.
///
/// # Costs
///
/// Two system calls for a request that is direct, some hundred nanoseconds and an allocation for each part. Not for
/// requests of the length of a part or less: they are passed on, but pay for the system calls. Beside a MiB that comes
/// from a device none of it is to be seen (`benches/benches/direct.rs`), but copies are: they take as long again as a
/// quick device does. What is worth most there is memory in huge pages: [`AlignedBuffer`](crate::aio::AlignedBuffer).
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Context, Request};
/// use ioctx::backend::{Auto, Direct};
/// use std::os::unix::fs::OpenOptionsExt;
///
/// // 32 parts of 1 MiB at once; the backend has room for these and for what is passed on.
/// let context = Context::new(64, Direct::new(32, Auto::new(64 + 32)?)?)?;
/// let path = tempfile::NamedTempFile::new()?;
/// let mut options = std::fs::File::options();
/// options.read(true).write(true);
/// // 0x4000 is O_DIRECT on x86; a file system that does not know it is as good for the example.
/// let file = options.custom_flags(0x4000).open(&path).or_else(|_| options.custom_flags(0).open(&path))?;
/// context.submit(Request::write(file, vec![7; 3 << 20], 0))?;
/// context.visit(1, 1, None, |event| assert_eq!(event.result().unwrap(), 3 << 20))?;
/// assert!(context.backend().peak().parts <= 32);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `fs/direct-io.c` (2002: parts reaped while others are still submitted, one count for all).
pub struct Direct<B: Backend + 'static> {
    /// Shared with nobody, but pointed to by parts in flight.
    below: Arc<Below<B, Carried<B>>>,
    pump: Arc<Pump<B>>,
}

/// How much a [`Direct`] has used at once, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peak {
    /// Parts in flight.
    pub parts: u32,
    /// Bytes of the buffers for what was not aligned, in use.
    pub bytes: usize,
}

impl fmt::Display for Peak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} parts, {} KiB for copies", self.parts, self.bytes >> 10)
    }
}

impl<B: Backend + 'static> Direct<B> {
    /// For up to so many parts at once, at least 1, of 1 MiB each. The backend has to take these and the requests
    /// that are passed on; a part that it refuses ends its request there.
    ///
    /// # Errors
    ///
    /// [`CreateError::Capacity`] if there are to be none, or more than [`MAX_CAPACITY`](crate::aio::MAX_CAPACITY).
    pub fn new(parts: u32, backend: B) -> Result<Self, CreateError> {
        Self::with_part(parts, PART, backend)
    }

    /// As [`new`](Self::new), with parts of so many bytes: made a power of two, between 64 KiB and 1 GiB.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn with_part(parts: u32, bytes: usize, backend: B) -> Result<Self, CreateError> {
        let below = Arc::new(Below::new(parts, backend)?);
        Ok(Self { below, pump: Pump::new(parts, bytes.clamp(LEAST, MOST).next_power_of_two()) })
    }

    /// The backend that carries the parts out.
    pub fn backend(&self) -> &B {
        self.below.backend()
    }

    /// How many parts there can be at once.
    pub fn parts(&self) -> u32 {
        self.pump.credits.total()
    }

    /// The length of a part, at most.
    pub fn part_len(&self) -> usize {
        self.pump.part
    }

    /// How much was in use at once so far.
    pub fn peak(&self) -> Peak {
        let (parts, buffers) = self.pump.peak();
        Peak { parts, bytes: buffers as usize * self.pump.part }
    }

    /// What is to be cut, and how; `None` for what is passed on.
    fn plan(&self, work: &mut Completion) -> Option<(Plan, i32)> {
        let (file, kind, memory, len, offset) = match &mut work.request_mut().op {
            Op::Read { file, buf, offset } => (&*file, Kind::Read, buf.as_mut_ptr(), buf.len(), *offset),
            Op::Write { file, buf, offset } => {
                (&*file, Kind::Write, buf.as_ptr().cast_mut(), buf.len(), *offset)
            }
            Op::WriteDsync { file, buf, offset } => {
                (&*file, Kind::WriteDsync, buf.as_ptr().cast_mut(), buf.len(), *offset)
            }
            _ => return None,
        };
        let align = Align::of(file)?;
        let unit = if kind == Kind::Read { align.read } else { align.write };
        let aligned =
            memory.addr().is_multiple_of(align.memory) && (offset | len as u64).is_multiple_of(unit);
        if len == 0 || aligned && len <= self.pump.part || align.largest() > self.pump.part as u64 {
            return None;
        }
        // That it does not overflow was looked at before it came here.
        let left = offset..offset + len as u64;
        Some((Plan { kind, align, memory: Memory(memory), left }, file.as_fd().as_raw_fd()))
    }
}

impl<B: Backend + 'static> Backend for Direct<B> {
    fn submit(&self, mut work: Completion) -> Submitted {
        let Some((plan, fd)) = self.plan(&mut work) else {
            return self.backend().submit(work);
        };
        let (id, above) = match self.below.above(&work) {
            Ok(above) => (work.id(), above),
            Err(error) => return Submitted::Refused(work, error),
        };
        let parts = FanIn::new(&self.pump.credits, move |outcome| {
            drop(match outcome.error {
                None => work.finish(Ok(outcome.bytes)),
                Some(error) if outcome.bytes == 0 => work.finish(Err(error)),
                Some(error) => work.finish_partly(outcome.bytes, error),
            });
        });
        let below = NonNull::from(&*self.below);
        Pump::push(&self.pump, Entry { id, above, below, plan, fd, cached: None, parts });
        Submitted::Queued
    }

    fn flush(&self) {
        self.below.flush();
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        self.below.poll(done);
        // What a panic has left.
        Pump::go_on(&self.pump);
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.below.descriptor()
    }

    fn cancel(&self, id: RequestId) -> bool {
        let stopped = self.pump.stop(id);
        let asked = self.below.cancel(id);
        Pump::go_on(&self.pump);
        stopped || asked
    }

    fn cancel_all(&self) {
        if self.below.is_dying() {
            self.pump.stop_all();
        }
        self.below.cancel_all();
    }
}

impl<B: Backend + 'static> Drop for Direct<B> {
    fn drop(&mut self) {
        // Whoever ends a part points to it.
        self.below.close();
    }
}

impl<B: Backend + fmt::Debug + 'static> fmt::Debug for Direct<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct")
            .field("parts", &self.parts())
            .field("part_len", &self.part_len())
            .field("peak", &self.peak())
            .field("backend", self.backend())
            .finish()
    }
}
