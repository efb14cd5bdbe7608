//! What the harness asks of the system: which CPUs there are, to stay on one, and how often a thread was
//! switched.

use std::sync::OnceLock;

/// The CPUs this process may use, ascending; never empty.
///
/// Asked for once: pinned threads would get another answer.
pub fn cpus() -> &'static [usize] {
    static CPUS: OnceLock<Vec<usize>> = OnceLock::new();
    CPUS.get_or_init(|| {
        let cpus = system::allowed();
        if cpus.is_empty() { vec![0] } else { cpus }
    })
}

pub use system::thread_switches;
pub(super) use system::{pin, process_switches};

#[cfg(target_os = "linux")]
mod system {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    use std::mem::MaybeUninit;

    pub fn allowed() -> Vec<usize> {
        let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
    }

    /// Keeps the calling thread on `cpu`.
    pub fn pin(cpu: usize) {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set).expect("the CPU is one of those allowed");
    }

    /// How often the calling thread was switched out, of its own will or not.
    pub fn thread_switches() -> u64 {
        switches(libc::RUSAGE_THREAD)
    }

    /// The same for all threads of the process, those that have ended included.
    pub fn process_switches() -> u64 {
        switches(libc::RUSAGE_SELF)
    }

    fn switches(who: libc::c_int) -> u64 {
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: `usage` is valid for writes.
        let failed = unsafe { libc::getrusage(who, usage.as_mut_ptr()) } != 0;
        assert!(!failed, "getrusage knows its argument");
        // SAFETY: all integers, for which zero is a value too.
        let usage = unsafe { usage.assume_init() };
        (usage.ru_nvcsw + usage.ru_nivcsw) as u64
    }
}

/// Elsewhere threads stay where the system puts them, and no slice is known to be disturbed.
#[cfg(not(target_os = "linux"))]
mod system {
    pub fn allowed() -> Vec<usize> {
        (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
    }

    pub fn pin(_cpu: usize) {}

    /// Not known.
    pub fn thread_switches() -> u64 {
        0
    }

    pub fn process_switches() -> u64 {
        0
    }
}
