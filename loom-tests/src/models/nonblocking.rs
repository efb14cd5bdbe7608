//! Pipes by whoever submits or waits, on pipes of the system's: what one thread leaves to the next one that looks, and
//! what becomes of requests whose pipe, canceller and destroyer come at the same time.
//!
//! Calls of the system are carried out at once, between two operations that loom sees; it tries the orders of calls
//! that follow from the order of locks. None may sleep: the whole process would.

use crate::harness::{Model, nothing};
use ioctx::aio::{Backend, Context, Event, GetEventsError, Request};
use ioctx::backend::Nonblocking;
use ioctx::runlist::Builder;
use ioctx::sync::{Arc, thread};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::task::{Context as Task, Waker};
// Files are the standard library's in models, too.
use std::sync::Arc as Shared;

type Pipes = Context<Nonblocking>;

/// A context without a worker, and a pipe.
fn world(hand_over: bool) -> (Arc<Pipes>, Shared<File>, Shared<File>) {
    let backend = Nonblocking::with(Builder::new().worker(false)).unwrap().hand_over(hand_over);
    let (reader, writer) = std::io::pipe().unwrap();
    let file = |end: OwnedFd| Shared::new(File::from(end));
    (Arc::new(Context::new(2, backend).unwrap()), file(reader.into()), file(writer.into()))
}

fn read(file: &Shared<File>) -> Request {
    Request::read(Shared::clone(file), vec![0; 1], 0).with_user_data(1)
}

fn write(file: &Shared<File>) -> Request {
    Request::write(Shared::clone(file), vec![7], 0).with_user_data(2)
}

/// What there is after a look or two, without a sleep: a model's would be the whole process's.
fn events(context: &Pipes, n: usize) -> Vec<Event> {
    let mut events = Vec::new();
    for _ in 0..4 {
        context.get_events(0, n, None, &mut events).unwrap();
    }
    assert_eq!(events.len(), n);
    events
}

/// Makes the ends of the pipe known to each other, and to the backend that the one can be written to.
fn introduce(context: &Pipes, reader: &Shared<File>, writer: &Shared<File>) {
    context.submit(write(writer)).unwrap();
    context.submit(read(reader)).unwrap();
    events(context, 2);
}

/// Whether a thread that watched it now would go on at once.
fn is_readable(descriptor: impl AsFd) -> bool {
    poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
}

/// How many events were published and not read.
fn unread(context: &Pipes) -> usize {
    let text = format!("{context:?}");
    let number = text.split("unread: ").nth(1).and_then(|rest| rest.split(',').next());
    number.unwrap().trim().parse().unwrap()
}

/// One thread, which was alone, submits a read that has to wait, while another is about to watch.
fn parked(watch: fn(&Nonblocking) -> Option<BorrowedFd<'_>>) {
    let (context, reader, writer) = world(true);
    let theirs = Arc::clone(&context);
    let submitter = thread::spawn(move || {
        assert_eq!(theirs.get_events(0, 2, None, &mut Vec::new()), Ok(0));
        theirs.submit(read(&reader)).unwrap();
    });
    let watched = watch(context.backend()).unwrap();
    submitter.join().unwrap();
    (&*writer).write_all(b"x").unwrap();
    assert!(is_readable(watched), "who sleeps is never told");
    events(&context, 1);
}

/// How many bytes are in the pipe.
fn left_in(reader: &Shared<File>) -> usize {
    rustix::io::ioctl_fionread(reader).unwrap() as usize
}

/// Whether the read has got its byte; if not, it was cancelled.
fn has_read(events: &[Event]) -> bool {
    let of = |n| events.iter().find(|event| event.request.user_data == n).unwrap();
    assert!(matches!(of(2).result, Ok(1)), "a write into a pipe with room has failed");
    match &of(1).result {
        Ok(n) => *n == 1,
        Err(why) => {
            assert_eq!(why.raw_os_error(), Some(rustix::io::Errno::CANCELED.raw_os_error()));
            false
        }
    }
}

/// A write by another thread, while the read that waits for it is cancelled.
fn cancelled(hand_over: bool) {
    let (context, reader, writer) = world(hand_over);
    introduce(&context, &reader, &writer);
    let id = context.submit(read(&reader)).unwrap();
    let theirs = Arc::clone(&context);
    let submitter = thread::spawn(move || _ = theirs.submit(write(&writer)).unwrap());
    let _ = context.cancel(id);
    submitter.join().unwrap();
    let has_read = has_read(&events(&context, 2));
    assert_eq!(left_in(&reader), usize::from(!has_read), "the byte is lost, or there are two");
}

