//! Where a count was made, which debug builds know, and what they check with it.

#[cfg(debug_assertions)]
use std::panic::Location;

/// Where a count was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site(#[cfg(debug_assertions)] &'static Location<'static>);

impl Site {
    /// The caller's caller.
    #[track_caller]
    pub(super) fn here() -> Self {
        Self(
            #[cfg(debug_assertions)]
            Location::caller(),
        )
    }

    /// After `n` references were put of the `out` that could be put: the first one cannot, unless killed.
    #[inline(always)]
    #[track_caller]
    pub(super) fn check_put(self, out: i64, n: u32) {
        #[cfg(debug_assertions)]
        assert!(
            out >= i64::from(n),
            "{n} references were put, but only {out} were out, of the count made at {}",
            self.0
        );
        let _ = (out, n);
    }

    /// After slots were summed.
    #[track_caller]
    pub(super) fn check_sum(self, out: i64) {
        #[cfg(debug_assertions)]
        assert!(out > 0, "{} references too many were put, of the count made at {}", 1 - out, self.0);
        let _ = out;
    }

    /// When somebody kills a count that is dying.
    #[track_caller]
    pub(super) fn check_kill(self) {
        #[cfg(debug_assertions)]
        panic!("the count made at {} is killed a second time; use try_kill if several may try", self.0);
    }

    /// When a count is dropped, with `out` references, where there should be `initial`.
    pub(super) fn check_drop(self, out: u64, initial: u64) {
        #[cfg(debug_assertions)]
        if !crate::sync::thread::panicking() {
            assert!(
                out == initial,
                "the count made at {} is dropped, but {} references are out",
                self.0,
                out.wrapping_sub(initial) as i64
            );
        }
        let _ = (out, initial);
    }
}

/// The place, if it is known.
pub(super) fn shown(site: Site) -> impl std::fmt::Debug {
    #[cfg(debug_assertions)]
    return format_args!("{}", site.0).to_string();
    #[cfg(not(debug_assertions))]
    {
        let _ = site;
        "known to debug builds"
    }
}
