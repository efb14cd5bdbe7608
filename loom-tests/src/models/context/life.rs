//! Submitting, completing, reading and destroying.

use super::{Held, Later, nop, rest};
use crate::harness::{Model, nothing};
use ioctx::aio::{Context, Reason};
use ioctx::backend::Null;
use ioctx::sync::model::set_cpu;
use ioctx::sync::{Arc, hint, thread};

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "context.submit_destroy",
            checks: "a submit against a destroy: the request is done or comes back, and nothing leaks",
            bound: None,
            least: 7230,
            body: || {
                let context = Arc::new(Context::new(1, Null).unwrap());
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    match theirs.submit(nop(7)) {
                        Ok(_) => true,
                        Err(refused) => {
                            assert!(matches!(refused.reason, Reason::Dying));
                            assert_eq!(refused.request.user_data, 7);
                            false
                        }
                    }
                });
                assert_eq!(context.destroy(None), Ok(()));
                let accepted = thread.join().unwrap();
                assert_eq!(rest(&context), if accepted { vec![7] } else { vec![] });
            },
            after: nothing,
        },
        Model {
            name: "context.submit_reap",
            checks: "a submit against a reader that sleeps: woken, the request handed over whole",
            bound: None,
            least: 2337,
            body: || {
                let context = Arc::new(Context::new(1, Null).unwrap());
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.submit(nop(7)).unwrap();
                });
                let mut events = Vec::new();
                assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
                assert_eq!(events[0].request.user_data, 7);
                thread.join().unwrap();
                assert_eq!(context.outstanding(), 0);
            },
            after: nothing,
        },
        Model {
            name: "context.two_submitters",
            checks: "two submitters on two CPUs: neither is refused, nothing comes twice",
            bound: None,
            least: 141_146,
            body: || {
                let context = Arc::new(Context::new(2, Null).unwrap());
                let threads = [0, 1].map(|cpu| {
                    let context = Arc::clone(&context);
                    thread::spawn(move || {
                        set_cpu(cpu);
                        context.submit(nop(cpu.into())).unwrap();
                    })
                });
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                let mut events = Vec::new();
                assert_eq!(context.get_events(2, 2, None, &mut events), Ok(2));
                assert_eq!(events.iter().map(|event| event.request.user_data).sum::<u64>(), 1);
            },
            after: nothing,
        },
        Model {
            name: "context.complete_elsewhere",
            checks: "a completion on another thread against the drop of the context: its last act is its reference",
            bound: None,
            least: 34_013,
            body: || {
                let held = Arc::new(Held::default());
                let context = Context::new(1, Later(Arc::clone(&held))).unwrap();
                context.submit(nop(7)).unwrap();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    let mut work = held.0.lock().pop().unwrap();
                    work.request_mut().user_data += 1;
                    work.complete(Ok(0));
                });
                drop(context);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.complete_reap",
            checks: "what a completer wrote into the request is what the reader gets; the slot is handed on",
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
                let mut events = Vec::new();
                assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
                assert_eq!((events[0].request.user_data, *events[0].result.as_ref().unwrap()), (8, 3));
                assert!(context.get_events(0, 1, None, &mut events).is_ok());
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.destroy_reap",
            checks: "a reader that sleeps while the context is destroyed is told, and loses no event",
            bound: Some(4),
            least: 16_298,
            body: || {
                let held = Arc::new(Held::default());
                let context = Arc::new(Context::new(1, Later(Arc::clone(&held))).unwrap());
                context.submit(nop(7)).unwrap();
                let theirs = Arc::clone(&context);
                let reader = thread::spawn(move || {
                    set_cpu(1);
                    rest(&theirs)
                });
                // Dropping a completion completes it.
                drop(held.0.lock().pop().unwrap());
                assert_eq!(context.destroy(None), Ok(()));
                assert_eq!(reader.join().unwrap(), [7]);
            },
            after: nothing,
        },
        Model {
            name: "context.refused_while_full",
            checks: "a submitter that finds the context full wakes a reader that waits for more than there can be",
            bound: Some(3),
            least: 28_209,
            body: || {
                let held = Arc::new(Held::default());
                let context = Arc::new(Context::new(1, Later(Arc::clone(&held))).unwrap());
                context.submit(nop(1)).unwrap();
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    held.0.lock().pop().unwrap().complete(Ok(0));
                    // The room comes from the reader; how often it is asked for is bounded by its being
                    // woken.
                    let mut request = nop(2);
                    while let Err(refused) = theirs.submit(request) {
                        request = refused.request;
                        hint::contended();
                        thread::yield_now();
                    }
                    held.0.lock().pop().unwrap().complete(Ok(0));
                });
                let mut events = Vec::new();
                assert_eq!(context.get_events(2, 2, None, &mut events), Ok(2));
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.two_readers",
            checks: "two readers that sleep and two events: each is handed one, by publisher or by the other reader",
            bound: Some(2),
            least: 6836,
            body: || {
                let context = Arc::new(Context::new(2, Null).unwrap());
                let readers = [0, 1].map(|cpu| {
                    let context = Arc::clone(&context);
                    thread::spawn(move || {
                        set_cpu(cpu);
                        let mut events = Vec::new();
                        assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
                        events[0].request.user_data
                    })
                });
                let mut batch = vec![nop(1), nop(2)];
                assert_eq!(context.submit_batch(&mut batch).unwrap(), 2);
                let got = readers.map(|reader| reader.join().unwrap());
                assert_eq!(got[0] + got[1], 3);
            },
            after: nothing,
        },
    ]
}