/// A write by another thread, while the context is destroyed, with the read that waits for it.
fn destroyed(hand_over: bool) {
    let (context, reader, writer) = world(hand_over);
    introduce(&context, &reader, &writer);
    context.submit(read(&reader)).unwrap();
    let theirs = Arc::clone(&context);
    let submitter = thread::spawn(move || theirs.submit(write(&writer)).is_ok());
    let mut destroying = pin!(context.destroy_async());
    let written = submitter.join().unwrap();
    let mut events = Vec::new();
    while context.get_events(0, 2, None, &mut events) != Err(GetEventsError::Dying) {
        let _ = destroying.as_mut().poll(&mut Task::from_waker(Waker::noop()));
    }
    assert_eq!(events.len(), 1 + usize::from(written));
    if written {
        let has_read = has_read(&events);
        assert_eq!(left_in(&reader), usize::from(!has_read));
    }
}

pub(super) fn models() -> Vec<Model> {
    let model = |name, checks, bound, least, body| Model { name, checks, bound, least, body, after: nothing };
    vec![
        model(
            "nonblocking.sleep",
            "a read is parked, or its thread sees the one that is about to sleep",
            None,
            119,
            || {
                parked(Backend::prepare_sleep);
            },
        ),
        model(
            "nonblocking.watched",
            "the same of one that asks for the descriptor to watch it",
            None,
            64,
            || {
                parked(Backend::descriptor);
            },
        ),
        model(
            "nonblocking.handed",
            "what was handed over by one thread is published before another sleeps",
            Some(3),
            237,
            || {
                let (context, reader, writer) = world(true);
                let theirs = Arc::clone(&context);
                let submitter = thread::spawn(move || {
                    introduce(&theirs, &reader, &writer);
                    theirs.submit(read(&reader)).unwrap();
                    theirs.submit(write(&writer)).unwrap();
                });
                let _ = context.backend().prepare_sleep();
                submitter.join().unwrap();
                assert_eq!(unread(&context), 2, "left to one who sleeps");
                events(&context, 2);
            },
        ),
        model(
            "nonblocking.fed",
            "a read that finds nothing is tried again after the write that came meanwhile",
            Some(3),
            1273,
            || {
                let (context, reader, writer) = world(false);
                introduce(&context, &reader, &writer);
                // Somebody else has what the next read is tried for.
                context.submit(write(&writer)).unwrap();
                events(&context, 1);
                (&*reader).read_exact(&mut [0]).unwrap();
                let theirs = Arc::clone(&context);
                let submitter = thread::spawn(move || _ = theirs.submit(write(&writer)).unwrap());
                context.submit(read(&reader)).unwrap();
                submitter.join().unwrap();
                // Without asking the system: something has completed, so that this look runs tasks only.
                let mut events = Vec::new();
                assert_eq!(
                    context.get_events(0, 2, None, &mut events),
                    Ok(2),
                    "it waits to be told by the system"
                );
                assert!(has_read(&events));
            },
        ),
        model(
            "nonblocking.cancel",
            "a read is cancelled while a write is handed to it",
            Some(3),
            244,
            || {
                cancelled(true);
            },
        ),
        model(
            "nonblocking.cancel_kicked",
            "a read is cancelled while it is kicked and tried",
            Some(3),
            105,
            || {
                cancelled(false);
            },
        ),
        model(
            "nonblocking.cancel_ready",
            "a read is cancelled while the system says that it can go on",
            Some(3),
            54,
            || {
                let (context, reader, writer) = world(true);
                let id = context.submit(read(&reader)).unwrap();
                context.backend().prepare_sleep();
                (&*writer).write_all(b"x").unwrap();
                let theirs = Arc::clone(&context);
                let looker = thread::spawn(move || {
                    let mut events = Vec::new();
                    theirs.get_events(0, 1, None, &mut events).unwrap();
                    events
                });
                let _ = context.cancel(id);
                let mut all = looker.join().unwrap();
                for _ in 0..4 {
                    context.get_events(0, 1, None, &mut all).unwrap();
                }
                assert_eq!(all.len(), 1);
                assert_eq!(left_in(&reader), usize::from(all[0].result.is_err()));
            },
        ),
        model(
            "nonblocking.destroy",
            "a context is destroyed while a write is handed to a read",
            Some(3),
            4339,
            || {
                destroyed(true);
            },
        ),
        model(
            "nonblocking.destroy_kicked",
            "a context is destroyed while a read is kicked and tried",
            Some(3),
            8889,
            || {
                destroyed(false);
            },
        ),
    ]
}
