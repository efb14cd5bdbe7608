//! A thread of another process, held by ptrace(2).

use std::io::{self, BufRead, BufReader, Read};
use std::mem::MaybeUninit;
use std::process::{ChildStdout, Command, Output, Stdio};

/// Begins the line by which a traced thread says who it is.
const HELLO: &str = "TRACED ";
/// `int3`.
const TRAP: u8 = 0xcc;

/// Hands the calling thread to the parent of this process, tells it the `words`, and stops until let go.
pub fn be_traced(words: &[u64]) -> io::Result<()> {
    // SAFETY: takes no pointers.
    if unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let words: Vec<_> = words.iter().map(u64::to_string).collect();
    println!("{HELLO}{} {}", rustix::thread::gettid(), words.join(" "));
    // SAFETY: has no conditions.
    unsafe { libc::raise(libc::SIGSTOP) };
    Ok(())
}

/// A thread that has called [`be_traced`], held since.
pub struct Tracee {
    process: std::process::Child,
    stdout: BufReader<ChildStdout>,
    thread: libc::pid_t,
    /// Where its area for restartable sequences lies.
    area: u64,
}

/// The kernel's `struct ptrace_rseq_configuration`.
#[repr(C)]
#[derive(Default)]
struct Configuration {
    area: u64,
    size: u32,
    signature: u32,
    flags: u32,
    pad: u32,
}
const PTRACE_GET_RSEQ_CONFIGURATION: u64 = 0x420f;

/// What the kernel is told of a section: `struct rseq_cs`.
#[derive(Debug)]
pub struct Section {
    /// Its first instruction.
    pub start: u64,
    /// What follows its last.
    pub end: u64,
    /// Where a disturbed thread goes on.
    pub abort: u64,
}

impl Tracee {
    /// Starts a process and waits for its thread; also gives the words the thread told. `Err` is what the
    /// process, which has ended, has put out instead.
    pub fn start(mut command: Command) -> Result<(Self, Vec<u64>), Output> {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let mut printed = String::new();
        while stdout.read_line(&mut printed).unwrap() > 0 {
            // Not always at the beginning, where the test harness may have written.
            let line = printed.lines().last().and_then(|line| line.split_once(HELLO));
            let Some((_, words)) = line else { continue };
            let mut words = words.split(' ').map(|word| word.parse().unwrap());
            let thread = words.next().unwrap() as libc::pid_t;
            let words = words.collect();
            return Ok((Self::held(process, stdout, thread), words));
        }
        let output = process.wait_with_output().unwrap();
        Err(Output { stdout: printed.into_bytes(), ..output })
    }

    fn held(process: std::process::Child, stdout: BufReader<ChildStdout>, thread: libc::pid_t) -> Self {
        let mut held = Self { process, stdout, thread, area: 0 };
        assert_eq!(held.wait(), libc::SIGSTOP);
        // A test that fails here leaves nothing behind.
        held.tell(libc::PTRACE_SETOPTIONS as u64, 0, libc::PTRACE_O_EXITKILL as u64).unwrap();
        held.area = held.area().unwrap_or(0);
        held
    }

    /// Whether the kernel says where the area is, without which sections cannot be found.
    pub fn has_area(&self) -> bool {
        self.area != 0
    }

    /// Where its area for restartable sequences lies.
    pub fn place_of_area(&self) -> u64 {
        self.area
    }

    fn area(&self) -> io::Result<u64> {
        let mut found = Configuration::default();
        let size = size_of_val(&found);
        // SAFETY: the kernel writes at most `size` bytes into `found`.
        let done = unsafe {
            libc::syscall(
                libc::SYS_ptrace,
                PTRACE_GET_RSEQ_CONFIGURATION,
                libc::c_long::from(self.thread),
                size,
                &raw mut found,
            )
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(found.area) }
    }

