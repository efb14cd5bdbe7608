//! The system calls behind [`Threads`](super::Threads).

use crate::aio::{BufferMut, FileRef, IoDesc, Op, Readiness, Request, Rest};
use std::fs::File;
use std::{io, slice};

#[cfg(ioctx_linux)]
pub(in crate::backend) use os::is_direct;

/// Carries a request out, blocking as long as it takes.
pub(super) fn execute(request: &mut Request) -> io::Result<usize> {
    match &mut request.op {
        Op::Nop => Ok(0),
        Op::Fsync { file } => file.with_file(|file| retry(|| file.sync_all())).map(|()| 0),
        Op::Fdatasync { file } => file.with_file(|file| retry(|| file.sync_data())).map(|()| 0),
        Op::Poll { file, interest } => poll::wait(file, *interest),
        Op::Custom(custom) => custom.run(),
        Op::Read { .. } | Op::Write { .. } | Op::WriteDsync { .. } | Op::ReadV { .. } | Op::WriteV { .. } => {
            IoDesc::new(request).map_or(Ok(0), os::transfer)
        }
    }
}

/// Carries a request out if that takes no waiting: `None` if it might, and then nothing was done that doing
/// it again would not do over. No write: of the file systems that have caches some refuse to do these without waiting.
pub(in crate::backend) fn try_cached(request: &mut Request) -> Option<io::Result<usize>> {
    match &mut request.op {
        Op::Nop => Some(Ok(0)),
        Op::Read { file, buf, offset } => {
            file.with_file(|file| os::read_cached(file, slice::from_mut(buf), *offset))
        }
        Op::ReadV { file, bufs, offset } => file.with_file(|file| os::read_cached(file, bufs, *offset)),
        Op::Poll { file, interest } => poll::look(file, *interest),
        Op::Write { .. }
        | Op::WriteDsync { .. }
        | Op::WriteV { .. }
        | Op::Fsync { .. }
        | Op::Fdatasync { .. }
        | Op::Custom(_) => None,
    }
}

/// Repeats a call that a signal interrupted.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// A write and the sync of it, one after the other. If the latter fails, nothing is said of the former.
fn write_and_sync(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
    let written = retry(|| os::write_at(file, buf, offset))?;
    match retry(|| file.sync_data()) {
        // Nothing that can be synced.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(written),
        synced => synced.map(|()| written),
    }
}

#[cfg(unix)]
mod poll {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec};

    pub(super) fn wait(file: &FileRef, interest: Readiness) -> io::Result<usize> {
        retry(|| poll(file, interest, None))
    }

    /// `None` if it is not ready.
    pub(super) fn look(file: &FileRef, interest: Readiness) -> Option<io::Result<usize>> {
        match retry(|| poll(file, interest, Some(&Timespec::default()))) {
            Ok(0) => None,
            done => Some(done),
        }
    }

    fn poll(file: &FileRef, interest: Readiness, timeout: Option<&Timespec>) -> io::Result<usize> {
        let mut fds = [PollFd::new(file, PollFlags::from_bits_retain(interest.bits() as _))];
        rustix::event::poll(&mut fds, timeout)?;
        let ready = fds[0].revents();
        // Only a descriptor that is not open, against its contract.
        if ready.contains(PollFlags::NVAL) {
            return Err(rustix::io::Errno::BADF.into());
        }
        // Sixteen bits, with a sign on some systems.
        Ok(ready.bits() as usize & 0xffff)
    }
}

#[cfg(not(unix))]
mod poll {
    use super::*;

    pub(super) fn wait(_: &FileRef, _: Readiness) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn look(_: &FileRef, _: Readiness) -> Option<io::Result<usize>> {
        None
    }
}

#[cfg(ioctx_linux)]
mod os {
    use super::*;
    use rustix::fs::{OFlags, fcntl_getfl};
    use rustix::io::{
        Errno, ReadWriteFlags, pread, preadv, preadv2, pwrite, pwritev, pwritev2, read, readv, write, writev,
    };
    use std::cell::Cell;
    use std::io::{IoSlice, IoSliceMut};
    use std::os::fd::AsRawFd;

    /// What a file that cannot seek answers is done again without the offset.
    fn seekless(at: Result<usize, Errno>, plain: impl FnOnce() -> Result<usize, Errno>) -> io::Result<usize> {
        match at {
            Err(Errno::SPIPE) => Ok(plain()?),
            done => Ok(done?),
        }
    }

    /// Moves what one call does.
    pub(super) fn transfer(mut desc: IoDesc<&mut Request>) -> io::Result<usize> {
        match desc.rest() {
            Rest::Read { file, mut bufs, offset } => file.with_file(|file| {
                retry(|| match &mut *bufs {
                    [buf] => seekless(pread(file, &mut **buf, offset), || read(file, &mut **buf)),
                    bufs => seekless(preadv(file, bufs, offset), || readv(file, bufs)),
                })
            }),
            Rest::Write { file, bufs, offset, dsync } => file.with_file(|file| {
                retry(|| match &*bufs {
                    [buf] if dsync => write_dsync_at(file, buf, offset),
                    [buf] => write_at(file, buf, offset),
                    bufs => seekless(pwritev(file, bufs, offset), || writev(file, bufs)),
                })
            }),
        }
    }

