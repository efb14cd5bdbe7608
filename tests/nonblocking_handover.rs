//! Data that goes from a write to a read without the pipe between them: when, when not, and that nobody can tell.
#![cfg(ioctx_linux)]

mod support;

use ioctx::aio::{Context, Event, Request};
use ioctx::backend::Nonblocking;
use ioctx::runlist::Builder;
use rustix::io::ioctl_fionread;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

fn file(end: impl Into<OwnedFd>) -> Arc<File> {
    Arc::new(File::from(end.into()))
}

fn pipe() -> (Arc<File>, Arc<File>) {
    let (reader, writer) = std::io::pipe().unwrap();
    (file(reader), file(writer))
}

/// With nobody who makes up for what others leave undone.
fn context() -> Context<Nonblocking> {
    support::never_hang();
    let builder = Builder::new().worker(false);
    Context::new(1024, Nonblocking::with(builder).unwrap()).unwrap()
}

fn read(file: &Arc<File>, len: usize) -> Request {
    Request::read(Arc::clone(file), vec![0; len], 0)
}

fn write(file: &Arc<File>, bytes: &[u8]) -> Request {
    Request::write(Arc::clone(file), bytes.to_vec(), 0).with_user_data(u64::MAX)
}

/// So many events, which come soon.
fn events(context: &Context<Nonblocking>, n: usize) -> Vec<Event> {
    let mut events = Vec::new();
    assert_eq!(context.get_events(n, n, Some(Instant::now() + PATIENCE), &mut events), Ok(n));
    events
}

/// What the reads among these have found, in the order of their user data.
fn found(mut events: Vec<Event>) -> Vec<Vec<u8>> {
    events.retain(|event| event.request.user_data != u64::MAX);
    events.sort_by_key(|event| event.request.user_data);
    let bytes = |event: Event| {
        let n = event.result.unwrap();
        event.request.into_buffer::<Vec<u8>>().unwrap()[..n].to_vec()
    };
    events.into_iter().map(bytes).collect()
}

/// Makes the ends of a pipe known to each other: the first data goes through it.
fn introduce(context: &Context<Nonblocking>, (reader, writer): &(Arc<File>, Arc<File>)) {
    context.submit(write(writer, b"?")).unwrap();
    context.submit(read(reader, 1)).unwrap();
    events(context, 2);
}

/// How many reads and writes this thread has asked the system for, with what asking this costs. `None`: it does not
/// count.
fn calls() -> Option<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    let of = |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    Some([of("syscr:")?, of("syscw:")?])
}

#[test]
fn a_message_takes_one_read_and_one_write_or_neither() {
    const MESSAGES: u64 = 100;
    let Some(_) = calls() else { return println!("SKIPPED: the system does not count calls") };
    let alone = [calls().unwrap(), calls().unwrap()];
    let alone = [0, 1].map(|n| alone[1][n] - alone[0][n]);
    for hand_over in [true, false] {
        support::never_hang();
        let backend = Nonblocking::with(Builder::new().worker(false)).unwrap();
        let context = Context::new(8, backend.hand_over(hand_over)).unwrap();
        let pipe = pipe();
        introduce(&context, &pipe);
        let before = calls().unwrap();
        for n in 0..MESSAGES {
            // The read first: it waits, and nobody tries it in vain.
            context.submit(read(&pipe.0, 5)).unwrap();
            context.submit(write(&pipe.1, &n.to_ne_bytes()[..3])).unwrap();
            assert_eq!(found(events(&context, 2)), [&n.to_ne_bytes()[..3]]);
        }
        let after = calls().unwrap();
        let took = [0, 1].map(|n| after[n] - before[n] - alone[n]);
        assert_eq!(took, if hand_over { [0; 2] } else { [MESSAGES; 2] });
    }
}

#[test]
fn what_others_have_written_before_comes_first() {
    let context = context();
    let pipe = pipe();
    introduce(&context, &pipe);
    for _ in 0..3 {
        context.submit(read(&pipe.0, 1)).unwrap();
        (&*pipe.1).write_all(b"1").unwrap();
        context.submit(write(&pipe.1, b"2")).unwrap();
        assert_eq!(found(events(&context, 2)), [b"1"]);
        context.submit(read(&pipe.0, 1)).unwrap();
        assert_eq!(found(events(&context, 1)), [b"2"]);
    }
}

