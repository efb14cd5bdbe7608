//! [`Bench`]: runs contests, prints them and writes them down.

use super::case::{Case, Sample};
use super::probe::line_round_trip;
use super::stats::{median, quantile};
use super::{Plan, cpus};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Instant;
use std::{env, fmt, fs};

/// Contenders whose names begin like this are ours; the first of them is what the others are compared with.
const OURS: &str = "ioctx";

/// One table: groups of cases, each measured by itself.
#[derive(Debug)]
pub struct Contest<'a> {
    title: &'static str,
    groups: Vec<Group<'a>>,
}

/// Cases that take turns.
#[derive(Debug)]
struct Group<'a> {
    threads: usize,
    batch: usize,
    cases: Vec<Case<'a>>,
}

/// One row of the JSON file.
#[derive(Debug, Serialize)]
struct Row {
    table: &'static str,
    case: String,
    threads: usize,
    batch: usize,
    /// Median, p10 and p90; `null` if every slice was disturbed.
    ns: Option<f64>,
    lo: Option<f64>,
    hi: Option<f64>,
    /// For the printed table only.
    #[serde(skip)]
    printed: Printed,
}

#[derive(Debug)]
struct Printed {
    samples: usize,
    ratio: Option<f64>,
    switches: Option<f64>,
}

/// The bench of one part.
#[derive(Debug)]
pub struct Bench {
    plan: Option<Plan>,
    began: Instant,
    file: PathBuf,
    rows: Vec<Row>,
}

impl<'a> Contest<'a> {
    /// An empty one.
    pub fn new(title: &'static str) -> Self {
        Self { title, groups: Vec::new() }
    }

    /// Adds cases that are to be compared with each other: what they do on `threads` threads, `batch` at a
    /// time.
    pub fn group(mut self, threads: usize, batch: usize, cases: Vec<Case<'a>>) -> Self {
        self.groups.push(Group { threads, batch, cases });
        self
    }
}

impl Bench {
    /// The bench called `name`, as the command line wants it. `tmpdir` is cargo's `CARGO_TARGET_TMPDIR`,
    /// beside which the results go.
    pub fn start(name: &str, tmpdir: &str) -> Self {
        let plan = Plan::from_args(env::args().skip(1));
        // The answer is for the main thread, which is never pinned.
        let cpus = cpus().len();
        if plan.is_some() {
            println!("# {name}\n");
            println!(
                "{cpus} CPUs. Nanoseconds per operation: median, p10 and p90 of n samples. \"x {OURS}\": that many times"
            );
            println!(
                "the first {OURS} row of the same group, median over rounds; above 1 is slower than {OURS}."
            );
        } else {
            println!("{name}: checks only; `cargo bench` measures");
        }
        let file = PathBuf::from(tmpdir).with_file_name("bench").join(name).with_extension("json");
        Self { plan, began: Instant::now(), file, rows: Vec::new() }
    }

    /// Measures a contest and prints its table.
    pub fn run(&mut self, contest: Contest<'_>) {
        let Some(plan) = self.plan else { return };
        println!("\n## {}\n", contest.title);
        let mut probes = Vec::new();
        let mut rows = Vec::new();
        for group in contest.groups {
            rows.extend(group.measure(&plan, self.began, contest.title, &mut probes));
        }
        print_table(&rows);
        if let [Some(lo), Some(mid), Some(hi)] = [0.0, 0.5, 1.0].map(|q| quantile(&probes, q)) {
            println!("\nCache-line round trip between two CPUs meanwhile: {mid:.0} ns ({lo:.0} to {hi:.0}).");
        }
        self.rows.extend(rows);
    }

    /// Writes the results down.
    ///
    /// # Panics
    ///
    /// If they cannot be written.
    pub fn finish(self) {
        if self.plan.is_none() {
            return;
        }
        let json = serde_json::to_string_pretty(&self.rows).expect("rows are plain data");
        let written =
            self.file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&self.file, json));
        written.unwrap_or_else(|error| panic!("{}: {error}", self.file.display()));
        println!("\nWritten to {}.", self.file.display());
    }
}

impl Group<'_> {
    /// Lets the cases take turns, and sums up.
    fn measure(
        mut self,
        plan: &Plan,
        began: Instant,
        table: &'static str,
        probes: &mut Vec<f64>,
    ) -> Vec<Row> {
        let count = self.cases.len();
        // Calibrates, and warms up.
        self.cases.iter_mut().for_each(|case| drop((case.turn)(plan)));
        let mut turns: Vec<Vec<Sample>> = self.cases.iter().map(|_| Vec::new()).collect();
        for round in 0..plan.rounds {
            if round >= Plan::FEWEST && began.elapsed() > plan.budget {
                break;
            }
            probes.extend(line_round_trip());
            // Each round begins with another, so that none is always behind the same one.
            for i in (0..count).map(|i| (round + i) % count) {
                turns[i].push((self.cases[i].turn)(plan));
            }
        }
        let ours = self.cases.iter().position(|case| case.name.starts_with(OURS)).expect("ours takes part");
        let row = |(i, case): (usize, &Case<'_>)| {
            let all: Vec<f64> = turns[i].iter().flat_map(|turn| turn.ns.iter().copied()).collect();
            let ratios = turns[i].iter().zip(&turns[ours]).filter_map(|(turn, ours)| turn.ratio_to(ours));
            let switches: Vec<f64> = turns[i].iter().filter_map(|turn| turn.switches).collect();
            Row {
                table,
                case: case.name.clone(),
                threads: self.threads,
                batch: self.batch,
                ns: median(&all),
                lo: quantile(&all, 0.1),
                hi: quantile(&all, 0.9),
                printed: Printed {
                    samples: all.len(),
                    ratio: median(&ratios.collect::<Vec<_>>()),
                    switches: median(&switches),
                },
            }
        };
        self.cases.iter().enumerate().map(row).collect()
    }
}

impl Sample {
    /// The ratio of two turns of the same round, if neither was disturbed throughout.
    fn ratio_to(&self, ours: &Self) -> Option<f64> {
        Some(median(&self.ns)? / median(&ours.ns)?)
    }
}

fn print_table(rows: &[Row]) {
    let switches = rows.iter().any(|row| row.printed.switches.is_some());
    let last = if switches { " switches/op |" } else { "" };
    println!("| case | threads | batch | ns | p10 | p90 | n | x {OURS} |{last}");
    println!("|---|--:|--:|--:|--:|--:|--:|--:|{}", if switches { "--:|" } else { "" });
    for row in rows {
        let Printed { samples, ratio, switches } = row.printed;
        let [ns, lo, hi] = [row.ns, row.lo, row.hi].map(|value| Cell(value, 2));
        print!(
            "| {} | {} | {} | {ns} | {lo} | {hi} | {samples} | {} |",
            row.case,
            row.threads,
            row.batch,
            Cell(ratio, 2)
        );
        println!("{}", if switches.is_some() { format!(" {} |", Cell(switches, 4)) } else { String::new() });
    }
}

/// A figure with so many decimals, or a dash.
struct Cell(Option<f64>, usize);

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            // Decimals of large figures are noise.
            Some(value) if value >= 100.0 => write!(f, "{value:.0}"),
            Some(value) => write!(f, "{value:.*}", self.1),
            None => f.write_str("-"),
        }
    }
}
