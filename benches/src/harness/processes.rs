//! Measuring in several processes, one after the other.

use super::results::Run;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

/// The environment variable that makes a process a child: it measures, prints nothing, and leaves what it
/// found in the file named here.
const RESULT: &str = "IOCTX_BENCH_RESULT";

/// Where this process has to leave its results, if it is a child.
pub fn result_file() -> Option<PathBuf> {
    env::var_os(RESULT).map(PathBuf::from)
}

/// Has `count` children do what this process was asked for.
///
/// # Panics
///
/// If one of them fails.
pub fn measure(count: usize, file: &Path) -> Vec<Run> {
    let program = env::current_exe().expect("the system knows where this program is");
    let child = |number: usize| {
        eprintln!("process {number} of {count}");
        let mut command = Command::new(&program);
        command.args(env::args_os().skip(1)).env(RESULT, file).stdout(Stdio::null());
        let status = command.status().expect("this program can be started again");
        assert!(status.success(), "process {number} of {count} failed: {status}");
        let json = fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        serde_json::from_slice(&json).expect("a child writes what its parent reads")
    };
    let runs = (1..=count).map(child).collect();
    // What is left would do no harm.
    drop(fs::remove_file(file));
    runs
}
