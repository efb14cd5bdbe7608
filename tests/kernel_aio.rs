//! `Kernel`: files that are direct and files that are not, many threads, requests that do not end by themselves.
#![cfg(target_os = "linux")]

mod support;

use ioctx::aio::{
    AlignedBuffer, Backend, CancelError, Completion, Context, DestroyError, Event, GetEventsError,
    MAX_CAPACITY, Op, Readiness, Reason, Request, RequestId, Submitted,
};
use ioctx::backend::{Kernel, KernelError};
use std::fs::File;
use std::io::{PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};
use support::{never_hang, skip};

const BLOCK: usize = 4096;

/// A backend; `None` where the kernel has no AIO.
fn kernel(capacity: u32) -> Option<Kernel> {
    never_hang();
    Kernel::new(capacity).map_err(skip).ok()
}

/// A context of one that does nothing in the submitter, unless `inline`.
fn context(capacity: u32, inline: bool) -> Option<Context<Kernel>> {
    Some(Context::new(capacity, kernel(capacity)?.inline_cached(inline)).unwrap())
}

fn pipe() -> (File, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (File::from(OwnedFd::from(reader)), writer)
}

/// A new file, read and written directly; `None` where the file system does not do that.
fn direct() -> Option<Arc<File>> {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let file = File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path);
    file.map(Arc::new).map_err(|error| skip(format_args!("O_DIRECT: {error}"))).ok()
}

/// A block of the number `n`, over and over, on an aligned address.
fn block(n: u64) -> AlignedBuffer {
    let mut block = AlignedBuffer::new(BLOCK, BLOCK).unwrap();
    block.chunks_exact_mut(8).for_each(|place| place.copy_from_slice(&n.to_le_bytes()));
    block
}

fn read<B: Backend>(context: &Context<B>, n: usize) -> Vec<Event> {
    let mut events = Vec::new();
    assert_eq!(context.get_events(n, n, None, &mut events), Ok(n));
    events
}

fn one<B: Backend>(context: &Context<B>, request: Request) -> Event {
    context.submit(request).unwrap();
    read(context, 1).pop().unwrap()
}

fn code(event: &Event) -> Option<i32> {
    event.result.as_ref().err().and_then(std::io::Error::raw_os_error)
}

const CANCELED: Option<i32> = Some(libc::ECANCELED);

/// Whether there is something to harvest.
fn is_ready(context: &Context<Kernel>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let descriptor = PollFd::from_borrowed_fd(context.backend().descriptor().unwrap(), PollFlags::IN);
    poll(&mut [descriptor], Some(&Timespec::default())).unwrap() == 1
}

/// Never end by themselves.
fn endless_read(pipe: &File) -> Request {
    Request::read(pipe.try_clone().unwrap(), vec![0; 8], 0)
}

fn endless_poll(pipe: &File) -> Request {
    Request::poll(pipe.try_clone().unwrap(), Readiness::READABLE)
}

fn every_operation(context: &Context<Kernel>) {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let file = || file.clone();
    assert_eq!(one(context, Request::nop()).result.unwrap(), 0);
    assert_eq!(one(context, Request::write(file(), b"0123456789".to_vec(), 5)).result.unwrap(), 10);
    let parts = [b"ab".to_vec(), Vec::new(), b"cde".to_vec()];
    assert_eq!(one(context, Request::writev(file(), parts, 0)).result.unwrap(), 5);
    assert_eq!(one(context, Request::fsync(file())).result.unwrap(), 0);
    assert_eq!(one(context, Request::fdatasync(file())).result.unwrap(), 0);
    let event = one(context, Request::read(file(), vec![0; 20], 3));
    assert_eq!(event.result.unwrap(), 12);
    assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap()[..12], *b"de0123456789");
    let event = one(context, Request::readv(file(), [vec![0; 4], vec![0; 3]], 1));
    assert_eq!(event.result.unwrap(), 7);
    assert_eq!(event.request.into_buffers::<Vec<u8>>().unwrap(), [b"bcde".to_vec(), b"012".to_vec()]);
    let (reader, mut writer) = pipe();
    let polled = context.submit(Request::poll(reader, Readiness::READABLE)).unwrap();
    writer.write_all(b"x").unwrap();
    let event = read(context, 1).pop().unwrap();
    assert_eq!(event.id, polled);
    assert_eq!(Readiness::from_result(event.result.unwrap()), Readiness::READABLE);
    assert_eq!(one(context, Request::custom(|| Ok(7))).result.unwrap(), 7);
    // Closed for writing; no file for reading; one that cannot be flushed.
    let null = File::open("/dev/null").unwrap();
    assert_eq!(code(&one(context, Request::write(null, b"x".to_vec(), 0))), Some(libc::EBADF));
    let directory = File::open("/").unwrap();
    assert_eq!(code(&one(context, Request::read(directory, vec![0; 8], 0))), Some(libc::EISDIR));
    let (reader, _writer) = pipe();
    assert_eq!(code(&one(context, Request::fsync(reader))), Some(libc::EINVAL));

    let Some(file) = direct() else { return };
    let file = || file.clone();
    assert_eq!(one(context, Request::write(file(), block(7), 0)).result.unwrap(), BLOCK);
    assert_eq!(
        one(context, Request::writev(file(), [block(8), block(9)], BLOCK as u64)).result.unwrap(),
        2 * BLOCK
    );
    assert_eq!(one(context, Request::fsync(file())).result.unwrap(), 0);
    let event = one(context, Request::read(file(), block(0), 2 * BLOCK as u64));
    assert_eq!(event.result.unwrap(), BLOCK);
    assert_eq!(event.request.into_buffer::<AlignedBuffer>().unwrap()[..], block(9)[..]);
    let event = one(context, Request::readv(file(), [block(0), block(0)], 0));
    assert_eq!(event.result.unwrap(), 2 * BLOCK);
    for (n, buf) in event.request.into_buffers::<AlignedBuffer>().unwrap().iter().enumerate() {
        assert_eq!(buf[..], block(7 + n as u64)[..]);
    }
    assert_eq!(one(context, Request::read(file(), block(0), 3 * BLOCK as u64)).result.unwrap(), 0);
    // An address that no device takes, and few file systems.
    let event = one(context, Request::read(file(), vec![1; 7], 1));
    let expected = match code(&event) {
        Some(refused) => (refused, [1; 7]),
        None => (libc::EINVAL, [0; 7]),
    };
    assert_eq!(
        (libc::EINVAL, event.request.into_buffer::<Vec<u8>>().unwrap()),
        (expected.0, expected.1.to_vec())
    );
}

