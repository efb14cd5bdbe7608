//! What programs do with contexts, one thing at a time.

use super::api::*;
use ioctx::capi::{FLAG_RESFD, Handle, Iocb, command};
use ioctx::ring::Event;
use std::ffi::{c_int, c_long};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{ptr, slice, thread};

const PAGE: usize = 4096;
const ZERO: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };

/// A pipe with nothing in it.
pub fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().unwrap()
}

/// A file with these bytes.
fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn poll_in(fd: i32, data: u64) -> Iocb {
    Iocb { buf: libc::POLLIN as u64, ..request(command::POLL, fd, data) }
}

/// The head and the tail of a ring, as programs see them.
fn indices<'a>(context: Handle) -> (&'a AtomicU32, &'a AtomicU32, u32) {
    let words = context.cast::<AtomicU32>();
    // SAFETY: the header of a ring, which stays mapped.
    unsafe { (&*words.add(2), &*words.add(3), (*words.add(1)).load(Ordering::Relaxed)) }
}

/// Takes an event out of the ring as fio does, without a call.
pub fn take(context: Handle) -> Option<Event> {
    let (head, tail, nr) = indices(context);
    let at = head.load(Ordering::Relaxed);
    if at == tail.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: below the tail.
    let event = unsafe { context.cast::<Event>().add(1 + at as usize).read() };
    head.store((at + 1) % nr, Ordering::Release);
    Some(event)
}

