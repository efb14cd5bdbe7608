//! Memory that requests own: [`Buffer`], [`BufferMut`], and what they can be made of: [`IoBuf`],
//! [`IoBufMut`].

#[cfg(test)]
mod tests;

use crate::sync::SharedBytes;
use std::any::{TypeId, type_name};
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};
use std::{fmt, slice};

/// What an owner of bytes is taken apart into, and put together from: see [`IoBuf`].
#[derive(Clone, Copy, Debug)]
pub struct RawBuffer {
    /// The first byte.
    pub ptr: NonNull<u8>,
    /// How many bytes.
    pub len: usize,
    /// What else the owner needs to come back: a capacity, a place in a pool, a pointer to something boxed.
    pub owner: *mut (),
}

/// An owner of bytes that a request can carry: writes read them.
///
/// It is taken apart into three words when it becomes a [`Buffer`], and put together when it comes back or
/// is dropped. What does not fit in them is boxed by the implementation.
///
/// # Safety
///
/// 1. [`into_raw`](Self::into_raw) points to `len` initialised bytes, at most `isize::MAX`, of one
///    allocation. Until `from_raw` they stay where they are, any thread may read them, and nobody writes
///    them but through that pointer.
/// 2. [`from_raw`](Self::from_raw) makes of them an owner as good as the one that was taken apart, on any
///    thread.
///
/// # Examples
///
/// Blocks of a pool, which go back there however their requests end:
///
/// ```
/// use ioctx::aio::{IoBuf, IoBufMut, RawBuffer, Request};
/// use std::ptr::NonNull;
/// use std::sync::{Arc, Mutex};
///
/// type Pool = Mutex<Vec<Box<[u8; 4096]>>>;
///
/// struct Block {
///     bytes: Option<Box<[u8; 4096]>>,
///     pool: Arc<Pool>,
/// }
///
/// impl Drop for Block {
///     fn drop(&mut self) {
///         self.pool.lock().unwrap().extend(self.bytes.take());
///     }
/// }
///
/// // SAFETY: 1. the bytes are in a box of their own, which nobody touches while the block is apart. 2. it
/// // is the same block again, and `Send`.
/// unsafe impl IoBuf for Block {
///     fn into_raw(self) -> RawBuffer {
///         let mut block = Box::new(self);
///         let ptr = NonNull::from(&mut **block.bytes.as_mut().unwrap()).cast();
///         RawBuffer { ptr, len: 4096, owner: Box::into_raw(block).cast() }
///     }
///
///     unsafe fn from_raw(raw: RawBuffer) -> Self {
///         // SAFETY: boxed in `into_raw`.
///         *unsafe { Box::from_raw(raw.owner.cast::<Self>()) }
///     }
/// }
///
/// // SAFETY: 1. made from an exclusive reference.
/// unsafe impl IoBufMut for Block {}
///
/// let pool = Arc::new(Pool::default());
/// let block = Block { bytes: Some(Box::new([0; 4096])), pool: pool.clone() };
/// let request = Request::read(std::fs::File::open("/dev/null")?, block, 0);
/// drop(request);
/// assert_eq!(pool.lock().unwrap().len(), 1);
/// # std::io::Result::Ok(())
/// ```
pub unsafe trait IoBuf: Send + Sized + 'static {
    /// Takes it apart. Dropping the result leaks.
    fn into_raw(self) -> RawBuffer;

    /// Puts it together.
    ///
    /// # Safety
    ///
    /// 1. `raw` is from [`into_raw`](Self::into_raw) of this type, and is not used again.
    unsafe fn from_raw(raw: RawBuffer) -> Self;
}

/// An [`IoBuf`] that reads may write to.
///
/// # Safety
///
/// 1. Through the pointer from [`into_raw`](IoBuf::into_raw) the bytes may be written, and nobody else
///    accesses them until [`from_raw`](IoBuf::from_raw).
pub unsafe trait IoBufMut: IoBuf {}

// SAFETY: 1. the bytes are initialised up to the length, on the heap and nobody else's. 2. the same parts.
unsafe impl IoBuf for Vec<u8> {
    #[inline]
    fn into_raw(self) -> RawBuffer {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: a vector's pointer is never null.
        let ptr = unsafe { NonNull::new_unchecked(this.as_mut_ptr()) };
        RawBuffer { ptr, len: this.len(), owner: ptr::without_provenance_mut(this.capacity()) }
    }

