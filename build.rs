//! Decides, once for all files, whether what only Linux has is built in: `cfg(ioctx_linux)`; and libaio's interface, where
//! its structures are as this crate knows them: `cfg(ioctx_capi)`.
//!
//! With `--cfg ioctx_portable` in `RUSTFLAGS` it is not, and everything runs on what other systems have. Not a feature:
//! features add, and are united over all users of a crate.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && env::var_os("CARGO_CFG_IOCTX_PORTABLE").is_none() {
        println!("cargo::rustc-cfg=ioctx_linux");
        if env::var_os("CARGO_FEATURE_LIBAIO").is_some() && is("CARGO_CFG_TARGET_POINTER_WIDTH", "64") {
            println!("cargo::rustc-cfg=ioctx_capi");
        }
    }
}
