//! Resizes, takes of all there is, and tags that are left in handles.

use super::Used;
use crate::harness::{Model, nothing};
use ioctx::credits::{Builder, Handle, Handles, Tags};
use ioctx::sync::atomic::{AtomicU64, Ordering::Relaxed};
use ioctx::sync::cell::UnsafeCell;
use ioctx::sync::model::{set_cpu, use_sections};
use ioctx::sync::{Arc, thread};
use std::mem::forget;

/// One of two units is taken away while another thread takes both.
fn fewer_credits() {
    let used = Used::new(Builder::new(2).batch(1).credits().unwrap(), 0);
    let theirs = Arc::clone(&used);
    let thread = thread::spawn(move || {
        set_cpu(1);
        [(); 2].map(|()| u32::from(theirs.by.try_take(1).map(forget).is_ok())).iter().sum::<u32>()
    });
    assert_eq!(used.by.resize(1), Ok(2));
    let mine = u32::from(used.by.try_take(1).map(forget).is_ok());
    let theirs = thread.join().unwrap();
    assert!(mine + theirs <= 2 && (mine == 0 || theirs == 0), "{mine} and {theirs} of one");
    assert!(mine + theirs > 0, "all are refused though one is free");
    assert_eq!(used.by.drain().len(), 0, "conserved");
}

/// Two units are put, one of which is about to open the stocks, while both are taken away.
fn fewer_than_are_put() {
    let used = Used::new(Builder::new(2).batch(1).credits().unwrap(), 0);
    let mine = [(); 2].map(|()| used.by.try_take(1).unwrap());
    assert!(used.by.try_take(1).is_err());
    let theirs = Arc::clone(&used);
    let thread = thread::spawn(move || {
        set_cpu(1);
        assert_eq!(theirs.by.resize(0), Ok(2));
        assert!(theirs.by.try_take(1).is_err(), "there is none");
    });
    drop(mine);
    thread.join().unwrap();
    assert!(used.by.try_take(1).is_err() && used.by.drain().len() == 0, "there is none");
}

/// A tag is withdrawn while another thread takes and puts tags.
fn fewer_tags() {
    let used = Used::new(Builder::new(2).batch(1).tags().unwrap(), 2);
    let theirs = Arc::clone(&used);
    let thread = thread::spawn(move || {
        set_cpu(1);
        if let Ok(tag) = theirs.by.try_take() {
            theirs.touch(tag.index());
        }
    });
    assert_eq!(used.by.resize(1), Ok(2));
    if let Ok(tag) = used.by.try_take() {
        assert_eq!(tag.index(), 0, "withdrawn, and handed out");
        used.touch(0);
    }
    thread.join().unwrap();
    assert_eq!(used.by.resize(2), Ok(1));
    let mut all: Vec<u32> = used.by.drain().to_vec();
    all.sort_unstable();
    assert_eq!(all, [0, 1], "conserved");
}

/// All that are free, of two, are taken while another thread uses one.
fn up_to() {
    let used = Used::new(Builder::new(2).batch(1).credits().unwrap(), 0);
    let theirs = Arc::clone(&used);
    let thread = thread::spawn(move || {
        set_cpu(1);
        theirs.by.try_take(1).is_ok()
    });
    let all = used.by.try_take_up_to(2).expect("there is always one");
    let theirs = thread.join().unwrap();
    assert!(all.len() == 2 || theirs, "fewer though nobody had one");
    drop(all);
    assert_eq!(used.by.try_take_up_to(3).unwrap().len(), 2, "conserved");
}

/// All of three are drained while another thread takes one and keeps it.
fn drained() {
    let used = Used::new(Builder::new(3).batch(1).credits().unwrap(), 0);
    let theirs = Arc::clone(&used);
    let thread = thread::spawn(move || {
        set_cpu(1);
        u32::from(theirs.by.try_take(1).map(forget).is_ok())
    });
    let all = used.by.drain();
    assert_eq!(all.len() + thread.join().unwrap(), 3, "one was free all the time, and left");
}

/// The same with tags.
fn tags_up_to(used: &Arc<Used<Tags>>) {
    let theirs = Arc::clone(used);
    let thread = thread::spawn(move || {
        set_cpu(1);
        let tag = theirs.by.try_take();
        if let Ok(tag) = &tag {
            theirs.touch(tag.index());
        }
        tag.is_ok()
    });
    let all = used.by.try_take_up_to(2).expect("there is always one");
    all.iter().for_each(|tag| used.touch(*tag));
    let len = all.len();
    drop(all);
    assert!(thread.join().unwrap() || len == 2, "fewer though nobody had one");
    let all = used.by.try_take_many(2).expect("conserved");
    all.iter().for_each(|tag| used.touch(*tag));
}

