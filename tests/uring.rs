//! `Uring`: real files, many threads, requests that do not end by themselves.
#![cfg(ioctx_linux)]

mod support;

use ioctx::aio::{
    Backend, CancelError, Completion, Context, DestroyError, Event, GetEventsError, Op, Readiness, Reason,
    Request, RequestId, Submitted,
};
use ioctx::backend::{Uring, UringError};
use std::fs::File;
use std::future::Future;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Barrier};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};
use support::driven::{CANCELED, code, is_ready, pipe, read};
use support::requests::run as one;
use support::{never_hang, skip};

/// A context whose requests all go through rings, unless `inline`; `None` where there is no `io_uring`.
fn context(capacity: u32, inline: bool) -> Option<Context<Uring>> {
    context_of(capacity, Uring::new(capacity).map(|uring| uring.inline_cached(inline)))
}

fn context_of(capacity: u32, uring: Result<Uring, UringError>) -> Option<Context<Uring>> {
    never_hang();
    match uring {
        Ok(uring) => Some(Context::new(capacity, uring).unwrap()),
        Err(why) => {
            skip(why);
            None
        }
    }
}

/// Is done as soon as a ring has it.
fn quick() -> Request {
    Request::read(File::open("/dev/null").unwrap(), vec![0; 1], 0)
}

/// Reads from an empty pipe: never ends by itself.
fn endless(pipe: &File) -> Request {
    Request::read(pipe.try_clone().unwrap(), vec![0; 8], 0)
}

#[test]
fn every_operation_does_what_it_says() {
    for inline in [false, true] {
        let Some(context) = context(8, inline) else { return };
        let file = Arc::new(tempfile::tempfile().unwrap());
        let file = || file.clone();
        assert_eq!(one(&context, Request::nop()).result.unwrap(), 0);
        assert_eq!(one(&context, Request::write(file(), b"0123456789".to_vec(), 5)).result.unwrap(), 10);
        let parts = [b"ab".to_vec(), Vec::new(), b"cde".to_vec()];
        assert_eq!(one(&context, Request::writev(file(), parts, 0)).result.unwrap(), 5);
        assert_eq!(one(&context, Request::fsync(file())).result.unwrap(), 0);
        assert_eq!(one(&context, Request::fdatasync(file())).result.unwrap(), 0);
        let event = one(&context, Request::read(file(), vec![0; 20], 3));
        assert_eq!(event.result.unwrap(), 12);
        assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap()[..12], *b"de0123456789");
        let event = one(&context, Request::readv(file(), [vec![0; 4], vec![0; 3]], 1));
        assert_eq!(event.result.unwrap(), 7);
        assert_eq!(event.request.into_buffers::<Vec<u8>>().unwrap(), [b"bcde".to_vec(), b"012".to_vec()]);
        let (reader, mut writer) = pipe();
        let polled = context.submit(Request::poll(reader, Readiness::READABLE)).unwrap();
        writer.write_all(b"x").unwrap();
        let event = read(&context, 1).pop().unwrap();
        assert_eq!(event.id, polled);
        assert!(Readiness::from_result(event.result.unwrap()).contains(Readiness::READABLE));
        let event = one(&context, Request::custom(|| Ok(7)));
        assert_eq!(event.result.unwrap(), 7);
        let closed = File::open("/dev/null").unwrap();
        assert_eq!(code(&one(&context, Request::write(closed, b"x".to_vec(), 0))), Some(libc::EBADF));
        assert_eq!(context.destroy(None), Ok(()));
    }
}

#[test]
fn synchronous_writes_are_on_the_device() {
    let Some(context) = context(4, false) else { return };
    support::requests::writes_are_on_the_device_when_they_should_be(&context);
}

#[test]
fn files_that_cannot_seek_ignore_the_offset() {
    let Some(context) = context(4, false) else { return };
    let (reader, mut writer) = pipe();
    writer.write_all(b"text").unwrap();
    let event = one(&context, Request::read(reader, vec![0; 8], 4096));
    assert_eq!(event.result.unwrap(), 4);
    assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap()[..4], *b"text");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let event = one(&context, Request::write(OwnedFd::from(writer), b"more".to_vec(), 77));
    assert_eq!(event.result.as_ref().unwrap(), &4);
    let mut text = [0; 4];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"more");
}

