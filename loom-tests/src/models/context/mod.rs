//! The whole context on the null backend, and on ones whose requests wait for another thread.

mod below;
mod cancel;
mod direct;
mod drive;
mod end;
mod hooks;
mod life;
mod pool;
mod table;
mod visit;

use crate::harness::Model;
use ioctx::aio::{Backend, Cancellable, Completion, Context, Event, GetEventsError, Request, Submitted};
use ioctx::sync::{Arc, Mutex};

/// Keeps requests until somebody completes them.
#[derive(Default)]
pub(super) struct Held(pub(super) Mutex<Vec<Completion>>);

pub(super) struct Later(pub(super) Arc<Held>);

impl Backend for Later {
    fn submit(&self, work: Completion) -> Submitted {
        self.0.0.lock().push(work);
        Submitted::Queued
    }
}

/// Puts requests aside until somebody begins them.
#[derive(Default)]
struct Aside(Mutex<Vec<Cancellable>>);

impl Aside {
    /// Begins the oldest there is, if it was not cancelled; returns whether.
    fn work(&self) -> bool {
        let waiting = self.0.lock().remove(0);
        waiting.claim().map(|mut work| work.request_mut().user_data += 100).is_some()
    }
}

struct Queue(Arc<Aside>);

impl Backend for Queue {
    fn submit(&self, work: Completion) -> Submitted {
        self.0.0.lock().push(work.cancellable());
        Submitted::Queued
    }
}

pub(super) fn nop(user_data: u64) -> Request {
    Request::nop().with_user_data(user_data)
}

/// Reads so many events.
fn events<B: Backend>(context: &Context<B>, n: usize) -> Vec<Event> {
    let mut events = Vec::new();
    assert_eq!(context.get_events(n, n, None, &mut events), Ok(n));
    events
}

/// Reads everything that is left after the context was destroyed.
fn rest<B: Backend>(context: &Context<B>) -> Vec<u64> {
    let mut events = Vec::new();
    while context.get_events(1, 8, None, &mut events) != Err(GetEventsError::Dying) {}
    events.iter().map(|event| event.request.user_data).collect()
}

pub(super) fn models() -> Vec<Model> {
    let parts = [
        life::models(),
        cancel::models(),
        below::models(),
        hooks::models(),
        drive::models(),
        direct::models(),
        pool::models(),
        visit::models(),
        end::models(),
        table::models(),
    ];
    parts.into_iter().flatten().collect()
}
