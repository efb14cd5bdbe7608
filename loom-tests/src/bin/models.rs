//! Runs one loom model. Meant for the binary `check`, which builds this under `--cfg loom`.

#[cfg(loom)]
fn main() {
    loom_tests::main();
}

#[cfg(not(loom))]
fn main() {
    eprintln!("models exist only under `--cfg loom`; `cargo loom` builds and runs them so");
    std::process::exit(2);
}
