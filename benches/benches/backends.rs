//! Reads of 4 KiB through each backend and its peers, by how many are in flight.
//!
//! # What is compared
//!
//! Blocks of a file of 16 MiB at the same random offsets, from the page cache and past it (`O_DIRECT`); one thread, four
//! threads that each submit and reap, and four that submit to what one reaps. Each thread that submits keeps *depth*
//! reads in flight; *batch* of them go in one call, and so many are waited for.
//!
//! | contender | among four threads | what it does |
//! |---|---|---|
//! | `ioctx` `Threads` | share one | reads what is cached in the submitter, hands the rest to 4 threads per CPU |
//! | `ioctx` `Uring` | share one | the same, but hands the rest to a ring of the CPU |
//! | `ioctx` `Kernel` | share one | hands all to the kernel's AIO, and reads its ring in place, or by `io_getevents` |
//! | `ioctx` `Auto` | share one | as the best of them, through one branch more |
//! | `io_uring` per thread | one each | one issuer, deferred work, registered file, one system call for both |
//! | `io_uring` behind a mutex | share one | a mutex before each queue, registered file |
//! | kernel AIO | share one | `io_submit`, `io_getevents` |
//! | kernel AIO, ring read in place | one each | the same, but events are read from the mapped ring, as QEMU does |
//! | `tokio`, `pread` on its pool | share one | what `tokio::fs` comes to: a task of its pool, as large as ours |
//! | `compio` | one each | futures over a ring, submitted when somebody waits, so always in batches |
//! | `pread` loop (floor) | each for itself | one read at a time, whatever the depth |
//!
//! `rio` is left out: it has had no release since 2020, and reading through it is known to be unsound.
//!
//! The first `ioctx` row of a group is what the others are compared with: `Threads` where the file is cached, `Uring`
//! where it is not. There *nothing inline* is `inline_cached(false)`: without it submitters try each read at once, and
//! the kernel lets a read past the page cache wait for the device even if it is told not to wait.
//!
//! Before anybody is timed, every byte of some thousand reads is looked at; while they are, the first word of each
//! block. The file lies in cargo's target directory; the bench says if that is on tmpfs, where none of it means
//! anything.
//!
//! Past the page cache the device has the last word: what it takes is in every row, and wanders.

#[cfg(target_os = "linux")]
mod linux {
    use ioctx::backend::{Auto, Kernel, Threads, Uring};
    use ioctx_benches::backends::{
        Compio, Each, MappedReads, Own, OwnRing, PoolReads, Pread, Shape, crew, crew_sharing,
    };
    use ioctx_benches::context::Shape as Sides;
    use ioctx_benches::context::cached::{KernelReads, Look, NotInline, Numbered, Reads, Rig, SharedReads};
    use ioctx_benches::harness::{Bench, Case, Contest, Run, Target, times};
    use std::io;
    use std::sync::Arc;

    const CACHED_1: &str = "page cache, 1 thread";
    const CACHED_4: &str = "page cache, 4 threads";
    const CACHED_SIDES: &str = "page cache, 4 submitters and 1 reaper";
    const DIRECT_1: &str = "O_DIRECT, 1 thread";
    const DIRECT_4: &str = "O_DIRECT, 4 threads";
    const TITLES: [[&str; 3]; 2] =
        [[CACHED_1, CACHED_4, CACHED_SIDES], [DIRECT_1, DIRECT_4, "O_DIRECT, 4 submitters and 1 reaper"]];
    const URING: &str = "ioctx Uring";
    const URING_NOT_INLINE: &str = "ioctx Uring, nothing inline";
    const KERNEL: &str = "ioctx Kernel, nothing inline";
    const KERNEL_CALLS: &str = "ioctx Kernel, nothing inline, io_getevents";
    const OWN_RING: &str = "io_uring per thread";
    const SHARED_RING: &str = "io_uring behind a mutex";
    /// Who does the work, as in the titles.
    const CREWS: [Who; 3] = [Who::Crew(1), Who::Crew(4), Who::Sides(4)];
    const DEPTHS: [usize; 4] = [1, 8, 32, 128];
    /// How many reads are checked, by each contender in each shape.
    const CHECKED: u64 = 1500;

    /// How many times as long as `that` another takes: so many threads, with `depth` reads in flight each, `batch` in a
    /// call.
    fn over(
        run: &Run,
        title: &str,
        (other, that): (&str, &str),
        (threads, depth, batch): (usize, usize, usize),
    ) -> Option<f64> {
        let [other, that] = [other, that].map(|what| name(what, depth));
        times(run, (title, &other, threads, batch), (title, &that, threads, batch))
    }