    pub(super) fn write_at(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
        seekless(pwrite(file, buf, offset), || write(file, buf))
    }

    fn write_dsync_at(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
        let slices = [IoSlice::new(buf)];
        match pwritev2(file, &slices, offset, ReadWriteFlags::DSYNC) {
            // Unknown to the kernel, its filter, or the file system; or nothing that can seek.
            Err(Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM | Errno::SPIPE) => {
                write_and_sync(file, buf, offset)
            }
            done => Ok(done?),
        }
    }

    /// A read that the page cache serves in full. A short one may be the end of the file or the end of what
    /// is cached, and some kernels answer 0 where data is not cached: there the pool reads again, all of
    /// it.
    pub(super) fn read_cached(file: &File, bufs: &mut [BufferMut], offset: u64) -> Option<io::Result<usize>> {
        if is_direct(file) {
            return None;
        }
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        let mut one = [IoSliceMut::new(&mut [])];
        let mut several = Vec::new();
        let slices = match bufs {
            [buf] => {
                one[0] = IoSliceMut::new(buf);
                &mut one[..]
            }
            bufs => {
                several.extend(bufs.iter_mut().map(|buf| IoSliceMut::new(buf)));
                &mut several[..]
            }
        };
        let read = preadv2(file, slices, offset, ReadWriteFlags::NOWAIT).ok()?;
        (read == len || (read > 0 && consumes(file))).then_some(Ok(read))
    }

    /// Whether reads go past the page cache (`O_DIRECT`): these wait for the device, told not to or not. Asking takes a
    /// third of a cached read's time, so an answer is good for as many reads as [`LOOKS`], by descriptor: whoever gets
    /// the number of a file that was closed pays at most these for the mistake, by waiting or on the pool.
    pub(in crate::backend) fn is_direct(file: &File) -> bool {
        let descriptor = file.as_raw_fd();
        let ask = || fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::DIRECT));
        let look = |answers: &[Cell<Answer>; FILES]| {
            let place = &answers[descriptor as usize % FILES];
            let mut answer = place.get();
            if answer.descriptor != descriptor || answer.looks == 0 {
                answer = Answer { descriptor, looks: LOOKS, direct: ask() };
            }
            answer.looks -= 1;
            place.set(answer);
            answer.direct
        };
        ANSWERS.try_with(look).unwrap_or_else(|_| ask())
    }

    const LOOKS: u8 = 32;
    /// For how many files a thread keeps the answer.
    const FILES: usize = 8;

    #[derive(Clone, Copy)]
    struct Answer {
        descriptor: i32,
        /// How many more reads it is good for.
        looks: u8,
        direct: bool,
    }

    thread_local! {
        static ANSWERS: [Cell<Answer>; FILES] =
            const { [const { Cell::new(Answer { descriptor: -1, looks: 0, direct: false }) }; FILES] };
    }

    /// Whether what was read once cannot be read again, so that a short read has to stand.
    #[cold]
    fn consumes(file: &File) -> bool {
        use rustix::fs::{FileType, fstat};
        fstat(file).map_or(true, |stat| {
            !matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::BlockDevice)
        })
    }
}

/// Without calls that take several buffers and an offset: one buffer after the other, until one is not
/// filled.
#[cfg(not(ioctx_linux))]
mod os {
    use super::*;

    #[cfg(unix)]
    use std::os::unix::fs::FileExt;
    #[cfg(windows)]
    use std::os::windows::fs::FileExt;

    pub(super) fn transfer(mut desc: IoDesc<&mut Request>) -> io::Result<usize> {
        loop {
            let (moved, wanted) = match desc.rest() {
                Rest::Read { file, mut bufs, offset } => {
                    let Some(buf) = bufs.first_mut() else { break };
                    (file.with_file(|file| retry(|| read_at(file, buf, offset))), buf.len())
                }
                Rest::Write { file, bufs, offset, dsync } => {
                    let Some(buf) = bufs.first() else { break };
                    let call = if dsync { write_and_sync } else { write_at };
                    (file.with_file(|file| retry(|| call(file, buf, offset))), buf.len())
                }
            };
            match moved {
                Ok(moved) => {
                    desc.advance(moved);
                    if moved < wanted || desc.is_done() {
                        break;
                    }
                }
                // What was transferred counts more than what came after.
                Err(_) if desc.done() > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(desc.done())
    }

    fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return match file.read_at(buf, offset) {
            Err(error) if seekless(&error) => io::Read::read(&mut &*file, buf),
            done => done,
        };
        #[cfg(windows)]
        return file.seek_read(buf, offset);
    }

    pub(super) fn write_at(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return match file.write_at(buf, offset) {
            Err(error) if seekless(&error) => io::Write::write(&mut &*file, buf),
            done => done,
        };
        #[cfg(windows)]
        return file.seek_write(buf, offset);
    }

    /// Whether the file cannot seek: then it is read and written without the offset.
    #[cfg(unix)]
    fn seekless(error: &io::Error) -> bool {
        error.raw_os_error() == Some(rustix::io::Errno::SPIPE.raw_os_error())
    }

    pub(super) fn read_cached(_: &File, _: &mut [BufferMut], _: u64) -> Option<io::Result<usize>> {
        None
    }
}
