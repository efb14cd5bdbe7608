//! The whole program, briefly.

use crate::run;
use serde_json::Value;
use std::path::Path;

/// Runs it: exit code, what it printed, what it complained of.
fn iobench(arguments: &str, directory: &Path) -> (u8, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let directory = directory.display().to_string();
    let arguments = arguments.split_whitespace().map(|word| word.replace("DIR", &directory));
    let code = run(std::iter::once("iobench".to_owned()).chain(arguments), &mut out, &mut err);
    let [out, err] = [out, err].map(|bytes| String::from_utf8(bytes).unwrap());
    (code, out, err)
}

/// Runs it until it has done something of each kind, and parses what it says. `None` if the backend cannot be had here,
/// which it has to say.
fn figures(arguments: &str, kinds: &[&str]) -> Option<Value> {
    // A busy disk can take long for the first fsync.
    for seconds in [0.15, 0.6, 2.4, 9.6] {
        let document = figures_of(&format!("{arguments} --runtime {seconds}"))?;
        let runs = document["runs"].as_array().unwrap();
        if runs.iter().all(|run| kinds.iter().all(|kind| run.get(kind).is_some())) {
            return Some(document);
        }
    }
    panic!("{arguments}: not all of {kinds:?} were done");
}

fn figures_of(arguments: &str) -> Option<Value> {
    let directory = tempfile::tempdir().unwrap();
    let arguments = format!("{arguments} --json --directory DIR");
    let (code, out, err) = iobench(&arguments, directory.path());
    if code == 2 && (err.contains("there is no backend") || err.contains("knows no --direct")) {
        return None;
    }
    assert_eq!((code, &*err), (0, ""), "{arguments}");
    assert_eq!(directory.path().read_dir().unwrap().count(), 0, "nothing is left behind");
    Some(serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments}: {error}\n{out}")))
}

/// The figures of one kind of operation fit together; returns how many there were.
fn consistent(run: &Value, side: &str, bs: u64, whole: bool) -> u64 {
    let Some(figures) = run.get(side) else { return 0 };
    let float = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} in {figures}"));
    let ios = figures["ios"].as_u64().unwrap();
    let bytes = if whole { ios * bs } else { 0 };
    assert_eq!(
        (&figures["bytes"], &figures["latency_ns"]["count"]),
        (&Value::from(bytes), &Value::from(ios))
    );
    let seconds = float(&run["seconds"]);
    for (rate, total) in [("iops", ios), ("bytes_per_second", bytes)] {
        assert!(
            (float(&figures[rate]) * seconds - total as f64).abs() < 1e-6 * total as f64 + 1e-6,
            "{figures}"
        );
    }
    let latency = &figures["latency_ns"];
    let at = |p: &str| float(&latency["percentiles"][p]);
    let order = ["50", "90", "95", "99", "99.9", "99.99", "100"].map(at);
    assert!(order.is_sorted() && order[0] > 0.0, "{latency}");
    // The histogram has three digits.
    assert!(float(&latency["min"]) <= order[0] * 1.001 && order[6] <= float(&latency["max"]) * 1.001);
    assert!((float(&latency["min"])..=float(&latency["max"]) * 1.001).contains(&float(&latency["mean"])));
    ios
}

