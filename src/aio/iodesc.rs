//! How far the transfer of a request is: [`IoDesc`].

#[cfg(test)]
mod tests;

use super::{Completion, FileRef, MAX_SEGMENTS, Op, Request};
use std::io::{IoSlice, IoSliceMut};
use std::ops::{Deref, DerefMut, Range};
use std::{array, iter, mem};

/// As many slices need no allocation.
const FEW: usize = 8;
/// More the kernel does not move in one call, and a slice cannot say on every system.
const MOST: usize = 0x7fff_f000;

/// A read or write of one or many buffers, and how much of it is done: what a backend that goes on after a short
/// transfer keeps. Wait-free.
///
/// It is over a request in whatever form one has it: `&mut Request`, a [`Request`], or the [`Completion`] of one. It
/// makes no system call by itself: [`rest`](Self::rest) says what is to be moved next, and [`advance`](Self::advance)
/// is told how much was.
///
/// # Costs
///
/// Four words beside the request. `rest` looks at the buffers that are left, and allocates if there are more than 8.
///
/// # When not to use it
///
/// To carry a request out by one call, whose short transfer is reported as it is: most backends do no more, and nobody
/// may rely on more. A context's user who wants all of it submits the rest.
///
/// # Examples
///
/// A backend whose transfers are as long as they can be, here however short the system's are:
///
/// ```
/// use ioctx::aio::{Backend, Completion, Context, IoDesc, Request, Rest, Submitted};
/// use std::io;
/// use std::os::unix::fs::FileExt;
///
/// struct Whole;
///
/// /// One call, which moves no more than 1000 bytes.
/// fn some(desc: &mut IoDesc<Completion>) -> io::Result<usize> {
///     match desc.rest() {
///         Rest::Read { file, mut bufs, offset } => {
///             let len = bufs[0].len().min(1000);
///             file.with_file(|file| file.read_at(&mut bufs[0][..len], offset))
///         }
///         Rest::Write { file, bufs, offset, .. } => {
///             let len = bufs[0].len().min(1000);
///             file.with_file(|file| file.write_at(&bufs[0][..len], offset))
///         }
///     }
/// }
///
/// impl Backend for Whole {
///     fn submit(&self, work: Completion) -> Submitted {
///         let mut desc = match IoDesc::new(work) {
///             Ok(desc) => desc,
///             Err(work) => return Submitted::Refused(work, io::ErrorKind::Unsupported.into()),
///         };
///         while !desc.is_done() {
///             match some(&mut desc) {
///                 // The end of the file.
///                 Ok(0) => break,
///                 Ok(n) => desc.advance(n),
///                 Err(error) => {
///                     let done = desc.done();
///                     return Submitted::Done(desc.into_inner().finish_partly(done, error));
///                 }
///             }
///         }
///         let done = desc.done();
///         Submitted::Done(desc.into_inner().finish(Ok(done)))
///     }
/// }
///
/// let context = Context::new(4, Whole)?;
/// let file = std::sync::Arc::new(tempfile::tempfile()?);
/// context.submit(Request::writev(file.clone(), [vec![1; 2500], vec![], vec![2; 1700]], 100))?;
/// context.visit(1, 1, None, |event| assert_eq!(event.result().unwrap(), 4200))?;
/// context.submit(Request::read(file, vec![0; 9000], 0))?;
/// context.visit(1, 1, None, |event| assert_eq!(event.result().unwrap(), 4300))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `struct iov_iter`; the `iodesc` that the patches of 2007 ("make struct kiocb private") announced, holding
/// the state of the iovec for the layers below.
#[derive(Debug)]
pub struct IoDesc<R> {
    request: R,
    done: usize,
    left: usize,
    next: Place,
}

/// The first byte that is not done.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// In which buffer.
    buffer: usize,
    /// Bytes of it that are done.
    within: usize,
}

