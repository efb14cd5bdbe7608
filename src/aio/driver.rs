//! A thread that looks for completions where nobody else does: [`Driver`].

use super::drive::is_driven;
use super::{Backend, Context};
use crate::sync::atomic::{AtomicBool, Ordering::Relaxed};
use crate::sync::thread::{Builder, JoinHandle};
use crate::sync::{Arc, caught};
use std::ops::Deref;
use std::{fmt, io};

/// A context, and a thread that looks for what its backend has completed, for as long as this exists.
///
/// For those who only await: some backends (`Uring`, `Kernel`, `Nonblocking`) have no thread and complete only while
/// somebody is in [`get_events`](Context::get_events), which executors of other people's are not. The thread sleeps
/// until the backend has something, and hands it to futures and readers; it takes no event itself. Wakers are called on
/// it, and may panic. Where the backend completes by itself there is no thread.
///
/// Dropping it waits for that thread, and so for a waker that it is in. The context goes on without, or is dropped with
/// it.
///
/// # Costs
///
/// A thread, woken for each completion, or for several that come together: two context switches that those save who
/// watch the backend's [descriptor](Backend::descriptor) in a loop of their own (`examples/async_uring.rs`), and wait
/// for events anyway. Readers that sleep meanwhile are woken, too.
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Context, Driver, Request};
/// use ioctx::backend::Auto;
/// # fn block_on<F: Future>(future: F) -> F::Output {
/// #     use std::{pin::pin, sync::Arc, task::{Poll, Wake, Waker}, thread::{self, Thread}};
/// #     struct Unpark(Thread);
/// #     impl Wake for Unpark {
/// #         fn wake(self: Arc<Self>) { self.0.unpark() }
/// #     }
/// #     let waker = Waker::from(Arc::new(Unpark(thread::current())));
/// #     let mut future = pin!(future);
/// #     loop {
/// #         match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
/// #             Poll::Ready(output) => return output,
/// #             Poll::Pending => thread::park(),
/// #         }
/// #     }
/// # }
/// let context = Driver::new(Context::new(8, Auto::new(8)?)?)?;
/// let write = Request::write(tempfile::tempfile()?, b"hello".to_vec(), 0);
/// let event = block_on(context.start(write)?);
/// assert_eq!(event.result?, 5);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Driver<B: Backend + 'static> {
    context: Arc<Context<B>>,
    ends: Arc<AtomicBool>,
    /// `None` where there is nothing to look for.
    thread: Option<JoinHandle<()>>,
}

impl<B: Backend + 'static> Driver<B> {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// What the system says if it gives none. The context is dropped, then; one that is shared stays.
    pub fn new(context: impl Into<Arc<Context<B>>>) -> io::Result<Self> {
        let context = context.into();
        let ends = Arc::new(AtomicBool::new(false));
        let thread = if is_driven(&context.backend) {
            let (context, ends) = (Arc::clone(&context), Arc::clone(&ends));
            Some(Builder::new().name("ioctx-driver".into()).spawn(move || drive(&context, &ends))?)
        } else {
            None
        };
        Ok(Self { context, ends, thread })
    }

    /// The context, to be shared.
    pub fn context(&self) -> &Arc<Context<B>> {
        &self.context
    }
}

fn drive<B: Backend>(context: &Context<B>, ends: &AtomicBool) {
    // Relaxed: looked at once more when the sleep is announced; see `drop`.
    while !ends.load(Relaxed) {
        // If a waker panics, there may be more.
        if caught(|| context.harvest()) == Some(0) {
            // For no number of events: those are for readers.
            context.sleep(u32::MAX, None, |_| ends.load(Relaxed));
        }
    }
}

impl<B: Backend + 'static> Drop for Driver<B> {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // Relaxed: the fence behind it, in `notify_all`, and the one of who announces a sleep order it, so that the thread
        // sees it or is woken.
        self.ends.store(true, Relaxed);
        self.context.shared().wait.notify_all();
        // A waker may have dropped us, on the thread itself: it ends when it is back.
        if thread.thread().id() != crate::sync::thread::current().id() {
            // What panics there ends there.
            let _ = thread.join();
        }
    }
}

impl<B: Backend + 'static> Deref for Driver<B> {
    type Target = Context<B>;

    fn deref(&self) -> &Context<B> {
        &self.context
    }
}

impl<B: Backend + 'static> fmt::Debug for Driver<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("context", &self.context)
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}
