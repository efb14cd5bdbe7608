//! Layers: backends that have others carry requests out. [`Below`] is what a layer keeps the other one in.

use super::completion::apart;
use super::future::Memory;
use super::id::{AWAITED, RequestId};
use super::shared::{References, Shared};
use super::{Backend, By, Completion, Context, CreateError, Finished, Outcome, Reason, Request};
use crate::percpu::CachePadded;
use crate::sync::cell::UnsafeCell;
use crate::sync::{Arc, OnceLock};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::NonNull;
use std::{error, fmt, io};

#[cfg(ioctx_linux)]
use std::os::fd::BorrowedFd;

/// What a layer keeps for a request of its own, and what it makes of its end.
///
/// Every `FnOnce(Ended) -> Option<Finished> + Send` is one; so is a type that holds the [`Completion`] of the request
/// above. Neither is boxed.
pub trait Done: Send + Sized + 'static {
    /// The request has ended. Called once, in the completer's context: within [`Below::submit`], within
    /// [`Below::poll`], on a thread of the backend below, or by whoever cancels. It may submit again, and does not
    /// block. Returns what it has finished by that, if anything.
    fn done(self, ended: Ended) -> Option<Finished>;
}

impl<F: FnOnce(Ended) -> Option<Finished> + Send + 'static> Done for F {
    #[inline]
    fn done(self, ended: Ended) -> Option<Finished> {
        self(ended)
    }
}

/// A request of a layer that has ended.
#[derive(Debug)]
pub struct Ended {
    /// As it was submitted; a read has filled the front of its buffers. Its user data is the layer's no more.
    pub request: Request,
    /// How many bytes were transferred, also before an error.
    pub bytes: usize,
    /// What ended it before its end. `None` if nothing did, or it just is short, as at the end of a file.
    pub error: Option<io::Error>,
}

impl Ended {
    /// As a system call would say it: the bytes, if there are any, or the error.
    ///
    /// # Errors
    ///
    /// The [`error`](Self::error), if there are no bytes.
    pub fn result(&mut self) -> io::Result<usize> {
        match self.error.take() {
            Some(error) if self.bytes == 0 => Err(error),
            _ => Ok(self.bytes),
        }
    }
}

