//! The per-CPU reference count. What it guards is a tracked cell: whoever is told `Zero` writes it, holders
//! read it.

use crate::harness::{Model, nothing};
use ioctx::refcount::{PerCpuRef, Put};
use ioctx::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use ioctx::sync::cell::UnsafeCell;
use ioctx::sync::model::{abort_next_section, set_cpu, use_sections};
use ioctx::sync::{Arc, thread};

struct Guarded {
    count: PerCpuRef,
    released: AtomicUsize,
    payload: UnsafeCell<u32>,
}

// SAFETY: the payload is read by holders and written by whoever finds zero; loom checks that this suffices.
unsafe impl Sync for Guarded {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl Send for Guarded {}

impl Guarded {
    /// Counted in restartable sequences.
    fn in_sections() -> Arc<Self> {
        use_sections(true);
        Self::new()
    }

    fn new() -> Arc<Self> {
        Arc::new(Self { count: PerCpuRef::new(), released: AtomicUsize::new(0), payload: UnsafeCell::new(0) })
    }

    /// What a holder does before it puts.
    fn hold(&self) {
        // SAFETY: a reference is held.
        assert_eq!(self.payload.with(|payload| unsafe { *payload }), 0, "used after release");
    }

    fn settle(&self, put: Put) {
        if put == Put::Zero {
            // SAFETY: the count is zero and stays so.
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
}

/// `users` threads that each take a reference on one CPU and put it on the other, against a kill.
fn against_kill(users: u32) {
    let guarded = Guarded::new();
    let threads: Vec<_> = (0..users)
        .map(|user| {
            guarded.count.get();
            let guarded = Arc::clone(&guarded);
            thread::spawn(move || {
                set_cpu(user % 2);
                guarded.count.get();
                set_cpu((user + 1) % 2);
                guarded.put();
                guarded.put();
            })
        })
        .collect();
    guarded.kill();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(guarded.released.load(Relaxed), 1, "released once");
    assert!(guarded.count.is_zero());
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "refcount.get_put_kill",
            checks: "get, migrate, put against kill: zero is found once, last, and sees every holder",
            bound: None,
            least: 8635,
            body: || against_kill(1),
            after: nothing,
        },
        Model {
            name: "refcount.two_users_kill",
            checks: "the same with two users on two CPUs",
            bound: Some(3),
            least: 253_815,
            body: || against_kill(2),
            after: nothing,
        },
        Model {
            name: "refcount.one_put_each",
            checks: "each holder puts once, through slot or global word, and the last sees all",
            bound: Some(4),
            least: 32_190,
            body: || {
                let guarded = Guarded::new();
                let threads = [0, 1].map(|cpu| {
                    guarded.count.get();
                    let guarded = Arc::clone(&guarded);
                    thread::spawn(move || {
                        set_cpu(cpu);
                        guarded.put();
                    })
                });
                guarded.kill();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                assert_eq!(guarded.released.load(Relaxed), 1, "released once");
            },
            after: nothing,
        },
        Model {
            name: "refcount.try_get_live_kill",
            checks: "no try_get_live succeeds once kill has returned, and none after release",
            bound: None,
            least: 14_682,
            body: || {
                let guarded = Guarded::new();
                let killed = Arc::new(AtomicUsize::new(0));
                let (theirs, told) = (Arc::clone(&guarded), Arc::clone(&killed));
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    // Acquire: only what is ordered after the return of kill is promised.
                    let after = told.load(ioctx::sync::atomic::Ordering::Acquire) == 1;
                    if theirs.count.try_get_live() {
                        assert!(!after, "a reference after the kill");
                        theirs.put();
                    }
                    if theirs.count.try_get() {
                        theirs.put();
                    }
                });
                guarded.kill();
                killed.store(1, ioctx::sync::atomic::Ordering::Release);
                thread.join().unwrap();
                assert_eq!(guarded.released.load(Relaxed), 1, "released once");
            },
            after: nothing,
        },
        Model {
            name: "refcount.kill_kill",
            checks: "two killers: one wins, zero is found once",
            bound: None,
            least: 119,
            body: || {
                let guarded = Guarded::new();
                guarded.count.get();
                let theirs = Arc::clone(&guarded);
                let thread =
                    thread::spawn(move || theirs.count.try_kill().map(|put| theirs.settle(put)).is_some());
                let mine = guarded.count.try_kill().map(|put| guarded.settle(put)).is_some();
                guarded.put();
                assert!(thread.join().unwrap() != mine, "one killer");
                assert_eq!(guarded.released.load(Relaxed), 1, "released once");
            },
            after: nothing,
        },
        Model {
            name: "refcount.sections_kill",
            checks: "refcount.mode.fence: get, migrate, put in sections against kill: nothing is counted after the sum, the last sees all",
            bound: None,
            least: 2682,
            body: || {
                let guarded = Guarded::in_sections();
                guarded.count.get();
                let theirs = Arc::clone(&guarded);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.count.get();
                    set_cpu(0);
                    theirs.put();
                    theirs.put();
                });
                guarded.kill();
                thread.join().unwrap();
                assert_eq!(guarded.released.load(Relaxed), 1, "released once");
            },
            after: nothing,
        },
        Model {
            name: "refcount.sections_two_users",
            checks: "two users in sections, one of them aborted, against kill",
            bound: Some(3),
            least: 5624,
            body: || {
                let guarded = Guarded::in_sections();
                let threads = [0, 1].map(|cpu| {
                    guarded.count.get();
                    let guarded = Arc::clone(&guarded);
                    thread::spawn(move || {
                        set_cpu(cpu);
                        if cpu == 1 {
                            // Counts in the global word instead.
                            abort_next_section();
                        }
                        guarded.put();
                    })
                });
                guarded.kill();
                threads.into_iter().for_each(|thread| thread.join().unwrap());
                assert_eq!(guarded.released.load(Relaxed), 1, "released once");
            },
            after: nothing,
        },
        Model {
            name: "refcount.sections_try_get_live",
            checks: "try_get_live, in a section or aborted, against kill: none succeeds after it returned",
            bound: None,
            least: 13_921,
            body: || {
                let guarded = Guarded::in_sections();
                let killed = Arc::new(AtomicUsize::new(0));
                let (theirs, told) = (Arc::clone(&guarded), Arc::clone(&killed));
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    for aborted in [true, false] {
                        if aborted {
                            abort_next_section();
                        }
                        // Acquire: only what is ordered after the return of kill is promised.
                        let after = told.load(ioctx::sync::atomic::Ordering::Acquire) == 1;
                        if theirs.count.try_get_live() {
                            assert!(!after, "a reference after the kill");
                            theirs.put();
                        }
                    }
                });
                guarded.kill();
                killed.store(1, ioctx::sync::atomic::Ordering::Release);
                thread.join().unwrap();
                assert_eq!(guarded.released.load(Relaxed), 1, "released once");
            },
            after: nothing,
        },
        Model {
            name: "refcount.kill_all",
            checks: "two counts killed behind one fence, against a user of both",
            bound: Some(3),
            least: 276,
            body: || {
                let both = [Guarded::in_sections(), Guarded::in_sections()];
                both.iter().for_each(|guarded| guarded.count.get());
                let theirs = both.each_ref().map(Arc::clone);
                let thread = thread::spawn(move || {
                    set_cpu(1);
                    theirs.iter().for_each(|guarded| guarded.put());
                });
                PerCpuRef::kill_all(both.iter().map(|guarded| &guarded.count), |place, put| {
                    both[place].settle(put.expect("nobody else kills"));
                });
                thread.join().unwrap();
                assert!(both.iter().all(|guarded| guarded.released.load(Relaxed) == 1), "released once");
            },
            after: nothing,
        },
    ]
}
