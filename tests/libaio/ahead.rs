//! Reads that follow each other in one call, which are tried together.

use super::api::*;
use super::direct::{BLOCK, BLOCKS, Block, Reads, files};
use super::life::{pipe, take};
#[cfg(target_arch = "x86_64")]
use super::support::seccomp::Refusal;
use super::support::{self, process};
use ioctx::capi::{FLAG_IOPRIO, FLAG_RESFD, Handle, Iocb, command};
use std::ffi::c_long;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::{ptr, thread};

/// How often a thread has to have use for a ring before it gets one, and more.
const ENOUGH: usize = 20;

/// `n` reads of a file in the page cache.
fn reads(file: &File, n: usize) -> Reads {
    Reads::new(n, |_| file.as_raw_fd(), |i| (i * 7) as u64 % BLOCKS)
}

fn read_all(context: Handle, file: &File, n: usize) {
    let mut reads = reads(file, n);
    assert_eq!(reads.submit(context), n as c_long);
    reads.check_all(&reap::<Ours>(context, n).unwrap());
}

/// Has this thread get a ring.
fn warm_up(context: Handle, file: &File) {
    (0..ENOUGH).for_each(|_| read_all(context, file, 16));
}

/// How many system calls of this thread's have read something.
fn reading_calls() -> u64 {
    let io = std::fs::read_to_string("/proc/thread-self/io").unwrap_or_default();
    io.lines().find_map(|line| line.strip_prefix("syscr: ")).map_or(0, |calls| calls.parse().unwrap())
}

/// What this process has of rings.
fn rings_mapped() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().matches("[io_uring]").count()
}

/// Whether there are rings for those who ask.
fn are_rings() -> bool {
    let io_uring = |params: &mut [u64; 15]| {
        // SAFETY: as large as it is to be.
        unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params) }
    };
    match io_uring(&mut [0; 15]) {
        -1 => {
            support::skip("io_uring cannot be had");
            false
        }
        fd => {
            // SAFETY: a new descriptor.
            drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
            true
        }
    }
}

