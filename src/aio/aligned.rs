//! [`AlignedBuffer`].

use super::{IoBuf, IoBufMut, RawBuffer};
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::{error, fmt, slice};

/// The size of a huge page, on most machines.
const HUGE: usize = 2 << 20;

/// Zeroed bytes on an aligned address: what `O_DIRECT` asks for, usually a block of the device, 512 or 4096.
///
/// Their number does not change; that it is a multiple of the block as well is up to the caller. Making one
/// allocates and zeroes, which is worth while only if it is used again and again.
///
/// # Huge pages
///
/// On Linux, whoever asks for a multiple of 2 MiB asks for huge pages, too (`MADV_HUGEPAGE`), as many as fit. The
/// system may have none. A device is told of each page by itself, and each is pinned meanwhile: direct reads of 1 MiB
/// on a virtual disk were two to three times as fast into huge ones. Several buffers in one allocation, therefore:
/// [`BufferMut::from_raw_parts`](super::BufferMut::from_raw_parts).
///
/// # Examples
///
/// ```
/// use ioctx::aio::AlignedBuffer;
/// let buffer = AlignedBuffer::new(8192, 4096)?;
/// assert!(buffer.as_ptr().addr().is_multiple_of(4096) && buffer.iter().all(|byte| *byte == 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AlignedBuffer {
    /// Allocated with `layout`, unless the length is 0.
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: owned memory.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared, it can only be read.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// `len` zeroes on an address that is a multiple of `align`.
    ///
    /// # Errors
    ///
    /// [`AlignedError`].
    ///
    /// ```
    /// use ioctx::aio::{AlignedBuffer, AlignedError};
    /// assert_eq!(AlignedBuffer::new(8192, 1000).unwrap_err(), AlignedError::Align(1000));
    /// let all = isize::MAX as usize - 4095;
    /// assert_eq!(AlignedBuffer::new(all, 4096).unwrap_err(), AlignedError::OutOfMemory(all));
    /// ```
    pub fn new(len: usize, align: usize) -> Result<Self, AlignedError> {
        if !align.is_power_of_two() {
            return Err(AlignedError::Align(align));
        }
        let layout = Layout::from_size_align(len, align).map_err(|_| AlignedError::Length { len, align })?;
        let ptr = match len {
            // Nothing is there, but on the right address.
            0 => NonNull::new(ptr::without_provenance_mut(align)),
            _ if align >= HUGE && len >= HUGE => huge(layout),
            // SAFETY: the size is not 0.
            _ => NonNull::new(unsafe { alloc_zeroed(layout) }),
        };
        Ok(Self { ptr: ptr.ok_or(AlignedError::OutOfMemory(len))?, layout })
    }

    /// What its address is a multiple of.
    pub fn align(&self) -> usize {
        self.layout.align()
    }
}

/// Zeroes in huge pages, for a layout that has room for some.
fn huge(layout: Layout) -> Option<NonNull<u8>> {
    // SAFETY: the size is not 0.
    let ptr = NonNull::new(unsafe { alloc(layout) })?;
    #[cfg(ioctx_linux)]
    {
        let whole = layout.size() - layout.size() % HUGE;
        // Before the first access, which decides. Whatever it says: the pages are small, then.
        // SAFETY: whole pages of ours; what they hold does not change by it, now or for whoever has them next.
        unsafe { libc::madvise(ptr.as_ptr().cast(), whole, libc::MADV_HUGEPAGE) };
    }
    // SAFETY: so many bytes of ours.
    unsafe { ptr.write_bytes(0, layout.size()) };
    Some(ptr)
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.ptr.as_ptr(), self.layout) }
        }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: so many bytes of ours, which were zeroed.
        unsafe { slice::from_raw_parts(self.ptr.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; we are borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.ptr.as_ptr(), self.layout.size()) }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlignedBuffer").field("len", &self.len()).field("align", &self.align()).finish()
    }
}

// SAFETY: 1. initialised, on the heap and nobody else's. 2. the same parts: the layout is that of length and
// alignment.
unsafe impl IoBuf for AlignedBuffer {
    fn into_raw(self) -> RawBuffer {
        let this = ManuallyDrop::new(self);
        RawBuffer { ptr: this.ptr, len: this.len(), owner: ptr::without_provenance_mut(this.align()) }
    }

    unsafe fn from_raw(raw: RawBuffer) -> Self {
        // SAFETY: the size and alignment of a layout.
        let layout = unsafe { Layout::from_size_align_unchecked(raw.len, raw.owner.addr()) };
        Self { ptr: raw.ptr, layout }
    }
}

// SAFETY: 1. exclusive.
unsafe impl IoBufMut for AlignedBuffer {}

/// Why there is no such buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AlignedError {
    /// The alignment asked for is no power of two.
    Align(usize),
    /// So many bytes, rounded up to the alignment, are more than `isize::MAX`.
    Length {
        /// Bytes asked for.
        len: usize,
        /// On a multiple of this.
        align: usize,
    },
    /// The allocator has not so many bytes.
    OutOfMemory(usize),
}

impl fmt::Display for AlignedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Align(align) => write!(f, "`align` must be a power of two, {align} asked for"),
            Self::Length { len, align } => {
                write!(
                    f,
                    "`len` ({len}), rounded up to `align` ({align}), is beyond isize::MAX; ask for less"
                )
            }
            Self::OutOfMemory(len) => write!(f, "there is no memory for {len} bytes; ask for less"),
        }
    }
}

impl error::Error for AlignedError {}
