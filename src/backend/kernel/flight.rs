//! Requests in the kernel's hands, and what it is told of them: [`Cell`].

use super::sys::{Aio, Block, SIGNALS, operation};
use crate::aio::{Buffer, BufferMut, Completion, FileRef, Op};
use crate::ring::Event;
use crate::sync::Mutex;
use crate::sync::cell::UnsafeCell;
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What the kernel is told of a vectored request; it may read that for as long as the request runs.
#[derive(Debug, Default)]
struct Segments(Vec<libc::iovec>);

// SAFETY: pointers to buffers whose request goes with them; nothing is done with them here.
unsafe impl Send for Segments {}

/// What the kernel is to do for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All of it.
    Whole,
    /// Say when it could be done without waiting.
    Wait,
}

/// A request that the kernel has, or is about to have.
#[derive(Debug)]
struct Flight {
    work: Completion,
    step: Step,
    /// Kept for the kernel.
    _segments: Segments,
    /// Whether the kernel has it, or somebody is in the system call that hands it over; otherwise it is held back.
    handed: bool,
    /// Whether it was asked to end early.
    asked: bool,
}

impl Flight {
    fn polls(&self) -> bool {
        self.step == Step::Wait || matches!(self.work.request().op, Op::Poll { .. })
    }
}

/// What has become of a request when it left its cell.
pub(super) enum Ended {
    /// It is done.
    Done(Completion, io::Result<usize>),
    /// The kernel does not carry it out.
    Left(Completion),
    /// It can be tried; whether it was asked to end early.
    Ready(Completion, bool),
}

/// The place of one request. Its number, a tag, goes with it.
#[derive(Debug, Default)]
pub(super) struct Cell {
    flight: Mutex<Option<Flight>>,
    /// Read and written by the kernel during the system call that hands the request over, and read by it during one
    /// that cancels. Written here by who has the tag, before.
    block: UnsafeCell<Block>,
}

// SAFETY: the block is written only by who has the tag, when nobody else has anything to do with the cell; otherwise
// only its address is used.
unsafe impl Sync for Cell {}

impl Cell {
    /// Keeps a request, to be handed over. Gives it back if its context is being destroyed.
    ///
    /// # Safety
    ///
    /// 1. The caller has the tag of this cell, which is `index`, and passes it on.
    pub(super) unsafe fn fill(
        &self,
        mut work: Completion,
        step: Step,
        index: u32,
        signals: BorrowedFd<'_>,
    ) -> Result<(), Completion> {
        let (block, segments) = prepare(&mut work, step, index, signals);
        // SAFETY: by 1. nobody else looks at the block: the cell is empty, and the kernel has forgotten it.
        self.block.with_mut(|place| unsafe { *place = block });
        let mut flight = self.flight.lock();
        // Under the lock: whoever destroys has it after the context is known to die, and finds what is in the cell.
        if work.is_dying() {
            return Err(work);
        }
        *flight = Some(Flight { work, step, _segments: segments, handed: false, asked: false });
        Ok(())
    }

    /// For the kernel.
    pub(super) fn block(&self) -> *mut Block {
        self.block.with_mut(|block| block)
    }

    /// Whether it is to be handed over, which the caller does then. Otherwise it was cancelled before.
    pub(super) fn hand_over(&self) -> Result<(), Option<Ended>> {
        let mut flight = self.flight.lock();
        match &mut *flight {
            Some(held) if !held.asked => {
                held.handed = true;
                Ok(())
            }
            _ => Err(flight.take().map(|flight| Ended::Done(flight.work, Err(Errno::CANCELED.into())))),
        }
    }

    /// Cancels it if that was asked for when the kernel did not have it yet. After the system call that has handed it
    /// over; it may have completed long ago, and the cell may be another's.
    pub(super) fn see_asked(&self, aio: &Aio) {
        let flight = self.flight.lock();
        if flight.as_ref().is_some_and(|flight| flight.handed && flight.asked) {
            // SAFETY: 1. it is ours. Under the lock the cell stays with its request.
            unsafe { aio.cancel(self.block()) };
        }
    }

    /// Takes out what the kernel did not want to have.
    pub(super) fn refused(&self) -> Option<Ended> {
        let flight = self.flight.lock().take()?;
        Some(if flight.asked {
            Ended::Done(flight.work, Err(Errno::CANCELED.into()))
        } else {
            Ended::Left(flight.work)
        })
    }

