//! What tests of backends that are driven by their readers have in common.

use ioctx::Context;
use ioctx::aio::{Backend, Event};
use std::fs::File;
use std::io::PipeWriter;
use std::os::fd::OwnedFd;

pub const CANCELED: Option<i32> = Some(libc::ECANCELED);

pub fn pipe() -> (File, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (File::from(OwnedFd::from(reader)), writer)
}

/// Exactly so many events.
pub fn read<B: Backend>(context: &Context<B>, n: usize) -> Vec<Event> {
    let mut events = Vec::new();
    assert_eq!(context.get_events(n, n, None, &mut events), Ok(n));
    events
}

/// The number of the event's error.
pub fn code(event: &Event) -> Option<i32> {
    event.result.as_ref().err().and_then(std::io::Error::raw_os_error)
}

/// Whether there is something to harvest.
pub fn is_ready<B: Backend>(context: &Context<B>) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let descriptor = PollFd::from_borrowed_fd(context.backend().descriptor().unwrap(), PollFlags::IN);
    poll(&mut [descriptor], Some(&Timespec::default())).unwrap() == 1
}
