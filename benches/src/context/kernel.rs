//! The kernel's own asynchronous I/O, by its system calls: reads of `/dev/null`.

use super::{CAPACITY, Context, READ};
use ioctx::ring::Event;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU32, Ordering::*};
use std::{io, ptr};

/// A context of the kernel.
#[derive(Debug)]
pub struct KernelAio {
    context: Aio,
    null: File,
    /// What is read into, by all: nothing is ever read.
    buffer: Box<[u8; BUFFER]>,
}

const BUFFER: usize = 4096;

impl Context for KernelAio {
    type Submitter = Blocks;
    type Reaper = Vec<Event>;

    fn open() -> io::Result<Self> {
        let null = File::open("/dev/null")?;
        Ok(Self { context: Aio::open()?, null, buffer: Box::new([0; BUFFER]) })
    }

    #[inline]
    fn submit(&self, blocks: &mut Blocks, first: u64, count: usize) -> usize {
        let block = |number| Iocb::read(&self.null, self.buffer.as_ptr(), BUFFER, 0, number);
        // SAFETY: 1. file and buffer outlive the context, being dropped after it. The kernel never writes to the
        // buffer: reading `/dev/null` finds the end of the file.
        unsafe { self.context.submit(blocks, (first..).take(count).map(block)) }
    }

    #[inline]
    fn reap(&self, events: &mut Vec<Event>, min: usize, mut each: impl FnMut(u64)) -> usize {
        let events = self.context.reap(events, min);
        for event in events {
            assert!(event.res == 0, "reading `/dev/null` finds the end of the file");
            each(event.data);
        }
        events.len()
    }
}

/// The number of a context of the kernel's.
#[derive(Debug)]
pub(crate) struct Aio(libc::c_ulong);

/// `struct iocb` of a little-endian machine; the kernel's header swaps `key` and `rw_flags`, both 0 here,
/// on others.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Iocb {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    file: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

impl Iocb {
    /// Reads `bytes` at `offset` into `buffer`.
    #[inline]
    pub fn read(file: &File, buffer: *const u8, bytes: usize, offset: u64, data: u64) -> Self {
        const PREAD: u16 = 0;
        Self {
            data,
            opcode: PREAD,
            file: file.as_raw_fd() as u32,
            buffer: buffer.expose_provenance() as u64,
            bytes: bytes as u64,
            offset: offset as i64,
            ..Self::default()
        }
    }
}

/// The request blocks of a submitter, and the pointers to them that `io_submit` wants.
#[derive(Debug, Default)]
pub struct Blocks {
    blocks: Vec<Iocb>,
    pointers: Vec<*const Iocb>,
}

impl Aio {
    pub fn open() -> io::Result<Self> {
        let mut id: libc::c_ulong = 0;
        // SAFETY: `id` is valid for writes, and 0 as it has to be.
        check(unsafe { libc::syscall(libc::SYS_io_setup, CAPACITY, &raw mut id) })?;
        Ok(Self(id))
    }

    /// Submits requests in one call, and returns how many were accepted: the first ones, or none if there is no room.
    ///
    /// # Safety
    ///
    /// 1. The files of the requests stay open, and their buffers valid and nobody else's, until their events have been
    ///    reaped or this has been dropped.
    #[inline]
    pub unsafe fn submit(
        &self,
        Blocks { blocks, pointers }: &mut Blocks,
        requests: impl Iterator<Item = Iocb>,
    ) -> usize {
        blocks.clear();
        blocks.extend(requests);
        pointers.clear();
        pointers.extend(blocks.iter().map(ptr::from_ref));
        // SAFETY: the context is ours; `pointers` has so many pointers to blocks, which the kernel copies before
        // it returns. What they refer to stays by 1.
        let accepted =
            unsafe { libc::syscall(libc::SYS_io_submit, self.0, pointers.len(), pointers.as_ptr()) };
        match check(accepted) {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("io_submit: {error}"),
        }
    }