#[test]
fn events_are_taken_out_of_the_ring_without_a_call_for_many_rounds_of_it() {
    let context = context::<Ours>(4);
    // SAFETY: a header of eight words.
    let header = unsafe { context.cast::<[u32; 8]>().read() };
    assert_eq!(header[4..], [0xa10a_10a1, 1, 0, 32]);
    let data = file(b"0123456789");
    for round in 0..1000 {
        let mut buf = [0; 4];
        let mut read = transfer(command::PREAD, data.as_raw_fd(), &mut buf, round % 6);
        read.data = round as u64;
        assert_eq!(submit_one::<Ours>(context, &mut read), 1);
        let event = take(context).expect("cached, so there at once");
        assert_eq!((event.data, event.obj, event.res), (round as u64, (&raw mut read).addr() as u64, 4));
        assert_eq!(buf[0], b'0' + (round % 6) as u8);
        assert!(take(context).is_none());
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn callbacks_are_called_if_there_are_any() {
    extern "C" fn count(_: Handle, request: *mut Iocb, res: c_long, _: c_long) {
        assert_eq!(res, 0);
        // SAFETY: the request of below, of which nobody else knows.
        unsafe { (*request).offset += 1 };
    }
    let context = context::<Ours>(8);
    let mut called = request(command::NOOP, -1, count as *const () as u64);
    let mut silent = request(command::NOOP, -1, 0);
    let list = [&raw mut silent, &raw mut called, &raw mut silent, &raw mut called];
    assert_eq!(Ours::submit(context, 4, list.as_ptr()), 4);
    // SAFETY: callbacks as they have to be, and none.
    assert_eq!(unsafe { ioctx::capi::ioctx_io_queue_run(context) }, 0);
    assert_eq!(called.offset, 2);
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn a_full_context_refuses_until_events_are_read_in_place() {
    let context = context::<Ours>(8);
    let (_, _, nr) = indices(context);
    let mut nothing = request(command::NOOP, -1, 1);
    let all = vec![&raw mut nothing; nr as usize + 10];
    assert_eq!(Ours::submit(context, all.len() as c_long, all.as_ptr()), c_long::from(nr) - 1);
    assert_eq!(submit_one::<Ours>(context, &mut nothing), -c_long::from(libc::EAGAIN));
    assert!(take(context).is_some());
    assert_eq!(submit_one::<Ours>(context, &mut nothing), 1);
    assert_eq!(submit_one::<Ours>(context, &mut nothing), -c_long::from(libc::EAGAIN));
    assert_eq!(reap::<Ours>(context, nr as usize - 1).unwrap().len(), nr as usize - 1);
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn whatever_is_written_to_the_ring_harms_nobody() {
    let context = context::<Ours>(8);
    let mut nothing = request(command::NOOP, -1, 1);
    let mut random = 7_u32;
    for _ in 0..20_000 {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        for (place, bit) in (0..8).zip(8..) {
            if random >> bit & 3 == 0 {
                // SAFETY: a word of the header.
                unsafe { (*context.cast::<AtomicU32>().add(place)).store(random, Ordering::Relaxed) };
            }
        }
        let submitted = submit_one::<Ours>(context, &mut nothing);
        assert!(submitted == 1 || submitted == -c_long::from(libc::EAGAIN), "{submitted}");
        let mut events = [Event::default(); 200];
        let got = Ours::get_events(context, 0, 200, events.as_mut_ptr(), &ZERO);
        assert!((0..=200).contains(&got), "{got}");
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn the_next_in_the_place_of_a_ring_that_others_wrote_to_is_as_good_as_new() {
    // A size of its own: nobody else comes to have its place.
    const EVENTS: c_int = 1000;
    let mut nothing = request(command::NOOP, -1, 1);
    let mut before: Handle = ptr::null_mut();
    for (head, tail) in
        [(0, 3), (3, 0), (1, 1), (2, 2), (9, 2), (4, 4), (5, 900), (u32::MAX, 7), (8, u32::MAX)]
    {
        let context = context::<Ours>(EVENTS);
        assert!(before.is_null() || before == context, "the same place");
        before = context;
        for data in 0..2 {
            nothing.data = data;
            assert_eq!(submit_one::<Ours>(context, &mut nothing), 1);
            assert_eq!(reap::<Ours>(context, 1).unwrap()[0].data, data);
        }
        // All of it is there, too.
        let (_, _, nr) = indices(context);
        let all = vec![&raw mut nothing; nr as usize];
        assert_eq!(Ours::submit(context, all.len() as c_long, all.as_ptr()), c_long::from(nr) - 1);
        // SAFETY: words of the header.
        unsafe {
            (*context.cast::<AtomicU32>().add(2)).store(head, Ordering::Relaxed);
            (*context.cast::<AtomicU32>().add(3)).store(tail, Ordering::Relaxed);
        }
        assert_eq!(Ours::destroy(context), 0);
    }
}

/// Has something at `address`, where the program has unmapped what was there.
fn occupy(address: Handle) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: takes nobody's memory away. Where another thread was faster, something is there as well.
    unsafe { libc::mmap(address, PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
}

#[test]
fn no_context_has_the_place_of_a_ring_that_was_unmapped() {
    // A size of its own: nobody else comes to have its place.
    const EVENTS: c_int = 300;
    for occupied in [false, true] {
        let context = context::<Ours>(EVENTS);
        // SAFETY: of a ring that nobody uses.
        assert_eq!(unsafe { libc::munmap(context, 4 * PAGE) }, 0);
        if occupied {
            occupy(context);
        }
        assert_eq!(Ours::destroy(context), 0);
        let next = self::context::<Ours>(EVENTS);
        assert_ne!(next, context);
        assert_eq!(submit_one::<Ours>(next, &mut request(command::NOOP, -1, 5)), 1);
        assert_eq!(take(next).unwrap().data, 5);
        assert_eq!(Ours::destroy(next), 0);
    }
}

#[test]
fn a_ring_that_was_moved_is_found_and_its_old_address_is_not() {
    let old = context::<Ours>(8);
    // SAFETY: moves the ring, which nobody else uses.
    let new = unsafe {
        libc::mremap(old, PAGE, PAGE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, {
            libc::mmap(ptr::null_mut(), PAGE, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        })
    };
    assert!(new != libc::MAP_FAILED && new != old);
    occupy(old);
    let mut nothing = request(command::NOOP, -1, 5);
    assert_eq!(submit_one::<Ours>(new, &mut nothing), 1);
    assert_eq!(take(new).unwrap().data, 5);
    assert_eq!(Ours::destroy(new), 0);
    assert_eq!(submit_one::<Ours>(new, &mut nothing), -c_long::from(libc::EINVAL));
    // A copy of a header is no context.
    let live = context::<Ours>(8);
    let mut copy = vec![0_u32; 2 * PAGE / 4];
    let start = copy.as_ptr().addr().next_multiple_of(PAGE) - copy.as_ptr().addr();
    // SAFETY: eight words, read and written.
    let copied = unsafe {
        let copied = copy.as_mut_ptr().byte_add(start);
        copied.cast::<[u32; 8]>().write(live.cast::<[u32; 8]>().read());
        copied.cast()
    };
    assert_eq!(submit_one::<Ours>(copied, &mut nothing), -c_long::from(libc::EINVAL));
    assert_eq!(Ours::destroy(live), 0);
    assert_eq!(Ours::destroy(live), -c_long::from(libc::EINVAL));
}

#[test]
fn polls_complete_when_ready_are_cancelled_and_end_with_their_context() {
    fn both<A: Api>() -> Vec<(c_long, Vec<(u64, i64)>)> {
        let context = context::<A>(8);
        let (mut reader, mut writer) = pipe();
        let mut seen = Vec::new();
        let mut see = |done: c_long, events: Result<Vec<Event>, c_long>| {
            // The kernel says more than was asked for, depending on who has found it ready.
            let events = events.unwrap().iter().map(|event| (event.data, event.res & 1)).collect();
            seen.push((done, events));
        };
        let mut first = poll_in(reader.as_raw_fd(), 1);
        let mut event = Event::default();
        see(submit_one::<A>(context, &mut first), Ok(Vec::new()));
        see(A::cancel(context, &mut first, &mut event), reap::<A>(context, 1));
        see(A::cancel(context, &mut first, &mut event), Ok(Vec::new()));
        see(submit_one::<A>(context, &mut first), Ok(Vec::new()));
        writer.write_all(b"x").unwrap();
        see(0, reap::<A>(context, 1));
        see(submit_one::<A>(context, &mut first), reap::<A>(context, 1));
        reader.read_exact(&mut [0]).unwrap();
        see(submit_one::<A>(context, &mut first), Ok(Vec::new()));
        see(A::destroy(context), Ok(Vec::new()));
        seen
    }
    assert_eq!(both::<Ours>(), both::<Kernel>());
}

#[test]
fn a_request_keeps_its_file_and_eventfd_though_their_descriptors_are_closed() {
    let context = context::<Ours>(8);
    let (reader, mut writer) = pipe();
    // SAFETY: a new descriptor.
    let mut eventfd = unsafe { File::from(OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC))) };
    let second = eventfd.try_clone().unwrap();
    let mut buf = [0; 3];
    let mut read = transfer(command::PREAD, reader.as_raw_fd(), &mut buf, 0);
    (read.flags, read.resfd) = (FLAG_RESFD, second.as_raw_fd());
    assert_eq!(submit_one::<Ours>(context, &mut read), 1);
    drop((reader, second));
    assert_eq!(Ours::get_events(context, 0, 1, ptr::null_mut(), &ZERO), 0);
    writer.write_all(b"abc").unwrap();
    let mut count = [0; 8];
    eventfd.read_exact(&mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1);
    assert_eq!(take(context).unwrap().res, 3);
    assert_eq!(&buf, b"abc");
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn a_number_that_was_a_pipe_s_is_read_at_its_offset_when_it_is_a_file_s() {
    let context = context::<Ours>(8);
    let data = file(b"0123456789");
    let (reader, mut writer) = pipe();
    let number = reader.as_raw_fd();
    for _ in 0..3 {
        let mut buf = [0; 2];
        writer.write_all(b"xx").unwrap();
        let mut read = transfer(command::PREAD, number, &mut buf, 0);
        assert_eq!(submit_one::<Ours>(context, &mut read), 1);
        assert_eq!(reap::<Ours>(context, 1).unwrap()[0].res, 2);
    }
    // SAFETY: a number of our own, whose pipe is closed by that.
    assert_eq!(unsafe { libc::dup2(data.as_raw_fd(), number) }, number);
    let mut buf = [0; 2];
    let mut read = transfer(command::PREAD, number, &mut buf, 3);
    assert_eq!(submit_one::<Ours>(context, &mut read), 1);
    assert_eq!(reap::<Ours>(context, 1).unwrap()[0].res, 2);
    assert_eq!(&buf, b"34");
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn locks_of_the_process_outlive_requests() {
    let data = file(b"locked");
    // SAFETY: zeroes are a lock of the whole file.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as _;
    // SAFETY: as asked.
    assert_eq!(unsafe { libc::fcntl(data.as_raw_fd(), libc::F_SETLK, &lock) }, 0);
    let context = context::<Ours>(8);
    // A descriptor of its own, or closing this one would end the lock.
    let mut sync = request(command::FSYNC, data.as_raw_fd(), 0);
    assert_eq!(submit_one::<Ours>(context, &mut sync), 1);
    assert_eq!(reap::<Ours>(context, 1).unwrap()[0].res, 0);
    assert_eq!(Ours::destroy(context), 0);
    // SAFETY: the child asks who has the lock, and says so by its exit.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::fcntl(data.as_raw_fd(), libc::F_GETLK, &mut lock);
            libc::_exit(if lock.l_type == libc::F_WRLCK as libc::c_short { 0 } else { 1 });
        }
        let mut status = -1;
        libc::waitpid(child, &mut status, 0);
        assert_eq!(status, 0, "the lock is gone");
    }
}

#[test]
fn destroying_waits_for_requests_and_wakes_who_waits_for_events() {
    let context = context::<Ours>(8);
    let (reader, mut writer) = pipe();
    let mut buf = [0; 1];
    let mut read = transfer(command::PREAD, reader.as_raw_fd(), &mut buf, 0);
    assert_eq!(submit_one::<Ours>(context, &mut read), 1);
    let address = context.addr();
    let handle = move || ptr::with_exposed_provenance_mut(address);
    context.expose_provenance();
    let waiter = thread::spawn(move || {
        let mut events = [Event::default(); 2];
        Ours::get_events(handle(), 2, 2, events.as_mut_ptr(), ptr::null())
    });
    thread::sleep(Duration::from_millis(20));
    let destroyer = thread::spawn(move || Ours::destroy(handle()));
    thread::sleep(Duration::from_millis(20));
    assert!(!destroyer.is_finished());
    let answer = waiter.join().unwrap();
    assert_eq!(answer, -c_long::from(libc::EINVAL));
    writer.write_all(b"x").unwrap();
    assert_eq!(destroyer.join().unwrap(), 0);
    assert_eq!(buf, [b'x']);
}

#[test]
fn a_child_knows_none_of_its_parents_contexts_and_can_have_its_own() {
    let context = context::<Ours>(8);
    let (reader, _writer) = pipe();
    let mut poll = poll_in(reader.as_raw_fd(), 1);
    assert_eq!(submit_one::<Ours>(context, &mut poll), 1);
    // SAFETY: the child does a few calls, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let invalid = -c_long::from(libc::EINVAL);
        let mut own = ptr::null_mut();
        let mut reads = [Iocb::default()];
        let all_well = Ours::submit(context, 0, ptr::null()) == invalid
            && Ours::destroy(context) == invalid
            && Ours::setup(8, &mut own) == 0
            && submit_one::<Ours>(own, {
                reads[0] = poll_in(reader.as_raw_fd(), 2);
                &mut reads[0]
            }) == 1
            && Ours::cancel(own, &mut reads[0], ptr::null_mut()) == -c_long::from(libc::EINPROGRESS)
            && reap::<Ours>(own, 1).is_ok_and(|events| events[0].data == 2)
            && Ours::destroy(own) == 0;
        // SAFETY: ends the child.
        unsafe { libc::_exit(i32::from(!all_well)) };
    }
    let mut status = -1;
    // SAFETY: our child.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0);
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn a_child_of_any_moment_can_have_its_own() {
    /// More than the pool keeps threads for, so that some of them begin and end in each cycle.
    const READS: usize = 40;
    let stop = AtomicBool::new(false);
    let cycle = |n: usize| {
        let mut context = ptr::null_mut();
        let (reader, mut writer) = pipe();
        let mut poll = poll_in(writer.as_raw_fd(), 1);
        let mut bytes = [0; READS];
        let mut reads: Vec<_> = bytes[..n]
            .iter_mut()
            .map(|byte| transfer(command::PREAD, reader.as_raw_fd(), slice::from_mut(byte), 0))
            .collect();
        Ours::setup(64, &mut context) == 0
            && submit_one::<Ours>(context, &mut poll) == 1
            && reads.iter_mut().all(|read| submit_one::<Ours>(context, read) == 1)
            && Ours::cancel(context, &mut poll, ptr::null_mut()) == -c_long::from(libc::EINPROGRESS)
            && writer.write_all(&[b'x'; READS][..n]).is_ok()
            && reap::<Ours>(context, 1 + n).is_ok_and(|events| events.len() == 1 + n)
            && Ours::destroy(context) == 0
    };
    thread::scope(|scope| {
        let busy: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        assert!(cycle(READS));
                    }
                })
            })
            .collect();
        let until = Instant::now() + Duration::from_secs(2);
        let mut statuses = Vec::new();
        while Instant::now() < until {
            // SAFETY: the child does a few calls, and ends.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: ends the child.
                unsafe { libc::_exit(i32::from(!cycle(1))) };
            }
            // One that hangs may have no ear for an alarm of its own.
            let patience = Instant::now() + Duration::from_secs(20);
            let mut status = -1;
            // SAFETY: our child, twice.
            while unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } == 0 {
                if Instant::now() > patience {
                    // SAFETY: as above.
                    unsafe { libc::kill(child, libc::SIGKILL) };
                }
                thread::yield_now();
            }
            statuses.push(status);
        }
        stop.store(true, Ordering::Relaxed);
        let all_well = busy.into_iter().all(|thread| thread.join().is_ok());
        statuses.retain(|status| *status != 0);
        assert!(all_well && statuses.is_empty(), "{statuses:?}");
    });
}

