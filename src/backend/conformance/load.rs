//! Many requests on many descriptors by many threads, and every byte of it.

use super::rig::{Live, Rig, Tried, failed, must, pattern, same, same_bytes};
use super::{CAPACITY, Capability, Check};
use crate::aio::{Event, Op, Reason, Request};
use crate::sync::time::{Duration, Instant};
use crate::sync::{Arc, Mutex, SharedFile};
use std::fs;

pub(super) const CHECKS: &[Check] = &[Check {
    name: "load",
    says: "of very many writes and reads over 64 descriptors, by several threads, every byte is where it was to be",
    needs: &[Capability::Files],
    run: load,
}];

const DESCRIPTORS: usize = 64;
const THREADS: usize = 4;
const BLOCK: usize = 256;

/// What the threads share.
struct Load {
    files: Vec<SharedFile>,
    /// One after the other on each descriptor in turn; each is written and then read.
    blocks: usize,
    state: Mutex<State>,
}

struct State {
    /// The next block to be written.
    next: usize,
    /// How many were read.
    read: usize,
    /// When one was last written or read.
    moved: Instant,
}

impl Load {
    fn place(&self, block: usize) -> (SharedFile, u64) {
        (self.files[block % DESCRIPTORS].clone(), (block / DESCRIPTORS * BLOCK) as u64)
    }

    fn write(&self, block: usize) -> Request {
        let (file, offset) = self.place(block);
        Request::write(file, pattern(block as u64, BLOCK), offset).with_user_data(block as u64)
    }

    /// What has to be done after this.
    fn next(&self, event: Event) -> Tried<Option<Request>> {
        let block = event.request.user_data as usize;
        match event.result {
            Ok(n) => same("the bytes of a transfer", n, BLOCK)?,
            Err(error) => return failed("a transfer to succeed", format_args!("it failed: {error}")),
        }
        if let Op::Write { .. } = event.request.op {
            let (file, offset) = self.place(block);
            return Ok(Some(Request::read(file, vec![0; BLOCK], offset).with_user_data(block as u64)));
        }
        let came = event.request.into_buffer::<Vec<u8>>().unwrap_or_default();
        same_bytes(format_args!("block {block}"), &came, &pattern(block as u64, BLOCK))?;
        Ok(None)
    }

    /// What each of the threads does: whoever reads an event goes on with it.
    fn carry(&self, live: &Live) -> Tried {
        let (mut todo, mut events) = (Vec::new(), Vec::new());
        loop {
            {
                let mut state = self.state.lock();
                while todo.len() < 16 && state.next < self.blocks {
                    todo.push(self.write(state.next));
                    state.next += 1;
                }
            }
            match live.context().submit_batch(&mut todo) {
                Ok(_) => {}
                Err(error) if matches!(error.0, Reason::Full) => {}
                Err(error) => return failed("a batch to be accepted", error),
            }
            let soon = Some(Instant::now() + Duration::from_millis(5));
            let _ = live.context().get_events(1, 64, soon, &mut events);
            let (came, mut read) = (events.len(), 0);
            for event in events.drain(..) {
                match self.next(event)? {
                    Some(request) => todo.push(request),
                    None => read += 1,
                }
            }
            let mut state = self.state.lock();
            if came > 0 {
                state.moved = Instant::now();
                state.read += read;
                live.step();
            }
            if state.read == self.blocks {
                return Ok(());
            }
            must(
                state.moved + live.patience() > Instant::now(),
                format_args!("{} transfers", 2 * self.blocks),
                format_args!("{} blocks were written and read, and then nothing came any more", state.read),
            )?;
        }
    }
}

fn load(rig: &Rig) -> Tried {
    let (files, paths): (Vec<_>, Vec<_>) =
        (0..DESCRIPTORS).map(|_| rig.file(b"")).collect::<Tried<Vec<_>>>()?.into_iter().unzip();
    let blocks = rig.requests() / 2;
    let state = Mutex::new(State { next: 0, read: 0, moved: Instant::now() });
    let load = Arc::new(Load { files, blocks, state });
    let live = rig.context(CAPACITY);
    let workers: Vec<_> = (0..THREADS)
        .map(|_| {
            let (load, theirs) = (Arc::clone(&load), live.clone());
            rig.thread("load", move || load.carry(&theirs))
        })
        .collect::<Tried<_>>()?;
    for worker in workers {
        rig.join(worker)?;
    }
    live.end()?;
    for (descriptor, path) in paths.iter().enumerate() {
        let expected: Vec<u8> = (descriptor..blocks)
            .step_by(DESCRIPTORS)
            .flat_map(|block| pattern(block as u64, BLOCK))
            .collect();
        same_bytes(format_args!("the file of descriptor {descriptor}"), &fs::read(path)?, &expected)?;
    }
    Ok(())
}
