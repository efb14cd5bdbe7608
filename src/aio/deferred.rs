//! Requests whose hooks wait in the run list of their context: [`Deferred`].

use super::By;
use super::completion::Finished;
use super::shared::Shared;
use crate::runlist::{Run, RunList, Task, Waiting};
use crate::sync::caught;
use std::ptr::NonNull;

/// What the task of a slot does: calls the hooks that were left to the run list, and publishes what has come of it.
pub(super) struct Deferred {
    /// Valid whenever the task was kicked: the request has a reference of `reqs`.
    shared: NonNull<Shared>,
    tag: u32,
}

// SAFETY: `Shared` is `Sync`, and a kick hands over the request in the slot, which is `Send`.
unsafe impl Send for Deferred {}

impl Run for Deferred {
    fn run(&mut self, _: &Task<Self>) {
        // Who helps has nothing to do with it: what panics, such as a waker, does not reach him.
        //
        // SAFETY: 1. a kick comes from `defer`, with all of that, and is the only one until we have published: only
        // then the slot can have another request. So there is one for each run.
        caught(|| unsafe { self.shared.as_ref().end_deferred(self.shared, self.tag) });
    }
}

impl Shared {
    /// The run list for these requests: the context's own, or, if they are those of a layer, that of the one above.
    pub(super) fn run_list(&self) -> Option<&RunList<Deferred>> {
        self.list.as_ref().or_else(|| self.layer.as_ref()?.above()?.run_list())
    }

    /// For one who submits, at the end: runs as many tasks as a submitter does. A load if there is no list, and another
    /// if it is empty.
    #[inline(always)]
    pub(super) fn help_on_submit(&self) {
        if let Some(list) = &self.list {
            list.help_on_submit();
        }
    }

    /// For one who is about to wait, who sleeps only if this has [run](Waiting::ran) nothing.
    pub(super) fn help_on_reap(&self) -> Option<Waiting<'_, Deferred>> {
        self.run_list().map(RunList::help_on_reap)
    }

    /// Runs what is there, for one who would wait otherwise; returns whether there was anything.
    pub(super) fn help(&self) -> bool {
        self.run_list().is_some_and(|list| !list.is_empty() && list.help_on_reap().ran() > 0)
    }

    /// Leaves what is left of a request to the run list.
    ///
    /// # Safety
    ///
    /// 1. The caller owns the slot of `tag`, which is filled, and one `reqs` reference, and passes both on.
    /// 2. The request is finished, and its result kept.
    pub(super) unsafe fn defer(this: NonNull<Self>, list: &RunList<Deferred>, tag: u32) {
        // SAFETY: the reference keeps it alive, until the kick.
        let slot = unsafe { this.as_ref() }.slot(tag);
        // SAFETY: 1. by 1.
        let (task, awaited) =
            unsafe { (slot.task(|| list.task(Deferred { shared: this, tag })), slot.name(tag).is_awaited()) };
        // Of one that goes to a future nobody says that he waits: he may be a task of any executor.
        let kicked = if awaited { task.kick_soon() } else { task.kick() };
        // From here on all of it may be gone, but for our clone of the task.
        kicked.expect("the list is dropped when all requests have ended");
    }

    /// Calls the hooks that were left to the run list, and publishes the request.
    ///
    /// # Safety
    ///
    /// 1. As [`defer`](Self::defer), which the request of `tag` went through; `this` is this.
    unsafe fn end_deferred(&self, this: NonNull<Self>, tag: u32) {
        let slot = self.slot(tag);
        // SAFETY: 1. by 1., each.
        let finished = unsafe {
            let res = self.call_hooks_by(tag, slot.delivery().kept(), By::RunList);
            Finished::again(this, slot.name(tag), res)
        };
        finished.publish();
    }
}
