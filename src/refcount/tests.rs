use super::*;
use crate::sync::{Arc, thread};

/// Counts of every kind, by name.
fn kinds<T>(look: impl Fn(&str, &dyn Count) -> T) -> Vec<T> {
    vec![
        look("per CPU", &PerCpuRef::new()),
        look("per CPU, portable", &PerCpuRef::portable()),
        look("per CPU, but atomic", &PerCpuRef::builder().atomic().build()),
        look("moves", &DynamicRef::<Moves>::default()),
        look("moves, portable", &PerCpuRef::builder().policy(Moves).portable().build()),
        look("gets", &DynamicRef::<Gets>::default()),
        look("gets, portable", &PerCpuRef::builder().policy(Gets).portable().build()),
        look("never", &DynamicRef::<Never>::default()),
    ]
}

/// What every policy has.
trait Count: Sync {
    fn life(&self);
    fn modes(&self, name: &str);
}

impl<P: Policy> Count for PerCpuRef<P> {
    fn life(&self) {
        self.get_many(3);
        assert!(self.try_get());
        assert_eq!(self.put_many(2), Put::Held);
        assert_eq!((self.count().unwrap_or(3), self.is_dying()), (3, false));
        assert_eq!(self.kill(), Put::Held);
        assert_eq!((self.count(), self.is_dying(), self.is_per_cpu()), (Some(2), true, false));
        assert!(!self.try_get_live());
        assert!(self.try_get());
        self.get();
        assert_eq!(self.try_kill(), None);
        assert_eq!(self.reinit(), Err(ReviveError::Held(4)));
        assert_eq!(self.put_many(3), Put::Held);
        assert_eq!(self.put(), Put::Zero);
        assert!(self.is_zero() && !self.try_get());
        assert_eq!(self.resurrect(), Err(ReviveError::Zero));
        assert_eq!(self.reinit(), Ok(()));
        assert_eq!((self.reinit(), self.resurrect()), (Err(ReviveError::Alive), Err(ReviveError::Alive)));
        assert!(self.try_get_live());
        assert_eq!(self.kill(), Put::Held);
        assert_eq!(self.resurrect(), Ok(()));
        assert!(self.try_get_live());
        assert_eq!((self.put_many(2), self.kill()), (Put::Held, Put::Zero));
    }

    fn modes(&self, name: &str) {
        assert_eq!(self.reinit(), Ok(()));
        for round in 0..3 {
            self.switch_to_percpu();
            assert!(self.is_per_cpu(), "{name}");
            self.switch_to_percpu();
            self.get_many(round + 1);
            self.switch_to_atomic();
            self.switch_to_atomic();
            assert_eq!(self.count(), Some(u64::from(round) + 2), "{name}");
            assert_eq!(self.put_many(round + 1), Put::Held);
        }
        // It stays so, through death and revival, until it is told otherwise.
        assert_eq!(
            self.kill_and_confirm(|| assert!(!self.try_get_live() && self.try_get())),
            Some(Put::Held)
        );
        self.resurrect().unwrap();
        assert!(!self.is_per_cpu());
        assert_eq!(self.kill(), Put::Held);
        self.switch_to_percpu();
        assert!(!self.is_per_cpu(), "dead counts are exact");
        assert_eq!(self.put(), Put::Zero);
    }
}

#[test]
fn a_count_lives_dies_and_is_revived() {
    kinds(|_, count| count.life());
}

#[test]
fn modes_change_to_and_fro() {
    kinds(|name, count| {
        count.life();
        count.modes(name);
    });
}

#[test]
fn the_builder_says_how_it_starts() {
    let dead = PerCpuRef::builder().dead().build();
    assert!(dead.is_zero() && dead.is_dying() && !dead.try_get_live() && dead.try_kill().is_none());
    dead.reinit().unwrap();
    assert!(dead.is_per_cpu());
    let portable = PerCpuRef::builder().portable().build_with_sections();
    assert!(matches!(portable, Err(NoSections(_))));
    let sections = matches!(crate::cpu::kind(), crate::cpu::Kind::Portable(_));
    assert_eq!(PerCpuRef::builder().build_with_sections().is_err(), sections);
}

