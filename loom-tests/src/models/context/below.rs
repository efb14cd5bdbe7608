//! Layers: requests of their own on a backend below, and what is left to who reads an event.

use super::hooks::Word;
use super::{Aside, Held, Later, Queue, nop};
use crate::harness::{Model, nothing};
use ioctx::aio::{Backend, Below, By, Completion, Context, Done, Ended, Finished, Request, Submitted};
use ioctx::credits::Credits;
use ioctx::fanin::{FanIn, Part};
use ioctx::sync::cell::UnsafeCell;
use ioctx::sync::model::set_cpu;
use ioctx::sync::time::Instant;
use ioctx::sync::{Arc, thread};

/// Has one request carried out below for each above.
struct Single<B: Backend>(Below<B, Above>);

/// The request above, and a word that only who has it writes.
struct Above(Completion, UnsafeCell<u32>);

// SAFETY: the cell goes with it; loom checks it.
unsafe impl Send for Above {}

impl Done for Above {
    fn done(self, ended: Ended) -> Option<Finished> {
        // SAFETY: ours; loom checks it.
        self.1.with_mut(|word| unsafe { *word += 1 });
        Some(match ended.error {
            None => self.0.finish(Ok(ended.bytes)),
            Some(error) => self.0.finish(Err(error)),
        })
    }
}

impl<B: Backend> Backend for Single<B> {
    fn submit(&self, work: Completion) -> Submitted {
        let above = self.0.above(&work).unwrap();
        match self.0.submit(above, Request::nop(), Above(work, UnsafeCell::new(0))) {
            Ok(finished) => finished.map_or(Submitted::Queued, Submitted::Done),
            Err(not) => Submitted::Refused(not.done.0, not.error),
        }
    }

    fn cancel_all(&self) {
        self.0.cancel_all();
    }
}

/// Has two parts carried out below for each request above.
struct Double<B: Backend>(Below<B, Half>, Arc<Credits>);

struct Half(Part<()>);

impl Done for Half {
    fn done(self, ended: Ended) -> Option<Finished> {
        self.0.finish(Ok(ended.bytes));
        None
    }
}

impl<B: Backend> Backend for Double<B> {
    fn submit(&self, work: Completion) -> Submitted {
        let above = self.0.above(&work).unwrap();
        let mut parts = FanIn::new(&self.1, move |outcome| drop(work.finish(Ok(outcome.bytes))));
        for _ in 0..2 {
            let part = parts.try_part(3, || ()).unwrap();
            assert!(self.0.submit(above, Request::nop(), Half(part)).unwrap().is_none());
        }
        parts.finish_submitting();
        Submitted::Queued
    }
}

/// The results of all events of a context that was destroyed.
fn rest<B: Backend>(context: &Context<B>) -> Vec<Option<usize>> {
    let mut events = Vec::new();
    while context.get_events(1, 8, None, &mut events).is_ok() {}
    events.into_iter().map(|event| event.result.ok()).collect()
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "context.below_destroy",
            checks: "aio.cancel.offered, dying: what is put aside two levels down is found by the destroyer above, or begun",
            bound: Some(3),
            least: 2149,
            body: || {
                let aside = Arc::new(Aside::default());
                let below = Below::new(1, Queue(Arc::clone(&aside))).unwrap();
                let context = Arc::new(Context::new(1, Single(below)).unwrap());
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.submit(nop(7)).is_ok()
                });
                // Not begun by anybody: it is cancelled, or the destroyer would wait for ever.
                context.destroy(None).unwrap();
                let accepted = thread.join().unwrap();
                assert_eq!(rest(&context), vec![None; usize::from(accepted)]);
            },
            after: nothing,
        },
        Model {
            name: "context.below_end",
            checks: "a request below that completes against the end of the context: the layer is done with it before it goes",
            bound: Some(3),
            least: 1208,
            body: || {
                let held = Arc::new(Held::default());
                let below = Below::new(1, Later(Arc::clone(&held))).unwrap();
                let context = Context::new(1, Single(below)).unwrap();
                context.submit(nop(7)).unwrap();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    let work = held.0.lock().pop().unwrap();
                    work.complete(Ok(3));
                });
                drop(context);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "context.below_parts",
            checks: "fanin.count.put: the last of two parts below against the submitter: the request above completes once",
            bound: Some(3),
            least: 73,
            body: || {
                let held = Arc::new(Held::default());
                let credits = Arc::new(Credits::new(2));
                let below = Below::new(2, Later(Arc::clone(&held))).unwrap();
                let context = Context::new(1, Double(below, credits)).unwrap();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    // Whatever is there already; the rest below.
                    let there: Vec<_> = std::mem::take(&mut *held.0.lock());
                    there.into_iter().for_each(|work| work.complete(Ok(3)));
                    held
                });
                context.submit(nop(7)).unwrap();
                let held = thread.join().unwrap();
                let there: Vec<_> = std::mem::take(&mut *held.0.lock());
                there.into_iter().for_each(|work| work.complete(Ok(3)));
                context.destroy(None).unwrap();
                assert_eq!(rest(&context), [Some(6)]);
            },
            after: nothing,
        },
        Model {
            name: "context.reader_last",
            checks: "what is left to the reader of an event is done by the one who reads it, or goes with the context",
            bound: Some(3),
            least: 429,
            body: || {
                let held = Arc::new(Held::default());
                let context = Context::new(1, Later(Arc::clone(&held))).unwrap();
                context.submit(nop(7)).unwrap();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    let mut work = held.0.lock().pop().unwrap();
                    let word = Word::new();
                    work.on_end(By::Reader, move |_, mut outcome| {
                        outcome.bytes += word.next();
                        outcome
                    });
                    work.complete(Ok(3));
                });
                let read = context.get_events(0, 1, Some(Instant::now()), &mut Vec::new());
                if read == Ok(0) {
                    let mut events = Vec::new();
                    let _ = context.destroy(None);
                    while context.get_events(1, 1, None, &mut events).is_ok() {}
                    assert_eq!(events[0].result.as_ref().unwrap(), &4);
                }
                thread.join().unwrap();
                drop(context);
            },
            after: nothing,
        },
    ]
}
