//! Requests as futures: [`Context::start`] and [`Started`].

use super::delivery::{Delivered, Left};
use super::id::{AWAITED, RequestId};
use super::shared::{References, Shared};
use super::{Backend, CancelError, Context, Event, Finished, Request, SubmitError, Visited};
use crate::sync::call_outside;
use std::fmt;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{self, Poll, Waker};

impl<B: Backend> Context<B> {
    /// Hands one request over, as [`submit`](Self::submit) does, and returns the future of its event, of no particular
    /// runtime. The event comes there and nowhere else: no reader has to run for it, and none takes it away.
    ///
    /// The request is begun by this call, polled or not. It is as lock-free as `submit` is, and does not wait for room.
    /// Where the backend has to be looked at ([`Backend::poll`](super::Backend::poll)), it completes while
    /// somebody reads events, or destroys; polling does not look. Whoever awaits drives it himself: he calls
    /// [`get_events`](Self::get_events) for no event, and sleeps until a waker is called or the backend's descriptor is
    /// readable, as the executor of fifty lines in `examples/async_uring.rs` does.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the request: see [`Reason`](super::Reason).
    ///
    /// # Examples
    ///
    /// ```
    /// use ioctx::aio::{Backend, Context, Request};
    /// async fn first_block<B: Backend>(
    ///     context: &Context<B>,
    ///     file: std::fs::File,
    /// ) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    ///     let event = context.start(Request::read(file, vec![0; 4096], 0))?.await;
    ///     let read = event.result?;
    ///     let mut block = event.request.into_buffer::<Vec<u8>>().expect("a read has one");
    ///     block.truncate(read);
    ///     Ok(block)
    /// }
    /// ```
    pub fn start(&self, request: Request) -> Result<Started, SubmitError> {
        let mut request = ManuallyDrop::new(request);
        let tag = match Self::check(&request).and_then(|()| self.place()) {
            Ok(tag) => tag,
            Err(reason) => return Err(self.not_accepted(request, reason)),
        };
        // SAFETY: 1. ours, and nobody left anything in its slot. 2. a whole request, left alone unless it comes back.
        let id = RequestId::new(unsafe { self.shared().slot(tag).fill(&raw const *request, AWAITED) }, tag);
        // Before the backend has it: if that panics, the request completes, and somebody has to see to its place.
        //
        // SAFETY: 1. the context's own. 2. ours, and just filled under this name.
        let mut started = Some(unsafe { Started::new(self.shared, id) });
        let back = || drop(started.take());
        // SAFETY: 1. ours, and filled from there; the future's side is given up before the tag is put. 2. as above.
        let accepted = unsafe { self.hand_over(id, &raw mut *request, Finished::publish, back) };
        match (accepted, started) {
            (Err(reason), _) => Err(self.not_accepted(request, reason)),
            (Ok(()), started) => {
                self.flush();
                Ok(started.expect("taken back only from what is refused"))
            }
        }
    }
}

/// A request in flight whose event comes to this future. See [`Context::start`].
///
/// It borrows nothing, so that it can be given to a task or a thread, and does not keep its context from being
/// destroyed or dropped: that cancels it, as any request, waits for its completion, and the event is still to be had
/// here. Polling is lock-free. Only the waker of the last poll is called, once, by the thread that completes the
/// request, without a lock and after it is done with the context; one that panics does so there.
///
/// Dropped, it cancels the request, as [`Context::cancel`], and leaves it: buffers and file stay where they are until
/// the backend is done with them, and are dropped there. Whoever wants them back [cancels](Self::cancel) and awaits.
/// Forgotten, it leaks the request, its place, and the context's memory.
///
/// # Costs
///
/// What [`submit`](Context::submit) and completing cost, without the ring and its readers; a locked instruction for
/// completing, and two more for each waker that had to wait. For many requests at a time of which nobody awaits a
/// particular one, batches and [`get_events`](Context::get_events) cost less.
///
/// # Panics
///
/// Polled again after it was ready.
///
/// # Examples
///
/// With an executor that does nothing else:
///
/// ```
/// use ioctx::aio::{Context, Request};
/// use ioctx::backend::Threads;
/// use std::pin::pin;
/// use std::sync::Arc;
/// use std::task::{Poll, Wake};
/// use std::thread::{self, Thread};
///
/// struct Unpark(Thread);
///
/// impl Wake for Unpark {
///     fn wake(self: Arc<Self>) {
///         self.0.unpark();
///     }
/// }
///
/// fn block_on<F: Future>(future: F) -> F::Output {
///     let waker = Arc::new(Unpark(thread::current())).into();
///     let mut future = pin!(future);
///     loop {
///         match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
///             Poll::Ready(output) => return output,
///             Poll::Pending => thread::park(),
///         }
///     }
/// }
///
/// let context = Context::new(8, Threads::new(1)?)?;
/// let file = Arc::new(tempfile::tempfile()?);
/// let bytes = block_on(async {
///     context.start(Request::write(file.clone(), b"hello".to_vec(), 0))?.await.result?;
///     let event = context.start(Request::read(file, vec![0; 5], 0))?.await;
///     Ok::<_, Box<dyn std::error::Error>>(event.request.into_buffer::<Vec<u8>>())
/// })?;
/// assert_eq!(bytes.unwrap(), b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropped, it cancels the request"]
pub struct Started {
    memory: Memory,
    id: RequestId,
    /// Whether the event was handed over. Before, the slot of `id` is that of our request, and its future's side is
    /// ours.
    taken: bool,
}