    /// Takes out what this event says is done. `None` if there is no such request: the ring can be written by anybody
    /// in the process.
    pub(super) fn complete(&self, event: &Event) -> Option<Ended> {
        let flight = self.flight.lock().take_if(|flight| flight.handed)?;
        let Flight { work, step, asked, .. } = flight;
        let result = usize::try_from(event.res).map_err(|_| io::Error::from_raw_os_error(-event.res as i32));
        Some(match (&work.request().op, step, result) {
            // Nothing is ready: it was cancelled.
            (Op::Poll { .. }, _, Ok(0)) | (_, Step::Wait, Ok(0)) => {
                Ended::Done(work, Err(Errno::CANCELED.into()))
            }
            (_, Step::Wait, Ok(_)) => Ended::Ready(work, asked),
            // Of what woke it, what was asked for, and what is told without being asked for.
            (Op::Poll { interest, .. }, _, Ok(ready)) => {
                let told = interest.bits() as usize | (libc::POLLERR | libc::POLLHUP) as usize;
                Ended::Done(work, Ok(ready & told))
            }
            (_, _, result) => Ended::Done(work, result),
        })
    }

    /// Asks for the early end of its request if that is `wanted`; whether somebody was asked. `None` if it is not.
    ///
    /// Holds the lock during a system call, which does not wait: the kernel knows a request by the address of its
    /// block, which must not be another's.
    pub(super) fn cancel(&self, aio: &Aio, wanted: impl FnOnce(&Completion) -> bool) -> Option<bool> {
        let mut flight = self.flight.lock();
        let flight = flight.as_mut().filter(|flight| wanted(&flight.work))?;
        if flight.handed && !flight.polls() {
            // No disk takes back what it has.
            return Some(false);
        }
        // If it is held back, or on its way into the kernel, whoever brings it there looks at this.
        flight.asked = true;
        if flight.handed {
            // SAFETY: 1. it is ours.
            unsafe { aio.cancel(self.block()) };
        }
        Some(true)
    }
}

/// The request as the kernel wants it. Points to the request's buffers and to the segments: it is good for as long as
/// both stay.
fn prepare(work: &mut Completion, step: Step, index: u32, signals: BorrowedFd<'_>) -> (Block, Segments) {
    let mut segments = Segments::default();
    let list = &mut segments.0;
    let mut block = Block {
        data: index.into(),
        flags: SIGNALS,
        eventfd: signals.as_raw_fd().cast_unsigned(),
        ..Block::default()
    };
    let buffer = |base: *const u8, len: usize| (base.expose_provenance() as u64, len as u64);
    let op = &mut work.request_mut().op;
    if step == Step::Wait {
        let (file, interest) = match op {
            Op::Read { file, .. } | Op::ReadV { file, .. } => (Some(file), libc::POLLIN),
            Op::Write { file, .. } | Op::WriteDsync { file, .. } | Op::WriteV { file, .. } => {
                (Some(file), libc::POLLOUT)
            }
            _ => (None, 0),
        };
        block.operation = operation::POLL;
        block.buffer = interest as u64;
        block.file = file.map_or(u32::MAX, |file| number(file));
        return (block, segments);
    }
    match op {
        Op::Read { file, buf, offset } => {
            (block.operation, block.file) = (operation::READ, number(file));
            (block.buffer, block.length) = buffer(buf.as_mut_ptr(), buf.len());
            block.offset = *offset as i64;
        }
        Op::Write { file, buf, offset } => {
            (block.operation, block.file) = (operation::WRITE, number(file));
            (block.buffer, block.length) = buffer(buf.as_ptr(), buf.len());
            block.offset = *offset as i64;
        }
        Op::WriteDsync { file, buf, offset } => {
            (block.operation, block.file) = (operation::WRITE, number(file));
            (block.buffer, block.length) = buffer(buf.as_ptr(), buf.len());
            block.offset = *offset as i64;
            block.how = libc::RWF_DSYNC.cast_unsigned();
        }
        Op::ReadV { file, bufs, offset } => {
            list.extend(bufs.iter_mut().map(read_into));
            (block.operation, block.file) = (operation::READV, number(file));
            (block.buffer, block.length) = buffer(list.as_ptr().cast(), list.len());
            block.offset = *offset as i64;
        }
        Op::WriteV { file, bufs, offset } => {
            list.extend(bufs.iter().map(write_from));
            (block.operation, block.file) = (operation::WRITEV, number(file));
            (block.buffer, block.length) = buffer(list.as_ptr().cast(), list.len());
            block.offset = *offset as i64;
        }
        Op::Fsync { file } => (block.operation, block.file) = (operation::FSYNC, number(file)),
        Op::Fdatasync { file } => (block.operation, block.file) = (operation::FDATASYNC, number(file)),
        Op::Poll { file, interest } => {
            (block.operation, block.file) = (operation::POLL, number(file));
            block.buffer = interest.bits().into();
        }
        // The kernel refuses it: there is no such file.
        Op::Nop | Op::Custom(_) => block.file = u32::MAX,
    }
    (block, segments)
}

fn number(file: &FileRef) -> u32 {
    file.as_fd().as_raw_fd().cast_unsigned()
}

fn read_into(buf: &mut BufferMut) -> libc::iovec {
    libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() }
}

fn write_from(buf: &Buffer) -> libc::iovec {
    libc::iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() }
}
