//! Arbitrary sequences of operations against plain models of what they mean.

use ioctx::refcount::{Gets, Moves, Never, PerCpuRef, Policy, Put, ReviveError};
use ioctx::ring::{CompletionQueue, Event, Refused, Ring};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{HashSet, VecDeque};

fn event(data: u64) -> Event {
    Event { data, ..Event::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// A ring is a bounded queue, wherever its indices are.
    #[test]
    fn ring(capacity in 0_u32..9, start in any::<u32>(), steps in vec((any::<bool>(), 0_usize..12), 0..100)) {
        let ring = Ring::starting_at(capacity, start);
        let (mut plain, mut next) = (VecDeque::new(), 0);
        for (publish, n) in steps {
            if publish {
                let events: Vec<_> = (next..next + n as u64).map(event).collect();
                let room = ring.capacity() as usize - plain.len();
                let want = if n > 0 && room == 0 { Err(Refused::Full) } else { Ok(n.min(room)) };
                prop_assert_eq!(ring.try_publish_batch(&events), want);
                plain.extend(&events[..want.unwrap_or(0)]);
                next += n as u64;
            } else {
                let mut reader = ring.try_reader().unwrap();
                let run = reader.peek(n, <[Event]>::to_vec);
                prop_assert!(run.len() <= n && (!run.is_empty() || n == 0 || plain.is_empty()));
                // Gives up half of what it has seen; the rest must come again.
                let keep = run.len().div_ceil(2);
                reader.commit(keep);
                for (got, want) in run.iter().zip(&plain) {
                    prop_assert_eq!(got, want);
                }
                plain.drain(..keep);
            }
            prop_assert_eq!(ring.len() as usize, plain.len());
        }
    }

    /// Lanes are a bag: what goes in comes out, once.
    #[test]
    fn lanes(capacity in 1_u32..20, lanes in 0_u32..5, steps in vec((any::<bool>(), 0_usize..20), 0..100)) {
        let queue = match lanes {
            0 => CompletionQueue::new(capacity),
            _ => CompletionQueue::with_lanes(capacity, lanes),
        };
        let (mut there, mut next) = (HashSet::new(), 0);
        for (publish, n) in steps {
            if publish {
                let n = n.min(capacity as usize - there.len()) as u64;
                let events: Vec<_> = (next..next + n).map(event).collect();
                queue.publish(&events);
                there.extend(next..next + n);
                next += n;
            } else {
                let mut got = Vec::new();
                let read = queue.read(n, |run| got.extend(run.iter().map(|event| event.data)));
                prop_assert_eq!(read, got.len());
                prop_assert_eq!(read, n.min(there.len()));
                for data in got {
                    prop_assert!(there.remove(&data));
                }
            }
            prop_assert_eq!(queue.len() as usize, there.len());
        }
    }

    /// A reference count is a number that dies and is revived, wherever it is kept.
    #[test]
    fn refcount(kind in 0_u8..8, steps in vec((0_u8..10, 0_u32..5), 0..100)) {
        let portable = PerCpuRef::builder().portable();
        match kind {
            0 => walk(PerCpuRef::new(), steps),
            1 => walk(portable.build(), steps),
            2 => walk(PerCpuRef::builder().policy(Moves).build(), steps),
            3 => walk(portable.policy(Moves).build(), steps),
            4 => walk(PerCpuRef::builder().policy(Gets).build(), steps),
            5 => walk(portable.policy(Gets).build(), steps),
            6 => walk(PerCpuRef::builder().policy(Never).build(), steps),
            _ => walk(portable.policy(Never).build(), steps),
        }?;
    }
}

fn walk<P: Policy>(count: PerCpuRef<P>, steps: Vec<(u8, u32)>) -> Result<(), TestCaseError> {
    let always = count.is_per_cpu();
    let (mut held, mut killed, mut sticky, mut per_cpu) = (0, false, false, always);
    let one = |killed| if killed { 0 } else { 1 };
    for (step, n) in steps {
        match step {
            0 if held > 0 || !killed => {
                count.get_many(n);
                held += n;
            }
            1 => {
                let alive = !killed || held > 0;
                prop_assert_eq!(count.try_get(), alive);
                held += u32::from(alive);
            }
            2 => {
                prop_assert_eq!(count.try_get_live(), !killed);
                held += u32::from(!killed);
            }
            3 if n > 0 && n <= held => {
                held -= n;
                let want = if killed && held == 0 { Put::Zero } else { Put::Held };
                prop_assert_eq!(count.put_many(n), want);
            }
            4 => {
                let want = (!killed).then_some(if held == 0 { Put::Zero } else { Put::Held });
                prop_assert_eq!(count.try_kill(), want);
                (killed, per_cpu) = (true, false);
            }
            5 => {
                count.switch_to_atomic();
                (sticky, per_cpu) = (true, false);
            }
            6 => {
                count.switch_to_percpu();
                (sticky, per_cpu) = (false, !killed);
            }
            7 | 8 => {
                let want = match (killed, held, step) {
                    (false, ..) => Err(ReviveError::Alive),
                    (true, 0, 7) => Err(ReviveError::Zero),
                    (true, 1.., 8) => Err(ReviveError::Held(held.into())),
                    _ => Ok(()),
                };
                prop_assert_eq!(if step == 7 { count.resurrect() } else { count.reinit() }, want);
                if want.is_ok() {
                    (killed, per_cpu) = (false, always && !sticky);
                }
            }
            9 => per_cpu &= !count.rest(),
            _ => {}
        }
        prop_assert_eq!(count.count(), (!per_cpu).then_some(u64::from(held) + one(killed)));
        prop_assert_eq!(count.is_zero(), killed && held == 0);
        prop_assert_eq!((count.is_dying(), count.is_per_cpu()), (killed, per_cpu));
    }
    if held > 0 {
        prop_assert_eq!(count.put_many(held), if killed { Put::Zero } else { Put::Held });
    }
    Ok(())
}
