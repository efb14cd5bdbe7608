//! Bad pointers: refused, whenever the memory was taken away, and never fatal.

use super::api::*;
use ioctx::capi::{Handle, Iocb, command};
use ioctx::ring::Event;
use std::ffi::c_long;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{ptr, thread};

const PAGE: usize = 4096;
const FAULT: c_long = -(libc::EFAULT as c_long);
const ZERO: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 0 };

/// A page of a file without a name, at an address that nobody else is given.
struct Page {
    at: *mut u8,
    file: i32,
}

// SAFETY: an address.
unsafe impl Sync for Page {}

impl Page {
    fn new() -> Self {
        // SAFETY: a new file, and new memory.
        unsafe {
            let file = libc::memfd_create(c"page".as_ptr(), libc::MFD_CLOEXEC);
            assert_eq!(libc::ftruncate(file, PAGE as i64), 0);
            let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let at = libc::mmap(ptr::null_mut(), PAGE, libc::PROT_NONE, none, -1, 0);
            assert_ne!(at, libc::MAP_FAILED);
            let page = Self { at: at.cast(), file };
            page.map(true);
            page
        }
    }

    /// There, or not to be touched.
    fn map(&self, there: bool) {
        let (access, flags, file) = match there {
            true => (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED, self.file),
            false => (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED, -1),
        };
        // SAFETY: in place of what is there, which is ours.
        assert_ne!(unsafe { libc::mmap(self.at.cast(), PAGE, access, flags, file, 0) }, libc::MAP_FAILED);
    }

    fn put<T>(&self, offset: usize, value: T) -> *mut T {
        // SAFETY: within the page, which is there.
        unsafe {
            let at = self.at.add(offset).cast();
            ptr::write(at, value);
            at
        }
    }
}

/// What a page has to point to. In turn, every call with one pointer there, and all others good.
fn calls(page: &Page, context: Handle, zero: i32) -> impl Fn() -> [c_long; 8] {
    let mut there = request(command::NOOP, -1, 1);
    there.key = 7;
    let request_there = page.put(0, there);
    let own: &'static mut Iocb = Box::leak(Box::new(request(command::NOOP, -1, 2)));
    let own = &raw mut *own;
    let list = page.put(64, own);
    let mut buf = [0_u8; 8];
    let base = (&raw mut buf).cast();
    let vector = page.put(80, libc::iovec { iov_base: base, iov_len: 0 });
    let vectored =
        Iocb { buf: vector.expose_provenance() as u64, nbytes: 1, ..request(command::PREADV, zero, 3) };
    let events = page.put(128, [Event::default(); 4]);
    let timeout = page.put(256, ZERO);
    let mask = page.put(272, 0_u64).cast::<libc::sigset_t>();
    let occupied = page.put(288, ptr::without_provenance_mut::<std::ffi::c_void>(8));
    move || {
        let mut vectored = vectored;
        let mut room = [Event::default(); 4];
        let answers = [
            Ours::submit(context, 1, &request_there),
            Ours::submit(context, 1, list),
            Ours::submit(context, 1, &(&raw mut vectored)),
            Ours::cancel(context, request_there, ptr::null_mut()),
            Ours::get_events(context, 0, 1, events.cast(), &ZERO),
            Ours::get_events(context, 0, 4, room.as_mut_ptr(), timeout),
            Ours::masked_get_events(context, 0, 4, room.as_mut_ptr(), &ZERO, mask),
            Ours::setup(1, occupied),
        ];
        // What is left.
        assert!(reap::<Ours>(context, 0).is_ok());
        answers
    }
}

