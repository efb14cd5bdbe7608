//! A layer that does nothing but take requests down and up again.
#![allow(dead_code, reason = "each test file uses a part of it")]

use ioctx::aio::{Backend, Below, Completion, Done, Ended, Finished, Op, Request, RequestId, Submitted};
use std::mem::replace;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

type Last = Arc<Mutex<(usize, Option<i32>)>>;

/// Moves each request to one of its own.
pub struct Transparent<B: Backend>(Below<B, Moved>, Last);

pub struct Moved {
    work: Completion,
    last: Last,
}

impl Done for Moved {
    fn done(mut self, ended: Ended) -> Option<Finished> {
        self.work.request_mut().op = ended.request.op;
        let code = ended.error.as_ref().map(|error| error.raw_os_error().unwrap());
        *self.last.lock().unwrap() = (ended.bytes, code);
        Some(match ended.error {
            None => self.work.finish(Ok(ended.bytes)),
            Some(error) => self.work.finish_partly(ended.bytes, error),
        })
    }
}

impl<B: Backend> Transparent<B> {
    pub fn new(capacity: u32, below: B) -> Self {
        Self(Below::new(capacity, below).unwrap(), Last::default())
    }

    /// The backend below.
    pub fn below(&self) -> &B {
        self.0.backend()
    }

    /// What came up last.
    pub fn last(&self) -> (usize, Option<i32>) {
        *self.1.lock().unwrap()
    }
}

impl<B: Backend> Backend for Transparent<B> {
    fn submit(&self, mut work: Completion) -> Submitted {
        let above = self.0.above(&work).unwrap();
        let op = replace(&mut work.request_mut().op, Op::Nop);
        match self.0.submit(above, Request::new(op), Moved { work, last: self.1.clone() }) {
            Ok(finished) => finished.map_or(Submitted::Queued, Submitted::Done),
            Err(mut not) => {
                not.done.work.request_mut().op = not.request.op;
                Submitted::Refused(not.done.work, not.error)
            }
        }
    }

    fn flush(&self) {
        self.0.flush();
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        self.0.poll(done);
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor()
    }

    fn cancel(&self, id: RequestId) -> bool {
        self.0.cancel(id)
    }

    fn cancel_all(&self) {
        self.0.cancel_all();
    }
}