#[test]
fn every_operation_does_what_it_says() {
    for (inline, in_place) in [(false, false), (false, true), (true, false), (true, true)] {
        let Some(kernel) = kernel(8) else { return };
        let kernel = kernel.inline_cached(inline).reap_in_user_space(in_place);
        let context = Context::new(8, kernel).unwrap();
        let in_force = format!("{:?}", context.backend());
        assert!(in_force.contains(&format!("reads_in_place: Some({in_place})")), "{in_force}");
        every_operation(&context);
        assert_eq!(context.destroy(None), Ok(()));
    }
}

#[test]
fn files_that_cannot_seek_ignore_the_offset_and_hold_up_nobody() {
    for inline in [false, true] {
        let Some(context) = context(16, inline) else { return };
        // They hold no thread.
        let idle: Vec<_> = (0..12).map(|_| pipe()).collect();
        for (reader, _) in &idle {
            context.submit(endless_read(reader)).unwrap();
        }
        let (reader, mut writer) = pipe();
        let id = context.submit(Request::read(reader, vec![0; 8], 4096)).unwrap();
        writer.write_all(b"text").unwrap();
        let event = read(&context, 1).pop().unwrap();
        assert_eq!((event.id, event.result.unwrap()), (id, 4));
        assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap()[..4], *b"text");
        let (mut reader, writer) = std::io::pipe().unwrap();
        let event = one(&context, Request::write(OwnedFd::from(writer), b"more".to_vec(), 77));
        assert_eq!(event.result.as_ref().unwrap(), &4);
        drop(event);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text, b"more");
        // A full pipe, too, is waited for by the kernel.
        let (mut reader, writer) = std::io::pipe().unwrap();
        let full = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
        (&writer).write_all(&vec![1; full]).unwrap();
        let writer = File::from(OwnedFd::from(writer));
        let id = context.submit(Request::write(writer, vec![2; 10], 0)).unwrap();
        assert_eq!(context.get_events(0, 1, None, &mut Vec::new()), Ok(0));
        reader.read_exact(&mut vec![0; full]).unwrap();
        let event = read(&context, 1).pop().unwrap();
        assert_eq!((event.id, event.result.unwrap()), (id, 10));
        assert_eq!(context.destroy(None), Ok(()));
        assert!(read(&context, idle.len()).iter().all(|event| code(event) == CANCELED));
    }
}

#[test]
fn many_threads_write_and_read_back_through_one_context() {
    const THREADS: u64 = 6;
    const BLOCKS: u64 = 80;
    for (inline, in_place) in [(false, true), (true, true), (true, false)] {
        let Some(kernel) = kernel(64) else { return };
        let kernel = kernel.inline_cached(inline).reap_in_user_space(in_place);
        let context = Context::new(64, kernel).unwrap();
        let mut files = vec![Arc::new(tempfile::tempfile().unwrap())];
        files.extend(direct());
        let file = |n: u64| files[n as usize % files.len()].clone();
        let verified = AtomicU64::new(0);
        // A write that is done becomes a read, and a read that is done is verified: by whoever sees it.
        let see = |event: Event| {
            let n = event.request.user_data;
            assert_eq!(event.result.unwrap(), BLOCK, "{n}");
            match event.request.op {
                Op::Write { .. } => {
                    Some(Request::read(file(n), block(0), n * BLOCK as u64).with_user_data(n))
                }
                _ => {
                    assert_eq!(event.request.into_buffer::<AlignedBuffer>().unwrap()[..], block(n)[..]);
                    verified.fetch_add(1, Relaxed);
                    None
                }
            }
        };
        let reap = |min| {
            let mut events = Vec::new();
            let soon = Some(Instant::now() + Duration::from_millis(5));
            context.get_events(min, 16, soon, &mut events).unwrap();
            events
        };
        let submit = |mut batch: Vec<Request>| {
            while !batch.is_empty() {
                if context.submit_batch(&mut batch).is_err() {
                    batch.extend(reap(1).into_iter().filter_map(see));
                }
            }
        };
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (submit, reap, file, see) = (&submit, &reap, &file, &see);
                scope.spawn(move || {
                    for n in (0..BLOCKS).step_by(4) {
                        let write = |n| Request::write(file(n), block(n), n * BLOCK as u64).with_user_data(n);
                        submit((n..n + 4).map(|n| write(thread * BLOCKS + n)).collect());
                        submit(reap(0).into_iter().filter_map(see).collect());
                    }
                });
            }
        });
        while verified.load(Relaxed) < THREADS * BLOCKS {
            submit(reap(1).into_iter().filter_map(see).collect());
        }
        assert_eq!((verified.load(Relaxed), context.outstanding()), (THREADS * BLOCKS, 0));
        let mut last = block(0);
        let n = THREADS * BLOCKS - 1;
        file(n).read_exact_at(&mut last, n * BLOCK as u64).unwrap();
        assert_eq!(last[..], block(n)[..]);
    }
}