    /// A request whose argument is a number.
    fn tell(&self, request: u64, address: u64, data: u64) -> io::Result<()> {
        // SAFETY: the kernel reads and writes nothing of this process, only of the other.
        let done = unsafe {
            libc::syscall(libc::SYS_ptrace, request, libc::c_long::from(self.thread), address, data)
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// A request that answers with a word.
    fn ask(&self, request: u64, address: u64) -> io::Result<u64> {
        let mut word = 0_u64;
        // SAFETY: the kernel writes one word, into `word`.
        let done = unsafe {
            libc::syscall(libc::SYS_ptrace, request, libc::c_long::from(self.thread), address, &raw mut word)
        };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(word) }
    }

    /// Waits until the thread stops; says by which signal.
    fn wait(&self) -> libc::c_int {
        let mut status = 0;
        // SAFETY: the status is written to `status`.
        let waited = unsafe { libc::waitpid(self.thread, &raw mut status, libc::__WALL) };
        assert_eq!(waited, self.thread, "{}", io::Error::last_os_error());
        assert!(libc::WIFSTOPPED(status), "the thread has ended: {status:#x}");
        libc::WSTOPSIG(status)
    }

    /// Lets the thread go on until its next trap.
    fn resume(&self, how: u64) {
        let mut signal = 0;
        loop {
            self.tell(how, 0, signal).unwrap();
            match self.wait() {
                libc::SIGTRAP => return,
                other => signal = other as u64,
            }
        }
    }

    /// A word of its memory.
    pub fn peek(&self, address: u64) -> u64 {
        self.ask(libc::PTRACE_PEEKDATA as u64, address).unwrap()
    }

    /// Writes a word of its memory, be it code.
    pub fn poke(&self, address: u64, word: u64) {
        self.tell(libc::PTRACE_POKEDATA as u64, address, word).unwrap();
    }

    /// Reads its memory, as far as there is some; returns how many bytes.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> usize {
        let here = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let there = libc::iovec { iov_base: address as *mut _, iov_len: bytes.len() };
        // SAFETY: the kernel writes to `bytes` only.
        let read = unsafe { libc::process_vm_readv(self.thread, &raw const here, 1, &raw const there, 1, 0) };
        usize::try_from(read).unwrap_or_else(|_| panic!("{}", io::Error::last_os_error()))
    }

    /// Its registers.
    pub fn registers(&self) -> libc::user_regs_struct {
        let mut registers = MaybeUninit::uninit();
        // SAFETY: the kernel fills it, if there is no error.
        unsafe {
            let (thread, place) = (libc::c_long::from(self.thread), registers.as_mut_ptr());
            let done = libc::syscall(libc::SYS_ptrace, libc::PTRACE_GETREGS, thread, 0, place);
            assert_eq!(done, 0, "{}", io::Error::last_os_error());
            registers.assume_init()
        }
    }

    /// The address of its next instruction.
    pub fn ip(&self) -> u64 {
        let rip = std::mem::offset_of!(libc::user_regs_struct, rip) as u64;
        self.ask(libc::PTRACE_PEEKUSER as u64, rip).unwrap()
    }

    /// Executes one instruction; gives the address of the next.
    pub fn step(&self) -> u64 {
        self.resume(libc::PTRACE_SINGLESTEP as u64);
        self.ip()
    }

    /// Steps until `found` finds what it looks for.
    pub fn step_until<T>(&self, mut found: impl FnMut(u64) -> Option<T>) -> T {
        (0..20_000).find_map(|_| found(self.step())).expect("not within so many instructions")
    }

    /// Makes it go on at `place`.
    pub fn jump(&self, place: u64) {
        let rip = std::mem::offset_of!(libc::user_regs_struct, rip) as u64;
        self.tell(libc::PTRACE_POKEUSER as u64, rip, place).unwrap();
    }

    /// Lets the thread run until it is about to execute the instruction at `place`.
    pub fn run_to(&self, place: u64) {
        let code = self.peek(place);
        self.poke(place, code & !0xff | u64::from(TRAP));
        self.resume(libc::PTRACE_CONT as u64);
        assert_eq!(self.ip(), place + 1, "stopped elsewhere");
        self.poke(place, code);
        self.jump(place);
    }

    /// The section that the thread has said it is in, or was in last.
    pub fn section(&self) -> Option<Section> {
        let descriptor = self.peek(self.area + 8);
        (descriptor != 0).then(|| {
            let [start, length, abort] = [8, 16, 24].map(|offset| self.peek(descriptor + offset));
            Section { start, end: start + length, abort }
        })
    }

    /// Makes the kernel believe that the thread is in no section.
    pub fn disarm(&self) {
        self.poke(self.area + 8, 0);
    }

    /// Lets the thread go for good, and waits until its process has ended.
    pub fn finish(mut self) -> Output {
        self.tell(libc::PTRACE_DETACH as u64, 0, 0).unwrap();
        let mut stdout = Vec::new();
        self.stdout.read_to_end(&mut stdout).unwrap();
        Output { stdout, ..self.process.wait_with_output().unwrap() }
    }
}
