//! Destroying a context while it is in use.

use super::rig::{Live, Rig, Tried, failed, must};
use super::{CAPACITY, Check};
use crate::aio::Reason;
use crate::sync::time::{Duration, expired};
use crate::sync::{SharedFile, thread};

pub(super) const CHECKS: &[Check] = &[Check {
    name: "destroy_while_submitting",
    says: "of a context that is destroyed while threads submit, every request that was accepted has its event",
    needs: &[],
    run: destroy_while_submitting,
}];

fn destroy_while_submitting(rig: &Rig) -> Tried {
    for _ in 0..5 {
        let live = rig.context(CAPACITY);
        let (file, _) = rig.file(b"text")?;
        let submitters: Vec<_> = (0..4_u64)
            .map(|thread| {
                let (theirs, file) = (live.clone(), file.clone());
                rig.thread("submitter", move || submit(&theirs, thread << 32, &file))
            })
            .collect::<Tried<_>>()?;
        thread::sleep(Duration::from_millis(20));
        let destroyed = live.destroyed();
        let (mut submitted, mut read) = (Vec::new(), Vec::new());
        for submitter in submitters {
            let (theirs, seen) = rig.join(submitter)?;
            submitted.extend(theirs);
            read.extend(seen);
        }
        read.extend(destroyed?.iter().map(|event| event.request.user_data));
        // Those that a reader which has ended since had put back.
        let mut rest = Vec::new();
        live.some_events(&mut rest);
        read.extend(rest.iter().map(|event| event.request.user_data));
        read.sort_unstable();
        must(
            read == submitted,
            format_args!("one event for each of {} requests", submitted.len()),
            format_args!("there were {}, or some had two", read.len()),
        )?;
        live.end()?;
    }
    Ok(())
}

/// Submits until the context is destroyed: what was accepted, and what has come meanwhile, by user data.
fn submit(live: &Live, first: u64, file: &SharedFile) -> Tried<(Vec<u64>, Vec<u64>)> {
    let (mut accepted, mut events) = (Vec::new(), Vec::new());
    let deadline = live.deadline();
    for n in first.. {
        match live.context().submit(live.any(n, file).with_user_data(n)) {
            Ok(_) => accepted.push(n),
            Err(error) => match error.reason {
                Reason::Dying => break,
                Reason::Full if !expired(deadline) => {
                    live.some_events(&mut events);
                    thread::yield_now();
                }
                reason => return failed("room, or the end of the context", reason),
            },
        }
    }
    live.some_events(&mut events);
    Ok((accepted, events.iter().map(|event| event.request.user_data).collect()))
}
