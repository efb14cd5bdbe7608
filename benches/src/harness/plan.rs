//! [`Plan`]: how long to measure, and how often.

use std::time::Duration;

/// How long to measure, and in how many processes; chosen on the command line.
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
    /// Single shots per turn.
    pub shots: usize,
    /// After so long in all, [`FEWEST`](Self::FEWEST) rounds have to do.
    pub budget: Duration,
    /// In how many processes, one after the other, all of this is done.
    pub processes: usize,
}

impl Plan {
    /// No contest has fewer rounds.
    pub const FEWEST: usize = 3;

    const FULL: Self = Self {
        rounds: 11,
        slices: 16,
        slice: Duration::from_micros(200),
        repetition: Duration::from_millis(80),
        shots: 40,
        budget: Duration::MAX,
        processes: 5,
    };
    const QUICK: Self = Self {
        rounds: 5,
        repetition: Duration::from_millis(25),
        shots: 20,
        budget: Duration::from_secs(20),
        processes: 1,
        ..Self::FULL
    };

    /// What the arguments ask for. `None` if neither `--bench` (which cargo passes) nor `--quick` is among
    /// them: `cargo test` runs bench targets like that, and wants the checks only.
    ///
    /// # Panics
    ///
    /// On any other argument but `--processes N`.
    pub fn from_args(args: impl IntoIterator<Item = String>) -> Option<Self> {
        let mut args = args.into_iter();
        let (mut plan, mut processes) = (None, None);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => plan = plan.or(Some(Self::FULL)),
                "--quick" => plan = Some(Self::QUICK),
                "--processes" => processes = Some(number(args.next())),
                _ => panic!("unknown argument {arg}; only --quick and --processes N are known"),
            }
        }
        plan.map(|plan| Self { processes: processes.unwrap_or(plan.processes), ..plan })
    }
}

fn number(arg: Option<String>) -> usize {
    let number = arg.as_deref().and_then(|arg| arg.parse().ok()).filter(|number| *number > 0);
    number.expect("--processes wants a number above 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(args: &str) -> Option<Plan> {
        Plan::from_args(args.split_whitespace().map(String::from))
    }

    #[test]
    fn arguments_come_in_any_order() {
        assert!(plan("").is_none() && plan("--processes 3").is_none());
        assert_eq!(plan("--bench").unwrap().processes, 5);
        for args in ["--quick --processes 3 --bench", "--processes 3 --bench --quick"] {
            let plan = plan(args).unwrap();
            assert_eq!((plan.processes, plan.rounds), (3, Plan::QUICK.rounds));
        }
    }
}
