//! Requests of several parts: who completes them, when, and what that one sees. Payloads are tracked cells, which a
//! part writes and whoever reaps it reads.

use crate::harness::{Model, nothing};
use ioctx::credits::Credits;
use ioctx::fanin::{FanIn, Outcome, Part};
use ioctx::sync::atomic::{AtomicU32, Ordering::Relaxed};
use ioctx::sync::cell::UnsafeCell;
use ioctx::sync::model::set_cpu;
use ioctx::sync::{Arc, thread};
use std::io;
use std::sync::atomic::AtomicUsize;

/// Memory of a part.
struct Page {
    cell: UnsafeCell<u32>,
    live: Arc<AtomicU32>,
}

// SAFETY: whoever has the part, or what is left of it, has the page; loom checks it.
unsafe impl Send for Page {}

impl Page {
    fn new(live: &Arc<AtomicU32>) -> Self {
        // Relaxed, here and below: counted, and ordered by credits.
        live.fetch_add(1, Relaxed);
        Self { cell: UnsafeCell::new(0), live: Arc::clone(live) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: nobody else has it, which loom checks.
        self.cell.with_mut(|page| unsafe { *page += 1 });
        self.live.fetch_sub(1, Relaxed);
    }
}

fn carry_out(part: Part<Page>) {
    // SAFETY: the part's own.
    part.payload().cell.with_mut(|page| unsafe { *page += 1 });
    let len = part.len();
    part.finish(Ok(len));
}

/// Where outcomes go, and what parts have done.
struct Completed(UnsafeCell<Vec<Outcome>>, UnsafeCell<u32>);

// SAFETY: written once, by whoever is last, and read afterwards; loom checks it.
unsafe impl Sync for Completed {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl Send for Completed {}

impl Completed {
    fn new() -> Arc<Self> {
        Arc::new(Self(UnsafeCell::new(Vec::new()), UnsafeCell::new(0)))
    }

    fn set(&self, outcome: Outcome) {
        // SAFETY: once.
        self.0.with_mut(|all| unsafe { (*all).push(outcome) });
    }

    fn the_only_one(&self) -> (usize, Option<i32>) {
        self.0.with_mut(|all| {
            // SAFETY: all who could complete have ended.
            let outcome = unsafe { (*all).pop() }.expect("nobody completed it");
            // SAFETY: as above.
            assert!(unsafe { (*all).is_empty() }, "completed twice");
            (outcome.bytes, outcome.error.and_then(|error| error.raw_os_error()))
        })
    }
}

/// Requests that were completed by a part, over all iterations, and by the submitter.
static BY_PART: AtomicUsize = AtomicUsize::new(0);
static BY_SUBMITTER: AtomicUsize = AtomicUsize::new(0);

fn both_happened() {
    for count in [&BY_PART, &BY_SUBMITTER] {
        assert!(count.load(std::sync::atomic::Ordering::Relaxed) > 0);
    }
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "fanin.last_part",
            checks: "fanin.count.put: the last part against the submitter: one completion, which sees what both did",
            bound: None,
            least: 46,
            body: || {
                let credits = Arc::new(Credits::new(2));
                let completed = Completed::new();
                let (theirs, done) = (Arc::clone(&completed), Arc::clone(&completed));
                let submitter = thread::current().id();
                let mut request = FanIn::<()>::new(&credits, move |outcome| {
                    // SAFETY: the part has ended.
                    assert_eq!(theirs.1.with(|done| unsafe { *done }), 1);
                    let by = if thread::current().id() == submitter { &BY_SUBMITTER } else { &BY_PART };
                    // Relaxed: counted for `after`.
                    by.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    theirs.set(outcome);
                });
                let part = request.try_part(7, || ()).unwrap();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    // SAFETY: nobody else has it before the part has ended.
                    done.1.with_mut(|done| unsafe { *done += 1 });
                    part.finish(Ok(7));
                });
                request.finish_submitting();
                thread.join().unwrap();
                assert_eq!(completed.the_only_one(), (7, None));
                assert_eq!(credits.available(), 2);
            },
            after: both_happened,
        },
        Model {
            name: "fanin.reap",
            checks: "fanin.done.push, take, close: a part's memory goes to the submitter or stays with its finisher, and its credit with it",
            bound: None,
            least: 1261,
            body: || {
                let (credits, live) = (Arc::new(Credits::new(2)), Arc::new(AtomicU32::new(0)));
                let completed = Completed::new();
                let theirs = Arc::clone(&completed);
                let mut request = FanIn::new(&credits, move |outcome| theirs.set(outcome));
                let parts = [(); 2].map(|()| request.try_part(4, || Page::new(&live)).unwrap());
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    parts.into_iter().for_each(carry_out);
                });
                request.reap(drop);
                request.finish_submitting();
                thread.join().unwrap();
                assert_eq!(completed.the_only_one(), (8, None));
                assert_eq!((live.load(Relaxed), credits.available()), (0, 2));
            },
            after: nothing,
        },
        Model {
            name: "fanin.two_finishers",
            checks: "fanin.done.push: two finishers and a submitter that goes: everything is reaped once",
            bound: Some(3),
            least: 2030,
            body: || {
                let (credits, live) = (Arc::new(Credits::new(2)), Arc::new(AtomicU32::new(0)));
                let completed = Completed::new();
                let theirs = Arc::clone(&completed);
                let mut request = FanIn::new(&credits, move |outcome| theirs.set(outcome));
                let parts = [(); 2].map(|()| request.try_part(4, || Page::new(&live)).unwrap());
                let threads = parts.map(|part| thread::spawn(move || carry_out(part)));
                request.finish_submitting();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                assert_eq!(completed.the_only_one(), (8, None));
                assert_eq!((live.load(Relaxed), credits.available()), (0, 2));
            },
            after: nothing,
        },
        Model {
            name: "fanin.wait_for_part",
            checks: "a submitter without credits sleeps until a part of its own is finished; never more parts than credits",
            bound: Some(3),
            least: 515,
            body: || {
                let (credits, live) = (Arc::new(Credits::new(1)), Arc::new(AtomicU32::new(0)));
                let (mut request, waiter) = FanIn::waited(&credits);
                let part = request.try_part(4, || Page::new(&live)).unwrap();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    carry_out(part);
                });
                let page = || {
                    let page = Page::new(&live);
                    assert_eq!(live.load(Relaxed), 1, "more than there are credits");
                    page
                };
                carry_out(request.part(4, None, page).unwrap());
                request.finish_submitting();
                assert_eq!(waiter.wait(None).unwrap().bytes, 8);
                thread.join().unwrap();
                assert_eq!((live.load(Relaxed), credits.available()), (0, 1));
            },
            after: nothing,
        },
        Model {
            name: "fanin.first_error",
            checks: "whichever part ends first, the one that comes first in the request decides",
            bound: None,
            least: 25,
            body: || {
                let credits = Arc::new(Credits::new(3));
                let completed = Completed::new();
                let theirs = Arc::clone(&completed);
                let mut request = FanIn::<()>::new(&credits, move |outcome| theirs.set(outcome));
                let [whole, first, second] = [(); 3].map(|()| request.try_part(4, || ()).unwrap());
                request.finish_submitting();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    first.finish_partly(1, io::Error::from_raw_os_error(5));
                });
                drop(second);
                whole.finish(Ok(4));
                thread.join().unwrap();
                assert_eq!(completed.the_only_one(), (5, Some(5)));
                assert_eq!(credits.available(), 3);
            },
            after: nothing,
        },
    ]
}
