//! Backends that are broken in another way than by what becomes of a request.

use crate::mutants::is_pipe;
use ioctx::aio::{Backend, Completion, Finished, Op, RequestId, Submitted};
use ioctx::backend::Threads;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;

/// Carries everything out when it is looked at, and nobody is told when to.
pub(super) struct Deaf {
    waiting: Mutex<Vec<Completion>>,
    never_readable: OwnedFd,
    _writer: io::PipeWriter,
}

impl Deaf {
    pub(super) fn new() -> Self {
        let (reader, writer) = io::pipe().unwrap();
        Self { waiting: Mutex::default(), never_readable: reader.into(), _writer: writer }
    }
}

impl Backend for Deaf {
    fn submit(&self, work: Completion) -> Submitted {
        self.waiting.lock().unwrap().push(work);
        Submitted::Queued
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        let mut waiting = self.waiting.lock().unwrap();
        for mut work in std::mem::take(&mut *waiting) {
            match &mut work.request_mut().op {
                Op::Read { file, buf, .. } if is_pipe(file) => {
                    let mut polled = [PollFd::new(file, PollFlags::IN)];
                    if rustix::event::poll(&mut polled, Some(&Timespec::default())) == Ok(0) {
                        waiting.push(work);
                        continue;
                    }
                    let result = file.with_file(|mut file| io::Read::read(&mut file, buf));
                    done(work.finish(result));
                }
                _ => done(work.finish(Ok(0))),
            }
        }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.never_readable.as_fd())
    }
}

/// Holds what is submitted back until there is more.
pub(super) struct Holding {
    pool: Threads,
    held: Mutex<Option<Completion>>,
}

impl Holding {
    pub(super) fn new(pool: Threads) -> Self {
        Self { pool, held: Mutex::default() }
    }
}

impl Backend for Holding {
    fn submit(&self, work: Completion) -> Submitted {
        match self.held.lock().unwrap().replace(work) {
            Some(before) => self.pool.submit(before),
            None => Submitted::Queued,
        }
    }

    fn flush(&self) {
        self.pool.flush();
    }
}

/// Says that it ends what runs, and does not.
pub(super) struct Promising(pub(super) Threads);

impl Backend for Promising {
    fn submit(&self, work: Completion) -> Submitted {
        self.0.submit(work)
    }

    fn flush(&self) {
        self.0.flush();
    }

    fn cancel(&self, _: RequestId) -> bool {
        true
    }
}
