//! The system calls behind [`Threads`](super::Threads).

use crate::aio::{Op, Request};
use std::fs::File;
use std::io;

/// Carries a request out, blocking as long as it takes.
pub(super) fn execute(request: &mut Request) -> io::Result<usize> {
    match &mut request.op {
        Op::Nop => Ok(0),
        Op::Read { file, buf, offset } => retry(|| os::read_at(file, buf, *offset)),
        Op::Write { file, buf, offset } => retry(|| os::write_at(file, buf, *offset)),
        Op::ReadV { file, bufs, offset } => os::readv_at(file, bufs, *offset),
        Op::WriteV { file, bufs, offset } => os::writev_at(file, bufs, *offset),
        Op::Fsync { file } => retry(|| file.sync_all()).map(|()| 0),
        Op::Fdatasync { file } => retry(|| file.sync_data()).map(|()| 0),
    }
}

/// Carries a request out if that takes no waiting: `None` if it might, and then nothing was done that doing
/// it again would not do over.
pub(super) fn try_cached(request: &mut Request) -> Option<io::Result<usize>> {
    match &mut request.op {
        Op::Nop => Some(Ok(0)),
        Op::Read { file, buf, offset } => os::read_cached(file, buf, *offset),
        _ => None,
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

#[cfg(target_os = "linux")]
mod os {
    use super::*;
    use rustix::io::{
        Errno, ReadWriteFlags, pread, preadv, preadv2, pwrite, pwritev, read, readv, write, writev,
    };
    use std::io::{IoSlice, IoSliceMut};

    /// What a file that cannot seek answers is done again without the offset.
    fn seekless(at: Result<usize, Errno>, plain: impl FnOnce() -> Result<usize, Errno>) -> io::Result<usize> {
        match at {
            Err(Errno::SPIPE) => Ok(plain()?),
            done => Ok(done?),
        }
    }

    pub(super) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        seekless(pread(file, &mut *buf, offset), || read(file, &mut *buf))
    }

    pub(super) fn write_at(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
        seekless(pwrite(file, buf, offset), || write(file, buf))
    }

    pub(super) fn readv_at(file: &File, bufs: &mut [Vec<u8>], offset: u64) -> io::Result<usize> {
        let mut slices: Vec<_> = bufs.iter_mut().map(|buf| IoSliceMut::new(buf)).collect();
        retry(|| seekless(preadv(file, &mut slices, offset), || readv(file, &mut slices)))
    }

    pub(super) fn writev_at(file: &File, bufs: &[Vec<u8>], offset: u64) -> io::Result<usize> {
        let slices: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
        retry(|| seekless(pwritev(file, &slices, offset), || writev(file, &slices)))
    }

    /// A read that the page cache serves in full, or that finds the end of the file.
    pub(super) fn read_cached(file: &File, buf: &mut [u8], offset: u64) -> Option<io::Result<usize>> {
        let len = buf.len();
        match preadv2(file, &mut [IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == len || read == 0 => Some(Ok(read)),
            // Only the front is cached, or the file ends here, or this file or kernel cannot say: the pool
            // finds out.
            Ok(_) | Err(_) => None,
        }
    }
}

/// Without calls that take several buffers and an offset: one buffer after the other, until one is not
/// filled.
#[cfg(not(target_os = "linux"))]
mod os {
    use super::*;

    #[cfg(unix)]
    use std::os::unix::fs::FileExt;
    #[cfg(windows)]
    use std::os::windows::fs::FileExt;

    pub(super) fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return file.read_at(buf, offset);
        #[cfg(windows)]
        return file.seek_read(buf, offset);
    }

    pub(super) fn write_at(file: &File, buf: &[u8], offset: u64) -> io::Result<usize> {
        #[cfg(unix)]
        return file.write_at(buf, offset);
        #[cfg(windows)]
        return file.seek_write(buf, offset);
    }

    pub(super) fn readv_at(file: &File, bufs: &mut [Vec<u8>], offset: u64) -> io::Result<usize> {
        each(bufs.iter_mut(), offset, |buf, at| Ok((read_at(file, buf, at)?, buf.len())))
    }

    pub(super) fn writev_at(file: &File, bufs: &[Vec<u8>], offset: u64) -> io::Result<usize> {
        each(bufs.iter(), offset, |buf, at| Ok((write_at(file, buf, at)?, buf.len())))
    }

    fn each<T>(
        bufs: impl Iterator<Item = T>,
        offset: u64,
        mut call: impl FnMut(T, u64) -> io::Result<(usize, usize)>,
    ) -> io::Result<usize> {
        let mut total = 0;
        for buf in bufs {
            match call(buf, offset + total as u64) {
                Ok((done, len)) => {
                    total += done;
                    if done < len {
                        break;
                    }
                }
                // What was transferred counts more than what came after.
                Err(_) if total > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(total)
    }

    pub(super) fn read_cached(_: &File, _: &mut [u8], _: u64) -> Option<io::Result<usize>> {
        None
    }
}
