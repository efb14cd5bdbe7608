//! `Direct` on real files and on backends that do what a test says.

use crate::support::{never_hang, skip};
use crate::{Held, code, one};
use ioctx::aio::{AlignedBuffer, Backend, Completion, Context, Op, Request, Submitted};
use ioctx::backend::{Auto, Direct, Threads};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use tempfile::NamedTempFile;

pub(crate) const PART: usize = 64 << 10;

pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| ((n ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

pub(crate) fn scratch() -> NamedTempFile {
    NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// `None` where the file system has no direct I/O.
pub(crate) fn direct(path: &Path) -> Option<Arc<File>> {
    never_hang();
    let mut options = File::options();
    match options.read(true).write(true).custom_flags(libc::O_DIRECT).open(path) {
        Ok(file) => Some(Arc::new(file)),
        Err(error) => {
            skip(error);
            None
        }
    }
}

fn within<B: Backend>(context: &Context<Direct<B>>) {
    let (direct, peak) = (context.backend(), context.backend().peak());
    assert!(peak.parts <= direct.parts(), "{peak}");
    assert!(peak.bytes <= direct.parts() as usize * direct.part_len(), "{peak}");
}

/// Reads and writes of many sizes, wherever they begin and in whatever memory.
fn all_alignments<B: Backend>(context: &Context<Direct<B>>) {
    let scratch = scratch();
    let Some(file) = direct(scratch.path()) else { return };
    let len = 5 * PART + 777;
    let mut content = pattern(1, len);
    std::fs::write(scratch.path(), &content).unwrap();
    let lens = [1, 100, 512, 4096, 4097, PART, PART + 1, 3 * PART, 3 * PART + 511, len, len + 5000];
    for (round, offset) in
        [0, 1, 511, 512, 4095, 4096, PART - 1, PART, 2 * PART + 100].into_iter().enumerate()
    {
        for wanted in lens {
            for shift in [0, 1, 512] {
                let mut memory = AlignedBuffer::new(wanted + 4096, 4096).unwrap();
                let bytes = &mut memory[shift..shift + wanted];
                // SAFETY: 1. of the buffer. 2. nobody else uses it before the event was read.
                let buf = unsafe { ioctx::aio::BufferMut::from_raw_parts(bytes.as_mut_ptr(), wanted) };
                context.submit(Request::read(file.clone(), buf, offset as u64)).unwrap();
                let expected = &content[offset.min(len)..len.min(offset + wanted)];
                assert_eq!(one(context).result.unwrap(), expected.len(), "{wanted} at {offset}");
                assert!(memory[shift..shift + expected.len()] == *expected, "{wanted} at {offset} + {shift}");
                assert!(memory[shift + wanted..].iter().all(|byte| *byte == 0));

                // Not beyond the end: the file must stay as long as it is.
                let wanted = wanted.min(len - offset);
                let new = pattern((round * 1000 + wanted + shift) as u64, wanted);
                content[offset..offset + wanted].copy_from_slice(&new);
                memory[shift..shift + wanted].copy_from_slice(&new);
                // SAFETY: as above.
                let buf = unsafe { ioctx::aio::Buffer::from_raw_parts(memory[shift..].as_ptr(), wanted) };
                let request = match shift {
                    // Not often: a busy disk takes long for each part.
                    512 if wanted == PART + 1 => Request::write_dsync(file.clone(), buf, offset as u64),
                    _ => Request::write(file.clone(), buf, offset as u64),
                };
                context.submit(request).unwrap();
                assert_eq!(one(context).result.unwrap(), wanted, "{wanted} at {offset}");
            }
        }
        assert!(std::fs::read(scratch.path()).unwrap() == content, "after {offset}");
    }
    within(context);
    let peak = context.backend().peak();
    assert!(peak.parts > 1 && peak.bytes > 0, "{peak}");
}

#[test]
fn every_alignment_on_the_best_backend() {
    let direct = Direct::with_part(3, PART, Auto::new(16).unwrap()).unwrap();
    all_alignments(&Context::new(8, direct).unwrap());
}

#[test]
fn every_alignment_on_threads() {
    let direct = Direct::with_part(2, PART, Threads::new(2).unwrap()).unwrap();
    all_alignments(&Context::new(8, direct).unwrap());
}

#[test]
fn many_requests_share_few_parts() {
    let scratch = scratch();
    let Some(file) = direct(scratch.path()) else { return };
    let content = pattern(5, 8 << 20);
    std::fs::write(scratch.path(), &content).unwrap();
    let context = Context::new(32, Direct::with_part(4, PART, Auto::new(64).unwrap()).unwrap()).unwrap();
    let mut events = Vec::new();
    for round in 0..3_usize {
        let len = (1 << 20) - round * 100;
        for n in 0..8 {
            let buf = AlignedBuffer::new(len, 4096).unwrap();
            context.submit(Request::read(file.clone(), buf, (n << 20) + n)).unwrap();
        }
        context.get_events(8, 8, None, &mut events).unwrap();
        for event in events.drain(..) {
            let Op::Read { offset, .. } = event.request.op else { panic!() };
            let expected = &content[offset as usize..content.len().min(offset as usize + len)];
            assert_eq!(event.result.unwrap(), expected.len());
            let buf = event.request.into_buffer::<AlignedBuffer>().unwrap();
            assert!(buf[..expected.len()] == *expected);
        }
    }
    within(&context);
    assert_eq!(context.backend().peak().parts, 4, "as many as there may be");
}

#[test]
fn what_is_not_direct_is_passed_on() {
    let held = Held::default();
    let context = Context::new(4, Direct::new(1, held.clone()).unwrap()).unwrap();
    let id = context.submit(Request::read(tempfile::tempfile().unwrap(), vec![0; 1 << 20], 1)).unwrap();
    let work = held.take().pop().unwrap();
    assert_eq!(work.id(), id);
    work.complete(Ok(3));
    assert_eq!(one(&context).result.unwrap(), 3);
    assert_eq!(context.backend().peak().parts, 0);
}

/// A context of two parts on a held backend, and a request of four parts.
fn four_parts(held: &Held) -> Option<(Context<Direct<Held>>, NamedTempFile, ioctx::aio::RequestId)> {
    let scratch = scratch();
    let file = direct(scratch.path())?;
    let context = Context::new(4, Direct::with_part(2, PART, held.clone()).unwrap()).unwrap();
    let buf = AlignedBuffer::new(4 * PART, 4096).unwrap();
    let id = context.submit(Request::read(file, buf, 0)).unwrap();
    Some((context, scratch, id))
}

fn offset(work: &Completion) -> u64 {
    let Op::Read { offset, .. } = &work.request().op else { panic!("{work:?}") };
    *offset
}

#[test]
fn short_transfers_go_on_where_they_ended() {
    let held = Held::default();
    let Some((context, _file, _)) = four_parts(&held) else { return };
    let mut seen = Vec::new();
    loop {
        let batch = held.take();
        if batch.is_empty() {
            break;
        }
        assert!(batch.len() <= 2);
        for work in batch {
            let Op::Read { buf, offset, .. } = &work.request().op else { panic!() };
            seen.push((*offset, buf.len()));
            // A fourth at a time, and all in the end.
            let n = if buf.len() > PART / 4 { PART / 4 } else { buf.len() };
            work.complete(Ok(n));
        }
    }
    assert_eq!(one(&context).result.unwrap(), 4 * PART);
    seen.sort_unstable();
    let expected: Vec<_> = (0..16).map(|n| ((n * PART / 4) as u64, (4 - n % 4) * PART / 4)).collect();
    assert_eq!(seen, expected);
    within(&context);
}

#[test]
fn the_first_part_that_is_not_whole_decides() {
    let held = Held::default();
    // An error in the second of four; the end of the file in the third; and both.
    type Ends = fn(u64) -> io::Result<usize>;
    let cases: [(Ends, Result<usize, i32>); 4] = [
        (|part| if part == 1 { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(PART) }, Ok(PART)),
        (|part| Ok(if part == 2 { 100 } else { PART }), Ok(2 * PART + 100)),
        (
            |part| {
                if part == 3 {
                    Err(io::Error::from_raw_os_error(libc::EIO))
                } else {
                    Ok(if part < 2 { PART } else { 0 })
                }
            },
            Ok(2 * PART),
        ),
        (|_| Err(io::Error::from_raw_os_error(libc::ENXIO)), Err(libc::ENXIO)),
    ];
    for (ends, expected) in cases {
        let Some((context, _file, _)) = four_parts(&held) else { return };
        loop {
            let mut batch = held.take();
            if batch.is_empty() {
                break;
            }
            // The later one first.
            while let Some(work) = batch.pop() {
                let part = offset(&work) / PART as u64;
                work.complete(ends(part));
            }
        }
        let event = one(&context);
        let result = event.result.map_err(|error| error.raw_os_error().unwrap());
        assert_eq!(result, expected);
        within(&context);
    }
}

#[test]
fn cancelled_in_flight_it_ends_with_what_runs() {
    let held = Held::default();
    let Some((context, _file, id)) = four_parts(&held) else { return };
    context.cancel(id).unwrap();
    let batch = held.take();
    assert_eq!(batch.len(), 2);
    batch.into_iter().for_each(|work| work.complete(Ok(PART)));
    assert!(held.take().is_empty(), "no part is begun any more");
    assert_eq!(one(&context).result.unwrap(), 2 * PART);
    within(&context);

    // One that waits behind another.
    let Some((context, _file, first)) = four_parts(&held) else { return };
    let file = direct(_file.path()).unwrap();
    let second = context.submit(Request::read(file, vec![0; 3 * PART], 0)).unwrap();
    context.cancel(second).unwrap();
    let event = one(&context);
    assert_eq!((event.id, code(&event)), (second, Some(libc::ECANCELED)));
    context.cancel(first).unwrap();
    drop(held.take());
    assert_eq!(code(&one(&context)), Some(libc::ECANCELED));
    within(&context);
}

#[test]
fn destroying_begins_no_more_parts() {
    let held = Held::default();
    let Some((context, _file, _)) = four_parts(&held) else { return };
    std::thread::scope(|scope| {
        scope.spawn(|| context.destroy(None).unwrap());
        while context.submit(Request::nop()).is_ok() {
            std::thread::yield_now();
            held.take().into_iter().filter(|work| matches!(work.request().op, Op::Nop)).for_each(drop);
        }
        // Those that ran.
        while context.wait_destroyed(Some(std::time::Instant::now())).is_err() {
            held.take().into_iter().for_each(drop);
        }
    });
    within(&context);
}

/// Panics when it is given the second part.
struct Panics(Held);

impl Backend for Panics {
    fn submit(&self, work: Completion) -> Submitted {
        if matches!(work.request().op, Op::Read { offset, .. } if offset == PART as u64) {
            panic!("on purpose");
        }
        self.0.submit(work)
    }
}

#[test]
fn a_panic_below_ends_the_request_there() {
    let scratch = scratch();
    let Some(file) = direct(scratch.path()) else { return };
    let held = Held::default();
    let context = Context::new(4, Direct::with_part(2, PART, Panics(held.clone())).unwrap()).unwrap();
    let request = |n: usize| Request::read(file.clone(), AlignedBuffer::new(n * PART, 4096).unwrap(), 0);
    for _ in 0..3 {
        let submitted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| context.submit(request(4))));
        assert!(submitted.is_err());
        held.take().into_iter().for_each(|work| work.complete(Ok(PART)));
        assert_eq!(one(&context).result.unwrap(), PART);
    }
    context.submit(request(1)).unwrap();
    held.take().into_iter().for_each(|work| work.complete(Ok(PART)));
    assert_eq!(one(&context).result.unwrap(), PART);
    within(&context);
}

#[test]
fn descriptors_that_cannot_be_read_say_so() {
    let scratch = scratch();
    let Some(_) = direct(scratch.path()) else { return };
    let write_only = File::options().write(true).custom_flags(libc::O_DIRECT).open(scratch.path()).unwrap();
    let context = Context::new(4, Direct::with_part(2, PART, Auto::new(8).unwrap()).unwrap()).unwrap();
    context.submit(Request::read(write_only, vec![0; 3 * PART], 0)).unwrap();
    assert_eq!(code(&one(&context)), Some(libc::EBADF));
    let read_only = File::options().read(true).custom_flags(libc::O_DIRECT).open(scratch.path()).unwrap();
    context.submit(Request::write(read_only, vec![0; 3 * PART], 1)).unwrap();
    assert_eq!(code(&one(&context)), Some(libc::EBADF));
    within(&context);
    // Nothing of it has reached the file, by whichever way.
    assert_eq!(File::open(scratch.path()).unwrap().read_at(&mut [0], 0).unwrap(), 0);
}
