//! How long two CPUs fight over a dynamic count before it is per CPU.

use super::Apart;
use crate::harness::{Place, cpus, spin_until, together, undisturbed};
use ioctx::refcount::{DynamicRef, Policy, Put};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::time::Duration;

fn touch<P: Policy>(count: &DynamicRef<P>) {
    count.get();
    assert_eq!(count.put(), Put::Held, "nobody has killed it");
}

/// From the first get of the second CPU to the first look that finds the count per CPU; `shots` times, each
/// with a count of its own. Those that were disturbed are left out.
///
/// # Panics
///
/// If there is one CPU.
pub fn latencies<P: Policy>(shots: usize) -> Vec<Duration> {
    let [first, .., last] = cpus() else { panic!("it takes two CPUs") };
    let counts: Vec<Apart<DynamicRef<P>>> = (0..shots).map(|_| Apart::default()).collect();
    let (turn, met) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let times = Mutex::new(Vec::new());
    together(&[Place::On(*last), Place::On(*first)], |worker| {
        for (i, count) in counts.iter().enumerate() {
            if worker == 0 {
                // The other one is at it, and on its CPU.
                spin_until(|| met.load(Acquire) == i + 1);
                let time = undisturbed(|| {
                    while !count.is_per_cpu() {
                        touch(count);
                    }
                });
                times.lock().expect("one thread uses it").extend(time);
                turn.store(i + 1, Release);
            } else {
                touch(count);
                met.store(i + 1, Release);
                while turn.load(Relaxed) == i {
                    touch(count);
                }
            }
        }
    });
    times.into_inner().expect("one thread used it")
}
