//! A ring of io_uring's for reads that do not wait: [`Ring`].
//!
//! Each thread has one of its own, from the time on when it has had some use for one. Its requests are over when the
//! call is that submits them, so that nobody else ever sees anything of it: a read with `RWF_NOWAIT` is done or not
//! done, and direct I/O is waited for.
//!
//! It has no descriptor, which a program could close, but a number in a table of the kernel's for this thread.

use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use crate::sync::{process, thread};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::io_uring::{
    IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringEnterFlags, IoringFeatureFlags, IoringOp, IoringRegisterOp,
    addr_or_splice_off_in_union, io_uring_cqe, io_uring_enter, io_uring_params, io_uring_ptr,
    io_uring_register, io_uring_rsrc_update, io_uring_setup, io_uring_sqe, len_union, off_or_addr2_union,
    op_flags_union,
};
use std::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};

/// How many reads it takes at a time.
pub(super) const ENTRIES: usize = 32;
/// How often a thread has to have use for a ring before it gets one.
const USES: u32 = 8;

/// A read at an offset.
#[derive(Clone, Copy)]
pub(super) struct Read {
    pub(super) fd: i32,
    pub(super) into: *mut u8,
    pub(super) len: u32,
    pub(super) offset: u64,
}

/// See the [module](self). This thread's.
pub(super) struct Ring {
    /// Its number in this thread's table.
    number: i32,
    forks: u32,
    head: NonNull<AtomicU32>,
    tail: NonNull<AtomicU32>,
    completed_head: NonNull<AtomicU32>,
    completed_tail: NonNull<AtomicU32>,
    completed: NonNull<io_uring_cqe>,
    /// How many completions there is room for: a power of two.
    room: u32,
    entries: Mapping,
    _indices: Mapping,
}

/// What a thread has.
enum State {
    /// It has had use for one so many times.
    Wanted(u32),
    Idle(Ring),
    /// In use, or there is none to be had.
    None,
}

thread_local! {
    static RING: Cell<State> = const { Cell::new(State::Wanted(0)) };
}

impl Ring {
    /// This thread's, until it is [put back](Self::put_back).
    #[inline]
    pub(super) fn take() -> Option<Self> {
        // Not any more when the thread ends.
        match RING.try_with(|ring| ring.replace(State::None)).ok()? {
            State::Idle(ring) if ring.forks == process::forks() => Some(ring),
            // A child has neither its parent's mappings nor its number.
            State::Idle(_) | State::Wanted(USES..) => Self::new(),
            State::None => None,
            State::Wanted(uses) => {
                RING.set(State::Wanted(uses + 1));
                None
            }
        }
    }

    pub(super) fn put_back(self) {
        let _ = RING.try_with(|ring| ring.set(State::Idle(self)));
    }

    /// `None` where there is none to be had: not known, forbidden, or there is no memory.
    #[cold]
    fn new() -> Option<Self> {
        let mut params = io_uring_params::default();
        // SAFETY: nothing is passed but `params`.
        let fd = unsafe { io_uring_setup(ENTRIES as u32, &mut params) }.ok()?;
        if !params.features.contains(IoringFeatureFlags::SINGLE_MMAP) {
            return None;
        }
        let (sq, cq) = (params.sq_off, params.cq_off);
        let indices_len = (sq.array as usize + params.sq_entries as usize * size_of::<u32>())
            .max(cq.cqes as usize + params.cq_entries as usize * size_of::<io_uring_cqe>());
        let indices = Mapping::new(&fd, indices_len, IORING_OFF_SQ_RING)?;
        let entries =
            Mapping::new(&fd, params.sq_entries as usize * size_of::<io_uring_sqe>(), IORING_OFF_SQES)?;
        for i in 0..params.sq_entries {
            // Entries are submitted in the order in which they lie.
            // SAFETY: within the mapping, as the kernel says; nobody else writes to it.
            unsafe { indices.at::<u32>(sq.array).add(i as usize).write(i) };
        }
        let mut update = io_uring_rsrc_update::default();
        update.offset = u32::MAX;
        update.data = io_uring_ptr::new(ptr::without_provenance_mut(fd.as_raw_fd() as usize));
        // SAFETY: one such structure, which is written to.
        let registered =
            unsafe { io_uring_register(&fd, IoringRegisterOp::RegisterRingFds, (&raw mut update).cast(), 1) };
        (registered == Ok(1)).then(|| Self {
            number: update.offset as i32,
            forks: process::forks(),
            head: indices.at(sq.head),
            tail: indices.at(sq.tail),
            completed_head: indices.at(cq.head),
            completed_tail: indices.at(cq.tail),
            completed: indices.at(cq.cqes),
            room: params.cq_entries,
            entries,
            _indices: indices,
        })
    }

