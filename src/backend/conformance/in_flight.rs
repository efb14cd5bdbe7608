//! Requests that do not end by themselves: cancelled, destroyed, dropped, left by their threads.

use super::cancel::is_cancelled;
use super::events::{NAPS, released, sleeper};
use super::pipes::pipe;
use super::rig::{Live, Rig, Tried, failed, must, same};
use super::{Capability, Check};
use crate::aio::{CancelError, DestroyError, Event, Readiness, Request, RequestId};
use crate::sync::time::{Duration, Instant};
use crate::sync::{SharedFile, thread};
use std::io::{PipeWriter, Read, Write};
use std::mem;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "sleeper_woken_by_data",
        says: "a reader that sleeps is woken when a request completes that waited before it",
        needs: &[Capability::Pipes],
        run: sleeper_woken_by_data,
    },
    Check {
        name: "submitter_gone",
        says: "a request outlives the thread that has submitted it",
        needs: &[Capability::Pipes],
        run: submitter_gone,
    },
    Check {
        name: "cancel_waiting",
        says: "of requests that wait, running or not, each has one event: cancelled, or what it was to be",
        needs: &[Capability::Pipes],
        run: cancel_waiting,
    },
    Check {
        name: "cancel_hastens",
        says: "a request whose cancelling has succeeded ends without what it waits for",
        needs: &[Capability::Pipes],
        run: cancel_hastens,
    },
    Check {
        name: "cancel_poll",
        says: "a poll whose cancelling has succeeded ends without what it waits for, any other when the file is ready",
        needs: &[Capability::Poll],
        run: cancel_poll,
    },
    Check {
        name: "destroy_in_flight",
        says: "destroying ends by its deadline and says what is in flight, and ends what can be ended",
        needs: &[Capability::Pipes],
        run: destroy_in_flight,
    },
    Check {
        name: "destroy_by_many",
        says: "of several who destroy a context one does, and all can wait for it",
        needs: &[Capability::Pipes],
        run: destroy_by_many,
    },
    Check {
        name: "drop_in_flight",
        says: "dropping a context waits for what runs, and no longer, and leaves nothing open",
        needs: &[Capability::Pipes],
        run: drop_in_flight,
    },
    Check {
        name: "dropped_future",
        says: "a future that is dropped leaves its request to its end, and nothing behind; a forgotten one ends, too",
        needs: &[Capability::Pipes],
        run: dropped_future,
    },
];

/// How many requests wait: more than most backends begin at once.
const WAITING: usize = 16;

/// Submits reads of one byte each of an empty pipe, with user data from 0.
fn reads(live: &Live, file: &SharedFile) -> Tried<Vec<RequestId>> {
    let read = |n| Request::read(file.clone(), vec![0; 1], 0).with_user_data(n);
    (0..WAITING as u64).map(|n| live.submit(read(n))).collect()
}

/// Sees that events are those of [`reads`], each once, and cancelled or done; returns how many were done.
fn done(events: &[Event]) -> Tried<usize> {
    let mut seen = [0; WAITING];
    let mut done = 0;
    for event in events {
        match seen.get_mut(event.request.user_data as usize) {
            Some(seen) => *seen += 1,
            None => {
                return failed(
                    "the user data of a request",
                    format_args!("{} came", event.request.user_data),
                );
            }
        }
        match &event.result {
            Ok(1) => done += 1,
            _ if is_cancelled(event) => {}
            came => return failed("a read to be done or cancelled", format_args!("it gave {came:?}")),
        }
    }
    same("how many events each has", seen, [1; WAITING])?;
    Ok(done)
}

/// Sees that of the bytes that were written the rest is still in the pipe. Closes it.
fn rest(file: &SharedFile, writer: PipeWriter, rest: usize) -> Tried {
    drop(writer);
    let mut left = Vec::new();
    (&**file).read_to_end(&mut left)?;
    same("how many bytes are left in the pipe", left.len(), rest)
}

fn sleeper_woken_by_data(rig: &Rig) -> Tried {
    let live = rig.context(4);
    let (file, mut writer) = pipe()?;
    for nap in NAPS {
        live.submit(Request::read(file.clone(), vec![0; 1], 0))?;
        let reader = sleeper(rig, &live, nap)?;
        writer.write_all(b"x")?;
        let event = rig.join(reader)?;
        same("the result of a read", event.result.as_ref().ok(), Some(&1))?;
    }
    live.end()
}

fn submitter_gone(rig: &Rig) -> Tried {
    let live = rig.context(WAITING as u32);
    let (file, mut writer) = pipe()?;
    let (theirs, shared) = (live.clone(), file.clone());
    let submitter = rig.thread("submitter", move || reads(&theirs, &shared))?;
    rig.join(submitter)?;
    live.nothing("nobody has written")?;
    writer.write_all(&[1; WAITING])?;
    let events = live.events(WAITING)?;
    same("how many reads are done", done(&events)?, WAITING)?;
    live.end()?;
    rest(&file, writer, 0)
}

fn cancel_waiting(rig: &Rig) -> Tried {
    let live = rig.context(WAITING as u32);
    let (file, mut writer) = pipe()?;
    let ids = reads(&live, &file)?;
    let mut running = Vec::new();
    for (id, n) in ids.iter().zip(0..) {
        match live.context().cancel(*id) {
            Ok(()) => {}
            Err(CancelError::Running) => running.push(n),
            Err(error) => return failed("a request in flight to be known", error),
        }
    }
    writer.write_all(&[1; WAITING])?;
    let events = live.events(WAITING)?;
    let done = done(&events)?;
    for event in events.iter().filter(|event| running.contains(&event.request.user_data)) {
        must(event.result.is_ok(), "a read that could not be cancelled to be done", "it was cancelled")?;
    }
    live.nothing("each request has had its own")?;
    live.end()?;
    rest(&file, writer, WAITING - done)
}