#[test]
fn many_threads_write_and_read_back_through_one_context() {
    const THREADS: u64 = 6;
    const BLOCKS: u64 = 300;
    for uring in
        [Uring::new(64), Uring::new(64).map(|uring| uring.inline_cached(false)), Uring::cooperative(64)]
    {
        let Some(context) = context_of(64, uring) else { return };
        let file = Arc::new(tempfile::tempfile().unwrap());
        let block = |n: u64| Vec::from_iter(n.to_le_bytes().into_iter().cycle().take(512));
        let verified = AtomicU64::new(0);
        // A write that is done becomes a read, and a read that is done is verified: by whoever sees it.
        let see = |event: Event| {
            let n = event.request.user_data;
            assert_eq!(event.result.unwrap(), 512, "{n}");
            match event.request.op {
                Op::Write { .. } => {
                    Some(Request::read(file.clone(), vec![0; 512], n * 512).with_user_data(n))
                }
                _ => {
                    assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap(), block(n));
                    verified.fetch_add(1, Relaxed);
                    None
                }
            }
        };
        let reap = |min| {
            let mut events = Vec::new();
            context
                .get_events(min, 16, Some(Instant::now() + Duration::from_millis(5)), &mut events)
                .unwrap();
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
                        let write = |n| Request::write(file.clone(), block(n), n * 512).with_user_data(n);
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
        let mut last = [0; 512];
        file.read_exact_at(&mut last, (THREADS * BLOCKS - 1) * 512).unwrap();
        assert_eq!(last[..], block(THREADS * BLOCKS - 1));
    }
}

#[test]
fn a_running_request_is_cancelled() {
    for inline in [false, true] {
        let Some(context) = context(8, inline) else { return };
        let (reader, _writer) = pipe();
        let ids: Vec<_> = (0..4).map(|_| context.submit(endless(&reader)).unwrap()).collect();
        for id in ids {
            assert_eq!(context.cancel(id), Ok(()));
            let event = read(&context, 1).pop().unwrap();
            assert_eq!((event.id, code(&event)), (id, CANCELED));
            assert_eq!(context.cancel(id), Err(CancelError::Unknown));
        }
        let poll = context.submit(Request::poll(reader, Readiness::READABLE)).unwrap();
        assert_eq!(context.cancel(poll), Ok(()));
        assert_eq!(code(&read(&context, 1)[0]), CANCELED);
    }
}

#[test]
fn cancelling_by_a_stranger_and_of_what_is_done() {
    let Some(context) = context(8, false) else { return };
    let done = context.submit(quick()).unwrap();
    // Complete in the kernel, but nobody has looked: asked, in vain.
    assert_eq!(context.cancel(done), Ok(()));
    assert_eq!(read(&context, 1)[0].result.as_ref().unwrap(), &0);
    assert_eq!(context.cancel(RequestId::from_raw(u64::MAX)), Err(CancelError::Unknown));
    let (reader, _writer) = pipe();
    let id = context.submit(endless(&reader)).unwrap();
    thread::scope(|scope| _ = scope.spawn(|| assert_eq!(context.cancel(id), Ok(()))));
    assert_eq!(code(&read(&context, 1)[0]), CANCELED);
    // In the middle of a batch: not handed over yet.
    let mut batch = vec![endless(&reader), endless(&reader)];
    let mut cancelled = 0;
    context.submit_batch_with(&mut batch, |id| cancelled += u32::from(context.cancel(id).is_ok())).unwrap();
    assert_eq!(cancelled, 2);
    assert!(read(&context, 2).iter().all(|event| code(event) == CANCELED));
}

#[test]
fn cancels_race_with_completions() {
    let Some(context) = context(32, false) else { return };
    let (reader, mut writer) = pipe();
    let mut written = 0;
    let mut bytes = 0;
    for round in 0..300 {
        let ids: Vec<_> = (0..8).map(|_| context.submit(endless(&reader)).unwrap()).collect();
        thread::scope(|scope| {
            scope.spawn(|| {
                for id in ids.iter().skip(round % 3) {
                    let _ = context.cancel(*id);
                }
            });
            for _ in 0..3 {
                writer.write_all(b"x").unwrap();
                written += 1;
            }
        });
        // Each is asked once, perhaps just when it is between two steps.
        ids.iter().take(round % 3).for_each(|id| _ = context.cancel(*id));
        for event in read(&context, 8) {
            match event.result {
                Ok(n) => bytes += n,
                Err(_) => assert_eq!(code(&event), CANCELED),
            }
        }
    }
    // What the cancelled ones have left in the pipe, no more and no less.
    drop(writer);
    let mut rest = Vec::new();
    (&reader).read_to_end(&mut rest).unwrap();
    assert_eq!(bytes + rest.len(), written);
}

