//! A layer of one's own between context and file, without a thread of its own:
//! `cargo run --release --example layers -- FILE`.
//!
//! The layer seals the blocks that are written: each goes to the file with a checksum of its content and its place
//! behind it. Where a block is read, the completer hands it up as it is; the checksum is looked at by the thread that
//! reads the event and waits for the block, and not by one of the backend's.

use ioctx::aio::{
    Backend, Below, Buffer, BufferMut, Completion, Context, Done, Ended, Finished, Op, Request, RequestId,
    Submitted,
};
use ioctx::backend::Threads;
use std::error::Error;
use std::fs::File;
use std::io;
use std::mem::replace;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, ThreadId};

/// Bytes of a block, as the layer's users see it; offsets and lengths are whole blocks, one for each request.
const BLOCK: usize = 4096;
/// In the file there is a checksum behind each.
const SEALED: usize = BLOCK + 8;

/// Seals blocks on their way down, and looks at the seals on their way up.
struct Seals<B: Backend> {
    below: Below<B, Sealed>,
    /// How many were looked at by threads that read events.
    checked: Arc<AtomicU64>,
    reader: ThreadId,
}

/// A request above, and its buffer, whose block is below in one of the layer's.
struct Sealed {
    above: Completion,
    kept: Kept,
    offset: u64,
    checked: Arc<AtomicU64>,
    reader: ThreadId,
}

/// The buffer of a request above.
enum Kept {
    Read(BufferMut),
    Write(Buffer),
}

impl Sealed {
    /// The request above as it was, and the layer's buffer, if it was read into.
    fn restore(&mut self, below: Op, kept: Kept) -> Option<BufferMut> {
        let offset = self.offset;
        let (op, sealed) = match (below, kept) {
            (Op::Read { file, buf: sealed, .. }, Kept::Read(buf)) => {
                (Op::Read { file, buf, offset }, Some(sealed))
            }
            (Op::Write { file, .. }, Kept::Write(buf)) => (Op::Write { file, buf, offset }, None),
            _ => unreachable!("it comes back as it was submitted"),
        };
        self.above.request_mut().op = op;
        sealed
    }
}

impl Done for Sealed {
    fn done(mut self, mut ended: Ended) -> Option<Finished> {
        let result = ended.result();
        let kept = replace(&mut self.kept, Kept::Write(Buffer::from(Vec::new())));
        let Some(sealed) = self.restore(ended.request.op, kept) else {
            return Some(self.above.finish(result.map(|written| written.min(BLOCK))));
        };
        let Self { above, offset, checked, reader, .. } = self;
        // The one word: what follows is done by the thread that waits.
        Some(above.finish_in_reader(result, move |request, result| {
            assert_eq!(thread::current().id(), reader, "no other thread has to do it");
            checked.fetch_add(1, Relaxed);
            unseal(request, &sealed, offset / BLOCK as u64, result?)
        }))
    }
}

/// Copies a block from the layer's buffer to the user's, if it is what was written there.
fn unseal(request: &mut Request, sealed: &[u8], block: u64, read: usize) -> io::Result<usize> {
    let Op::Read { buf, .. } = &mut request.op else { unreachable!("it was a read") };
    if read < SEALED {
        return Ok(0);
    }
    let (content, seal) = sealed.split_at(BLOCK);
    if sum(block, content).to_le_bytes() != *seal {
        // Its event says `EIO`.
        return Err(io::ErrorKind::InvalidData.into());
    }
    buf[..BLOCK].copy_from_slice(content);
    Ok(BLOCK)
}

/// FNV-1a: finds what chance destroys, and keeps no secret.
fn sum(block: u64, content: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    block.to_le_bytes().iter().chain(content).fold(0xcbf2_9ce4_8422_2325, step)
}

impl<B: Backend> Seals<B> {
    fn new(capacity: u32, below: B) -> Result<Self, Box<dyn Error>> {
        let below = Below::new(capacity, below)?;
        Ok(Self { below, checked: Arc::default(), reader: thread::current().id() })
    }
}

