//! Ours: a [`Context`] whose submitters read what is in the page cache, and one that leaves out just that.

use super::super::ours::full;
use super::super::{CAPACITY, READ};
use super::file::{offset, stamp};
use super::{BLOCK, Block, Reads, Ticket};
use ioctx::aio::{
    AlignedBuffer, Backend, BatchError, Completion, Context, Finished, Op, RequestId, Submitted,
};
use ioctx::backend::{Auto, Kernel, Threads, Uring};
use ioctx::wait::Outcome;
use ioctx::{Event, Request};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

/// A whole request, with buffer and file: what its event gives back is submitted again.
impl Block for Request {
    #[inline]
    fn aim(&mut self, ticket: Ticket) {
        self.user_data = ticket.to_bits();
        let Op::Read { offset: at, .. } = &mut self.op else { unreachable!("all are reads") };
        *at = offset(ticket.number);
    }

    #[inline]
    fn ticket(&self) -> Ticket {
        Ticket::from_bits(self.user_data)
    }
}

/// A backend that can be had.
pub trait Device: Backend + Sized {
    /// It.
    fn open() -> io::Result<Self>;
}

impl Device for Threads {
    fn open() -> io::Result<Self> {
        Self::sized()
    }
}

impl Device for Uring {
    fn open() -> io::Result<Self> {
        Self::new(CAPACITY).map_err(io::Error::other)
    }
}

impl Device for Auto {
    fn open() -> io::Result<Self> {
        Self::new(CAPACITY)
    }
}

/// A backend whose submitters do not try to read at once: what is wanted past the page cache, where a read that must not
/// wait for locks waits for the device all the same. And, with `CALLS`, one that takes completions out of the kernel's
/// ring by the system call.
#[derive(Debug)]
pub struct NotInline<B, const CALLS: bool = false>(B);

impl<const CALLS: bool> Device for NotInline<Kernel, CALLS> {
    fn open() -> io::Result<Self> {
        let kernel = Kernel::new(CAPACITY).map_err(io::Error::other)?;
        Ok(Self(kernel.inline_cached(false).reap_in_user_space(!CALLS)))
    }
}

impl Device for NotInline<Threads> {
    fn open() -> io::Result<Self> {
        Ok(Self(Threads::sized()?.inline_cached(false)))
    }
}

impl Device for NotInline<Uring> {
    fn open() -> io::Result<Self> {
        Ok(Self(<Uring as Device>::open()?.inline_cached(false)))
    }
}

impl<B: Backend, const CALLS: bool> Backend for NotInline<B, CALLS> {
    #[inline]
    fn submit(&self, work: Completion) -> Submitted {
        self.0.submit(work)
    }

    #[inline]
    fn flush(&self) {
        self.0.flush();
    }

    #[inline]
    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        self.0.poll(done);
    }

    #[inline]
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }

    fn park(
        &self,
        wanted: u32,
        deadline: Option<Instant>,
        announce: &mut dyn FnMut(u32, &Waker) -> bool,
    ) -> Option<Outcome> {
        self.0.park(wanted, deadline, announce)
    }

    fn cancel(&self, id: RequestId) -> bool {
        self.0.cancel(id)
    }

    fn cancel_all(&self) {
        self.0.cancel_all();
    }
}

/// As [`Threads`], of what is in the page cache, but for the system call: only the first word of the block is written.
/// What the rest takes, more or less: submitters meet more often than they would if they read.
#[derive(Debug)]
pub struct NoRead;

impl Device for NoRead {
    fn open() -> io::Result<Self> {
        Ok(Self)
    }
}

impl Backend for NoRead {
    #[inline]
    fn submit(&self, mut work: Completion) -> Submitted {
        let request = work.request_mut();
        let number = request.ticket().number;
        let Op::Read { buf, .. } = &mut request.op else { unreachable!("all are reads") };
        stamp(number, buf);
        Submitted::Done(work.finish(Ok(BLOCK)))
    }
}

impl<B: Device> Reads for Context<B> {
    type Block = Request;
    type Submitter = ();
    type Reaper = Vec<Event>;

    fn open(file: &Arc<File>, blocks: usize) -> io::Result<(Self, Vec<Request>)> {
        let block = |_| {
            let mut buffer = AlignedBuffer::new(BLOCK, BLOCK).map_err(io::Error::other)?;
            // Now rather than in the first reads.
            buffer.fill(0xff);
            Ok(Request::read(file.clone(), buffer, 0))
        };
        let blocks = (0..blocks).map(block).collect::<io::Result<_>>()?;
        Ok((Self::new(CAPACITY, B::open()?).map_err(io::Error::other)?, blocks))
    }

    #[inline]
    fn bytes<'a>(&'a self, block: &'a Request) -> &'a [u8] {
        let Op::Read { buf, .. } = &block.op else { unreachable!("all are reads") };
        buf
    }

    #[inline]
    fn submit(&self, (): &mut (), batch: &mut Vec<Request>) -> usize {
        if batch.len() > 1 {
            return self.submit_batch(batch).unwrap_or_else(|BatchError(reason)| full(&reason));
        }
        let Some(request) = batch.pop() else { return 0 };
        match Self::submit(self, request) {
            Ok(_) => 1,
            Err(refused) => {
                batch.push(refused.request);
                full(&refused.reason)
            }
        }
    }

    #[inline]
    fn reap(&self, events: &mut Vec<Event>, min: usize, mut each: impl FnMut(Request)) -> usize {
        let read = self.get_events(min, READ, None, events).expect("nobody interrupts or destroys");
        for event in events.drain(..) {
            assert!(matches!(event.result, Ok(BLOCK)), "all blocks are whole");
            each(event.request);
        }
        read
    }
}
