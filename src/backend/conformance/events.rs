//! Every accepted request yields exactly one event, and whoever waits for it is told.

use super::rig::{Live, Rig, Tried, failed, must, same};
use super::watch::Worker;
use super::{CAPACITY, Capability, Check};
use crate::aio::{Event, Op, Reason, Request};
use crate::sync::time::{Duration, Instant, expired};
use crate::sync::{Arc, Mutex, SharedFile, thread};
use std::collections::HashMap;
use std::pin::pin;
use std::task::{self, Poll, Waker};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "one_event_each",
        says: "of many requests at a time each yields one event, under its name and with its user data",
        needs: &[],
        run: one_event_each,
    },
    Check {
        name: "batches",
        says: "a batch is accepted from its front as far as there is room, and the rest stays as it was",
        needs: &[],
        run: batches,
    },
    Check {
        name: "flushed",
        says: "what a thread has submitted completes though it does nothing more",
        needs: &[],
        run: flushed,
    },
    Check {
        name: "sleeper_woken",
        says: "a reader that sleeps is woken by the event of a request submitted meanwhile",
        needs: &[],
        run: sleeper_woken,
    },
    Check {
        name: "futures",
        says: "a request that was started as a future completes there",
        needs: &[],
        run: futures,
    },
    Check {
        name: "files_closed",
        says: "a request's file is its own until its event has gone, and nobody's afterwards",
        needs: &[Capability::Files],
        run: files_closed,
    },
    Check {
        name: "many_threads",
        says: "more threads than CPUs submit and read at a time, and each request yields one event",
        needs: &[],
        run: many_threads,
    },
];

/// Takes a request of `expected` by its event.
fn settle(expected: &mut HashMap<u64, u64>, event: &Event) -> Tried {
    let user_data = event.request.user_data;
    match expected.remove(&user_data) {
        Some(id) => same("the name in the event", event.id.into_raw(), id),
        None => failed(
            "one event for each request",
            format_args!("there was one more, or none was submitted with user data {user_data}"),
        ),
    }
}

fn one_event_each(rig: &Rig) -> Tried {
    let live = rig.context(CAPACITY);
    let (file, _) = rig.file(b"text")?;
    for _ in 0..5 {
        let mut expected = HashMap::new();
        for n in 0..u64::from(CAPACITY) {
            let user_data = n << 40 | 7;
            expected.insert(user_data, live.submit(live.any(n, &file).with_user_data(user_data))?.into_raw());
        }
        for event in live.events(CAPACITY as usize)? {
            settle(&mut expected, &event)?;
            if let Err(error) = &event.result {
                return failed("each to succeed", format_args!("{:?} failed: {error}", event.request));
            }
        }
    }
    live.nothing("each request has had its own")?;
    live.end()
}

fn batches(rig: &Rig) -> Tried {
    const ROOM: u64 = 8;
    let live = rig.context(ROOM as u32);
    let mut batch: Vec<_> = (0..3 * ROOM).map(|n| Request::nop().with_user_data(n)).collect();
    let mut next = 0;
    while next < 3 * ROOM {
        let (mut ids, left) = (Vec::new(), batch.len());
        let accepted = match live.context().submit_batch_with(&mut batch, |id| ids.push(id)) {
            Ok(accepted) => accepted,
            Err(error) => return failed("a batch to be accepted in part", error),
        };
        must(
            (1..=ROOM as usize).contains(&accepted)
                && ids.len() == accepted
                && left - batch.len() == accepted,
            format_args!("1 to {ROOM} requests of {left} to be accepted"),
            format_args!("{accepted} were, {} names were told, {} are left", ids.len(), batch.len()),
        )?;
        let mut expected: HashMap<_, _> = (next..).zip(ids.iter().map(|id| id.into_raw())).collect();
        next += accepted as u64;
        let front = batch.first().map_or(next, |request| request.user_data);
        same("the first that was not accepted", front, next)?;
        for event in live.events(accepted)? {
            settle(&mut expected, &event)?;
        }
    }
    live.end()
}

fn flushed(rig: &Rig) -> Tried {
    let live = rig.context(16);
    let (file, _) = rig.file(b"text")?;
    let (theirs, mut batch) = (live.clone(), (0..4).map(|n| live.any(n, &file)).collect());
    let submitter = rig.thread("submitter", move || {
        theirs.context().submit_batch(&mut batch).or_else(|error| failed("a batch to be accepted", error))
    })?;
    let accepted = rig.join(submitter)?;
    same("how many were accepted", accepted, 4)?;
    live.events(accepted)?;
    live.end()
}

fn sleeper_woken(rig: &Rig) -> Tried {
    let live = rig.context(4);
    for nap in NAPS {
        let reader = sleeper(rig, &live, nap)?;
        live.submit(Request::nop())?;
        rig.join(reader)?;
    }
    live.end()
}

/// How long a reader is given to fall asleep. Whether it sleeps nobody can see: before that it spins and yields, which
/// takes long where many threads run.
pub(super) const NAPS: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(300)];

