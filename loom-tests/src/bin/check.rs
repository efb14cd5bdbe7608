//! `cargo loom` and `cargo weaken`: builds the models under `--cfg loom` and runs each in a process of its
//! own.
//!
//! A process each, because loom ends some failures by aborting, and because a model that does not come to
//! its end within the time allowed has to be counted as failed: loom itself would report it as passed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

/// Models that must fail, and what has to be said then.
const CANARIES: [(&str, &str); 5] = [
    ("canary.race", "Causality violation"),
    ("canary.leak", "leaked"),
    ("canary.lost_completion", "deadlock"),
    ("canary.deadlock", "deadlock"),
    ("canary.endless", TOO_LONG),
];
/// What loom says of a schedule that it cut short.
const TOO_LONG: &str = "exceeded maximum number of branches";
/// How long one model may take.
const ALLOWED: Duration = Duration::from_secs(600);
/// How long a model may look for a mutant. One that does not come to its end has found nothing.
const ALLOWED_MUTANT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["models"] => models(&[], ""),
        ["models", "--deeper", more] => models(&["--deeper", more], ""),
        ["models", part] => models(&[], part),
        ["weaken"] => sweep(""),
        ["weaken", site] => sweep(site),
        _ => {
            eprintln!("usage: check models [--deeper N | PART] | weaken [SITE]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the workspace")
}

/// Builds the models, with a target directory of their own so that neither build throws the other away.
fn build() -> io::Result<PathBuf> {
    let target = root().join("target/loom");
    let built = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--profile", "loom", "--package", "loom-tests", "--bin", "models"])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "--cfg loom")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(root())
        .status()?;
    if !built.success() {
        return Err(io::Error::other("the models do not build"));
    }
    Ok(target.join("loom/models"))
}

/// Name and purpose of every model whose name contains `part`.
fn list(program: &Path, part: &str) -> io::Result<Vec<(String, String)>> {
    let listed = Command::new(program).arg("list").output()?.stdout;
    let lines = String::from_utf8_lossy(&listed).into_owned();
    let models = lines.lines().filter_map(|line| line.split_once('\t'));
    Ok(models.filter(|(name, _)| name.contains(part)).map(|(a, b)| (a.into(), b.into())).collect())
}

/// How one process ended.
struct Ran {
    passed: bool,
    out: String,
    err: String,
}

/// Runs one model; past `allowed` it is killed and has failed.
fn run(program: &Path, arguments: &[&str], allowed: Duration) -> io::Result<Ran> {
    let mut child = Command::new(program)
        .arg("run")
        .args(arguments)
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |from: &mut dyn io::Read| {
        let mut text = Vec::new();
        from.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    };
    thread::scope(|scope| {
        let out = scope.spawn(move || read(&mut out));
        let err = scope.spawn(move || read(&mut err));
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        let passed = loop {
            if let Some(status) = child.try_wait()? {
                break status.success();
            }
            if begun.elapsed() > allowed {
                child.kill()?;
                child.wait()?;
                break false;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        Ok(Ran { passed, out: out.join().unwrap()?, err: err.join().unwrap()? })
    })
}

/// Calls `job` for every item, on as many threads as there are CPUs, in order of the items.
fn in_parallel<T: Sync>(items: &[T], job: impl Fn(&T) -> io::Result<bool> + Sync) -> io::Result<bool> {
    let next = Mutex::new(items.iter());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let work = || -> io::Result<bool> {
            let mut all = true;
            loop {
                let Some(item) = next.lock().unwrap().next() else { return Ok(all) };
                all &= job(item)?;
            }
        };
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_fold(true, |all, thread| Ok(all & thread.join().unwrap()?))
    })
}

/// Runs every model and prints its line; for one that fails, the reason and the trace of the failing
/// iteration.
fn models(options: &[&str], part: &str) -> io::Result<bool> {
    let program = build()?;
    let models = list(&program, part)?;
    let failed = Mutex::new(Vec::new());
    in_parallel(&models, |(name, checks)| {
        let ran = run(&program, &[&[name.as_str()], options].concat(), ALLOWED)?;
        if let Some(&(_, said)) = CANARIES.iter().find(|(canary, _)| canary == name) {
            let noticed = !ran.passed && ran.err.contains(said);
            let seen = if noticed { "noticed, as it must be" } else { "NOT NOTICED" };
            println!("{name:<28} {checks}: {seen}");
            if !noticed {
                println!("{}", ran.err);
                failed.lock().unwrap().push(name.clone());
            }
            return Ok(noticed);
        }
        if ran.passed {
            print!("{}", ran.out);
            return Ok(true);
        }
        let mut report = format!("{name:<28} FAILED, though it checks: {checks}\n{}", ran.err);
        match ran.err.lines().find_map(|line| line.strip_prefix("failed in iteration ")) {
            Some(iteration) => {
                let traced = run(&program, &[&[name, "--trace", iteration], options].concat(), ALLOWED)?;
                let _ = write!(report, "trace of iteration {iteration}:\n{}", traced.err);
            }
            None => report.push_str("it did not come to an end in the time allowed\n"),
        }
        println!("{report}");
        failed.lock().unwrap().push(name.clone());
        Ok(false)
    })?;
    let failed = failed.into_inner().unwrap();
    println!("models: {} passed, {} failed", models.len() - failed.len(), failed.len());
    Ok(failed.is_empty() && !models.is_empty())
}

