//! The kernel's own: reads of files that are not `O_DIRECT` are done within `io_submit`.

use super::super::kernel::{Aio, Blocks, Iocb};
use super::file::offset;
use super::slab::{Slab, Token};
use super::{BLOCK, Block, Reads};
use ioctx::ring::Event;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// A context of the kernel, which reads.
#[derive(Debug)]
pub struct KernelReads {
    // Goes first, and waits for what is in flight.
    context: Aio,
    file: Arc<File>,
    slab: Slab,
}

impl Reads for KernelReads {
    type Block = Token;
    type Submitter = Blocks;
    type Reaper = Vec<Event>;

    fn open(file: &Arc<File>, blocks: usize) -> io::Result<(Self, Vec<Token>)> {
        let (slab, tokens) = Slab::new(blocks)?;
        Ok((Self { context: Aio::open()?, file: file.clone(), slab }, tokens))
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
        let events = self.context.reap(events, min);
        for event in events {
            assert!(event.res == BLOCK as i64, "all blocks are whole");
            each(Token::from_bits(event.data));
        }
        events.len()
    }
}
