//! Layers: requests of their own on a backend below, what becomes of them, and who finishes what.
#![cfg(ioctx_linux)]

mod any;
mod deferred;
mod direct;
mod hooks;
#[path = "../support/mod.rs"]
mod support;
mod transparent;

use ioctx::aio::{
    Backend, Below, Completion, Context, DestroyError, Done, Ended, Event, Finished, Request, Submitted,
};
use ioctx::backend::{Null, Threads};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use support::never_hang;
use transparent::Transparent;

/// Keeps requests until the test completes them; refuses all if it is told to.
#[derive(Clone, Default)]
pub(crate) struct Held(pub(crate) Arc<Mutex<Vec<Completion>>>, Arc<Mutex<bool>>);

impl Held {
    pub(crate) fn take(&self) -> Vec<Completion> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn refuse(&self, all: bool) {
        *self.1.lock().unwrap() = all;
    }
}

impl Backend for Held {
    fn submit(&self, work: Completion) -> Submitted {
        if *self.1.lock().unwrap() {
            return Submitted::Refused(work, io::Error::from_raw_os_error(libc::EPERM));
        }
        self.0.lock().unwrap().push(work);
        Submitted::Queued
    }
}

fn one<B: Backend>(context: &Context<B>) -> Event {
    let mut events = Vec::new();
    assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
    events.pop().unwrap()
}

fn code(event: &Event) -> Option<i32> {
    event.result.as_ref().err().and_then(io::Error::raw_os_error)
}

fn stacked(held: &Held) -> Context<Transparent<Transparent<Held>>> {
    never_hang();
    Context::new(4, Transparent::new(4, Transparent::new(4, held.clone()))).unwrap()
}

#[test]
fn bytes_and_error_both_come_up() {
    let held = Held::default();
    let context = stacked(&held);
    context.submit(Request::nop().with_user_data(9)).unwrap();
    held.take().pop().unwrap().complete(Ok(5));
    let event = one(&context);
    assert_eq!((event.result.unwrap(), event.request.user_data), (5, 9));

    // What a reader is told is the bytes; each layer is told both.
    context.submit(Request::nop()).unwrap();
    drop(held.take().pop().unwrap().finish_partly(7, io::Error::from_raw_os_error(libc::EIO)));
    assert_eq!(one(&context).result.unwrap(), 7);
    assert_eq!(context.backend().last(), (7, Some(libc::EIO)));
    assert_eq!(context.backend().below().last(), (7, Some(libc::EIO)));
    context.submit(Request::nop()).unwrap();
    drop(held.take().pop().unwrap().finish_partly(0, io::Error::from_raw_os_error(libc::EIO)));
    assert_eq!(code(&one(&context)), Some(libc::EIO));
}

#[test]
fn what_is_dropped_below_is_cancelled_above() {
    let held = Held::default();
    let context = stacked(&held);
    context.submit(Request::nop()).unwrap();
    drop(held.take());
    assert_eq!(code(&one(&context)), Some(libc::ECANCELED));
}

#[test]
fn what_is_refused_below_comes_back_whole() {
    let held = Held::default();
    let context = stacked(&held);
    held.refuse(true);
    let refused = context.submit(Request::write(tempfile::tempfile().unwrap(), vec![7; 5], 3)).unwrap_err();
    assert!(refused.to_string().contains("not permitted"), "{refused}");
    assert_eq!(refused.request.into_buffer::<Vec<u8>>().unwrap(), [7; 5]);
    held.refuse(false);
    // Nothing is left of it.
    for _ in 0..9 {
        context.submit(Request::nop()).unwrap();
        held.take().into_iter().for_each(|work| work.complete(Ok(0)));
        one(&context);
    }
}

#[test]
fn a_layer_serves_one_context() {
    let below: Below<Held, fn(Ended) -> Option<Finished>> = Below::new(4, Held::default()).unwrap();
    let held = Held::default();
    let [first, second] = [(); 2].map(|()| Context::new(4, held.clone()).unwrap());
    first.submit(Request::nop()).unwrap();
    second.submit(Request::nop()).unwrap();
    let work = held.take();
    below.above(&work[0]).unwrap();
    below.above(&work[0]).unwrap();
    assert_eq!(below.above(&work[1]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    assert!(!below.is_dying());
    let _ = first.destroy(Some(Instant::now()));
    assert!(below.is_dying());
}

#[test]
fn a_layer_has_no_more_than_its_capacity() {
    let held = Held::default();
    let context = Context::new(4, Transparent::new(1, held.clone())).unwrap();
    context.submit(Request::nop()).unwrap();
    context.submit(Request::nop()).unwrap_err();
    held.take().pop().unwrap().complete(Ok(1));
    one(&context);
    context.submit(Request::nop()).unwrap();
    drop(held.take());
}

#[test]
fn destroying_ends_what_waits_two_layers_down() {
    never_hang();
    let threads = Threads::new(1).unwrap();
    let context = Context::new(8, Transparent::new(8, Transparent::new(8, threads))).unwrap();
    let (begun, begins) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let waits = move || {
        begun.send(()).unwrap();
        goes_on.recv().unwrap();
        Ok(1)
    };
    context.submit(Request::custom(waits)).unwrap();
    begins.recv().unwrap();
    // The one thread is busy; these are put aside.
    let [first, _second] = [(); 2].map(|()| context.submit(Request::custom(|| Ok(2))).unwrap());
    context.cancel(first).unwrap();
    assert_eq!(code(&one(&context)), Some(libc::ECANCELED));
    let timed_out = context.destroy(Some(Instant::now() + Duration::from_millis(20)));
    assert!(matches!(timed_out, Err(DestroyError::TimedOut { in_flight: 1, .. })), "{timed_out:?}");
    assert_eq!(code(&one(&context)), Some(libc::ECANCELED));
    go_on.send(()).unwrap();
    context.wait_destroyed(None).unwrap();
    assert_eq!(one(&context).result.unwrap(), 1);
}

/// Panics in its `done`.
struct Panicking(Below<Null, Work>);
struct Work(Completion);

impl Done for Work {
    fn done(self, _: Ended) -> Option<Finished> {
        if self.0.request().user_data == 1 {
            panic!("on purpose");
        }
        Some(self.0.finish(Ok(3)))
    }
}

impl Backend for Panicking {
    fn submit(&self, work: Completion) -> Submitted {
        let above = self.0.above(&work).unwrap();
        self.0.submit(above, Request::nop(), Work(work)).unwrap().map_or(Submitted::Queued, Submitted::Done)
    }
}

#[test]
fn a_panic_in_a_layer_cancels_its_request_and_no_other() {
    let context = Context::new(2, Panicking(Below::new(1, Null).unwrap())).unwrap();
    for _ in 0..5 {
        let panicked = catch_unwind(AssertUnwindSafe(|| context.submit(Request::nop().with_user_data(1))));
        assert!(panicked.is_err());
        assert_eq!(code(&one(&context)), Some(libc::ECANCELED));
        context.submit(Request::nop()).unwrap();
        assert_eq!(one(&context).result.unwrap(), 3);
    }
}
