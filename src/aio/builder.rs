//! How a [`Context`] is to be: [`Builder`].

use super::shared::Shared;
use super::trace::report;
use super::{Backend, Context, CreateError, MAX_CAPACITY, MAX_LANES};
use crate::ring::CompletionQueue;
use crate::runlist;
use std::ptr::NonNull;

/// How a [`Context`] is to be. By default a completion lane per possible CPU, and no run list.
///
/// # Examples
///
/// What a layer leaves to the run list is done by the reader before it sleeps; a submitter does at most four of these:
///
/// ```
/// use ioctx::aio::{Backend, Builder, By, Completion, Request, Submitted};
/// use ioctx::runlist;
///
/// struct Later;
///
/// impl Backend for Later {
///     fn submit(&self, mut work: Completion) -> Submitted {
///         work.on_end(By::RunList, |_request, mut outcome| {
///             outcome.bytes += 1;
///             outcome
///         });
///         Submitted::Done(work.finish(Ok(1)))
///     }
/// }
///
/// let list = runlist::Builder::new().help_on_submit(4);
/// let context = Builder::new(64).run_list(list).build(Later)?;
/// context.submit(Request::nop())?;
/// context.visit(1, 1, None, |event| assert_eq!(event.result().unwrap(), 2))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is built before `build`"]
pub struct Builder {
    capacity: u32,
    lanes: Option<u32>,
    list: Option<runlist::Builder>,
}

impl Builder {
    /// For up to `capacity` requests in flight or unread.
    pub fn new(capacity: u32) -> Self {
        Self { capacity, lanes: None, list: None }
    }

    /// How many completion lanes. One hands events over in the order of their completion.
    pub fn lanes(mut self, lanes: u32) -> Self {
        self.lanes = Some(lanes);
        self
    }

    /// With a [run list](crate::runlist), for hooks that are called [`By::RunList`](super::By::RunList), as told:
    /// submitters run some of what is in it at the end of each call, readers all of it before they sleep, as do those
    /// who destroy, and its worker the rest: in a short while if somebody waits (in [`Context::get_events`], for an
    /// [event](Context::events) or a [future](Context::start), or by an eventfd), and in a long one if not.
    ///
    /// With neither help by readers nor a worker, or if the system has no thread to be one, what was left to the list
    /// is done when somebody submits, if ever, or when the context is destroyed.
    ///
    /// # Costs
    ///
    /// A load for a submit while it is empty. For a request that is left to it: an allocation, the first time in each
    /// place of the context, and some 50 ns.
    pub fn run_list(mut self, list: runlist::Builder) -> Self {
        self.list = Some(list);
        self
    }

    /// A context with this backend.
    ///
    /// # Errors
    ///
    /// [`CreateError::Capacity`] if that is 0 or above [`MAX_CAPACITY`]; [`CreateError::Lanes`] if they are 0 or above
    /// [`MAX_LANES`].
    pub fn build<B: Backend>(self, backend: B) -> Result<Context<B>, CreateError> {
        let Self { capacity, lanes, list } = self;
        if let Some(lanes) = lanes
            && !(1..=MAX_LANES).contains(&lanes)
        {
            return Err(CreateError::Lanes(lanes));
        }
        if !(1..=MAX_CAPACITY).contains(&capacity) {
            return Err(CreateError::Capacity(capacity));
        }
        let queue = match lanes {
            Some(lanes) => CompletionQueue::with_lanes(capacity, lanes),
            None => CompletionQueue::new(capacity),
        };
        let shared = Shared::new(capacity, queue, list.map(runlist::Builder::build));
        let shared = NonNull::from(Box::leak(Box::new(shared)));
        report!(debug, context = ?shared, capacity, "created");
        Ok(Context { shared, backend })
    }
}