#[test]
fn a_hundred_thousand_requests_over_many_descriptors() {
    const REQUESTS: u64 = 100_000;
    const DESCRIPTORS: u64 = 64;
    const PLACES: u64 = 32;
    let Some(context) = context(256, true) else { return };
    // What each block holds by now: the number of the request that was written to it last.
    let mut content = vec![0_u64; (DESCRIPTORS * PLACES) as usize];
    let files: Vec<Arc<File>> = (0..DESCRIPTORS)
        .map(|n| {
            // Some of them direct: those are as quick as the disk.
            let file = (n % 16 == 0).then(direct).flatten();
            let file = file.unwrap_or_else(|| Arc::new(tempfile::tempfile().unwrap()));
            file.write_all_at(&AlignedBuffer::new(BLOCK * PLACES as usize, BLOCK).unwrap(), 0).unwrap();
            file
        })
        .collect();
    // One request at a time for each block. In an order that is the same in each run.
    let mut random = 1_u64;
    let mut busy = vec![false; content.len()];
    let mut seen = vec![false; REQUESTS as usize + 1];
    let (mut begun, mut done) = (0, 0);
    let mut events = Vec::new();
    let mut buffers = Vec::new();
    while done < REQUESTS {
        let mut batch = Vec::new();
        while batch.len() < 32 && begun < REQUESTS {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = (random >> 33) as usize % content.len();
            if std::mem::replace(&mut busy[place], true) {
                break;
            }
            begun += 1;
            let file = files[place / PLACES as usize].clone();
            let offset = (place as u64 % PLACES) * BLOCK as u64;
            let mut buffer: AlignedBuffer = buffers.pop().unwrap_or_else(|| block(0));
            let request = if random >> 32 & 3 == 0 {
                buffer[..8].copy_from_slice(&begun.to_le_bytes());
                buffer[BLOCK - 8..].copy_from_slice(&begun.to_le_bytes());
                Request::write(file, buffer, offset)
            } else {
                buffer.fill(0xff);
                Request::read(file, buffer, offset)
            };
            batch.push(request.with_user_data(begun << 32 | place as u64));
        }
        while !batch.is_empty() {
            match context.submit_batch(&mut batch) {
                Ok(_) => {}
                Err(refused) => {
                    assert!(matches!(refused.0, Reason::Full), "{refused}");
                    context.get_events(1, 256, None, &mut events).unwrap();
                }
            }
        }
        let least = usize::from(events.is_empty() && done < begun);
        context.get_events(least, 256, None, &mut events).unwrap();
        for event in events.drain(..) {
            let (number, place) = (event.request.user_data >> 32, event.request.user_data as u32 as usize);
            assert_eq!(event.result.unwrap(), BLOCK, "{number}");
            assert!(!std::mem::replace(&mut seen[number as usize], true), "{number} came twice");
            assert!(std::mem::replace(&mut busy[place], false));
            done += 1;
            let writes = matches!(event.request.op, Op::Write { .. });
            let buffer = event.request.into_buffer::<AlignedBuffer>().unwrap();
            if writes {
                content[place] = number;
            } else {
                for word in [&buffer[..8], &buffer[BLOCK - 8..]] {
                    assert_eq!(word, content[place].to_le_bytes(), "{number}");
                }
            }
            buffers.push(buffer);
        }
    }
    assert_eq!((done, context.outstanding()), (REQUESTS, 0));
}

#[test]
fn what_waits_is_cancelled() {
    for inline in [false, true] {
        let Some(context) = context(8, inline) else { return };
        let (reader, mut writer) = pipe();
        for request in [endless_poll, endless_read] {
            let ids: Vec<_> = (0..4).map(|_| context.submit(request(&reader)).unwrap()).collect();
            for id in ids {
                assert_eq!(context.cancel(id), Ok(()));
                let event = read(&context, 1).pop().unwrap();
                assert_eq!((event.id, code(&event)), (id, CANCELED));
                assert_eq!(context.cancel(id), Err(CancelError::Unknown));
            }
        }
        // By another thread.
        let id = context.submit(endless_poll(&reader)).unwrap();
        thread::scope(|scope| _ = scope.spawn(|| assert_eq!(context.cancel(id), Ok(()))));
        assert_eq!(code(&read(&context, 1)[0]), CANCELED);
        // In the middle of a batch: the kernel has not got them yet. Also what it could not cancel any more.
        let file = tempfile::tempfile().unwrap();
        let mut batch =
            vec![endless_read(&reader), Request::write(file, vec![1; 8], 0), endless_poll(&reader)];
        let mut cancelled = 0;
        context
            .submit_batch_with(&mut batch, |id| cancelled += u32::from(context.cancel(id).is_ok()))
            .unwrap();
        assert_eq!(cancelled, 3);
        assert!(read(&context, 3).iter().all(|event| code(event) == CANCELED));
        // Nothing was taken out of the pipe.
        writer.write_all(b"x").unwrap();
        assert_eq!(one(&context, endless_read(&reader)).result.unwrap(), 1);
    }
}

