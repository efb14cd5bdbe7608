//! `Kernel`: files that are direct and files that are not, many threads, requests that do not end by themselves.
#![cfg(ioctx_linux)]

mod cancel;
mod harvest;
mod operations;
#[path = "../support/mod.rs"]
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
use support::driven::{CANCELED, code, is_ready, pipe, read};
use support::requests::run as one;
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

/// Never end by themselves.
fn endless_read(pipe: &File) -> Request {
    Request::read(pipe.try_clone().unwrap(), vec![0; 8], 0)
}

fn endless_poll(pipe: &File) -> Request {
    Request::poll(pipe.try_clone().unwrap(), Readiness::READABLE)
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
    // It has an event in the ring that the child has, too.
    let unread = self::context(8, false).unwrap();
    unread.submit(Request::write(tempfile::tempfile().unwrap(), vec![0; 5], 0)).unwrap();
    // SAFETY: the child drops a context that is idle, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let none = [&unread, &idle].map(|context| context.get_events(0, 1, None, &mut Vec::new()));
        drop(idle);
        // SAFETY: has no conditions.
        unsafe { libc::_exit(i32::from(none != [Ok(0); 2])) };
    }
    let mut status = -1;
    // SAFETY: the status is ours.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(read(&unread, 1)[0].result.as_ref().unwrap(), &5);
    writer.write_all(b"parent").unwrap();
    assert_eq!(read(&context, 1)[0].result.as_ref().unwrap(), &6);
    let file = tempfile::tempfile().unwrap();
    assert_eq!(one(&idle, Request::write(file, vec![0; 3], 0)).result.unwrap(), 3);
}
