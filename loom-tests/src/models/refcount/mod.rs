//! The reference count. What it guards is a tracked cell: whoever is told `Zero` writes it, holders read it.

mod dynamic;
mod free;
mod kill;
mod revive;
mod switch;

use crate::harness::Model;
use ioctx::refcount::{Always, Builder, PerCpuRef, Policy, Put};
use ioctx::sync::Arc;
use ioctx::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use ioctx::sync::cell::UnsafeCell;
use ioctx::sync::model::{set_cpu, use_sections};
use ioctx::sync::thread::{JoinHandle, spawn};

struct Guarded<P: Policy = Always> {
    count: PerCpuRef<P>,
    released: AtomicUsize,
    payload: UnsafeCell<u32>,
}

// SAFETY: the payload is read by holders and written by whoever finds zero; loom checks that this suffices.
unsafe impl<P: Policy> Sync for Guarded<P> {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl<P: Policy> Send for Guarded<P> {}

impl Guarded {
    /// Counted in restartable sequences.
    fn in_sections() -> Arc<Self> {
        Self::built(true, |builder| builder)
    }

    /// Counted by locked instructions.
    fn new() -> Arc<Self> {
        Self::built(false, |builder| builder)
    }
}

impl<P: Policy> Guarded<P> {
    fn built(sections: bool, build: impl FnOnce(Builder) -> Builder<P>) -> Arc<Self> {
        use_sections(sections);
        let count = build(PerCpuRef::builder()).build();
        Arc::new(Self { count, released: AtomicUsize::new(0), payload: UnsafeCell::new(0) })
    }

    /// What a holder does before it puts.
    fn hold(&self) {
        // SAFETY: a reference is held.
        assert_eq!(self.payload.with(|payload| unsafe { *payload }), 0, "used after release");
    }

    fn settle(&self, put: Put) {
        if put == Put::Zero {
            // SAFETY: the count is zero, and stays so until we say otherwise.
            self.payload.with_mut(|payload| unsafe { *payload += 1 });
            // Relaxed: read after every thread was joined.
            self.released.fetch_add(1, Relaxed);
        }
    }

    fn put(&self) {
        self.hold();
        self.settle(self.count.put());
    }

    fn kill(&self) {
        self.hold();
        if let Some(put) = self.count.try_kill() {
            self.settle(put);
        }
    }

    /// A user who has one reference: takes another, moves to the other CPU, gives both back.
    fn use_and_put(&self, cpu: u32) {
        self.count.get();
        set_cpu(1 - cpu);
        self.put();
        self.put();
    }

    /// After everybody was joined.
    fn released(&self, times: usize) {
        assert_eq!(self.released.load(Relaxed), times, "released so many times");
        assert!(self.count.is_zero());
    }
}

/// A thread on `cpu`, with a reference of its own.
fn holder<P: Policy, T: 'static>(
    guarded: &Arc<Guarded<P>>,
    cpu: u32,
    work: impl FnOnce(&Guarded<P>) -> T + 'static,
) -> JoinHandle<T> {
    guarded.count.get();
    onlooker(guarded, cpu, work)
}

/// A thread on `cpu`, with none.
fn onlooker<P: Policy, T: 'static>(
    guarded: &Arc<Guarded<P>>,
    cpu: u32,
    work: impl FnOnce(&Guarded<P>) -> T + 'static,
) -> JoinHandle<T> {
    let theirs = Arc::clone(guarded);
    spawn(move || {
        set_cpu(cpu);
        work(&theirs)
    })
}

/// Each thread to its end.
fn join<T>(threads: impl IntoIterator<Item = JoinHandle<T>>) {
    threads.into_iter().for_each(|thread| drop(thread.join().unwrap()));
}

pub(super) fn models() -> Vec<Model> {
    let parts = [kill::models(), switch::models(), revive::models(), dynamic::models(), free::models()];
    parts.into_iter().flatten().collect()
}
