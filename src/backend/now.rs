//! Reading and writing without waiting: [`try_now`].

use crate::aio::{IoDesc, Request, Rest};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use std::io;

/// The offset that means none: −1.
const WHERE_IT_IS: u64 = u64::MAX;

/// What came of trying to read or write without waiting.
pub(super) enum Now {
    Done(io::Result<usize>),
    Waits,
    /// The file does not do that.
    Unknown,
}

/// Reads or writes, if that takes no waiting. `stream`: the file is known to be one that cannot seek.
pub(super) fn try_now(request: &mut Request, stream: bool) -> Now {
    const NOW: ReadWriteFlags = ReadWriteFlags::NOWAIT;
    let Ok(mut desc) = IoDesc::new(request) else { return Now::Unknown };
    let result = match desc.rest() {
        Rest::Read { file, mut bufs, offset } => {
            seekless(stream, offset, |at| preadv2(file, &mut bufs, at, NOW))
        }
        Rest::Write { file, bufs, offset, dsync } => {
            let flags = if dsync { NOW | ReadWriteFlags::DSYNC } else { NOW };
            seekless(stream, offset, |at| pwritev2(file, &bufs, at, flags))
        }
    };
    match result {
        Err(Errno::AGAIN | Errno::INTR) => Now::Waits,
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Now::Unknown,
        done => Now::Done(done.map_err(io::Error::from)),
    }
}

/// What a file that cannot seek answers is done again without the offset.
fn seekless(
    stream: bool,
    offset: u64,
    mut call: impl FnMut(u64) -> rustix::io::Result<usize>,
) -> rustix::io::Result<usize> {
    match if stream { Err(Errno::SPIPE) } else { call(offset) } {
        Err(Errno::SPIPE) => call(WHERE_IT_IS),
        done => done,
    }
}
