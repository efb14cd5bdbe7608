//! Where `io_uring` and the kernel's AIO are forbidden, as in most containers: whoever needs them says so, and what
//! does not passes the suite.

use crate::pass;
use crate::support::seccomp::Refusal;
use crate::support::{process, skip};
use ioctx::backend::conformance::Suite;
use ioctx::backend::{Auto, Kernel, KernelError, Threads};
use std::io;
use std::os::unix::process::CommandExt;

/// What makes rings, and contexts of the kernel's.
const CALLS: [libc::c_long; 2] = [libc::SYS_io_uring_setup, libc::SYS_io_setup];

/// Runs the test of this name in a process where these calls fail so.
fn forbidden(test: &str, errno: libc::c_int) {
    if crate::role().is_some() {
        return here(errno);
    }
    let filters = CALLS.map(|call| Refusal::of(call, errno).filter());
    let mut child = process::again(&format!("forbidden::{test}"), "forbidden");
    // SAFETY: async-signal-safe: system calls, no allocation.
    unsafe { child.pre_exec(move || filters.iter().try_for_each(|filter| Refusal::install(filter))) };
    process::run(child).unwrap_or_else(|error| skip(format_args!("seccomp: {error}")));
}

/// In the process.
fn here(errno: libc::c_int) {
    for call in CALLS {
        // SAFETY: refused before it looks at its arguments, which are null.
        assert_eq!(unsafe { libc::syscall(call, 0, 0) }, -1);
        assert_eq!(io::Error::last_os_error().raw_os_error(), Some(errno));
    }
    // Each backend that needs one of them has its line here.
    #[cfg(feature = "uring")]
    {
        use ioctx::backend::{Uring, UringError};
        match (errno, Uring::new(8)) {
            (libc::EPERM, Err(UringError::Forbidden)) | (libc::ENOSYS, Err(UringError::Missing)) => {}
            (_, made) => panic!("{made:?}"),
        }
    }
    match (errno, Kernel::new(8)) {
        (libc::EPERM, Err(KernelError::Forbidden)) | (libc::ENOSYS, Err(KernelError::Missing)) => {}
        (_, made) => panic!("{made:?}"),
    }
    let auto = Auto::new(8).unwrap();
    let why_not: Vec<_> =
        auto.tried().iter().map(|tried| (tried.name, tried.why_not.as_deref().unwrap_or("taken"))).collect();
    let word = if errno == libc::EPERM { "forbidden" } else { "kernel has no" };
    let of_uring = if cfg!(feature = "uring") { word } else { "not built in" };
    assert!(
        matches!(why_not[..], [("io_uring", ring), ("kernel AIO", aio), ("threads", "taken")]
            if ring.contains(of_uring) && aio.contains(word)),
        "{why_not:?}"
    );
    pass(Suite::new(|| Threads::new(2).unwrap()).requests(5_000));
}

#[test]
fn by_a_filter() {
    forbidden("by_a_filter", libc::EPERM);
}

#[test]
fn as_if_they_did_not_exist() {
    forbidden("as_if_they_did_not_exist", libc::ENOSYS);
}
