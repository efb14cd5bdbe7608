//! Pipes and sockets by who submits or waits: in what order, by whom, and what becomes of numbers that are used again.
#![cfg(ioctx_linux)]

mod support;

use ioctx::aio::{Context, Event, FileRef, Readiness, Request};
use ioctx::backend::Nonblocking;
use ioctx::runlist::Builder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

/// Longer than any machine is busy with others.
const PATIENCE: Duration = Duration::from_secs(20);

fn pipe() -> (Arc<File>, Arc<File>) {
    let (reader, writer) = std::io::pipe().unwrap();
    let file = |end: OwnedFd| Arc::new(File::from(end));
    (file(reader.into()), file(writer.into()))
}

fn context(builder: Builder) -> Context<Nonblocking> {
    support::never_hang();
    Context::new(256, Nonblocking::with(builder).unwrap()).unwrap()
}

/// With nobody who makes up for what others leave undone.
fn alone() -> Context<Nonblocking> {
    context(Builder::new().worker(false))
}

fn read(file: &Arc<File>, n: u64) -> Request {
    Request::read(Arc::clone(file), vec![0; 1], 0).with_user_data(n)
}

fn write(file: &Arc<File>, byte: u8) -> Request {
    Request::write(Arc::clone(file), vec![byte], 0).with_user_data(1000 + u64::from(byte))
}

/// So many events, which come soon.
fn events(context: &Context<Nonblocking>, n: usize) -> Vec<Event> {
    let mut events = Vec::new();
    assert_eq!(context.get_events(n, n, Some(Instant::now() + PATIENCE), &mut events), Ok(n));
    events
}

/// None comes, not even if somebody waits a little.
fn nothing(context: &Context<Nonblocking>) {
    let soon = Some(Instant::now() + Duration::from_millis(5));
    assert_eq!(context.get_events(1, 1, soon, &mut Vec::new()), Ok(0));
}

/// What each read has found, in the order of their submission.
fn found(mut events: Vec<Event>) -> Vec<u8> {
    events.retain(|event| event.request.user_data < 1000);
    events.sort_by_key(|event| event.request.user_data);
    let byte = |event: Event| {
        assert_eq!(event.result.unwrap(), 1);
        event.request.into_buffer::<Vec<u8>>().unwrap()[0]
    };
    events.into_iter().map(byte).collect()
}

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";

#[test]
fn first_in_is_first_served() {
    let context = alone();
    let (reader, writer) = pipe();
    for ours in [false, true] {
        for n in 0..26 {
            context.submit(read(&reader, n)).unwrap();
        }
        for byte in LETTERS {
            if ours {
                context.submit(write(&writer, *byte)).unwrap();
            } else {
                (&*writer).write_all(&[*byte]).unwrap();
            }
        }
        // The one that comes late does not come first.
        (&*writer).write_all(b"!").unwrap();
        context.submit(read(&reader, 26)).unwrap();
        let n = if ours { 53 } else { 27 };
        assert_eq!(found(events(&context, n)), b"abcdefghijklmnopqrstuvwxyz!");
    }
}

#[test]
fn a_pipe_that_is_full_is_filled_in_order_by_whoever_has_made_room() {
    let context = alone();
    let (reader, writer) = pipe();
    let page = |n: u8| Request::write(Arc::clone(&writer), vec![n; 4096], 0).with_user_data(n.into());
    // It has room for 16 pages.
    for n in 0..48 {
        context.submit(page(n)).unwrap();
    }
    events(&context, 16);
    nothing(&context);
    let mut buf = vec![0; 4096];
    for n in 0..16 {
        (&*reader).read_exact(&mut buf).unwrap();
        assert_eq!(buf, [n; 4096]);
        assert_eq!(events(&context, 1)[0].request.user_data, u64::from(n) + 16);
    }
    // Now by requests: each read is one event, and the write that has room then.
    for n in 16..48 {
        context.submit(Request::read(Arc::clone(&reader), vec![0; 4096], 0).with_user_data(1000)).unwrap();
        for event in events(&context, if n < 32 { 2 } else { 1 }) {
            assert_eq!(event.result.unwrap(), 4096);
            match event.request.user_data {
                1000 => assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap(), [n; 4096]),
                written => assert_eq!(written, u64::from(n) + 16),
            }
        }
    }
    nothing(&context);
}