#[test]
fn what_does_not_fit_goes_through_the_pipe() {
    let context = context();
    let pipe = pipe();
    introduce(&context, &pipe);
    for (wanted, written) in [(1, 2), (3, 4096), (5000, 4096), (5000, 4097), (8, 8)] {
        let bytes: Vec<_> = (0..written).map(|n| n as u8).collect();
        context.submit(read(&pipe.0, wanted)).unwrap();
        context.submit(write(&pipe.1, &bytes)).unwrap();
        let mut got = found(events(&context, 2)).remove(0);
        assert_eq!(got.len(), wanted.min(written));
        let mut rest = vec![0; written - got.len()];
        (&*pipe.0).read_exact(&mut rest).unwrap();
        got.extend(rest);
        assert_eq!(got, bytes);
        assert_eq!(ioctl_fionread(&pipe.0).unwrap(), 0);
    }
}

#[test]
fn more_pipes_than_are_looked_at_together() {
    let context = context();
    let pipes: Vec<_> = (0..150).map(|_| pipe()).collect();
    for pipe in &pipes {
        introduce(&context, pipe);
    }
    for round in 0..3 {
        let mut batch: Vec<_> =
            (0..).zip(&pipes).map(|(n, pipe)| read(&pipe.0, 1).with_user_data(n)).collect();
        // Some are not empty by then.
        for (n, pipe) in pipes.iter().enumerate() {
            batch.push(write(&pipe.1, &[n as u8]));
        }
        let writes = batch.split_off(pipes.len());
        context.submit_batch(&mut batch).unwrap();
        for (n, pipe) in pipes.iter().enumerate().filter(|(n, _)| n % 7 == round) {
            (&*pipe.1).write_all(&[!(n as u8)]).unwrap();
        }
        context.submit_batch(&mut { writes }).unwrap();
        let found = found(events(&context, 2 * pipes.len()));
        for (n, (bytes, pipe)) in found.iter().zip(&pipes).enumerate() {
            if n % 7 == round {
                assert_eq!(*bytes, [!(n as u8)]);
                (&*pipe.0).read_exact(&mut [0]).unwrap();
            } else {
                assert_eq!(*bytes, [n as u8]);
            }
        }
    }
}

#[test]
fn two_descriptors_of_one_socket_are_not_the_ends_of_a_pipe() {
    let context = context();
    let (one, other) = UnixStream::pair().unwrap();
    let again = file(one.try_clone().unwrap());
    let (one, mut other) = (file(one), other);
    context.submit(read(&again, 1)).unwrap();
    for n in 0..3 {
        context.submit(write(&one, &[n])).unwrap();
        events(&context, 1);
        let mut byte = [99];
        other.read_exact(&mut byte).unwrap();
        assert_eq!(byte, [n]);
    }
    other.write_all(b"x").unwrap();
    assert_eq!(found(events(&context, 1)), [b"x"]);
}

#[test]
fn all_descriptors_of_a_pipe_feed_its_reads() {
    let context = context();
    let pipe = pipe();
    let more: Vec<_> = (0..2).map(|_| file(pipe.1.try_clone().unwrap())).collect();
    let calls_of = |work: &dyn Fn()| {
        let (Some(before), _, Some(after)) = (calls(), work(), calls()) else { return None };
        Some([0, 1].map(|n| after[n] - before[n]))
    };
    let asking = calls_of(&|| ());
    for round in 0..3 {
        let one_each = || {
            for writer in [&pipe.1, &more[0], &more[1]] {
                context.submit(read(&pipe.0, 1)).unwrap();
                context.submit(write(writer, b"x")).unwrap();
                assert_eq!(found(events(&context, 2)), [b"x"]);
            }
        };
        assert!(calls_of(&one_each) == asking || round == 0, "not handed over");
    }
    // An end of which there are two: what is not handed over is seen all the same.
    let reader = file(pipe.0.try_clone().unwrap());
    for _ in 0..3 {
        for writer in [&pipe.1, &more[0], &more[1]] {
            for reader in [&pipe.0, &reader] {
                context.submit(read(reader, 1)).unwrap();
                context.submit(write(writer, b"x")).unwrap();
                assert_eq!(found(events(&context, 2)), [b"x"]);
            }
        }
    }
}

