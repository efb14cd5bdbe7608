//! The file of a request: [`FileRef`].

use crate::sync::SharedFile;
use std::fmt;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

#[cfg(ioctx_linux)]
use std::sync::Weak;

#[cfg(unix)]
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// An open file that a request keeps open: its own, a shared one, or, by an `unsafe` form, a descriptor that
/// somebody else keeps open.
///
/// Made from a `File` or an `OwnedFd`, which allocates, or from an `Arc<File>`, which does not. Sockets and
/// pipes are files as well: `OwnedFd::from(stream)`.
///
/// # Examples
///
/// ```
/// use ioctx::aio::FileRef;
/// let file = std::sync::Arc::new(std::fs::File::open("/dev/null")?);
/// let shared = FileRef::from(file.clone());
/// assert_eq!(shared.with_file(|file| file.metadata())?.len(), 0);
/// assert!(std::sync::Arc::ptr_eq(&shared.into_shared().unwrap(), &file));
/// # std::io::Result::Ok(())
/// ```
pub struct FileRef {
    /// One word, so that requests stay small:
    ///
    /// | lowest bit | the others |
    /// |---|---|
    /// | 0 | what `SharedFile::into_raw` gave, and a reference of it |
    /// | 1 | the number of a descriptor that is not ours, which is never −1 |
    word: NonNull<File>,
}

// The lowest bit of a pointer to a file is free.
const _: () = assert!(align_of::<File>() >= 2);

// SAFETY: `Arc<File>` is `Send`, and a number too.
unsafe impl Send for FileRef {}
// SAFETY: `Arc<File>` is `Sync`, and a number too.
unsafe impl Sync for FileRef {}

#[cfg(unix)]
impl FileRef {
    /// A descriptor that somebody else keeps open.
    ///
    /// # Safety
    ///
    /// 1. It stays open, and the same file, until this is dropped. It goes where its request goes, and comes
    ///    back with its event: once that has been handed over, not using it any more is as good as dropping
    ///    it.
    pub unsafe fn borrowed(fd: BorrowedFd<'_>) -> Self {
        // No system has 2³⁰ descriptors, so that even 32 bits hold one more bit. Not null: it is odd.
        let word = std::ptr::without_provenance_mut((fd.as_raw_fd() as usize) << 1 | 1);
        // SAFETY: as above.
        Self { word: unsafe { NonNull::new_unchecked(word) } }
    }

    /// The number, if it is a descriptor that is not ours.
    fn number(&self) -> Option<RawFd> {
        // Shifted with its sign.
        let number = (self.word.as_ptr().addr().cast_signed() >> 1) as RawFd;
        (!self.is_shared()).then_some(number)
    }
}

impl FileRef {
    fn is_shared(&self) -> bool {
        self.word.as_ptr().addr() & 1 == 0
    }

    /// Calls `call` with it.
    pub fn with_file<R>(&self, call: impl FnOnce(&File) -> R) -> R {
        #[cfg(unix)]
        if let Some(number) = self.number() {
            // SAFETY: open by 1. of `borrowed`. Not owned, and so not closed.
            return call(&ManuallyDrop::new(unsafe { File::from_raw_fd(number) }));
        }
        // SAFETY: our reference keeps it.
        call(unsafe { self.word.as_ref() })
    }

    /// What tells this file from others, whatever their numbers: kept, no other file comes to be at its address. `None`
    /// if it is not ours.
    #[cfg(ioctx_linux)]
    pub(crate) fn identity(&self) -> Option<Weak<File>> {
        // SAFETY: from `into_raw`, and the reference stays ours.
        let file = |file: *const File| ManuallyDrop::new(unsafe { SharedFile::from_raw(file) });
        self.is_shared().then(|| SharedFile::downgrade(&file(self.word.as_ptr())))
    }

    /// Whether this is the file of that identity.
    #[cfg(ioctx_linux)]
    pub(crate) fn is(&self, identity: &Weak<File>) -> bool {
        self.word.as_ptr().cast_const() == identity.as_ptr()
    }

    /// The file; itself if it is a descriptor that somebody else keeps open.
    ///
    /// # Errors
    ///
    /// Itself, then.
    pub fn into_shared(self) -> Result<SharedFile, Self> {
        if self.is_shared() {
            // SAFETY: from `into_raw`, with the reference, which is not used again.
            return Ok(unsafe { SharedFile::from_raw(ManuallyDrop::new(self).word.as_ptr()) });
        }
        Err(self)
    }
}

impl From<SharedFile> for FileRef {
    #[inline]
    fn from(file: SharedFile) -> Self {
        // SAFETY: the pointer of an `Arc` is never null. It is aligned, so that its lowest bit is 0.
        Self { word: unsafe { NonNull::new_unchecked(SharedFile::into_raw(file).cast_mut()) } }
    }
}

impl From<File> for FileRef {
    fn from(file: File) -> Self {
        SharedFile::new(file).into()
    }
}

#[cfg(unix)]
impl From<OwnedFd> for FileRef {
    fn from(fd: OwnedFd) -> Self {
        File::from(fd).into()
    }
}

#[cfg(unix)]
impl AsFd for FileRef {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.number() {
            // SAFETY: open by 1. of `borrowed`, and not −1.
            Some(number) => unsafe { BorrowedFd::borrow_raw(number) },
            // SAFETY: our reference keeps it.
            None => unsafe { self.word.as_ref() }.as_fd(),
        }
    }
}

impl Drop for FileRef {
    #[inline]
    fn drop(&mut self) {
        if self.is_shared() {
            // SAFETY: from `into_raw`, with the reference, which is not used again.
            drop(unsafe { SharedFile::from_raw(self.word.as_ptr()) });
        }
    }
}

impl fmt::Debug for FileRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_file(|file| file.fmt(f))
    }
}
