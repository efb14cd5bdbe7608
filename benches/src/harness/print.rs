//! Markdown tables.

use super::probe::Distance;
use super::results::{Run, Spread, Sum, by_distance, sum_up};
use super::stats::quantile;
use super::{OURS, Target};
use std::fmt;

/// In what the times of a table are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Nanoseconds,
    Microseconds,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Microseconds => "µs",
        }
    }

    fn of(self, ns: f64) -> f64 {
        match self {
            Self::Nanoseconds => ns,
            Self::Microseconds => ns / 1000.0,
        }
    }
}

/// Says what the columns of the tables are.
pub fn print_legend(cpus: usize, processes: usize) {
    println!(
        "{cpus} CPUs. Time per operation: median, p10 and p90 of n samples. \"x {OURS}\": that many times"
    );
    println!("the first {OURS} row of the same group, median over rounds; above 1 is slower than {OURS}.");
    if processes > 1 {
        println!("All of it medians over {processes} processes; [range] of their ratios.");
    }
}

/// Prints the sums of one contest. The range over processes only if there are several.
pub fn print_table(rows: &[Sum], unit: Unit, processes: usize) {
    let range = processes > 1;
    let switches = rows.iter().any(|row| row.switches.is_some());
    let optional = |column: bool, text: String| if column { text } else { String::new() };
    let heads = optional(range, " range |".into()) + &optional(switches, " switches/op |".into());
    println!("| case | threads | batch | {} | p10 | p90 | n | x {OURS} |{heads}", unit.name());
    println!("|---|--:|--:|--:|--:|--:|--:|--:|{}", "--:|".repeat(heads.matches('|').count()));
    for row in rows {
        let [time, lo, hi] = [row.ns, row.lo, row.hi].map(|ns| Cell(ns.map(|ns| unit.of(ns)), 2));
        let Sum { case, threads, batch, samples, ratio, .. } = row;
        println!(
            "| {case} | {threads} | {batch} | {time} | {lo} | {hi} | {samples} | {} |{}{}",
            Cell(ratio.map(|ratio| ratio.median), 2),
            optional(range, format!(" {} |", Range(*ratio))),
            optional(switches, format!(" {} |", Cell(row.switches, 4)))
        );
    }
}

/// Prints what several threads took in the contest called `title` for each distance of the CPUs, if there was
/// more than one.
pub fn print_by_distance(runs: &[Run], title: &str, unit: Unit) {
    let sums = |(distance, runs): (Distance, Vec<Run>)| {
        let mut rows = sum_up(&runs, title);
        rows.retain(|row| row.threads > 1);
        (distance, rows)
    };
    let mut all: Vec<_> = by_distance(runs).into_iter().map(sums).collect();
    all.retain(|(_, rows)| rows.iter().any(|row| row.ns.is_some()));
    let [(_, first), _, ..] = &*all else { return };
    println!("\nBy how far the CPUs were apart, which the host decides:\n");
    let heads = all.iter().map(|(distance, _)| format!(" {} {} | x {OURS} |", distance.name(), unit.name()));
    println!("| case | threads | batch |{}", heads.collect::<String>());
    println!("|---|--:|--:|{}", "--:|--:|".repeat(all.len()));
    for (i, Sum { case, threads, batch, .. }) in first.iter().enumerate() {
        let cells = all.iter().map(|(_, rows)| {
            let (time, ratio) = (rows[i].ns.map(|ns| unit.of(ns)), rows[i].ratio);
            format!(" {} | {} |", Cell(time, 2), Cell(ratio.map(|ratio| ratio.median), 2))
        });
        println!("| {case} | {threads} | {batch} |{}", cells.collect::<String>());
    }
}

/// Prints how long a cache line took between CPUs while the contest called `title` was measured.
pub fn print_probes(runs: &[Run], title: &str) {
    let tables = runs.iter().filter_map(|run| run.table(title));
    let probes: Vec<f64> = tables.flat_map(|table| table.probes.iter().copied()).collect();
    if let [Some(lo), Some(mid), Some(hi)] = [0.0, 0.5, 1.0].map(|q| quantile(&probes, q)) {
        println!("\nCache-line round trip between two CPUs meanwhile: {mid:.0} ns ({lo:.0} to {hi:.0}).");
    }
}

/// Prints what is hoped for beside what was measured, in all and for each distance of the CPUs.
pub fn print_targets(targets: &[Target], runs: &[Run]) {
    let spread = |target: &Target, runs: &[Run]| Spread::of(runs.iter().map(target.measured));
    let mut distances = by_distance(runs);
    distances.retain(|(_, runs)| targets.iter().any(|target| spread(target, runs).is_some()));
    let heads: String = distances.iter().map(|(distance, _)| format!(" {} |", distance.name())).collect();
    println!("| target | wanted | measured |{heads}\n|---|--:|--:|{}", "--:|".repeat(distances.len()));
    for target in targets {
        let Target { what, wanted, .. } = target;
        let middle = |runs: &[Run]| Cell(spread(target, runs).map(|spread| spread.median), 2);
        let range = if runs.len() > 1 { format!(" {}", Range(spread(target, runs))) } else { String::new() };
        let others: String = distances.iter().map(|(_, runs)| format!(" {} |", middle(runs))).collect();
        println!("| {what} | {wanted} | {}{range} |{others}", middle(runs));
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

/// The least and the greatest, in brackets.
struct Range(Option<Spread>);

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = (self.0.map(|spread| spread.min), self.0.map(|spread| spread.max));
        write!(f, "[{} {}]", Cell(min, 2), Cell(max, 2))
    }
}
