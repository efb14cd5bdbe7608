//! Real files through the context, on the thread pool: every operation, short transfers, and errors.
#![cfg(unix)]

use ioctx::aio::{Argument, Context, Event, MAX_SEGMENTS, Op, Reason, Request};
use ioctx::backend::Threads;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A pool that does everything in its threads, and one that does what is cached in the submitter.
fn contexts() -> impl Iterator<Item = Context<Threads>> {
    [false, true].into_iter().map(|inline| {
        let threads = Threads::new(2).unwrap().inline_cached(inline);
        Context::new(8, threads).unwrap()
    })
}

fn run(context: &Context<Threads>, request: Request) -> Event {
    context.submit(request).unwrap();
    let mut events = Vec::new();
    assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
    events.pop().unwrap()
}

fn error(event: Event) -> i32 {
    event.result.unwrap_err().raw_os_error().unwrap()
}

fn file_of(bytes: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Arc::new(file)
}

#[test]
fn every_operation_does_what_it_says() {
    for context in contexts() {
        let file = file_of(b"0123456789");
        let written = run(&context, Request::write(Arc::clone(&file), b"ab".to_vec(), 4));
        assert_eq!((written.result.unwrap(), written.request.into_buffer().unwrap()), (2, b"ab".to_vec()));

        let read = run(&context, Request::read(Arc::clone(&file), vec![0; 4], 3).with_user_data(9));
        assert_eq!((read.result.unwrap(), read.request.user_data), (4, 9));
        assert_eq!(read.request.into_buffer::<Vec<u8>>().unwrap(), b"3ab6");

        let gathered = vec![b"xy".to_vec(), Vec::new(), b"z".to_vec()];
        assert_eq!(run(&context, Request::writev(Arc::clone(&file), gathered, 9)).result.unwrap(), 3);

        let scattered = run(&context, Request::readv(Arc::clone(&file), vec![vec![0; 5], vec![0; 9]], 6));
        assert_eq!(scattered.result.unwrap(), 6);
        assert_eq!(
            scattered.request.into_buffers::<Vec<u8>>().unwrap(),
            [b"678xy".to_vec(), b"z\0\0\0\0\0\0\0\0".to_vec()]
        );

        assert_eq!(run(&context, Request::fsync(Arc::clone(&file))).result.unwrap(), 0);
        assert_eq!(run(&context, Request::fdatasync(Arc::clone(&file))).result.unwrap(), 0);
        assert_eq!(run(&context, Request::nop()).result.unwrap(), 0);
    }
}

#[test]
fn reads_are_short_at_the_end_and_empty_behind_it() {
    for context in contexts() {
        let file = file_of(&[7; 5000]);
        let across = run(&context, Request::read(Arc::clone(&file), vec![1; 4096], 4096));
        assert_eq!(across.result.unwrap(), 904);
        let buf = across.request.into_buffer::<Vec<u8>>().unwrap();
        assert!(buf[..904].iter().all(|byte| *byte == 7) && buf.len() == 4096);
        assert_eq!(run(&context, Request::read(Arc::clone(&file), vec![1; 10], 5000)).result.unwrap(), 0);
        assert_eq!(run(&context, Request::read(Arc::clone(&file), vec![1; 10], 1 << 40)).result.unwrap(), 0);
        assert_eq!(run(&context, Request::read(file, Vec::new(), 0)).result.unwrap(), 0);
    }
}

#[test]
fn errors_come_as_events_with_the_request() {
    for context in contexts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"text").unwrap();
        let read_only = Arc::new(File::open(&path).unwrap());
        let write_only = Arc::new(File::options().write(true).open(&path).unwrap());
        let refused = run(&context, Request::write(Arc::clone(&read_only), b"x".to_vec(), 0));
        assert_eq!(refused.request.op_name(), "write");
        assert_eq!(error(refused), libc::EBADF);
        assert_eq!(error(run(&context, Request::read(write_only, vec![0; 1], 0))), libc::EBADF);
        let folder = File::open(directory.path()).unwrap();
        assert_eq!(error(run(&context, Request::read(folder, vec![0; 1], 0))), libc::EISDIR);
        // What cannot be had is an event, not a hang: a full device, a socket without a peer.
        if let Ok(full) = File::options().write(true).open("/dev/full") {
            assert_eq!(error(run(&context, Request::write(full, vec![0; 4096], 0))), libc::ENOSPC);
        }
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let writer = File::from(OwnedFd::from(writer));
        assert_eq!(error(run(&context, Request::write(writer, b"x".to_vec(), 0))), libc::EPIPE);
    }
}