/// The backend below a layer, and the requests that the layer has it carry out.
///
/// A layer is a [`Backend`] with one of these. What it does not care about it passes on: the backend below completes it
/// as if there were no layer. For the rest it submits requests of its own, with other buffers, other offsets, or
/// several for one; each comes back to it, with the [`Done`] it was submitted with, and the layer completes the one
/// above: in the completer's context, or, by a [hook](Completion::on_end), in that of who waits. There is no thread
/// in it.
///
/// Queued means that `done` will be called, or was already, exactly once; also if the request is dropped below
/// (`ECANCELED`), cancelled, or lost to a panic. Requests own their buffers until then.
///
/// Submitting is lock-free where the backend is, and so is ending; neither waits for room.
///
/// # One context
///
/// A layer serves the context of the first request that it submits something for: its end ends also the requests down
/// here, which do not know where they come from. For others there is an error.
///
/// # Costs
///
/// As a [`Context`] of this capacity; some 100 ns for a request to go down and to come back: its place, and moving it
/// there and back. A chain of boxed closures is a quarter of that, and keeps no buffers, counts nothing and cannot be
/// cancelled. Requests that are passed on cost a comparison.
///
/// # Examples
///
/// Turns every bit of what is read and written, reading in the completer's context:
///
/// ```
/// use ioctx::aio::{Backend, Below, Completion, Context, Done, Ended, Finished, Op, Request, RequestId, Submitted};
/// use ioctx::backend::Threads;
///
/// struct Turned(Below<Threads, Turning>);
///
/// /// The request above. What it is to do is down below.
/// struct Turning(Completion);
///
/// fn turn(op: &mut Op) {
///     if let Op::Read { buf, .. } = op {
///         buf.iter_mut().for_each(|byte| *byte = !*byte);
///     }
/// }
///
/// impl Done for Turning {
///     fn done(mut self, mut ended: Ended) -> Option<Finished> {
///         turn(&mut ended.request.op);
///         self.0.request_mut().op = std::mem::replace(&mut ended.request.op, Op::Nop);
///         Some(self.0.finish(ended.result()))
///     }
/// }
///
/// impl Backend for Turned {
///     fn submit(&self, mut work: Completion) -> Submitted {
///         let above = match self.0.above(&work) {
///             Ok(above) if matches!(work.request().op, Op::Read { .. }) => above,
///             _ => return self.0.backend().submit(work),
///         };
///         let op = std::mem::replace(&mut work.request_mut().op, Op::Nop);
///         match self.0.submit(above, Request::new(op), Turning(work)) {
///             Ok(Some(finished)) => Submitted::Done(finished),
///             Ok(None) => Submitted::Queued,
///             Err(mut not) => {
///                 not.done.0.request_mut().op = not.request.op;
///                 Submitted::Refused(not.done.0, not.error)
///             }
///         }
///     }
///
///     fn flush(&self) {
///         self.0.flush();
///     }
///
///     fn poll(&self, done: &mut dyn FnMut(Finished)) {
///         self.0.poll(done);
///     }
///
///     # #[cfg(ioctx_linux)]
///     fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
///         self.0.descriptor()
///     }
///
///     fn cancel(&self, id: RequestId) -> bool {
///         self.0.cancel(id)
///     }
///
///     fn cancel_all(&self) {
///         self.0.cancel_all();
///     }
/// }
///
/// let file = std::sync::Arc::new(tempfile::tempfile()?);
/// let context = Context::new(8, Turned(Below::new(8, Threads::new(1)?)?))?;
/// context.submit(Request::write(file.clone(), vec![1; 4], 0))?;
/// context.visit(1, 1, None, |event| assert_eq!(event.result().unwrap(), 4))?;
/// context.submit(Request::read(file, vec![0; 4], 0))?;
/// let mut events = Vec::new();
/// context.get_events(1, 1, None, &mut events)?;
/// assert_eq!(events.remove(0).request.into_buffer::<Vec<u8>>().unwrap(), [254; 4]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Source: `file_endio_t` (2007: a function and a cookie, count and error apart), `ki_complete` (2015).
pub struct Below<B: Backend, D: Done> {
    /// Dropped first: waits for its requests, and so for the last of the cookies.
    context: Context<B>,
    cookies: Arc<Cookies<D>>,
}

/// What is kept for the request of each tag.
struct Cookies<D>(Box<[Cookie<D>]>);

/// # Safety
///
/// Written by who has the tag, before the request is handed over; taken out by who has it when it has ended.
type Cookie<D> = CachePadded<UnsafeCell<MaybeUninit<D>>>;

// SAFETY: each is reached by one thread at a time, and is `Send`.
unsafe impl<D: Send> Sync for Cookies<D> {}
// SAFETY: as above.
unsafe impl<D: Send> Send for Cookies<D> {}

/// Whom the events of a layer's requests go to.
pub(super) struct Layer {
    /// Valid until the last request has ended.
    cookies: NonNull<()>,
    /// # Safety
    ///
    /// 1. The first is `cookies`.
    /// 2. The caller has the tag, and what ended is the request of that tag, whose slot is empty.
    done: unsafe fn(NonNull<()>, &Shared, u32, Ended) -> Option<Finished>,
    /// The context that the layer serves.
    above: OnceLock<Memory>,
}

impl Layer {
    pub(super) fn is_dying(&self) -> bool {
        self.above().is_some_and(Shared::is_dying)
    }

    /// The context that the layer serves, if it is known yet.
    pub(super) fn above(&self) -> Option<&Shared> {
        self.above.get().map(Memory::shared)
    }
}

/// What a request of a layer is part of: from [`Below::above`].
#[derive(Clone, Copy, Debug)]
pub struct Above(RequestId);

