//! Files that cannot seek, requests that wait, and polls.

use super::rig::{Live, Rig, Tried, failed, must, pattern, same, same_bytes};
use super::{Capability, Check};
use crate::aio::{Event, Readiness, Request};
use crate::sync::SharedFile;
use std::fs::File;
use std::io::{self, ErrorKind, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "offset_ignored",
        says: "a file that cannot seek is read and written whatever the offset",
        needs: &[Capability::Pipes],
        run: offset_ignored,
    },
    Check {
        name: "short_write",
        says: "a write that is short says how short",
        needs: &[Capability::Pipes],
        run: short_write,
    },
    Check {
        name: "read_waits",
        says: "a read of an empty pipe waits, while submitting does not, until something was written",
        needs: &[Capability::Pipes],
        run: read_waits,
    },
    Check {
        name: "poll_ready",
        says: "a poll finds what is ready, and takes nothing of it",
        needs: &[Capability::Poll],
        run: poll_ready,
    },
    Check {
        name: "poll_waits",
        says: "a poll waits until the file is ready",
        needs: &[Capability::Poll],
        run: poll_waits,
    },
    Check {
        name: "poll_hang_up",
        says: "the end of the other side is reported without being asked for",
        needs: &[Capability::Poll],
        run: poll_hang_up,
    },
];

/// A pipe, whose end to read from is for requests.
pub(super) fn pipe() -> io::Result<(SharedFile, PipeWriter)> {
    let (reader, writer) = io::pipe()?;
    Ok((SharedFile::new(File::from(OwnedFd::from(reader))), writer))
}

fn offset_ignored(rig: &Rig) -> Tried {
    let live = rig.context(1);
    let (reader, mut writer) = pipe()?;
    writer.write_all(b"texttext")?;
    for vectored in [false, true] {
        let (what, request) = match vectored {
            false => ("a read", Request::read(reader.clone(), vec![0; 4], 4096)),
            true => ("a vectored read", Request::readv(reader.clone(), [vec![0; 4]], 4096)),
        };
        let request = live.gives(what, request, 4)?.request;
        let came = match vectored {
            false => request.into_buffer::<Vec<u8>>(),
            true => request.into_buffers::<Vec<u8>>().map(|bufs| bufs.concat()),
        };
        same("what was read", came.ok().as_deref(), Some(&b"text"[..]))?;
    }
    let (mut reader, writer) = io::pipe()?;
    let writer = SharedFile::new(File::from(OwnedFd::from(writer)));
    live.gives("a write", Request::write(writer.clone(), b"more".to_vec(), 77), 4)?;
    live.gives("a vectored write", Request::writev(writer, [b"mo".to_vec(), b"re".to_vec()], 77), 4)?;
    let mut text = Vec::new();
    live.end()?;
    reader.read_to_end(&mut text)?;
    same_bytes("what was written", &text, b"moremore")
}

fn short_write(rig: &Rig) -> Tried {
    const LEN: usize = 4 << 20;
    let live = rig.context(1);
    let (mut reader, writer) = io::pipe()?;
    rustix::io::ioctl_fionbio(&reader, true).map_err(io::Error::from)?;
    rustix::io::ioctl_fionbio(&writer, true).map_err(io::Error::from)?;
    let writer = SharedFile::new(File::from(OwnedFd::from(writer)));
    let event = live.one(Request::write(writer, pattern(1, LEN), 0))?;
    let mut came = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        match reader.read(&mut part) {
            Ok(0) => break,
            Ok(n) => came.extend(&part[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    must(came.len() < LEN, "a pipe to hold less than 4 MiB", "it holds more")?;
    same("the result of a write that was short", event.result.as_ref().ok(), Some(&came.len()))?;
    same_bytes("what was written", &came, &pattern(1, LEN)[..came.len()])?;
    drop(event);
    live.end()
}

fn read_waits(rig: &Rig) -> Tried {
    let live = rig.context(2);
    let (reader, mut writer) = pipe()?;
    let id = live.submit(Request::read(reader, vec![0; 10], 0))?;
    live.nothing("nobody has written")?;
    writer.write_all(b"late")?;
    let event = live.event()?;
    same("the name in the event", event.id, id)?;
    same("the result of a read", event.result.as_ref().ok(), Some(&4))?;
    let came = event.request.into_buffer::<Vec<u8>>().unwrap_or_default();
    same_bytes("the buffer", &came, b"late\0\0\0\0\0\0")?;
    live.end()
}

/// What a poll has found.
fn found(event: Event) -> Tried<Readiness> {
    match event.result {
        Ok(bits) => Ok(Readiness::from_result(bits)),
        Err(error) => failed("a poll to succeed", format_args!("it failed: {error}")),
    }
}

fn polled(live: &Live, file: &SharedFile, interest: Readiness) -> Tried<Readiness> {
    found(live.one(Request::poll(file.clone(), interest))?)
}

const BOTH: Readiness = Readiness::from_bits(Readiness::READABLE.bits() | Readiness::WRITABLE.bits());

fn poll_ready(rig: &Rig) -> Tried {
    let live = rig.context(1);
    let (reader, mut writer) = pipe()?;
    writer.write_all(b"text")?;
    for _ in 0..3 {
        same("what a pipe with data is ready for", polled(&live, &reader, BOTH)?, Readiness::READABLE)?;
    }
    let writer = SharedFile::new(File::from(OwnedFd::from(writer)));
    same("what a pipe with room is ready for", polled(&live, &writer, BOTH)?, Readiness::WRITABLE)?;
    let (file, _) = rig.file(b"text")?;
    same("what a regular file is ready for", polled(&live, &file, BOTH)?, BOTH)?;
    let mut text = [0; 4];
    (&*reader).read_exact(&mut text)?;
    same("what is in the pipe", &text, b"text")?;
    live.end()
}

fn poll_waits(rig: &Rig) -> Tried {
    let live = rig.context(2);
    let (reader, mut writer) = pipe()?;
    live.submit(Request::poll(reader, Readiness::READABLE))?;
    live.nothing("nobody has written")?;
    writer.write_all(b"x")?;
    let ready = found(live.event()?)?;
    same("what the pipe is ready for", ready, Readiness::READABLE)?;
    live.end()
}

fn poll_hang_up(rig: &Rig) -> Tried {
    let live = rig.context(2);
    let (reader, writer) = pipe()?;
    live.submit(Request::poll(reader.clone(), Readiness::READABLE))?;
    drop(writer);
    for ready in [found(live.event()?)?, polled(&live, &reader, Readiness::default())?] {
        must(
            ready.contains(Readiness::HANG_UP),
            "a pipe that nobody writes any more to hang up",
            format_args!("its poll gave {ready:?}"),
        )?;
    }
    live.end()
}
