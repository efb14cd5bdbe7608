//! What `tokio::fs` does: each read is a task of the runtime's blocking pool. `tokio::fs::File` itself has one operation
//! at a time, and a place in the file that it would have to be told before each; so its users call `pread` on the pool.

use super::Plain;
use crate::context::READ;
use crate::context::cached::{BLOCK, Reads, offset};
use crossbeam_channel::{Receiver, Sender};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::{io, thread};
use tokio::runtime::{Builder, Runtime};

/// A runtime, with as many threads in its pool as ours has.
#[derive(Debug)]
pub struct PoolReads {
    runtime: Runtime,
    file: Arc<File>,
    sender: Sender<Plain>,
    done: Receiver<Plain>,
}

impl Reads for PoolReads {
    type Block = Plain;
    type Submitter = ();
    type Reaper = ();

    fn open(file: &Arc<File>, blocks: usize) -> io::Result<(Self, Vec<Plain>)> {
        let threads = 4 * thread::available_parallelism()?.get();
        let runtime = Builder::new_multi_thread().worker_threads(1).max_blocking_threads(threads).build()?;
        let (sender, done) = crossbeam_channel::unbounded();
        Ok((Self { runtime, file: file.clone(), sender, done }, Plain::some(blocks)?))
    }

    #[inline]
    fn bytes<'a>(&'a self, block: &'a Plain) -> &'a [u8] {
        &block.buffer
    }

    #[inline]
    fn submit(&self, (): &mut (), batch: &mut Vec<Plain>) -> usize {
        let many = batch.len();
        for mut block in batch.drain(..) {
            let (file, sender) = (self.file.clone(), self.sender.clone());
            self.runtime.spawn_blocking(move || {
                let done = file.read_at(&mut block.buffer, offset(block.ticket.number));
                assert!(matches!(done, Ok(BLOCK)), "all blocks are whole");
                // If it fails, a check has: nobody listens.
                drop(sender.send(block));
            });
        }
        many
    }

    #[inline]
    fn reap(&self, (): &mut (), min: usize, mut each: impl FnMut(Plain)) -> usize {
        for _ in 0..min {
            each(self.done.recv().expect("we have a sender"));
        }
        min + self.done.try_iter().take(READ - min).map(each).count()
    }
}