impl<B: Backend, D: Done> Below<B, D> {
    /// For up to `capacity` requests of the layer at once. The backend has to take these and those that are passed on.
    ///
    /// # Errors
    ///
    /// [`CreateError::Capacity`] if it is 0 or above [`MAX_CAPACITY`](super::MAX_CAPACITY).
    pub fn new(capacity: u32, backend: B) -> Result<Self, CreateError> {
        let context = Context::with_lanes(capacity, 1, backend)?;
        let cookie = |_| CachePadded::new(UnsafeCell::new(MaybeUninit::uninit()));
        let cookies = Arc::new(Cookies((0..capacity).map(cookie).collect()));
        let theirs = NonNull::from(&*cookies).cast();
        let layer = Layer { cookies: theirs, done: done::<D>, above: OnceLock::new() };
        // SAFETY: valid, and nobody else has it yet.
        unsafe { (*context.shared.as_ptr()).layer = Some(Box::new(layer)) };
        Ok(Self { context, cookies })
    }

    /// The backend below: for what is passed on.
    pub fn backend(&self) -> &B {
        &self.context.backend
    }

    fn layer(&self) -> &Layer {
        self.context.shared().layer.as_ref().expect("set by `new`")
    }

    /// What the requests that are to be submitted for `work` are part of.
    ///
    /// # Errors
    ///
    /// `EINVAL`-like [`io::ErrorKind::InvalidInput`]: the layer serves another context.
    pub fn above(&self, work: &Completion) -> io::Result<Above> {
        // SAFETY: 1. by the request's reference; all who free it put the last of `memory`.
        let above = self.layer().above.get_or_init(|| unsafe { Memory::get(work.owner()) });
        if above.is_of(work.owner()) {
            return Ok(Above(work.id()));
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "a layer serves one context; make one for each"))
    }

    /// Whether the context of the layer is being destroyed. `true` stays true; `false` may be out of date.
    pub fn is_dying(&self) -> bool {
        self.layer().is_dying()
    }

    /// Has a request carried out, and `done` called with it. What comes of it, if that was within this call: what
    /// `done` has returned, for [`Submitted::Done`](super::Submitted::Done). The request's user data is set to the name
    /// of the one `above`.
    ///
    /// # Errors
    ///
    /// [`NotTaken`], with both: the capacity is in use (`EAGAIN`), the arguments make no sense, or the backend has
    /// refused it.
    #[inline]
    pub fn submit(
        &self,
        above: Above,
        mut request: Request,
        done: D,
    ) -> Result<Option<Finished>, NotTaken<D>> {
        request.user_data = above.0.into_raw();
        let mut request = ManuallyDrop::new(request);
        let tag = match Context::<B>::check(&request).and_then(|()| self.context.place()) {
            Ok(tag) => tag,
            Err(reason) => {
                let request = ManuallyDrop::into_inner(request);
                return Err(NotTaken { request, done, error: number(reason) });
            }
        };
        // SAFETY: 1. ours, and nobody left anything in its slot. 2. a whole request, left alone unless it comes back.
        let id = unsafe { self.context.shared().slot(tag).fill(&raw const *request, AWAITED) };
        let cookie = &self.cookies.0[tag as usize];
        // SAFETY: the tag is ours.
        cookie.with_mut(|cookie| unsafe { (*cookie).write(done) });
        let (mut finished, mut back) = (None, None);
        let settle = |ended: Finished| finished = ended.settle();
        // SAFETY: called with the tag ours again, as the cookie then is.
        let give_back = || back = Some(cookie.with(|cookie| unsafe { (*cookie).assume_init_read() }));
        let id = RequestId::new(id, tag);
        // SAFETY: 1. ours, and filled from there. 2. left alone unless it comes back.
        match unsafe { self.context.hand_over(id, &raw mut *request, settle, give_back) } {
            Ok(()) => Ok(finished),
            Err(reason) => {
                let request = ManuallyDrop::into_inner(request);
                Err(NotTaken { request, done: back.expect("refused"), error: number(reason) })
            }
        }
    }

    /// Takes no more requests, cancels those that can be, and waits until the last has ended and `done` has returned.
    /// Blocking. Dropping does so, too; a layer whose `done` uses this by a pointer of its own calls it first.
    pub fn close(&self) {
        // Closed before, then.
        let _ = self.context.destroy(None);
    }

    /// As [`Backend::flush`].
    pub fn flush(&self) {
        self.backend().flush();
    }

    /// As [`Backend::poll`]: passes on what the layer has finished of that, and what was passed on.
    pub fn poll(&self, done: &mut dyn FnMut(Finished)) {
        self.backend().poll(&mut |ended| {
            if let Some(finished) = ended.settle() {
                done(finished);
            }
        });
    }

    /// As [`Backend::descriptor`].
    #[cfg(ioctx_linux)]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.backend().descriptor()
    }

    /// As [`Backend::cancel`], for the request of this name above: cancels those down here that are parts of it, or the
    /// request itself if it was passed on. Looks at the whole capacity.
    pub fn cancel(&self, id: RequestId) -> bool {
        let parts = self.context.shared().in_flight().filter(|part| part.user_data == id.into_raw());
        let asked = parts.filter(|part| self.context.cancel(part.id).is_ok()).count();
        asked > 0 || self.backend().cancel(id)
    }

    /// As [`Backend::cancel_all`].
    pub fn cancel_all(&self) {
        if self.is_dying() {
            // SAFETY: 1. the context is ours.
            unsafe { Shared::cancel_all(self.context.shared) };
        }
        self.backend().cancel_all();
    }
}

