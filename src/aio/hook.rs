//! What is called when a request has ended: [`By`], and the hooks of a slot.

use super::Request;
use super::completion::{BROKEN, apart};
use super::deferred::Deferred;
use super::id::AWAITED;
use crate::fanin::Outcome;
use crate::runlist::Task;
use crate::sync::caught;
use std::mem::{self, MaybeUninit};

/// By whom a [hook](super::Completion::on_end) is called: in whose context that work is done.
///
/// Hooks of one request are called one after the other. One whose turn comes when an earlier one was left to somebody
/// later in this list is called there as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// Whoever completes the request: within `submit`, within [`poll`](super::Backend::poll), on a thread of the
    /// backend, or whoever cancels.
    Completer,
    /// The [run list](crate::runlist) of the context: whoever submits next, waits for events, or destroys, and if
    /// nobody does, the list's worker. In a context [without](super::Builder::run_list) or that is being destroyed, the
    /// completer.
    RunList,
    /// Whoever is handed the event: the thread that reads it, the task that awaits it, or the layer whose request it
    /// is. If nobody is, whoever finds that out: by dropping the future or the context.
    Reader,
}

/// A function, and the word it is called with.
pub(super) struct Hook {
    /// # Safety
    ///
    /// 1. Called once, with the cookie that it was made with.
    function: unsafe fn(Cookie, &mut Request, Outcome) -> Outcome,
    cookie: Cookie,
    by: By,
}

/// What is called, if it is no larger than this; or a box of it.
type Cookie = MaybeUninit<*mut ()>;

// SAFETY: what is called is `Send`.
unsafe impl Send for Hook {}

impl Hook {
    #[inline]
    pub(super) fn new<F>(by: By, hook: F) -> Self
    where
        F: FnOnce(&mut Request, Outcome) -> Outcome + Send + 'static,
    {
        let mut cookie = Cookie::uninit();
        if const { size_of::<F>() <= size_of::<Cookie>() && align_of::<F>() <= align_of::<Cookie>() } {
            // SAFETY: as large, and aligned, as just found.
            unsafe { cookie.as_mut_ptr().cast::<F>().write(hook) };
            Self { function: call_inline::<F>, cookie, by }
        } else {
            cookie.write(Box::into_raw(Box::new(hook)).cast());
            Self { function: call_boxed::<F>, cookie, by }
        }
    }
}

/// # Safety
///
/// 1. `cookie` holds an `F`, which is not used any more.
unsafe fn call_inline<F>(cookie: Cookie, request: &mut Request, outcome: Outcome) -> Outcome
where
    F: FnOnce(&mut Request, Outcome) -> Outcome,
{
    // SAFETY: 1.
    let hook = unsafe { cookie.as_ptr().cast::<F>().read() };
    hook(request, outcome)
}

/// # Safety
///
/// 1. `cookie` holds the address of a boxed `F`, which is not used any more.
unsafe fn call_boxed<F>(cookie: Cookie, request: &mut Request, outcome: Outcome) -> Outcome
where
    F: FnOnce(&mut Request, Outcome) -> Outcome,
{
    // SAFETY: 1.
    let hook = unsafe { Box::from_raw(cookie.assume_init().cast::<F>()) };
    hook(request, outcome)
}

/// The hooks of the request in a slot: two words of it.
#[derive(Default)]
pub(super) struct Hooks {
    /// [`AWAITED`] if there are any, otherwise 0.
    mark: u64,
    /// The last one is called first. Made for the slot's first hook and kept.
    stack: Option<Box<Stack>>,
}

#[derive(Default)]
struct Stack {
    hooks: Vec<Hook>,
    /// For what is left to the run list, once anything was.
    task: Option<Task<Deferred>>,
}

impl Hooks {
    #[inline(always)]
    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    #[inline]
    pub(super) fn push(&mut self, hook: Hook) {
        self.stack.get_or_insert_default().hooks.push(hook);
        self.mark = AWAITED;
    }

    /// Whether the next one is to be called by this.
    pub(super) fn next_is_by(&self, by: By) -> bool {
        self.stack.as_ref().and_then(|stack| stack.hooks.last()).is_some_and(|hook| hook.by == by)
    }

    /// The task of this slot, which is made if there is none.
    pub(super) fn task(&mut self, make: impl FnOnce() -> Task<Deferred>) -> Task<Deferred> {
        self.stack.get_or_insert_default().task.get_or_insert_with(make).clone()
    }

    /// Calls those whose turn has come for `by`, with the request, which may have been moved out of its slot. Returns
    /// what they make of the outcome. Panics end here.
    pub(super) fn call(&mut self, request: &mut Request, mut outcome: Outcome, by: By) -> Outcome {
        let Some(stack) = &mut self.stack else { return outcome };
        let hooks = &mut stack.hooks;
        loop {
            let ended = caught(|| {
                let mut so_far = mem::take(&mut outcome);
                while let Some(Hook { function, cookie, .. }) = hooks.pop_if(|hook| hook.by <= by) {
                    // SAFETY: 1. just taken out, with its cookie.
                    so_far = unsafe { function(cookie, request, so_far) };
                }
                outcome = so_far;
            });
            if ended.is_some() {
                break;
            }
            // The next ones are told so.
            outcome = apart(BROKEN);
        }
        if hooks.is_empty() {
            self.mark = 0;
        }
        outcome
    }
}
