//! What is run, and that a race in it is found.

mod contexts;
mod parts;
mod raw;

use crate::support::{never_hang, process, skip};

/// A name, and what is told whether to race.
type Scenario = (&'static str, fn(bool));

const ALL: [Scenario; 11] = [
    ("counts", parts::counts),
    ("counts_that_change_their_mode", parts::counts_that_change_their_mode),
    ("owners", parts::owners),
    ("credits", parts::credits),
    ("tags", parts::tags),
    ("handles", parts::handles),
    ("rings", parts::rings),
    ("queues", parts::queues),
    ("contexts_that_complete_at_once", contexts::inline),
    ("contexts_that_complete_elsewhere", contexts::elsewhere),
    ("tokens_that_outlive_their_context", contexts::outlived),
];

/// Runs those whose names contain what the command line says, or are that.
pub(crate) fn run() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let exact = arguments.iter().any(|argument| argument == "--exact");
    let wanted: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let chosen = ALL.into_iter().filter(|(name, _)| {
        wanted.is_empty()
            || wanted.iter().any(|wanted| if exact { name == wanted } else { name.contains(wanted.as_str()) })
    });
    let racy = process::role().is_some();
    if cfg!(ioctx_tsan) {
        let kind = ioctx::cpu::kind();
        let portable = matches!(kind, ioctx::cpu::Kind::Portable(_));
        assert!(portable, "ThreadSanitizer does not see sections ({kind:?}): set IOCTX_PERCPU=portable");
    } else {
        skip("built without ThreadSanitizer: races are not looked for");
    }
    for (name, scenario) in chosen {
        never_hang();
        scenario(racy);
        if cfg!(ioctx_tsan) && !racy {
            is_found_out(name);
        }
        println!("test {name} ... ok");
    }
}

/// Has the scenario race, in a process of its own, and sees that it is reported.
fn is_found_out(name: &str) {
    let mut child = process::again(name, "race");
    let output = child.env("TSAN_OPTIONS", "halt_on_error=1 exitcode=66").output().unwrap();
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(66)
            && report.contains("ThreadSanitizer: data race")
            && report.contains("Payload>::touch"),
        "{name}: the race was not found: {}\n{report}",
        output.status
    );
}
