//! Filters of system calls: seccomp(2).

use libc::sock_filter;
use std::io;

/// A system call that fails.
#[derive(Clone, Copy)]
pub struct Refusal {
    pub call: libc::c_long,
    /// Only if this is its first argument.
    pub command: Option<u32>,
    pub errno: libc::c_int,
}

impl Refusal {
    /// Every use of it.
    pub const fn of(call: libc::c_long, errno: libc::c_int) -> Self {
        Self { call, command: None, errno }
    }

    /// The filter: allows every call but this.
    pub fn filter(self) -> Vec<sock_filter> {
        const ARCH_X86_64: u32 = 0xc000_003e;
        let mut words = vec![
            (std::mem::offset_of!(libc::seccomp_data, arch), ARCH_X86_64),
            (std::mem::offset_of!(libc::seccomp_data, nr), self.call as u32),
        ];
        // The low half of the argument comes first.
        words.extend(self.command.map(|command| (std::mem::offset_of!(libc::seccomp_data, args), command)));
        let mut filter: Vec<_> = words.into_iter().flat_map(|(offset, word)| unless(offset, word)).collect();
        filter.push(leave(libc::SECCOMP_RET_ERRNO | self.errno as u32));
        filter
    }

    /// Puts the calling thread, and what it starts, under the filter. Async-signal-safe.
    pub fn install(filter: &[sock_filter]) -> io::Result<()> {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program is valid during the call, which copies it.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if installed { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// As [`install`](Self::install), for every thread there is.
    pub fn install_for_all(filter: &[sock_filter]) -> io::Result<()> {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_TSYNC);
        // SAFETY: the program is valid during the call, which copies it.
        let installed = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) == 0
        };
        if installed { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Allows the call unless the word at `offset` is `wanted`.
fn unless(offset: usize, wanted: u32) -> [sock_filter; 3] {
    let load = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    let compare = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    [
        sock_filter { code: load, jt: 0, jf: 0, k: offset as u32 },
        sock_filter { code: compare, jt: 1, jf: 0, k: wanted },
        leave(libc::SECCOMP_RET_ALLOW),
    ]
}

fn leave(verdict: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: verdict }
}
