//! Hooks of requests: called once, by whoever ends them.

use super::{Aside, Held, Later, Queue, events, nop};
use crate::harness::{Model, nothing};
use ioctx::aio::{Backend, Builder, By, Completion, Context, Submitted, Visited};
use ioctx::runlist;
use ioctx::sync::cell::UnsafeCell;
use ioctx::sync::model::set_cpu;
use ioctx::sync::time::Duration;
use ioctx::sync::{Arc, thread};

/// Passes requests on with a hook that counts its calls in a cell, which only who has the request may touch.
struct Counts<B>(B, By);

pub(super) struct Word(UnsafeCell<usize>);

// SAFETY: goes with the request; loom checks it.
unsafe impl Send for Word {}

impl Word {
    pub(super) fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    /// One more than at the last call.
    pub(super) fn next(&self) -> usize {
        // SAFETY: whose the request is has it, which loom checks.
        self.0.with_mut(|word| unsafe {
            *word += 1;
            *word
        })
    }
}

impl<B: Backend> Backend for Counts<B> {
    fn submit(&self, mut work: Completion) -> Submitted {
        let word = Word::new();
        work.on_end(self.1, move |request, mut outcome| {
            request.user_data += word.next() as u64;
            outcome.bytes += 10;
            outcome
        });
        self.0.submit(work)
    }
}

/// A request put aside with a hook, which one thread begins and completes, and another cancels.
fn cancel() {
    let aside = Arc::new(Aside::default());
    let context = Arc::new(Context::new(1, Counts(Queue(Arc::clone(&aside)), By::Completer)).unwrap());
    let id = context.submit(nop(1)).unwrap();
    let theirs = Arc::clone(&context);
    let canceller = thread::spawn(move || {
        set_cpu(1);
        theirs.cancel(id).is_ok()
    });
    let begun = aside.work();
    let event = events(&context, 1).pop().unwrap();
    let cancelled = canceller.join().unwrap();
    assert_ne!(begun, cancelled);
    // Dropped by either: it has the bytes of the hook, which was called once, and was told once that it was begun.
    assert_eq!(event.result.unwrap(), 10);
    assert_eq!(event.request.user_data, if begun { 102 } else { 2 });
}

/// A request whose hook is left to the run list by another thread while `waits` needs it to end. Its worker comes only
/// if somebody waits.
fn deferred(options: runlist::Builder, waits: impl FnOnce(&Context<Counts<Later>>)) {
    let held = Arc::new(Held::default());
    let list = options.worker_delay(Duration::ZERO, Duration::from_secs(3600));
    let layer = Counts(Later(Arc::clone(&held)), By::RunList);
    let context = Builder::new(1).lanes(1).run_list(list).build(layer).unwrap();
    context.submit(nop(1)).unwrap();
    let completer = thread::spawn(move || {
        set_cpu(1);
        let work = held.0.lock().pop().unwrap();
        work.complete(Ok(3));
    });
    waits(&context);
    completer.join().unwrap();
    let mut events = Vec::new();
    let _ = context.destroy(None);
    while context.get_events(1, 1, None, &mut events).is_ok() {}
    for event in events {
        assert_eq!((event.result.unwrap(), event.request.user_data), (13, 2));
    }
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "context.hook_cancel",
            checks: "a hook is called once, by whoever of two ends the request",
            bound: None,
            least: 4517,
            body: cancel,
            after: nothing,
        },
        Model {
            name: "context.hook_destroy",
            checks: "aio.cancel.offered, dying: who destroys calls the hook of a request that was just put aside",
            bound: Some(3),
            least: 1559,
            body: || {
                let aside = Arc::new(Aside::default());
                let backend = Counts(Queue(Arc::clone(&aside)), By::Completer);
                let context = Arc::new(Context::new(1, backend).unwrap());
                let theirs = Arc::clone(&context);
                let submitter = thread::spawn(move || {
                    set_cpu(1);
                    theirs.submit(nop(1)).is_ok()
                });
                context.destroy(None).unwrap();
                let accepted = submitter.join().unwrap();
                let mut seen = Vec::new();
                let mut look = |event: Visited<'_>| {
                    seen.push((event.request().user_data, event.result().unwrap()));
                };
                while context.visit(1, 1, None, &mut look).is_ok() {}
                assert_eq!(seen, vec![(2, 10); usize::from(accepted)]);
            },
            after: nothing,
        },
        Model {
            name: "context.deferred_destroy",
            checks: "what is left to the run list against destroying: done by the completer, the destroyer, or the worker",
            bound: Some(3),
            least: 2652,
            body: || deferred(runlist::Builder::new(), |context| context.destroy(None).unwrap()),
            after: nothing,
        },
        Model {
            name: "context.deferred_reap",
            checks: "runlist.kick.look, waiter.announce: a kick against a reader that goes to sleep: one of them has it done",
            bound: Some(3),
            least: 20481,
            body: || {
                deferred(runlist::Builder::new(), |context| {
                    assert_eq!(
                        context.visit(1, 1, None, |event| assert_eq!(event.result().unwrap(), 13)),
                        Ok(1)
                    );
                });
            },
            after: nothing,
        },
        Model {
            name: "context.deferred_submit",
            checks: "a submitter that helps against a reader that does: the hook is called once, by one of them",
            bound: Some(3),
            least: 25069,
            body: || {
                let held = Arc::new(Held::default());
                let layer = Counts(Later(Arc::clone(&held)), By::RunList);
                let list = runlist::Builder::new().worker(false);
                let context = Arc::new(Builder::new(2).lanes(1).run_list(list).build(layer).unwrap());
                context.submit(nop(1)).unwrap();
                held.0.lock().pop().unwrap().complete(Ok(3));
                let theirs = Arc::clone(&context);
                let submitter = thread::spawn(move || {
                    set_cpu(1);
                    theirs.submit(nop(1)).unwrap();
                });
                let event = events(&context, 1).pop().unwrap();
                assert_eq!((event.result.unwrap(), event.request.user_data), (13, 2));
                submitter.join().unwrap();
                held.0.lock().clear();
            },
            after: nothing,
        },
    ]
}
