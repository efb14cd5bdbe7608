//! Engines that are one thread's.

use super::crew::Member;
use super::{Engine, Own, Plain};
use crate::context::cached::{BLOCK, Reads, Slab, Token, offset, read};
use crate::context::{READ, enable, own_ring, push};
use io_uring::IoUring;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::{fmt, io};

/// A context that could be shared, for one thread.
pub struct Each<C: Reads>(Member<C, Box<C>>);

impl<C: Reads> fmt::Debug for Each<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Each").finish_non_exhaustive()
    }
}

impl<C: Reads> Engine for Each<C> {
    type Block = C::Block;

    #[inline]
    fn bytes<'a>(&'a self, block: &'a C::Block) -> &'a [u8] {
        self.0.bytes(block)
    }

    #[inline]
    fn submit(&mut self, batch: &mut Vec<C::Block>) {
        self.0.submit(batch);
    }

    #[inline]
    fn reap(&mut self, min: usize, each: impl FnMut(C::Block)) -> usize {
        self.0.reap(min, each)
    }
}

impl<C: Reads> Own for Each<C> {
    fn open(file: &Arc<File>, depth: usize) -> io::Result<(Self, Vec<C::Block>)> {
        let (context, blocks) = C::open(file, depth)?;
        Ok((Self(Member::new(Box::new(context))), blocks))
    }
}

/// An `io_uring` of one thread's, for one issuer and deferred work: the cheapest there is. What was submitted last goes
/// to the kernel in the same call that waits.
pub struct OwnRing {
    ring: IoUring,
    slab: Slab,
    /// What is in the submission queue.
    pending: bool,
}

impl fmt::Debug for OwnRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnRing").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Engine for OwnRing {
    type Block = Token;

    #[inline]
    fn bytes<'a>(&'a self, token: &'a Token) -> &'a [u8] {
        self.slab.bytes(token)
    }

    #[inline]
    fn submit(&mut self, batch: &mut Vec<Token>) {
        if self.pending {
            self.ring.submit().expect("there is room for every completion");
        }
        // SAFETY: 1. the ring keeps the file. The slab stays unless all has been reaped. Each block is its token's,
        // which is dropped, so that only the kernel has it.
        unsafe { push(&mut self.ring.submission(), batch.drain(..).map(|token| read(&self.slab, &token))) };
        self.pending = true;
    }

    #[inline]
    fn reap(&mut self, min: usize, mut each: impl FnMut(Token)) -> usize {
        let mut reaped = 0;
        loop {
            if self.pending || self.ring.completion().len() < min - reaped {
                self.pending = false;
                self.ring.submit_and_wait(min - reaped).expect("nobody interrupts");
            }
            for event in self.ring.completion().take(READ - reaped) {
                assert!(event.result() == BLOCK as i32, "all blocks are whole");
                each(Token::from_bits(event.user_data()));
                reaped += 1;
            }
            if reaped >= min {
                return reaped;
            }
        }
    }
}

impl Own for OwnRing {
    fn open(file: &Arc<File>, depth: usize) -> io::Result<(Self, Vec<Token>)> {
        let (slab, tokens) = Slab::new(depth)?;
        let ring = own_ring()?;
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        enable(&ring);
        Ok((Self { ring, slab, pending: false }, tokens))
    }
}

/// A loop of `pread`, always into the same buffer, however many could be in flight.
#[derive(Debug)]
pub struct Pread {
    file: Arc<File>,
    done: Vec<Plain>,
}

impl Engine for Pread {
    type Block = Plain;

    #[inline]
    fn bytes<'a>(&'a self, block: &'a Plain) -> &'a [u8] {
        &block.buffer
    }

    #[inline]
    fn submit(&mut self, batch: &mut Vec<Plain>) {
        for mut block in batch.drain(..) {
            let done = self.file.read_at(&mut block.buffer, offset(block.ticket.number));
            assert!(matches!(done, Ok(BLOCK)), "all blocks are whole");
            self.done.push(block);
        }
    }

    #[inline]
    fn reap(&mut self, _min: usize, each: impl FnMut(Plain)) -> usize {
        let done = self.done.len();
        self.done.drain(..).for_each(each);
        done
    }
}

impl Own for Pread {
    fn open(file: &Arc<File>, _depth: usize) -> io::Result<(Self, Vec<Plain>)> {
        Ok((Self { file: file.clone(), done: Vec::new() }, Plain::some(1)?))
    }
}