trait Named {
    fn op_name(&self) -> &'static str;
}

impl Named for Request {
    fn op_name(&self) -> &'static str {
        match self.op {
            Op::Write { .. } => "write",
            _ => "another",
        }
    }
}

#[test]
fn pipes_are_read_and_written_without_an_offset() {
    for context in contexts() {
        let (reader, writer) = std::io::pipe().unwrap();
        let reader = Arc::new(File::from(OwnedFd::from(reader)));
        let mut writer = File::from(OwnedFd::from(writer));
        // Waits in a worker until something comes.
        context.submit(Request::read(Arc::clone(&reader), vec![0; 16], 77)).unwrap();
        writer.write_all(b"late").unwrap();
        let mut events = Vec::new();
        assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
        let event = events.pop().unwrap();
        assert_eq!(event.result.unwrap(), 4);
        assert_eq!(&event.request.into_buffer::<Vec<u8>>().unwrap()[..4], b"late");

        let several = vec![b"a".to_vec(), b"bc".to_vec()];
        assert_eq!(run(&context, Request::writev(writer, several, 5)).result.unwrap(), 3);
        let mut got = Vec::new();
        (&*reader).read_to_end(&mut got).unwrap();
        assert_eq!(got, b"abc");
    }
}

#[test]
fn arguments_that_no_backend_could_accept_are_named() {
    let context = contexts().next().unwrap();
    let file = file_of(b"");
    let refuse = |request: Request, want: Argument| {
        let refused = context.submit(request).unwrap_err();
        assert!(matches!(refused.reason, Reason::Invalid(argument) if argument == want), "{refused}");
        refused.request
    };
    let request = Request::read(Arc::clone(&file), vec![5; 2], i64::MAX as u64);
    assert_eq!(refuse(request, Argument::Offset).into_buffer::<Vec<u8>>().unwrap(), [5, 5]);
    refuse(Request::write(Arc::clone(&file), vec![0], u64::MAX), Argument::Offset);
    let many = refuse(Request::readv(file, vec![Vec::new(); MAX_SEGMENTS + 1], 0), Argument::Segments);
    assert_eq!(many.into_buffers::<Vec<u8>>().unwrap().len(), MAX_SEGMENTS + 1);
    assert_eq!(context.outstanding(), 0);
}

#[test]
fn many_requests_over_many_files_keep_their_contents_apart() {
    const FILES: usize = 16;
    const BLOCK: usize = 512;
    for context in contexts() {
        let files: Vec<_> = (0..FILES).map(|_| file_of(&[])).collect();
        let mut left: Vec<Request> = Vec::new();
        for round in 0..40_u64 {
            for (i, file) in files.iter().enumerate() {
                let byte = (i as u64 * 40 + round) as u8;
                left.push(Request::write(Arc::clone(file), vec![byte; BLOCK], round * BLOCK as u64));
            }
        }
        let mut events = Vec::new();
        let mut written = 0;
        while written < FILES * 40 {
            // Full is no error here: what was not accepted stays in the batch.
            let _ = context.submit_batch(&mut left);
            events.clear();
            written += context.get_events(1, 8, None, &mut events).unwrap();
            assert!(events.iter().all(|event| *event.result.as_ref().unwrap() == BLOCK));
        }
        for (i, file) in files.iter().enumerate() {
            let read = run(&context, Request::read(Arc::clone(file), vec![0; 40 * BLOCK], 0));
            assert_eq!(read.result.unwrap(), 40 * BLOCK);
            for (round, block) in read.request.into_buffer::<Vec<u8>>().unwrap().chunks(BLOCK).enumerate() {
                assert!(block.iter().all(|byte| *byte == (i * 40 + round) as u8));
            }
        }
    }
}
