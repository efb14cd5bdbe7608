//! [`Null`] and [`Zero`]: complete everything at once.
//!
//! Source: "char: add aio_{read,write} to /dev/{null,zero}" (2012), made to measure the overhead alone.

use crate::aio::{Backend, Completion, Op, Readiness, Submitted};
use std::io;

/// Behaves like `/dev/null`: reads find the end of the file, writes succeed and go nowhere, polls find it
/// readable and writable. Custom operations are not run: their events say `EOPNOTSUPP`. Wait-free.
///
/// ```
/// use ioctx::{Context, Request, backend::Null};
/// let context = Context::new(4, Null)?;
/// context.submit(Request::nop())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Null;

/// Behaves like `/dev/zero`: reads fill their buffers with zeros; the rest as [`Null`]. Wait-free.
#[derive(Clone, Copy, Debug, Default)]
pub struct Zero;

impl Backend for Null {
    #[inline(always)]
    fn submit(&self, work: Completion) -> Submitted {
        let result = done(&work.request().op);
        // Of one variant, so that it comes to the context in registers: a refusal here would send it through memory in
        // pieces, and to load it would wait until these have left the store buffer.
        Submitted::Done(work.finish(result))
    }
}

impl Backend for Zero {
    fn submit(&self, mut work: Completion) -> Submitted {
        let result = match &mut work.request_mut().op {
            Op::Read { buf, .. } => {
                buf.fill(0);
                Ok(buf.len())
            }
            Op::ReadV { bufs, .. } => {
                bufs.iter_mut().for_each(|buf| buf.fill(0));
                Ok(bufs.iter().map(|buf| buf.len()).sum())
            }
            op => done(op),
        };
        Submitted::Done(work.finish(result))
    }
}

/// How many bytes a write has, what a poll finds ready, and 0 for anything else.
#[inline]
fn done(op: &Op) -> io::Result<usize> {
    match op {
        Op::Write { buf, .. } | Op::WriteDsync { buf, .. } => Ok(buf.len()),
        Op::WriteV { bufs, .. } => Ok(bufs.iter().map(|buf| buf.len()).sum()),
        Op::Poll { interest, .. } => {
            Ok((*interest & (Readiness::READABLE | Readiness::WRITABLE)).bits().into())
        }
        Op::Custom(_) => Err(unsupported()),
        _ => Ok(0),
    }
}

#[cold]
fn unsupported() -> io::Error {
    #[cfg(unix)]
    return rustix::io::Errno::OPNOTSUPP.into();
    #[cfg(not(unix))]
    return io::ErrorKind::Unsupported.into();
}
