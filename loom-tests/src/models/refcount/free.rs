//! Counts that whoever finds zero drops while others are about to return from their put.
//!
//! A count that is dropped checks, under loom, that every access to its words and slots came before. Its memory
//! stays until everybody is joined, so that loom, and not the allocator, finds an access that comes after.

use super::join;
use crate::harness::{Model, nothing};
use ioctx::refcount::{Builder, PerCpuRef, Policy, Put};
use ioctx::sync::model::{set_cpu, use_sections};
use ioctx::sync::{Arc, thread};
use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;

struct Freed<P: Policy>(UnsafeCell<ManuallyDrop<PerCpuRef<P>>>);

// SAFETY: the count is shared until it is dropped by whoever is told `Zero`; loom checks that this suffices.
unsafe impl<P: Policy> Sync for Freed<P> {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl<P: Policy> Send for Freed<P> {}

impl<P: Policy> Freed<P> {
    fn count(&self) -> *const PerCpuRef<P> {
        self.0.get().cast()
    }

    fn settle(&self, put: Put) {
        if put == Put::Zero {
            // SAFETY: told so once, and nobody touches the count after.
            unsafe { ManuallyDrop::drop(&mut *self.0.get()) };
        }
    }

    fn put(&self) {
        // SAFETY: a reference is held until it is given back.
        self.settle(unsafe { PerCpuRef::put_raw(self.count(), 1) });
    }
}

/// A user of a count that is dropped by whoever finds zero, against `change` and a kill.
fn freed<P: Policy>(
    sections: bool,
    build: impl FnOnce(Builder) -> Builder<P>,
    change: impl FnOnce(&PerCpuRef<P>),
) {
    use_sections(sections);
    let count = build(PerCpuRef::builder()).build();
    count.get();
    let freed = Arc::new(Freed(UnsafeCell::new(ManuallyDrop::new(count))));
    let theirs = Arc::clone(&freed);
    let user = thread::spawn(move || {
        set_cpu(1);
        // SAFETY: a reference is held.
        unsafe { (*theirs.count()).get() };
        theirs.put();
        set_cpu(0);
        theirs.put();
    });
    // SAFETY: the first reference is held.
    change(unsafe { &*freed.count() });
    // SAFETY: the first reference is held until it is given back.
    let put = unsafe { PerCpuRef::kill_raw(freed.count(), || {}) };
    freed.settle(put.expect("nobody else kills"));
    join([user]);
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "refcount.put_raw",
            checks: "put_raw and kill_raw touch nothing once their reference is gone",
            bound: None,
            least: 7018,
            body: || freed(false, |builder| builder, |_| {}),
            after: nothing,
        },
        Model {
            name: "refcount.sections_put_raw",
            checks: "the same in sections",
            bound: None,
            least: 4214,
            body: || freed(true, |builder| builder, |_| {}),
            after: nothing,
        },
        Model {
            name: "refcount.switched_put_raw",
            checks: "the same of slots that were opened and closed before",
            bound: Some(3),
            least: 15_628,
            body: || {
                freed(
                    false,
                    |builder| builder.atomic(),
                    |count| {
                        count.switch_to_percpu();
                        count.switch_to_atomic();
                    },
                );
            },
            after: nothing,
        },
        Model {
            name: "refcount.dynamic_put_raw",
            checks: "the same of a count that goes per CPU by itself",
            bound: None,
            least: 3616,
            body: || freed(true, |builder| builder.policy(ioctx::refcount::Moves), |_| {}),
            after: nothing,
        },
    ]
}
