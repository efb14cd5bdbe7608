//! Messages passed round a ring of pipes, with a read and a write of each in flight, as the benchmark of 2004 did for
//! which the kernel's AIO got its run list.
//!
//! ```text
//! cargo run --release --features uring --example pipetest -- --pipes 64 --tokens 32 --seconds 2
//! ```
//!
//! Prints hops and context switches per second, for each hop the processor's time, and how these compare with a pool
//! whose threads wait, one for each operation, and with the kernel's `io_uring`. The ways take turns, so that
//! whatever else the machine does meets all of them. The last row is the floor: a thread that writes and reads, and
//! nothing else; only what does not make those two calls is quicker.

#[cfg(ioctx_linux)]
#[path = "pipetest/ring.rs"]
mod ring;
#[cfg(all(ioctx_linux, feature = "uring"))]
#[path = "pipetest/uring.rs"]
mod uring;

#[cfg(ioctx_linux)]
mod table {
    use crate::ring::{self, Shape, Way};
    use clap::Parser;
    use std::io;
    use std::time::{Duration, Instant};

    /// How often each way has its turn.
    const ROUNDS: u32 = 5;

    /// Messages passed round a ring of pipes: hops, context switches and processor time of each way to do it.
    #[derive(Parser, Debug)]
    #[command(name = "pipetest")]
    pub struct Options {
        /// Pipes in the ring. Without this and --tokens: 1 and 1, 8 and 4, 8 and 8, 64 and 32.
        #[arg(long, requires = "tokens", value_parser = clap::value_parser!(u16).range(1..=4096))]
        pipes: Option<u16>,
        /// Messages that go round.
        #[arg(long, requires = "pipes", value_parser = clap::value_parser!(u16).range(1..=4096))]
        tokens: Option<u16>,
        /// Seconds for each way.
        #[arg(long, default_value = "2", value_parser = seconds)]
        seconds: Duration,
        /// Only ways whose names contain this.
        #[arg(long, default_value = "")]
        only: String,
    }

    fn seconds(text: &str) -> Result<Duration, String> {
        let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        seconds
            .filter(|time| (0.01..=3600.0).contains(&time.as_secs_f64()))
            .ok_or_else(|| "give seconds from 0.01 to 3600".into())
    }

    const POOL: &str = "pool, woken per operation";
    const URING: &str = "io_uring";

    /// Lets messages go round for a while; returns how many pipes they went through.
    type Go = Box<dyn Fn(Shape, Duration) -> io::Result<u64>>;

    fn ways() -> Vec<(&'static str, Go)> {
        let ours = |way| -> Go { Box::new(move |shape, time| ring::go(way, shape, time)) };
        vec![
            (POOL, ours(Way::Pool)),
            ("worker, woken per operation", ours(Way::Worker)),
            ("helping", ours(Way::Helping)),
            ("helping, delayed worker", ours(Way::Delayed)),
            ("the same, handed over", ours(Way::HandedOver)),
            #[cfg(feature = "uring")]
            (URING, Box::new(crate::uring::go)),
            ("floor: write and read", Box::new(ring::bare)),
        ]
    }

    /// What has been used so far: time, context switches, of these by choice, seconds of CPUs.
    #[derive(Clone, Copy, Default)]
    struct Used {
        hops: f64,
        seconds: f64,
        switches: f64,
        chosen: f64,
        cpu: f64,
    }

    impl Used {
        /// What the process has used since some moment.
        fn now(began: Instant) -> Self {
            // SAFETY: zeros are a valid value.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: valid for writing one.
            unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
            let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
            Self {
                hops: 0.0,
                seconds: began.elapsed().as_secs_f64(),
                switches: (usage.ru_nvcsw + usage.ru_nivcsw) as f64,
                chosen: usage.ru_nvcsw as f64,
                cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            }
        }

        fn add(&mut self, hops: u64, before: Self, after: Self) {
            self.hops += hops as f64;
            self.seconds += after.seconds - before.seconds;
            self.switches += after.switches - before.switches;
            self.chosen += after.chosen - before.chosen;
            self.cpu += after.cpu - before.cpu;
        }

        fn rate(&self) -> f64 {
            self.hops / self.seconds
        }

        /// Switches by choice per hop: what others take the CPU for is not the way's fault. As if there had been one.
        fn switches_per_hop(&self) -> f64 {
            self.chosen.max(1.0) / self.hops
        }
    }

    /// One table.
    fn measure(shape: Shape, options: &Options) -> io::Result<()> {
        let mut ways = ways();
        ways.retain(|(name, _)| name.contains(&options.only));
        let mut rows: Vec<_> = ways.into_iter().map(|(name, go)| (name, go, Used::default())).collect();
        let began = Instant::now();
        for _ in 0..ROUNDS {
            let mut missing = None;
            for (name, go, row) in &mut rows {
                let before = Used::now(began);
                match go(shape, options.seconds / ROUNDS) {
                    Ok(hops) => row.add(hops, before, Used::now(began)),
                    // A kernel that has none, or forbids it.
                    Err(why) if *name == URING => missing = Some(why),
                    Err(why) => return Err(why),
                }
            }
            if let Some(why) = missing {
                println!("SKIPPED: {URING}: {why}");
                rows.retain(|(name, ..)| *name != URING);
            }
        }
        let of = |peer: &str| rows.iter().find(|(name, ..)| *name == peer).map(|(.., row)| *row);
        let (pool, uring) = (of(POOL), of(URING));
        let ratio = |ratio: Option<f64>| ratio.map_or_else(|| "".into(), |ratio| format!("{ratio:.2} ×"));
        println!("\n{} pipes, {} tokens\n", shape.0, shape.1);
        println!(
            "| way | hops/s | pool's | io_uring's | switches/s | by choice | fewer per hop than the pool's | CPU ns/hop |"
        );
        println!("|---|---|---|---|---|---|---|---|");
        for (name, _, row) in &rows {
            let fewer = pool.map(|pool| pool.switches_per_hop() / row.switches_per_hop());
            println!(
                "| {name} | {:.0} | {} | {} | {:.0} | {:.0} | {} | {:.0} |",
                row.rate(),
                ratio(pool.map(|pool| row.rate() / pool.rate())),
                ratio(uring.map(|uring| row.rate() / uring.rate())),
                row.switches / row.seconds,
                row.chosen / row.seconds,
                fewer.map_or_else(String::new, |fewer| format!("{fewer:.0} ×")),
                row.cpu / row.hops * 1e9
            );
        }
        Ok(())
    }

    pub fn main() -> io::Result<()> {
        let options = Options::parse();
        let asked = options.pipes.zip(options.tokens).map(|(pipes, tokens)| (pipes.into(), tokens.into()));
        let shapes = asked.map_or_else(|| vec![(1, 1), (8, 4), (8, 8), (64, 32)], |shape| vec![shape]);
        shapes.into_iter().try_for_each(|shape| measure(shape, &options))
    }
}

#[cfg(ioctx_linux)]
fn main() -> std::io::Result<()> {
    table::main()
}

#[cfg(not(ioctx_linux))]
fn main() {
    println!("SKIPPED: only Linux has calls that can be asked not to wait");
}
