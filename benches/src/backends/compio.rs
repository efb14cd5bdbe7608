//! `compio`: a runtime with a ring for each thread, whose reads are futures.

use super::{Engine, Own, Plain};
use crate::context::READ;
use crate::context::cached::{BLOCK, offset};
use compio::buf::{BufResult, IoBuf, IoBufMut, SetLen};
use compio::fs::OpenOptions;
use compio::io::AsyncReadAt;
use compio::runtime::Runtime;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use ioctx::aio::AlignedBuffer;
use std::fs::File;
use std::future::Future;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::{fmt, io};

/// A runtime of one thread's. A future is polled, and so submitted, when somebody waits: one by one is as by 16.
pub struct Compio {
    flying: FuturesUnordered<Pin<Box<dyn Future<Output = Plain>>>>,
    file: compio::fs::File,
    // Goes last: the others belong to it.
    runtime: Runtime,
}

impl fmt::Debug for Compio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compio").field("flying", &self.flying.len()).finish_non_exhaustive()
    }
}

/// A buffer of ours as one of theirs.
struct Theirs(AlignedBuffer);

impl IoBuf for Theirs {
    fn as_init(&self) -> &[u8] {
        &self.0
    }
}

impl SetLen for Theirs {
    unsafe fn set_len(&mut self, len: usize) {
        debug_assert!(len <= self.0.len(), "by the contract of this");
    }
}

impl IoBufMut for Theirs {
    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        let (start, len) = (self.0.as_mut_ptr().cast(), self.0.len());
        // SAFETY: so many bytes, borrowed exclusively; who gets them only ever writes bytes that are initialised.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }
}

impl Engine for Compio {
    type Block = Plain;

    fn bytes<'a>(&'a self, block: &'a Plain) -> &'a [u8] {
        &block.buffer
    }

    #[inline]
    fn submit(&mut self, batch: &mut Vec<Plain>) {
        for Plain { ticket, buffer } in batch.drain(..) {
            let file = self.file.clone();
            self.flying.push(Box::pin(async move {
                let BufResult(done, Theirs(buffer)) =
                    file.read_at(Theirs(buffer), offset(ticket.number)).await;
                assert!(matches!(done, Ok(BLOCK)), "all blocks are whole");
                Plain { ticket, buffer }
            }));
        }
    }

    #[inline]
    fn reap(&mut self, min: usize, mut each: impl FnMut(Plain)) -> usize {
        let Self { runtime, flying, .. } = self;
        runtime.block_on(async {
            for _ in 0..min {
                each(flying.next().await.expect("so many are in flight"));
            }
            let mut reaped = min;
            while reaped < READ
                && let Some(Some(block)) = flying.next().now_or_never()
            {
                each(block);
                reaped += 1;
            }
            reaped
        })
    }
}

impl Own for Compio {
    fn open(file: &Arc<File>, depth: usize) -> io::Result<(Self, Vec<Plain>)> {
        let runtime = Runtime::new()?;
        // The same file in the same way.
        let flags = rustix::fs::fcntl_getfl(file)?.bits() as i32 & libc::O_DIRECT;
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        let file = runtime.block_on(OpenOptions::new().read(true).custom_flags(flags).open(name))?;
        Ok((Self { flying: FuturesUnordered::new(), file, runtime }, Plain::some(depth)?))
    }
}