    #[inline]
    unsafe fn from_raw(raw: RawBuffer) -> Self {
        // SAFETY: the parts of a vector.
        unsafe { Vec::from_raw_parts(raw.ptr.as_ptr(), raw.len, raw.owner.addr()) }
    }
}

// SAFETY: 1. exclusive.
unsafe impl IoBufMut for Vec<u8> {}

// SAFETY: 1. the bytes are on the heap and nobody else's. 2. the same parts.
unsafe impl IoBuf for Box<[u8]> {
    fn into_raw(self) -> RawBuffer {
        let len = self.len();
        // SAFETY: a box's pointer is never null.
        let ptr = unsafe { NonNull::new_unchecked(Box::into_raw(self).cast()) };
        RawBuffer { ptr, len, owner: ptr::null_mut() }
    }

    unsafe fn from_raw(raw: RawBuffer) -> Self {
        // SAFETY: the parts of a box.
        unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(raw.ptr.as_ptr(), raw.len)) }
    }
}

// SAFETY: 1. exclusive.
unsafe impl IoBufMut for Box<[u8]> {}

// SAFETY: 1. the bytes are on the heap; nobody writes what is shared, since the count is at least one. 2.
// the same parts.
unsafe impl IoBuf for SharedBytes {
    fn into_raw(self) -> RawBuffer {
        let len = self.len();
        // SAFETY: the pointer of an `Arc` is never null.
        let ptr = unsafe { NonNull::new_unchecked(SharedBytes::into_raw(self).cast_mut().cast()) };
        RawBuffer { ptr, len, owner: ptr::null_mut() }
    }

    unsafe fn from_raw(raw: RawBuffer) -> Self {
        // SAFETY: the parts of an `Arc`.
        unsafe { SharedBytes::from_raw(ptr::slice_from_raw_parts(raw.ptr.as_ptr(), raw.len)) }
    }
}

// SAFETY: 1. nobody writes or moves what is borrowed for ever. 2. the same parts.
unsafe impl IoBuf for &'static [u8] {
    fn into_raw(self) -> RawBuffer {
        RawBuffer { ptr: NonNull::from(self).cast(), len: self.len(), owner: ptr::null_mut() }
    }

    unsafe fn from_raw(raw: RawBuffer) -> Self {
        // SAFETY: the parts of a slice.
        unsafe { slice::from_raw_parts(raw.ptr.as_ptr(), raw.len) }
    }
}

/// Memory that somebody else owns: by `from_raw_parts`.
struct Unowned(NonNull<u8>, usize);

// SAFETY: a pointer is as good on one thread as on another, and what it leads to is promised by the callers
// of `from_raw_parts`.
unsafe impl Send for Unowned {}

// SAFETY: 1. promised by the callers of `from_raw_parts`. 2. nothing is owned.
unsafe impl IoBuf for Unowned {
    fn into_raw(self) -> RawBuffer {
        RawBuffer { ptr: self.0, len: self.1, owner: ptr::null_mut() }
    }

    unsafe fn from_raw(raw: RawBuffer) -> Self {
        Self(raw.ptr, raw.len)
    }
}

/// What is known of an owner that was taken apart.
struct Kind {
    // By functions, since neither is constant in the Rust that is promised to do.
    type_id: fn() -> TypeId,
    name: fn() -> &'static str,
    /// # Safety
    ///
    /// As [`IoBuf::from_raw`].
    drop: unsafe fn(RawBuffer),
}

impl Kind {
    fn of<T: IoBuf>() -> &'static Self {
        const { &Self { type_id: TypeId::of::<T>, name: type_name::<T>, drop: drop_as::<T> } }
    }
}

/// # Safety
///
/// As [`IoBuf::from_raw`] of this type.
unsafe fn drop_as<T: IoBuf>(raw: RawBuffer) {
    // SAFETY: 1. the caller's.
    drop(unsafe { T::from_raw(raw) });
}

/// Bytes to be written, of any owner: a `Vec<u8>`, a `Box<[u8]>`, an `Arc<[u8]>`, a `&'static [u8]`, an
/// [`AlignedBuffer`](super::AlignedBuffer), whatever else is an [`IoBuf`], or memory of others.
///
/// Made from its owner by [`From`], and made into it again by [`downcast`](Self::downcast); the bytes do not
/// move and nothing is allocated. Neither waits.
///
/// # Examples
///
/// ```
/// use ioctx::aio::Buffer;
/// let buffer = Buffer::from(b"text".to_vec());
/// assert_eq!(&buffer[..], b"text");
/// let buffer = buffer.downcast::<Box<[u8]>>().unwrap_err();
/// assert_eq!(buffer.downcast::<Vec<u8>>().unwrap(), b"text");
/// ```
pub struct Buffer {
    raw: RawBuffer,
    kind: &'static Kind,
}

