//! Requests on offer: beginning, cancelling, destroying, and the slot used again.

use super::{Aside, Held, Later, Queue, events, nop, rest};
use crate::harness::{Model, nothing};
use ioctx::aio::{Backend, CancelError, Cancellable, Completion, Context, RequestId, Submitted};
use ioctx::sync::atomic::{AtomicBool, Ordering::Relaxed};
use ioctx::sync::model::set_cpu;
use ioctx::sync::{Arc, thread};

/// Hands tokens over by means that order nothing, as far as a model can see: the lock is not one of its own. Cancellers
/// come as unordered, but see what they cancel only behind a fence, which loom orders after the owner's.
#[derive(Default)]
struct Smuggler {
    tokens: std::sync::Mutex<Vec<Cancellable>>,
    there: AtomicBool,
}

impl Backend for Smuggler {
    fn submit(&self, work: Completion) -> Submitted {
        let token = work.cancellable();
        self.tokens.lock().unwrap().push(token);
        // Relaxed: see above.
        self.there.store(true, Relaxed);
        Submitted::Queued
    }
}

/// A context for one request, its queue, and the request in it.
fn queued() -> (Arc<Context<Queue>>, Arc<Aside>, RequestId) {
    let aside = Arc::new(Aside::default());
    let context = Arc::new(Context::new(1, Queue(Arc::clone(&aside))).unwrap());
    let id = context.submit(nop(7)).unwrap();
    (context, aside, id)
}

/// What has come of the request 7: begun it is 107, and dropped.
fn outcome(context: &Context<Queue>) -> u64 {
    let events = events(context, 1);
    assert!(events[0].result.is_err());
    events[0].request.user_data
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "context.cancel_claim",
            checks: "a canceller against who begins: one of them has the request, and there is one event",
            bound: None,
            least: 2680,
            body: || {
                let (context, aside, id) = queued();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    aside.work()
                });
                let cancelled = context.cancel(id);
                let outcome = outcome(&context);
                let begun = thread.join().unwrap();
                assert_eq!(cancelled.is_err(), begun);
                assert_eq!(outcome, if begun { 107 } else { 7 });
                assert_eq!(context.cancel(id), Err(CancelError::Unknown));
                assert_eq!(context.destroy(None), Ok(()));
            },
            after: nothing,
        },
        Model {
            name: "context.cancel_cancel",
            checks: "two cancellers: one of them has the request",
            bound: None,
            least: 2680,
            body: || {
                let (context, _aside, id) = queued();
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.cancel(id)
                });
                let mine = context.cancel(id);
                assert_eq!(outcome(&context), 7);
                assert!(mine.is_ok() != thread.join().unwrap().is_ok());
                assert_eq!(context.outstanding(), 0);
            },
            after: nothing,
        },
        Model {
            name: "context.claim_offer",
            checks: "aio.slot.offer against aio.slot.claim: who claims has the request whole, however it came to know of it",
            bound: None,
            least: 6,
            body: || {
                let context = Arc::new(Context::new(1, Smuggler::default()).unwrap());
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.submit(nop(7)).unwrap();
                });
                // Relaxed: see `Smuggler`.
                if context.backend().there.load(Relaxed) {
                    let token = context.backend().tokens.lock().unwrap().pop().unwrap();
                    assert_eq!(token.claim().unwrap().request().user_data, 7);
                }
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.cancel_complete",
            checks: "a canceller against the completion of what cannot be cancelled: refused, and one event",
            bound: None,
            least: 4503,
            body: || {
                let held = Arc::new(Held::default());
                let context = Context::new(1, Later(Arc::clone(&held))).unwrap();
                let id = context.submit(nop(7)).unwrap();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    held.0.lock().pop().unwrap().complete(Ok(3));
                });
                let cancelled = context.cancel(id).unwrap_err();
                assert!(matches!(cancelled, CancelError::Running | CancelError::Unknown));
                assert_eq!(events(&context, 1)[0].result.as_ref().unwrap(), &3);
                assert_eq!(context.cancel(id), Err(CancelError::Unknown));
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.cancel_reap",
            checks: "a canceller against a reader that sleeps: woken, by who cancels, with the request whole",
            bound: None,
            least: 1830,
            body: || {
                let (context, _aside, id) = queued();
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    assert_eq!(theirs.cancel(id), Ok(()));
                });
                assert_eq!(outcome(&context), 7);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.cancel_reuse",
            checks: "a late canceller against the next request in the same slot: never cancels that one",
            bound: None,
            least: 2707,
            body: || {
                let (context, aside, id) = queued();
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.cancel(id).is_ok()
                });
                let begun = aside.work();
                assert_eq!(outcome(&context), if begun { 107 } else { 7 });
                let next = context.submit(nop(8)).unwrap();
                assert_eq!(thread.join().unwrap(), !begun);
                assert!(next != id && aside.work(), "somebody has cancelled the next one");
                assert_eq!(outcome(&context), 108);
            },
            after: nothing,
        },
        Model {
            name: "context.claim_reuse",
            checks: "a token whose request was cancelled against the next request in the same slot: never claims that one",
            bound: None,
            least: 2707,
            body: || {
                let (context, aside, id) = queued();
                let stale = aside.0.lock().pop().unwrap();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    stale.claim().is_some()
                });
                let cancelled = context.cancel(id).is_ok();
                assert_eq!(outcome(&context), 7);
                context.submit(nop(8)).unwrap();
                assert_eq!(thread.join().unwrap(), !cancelled);
                assert!(aside.work(), "somebody has claimed the next one");
            },
            after: nothing,
        },
        Model {
            name: "context.offer_destroy",
            checks: "aio.cancel.offered against aio.cancel.dying: what nobody will begin does not outlive a destroy",
            bound: Some(4),
            least: 6863,
            body: || {
                let aside = Arc::new(Aside::default());
                let context = Arc::new(Context::new(1, Queue(Arc::clone(&aside))).unwrap());
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.submit(nop(7)).is_ok()
                });
                assert_eq!(context.destroy(None), Ok(()));
                // Before the other thread is known to be done: cancelled, the request came from it.
                let there = rest(&context);
                let accepted = thread.join().unwrap();
                assert_eq!(there, if accepted { vec![7] } else { vec![] });
                assert!(!accepted || !aside.work());
            },
            after: nothing,
        },
        Model {
            name: "context.cancel_destroy",
            checks: "a canceller against a destroyer, who cancels as well: one event",
            bound: None,
            least: 6200,
            body: || {
                let (context, _aside, id) = queued();
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    let _ = theirs.cancel(id);
                });
                assert_eq!(context.destroy(None), Ok(()));
                assert_eq!(rest(&context), [7]);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.claim_drop",
            checks: "who begins against the drop of the context: the memory stays until the token and the request are gone",
            bound: Some(4),
            least: 14_733,
            body: || {
                let (context, aside, _) = queued();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    aside.work();
                });
                drop(context);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.cancel_claim_destroy",
            checks: "a canceller, who begins, and a destroyer: one of them has the request, and there is one event",
            bound: Some(2),
            least: 2751,
            body: || {
                let (context, aside, id) = queued();
                let theirs = Arc::clone(&context);
                let canceller = thread::spawn(move || {
                    set_cpu(1);
                    theirs.cancel(id).is_ok()
                });
                let worker = thread::spawn(move || aside.work());
                assert_eq!(context.destroy(None), Ok(()));
                let [cancelled, begun] = [canceller, worker].map(|thread| thread.join().unwrap());
                assert!(!(cancelled && begun));
                assert_eq!(rest(&context), [if begun { 107 } else { 7 }]);
            },
            after: nothing,
        },
    ]
}
