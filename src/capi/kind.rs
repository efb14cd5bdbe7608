//! What is known of descriptors: which of them may be used in the caller's thread, and how.

use super::abi::{Errno, check, errno};
use crate::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;

/// The `RWF_` flags there are, up to `RWF_DONTCACHE`.
const KNOWN_FLAGS: i32 = 0xff;
/// Of those, the ones that some files refuse: `RWF_NOWAIT`, `RWF_ATOMIC`, `RWF_DONTCACHE`.
pub(super) const NOT_EVERYWHERE: i32 = 0x8 | 0x40 | 0x80;

/// How a file is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Through the page cache, at an offset.
    Cached,
    /// Past the page cache (`O_DIRECT`).
    Direct,
    /// Without offsets: pipes, sockets, terminals.
    Stream,
    /// A stream that is only read, and gives nothing to who has no room for a number: eventfds, timers and the like.
    Special,
    /// Neither.
    Directory,
}

/// How many descriptors each thread remembers, and for how many requests. The kind is a hint only, since a descriptor
/// may be another file's by now: what was cached and is no more is told by the system call, which names the offset.
const REMEMBERED: usize = 64;
const USES: u32 = 64;

/// Whether there is one among the flags that the kernel does not know.
#[inline]
pub(super) fn are_unknown(flags: i32) -> bool {
    flags & !KNOWN_FLAGS != 0 && flags & !known_flags() != 0
}

/// With those that this kernel has besides.
#[cold]
fn known_flags() -> i32 {
    static KNOWN: AtomicU32 = AtomicU32::new(0);
    // Relaxed twice: whoever asks is told the same, and nobody waits for another, who may be left behind by a fork.
    match KNOWN.load(Relaxed) {
        0 => {}
        known => return known as i32,
    }
    // SAFETY: a name; a file of our own that is empty, and a byte of ours that is not written therefore.
    let known = unsafe {
        let empty = libc::memfd_create(c"flags".as_ptr(), libc::MFD_CLOEXEC);
        let mut byte = 0_u8;
        let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let is_known = |flag: &i32| libc::preadv2(empty, &part, 1, 0, *flag) == 0;
        let known = (8..32).map(|bit| 1 << bit).filter(is_known).sum::<i32>() | KNOWN_FLAGS;
        libc::close(empty);
        known
    };
    KNOWN.store(known as u32, Relaxed);
    known
}

thread_local! {
    static MET: [Cell<(i32, Kind, u32)>; REMEMBERED] =
        const { [const { Cell::new((-1, Kind::Cached, 0)) }; REMEMBERED] };
}

/// The kind of a descriptor, as it was some requests ago.
#[inline]
pub(super) fn of(fd: i32) -> Result<Kind, Errno> {
    MET.with(|met| {
        let place = &met[fd as usize % REMEMBERED];
        let (known, kind, uses) = place.get();
        if known == fd && uses > 0 && is_still(fd, kind) {
            place.set((fd, kind, uses - 1));
            return Ok(kind);
        }
        let kind = look(fd)?;
        place.set((fd, kind, USES));
        Ok(kind)
    })
}

/// Whether what was remembered may be gone by. Without an offset a file would be read and written wherever it is: so a
/// stream has to be one still.
#[inline]
fn is_still(fd: i32, kind: Kind) -> bool {
    match kind {
        Kind::Cached => true,
        // Otherwise a request would wait in the caller that does not have to.
        Kind::Direct => flags(fd).is_ok_and(|flags| flags & libc::O_DIRECT != 0),
        Kind::Stream => {
            // SAFETY: moves nothing.
            let at = unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) };
            at < 0 && errno() == libc::ESPIPE
        }
        Kind::Special | Kind::Directory => false,
    }
}

/// Has the next one look again.
#[cold]
pub(super) fn forget(fd: i32) {
    MET.with(|met| met[fd as usize % REMEMBERED].set((-1, Kind::Cached, 0)));
}

/// The kind of a descriptor, as it is.
///
/// # Errors
///
/// `EBADF`.
#[cold]
pub(super) fn look(fd: i32) -> Result<Kind, Errno> {
    look_with(fd, flags(fd)?)
}

/// Whether it is [`Kind::Cached`] now, and open for reading.
pub(super) fn is_cached_for_reads(fd: i32) -> bool {
    flags(fd).is_ok_and(|flags| {
        flags & libc::O_ACCMODE != libc::O_WRONLY && look_with(fd, flags) == Ok(Kind::Cached)
    })
}