#[test]
fn what_was_ready_and_is_not_any_more_waits_again_or_is_cancelled() {
    let Some(context) = context(8, false) else { return };
    if !pipes_can_be_asked() {
        return skip("pipes cannot be asked not to wait");
    }
    let (reader, mut writer) = pipe();
    for cancel in [false, true] {
        let id = context.submit(endless_read(&reader)).unwrap();
        // The kernel has said that it is ready, and nobody has looked.
        writer.write_all(b"x").unwrap();
        assert!(is_ready(&context));
        (&reader).read_exact(&mut [0]).unwrap();
        if cancel {
            assert_eq!(context.cancel(id), Ok(()));
        } else {
            assert_eq!(context.get_events(0, 1, None, &mut Vec::new()), Ok(0));
            writer.write_all(b"more").unwrap();
        }
        let event = read(&context, 1).pop().unwrap();
        assert_eq!((event.id, code(&event)), (id, if cancel { CANCELED } else { None }));
    }
}

#[test]
fn what_runs_or_is_done_is_not_cancelled() {
    let Some(context) = context(8, false) else { return };
    assert_eq!(context.cancel(RequestId::from_raw(u64::MAX)), Err(CancelError::Unknown));
    // Done within the system call, but nobody has looked.
    let file = tempfile::tempfile().unwrap();
    let done = context.submit(Request::write(file, vec![1; 8], 0)).unwrap();
    assert_eq!(context.cancel(done), Err(CancelError::Running));
    assert_eq!(read(&context, 1)[0].result.as_ref().unwrap(), &8);
    // On the pool.
    let (begun, end) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let barriers = (begun.clone(), end.clone());
    let custom = Request::custom(move || {
        barriers.0.wait();
        barriers.1.wait();
        Ok(3)
    });
    let id = context.submit(custom).unwrap();
    begun.wait();
    assert_eq!(context.cancel(id), Err(CancelError::Running));
    end.wait();
    assert_eq!(read(&context, 1)[0].result.as_ref().unwrap(), &3);
}

#[test]
fn cancels_race_with_completions_and_with_submitters() {
    let Some(context) = context(32, false) else { return };
    let (reader, mut writer) = pipe();
    for round in 0..200 {
        let polls = round % 2 == 0;
        let request = || if polls { endless_poll(&reader) } else { endless_read(&reader) };
        let (told, ids) = std::sync::mpsc::channel();
        let mut written = 0;
        thread::scope(|scope| {
            let context = &context;
            scope.spawn(move || {
                for (n, id) in ids.iter().enumerate() {
                    if n % 4 != round % 4 {
                        let _ = context.cancel(id);
                    }
                }
            });
            let mut batch: Vec<_> = (0..8).map(|_| request()).collect();
            context.submit_batch_with(&mut batch, |id| told.send(id).unwrap()).unwrap();
            drop(told);
            // Also those that are cancelled may read.
            for _ in 0..8 {
                writer.write_all(&[0; 8]).unwrap();
                written += 8;
            }
        });
        let mut taken = 0;
        for event in read(&context, 8) {
            match event.result {
                Ok(n) if polls => assert_eq!(Readiness::from_result(n), Readiness::READABLE),
                Ok(n) => taken += n,
                Err(_) => assert_eq!(code(&event), CANCELED),
            }
        }
        let mut rest = vec![0; written - taken];
        (&reader).read_exact(&mut rest).unwrap();
    }
    assert_eq!(context.outstanding(), 0);
}

#[test]
fn what_cancelling_succeeded_for_ends() {
    const N: usize = 64;
    let Some(context) = context(N as u32, false) else { return };
    let (reader, _writer) = pipe();
    for _ in 0..300 {
        let (told, ids) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            // Held back, on their way into the kernel, or there: asked once.
            scope.spawn(|| ids.into_iter().for_each(|id| assert_eq!(context.cancel(id), Ok(()))));
            let mut batch: Vec<_> = (0..N).map(|_| endless_poll(&reader)).collect();
            let tell = |id| told.send(id).unwrap();
            assert_eq!(context.submit_batch_with(&mut batch, tell).unwrap(), N);
            drop(told);
        });
        let mut events = Vec::new();
        let long = Some(Instant::now() + Duration::from_secs(20));
        assert_eq!(context.get_events(N, N, long, &mut events), Ok(N));
        assert!(events.iter().all(|event| code(event) == CANCELED));
    }
}

