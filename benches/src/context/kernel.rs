//! The kernel's own asynchronous I/O, by its system calls: reads of `/dev/null`.

use super::{CAPACITY, Context, READ};
use ioctx::ring::Event;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::{io, ptr};

/// A context of the kernel.
#[derive(Debug)]
pub struct KernelAio {
    id: libc::c_ulong,
    null: File,
    /// What is read into, by all: nothing is ever read.
    buffer: Box<[u8; BUFFER]>,
}

const BUFFER: usize = 4096;
const PREAD: u16 = 0;

/// `struct iocb` of a little-endian machine; the kernel's header swaps `key` and `rw_flags`, both 0 here,
/// on others.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
struct Iocb {
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

/// The request blocks of a submitter, and the pointers to them that `io_submit` wants.
#[derive(Debug, Default)]
pub struct Blocks {
    blocks: Vec<Iocb>,
    pointers: Vec<*const Iocb>,
}

impl Context for KernelAio {
    type Submitter = Blocks;
    /// Laid out like `struct io_event`.
    type Reaper = Vec<Event>;

    fn open() -> io::Result<Self> {
        let null = File::open("/dev/null")?;
        let mut id: libc::c_ulong = 0;
        // SAFETY: `id` is valid for writes, and 0 as it has to be.
        check(unsafe { libc::syscall(libc::SYS_io_setup, CAPACITY, &raw mut id) })?;
        Ok(Self { id, null, buffer: Box::new([0; BUFFER]) })
    }

    #[inline]
    fn submit(&self, Blocks { blocks, pointers }: &mut Blocks, first: u64, count: usize) -> usize {
        blocks.clear();
        blocks.extend((first..).take(count).map(|number| Iocb {
            data: number,
            opcode: PREAD,
            file: self.null.as_raw_fd() as u32,
            buffer: self.buffer.as_ptr().expose_provenance() as u64,
            bytes: BUFFER as u64,
            ..Iocb::default()
        }));
        pointers.clear();
        pointers.extend(blocks.iter().map(ptr::from_ref));
        // SAFETY: `id` is ours; `pointers` has `count` pointers to blocks, which the kernel copies before
        // it returns. The file and the buffer outlive the context. The kernel never writes to the buffer:
        // reading `/dev/null` finds the end of the file.
        let accepted = unsafe { libc::syscall(libc::SYS_io_submit, self.id, count, pointers.as_ptr()) };
        match check(accepted) {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("io_submit: {error}"),
        }
    }

    #[inline]
    fn reap(&self, events: &mut Vec<Event>, min: usize, mut each: impl FnMut(u64)) -> usize {
        events.resize(READ, Event::default());
        let forever = ptr::null_mut::<libc::timespec>();
        // SAFETY: `id` is ours; `events` is valid for writes of `READ` events; no timeout is given.
        let read = unsafe {
            libc::syscall(libc::SYS_io_getevents, self.id, min, READ, events.as_mut_ptr(), forever)
        };
        let read = check(read).expect("io_getevents: nobody interrupts");
        for event in &events[..read] {
            assert!(event.res == 0, "reading `/dev/null` finds the end of the file");
            each(event.data);
        }
        read
    }
}

impl Drop for KernelAio {
    fn drop(&mut self) {
        // SAFETY: `id` is ours and is not used again. Waits for what is in flight, so that file and buffer
        // may go.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.id) };
    }
}

/// The result of a system call as a count or an error.
fn check(returned: libc::c_long) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}
