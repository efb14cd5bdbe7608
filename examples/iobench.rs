//! Measures a context in the manner of fio: throughput, percentiles of latency, processor time and context switches.
//!
//! ```text
//! cargo run --release --features uring --example iobench -- --rw randread --iodepth 1,8,32,128 --backend uring \
//!     --direct --runtime 5 --plot depths.svg
//! ```
//!
//! What is told apart from fio: all jobs share one context unless told otherwise (`--per-thread`), events can be read by
//! threads of their own (`--reapers`), and with `--verify` every block that is read is compared with what was last
//! written there.

#[path = "iobench/backends.rs"]
mod backends;
#[allow(dead_code, reason = "shared with the other example, which uses all of it")]
#[path = "shared_context/content.rs"]
mod content;
#[path = "iobench/interrupt.rs"]
mod interrupt;
#[path = "iobench/job.rs"]
mod job;
#[path = "iobench/options.rs"]
mod options;
#[path = "iobench/plot.rs"]
mod plot;
#[path = "iobench/report.rs"]
mod report;
#[path = "iobench/tally.rs"]
mod tally;
#[path = "iobench/target.rs"]
mod target;
#[cfg(test)]
#[path = "iobench/tests.rs"]
mod tests;
#[path = "iobench/worker.rs"]
mod worker;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use options::Options;
use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use target::Target;

/// Why there is no result, or not all of it.
#[derive(Debug)]
pub enum Failure {
    /// What was asked for makes no sense, or cannot be had here: exit code 2, as of bad options.
    Usage(String),
    /// It went wrong: exit code 1.
    Run(Box<dyn Error + Send + Sync>),
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Run(error.into())
    }
}

fn main() -> ExitCode {
    run(std::env::args_os(), &mut std::io::stdout(), &mut std::io::stderr()).into()
}

/// All of the program: its arguments, where it prints, its exit code.
fn run(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => {
            // Help is asked for, and goes where results go.
            let text = error.render();
            let _ = if error.use_stderr() { write!(err, "{text}") } else { write!(out, "{text}") };
            return error.exit_code() as u8;
        }
    };
    let (code, why) = match measure(&options, out) {
        Ok(()) => return 0,
        Err(Failure::Usage(why)) => (2, why),
        Err(Failure::Run(error)) => (1, error.to_string()),
    };
    // If nobody can be told, the code says it.
    let _ = writeln!(err, "iobench: {why}");
    code
}

/// Measures each depth, and reports.
fn measure(options: &Options, out: &mut dyn Write) -> Result<(), Failure> {
    options.check()?;
    // Before the file is laid out, which takes its time.
    drop(options.backend.open(options)?);
    let target = Target::new(options)?;
    let interrupted = interrupt::watch();
    let mut runs = Vec::new();
    for depth in &options.iodepth {
        let bar = bar(options, &format!("{}, depth {depth}", options.rw.name()));
        runs.push(job::Run::new(options, &target, *depth)?.measure(&bar, &interrupted)?);
        bar.finish_and_clear();
        if interrupted.seen() {
            break;
        }
    }
    if options.verify && options.rw.writes() {
        // What was written and never read since.
        target.check_all()?;
    }
    if let Some(path) = &options.plot {
        let svg = plot::draw(options, &runs)?;
        std::fs::write(path, svg).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let report = report::Report { options, runs: &runs, interrupted: interrupted.seen() };
    if options.json {
        report.json(out)?
    } else {
        report.table(out)?
    }
    Ok(())
}

/// A progress bar of a thousand parts; it shows only on a terminal.
fn bar(options: &Options, what: &str) -> ProgressBar {
    if options.json || cfg!(test) {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{prefix:24} {bar:40} {elapsed} {msg}").expect("a valid template");
    ProgressBar::new(1000).with_style(style).with_prefix(what.to_owned())
}
