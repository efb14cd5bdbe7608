//! What came of a suite: [`Report`].

use super::Check;
use std::fmt;

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The backend does what the rule says.
    Passed,
    /// It does not.
    Failed(Failure),
    /// It was not tried, and why.
    Skipped(String),
}

/// How a backend broke a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// What the rule asks for.
    pub expected: String,
    /// What the backend did.
    pub came: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}; {}", self.expected, self.came)
    }
}

/// What came of each check, in their order. Its `Display` is a line for each, and a summary.
#[derive(Debug)]
#[must_use = "a report says what has failed, and nobody else does"]
pub struct Report {
    pub(super) outcomes: Vec<(&'static Check, Outcome)>,
    /// Names that the suite was told and no check has.
    pub(super) unknown: Vec<String>,
}

impl Report {
    /// Every check, and what came of it.
    pub fn outcomes(&self) -> impl Iterator<Item = (&'static Check, &Outcome)> {
        self.outcomes.iter().map(|(check, outcome)| (*check, outcome))
    }

    /// What came of the check of this name. `None` if there is none, or it was not asked for.
    pub fn outcome(&self, name: &str) -> Option<&Outcome> {
        self.outcomes().find_map(|(check, outcome)| (check.name == name).then_some(outcome))
    }

    /// Names given to [`skip`](super::Suite::skip) and [`only`](super::Suite::only) that no check has.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        self.unknown.iter().map(String::as_str)
    }

    /// Whether nothing has failed, something has passed, and every name was one.
    pub fn is_passed(&self) -> bool {
        let count = Counts::of(self);
        count.failed == 0 && count.passed > 0 && self.unknown.is_empty()
    }

    /// Does nothing if the backend [has passed](Self::is_passed).
    ///
    /// # Panics
    ///
    /// With the whole report, otherwise.
    #[track_caller]
    pub fn assert(&self) {
        assert!(self.is_passed(), "the backend does not conform:\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (check, outcome) in self.outcomes() {
            let name = check.name;
            match outcome {
                Outcome::Passed => writeln!(f, "passed   {name}")?,
                Outcome::Skipped(why) => writeln!(f, "skipped  {name}: {why}")?,
                Outcome::Failed(how) => writeln!(f, "FAILED   {name} ({}): {how}", check.says)?,
            }
        }
        for name in self.unknown() {
            writeln!(f, "UNKNOWN  {name}: no check is called so")?;
        }
        let Counts { passed, failed, skipped } = Counts::of(self);
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Counts {
    fn of(report: &Report) -> Self {
        report.outcomes().fold(Self::default(), |mut counts, (_, outcome)| {
            *match outcome {
                Outcome::Passed => &mut counts.passed,
                Outcome::Failed(_) => &mut counts.failed,
                Outcome::Skipped(_) => &mut counts.skipped,
            } += 1;
            counts
        })
    }
}
