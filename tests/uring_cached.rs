//! `Uring` and batches of reads, of what is in the page cache and of what is not.
#![cfg(ioctx_linux)]

mod support;

use ioctx::aio::{Backend, Completion, Context, Event, Finished, Reason, Request, RequestId, Submitted};
use ioctx::backend::Uring;
use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};
use std::collections::HashMap;
use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use support::driven::{CANCELED, code, is_ready, pipe, read};
use support::requests::run as one;
use support::{never_hang, skip};

const BLOCK: usize = 4096;
const BLOCKS: usize = 64;
/// Behind the last whole block.
const TAIL: usize = 100;

/// `None` where there is no `io_uring`.
fn uring(capacity: u32) -> Option<Uring> {
    never_hang();
    Uring::new(capacity).map_err(skip).ok()
}

/// What a file has at an offset: no two blocks and no two files have the same.
fn byte(file: u8, at: usize) -> u8 {
    file.wrapping_mul(71) ^ (at / BLOCK) as u8 ^ (at as u8).rotate_left(3)
}

/// A file of its own bytes, which are on the device, too: in the target directory, since what is on tmpfs is nowhere
/// else.
fn file(n: u8) -> Arc<File> {
    let mut file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bytes: Vec<u8> = (0..BLOCKS * BLOCK + TAIL).map(|at| byte(n, at)).collect();
    file.write_all(&bytes).unwrap();
    file.sync_all().unwrap();
    Arc::new(file)
}

/// Has the system forget every block of the file but each `kept`th.
fn forget(file: &File, kept: usize) {
    fadvise(file, 0, None, Advice::DontNeed).unwrap();
    let mut block = [0];
    for at in (0..BLOCKS).step_by(kept) {
        fadvise(file, 0, None, Advice::Random).unwrap();
        std::os::unix::fs::FileExt::read_exact_at(file, &mut block, (at * BLOCK) as u64).unwrap();
    }
    fadvise(file, 0, None, Advice::Normal).unwrap();
}

/// Reads by name what is to come of them: file, offset, length.
type Wanted = HashMap<u64, (u8, usize, usize)>;

/// Submits all of it, and looks at every byte that comes of it. Where there is no room, what there is is read first.
fn submit_and_check<B: Backend>(context: &Context<B>, mut batch: Vec<Request>, mut wanted: Wanted) {
    let mut unread = 0;
    while !batch.is_empty() {
        match context.submit_batch(&mut batch) {
            Ok(n) => unread += n,
            Err(error) => {
                assert!(matches!(error.0, Reason::Refused(_) | Reason::Full), "{error}");
                assert!(unread > 0, "refused though there is nothing in flight: {error}");
                read(context, 1).into_iter().for_each(|event| check(event, &mut wanted));
                unread -= 1;
            }
        }
    }
    read(context, unread).into_iter().for_each(|event| check(event, &mut wanted));
    assert!(wanted.is_empty(), "{wanted:?}");
}

fn check(event: Event, wanted: &mut Wanted) {
    let (file, at, len) = wanted.remove(&event.request.user_data).expect("each once");
    let there = len.min((BLOCKS * BLOCK + TAIL).saturating_sub(at));
    assert_eq!(event.result.unwrap(), there, "of {len} at {at}");
    let bytes: Vec<u8> = match event.request.op {
        ioctx::aio::Op::ReadV { .. } => event.request.into_buffers::<Vec<u8>>().unwrap().concat(),
        _ => event.request.into_buffer::<Vec<u8>>().unwrap(),
    };
    assert_eq!(bytes.len(), len);
    for (n, found) in bytes.iter().enumerate() {
        let expected = if n < there { byte(file, at + n) } else { 0 };
        assert_eq!(*found, expected, "byte {n} of {len} at {at} of file {file}");
    }
}

/// Reads of many kinds from several files: whole blocks, across blocks, into several buffers, across the end, and
/// behind it.
fn reads(files: &[Arc<File>], n: usize) -> (Vec<Request>, Wanted) {
    let end = BLOCKS * BLOCK + TAIL;
    let kinds = [(0, BLOCK), (1000, 3 * BLOCK), (BLOCK, BLOCK), (7, 1)];
    let mut wanted = Wanted::new();
    let batch = (0..n).map(|n| {
        let number = n % files.len();
        let (offset, len) = kinds[n / 3 % kinds.len()];
        let at = match n % 16 {
            11 => end - 10,
            13 => end,
            15 => end + 5 * BLOCK,
            _ => n * 37 % (BLOCKS - 4) * BLOCK + offset,
        };
        wanted.insert(n as u64, (number as u8, at, len));
        let file = files[number].clone();
        let request = match n % 5 {
            4 => Request::readv(file, [vec![0; len / 3], Vec::new(), vec![0; len - len / 3]], at as u64),
            _ => Request::read(file, vec![0; len], at as u64),
        };
        request.with_user_data(n as u64)
    });
    (batch.collect(), wanted)
}

