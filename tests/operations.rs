//! Polls, operations of users, and files and memory that belong to others: on the pool, whose threads survive them all,
//! and on the null devices.

mod support;

use ioctx::aio::{Backend, Buffer, BufferMut, Context, Custom, FileRef, Op, Operation, Readiness, Request};
use ioctx::backend::{Null, Threads, Zero};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::thread;
use support::requests::{file, pools, run};

/// Throws something that throws once more when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        if !thread::panicking() {
            std::panic::panic_any(Grenade);
        }
    }
}

#[test]
fn custom_operations_run_in_the_pool_and_come_back() {
    struct Runs {
        count: Cell<u32>,
        by: Option<thread::ThreadId>,
    }
    impl Operation for Runs {
        fn run(&mut self) -> io::Result<usize> {
            self.count.set(self.count.get() + 1);
            self.by = Some(thread::current().id());
            match self.count.get() {
                2 => panic!("on purpose"),
                3 => std::panic::panic_any(Grenade),
                #[cfg(unix)]
                4 => Err(io::Error::from_raw_os_error(libc::ENOENT)),
                times => Ok(times as usize),
            }
        }
    }
    for context in pools() {
        let mut custom = Custom::new(Runs { count: Cell::new(0), by: None });
        for times in 1..=5 {
            let event = run(&context, Request::new(Op::Custom(custom)));
            match times {
                2 | 3 => {
                    let error = event.result.unwrap_err();
                    #[cfg(unix)]
                    assert_eq!(error.raw_os_error(), Some(libc::EIO));
                    let _ = error;
                }
                #[cfg(unix)]
                4 => assert_eq!(event.result.unwrap_err().raw_os_error(), Some(libc::ENOENT)),
                _ => assert_eq!(event.result.unwrap(), times),
            }
            let Op::Custom(back) = event.request.op else { panic!("it was one") };
            let back = back.downcast::<fn() -> io::Result<usize>>().unwrap_err().downcast::<Runs>().unwrap();
            assert_eq!(back.count.get(), times as u32);
            assert_ne!(back.by.unwrap(), thread::current().id());
            custom = Custom::new(*back);
        }
        let mut calls = 0;
        let closure = move || {
            calls += 1;
            Ok(calls)
        };
        let event = run(&context, Request::custom(closure));
        assert_eq!(event.result.unwrap(), 1);
        assert_eq!(run(&context, event.request).result.unwrap(), 2);
    }
}

#[test]
fn custom_operations_come_back_from_who_runs_no_code_of_others() {
    fn not_run(context: &Context<impl Backend>) {
        let event = run(context, Request::custom(|| Ok(1)).with_user_data(4));
        let error = event.result.unwrap_err();
        #[cfg(unix)]
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        let _ = error;
        let Op::Custom(mut custom) = event.request.op else { panic!("it was one") };
        assert_eq!((custom.run().unwrap(), event.request.user_data), (1, 4));
    }
    not_run(&Context::new(1, Null).unwrap());
    not_run(&Context::new(1, Zero).unwrap());
}