impl Started {
    /// # Safety
    ///
    /// 1. The caller has a reference of `memory` of `*shared`.
    /// 2. The slot of `id` was filled under this name, for a future; the caller passes the future's side of it on.
    unsafe fn new(shared: NonNull<Shared>, id: RequestId) -> Self {
        // SAFETY: valid by 1.
        let valid = unsafe { shared.as_ref() };
        // SAFETY: 1. by 1.
        let memory = unsafe { Memory::get(shared) };
        // SAFETY: 1. by 2., before anybody else has it.
        unsafe { valid.slot(id.tag()).delivery().begin() };
        Self { memory, id, taken: false }
    }

    /// The name of the request.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// Completes the request with `ECANCELED` if no one has begun it, as [`Context::cancel`] does, so that this is
    /// ready with the request. Lock-free.
    ///
    /// # Errors
    ///
    /// [`CancelError`]; nothing was changed then.
    pub fn cancel(&self) -> Result<(), CancelError> {
        // SAFETY: 1. kept.
        unsafe { Shared::cancel(self.memory.0, self.id) }
    }
}

impl Future for Started {
    type Output = Event;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Event> {
        assert!(!self.taken, "polled after it was ready; await a request once");
        let id = self.id;
        // SAFETY: 1. we are.
        let polled = unsafe { self.memory.shared().slot(id.tag()).delivery().poll(context.waker()) };
        polled.map(|res| {
            self.taken = true;
            // SAFETY: the slot was handed over to us, filled.
            unsafe { Visited::new(self.memory.shared(), id, res) }.into_event()
        })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let shared = self.memory.shared();
        // SAFETY: 1. we are the future, and go.
        match unsafe { shared.slot(self.id.tag()).delivery().leave() } {
            // SAFETY: the slot was handed over to us, filled.
            Left::ToFuture(res) => drop(unsafe { Visited::new(shared, self.id, res) }),
            // Dropped in the end: that may call back.
            Left::ToCompleter(_waker) => drop(self.cancel()),
        }
    }
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").field("id", &self.id).field("taken", &self.taken).finish()
    }
}

/// A reference of `memory`, put when dropped.
pub(super) struct Memory(NonNull<Shared>);

// SAFETY: `Shared` is `Send` and `Sync`, and freed by whoever puts the last reference, on any thread.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// # Safety
    ///
    /// 1. `*shared` is valid, and whoever keeps it so waits for references of `memory`.
    pub(super) unsafe fn get(shared: NonNull<Shared>) -> Self {
        // SAFETY: 1.
        unsafe { shared.as_ref() }.memory.get();
        Self(shared)
    }

    /// Whether it is that one.
    pub(super) fn is_of(&self, shared: NonNull<Shared>) -> bool {
        self.0 == shared
    }

    pub(super) fn shared(&self) -> &Shared {
        // SAFETY: valid while this exists.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: 1. ours, and this is our last use of it. 2. boxed by `Builder::build`. A future that had a request or
        // an event there has taken it, and completers, who have references of `reqs`, are waited for by the context.
        unsafe { Shared::forget(self.0) };
    }
}

impl Shared {
    /// Hands the result of a finished request over to its future, puts the request's reference, and wakes who awaits
    /// it.
    ///
    /// # Safety
    ///
    /// 1. The caller owns the slot of `id`, which is filled, and one `reqs` reference, and passes both on.
    /// 2. The request was submitted with a future.
    pub(super) unsafe fn deliver(this: NonNull<Self>, id: RequestId, res: i64) {
        // SAFETY: the request's reference keeps it alive.
        if unsafe { this.as_ref() }.layer.is_some() {
            // SAFETY: 1. by 1. 2. just looked at. What it has finished publishes itself.
            return drop(unsafe { Self::settle(this, id, res) });
        }
        // Called, or dropped, after the reference was put, whatever panics: it may end a task and with it the context,
        // which waits for that reference.
        let _outside;
        let references = References { shared: this, n: 1 };
        // SAFETY: it keeps it alive.
        let shared = unsafe { references.shared.as_ref() };
        // SAFETY: 1. by 1. and 2.
        match unsafe { shared.slot(id.tag()).delivery().deliver(res) } {
            Delivered::ToFuture(waker) => _outside = Outside { waker, wakes: true },
            Delivered::ToNobody(waker) => {
                _outside = Outside { waker, wakes: false };
                // SAFETY: ours still, and filled.
                drop(unsafe { Visited::new(shared, id, res) });
            }
        }
    }
}

/// A waker to be called or dropped in the end: either is anybody's code.
struct Outside {
    waker: Option<Waker>,
    wakes: bool,
}

impl Drop for Outside {
    #[inline]
    fn drop(&mut self) {
        if let Some(waker) = self.waker.take() {
            call_outside(|| if self.wakes { waker.wake() } else { drop(waker) });
        }
    }
}
