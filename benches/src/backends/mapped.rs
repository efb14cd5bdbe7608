//! The kernel's own, whose ring is read without a system call. One thread at a time reaps.

use crate::context::cached::{BLOCK, Block, Reads, Slab, Token, offset};
use crate::context::{Aio, Blocks, Iocb};
use ioctx::ring::Event;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};

/// A context of the kernel, which reads.
#[derive(Debug)]
pub struct MappedReads {
    // Goes first, and waits for what is in flight.
    context: Aio,
    file: Arc<File>,
    slab: Slab,
    /// Of who reaps.
    reaping: Mutex<()>,
}

impl Reads for MappedReads {
    type Block = Token;
    type Submitter = Blocks;
    type Reaper = Vec<Event>;

    fn open(file: &Arc<File>, blocks: usize) -> io::Result<(Self, Vec<Token>)> {
        let (slab, tokens) = Slab::new(blocks)?;
        let context = Aio::open()?;
        if !context.is_mapped() {
            return Err(io::Error::other("the kernel's ring is not laid out as it is known here"));
        }
        Ok((Self { context, file: file.clone(), slab, reaping: Mutex::new(()) }, tokens))
    }

    #[inline]
    fn bytes<'a>(&'a self, token: &'a Token) -> &'a [u8] {
        self.slab.bytes(token)
    }

    #[inline]
    fn submit(&self, blocks: &mut Blocks, batch: &mut Vec<Token>) -> usize {
        let request = |token: &Token| {
            let at = offset(token.ticket().number);
            Iocb::read(&self.file, self.slab.at(token), BLOCK, at, token.to_bits())
        };
        // SAFETY: 1. file and slab go after the context. Each block is its token's, and the tokens of those that are
        // accepted are dropped, so that only the kernel has them.
        let accepted = unsafe { self.context.submit(blocks, batch.iter().map(request)) };
        batch.drain(..accepted);
        accepted
    }

    #[inline]
    fn reap(&self, events: &mut Vec<Event>, min: usize, mut each: impl FnMut(Token)) -> usize {
        let events = {
            let _mine = self.reaping.try_lock().expect("one thread at a time reaps");
            // SAFETY: 1. the mutex.
            unsafe { self.context.reap_mapped(events, min) }
        };
        for event in events {
            assert!(event.res == BLOCK as i64, "all blocks are whole");
            each(Token::from_bits(event.data));
        }
        events.len()
    }
}
