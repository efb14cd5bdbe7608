//! [`Plan`]: how long to measure.

use std::time::Duration;

/// How long to measure, chosen on the command line.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How often the contenders take turns.
    pub rounds: usize,
    /// Slices per turn.
    pub slices: usize,
    /// Length of a slice: short enough to fit between two ticks of the scheduler, most of the time.
    pub slice: Duration,
    /// Length of a repetition.
    pub repetition: Duration,
    /// After so long in all, [`FEWEST`](Self::FEWEST) rounds have to do.
    pub budget: Duration,
}

impl Plan {
    /// No contest has fewer rounds.
    pub const FEWEST: usize = 3;

    const FULL: Self = Self {
        rounds: 21,
        slices: 16,
        slice: Duration::from_micros(200),
        repetition: Duration::from_millis(80),
        budget: Duration::MAX,
    };
    const QUICK: Self = Self {
        rounds: 7,
        slices: 16,
        repetition: Duration::from_millis(25),
        budget: Duration::from_secs(20),
        ..Self::FULL
    };

    /// What the arguments ask for. `None` if neither `--bench` (which cargo passes) nor `--quick` is among
    /// them: `cargo test` runs bench targets like that, and wants the checks only.
    ///
    /// # Panics
    ///
    /// On any other argument.
    pub fn from_args(args: impl IntoIterator<Item = String>) -> Option<Self> {
        let mut plan = None;
        for arg in args {
            match arg.as_str() {
                "--bench" => plan = plan.or(Some(Self::FULL)),
                "--quick" => plan = Some(Self::QUICK),
                _ => panic!("unknown argument {arg}; only --quick is known"),
            }
        }
        plan
    }
}
