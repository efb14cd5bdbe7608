//! A process that is killed at any moment has lost nothing that an event of an fsync had acknowledged.
//!
//! The test runs itself once more as a child. That writes records to a file, syncs, and tells by a pipe how many
//! records are safe, over and over, until SIGKILL ends it; then the file has to have them. A killed process leaves its
//! page cache behind: it is not the device that is tested, but that no event comes before the system has what it speaks
//! of.

use crate::support::{process, skip};
use ioctx::aio::{Backend, Completion, Context, Event, Op, Request, Submitted};
use ioctx::backend::{Kernel, Threads};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

const RECORD: usize = 512;
/// How many records are written at a time.
const TOGETHER: u64 = 8;
const ROUNDS: u64 = 24;

fn record(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(RECORD / 8)
}

/// The child: until it is killed.
fn write_and_sync(path: &str, backend: impl Backend) {
    let context = Context::new(TOGETHER as u32, backend).unwrap();
    let file = Arc::new(File::options().write(true).open(path).unwrap());
    let mut acknowledged = File::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let wait = |n| {
        let mut events = Vec::new();
        assert_eq!(context.get_events(n, n, None, &mut events), Ok(n));
        let succeeded = |event: &Event| event.result.as_ref().is_ok_and(|n| [0, RECORD].contains(n));
        assert!(events.iter().all(succeeded), "{events:?}");
    };
    for first in (0..).step_by(TOGETHER as usize) {
        let mut batch: Vec<_> = (first..first + TOGETHER)
            .map(|n| Request::write(file.clone(), record(n), n * RECORD as u64))
            .collect();
        assert_eq!(context.submit_batch(&mut batch).unwrap(), TOGETHER as usize);
        wait(TOGETHER as usize);
        let sync = if first % 16 == 0 { Request::fsync } else { Request::fdatasync };
        context.submit(sync(file.clone())).unwrap();
        wait(1);
        // Less than a pipe tears.
        acknowledged.write_all(&(first + TOGETHER).to_le_bytes()).unwrap();
    }
}

/// Kills children of this test, each a while after it has told of the first records: for each, how many records it told
/// of, and how many of these are in the file.
fn kill(test: &str) -> impl Iterator<Item = (u64, u64)> {
    let path = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap().into_temp_path();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let name = format!("killed::{test}");
    (0..ROUNDS).map(move |_| {
        // Marsaglia's.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        File::create(&path).unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut command = process::again(&name, path.to_str().unwrap());
        let mut child = command.stdin(writer).stdout(std::process::Stdio::null()).spawn().unwrap();
        // It has the other end of the pipe.
        drop(command);
        let mut told = [0; 8];
        reader.read_exact(&mut told).expect("the child tells of its first records");
        thread::sleep(Duration::from_micros(random % 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let mut told = told.to_vec();
        reader.read_to_end(&mut told).unwrap();
        let (told, []) = told.as_chunks::<8>() else { panic!("a torn acknowledgement") };
        let acknowledged = u64::from_le_bytes(*told.last().unwrap());
        (acknowledged, safe(&path, acknowledged))
    })
}

/// How many of these records are in the file, from its start.
fn safe(path: &Path, records: u64) -> u64 {
    let bytes = fs::read(path).unwrap();
    (0..records).take_while(|n| bytes.chunks(RECORD).nth(*n as usize) == Some(&record(*n)[..])).count() as u64
}

/// Sees that children of this test, which write by such a backend, lose nothing.
fn loses_nothing<B: Backend>(test: &str, make: impl FnOnce() -> B) {
    if let Some(path) = crate::role() {
        return write_and_sync(&path, make());
    }
    let mut all = 0;
    for (acknowledged, safe) in kill(test) {
        assert_eq!(safe, acknowledged, "records");
        all += acknowledged;
    }
    println!("{ROUNDS} processes were killed; all of {all} records are safe");
}

#[test]
fn threads() {
    loses_nothing("threads", || Threads::new(2).unwrap());
}

#[test]
#[cfg(feature = "uring")]
fn uring() {
    use ioctx::backend::Uring;
    if let Err(why) = Uring::new(8) {
        return skip(why);
    }
    loses_nothing("uring", || Uring::new(TOGETHER as u32).unwrap());
}

#[test]
fn kernel_aio() {
    if let Err(why) = Kernel::new(8) {
        return skip(why);
    }
    loses_nothing("kernel_aio", || Kernel::new(TOGETHER as u32).unwrap());
}

/// Says that writes are done when it has put them into its queue, and that a sync is done at once.
struct Behind(mpsc::Sender<(Arc<File>, Vec<u8>, u64)>);

impl Behind {
    fn new() -> Self {
        let (queue, written) = mpsc::channel::<(Arc<File>, Vec<u8>, u64)>();
        thread::spawn(move || {
            for (file, bytes, offset) in written {
                thread::sleep(Duration::from_millis(1));
                file.write_all_at(&bytes, offset).unwrap();
            }
        });
        Self(queue)
    }
}

impl Backend for Behind {
    fn submit(&self, work: Completion) -> Submitted {
        let result = match &work.request().op {
            Op::Write { file, buf, offset } => {
                let file = file.with_file(|file| file.try_clone().unwrap());
                self.0.send((Arc::new(file), buf.to_vec(), *offset)).unwrap();
                buf.len()
            }
            _ => 0,
        };
        Submitted::Done(work.finish(Ok(result)))
    }
}

#[test]
fn a_backend_that_syncs_too_early_is_found() {
    const NAME: &str = "a_backend_that_syncs_too_early_is_found";
    if let Some(path) = crate::role() {
        return write_and_sync(&path, Behind::new());
    }
    assert!(kill(NAME).any(|(acknowledged, safe)| safe < acknowledged));
}
