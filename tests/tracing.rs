//! What is said with the feature `tracing`: each event when, and only when, its thing happens.

use ioctx::aio::{Backend, Cancellable, Completion, Context, Request, Submitted};
use std::fmt::{Debug, Write};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps what is said, a line each, but for which context said it.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ioctx"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => write!(self.0, " {value:?}").unwrap(),
            "context" | "id" => {}
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

/// Puts requests aside; refuses those with user data 13.
#[derive(Default)]
struct Aside(Mutex<Vec<Cancellable>>);

impl Backend for Aside {
    fn submit(&self, work: Completion) -> Submitted {
        if work.request().user_data == 13 {
            return Submitted::Refused(work, io::Error::other("unlucky"));
        }
        self.0.lock().unwrap().push(work.cancellable());
        Submitted::Queued
    }
}

fn nop(user_data: u64) -> Request {
    Request::nop().with_user_data(user_data)
}

#[test]
fn a_context_says_what_becomes_of_it() {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let context = Context::new(4, Aside::default()).unwrap();
        assert_eq!(lines.take(), ["DEBUG created capacity=4"]);
        let first = context.submit(nop(1)).unwrap();
        context.submit(nop(2)).unwrap();
        let awaited = context.start(nop(3)).unwrap();
        let last = context.backend().0.lock().unwrap().swap_remove(1).claim().unwrap();
        assert!(lines.take().is_empty(), "nothing on the way of a request");
        context.submit(nop(13)).unwrap_err();
        assert_eq!(lines.take(), ["DEBUG refused by the backend error=unlucky"]);
        context.cancel(first).unwrap();
        context.cancel(first).unwrap_err();
        assert_eq!(lines.take(), ["TRACE cancelled"]);
        drop(awaited);
        assert_eq!(lines.take(), ["TRACE cancelled"]);
        context.submit(nop(4)).unwrap();
        context.destroy(Some(Instant::now())).unwrap_err();
        let [begun, cancelled, late] = &lines.take()[..] else { panic!("three things") };
        assert_eq!((&begun[..], &cancelled[..]), ("DEBUG destroying", "TRACE cancelled"));
        assert!(late.starts_with("DEBUG not destroyed at the deadline in_flight=1 named="), "{late}");
        assert!(late.contains("user_data: 2"), "{late}");
        last.complete(Ok(0));
        assert_eq!(lines.take(), ["DEBUG finished its last request, destroyed"]);
        context.get_events(0, 4, None, &mut Vec::new()).unwrap();
        drop(context);
        assert!(lines.take().is_empty());
    });
}