#[test]
fn memory_that_was_used_and_then_taken_away_is_refused() {
    let (page, context, zero) = (Page::new(), context::<Ours>(16), std::fs::File::open("/dev/zero").unwrap());
    let calls = calls(&page, context, zero.as_raw_fd());
    let invalid = -c_long::from(libc::EINVAL);
    for _ in 0..3 {
        // The first writes the key, which the fourth finds right.
        assert_eq!(calls(), [1, 1, 1, invalid, 1, 2, 0, invalid]);
        page.map(false);
        let own_events = calls();
        assert_eq!(own_events, [FAULT, FAULT, FAULT, FAULT, 0, FAULT, FAULT, FAULT]);
        page.map(true);
    }
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn memory_that_is_taken_away_in_the_middle_of_calls_is_refused_or_used() {
    let (page, context, zero) = (Page::new(), context::<Ours>(16), std::fs::File::open("/dev/zero").unwrap());
    let calls = calls(&page, context, zero.as_raw_fd());
    let done = AtomicBool::new(false);
    // Who has given a bad address once is not trusted any more.
    page.map(false);
    assert_eq!(calls()[0], FAULT);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                page.map(false);
                page.map(true);
            }
        });
        let mut refused = [0; 8];
        for _ in 0..20_000 {
            for (answer, refused) in calls().iter().zip(&mut refused) {
                *refused += u32::from(*answer == FAULT);
            }
        }
        done.store(true, Ordering::Relaxed);
        // Of events there may have been none.
        let some = |(i, n): (usize, &u32)| i == 4 || (1..20_000).contains(n);
        assert!(refused.iter().enumerate().all(some), "{refused:?}");
    });
    assert_eq!(Ours::destroy(context), 0);
}

/// Each in a process of its own, which trusts its program until then.
#[test]
fn the_first_bad_address_of_a_process_is_refused_as_any_other() {
    const NAME: &str = "memory::the_first_bad_address_of_a_process_is_refused_as_any_other";
    let bad = |kind: usize| match kind {
        0 => ptr::null_mut(),
        1 => ptr::without_provenance_mut(usize::MAX & !7),
        // As far as the first page goes.
        2 => ptr::without_provenance_mut(PAGE - 8),
        _ => {
            let page = Page::new();
            page.map(false);
            page.at.cast::<std::ffi::c_void>()
        }
    };
    if let Some(child) = std::env::var_os("IOCTX_BAD_ADDRESS") {
        let number: usize = child.to_str().unwrap().parse().unwrap();
        let (bad, context) = (bad(number / 6), context::<Ours>(16));
        let mut nothing = request(command::NOOP, -1, 1);
        assert_eq!(submit_one::<Ours>(context, &mut nothing), 1);
        let mut room = Event::default();
        let answer = match number % 6 {
            0 => Ours::submit(context, 1, bad.cast()),
            1 => Ours::submit(context, 1, &bad.cast()),
            2 => Ours::get_events(context, 1, 1, bad.cast(), &ZERO),
            3 => Ours::cancel(context, bad.cast(), ptr::null_mut()),
            4 => Ours::setup(1, bad.cast()),
            _ => Ours::get_events(context, 1, 1, &mut room, bad.cast()),
        };
        // No timeout is no bad one.
        assert_eq!(answer, if number == 5 { 1 } else { FAULT });
        return;
    }
    for number in 0..24 {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME]).env("IOCTX_BAD_ADDRESS", number.to_string());
        let output = child.output().unwrap();
        assert!(output.status.success(), "{number}: {output:?}");
    }
}

#[test]
fn events_without_room_are_not_lost() {
    let (page, context) = (Page::new(), context::<Ours>(16));
    let mut nothing = request(command::NOOP, -1, 1);
    for _ in 0..3 {
        assert_eq!(submit_one::<Ours>(context, &mut nothing), 1);
    }
    let out = page.at.cast();
    page.map(false);
    assert_eq!(Ours::get_events(context, 1, 1, out, &ZERO), FAULT);
    page.map(true);
    assert_eq!(Ours::get_events(context, 1, 1, out, &ZERO), 1);
    assert_eq!(reap::<Ours>(context, 0).unwrap().len(), 2);
    assert_eq!(Ours::destroy(context), 0);
}

#[test]
fn a_ring_that_the_program_unmaps_harms_nobody() {
    let context = context::<Ours>(16);
    let mut nothing = request(command::NOOP, -1, 1);
    assert_eq!(submit_one::<Ours>(context, &mut nothing), 1);
    // SAFETY: the ring, which only this test uses.
    assert_eq!(unsafe { libc::munmap(context, PAGE) }, 0);
    assert_eq!(submit_one::<Ours>(context, &mut nothing), 1);
    assert_eq!(reap::<Ours>(context, 2).unwrap().len(), 2);
    assert_eq!(Ours::destroy(context), 0);
    assert_eq!(submit_one::<Ours>(context, &mut nothing), -c_long::from(libc::EINVAL));
}
