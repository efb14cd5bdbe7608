//! Death and revival.

use super::{Guarded, holder, join, onlooker};
use crate::harness::{Model, nothing};
use ioctx::refcount::{Put, ReviveError};
use ioctx::sync::Arc;
use ioctx::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use ioctx::sync::model::abort_next_section;

/// The count is dying, and one who has a reference gives it back.
fn last_put(guarded: Arc<Guarded>) {
    guarded.count.get();
    guarded.kill();
    let thread = onlooker(&guarded, 1, Guarded::put);
    match guarded.count.resurrect() {
        // What was not released then is not released while it lives.
        Ok(()) => guarded.kill(),
        Err(error) => assert_eq!(error, ReviveError::Zero),
    }
    join([thread]);
    guarded.released(1);
}

/// A user who comes and goes while the count is killed, taken back to life, and killed again.
fn killed_twice(guarded: Arc<Guarded>) {
    let thread = holder(&guarded, 1, |guarded| guarded.use_and_put(1));
    // Keeps it from zero in between.
    guarded.count.get();
    guarded.kill();
    guarded.count.resurrect().unwrap();
    guarded.put();
    guarded.kill();
    join([thread]);
    guarded.released(1);
}

/// Two take the same kill back, and each gives a reference back.
fn two_resurrect(guarded: Arc<Guarded>) {
    let resurrect = |guarded: &Guarded| {
        let revived = guarded.count.resurrect();
        assert!(matches!(revived, Ok(()) | Err(ReviveError::Alive)));
        guarded.put();
        revived.is_ok()
    };
    guarded.count.get_many(2);
    guarded.kill();
    let thread = onlooker(&guarded, 1, resurrect);
    let mine = resurrect(&guarded);
    assert!(mine != thread.join().unwrap(), "one of them won");
    guarded.kill();
    guarded.released(1);
}

/// Lives of a count of which each begins when the one before is over.
fn reinit(guarded: Arc<Guarded>) {
    let lives = Arc::new(AtomicUsize::new(0));
    let ended = Arc::clone(&lives);
    let put = move |guarded: &Guarded, put: Put| {
        if put == Put::Zero {
            ended.fetch_add(1, Relaxed);
            guarded.count.reinit().unwrap();
        }
    };
    let theirs = put.clone();
    let thread = onlooker(&guarded, 1, move |guarded| {
        for aborted in [false, true] {
            if aborted {
                abort_next_section();
            }
            if guarded.count.try_get_live() {
                // Whoever has a reference sees that there is one.
                abort_next_section();
                assert!(guarded.count.try_get(), "zero, though a reference is held");
                theirs(guarded, guarded.count.put());
                theirs(guarded, guarded.count.put());
            }
        }
    });
    put(&guarded, guarded.count.kill());
    join([thread]);
    assert_eq!(lives.load(Relaxed), 1, "zero is found once a life");
    assert_eq!(guarded.count.kill(), Put::Zero);
}

/// Two start the count anew: one who saw that it is zero, and one who has killed it.
fn two_reinit(guarded: Arc<Guarded>) {
    let reinit = |guarded: &Guarded| {
        let anew = guarded.count.reinit();
        if anew.is_ok() {
            // SAFETY: every reference was put, and the only one there is now is ours.
            guarded.payload.with_mut(|payload| unsafe { *payload += 1 });
        }
        anew.is_ok()
    };
    let thread = holder(&guarded, 1, move |guarded| {
        guarded.hold();
        let _ = guarded.count.put();
        reinit(guarded)
    });
    guarded.hold();
    let _ = guarded.count.kill();
    let anew = u32::from(reinit(&guarded)) + u32::from(thread.join().unwrap());
    assert_eq!(anew, 1, "started anew once");
    assert_eq!(guarded.count.kill(), Put::Zero);
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "refcount.last_put",
            checks: "resurrect against the last put: zero, or revived and zero after the next kill",
            bound: None,
            least: 2886,
            body: || last_put(Guarded::new()),
            after: nothing,
        },
        Model {
            name: "refcount.sections_last_put",
            checks: "the same in sections",
            bound: None,
            least: 14_031,
            body: || last_put(Guarded::in_sections()),
            after: nothing,
        },
        Model {
            name: "refcount.killed_twice",
            checks: "kill, resurrect, kill against get, migrate, put: zero is found once, in the end",
            bound: Some(3),
            least: 46_454,
            body: || killed_twice(Guarded::new()),
            after: nothing,
        },
        Model {
            name: "refcount.sections_killed_twice",
            checks: "the same in sections",
            bound: Some(3),
            least: 8860,
            body: || killed_twice(Guarded::in_sections()),
            after: nothing,
        },
        Model {
            name: "refcount.two_resurrect",
            checks: "two take a kill back: one wins, and one reference more is out",
            bound: None,
            least: 67,
            body: || two_resurrect(Guarded::new()),
            after: nothing,
        },
        Model {
            name: "refcount.reinit",
            checks: "percpu.counter.open, add: who counts up in a slot just opened sees that the count lives",
            bound: Some(3),
            least: 59_857,
            body: || reinit(Guarded::new()),
            after: nothing,
        },
        Model {
            name: "refcount.sections_reinit",
            checks: "a new life against try_get_live in sections and aborted: zero is found once a life",
            bound: Some(3),
            least: 12_977,
            body: || reinit(Guarded::in_sections()),
            after: nothing,
        },
        Model {
            name: "refcount.two_reinit",
            checks: "refcount.word.begin: who starts a count anew comes after every put; one of two does",
            bound: None,
            least: 5593,
            body: || two_reinit(Guarded::new()),
            after: nothing,
        },
    ]
}
