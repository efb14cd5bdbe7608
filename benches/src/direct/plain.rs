//! Without this crate.

use super::{BLOCK, Large, PLACES, Reader, Shape, Slab};
use crate::context::{enable, own_ring};
use io_uring::{IoUring, opcode, types};
use ioctx::aio::AlignedBuffer;
use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::{fmt, io, slice};

/// A loop of `pread`, always into the same memory; by way of an aligned buffer if that is not.
#[derive(Debug)]
pub struct PreadLoop<'a> {
    file: Arc<File>,
    slab: &'a Slab,
    shape: Shape,
    aligned: Option<AlignedBuffer>,
}

impl<'a> PreadLoop<'a> {
    /// Whatever the depth.
    ///
    /// # Errors
    ///
    /// Out of memory.
    pub fn new(file: &Large, slab: &'a Slab, shape: Shape) -> io::Result<Self> {
        let len = (shape.blocks * BLOCK).max(Slab::HUGE);
        let aligned = || AlignedBuffer::new(len, Slab::HUGE).map_err(io::Error::other);
        let aligned = if shape.shift > 0 { Some(aligned()?) } else { None };
        Ok(Self { file: file.file().clone(), slab, shape, aligned })
    }
}

impl Reader for PreadLoop<'_> {
    fn read(&mut self, blocks: Range<u64>, mut each: impl FnMut(u64, &[u8])) {
        let len = self.shape.blocks * BLOCK;
        // SAFETY: within the slab, which nobody else uses meanwhile.
        let memory = unsafe { slice::from_raw_parts_mut(self.slab.at(0, self.shape), len) };
        for first in blocks.step_by(self.shape.blocks) {
            let to = self.aligned.as_mut().map_or(&mut *memory, |aligned| &mut aligned[..len]);
            let done = self.file.read_at(to, first * BLOCK as u64);
            assert!(done.is_ok_and(|done| done == len), "all blocks are whole");
            if let Some(aligned) = &self.aligned {
                memory.copy_from_slice(&aligned[..len]);
            }
            (first..).zip(memory.chunks_exact(BLOCK)).for_each(|(number, block)| each(number, block));
        }
    }
}

/// An `io_uring` of one thread's, for one issuer and deferred work, with the file registered: the cheapest there is.
/// Always one block at a time.
pub struct OwnRing<'a> {
    ring: IoUring,
    slab: &'a Slab,
    depth: usize,
}

impl fmt::Debug for OwnRing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnRing").field("depth", &self.depth).finish_non_exhaustive()
    }
}

impl<'a> OwnRing<'a> {
    /// For the calling thread.
    ///
    /// # Errors
    ///
    /// If the system has no such thing, or does not let us use it.
    pub fn new(file: &Large, slab: &'a Slab, depth: usize) -> io::Result<Self> {
        let ring = own_ring()?;
        ring.submitter().register_files(&[file.file().as_raw_fd()])?;
        enable(&ring);
        Ok(Self { ring, slab, depth })
    }
}

impl Reader for OwnRing<'_> {
    fn read(&mut self, mut blocks: Range<u64>, mut each: impl FnMut(u64, &[u8])) {
        let shape = Shape { depth: self.depth, blocks: 1, shift: 0 };
        let mut idle: Vec<usize> = (0..self.depth).collect();
        let mut reading = [0; PLACES];
        loop {
            while !idle.is_empty()
                && let Some(number) = blocks.next()
                && let Some(place) = idle.pop()
            {
                reading[place] = number;
                let read = opcode::Read::new(types::Fixed(0), self.slab.at(place, shape), BLOCK as u32);
                let read = read.offset(number * BLOCK as u64).build().user_data(place as u64);
                // SAFETY: the ring keeps the file. Nobody else uses the memory before all reads have completed, as they
                // have when this returns; what panics ends the process.
                unsafe { self.ring.submission().push(&read) }.expect("it is longer than that");
            }
            if idle.len() == self.depth {
                return;
            }
            self.ring.submit_and_wait(1).expect("nobody interrupts");
            for event in self.ring.completion() {
                assert!(event.result() == BLOCK as i32, "all blocks are whole");
                let place = event.user_data() as usize;
                // SAFETY: within the slab; it was read, and is nobody else's.
                each(reading[place], unsafe { slice::from_raw_parts(self.slab.at(place, shape), BLOCK) });
                idle.push(place);
            }
        }
    }
}
