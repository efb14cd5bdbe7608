//! Many threads submit file I/O into one context, one reads what came of it, and every byte is checked:
//! `cargo run --release --example shared_context`.
//!
//! The same work is then done in the two ways one would do it without this crate, and the three are compared.

#[path = "shared_context/content.rs"]
mod content;
#[path = "shared_context/engines.rs"]
mod engines;
#[path = "shared_context/job.rs"]
mod job;

use clap::{Parser, ValueEnum};
use content::Content;
use engines::{Channels, Engine, Locked, Shared};
use indicatif::{ProgressBar, ProgressStyle};
use job::{Measured, Run};
use serde_json::json;
use std::error::Error;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

/// Many threads submit file I/O into one context, one reads what came of it, and every byte is checked.
#[derive(Parser, Clone, Debug)]
struct Arguments {
    /// Read this file instead of one made for the purpose. Writes need a file that this program makes.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Threads that submit.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: u32,
    /// Threads that read events.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    reapers: u32,
    /// Requests in flight, all threads together.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    depth: u32,
    /// Bytes per request, a multiple of 8.
    #[arg(long, default_value_t = 4096, value_parser = block_size)]
    block: u32,
    /// Writes among a hundred requests.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100))]
    writes: u32,
    /// How long each way of doing it is measured.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// What carries requests out.
    #[arg(long, value_enum, default_value_t = Backend::Threads)]
    backend: Backend,
    /// Threads that do what is not cached, in each way of doing it.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pool: u32,
    /// Only ioctx: do not compare.
    #[arg(long)]
    alone: bool,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// Real I/O.
    Threads,
    /// Like `/dev/null`: what is left is the time of the machinery.
    Null,
    /// Like `/dev/zero`.
    Zero,
}

fn block_size(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(size) if size > 0 && size % 8 == 0 && size <= 16 << 20 => Ok(size),
        _ => Err("a multiple of 8, at most 16 MiB".into()),
    }
}

/// The size of the file this program makes.
const MADE: u64 = 256 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    if !(arguments.seconds > 0.0 && arguments.seconds <= 86_400.0) {
        return Err("--seconds: more than 0, at most a day".into());
    }
    let directory;
    let (file, content) = match &arguments.file {
        Some(_) if arguments.writes > 0 => {
            return Err("--writes would destroy the file; leave --file away, and one is made".into());
        }
        Some(path) => {
            let file = File::open(path)?;
            let content = Content::sum(&file, arguments.block, bar(&arguments, "summing"))?;
            (file, content)
        }
        None => {
            directory = tempfile::tempdir()?;
            let path = directory.path().join("ioctx-example");
            let content = Content::make(&path, MADE, arguments.block, bar(&arguments, "making a file"))?;
            (File::options().read(true).write(true).open(path)?, content)
        }
    };

    let mut rows = Vec::new();
    rows.push(measure::<Shared>(&arguments, &file, &content)?);
    if !arguments.alone {
        rows.push(measure::<Locked>(&arguments, &file, &content)?);
        rows.push(measure::<Channels>(&arguments, &file, &content)?);
    }
    if arguments.json {
        print_json(&arguments, &rows)
    } else {
        print_table(&arguments, &rows)
    }
    Ok(())
}

/// One way of doing it: the work itself, and the time of the machinery alone.
struct Row {
    name: &'static str,
    work: Measured,
    own: Measured,
}

fn measure<E: Engine>(arguments: &Arguments, file: &File, content: &Content) -> Result<Row, Box<dyn Error>> {
    let run = |backend, writes, seconds: f64, what: &str| -> Result<Measured, Box<dyn Error>> {
        let duration = Duration::from_secs_f64(seconds);
        let bar = bar(arguments, &format!("{}, {what}", E::NAME));
        Run { arguments, backend, file, content, writes, duration }.measure::<E>(bar)
    };
    let threads = thread_count();
    let work = run(arguments.backend, arguments.writes, arguments.seconds, "working")?;
    if arguments.writes > 0 && arguments.backend == Backend::Threads {
        // What was written and never read since.
        content.check_all(file)?;
    }
    let own = run(Backend::Null, 0, (arguments.seconds / 4.0).min(1.0), "its own time")?;
    if thread_count() != threads {
        return Err("threads were left behind".into());
    }
    Ok(Row { name: E::NAME, work, own })
}

/// How many threads this process has; 0 where the system does not tell.
fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn bar(arguments: &Arguments, what: &str) -> ProgressBar {
    if arguments.json {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:28} {bar:40} {elapsed}").expect("a valid template");
    ProgressBar::new(1000).with_style(style).with_message(what.to_owned())
}

fn print_table(arguments: &Arguments, rows: &[Row]) {
    println!(
        "{} submitters, {} reapers, depth {}, {} bytes, {} % writes, backend {:?}",
        arguments.threads,
        arguments.reapers,
        arguments.depth,
        arguments.block,
        arguments.writes,
        arguments.backend
    );
    println!("| way | I/Os per second | own ns per operation | context switches per operation | checked |");
    println!("|---|---|---|---|---|");
    for Row { name, work, own } in rows {
        println!(
            "| {name} | {:.0} | {:.0} | {:.4} | {} blocks, {} bytes |",
            work.per_second(),
            own.cpu_ns(),
            work.switches_each(),
            work.reads,
            work.bytes_checked
        );
    }
    println!(
        "own time: processor time of all threads per operation when operations do nothing; \
         the loop around it, the same for all, is included"
    );
}

fn print_json(arguments: &Arguments, rows: &[Row]) {
    let rows: Vec<_> = rows
        .iter()
        .map(|Row { name, work, own }| {
            json!({
                "way": name,
                "iops": work.per_second(),
                "own_ns": own.cpu_ns(),
                "switches_per_op": work.switches_each(),
                "operations": work.operations,
                "reads": work.reads,
                "bytes_checked": work.bytes_checked,
            })
        })
        .collect();
    let all = json!({
        "threads": arguments.threads,
        "reapers": arguments.reapers,
        "depth": arguments.depth,
        "block": arguments.block,
        "writes": arguments.writes,
        "backend": format!("{:?}", arguments.backend).to_lowercase(),
        "rows": rows,
    });
    println!("{all:#}");
}