// SAFETY: every `IoBuf` is `Send`.
unsafe impl Send for Buffer {}
// SAFETY: a shared buffer gives the bytes to read and nothing else, which any thread may by 1. of `IoBuf`;
// the owner itself need not be `Sync`.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Memory that stays somebody else's.
    ///
    /// # Safety
    ///
    /// 1. `ptr` is not null and leads to `len` initialised bytes of one allocation, at most `isize::MAX`.
    /// 2. Until the buffer is dropped they stay there and nobody writes them. A buffer goes where its request
    ///    goes, and comes back with its event: once that has been handed over, not using the buffer any more
    ///    is as good as dropping it. A request that is leaked on its way keeps its memory for ever.
    pub unsafe fn from_raw_parts(ptr: *const u8, len: usize) -> Self {
        // SAFETY: 1.
        Self::from(unsafe { Unowned(NonNull::new_unchecked(ptr.cast_mut()), len) })
    }

    /// Its owner, if it is a `T`; itself if not.
    ///
    /// # Errors
    ///
    /// The buffer, which was made of something else.
    pub fn downcast<T: IoBuf>(self) -> Result<T, Self> {
        if self.is::<T>() {
            let this = ManuallyDrop::new(self);
            // SAFETY: 1. from this type's `into_raw`, and not used again.
            return Ok(unsafe { T::from_raw(this.raw) });
        }
        Err(self)
    }

    /// Whether its owner is a `T`.
    pub fn is<T: IoBuf>(&self) -> bool {
        (self.kind.type_id)() == TypeId::of::<T>()
    }
}

impl<T: IoBuf> From<T> for Buffer {
    #[inline]
    fn from(owner: T) -> Self {
        Self { raw: owner.into_raw(), kind: Kind::of::<T>() }
    }
}

impl From<BufferMut> for Buffer {
    fn from(buffer: BufferMut) -> Self {
        buffer.0
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: 1. of `IoBuf`; whoever writes them has a `BufferMut` borrowed exclusively.
        unsafe { slice::from_raw_parts(self.raw.ptr.as_ptr(), self.raw.len) }
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: 1. from the `into_raw` of the type whose kind this is, and not used again.
        unsafe { (self.kind.drop)(self.raw) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the bytes: there may be millions.
        f.debug_struct("Buffer").field("owner", &(self.kind.name)()).field("len", &self.len()).finish()
    }
}

/// Bytes to be read into, of any owner that gives them up: as [`Buffer`], but for what is shared.
///
/// ```compile_fail,E0277
/// // Whoever shares these bytes would see them change.
/// ioctx::aio::BufferMut::from(std::sync::Arc::<[u8]>::from([0; 4]));
/// ```
pub struct BufferMut(Buffer);

impl BufferMut {
    /// Memory that stays somebody else's.
    ///
    /// # Safety
    ///
    /// 1. As 1. of [`Buffer::from_raw_parts`]; and the bytes may be written.
    /// 2. As 2. there; and nobody else reads them either.
    pub unsafe fn from_raw_parts(ptr: *mut u8, len: usize) -> Self {
        // SAFETY: 1. and 2.
        Self(unsafe { Buffer::from_raw_parts(ptr, len) })
    }

    /// Its owner, if it is a `T`; itself if not.
    ///
    /// # Errors
    ///
    /// The buffer, which was made of something else.
    pub fn downcast<T: IoBuf>(self) -> Result<T, Self> {
        self.0.downcast().map_err(Self)
    }

    /// Whether its owner is a `T`.
    pub fn is<T: IoBuf>(&self) -> bool {
        self.0.is::<T>()
    }
}

impl<T: IoBufMut> From<T> for BufferMut {
    #[inline]
    fn from(owner: T) -> Self {
        Self(Buffer::from(owner))
    }
}

impl Deref for BufferMut {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for BufferMut {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: by 1. of `IoBufMut` they may be written and are nobody else's; we are borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.0.raw.ptr.as_ptr(), self.0.raw.len) }
    }
}

impl fmt::Debug for BufferMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
