//! What the system says of a transfer that fails is what the event says.

use super::rig::{Live, Rig, Tried, failed, same, same_bytes, skipped};
use super::{Capability, Check};
use crate::aio::{FileRef, Request};
use crate::sync::SharedFile;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "wrong_direction",
        says: "a file open for reading is not written, and one open for writing not read: EBADF",
        needs: &[Capability::Files],
        run: wrong_direction,
    },
    Check {
        name: "directory",
        says: "a directory is not read: EISDIR",
        needs: &[Capability::Files],
        run: directory,
    },
    Check {
        name: "too_large",
        says: "at the end of what can be named a read finds nothing, and a write fails as the system's own, EFBIG",
        needs: &[Capability::Files],
        run: too_large,
    },
    Check {
        name: "no_reader",
        says: "a write to a pipe that nobody reads fails: EPIPE",
        needs: &[Capability::Pipes],
        run: no_reader,
    },
    Check {
        name: "sync_of_pipe",
        says: "what cannot be synced fails as the system's own, EINVAL",
        needs: &[Capability::Pipes],
        run: sync_of_pipe,
    },
    #[cfg(ioctx_linux)]
    Check {
        name: "device_full",
        says: "a full device takes nothing: ENOSPC",
        needs: &[Capability::Files],
        run: linux::device_full,
    },
    #[cfg(ioctx_linux)]
    Check {
        name: "file_system_full",
        says: "a write that fills the file system is short, and the next one fails: ENOSPC",
        needs: &[Capability::Files],
        run: linux::file_system_full,
    },
    #[cfg(ioctx_linux)]
    Check {
        name: "unaligned_direct",
        says: "direct I/O that is not aligned fails as the system's own, EINVAL, and such as is does not",
        needs: &[Capability::Files],
        run: linux::unaligned_direct,
    },
];

/// Sees that a request fails with this, and that the backend has survived it.
fn fails(live: &Live, what: &str, request: Request, errno: Errno) -> Tried {
    let event = live.one(request)?;
    match &event.result {
        Err(error) if error.raw_os_error() == Some(errno.raw_os_error()) => {}
        came => {
            return failed(
                format_args!("{what} to fail with {}", io::Error::from(errno)),
                format_args!("it gave {came:?}"),
            );
        }
    }
    live.gives("a nop after it", Request::nop(), 0)?;
    Ok(())
}

/// The same, with what the system call itself says.
fn fails_as<T>(live: &Live, what: &str, request: Request, plain: io::Result<T>) -> Tried {
    match plain {
        Err(error) => match Errno::from_io_error(&error) {
            Some(errno) => fails(live, what, request, errno),
            None => skipped(format_args!("the system's own call fails without a number: {error}")),
        },
        Ok(_) => skipped(format_args!("here {what} does not fail")),
    }
}

fn wrong_direction(rig: &Rig) -> Tried {
    let live = rig.context(1);
    let (_, path) = rig.file(b"text")?;
    let read_only = SharedFile::new(File::open(&path)?);
    let write_only = SharedFile::new(File::options().write(true).open(&path)?);
    let (reads, writes) = (|| write_only.clone(), || read_only.clone());
    fails(&live, "a write", Request::write(writes(), b"x".to_vec(), 0), Errno::BADF)?;
    fails(&live, "a vectored write", Request::writev(writes(), [b"x".to_vec()], 0), Errno::BADF)?;
    fails(&live, "a read", Request::read(reads(), vec![0; 4], 0), Errno::BADF)?;
    fails(&live, "a vectored read", Request::readv(reads(), [vec![0; 4]], 0), Errno::BADF)?;
    same_bytes("the file", &fs::read(path)?, b"text")?;
    live.end()
}

fn directory(rig: &Rig) -> Tried {
    let live = rig.context(1);
    let directory = SharedFile::new(File::open(rig.scratch())?);
    let plain = directory.read_at(&mut [0; 8], 0);
    fails_as(&live, "a read", Request::read(directory, vec![0; 8], 0), plain)?;
    live.end()
}

fn too_large(rig: &Rig) -> Tried {
    let live = rig.context(1);
    let (file, path) = rig.file(b"text")?;
    // The last bytes that a request can name.
    let offset = i64::MAX as u64 - 8;
    let read = Request::read(file.clone(), vec![0; 8], offset);
    match file.read_at(&mut [0; 8], offset) {
        Ok(n) => drop(live.gives("a read", read, n)?),
        refused => fails_as(&live, "a read", read, refused)?,
    }
    let plain = file.write_at(&[1; 8], offset);
    fails_as(&live, "a write", Request::write(file, vec![1; 8], offset), plain)?;
    same("the length of the file", fs::metadata(path)?.len(), 4)?;
    live.end()
}

