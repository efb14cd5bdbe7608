//! A layer of one's own between context and file, without a thread of its own:
//! `cargo run --release --example layers -- FILE`.
//!
//! The layer seals the blocks that are written: each goes to the file with a checksum of its content and its place
//! behind it. It passes requests down with buffers of its own, and has them given back when the requests have ended.
//! The checksum of a block that was read is looked at by the thread that reads the event and waits for the block, and
//! not by one of the backend's.

use ioctx::aio::{Backend, By, Completion, Context, Finished, Op, Outcome, Request, RequestId, Submitted};
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
    below: B,
    /// How many were looked at by threads that read events.
    checked: Arc<AtomicU64>,
    reader: ThreadId,
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

impl<B: Backend> Backend for Seals<B> {
    fn submit(&self, mut work: Completion) -> Submitted {
        let (len, offset) = match &work.request().op {
            Op::Read { buf, offset, .. } => (buf.len(), *offset),
            Op::Write { buf, offset, .. } => (buf.len(), *offset),
            // Syncs and polls are the file's affair.
            _ => return self.below.submit(work),
        };
        let block = offset / BLOCK as u64;
        if len != BLOCK || !offset.is_multiple_of(BLOCK as u64) {
            return Submitted::Refused(work, io::Error::other("whole blocks only, one for each request"));
        }
        match &mut work.request_mut().op {
            Op::Read { buf, offset: place, .. } => {
                *place = block * SEALED as u64;
                let own = replace(buf, vec![0; SEALED].into());
                let (checked, reader) = (Arc::clone(&self.checked), self.reader);
                // The one word: this is done by the thread that waits.
                work.on_end(By::Reader, move |request, outcome| {
                    let Op::Read { buf, offset: place, .. } = &mut request.op else { unreachable!("a read") };
                    *place = offset;
                    let sealed = replace(buf, own);
                    let read = outcome.into_result();
                    if read.is_ok() {
                        assert_eq!(thread::current().id(), reader, "no other thread has to do it");
                        checked.fetch_add(1, Relaxed);
                    }
                    read.and_then(|read| unseal(request, &sealed, block, read)).into()
                });
            }
            Op::Write { buf, offset: place, .. } => {
                *place = block * SEALED as u64;
                let mut sealed = buf.to_vec();
                sealed.extend(sum(block, buf).to_le_bytes());
                let own = replace(buf, sealed.into());
                work.on_end(By::Completer, move |request, outcome| {
                    let Op::Write { buf, offset: place, .. } = &mut request.op else {
                        unreachable!("a write")
                    };
                    (*buf, *place) = (own, offset);
                    Outcome { bytes: outcome.bytes.min(BLOCK), ..outcome }
                });
            }
            _ => unreachable!("looked at above"),
        }
        self.below.submit(work)
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
    let (checked, reader) = (Arc::<AtomicU64>::default(), thread::current().id());
    let seals = Seals { below: Threads::sized()?, checked: Arc::clone(&checked), reader };
    let context = Context::new(BLOCKS as u32, seals)?;
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
    let checked = checked.load(Relaxed);
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
