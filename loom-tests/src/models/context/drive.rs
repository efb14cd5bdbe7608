//! Backends that complete when they are looked at.

use super::{events, nop};
use crate::harness::{Model, nothing};
use ioctx::aio::{Backend, Completion, Context, Finished, Submitted};
use ioctx::sync::model::set_cpu;
use ioctx::sync::time::Instant;
use ioctx::sync::{Arc, Mutex, thread};
use std::mem;

/// Keeps requests until they are asked to end; then whoever looks gets them.
#[derive(Default)]
struct Driven(Mutex<Queues>);

#[derive(Default)]
struct Queues {
    runs: Vec<Completion>,
    ended: Vec<Completion>,
}

impl Driven {
    fn end(&self, wanted: impl Fn(&Completion) -> bool) {
        let mut queues = self.0.lock();
        let (ended, runs) = mem::take(&mut queues.runs).into_iter().partition(|work| wanted(work));
        queues.runs = runs;
        queues.ended.extend::<Vec<_>>(ended);
    }
}

impl Backend for Driven {
    fn submit(&self, work: Completion) -> Submitted {
        let mut queues = self.0.lock();
        if work.is_dying() {
            drop(queues);
            return Submitted::Done(work.finish(Ok(0)));
        }
        queues.runs.push(work);
        Submitted::Queued
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        let ended = mem::take(&mut self.0.lock().ended);
        ended.into_iter().for_each(|work| done(work.finish(Ok(0))));
    }

    fn cancel_all(&self) {
        self.end(Completion::is_dying);
    }
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "context.drive_destroy",
            checks: "a submit against a destroyer: what was accepted is asked to end, or not begun",
            bound: Some(3),
            least: 959,
            body: || {
                let context = Arc::new(Context::new(1, Driven::default()).unwrap());
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.submit(nop(7)).is_ok()
                });
                let _ = context.destroy(Some(Instant::now()));
                let accepted = thread.join().unwrap();
                let read = context.get_events(0, 1, None, &mut Vec::new());
                assert_eq!(read.unwrap_or(0), usize::from(accepted));
            },
            after: nothing,
        },
        Model {
            name: "context.drive_readers",
            checks: "a reader that sleeps against one that harvests: it is woken, or has harvested itself",
            bound: None,
            least: 4504,
            body: || {
                let context = Arc::new(Context::new(1, Driven::default()).unwrap());
                context.submit(nop(7)).unwrap();
                let theirs = Arc::clone(&context);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.backend().end(|_| true);
                    assert_eq!(theirs.get_events(0, 0, None, &mut Vec::new()), Ok(0));
                });
                assert_eq!(events(&context, 1).len(), 1);
                thread.join().unwrap();
            },
            after: nothing,
        },
    ]
}
