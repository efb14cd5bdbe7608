//! What it costs to end a count.

use super::{Apart, ours};
use crate::harness::{Place, cpus, spin_until, together, undisturbed};
use ioctx::percpu::CachePadded;
use ioctx::refcount::{PerCpuRef, Put};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::time::Duration;

/// What the other CPU does meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// Nothing that belongs to this process.
    Idle,
    /// A thread there gets and puts, references to a count of its own. So the fence of a kill has to interrupt it;
    /// the lines of the count that is killed are not fought over.
    Gets,
}

/// Prepares and does a single shot, `shots` times, and says how long each took that was not disturbed.
///
/// # Panics
///
/// If there is no other CPU that could get.
pub fn latencies<T>(
    shots: usize,
    other: Other,
    prepare: impl Fn() -> T + Sync,
    shot: impl Fn(&T) + Sync,
) -> Vec<Duration> {
    let times = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let beat = CachePadded::new(AtomicU64::new(0));
    let shoot = || {
        for _ in 0..shots {
            let target = prepare();
            if other == Other::Gets {
                // Its thread may have been switched out. Only if it beats is it on its CPU.
                let seen = beat.load(Relaxed);
                spin_until(|| beat.load(Relaxed) != seen);
            }
            let time = undisturbed(|| shot(&target));
            times.lock().expect("one thread uses it").extend(time);
        }
        stop.store(true, Relaxed);
    };
    let get = || {
        let count = Apart::new(PerCpuRef::new());
        while !stop.load(Relaxed) {
            for _ in 0..20 {
                count.get();
                assert_eq!(count.put(), Put::Held, "nobody has killed it");
            }
            beat.fetch_add(1, Relaxed);
        }
    };
    match (other, cpus()) {
        (Other::Idle, [.., last]) => together(&[Place::On(*last)], |_| shoot()),
        (Other::Gets, [first, .., last]) => {
            together(
                &[Place::On(*last), Place::On(*first)],
                |worker| {
                    if worker == 0 { shoot() } else { get() }
                },
            )
        }
        _ => panic!("it takes two CPUs"),
    };
    times.into_inner().expect("one thread used it")
}

/// As many counts as are killed at once, each used before by the thread that kills it.
pub fn used(count: impl Fn() -> PerCpuRef, how_many: usize) -> Vec<Apart<PerCpuRef>> {
    let counts: Vec<_> = (0..how_many).map(|_| Apart::new(count())).collect();
    for count in &counts {
        count.get();
        assert_eq!(count.put(), Put::Held, "nobody has killed it");
    }
    counts
}

/// Checks that kills end counts, alone and together.
///
/// # Panics
///
/// If they do not.
pub fn check() {
    for make in [PerCpuRef::new, PerCpuRef::portable] {
        let counts = used(make, 3);
        assert_eq!(ours::kill(&counts[0]), Put::Zero, "nobody holds a reference");
        counts[1].get();
        ours::kill_all(&counts[1..]);
        assert_eq!([&counts[1], &counts[2]].map(|count| count.count()), [Some(1), Some(0)]);
    }
}

/// The kernel's part of a kill, and nothing else: the fence that restarts sections, or at least one that orders
/// memory. `None` if the system has neither.
#[cfg(target_os = "linux")]
pub fn membarrier() -> Option<impl Fn() + Copy + Sync> {
    use rustix::thread::{MembarrierCommand as Command, membarrier, membarrier_query};
    let commands = [
        (Command::RegisterPrivateExpeditedRseq, Command::PrivateExpeditedRseq),
        (Command::RegisterPrivateExpedited, Command::PrivateExpedited),
    ];
    let known = membarrier_query();
    let registered = |(register, _): &(Command, Command)| {
        known.contains_command(*register) && membarrier(*register).is_ok()
    };
    let (_, command) = commands.into_iter().find(registered)?;
    Some(move || membarrier(command).expect("it was registered"))
}

/// None here.
#[cfg(not(target_os = "linux"))]
pub fn membarrier() -> Option<fn()> {
    None
}