impl<B: Backend, D: Done> fmt::Debug for Below<B, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Below").field("context", &self.context).finish_non_exhaustive()
    }
}

/// # Safety
///
/// As [`Layer::done`], whose `cookies` are those of a `D`.
unsafe fn done<D: Done>(cookies: NonNull<()>, shared: &Shared, tag: u32, ended: Ended) -> Option<Finished> {
    // SAFETY: they are kept until the last request has put its reference.
    let cookies: &Cookies<D> = unsafe { cookies.cast().as_ref() };
    // SAFETY: ours with the tag, and written before the request was handed over.
    let cookie = cookies.0[tag as usize].with(|cookie| unsafe { (*cookie).assume_init_read() });
    // First, so that it may submit another.
    shared.tags.put_raw(tag);
    cookie.done(ended)
}

impl Shared {
    /// Has the layer know of the end of its request, and puts the request's reference when it has. Returns what it has
    /// finished.
    ///
    /// # Safety
    ///
    /// 1. The caller owns the slot of `id`, which is filled, and one `reqs` reference, and passes both on.
    /// 2. These are the requests of a layer.
    pub(super) unsafe fn settle(this: NonNull<Self>, id: RequestId, res: i64) -> Option<Finished> {
        let references = References { shared: this, n: 1 };
        // SAFETY: it keeps it alive.
        let shared = unsafe { references.shared.as_ref() };
        let layer = shared.layer.as_ref()?;
        let slot = shared.slot(id.tag());
        let mut request = MaybeUninit::uninit();
        // SAFETY: ours by 1., and filled; empty from here on.
        let mut request = unsafe {
            slot.take(request.as_mut_ptr());
            request.assume_init()
        };
        // SAFETY: 1. by 1. The reader is the layer.
        let Outcome { bytes, error } = unsafe { slot.call_hooks(&mut request, apart(res), By::Reader) };
        // SAFETY: 1. they are its own. 2. by 1.
        unsafe { (layer.done)(layer.cookies, shared, id.tag(), Ended { request, bytes, error }) }
    }
}

/// What an error of the context means to a layer.
fn number(reason: Reason) -> io::Error {
    let kind = match reason {
        Reason::Refused(error) => return error,
        Reason::Full => io::ErrorKind::WouldBlock,
        reason => return io::Error::new(io::ErrorKind::InvalidInput, reason.to_string()),
    };
    kind.into()
}

/// The backend below did not take a request: here it is.
pub struct NotTaken<D> {
    /// As it was, but for its user data.
    pub request: Request,
    /// What was to be called.
    pub done: D,
    /// Why; [`io::ErrorKind::WouldBlock`] if the capacity is in use.
    pub error: io::Error,
}

impl<D> fmt::Debug for NotTaken<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotTaken")
            .field("request", &self.request)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<D> fmt::Display for NotTaken<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the backend below did not take the request: {}", self.error)
    }
}

impl<D> error::Error for NotTaken<D> {}