fn look_with(fd: i32, flags: i32) -> Result<Kind, Errno> {
    let direct = flags & libc::O_DIRECT != 0;
    Ok(match stat(fd)?.st_mode & libc::S_IFMT {
        libc::S_IFREG | libc::S_IFBLK if direct => Kind::Direct,
        libc::S_IFREG | libc::S_IFBLK => Kind::Cached,
        libc::S_IFDIR => Kind::Directory,
        // Devices may have offsets or not.
        // SAFETY: moves nothing.
        libc::S_IFCHR if unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) } >= 0 => Kind::Cached,
        0 => Kind::Special,
        _ => Kind::Stream,
    })
}

/// Whether it says by itself that nothing is there, rather than wait.
#[cold]
pub(super) fn is_nonblocking(fd: i32) -> bool {
    flags(fd).is_ok_and(|flags| flags & libc::O_NONBLOCK != 0)
}

fn flags(fd: i32) -> Result<i32, Errno> {
    // SAFETY: has no conditions.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) } as isize)? as i32;
    if flags & libc::O_PATH != 0 { Err(libc::EBADF) } else { Ok(flags) }
}

fn stat(fd: i32) -> Result<libc::stat, Errno> {
    let mut stat = MaybeUninit::uninit();
    // SAFETY: room for one.
    match unsafe { libc::fstat(fd, stat.as_mut_ptr()) } {
        // SAFETY: written.
        0 => Ok(unsafe { stat.assume_init() }),
        _ => Err(errno()),
    }
}

/// Whether it is known that there is nothing to read beyond `end`. Sizes of devices are not told, and a character
/// device may give less than there is to who must not wait.
#[cold]
pub(super) fn ends_at(fd: i32, end: u64) -> bool {
    stat(fd).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG && end >= stat.st_size as u64)
}

/// Whether there is anything that it could be synchronised with.
pub(super) fn can_sync(fd: i32) -> bool {
    stat(fd).is_ok_and(|stat| match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG | libc::S_IFBLK | libc::S_IFDIR => true,
        // Drivers of devices may know what that is.
        // SAFETY: has no conditions.
        libc::S_IFCHR => unsafe { libc::fsync(fd) == 0 },
        _ => false,
    })
}

/// Whether it is the file that refuses these flags, and not what is done to it.
#[cold]
pub(super) fn refuses(fd: i32, flags: i32, offset: i64) -> bool {
    let mut byte = 0_u8;
    let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: room for a byte. Of files with offsets nothing is taken away by that.
    let refuses = || unsafe { libc::preadv2(fd, &part, 1, offset.max(0), libc::RWF_NOWAIT) } < 0;
    match flags & NOT_EVERYWHERE {
        0 => false,
        libc::RWF_NOWAIT => refuses() && errno() == libc::EOPNOTSUPP,
        _ => true,
    }
}

/// `EBADF` for what is not open.
pub(super) fn check_open(fd: i32) -> Result<(), Errno> {
    flags(fd).map(drop)
}

/// `EBADF` for what is not open in the right mode.
pub(super) fn check_access(fd: i32, writes: bool) -> Result<(), Errno> {
    let wrong = if writes { libc::O_RDONLY } else { libc::O_WRONLY };
    if flags(fd)? & libc::O_ACCMODE == wrong { Err(libc::EBADF) } else { Ok(()) }
}

/// `EBADF` for what is not open, `EINVAL` for what is no eventfd.
pub(super) fn check_eventfd(fd: i32) -> Result<(), Errno> {
    check_open(fd)?;
    let zero = ptr::from_ref(&0_u64).cast();
    // Files that have no type of their own, of which an eventfd is the only one to which 0 can be written; it means
    // nothing there.
    // SAFETY: eight bytes of ours.
    if stat(fd)?.st_mode & libc::S_IFMT == 0 && unsafe { libc::write(fd, zero, 8) } == 8 {
        return Ok(());
    }
    Err(libc::EINVAL)
}

/// Whether the process may use an I/O priority: `EINVAL`, `EPERM`.
pub(super) fn check_priority(priority: i16) -> Result<(), Errno> {
    let bits = priority as u16;
    match (bits >> 13, bits & 7) {
        // Real time is for those who are allowed to have it: asked for this thread, and put back.
        (1, _) => {
            // SAFETY: has no conditions. IOPRIO_WHO_PROCESS, this thread.
            let before = check(unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) } as isize)?;
            // SAFETY: as above.
            check(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, i32::from(bits)) } as isize)?;
            // SAFETY: as above.
            check(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, before) } as isize)?;
            Ok(())
        }
        (0, 0) | (2 | 3, _) => Ok(()),
        _ => Err(libc::EINVAL),
    }
}