#[test]
fn figures_fit_together() {
    const SMALL: &str = "--size 2m --pool 2";
    for (backend, kinds, arguments) in [
        ("null", "read", "--rw randread --iodepth 16 --iodepth-batch 4 --numjobs 2"),
        ("null", "read write", "--rw randrw --iodepth 8 --numjobs 2 --reapers 1 --ramp 0.05"),
        ("zero", "read", "--rw read --iodepth 1"),
        ("threads", "read", "--rw randread --iodepth 8 --numjobs 2 --verify"),
        (
            "threads",
            "read write sync",
            "--rw randrw --mix 70 --iodepth 8 --iodepth_batch 4 --numjobs 2 --fsync 16 --verify",
        ),
        ("threads", "write sync", "--rw write --iodepth 4 --numjobs 2 --reapers 2 --fsync 8 --verify"),
        ("threads", "write", "--rw randwrite --iodepth 4 --numjobs 2 --per-thread --verify --bs 512"),
        ("auto", "read", "--rw randread --iodepth 8 --verify"),
        ("direct", "read", "--rw randread --bs 512k --iodepth 2 --direct --verify"),
        ("kernel", "read", "--rw randread --iodepth 1,8 --numjobs 2 --verify"),
        ("kernel", "read write sync", "--rw randrw --iodepth 8 --numjobs 2 --reapers 1 --fsync 16 --verify"),
        ("uring", "read", "--rw randread --iodepth 1,8 --numjobs 2 --verify"),
        ("uring", "read write sync", "--rw randrw --iodepth 8 --numjobs 2 --reapers 1 --fsync 16 --verify"),
    ] {
        let kinds: Vec<&str> = kinds.split(' ').collect();
        let Some(document) = figures(&format!("--backend {backend} {arguments} {SMALL}"), &kinds) else {
            continue;
        };
        let options = &document["options"];
        assert_eq!((&options["backend"], &document["interrupted"]), (&backend.into(), &false.into()));
        let (depths, runs) = (options["iodepth"].as_array().unwrap(), document["runs"].as_array().unwrap());
        assert_eq!(depths.len(), runs.len());
        for (depth, run) in depths.iter().zip(runs) {
            assert_eq!(depth, &run["iodepth"]);
            assert!(run["seconds"].as_f64() >= options["runtime"].as_f64(), "{run}");
            let bs = options["bs"].as_u64().unwrap();
            let reads = consistent(run, "read", bs, backend != "null");
            let writes = consistent(run, "write", bs, true);
            let syncs = consistent(run, "sync", 0, true);
            let done =
                [("read", reads), ("write", writes), ("sync", syncs)].map(|(kind, ios)| (kind, ios > 0));
            assert_eq!(done, ["read", "write", "sync"].map(|kind| (kind, kinds.contains(&kind))), "{run}");
            let verify = options["verify"].as_bool().unwrap();
            let verified = run["verified_blocks"].as_u64().unwrap();
            assert!(if verify { verified >= reads } else { verified == 0 }, "{run}");
            if let every @ 1.. = options["fsync"].as_u64().unwrap() {
                // Some were submitted before the while that is measured, some are in flight.
                assert!(syncs <= writes / every + 64, "{run}");
            }
            let switches = &run["context_switches"];
            let total = switches["voluntary"].as_u64().unwrap() + switches["involuntary"].as_u64().unwrap();
            let each = switches["per_io"].as_f64().unwrap() * (reads + writes + syncs) as f64;
            assert!((each - total as f64).abs() < 1e-6 * total as f64 + 1e-6, "{run}");
        }
    }
}

#[test]
fn a_mix_is_what_was_asked_for() {
    let (mut reads, mut all) = (0.0, 0.0);
    while all < 10_000.0 {
        let arguments = "--backend null --rw randrw --mix 80 --iodepth 16 --size 1m";
        let document = figures(arguments, &["read", "write"]).unwrap();
        let ios = |side: &str| document["runs"][0][side]["ios"].as_f64().unwrap();
        reads += ios("read");
        all += ios("read") + ios("write");
    }
    let part = reads / all;
    assert!((0.75..0.85).contains(&part), "{part} reads");
}

