//! [`Tally`]: how often something has happened.

/// Counts what happens seldom, for reports; without the feature `stats` it is nothing. It takes part in no protocol, so
/// the counter is the standard library's in every build.
#[derive(Debug)]
pub(crate) struct Tally {
    #[cfg(feature = "stats")]
    count: std::sync::atomic::AtomicU64,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    pub(crate) const fn new() -> Self {
        Self {
            #[cfg(feature = "stats")]
            count: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// Counts one.
    #[inline(always)]
    pub(crate) fn one(&self) {
        #[cfg(feature = "stats")]
        self.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    /// How many there were. Exact if nobody counts meanwhile.
    #[cfg(feature = "stats")]
    pub(crate) fn get(&self) -> u64 {
        self.count.load(std::sync::atomic::Ordering::Relaxed)
    }
}
