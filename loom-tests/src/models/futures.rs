//! Requests with a future, and streams of events: who completes against who polls, drops, cancels and destroys.

use super::context::{Held, Later, nop};
use crate::harness::{Model, nothing};
use ioctx::aio::{Backend, Cancellable, Completion, Context, Event, EventStream, Started, Submitted};
use ioctx::backend::Null;
use ioctx::sync::model::set_cpu;
use ioctx::sync::{Arc, Mutex, thread};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Poll, Wake, Waker};

/// Puts requests aside until somebody begins or cancels them.
#[derive(Default)]
struct Aside(Mutex<Vec<Cancellable>>);

struct Queueing(Arc<Aside>);

impl Backend for Queueing {
    fn submit(&self, work: Completion) -> Submitted {
        self.0.0.lock().push(work.cancellable());
        Submitted::Queued
    }
}

/// Whether it was woken. The standard library's, since wakers are: loom does not see what it orders, so it orders
/// nothing here.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

fn waker() -> (std::sync::Arc<Woken>, Waker) {
    let woken = std::sync::Arc::<Woken>::default();
    (std::sync::Arc::clone(&woken), woken.into())
}

fn poll(started: &mut Started, waker: &Waker) -> Option<Event> {
    match Pin::new(started).poll(&mut std::task::Context::from_waker(waker)) {
        Poll::Ready(event) => Some(event),
        Poll::Pending => None,
    }
}

fn next(events: &mut EventStream<'_>, waker: &Waker) -> Option<Option<Event>> {
    match Pin::new(events).poll_next(&mut std::task::Context::from_waker(waker)) {
        Poll::Ready(event) => Some(event),
        Poll::Pending => None,
    }
}

fn complete(held: &Held) {
    let mut work = held.0.lock().pop().unwrap();
    work.request_mut().user_data += 1;
    work.complete(Ok(3));
}

/// What [`complete`] made of a request with user data 7.
fn check(event: Event) {
    assert_eq!((event.request.user_data, event.result.unwrap()), (8, 3));
}