/// What is to be moved next. From [`IoDesc::rest`].
#[derive(Debug)]
pub enum Rest<'a> {
    /// From the file.
    Read {
        /// Of the request.
        file: &'a FileRef,
        /// To be filled in order.
        bufs: IoSlices<IoSliceMut<'a>>,
        /// Where the first byte of `bufs` is in the file.
        offset: u64,
    },
    /// To the file.
    Write {
        /// Of the request.
        file: &'a FileRef,
        /// To be written in order.
        bufs: IoSlices<IoSlice<'a>>,
        /// Where the first byte of `bufs` belongs in the file.
        offset: u64,
        /// Whether it has to be on its device, too, before the request completes: [`Op::WriteDsync`].
        dsync: bool,
    },
}

/// Slices of [`IoSlice`] or [`IoSliceMut`], which are `iovec`s as the kernel wants them, on Unix. Up to 8 in place,
/// more in a vector.
#[derive(Debug)]
pub struct IoSlices<T>(Slices<T>);

#[derive(Debug)]
enum Slices<T> {
    Few([T; FEW], usize),
    Many(Vec<T>),
}

impl<R: AsRef<Request> + AsMut<Request>> IoDesc<R> {
    /// For a request of which nothing is done yet.
    ///
    /// # Errors
    ///
    /// What it was given: it moves no bytes, but syncs, polls or does something of the user's own.
    pub fn new(request: R) -> Result<Self, R> {
        match lens(request.as_ref()).map(|lens| lens.fold(0, usize::saturating_add)) {
            Some(left) => Ok(Self { request, done: 0, left, next: Place::default() }),
            None => Err(request),
        }
    }

    /// Bytes so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Bytes to come.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Whether none are to come: from the beginning, if all buffers are empty.
    pub fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Notes that so many more bytes were moved, of those that [`rest`](Self::rest) showed. More than are
    /// [left](Self::left) count as these.
    pub fn advance(&mut self, bytes: usize) {
        let bytes = bytes.min(self.left);
        (self.done, self.left) = (self.done + bytes, self.left - bytes);
        let mut within = self.next.within + bytes;
        let mut passed = 0;
        // Past those that are full, and the empty ones behind them.
        for len in lens(self.request.as_ref()).into_iter().flatten().skip(self.next.buffer) {
            if within < len {
                break;
            }
            (within, passed) = (within - len, passed + 1);
        }
        self.next = Place { buffer: self.next.buffer + passed, within };
    }

    /// What is to be moved next: all that is left, but for what is too much for one call of `preadv` or `pwritev`, more
    /// than [`MAX_SEGMENTS`] buffers or some 2 GiB. Without empty buffers, unless there is nothing left.
    ///
    /// # Panics
    ///
    /// If `as_mut` gives another request than it did, which does not move bytes.
    pub fn rest(&mut self) -> Rest<'_> {
        let Self { request, done, left, next } = self;
        let (next, none_left) = (*next, *left == 0);
        let at = |offset: u64| offset.wrapping_add(*done as u64);
        match &mut request.as_mut().op {
            Op::Read { file, buf, offset } => {
                let bufs = IoSlices::read_into(iter::once(&mut **buf), next, none_left);
                Rest::Read { file, bufs, offset: at(*offset) }
            }
            Op::ReadV { file, bufs, offset } => {
                let bufs = IoSlices::read_into(bufs.iter_mut().map(|buf| &mut **buf), next, none_left);
                Rest::Read { file, bufs, offset: at(*offset) }
            }
            Op::Write { file, buf, offset } => {
                let bufs = IoSlices::write_from(iter::once(&**buf), next, none_left);
                Rest::Write { file, bufs, offset: at(*offset), dsync: false }
            }
            Op::WriteDsync { file, buf, offset } => {
                let bufs = IoSlices::write_from(iter::once(&**buf), next, none_left);
                Rest::Write { file, bufs, offset: at(*offset), dsync: true }
            }
            Op::WriteV { file, bufs, offset } => {
                let bufs = IoSlices::write_from(bufs.iter().map(|buf| &**buf), next, none_left);
                Rest::Write { file, bufs, offset: at(*offset), dsync: false }
            }
            Op::Nop | Op::Fsync { .. } | Op::Fdatasync { .. } | Op::Poll { .. } | Op::Custom(_) => {
                unreachable!("looked at when it was made")
            }
        }
    }

    /// What it was made of.
    pub fn into_inner(self) -> R {
        self.request
    }
}