    macro_rules! targets {
        ($($what:literal, $wanted:literal, $title:ident, $other:ident / $that:ident, $shape:expr;)*) => {
            &[$(Target {
                what: $what,
                wanted: $wanted,
                measured: |run| over(run, $title, ($other, $that), $shape),
            }),*]
        };
    }

    const TARGETS: &[Target] = targets! {
        "O_DIRECT, 1 thread, 32 deep, one by one, Uring: times a ring", "<= 1.03",
            DIRECT_1, URING_NOT_INLINE / OWN_RING, (1, 32, 1);
        "O_DIRECT, 1 thread, 32 deep, by 16, Uring: times a ring", "<= 1.03",
            DIRECT_1, URING_NOT_INLINE / OWN_RING, (1, 32, 16);
        "O_DIRECT, 4 threads, 32 deep, one by one, shared Uring: times a ring each", "<= 1.03",
            DIRECT_4, URING_NOT_INLINE / OWN_RING, (4, 32, 1);
        "O_DIRECT, 4 threads, 32 deep, by 16, shared Uring: times a ring each", "<= 1.03",
            DIRECT_4, URING_NOT_INLINE / OWN_RING, (4, 32, 16);
        "page cache, 1 thread, one by one, a ring: times Uring", ">= 1.15",
            CACHED_1, OWN_RING / URING, (1, 1, 1);
        "page cache, 4 threads, one by one, a ring each: times shared Uring", ">= 1.15",
            CACHED_4, OWN_RING / URING, (4, 1, 1);
        "page cache, 1 thread, by 16, a ring: times Uring", ">= 1",
            CACHED_1, OWN_RING / URING, (1, 32, 16);
        "page cache, 4 threads, by 16, a ring each: times shared Uring", ">= 1",
            CACHED_4, OWN_RING / URING, (4, 32, 16);
        "page cache, 4:1, one by one, a ring behind a mutex: times Uring", ">= 3",
            CACHED_SIDES, SHARED_RING / URING, (5, 32, 1);
        "page cache, 4:1, by 16, a ring behind a mutex: times Uring", ">= 3",
            CACHED_SIDES, SHARED_RING / URING, (5, 32, 16);
        "page cache, 1 thread, 1 deep, Kernel by io_getevents: times in place", ">= 1.3",
            CACHED_1, KERNEL_CALLS / KERNEL, (1, 1, 1);
        "page cache, 1 thread, 8 deep, Kernel by io_getevents: times in place", ">= 1.05",
            CACHED_1, KERNEL_CALLS / KERNEL, (1, 8, 1);
        "page cache, 1 thread, 32 deep, Kernel by io_getevents: times in place", ">= 1.04",
            CACHED_1, KERNEL_CALLS / KERNEL, (1, 32, 1);
    };

    /// Who does the work.
    #[derive(Clone, Copy)]
    enum Who {
        /// So many threads, which submit and reap.
        Crew(usize),
        /// So many submitters, and a reaper.
        Sides(usize),
    }

    /// Makes the case of one contender.
    type Maker = Box<dyn Fn(Who, usize, usize) -> Case<'static>>;

    /// One contender, in the shapes that it has.
    struct Contender {
        crew: Option<Maker>,
        sides: Option<Maker>,
    }

    fn name(name: &str, depth: usize) -> String {
        format!("{name}, depth {depth}")
    }

