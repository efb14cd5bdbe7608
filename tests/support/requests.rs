//! Requests, one at a time.

use ioctx::aio::{Backend, Event, Request};
use ioctx::{Context, backend::Threads};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

/// 4096 bytes of 5.
pub fn file() -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[5; 4096]).unwrap();
    Arc::new(file)
}

/// One request, from submitting to its event.
pub fn run<B: Backend>(context: &Context<B>, request: Request) -> Event {
    context.submit(request).unwrap();
    let mut events = Vec::new();
    assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
    events.pop().unwrap()
}

/// A pool that does everything in its threads, and one that does what is cached in the submitter.
pub fn pools() -> impl Iterator<Item = Context<Threads>> {
    [false, true].into_iter().map(|inline| {
        let threads = Threads::new(1).unwrap().inline_cached(inline);
        Context::new(8, threads).unwrap()
    })
}
