//! Reads of one `io_submit` that follow each other, tried together: [`Ahead`].
//!
//! Trying whether the page cache serves a read costs a system call, `preadv2`. For several of them one call does: they
//! go to a [ring](super::ring) that exists for this alone. What was read, or was found not to be cached, is taken when
//! it is each request's turn; where something else has come of it, `preadv2` is called all the same.
//!
//! Only such reads are tried as will not be refused: a refusal ends the call, and nobody expects that anything was read
//! for those that come after it. (Where the pool's queue is full, it may have been.)

use super::abi::{Errno, Iocb, command};
use super::kind::{self, Kind};
use super::list::List;
use super::request::check_range;
use super::ring::{ENTRIES, Read, Ring};
use std::mem::MaybeUninit;

/// Fewer cost less one by one.
const LEAST: usize = 4;
/// How many files are remembered to be such that can be read so.
const FILES: usize = 4;
/// Longer reads take so long that a call more or less does not matter.
const LONGEST: u64 = 64 << 10;

/// What was tried ahead.
pub(super) struct Ahead {
    /// How many bytes; negative where nothing is cached.
    results: [MaybeUninit<i32>; ENTRIES],
    /// Of which request the first of them is, and a bit for each that is there.
    first: usize,
    there: u32,
    /// How far it was looked.
    end: usize,
}

impl Ahead {
    #[inline]
    pub(super) fn new() -> Self {
        Self { results: [const { MaybeUninit::uninit() }; ENTRIES], first: 0, there: 0, end: 0 }
    }

    /// What `preadv2` says of the `i`th, if that was tried. Tries it and those that follow, `most` at most, if that is
    /// worth it.
    #[inline]
    pub(super) fn get(&mut self, list: &mut List, i: usize, most: usize) -> Option<Result<usize, Errno>> {
        if i >= self.end && most >= LEAST {
            self.look(list, i, most.min(ENTRIES));
        }
        let place = i - self.first;
        if self.there == 0 || place >= ENTRIES || self.there & 1 << place == 0 {
            return None;
        }
        // SAFETY: it is there.
        let result = unsafe { self.results[place].assume_init() };
        Some(usize::try_from(result).map_err(|_| libc::EAGAIN))
    }

    #[inline(never)]
    fn look(&mut self, list: &mut List, i: usize, most: usize) {
        (self.first, self.there, self.end) = (i, 0, i + 1);
        if !list.get(i).is_ok_and(|(_, request)| is_plain(&request)) {
            return;
        }
        let Some(mut ring) = Ring::take() else {
            self.end = usize::MAX;
            return;
        };
        let (mut n, mut cached) = (0, [-1; FILES]);
        while n < most
            && let Ok((_, request)) = list.get(i + n)
            && is_plain(&request)
            && (cached.contains(&request.fildes) || is_cached(request.fildes))
        {
            let Iocb { fildes: fd, buf, nbytes, offset, .. } = request;
            cached[n % FILES] = fd;
            ring.set(n, &Read { fd, into: buf as *mut u8, len: nbytes as u32, offset: offset as u64 });
            n += 1;
        }
        self.end = i + n.max(1);
        let mut tell = |place: usize, result| {
            // Of errors a ring has some of its own: `preadv2` is asked for them.
            if result >= 0 || result == -libc::EAGAIN {
                self.results[place].write(result);
                self.there |= 1 << place;
            }
        };
        if n < LEAST || ring.run(n, &mut tell) {
            ring.put_back();
        }
    }
}

/// Whether it is a file that can be read through the page cache. If it were none by now, a ring would read from it
/// wherever it is.
fn is_cached(fd: i32) -> bool {
    kind::of(fd) == Ok(Kind::Cached) && kind::is_cached_for_reads(fd)
}

/// Whether it is a read that is not refused, if its file can be read.
#[inline]
fn is_plain(request: &Iocb) -> bool {
    let Iocb { opcode, fildes, buf, nbytes, offset, rw_flags, flags, reserved2, key, .. } = *request;
    opcode == command::PREAD
        && fildes >= 0
        && (1..=LONGEST).contains(&nbytes)
        && check_range(buf as usize, nbytes as usize).is_ok()
        && offset >= 0
        && (rw_flags, flags, reserved2, key) == (0, 0, 0, 0)
}
