//! [`Row`] and [`Table`]: what one process has measured, and several of them summed up.

use super::probe::Distance;
use super::stats::{median, quantile};
use serde::{Deserialize, Serialize};

/// What one process measured of one case.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    pub case: String,
    pub threads: usize,
    pub batch: usize,
    /// Median, p10 and p90; `None` if every sample was disturbed.
    pub ns: Option<f64>,
    pub lo: Option<f64>,
    pub hi: Option<f64>,
    pub samples: usize,
    /// Context switches per operation, where they belong to the matter.
    pub switches: Option<f64>,
    pub rounds: Vec<Round>,
}

/// What one process measured of one case in one round.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Round {
    /// How far apart the CPUs were, if they stayed there.
    pub distance: Option<Distance>,
    pub ns: Option<f64>,
    /// Times ours.
    pub ratio: Option<f64>,
    /// Context switches per operation, where they belong to the matter.
    pub switches: Option<f64>,
}

impl Row {
    /// Median over rounds.
    fn ratio(&self) -> Option<f64> {
        median(&self.rounds.iter().filter_map(|round| round.ratio).collect::<Vec<_>>())
    }

    /// The same from only those rounds in which the CPUs were so far apart.
    fn at(&self, distance: Distance) -> Self {
        let rounds: Vec<Round> =
            self.rounds.iter().copied().filter(|round| round.distance == Some(distance)).collect();
        let ns: Vec<f64> = rounds.iter().filter_map(|round| round.ns).collect();
        let [lo, mid, hi] = [0.1, 0.5, 0.9].map(|q| quantile(&ns, q));
        let switches = switches(&rounds);
        Self { case: self.case.clone(), ns: mid, lo, hi, samples: ns.len(), switches, rounds, ..*self }
    }
}

/// Context switches per operation: the median over rounds.
pub(super) fn switches(rounds: &[Round]) -> Option<f64> {
    median(&rounds.iter().filter_map(|round| round.switches).collect::<Vec<_>>())
}

/// What one process measured of one contest.
#[derive(Debug, Serialize, Deserialize)]
pub struct Table {
    pub title: String,
    pub rows: Vec<Row>,
    /// Cache-line round trips meanwhile, in nanoseconds.
    pub probes: Vec<f64>,
}

/// All that one process measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Run(pub(super) Vec<Table>);

impl Run {
    /// What was measured of the contest called `title`.
    pub(super) fn table(&self, title: &str) -> Option<&Table> {
        self.0.iter().find(|table| table.title == title)
    }

    /// Median nanoseconds of `case` on `threads` threads, in batches of `batch`, in the contest called
    /// `title`.
    pub fn ns(&self, title: &str, case: &str, threads: usize, batch: usize) -> Option<f64> {
        self.table(title)?.row(case, threads, batch)?.ns
    }

    /// How many times ours that case took: taken within each round, and so hardly disturbed by what the
    /// machine does from round to round; the median of those.
    pub fn ratio(&self, title: &str, case: &str, threads: usize, batch: usize) -> Option<f64> {
        self.table(title)?.row(case, threads, batch)?.ratio()
    }
}

/// A row: contest, case, threads, batch.
pub type Which<'a> = (&'a str, &'a str, usize, usize);

/// How many times `that` is in `this`, if they took turns.
pub fn times(run: &Run, this: Which<'_>, that: Which<'_>) -> Option<f64> {
    let ratio = |(title, case, threads, batch): Which<'_>| run.ratio(title, case, threads, batch);
    Some(ratio(this)? / ratio(that)?)
}

/// How many times as many context switches an operation of `this` costs as one of `that`. Infinitely many if only
/// `that` costs none; `None` if neither does.
pub fn times_switched(run: &Run, this: Which<'_>, that: Which<'_>) -> Option<f64> {
    let switches = |(title, case, threads, batch): Which<'_>| -> Option<f64> {
        run.table(title)?.row(case, threads, batch)?.switches
    };
    Some(switches(this)? / switches(that)?).filter(|times| !times.is_nan())
}

impl Run {
    /// What it measured while the CPUs were so far apart.
    pub(super) fn at(&self, distance: Distance) -> Self {
        let at = |table: &Table| Table {
            title: table.title.clone(),
            rows: table.rows.iter().map(|row| row.at(distance)).collect(),
            probes: Vec::new(),
        };
        Self(self.0.iter().map(at).collect())
    }
}

impl Table {
    fn row(&self, case: &str, threads: usize, batch: usize) -> Option<&Row> {
        self.rows.iter().find(|row| (&*row.case, row.threads, row.batch) == (case, threads, batch))
    }
}

/// A figure that each process has found for itself.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// Of as many as there are; `None` of nothing.
    pub fn of(figures: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let figures: Vec<f64> = figures.into_iter().flatten().collect();
        let [min, median, max] = [0.0, 0.5, 1.0].map(|q| quantile(&figures, q));
        Some(Self { median: median?, min: min?, max: max? })
    }
}

/// One row of all processes, and of the JSON file.
#[derive(Debug, Serialize)]
pub struct Sum {
    pub table: String,
    pub case: String,
    pub threads: usize,
    pub batch: usize,
    /// Medians over processes.
    pub ns: Option<f64>,
    pub lo: Option<f64>,
    pub hi: Option<f64>,
    pub ratio: Option<Spread>,
    #[serde(skip)]
    pub samples: usize,
    #[serde(skip)]
    pub switches: Option<f64>,
}

