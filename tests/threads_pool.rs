//! The pool: what it does in the submitter.
#![cfg(target_os = "linux")]

mod support;

use ioctx::aio::{AlignedBuffer, Context, Request};
use ioctx::backend::Threads;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

/// A pipe that nobody has written to.
fn pipe() -> (Arc<File>, File) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Arc::new(File::from(OwnedFd::from(reader))), File::from(OwnedFd::from(writer)))
}

#[test]
fn reads_past_the_page_cache_are_left_to_the_pool() {
    support::never_hang();
    const BLOCK: usize = 4096;
    let path = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap().into_temp_path();
    std::fs::write(&path, [7; BLOCK]).unwrap();
    let direct = match File::options().read(true).custom_flags(libc::O_DIRECT).open(&path) {
        Ok(file) => Arc::new(file),
        Err(error) => return support::skip(format_args!("O_DIRECT: {error}")),
    };
    let cached = Arc::new(File::open(&path).unwrap());
    let read =
        |file: &Arc<File>| Request::read(Arc::clone(file), AlignedBuffer::new(BLOCK, BLOCK).unwrap(), 0);
    let context = Context::new(128, Threads::new(1).unwrap()).unwrap();
    // Closed before the context waits for who reads it.
    let (reader, mut writer) = pipe();
    // The only thread is busy.
    context.submit(Request::read(reader, vec![0; 1], 0)).unwrap();
    let mut events = Vec::new();
    for file in [&direct, &cached, &direct, &cached] {
        for _ in 0..20 {
            context.submit(read(file)).unwrap();
            let done = usize::from(Arc::ptr_eq(file, &cached));
            assert_eq!(context.get_events(0, 8, None, &mut events), Ok(done));
        }
    }
    assert_eq!(events.len(), 40);
    writer.write_all(b"x").unwrap();
    assert_eq!(context.get_events(41, 41, None, &mut events), Ok(41));
    let whole = |event: &&ioctx::Event| event.result.as_ref().unwrap() == &BLOCK;
    assert_eq!(events.iter().filter(whole).count(), 80);
}