/// Lets a driven context end in each way, with requests that do not end by themselves.
fn ends(end: impl FnOnce(&Context<Uring>)) {
    let Some(context) = context(64, false) else { return };
    let (reader, _writer) = pipe();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..8).for_each(|_| _ = context.submit(endless(&reader)).unwrap()));
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
fn destroying_cancels_what_runs() {
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
fn dropping_cancels_what_runs() {
    let Some(context) = context(16, false) else { return };
    let (reader, writer) = pipe();
    (0..16).for_each(|_| _ = context.submit(endless(&reader)).unwrap());
    drop(context);
    drop(reader);
    // Their files are closed with them.
    assert_eq!((&writer).write(b"x").unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
}

#[test]
fn destroying_meets_submitters() {
    for round in 0..100 {
        let Some(context) = context(64, false) else { return };
        let (reader, _writer) = pipe();
        let begin = Barrier::new(3);
        let accepted = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    begin.wait();
                    loop {
                        match context.submit(endless(&reader)) {
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
fn sleeping_readers_are_woken_by_any_ring() {
    const TURNS: u32 = 200;
    let made = [Uring::new(TURNS), Uring::cooperative(TURNS)];
    made.into_iter()
        .filter_map(|uring| context_of(TURNS, uring))
        .for_each(|context| woken(context, TURNS.into()));
}

fn woken(context: Context<Uring>, turns: u64) {
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
        // Each from a thread of its own, so that all CPUs are used, and begun when readers sleep or are about to.
        thread::scope(|scope| {
            for turn in 0..turns {
                let context = &context;
                scope.spawn(move || {
                    let (reader, mut writer) = pipe();
                    context.submit(endless(&reader).with_user_data(turn)).unwrap();
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
        assert_eq!(data, Vec::from_iter(0..turns));
    });
}

#[test]
fn a_reader_that_sleeps_is_woken_by_the_pool_as_well_and_by_a_new_ring() {
    let Some(context) = context(8, false) else { return };
    thread::scope(|scope| {
        let reader =
            scope.spawn(|| read(&context, 3).into_iter().map(|event| event.request.user_data).collect());
        thread::sleep(Duration::from_millis(30));
        context.submit(Request::custom(|| Ok(0)).with_user_data(1)).unwrap();
        // Pinned to each CPU in turn, where they are allowed.
        for cpu in 0..2 {
            scope.spawn(move || pin_to(cpu)).join().unwrap();
        }
        for cpu in 0..2 {
            let context = &context;
            scope.spawn(move || {
                pin_to(cpu);
                context.submit(quick().with_user_data(2 + cpu as u64)).unwrap();
            });
        }
        let mut data: Vec<u64> = reader.join().unwrap();
        data.sort_unstable();
        assert_eq!(data, [1, 2, 3]);
    });
}

fn pin_to(cpu: usize) {
    // SAFETY: a set of zeros is a set, and the call reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

#[test]
fn the_thread_that_submitted_may_end_before_its_request() {
    let Some(context) = context(16, false) else { return };
    let pipes: Vec<(File, PipeWriter)> = (0..8).map(|_| pipe()).collect();
    for (n, (reader, _)) in pipes.iter().enumerate() {
        let request = endless(reader).with_user_data(n as u64);
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

#[test]
fn a_thread_that_stands_still_holds_nobody_up() {
    let Some(context) = context(16, false) else { return };
    let (reader, mut writer) = pipe();
    let (mut gate, mut open): (PipeReader, PipeWriter) = std::io::pipe().unwrap();
    thread::scope(|scope| {
        let submitted = Arc::new(Barrier::new(2));
        scope.spawn({
            let (context, submitted, request) = (&context, submitted.clone(), endless(&reader));
            move || {
                context.submit(request).unwrap();
                submitted.wait();
                // In a system call, for as long as it takes.
                gate.read_exact(&mut [0]).unwrap();
            }
        });
        submitted.wait();
        writer.write_all(b"x").unwrap();
        assert_eq!(read(&context, 1)[0].result.as_ref().unwrap(), &1);
        open.write_all(b"x").unwrap();
    });
}

/// Backends within one that can lose them.
struct Within(std::sync::RwLock<Option<Uring>>);

impl Backend for Within {
    fn submit(&self, work: Completion) -> Submitted {
        let uring = self.0.read().unwrap();
        let submitted = uring.as_ref().unwrap().submit(work);
        uring.as_ref().unwrap().flush();
        submitted
    }
}

#[test]
fn a_backend_that_is_dropped_early_waits_for_what_the_kernel_has() {
    never_hang();
    let uring = match Uring::new(8) {
        Ok(uring) => uring.inline_cached(false),
        Err(why) => return skip(why),
    };
    let context = Context::new(8, Within(Some(uring).into())).unwrap();
    let (reader, _writer) = pipe();
    (0..7).for_each(|_| _ = context.submit(endless(&reader)).unwrap());
    let done = context.submit(quick()).unwrap();
    drop(context.backend().0.write().unwrap().take());
    for event in read(&context, 8) {
        assert_eq!(code(&event), if event.id == done { None } else { CANCELED });
    }
}

#[test]
fn more_than_a_ring_has_room_for_is_refused_whole() {
    never_hang();
    let uring = match Uring::new(1) {
        Ok(uring) => uring,
        Err(why) => return skip(why),
    };
    let context = Context::new(4096, uring.inline_cached(false)).unwrap();
    let (reader, _writer) = pipe();
    let mut accepted = 0;
    let refused = loop {
        match context.submit(endless(&reader).with_user_data(accepted)) {
            Ok(_) => accepted += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.request.user_data, accepted);
    let Reason::Refused(why) = refused.reason else { panic!("{:?}", refused.reason) };
    assert_eq!(why.raw_os_error(), Some(libc::EAGAIN));
    assert_eq!(refused.request.into_buffer::<Vec<u8>>().unwrap().len(), 8);
    assert_eq!(context.destroy(None), Ok(()));
    assert_eq!(read(&context, accepted as usize).len() as u64, accepted);
}

#[test]
fn a_batch_longer_than_the_queue_of_entries() {
    let Some(context) = context(2048, false) else { return };
    let file = Arc::new(File::open("/dev/zero").unwrap());
    let mut batch: Vec<_> =
        (0..2048).map(|n| Request::read(file.clone(), vec![1; 16], n).with_user_data(n)).collect();
    assert_eq!(context.submit_batch(&mut batch).unwrap(), 2048);
    let mut seen: Vec<_> = read(&context, 2048)
        .into_iter()
        .map(|event| {
            assert_eq!(event.result.unwrap(), 16);
            let n = event.request.user_data;
            assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap(), [0; 16]);
            n
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, Vec::from_iter(0..2048));
}

#[test]
fn two_backends_in_one_thread_do_not_hold_back_each_others_batches() {
    let (Some(outer), Some(inner)) = (context(8, false), context(8, false)) else { return };
    let mut batch = vec![quick(), quick()];
    outer
        .submit_batch_with(&mut batch, |_| {
            inner.submit(quick()).unwrap();
            assert_eq!(read(&inner, 1)[0].result.as_ref().unwrap(), &0);
        })
        .unwrap();
    // Handed over, before anybody waits.
    assert!(is_ready(&outer));
    assert_eq!(read(&outer, 2).len(), 2);
}

#[test]
fn a_descriptor_tells_who_watches_many() {
    let Some(context) = context(8, false) else { return };
    assert!(!is_ready(&context));
    context.submit(quick()).unwrap();
    assert!(is_ready(&context));
    assert_eq!(context.get_events(0, 8, None, &mut Vec::new()), Ok(1));
    assert!(!is_ready(&context));
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
    context.submit(endless(&reader)).unwrap();
    let idle = self::context(8, false).unwrap();
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
    assert_eq!(one(&idle, quick()).result.unwrap(), 0);
}