/// What the processes found of the contest called `title`, row by row as the first of them has it.
pub fn sum_up(runs: &[Run], title: &str) -> Vec<Sum> {
    let tables: Vec<&Table> = runs.iter().filter_map(|run| run.table(title)).collect();
    let sum = |row: &Row| {
        let all = || tables.iter().filter_map(|table| table.row(&row.case, row.threads, row.batch));
        let middle = |figure: fn(&Row) -> Option<f64>| median(&all().filter_map(figure).collect::<Vec<_>>());
        Sum {
            table: title.into(),
            case: row.case.clone(),
            threads: row.threads,
            batch: row.batch,
            ns: middle(|row| row.ns),
            lo: middle(|row| row.lo),
            hi: middle(|row| row.hi),
            ratio: Spread::of(all().map(Row::ratio)),
            samples: all().map(|row| row.samples).sum(),
            switches: middle(|row| row.switches),
        }
    };
    tables.first().map_or(Vec::new(), |first| first.rows.iter().map(sum).collect())
}

/// The same for each distance at which the CPUs were.
pub fn by_distance(runs: &[Run]) -> Vec<(Distance, Vec<Run>)> {
    let seen = |run: &Run| run.0.iter().flat_map(|table| &table.rows).any(|row| row.ns.is_some());
    let at = |distance| (distance, runs.iter().map(|run| run.at(distance)).collect::<Vec<_>>());
    let mut all: Vec<_> = Distance::ALL.into_iter().map(at).collect();
    all.retain(|(_, runs)| runs.iter().any(seen));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ns: f64, ratio: Option<f64>, distance: Distance) -> Run {
        let round = Round { distance: Some(distance), ns: Some(ns), ratio, switches: Some(ns / 100.0) };
        let rounds = vec![round];
        let [ns, lo, hi] = [ns, ns - 1.0, ns + 1.0].map(Some);
        let (case, switches) = ("it".into(), switches(&rounds));
        let row = Row { case, threads: 2, batch: 1, ns, lo, hi, samples: 10, switches, rounds };
        Run(vec![Table { title: "contest".into(), rows: vec![row], probes: Vec::new() }])
    }

    impl Run {
        /// The only one.
        fn row(self) -> Row {
            let [table] = self.0.try_into().expect("one table");
            let [row] = table.rows.try_into().expect("one row");
            row
        }
    }

    #[test]
    fn the_median_of_processes_and_their_range() {
        let runs = [(3.0, Some(1.5)), (5.0, None), (4.0, Some(2.5)), (9.0, Some(2.0))]
            .map(|(ns, ratio)| run(ns, ratio, Distance::Near));
        let [sum] = sum_up(&runs, "contest").try_into().unwrap();
        assert_eq!((sum.lo, sum.samples), (Some(4.0), 40));
        let Spread { median, min, max } = sum.ratio.unwrap();
        assert_eq!((median, min, max), (2.0, 1.5, 2.5));
        assert_eq!(runs[2].ns("contest", "it", 2, 1), Some(4.0));
        assert_eq!(runs[2].ratio("contest", "it", 2, 1), Some(2.5));
        assert!(runs[2].ns("contest", "it", 1, 1).is_none() && sum_up(&runs, "other").is_empty());
        assert_eq!(by_distance(&runs).len(), 1);
    }

    #[test]
    fn rounds_are_told_apart_by_distance() {
        let runs = [(3.0, Distance::Far), (5.0, Distance::Near), (4.0, Distance::Far)]
            .map(|(ns, distance)| run(ns, None, distance));
        let [(near, its), (far, others)] = by_distance(&runs).try_into().unwrap();
        assert_eq!((near, far), (Distance::Near, Distance::Far));
        let ns = |runs: &[Run]| sum_up(runs, "contest")[0].ns;
        assert_eq!((ns(&its), ns(&others)), (Some(5.0), Some(4.0)));
    }

    #[test]
    fn switches_are_those_of_the_same_rounds() {
        let [mut run, far] = [(2.0, Distance::Near), (8.0, Distance::Far)].map(|(ns, at)| run(ns, None, at));
        run.0[0].rows[0].rounds.extend(far.row().rounds);
        let switches = |distance| run.at(distance).table("contest").unwrap().rows[0].switches;
        assert_eq!((switches(Distance::Near), switches(Distance::Far)), (Some(0.02), Some(0.08)));
        assert_eq!(switches(Distance::Siblings), None);
    }

    #[test]
    fn who_never_switches_is_infinitely_better() {
        let row =
            |case: &str, switches| Row { case: case.into(), switches, ..run(1.0, None, Distance::Far).row() };
        let rows = vec![
            row("none", Some(0.0)),
            row("some", Some(0.5)),
            row("more", Some(1.0)),
            row("unknown", None),
        ];
        let run = Run(vec![Table { title: "contest".into(), rows, probes: Vec::new() }]);
        let times = |this, that| times_switched(&run, ("contest", this, 2, 1), ("contest", that, 2, 1));
        assert_eq!((times("more", "some"), times("some", "none")), (Some(2.0), Some(f64::INFINITY)));
        assert_eq!((times("none", "none"), times("some", "unknown")), (None, None));
    }
}
