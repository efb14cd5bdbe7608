//! Gets and puts against the end.

use super::{Guarded, holder, join, onlooker};
use crate::harness::{Model, nothing};
use ioctx::refcount::{PerCpuRef, Policy};
use ioctx::sync::Arc;
use ioctx::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use ioctx::sync::model::{abort_next_section, set_cpu};

/// `users` threads that each take a reference on one CPU and put it on the other, against a kill.
fn against_kill(guarded: Arc<Guarded>, users: u32) {
    let threads: Vec<_> =
        (0..users).map(|user| holder(&guarded, user, move |guarded| guarded.use_and_put(user))).collect();
    guarded.kill();
    join(threads);
    guarded.released(1);
}

/// Each of two holders puts once, against a kill. The one on CPU 1 is aborted, if there are sections.
fn one_put_each(guarded: Arc<Guarded>) {
    let threads = [0, 1].map(|cpu| {
        holder(&guarded, cpu, move |guarded| {
            if cpu == 1 {
                // Counts in the word instead.
                abort_next_section();
            }
            guarded.put();
        })
    });
    guarded.kill();
    join(threads);
    guarded.released(1);
}

/// Gets by a thread that has no reference, against a kill.
fn try_get_live(guarded: Arc<Guarded>, tries: &'static [bool]) {
    let killed = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&killed);
    let thread = onlooker(&guarded, 1, move |guarded| {
        for &aborted in tries {
            if aborted {
                abort_next_section();
            }
            // Acquire: only what is ordered after the return of kill is promised.
            let after = told.load(Acquire) == 1;
            if guarded.count.try_get_live() {
                assert!(!after, "a reference after the kill");
                guarded.put();
            }
        }
        if guarded.count.try_get() {
            guarded.put();
        }
    });
    guarded.kill();
    killed.store(1, Release);
    join([thread]);
    guarded.released(1);
}

/// Gets by a thread that has no reference, against what the killer is promised when it may confirm.
fn confirm<P: Policy>(guarded: Arc<Guarded<P>>) {
    let confirmed = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&confirmed);
    let thread = onlooker(&guarded, 1, move |guarded| {
        for aborted in [true, false] {
            if aborted {
                abort_next_section();
            }
            // Acquire: only what is ordered after the confirmation is promised.
            let after = told.load(Acquire) == 1;
            if guarded.count.try_get_live() {
                assert!(!after, "a reference after the confirmation");
                guarded.put();
            }
        }
    });
    let put = guarded.count.kill_and_confirm(|| {
        guarded.hold();
        assert!(!guarded.count.try_get_live() && !guarded.count.is_zero());
        assert_eq!(guarded.released.load(Relaxed), 0, "released before the confirmation");
        confirmed.store(1, Release);
    });
    guarded.settle(put.expect("nobody else kills"));
    join([thread]);
    guarded.released(1);
}

