//! Who reads a large file past the page cache quickest, first to last: [`Reader`].
//!
//! One loop, [`Slices`]: the next so many blocks of a [`Large`] file, which are looked at as they come. All readers
//! read into the same [`Slab`]: where the device is memory of a host's, whose processor copies, what counts is how much
//! memory that goes to, and how large its pages are.

mod file;
mod layered;
mod plain;
mod slab;

pub use file::{BLOCK, BLOCKS, Large};
pub use layered::Contexts;
pub use plain::{OwnRing, PreadLoop};
pub use slab::Slab;

use std::ops::Range;
use std::time::{Duration, Instant};

/// How many blocks the slab has room for.
pub const PLACES: usize = 8;

/// How a reader asks for blocks.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How many requests are in flight at once, of those who can have several.
    pub depth: usize,
    /// How many blocks a request is for.
    pub blocks: usize,
    /// How many bytes behind an aligned address its memory begins.
    pub shift: usize,
}

/// Reads blocks.
pub trait Reader {
    /// Reads these, a multiple of what it asks for at once, and shows each to `each` once it is there, in any order.
    fn read(&mut self, blocks: Range<u64>, each: impl FnMut(u64, &[u8]));
}

/// A reader that goes through the file again and again.
#[derive(Debug)]
pub struct Slices<R> {
    reader: R,
    next: u64,
}

impl<R: Reader> Slices<R> {
    /// From the beginning.
    pub fn new(reader: R) -> Self {
        Self { reader, next: 0 }
    }

    /// Reads the next so many blocks, of which there are a multiple in the file, and says how long that took.
    ///
    /// # Panics
    ///
    /// If it is not what was written.
    pub fn slice(&mut self, blocks: u64) -> Duration {
        let slice = self.next..self.next + blocks;
        self.next = slice.end % BLOCKS;
        let mut seen = 0;
        let start = Instant::now();
        self.reader.read(slice, |number, block| {
            file::expect_first(number, block);
            seen += 1;
        });
        let took = start.elapsed();
        assert_eq!(seen, blocks, "each block comes once");
        took
    }

    /// Reads the first so many blocks, and looks at every page.
    ///
    /// # Panics
    ///
    /// As there.
    pub fn check(&mut self, blocks: u64) {
        let mut seen = vec![false; blocks as usize];
        self.reader.read(0..blocks, |number, block| {
            file::expect(number, block);
            assert!(!std::mem::replace(&mut seen[number as usize], true), "block {number} comes once");
        });
        assert!(seen.iter().all(|seen| *seen), "each block comes");
    }

    /// Who reads.
    pub fn reader(&self) -> &R {
        &self.reader
    }
}
