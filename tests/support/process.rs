//! Tests that run once more, in a process of their own.

use std::process::{Command, Output};

/// Set in such a process: what it is to do.
const ROLE: &str = "IOCTX_TEST_ROLE";

/// What this process is to do, if it is one made by [`again`].
pub fn role() -> Option<String> {
    super::never_hang();
    std::env::var(ROLE).ok()
}

/// The test `name` of this program, to be run in a process that is told its role.
pub fn again(name: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role);
    command
}

/// Runs the test in its process, where it has to pass. Fails if the process cannot be made.
pub fn run(mut command: Command) -> std::io::Result<()> {
    passed(&command.output()?);
    Ok(())
}

/// Sees that the one test of a process has passed; says what it skipped.
pub fn passed(output: &Output) {
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && printed.contains("1 passed"),
        "the child: {}\n{printed}\n{errors}",
        output.status
    );
    for (skipped, _) in printed.match_indices("SKIPPED") {
        println!("in a child: {}", printed[skipped..].lines().next().unwrap());
    }
}
