//! Threads that may run on one CPU only, and threads that others move between CPUs all the time.
#![cfg(target_os = "linux")]

mod support;

use ioctx::cpu;
use ioctx::credits::{Builder, Policy};
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};
use std::os::unix::process::CommandExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use support::{SetAtEnd, process, skip, use_and_kill};

/// The CPUs this thread may run on.
fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Keeps a thread to one CPU. Async-signal-safe.
fn pin(thread: Option<Pid>, cpu: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(thread, &set)
}

/// How many CPUs the system says there can be, if it says so.
fn listed() -> Option<u32> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/possible").ok()?;
    let last: u32 = list.trim().rsplit([',', '-']).next()?.parse().ok()?;
    Some(last + 1)
}

#[test]
fn one_cpu_is_enough_and_all_have_slots() {
    let Some(possible) = process::role() else {
        let last = *allowed().last().unwrap();
        let mut child = process::again("one_cpu_is_enough_and_all_have_slots", &cpu::possible().to_string());
        // SAFETY: async-signal-safe: one system call.
        unsafe { child.pre_exec(move || Ok(pin(None, last)?)) };
        return process::run(child).unwrap_or_else(|error| skip(format_args!("sched_setaffinity: {error}")));
    };
    assert_eq!((allowed().len(), thread::available_parallelism().unwrap().get()), (1, 1));
    assert_eq!(cpu::possible().to_string(), possible);
    assert!(listed().is_none_or(|listed| listed == cpu::possible()));
    if cfg!(ioctx_linux) {
        assert_eq!(cpu::hint().0 as usize, allowed()[0]);
    }
    for round in 0..50 {
        // Others get their turn only if this thread sleeps.
        use_and_kill(5, |_| (), || thread::sleep(Duration::from_micros(round * 100)));
    }
}

/// Moves the threads from one CPU to the next until told to stop.
fn move_about(threads: &Mutex<Vec<Pid>>, cpus: &[usize], stop: &AtomicBool) {
    for turn in 0.. {
        if stop.load(Relaxed) {
            return;
        }
        for (place, thread) in threads.lock().unwrap().iter().enumerate() {
            // Fails if the thread has ended.
            let _ = pin(Some(*thread), cpus[(turn + place) % cpus.len()]);
        }
    }
}

#[test]
fn threads_moved_by_others_lose_nothing() {
    let cpus = allowed();
    if cpus.len() < 2 {
        return skip("there is only one CPU to run on");
    }
    if let Err(error) = sched_getaffinity(None).and_then(|set| sched_setaffinity(None, &set)) {
        return skip(format_args!("sched_setaffinity: {error}"));
    }
    let (threads, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| move_about(&threads, &cpus, &stop));
        let _at_end = SetAtEnd(&stop);
        for _ in 0..300 {
            let join_those_moved = |turn| {
                if turn == 0 {
                    threads.lock().unwrap().push(gettid());
                }
            };
            use_and_kill(4, join_those_moved, || thread::sleep(Duration::from_millis(1)));
            threads.lock().unwrap().clear();
        }
    });
}

/// What was promised in 2012: however much lies in the stocks of other CPUs, `n` can be out from one.
#[test]
fn the_old_policy_keeps_its_promise_on_every_cpu() {
    const N: u32 = 100;
    for portable in [false, true] {
        let builder = Builder::new(N).policy(Policy::Aio2012);
        let credits = if portable { builder.portable() } else { builder }.credits().unwrap();
        assert_eq!(credits.total(), 2 * N.max(4 * cpu::possible()));
        thread::scope(|scope| {
            for cpu in allowed() {
                let credits = &credits;
                scope
                    .spawn(move || {
                        if let Err(error) = pin(None, cpu) {
                            return skip(format_args!("sched_setaffinity: {error}"));
                        }
                        for _ in 0..3 {
                            let held: Vec<_> = std::iter::from_fn(|| credits.try_take(1).ok()).collect();
                            assert!(held.len() as u32 >= N, "{} on CPU {cpu}", held.len());
                        }
                    })
                    .join()
                    .unwrap();
            }
        });
        assert_eq!(credits.drain().len(), credits.total());
    }
}