/// Lets a context end in each way, with requests that do not end by themselves.
fn ends(end: impl FnOnce(&Context<Kernel>)) {
    let Some(context) = context(64, false) else { return };
    let (reader, _writer) = pipe();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for turn in 0..8 {
                    let request = if turn % 2 == 0 { endless_poll(&reader) } else { endless_read(&reader) };
                    context.submit(request).unwrap();
                }
            });
        }
    });
    end(&context);
    let mut events = Vec::new();
    assert_eq!(context.get_events(32, 64, None, &mut events), Ok(32));
    assert!(events.iter().all(|event| code(event) == CANCELED));
    assert_eq!(context.get_events(1, 64, None, &mut events), Err(GetEventsError::Dying));
}

fn poll_until_ready<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::yield_now(),
        }
    }
}

#[test]
fn destroying_cancels_what_waits() {
    ends(|context| assert_eq!(context.destroy(None), Ok(())));
    ends(|context| {
        let deadline = Some(Instant::now() + Duration::from_secs(20));
        assert_eq!(context.destroy(deadline), Ok(()));
    });
    ends(|context| assert_eq!(Context::destroy_all([context], None), [Ok(())]));
    ends(|context| {
        assert_eq!(poll_until_ready(context.destroy_async()), Ok(()));
        assert_eq!(poll_until_ready(context.destroy_async()), Err(DestroyError::Already));
    });
}

#[test]
fn dropping_cancels_what_waits_and_waits_for_the_disk() {
    let Some(context) = context(32, false) else { return };
    let (reader, writer) = pipe();
    (0..16).for_each(|_| _ = context.submit(endless_read(&reader)).unwrap());
    let file = direct();
    if let Some(file) = &file {
        let mut batch: Vec<_> =
            (0..16).map(|n| Request::write(file.clone(), block(n), n * BLOCK as u64)).collect();
        assert_eq!(context.submit_batch(&mut batch).unwrap(), 16);
    }
    drop(context);
    drop(reader);
    // Their files are closed with them.
    assert_eq!((&writer).write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    for n in 0..16 {
        let Some(file) = &file else { return };
        let mut found = block(99);
        file.read_exact_at(&mut found, n * BLOCK as u64).unwrap();
        assert_eq!(found[..], block(n)[..]);
    }
}

#[test]
fn destroying_meets_submitters() {
    for round in 0..60 {
        let Some(context) = context(64, false) else { return };
        let (reader, _writer) = pipe();
        let begin = Barrier::new(3);
        let accepted = AtomicU64::new(0);
        thread::scope(|scope| {
            for request in [endless_read, endless_poll] {
                let (context, reader, begin, accepted) = (&context, &reader, &begin, &accepted);
                scope.spawn(move || {
                    begin.wait();
                    loop {
                        match context.submit(request(reader)) {
                            Ok(_) => _ = accepted.fetch_add(1, Relaxed),
                            Err(refused) if matches!(refused.reason, Reason::Full) => thread::yield_now(),
                            Err(_) => break,
                        }
                    }
                });
            }
            begin.wait();
            if round % 2 == 0 {
                assert_eq!(context.destroy(None), Ok(()));
            } else {
                assert_eq!(poll_until_ready(context.destroy_async()), Ok(()));
            }
        });
        let mut events = Vec::new();
        let _ = context.get_events(64, 64, None, &mut events);
        assert_eq!(events.len() as u64, accepted.into_inner());
        assert!(events.iter().all(|event| code(event) == CANCELED));
    }
}

#[test]
fn sleeping_readers_are_woken() {
    const TURNS: u64 = 200;
    for in_place in [true, false] {
        let Some(kernel) = kernel(TURNS as u32) else { return };
        let kernel = kernel.inline_cached(false).reap_in_user_space(in_place);
        let context = Context::new(TURNS as u32, kernel).unwrap();
        thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    scope.spawn(|| {
                        let (mut events, mut data) = (Vec::new(), Vec::new());
                        while context.get_events(1, 4, None, &mut events).is_ok() {
                            data.extend(events.drain(..).map(|event| event.request.user_data));
                        }
                        data
                    })
                })
                .collect();
            // Each from a thread of its own, which ends before its request, and begun when readers sleep or are about
            // to.
            thread::scope(|scope| {
                for turn in 0..TURNS {
                    let context = &context;
                    scope.spawn(move || {
                        let (reader, mut writer) = pipe();
                        let request = match turn % 3 {
                            0 => endless_read(&reader),
                            1 => endless_poll(&reader),
                            _ => Request::custom(|| Ok(0)),
                        };
                        context.submit(request.with_user_data(turn)).unwrap();
                        if turn % 4 == 0 {
                            thread::sleep(Duration::from_millis(2));
                        }
                        writer.write_all(b"x").unwrap();
                    });
                    if turn % 16 == 0 {
                        thread::sleep(Duration::from_millis(5));
                    }
                }
            });
            while context.outstanding() > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(context.destroy(None), Ok(()));
            let mut data: Vec<_> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
            data.sort_unstable();
            assert_eq!(data, Vec::from_iter(0..TURNS));
        });
    }
}

#[test]
fn the_thread_that_submitted_may_end_before_its_request() {
    let Some(context) = context(16, false) else { return };
    let pipes: Vec<(File, PipeWriter)> = (0..8).map(|_| pipe()).collect();
    for (n, (reader, _)) in pipes.iter().enumerate() {
        let request = endless_read(reader).with_user_data(n as u64);
        thread::scope(|scope| _ = scope.spawn(|| context.submit(request).unwrap()).join().unwrap());
    }
    for (n, (_, writer)) in pipes.iter().enumerate() {
        (&*writer).write_all(&[n as u8]).unwrap();
    }
    let mut events = read(&context, 8);
    events.sort_by_key(|event| event.request.user_data);
    for (n, event) in events.into_iter().enumerate() {
        assert_eq!(event.result.unwrap(), 1, "{n}");
        assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap()[0], n as u8);
    }
}

