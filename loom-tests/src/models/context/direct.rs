//! Direct I/O in parts: a credit that comes back, against who hands out.

use super::events;
use crate::harness::{Model, nothing};
use ioctx::aio::{AlignedBuffer, Backend, Completion, Context, Op, Request, Submitted};
use ioctx::backend::Direct;
use ioctx::sync::model::set_cpu;
use ioctx::sync::{Mutex, thread};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::{env, mem};

const PART: usize = 64 << 10;

/// Another thread completes the first, and whoever submits the others.
struct FirstElsewhere(Mutex<bool>);

impl Backend for FirstElsewhere {
    fn submit(&self, work: Completion) -> Submitted {
        let Op::Read { buf, .. } = &work.request().op else { unreachable!() };
        let len = buf.len();
        if !mem::take(&mut *self.0.lock()) {
            return Submitted::Done(work.finish(Ok(len)));
        }
        thread::spawn(move || {
            set_cpu(1);
            work.complete(Ok(len));
        });
        Submitted::Queued
    }
}

/// A file for direct I/O, which nobody reads here. `None` where the file system has none.
fn file() -> Option<File> {
    File::options().read(true).custom_flags(libc::O_DIRECT).open(env::current_exe().ok()?).ok()
}

pub(super) fn models() -> Vec<Model> {
    if file().is_none() {
        println!("SKIPPED: context.direct_turn, no direct I/O here");
        return Vec::new();
    }
    vec![Model {
        name: "context.direct_turn",
        checks: "the only credit comes back while a thread stops handing out for want of it: one of them hands out the rest",
        bound: Some(2),
        least: 1775,
        body: || {
            let direct = Direct::with_part(1, PART, FirstElsewhere(Mutex::new(true))).unwrap();
            let context = Context::new(1, direct).unwrap();
            let memory = AlignedBuffer::new(2 * PART, 4096).unwrap();
            context.submit(Request::read(file().unwrap(), memory, 0)).unwrap();
            assert_eq!(events(&context, 1)[0].result.as_ref().unwrap(), &(2 * PART));
        },
        after: nothing,
    }]
}
