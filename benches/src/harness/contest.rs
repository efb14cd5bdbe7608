//! [`Contest`]: contenders that take turns.

use super::case::{Case, Sample};
use super::print::Unit;
use super::probe::{Distance, line_round_trip};
use super::results::{Round, Row, Table, switches};
use super::stats::{median, quantile};
use super::{OURS, Plan};
use std::time::Instant;

/// One table: groups of cases, each measured by itself.
#[derive(Debug)]
pub struct Contest<'a> {
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    /// The most rounds there are.
    rounds: usize,
    groups: Vec<Group<'a>>,
}

/// Cases that take turns.
#[derive(Debug)]
struct Group<'a> {
    threads: usize,
    batch: usize,
    cases: Vec<Case<'a>>,
}

impl<'a> Contest<'a> {
    /// An empty one.
    pub fn new(title: &'static str) -> Self {
        Self { title, unit: Unit::Nanoseconds, rounds: usize::MAX, groups: Vec::new() }
    }

    /// An empty one whose table is in microseconds.
    pub fn in_microseconds(title: &'static str) -> Self {
        Self { unit: Unit::Microseconds, ..Self::new(title) }
    }

    /// With at most so many rounds, where there are many cases.
    pub fn rounds(self, rounds: usize) -> Self {
        Self { rounds, ..self }
    }

    /// Adds cases that are to be compared with each other: what they do on `threads` threads, `batch` at a
    /// time.
    pub fn group(mut self, threads: usize, batch: usize, cases: Vec<Case<'a>>) -> Self {
        self.groups.push(Group { threads, batch, cases });
        self
    }

    /// Measures all groups in this process, which began when `began` says.
    pub(super) fn measure(self, plan: &Plan, began: Instant) -> Table {
        let mut probes = Vec::new();
        let plan = &Plan { rounds: plan.rounds.min(self.rounds), ..*plan };
        let measured = self.groups.into_iter().flat_map(|group| group.measure(plan, began, &mut probes));
        let rows = measured.collect();
        Table { title: self.title.into(), rows, probes }
    }
}

impl Group<'_> {
    /// Lets the cases take turns, and sums up.
    fn measure(mut self, plan: &Plan, began: Instant, probes: &mut Vec<f64>) -> Vec<Row> {
        let count = self.cases.len();
        // Calibrates, and warms up.
        self.cases.iter_mut().for_each(|case| drop((case.turn)(plan)));
        let mut turns: Vec<Vec<Sample>> = self.cases.iter().map(|_| Vec::new()).collect();
        let mut distances = Vec::new();
        let mut before = line_round_trip();
        for round in 0..plan.rounds {
            if round >= Plan::FEWEST && began.elapsed() > plan.budget {
                break;
            }
            // Each round begins with another, so that none is always behind the same one.
            for i in (0..count).map(|i| (round + i) % count) {
                turns[i].push((self.cases[i].turn)(plan));
            }
            let after = line_round_trip();
            distances.push(Distance::between(before, after));
            probes.extend(after);
            before = after;
        }
        let ours = self.cases.iter().position(|case| case.name.starts_with(OURS)).expect("ours takes part");
        let row = |(case, its): (&Case<'_>, &Vec<Sample>)| self.row(case, its, &turns[ours], &distances);
        self.cases.iter().zip(&turns).map(row).collect()
    }

    fn row(&self, case: &Case<'_>, turns: &[Sample], ours: &[Sample], distances: &[Option<Distance>]) -> Row {
        let all: Vec<f64> = turns.iter().flat_map(|turn| turn.ns.iter().copied()).collect();
        let round = |((turn, ours), distance): ((&Sample, &Sample), &Option<Distance>)| Round {
            distance: *distance,
            ns: median(&turn.ns),
            ratio: turn.ratio_to(ours),
            switches: turn.switches,
        };
        let rounds: Vec<Round> = turns.iter().zip(ours).zip(distances).map(round).collect();
        Row {
            case: case.name.clone(),
            threads: self.threads,
            batch: self.batch,
            ns: median(&all),
            lo: quantile(&all, 0.1),
            hi: quantile(&all, 0.9),
            samples: all.len(),
            switches: switches(&rounds),
            rounds,
        }
    }
}

impl Sample {
    /// The ratio of two turns of the same round, if neither was disturbed throughout.
    fn ratio_to(&self, ours: &Self) -> Option<f64> {
        Some(median(&self.ns)? / median(&ours.ns)?)
    }
}
