//! The whole context on the null backend, and on one that completes on another thread.

use crate::harness::{Model, nothing};
use ioctx::aio::{Backend, Completion, Context, GetEventsError, Handle, Reason, Request, Submitted, Table};
use ioctx::backend::Null;
use ioctx::sync::model::set_cpu;
use ioctx::sync::{Arc, Mutex, hint, thread};

/// Keeps requests until somebody completes them.
#[derive(Default)]
struct Held(Mutex<Vec<Completion>>);

struct Later(Arc<Held>);

impl Backend for Later {
    fn submit(&self, work: Completion) -> Submitted {
        self.0.0.lock().push(work);
        Submitted::Queued
    }
}

fn nop(user_data: u64) -> Request {
    Request::nop().with_user_data(user_data)
}

/// Reads everything that is left after the context was destroyed.
fn rest<B: Backend>(context: &Context<B>) -> Vec<u64> {
    let mut events = Vec::new();
    while context.get_events(1, 8, None, &mut events) != Err(GetEventsError::Dying) {}
    events.iter().map(|event| event.request.user_data).collect()
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "context.submit_destroy",
            checks: "a submit against a destroy: the request is done or comes back, and nothing leaks",
            bound: None,
            least: 992,
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
            least: 3300,
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
            least: 9503,
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
        Model {
            name: "aio.table_get_remove",
            checks: "a look-up against the removal: the context is used whole, or not found; it is taken out after its users",
            bound: Some(3),
            least: 1151,
            body: || {
                let table = Arc::new(Table::new(1).unwrap());
                let handle = table.insert(Context::new(1, Null).unwrap()).unwrap();
                let theirs = Arc::clone(&table);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.get(handle).is_some_and(|context| context.submit(nop(7)).is_ok())
                });
                let context = table.remove(handle).unwrap();
                let submitted = thread.join().unwrap();
                assert_eq!(rest(&context), if submitted { vec![7] } else { vec![] });
                assert!(table.get(handle).is_none());
            },
            after: nothing,
        },
        Model {
            name: "aio.table_insert_guess",
            checks: "a look-up and a removal by a guessed handle against the insertion: nothing is found half made",
            bound: Some(3),
            least: 1643,
            body: || {
                let table = Arc::new(Table::new(1).unwrap());
                let guess = Handle::from_raw(1 << 32);
                let [user, remover] = [Arc::clone(&table), Arc::clone(&table)];
                let user =
                    thread::spawn(move || user.get(guess).is_some_and(|context| context.capacity() == 1));
                let remover = thread::spawn(move || remover.remove(guess).is_some());
                assert_eq!(table.insert(Context::new(1, Null).unwrap()).unwrap(), guess);
                user.join().unwrap();
                let removed = remover.join().unwrap();
                assert_eq!(table.get(guess).is_none(), removed);
            },
            after: nothing,
        },
        Model {
            name: "aio.table_remove_remove",
            checks: "two removers: one gets the context; the place is used again under another name",
            bound: Some(3),
            least: 72,
            body: || {
                let table = Arc::new(Table::new(1).unwrap());
                let handle = table.insert(Context::new(1, Null).unwrap()).unwrap();
                let theirs = Arc::clone(&table);
                let thread = thread::spawn(move || theirs.remove(handle).is_some());
                let mine = table.remove(handle).is_some();
                assert!(thread.join().unwrap() != mine, "one remover");
                let next = table.insert(Context::new(1, Null).unwrap()).unwrap();
                assert_ne!(next, handle);
                assert!(table.get(handle).is_none() && table.get(next).is_some());
            },
            after: nothing,
        },
    ]
}
