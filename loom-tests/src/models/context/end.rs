//! Destroying: by several, many at once, as a future, and with a deadline.

use super::{Held, Later, events, nop};
use crate::harness::{Model, nothing};
use ioctx::aio::{Backend, Completion, Context, DestroyError, RequestId, Submitted};
use ioctx::sync::model::set_cpu;
use ioctx::sync::time::Instant;
use ioctx::sync::{Arc, Parker, thread};
use std::pin::pin;
use std::task::{Poll, Wake, Waker};

/// Does the first request at once and keeps the others.
struct FirstAtOnce(Later);

impl Backend for FirstAtOnce {
    fn submit(&self, work: Completion) -> Submitted {
        match work.request().user_data {
            1 => Submitted::Done(work.finish(Ok(0))),
            _ => self.0.submit(work),
        }
    }
}

/// Wakes the thread that polls.
#[derive(Default)]
struct Unpark(Parker);

impl Wake for Unpark {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.unpark();
    }
}

/// Polls until ready.
fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    for _ in 0..3 {
        let unpark = std::sync::Arc::new(Unpark::default());
        let waker = Waker::from(std::sync::Arc::clone(&unpark));
        if let Poll::Ready(output) = future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            return output;
        }
        let _ = unpark.0.park(None);
    }
    panic!("woken, but not ready");
}

/// Completes what is held, on the other CPU.
fn complete(held: Arc<Held>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        set_cpu(1);
        held.0.lock().pop().unwrap().complete(Ok(0));
    })
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "context.destroy_names",
            checks: "a report of what is in flight against a submitter and the next in its slot: each id with its user data",
            bound: Some(3),
            least: 1201,
            body: || {
                let held = Arc::new(Held::default());
                let context = Arc::new(Context::new(1, FirstAtOnce(Later(Arc::clone(&held)))).unwrap());
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    let mut submitted: Vec<(RequestId, u64)> = Vec::new();
                    for user_data in [1, 2] {
                        if let Ok(id) = theirs.submit(nop(user_data)) {
                            submitted.push((id, user_data));
                        }
                        if user_data == 1 {
                            let _ = theirs.get_events(0, 1, None, &mut Vec::new());
                        }
                    }
                    submitted
                });
                let past = Some(Instant::now());
                let named = match context.wait_destroyed(past) {
                    Err(DestroyError::TimedOut { named, .. }) => named,
                    other => panic!("{other:?}"),
                };
                let submitted = thread.join().unwrap();
                for request in named {
                    assert!(
                        submitted.contains(&(request.id, request.user_data)),
                        "{request:?}, {submitted:?}"
                    );
                }
                held.0.lock().clear();
            },
            after: nothing,
        },
        Model {
            name: "context.destroy_names_next",
            checks: "a report against a submitter who has executed no fence since the request before was finished",
            bound: Some(2),
            least: 3317,
            body: || {
                let held = Arc::new(Held::default());
                let context = Arc::new(Context::new(1, FirstAtOnce(Later(Arc::clone(&held)))).unwrap());
                let theirs = Arc::clone(&context);
                let reporter = thread::spawn(move || theirs.wait_destroyed(Some(Instant::now())));
                let first = context.submit(nop(1)).unwrap();
                events(&context, 1);
                let theirs = Arc::clone(&context);
                let submitter = thread::spawn(move || {
                    set_cpu(1);
                    theirs.submit(nop(2)).unwrap()
                });
                let second = submitter.join().unwrap();
                let Err(DestroyError::TimedOut { named, .. }) = reporter.join().unwrap() else { panic!() };
                for request in named {
                    assert_eq!(request.id, if request.user_data == 1 { first } else { second });
                }
                held.0.lock().clear();
            },
            after: nothing,
        },
        Model {
            name: "context.destroy_destroy",
            checks: "two destroyers and a completion: one wins, both find the end",
            bound: Some(2),
            least: 26_621,
            body: || {
                let held = Arc::new(Held::default());
                let context = Arc::new(Context::new(1, Later(Arc::clone(&held))).unwrap());
                context.submit(nop(7)).unwrap();
                let completer = complete(held);
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    let destroyed = theirs.destroy(None);
                    assert_eq!(theirs.wait_destroyed(None), Ok(()));
                    destroyed
                });
                let mine = context.destroy(None);
                assert_eq!(context.wait_destroyed(None), Ok(()));
                let theirs = thread.join().unwrap();
                assert!(mine.is_ok() != theirs.is_ok());
                assert_eq!(mine.and(theirs), Err(DestroyError::Already));
                completer.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.destroy_async",
            checks: "the future of a destroy against the last completion: it is found, or the task woken",
            bound: None,
            least: 110_960,
            body: || {
                let held = Arc::new(Held::default());
                let context = Context::new(1, Later(Arc::clone(&held))).unwrap();
                context.submit(nop(7)).unwrap();
                let thread = complete(held);
                assert_eq!(run(context.destroy_async()), Ok(()));
                assert_eq!(events(&context, 1).len(), 1);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.destroy_async_dropped",
            checks: "the future of a destroy, dropped, against the last completion: the context ends all the same",
            bound: Some(4),
            least: 33_308,
            body: || {
                let held = Arc::new(Held::default());
                let context = Context::new(1, Later(Arc::clone(&held))).unwrap();
                context.submit(nop(7)).unwrap();
                let thread = complete(held);
                let mut end = Box::pin(context.destroy_async());
                let _ = end.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
                drop(end);
                assert!(context.submit(nop(8)).is_err());
                drop(context);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.destroy_all",
            checks: "two contexts destroyed at once against a completion in one and another destroyer of the other",
            bound: Some(2),
            least: 9708,
            body: || {
                let held = Arc::new(Held::default());
                let [first, second] =
                    [0, 1].map(|_| Arc::new(Context::new(1, Later(Arc::clone(&held))).unwrap()));
                first.submit(nop(7)).unwrap();
                let completer = complete(held);
                let theirs = Arc::clone(&second);
                let thread = thread::spawn(move || theirs.destroy(None));
                let mine = Context::destroy_all([&*first, &*second], None);
                assert_eq!(mine[0], Ok(()));
                assert!(mine[1].is_ok() != thread.join().unwrap().is_ok());
                assert_eq!(second.wait_destroyed(None), Ok(()));
                completer.join().unwrap();
            },
            after: nothing,
        },
    ]
}