#[test]
fn none_is_never_the_last() {
    let count = PerCpuRef::new();
    assert_eq!((count.kill(), count.put_many(0)), (Put::Zero, Put::Held));
}

#[test]
fn who_is_told_to_be_per_cpu_does_not_rest() {
    let count = PerCpuRef::dynamic();
    count.switch_to_percpu();
    assert!(!count.rest() && !count.rest() && count.is_per_cpu());
}

#[test]
fn a_policy_survives_death() {
    for builder in [PerCpuRef::builder(), PerCpuRef::builder().portable()] {
        let count = builder.policy(Gets).build();
        for _ in 0..2 {
            (0..32_768).for_each(|_| count.get());
            assert!(count.is_per_cpu());
            assert_eq!((count.put_many(32_768), count.kill()), (Put::Held, Put::Zero));
            assert!(!count.is_per_cpu());
            count.reinit().unwrap();
        }
    }
}

#[test]
fn many_are_killed_behind_one_fence() {
    let counts: Vec<_> =
        (0..100).map(|i| if i % 3 == 0 { PerCpuRef::portable() } else { PerCpuRef::new() }).collect();
    counts.iter().step_by(2).for_each(PerCpuRef::get);
    assert_eq!(counts[7].kill(), Put::Zero);
    let mut found = Vec::new();
    PerCpuRef::kill_all(&counts, |place, put| found.push((place, put)));
    let want = |i| match i {
        7 => None,
        i if i % 2 == 0 => Some(Put::Held),
        _ => Some(Put::Zero),
    };
    assert_eq!(found, (0..100).map(|i| (i, want(i))).collect::<Vec<_>>());
    assert!(counts.iter().all(|count| !count.try_get_live()));
    assert!(counts.iter().step_by(2).all(|count| count.put() == Put::Zero));
}

#[test]
fn counts_that_two_kill_all_at_once_are_killed_once() {
    for _ in 0..200 {
        let counts: Vec<_> = (0..8).map(|_| PerCpuRef::new()).collect();
        let kill = |order: Vec<&PerCpuRef>| {
            let mut mine = 0;
            PerCpuRef::kill_all(order, |_, put| mine += u32::from(put == Some(Put::Zero)));
            mine
        };
        let killed = std::thread::scope(|scope| {
            let theirs = scope.spawn(|| kill(counts.iter().rev().collect()));
            kill(counts.iter().collect()) + theirs.join().unwrap()
        });
        assert_eq!(killed, 8);
    }
}

#[test]
fn one_cpu_alone_makes_no_count_per_cpu() {
    let count = DynamicRef::<Moves>::default();
    // Moved by the scheduler, as may be, but not sixteen times within half a millisecond.
    for _ in 0..1_000_000 {
        count.get();
        assert_eq!(count.put(), Put::Held);
    }
    assert!(!count.is_per_cpu());
}

#[test]
fn gets_alone_are_enough_for_the_old_rule() {
    let count = DynamicRef::<Gets>::default();
    (0..16_383).for_each(|_| count.get());
    assert!(!count.is_per_cpu());
    count.get();
    assert!(count.is_per_cpu());
    assert_eq!((count.put_many(16_384), count.kill()), (Put::Held, Put::Zero));
}

/// Whether two threads that use the count have made it per CPU within five seconds. On a machine that is busy
/// with other things, or runs one thread at a time, they may never meet.
fn share<P: Policy>(count: &PerCpuRef<P>) -> bool {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !count.is_per_cpu() && std::time::Instant::now() < end {
                    for _ in 0..100 {
                        count.get();
                        assert_eq!(count.put(), Put::Held);
                    }
                }
            });
        }
    });
    if !count.is_per_cpu() {
        println!("SKIPPED: two threads never met");
    }
    count.is_per_cpu()
}