#[test]
fn batches_of_what_is_cached_and_what_is_not_bring_every_byte() {
    let files = [file(0), file(1), file(2)];
    for (inline, registered) in [(true, false), (true, true), (false, false), (false, true)] {
        let Some(uring) = uring(128) else { return };
        let mut uring = uring.inline_cached(inline);
        if registered {
            uring.register_files(files[1..].iter().cloned()).unwrap();
        }
        let context = Context::new(128, uring).unwrap();
        for kept in [1, 2, 3, BLOCKS + 1] {
            for n in [1, 2, 16, 128] {
                files.iter().for_each(|file| forget(file, kept));
                let (batch, wanted) = reads(&files, n);
                submit_and_check(&context, batch, wanted);
            }
        }
    }
}

#[test]
fn batches_larger_than_the_ring_bring_every_byte() {
    let files = [file(0), file(1)];
    // Some are refused for want of room, and not all requests have a place of their own in the ring.
    let Some(uring) = uring(1) else { return };
    let context = Context::new(512, uring).unwrap();
    for kept in [1, 2, BLOCKS + 1] {
        files.iter().for_each(|file| forget(file, kept));
        let (batch, wanted) = reads(&files, 512);
        submit_and_check(&context, batch, wanted);
    }
}

#[test]
fn what_is_cached_is_read_though_the_ring_is_full() {
    let Some(uring) = uring(1) else { return };
    let context = Context::new(4096, uring).unwrap();
    let (reader, _writer) = pipe();
    let endless = || Request::read(reader.try_clone().unwrap(), vec![0; 8], 0);
    // Each CPU's.
    let mut n = 0;
    while context.submit(endless()).is_ok() {
        n += 1;
    }
    let file = file(0);
    let whole =
        |n: usize| Request::read(file.clone(), vec![0; BLOCK], (n * BLOCK) as u64).with_user_data(n as u64);
    let wanted = (0..BLOCKS).map(|n| (n as u64, (0, n * BLOCK, BLOCK))).collect();
    submit_and_check(&context, (0..BLOCKS).map(whole).collect(), wanted);
    assert_eq!(context.destroy(None), Ok(()));
    assert_eq!(read(&context, n).iter().filter(|event| code(event) == CANCELED).count(), n);
}

#[test]
fn what_is_cached_is_read_by_its_submitter_unless_that_is_off() {
    let file = file(0);
    if let Err(why) = preadv2(&file, &mut [IoSliceMut::new(&mut [0])], 0, ReadWriteFlags::NOWAIT) {
        return skip(why);
    }
    for inline in [true, false] {
        let Some(uring) = uring(8) else { return };
        let context = Context::new(8, uring.inline_cached(inline)).unwrap();
        let mut batch: Vec<_> = (0..3).map(|_| Request::read(file.clone(), vec![0; BLOCK], 0)).collect();
        context.submit_batch(&mut batch).unwrap();
        assert_eq!(is_ready(&context), !inline, "in the ring");
        assert!(read(&context, 3).iter().all(|event| event.result.as_ref().unwrap() == &BLOCK));
    }
}

/// One backend for several contexts.
#[derive(Clone)]
struct Common(Arc<Uring>);

impl Backend for Common {
    fn submit(&self, work: Completion) -> Submitted {
        self.0.submit(work)
    }

    fn flush(&self) {
        self.0.flush();
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        self.0.poll(done);
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }

    fn cancel(&self, id: RequestId) -> bool {
        self.0.cancel(id)
    }

    fn cancel_all(&self) {
        self.0.cancel_all();
    }
}

#[test]
fn requests_of_contexts_that_share_a_ring_are_not_taken_for_each_other() {
    let Some(uring) = uring(64) else { return };
    let common = Common(Arc::new(uring));
    let contexts = [0, 1, 2].map(|_| Context::new(8, common.clone()).unwrap());
    let pipes: Vec<_> = (0..24).map(|_| pipe()).collect();
    // The same places in each context: those of 0 are there first, and go in the middle.
    let ids: Vec<RequestId> = (0..24)
        .map(|n| {
            let request = Request::read(pipes[n].0.try_clone().unwrap(), vec![0; 8], 0);
            contexts[n / 8].submit(request.with_user_data(n as u64)).unwrap()
        })
        .collect();
    let cancelled = |n: usize| n.is_multiple_of(3);
    for order in [8..16, 0..8, 16..24] {
        for n in order.clone() {
            match cancelled(n) {
                true => contexts[n / 8].cancel(ids[n]).unwrap(),
                false => (&pipes[n].1).write_all(&[n as u8; 3]).unwrap(),
            }
        }
        let mut events = read(&contexts[order.start / 8], 8);
        events.sort_by_key(|event| event.request.user_data);
        for (n, event) in order.zip(events) {
            assert_eq!((event.id, event.request.user_data), (ids[n], n as u64));
            if cancelled(n) {
                assert_eq!(code(&event), CANCELED);
            } else {
                assert_eq!(event.result.unwrap(), 3);
                assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap()[..3], [n as u8; 3]);
            }
        }
    }
    // And their places are free again.
    for context in &contexts {
        assert_eq!(one(context, Request::read(file(0), vec![0; 1], 0)).result.unwrap(), 1);
        assert_eq!(context.destroy(None), Ok(()));
    }
}