#[test]
fn what_is_cached_is_read_by_fewer_calls_than_there_are_reads() {
    let Some((_, cached)) = files() else { return };
    let context = context::<Ours>(64);
    warm_up(context, &cached);
    let before = reading_calls();
    (0..10).for_each(|_| read_all(context, &cached, 32));
    let calls = reading_calls() - before;
    if before > 0 && are_rings() {
        assert!(calls < 100, "{calls} calls for 320 reads");
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn every_read_is_its_own_whatever_is_around_it() {
    fn answers<A: Api>() -> Vec<Vec<(u64, i64, u64)>> {
        let Some((direct, mut cached)) = files() else { return Vec::new() };
        let context = context::<A>(64);
        let write_only =
            File::options().write(true).open(format!("/proc/self/fd/{}", cached.as_raw_fd())).unwrap();
        let directory = File::open(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let zeros = File::open("/dev/zero").unwrap();
        // SAFETY: a new descriptor.
        let eventfd = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
        cached.write_all(b"the end").unwrap();
        cached.rewind().unwrap();
        let end = (BLOCKS * BLOCK as u64) as i64;
        let file = cached.as_raw_fd();
        let mut seen = Vec::new();
        for round in 0..3 * ENOUGH {
            let mut reads = reads(&cached, 24);
            if round > ENOUGH {
                let special = |place: usize| place.is_multiple_of(1 + round % 5);
                for (i, read) in reads.requests.iter_mut().enumerate().filter(|(i, _)| special(*i)) {
                    match (i + round) % 16 {
                        0 => read.offset = end,
                        1 => read.offset = end + 7,
                        2 => read.offset = end - 100,
                        3 => read.fildes = direct.as_raw_fd(),
                        4 => (read.flags, read.resfd) = (FLAG_RESFD, eventfd.as_raw_fd()),
                        5 => read.buf = 8,
                        6 => read.nbytes = 0,
                        7 => (read.nbytes, read.offset) = (1, 13 * BLOCK as i64),
                        8 => read.fildes = zeros.as_raw_fd(),
                        9 => read.rw_flags = libc::RWF_HIPRI,
                        10 => *read = Iocb { data: read.data, ..request(command::FDSYNC, file, 0) },
                        11 => *read = Iocb { data: read.data, buf: 1, ..request(command::POLL, file, 0) },
                        12 if round % 7 == 0 => read.fildes = -1,
                        13 if round % 7 == 1 => read.fildes = directory.as_raw_fd(),
                        14 if round % 7 == 2 => read.fildes = write_only.as_raw_fd(),
                        15 if round % 7 == 3 => read.offset = -1,
                        14 if round % 7 == 4 => read.rw_flags = 1 << 20,
                        13 if round % 7 == 5 => (read.flags, read.reqprio) = (FLAG_IOPRIO, 1),
                        _ => read.opcode = command::PREAD,
                    }
                }
            }
            let all: Vec<_> = reads.requests.iter_mut().map(ptr::from_mut).collect();
            let mut done = 0;
            let mut events = Vec::new();
            // What is refused ends a call.
            while done < all.len() {
                let answer = A::submit(context, (all.len() - done) as c_long, all[done..].as_ptr());
                if answer > 0 {
                    events.extend(reap::<A>(context, answer as usize).unwrap());
                }
                seen.push(vec![(done as u64, answer, 0)]);
                done += answer.max(1) as usize;
            }
            let first = |data: u64| reads.blocks[data as usize].first();
            let mut events: Vec<_> =
                events.iter().map(|event| (event.data, event.res, first(event.data))).collect();
            events.sort_unstable();
            seen.push(events);
        }
        assert_eq!(A::destroy(context), 0);
        seen
    }
    let mut probe = ptr::null_mut();
    if Kernel::setup(1, &mut probe) != 0 {
        return support::skip("the kernel gives no contexts");
    }
    Kernel::destroy(probe);
    for (number, (ours, kernel)) in answers::<Ours>().iter().zip(&answers::<Kernel>()).enumerate() {
        assert_eq!(ours, kernel, "{number}");
    }
}

#[test]
fn what_is_not_cached_is_read_all_the_same() {
    let Some((_, cached)) = files() else { return };
    let context = context::<Ours>(64);
    warm_up(context, &cached);
    for round in 0..20 {
        let (from, len) = (round % 4 * 16 * BLOCK, 16 * BLOCK);
        // SAFETY: has no conditions.
        unsafe {
            libc::posix_fadvise(cached.as_raw_fd(), from as i64, len as i64, libc::POSIX_FADV_DONTNEED)
        };
        read_all(context, &cached, 48);
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn a_number_that_was_a_file_s_is_a_pipe_s_and_nothing_of_that_is_lost() {
    let Some((_, cached)) = files() else { return };
    let context = context::<Ours>(16);
    let number = cached.try_clone().unwrap();
    warm_up(context, &number);
    let (reader, mut writer) = pipe();
    writer.write_all(b"0123456789abcdef").unwrap();
    // SAFETY: two descriptors of ours; what the first was is closed by that.
    assert!(unsafe { libc::dup2(reader.as_raw_fd(), number.as_raw_fd()) } >= 0);
    // The last is not filled.
    let mut bytes = [[0_u8; 3]; 6];
    let mut requests: Vec<_> = bytes
        .iter_mut()
        .enumerate()
        .map(|(i, byte)| Iocb { data: i as u64, ..transfer(command::PREAD, number.as_raw_fd(), byte, 5) })
        .collect();
    let all: Vec<_> = requests.iter_mut().map(ptr::from_mut).collect();
    assert_eq!(Ours::submit(context, 6, all.as_ptr()), 6);
    let mut events = reap::<Ours>(context, 6).unwrap();
    events.sort_unstable_by_key(|event| event.data);
    assert_eq!(events.iter().map(|event| event.res).collect::<Vec<_>>(), [3, 3, 3, 3, 3, 1]);
    assert_eq!(&bytes.as_flattened()[..16], b"0123456789abcdef");
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn no_more_is_read_than_there_is_room_for() {
    let Some((_, cached)) = files() else { return };
    let large = context::<Ours>(64);
    warm_up(large, &cached);
    let context = context::<Ours>(1);
    let mut nothing = request(command::NOOP, -1, 0);
    let filling = vec![&raw mut nothing; 1000];
    assert!(Ours::submit(context, 1000, filling.as_ptr()) > 10);
    assert!((0..10).all(|_| take(context).is_some()));
    let mut reads = reads(&cached, 40);
    assert_eq!(reads.submit(context), 10);
    let touched = |block: &&Block| block.first() != u64::MAX;
    assert_eq!(reads.blocks.iter().filter(touched).count(), 10);
    for handle in [context, large] {
        assert_eq!(Ours::destroy(handle), 0);
    }
}

#[test]
fn a_child_has_a_ring_of_its_own() {
    let Some((_, cached)) = files() else { return };
    let context = context::<Ours>(64);
    warm_up(context, &cached);
    let mut reads: Vec<_> = (0..ENOUGH).map(|_| reads(&cached, 16)).collect();
    let rings = are_rings();
    // SAFETY: the child does a few calls, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let mut own = ptr::null_mut();
        let all_well = Ours::setup(64, &mut own) == 0
            && reads.iter_mut().all(|reads| {
                reads.submit(own) == 16
                    && reap::<Ours>(own, 16).is_ok_and(|events| events.len() == 16)
                    && reads.blocks.iter().zip(&reads.numbers).all(|(block, number)| block.first() == *number)
            })
            && (!rings || rings_mapped() > 0)
            && Ours::destroy(own) == 0;
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!all_well)) };
    }
    let mut status = -1;
    // SAFETY: our child.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0);
    warm_up(context, &cached);
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn threads_leave_nothing_behind() {
    if process::role().is_none() {
        // Alone: others have rings, too.
        let again = process::again("ahead::threads_leave_nothing_behind", "alone");
        return process::run(again).unwrap();
    }
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let Some((_, cached)) = files() else { return };
    let context = context::<Ours>(64);
    let address = context.expose_provenance();
    let (before, descriptors) = (rings_mapped(), open());
    for _ in 0..10 {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                warm_up(ptr::with_exposed_provenance_mut(address), &cached);
                rings_mapped()
            });
            assert!(thread.join().unwrap() > before || !are_rings());
        });
    }
    assert_eq!((rings_mapped(), open()), (before, descriptors));
    assert_eq!(Ours::destroy(context), 0);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn where_rings_are_forbidden_reads_are_tried_one_by_one() {
    let Some((_, cached)) = files() else { return };
    for call in [libc::SYS_io_uring_setup, libc::SYS_io_uring_register, libc::SYS_io_uring_enter] {
        // Before the thread has its ring, or after.
        for late in [false, true] {
            thread::scope(|scope| {
                let refused = scope.spawn(|| {
                    let context = context::<Ours>(64);
                    if late {
                        warm_up(context, &cached);
                    }
                    let filter = Refusal::of(call, libc::EPERM).filter();
                    // Of this thread alone.
                    if let Err(error) = Refusal::install(&filter) {
                        return support::skip(format!("seccomp: {error}"));
                    }
                    warm_up(context, &cached);
                    let mut content = [0; BLOCK];
                    cached.read_exact_at(&mut content, 0).unwrap();
                    assert_eq!(Ours::destroy(context), 0);
                });
                refused.join().unwrap();
            });
        }
    }
}
