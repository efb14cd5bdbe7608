//! [`Bench`]: runs contests, prints them and writes them down.

use super::contest::Contest;
use super::print::{print_by_distance, print_legend, print_probes, print_table, print_targets};
use super::results::{Run, Spread, Sum, sum_up};
use super::{Plan, cpus, processes};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs};

/// The bench of one part.
#[derive(Debug)]
pub struct Bench {
    role: Role,
    file: PathBuf,
    /// What each process has measured so far; of children, everything.
    runs: Vec<Run>,
    sums: Vec<Sum>,
}

/// What this process is there for.
#[derive(Debug)]
enum Role {
    /// To check that everybody does the work.
    Check,
    /// To measure and print.
    Alone(Plan, Instant),
    /// To measure, and to leave what it found in this file.
    Child(Plan, Instant, PathBuf),
    /// To print what its children have measured.
    Parent,
}

/// A figure that is hoped for.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is about.
    pub what: &'static str,
    /// In words.
    pub wanted: &'static str,
    /// How it follows from what a process has measured; `None` if that is not enough.
    pub measured: fn(&Run) -> Option<f64>,
}

impl Bench {
    /// The bench called `name`, as the command line wants it. `tmpdir` is cargo's `CARGO_TARGET_TMPDIR`,
    /// beside which the results go.
    ///
    /// If several processes are wanted, it is here that they measure; what follows in this one is only
    /// printed.
    ///
    /// # Panics
    ///
    /// On arguments it does not know, and if another process fails.
    pub fn start(name: &str, tmpdir: &str) -> Self {
        // The answer is for the main thread, which is never pinned.
        let (cpus, now) = (cpus().len(), Instant::now());
        let file = PathBuf::from(tmpdir).with_file_name("bench").join(name).with_extension("json");
        let (role, runs) = match (Plan::from_args(env::args().skip(1)), processes::result_file()) {
            (None, _) => (Role::Check, Vec::new()),
            (Some(plan), Some(file)) => (Role::Child(plan, now, file), vec![Run::default()]),
            (Some(plan), None) if plan.processes == 1 => (Role::Alone(plan, now), vec![Run::default()]),
            (Some(plan), None) => {
                (Role::Parent, processes::measure(plan.processes, &file.with_extension("process")))
            }
        };
        let bench = Self { role, file, runs, sums: Vec::new() };
        if bench.prints() {
            println!("# {name}\n");
            print_legend(cpus, bench.runs.len());
        } else if let Role::Check = bench.role {
            println!("{name}: checks only; `cargo bench` measures");
        }
        bench
    }

    fn prints(&self) -> bool {
        matches!(self.role, Role::Alone(..) | Role::Parent)
    }

    /// Whether little time is wanted, for contests with too many groups for that.
    pub fn is_quick(&self) -> bool {
        env::args().any(|arg| arg == "--quick")
    }

    /// Measures a contest and prints its table.
    pub fn run(&mut self, contest: Contest<'_>) {
        let (title, unit) = (contest.title, contest.unit);
        if let Role::Alone(plan, began) | Role::Child(plan, began, _) = &self.role {
            self.runs[0].0.push(contest.measure(plan, *began));
        }
        if self.prints() {
            println!("\n## {title}\n");
            let sums = sum_up(&self.runs, title);
            print_table(&sums, unit, self.runs.len());
            print_probes(&self.runs, title);
            print_by_distance(&self.runs, title, unit);
            self.sums.extend(sums);
        }
    }

    /// Prints what is hoped for beside what was measured. Nothing depends on it.
    pub fn targets(&self, targets: &[Target]) {
        if !self.prints() {
            return;
        }
        println!("\n## Targets\n");
        print_targets(targets, &self.runs);
    }

    /// Prints a remark on a figure, if it was measured: its median over processes is what `words` are given.
    pub fn remark(&self, measured: fn(&Run) -> Option<f64>, words: impl Fn(f64) -> String) {
        let spread = Spread::of(self.runs.iter().map(measured));
        if let Some(spread) = spread.filter(|_| self.prints()) {
            println!("\n{}", words(spread.median));
        }
    }

    /// Writes the results down.
    ///
    /// # Panics
    ///
    /// If they cannot be written.
    pub fn finish(self) {
        match self.role {
            Role::Check => {}
            Role::Child(_, _, file) => write(&file, &self.runs[0]),
            Role::Alone(..) | Role::Parent => {
                write(&self.file, &self.sums);
                println!("\nWritten to {}.", self.file.display());
            }
        }
    }
}

fn write(file: &Path, what: &impl Serialize) {
    let json = serde_json::to_string_pretty(what).expect("rows are plain data");
    let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(file, json));
    written.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}
