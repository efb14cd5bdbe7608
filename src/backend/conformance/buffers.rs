//! Buffers of every kind: their bytes are what is transferred, and they come back where they were.

use super::rig::{Live, Rig, Tried, failed, must, pattern, same, same_bytes};
use super::{CAPACITY, Capability, Check};
use crate::aio::{AlignedBuffer, Buffer, BufferMut, IoBuf, IoBufMut, Op, Request};
use crate::sync::{SharedBytes, SharedFile};
use std::fs;
use std::ops::Deref;
use std::path::Path;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "buffers_written",
        says: "buffers of every kind are written as they are, and come back unmoved",
        needs: &[Capability::Files],
        run: written,
    },
    Check {
        name: "buffers_read",
        says: "buffers of every kind are filled where they are, and come back unmoved",
        needs: &[Capability::Files],
        run: read,
    },
    Check {
        name: "buffers_mixed",
        says: "each buffer of a vectored request comes back as what it was",
        needs: &[Capability::Files],
        run: mixed,
    },
    Check {
        name: "buffers_come_back",
        says: "buffers come back with their events, unmoved, whatever is done with them",
        needs: &[],
        run: come_back,
    },
    Check {
        name: "memory_of_others",
        says: "memory that is somebody else's is used in place, and nothing around it",
        needs: &[Capability::Files],
        run: of_others,
    },
];

const LEN: usize = 4096;

/// Sees that an owner is where it was.
fn unmoved<T: IoBuf + Deref<Target = [u8]>>(request: Request, place: *const u8) -> Tried<T> {
    match request.into_buffer::<T>() {
        Ok(owner) if owner.as_ptr() == place => Ok(owner),
        Ok(_) => failed("the buffer to come back unmoved", "it is at another address"),
        Err(request) => {
            failed("the buffer to come back as what it was made of", format_args!("{request:?} came"))
        }
    }
}

fn written(rig: &Rig) -> Tried {
    fn write<T: IoBuf + Deref<Target = [u8]>>(
        live: &Live,
        (file, path): &(SharedFile, impl AsRef<Path>),
        owner: T,
    ) -> Tried {
        let (place, bytes) = (owner.as_ptr(), owner.to_vec());
        let event = live.gives("a write", Request::write(file.clone(), owner, 10), bytes.len())?;
        same_bytes("the buffer of a write", &unmoved::<T>(event.request, place)?, &bytes)?;
        same_bytes("the file", &fs::read(path)?, &[&[0; 10], &bytes[..]].concat())
    }
    let live = rig.context(1);
    let file = rig.file(b"")?;
    write(&live, &file, pattern(1, LEN))?;
    write(&live, &file, pattern(2, LEN).into_boxed_slice())?;
    write(&live, &file, SharedBytes::from(pattern(3, LEN)))?;
    static BYTES: [u8; LEN] = [7; LEN];
    write(&live, &file, &BYTES[..])?;
    write(&live, &file, aligned(&pattern(4, LEN))?)?;
    live.end()
}

fn aligned(bytes: &[u8]) -> Tried<AlignedBuffer> {
    let mut buffer = AlignedBuffer::new(bytes.len(), 4096).expect("small, and a power of two");
    buffer.copy_from_slice(bytes);
    Ok(buffer)
}

fn read(rig: &Rig) -> Tried {
    fn read<T: IoBufMut + Deref<Target = [u8]>>(
        live: &Live,
        file: &SharedFile,
        bytes: &[u8],
        owner: T,
    ) -> Tried<T> {
        let (place, len) = (owner.as_ptr(), owner.len());
        let event = live.gives("a read", Request::read(file.clone(), owner, 10), len)?;
        let owner = unmoved::<T>(event.request, place)?;
        same_bytes("the buffer of a read", &owner, &bytes[10..][..len])?;
        Ok(owner)
    }
    let live = rig.context(1);
    let bytes = pattern(5, 2 * LEN);
    let (file, _) = rig.file(&bytes)?;
    let mut vector = Vec::with_capacity(3 * LEN);
    vector.resize(LEN, 0);
    let vector = read(&live, &file, &bytes, vector)?;
    must(vector.capacity() >= 3 * LEN, "the capacity of a vector to stay", "it has shrunk")?;
    read(&live, &file, &bytes, vec![0; LEN].into_boxed_slice())?;
    read(&live, &file, &bytes, aligned(&[0; LEN])?)?;
    live.end()
}

