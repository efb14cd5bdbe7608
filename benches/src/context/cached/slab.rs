//! [`Slab`]: the buffers of those who give the kernel plain memory.

use super::{BLOCK, Block, Ticket};
use ioctx::aio::AlignedBuffer;
use std::mem::ManuallyDrop;
use std::{io, slice, thread};

/// Blocks one after the other, on pages of their own.
#[derive(Debug)]
pub struct Slab {
    memory: ManuallyDrop<AlignedBuffer>,
    start: *mut u8,
}

// SAFETY: owned memory; which part of it may be touched is what the tokens decide.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

/// A block of a slab, and what it was last aimed at. Whoever has it, has the block: while the kernel reads into it, the
/// word is the request's user data, and nowhere else.
#[derive(Debug)]
pub struct Token(u64);

impl Token {
    const PLACE: u32 = 48;

    /// What a request is given with it.
    #[inline]
    pub fn to_bits(&self) -> u64 {
        self.0
    }

    /// The one that was given with a request that has been reaped.
    #[inline]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    fn place(&self) -> usize {
        (self.0 >> Self::PLACE) as usize
    }
}

impl Block for Token {
    #[inline]
    fn aim(&mut self, ticket: Ticket) {
        self.0 = (self.place() as u64) << Self::PLACE | ticket.to_bits();
    }

    #[inline]
    fn ticket(&self) -> Ticket {
        Ticket::from_bits(self.0)
    }
}

impl Slab {
    /// So many blocks.
    pub fn new(blocks: usize) -> io::Result<(Self, Vec<Token>)> {
        assert!(blocks <= 1 << (u64::BITS - Token::PLACE), "a token has a place for each");
        let mut memory = AlignedBuffer::new(blocks * BLOCK, BLOCK).map_err(io::Error::other)?;
        // Now rather than in the first reads.
        memory.fill(0xff);
        let start = memory.as_mut_ptr();
        let tokens = (0..blocks as u64).map(|place| Token(place << Token::PLACE)).collect();
        Ok((Self { memory: ManuallyDrop::new(memory), start }, tokens))
    }

    /// Where a block lies: valid for writes of [`BLOCK`] bytes.
    #[inline]
    pub fn at(&self, token: &Token) -> *mut u8 {
        assert!(token.place() * BLOCK < self.memory.len(), "tokens stay with their slab");
        // SAFETY: within the memory.
        unsafe { self.start.add(token.place() * BLOCK) }
    }

    /// What is in it.
    #[inline]
    pub fn bytes<'a>(&'a self, token: &'a Token) -> &'a [u8] {
        // SAFETY: so many bytes that were filled once. Nobody writes to them: the token is borrowed, so that no request
        // has it.
        unsafe { slice::from_raw_parts(self.at(token), BLOCK) }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // If a check has failed, the kernel may still be reading.
        if !thread::panicking() {
            // SAFETY: not used again. All reads have been reaped.
            unsafe { ManuallyDrop::drop(&mut self.memory) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_has_a_block() {
        let (slab, tokens) = Slab::new(3).unwrap();
        for (i, mut token) in tokens.into_iter().enumerate() {
            let ticket = Ticket { owner: u16::MAX, number: i as u32 };
            token.aim(ticket);
            let token = Token::from_bits(token.to_bits());
            assert_eq!((token.ticket(), slab.at(&token).addr()), (ticket, slab.start.addr() + i * BLOCK));
            assert_eq!(slab.bytes(&token), [0xff; BLOCK]);
        }
    }
}