/// Two killers of the same counts in opposite order; somebody holds a reference to each.
fn kill_all_twice(sections: bool) {
    let both = [0, 1].map(|_| Guarded::built(sections, |builder| builder));
    both.iter().for_each(|guarded| guarded.count.get());
    let theirs = both.each_ref().map(Arc::clone);
    let kill = |order: [&Arc<Guarded>; 2]| {
        let mut killed = 0;
        PerCpuRef::kill_all(order.map(|guarded| &guarded.count), |place, put| {
            assert!(!order[place].count.try_get_live(), "told of it, but it lives");
            if let Some(put) = put {
                killed += 1;
                order[place].settle(put);
            }
        });
        killed
    };
    let thread = ioctx::sync::thread::spawn(move || {
        set_cpu(1);
        kill([&theirs[1], &theirs[0]])
    });
    let mine = kill([&both[0], &both[1]]);
    assert_eq!(mine + thread.join().unwrap(), 2, "killed once each");
    both.iter().for_each(|guarded| {
        guarded.put();
        guarded.released(1);
    });
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "refcount.get_put_kill",
            checks: "get, migrate, put against kill: zero is found once, last, and sees every holder",
            bound: None,
            least: 8635,
            body: || against_kill(Guarded::new(), 1),
            after: nothing,
        },
        Model {
            name: "refcount.two_users_kill",
            checks: "the same with two users on two CPUs",
            bound: Some(3),
            least: 253_815,
            body: || against_kill(Guarded::new(), 2),
            after: nothing,
        },
        Model {
            name: "refcount.one_put_each",
            checks: "each holder puts once, through slot or word, and the last sees all",
            bound: Some(4),
            least: 32_190,
            body: || one_put_each(Guarded::new()),
            after: nothing,
        },
        Model {
            name: "refcount.try_get_live_kill",
            checks: "no try_get_live succeeds once kill has returned, and none after release",
            bound: None,
            least: 12_876,
            body: || try_get_live(Guarded::new(), &[false]),
            after: nothing,
        },
        Model {
            name: "refcount.kill_kill",
            checks: "two killers: one wins, zero is found once",
            bound: None,
            least: 119,
            body: || {
                let guarded = Guarded::new();
                let kill =
                    |guarded: &Guarded| guarded.count.try_kill().map(|put| guarded.settle(put)).is_some();
                guarded.count.get();
                let thread = onlooker(&guarded, 1, kill);
                let mine = kill(&guarded);
                guarded.put();
                assert!(thread.join().unwrap() != mine, "one killer");
                guarded.released(1);
            },
            after: nothing,
        },
        Model {
            name: "refcount.is_zero",
            checks: "refcount.word.is_zero: an onlooker that sees zero comes after every holder's put",
            bound: None,
            least: 44,
            body: || {
                let guarded = Guarded::new();
                let thread = onlooker(&guarded, 1, |guarded| {
                    if guarded.count.is_zero() {
                        // SAFETY: the last reference is gone, and whoever was told leaves the payload to us.
                        guarded.payload.with_mut(|payload| unsafe { *payload += 1 });
                    }
                });
                guarded.hold();
                let _ = guarded.count.kill();
                join([thread]);
            },
            after: nothing,
        },
        Model {
            name: "refcount.sections_kill",
            checks: "refcount.mode.fence: get, migrate, put in sections against kill: nothing is counted after the sum, the last sees all",
            bound: None,
            least: 3990,
            body: || against_kill(Guarded::in_sections(), 1),
            after: nothing,
        },
        Model {
            name: "refcount.sections_one_put_each",
            checks: "each holder puts once, in a section or aborted, against kill",
            bound: Some(3),
            least: 5624,
            body: || one_put_each(Guarded::in_sections()),
            after: nothing,
        },
        Model {
            name: "refcount.sections_try_get_live",
            checks: "try_get_live, in a section or aborted, against kill: none succeeds after it returned",
            bound: None,
            least: 68_188,
            body: || try_get_live(Guarded::in_sections(), &[true, false]),
            after: nothing,
        },
        Model {
            name: "refcount.confirm",
            checks: "confirmed: no try_get_live succeeds, and nothing is released yet",
            bound: None,
            least: 32_063,
            body: || confirm(Guarded::new()),
            after: nothing,
        },
        Model {
            name: "refcount.sections_confirm",
            checks: "the same in sections",
            bound: None,
            least: 18_209,
            body: || confirm(Guarded::in_sections()),
            after: nothing,
        },
        Model {
            name: "refcount.word_confirm",
            checks: "the same of a count in one word",
            bound: None,
            least: 742,
            body: || confirm(Guarded::built(false, |builder| builder.atomic())),
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
                let thread = ioctx::sync::thread::spawn(move || {
                    set_cpu(1);
                    theirs.iter().for_each(|guarded| guarded.put());
                });
                PerCpuRef::kill_all(both.iter().map(|guarded| &guarded.count), |place, put| {
                    both[place].settle(put.expect("nobody else kills"));
                });
                join([thread]);
                both.iter().for_each(|guarded| guarded.released(1));
            },
            after: nothing,
        },
        Model {
            name: "refcount.kill_all_twice",
            checks: "two kill the same two counts in opposite order: nobody waits for ever, each is killed once",
            bound: Some(3),
            least: 2323,
            body: || kill_all_twice(false),
            after: nothing,
        },
        Model {
            name: "refcount.sections_kill_all",
            checks: "the same in sections",
            bound: Some(3),
            least: 1633,
            body: || kill_all_twice(true),
            after: nothing,
        },
    ]
}
