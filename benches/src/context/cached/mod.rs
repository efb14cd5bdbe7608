//! The same with a device that does something: reads of blocks of a file in the page cache, [`Reads`], and by threads
//! that share nothing, [`Reader`].
//!
//! Each submitter has [`IN_FLIGHT`] buffers, which go round: to the context, to the reaper, and by a queue of one
//! producer and one consumer back to the submitter, who looks whether the right block is in it, and uses it again. That
//! is the same for all; what goes round with a buffer is the context's matter: ours gives the whole request back.

mod file;
mod floor;
mod kernel;
mod ours;
mod pass;
mod slab;
mod uring;

pub use file::{BLOCK, BLOCKS, Look, Numbered};
pub(crate) use file::{Random, expect, offset};
pub use floor::Pread;
pub use kernel::KernelReads;
pub use ours::{NoRead, NotInline};
pub use pass::{Rig, apart, check, check_apart};
pub(crate) use slab::{Slab, Token};
pub(crate) use uring::read;
pub use uring::{OwnReads, SharedReads};

use super::CAPACITY;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// How many buffers a submitter has: what four of them can have in flight.
pub const IN_FLIGHT: usize = CAPACITY as usize / 4;

/// Who wants which block of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// The submitter.
    pub owner: u16,
    /// The block.
    pub number: u32,
}

impl Ticket {
    /// In the lower 48 bits.
    fn to_bits(self) -> u64 {
        u64::from(self.owner) << 32 | u64::from(self.number)
    }

    /// What [`to_bits`](Self::to_bits) was made of.
    fn from_bits(bits: u64) -> Self {
        Self { owner: (bits >> 32) as u16, number: bits as u32 }
    }
}

/// A buffer of [`BLOCK`] bytes, and what a context needs with it to read into it.
pub trait Block: Send {
    /// What it is to be read for next.
    fn aim(&mut self, ticket: Ticket);

    /// What it was aimed at last.
    fn ticket(&self) -> Ticket;
}

/// A context that any number of threads submit reads to, and that one thread reaps.
pub trait Reads: Send + Sync + Sized {
    /// Where its reads go.
    type Block: Block;
    /// What a submitter keeps from one call to the next.
    type Submitter: Default;
    /// What the reaper keeps from one call to the next.
    type Reaper: Default;

    /// One for [`CAPACITY`] reads of `file`, and so many blocks, which are only used with it.
    ///
    /// # Errors
    ///
    /// If the system has no such thing, or does not let us use it.
    fn open(file: &Arc<File>, blocks: usize) -> io::Result<(Self, Vec<Self::Block>)>;

    /// What is in a block.
    fn bytes<'a>(&'a self, block: &'a Self::Block) -> &'a [u8];

    /// Submits the blocks of a batch, first to last, until one is not accepted; those that were are removed from it.
    /// Returns how many.
    fn submit(&self, submitter: &mut Self::Submitter, batch: &mut Vec<Self::Block>) -> usize;

    /// Waits until `min` reads have completed, and gives their blocks, filled, and those of up to
    /// [`READ`](super::READ) to `each`. Returns how many.
    fn reap(&self, reaper: &mut Self::Reaper, min: usize, each: impl FnMut(Self::Block)) -> usize;
}

/// What one thread reads by, for itself.
pub trait Reader: Send + Sized {
    /// One that reads up to `batch` blocks of `file` at a time.
    ///
    /// # Errors
    ///
    /// If the system has no such thing, or does not let us use it.
    fn open(file: &Arc<File>, batch: usize) -> io::Result<Self>;

    /// Called by the thread whose it is to be, before anything else.
    fn start(&mut self) {}

    /// Reads these blocks of the file, and shows what is in each.
    fn read(&mut self, numbers: &[u32], each: impl FnMut(u32, &[u8]));
}

#[cfg(test)]
mod tests {
    use super::Ticket;

    #[test]
    fn tickets_are_bits_and_back() {
        for ticket in [Ticket { owner: u16::MAX, number: 0 }, Ticket { owner: 1, number: u32::MAX }] {
            assert_eq!(Ticket::from_bits(ticket.to_bits()), ticket);
            assert_eq!(Ticket::from_bits(ticket.to_bits() | 7 << 48), ticket);
        }
    }
}