/// How long the buffers are that a request moves; `None` if it moves none.
fn lens(request: &Request) -> Option<impl Iterator<Item = usize>> {
    let (one, reads, writes) = match &request.op {
        Op::Read { buf, .. } => (Some(buf.len()), &[][..], &[][..]),
        Op::Write { buf, .. } | Op::WriteDsync { buf, .. } => (Some(buf.len()), &[][..], &[][..]),
        Op::ReadV { bufs, .. } => (None, &bufs[..], &[][..]),
        Op::WriteV { bufs, .. } => (None, &[][..], &bufs[..]),
        Op::Nop | Op::Fsync { .. } | Op::Fdatasync { .. } | Op::Poll { .. } | Op::Custom(_) => return None,
    };
    let (reads, writes) = (reads.iter().map(|buf| buf.len()), writes.iter().map(|buf| buf.len()));
    Some(one.into_iter().chain(reads).chain(writes))
}

/// What one call is for, of buffers of which `next` is to come.
fn pieces<S: Deref<Target = [u8]>>(
    bufs: impl Iterator<Item = S>,
    next: Place,
    none_left: bool,
    cut: impl Fn(S, Range<usize>) -> S,
) -> impl Iterator<Item = S> {
    let Place { buffer, mut within } = next;
    let mut room = MOST;
    let piece = move |buf: S| {
        let start = mem::take(&mut within).min(buf.len());
        let end = start + room.min(buf.len() - start);
        let some = room > 0;
        room -= end - start;
        some.then(|| cut(buf, start..end))
    };
    let wanted = move |piece: &S| none_left || !piece.is_empty();
    bufs.skip(buffer).map_while(piece).filter(wanted).take(MAX_SEGMENTS)
}

impl<'a> IoSlices<IoSliceMut<'a>> {
    fn read_into(bufs: impl Iterator<Item = &'a mut [u8]>, next: Place, none_left: bool) -> Self {
        let pieces = pieces(bufs, next, none_left, |buf, range| &mut buf[range]);
        Self::of(pieces.map(IoSliceMut::new), || IoSliceMut::new(&mut []))
    }
}

impl<'a> IoSlices<IoSlice<'a>> {
    fn write_from(bufs: impl Iterator<Item = &'a [u8]>, next: Place, none_left: bool) -> Self {
        let pieces = pieces(bufs, next, none_left, |buf, range| &buf[range]);
        Self::of(pieces.map(IoSlice::new), || IoSlice::new(&[]))
    }
}

impl<T> IoSlices<T> {
    fn of(mut slices: impl Iterator<Item = T>, empty: impl Fn() -> T) -> Self {
        let (mut few, mut n) = (array::from_fn(|_| empty()), 0);
        while let Some(slice) = slices.next() {
            if n == FEW {
                return Self(Slices::Many(few.into_iter().chain([slice]).chain(slices).collect()));
            }
            few[n] = slice;
            n += 1;
        }
        Self(Slices::Few(few, n))
    }
}

impl<T> Deref for IoSlices<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match &self.0 {
            Slices::Few(few, n) => &few[..*n],
            Slices::Many(many) => many,
        }
    }
}

impl<T> DerefMut for IoSlices<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.0 {
            Slices::Few(few, n) => &mut few[..*n],
            Slices::Many(many) => many,
        }
    }
}

impl AsRef<Request> for Request {
    fn as_ref(&self) -> &Request {
        self
    }
}

impl AsMut<Request> for Request {
    fn as_mut(&mut self) -> &mut Request {
        self
    }
}

impl AsRef<Request> for Completion {
    fn as_ref(&self) -> &Request {
        self.request()
    }
}

impl AsMut<Request> for Completion {
    fn as_mut(&mut self) -> &mut Request {
        self.request_mut()
    }
}