#[test]
fn what_ours_write_is_read_without_a_wait() {
    let context = context(Builder::new().worker(false).help_on_reap(false));
    let (reader, writer) = pipe();
    for n in 0..100 {
        context.submit(read(&reader, n)).unwrap();
        context.submit(write(&writer, n as u8)).unwrap();
        // By the submitter: nobody else does.
        assert_eq!(found(events(&context, 2)), [n as u8]);
    }
    // And room that ours make is filled, too.
    let page = || Request::write(Arc::clone(&writer), vec![1; 4096], 0);
    for _ in 0..17 {
        context.submit(page()).unwrap();
    }
    events(&context, 16);
    nothing(&context);
    context.submit(Request::read(Arc::clone(&reader), vec![0; 4096], 0)).unwrap();
    assert_eq!(events(&context, 2).len(), 2);
    let said = format!("{:?}", context.backend());
    assert!(said.contains("pool: None") && said.contains("files: 2"), "{said}");
}

#[test]
fn a_submitter_does_no_more_for_others_than_it_is_told() {
    let builder = Builder::new().worker(false).help_on_reap(false).help_on_submit(2);
    let context = Context::new(256, Nonblocking::with(builder).unwrap().hand_over(false)).unwrap();
    let pipes: Vec<_> = (0..5).map(|_| pipe()).collect();
    for (n, (reader, writer)) in pipes.iter().enumerate() {
        // Known to each other.
        context.submit(write(writer, 0)).unwrap();
        context.submit(read(reader, 0)).unwrap();
        assert_eq!(events(&context, 2).len(), 2);
        context.submit(read(reader, n as u64)).unwrap();
    }
    let mut batch: Vec<_> = pipes.iter().map(|(_, writer)| write(writer, 7)).collect();
    context.submit_batch(&mut batch).unwrap();
    let now = |n: usize| {
        let mut events = Vec::new();
        assert_eq!(context.get_events(0, 100, None, &mut events), Ok(n));
    };
    now(5 + 2);
    context.submit(Request::nop()).unwrap();
    now(1 + 2);
    context.submit(Request::nop()).unwrap();
    now(1 + 1);
}

/// The same file under this number, if nobody has taken it meanwhile.
fn renumbered(file: Arc<File>, number: i32) -> Option<Arc<File>> {
    let again = rustix::io::fcntl_dupfd_cloexec(&*file, number).unwrap();
    (again.as_raw_fd() == number).then(|| Arc::new(File::from(again)))
}

/// Tries it until it was possible a few times, which other tests of this process may prevent.
fn a_few_times(mut try_it: impl FnMut() -> Option<()>) {
    assert!((0..200).filter_map(|_| try_it()).take(3).count() == 3, "the numbers were never given again");
}

#[test]
fn a_number_that_is_used_again_means_another_file() {
    let context = alone();
    let mut round = 0;
    a_few_times(|| {
        let (old, writer) = pipe();
        let (new, new_writer) = pipe();
        let waits = context.submit(read(&old, 0)).unwrap();
        nothing(&context);
        // Stays open under another number, and with it what the system was told.
        let _other = old.try_clone().unwrap();
        let number = old.as_raw_fd();
        context.cancel(waits).unwrap();
        drop((old, events(&context, 1)));
        let new = renumbered(new, number)?;
        context.submit(read(&new, 0)).unwrap();
        nothing(&context);
        // What happens to the old one changes nothing.
        round += 1;
        if round % 2 == 0 {
            (&*writer).write_all(b"o").unwrap();
            nothing(&context);
        }
        (&*new_writer).write_all(b"n").unwrap();
        assert_eq!(found(events(&context, 1)), b"n");
        Some(())
    });
}

#[test]
fn a_descriptor_of_somebody_elses_may_come_to_be_another() {
    let context = alone();
    a_few_times(|| {
        let (old, _writer) = pipe();
        let (new, new_writer) = pipe();
        let read = |file: &Arc<File>| {
            // SAFETY: 1. open until its event has come.
            let file = unsafe { FileRef::borrowed(file.as_fd()) };
            Request::read(file, vec![0; 1], 0)
        };
        let _other = old.try_clone().unwrap();
        let number = old.as_raw_fd();
        let waits = context.submit(read(&old)).unwrap();
        nothing(&context);
        context.cancel(waits).unwrap();
        drop(events(&context, 1));
        drop(old);
        let new = renumbered(new, number)?;
        for byte in [b"1", b"2"] {
            context.submit(read(&new)).unwrap();
            nothing(&context);
            (&*new_writer).write_all(byte).unwrap();
            assert_eq!(found(events(&context, 1)), byte);
        }
        Some(())
    });
}

