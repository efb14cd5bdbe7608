//! What is printed.

use crate::options::Options;
use crate::tally::{Measured, Side};
use serde_json::{Value, json};
use std::io::{self, Write};

pub struct Report<'a> {
    pub options: &'a Options,
    pub runs: &'a [Measured],
    /// Ended early.
    pub interrupted: bool,
}

/// The percentiles that are told.
const PERCENTILES: [f64; 7] = [50.0, 90.0, 95.0, 99.0, 99.9, 99.99, 100.0];

impl Measured {
    /// Of the measured while; never 0.
    pub fn seconds(&self) -> f64 {
        self.elapsed.as_secs_f64().max(1e-9)
    }

    /// What was done in it, with its name; only what was done at all.
    fn sides(&self) -> impl Iterator<Item = (&'static str, &Side)> {
        let tally = &self.tally;
        let all = [("read", &tally.read), ("write", &tally.write), ("sync", &tally.sync)];
        all.into_iter().filter(|(_, side)| side.ios > 0)
    }

    /// Per operation, fsyncs included.
    fn switches_each(&self) -> f64 {
        let operations: u64 = self.sides().map(|(_, side)| side.ios).sum();
        (self.usage.voluntary + self.usage.involuntary) as f64 / operations.max(1) as f64
    }

    /// Of one CPU, in per cent.
    fn cpu(&self) -> [f64; 2] {
        [self.usage.user, self.usage.system].map(|time| 100.0 * time.as_secs_f64() / self.seconds())
    }

    fn json(&self) -> Value {
        let mut run = json!({
            "iodepth": self.depth,
            "seconds": self.elapsed.as_secs_f64(),
            "verified_blocks": self.tally.verified,
            "cpu": { "user_percent": self.cpu()[0], "system_percent": self.cpu()[1] },
            "context_switches": {
                "voluntary": self.usage.voluntary,
                "involuntary": self.usage.involuntary,
                "per_io": self.switches_each(),
            },
        });
        for (name, side) in self.sides() {
            run[name] = self.side(side);
        }
        run
    }

    fn side(&self, side: &Side) -> Value {
        let of = |p: f64| (p.to_string(), Value::from(side.latency.value_at_percentile(p)));
        json!({
            "ios": side.ios,
            "bytes": side.bytes,
            "iops": side.ios as f64 / self.seconds(),
            "bytes_per_second": side.bytes as f64 / self.seconds(),
            "latency_ns": {
                "count": side.latency.len(),
                "min": side.latency.min(),
                "mean": side.latency.mean(),
                "stddev": side.latency.stdev(),
                "max": side.latency.max(),
                "percentiles": PERCENTILES.into_iter().map(of).collect::<serde_json::Map<_, _>>(),
            },
        })
    }
}

impl Report<'_> {
    /// One document.
    pub fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        let options = self.options;
        let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
        let all = json!({
            "options": {
                "rw": options.rw.name(),
                "mix": options.mix,
                "bs": options.bs,
                "size": options.size,
                "filename": path(&options.filename),
                "directory": path(&options.directory),
                "iodepth": options.iodepth,
                "iodepth_batch": options.iodepth_batch,
                "numjobs": options.numjobs,
                "per_thread": options.per_thread,
                "reapers": options.reapers,
                "direct": options.direct,
                "runtime": options.runtime.as_secs_f64(),
                "ramp": options.ramp.as_secs_f64(),
                "fsync": options.fsync,
                "backend": options.backend.name,
                "pool": options.pool,
                "verify": options.verify,
            },
            "interrupted": self.interrupted,
            "runs": self.runs.iter().map(Measured::json).collect::<Vec<_>>(),
        });
        writeln!(out, "{all:#}")
    }

    /// A table for people.
    pub fn table(&self, out: &mut dyn Write) -> io::Result<()> {
        let options = self.options;
        writeln!(
            out,
            "{}, {} bytes, {} job{}, {}, backend {}, {}{}",
            options.rw.name(),
            options.bs,
            options.numjobs,
            if options.numjobs == 1 { "" } else { "s" },
            match (options.per_thread, options.reapers) {
                (true, _) => "a context each".into(),
                (false, 0) => "one context".into(),
                (false, reapers) => format!("one context, {reapers} reading events"),
            },
            options.backend.name,
            if options.direct { "O_DIRECT" } else { "through the page cache" },
            if self.interrupted { ", interrupted" } else { "" },
        )?;
        writeln!(
            out,
            "| depth | what | IOPS | MiB/s | p50 µs | p90 | p99 | p99.9 | max | switches/op | CPU usr+sys % |"
        )?;
        writeln!(out, "|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
        for run in self.runs {
            for (name, side) in run.sides() {
                let iops = side.ios as f64 / run.seconds();
                let mib = side.bytes as f64 / run.seconds() / f64::from(1 << 20);
                write!(out, "| {} | {name} | {iops:.0} | {mib:.1} |", run.depth)?;
                for percentile in [50.0, 90.0, 99.0, 99.9, 100.0] {
                    write!(out, " {:.1} |", side.latency.value_at_percentile(percentile) as f64 / 1000.0)?;
                }
                let [user, system] = run.cpu();
                writeln!(out, " {:.4} | {user:.0}+{system:.0} |", run.switches_each())?;
            }
        }
        let verified: u64 = self.runs.iter().map(|run| run.tally.verified).sum();
        if options.verify {
            writeln!(out, "{verified} blocks that were read were compared, and right")?;
        }
        Ok(())
    }
}
