//! Events visited in place.

use super::{Held, Later, nop, rest};
use crate::harness::{Model, nothing};
use ioctx::aio::Context;
use ioctx::backend::Null;
use ioctx::sync::model::set_cpu;
use ioctx::sync::{Arc, hint, thread};

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "context.visit_complete",
            checks: "a completer against a visitor that sleeps: shown whole, in the slot",
            bound: None,
            least: 1830,
            body: || {
                let held = Arc::new(Held::default());
                let context = Context::new(1, Later(Arc::clone(&held))).unwrap();
                context.submit(nop(7)).unwrap();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    let mut work = held.0.lock().pop().unwrap();
                    work.request_mut().user_data += 1;
                    work.complete(Ok(3));
                });
                let shown = context.visit(1, 1, None, |event| {
                    assert_eq!((event.request().user_data, event.result().unwrap()), (8, 3));
                });
                assert_eq!(shown, Ok(1));
                thread.join().unwrap();
                assert_eq!(context.outstanding(), 0);
            },
            after: nothing,
        },
        Model {
            name: "context.visit_submit",
            checks: "a visitor against a submitter that gets the slot next: not before the visitor has done with it",
            bound: Some(3),
            least: 129,
            body: || {
                let context = Arc::new(Context::with_lanes(1, 1, Null).unwrap());
                context.submit(nop(7)).unwrap();
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    let mut request = nop(8);
                    while let Err(refused) = theirs.submit(request) {
                        request = refused.request;
                        hint::contended();
                        thread::yield_now();
                    }
                });
                context
                    .visit(1, 1, None, |mut event| {
                        event.request_mut().user_data += 100;
                        assert_eq!(event.into_event().request.user_data, 107);
                    })
                    .unwrap();
                thread.join().unwrap();
                context.visit(1, 1, None, |event| assert_eq!(event.request().user_data, 8)).unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.visit_destroy",
            checks: "a visitor against a destroyer: it is shown the event, whoever comes after is told of the end",
            bound: Some(4),
            least: 3730,
            body: || {
                let context = Arc::new(Context::new(1, Null).unwrap());
                context.submit(nop(7)).unwrap();
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    let mut shown = 0;
                    let _ = theirs.visit(1, 1, None, |event| shown += event.request().user_data);
                    shown
                });
                assert_eq!(context.destroy(None), Ok(()));
                let left: u64 = rest(&context).iter().sum();
                assert_eq!(left + thread.join().unwrap(), 7);
            },
            after: nothing,
        },
    ]
}