#[test]
fn a_number_that_comes_to_be_a_disk_file_has_an_offset() {
    let context = alone();
    a_few_times(|| {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(LETTERS).unwrap();
        let (old, writer) = pipe();
        context.submit(write(&writer, 0)).unwrap();
        context.submit(read(&old, 0)).unwrap();
        drop(events(&context, 2));
        let number = old.as_raw_fd();
        drop(old);
        let new = renumbered(Arc::new(file), number)?;
        context.submit(Request::read(Arc::clone(&new), vec![0; 3], 3)).unwrap();
        let event = events(&context, 1).remove(0);
        assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap(), b"def");
        Some(())
    });
}

#[test]
fn a_reader_who_waits_for_more_sleeps_as_often_as_it_takes() {
    let context = alone();
    let (reader, writer) = pipe();
    for part in [1, 20] {
        let all = 3 * part;
        for n in 0..all as u64 {
            context.submit(read(&reader, n)).unwrap();
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                for part in LETTERS.repeat(3)[..all].chunks(part) {
                    thread::sleep(Duration::from_millis(5));
                    (&*writer).write_all(part).unwrap();
                }
            });
            assert_eq!(found(events(&context, all)), LETTERS.repeat(3)[..all]);
        });
    }
}

#[test]
fn a_reader_that_sleeps_is_woken_for_what_another_has_submitted() {
    for (ours, most) in [(false, 16), (true, 16), (true, 0)] {
        let context = context(Builder::new().worker(false).help_on_submit(most));
        for _ in 0..20 {
            let (reader, writer) = pipe();
            // Known to each other.
            context.submit(write(&writer, 0)).unwrap();
            context.submit(read(&reader, 0)).unwrap();
            events(&context, 2);
            let both = Barrier::new(2);
            thread::scope(|scope| {
                scope.spawn(|| {
                    nothing(&context);
                    both.wait();
                    let n = 1 + usize::from(ours);
                    assert_eq!(found(events(&context, n)), b"x");
                });
                both.wait();
                thread::sleep(Duration::from_millis(2));
                context.submit(read(&reader, 0)).unwrap();
                thread::sleep(Duration::from_millis(2));
                if ours {
                    context.submit(write(&writer, b'x')).unwrap();
                } else {
                    (&*writer).write_all(b"x").unwrap();
                }
            });
        }
    }
}

#[test]
fn what_one_reader_leaves_another_is_woken_for() {
    let context = alone();
    for _ in 0..20 {
        let (reader, writer) = pipe();
        let pair = [read(&reader, 0), read(&reader, 1)];
        let read_one = || found(events(&context, 1)).len();
        thread::scope(|scope| {
            let readers = [scope.spawn(read_one), scope.spawn(read_one)];
            thread::sleep(Duration::from_millis(2));
            assert_eq!(context.submit_batch(&mut pair.into()).unwrap(), 2);
            for _ in 0..2 {
                thread::sleep(Duration::from_millis(2));
                (&*writer).write_all(b"x").unwrap();
            }
            assert_eq!(readers.map(|reader| reader.join().unwrap()), [1, 1]);
        });
    }
}

#[test]
fn a_descriptor_that_is_watched_becomes_readable() {
    use ioctx::aio::Backend;
    let context = alone();
    let descriptor = context.backend().descriptor().unwrap();
    let watch = |tenths: i64| {
        let patience = Timespec { tv_sec: 0, tv_nsec: tenths * 100_000_000 };
        poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&patience)).unwrap()
    };
    for _ in 0..10 {
        let (reader, writer) = pipe();
        // Whoever submits is who watches, and has looked for events before.
        assert_eq!(context.get_events(0, 1, None, &mut Vec::new()), Ok(0));
        context.submit(read(&reader, 0)).unwrap();
        assert_eq!(watch(0), 0);
        (&*writer).write_all(b"x").unwrap();
        assert_eq!(watch(9), 1);
        let mut events = Vec::new();
        while events.is_empty() {
            context.get_events(0, 1, None, &mut events).unwrap();
        }
        assert_eq!(found(events), b"x");
    }
}