#[test]
fn null_devices_are_always_ready() {
    let asked = Readiness::READABLE | Readiness::WRITABLE | Readiness::PRIORITY;
    let event = run(&Context::new(1, Null).unwrap(), Request::poll(file(), asked));
    let ready = Readiness::from_result(event.result.unwrap());
    assert_eq!(ready, Readiness::READABLE | Readiness::WRITABLE);
    let event = run(&Context::new(1, Zero).unwrap(), Request::poll(file(), Readiness::WRITABLE));
    assert_eq!(Readiness::from_result(event.result.unwrap()), Readiness::WRITABLE);
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
    use std::time::{Duration, Instant};

    fn polled(context: &Context<Threads>, file: &Arc<File>, interest: Readiness) -> Readiness {
        let event = run(context, Request::poll(Arc::clone(file), interest));
        assert!(matches!(event.request.op, Op::Poll { interest: same, .. } if same == interest));
        Readiness::from_result(event.result.unwrap())
    }

    fn pipe() -> (Arc<File>, File) {
        let (reader, writer) = io::pipe().unwrap();
        (Arc::new(File::from(OwnedFd::from(reader))), File::from(OwnedFd::from(writer)))
    }

    #[test]
    fn polls_wait_until_the_file_is_ready() {
        for context in pools() {
            let (reader, mut writer) = pipe();
            context
                .submit(Request::poll(Arc::clone(&reader), Readiness::READABLE).with_user_data(6))
                .unwrap();
            let mut events = Vec::new();
            let soon = Some(Instant::now() + Duration::from_millis(30));
            assert_eq!(context.get_events(1, 1, soon, &mut events), Ok(0), "nobody has written");
            writer.write_all(b"x").unwrap();
            assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
            let event = events.pop().unwrap();
            assert_eq!(event.request.user_data, 6);
            assert_eq!(Readiness::from_result(event.result.unwrap()), Readiness::READABLE);

            // What is ready is found so again, and nothing was read.
            let both = Readiness::READABLE | Readiness::WRITABLE;
            assert_eq!(polled(&context, &reader, both), Readiness::READABLE);
            let writer = Arc::new(writer);
            assert_eq!(polled(&context, &writer, Readiness::WRITABLE), Readiness::WRITABLE);
            assert_eq!(polled(&context, &file(), both), both, "regular files always are");
            drop(writer);
            let end = polled(&context, &reader, Readiness::READABLE);
            assert!(end.contains(Readiness::READABLE | Readiness::HANG_UP), "{end:?}");
            // Reported without being asked for.
            assert_eq!(polled(&context, &reader, Readiness::default()), Readiness::HANG_UP);
        }
    }

    #[test]
    fn memory_and_descriptors_of_others_are_used_and_left_alone() {
        for context in pools() {
            let file = file();
            let mut memory = [0; 64];
            // SAFETY: 1. the file is dropped after the request.
            let fd = || unsafe { FileRef::borrowed(file.as_fd()) };
            // SAFETY: 1. an array. 2. it is looked at when the event has been dropped.
            let buf = unsafe { BufferMut::from_raw_parts(memory.as_mut_ptr().add(1), 62) };
            let event = run(&context, Request::read(fd(), buf, 0));
            assert_eq!(event.result.as_ref().unwrap(), &62);
            drop(event);
            assert!(memory[1..63].iter().all(|byte| *byte == 5) && memory[0] == 0 && memory[63] == 0);

            memory.fill(9);
            // SAFETY: 1. an array. 2. nobody writes it.
            let buf = || unsafe { Buffer::from_raw_parts(memory.as_ptr(), 64) };
            assert_eq!(run(&context, Request::writev(fd(), [buf(), buf()], 4096)).result.unwrap(), 128);
            assert_eq!(run(&context, Request::fdatasync(fd())).result.unwrap(), 0);
            let polled = run(&context, Request::poll(fd(), Readiness::WRITABLE)).result.unwrap();
            assert_eq!(Readiness::from_result(polled), Readiness::WRITABLE);
            // Still open, and ours.
            assert_eq!(file.metadata().unwrap().len(), 4096 + 128);
        }
    }

    #[test]
    fn files_come_back_as_what_they_were() {
        let shared = file();
        let file = FileRef::from(Arc::clone(&shared));
        assert_eq!(file.as_fd().as_raw_fd(), shared.as_raw_fd());
        assert!(Arc::ptr_eq(&file.into_shared().unwrap(), &shared));
        let own = FileRef::from(OwnedFd::from(tempfile::tempfile().unwrap()));
        assert_eq!(own.with_file(|file| file.metadata().unwrap().len()), 0);
        assert_eq!(Arc::strong_count(&own.into_shared().unwrap()), 1);
        // SAFETY: 1. the file stays open. It is asked for its number alone.
        let borrowed = unsafe { FileRef::borrowed(shared.as_fd()) };
        let borrowed = borrowed.into_shared().unwrap_err();
        assert_eq!(borrowed.as_fd().as_raw_fd(), shared.as_raw_fd());
        for number in [0, 1, 1 << 20, (1 << 30) - 1, -2] {
            // SAFETY: its number alone is looked at.
            let file = unsafe { FileRef::borrowed(BorrowedFd::borrow_raw(number)) };
            assert_eq!(file.as_fd().as_raw_fd(), number);
        }
        assert!(shared.metadata().is_ok(), "nobody has closed it");
    }

    #[test]
    fn own_files_are_closed_with_their_requests() {
        for context in pools() {
            let (reader, writer) = pipe();
            let event = run(&context, Request::write(writer, b"x".to_vec(), 0));
            assert_eq!(polled(&context, &reader, Readiness::READABLE), Readiness::READABLE);
            drop(event);
            assert!(polled(&context, &reader, Readiness::READABLE).contains(Readiness::HANG_UP));
        }
    }

    #[test]
    fn descriptors_that_are_none_are_errors() {
        for context in pools() {
            // No process has so many descriptors.
            let none = (1 << 30) - 1;
            // SAFETY: a number that can be no descriptor leads to none of anybody else's.
            let fd = || unsafe { FileRef::borrowed(BorrowedFd::borrow_raw(none)) };
            for request in [
                Request::read(fd(), vec![0; 1], 0),
                Request::write(fd(), vec![0; 1], 0),
                Request::fsync(fd()),
                Request::poll(fd(), Readiness::READABLE),
            ] {
                assert_eq!(run(&context, request).result.unwrap_err().raw_os_error(), Some(libc::EBADF));
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn synchronous_writes_are_on_the_device() {
        pools().for_each(|context| support::requests::writes_are_on_the_device_when_they_should_be(&context));
    }

    #[test]
    fn synchronous_writes_to_what_has_no_device_are_writes() {
        for context in pools() {
            let (mut reader, writer) = io::pipe().unwrap();
            let event =
                run(&context, Request::write_dsync(std::os::fd::OwnedFd::from(writer), b"ab".to_vec(), 9));
            assert_eq!(event.result.unwrap(), 2);
            drop(event.request);
            assert_eq!(io::read_to_string(&mut reader).unwrap(), "ab");
            let closed = File::open("/dev/null").unwrap();
            assert!(run(&context, Request::write_dsync(closed, b"ab".to_vec(), 0)).result.is_err());
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn aligned_buffers_go_past_the_page_cache() {
        use ioctx::aio::AlignedBuffer;
        use std::os::unix::fs::OpenOptionsExt;
        const BLOCK: usize = 4096;
        let path = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap().into_temp_path();
        let opened =
            File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).map(Arc::new);
        let file = match opened {
            Ok(file) => file,
            Err(error) => return support::skip(format_args!("O_DIRECT: {error}")),
        };
        for context in pools() {
            let mut buffer = AlignedBuffer::new(4 * BLOCK, BLOCK).unwrap();
            buffer.chunks_mut(BLOCK).zip(1..).for_each(|(block, byte)| block.fill(byte));
            let place = buffer.as_ptr();
            let event = run(&context, Request::write(Arc::clone(&file), buffer, 0));
            match event.result {
                Ok(written) => assert_eq!(written, 4 * BLOCK),
                Err(error) => return support::skip(format_args!("O_DIRECT: {error}")),
            }
            let mut buffer = event.request.into_buffer::<AlignedBuffer>().unwrap();
            buffer.fill(0);
            let event = run(&context, Request::read(Arc::clone(&file), buffer, BLOCK as u64));
            assert_eq!(event.result.unwrap(), 3 * BLOCK);
            let buffer = event.request.into_buffer::<AlignedBuffer>().unwrap();
            assert_eq!(buffer.as_ptr(), place);
            let firsts: Vec<_> = buffer.chunks(BLOCK).map(|block| block[0]).collect();
            assert_eq!(firsts, [2, 3, 4, 0]);
        }
    }
}
