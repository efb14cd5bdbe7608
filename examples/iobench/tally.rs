//! What is counted.

use hdrhistogram::Histogram;
use std::time::Duration;

/// The longest latency that is told apart from longer ones, in nanoseconds: an hour.
const LONGEST: u64 = 3_600_000_000_000;

/// Operations of one kind.
#[derive(Clone, Debug)]
pub struct Side {
    pub ios: u64,
    pub bytes: u64,
    /// In nanoseconds, three digits of them.
    pub latency: Histogram<u64>,
}

impl Default for Side {
    fn default() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST, 3).expect("bounds that make sense");
        Self { ios: 0, bytes: 0, latency }
    }
}

impl Side {
    pub fn count(&mut self, bytes: usize, ns: u64) {
        self.ios += 1;
        self.bytes += bytes as u64;
        self.latency.saturating_record(ns.max(1));
    }

    pub fn add(&mut self, other: &Self) {
        self.ios += other.ios;
        self.bytes += other.bytes;
        self.latency.add(&other.latency).expect("the same bounds");
    }
}

/// What one worker has counted, or all of them.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub read: Side,
    pub write: Side,
    pub sync: Side,
    /// Blocks whose contents were compared, since the start.
    pub verified: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.read.add(&other.read);
        self.write.add(&other.write);
        self.sync.add(&other.sync);
        self.verified += other.verified;
    }

    /// Reads and writes together.
    pub fn both(&self) -> Side {
        let mut both = self.read.clone();
        both.add(&self.write);
        both
    }
}

/// What this process has used so far, or in a while.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub user: Duration,
    pub system: Duration,
    pub voluntary: u64,
    pub involuntary: u64,
}

impl Usage {
    /// So far; nothing where the system does not tell.
    pub fn now() -> Self {
        #[cfg(unix)]
        {
            let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
            // SAFETY: the pointer is valid for a `rusage`, which may be all zeros.
            let usage = unsafe {
                libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
                usage.assume_init()
            };
            let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, 1000 * time.tv_usec as u32);
            Self {
                user: time(usage.ru_utime),
                system: time(usage.ru_stime),
                voluntary: usage.ru_nvcsw as u64,
                involuntary: usage.ru_nivcsw as u64,
            }
        }
        #[cfg(not(unix))]
        Self::default()
    }

    pub fn since(&self, before: &Self) -> Self {
        Self {
            user: self.user.saturating_sub(before.user),
            system: self.system.saturating_sub(before.system),
            voluntary: self.voluntary - before.voluntary,
            involuntary: self.involuntary - before.involuntary,
        }
    }
}

/// What was measured with one depth.
#[derive(Debug)]
pub struct Measured {
    pub depth: u32,
    pub elapsed: Duration,
    pub tally: Tally,
    pub usage: Usage,
}