#[test]
fn a_descriptor_that_is_watched_becomes_readable_for_the_next_one_in_line() {
    use ioctx::aio::Backend;
    let context = alone();
    let descriptor = context.backend().descriptor().unwrap();
    let is_readable = |tenths: i64| {
        let patience = Timespec { tv_sec: 0, tv_nsec: tenths * 100_000_000 };
        poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&patience)).unwrap() == 1
    };
    let (reader, writer) = pipe();
    for n in 0..3 {
        context.submit(read(&reader, n)).unwrap();
    }
    for n in 0..3 {
        assert!(!is_readable(0), "nothing is there");
        (&*writer).write_all(b"x").unwrap();
        assert!(is_readable(9), "read {n} is not watched");
        // The event that makes the file's task run is used up; what it leaves waits for another.
        assert_eq!(found(events(&context, 1)), b"x");
    }
}

/// A socket whose buffers are full, and what has been written to it.
fn full_socket() -> (Arc<File>, std::os::unix::net::UnixStream, usize) {
    let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    let mut written = 0;
    while let Ok(n) = (&one).write(&[0; 4096]) {
        written += n;
    }
    (Arc::new(File::from(OwnedFd::from(one))), other, written)
}

#[test]
fn a_descriptor_that_is_watched_becomes_readable_for_what_a_look_was_not_about() {
    use ioctx::aio::Backend;
    let context = alone();
    let descriptor = context.backend().descriptor().unwrap();
    let is_readable = |seconds: i64| {
        let patience = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&patience)).unwrap() == 1
    };
    let (file, mut other, mut written) = full_socket();
    let cancelled = context.submit(read(&file, 0)).unwrap();
    context.cancel(cancelled).unwrap();
    context.submit(write(&file, b'w')).unwrap();
    events(&context, 1);
    // The system says that there is something to read, which nobody wants any more, and will say no more of this file.
    other.write_all(b"x").unwrap();
    assert!(is_readable(0));
    while is_readable(0) {
        assert_eq!(context.get_events(0, 1, None, &mut Vec::new()), Ok(0));
    }
    let mut some = vec![0; 4096];
    while written > 0 {
        written -= other.read(&mut some).unwrap();
    }
    assert!(is_readable(5), "the write is not watched");
    assert!(matches!(events(&context, 1)[0].result, Ok(1)));
}

#[test]
fn an_eventfd_that_is_armed_is_one_that_sleeps() {
    use ioctx::aio::{Backend, Completion, Submitted};
    use std::os::fd::BorrowedFd;
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// Has something to watch, and counts who is about to.
    struct Watched(File, AtomicU32);

    impl Backend for Watched {
        fn submit(&self, work: Completion) -> Submitted {
            Submitted::Done(work.finish(Ok(0)))
        }

        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            Some(self.0.as_fd())
        }

        fn prepare_sleep(&self) -> Option<BorrowedFd<'_>> {
            self.1.fetch_add(1, Relaxed);
            self.descriptor()
        }
    }

    let reader = File::from(OwnedFd::from(std::io::pipe().unwrap().0));
    let context = Context::new(8, Watched(reader, AtomicU32::new(0))).unwrap();
    let mut ready = context.eventfd().unwrap();
    assert!(ready.arm(1));
    assert_eq!(context.backend().1.load(Relaxed), 1);
    context.submit(Request::nop()).unwrap();
    // It will not sleep: there is an event.
    assert!(!ready.arm(1));
    assert_eq!(context.backend().1.load(Relaxed), 1);
}

