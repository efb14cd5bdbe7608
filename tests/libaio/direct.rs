//! Direct I/O: by the kernel, by the pool where the kernel has no room, and mixed with what neither has to do.

use super::api::*;
use super::life::{pipe, take};
use super::support::{self, seccomp};
use ioctx::capi::{FLAG_RESFD, Handle, Iocb, command};
use ioctx::ring::Event;
use std::ffi::c_long;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{ptr, thread};

pub const BLOCK: usize = 4096;
/// Of the file.
pub const BLOCKS: u64 = 64;
/// Ends this process, or this child, if what should wake somebody does not.
struct Watchdog;

impl Watchdog {
    fn new() -> Self {
        // SAFETY: has no conditions.
        unsafe { libc::alarm(60) };
        Self
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::alarm(0) };
    }
}

const ZERO: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };

/// Blocks that are full of their number, aligned.
#[repr(align(4096))]
#[derive(Clone)]
pub struct Block([u64; BLOCK / 8]);

impl Block {
    fn of(number: u64) -> Self {
        Self([number; BLOCK / 8])
    }

    pub fn first(&self) -> u64 {
        self.0[0]
    }

    fn bytes(&mut self) -> &mut [u8] {
        let start = self.0.as_mut_ptr().cast();
        // SAFETY: as many bytes as there are.
        unsafe { std::slice::from_raw_parts_mut(start, BLOCK) }
    }
}

/// The same file, directly and through the page cache. `None` where there is no direct I/O.
pub fn files() -> Option<(File, File)> {
    let path = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap().into_temp_path();
    let mut cached = File::options().read(true).write(true).open(&path).unwrap();
    (0..BLOCKS).for_each(|n| cached.write_all(Block::of(n).bytes()).unwrap());
    cached.sync_all().unwrap();
    match File::options().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path) {
        Ok(direct) => Some((direct, cached)),
        Err(error) => {
            println!("SKIPPED: O_DIRECT: {error}");
            None
        }
    }
}

/// Requests to read blocks, and where to.
pub struct Reads {
    pub blocks: Vec<Block>,
    pub requests: Vec<Iocb>,
    pub numbers: Vec<u64>,
}

impl Reads {
    /// Of the block `number(i)` from `fd(i)`; the `i`th has the data `i`.
    pub fn new(n: usize, fd: impl Fn(usize) -> i32, number: impl Fn(usize) -> u64) -> Self {
        let mut blocks = vec![Block::of(u64::MAX); n];
        let numbers: Vec<_> = (0..n).map(number).collect();
        let requests = blocks.iter_mut().zip(&numbers).enumerate().map(|(i, (block, number))| {
            let offset = (*number * BLOCK as u64) as i64;
            Iocb { data: i as u64, ..transfer(command::PREAD, fd(i), block.bytes(), offset) }
        });
        Self { requests: requests.collect(), blocks, numbers }
    }

    pub fn submit(&mut self, context: Handle) -> c_long {
        let all: Vec<_> = self.requests.iter_mut().map(ptr::from_mut).collect();
        Ours::submit(context, all.len() as c_long, all.as_ptr())
    }

    fn check(&self, event: &Event) {
        let i = event.data as usize;
        assert_eq!(event.res, BLOCK as i64, "{event:?}");
        assert_eq!(event.obj, (&raw const self.requests[i]).addr() as u64);
        assert!(self.blocks[i].0 == [self.numbers[i]; BLOCK / 8], "not block {}", self.numbers[i]);
    }

    /// Checks that these are the events of all, once each.
    pub fn check_all(&self, events: &[Event]) {
        let mut seen = vec![0; self.requests.len()];
        for event in events {
            self.check(event);
            seen[event.data as usize] += 1;
        }
        assert!(seen.iter().all(|times| *times == 1), "{seen:?}");
    }
}

/// What `take` says before it is too late.
fn take_in_time(context: Handle) -> Event {
    let begun = Instant::now();
    loop {
        match take(context) {
            Some(event) => return event,
            None => assert!(begun.elapsed() < Duration::from_secs(20), "no event in the ring"),
        }
        thread::yield_now();
    }
}

