//! Changes between slots and the word, against users and against each other.

use super::{Guarded, holder, join};
use crate::harness::{Model, nothing};
use ioctx::refcount::Put;
use ioctx::sync::Arc;
use ioctx::sync::model::abort_next_section;

/// To the word and back, against a user who comes and goes, or several who go.
fn to_and_fro(guarded: Arc<Guarded>, users: u32) {
    let threads: Vec<_> = (0..users)
        .map(|user| {
            holder(&guarded, 1 - user, move |guarded| match users {
                1 => guarded.use_and_put(1),
                _ => guarded.put(),
            })
        })
        .collect();
    guarded.count.switch_to_atomic();
    let count = guarded.count.count().expect("in one word");
    assert!((1..=3).contains(&count), "{count} references");
    guarded.count.switch_to_percpu();
    assert_eq!(guarded.count.count(), None);
    join(threads);
    guarded.count.switch_to_atomic();
    assert_eq!(guarded.count.count(), Some(1), "exact");
    guarded.kill();
    guarded.released(1);
}

/// Slots where there have never been any, against a user.
fn first_slots(sections: bool) {
    let guarded = Guarded::built(sections, |builder| builder.atomic());
    let thread = holder(&guarded, 1, |guarded| guarded.use_and_put(1));
    guarded.count.switch_to_percpu();
    join([thread]);
    guarded.kill();
    guarded.released(1);
}

/// A change on this thread against one on another, both of whom hold a reference and use it.
fn against(guarded: Arc<Guarded>, mine: impl FnOnce(&Guarded), theirs: impl FnOnce(&Guarded) + 'static) {
    let thread = holder(&guarded, 1, |guarded| {
        theirs(guarded);
        guarded.count.get();
    });
    mine(&guarded);
    join([thread]);
    assert_eq!(guarded.count.is_per_cpu(), guarded.count.count().is_none());
    guarded.count.switch_to_atomic();
    assert_eq!(guarded.count.count(), Some(3), "exact");
    assert_eq!(guarded.count.put_many(2), Put::Held);
    guarded.kill();
    guarded.released(1);
}

/// To the word, to slots, and the end, all at once.
fn all_at_once(sections: bool) {
    let guarded = Guarded::built(sections, |builder| builder);
    let threads = [
        holder(&guarded, 1, |guarded| {
            guarded.count.switch_to_atomic();
            guarded.put();
        }),
        holder(&guarded, 0, |guarded| {
            guarded.count.switch_to_percpu();
            guarded.put();
        }),
    ];
    guarded.kill();
    assert!(!guarded.count.is_per_cpu(), "a dead count is exact");
    join(threads);
    guarded.released(1);
}

/// To the word and back, or to slots only, against a user who counts up in a section and down in the word.
fn aborted(percpu: bool) {
    let guarded = Guarded::built(true, |builder| if percpu { builder } else { builder.atomic() });
    let thread = holder(&guarded, 1, |guarded| {
        guarded.count.get();
        for _ in 0..2 {
            abort_next_section();
            guarded.put();
        }
    });
    if percpu {
        guarded.count.switch_to_atomic();
    }
    guarded.count.switch_to_percpu();
    guarded.kill();
    join([thread]);
    guarded.released(1);
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "refcount.to_and_fro",
            checks: "to the word and back against get, migrate, put: no zero early, the count exact",
            bound: Some(4),
            least: 34_142,
            body: || to_and_fro(Guarded::new(), 1),
            after: nothing,
        },
        Model {
            name: "refcount.to_and_fro_two_users",
            checks: "the same with two users on two CPUs who put",
            bound: Some(3),
            least: 54_758,
            body: || to_and_fro(Guarded::new(), 2),
            after: nothing,
        },
        Model {
            name: "refcount.sections_to_and_fro",
            checks: "the same in sections: the slots are freed, and others come",
            bound: None,
            least: 251_763,
            body: || to_and_fro(Guarded::in_sections(), 1),
            after: nothing,
        },
        Model {
            name: "refcount.sections_aborted",
            checks: "to the word and back, and the end, against a user who counts up in a section and down in the word",
            bound: Some(4),
            least: 65_060,
            body: || aborted(true),
            after: nothing,
        },
        Model {
            name: "refcount.sections_flag",
            checks: "the flag PER_CPU is set before slots open: else the word of such a user is zero too early",
            bound: Some(4),
            least: 40_377,
            body: || aborted(false),
            after: nothing,
        },
        Model {
            name: "refcount.first_slots",
            checks: "refcount.mode.open, get, put, quick_get, quick_put: who finds new slots finds them made",
            bound: None,
            least: 1617,
            body: || first_slots(false),
            after: nothing,
        },
        Model {
            name: "refcount.sections_first_slots",
            checks: "the same in sections",
            bound: None,
            least: 3606,
            body: || first_slots(true),
            after: nothing,
        },
        Model {
            name: "refcount.atomic_percpu",
            checks: "refcount.word.begin, end, sum: two opposite changes come one after the other",
            bound: None,
            least: 44,
            body: || {
                against(
                    Guarded::new(),
                    |guarded| guarded.count.switch_to_atomic(),
                    |guarded| guarded.count.switch_to_percpu(),
                );
            },
            after: nothing,
        },
        Model {
            name: "refcount.percpu_atomic",
            checks: "the same, from one word, and each twice",
            bound: None,
            least: 4711,
            body: || {
                against(
                    Guarded::built(false, |builder| builder.atomic()),
                    |guarded| {
                        guarded.count.switch_to_percpu();
                        guarded.count.switch_to_atomic();
                    },
                    |guarded| {
                        guarded.count.switch_to_atomic();
                        guarded.count.switch_to_percpu();
                    },
                );
            },
            after: nothing,
        },
        Model {
            name: "refcount.sections_atomic_percpu",
            checks: "two opposite changes in sections",
            bound: None,
            least: 327,
            body: || {
                against(
                    Guarded::in_sections(),
                    |guarded| {
                        guarded.count.switch_to_atomic();
                        guarded.count.switch_to_percpu();
                    },
                    |guarded| guarded.count.switch_to_atomic(),
                );
            },
            after: nothing,
        },
        Model {
            name: "refcount.all_at_once",
            checks: "to the word, to slots and the end at once: one after the other, zero is found once",
            bound: Some(3),
            least: 8107,
            body: || all_at_once(false),
            after: nothing,
        },
        Model {
            name: "refcount.sections_all_at_once",
            checks: "the same in sections",
            bound: Some(3),
            least: 8928,
            body: || all_at_once(true),
            after: nothing,
        },
    ]
}
