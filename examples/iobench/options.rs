//! What is asked for.

use crate::Failure;
use crate::backends::{Kind, Reads};
use clap::{Parser, ValueEnum};
use ioctx::aio::MAX_CAPACITY;
use std::path::PathBuf;
use std::time::Duration;

/// Measures a context in the manner of fio: throughput, latency, processor time, context switches.
///
/// Bad options, and backends that cannot be had, end it with exit code 2, I/O errors with 1.
#[derive(Parser, Clone, Debug)]
#[command(name = "iobench")]
pub struct Options {
    /// What is done.
    #[arg(long, value_enum, default_value_t = Rw::RandRead)]
    pub rw: Rw,
    /// Reads among a hundred requests of `randrw`.
    #[arg(long, alias = "rwmixread", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub mix: u32,
    /// Bytes per request, with a suffix k, m or g if you like: a multiple of 8, with --direct of 512.
    #[arg(long, default_value = "4k", value_parser = bytes)]
    pub bs: u64,
    /// Bytes of the file.
    #[arg(long, default_value = "256m", value_parser = bytes)]
    pub size: u64,
    /// Use this file. One that is there is only read, unless --overwrite is given; one that is not is made, and stays.
    #[arg(long)]
    pub filename: Option<PathBuf>,
    /// What the file of --filename holds is lost.
    #[arg(long, requires = "filename")]
    pub overwrite: bool,
    /// Where the file goes if it has no name: made first, and removed in the end.
    #[arg(long, conflicts_with = "filename")]
    pub directory: Option<PathBuf>,
    /// Requests in flight, for each job; several, with commas between them, are measured one after the other.
    #[arg(long, default_value = "1", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub iodepth: Vec<u32>,
    /// Requests in one submit, and events that are waited for; no more than the depth.
    #[arg(long, alias = "iodepth_batch", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub iodepth_batch: u32,
    /// Threads that submit: to one context that all share.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub numjobs: u32,
    /// A context for each job instead, with a backend of its own.
    #[arg(long, conflicts_with = "reapers")]
    pub per_thread: bool,
    /// Threads that read events and do nothing else; with 0 jobs read events themselves.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=256))]
    pub reapers: u32,
    /// Past the page cache (O_DIRECT).
    #[arg(long)]
    pub direct: bool,
    /// Seconds that are measured.
    #[arg(long, default_value = "5", value_parser = seconds)]
    pub runtime: Duration,
    /// Seconds before that, which are not.
    #[arg(long, default_value = "0", value_parser = seconds)]
    pub ramp: Duration,
    /// An fsync after so many writes of a job; 0 for none.
    #[arg(long, default_value_t = 0)]
    pub fsync: u32,
    /// What carries requests out: null, zero, auto, direct, threads, kernel, uring.
    #[arg(long, default_value = "threads", value_parser = Kind::named)]
    pub backend: Kind,
    /// Threads of the backend `threads`; 0 for four per CPU.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub pool: u32,
    /// Parts of 1 MiB that the backend `direct` has in flight at once; it is for --direct and a --bs of megabytes.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub parts: u32,
    /// Compare all that is read with what was last written there.
    #[arg(long)]
    pub verify: bool,
    /// One JSON document instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Draw throughput and latency over depth into this SVG file.
    #[arg(long)]
    pub plot: Option<PathBuf>,
}

/// In which order blocks are used, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum Rw {
    Read,
    Write,
    RandRead,
    RandWrite,
    #[value(name = "randrw")]
    RandMixed,
}

impl Rw {
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::RandRead => "randread",
            Self::RandWrite => "randwrite",
            Self::RandMixed => "randrw",
        }
    }

    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::RandWrite | Self::RandMixed)
    }

    pub fn random(self) -> bool {
        !matches!(self, Self::Read | Self::Write)
    }
}

/// `4096`, `4k`, `4KiB`.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("a number of bytes, perhaps with k, m, g or t".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "a number of bytes, perhaps with k, m, g or t")?;
    match number.checked_mul(1 << shift) {
        Some(bytes) if bytes > 0 && i64::try_from(bytes).is_ok() => Ok(bytes),
        _ => Err("more than 0, and less than 8 EiB".into()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds")?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= Duration::from_secs(86_400) => Ok(duration),
        _ => Err("0 to 86400 seconds".into()),
    }
}

impl Options {
    /// What one option cannot tell by itself.
    pub fn check(&self) -> Result<(), Failure> {
        let deepest = self.deepest();
        let why = if !self.bs.is_multiple_of(8) {
            "--bs must be a multiple of 8"
        } else if self.bs > 1 << 30 {
            "--bs is at most 1g"
        } else if self.direct && !self.bs.is_multiple_of(512) {
            "--bs must be a multiple of 512 with --direct"
        } else if self.size < self.bs {
            "--size must be at least one --bs"
        } else if self.size / self.bs > u64::from(u32::MAX) {
            "--size must be less than 2^32 blocks of --bs"
        } else if self.runtime < Duration::from_millis(1) {
            "--runtime must be at least 0.001"
        } else if self.iodepth.iter().any(|depth| *depth < self.iodepth_batch) {
            "--iodepth-batch must not be above --iodepth"
        } else if 2 * u64::from(deepest) * u64::from(self.numjobs) > u64::from(MAX_CAPACITY) {
            "--iodepth times --numjobs must be at most 524288"
        } else if u64::from(deepest) * u64::from(self.numjobs) * self.bs > 4 << 30 {
            "--iodepth times --numjobs times --bs, which is memory, must be at most 4g"
        } else if self.fsync > 0 && !self.rw.writes() {
            "--fsync is for --rw that writes"
        } else if self.verify && self.backend.reads != Reads::File {
            "--verify needs a backend that reads the file"
        } else if self.verify
            && self.rw.writes()
            && self.size / self.bs < 2 * u64::from(deepest) * u64::from(self.numjobs)
        {
            "--verify with writes needs a --size of at least two blocks for each request in flight"
        } else if self.direct && !cfg!(target_os = "linux") {
            "--direct is for Linux"
        } else {
            return Ok(());
        };
        Err(Failure::Usage(why.into()))
    }

    fn deepest(&self) -> u32 {
        self.iodepth.iter().copied().max().unwrap_or(1)
    }

    /// The requests that the largest context has room for: those in flight, and as many fsyncs.
    pub fn capacity(&self) -> u32 {
        let jobs = if self.per_thread { 1 } else { self.numjobs };
        2 * self.deepest() * jobs
    }
}