#[test]
fn an_eventfd_becomes_readable_when_the_file_is_ready() {
    let context = alone();
    let mut ready = context.eventfd().unwrap();
    let (_other, other_writer) = pipe();
    for round in 0..10 {
        let (reader, writer) = pipe();
        context.submit(read(&reader, 0)).unwrap();
        // Something else that is done at once.
        context.submit(write(&other_writer, 0)).unwrap();
        let mut events = Vec::new();
        let end = Instant::now() + PATIENCE;
        let mut written = false;
        loop {
            context.get_events(0, 2, None, &mut events).unwrap();
            if events.len() == 2 {
                break;
            }
            if ready.arm(1) {
                if !written {
                    written = true;
                    (&*writer).write_all(b"x").unwrap();
                }
                let patience = Timespec { tv_sec: 5, tv_nsec: 0 };
                let n = poll(&mut [PollFd::new(&ready, PollFlags::IN)], Some(&patience)).unwrap();
                assert!(n == 1 && Instant::now() < end, "round {round}");
                ready.clear();
            }
        }
        assert_eq!(found(events), b"x");
    }
}

#[test]
fn files_that_others_write_to_are_seen_though_there_is_always_something_else() {
    let context = alone();
    let (reader, writer) = pipe();
    let (others, from_outside) = pipe();
    context.submit(read(&others, 999)).unwrap();
    nothing(&context);
    (&*from_outside).write_all(b"x").unwrap();
    for _ in 0..1000 {
        context.submit(read(&reader, 0)).unwrap();
        context.submit(write(&writer, 0)).unwrap();
        let mut events = Vec::new();
        context.get_events(1, 8, None, &mut events).unwrap();
        if events.iter().any(|event| event.request.user_data == 999) {
            return;
        }
    }
    panic!("it was never looked at");
}

#[test]
fn polls_are_told_of_what_ours_and_others_do() {
    let context = alone();
    let (reader, writer) = pipe();
    for ours in [false, true] {
        let ready = Request::poll(Arc::clone(&reader), Readiness::READABLE).with_user_data(77);
        let never = Request::poll(Arc::clone(&reader), Readiness::PRIORITY).with_user_data(88);
        let never = context.submit(never).unwrap();
        context.submit(ready).unwrap();
        nothing(&context);
        if ours {
            context.submit(write(&writer, 0)).unwrap();
        } else {
            (&*writer).write_all(b"x").unwrap();
        }
        let came = events(&context, 1 + usize::from(ours));
        assert!(came.iter().any(|event| event.request.user_data == 77));
        (&*reader).read_exact(&mut [0]).unwrap();
        nothing(&context);
        context.cancel(never).unwrap();
        events(&context, 1);
    }
}

#[test]
fn sockets_wait_without_threads() {
    let context = alone();
    let pairs: Vec<_> = (0..40)
        .map(|_| {
            let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
            let file = |end| Arc::new(File::from(OwnedFd::from(end)));
            (file(one), file(other))
        })
        .collect();
    for (n, (one, _)) in (0..).zip(&pairs) {
        context.submit(read(one, n)).unwrap();
    }
    nothing(&context);
    for (_, other) in &pairs {
        context.submit(write(other, 5)).unwrap();
    }
    assert_eq!(found(events(&context, 80)), [5; 40]);
    assert!(format!("{:?}", context.backend()).contains("pool: None"));
}

#[test]
fn the_worker_does_what_nobody_else_does() {
    let now = Duration::ZERO;
    let builder = Builder::new().help_on_submit(0).help_on_reap(false).worker_delay(now, now);
    let context = context(builder);
    let (others, from_outside) = pipe();
    // More than one after the other, so that the worker leaves some.
    for n in 0..3 {
        context.submit(read(&others, n)).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..3 {
                thread::sleep(Duration::from_millis(5));
                (&*from_outside).write_all(b"x").unwrap();
            }
        });
        assert_eq!(found(events(&context, 3)), b"xxx");
    });
    let (reader, writer) = pipe();
    for n in 0..20 {
        context.submit(read(&reader, n)).unwrap();
        nothing(&context);
        context.submit(write(&writer, b'w')).unwrap();
        assert_eq!(found(events(&context, 2)), b"w");
    }
}

#[test]
fn nothing_is_left_of_a_backend() {
    let (reader, writer) = pipe();
    let backend = context(Builder::new());
    backend.submit(read(&reader, 0)).unwrap();
    backend.submit(write(&writer, 1)).unwrap();
    events(&backend, 2);
    backend.submit(read(&reader, 0)).unwrap();
    drop(backend);
    // Each end knew the other.
    assert_eq!([Arc::weak_count(&reader), Arc::weak_count(&writer)], [0, 0]);
    assert_eq!([Arc::strong_count(&reader), Arc::strong_count(&writer)], [1, 1]);
}
