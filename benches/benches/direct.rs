//! A file of 1 GiB read past the page cache (`O_DIRECT`), first to last, by a context over [`Direct`] and by what one
//! would use instead.
//!
//! # What is compared
//!
//! | contender | what it does |
//! |---|---|
//! | `ioctx` `Direct` over `Uring`, `Kernel`, `Threads` | a request of no more than a part is passed on, a longer one cut, both in parts of 1 MiB, at most 8 at once |
//! | `io_uring` | one issuer, deferred work, registered file, reads of 1 MiB |
//! | `pread` loop (floor) | one request at a time, whatever the depth, always into the same memory |
//!
//! * **1 MiB requests**: 1, 2 and 8 of them in flight.
//! * **8 MiB requests**: one at a time; the ring reads 8 times 1 MiB, at once, into the same memory.
//! * **1 MiB requests, memory not aligned**: what is read is copied, by the loop, too, or `pread` would say `EINVAL`.
//!
//! A figure is microseconds per MiB, from slices of 16 MiB that begin and end with nothing in flight. All read into the
//! same memory, in huge pages where there are any: these are worth a factor of two to three where a host's processor is
//! the device. There, too, a loop that always reads into the same MiB has it in its cache, which 8 MiB may not be: who
//! has 8 reads in flight is to be compared with the ring, which has as many.
//!
//! First every page is looked at of what each contender reads; then [`Peak`](ioctx::backend::Peak) says how many parts
//! it had in flight at once, at most, and how much memory for copies, of how many it was given.

#[cfg(target_os = "linux")]
mod linux {
    use ioctx::aio::Backend;
    use ioctx::backend::{Direct, Kernel, Threads, Uring};
    use ioctx_benches::direct::{
        BLOCK, Contexts, Large, OwnRing, PLACES, PreadLoop, Reader, Shape, Slab, Slices,
    };
    use ioctx_benches::harness::{Bench, Case, Contest, Run, Target, times};
    use std::io;

    const SMALL: &str = "1 MiB requests";
    const LARGE: &str = "8 MiB requests";
    const UNALIGNED: &str = "1 MiB requests, memory not aligned";
    const URING: &str = "ioctx Direct over Uring";
    const KERNEL: &str = "ioctx Direct over Kernel";
    const THREADS: &str = "ioctx Direct over Threads";
    const RING: &str = "io_uring";
    const LOOP: &str = "pread loop (floor)";
    const PARTS: u32 = 8;
    /// Blocks of a slice, and of what is checked.
    const SLICE: u64 = 16;
    const CHECKED: u64 = 256;

    fn over(run: &Run, title: &str, depth: usize, (ours, theirs): (&str, &str)) -> Option<f64> {
        let [ours, theirs] = [ours, theirs].map(|what| name(what, depth));
        times(run, (title, &ours, 1, 1), (title, &theirs, 1, 1))
    }

    macro_rules! targets {
        ($($what:literal, $title:ident, $depth:literal, $ours:ident / $theirs:ident;)*) => {
            &[$(Target {
                what: $what,
                wanted: "<= 1.03",
                measured: |run| over(run, $title, $depth, ($ours, $theirs)),
            }),*]
        };
    }

    const TARGETS: &[Target] = targets! {
        "1 MiB requests, 8 deep, over Uring: times a ring", SMALL, 8, URING / RING;
        "1 MiB requests, 8 deep, over Kernel: times a ring", SMALL, 8, KERNEL / RING;
        "1 MiB requests, 8 deep, over Threads: times a ring", SMALL, 8, THREADS / RING;
        "1 MiB requests, 2 deep, over Uring: times a loop", SMALL, 2, URING / LOOP;
        "1 MiB requests, 2 deep, over Kernel: times a loop", SMALL, 2, KERNEL / LOOP;
        "1 MiB requests, 2 deep, over Threads: times a loop", SMALL, 2, THREADS / LOOP;
        "8 MiB requests, over Uring: times a loop", LARGE, 1, URING / LOOP;
        "8 MiB requests, over Uring: times a ring", LARGE, 1, URING / RING;
    };

