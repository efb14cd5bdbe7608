//! What no context can do without, and so no context: a system call per read.

use super::file::offset;
use super::{BLOCK, Reader};
use ioctx::aio::AlignedBuffer;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// `pread`, always into the same buffer, which nobody else is given and which stays in the nearest cache.
#[derive(Debug)]
pub struct Pread {
    file: Arc<File>,
    buffer: AlignedBuffer,
}

impl Reader for Pread {
    fn open(file: &Arc<File>, _batch: usize) -> io::Result<Self> {
        let mut buffer = AlignedBuffer::new(BLOCK, BLOCK).map_err(io::Error::other)?;
        buffer.fill(0xff);
        Ok(Self { file: file.clone(), buffer })
    }

    #[inline]
    fn read(&mut self, numbers: &[u32], mut each: impl FnMut(u32, &[u8])) {
        for number in numbers {
            let read = self.file.read_at(&mut self.buffer, offset(*number));
            assert!(matches!(read, Ok(BLOCK)), "all blocks are whole");
            each(*number, &self.buffer);
        }
    }
}