/// How long it is tried whether a mutant is noticed that is not expected to be.
const ENOUGH: Duration = Duration::from_secs(5);

/// One ordering to weaken.
struct Mutant {
    site: String,
    how: &'static str,
}

/// The sites in the sources, by name, with the halves of their orderings.
fn sites() -> io::Result<BTreeMap<String, Vec<&'static str>>> {
    let mut sites = BTreeMap::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                // The facade defines the macros and has no sites.
                if !path.ends_with("src/sync") {
                    folders.push(path);
                }
            } else {
                collect(&fs::read_to_string(path)?, &mut sites);
            }
        }
    }
    Ok(sites)
}

fn collect(source: &str, sites: &mut BTreeMap<String, Vec<&'static str>>) {
    for (opening, is_fence) in [("mo!(\"", false), ("fence!(\"", true), ("fence_after_rmw!(\"", true)] {
        for found in source.split(opening).skip(1) {
            let Some((site, rest)) = found.split_once("\", ") else { continue };
            let Some((order, _)) = rest.split_once(')') else { continue };
            let halves: &[&str] = match order {
                _ if is_fence => &["fence"],
                "Acquire" => &["acquire"],
                "Release" => &["release"],
                "AcqRel" => &["acquire", "release"],
                other => panic!("the site {site} has the ordering {other}, which nothing here weakens"),
            };
            sites.insert(site.to_owned(), halves.to_vec());
        }
    }
}

/// Survivors that are meant to survive: `site half reason`, one a line.
fn kept() -> io::Result<BTreeMap<(String, String), String>> {
    let text = fs::read_to_string(root().join("loom-tests/kept.txt"))?;
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines
        .map(|line| {
            let mut words = line.splitn(3, ' ');
            let mut word = || words.next().unwrap_or_default().to_owned();
            ((word(), word()), word())
        })
        .collect())
}

/// Weakens every site whose name contains `part`, one at a time, and demands that some model fails.
fn sweep(part: &str) -> io::Result<bool> {
    let program = build()?;
    let mut models = list(&program, "")?;
    models.retain(|(name, _)| CANARIES.iter().all(|(canary, _)| canary != name));
    let kept = kept()?;
    let mutants: Vec<Mutant> = sites()?
        .into_iter()
        .filter(|(site, _)| site.contains(part))
        .flat_map(|(site, halves)| halves.into_iter().map(move |how| Mutant { site: site.clone(), how }))
        .collect();
    let survivors = Mutex::new(Vec::new());
    in_parallel(&mutants, |Mutant { site, how }| {
        let begun = Instant::now();
        let mut order: Vec<&str> = models.iter().map(|(name, _)| name.as_str()).collect();
        // Models of the same part are the likeliest to notice.
        let own = match site.split('.').collect::<Vec<_>>()[..] {
            ["percpu", ..] => "refcount",
            ["refcount", "typed", _] => "owner",
            ["aio", "delivery", _] => "context.future",
            ["aio", "table", _] => "aio.table",
            ["aio", ..] => "context",
            [own, ..] => own,
            [] => "",
        };
        order.sort_by_key(|name| !name.starts_with(own));
        let is_kept = kept.contains_key(&(site.clone(), (*how).to_owned()));
        if is_kept {
            // Nobody is expected to notice: it is enough that those do not that could.
            order.retain(|name| name.starts_with(own));
        }
        for (tried, model) in order.iter().enumerate() {
            if is_kept && begun.elapsed() > ENOUGH {
                // The quick ones have not.
                break;
            }
            let ran = run(&program, &[model, "--weaken", site, how], ALLOWED_MUTANT)?;
            // A model that was cut short, by us or by loom, has not seen anything wrong.
            if !ran.passed && ran.err.contains("failed in iteration") && !ran.err.contains(TOO_LONG) {
                let seconds = begun.elapsed().as_secs_f64();
                println!("{site:<26} {how:<8} caught by {model} ({} tried, {seconds:.1} s)", tried + 1);
                return Ok(true);
            }
        }
        survivors.lock().unwrap().push((site.clone(), (*how).to_owned()));
        Ok(false)
    })?;
    let mut survivors = survivors.into_inner().unwrap();
    survivors.sort();
    let mut unexplained = 0;
    for survivor in &survivors {
        let reason = kept.get(survivor).map_or("NO MODEL NOTICES", String::as_str);
        unexplained += usize::from(!kept.contains_key(survivor));
        println!("{:<26} {:<8} survives: {reason}", survivor.0, survivor.1);
    }
    for (site, how) in kept.keys().filter(|kept| kept.0.contains(part) && !survivors.contains(kept)) {
        unexplained += 1;
        println!("{site:<26} {how:<8} is listed in kept.txt, but is caught or gone");
    }
    println!("orderings: {} passed, {unexplained} failed", mutants.len() - survivors.len());
    Ok(unexplained == 0 && !mutants.is_empty())
}