#[test]
fn signals_end_waits_and_masks_hold_while_waiting() {
    extern "C" fn ignore(_: i32) {}
    // SAFETY: a handler that does nothing; `SA_RESTART`, which this interface does not heed.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = ignore as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut());
    }
    fn both<A: Api>() -> Vec<c_long> {
        // SAFETY: zeroes are an empty set.
        let (mut none, mut usr1): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
        // SAFETY: ours; this thread's mask, and this thread.
        let me = unsafe {
            libc::sigemptyset(&mut none);
            libc::sigemptyset(&mut usr1);
            libc::sigaddset(&mut usr1, libc::SIGUSR1);
            libc::pthread_self()
        };
        // SAFETY: the thread is alive: it waits for us.
        let kick = || unsafe { libc::pthread_kill(me, libc::SIGUSR1) };
        let context = context::<A>(8);
        let mut event = Event::default();
        let mut answers = Vec::new();
        let answered = AtomicBool::new(false);
        thread::scope(|scope| {
            // More than once: it may not be asleep yet.
            let kicker = scope.spawn(|| {
                while !answered.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(10));
                    kick();
                }
            });
            answers.push(A::get_events(context, 1, 1, &mut event, ptr::null()));
            answered.store(true, Ordering::Relaxed);
            kicker.join().unwrap();
        });
        // SAFETY: this thread's mask.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &usr1, ptr::null_mut()) };
        kick();
        // Pending, and let in by the mask alone.
        answers.push(A::masked_get_events(context, 1, 1, &mut event, ptr::null(), &none));
        let mut nothing = Iocb { buf: libc::POLLOUT as u64, ..request(command::POLL, 1, 3) };
        kick();
        answers.push(submit_one::<A>(context, &mut nothing));
        // An event counts more than the signal, which is delivered all the same.
        answers.push(A::masked_get_events(context, 1, 1, &mut event, ptr::null(), &none));
        let short = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
        answers.push(A::masked_get_events(context, 1, 1, &mut event, &short, &none));
        kick();
        answers.push(A::masked_get_events(context, 1, 1, &mut event, &short, &usr1));
        // SAFETY: as above; delivers it.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &usr1, ptr::null_mut()) };
        answers.push(A::destroy(context));
        answers
    }
    assert_eq!(both::<Ours>(), both::<Kernel>());
}