/// A backend within one that can lose it.
struct Within(std::sync::RwLock<Option<Kernel>>);

impl Backend for Within {
    fn submit(&self, work: Completion) -> Submitted {
        let kernel = self.0.read().unwrap();
        let submitted = kernel.as_ref().unwrap().submit(work);
        kernel.as_ref().unwrap().flush();
        submitted
    }
}

#[test]
fn a_backend_that_is_dropped_early_waits_for_what_the_kernel_has() {
    let Some(kernel) = kernel(8) else { return };
    let context = Context::new(8, Within(Some(kernel.inline_cached(false)).into())).unwrap();
    let (reader, _writer) = pipe();
    (0..7).for_each(|_| _ = context.submit(endless_poll(&reader)).unwrap());
    let done = context.submit(Request::write(tempfile::tempfile().unwrap(), vec![0; 8], 0)).unwrap();
    drop(context.backend().0.write().unwrap().take());
    for event in read(&context, 8) {
        assert_eq!(code(&event), if event.id == done { None } else { CANCELED });
    }
}

#[test]
fn more_than_there_is_room_for_is_refused_whole() {
    let Some(kernel) = kernel(5) else { return };
    let context = Context::new(64, kernel.inline_cached(false)).unwrap();
    let (reader, _writer) = pipe();
    let mut accepted = 0;
    let refused = loop {
        match context.submit(endless_read(&reader).with_user_data(accepted)) {
            Ok(_) => accepted += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused.request.user_data, accepted), (5, 5));
    let Reason::Refused(why) = refused.reason else { panic!("{:?}", refused.reason) };
    assert_eq!(why.raw_os_error(), Some(libc::EAGAIN));
    assert_eq!(refused.request.into_buffer::<Vec<u8>>().unwrap().len(), 8);
    assert_eq!(context.destroy(None), Ok(()));
    assert_eq!(read(&context, 5).len(), 5);
}

#[test]
fn all_there_is_room_for_is_taken_again_and_again() {
    const CAPACITY: u64 = 2048;
    for in_place in [true, false] {
        let Some(kernel) = kernel(CAPACITY as u32) else { return };
        let kernel = kernel.inline_cached(false).reap_in_user_space(in_place);
        let context = Context::new(CAPACITY as u32, kernel).unwrap();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 16 * CAPACITY as usize], 0).unwrap();
        let file = Arc::new(file);
        // More than the kernel's ring has room for, in the end: the slots come back to it, though it is not called.
        for _ in 0..6 {
            let read_at = |n| Request::read(file.clone(), vec![1; 16], 16 * n).with_user_data(n);
            let mut batch: Vec<_> = (0..CAPACITY).map(read_at).collect();
            assert_eq!(context.submit_batch(&mut batch).unwrap() as u64, CAPACITY);
            let mut seen: Vec<_> = read(&context, CAPACITY as usize)
                .into_iter()
                .map(|event| {
                    assert_eq!(event.result.unwrap(), 16);
                    let n = event.request.user_data;
                    assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap(), [7; 16]);
                    n
                })
                .collect();
            seen.sort_unstable();
            assert_eq!(seen, Vec::from_iter(0..CAPACITY));
        }
        // All by the kernel: no thread was made for it.
        assert!(format!("{:?}", context.backend()).contains("pool: None"));
    }
}

/// Whether a pipe can be asked not to wait, since Linux 6.4.
fn pipes_can_be_asked() -> bool {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    let (reader, _writer) = pipe();
    let mut bytes = [0; 8];
    let slice = std::io::IoSliceMut::new(&mut bytes);
    preadv2(reader, &mut [slice], u64::MAX, ReadWriteFlags::NOWAIT) == Err(Errno::AGAIN)
}

#[test]
fn submitters_do_what_takes_no_waiting_and_nothing_else() {
    let unread =
        |context: &Context<Kernel>| format!("{context:?}").split("unread: ").nth(1).unwrap().as_bytes()[0];
    for inline in [false, true] {
        let Some(context) = context(8, inline) else { return };
        let done = |request: Request, at_once: bool| {
            context.submit(request).unwrap();
            assert_eq!(unread(&context), if at_once { b'1' } else { b'0' });
            read(&context, 1).pop().unwrap().result.unwrap()
        };
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&[1; 64], 0).unwrap();
        assert_eq!(done(Request::read(file.clone(), vec![0; 64], 0), inline), 64);
        assert_eq!(done(Request::poll(file, Readiness::READABLE), inline), 1);
        let (reader, mut writer) = pipe();
        writer.write_all(&[0; 8]).unwrap();
        let at_once = inline && pipes_can_be_asked();
        assert_eq!(done(endless_read(&reader), at_once), 8);
        assert_eq!(done(Request::write(OwnedFd::from(writer), vec![0; 3], 0), at_once), 3);
        // It would wait for the disk.
        let Some(file) = direct() else { return };
        file.write_all_at(&block(1), 0).unwrap();
        assert_eq!(done(Request::read(file.clone(), block(0), 0), false), BLOCK);
        assert!(!inline || format!("{:?}", context.backend()).contains("pool: None"));
        // As this does, but where it was cached nevertheless.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&*file));
        let cold = File::open(path).unwrap();
        rustix::fs::fadvise(&cold, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert_eq!(one(&context, Request::read(cold, vec![0; 64], 0)).result.unwrap(), 64);
    }
}