    /// Makes a read the one of a number below [`ENTRIES`].
    pub(super) fn set(&mut self, number: usize, read: &Read) {
        let entry = io_uring_sqe {
            opcode: IoringOp::Read,
            fd: read.fd,
            off_or_addr2: off_or_addr2_union { off: read.offset },
            addr_or_splice_off_in: addr_or_splice_off_in_union { addr: io_uring_ptr::new(read.into.cast()) },
            len: len_union { len: read.len },
            op_flags: op_flags_union { rw_flags: ReadWriteFlags::NOWAIT },
            user_data: (number as u64).into(),
            ..Default::default()
        };
        // SAFETY: a word of the mapping.
        let start = unsafe { self.tail.as_ref() }.load(Relaxed);
        let place = start.wrapping_add(number as u32) as usize % ENTRIES;
        // SAFETY: within the mapping: there are as many, and all of them are free between two calls.
        unsafe { self.entries.at::<io_uring_sqe>(0).add(place).write(entry) };
    }

    /// Has the first `n` tried without waiting, and tells of each what the kernel says: how many bytes, or a negated
    /// error number. Of those that were not tried there is nothing to tell. Returns whether the ring is still good.
    pub(super) fn run(&mut self, n: usize, mut tell: impl FnMut(usize, i32)) -> bool {
        let words = [self.head, self.tail, self.completed_head, self.completed_tail];
        // SAFETY: of the mapping. Only the kernel writes to them as well, in this thread.
        let [head, tail, completed_head, completed_tail] = words.map(|word| unsafe { word.as_ref() });
        // Relaxed, here and below: all of it happens in this thread, in the kernel or not.
        let start = tail.load(Relaxed);
        tail.store(start.wrapping_add(n as u32), Relaxed);
        let (mut done, mut is_good) = (0, true);
        loop {
            let taken = head.load(Relaxed).wrapping_sub(start);
            let left = if is_good { n as u32 - taken } else { 0 };
            if (done, left) == (taken, 0) {
                // What was not taken is as if it had not been there.
                tail.store(start.wrapping_add(taken), Relaxed);
                return is_good;
            }
            // SAFETY: a number of this thread's table, as the flag says; never used as a descriptor.
            let number = unsafe { BorrowedFd::borrow_raw(self.number) };
            let flags = IoringEnterFlags::GETEVENTS | IoringEnterFlags::REGISTERED_RING;
            // SAFETY: what is submitted is read into buffers that are the caller's until its events are there; the
            // kernel checks descriptors and addresses.
            match unsafe { io_uring_enter(number, left, left + taken - done, flags) } {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => {
                    is_good = false;
                    // What was taken comes to its end by itself.
                    thread::yield_now();
                }
            }
            let (mut at, last) = (completed_head.load(Relaxed), completed_tail.load(Relaxed));
            while at != last {
                // SAFETY: within the mapping, and completed.
                let cqe = unsafe { self.completed.add((at & (self.room - 1)) as usize).as_ref() };
                tell(cqe.user_data.u64_() as usize, cqe.res);
                (at, done) = (at.wrapping_add(1), done + 1);
            }
            completed_head.store(at, Relaxed);
        }
    }
}

/// Memory that is shared with the kernel.
struct Mapping {
    at: NonNull<u8>,
    len: usize,
    owner: u32,
}

impl Mapping {
    fn new(fd: &OwnedFd, len: usize, offset: u64) -> Option<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: anywhere.
        let at = unsafe { libc::mmap(ptr::null_mut(), len, access, libc::MAP_SHARED, fd, offset as i64) };
        if at == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: mapped just now. Without it, a child has the pages, and never looks at them.
        unsafe { libc::madvise(at, len, libc::MADV_DONTFORK) };
        Some(Self { at: NonNull::new(at.cast())?, len, owner: std::process::id() })
    }

    /// What is so many bytes from its beginning.
    fn at<T>(&self, offset: u32) -> NonNull<T> {
        debug_assert!(offset as usize + size_of::<T>() <= self.len);
        // SAFETY: the kernel says where in the mapping things are.
        unsafe { self.at.add(offset as usize) }.cast()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Asked: not every fork is counted, and what a child has here is something else.
        if self.owner == std::process::id() {
            // SAFETY: mapped by `new`, and used by nobody any more.
            unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
        }
    }
}