#[test]
fn a_shared_count_goes_per_cpu_and_rests() {
    let count = DynamicRef::<Moves>::default();
    let portable = PerCpuRef::builder().policy(Moves).portable().build();
    if !share(&count) || !share(&portable) {
        return;
    }
    assert!(!portable.rest() && portable.is_per_cpu());
    if matches!(crate::cpu::kind(), crate::cpu::Kind::Portable(_)) {
        return assert!(!count.rest());
    }
    // Twice as many calls each time.
    for calls in [2, 4, 8] {
        let rested = (0..calls).map(|_| count.rest()).collect::<Vec<_>>();
        assert_eq!(rested.iter().position(|rested| *rested), Some(calls - 1), "{rested:?}");
        assert_eq!((count.is_per_cpu(), count.count()), (false, Some(1)));
        if !share(&count) {
            return;
        }
    }
    // And fewer again after a time of rest.
    while !count.rest() {}
    (0..16).for_each(|_| assert!(!count.rest()));
    if share(&count) {
        assert_eq!((count.rest(), count.rest()), (false, true));
    }
}

#[test]
fn zero_is_found_once_under_load_in_every_kind() {
    fn load<P: Policy>(count: PerCpuRef<P>, round: u32) {
        let count = Arc::new(count);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                count.get();
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    let mut zeros = 0;
                    for i in 0..round * 8 {
                        count.get();
                        match i % 64 {
                            20 => count.switch_to_percpu(),
                            40 => count.switch_to_atomic(),
                            60 => drop(count.rest()),
                            _ => {}
                        }
                        zeros += u32::from(count.put() == Put::Zero);
                    }
                    zeros + u32::from(count.put() == Put::Zero)
                })
            })
            .collect();
        let killed = u32::from(count.kill() == Put::Zero);
        let zeros: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(zeros + killed, 1);
    }
    for round in 0..100 {
        load(PerCpuRef::new(), round);
        load(PerCpuRef::portable(), round);
        load(DynamicRef::<Moves>::default(), round);
        load(PerCpuRef::builder().policy(Moves).portable().build(), round);
        load(DynamicRef::<Gets>::default(), round);
        load(DynamicRef::<Never>::default(), round);
    }
}

#[cfg(debug_assertions)]
mod traps {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// What `action` panics with.
    fn trapped(action: impl FnOnce()) -> String {
        let panic = catch_unwind(AssertUnwindSafe(action)).expect_err("no trap");
        *panic.downcast::<String>().expect("a message")
    }

    /// Drops what is wrong, whatever it says to that.
    fn discard<T>(wrong: T) {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(wrong)));
    }

    #[test]
    fn misuse_is_told_with_the_place_where_the_count_was_made() {
        let told = |what: &str, action: fn(&PerCpuRef)| {
            for count in [PerCpuRef::new(), PerCpuRef::portable(), PerCpuRef::builder().atomic().build()] {
                let message = trapped(|| action(&count));
                assert!(message.contains(what) && message.contains("refcount/tests.rs"), "{message}");
                discard(count);
            }
        };
        told("killed a second time", |count| {
            let _ = count.kill();
            let _ = count.kill();
        });
        told("were put", |count| {
            let _ = count.put();
            let _ = count.kill();
        });
        told("were put", |count| {
            let _ = count.kill();
            let _ = count.put();
        });
    }

    #[test]
    fn what_is_wrong_with_one_of_many_stops_no_other() {
        let counts = [PerCpuRef::new(), PerCpuRef::new()];
        let _ = counts[0].put();
        counts[1].get();
        let message = trapped(|| PerCpuRef::kill_all(&counts, |_, _| ()));
        assert!(message.contains("too many"), "{message}");
        assert_eq!((counts[1].try_kill(), counts[1].count()), (None, Some(2)));
        discard(counts);
    }

    #[test]
    fn a_leak_is_told_with_the_place_where_the_count_was_made() {
        for killed in [false, true] {
            let count = DynamicRef::<Moves>::default();
            count.get_many(2);
            if killed {
                let _ = count.kill();
            }
            let message = trapped(|| drop(count));
            assert!(
                message.contains("but 2 references are out") && message.contains("tests.rs"),
                "{message}"
            );
        }
    }
}