    /// Waits until `min` requests have completed, and reads up to [`READ`] events, which are laid out like
    /// `struct io_event`.
    #[inline]
    pub fn reap<'a>(&self, events: &'a mut Vec<Event>, min: usize) -> &'a [Event] {
        events.resize(READ, Event::default());
        let forever = ptr::null_mut::<libc::timespec>();
        // SAFETY: the context is ours; `events` is valid for writes of `READ` events; no timeout is given.
        let read =
            unsafe { libc::syscall(libc::SYS_io_getevents, self.0, min, READ, events.as_mut_ptr(), forever) };
        &events[..check(read).expect("io_getevents: nobody interrupts")]
    }
}

impl Aio {
    /// As [`reap`](Self::reap), but takes what is in the context's ring by itself, as QEMU does, and enters the kernel
    /// only to wait for more.
    ///
    /// # Safety
    ///
    /// 1. Nobody else reaps meanwhile.
    #[inline]
    pub unsafe fn reap_mapped<'a>(&self, events: &'a mut Vec<Event>, min: usize) -> &'a [Event] {
        events.clear();
        loop {
            // SAFETY: 1. as here.
            unsafe { self.take(events) };
            if events.len() >= min {
                return events;
            }
            // What the kernel reads for us it takes out of the ring as well.
            let (before, left) = (events.len(), min - events.len());
            events.resize(READ, Event::default());
            let forever = ptr::null_mut::<libc::timespec>();
            let room = &mut events[before..];
            // SAFETY: the context is ours; there is so much room for events; no timeout is given.
            let read = unsafe {
                libc::syscall(libc::SYS_io_getevents, self.0, left, room.len(), room.as_mut_ptr(), forever)
            };
            events.truncate(before + check(read).expect("io_getevents: nobody interrupts"));
        }
    }

    /// Whether the ring is laid out as it was when this was written.
    pub fn is_mapped(&self) -> bool {
        const MAGIC: u32 = 0xa10a_10a1;
        let header = ptr::with_exposed_provenance::<Header>(self.0 as usize);
        // SAFETY: the number of a context is where the kernel has mapped its ring, until it is destroyed.
        unsafe { (*header).magic == MAGIC && (*header).length as usize == size_of::<Header>() }
    }

    /// Moves what is in the ring to `events`, up to [`READ`] of them.
    ///
    /// # Safety
    ///
    /// 1. Nobody else reaps meanwhile.
    #[inline]
    unsafe fn take(&self, events: &mut Vec<Event>) {
        let header = ptr::with_exposed_provenance::<Header>(self.0 as usize);
        // SAFETY: the number of a context is where the kernel has mapped its ring, until it is destroyed. The kernel
        // writes the tail, and beside us nobody the head, by 1.
        let Header { slots, head, tail, .. } = unsafe { &*header };
        // Relaxed: only we write it. Acquire: the events before the tail are there.
        let (mut at, tail) = (head.load(Relaxed), tail.load(Acquire));
        while at != tail && events.len() < READ {
            // SAFETY: behind the header there are so many slots; those between head and tail have been written.
            events.push(unsafe { *header.add(1).cast::<Event>().add(at as usize) });
            at = if at + 1 == *slots { 0 } else { at + 1 };
        }
        // Release: the kernel may write to the slots before it.
        head.store(at, Release);
    }
}

/// The head of a ring: `struct aio_ring`.
#[repr(C)]
struct Header {
    id: u32,
    slots: u32,
    head: AtomicU32,
    tail: AtomicU32,
    magic: u32,
    features: [u32; 2],
    /// Of this.
    length: u32,
}

impl Drop for Aio {
    fn drop(&mut self) {
        // SAFETY: the context is ours and is not used again. Waits for what is in flight.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

/// The result of a system call as a count or an error.
fn check(returned: libc::c_long) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}
