//! The tests of optimised builds for Linux on x86-64.

mod arena;
mod faults;
mod guard;
mod load;
mod operations;
mod regions;
mod steps;

use crate::support::{never_hang, process, skip};
use faults::{Fault, Planted};
use guard::{Guard, THREADS, counted, i_am};
use ioctx::backend::Null;
use ioctx::{Request, cpu};
use load::Readers;
use regions::{Owner, Region};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

#[global_allocator]
static ALLOCATOR: arena::Allocator = arena::Allocator;

/// What a child does: the same by locked instructions.
const PORTABLE: &str = "portable";
/// What a child does: wait to be stepped through.
const TRACED: &str = "traced";

/// Runs `check` with restartable sequences, and in a process of its own without, one of them at a time.
fn on_both_paths(test: &str, check: fn()) {
    static ALONE: Mutex<()> = Mutex::new(());
    if process::role().is_some() {
        return check();
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    never_hang();
    match cpu::kind() {
        cpu::Kind::Portable(why) => skip(why),
        _ => check(),
    }
    never_hang();
    let mut child = process::again(test, PORTABLE);
    let output = child.env("IOCTX_PERCPU", "portable").output().unwrap();
    process::passed(&output);
    let printed = String::from_utf8_lossy(&output.stdout);
    for (found, _) in printed.match_indices(FOUND) {
        println!("{}", printed[found..].lines().next().unwrap());
    }
}

/// Begins the lines that say what was found.
const FOUND: &str = "found, ";

fn found(what: impl std::fmt::Display) {
    let path = if regions::by_sections() { "sections" } else { "locked instructions" };
    println!("{FOUND}{path}: {what}");
}

#[test]
fn submitters_write_nothing_that_all_share() {
    on_both_paths("checked::submitters_write_nothing_that_all_share", || {
        let (context, regions) = regions::context(load::capacity(), Null);
        let loads = [
            (4, 2_500_000, Readers::Themselves),
            (4, 100_000, Readers::Another),
            (load::cpus().len().min(4), 500_000, Readers::Themselves),
        ];
        for (threads, each, readers) in loads {
            let report = load::run(context, &regions, threads, each, readers);
            report.verdict().unwrap_or_else(|why| panic!("{why}"));
            // If nobody moved a batch, nobody knows whether it would have been seen.
            assert!(readers == Readers::Themselves || report.moves() > 0, "{report}");
            found(report);
        }
    });
}

/// A word that all CPUs share, and where it is.
fn shared_word() -> (&'static AtomicU64, Region) {
    let (word, places) = arena::build(|| &*Box::leak(Box::new(AtomicU64::new(7))));
    let range = places[0].start..places[0].start + places[0].size;
    (word, Region { name: "planted", owner: Owner::Shared, range })
}

#[test]
fn a_backend_that_writes_what_is_shared_is_found_out() {
    on_both_paths("checked::a_backend_that_writes_what_is_shared_is_found_out", || {
        for fault in Fault::ALL {
            let (word, planted) = shared_word();
            let (context, mut regions) =
                regions::context(load::capacity(), Planted { fault, address: planted.range.start });
            regions.push(planted);
            let report = load::run(context, &regions, 4, 1000, Readers::Themselves);
            let why = report.verdict().expect_err("it writes at every submit");
            let each = format!("planted+0: {} stores in 1024 submits", 1024 * fault.stores());
            assert_eq!(why.matches(&each).count(), 4, "{fault:?}: {why}");
            assert_eq!(word.load(Relaxed), 7, "what was caught was carried out");
        }
    });
}

#[test]
fn every_shared_word_is_guarded() {
    on_both_paths("checked::every_shared_word_is_guarded", || {
        let (_, mut regions) = regions::context(64, Null);
        regions.retain(|region| region.owner == Owner::Shared);
        let guard = Guard::new(regions.clone());
        for thread in 0..THREADS {
            i_am(thread);
            for (region, fault) in regions.iter().flat_map(|region| Fault::ALL.map(|fault| (region, fault))) {
                let before = stores(&guard, thread, region);
                let last = region.range.end - size_of::<u64>();
                for address in [region.range.start, last] {
                    // SAFETY: 1. in a region of the arena, which is guarded and otherwise left alone.
                    counted(address as u64, || unsafe { fault.plant(address) });
                }
                let (after, offset) = stores(&guard, thread, region);
                assert_eq!(after - before.0, 2 * fault.stores(), "{fault:?} in {region:x?}");
                assert_eq!(offset, last - region.range.start, "{fault:?} in {region:x?}");
            }
        }
        found(format_args!("{} guarded regions", regions.len()));
    });
}

#[test]
fn stores_by_sections_are_caught_as_well() {
    on_both_paths("checked::stores_by_sections_are_caught_as_well", || {
        let (context, regions) = regions::context(64, Null);
        let mut events = Vec::new();
        // So that there is a stock to take from.
        context.submit(Request::nop()).unwrap();
        context.get_events(1, 1, None, &mut events).unwrap();
        i_am(0);
        let guard = Guard::new(regions);
        counted(1, || context.submit(Request::nop().with_user_data(5))).unwrap();
        let caught: Vec<_> = guard.stores(0).map(|stores| stores.name).collect();
        drop(guard);
        for name in ["reqs.slots", "tags.stocks", "requests", "queue.lanes.events"] {
            assert!(caught.contains(&name), "{name} is missing: {caught:?}");
        }
        // A section that was caught was aborted, and what it was for done by the global side.
        assert_eq!(regions::by_sections(), caught.contains(&"reqs"), "{caught:?}");
        assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
        assert_eq!(events[1].request.user_data, 5);
    });
}

/// How many stores to a region were caught, and where in it the last one was.
fn stores(guard: &Guard, thread: usize, region: &Region) -> (u64, usize) {
    let found = guard.stores(thread).filter(|stores| stores.range == region.range).last();
    found.map_or((0, 0), |stores| (stores.stores, stores.offset))
}

#[test]
fn every_store_of_every_operation_is_listed() {
    if process::role().as_deref() == Some(TRACED) {
        return operations::be_stepped();
    }
    on_both_paths(steps::TEST, steps::compare);
}