impl<B: Backend> Backend for Seals<B> {
    fn submit(&self, mut work: Completion) -> Submitted {
        let above = match self.below.above(&work) {
            Ok(above) => above,
            Err(error) => return Submitted::Refused(work, error),
        };
        let (len, offset) = match &work.request().op {
            Op::Read { buf, offset, .. } => (buf.len(), *offset),
            Op::Write { buf, offset, .. } => (buf.len(), *offset),
            // Syncs and polls are the file's affair.
            _ => return self.below.backend().submit(work),
        };
        if len != BLOCK || !offset.is_multiple_of(BLOCK as u64) {
            return Submitted::Refused(work, io::Error::other("whole blocks only, one for each request"));
        }
        let place = offset / BLOCK as u64 * SEALED as u64;
        let (op, kept) = match replace(&mut work.request_mut().op, Op::Nop) {
            Op::Read { file, buf, .. } => {
                (Op::Read { file, buf: vec![0; SEALED].into(), offset: place }, Kept::Read(buf))
            }
            Op::Write { file, buf, .. } => {
                let mut sealed = buf.to_vec();
                sealed.extend(sum(offset / BLOCK as u64, &buf).to_le_bytes());
                (Op::Write { file, buf: sealed.into(), offset: place }, Kept::Write(buf))
            }
            _ => unreachable!("looked at above"),
        };
        let checked = Arc::clone(&self.checked);
        let sealed = Sealed { above: work, kept, offset, checked, reader: self.reader };
        match self.below.submit(above, Request::new(op), sealed) {
            Ok(Some(finished)) => Submitted::Done(finished),
            Ok(None) => Submitted::Queued,
            Err(not) => {
                let mut sealed = not.done;
                let kept = replace(&mut sealed.kept, Kept::Write(Buffer::from(Vec::new())));
                sealed.restore(not.request.op, kept);
                Submitted::Refused(sealed.above, not.error)
            }
        }
    }

    fn flush(&self) {
        self.below.flush();
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        self.below.poll(done);
    }

    #[cfg(ioctx_linux)]
    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.below.descriptor()
    }

    fn cancel(&self, id: RequestId) -> bool {
        self.below.cancel(id)
    }

    fn cancel_all(&self) {
        self.below.cancel_all();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    const BLOCKS: u64 = 64;
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    let file = Arc::new(match &path {
        Some(path) => File::options().read(true).write(true).create_new(true).open(path)?,
        None => tempfile::tempfile()?,
    });
    let context = Context::new(BLOCKS as u32, Seals::new(BLOCKS as u32, Threads::sized()?)?)?;
    let block = |n: u64| vec![n as u8; BLOCK];
    let mut events = Vec::new();

    for n in 0..BLOCKS {
        context.submit(Request::write(Arc::clone(&file), block(n), n * BLOCK as u64))?;
    }
    context.get_events(BLOCKS as usize, BLOCKS as usize, None, &mut events)?;
    for event in events.drain(..) {
        assert_eq!(event.result?, BLOCK);
    }

    // One byte of the device's goes wrong.
    let wrong = 13;
    let place = wrong * SEALED as u64 + 100;
    overwrite(&file, place)?;

    for n in 0..BLOCKS {
        context
            .submit(Request::read(Arc::clone(&file), vec![0; BLOCK], n * BLOCK as u64).with_user_data(n))?;
    }
    context.get_events(BLOCKS as usize, BLOCKS as usize, None, &mut events)?;
    let mut broken = Vec::new();
    for event in events.drain(..) {
        let n = event.request.user_data;
        match event.result {
            Ok(read) => {
                assert_eq!(read, BLOCK);
                let read: Vec<u8> = event.request.into_buffer().expect("a vector went in");
                assert_eq!(read, block(n));
            }
            Err(_) => broken.push(n),
        }
    }
    assert_eq!(broken, [wrong]);
    let checked = context.backend().checked.load(Relaxed);
    assert_eq!(checked, BLOCKS);
    println!(
        "{BLOCKS} blocks sealed and read; {checked} seals looked at by the thread that waited; broken: {broken:?}"
    );
    Ok(())
}

/// Changes a byte past the layer.
fn overwrite(file: &Arc<File>, place: u64) -> Result<(), Box<dyn Error>> {
    let context = Context::new(1, Threads::new(1)?)?;
    context.submit(Request::write(Arc::clone(file), vec![0xa5], place))?;
    context.visit(1, 1, None, |event| assert_eq!(event.result().unwrap(), 1))?;
    Ok(())
}