    fn name(what: &str, depth: usize) -> String {
        format!("{what}, depth {depth}")
    }

    /// A contender that was checked.
    fn case<'a>(name: String, mut slices: Slices<impl Reader + 'a>) -> Case<'a> {
        slices.check(CHECKED);
        timed(name, slices)
    }

    fn timed<'a>(name: String, slices: Slices<impl Reader + 'a>) -> Case<'a> {
        let slices = std::cell::RefCell::new(slices);
        // As many slices as take some fifty milliseconds.
        Case::shots(name, SLICE as u32, move |shots| {
            (0..shots.div_ceil(5)).map(|_| slices.borrow_mut().slice(SLICE)).collect()
        })
    }

    /// One of ours; prints how much it had in flight.
    fn layered<'a, B: Backend + 'static>(
        (what, title): (&str, &str),
        (file, slab, shape): (&Large, &'a Slab, Shape),
        backend: Result<B, impl ToString>,
    ) -> Option<Case<'a>> {
        let made = backend.map_err(|error| error.to_string()).and_then(|backend| {
            let direct = Direct::with_part(PARTS, BLOCK, backend).map_err(|error| error.to_string())?;
            Contexts::new(file, slab, shape, direct).map_err(|error| error.to_string())
        });
        let contexts = made.map_err(|error| println!("\n{what} is left out: {error}.")).ok()?;
        let mut slices = Slices::new(contexts);
        slices.check(CHECKED);
        let direct = slices.reader().backend();
        let (name, peak) = (name(what, shape.depth), direct.peak());
        println!("{title}, {name}: at once, at most: {peak} (of {} parts)", direct.parts());
        assert!(peak.parts <= PARTS && peak.bytes <= PARTS as usize * BLOCK, "the bound holds");
        Some(timed(name, slices))
    }

    fn all<'a>(title: &str, file: &Large, slab: &'a Slab, shape: Shape) -> io::Result<Vec<Case<'a>>> {
        let (of, room) = ((file, slab, shape), 2 * PARTS);
        let ours = [
            layered((URING, title), of, Uring::new(room)),
            layered((KERNEL, title), of, Kernel::new(room)),
            layered((THREADS, title), of, Threads::sized()),
        ];
        let mut cases: Vec<_> = ours.into_iter().flatten().collect();
        if shape.shift == 0 {
            match OwnRing::new(file, slab, shape.depth * shape.blocks) {
                Ok(ring) => cases.push(case(name(RING, shape.depth), Slices::new(ring))),
                Err(error) => println!("\n{RING} is left out: {error}."),
            }
        }
        cases.push(case(name(LOOP, shape.depth), Slices::new(PreadLoop::new(file, slab, shape)?)));
        Ok(cases)
    }

    fn contests(bench: &mut Bench, dir: &str) -> io::Result<()> {
        let (file, slab) = (Large::new(dir.as_ref())?, Slab::new()?);
        let shape = |depth, blocks, shift| Shape { depth, blocks, shift };
        for (title, shapes) in [
            (SMALL, &[shape(1, 1, 0), shape(2, 1, 0), shape(8, 1, 0)][..]),
            (LARGE, &[shape(1, PLACES, 0)]),
            (UNALIGNED, &[shape(1, 1, 1), shape(8, 1, 1)]),
        ] {
            let mut contest = Contest::in_microseconds(title);
            println!();
            for shape in shapes {
                contest = contest.group(1, 1, all(title, &file, &slab, *shape)?);
            }
            bench.run(contest);
        }
        Ok(())
    }

    pub fn main() {
        let dir = env!("CARGO_TARGET_TMPDIR");
        let mut bench = Bench::start("direct", dir);
        if let Err(error) = contests(&mut bench, dir) {
            println!("\nThere is no file of 1 GiB in {dir} that is read past the page cache: {error}.");
        }
        bench.targets(TARGETS);
        bench.finish();
    }
}

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("direct: for Linux");
}
