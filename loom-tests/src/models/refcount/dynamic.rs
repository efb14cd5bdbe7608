//! Counts that go per CPU by themselves, after two moves under loom, and back.

use super::{Guarded, holder, join, onlooker};
use crate::harness::{Model, nothing};
use ioctx::refcount::Moves;
use ioctx::sync::Arc;
use ioctx::sync::model::set_cpu;

fn moves(sections: bool) -> Arc<Guarded<Moves>> {
    Guarded::built(sections, |builder| builder.policy(Moves))
}

/// This thread makes the count per CPU by its first get, against a user on the other CPU.
fn upgrade(guarded: Arc<Guarded<Moves>>) {
    let thread = holder(&guarded, 0, |guarded| {
        guarded.count.get();
        guarded.hold();
        guarded.settle(guarded.count.put_many(2));
    });
    set_cpu(1);
    guarded.count.get();
    guarded.put();
    guarded.kill();
    join([thread]);
    guarded.released(1);
}

/// Two users of whom each makes the count per CPU, against a kill.
fn two_upgrades(guarded: Arc<Guarded<Moves>>) {
    let threads = [1, 0].map(|cpu| holder(&guarded, cpu, Guarded::put));
    guarded.kill();
    join(threads);
    guarded.released(1);
}

/// Per CPU, with as many references besides the first.
fn upgraded(references: u32) -> Arc<Guarded<Moves>> {
    let guarded = moves(true);
    guarded.count.get_many(references);
    set_cpu(1);
    guarded.count.get();
    let _ = guarded.count.put();
    set_cpu(0);
    assert!(guarded.count.is_per_cpu());
    guarded
}

/// Back to the word, against a user on the other CPU.
fn rest() {
    let guarded = upgraded(1);
    let thread = onlooker(&guarded, 1, |guarded| guarded.use_and_put(1));
    assert!(!guarded.count.rest());
    assert!(guarded.count.rest());
    guarded.kill();
    join([thread]);
    guarded.released(1);
}

/// Back to the word, twice at once.
fn two_rest() {
    let guarded = upgraded(1);
    assert!(!guarded.count.rest());
    let thread = onlooker(&guarded, 1, |guarded| {
        let rested = guarded.count.rest();
        guarded.put();
        rested
    });
    let mine = guarded.count.rest();
    let theirs = thread.join().unwrap();
    assert!(mine | theirs, "one of them went back");
    guarded.kill();
    guarded.released(1);
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "refcount.upgrade",
            checks: "a count becomes per CPU under the feet of a user and is killed: zero is found once, last",
            bound: Some(3),
            least: 103_448,
            body: || upgrade(moves(false)),
            after: nothing,
        },
        Model {
            name: "refcount.sections_upgrade",
            checks: "the same in sections",
            bound: Some(3),
            least: 80_468,
            body: || upgrade(moves(true)),
            after: nothing,
        },
        Model {
            name: "refcount.two_upgrades",
            checks: "two users each want the count per CPU, while it is killed: one change at a time",
            bound: Some(3),
            least: 67_079,
            body: || two_upgrades(moves(false)),
            after: nothing,
        },
        Model {
            name: "refcount.sections_two_upgrades",
            checks: "the same in sections",
            bound: Some(3),
            least: 76_916,
            body: || two_upgrades(moves(true)),
            after: nothing,
        },
        Model {
            name: "refcount.rest",
            checks: "back to one word, and the slots freed, against get, migrate, put in sections: nobody is there any more",
            bound: None,
            least: 284_255,
            body: rest,
            after: nothing,
        },
        Model {
            name: "refcount.two_rest",
            checks: "two go back to one word at once: the slots are freed once",
            bound: None,
            least: 929,
            body: two_rest,
            after: nothing,
        },
    ]
}