#[test]
fn every_block_is_the_one_asked_for_at_any_depth() {
    let Some((direct, cached)) = files() else { return };
    let (direct, cached) = (direct.as_raw_fd(), cached.as_raw_fd());
    let context = context::<Ours>(64);
    for round in 0..60 {
        let depth = [1, 2, 16, 64][round % 4];
        // All of them direct, or with others in between.
        let fd = |i: usize| if round % 3 == 0 && i % 5 == 2 { cached } else { direct };
        let mut reads = Reads::new(depth, fd, |i| (round * 7 + i * 3) as u64 % BLOCKS);
        assert_eq!(reads.submit(context), depth as c_long);
        let mut events = Vec::new();
        while events.len() < depth {
            // One at least, or all at once.
            let min = if round % 2 == 0 { 1 } else { depth - events.len() };
            events.extend(reap::<Ours>(context, min).unwrap());
        }
        reads.check_all(&events);
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn what_is_written_directly_is_read_through_the_cache() {
    let Some((direct, mut cached)) = files() else { return };
    let context = context::<Ours>(8);
    let mut blocks: Vec<_> = (0..8).map(|n| Block::of(n + 1000)).collect();
    let mut writes: Vec<_> = (0..8)
        .map(|i| transfer(command::PWRITE, direct.as_raw_fd(), blocks[i].bytes(), (i * BLOCK) as i64))
        .collect();
    let all: Vec<_> = writes.iter_mut().map(ptr::from_mut).collect();
    assert_eq!(Ours::submit(context, 8, all.as_ptr()), 8);
    assert!(reap::<Ours>(context, 8).unwrap().iter().all(|event| event.res == BLOCK as i64));
    let mut bytes = vec![0; 8 * BLOCK];
    std::io::Seek::rewind(&mut cached).unwrap();
    cached.read_exact(&mut bytes).unwrap();
    assert!(bytes.chunks(BLOCK).zip(&mut blocks).all(|(chunk, block)| chunk == block.bytes()));
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn the_first_that_is_refused_ends_the_call_and_the_kernel_says_why() {
    let Some((direct, _)) = files() else { return };
    fn both<A: Api>(direct: i32) -> Vec<c_long> {
        let context = context::<A>(16);
        let mut answers = Vec::new();
        for (bad, wrong) in [(0, 0), (2, 0), (0, 1), (2, 1), (0, 2), (2, 2), (0, 3)] {
            let mut reads = Reads::new(4, |_| direct, |i| i as u64);
            let request = &mut reads.requests[bad];
            match wrong {
                0 => request.fildes = 1 << 20,
                1 => request.rw_flags = 0x4000_0000,
                2 => request.offset = -1,
                _ => request.nbytes = u64::MAX,
            }
            let all: Vec<_> = reads.requests.iter_mut().map(ptr::from_mut).collect();
            let done = A::submit(context, 4, all.as_ptr());
            answers.push(done);
            answers.push(reap::<A>(context, done.max(0) as usize).unwrap().len() as c_long);
        }
        // What only the transfer finds out.
        let mut block = Block::of(1);
        let mut askew = transfer(command::PREAD, direct, &mut block.bytes()[..100], 3);
        answers.push(submit_one::<A>(context, &mut askew));
        answers.push(reap::<A>(context, 1).unwrap()[0].res);
        answers.push(A::cancel(context, &mut askew, &mut Event::default()));
        answers.push(A::destroy(context));
        answers
    }
    assert_eq!(both::<Ours>(direct.as_raw_fd()), both::<Kernel>(direct.as_raw_fd()));
}

#[test]
fn who_never_calls_finds_all_events_in_the_ring() {
    let Some((direct, cached)) = files() else { return };
    let (direct, cached) = (direct.as_raw_fd(), cached.as_raw_fd());
    let context = context::<Ours>(16);
    for round in 0..100 {
        let depth = [1, 8][round % 2];
        let fd = |i| if i == 5 { cached } else { direct };
        let mut reads = Reads::new(depth, fd, |i| (round + i) as u64 % BLOCKS);
        assert_eq!(reads.submit(context), depth as c_long);
        let events: Vec<_> = (0..depth).map(|_| take_in_time(context)).collect();
        reads.check_all(&events);
        // Some call in between, and go back to reading.
        if round % 40 == 39 {
            let mut reads = Reads::new(depth, fd, |i| i as u64);
            assert_eq!(reads.submit(context), depth as c_long);
            reads.check_all(&reap::<Ours>(context, depth).unwrap());
        }
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn who_waits_for_the_kernel_is_woken_by_others_as_well() {
    let Some((direct, _)) = files() else { return };
    let _watchdog = Watchdog::new();
    let context = context::<Ours>(64);
    let address = context.expose_provenance();
    // From here on, sleepers sleep in the kernel.
    let mut reads = Reads::new(1, |_| direct.as_raw_fd(), |_| 9);
    assert_eq!(reads.submit(context), 1);
    reads.check_all(&reap::<Ours>(context, 1).unwrap());
    for round in 0..40 {
        let waiters = 1 + round % 3;
        let each = [1, 5, 20][round % 2 + round % 3 / 2];
        let all = waiters * each;
        let got = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..waiters {
                scope.spawn(|| {
                    let context = ptr::with_exposed_provenance_mut(address);
                    let mut events = [Event::default(); 64];
                    let answer = Ours::get_events(
                        context,
                        each as c_long,
                        each as c_long,
                        events.as_mut_ptr(),
                        ptr::null(),
                    );
                    assert_eq!(answer, each as c_long, "not woken");
                    got.fetch_add(each, Relaxed);
                });
            }
            if round % 4 != 0 {
                thread::sleep(Duration::from_millis(2));
            }
            // Events of all origins: at once, from the pool, from the kernel.
            let mut nothing = request(command::NOOP, -1, 1);
            let mut sync = request(command::FDSYNC, direct.as_raw_fd(), 2);
            let mut read = Reads::new(1, |_| direct.as_raw_fd(), |_| 3);
            let mut kept = Vec::new();
            for i in 0..all {
                match (i + round) % 3 {
                    0 => assert_eq!(submit_one::<Ours>(context, &mut nothing), 1),
                    1 => assert_eq!(submit_one::<Ours>(context, &mut sync), 1),
                    _ => {
                        assert_eq!(read.submit(context), 1);
                        kept.push(std::mem::replace(&mut read, Reads::new(1, |_| direct.as_raw_fd(), |_| 3)));
                    }
                }
            }
            while got.load(Relaxed) < all {
                thread::sleep(Duration::from_millis(1));
            }
        });
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn destroying_waits_for_the_kernel_and_the_next_context_is_as_good_as_new() {
    let Some((direct, _)) = files() else { return };
    for round in 0..30 {
        // Of a size that no other test has, whose context might else be here when the waiter comes late.
        let context = context::<Ours>(3000);
        let address = context.expose_provenance();
        let mut reads = Reads::new(150 + round * 2, |_| direct.as_raw_fd(), |i| i as u64 % BLOCKS);
        assert_eq!(reads.submit(context), reads.requests.len() as c_long);
        let waiter = (round % 3 == 0).then(|| {
            thread::spawn(move || {
                let context = ptr::with_exposed_provenance_mut(address);
                let mut events = vec![Event::default(); 3000];
                // More than will ever come.
                Ours::get_events(context, 3000, 3000, events.as_mut_ptr(), ptr::null())
            })
        });
        if round % 2 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(Ours::destroy(context), 0);
        assert!(reads.blocks.iter().zip(&reads.numbers).all(|(block, number)| block.0[0] == *number));
        if let Some(waiter) = waiter {
            let answer = waiter.join().unwrap();
            assert!(answer == -c_long::from(libc::EINVAL) || (1..3000).contains(&answer), "{answer}");
        }
    }
}

/// Fills a context with direct reads, again and again, and has all of its room each time.
fn fill(direct: &File) {
    let context = context::<Ours>(8);
    // SAFETY: a word of the header.
    let room = unsafe { context.cast::<u32>().add(1).read() } as usize - 1;
    for _ in 0..4 {
        let mut reads = Reads::new(room + 1, |_| direct.as_raw_fd(), |i| i as u64 % BLOCKS);
        assert_eq!(reads.submit(context), room as c_long);
        assert_eq!(submit_one::<Ours>(context, &mut reads.requests[room]), -c_long::from(libc::EAGAIN));
        reads.requests.pop();
        let mut events = Vec::new();
        while events.len() < room {
            events.extend(reap::<Ours>(context, (room - events.len()).min(50)).unwrap());
        }
        reads.check_all(&events);
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn what_the_kernel_has_no_room_for_is_done_all_the_same() {
    let Some((direct, _)) = files() else { return };
    fill(&direct);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn where_the_kernel_gives_no_context_the_pool_does_it() {
    let Some((direct, _)) = files() else { return };
    for errno in [libc::EAGAIN, libc::ENOSYS, libc::EPERM] {
        let direct = direct.try_clone().unwrap();
        let refused = thread::spawn(move || {
            let filter = seccomp::Refusal::of(libc::SYS_io_setup, errno).filter();
            // Of this thread alone.
            if let Err(error) = seccomp::Refusal::install(&filter) {
                println!("SKIPPED: seccomp: {error}");
                return;
            }
            assert_eq!(Kernel::setup(1, &mut ptr::null_mut()), -c_long::from(errno));
            fill(&direct);
        });
        refused.join().unwrap();
    }
}

#[test]
fn an_eventfd_is_signalled_when_the_event_is_in_the_ring() {
    let Some((direct, _)) = files() else { return };
    let context = context::<Ours>(8);
    // SAFETY: a new descriptor.
    let mut eventfd = unsafe { File::from(OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC))) };
    for round in 0..50 {
        let mut reads = Reads::new(2, |_| direct.as_raw_fd(), |i| (round + i) as u64 % BLOCKS);
        (reads.requests[1].flags, reads.requests[1].resfd) = (FLAG_RESFD, eventfd.as_raw_fd());
        assert_eq!(reads.submit(context), 2);
        let mut count = [0; 8];
        eventfd.read_exact(&mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
        let mut events: Vec<_> = std::iter::from_fn(|| take(context)).collect();
        assert!(events.iter().any(|event| event.data == 1), "signalled too early");
        if events.len() < 2 {
            events.extend(reap::<Ours>(context, 1).unwrap());
        }
        reads.check_all(&events);
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn the_file_may_be_closed_and_its_number_be_another_s() {
    let Some((direct, _)) = files() else { return };
    let context = context::<Ours>(8);
    for _ in 0..20 {
        let another = direct.try_clone().unwrap();
        let fd = another.as_raw_fd();
        let mut reads = Reads::new(4, |_| fd, |i| i as u64);
        assert_eq!(reads.submit(context), 4);
        // A pipe that has this number is not waited for by the one who submits.
        let (reader, mut writer) = pipe();
        // SAFETY: a number of our own, whose file is closed by that.
        assert_eq!(unsafe { libc::dup2(reader.as_raw_fd(), fd) }, fd);
        let mut byte = [0];
        let mut read = transfer(command::PREAD, fd, &mut byte, 0);
        read.data = 4;
        assert_eq!(submit_one::<Ours>(context, &mut read), 1);
        let mut events = reap::<Ours>(context, 4).unwrap();
        writer.write_all(b"x").unwrap();
        if events.len() < 5 {
            events.extend(reap::<Ours>(context, 1).unwrap());
        }
        events.retain(|event| event.data < 4);
        reads.check_all(&events);
        assert_eq!(byte, [b'x']);
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn a_child_begins_anew_while_its_parents_requests_are_in_flight() {
    let Some((direct, _)) = files() else { return };
    let context = context::<Ours>(64);
    for _ in 0..5 {
        let mut reads = Reads::new(32, |_| direct.as_raw_fd(), |i| i as u64);
        let mut child_reads = Reads::new(4, |_| direct.as_raw_fd(), |i| i as u64 + 9);
        assert_eq!(reads.submit(context), 32);
        // SAFETY: the child does a few calls, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let invalid = -c_long::from(libc::EINVAL);
            let mut own = ptr::null_mut();
            let all_well = child_reads.submit(context) == invalid
                && Ours::get_events(context, 0, 1, &mut Event::default(), &ZERO) == invalid
                && Ours::setup(8, &mut own) == 0
                && child_reads.submit(own) == 4
                && reap::<Ours>(own, 4).is_ok_and(|events| events.len() == 4)
                && child_reads.blocks.iter().all(|block| (9..13).contains(&block.0[7]))
                && Ours::destroy(own) == 0;
            // SAFETY: ends the child.
            unsafe { libc::_exit(i32::from(!all_well)) };
        }
        reads.check_all(&reap::<Ours>(context, 32).unwrap());
        let mut status = -1;
        // SAFETY: our child.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0);
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn a_program_that_closes_descriptors_it_does_not_know_is_woken_all_the_same() {
    if support::process::role().is_none() {
        // Alone: the others need their descriptors.
        let name = "direct::a_program_that_closes_descriptors_it_does_not_know_is_woken_all_the_same";
        return support::process::run(support::process::again(name, "alone")).unwrap();
    }
    let Some((direct, _)) = files() else { return };
    let context = context::<Ours>(8);
    let address = context.expose_provenance();
    let mut reads = Reads::new(1, |_| direct.as_raw_fd(), |_| 9);
    assert_eq!(reads.submit(context), 1);
    reads.check_all(&reap::<Ours>(context, 1).unwrap());
    // SAFETY: nobody's but the library's.
    unsafe {
        let fd = direct.as_raw_fd() as u32;
        libc::syscall(libc::SYS_close_range, 3, fd - 1, 0);
        libc::syscall(libc::SYS_close_range, fd + 1, u32::MAX, 0);
    }
    let waiter = thread::spawn(move || {
        let context = ptr::with_exposed_provenance_mut(address);
        let mut events = [Event::default(); 3];
        Ours::get_events(context, 3, 3, events.as_mut_ptr(), ptr::null())
    });
    thread::sleep(Duration::from_millis(20));
    let mut nothing = request(command::NOOP, -1, 1);
    for _ in 0..3 {
        assert_eq!(submit_one::<Ours>(context, &mut nothing), 1);
    }
    assert_eq!(waiter.join().unwrap(), 3);
    assert_eq!(reads.submit(context), 1);
    reads.check_all(&reap::<Ours>(context, 1).unwrap());
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn a_mask_lets_a_signal_in_while_the_kernel_is_waited_for() {
    extern "C" fn ignore(_: i32) {}
    let Some((direct, _)) = files() else { return };
    // SAFETY: a handler that does nothing; sets of ours; this thread's mask, and this thread.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as *const () as usize;
        libc::sigaction(libc::SIGUSR2, &action, ptr::null_mut());
    }
    let context = context::<Ours>(8);
    let mut reads = Reads::new(1, |_| direct.as_raw_fd(), |_| 9);
    assert_eq!(reads.submit(context), 1);
    assert_eq!(reap::<Ours>(context, 1).unwrap().len(), 1);
    // SAFETY: as above.
    let (none, me) = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        let mut usr2 = none;
        libc::sigemptyset(&mut none);
        libc::sigaddset(&mut usr2, libc::SIGUSR2);
        libc::pthread_sigmask(libc::SIG_BLOCK, &usr2, ptr::null_mut());
        (none, libc::pthread_self())
    };
    let mut event = Event::default();
    let interrupted = -c_long::from(libc::EINTR);
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(30));
            // SAFETY: the thread is alive: it waits for us.
            unsafe { libc::pthread_kill(me, libc::SIGUSR2) }
        });
        assert_eq!(Ours::masked_get_events(context, 1, 1, &mut event, ptr::null(), &none), interrupted);
    });
    let short = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    assert_eq!(Ours::masked_get_events(context, 1, 1, &mut event, &short, &none), 0);
    assert_eq!(Ours::get_events(context, 1, 1, &mut event, &short), 0);
    assert_eq!(Ours::destroy(context), 0);
}