#[test]
fn two_backends_in_one_thread_do_not_hold_back_each_others_batches() {
    let (Some(outer), Some(inner)) = (context(8, false), context(8, false)) else { return };
    let file = Arc::new(tempfile::tempfile().unwrap());
    let write = || Request::write(file.clone(), vec![0; 8], 0);
    let mut batch = vec![write(), write()];
    outer
        .submit_batch_with(&mut batch, |_| {
            inner.submit(write()).unwrap();
            assert_eq!(read(&inner, 1)[0].result.as_ref().unwrap(), &8);
        })
        .unwrap();
    // Handed over, before anybody waits.
    assert!(is_ready(&outer));
    assert_eq!(read(&outer, 2).len(), 2);
}

#[test]
fn who_waits_in_the_middle_of_a_batch_has_it_handed_over() {
    let Some(context) = context(8, false) else { return };
    let file = Arc::new(tempfile::tempfile().unwrap());
    let mut batch: Vec<_> = (0..3).map(|_| Request::write(file.clone(), vec![0; 8], 0)).collect();
    context
        .submit_batch_with(&mut batch, |id| {
            assert!(!is_ready(&context));
            assert_eq!(read(&context, 1)[0].id, id);
        })
        .unwrap();
    // So has who destroys.
    let mut batch = vec![Request::write(file, vec![0; 8], 0)];
    let destroy = |_| {
        context.backend().cancel_all();
        assert!(is_ready(&context));
    };
    context.submit_batch_with(&mut batch, destroy).unwrap();
    assert_eq!(read(&context, 1)[0].result.as_ref().unwrap(), &8);
}

#[test]
fn a_long_batch_is_begun_before_its_end() {
    // One of the queues is full by then, whichever CPUs the thread was on.
    let n = 128 * ioctx::cpu::possible();
    let Some(context) = context(n, false) else { return };
    let file = Arc::new(tempfile::tempfile().unwrap());
    let mut batch: Vec<_> = (0..n).map(|_| Request::write(file.clone(), vec![0; 8], 0)).collect();
    let mut accepted = 0;
    let look = |_| {
        accepted += 1;
        assert!(accepted < n || is_ready(&context));
    };
    assert_eq!(context.submit_batch_with(&mut batch, look).unwrap(), n as usize);
    assert_eq!(read(&context, n as usize).len(), n as usize);
}

#[test]
fn a_descriptor_tells_who_watches_many() {
    for in_place in [true, false] {
        let Some(kernel) = kernel(128) else { return };
        let kernel = kernel.inline_cached(false).reap_in_user_space(in_place);
        let context = Context::new(128, kernel).unwrap();
        let file = Arc::new(tempfile::tempfile().unwrap());
        // One, and as many as are harvested at a time, and more.
        for n in [1, 2, 63, 64, 65, 128] {
            assert!(!is_ready(&context));
            let mut batch: Vec<_> = (0..n).map(|_| Request::write(file.clone(), vec![0; 8], 0)).collect();
            assert_eq!(context.submit_batch(&mut batch).unwrap(), n);
            assert!(is_ready(&context));
            assert_eq!(context.get_events(0, n, None, &mut Vec::new()), Ok(n));
        }
        assert!(!is_ready(&context));
        // Somebody else writes to it, or reads it: events come nevertheless, and are waited for.
        for disturb in [true, false] {
            context.submit(Request::write(file.clone(), vec![0; 8], 0)).unwrap();
            let descriptor = context.backend().descriptor().unwrap();
            if disturb {
                rustix::io::write(descriptor, &1000_u64.to_ne_bytes()).unwrap();
            } else {
                rustix::io::read(descriptor, &mut [0; 8]).unwrap();
            }
            assert_eq!(read(&context, 1).len(), 1);
        }
        let (reader, mut writer) = pipe();
        context.submit(endless_poll(&reader)).unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| read(&context, 1).len());
            thread::sleep(Duration::from_millis(20));
            writer.write_all(b"x").unwrap();
            assert_eq!(reader.join().unwrap(), 1);
        });
        assert!(!is_ready(&context));
    }
}

#[test]
fn who_watches_the_descriptor_alone_misses_nothing() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    const ROUNDS: u64 = 30_000;
    let Some(context) = context(8, false) else { return };
    let file = Arc::new(tempfile::tempfile().unwrap());
    let seen = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS {
                // The second comes when the first is being harvested, now sooner, now later.
                for _ in 0..2 {
                    context.submit(Request::write(file.clone(), vec![0; 8], 0)).unwrap();
                    (0..round % 64).for_each(|_| std::hint::spin_loop());
                }
                while seen.load(Relaxed) < 2 * (round + 1) {
                    thread::yield_now();
                }
            }
        });
        let mut events = Vec::new();
        while events.len() < 2 * ROUNDS as usize {
            let watched = context.backend().descriptor().unwrap();
            let mut watched = [PollFd::from_borrowed_fd(watched, PollFlags::IN)];
            let long = Timespec { tv_sec: 20, tv_nsec: 0 };
            let ready = poll(&mut watched, Some(&long)).unwrap();
            if ready == 0 {
                // Lets the other thread end.
                seen.store(u64::MAX, Relaxed);
            }
            assert_eq!(ready, 1, "after {} events", events.len());
            context.get_events(0, 8, None, &mut events).unwrap();
            seen.store(events.len() as u64, Relaxed);
        }
    });
}