#[test]
fn timeouts_are_kept_and_partial_counts_win() {
    let context = context::<Ours>(8);
    let mut event = [Event::default(); 4];
    let begun = Instant::now();
    let short = libc::timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let mut get = |min, max| Ours::get_events(context, min, max, event.as_mut_ptr(), &short);
    assert_eq!(get(1, 4), 0);
    assert!(begun.elapsed() >= Duration::from_millis(20));
    let mut nothing = request(command::NOOP, -1, 1);
    assert_eq!(submit_one::<Ours>(context, &mut nothing), 1);
    assert_eq!(get(2, 4), 1);
    assert_eq!(get(0, 4), 0);
    // A nanosecond, in a way.
    let odd = libc::timespec { tv_sec: 1, tv_nsec: -999_999_999 };
    assert_eq!(Ours::get_events(context, 1, 1, event.as_mut_ptr(), &odd), 0);
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn many_threads_set_up_submit_and_destroy() {
    let data = file(&[7; 8192]);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for turn in 0..300 {
                    let context = context::<Ours>(1 + turn % 200);
                    let mut buf = [0; 4096];
                    let mut read = transfer(command::PREAD, data.as_raw_fd(), &mut buf, i64::from(turn % 2));
                    let mut sync = request(command::FDSYNC, data.as_raw_fd(), 9);
                    assert_eq!(submit_one::<Ours>(context, &mut read), 1);
                    if turn % 30 == 0 {
                        assert_eq!(submit_one::<Ours>(context, &mut sync), 1);
                    }
                    assert_eq!(Ours::destroy(context), 0);
                    assert_eq!(buf, [7; 4096]);
                }
            });
        }
    });
}