#[test]
fn bad_input_is_an_error_that_says_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("there"), b"precious").unwrap();
    for (arguments, code, says) in [
        ("--rw sideways", 2, "possible values: read, write, randread, randwrite, randrw"),
        ("--bs 0", 2, "more than 0"),
        ("--bs 4q", 2, "perhaps with k, m, g or t"),
        ("--bs 20000000t", 2, "less than 8 EiB"),
        ("--bs 100", 2, "a multiple of 8"),
        ("--bs 2g --size 4g", 2, "at most 1g"),
        ("--direct --bs 520", 2, "a multiple of 512"),
        ("--size 1k", 2, "at least one --bs"),
        ("--size 1t --bs 8", 2, "less than 2^32 blocks"),
        ("--iodepth 0", 2, "1..=65536"),
        ("--iodepth 1,x", 2, "invalid digit"),
        ("--iodepth 8,16 --iodepth-batch 9", 2, "must not be above --iodepth"),
        ("--iodepth 65536 --numjobs 16", 2, "at most 524288"),
        ("--iodepth 1024 --bs 16m --size 1g", 2, "at most 4g"),
        ("--numjobs 0", 2, "1..=256"),
        ("--numjobs 2 --per-thread --reapers 1", 2, "cannot be used with"),
        ("--runtime 0", 2, "at least 0.001"),
        ("--runtime -1", 2, "unexpected argument"),
        ("--runtime=nan", 2, "0 to 86400"),
        ("--ramp 1e9", 2, "0 to 86400"),
        ("--mix 101", 2, "0..=100"),
        ("--fsync 1 --rw read", 2, "for --rw that writes"),
        ("--backend tape", 2, "one of null, zero, auto, direct, threads, kernel, uring"),
        ("--backend null --verify", 2, "a backend that reads the file"),
        ("--verify --rw randwrite --size 64k --iodepth 32", 2, "two blocks for each request"),
        ("--overwrite", 2, "--filename"),
        ("--filename DIR/there --directory DIR", 2, "cannot be used with"),
        ("--filename DIR/there --rw write", 2, "say so by --overwrite"),
        ("--filename DIR/there", 2, "shorter than one --bs"),
        ("--filename DIR/none/file", 1, "No such file or directory"),
        ("--directory DIR/none", 1, "No such file or directory"),
        ("--size 64k --runtime 0.01 --plot DIR/none/depths.svg", 1, "No such file or directory"),
        #[cfg(ioctx_linux)]
        ("--filename /dev/full --overwrite --rw write --size 4m", 1, "No space left on device"),
        #[cfg(not(all(ioctx_linux, feature = "uring")))]
        ("--backend uring", 2, "--features uring"),
    ] {
        let (got, out, err) = iobench(arguments, directory.path());
        assert_eq!((got, &*out), (code, ""), "{arguments}: {err}");
        assert!(err.contains(says), "{arguments}: {err}");
    }
    assert_eq!(std::fs::read(directory.path().join("there")).unwrap(), b"precious");
}

#[test]
fn contents_that_are_not_what_was_written_are_found_out() {
    use crate::content::Content;
    use crate::options::Options;
    use crate::target::Target;
    use clap::Parser;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    let arguments = format!("iobench --verify --size 64k --runtime 0.05 --filename {}", path.display());
    let options = Options::try_parse_from(arguments.split(' ')).unwrap();
    Content::make(&path, options.size, 4096, indicatif::ProgressBar::hidden()).unwrap();
    let target = Target::new(&options).ok().unwrap();
    let measure = || {
        let run = crate::job::Run::new(&options, &target, 4).ok().unwrap();
        run.measure(&indicatif::ProgressBar::hidden(), &crate::interrupt::watch())
    };
    // On a busy machine none of it may happen within the time.
    let enough = || (0..200).map(|_| measure());
    assert!(enough().any(|measured| measured.unwrap().tally.verified > 0));
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.chunks_mut(4096).for_each(|block| block[77] ^= 1);
    std::fs::write(&path, bytes).unwrap();
    let Some(crate::Failure::Run(error)) = enough().find_map(Result::err) else { panic!("it was not found") };
    assert!(error.to_string().contains("holds something else than it must"), "{error}");
}

#[test]
fn the_picture_has_a_line_for_each_figure() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = "--backend null --iodepth 1,4,16 --runtime 0.02 --plot DIR/depths.svg";
    let (code, out, err) = iobench(arguments, directory.path());
    assert_eq!((code, &*err), (0, ""));
    assert!(out.contains("| depth | what | IOPS |"), "{out}");
    let svg = std::fs::read_to_string(directory.path().join("depths.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    // A point for each depth on each of three lines, and both titles.
    assert_eq!(svg.matches("<circle").count(), 9, "{svg}");
    for text in ["operations per second", "latency in µs", "p50", "p99"] {
        assert!(svg.contains(text), "{text}");
    }
}
