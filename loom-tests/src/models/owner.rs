//! What owns what it counts. The value is a tracked cell that its `drop` writes: loom sees whoever still reads it
//! then.

use crate::harness::{Model, nothing};
use ioctx::refcount::{Owner, PerCpuRef};
use ioctx::sync::cell::UnsafeCell;
use ioctx::sync::model::set_cpu;
use ioctx::sync::{Arc, thread};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Value {
    cell: UnsafeCell<u32>,
    drops: Arc<UnsafeCell<u32>>,
}

// SAFETY: the cells are read by holders and written by whoever drops the value; loom checks that this suffices.
unsafe impl Sync for Value {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl Send for Value {}

impl Value {
    fn new() -> (Self, Arc<UnsafeCell<u32>>) {
        let drops = Arc::new(UnsafeCell::new(0));
        (Self { cell: UnsafeCell::new(7), drops: Arc::clone(&drops) }, drops)
    }

    fn read(&self) {
        // SAFETY: a reference is held.
        assert_eq!(self.cell.with(|cell| unsafe { *cell }), 7, "used after drop");
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        // SAFETY: nobody else has the value any more, which loom checks.
        self.cell.with_mut(|cell| unsafe { *cell = 0 });
        // SAFETY: once, and read by those who waited for it.
        self.drops.with_mut(|drops| unsafe { *drops += 1 });
    }
}

/// How often the value was dropped, for whoever has waited for that.
fn times(drops: &UnsafeCell<u32>) -> u32 {
    // SAFETY: the drop happened before, which loom checks.
    drops.with(|drops| unsafe { *drops })
}

/// Upgrades that succeeded, over all iterations: none would mean that the model does not race.
static UPGRADED: AtomicUsize = AtomicUsize::new(0);

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "owner.last_put",
            checks: "the last put of a handle against the drop of the owner: dropped once, after every use",
            bound: None,
            least: 250,
            body: || {
                let (value, drops) = Value::new();
                let owner = Owner::new(value);
                let handle = owner.handle();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    handle.read();
                    drop(handle);
                });
                owner.read();
                drop(owner);
                thread.join().unwrap();
                assert_eq!(times(&drops), 1);
            },
            after: nothing,
        },
        Model {
            name: "owner.upgrade",
            checks: "a weak handle's upgrade against the kill: the value, or nothing; the memory goes last",
            bound: None,
            least: 89,
            body: || {
                let (value, drops) = Value::new();
                let owner = Owner::with_count(value, PerCpuRef::builder().atomic());
                let weak = owner.downgrade();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    if let Some(handle) = weak.upgrade() {
                        // Relaxed: counted for `after`.
                        UPGRADED.fetch_add(1, Relaxed);
                        handle.read();
                    }
                });
                drop(owner);
                thread.join().unwrap();
                assert_eq!(times(&drops), 1);
            },
            after: || assert!(UPGRADED.load(Relaxed) > 0),
        },
        Model {
            name: "owner.wait",
            checks: "refcount.typed.put: who waited for the end finds the value dropped, and the memory is freed once, by the last who needs it",
            bound: None,
            least: 94,
            body: || {
                let (value, drops) = Value::new();
                let owner = Owner::with_count(value, PerCpuRef::builder().atomic());
                let handle = owner.handle();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    drop(handle);
                });
                let dying = owner.kill();
                dying.wait();
                assert_eq!(times(&drops), 1);
                drop(dying);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "owner.resurrect",
            checks: "taking the kill back against the last put: the value is had back, or gone",
            bound: None,
            least: 272,
            body: || {
                let (value, drops) = Value::new();
                let owner = Owner::with_count(value, PerCpuRef::builder().atomic());
                let handle = owner.handle();
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    drop(handle);
                });
                match owner.kill().resurrect() {
                    Ok(owner) => {
                        owner.read();
                        drop(owner);
                    }
                    Err(dying) => dying.wait(),
                }
                thread.join().unwrap();
                assert_eq!(times(&drops), 1);
            },
            after: nothing,
        },
    ]
}