    /// One that all share.
    fn shared<C: Reads + 'static>(what: &'static str, file: &Arc<Numbered>) -> Option<Contender> {
        let check = || -> io::Result<()> {
            // Whether it can be had.
            drop(C::open(file.file(), 1)?);
            for (depth, batch) in [(1, 1), (32, 16)] {
                crew_sharing::<C>(file, CHECKED, Shape { threads: 4, depth, batch }, Look::All);
            }
            Ok(())
        };
        had(what, check())?;
        let file_of_crew = file.clone();
        let crew: Maker = Box::new(move |who, depth, batch| {
            let (Who::Crew(threads) | Who::Sides(threads)) = who;
            let (file, shape) = (file_of_crew.clone(), Shape { threads, depth, batch });
            Case::repetitions(name(what, depth), move |n| crew_sharing::<C>(&file, n, shape, Look::First))
        });
        Some(Contender { crew: Some(crew), ..sides::<C>(what, file)? })
    }

    /// One that submitters and a reaper share.
    fn sides<C: Reads + 'static>(what: &'static str, file: &Arc<Numbered>) -> Option<Contender> {
        let check = || -> io::Result<()> {
            for (depth, batch) in [(1, 1), (32, 16)] {
                let shape = Sides { submitters: 4, batch, min: batch };
                Rig::<C>::of_depth(file, shape, depth)?.pass(file, CHECKED, Look::All);
            }
            Ok(())
        };
        had(what, check())?;
        let file = file.clone();
        let sides: Maker = Box::new(move |who, depth, batch| {
            let (Who::Crew(submitters) | Who::Sides(submitters)) = who;
            let (file, mut rig) = (file.clone(), None);
            Case::repetitions(name(what, depth), move |n| {
                let shape = Sides { submitters, batch, min: batch };
                let open = || Rig::<C>::of_depth(&file, shape, depth).expect("it could be opened before");
                rig.get_or_insert_with(open).pass(&file, n, Look::First)
            })
        });
        Some(Contender { crew: None, sides: Some(sides) })
    }

    /// One that each thread has for itself.
    fn own<E: Own + 'static>(what: &'static str, file: &Arc<Numbered>) -> Option<Contender> {
        let check = || -> io::Result<()> {
            drop(E::open(file.file(), 1)?);
            for (depth, batch) in [(1, 1), (32, 16)] {
                crew::<E>(file, CHECKED, Shape { threads: 4, depth, batch }, Look::All);
            }
            Ok(())
        };
        had(what, check())?;
        let file = file.clone();
        let crew: Maker = Box::new(move |who, depth, batch| {
            let (Who::Crew(threads) | Who::Sides(threads)) = who;
            let (file, shape) = (file.clone(), Shape { threads, depth, batch });
            Case::repetitions(name(what, depth), move |n| crew::<E>(&file, n, shape, Look::First))
        });
        Some(Contender { crew: Some(crew), sides: None })
    }

    /// Whether it was checked without an error; says so if not.
    fn had(what: &str, checked: io::Result<()>) -> Option<()> {
        checked.map_err(|error| println!("\n{what} is left out: {error}.")).ok()
    }

    fn contenders(file: &Arc<Numbered>, direct: bool) -> Vec<Contender> {
        const MAPPED: &str = "kernel AIO, ring read in place";
        let mut all = vec![
            shared::<ioctx::Context<Threads>>("ioctx Threads", file),
            shared::<ioctx::Context<Uring>>(URING, file),
            shared::<ioctx::Context<NotInline<Kernel>>>(KERNEL, file),
            shared::<ioctx::Context<NotInline<Kernel, true>>>(KERNEL_CALLS, file),
            shared::<ioctx::Context<Auto>>("ioctx Auto", file),
            own::<OwnRing>(OWN_RING, file),
            shared::<SharedReads>(SHARED_RING, file),
            shared::<KernelReads>("kernel AIO", file),
            own::<Each<MappedReads>>(MAPPED, file),
            sides::<MappedReads>(MAPPED, file),
            shared::<PoolReads>("tokio, pread on its pool", file),
            own::<Compio>("compio", file),
            own::<Pread>("pread loop (floor)", file),
        ];
        if direct {
            let first = [
                shared::<ioctx::Context<NotInline<Uring>>>(URING_NOT_INLINE, file),
                shared::<ioctx::Context<NotInline<Threads>>>("ioctx Threads, nothing inline", file),
            ];
            all.splice(..0, first);
        }
        all.into_iter().flatten().collect()
    }

    pub fn main() {
        let mut bench = Bench::start("backends", env!("CARGO_TARGET_TMPDIR"));
        let dir = env!("CARGO_TARGET_TMPDIR");
        let cached = Numbered::new(dir.as_ref()).unwrap_or_else(|error| panic!("{dir}: {error}"));
        if cached.on_tmpfs().expect("it is open") {
            println!("\nThe file that is read lies on tmpfs: see the head of this bench.");
        }
        let direct = cached.direct().map_err(|error| println!("\nO_DIRECT is left out: {error}.")).ok();
        // There are several processes otherwise, and many groups.
        let (rounds, depths): (_, &[usize]) = if bench.is_quick() { (3, &[1, 32]) } else { (1, &DEPTHS) };
        for (file, direct) in [(Some(cached), false), (direct, true)] {
            let Some(file) = file.map(Arc::new) else { continue };
            let contenders = contenders(&file, direct);
            for (who, title) in CREWS.into_iter().zip(TITLES[usize::from(direct)]) {
                let mut contest = Contest::new(title).rounds(rounds);
                for depth in depths {
                    for batch in [1, 16].into_iter().filter(|batch| 2 * batch <= *depth || *batch == 1) {
                        let made = contenders.iter().filter_map(|contender| match who {
                            Who::Crew(_) => contender.crew.as_ref(),
                            Who::Sides(_) => contender.sides.as_ref(),
                        });
                        let threads = match who {
                            Who::Crew(threads) => threads,
                            Who::Sides(submitters) => submitters + 1,
                        };
                        let cases = made.map(|make| make(who, *depth, batch)).collect();
                        contest = contest.group(threads, batch, cases);
                    }
                }
                bench.run(contest);
            }
        }
        bench.targets(TARGETS);
        bench.finish();
    }
}

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("backends: for Linux");
}
