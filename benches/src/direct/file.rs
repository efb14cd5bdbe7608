//! [`Large`]: a file whose pages say which they are.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// Bytes per block: what is asked for at once.
pub const BLOCK: usize = 1 << 20;
/// Blocks of the file: 1 GiB.
pub const BLOCKS: u64 = 1024;
const PAGE: usize = 4096;

/// A temporary file of [`BLOCKS`] blocks, each of whose pages begins and ends with a word of its own.
#[derive(Debug)]
pub struct Large {
    file: Arc<File>,
}

/// Of this page of the file.
fn word(page: u64) -> [u8; 8] {
    // Odd, so that no two are the same.
    (page + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
}

impl Large {
    /// One in this directory, opened with `O_DIRECT`; it goes with its last descriptor.
    ///
    /// # Errors
    ///
    /// What the system says: there may be no room for it, or no direct I/O.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let mut file = tempfile::tempfile_in(dir)?;
        let mut block = vec![0x5a; BLOCK];
        for number in 0..BLOCKS {
            for (page, bytes) in (number * (BLOCK / PAGE) as u64..).zip(block.chunks_exact_mut(PAGE)) {
                bytes[..8].copy_from_slice(&word(page));
                bytes[PAGE - 8..].copy_from_slice(&word(page));
            }
            file.write_all(&block)?;
        }
        // Now rather than while it is read, and nothing of it left in the page cache.
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        let direct = File::options().read(true).custom_flags(libc::O_DIRECT).open(name)?;
        Ok(Self { file: Arc::new(direct) })
    }

    /// It.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }
}

/// Looks at the first word.
#[inline]
pub(super) fn expect_first(number: u64, block: &[u8]) {
    let page = number * (BLOCK / PAGE) as u64;
    assert!(block.len() == BLOCK && block[..8] == word(page), "block {number} was read");
}

/// Looks at all pages.
pub(super) fn expect(number: u64, block: &[u8]) {
    assert_eq!(block.len(), BLOCK, "block {number} was read as a whole");
    for (page, bytes) in (number * (BLOCK / PAGE) as u64..).zip(block.chunks_exact(PAGE)) {
        assert!(bytes[..8] == word(page) && bytes[PAGE - 8..] == word(page), "page {page} was read");
    }
}
