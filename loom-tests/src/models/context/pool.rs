//! The pool: pushes against threads that fall asleep, come, and leave.

use super::{events, nop};
use crate::harness::{Model, nothing};
use ioctx::aio::Context;
use ioctx::backend::Threads;
use ioctx::sync::model::set_cpu;
use ioctx::sync::time::Duration;
use ioctx::sync::{Arc, thread};

/// Up to so many, for everything; those to spare leave at once.
fn pool(threads: usize) -> Context<Threads> {
    let threads = Threads::new(threads).unwrap().inline_cached(false).keep_idle(Duration::ZERO);
    Context::new(2, threads).unwrap()
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "context.pool_sleep",
            checks: "a push and a flush against a thread of a pool that falls asleep: it is woken, or finds the request",
            bound: Some(3),
            least: 4271,
            body: || {
                let context = pool(1);
                context.submit(nop(7)).unwrap();
                assert_eq!(events(&context, 1)[0].request.user_data, 7);
                drop(context);
            },
            after: nothing,
        },
        Model {
            name: "context.pool_submitters",
            checks: "two that push, and flush each other's, against a thread that falls asleep: no request is left",
            bound: Some(1),
            least: 646,
            body: || {
                let context = Arc::new(pool(1));
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.submit(nop(7)).unwrap();
                });
                context.submit(nop(8)).unwrap();
                assert_eq!(events(&context, 2).len(), 2);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.pool_leave",
            checks: "a push against a thread to spare that comes, and one that leaves: one of those left begins the request",
            bound: Some(2),
            least: 12413,
            body: || {
                let context = pool(2);
                context.submit(nop(7)).unwrap();
                assert_eq!(events(&context, 1).len(), 1);
                context.submit(nop(8)).unwrap();
                assert_eq!(events(&context, 1).len(), 1);
                drop(context);
            },
            after: nothing,
        },
    ]
}