fn cancel_hastens(rig: &Rig) -> Tried {
    let live = rig.context(WAITING as u32);
    let (file, mut writer) = pipe()?;
    // Most are waiting or running by now; nobody says which.
    let ids = reads(&live, &file)?;
    thread::sleep(Duration::from_millis(10));
    let cancelled = ids.iter().filter(|id| live.context().cancel(**id).is_ok()).count();
    let mut events = live.events(cancelled)?;
    writer.write_all(&vec![1; WAITING - cancelled])?;
    events.extend(live.events(WAITING - cancelled)?);
    same("how many reads are done", done(&events)?, WAITING - cancelled)?;
    live.end()?;
    rest(&file, writer, 0)
}

fn cancel_poll(rig: &Rig) -> Tried {
    let live = rig.context(4);
    let (file, mut writer) = pipe()?;
    let id = live.submit(Request::poll(file, Readiness::READABLE))?;
    thread::sleep(Duration::from_millis(10));
    let cancelled = live.context().cancel(id).is_ok();
    if !cancelled {
        live.nothing("nobody has written")?;
        writer.write_all(b"x")?;
    }
    let event = live.event()?;
    same("the name in the event", event.id, id)?;
    if !(cancelled && is_cancelled(&event)) {
        let ready = event.result.as_ref().ok().map(|bits| Readiness::from_result(*bits));
        same("what the pipe is ready for", ready, Some(Readiness::READABLE))?;
    }
    live.nothing("the poll has had its own")?;
    live.end()
}

fn destroy_in_flight(rig: &Rig) -> Tried {
    let live = rig.context(WAITING as u32);
    let (file, mut writer) = pipe()?;
    reads(&live, &file)?;
    thread::sleep(Duration::from_millis(10));
    let (theirs, soon) = (live.clone(), Instant::now() + Duration::from_millis(50));
    let destroyer = rig.thread("destroyer", move || Ok(theirs.context().destroy(Some(soon))))?;
    match rig.join(destroyer)? {
        Ok(()) => {}
        Err(DestroyError::TimedOut { in_flight, named }) => {
            must(
                (1..=WAITING as u64).contains(&in_flight)
                    && named.iter().all(|request| request.user_data < WAITING as u64),
                "those in flight to be named",
                format_args!("there are {in_flight}, among them {named:?}"),
            )?;
            writer.write_all(&[1; WAITING])?;
            live.finished()?;
        }
        Err(error) => return failed("destroying to begin", error),
    }
    let mut events = Vec::new();
    live.some_events(&mut events);
    done(&events)?;
    drop(events);
    released(&live, &file)?;
    live.end()
}

fn destroy_by_many(rig: &Rig) -> Tried {
    const DESTROYERS: usize = 4;
    let live = rig.context(WAITING as u32);
    let (file, mut writer) = pipe()?;
    reads(&live, &file)?;
    let destroyers: Vec<_> = (0..DESTROYERS)
        .map(|_| {
            let theirs = live.clone();
            rig.thread("destroyer", move || {
                let first = theirs.context().destroy(theirs.deadline()) != Err(DestroyError::Already);
                theirs.finished()?;
                Ok(first)
            })
        })
        .collect::<Tried<_>>()?;
    thread::sleep(Duration::from_millis(10));
    writer.write_all(&[1; WAITING])?;
    let mut first = 0;
    for destroyer in destroyers {
        first += usize::from(rig.join(destroyer)?);
    }
    same("how many have destroyed the context", first, 1)?;
    let mut events = Vec::new();
    live.some_events(&mut events);
    let done = done(&events)?;
    drop(events);
    live.end()?;
    rest(&file, writer, WAITING - done)
}

fn drop_in_flight(rig: &Rig) -> Tried {
    for with_data in [false, true] {
        let live = rig.context(WAITING as u32);
        let (file, mut writer) = pipe()?;
        reads(&live, &file)?;
        if with_data {
            // Some complete, and nobody reads their events.
            writer.write_all(&[1; WAITING / 2])?;
        }
        let context = live.into_context();
        let dropper = rig.thread("dropper", move || {
            drop(context);
            Ok(())
        })?;
        thread::sleep(Duration::from_millis(10));
        writer.write_all(&[1; WAITING])?;
        rig.join(dropper)?;
        same("how many have the file besides us", SharedFile::strong_count(&file) - 1, 0)?;
    }
    Ok(())
}

fn dropped_future(rig: &Rig) -> Tried {
    let live = rig.context(WAITING as u32);
    let (file, mut writer) = pipe()?;
    let start = || match live.context().start(Request::read(file.clone(), vec![0; 1], 0)) {
        Ok(started) => Ok(started),
        Err(error) => failed("the request to be accepted", error),
    };
    for _ in 0..4 {
        drop(start()?);
    }
    live.nothing("the events go to futures, of which there are none left")?;
    writer.write_all(&[1; WAITING])?;
    released(&live, &file)?;
    // Its place is leaked, by whoever forgets it and not by the backend.
    mem::forget(start()?);
    live.context().destroy(live.deadline()).or_else(|error| failed("destroying to end", error))
}
