//! Counts and tags. What a unit admits to is a tracked cell; the law of conservation is asserted at the end
//! of every schedule.

mod resize;
mod wait;

use crate::harness::{Model, nothing};
use ioctx::credits::{Builder, Credits, Tags};
use ioctx::sync::cell::UnsafeCell;
use ioctx::sync::model::{set_cpu, use_sections};
use ioctx::sync::{Arc, thread};

/// Cells, each used by the holder of what admits to it.
struct Used<T> {
    by: T,
    cells: Vec<UnsafeCell<u32>>,
}

// SAFETY: the units keep users of one cell apart; loom checks that they do.
unsafe impl<T: Sync> Sync for Used<T> {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl<T: Send> Send for Used<T> {}

impl<T> Used<T> {
    fn new(by: T, cells: usize) -> Arc<Self> {
        Arc::new(Self { by, cells: (0..cells).map(|_| UnsafeCell::new(0)).collect() })
    }

    fn touch(&self, cell: u32) {
        // SAFETY: the caller holds the unit that admits to it.
        self.cells[cell as usize].with_mut(|cell| unsafe { *cell += 1 });
    }
}

/// Takes once on one CPU and puts on the other; returns whether it got one.
fn count_user(used: &Used<Credits>, cpu: u32) -> bool {
    set_cpu(cpu);
    let credit = used.by.try_take(1);
    if credit.is_ok() && used.cells.len() == 1 {
        used.touch(0);
    }
    set_cpu(1 - cpu);
    credit.is_ok()
}

fn tag_user(used: &Used<Tags>, cpu: u32) -> bool {
    set_cpu(cpu);
    let tag = used.by.try_take();
    if let Ok(tag) = &tag {
        used.touch(tag.index());
    }
    set_cpu(1 - cpu);
    tag.is_ok()
}

/// `users` threads over `n` units; afterwards all `n` can be taken at once.
fn counts(n: u32, users: u32) {
    let used = Used::new(Builder::new(n).batch(1).credits().unwrap(), n as usize);
    let threads: Vec<_> = (1..users)
        .map(|user| {
            let used = Arc::clone(&used);
            thread::spawn(move || count_user(&used, user % 2))
        })
        .collect();
    let mut got = u32::from(count_user(&used, 0));
    got += threads.into_iter().map(|thread| u32::from(thread.join().unwrap())).sum::<u32>();
    assert!(got >= users.min(n), "refused though one was free");
    assert_eq!(used.by.available(), n, "conserved");
    assert!(used.by.try_take(n).is_ok(), "all can be out at once");
}

fn tags(n: u32, users: u32) {
    let used = Used::new(Builder::new(n).batch(1).tags().unwrap(), n as usize);
    let threads: Vec<_> = (1..users)
        .map(|user| {
            let used = Arc::clone(&used);
            thread::spawn(move || tag_user(&used, user % 2))
        })
        .collect();
    let mut got = u32::from(tag_user(&used, 0));
    got += threads.into_iter().map(|thread| u32::from(thread.join().unwrap())).sum::<u32>();
    assert!(got >= users.min(n), "refused though one was free");
    assert_eq!(used.by.available(), n, "conserved");
    let all: Vec<_> = std::iter::from_fn(|| used.by.try_take().ok()).collect();
    assert_eq!(all.len() as u32, n, "all can be out at once");
}

/// A unit is put on one CPU while two threads on the other want it, and keep it.
fn three_counts() {
    let used = Used::new(Builder::new(1).batch(1).credits().unwrap(), 1);
    set_cpu(1);
    let credit = used.by.try_take(1).unwrap();
    let takers = [(); 2].map(|()| {
        let used = Arc::clone(&used);
        thread::spawn(move || {
            let got = used.by.try_take(1);
            if got.is_ok() {
                used.touch(0);
            }
            got.map(std::mem::forget).is_ok()
        })
    });
    used.touch(0);
    drop(credit);
    let got = takers.map(|taker| u32::from(taker.join().unwrap())).iter().sum::<u32>();
    assert!(got < 2, "one unit in two hands");
    assert_eq!(used.by.available(), 1 - got, "conserved");
    assert_eq!(used.by.try_take(1).is_ok(), got == 0);
}

/// The same with a tag.
fn three_tags() {
    let used = Used::new(Builder::new(1).batch(1).tags().unwrap(), 1);
    set_cpu(1);
    let tag = used.by.try_take().unwrap();
    let takers = [(); 2].map(|()| {
        let used = Arc::clone(&used);
        thread::spawn(move || {
            let got = used.by.try_take();
            if let Ok(tag) = &got {
                used.touch(tag.index());
            }
            got.map(std::mem::forget).is_ok()
        })
    });
    used.touch(0);
    drop(tag);
    let got = takers.map(|taker| u32::from(taker.join().unwrap())).iter().sum::<u32>();
    assert!(got < 2, "one tag in two hands");
    assert_eq!(used.by.try_take().is_ok(), got == 0);
}

/// Counts and tags in sections: their users on two CPUs, one of whom sweeps.
fn in_sections(user: impl Fn(u32) -> bool + Send + Sync + 'static) {
    let user = Arc::new(user);
    let theirs = Arc::clone(&user);
    let thread = thread::spawn(move || theirs(1));
    let mine = user(0);
    assert!(thread.join().unwrap() | mine, "both refused though one is free");
}

/// One who has a unit of three puts it while another is refused and, by putting two, opens the stocks; then takes:
/// nobody has the unit but it.
fn put_then_take<T: Send + Sync + 'static, U: Send + 'static>(units: T, take: fn(&'static T) -> Option<U>) {
    let units = Box::into_raw(Box::new(units));
    // SAFETY: freed below, when nobody uses it any more.
    let shared: &'static T = unsafe { &*units };
    set_cpu(0);
    let theirs = take(shared);
    let mine = [take(shared), take(shared)];
    let theirs = thread::spawn(move || {
        set_cpu(1);
        drop(theirs);
        take(shared).is_some()
    });
    let refused = take(shared).is_none();
    drop(mine);
    assert!(theirs.join().unwrap() || !refused, "refused though its own unit is free");
    // SAFETY: made above, and the other thread has ended.
    drop(unsafe { Box::from_raw(units) });
}

pub(super) fn models() -> Vec<Model> {
    let mut models = wait::models();
    models.extend(resize::models());
    models.extend([
        Model {
            name: "credits.one_for_two",
            checks: "one unit, two users: exclusive, handed on with what its holder did, conserved",
            bound: None,
            least: 22_868,
            body: || counts(1, 2),
            after: nothing,
        },
        Model {
            name: "credits.two_for_two",
            checks: "two units, two users: neither is refused",
            bound: Some(4),
            least: 18_550,
            body: || counts(2, 2),
            after: nothing,
        },
        Model {
            name: "credits.one_for_three",
            checks: "one unit: two sweepers against a put: exclusive, conserved",
            bound: Some(2),
            least: 200_443,
            body: three_counts,
            after: nothing,
        },
        Model {
            name: "credits.put_against_sweep",
            checks: "a put that meets the sweep of a refused take: the unit is found afterwards",
            bound: None,
            least: 370,
            body: || {
                let used = Used::new(Builder::new(1).batch(1).credits().unwrap(), 1);
                // In the stock of CPU 1, where the sweep has to look.
                set_cpu(1);
                let credit = used.by.try_take(1).unwrap();
                let theirs = Arc::clone(&used);
                let thread = thread::spawn(move || {
                    set_cpu(0);
                    if theirs.by.try_take(1).is_ok() {
                        theirs.touch(0);
                    }
                });
                used.touch(0);
                drop(credit);
                thread.join().unwrap();
                assert_eq!(used.by.available(), 1, "conserved");
                set_cpu(0);
                assert!(used.by.try_take(1).is_ok(), "a unit is free and is refused");
            },
            after: nothing,
        },
        Model {
            name: "credits.tags_sections_reopen",
            checks: "credits.mode.open: two users in sections, each twice, so that putting opens the stocks",
            bound: Some(2),
            least: 37_363,
            body: || {
                use_sections(true);
                let used = Used::new(Builder::new(1).batch(1).tags().unwrap(), 1);
                let theirs = Arc::clone(&used);
                let thread = thread::spawn(move || (tag_user(&theirs, 1), tag_user(&theirs, 1)));
                tag_user(&used, 0);
                tag_user(&used, 0);
                thread.join().unwrap();
                assert_eq!(used.by.available(), 1, "conserved");
                assert!(used.by.try_take().is_ok(), "a tag is free and is refused");
            },
            after: nothing,
        },
        Model {
            name: "credits.put_opens",
            checks: "credits.pool.put: who takes what a put brings to closed stocks sees what its holder did",
            bound: None,
            least: 252_028,
            body: || {
                let used = Used::new(Builder::new(1).batch(1).credits().unwrap(), 1);
                set_cpu(1);
                let credit = used.by.try_take(1).unwrap();
                let theirs = Arc::clone(&used);
                let thread = thread::spawn(move || {
                    for _ in 0..2 {
                        if let Ok(credit) = theirs.by.try_take(1) {
                            theirs.touch(0);
                            std::mem::forget(credit);
                        }
                    }
                });
                used.touch(0);
                drop(credit);
                thread.join().unwrap();
            },
            after: nothing,
        },
        Model {
            name: "credits.put_then_take",
            checks: "credits.count.open: who puts into a stock just opened does not find the pool closed then",
            bound: Some(2),
            least: 49_712,
            body: || {
                put_then_take(Builder::new(3).batch(1).credits().unwrap(), |credits| credits.try_take(1).ok())
            },
            after: nothing,
        },
        Model {
            name: "credits.tags_put_then_take",
            checks: "credits.tags.open: the same with tags",
            bound: Some(2),
            least: 31_207,
            body: || put_then_take(Builder::new(3).batch(1).tags().unwrap(), |tags| tags.try_take().ok()),
            after: nothing,
        },
        Model {
            name: "credits.sections",
            checks: "credits.mode.fence: one unit, two users in sections: exclusive, handed on, conserved",
            bound: Some(4),
            least: 541,
            body: || {
                use_sections(true);
                let used = Used::new(Builder::new(1).batch(1).credits().unwrap(), 1);
                let theirs = Arc::clone(&used);
                in_sections(move |cpu| count_user(&theirs, cpu));
                assert_eq!(used.by.available(), 1, "conserved");
                assert!(used.by.try_take(1).is_ok(), "a unit is free and is refused");
            },
            after: nothing,
        },
        Model {
            name: "credits.tags_sections",
            checks: "credits.mode.fence: one tag, two users in sections: in one hand, handed on, conserved",
            bound: Some(4),
            least: 541,
            body: || {
                use_sections(true);
                let used = Used::new(Builder::new(1).batch(1).tags().unwrap(), 1);
                let theirs = Arc::clone(&used);
                in_sections(move |cpu| tag_user(&theirs, cpu));
                assert_eq!(used.by.available(), 1, "conserved");
                assert!(used.by.try_take().is_ok(), "a tag is free and is refused");
            },
            after: nothing,
        },
        Model {
            name: "credits.tags_one_for_two",
            checks: "one tag, two users: never in two hands",
            bound: None,
            least: 48_562,
            body: || tags(1, 2),
            after: nothing,
        },
        Model {
            name: "credits.tags_two_for_two",
            checks: "two tags, two users: distinct, neither is refused",
            bound: Some(4),
            least: 168_531,
            body: || tags(2, 2),
            after: nothing,
        },
        Model {
            name: "credits.tags_one_for_three",
            checks: "one tag: two sweepers against a put: in one hand, conserved",
            bound: Some(2),
            least: 101_606,
            body: three_tags,
            after: nothing,
        },
        Model {
            name: "credits.tags_put_against_sweep",
            checks: "a put that meets the sweep of a refused take: the tag is found afterwards",
            bound: None,
            least: 749,
            body: || {
                let used = Used::new(Builder::new(1).batch(1).tags().unwrap(), 1);
                set_cpu(1);
                let tag = used.by.try_take().unwrap();
                let theirs = Arc::clone(&used);
                let thread = thread::spawn(move || {
                    set_cpu(0);
                    if let Ok(tag) = theirs.by.try_take() {
                        theirs.touch(tag.index());
                    }
                });
                used.touch(0);
                drop(tag);
                thread.join().unwrap();
                set_cpu(0);
                assert!(used.by.try_take().is_ok(), "a tag is free and is refused");
            },
            after: nothing,
        },
    ]);
    models
}