/// A thread that sleeps, most probably, until there is an event.
pub(super) fn sleeper(rig: &Rig, live: &Live, nap: Duration) -> Tried<Worker<Event>> {
    let (theirs, begun) = (live.clone(), Arc::new(Mutex::new(false)));
    let mine = Arc::clone(&begun);
    let reader = rig.thread("reader", move || {
        let (deadline, mut events) = (theirs.deadline(), Vec::new());
        *mine.lock() = true;
        loop {
            // One that nobody wakes finds the event when it is too late.
            let read = theirs.context().get_events(1, 1, deadline, &mut events);
            must(
                !expired(deadline),
                "a reader that sleeps to be woken",
                format_args!("it slept on, and then: {read:?}"),
            )?;
            if let Some(event) = events.pop() {
                return Ok(event);
            }
        }
    })?;
    let deadline = live.deadline();
    while !*begun.lock() && !expired(deadline) {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(nap);
    Ok(reader)
}

fn futures(rig: &Rig) -> Tried {
    let live = rig.context(4);
    let started = |user_data| match live.context().start(Request::nop().with_user_data(user_data)) {
        Ok(started) => Ok(started),
        Err(error) => failed("the request to be accepted", error),
    };
    for user_data in 0..5 {
        let mut started = pin!(started(user_data)?);
        let deadline = live.deadline();
        let event = loop {
            // Some backends complete while somebody reads events.
            let mut events = Vec::new();
            live.some_events(&mut events);
            same("the events for readers of what was started as a future", events.len(), 0)?;
            match started.as_mut().poll(&mut task::Context::from_waker(Waker::noop())) {
                Poll::Ready(event) => break event,
                Poll::Pending if expired(deadline) => return failed("the future to be ready", "it is not"),
                Poll::Pending => thread::sleep(Duration::from_micros(100)),
            }
        };
        same("the user data in the event", event.request.user_data, user_data)?;
    }
    drop(started(5)?);
    live.end()
}

/// Waits until nobody else has a file: whoever completes a request gives it up a moment after.
pub(super) fn released(live: &Live, file: &SharedFile) -> Tried {
    let deadline = live.deadline();
    while SharedFile::strong_count(file) > 1 {
        if expired(deadline) {
            return failed("nobody to have the request's file any more", "it is kept");
        }
        live.some_events(&mut Vec::new());
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn files_closed(rig: &Rig) -> Tried {
    let live = rig.context(4);
    let (file, _) = rig.file(b"text")?;
    for request in [
        Request::read(file.clone(), vec![0; 4], 0),
        Request::write(file.clone(), b"text".to_vec(), 0),
        Request::readv(file.clone(), [vec![0; 4]], 0),
        Request::writev(file.clone(), [b"text".to_vec()], 0),
        Request::fsync(file.clone()),
        Request::fdatasync(file.clone()),
    ] {
        let event = live.one(request)?;
        let theirs = match &event.request.op {
            Op::Read { file, .. } | Op::Write { file, .. } | Op::ReadV { file, .. } => Some(file),
            Op::WriteV { file, .. } | Op::Fsync { file } | Op::Fdatasync { file } => Some(file),
            _ => None,
        };
        must(
            theirs.is_some_and(|theirs| theirs.with_file(|theirs| std::ptr::eq(theirs, &*file))),
            "the file to come back",
            "another came, or none",
        )?;
    }
    released(&live, &file)?;
    live.end()
}

fn many_threads(rig: &Rig) -> Tried {
    let each = (rig.requests() / 50).clamp(100, 2000);
    let threads = 4 * num_cpus::get();
    let live = rig.context(CAPACITY);
    let workers: Vec<_> = (0..threads as u64)
        .map(|thread| {
            let theirs = live.clone();
            rig.thread("submitter and reader", move || submit_and_read(&theirs, thread << 32, each))
        })
        .collect::<Tried<_>>()?;
    let mut read = Vec::new();
    for worker in workers {
        read.extend(rig.join(worker)?);
    }
    read.extend(live.events(threads * each - read.len())?.iter().map(|event| event.request.user_data));
    read.sort_unstable();
    let submitted = (0..threads as u64).flat_map(|thread| (0..each as u64).map(move |n| thread << 32 | n));
    must(
        read.iter().copied().eq(submitted),
        "each request to yield one event",
        "some have none, and others two",
    )?;
    live.end()
}

/// Submits so many requests, and returns the user data of the events it has read meanwhile.
fn submit_and_read(live: &Live, first: u64, n: usize) -> Tried<Vec<u64>> {
    let mut read = Vec::new();
    let mut events = Vec::new();
    for n in 0..n as u64 {
        let mut request = Request::nop().with_user_data(first | n);
        let deadline = live.deadline();
        while let Err(error) = live.context().submit(request) {
            must(
                matches!(error.reason, Reason::Full) && !expired(deadline),
                "room for the next request",
                format_args!("there was none for long, or: {}", error.reason),
            )?;
            request = error.request;
            let soon = Some(Instant::now() + Duration::from_millis(1));
            let _ = live.context().get_events(1, 64, soon, &mut events);
            live.some_events(&mut events);
        }
        live.step();
        if n % 16 == 0 {
            live.some_events(&mut events);
        }
        read.extend(events.drain(..).map(|event| event.request.user_data));
    }
    Ok(read)
}
