//! `Uring` with files and buffers that the kernel has looked up beforehand.
#![cfg(ioctx_linux)]

mod support;

use ioctx::aio::{Context, Request};
use ioctx::backend::{RegisteredBuffer, Uring};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use support::requests::run as one;
use support::{never_hang, skip};

const BLOCK: usize = 4096;

/// One whose requests all go through rings; `None` where there is no `io_uring`.
fn uring(capacity: u32) -> Option<Uring> {
    never_hang();
    Uring::new(capacity).map(|uring| uring.inline_cached(false)).map_err(skip).ok()
}

fn file() -> Arc<File> {
    Arc::new(tempfile::tempfile().unwrap())
}

/// Those this thread may be on.
fn cpus() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

fn pin(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).unwrap();
}

/// On one CPU, whichever that is.
fn stay() {
    pin(cpus()[0]);
}

fn refused(with: Result<(), std::io::Error>) -> Option<Errno> {
    with.err().and_then(|error| Errno::from_io_error(&error))
}

#[test]
fn registered_files_and_buffers_are_read_and_written() {
    let Some(mut uring) = uring(64) else { return };
    let (first, second, other) = (file(), file(), file());
    uring.register_files([first.clone(), second.clone()]).unwrap();
    uring.register_buffers(8, BLOCK).unwrap();
    let context = Context::new(64, uring).unwrap();
    let cpus = cpus();
    // Each has a ring of its own.
    for (n, cpu) in cpus.iter().enumerate().take(4) {
        thread::scope(|scope| {
            scope.spawn(|| {
                pin(*cpu);
                for (file, mark) in [(&first, 1), (&second, 2), (&other, 3)] {
                    let offset = (n * BLOCK) as u64;
                    let mut buffer = context.backend().buffer().unwrap();
                    buffer.fill(mark);
                    let event = one(&context, Request::write(file.clone(), buffer, offset));
                    assert_eq!(event.result.unwrap(), BLOCK);
                    let mut buffer: RegisteredBuffer = event.request.into_buffer().unwrap();
                    buffer.fill(0);
                    let event = one(&context, Request::read(file.clone(), buffer, offset));
                    assert_eq!(event.result.unwrap(), BLOCK);
                    let buffer: RegisteredBuffer = event.request.into_buffer().unwrap();
                    assert!(buffer.iter().all(|byte| *byte == mark));
                    // A part of a file with memory of its own, several, a sync, and a write that waits for the device.
                    let event = one(&context, Request::readv(file.clone(), [vec![0; 3], vec![0; 5]], offset));
                    assert_eq!(event.result.unwrap(), 8);
                    assert_eq!(event.request.into_buffers::<Vec<u8>>().unwrap()[1], [mark; 5]);
                    let event = one(&context, Request::write_dsync(file.clone(), buffer, offset));
                    assert_eq!(event.result.unwrap(), BLOCK);
                    assert_eq!(one(&context, Request::fdatasync(file.clone())).result.unwrap(), 0);
                }
            });
        });
    }
    let mut all = vec![0; cpus.len().min(4) * BLOCK];
    second.read_exact_at(&mut all, 0).unwrap();
    assert!(all.iter().all(|byte| *byte == 2));
}

#[test]
fn buffers_are_there_once_and_come_back() {
    let Some(mut uring) = uring(8) else { return };
    assert!(uring.buffer().is_none(), "none was made");
    uring.register_buffers(3, BLOCK).unwrap();
    let context = Context::new(8, uring).unwrap();
    let taken: Vec<_> = (0..3).map(|_| context.backend().buffer().unwrap()).collect();
    let mut places: Vec<_> = taken.iter().map(|buffer| buffer.as_ptr().addr()).collect();
    places.sort_unstable();
    assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= BLOCK) && places[0] % BLOCK == 0);
    assert!(context.backend().buffer().is_none());
    for buffer in taken {
        // It is dropped with its request.
        one(&context, Request::write(File::create("/dev/null").unwrap(), buffer, 0));
    }
    let kept = context.backend().buffer().unwrap();
    let more: Vec<_> = (0..3).map_while(|_| context.backend().buffer()).collect();
    assert_eq!(more.len(), 2);
    drop((more, context));
    assert_eq!(kept.len(), BLOCK);
    // The memory goes with the last of them.
    drop(kept);
}

#[test]
fn the_kernel_goes_by_what_is_registered() {
    // With one ring, which has looked them up before.
    stay();
    let Some(mut uring) = uring(8) else { return };
    let (registered, instead) = (file(), file());
    registered.write_all_at(&[1; BLOCK], 0).unwrap();
    instead.write_all_at(&[2; BLOCK], 0).unwrap();
    uring.register_files([registered.clone()]).unwrap();
    uring.register_buffers(512, BLOCK).unwrap();
    let context = Context::new(8, uring).unwrap();
    // Against all rules another file gets the number: who goes by that reads it.
    let kept = registered.try_clone().unwrap();
    // SAFETY: both are open; the number belongs to a file of this test alone.
    assert!(unsafe { libc::dup2(instead.as_raw_fd(), registered.as_raw_fd()) } >= 0);
    let event = one(&context, Request::read(registered.clone(), vec![0; BLOCK], 0));
    assert!(
        event.request.into_buffer::<Vec<u8>>().unwrap().iter().all(|byte| *byte == 1),
        "of the other file"
    );
    // And other memory gets the address of a buffer: who goes by that fills it.
    let mut buffer = context.backend().buffer().unwrap();
    buffer.fill(9);
    let (place, flags) = (buffer.as_mut_ptr(), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED);
    // SAFETY: a whole page, which is the buffer's.
    let mapped = unsafe { libc::mmap(place.cast(), BLOCK, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    assert_eq!(mapped, place.cast());
    let event = one(&context, Request::read(kept, buffer, 0));
    assert_eq!(event.result.unwrap(), BLOCK);
    let buffer: RegisteredBuffer = event.request.into_buffer().unwrap();
    assert!(buffer.iter().all(|byte| *byte == 0), "the kernel has read into the page that it knows");
}

#[test]
fn what_is_refused_changes_nothing() {
    let Some(mut uring) = uring(8) else { return };
    assert_eq!(refused(uring.register_buffers(0, BLOCK)), Some(Errno::INVAL));
    assert_eq!(refused(uring.register_buffers(8, 0)), Some(Errno::INVAL));
    assert_eq!(refused(uring.register_buffers(u32::MAX, usize::MAX)), Some(Errno::INVAL));
    assert_eq!(refused(uring.register_buffers(3, 1 << 30)), Some(Errno::INVAL));
    assert!(refused(uring.register_files([])).is_some());
    let file = file();
    uring.register_files([file.clone()]).unwrap();
    uring.register_buffers(1, 100).unwrap();
    assert_eq!(refused(uring.register_files([file.clone()])), Some(Errno::BUSY));
    assert_eq!(refused(uring.register_buffers(1, BLOCK)), Some(Errno::BUSY));
    let context = Context::new(8, uring).unwrap();
    let buffer = context.backend().buffer().unwrap();
    assert_eq!(buffer.len(), 100);
    assert_eq!(one(&context, Request::write(file, buffer, 0)).result.unwrap(), 100);
}