#[test]
fn a_future_is_completed_by_who_harvests() {
    let Some(context) = context(8, false) else { return };
    let (reader, mut writer) = pipe();
    let mut read = pin!(context.start(endless_read(&reader)).unwrap());
    let mut task = std::task::Context::from_waker(Waker::noop());
    assert!(read.as_mut().poll(&mut task).is_pending());
    writer.write_all(b"ready").unwrap();
    let event = loop {
        assert_eq!(context.get_events(0, 8, None, &mut Vec::new()), Ok(0));
        match read.as_mut().poll(&mut task) {
            Poll::Ready(event) => break event,
            Poll::Pending => thread::yield_now(),
        }
    };
    assert_eq!(event.result.unwrap(), 5);
}

struct Panics;

impl std::task::Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("woken");
    }
}

#[test]
fn a_waker_that_panics_takes_nothing_from_others() {
    let Some(context) = context(8, false) else { return };
    let file = Arc::new(tempfile::tempfile().unwrap());
    let write = |n| Request::write(file.clone(), vec![0; n], 0);
    for _ in 0..2 {
        let mut first = pin!(context.start(write(1)).unwrap());
        let waker = Waker::from(Arc::new(Panics));
        assert!(first.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        (2..5).for_each(|n| _ = context.submit(write(n)).unwrap());
        let harvested = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = context.get_events(0, 8, None, &mut Vec::new());
        }));
        assert_eq!(harvested.unwrap_err().downcast_ref(), Some(&"woken"));
        let mut written: Vec<_> = read(&context, 3).into_iter().map(|event| event.result.unwrap()).collect();
        written.sort_unstable();
        assert_eq!(written, [2, 3, 4]);
        let mut task = std::task::Context::from_waker(Waker::noop());
        let Poll::Ready(event) = first.poll(&mut task) else { panic!("its result was there") };
        assert_eq!(event.result.unwrap(), 1);
    }
}

#[test]
fn the_limit_of_the_system_is_named() {
    let setting = |name| -> u64 {
        std::fs::read_to_string(format!("/proc/sys/fs/{name}")).unwrap().trim().parse().unwrap()
    };
    if kernel(1).is_none() {
        return;
    }
    let max = setting("aio-max-nr");
    if max >= MAX_CAPACITY.into() {
        return skip(format_args!("fs.aio-max-nr is {max}, more than one backend can ask for"));
    }
    let error = Kernel::new(MAX_CAPACITY).expect_err("more than the system has");
    let KernelError::Exhausted { asked, used: Some(_), max: Some(limit) } = error else {
        panic!("{error:?}")
    };
    assert_eq!((asked, limit), (MAX_CAPACITY, max));
    let said = error.to_string();
    assert!(said.contains("fs.aio-max-nr") && said.contains(&max.to_string()), "{said}");
}

#[test]
fn what_was_taken_from_the_limit_is_given_back() {
    let Some(first) = kernel(1) else { return };
    drop(first);
    let max = std::fs::read_to_string("/proc/sys/fs/aio-max-nr").unwrap().trim().parse::<u32>().unwrap();
    // Twice as many as there are, one after the other.
    for _ in 0..32 {
        let part = (max / 16).clamp(1, MAX_CAPACITY);
        let kernel = Kernel::new(part).unwrap();
        let context = Context::new(4, kernel).unwrap();
        let file = tempfile::tempfile().unwrap();
        assert_eq!(one(&context, Request::write(file, vec![0; 3], 0)).result.unwrap(), 3);
    }
}

#[test]
fn a_child_leaves_its_parents_requests_alone() {
    if support::process::role().is_none() {
        // Alone: what other threads have locked when it forks stays locked in the child.
        let alone = support::process::again("a_child_leaves_its_parents_requests_alone", "alone");
        return support::process::run(alone).unwrap();
    }
    let Some(context) = context(8, false) else { return };
    let (reader, mut writer) = pipe();
    context.submit(endless_read(&reader)).unwrap();
    let idle = self::context(8, false).unwrap();
    // It has a pool, whose threads the child has not.
    assert_eq!(one(&idle, Request::custom(|| Ok(1))).result.unwrap(), 1);
    // SAFETY: the child drops a context that is idle, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let none = idle.get_events(0, 1, None, &mut Vec::new());
        drop(idle);
        // SAFETY: has no conditions.
        unsafe { libc::_exit(i32::from(none != Ok(0))) };
    }
    let mut status = -1;
    // SAFETY: the status is ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    writer.write_all(b"parent").unwrap();
    assert_eq!(read(&context, 1)[0].result.as_ref().unwrap(), &6);
    let file = tempfile::tempfile().unwrap();
    assert_eq!(one(&idle, Request::write(file, vec![0; 3], 0)).result.unwrap(), 3);
}