/// The same file under this number, if nobody has taken it meanwhile.
fn renumbered(file: Arc<File>, number: i32) -> Option<Arc<File>> {
    let again = rustix::io::fcntl_dupfd_cloexec(&*file, number).unwrap();
    (again.as_raw_fd() == number).then(|| Arc::new(File::from(again)))
}

#[test]
fn a_number_that_was_the_other_end_is_not_for_ever() {
    let context = context();
    let mut times = 0;
    for _ in 0..200 {
        let (old, new) = (pipe(), pipe());
        introduce(&context, &old);
        let number = old.0.as_raw_fd();
        let still_open = old.0.try_clone().unwrap();
        drop(old.0);
        let Some(reader) = renumbered(new.0, number) else { continue };
        context.submit(read(&reader, 1)).unwrap();
        context.submit(write(&old.1, b"o")).unwrap();
        events(&context, 1);
        (&*new.1).write_all(b"n").unwrap();
        assert_eq!(found(events(&context, 1)), [b"n"]);
        let mut byte = [0];
        (&still_open).read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"o");
        times += 1;
        if times == 3 {
            return;
        }
    }
    panic!("the numbers were never given again");
}

/// Records of who wrote them and how many before, each written at once.
const RECORD: usize = 8;

fn record(writer: u32, n: u32) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&writer.to_ne_bytes());
    record[4..].copy_from_slice(&n.to_ne_bytes());
    record
}

/// Each writer's records come in order, none is lost, whoever else writes and reads meanwhile.
#[test]
fn records_keep_their_order_whoever_writes_them() {
    const EACH: u32 = 3000;
    let context = context();
    let pipe = pipe();
    introduce(&context, &pipe);
    let again = file(pipe.1.try_clone().unwrap());
    let over = AtomicBool::new(false);
    let mut next = [0; 3];
    thread::scope(|scope| {
        for (writer, file) in [(0, &pipe.1), (1, &again)] {
            let context = &context;
            scope.spawn(move || {
                for n in 0..EACH {
                    // Its event is not waited for: those of one thread are carried out in order all the same.
                    while context.submit(write(file, &record(writer, n))).is_err() {
                        thread::yield_now();
                    }
                }
            });
        }
        scope.spawn(|| {
            for n in 0..EACH {
                (&*pipe.1).write_all(&record(2, n)).unwrap();
                if n % 8 == 0 {
                    thread::yield_now();
                }
            }
        });
        // Cancels what it can of the reads.
        let (ids, theirs) = std::sync::mpsc::channel();
        let (context, over) = (&context, &over);
        scope.spawn(move || {
            while !over.load(Relaxed) {
                theirs.try_iter().for_each(|id| _ = context.cancel(id));
                thread::yield_now();
            }
        });
        let (mut reads, mut in_flight) = (0, 0);
        let mut all = Vec::new();
        let mut got: Vec<(u64, u32, u32)> = Vec::new();
        while got.len() < 3 * EACH as usize {
            while in_flight < 2 {
                // Full, perhaps, of writes.
                let read = read(&pipe.0, RECORD).with_user_data(reads);
                let Ok(id) = context.submit(read) else { break };
                reads += 1;
                in_flight += 1;
                if reads % 3 == 0 {
                    ids.send(id).unwrap();
                }
            }
            context.get_events(1, 1024, Some(Instant::now() + PATIENCE), &mut all).unwrap();
            for event in all.drain(..) {
                if event.request.user_data == u64::MAX {
                    assert_eq!(event.result.unwrap(), RECORD);
                    continue;
                }
                in_flight -= 1;
                let Ok(n) = event.result else { continue };
                assert_eq!(n, RECORD);
                let number = event.request.user_data;
                let bytes = event.request.into_buffer::<Vec<u8>>().unwrap();
                let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
                got.push((number, word(0), word(4)));
            }
        }
        // Events may come in another order than their reads were served.
        got.sort_unstable();
        for (_, writer, n) in got {
            assert_eq!(n, next[writer as usize], "of writer {writer}");
            next[writer as usize] += 1;
        }
        over.store(true, Relaxed);
        context.destroy(Some(Instant::now() + PATIENCE)).unwrap();
    });
    assert_eq!(ioctl_fionread(&pipe.0).unwrap(), 0);
}
