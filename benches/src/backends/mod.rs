//! What carries reads out cheapest, by how many are in flight: our backends, and what one would use without them.
//!
//! Contenders that any thread may use implement [`Reads`](crate::context::cached::Reads), and are shared. Those that are
//! one thread's implement [`Own`]; [`Each`] makes one of those of the former. Two loops run them: that of a [`crew`],
//! whose threads submit and reap, and that of submitters and a reaper, [`Rig`](crate::context::cached::Rig).

mod compio;
mod crew;
mod mapped;
mod own;
mod pool;

pub use self::compio::Compio;
pub use crew::{crew, crew_sharing};
pub use mapped::MappedReads;
pub use own::{Each, OwnRing, Pread};
pub use pool::PoolReads;

use crate::context::cached::{Block, Ticket};
use ioctx::aio::AlignedBuffer;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// What a member of a crew reads by.
pub trait Engine {
    /// Where its reads go.
    type Block: Block;

    /// What is in a block.
    fn bytes<'a>(&'a self, block: &'a Self::Block) -> &'a [u8];

    /// Submits the blocks of a batch, first to last, until one is not accepted; those that were are removed from it.
    fn submit(&mut self, batch: &mut Vec<Self::Block>);

    /// Waits until `min` reads have completed, unless fewer are in flight by their nature, and gives their blocks to
    /// `each`, and those of more that have. Returns how many.
    fn reap(&mut self, min: usize, each: impl FnMut(Self::Block)) -> usize;
}

/// An engine that one thread opens, uses and drops.
pub trait Own: Engine + Sized {
    /// One that keeps up to `depth` reads of `file` in flight, and so many blocks.
    ///
    /// # Errors
    ///
    /// If the system has no such thing, or does not let us use it.
    fn open(file: &Arc<File>, depth: usize) -> io::Result<(Self, Vec<Self::Block>)>;
}

/// How a crew works.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many threads.
    pub threads: usize,
    /// How many reads each keeps in flight.
    pub depth: usize,
    /// How many it submits in one call, and waits for.
    pub batch: usize,
}

/// A block with a buffer of its own.
#[derive(Debug)]
pub struct Plain {
    ticket: Ticket,
    buffer: AlignedBuffer,
}

impl Block for Plain {
    #[inline]
    fn aim(&mut self, ticket: Ticket) {
        self.ticket = ticket;
    }

    #[inline]
    fn ticket(&self) -> Ticket {
        self.ticket
    }
}

impl Plain {
    /// So many.
    fn some(blocks: usize) -> io::Result<Vec<Self>> {
        use crate::context::cached::BLOCK;
        let block = |_| {
            let mut buffer = AlignedBuffer::new(BLOCK, BLOCK).map_err(io::Error::other)?;
            // Now rather than in the first reads.
            buffer.fill(0xff);
            Ok(Self { ticket: Ticket { owner: 0, number: 0 }, buffer })
        };
        (0..blocks).map(block).collect()
    }
}