struct Left {
    handles: Handles,
    /// By which the handle gets there, without order.
    told: AtomicU64,
    cell: UnsafeCell<u32>,
}

// SAFETY: the tag keeps the users of the cell apart; loom checks that it does.
unsafe impl Sync for Left {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl Send for Left {}

impl Left {
    /// Claims the handle, if it is known yet; returns whether it got the tag.
    fn claim(&self) -> bool {
        let handle = Handle::from_bits(self.told.load(Relaxed));
        let Ok(tag) = self.handles.claim(handle) else { return false };
        // SAFETY: the tag is ours.
        self.cell.with_mut(|cell| unsafe { *cell += 1 });
        forget(tag);
        true
    }
}

/// A tag is left in a handle that two claim.
fn claims() {
    let left = Arc::new(Left {
        handles: Builder::new(1).portable().handles().unwrap(),
        told: AtomicU64::new(0),
        cell: UnsafeCell::new(0),
    });
    let threads = [(); 2].map(|()| {
        let left = Arc::clone(&left);
        thread::spawn(move || left.claim())
    });
    let tag = left.handles.tags().try_take().unwrap();
    // SAFETY: the tag is ours.
    left.cell.with_mut(|cell| unsafe { *cell += 1 });
    let handle = left.handles.leave(tag).unwrap();
    left.told.store(handle.to_bits(), Relaxed);
    let claimed = threads.map(|thread| u32::from(thread.join().unwrap())).iter().sum::<u32>();
    assert!(claimed <= 1, "claimed twice");
    assert_eq!(left.handles.is_left(handle), claimed == 0);
}

pub(super) fn models() -> Vec<Model> {
    vec![
        Model {
            name: "credits.resize",
            checks: "after a resize no unit is taken that there is not; the others are",
            bound: Some(3),
            least: 28_924,
            body: fewer_credits,
            after: nothing,
        },
        Model {
            name: "credits.resize_sections",
            checks: "the same where stocks are changed by sections",
            bound: Some(3),
            least: 2011,
            body: || {
                use_sections(true);
                fewer_credits();
            },
            after: nothing,
        },
        Model {
            name: "credits.resize_opened",
            checks: "a put that is about to open the stocks does not if a resize takes the units away",
            bound: Some(3),
            least: 4406,
            body: fewer_than_are_put,
            after: nothing,
        },
        Model {
            name: "credits.resize_opened_sections",
            checks: "the same where stocks are changed by sections",
            bound: Some(3),
            least: 4687,
            body: || {
                use_sections(true);
                fewer_than_are_put();
            },
            after: nothing,
        },
        Model {
            name: "credits.resize_tags",
            checks: "a tag that was withdrawn is not handed out, and not lost",
            bound: Some(2),
            least: 77_114,
            body: fewer_tags,
            after: nothing,
        },
        Model {
            name: "credits.up_to",
            checks: "a take of all there is finds all there is",
            bound: Some(3),
            least: 63,
            body: up_to,
            after: nothing,
        },
        Model {
            name: "credits.drain",
            checks: "a drain takes all that are free at one moment",
            bound: Some(3),
            least: 2104,
            body: drained,
            after: nothing,
        },
        Model {
            name: "credits.drain_sections",
            checks: "the same where stocks are changed by sections",
            bound: Some(3),
            least: 671,
            body: || {
                use_sections(true);
                drained();
            },
            after: nothing,
        },
        Model {
            name: "credits.up_to_tags",
            checks: "the same with tags, which are in one hand",
            bound: Some(3),
            least: 998,
            body: || tags_up_to(&Used::new(Builder::new(2).batch(1).tags().unwrap(), 2)),
            after: nothing,
        },
        Model {
            name: "credits.up_to_tags_sections",
            checks: "the same where stocks are changed by sections",
            bound: Some(2),
            least: 83_111,
            body: || {
                use_sections(true);
                tags_up_to(&Used::new(Builder::new(2).batch(1).tags().unwrap(), 2));
            },
            after: nothing,
        },
        Model {
            name: "credits.handles",
            checks: "credits.handles.leave: a handle is claimed once, by who sees what the last holder did",
            bound: None,
            least: 533,
            body: claims,
            after: nothing,
        },
    ]
}