/// A context with one request on its way, on this thread's CPU.
fn started() -> (Arc<Held>, Context<Later>, Started) {
    let held = Arc::new(Held::default());
    let context = Context::new(1, Later(Arc::clone(&held))).unwrap();
    let started = context.start(nop(7)).unwrap();
    (held, context, started)
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "context.future_complete_poll",
            checks: "a completion against polls: the request is handed over whole, or the waker is called",
            bound: None,
            least: 39,
            body: || {
                let (held, context, mut started) = started();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    complete(&held);
                });
                let (woken, waker) = waker();
                let event = poll(&mut started, &waker).or_else(|| poll(&mut started, &waker));
                thread.join().unwrap();
                check(event.unwrap_or_else(|| {
                    assert!(woken.0.load(Relaxed), "nobody was woken");
                    poll(&mut started, &waker).unwrap()
                }));
                assert_eq!(context.outstanding(), 0);
            },
            after: nothing,
        },
        Model {
            name: "context.future_another_waker",
            checks: "a completion against a poll with another waker: the last one is called, each is dropped once",
            bound: None,
            least: 159,
            body: || {
                let (held, _context, mut started) = started();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    complete(&held);
                });
                let (first, second) = (waker(), waker());
                let event = poll(&mut started, &first.1).or_else(|| poll(&mut started, &second.1));
                thread.join().unwrap();
                check(event.unwrap_or_else(|| {
                    assert!(second.0.0.load(Relaxed), "the last waker was not called");
                    poll(&mut started, &first.1).unwrap()
                }));
                drop(started);
                for (woken, waker) in [first, second] {
                    drop(waker);
                    assert_eq!(std::sync::Arc::strong_count(&woken), 1);
                }
            },
            after: nothing,
        },
        Model {
            name: "context.future_complete_drop",
            checks: "a completion against the drop of a polled future: one of them cleans up, and the place is used again",
            bound: Some(4),
            least: 5140,
            body: || {
                let (held, context, mut dropped) = started();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    complete(&held);
                });
                let (woken, waker) = waker();
                if let Some(event) = poll(&mut dropped, &waker) {
                    check(event);
                }
                drop(dropped);
                // Whoever has the place next writes the cells.
                let mut next = context.start(nop(1)).ok();
                if let Some(next) = &mut next {
                    assert!(poll(next, &waker).is_none());
                }
                thread.join().unwrap();
                drop(next);
                drop(waker);
                assert!(context.outstanding() <= 1);
                context.backend().0.0.lock().clear();
                assert_eq!(context.outstanding(), 0);
                assert_eq!(std::sync::Arc::strong_count(&woken), 1);
            },
            after: nothing,
        },
        Model {
            name: "context.future_next_user",
            checks: "the place of a future that has gone, used again by its completer",
            bound: Some(4),
            least: 11_493,
            body: || {
                let (held, context, mut dropped) = started();
                let context = Arc::new(context);
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    complete(&held);
                    let (_, waker) = waker();
                    // Otherwise it is the future's to clean up.
                    if let Ok(mut next) = theirs.start(nop(7)) {
                        assert!(poll(&mut next, &waker).is_none());
                        complete(&held);
                        check(poll(&mut next, &waker).unwrap());
                    }
                });
                let (_, waker) = waker();
                for _ in 0..2 {
                    if let Some(event) = poll(&mut dropped, &waker) {
                        check(event);
                        break;
                    }
                }
                drop(dropped);
                thread.join().unwrap();
                assert_eq!(context.outstanding(), 0);
            },
            after: nothing,
        },
        Model {
            name: "context.future_cancel",
            checks: "a cancelled future against who begins its request: one event, by one of them",
            bound: None,
            least: 47,
            body: || {
                let aside = Arc::new(Aside::default());
                let context = Context::new(1, Queueing(Arc::clone(&aside))).unwrap();
                let mut started = context.start(nop(7)).unwrap();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    let waiting = aside.0.lock().pop().unwrap();
                    waiting.claim().map(|work| work.complete(Ok(3))).is_some()
                });
                let (woken, waker) = waker();
                let before = poll(&mut started, &waker);
                let cancelled = before.is_none() && started.cancel().is_ok();
                let begun = thread.join().unwrap();
                assert!(begun != cancelled, "one of them completes");
                let event = before.unwrap_or_else(|| {
                    assert!(woken.0.load(Relaxed));
                    poll(&mut started, &waker).unwrap()
                });
                assert_eq!(event.result.is_ok(), begun);
            },
            after: nothing,
        },
        Model {
            name: "context.future_cancel_drop",
            checks: "the drop of a future against who begins its request: either cleans up",
            bound: None,
            least: 47,
            body: || {
                let aside = Arc::new(Aside::default());
                let context = Context::new(1, Queueing(Arc::clone(&aside))).unwrap();
                let started = context.start(nop(7)).unwrap();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    let waiting = aside.0.lock().pop().unwrap();
                    if let Some(work) = waiting.claim() {
                        work.complete(Ok(3));
                    }
                });
                drop(started);
                thread.join().unwrap();
                assert_eq!(context.outstanding(), 0);
            },
            after: nothing,
        },
        Model {
            name: "context.future_destroy",
            checks: "a polled future against the drop of its context, which cancels: it is woken, and outlives the context",
            bound: None,
            least: 7,
            body: || {
                let aside = Arc::new(Aside::default());
                let context = Context::new(1, Queueing(Arc::clone(&aside))).unwrap();
                let mut started = context.start(nop(7)).unwrap();
                let (woken, waker) = waker();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    let event = poll(&mut started, &waker);
                    (started, waker, event)
                });
                drop(context);
                let (mut started, waker, event) = thread.join().unwrap();
                let event = event.unwrap_or_else(|| {
                    assert!(woken.0.load(Relaxed));
                    poll(&mut started, &waker).unwrap()
                });
                assert_eq!(event.request.user_data, 7);
                assert!(event.result.is_err());
            },
            after: nothing,
        },
        Model {
            name: "context.future_last_act",
            checks: "a completion for a polled future against the drop of the context and of the future: its last act is its reference",
            bound: None,
            least: 35_096,
            body: || {
                let (held, context, mut started) = started();
                let (woken, waker) = waker();
                assert!(poll(&mut started, &waker).is_none());
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    complete(&held);
                });
                drop(context);
                // Done, but the waker may be called later.
                check(poll(&mut started, &waker).unwrap());
                drop(started);
                thread.join().unwrap();
                assert!(woken.0.load(Relaxed));
            },
            after: nothing,
        },
        Model {
            name: "context.stream_poll",
            checks: "an event against a stream that is polled: taken, or its waker is called",
            bound: None,
            least: 786,
            body: || {
                let context = Arc::new(Context::new(1, Null).unwrap());
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.submit(nop(7)).unwrap();
                });
                let (woken, waker) = waker();
                let mut events = context.events();
                let before = next(&mut events, &waker);
                thread.join().unwrap();
                let event = before.or_else(|| {
                    assert!(woken.0.load(Relaxed), "nobody was woken");
                    next(&mut events, &waker)
                });
                assert_eq!(event.unwrap().unwrap().request.user_data, 7);
            },
            after: nothing,
        },
        Model {
            name: "context.stream_end",
            checks: "a stream against a submit and the destroying: it has the event, and is told of the end",
            bound: None,
            least: 118,
            body: || {
                let context = Arc::new(Context::new(1, Null).unwrap());
                context.submit(nop(7)).unwrap();
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.destroy(None).unwrap();
                });
                let (woken, waker) = waker();
                let mut events = context.events();
                assert_eq!(next(&mut events, &waker).unwrap().unwrap().request.user_data, 7);
                let before = next(&mut events, &waker);
                thread.join().unwrap();
                let end = before.or_else(|| {
                    assert!(woken.0.load(Relaxed), "nobody was woken");
                    next(&mut events, &waker)
                });
                assert!(end.unwrap().is_none());
            },
            after: nothing,
        },
    ]
}
