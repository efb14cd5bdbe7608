//! [`Numbered`]: a file whose blocks say which they are.

use rustix::fs::fstatfs;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Bytes per block.
pub const BLOCK: usize = 4096;
/// Blocks of the file: 16 MiB.
pub const BLOCKS: u32 = 4096;
/// What is read at once to warm the file up.
const CHUNK: usize = 1 << 20;

/// A temporary file of [`BLOCKS`] blocks, each with words of its own.
#[derive(Debug)]
pub struct Numbered {
    file: Arc<File>,
    /// Whether reads go past the page cache.
    direct: bool,
}

/// The word at this place of a block.
fn word(number: u32, place: usize) -> u64 {
    // Odd, so that no two are the same.
    (u64::from(number) << 32 | place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Numbered {
    /// One in this directory; it goes with its last descriptor.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let mut file = tempfile::tempfile_in(dir)?;
        for number in 0..BLOCKS {
            let block: Vec<u8> = (0..BLOCK / 8).flat_map(|place| word(number, place).to_le_bytes()).collect();
            file.write_all(&block)?;
        }
        // Now rather than while it is read.
        file.sync_all()?;
        Ok(Self { file: Arc::new(file), direct: false })
    }

    /// The same file, read past the page cache.
    ///
    /// # Errors
    ///
    /// If its file system cannot do that, or the system does not let us open it again.
    pub fn direct(&self) -> io::Result<Self> {
        let name = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(name)?;
        Ok(Self { file: Arc::new(file), direct: true })
    }

    /// It.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Whether it lies on a file system without a page cache beneath it, where nothing can be read without waiting, as
    /// far as the kernel knows.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn on_tmpfs(&self) -> io::Result<bool> {
        const TMPFS_MAGIC: u64 = 0x0102_1994;
        Ok(fstatfs(&self.file)?.f_type as u64 == TMPFS_MAGIC)
    }

    /// Brings all of it into the page cache, which may have lost some, unless it is read past that.
    ///
    /// # Panics
    ///
    /// If it cannot be read.
    pub fn warm(&self) {
        if self.direct {
            return;
        }
        let mut chunk = vec![0; CHUNK];
        for offset in (0..u64::from(BLOCKS) * BLOCK as u64).step_by(CHUNK) {
            self.file.read_exact_at(&mut chunk, offset).expect("it was written");
        }
    }
}

/// Where a block begins.
pub(crate) fn offset(number: u32) -> u64 {
    u64::from(number) * BLOCK as u64
}

/// How much of a block is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Its first word, which is what the loops that are timed can afford.
    First,
    /// Each.
    All,
}

/// Checks that a block is there.
#[inline]
pub(crate) fn expect(number: u32, bytes: &[u8], look: Look) {
    let is = |place: usize| bytes[8 * place..8 * place + 8] == word(number, place).to_le_bytes();
    assert!(is(0), "block {number} was read");
    if look == Look::All {
        assert!(bytes.len() == BLOCK && (1..BLOCK / 8).all(is), "block {number} was read as a whole");
    }
}

/// Writes the first word of a block.
#[inline]
pub(super) fn stamp(number: u32, bytes: &mut [u8]) {
    bytes[..8].copy_from_slice(&word(number, 0).to_le_bytes());
}

/// Blocks in no order: Marsaglia's xorshift.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// Another sequence for each `seed`.
    pub fn new(seed: usize) -> Self {
        Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// One of the [`BLOCKS`].
    #[inline]
    pub fn block(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 40) as u32 % BLOCKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u32) -> Vec<u8> {
        (0..BLOCK / 8).flat_map(|place| word(number, place).to_le_bytes()).collect()
    }

    #[test]
    fn blocks_are_known() {
        expect(7, &block(7), Look::All);
        let mut other = block(7);
        stamp(8, &mut other);
        expect(8, &other, Look::First);
    }

    #[test]
    #[should_panic = "block 8 was read"]
    fn another_is_found_out() {
        expect(8, &block(7), Look::First);
    }

    #[test]
    #[should_panic = "block 8 was read as a whole"]
    fn half_of_one_is_found_out() {
        let half = [&block(8)[..BLOCK / 2], &block(7)[BLOCK / 2..]].concat();
        expect(8, &half, Look::All);
    }

    #[test]
    fn every_block_comes() {
        let mut random = Random::new(0);
        let mut seen = vec![false; BLOCKS as usize];
        (0..20 * BLOCKS).for_each(|_| seen[random.block() as usize] = true);
        assert!(seen.iter().all(|seen| *seen));
    }
}
