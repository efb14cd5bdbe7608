//! Cancelling hastens, and changes nothing else.

use super::rig::{Live, Rig, Tried, failed, pattern, same, same_bytes};
use super::{CAPACITY, Capability, Check};
use crate::aio::{CancelError, Event, Request, RequestId};
use std::{fs, io};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "cancel_done",
        says: "what has completed is not cancelled, and its name means nothing any more",
        needs: &[],
        run: cancel_done,
    },
    Check {
        name: "cancel_race",
        says: "a write that is cancelled has one event: it is done and in the file, or cancelled and nowhere",
        needs: &[Capability::Files],
        run: cancel_race,
    },
];

/// Whether an event says that its request was cancelled.
pub(super) fn is_cancelled(event: &Event) -> bool {
    #[cfg(unix)]
    let code = rustix::io::Errno::CANCELED.raw_os_error();
    #[cfg(not(unix))]
    let code = 995;
    event.result.as_ref().err().and_then(io::Error::raw_os_error) == Some(code)
}

fn cancel_done(rig: &Rig) -> Tried {
    let live = rig.context(4);
    for _ in 0..10 {
        let id = live.submit(Request::nop())?;
        // It may have begun, be done, or neither: there is one event in any case.
        let _ = live.context().cancel(id);
        let event = live.event()?;
        same("the name in the event", event.id, id)?;
        same("what cancelling says of it now", live.context().cancel(id), Err(CancelError::Unknown))?;
        let _next = live.submit(Request::nop())?;
        same(
            "what cancelling says in the place of another",
            live.context().cancel(id),
            Err(CancelError::Unknown),
        )?;
        live.event()?;
    }
    live.nothing("each request has had its own")?;
    live.end()
}

const BLOCK: usize = 512;

fn cancel_race(rig: &Rig) -> Tried {
    const ROUNDS: usize = 20;
    let live = rig.context(CAPACITY);
    let (file, path) = rig.file(b"")?;
    let blocks = ROUNDS * CAPACITY as usize;
    file.set_len((blocks * BLOCK) as u64)?;
    let mut written = vec![0; blocks * BLOCK];
    for round in 0..ROUNDS {
        let first = round * CAPACITY as usize;
        let mut batch: Vec<_> = (first..first + CAPACITY as usize)
            .map(|block| {
                let bytes = pattern(block as u64, BLOCK);
                Request::write(file.clone(), bytes, (block * BLOCK) as u64).with_user_data(block as u64)
            })
            .collect();
        let mut ids = Vec::new();
        if let Err(error) = live.context().submit_batch_with(&mut batch, |id| ids.push(id)) {
            return failed("a batch to be accepted", error);
        }
        let (theirs, mut backwards) = (live.clone(), ids.clone());
        backwards.reverse();
        let canceller = rig.thread("canceller", move || cancel_all(&theirs, &backwards))?;
        cancel_all(&live, &ids)?;
        rig.join(canceller)?;
        for event in live.events(ids.len())? {
            let block = event.request.user_data as usize;
            match event.result {
                Ok(n) => {
                    same("the result of a write", n, BLOCK)?;
                    written[block * BLOCK..][..BLOCK].copy_from_slice(&pattern(block as u64, BLOCK));
                }
                Err(_) if is_cancelled(&event) => {}
                Err(error) => return failed("a write to succeed or to be cancelled", error),
            }
        }
    }
    live.nothing("each request has had its own")?;
    live.end()?;
    same_bytes("the file, of what was done and nothing else,", &fs::read(path)?, &written)
}

fn cancel_all(live: &Live, ids: &[RequestId]) -> Tried {
    for id in ids {
        // Any answer is right: it may be waiting, running, or done.
        let _ = live.context().cancel(*id);
    }
    Ok(())
}
