//! What the kernel has looked up beforehand: [`RegisteredBuffer`], and files.

use super::ring::Ring;
use crate::aio::{AlignedBuffer, FileRef, IoBuf, IoBufMut, RawBuffer};
use crate::credits::Tags;
use crate::sync::SharedFile;
use io_uring::squeue::Flags;
use io_uring::types::Fd;
use rustix::io::Errno;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::{fmt, io, slice};

/// The kernel pins whole pages.
const PAGE: usize = 4096;
/// More the kernel does not take in one piece.
const MOST: usize = 1 << 30;

/// What is registered with every ring.
#[derive(Debug, Default)]
pub(super) struct Registered {
    /// By number. Kept open, so that whatever file has such a number is the one that was registered.
    files: Vec<(RawFd, u32)>,
    open: Vec<SharedFile>,
    buffers: Option<Arc<Region>>,
}

impl Registered {
    /// Registers files with the first ring.
    pub(super) fn add_files(&mut self, ring: &Ring, files: Vec<SharedFile>) -> io::Result<()> {
        let numbers: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
        ring.io().submitter().register_files(&numbers)?;
        self.files = numbers.into_iter().zip(0..).collect();
        self.files.sort_unstable();
        self.open = files;
        Ok(())
    }

    /// Registers new buffers with the first ring.
    pub(super) fn add_buffers(&mut self, ring: &Ring, count: u32, len: usize) -> io::Result<()> {
        let region = Region::new(count, len)?;
        region.register(ring)?;
        self.buffers = Some(Arc::new(region));
        Ok(())
    }

    /// Registers all of it with a ring that was made later; returns whether that took it.
    pub(super) fn with(&self, ring: &Ring) -> bool {
        let mut numbers = vec![-1; self.files.len()];
        self.files.iter().for_each(|(number, index)| numbers[*index as usize] = *number);
        (numbers.is_empty() || ring.io().submitter().register_files(&numbers).is_ok())
            && self.buffers.as_ref().is_none_or(|region| region.register(ring).is_ok())
    }

    /// What an entry says of the file: its index, if it is registered.
    #[inline]
    pub(super) fn place(&self, file: &FileRef) -> (Fd, Flags) {
        let number = file.as_fd().as_raw_fd();
        if self.files.is_empty() {
            return (Fd(number), Flags::empty());
        }
        match self.files.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(place) => (Fd(self.files[place].1 as i32), Flags::FIXED_FILE),
            Err(_) => (Fd(number), Flags::empty()),
        }
    }

    /// Whether all of these bytes are registered.
    #[inline]
    pub(super) fn has(&self, bytes: &[u8]) -> bool {
        self.buffers.as_ref().is_some_and(|region| region.has(bytes))
    }

    /// A buffer, if one is free.
    pub(super) fn buffer(&self) -> Option<RegisteredBuffer> {
        let region = self.buffers.as_ref()?;
        let index = region.free.take_raw().ok()?;
        // SAFETY: within the memory, since there are as many tags as buffers.
        let ptr = unsafe { region.first.add(index as usize * region.len) };
        Some(RegisteredBuffer { ptr, region: Arc::clone(region) })
    }
}

/// The memory of all buffers.
struct Region {
    /// Only an owner: all access is by `first`.
    memory: AlignedBuffer,
    first: NonNull<u8>,
    /// Of each buffer.
    len: usize,
    free: Tags,
}

// SAFETY: the bytes are reached by whoever has the buffer's tag.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn new(count: u32, len: usize) -> io::Result<Self> {
        let size = len.checked_mul(count as usize).filter(|size| (1..=MOST).contains(size));
        let size = size.ok_or(Errno::INVAL)?;
        let mut memory = AlignedBuffer::new(size, PAGE).map_err(|_| Errno::NOMEM)?;
        let first = NonNull::from(&mut *memory).cast();
        Ok(Self { memory, first, len, free: Tags::new(count) })
    }

    fn register(&self, ring: &Ring) -> io::Result<()> {
        let all = libc::iovec { iov_base: self.first.as_ptr().cast(), iov_len: self.memory.len() };
        // SAFETY: the memory is valid; the kernel holds on to its pages by itself, and touches them only for requests,
        // whose buffers keep the memory.
        unsafe { ring.io().submitter().register_buffers(&[all]) }
    }

    fn has(&self, bytes: &[u8]) -> bool {
        let begin = (bytes.as_ptr().addr()).wrapping_sub(self.first.addr().get());
        begin < self.memory.len() && bytes.len() <= self.memory.len() - begin
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region").field("len", &self.len).field("free", &self.free).finish_non_exhaustive()
    }
}

/// A buffer that the kernel has pinned: what a request reads into it or writes from it needs no look-up of its pages. Of
/// [`Uring::buffer`](super::Uring::buffer); goes back when it is dropped. As a [`Buffer`](crate::aio::Buffer) or
/// [`BufferMut`](crate::aio::BufferMut) it comes back with the event.
///
/// Other backends, and another `Uring`, use it as any memory. It keeps the memory of all buffers.
pub struct RegisteredBuffer {
    ptr: NonNull<u8>,
    region: Arc<Region>,
}

// SAFETY: the bytes are this one's alone.
unsafe impl Send for RegisteredBuffer {}
// SAFETY: shared, they can only be read.
unsafe impl Sync for RegisteredBuffer {}

impl Deref for RegisteredBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes, initialised when the memory was made; ours by the tag.
        unsafe { slice::from_raw_parts(self.ptr.as_ptr(), self.region.len) }
    }
}

impl DerefMut for RegisteredBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; the borrow is exclusive.
        unsafe { slice::from_raw_parts_mut(self.ptr.as_ptr(), self.region.len) }
    }
}

impl Drop for RegisteredBuffer {
    fn drop(&mut self) {
        let begin = self.ptr.addr().get() - self.region.first.addr().get();
        self.region.free.put_raw((begin / self.region.len) as u32);
    }
}

// SAFETY: 1. the bytes are initialised, and nobody else's until the tag is put; the memory stays, by the owner. 2. it is
// the same buffer again, and `Send`.
unsafe impl IoBuf for RegisteredBuffer {
    fn into_raw(self) -> RawBuffer {
        let this = ManuallyDrop::new(self);
        // SAFETY: read once, since `this` is not dropped.
        let region = unsafe { std::ptr::read(&this.region) };
        RawBuffer { ptr: this.ptr, len: region.len, owner: Arc::into_raw(region).cast_mut().cast() }
    }

    unsafe fn from_raw(raw: RawBuffer) -> Self {
        // SAFETY: 1. from `into_raw`.
        let region = unsafe { Arc::from_raw(raw.owner.cast_const().cast::<Region>()) };
        Self { ptr: raw.ptr, region }
    }
}

// SAFETY: 1. the pointer comes from that of the whole memory, which may be written.
unsafe impl IoBufMut for RegisteredBuffer {}

impl fmt::Debug for RegisteredBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisteredBuffer").field("len", &self.region.len).finish_non_exhaustive()
    }
}
