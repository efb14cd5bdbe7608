//! `io_uring`, which reads: one for all, behind a mutex, or one for each thread. The file is registered with it, so
//! that no request has to count its reference.

use super::super::uring::{Guarded, enable, own_ring, push};
use super::file::offset;
use super::slab::{Slab, Token};
use super::{BLOCK, Block, Reader, Reads, Ticket};
use io_uring::types::Fixed;
use io_uring::{IoUring, opcode, squeue};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::{fmt, io};

/// An `io_uring` that any thread submits reads to, and one reaps.
#[derive(Debug)]
pub struct SharedReads {
    ring: Guarded,
    slab: Slab,
}

/// The request for a token's block. The file is the ring's first.
#[inline]
pub(crate) fn read(slab: &Slab, token: &Token) -> squeue::Entry {
    let entry = opcode::Read::new(Fixed(0), slab.at(token), BLOCK as u32);
    entry.offset(offset(token.ticket().number)).build().user_data(token.to_bits())
}

impl Reads for SharedReads {
    type Block = Token;
    type Submitter = ();
    type Reaper = ();

    fn open(file: &Arc<File>, blocks: usize) -> io::Result<(Self, Vec<Token>)> {
        let (slab, tokens) = Slab::new(blocks)?;
        let ring = Guarded::open()?;
        ring.ring.submitter().register_files(&[file.as_raw_fd()])?;
        Ok((Self { ring, slab }, tokens))
    }

    #[inline]
    fn bytes<'a>(&'a self, token: &'a Token) -> &'a [u8] {
        self.slab.bytes(token)
    }

    #[inline]
    fn submit(&self, (): &mut (), batch: &mut Vec<Token>) -> usize {
        // SAFETY: 1. the ring keeps the file. The slab stays unless all has been reaped. Each block is its token's, and
        // the tokens of those that are accepted are dropped, so that only the kernel has them.
        let accepted = unsafe { self.ring.submit(batch.iter().map(|token| read(&self.slab, token))) };
        batch.drain(..accepted);
        accepted
    }

    #[inline]
    fn reap(&self, (): &mut (), min: usize, mut each: impl FnMut(Token)) -> usize {
        self.ring.reap(min, |event| {
            assert!(event.result() == BLOCK as i32, "all blocks are whole");
            each(Token::from_bits(event.user_data()));
        })
    }
}

/// An `io_uring` of one thread's, which reads.
pub struct OwnReads {
    ring: IoUring,
    slab: Slab,
    /// At least as many as are read at a time.
    free: Vec<Token>,
}

impl fmt::Debug for OwnReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnReads").field("free", &self.free.len()).finish_non_exhaustive()
    }
}

impl Reader for OwnReads {
    fn open(file: &Arc<File>, batch: usize) -> io::Result<Self> {
        let (slab, free) = Slab::new(batch)?;
        let ring = own_ring()?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        Ok(Self { ring, slab, free })
    }

    fn start(&mut self) {
        enable(&self.ring);
    }

    #[inline]
    fn read(&mut self, numbers: &[u32], mut each: impl FnMut(u32, &[u8])) {
        let Self { ring, slab, free } = self;
        let requests = numbers.iter().map(|number| {
            let mut token = free.pop().expect("there is one for each of a batch");
            token.aim(Ticket { owner: 0, number: *number });
            read(slab, &token)
        });
        // SAFETY: 1. the ring keeps the file. The slab stays unless all has been reaped. Each block is its token's,
        // which is dropped, so that only the kernel has it.
        let count = unsafe { push(&mut ring.submission(), requests) };
        // One call: it submits, and waits if it has to.
        ring.submit_and_wait(count).expect("there is room for every completion");
        let mut left = count;
        while left > 0 {
            for event in ring.completion() {
                assert!(event.result() == BLOCK as i32, "all blocks are whole");
                let token = Token::from_bits(event.user_data());
                each(token.ticket().number, slab.bytes(&token));
                free.push(token);
                left -= 1;
            }
            if left > 0 {
                ring.submit_and_wait(1).expect("nobody interrupts");
            }
        }
    }
}
