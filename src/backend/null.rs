//! [`Null`] and [`Zero`]: complete everything at once.
//!
//! Source: "char: add aio_{read,write} to /dev/{null,zero}" (2012), made to measure the overhead alone.

use crate::aio::{Backend, Completion, Op, Request, Submitted};

/// Behaves like `/dev/null`: reads find the end of the file, writes succeed and go nowhere. Wait-free.
///
/// ```
/// use ioctx::{Context, Request, backend::Null};
/// let context = Context::new(4, Null)?;
/// context.submit(Request::nop())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Null;

/// Behaves like `/dev/zero`: reads fill their buffers with zeros, writes succeed and go nowhere. Wait-free.
#[derive(Clone, Copy, Debug, Default)]
pub struct Zero;

impl Backend for Null {
    #[inline]
    fn submit(&self, work: Completion) -> Submitted {
        let written = written(work.request());
        Submitted::Done(work.finish(Ok(written)))
    }
}

impl Backend for Zero {
    fn submit(&self, mut work: Completion) -> Submitted {
        let done = match &mut work.request_mut().op {
            Op::Read { buf, .. } => {
                buf.fill(0);
                buf.len()
            }
            Op::ReadV { bufs, .. } => {
                bufs.iter_mut().for_each(|buf| buf.fill(0));
                bufs.iter().map(Vec::len).sum()
            }
            _ => written(work.request()),
        };
        Submitted::Done(work.finish(Ok(done)))
    }
}

/// How many bytes a write has, and 0 for anything else.
#[inline]
fn written(request: &Request) -> usize {
    match &request.op {
        Op::Write { buf, .. } => buf.len(),
        Op::WriteV { bufs, .. } => bufs.iter().map(Vec::len).sum(),
        _ => 0,
    }
}
