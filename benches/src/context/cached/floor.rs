//! What no context can do without, and so no context: a system call per read.

use super::file::offset;
use super::{BLOCK, Reader};
use ioctx::aio::AlignedBuffer;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// `pread` into one of so many buffers after the other, which nobody else is given. A single one stays in the nearest
/// cache.
#[derive(Debug)]
pub struct Pread<const BUFFERS: usize> {
    file: Arc<File>,
    buffers: Vec<AlignedBuffer>,
    next: usize,
}

impl<const BUFFERS: usize> Reader for Pread<BUFFERS> {
    fn open(file: &Arc<File>, _batch: usize) -> io::Result<Self> {
        let buffer = |_| {
            let mut buffer = AlignedBuffer::new(BLOCK, BLOCK).map_err(io::Error::other)?;
            buffer.fill(0xff);
            Ok(buffer)
        };
        Ok(Self {
            file: file.clone(),
            buffers: (0..BUFFERS).map(buffer).collect::<io::Result<_>>()?,
            next: 0,
        })
    }

    #[inline]
    fn read(&mut self, numbers: &[u32], mut each: impl FnMut(u32, &[u8])) {
        for number in numbers {
            let buffer = &mut self.buffers[self.next];
            let read = self.file.read_at(buffer, offset(*number));
            assert!(matches!(read, Ok(BLOCK)), "all blocks are whole");
            each(*number, buffer);
            self.next = if self.next + 1 < BUFFERS { self.next + 1 } else { 0 };
        }
    }
}