fn no_reader(rig: &Rig) -> Tried {
    let live = rig.context(1);
    let (reader, writer) = io::pipe()?;
    drop(reader);
    let writer = SharedFile::new(File::from(OwnedFd::from(writer)));
    fails(&live, "a write", Request::write(writer.clone(), b"x".to_vec(), 0), Errno::PIPE)?;
    fails(&live, "a vectored write", Request::writev(writer, [b"x".to_vec()], 0), Errno::PIPE)?;
    live.end()
}

fn sync_of_pipe(rig: &Rig) -> Tried {
    let live = rig.context(1);
    let (_reader, writer) = io::pipe()?;
    let writer = SharedFile::new(File::from(OwnedFd::from(writer)));
    let file = || FileRef::from(writer.clone());
    fails_as(&live, "an fsync", Request::fsync(file()), writer.sync_all())?;
    fails_as(&live, "an fdatasync", Request::fdatasync(file()), writer.sync_data())?;
    live.end()
}

#[cfg(ioctx_linux)]
mod linux {
    use super::super::rig::pattern;
    use super::*;
    use crate::aio::{AlignedBuffer, Op};
    use rustix::fs::{Mode, OFlags, openat};
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    };
    use std::os::unix::fs::OpenOptionsExt;

    pub(super) fn device_full(rig: &Rig) -> Tried {
        let full = match File::options().read(true).write(true).open("/dev/full") {
            Ok(full) => SharedFile::new(full),
            Err(error) => return skipped(format_args!("/dev/full: {error}")),
        };
        let live = rig.context(1);
        fails(&live, "a write", Request::write(full.clone(), vec![1; 100], 0), Errno::NOSPC)?;
        fails(&live, "a vectored write", Request::writev(full, [vec![1; 100]], 50), Errno::NOSPC)?;
        live.end()
    }

    /// A file in a file system of so many bytes that is nowhere in the tree, and goes with the file.
    fn in_small_file_system(bytes: usize) -> io::Result<File> {
        let config = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&config, "size", bytes.to_string())?;
        fsconfig_create(&config)?;
        let root = fsmount(&config, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        Ok(openat(root, "file", flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    pub(super) fn file_system_full(rig: &Rig) -> Tried {
        const ROOM: usize = 128 << 10;
        let file = match in_small_file_system(ROOM) {
            Ok(file) => SharedFile::new(file),
            Err(error) => return skipped(format_args!("no small file system is to be had: {error}")),
        };
        let live = rig.context(1);
        let bytes = pattern(1, 2 * ROOM);
        live.gives(
            "a write of twice what there is room for",
            Request::write(file.clone(), bytes.clone(), 0),
            ROOM,
        )?;
        fails(
            &live,
            "a write without room",
            Request::write(file.clone(), vec![1; 100], ROOM as u64),
            Errno::NOSPC,
        )?;
        let mut came = vec![0; 2 * ROOM];
        same("the length of the file", file.read_at(&mut came, 0)?, ROOM)?;
        same_bytes("the file", &came[..ROOM], &bytes[..ROOM])?;
        live.end()
    }

    pub(super) fn unaligned_direct(rig: &Rig) -> Tried {
        const BLOCK: usize = 4096;
        let bytes = pattern(1, 4 * BLOCK);
        let (_, path) = rig.file(&bytes)?;
        let flags = OFlags::DIRECT.bits() as i32;
        let file = match File::options().read(true).write(true).custom_flags(flags).open(&path) {
            Ok(file) => SharedFile::new(file),
            Err(error) => return skipped(format_args!("O_DIRECT in this directory: {error}")),
        };
        let aligned = || AlignedBuffer::new(2 * BLOCK, BLOCK).expect("small, and a power of two");
        let live = rig.context(1);
        let event =
            live.gives("an aligned read", Request::read(file.clone(), aligned(), BLOCK as u64), 2 * BLOCK)?;
        let Op::Read { buf, .. } = event.request.op else {
            return failed("the read to come back", "something else came");
        };
        same_bytes("what was read", &buf, &bytes[BLOCK..3 * BLOCK])?;
        let plain = file.read_at(&mut aligned(), 1);
        fails_as(&live, "a read at offset 1", Request::read(file.clone(), aligned(), 1), plain)?;
        let plain = file.write_at(&aligned()[..100], 0);
        fails_as(&live, "a write of 100 bytes", Request::write(file, vec![0; 100], 0), plain)?;
        same_bytes("the file", &fs::read(path)?, &bytes)?;
        live.end()
    }
}