fn mixed(rig: &Rig) -> Tried {
    let live = rig.context(1);
    let (file, path) = rig.file(b"")?;
    let bufs: [Buffer; 4] = [
        b"one".to_vec().into(),
        SharedBytes::from(*b"two").into(),
        (&b"three"[..]).into(),
        Box::<[u8]>::from(*b"four").into(),
    ];
    let event = live.gives("a vectored write", Request::writev(file.clone(), bufs, 0), 15)?;
    same_bytes("the file", &fs::read(path)?, b"onetwothreefour")?;
    let Op::WriteV { bufs, .. } = event.request.op else {
        return failed("the write to come back", "something else came");
    };
    let kinds: Vec<_> = bufs
        .iter()
        .map(|buf| {
            [buf.is::<Vec<u8>>(), buf.is::<SharedBytes>(), buf.is::<&'static [u8]>(), buf.is::<Box<[u8]>>()]
        })
        .map(|kinds| kinds.iter().position(|kind| *kind))
        .collect();
    same("the kinds of the buffers", kinds, (0..4).map(Some).collect())?;

    let bufs: [BufferMut; 2] = [vec![0; 5].into(), aligned(&[0; 10])?.into()];
    let event = live.gives("a vectored read", Request::readv(file, bufs, 0), 15)?;
    let Op::ReadV { mut bufs, .. } = event.request.op else {
        return failed("the read to come back", "something else came");
    };
    let Some(Ok(second)) = bufs.pop().map(BufferMut::downcast::<AlignedBuffer>) else {
        return failed("the second buffer to be aligned", "it is of another kind");
    };
    let Some(Ok(first)) = bufs.pop().map(BufferMut::downcast::<Vec<u8>>) else {
        return failed("the first buffer to be a vector", "it is of another kind");
    };
    same_bytes("what was read", &[&first[..], &second[..]].concat(), b"onetwothreefour")?;
    live.end()
}

fn come_back(rig: &Rig) -> Tried {
    let live = rig.context(4);
    let (file, _) = rig.file(&pattern(6, 2 * LEN))?;
    for turn in 0..10 {
        let bytes = pattern(turn, LEN);
        let place = bytes.as_ptr();
        let event = live.one(Request::write(file.clone(), bytes, 0))?;
        same_bytes("the buffer of a write", &unmoved::<Vec<u8>>(event.request, place)?, &pattern(turn, LEN))?;
        let bytes = vec![0; LEN];
        let place = bytes.as_ptr();
        let event = live.one(Request::read(file.clone(), bytes, 0))?;
        same("the length of the buffer of a read", unmoved::<Vec<u8>>(event.request, place)?.len(), LEN)?;
    }
    live.end()
}

fn of_others(rig: &Rig) -> Tried {
    let live = rig.context(CAPACITY);
    let bytes = pattern(9, LEN);
    let (file, path) = rig.file(&bytes)?;
    // Leaked if the backend does not bring it back, which it may still write to.
    let memory = Box::leak(vec![0xee_u8; LEN + 2].into_boxed_slice()).as_mut_ptr();
    // SAFETY: 1. within the leaked bytes. 2. they are not touched until the event was dropped.
    let buf = unsafe { BufferMut::from_raw_parts(memory.add(1), LEN) };
    let event = live.gives("a read", Request::read(file.clone(), buf, 0), LEN)?;
    drop(event);
    // SAFETY: leaked above, and the request is gone.
    let mut memory = unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(memory, LEN + 2)) };
    same_bytes("what was read", &memory[1..=LEN], &bytes)?;
    same("the bytes around the buffer", (memory[0], memory[LEN + 1]), (0xee, 0xee))?;

    memory.fill(0x11);
    let memory = Box::leak(memory).as_mut_ptr();
    // SAFETY: 1. within the leaked bytes. 2. nobody writes them.
    let buf = unsafe { Buffer::from_raw_parts(memory, LEN) };
    drop(live.gives("a write", Request::write(file, buf, 0), LEN)?);
    // SAFETY: leaked above, and the request is gone.
    drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(memory, LEN + 2)) });
    same_bytes("the file", &fs::read(path)?, &[0x11; LEN])?;
    live.end()
}
