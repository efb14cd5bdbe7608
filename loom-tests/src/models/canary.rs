//! Programs that are wrong, each in a way of its own: the command demands that they fail, or the harness is
//! blind.

use crate::harness::{Model, nothing};
use ioctx::aio::{Backend, Completion, Context, Request, Submitted};
use ioctx::backend::Null;
use ioctx::sync::atomic::{AtomicU32, Ordering::Relaxed};
use ioctx::sync::cell::UnsafeCell;
use ioctx::sync::{Arc, Parker, hint, thread};

struct Unprotected(UnsafeCell<u32>);

// SAFETY: it is not, which is the point; loom stops before harm is done.
unsafe impl Sync for Unprotected {}
// SAFETY: as above.
unsafe impl Send for Unprotected {}

pub(super) fn models() -> Vec<Model> {
    let canary = |name, checks, body| Model { name, checks, bound: Some(2), least: 1, body, after: nothing };
    vec![
        canary("canary.race", "two threads write one cell", || {
            let cell = Arc::new(Unprotected(UnsafeCell::new(0)));
            let theirs = Arc::clone(&cell);
            // SAFETY: none; see above.
            let write = |cell: &Unprotected| cell.0.with_mut(|cell| unsafe { *cell += 1 });
            let thread = thread::spawn(move || write(&theirs));
            write(&cell);
            thread.join().unwrap();
        }),
        canary("canary.leak", "a context that is forgotten", || {
            let context = Context::new(1, Null).unwrap();
            thread::spawn(|| {}).join().unwrap();
            std::mem::forget(context);
        }),
        canary("canary.lost_completion", "a backend that forgets a completion", || {
            struct Forgets;
            impl Backend for Forgets {
                fn submit(&self, work: Completion) -> Submitted {
                    thread::spawn(move || std::mem::forget(work)).join().unwrap();
                    Submitted::Queued
                }
            }
            let context = Context::new(1, Forgets).unwrap();
            context.submit(Request::nop()).unwrap();
            drop(context);
        }),
        canary("canary.deadlock", "a sleeper whom nobody wakes", || {
            let parker = Arc::new(Parker::new());
            let theirs = Arc::clone(&parker);
            thread::spawn(move || drop(theirs)).join().unwrap();
            parker.park(None);
        }),
        canary("canary.endless", "a loop that waits for what does not come", || {
            let word = Arc::new(AtomicU32::new(0));
            let theirs = Arc::clone(&word);
            let thread = thread::spawn(move || theirs.store(1, Relaxed));
            while word.load(Relaxed) != 2 {
                hint::spin_loop();
            }
            thread.join().unwrap();
        }),
    ]
}
