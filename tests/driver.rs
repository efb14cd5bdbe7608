//! `Driver`: futures of backends without a thread complete though nobody waits for events.
#![cfg(ioctx_linux)]

mod support;

use ioctx::aio::{Backend, Context, Driver, Event, Request};
use ioctx::backend::{Auto, Kernel, Nonblocking, Threads};
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write};
use std::os::fd::OwnedFd;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;
use support::{executor::block_on, never_hang};

/// Tells on which thread it was called, and panics if it is to.
struct Told(Mutex<Sender<ThreadId>>, bool);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.0.lock().unwrap().send(thread::current().id()).unwrap();
        if self.1 {
            resume_unwind(Box::new("a waker panics"));
        }
    }
}

fn waker(panics: bool) -> (Waker, Receiver<ThreadId>) {
    let (sender, told) = channel();
    (Arc::new(Told(Mutex::new(sender), panics)).into(), told)
}

fn pipe() -> (File, PipeWriter) {
    let (reader, writer): (PipeReader, _) = std::io::pipe().unwrap();
    (OwnedFd::from(reader).into(), writer)
}

fn nonblocking() -> Context<Nonblocking> {
    never_hang();
    Context::new(8, Nonblocking::new().unwrap()).unwrap()
}

/// A read that ends when somebody else writes, a while later.
fn read_of_what_comes<B: Backend>(context: &Context<B>) -> Event {
    let (reader, mut writer) = pipe();
    let read = context.start(Request::read(reader, vec![0; 4], 0)).unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(20));
            writer.write_all(b"here").unwrap();
        });
        block_on(read)
    })
}

#[test]
fn what_others_write_ends_a_read_that_is_only_awaited() {
    let context = Driver::new(nonblocking()).unwrap();
    for _ in 0..20 {
        let event = read_of_what_comes(&context);
        assert_eq!(event.result.as_ref().unwrap(), &4);
        assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap(), b"here");
    }
    // By whom: there is a thread, and it is not the one that writes.
    assert!(format!("{context:?}").contains("Some(JoinHandle"), "{context:?}");
    context.destroy(None).unwrap();
}

#[test]
fn other_backends_without_a_thread_are_driven_as_well() {
    never_hang();
    if let Ok(kernel) = Kernel::new(8) {
        read_of_what_comes(&Driver::new(Context::new(8, kernel).unwrap()).unwrap());
    }
    // A ring, where there are rings.
    read_of_what_comes(&Driver::new(Context::new(8, Auto::new(8).unwrap()).unwrap()).unwrap());
}

#[test]
fn a_backend_that_completes_by_itself_needs_no_thread() {
    let context = Driver::new(Context::new(8, Threads::new(1).unwrap()).unwrap()).unwrap();
    assert!(format!("{context:?}").contains("thread: None"), "{context:?}");
    read_of_what_comes(&context);
}

#[test]
fn events_are_left_to_those_who_read_them() {
    let context = Driver::new(nonblocking()).unwrap();
    let (reader, mut writer) = pipe();
    let id = context.submit(Request::read(reader, vec![0; 1], 0)).unwrap();
    writer.write_all(b"x").unwrap();
    // Harvested by the driver, and not read.
    thread::sleep(Duration::from_millis(20));
    let mut events = Vec::new();
    context.get_events(1, 8, None, &mut events).unwrap();
    assert_eq!(events[0].id, id);
}

#[test]
fn a_waker_that_panics_ends_nothing() {
    let context = Driver::new(nonblocking()).unwrap();
    let (waker, told) = waker(true);
    let (reader, mut writer) = pipe();
    let mut read = pin!(context.start(Request::read(reader, vec![0; 1], 0)).unwrap());
    assert!(read.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    writer.write_all(b"x").unwrap();
    let driver = told.recv().unwrap();
    assert_ne!(driver, thread::current().id());
    read_of_what_comes(&context);
    assert_eq!(block_on(read).result.unwrap(), 1);
}

#[test]
fn a_context_goes_on_without_its_driver() {
    let driver = Driver::new(Arc::new(nonblocking())).unwrap();
    let context = Arc::clone(driver.context());
    let (reader, mut writer) = pipe();
    context.submit(Request::read(reader, vec![0; 1], 0)).unwrap();
    // Asleep, on most days, or not there yet.
    thread::sleep(Duration::from_millis(5));
    drop(driver);
    assert_eq!(Arc::strong_count(&context), 1, "its thread has ended");
    writer.write_all(b"x").unwrap();
    assert_eq!(context.get_events(1, 8, None, &mut Vec::new()), Ok(1));
}

#[test]
fn a_waker_may_drop_the_driver() {
    struct Drops(Mutex<Option<Driver<Nonblocking>>>, AtomicUsize);
    impl Wake for Drops {
        fn wake(self: Arc<Self>) {
            drop(self.0.lock().unwrap().take());
            self.1.fetch_add(1, SeqCst);
        }
    }
    let driver = Driver::new(nonblocking()).unwrap();
    let (reader, mut writer) = pipe();
    let mut read = pin!(driver.start(Request::read(reader, vec![0; 1], 0)).unwrap());
    let drops = Arc::new(Drops(Mutex::new(Some(driver)), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&drops));
    assert!(read.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    writer.write_all(b"x").unwrap();
    while drops.1.load(SeqCst) == 0 {
        thread::yield_now();
    }
    assert_eq!(block_on(read).result.unwrap(), 1);
}
