//! [`CachePadded`].

use std::ops::{Deref, DerefMut};

/// A value on cache lines of its own.
///
/// Aligned to 128 bytes: today's x86 prefetches lines in pairs, and Apple's ARM cores have lines of 128
/// bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(128))]
pub struct CachePadded<T>(T);

impl<T> CachePadded<T> {
    /// Pads `value`.
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// Where the value is, of one that must not be borrowed.
    #[inline(always)]
    pub const fn raw_get(this: *const Self) -> *const T {
        this.cast()
    }

    /// Gives the value back.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for CachePadded<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for CachePadded<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

const _: () = assert!(size_of::<CachePadded<u8>>() == 128 && align_of::<CachePadded<u8>>() == 128);
