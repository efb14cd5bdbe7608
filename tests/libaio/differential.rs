//! The same calls, made up by chance, to the kernel and to the crate: they answer alike.

use super::api::{Api, Kernel, Ours, reap, request};
use ioctx::capi::{FLAG_IOPRIO, FLAG_RESFD, Handle, Iocb, command};
use ioctx::ring::Event;
use std::ffi::{c_int, c_long};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{ptr, thread};

/// How many calls: as many as `IOCTX_LIBAIO_CALLS` says.
const CALLS: u32 = 3_000;
/// Of those, how many make a script, with files and contexts of its own.
const SCRIPT: u32 = 1_000;
/// How many scripts run at a time. The kernel's `io_destroy` sleeps for milliseconds, which is most of what they do.
const THREADS: usize = 32;
const SIZE: usize = 64 << 10;
const BUFFER: usize = 8192;
const BUFFERS: usize = 8;
/// Which of the descriptors is the eventfd.
const EVENTFD: usize = 9;
/// One that is always ready, of zeroes.
const READY: usize = 7;
const PAGE: usize = 4096;

struct Rng(u64);

impl Rng {
    /// Seeds that follow each other give numbers that do not.
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A call, in terms that both sides understand.
#[derive(Clone, Debug)]
enum Call {
    Setup {
        n: c_int,
        place: usize,
        into: Pointer,
        occupied: bool,
    },
    Destroy {
        context: Which,
    },
    Submit {
        context: Which,
        n: c_long,
        list: Pointer,
        requests: Vec<Wanted>,
    },
    Cancel {
        context: Which,
        request: Pointer,
    },
    /// With so many events ready.
    GetEvents {
        context: Which,
        ready: usize,
        min: c_long,
        max: c_long,
        out: Pointer,
        timeout: Pointer,
    },
}

impl Call {
    /// Whether it is a submission with `RWF_NOWAIT`, whose requests can all be made again.
    fn may_not_wait(&self) -> bool {
        let Self::Submit { requests, .. } = self else { return false };
        requests.iter().any(|wanted| wanted.request.rw_flags & libc::RWF_NOWAIT != 0)
            && requests.iter().all(|wanted| wanted.fd != EVENTFD)
    }
}

#[derive(Clone, Copy, Debug)]
enum Which {
    Place(usize),
    Null,
    Garbage(usize),
}

#[derive(Clone, Copy, Debug)]
enum Pointer {
    Good,
    Null,
    Bad,
    Unmapped,
    /// Half of it is on a page that may be written, and the rest on one that may not be touched.
    Across,
    ReadOnly,
}

/// A request: which descriptor, which buffer, and everything else as it is.
#[derive(Clone, Debug)]
struct Wanted {
    request: Iocb,
    bad: Option<Pointer>,
    fd: usize,
    buffer: Pointer,
    start: usize,
    vector: Option<Vec<(Pointer, usize, usize)>>,
    resfd: usize,
}

impl Wanted {
    /// Whether it would signal the eventfd.
    fn signals(&self) -> bool {
        self.request.flags & FLAG_RESFD != 0 && self.resfd == EVENTFD
    }
}

/// One side's files, buffers and contexts.
struct Side {
    contexts: [Handle; 4],
    fds: Vec<i32>,
    _files: Vec<File>,
    content: File,
    memory: Vec<u8>,
    start: usize,
    requests: [Iocb; BUFFERS],
    vectors: [Vec<libc::iovec>; BUFFERS],
    /// For what a call itself refers to, for requests, for vectors, and for buffers.
    pages: [usize; 4],
}

/// A page, one that may not be touched, the first once more, only to be read, and another that may not be touched.
fn pages() -> usize {
    // SAFETY: four pages anywhere, of which the first and the third become those of a file without a name.
    unsafe {
        let (shared, fixed) = (libc::MAP_SHARED, libc::MAP_SHARED | libc::MAP_FIXED);
        let file = libc::memfd_create(c"pages".as_ptr(), libc::MFD_CLOEXEC);
        assert_eq!(libc::ftruncate(file, PAGE as i64), 0);
        let pages =
            libc::mmap(ptr::null_mut(), 4 * PAGE, libc::PROT_NONE, shared | libc::MAP_ANONYMOUS, -1, 0);
        assert_ne!(pages, libc::MAP_FAILED);
        let third = pages.byte_add(2 * PAGE);
        assert_eq!(libc::mmap(pages, PAGE, libc::PROT_READ | libc::PROT_WRITE, fixed, file, 0), pages);
        assert_eq!(libc::mmap(third, PAGE, libc::PROT_READ, fixed, file, 0), third);
        libc::close(file);
        pages.expose_provenance()
    }
}

impl Side {
    fn new(path: &Path) -> Self {
        let bytes: Vec<_> = (0..SIZE).map(|i| (i / 7) as u8).collect();
        std::fs::write(path, bytes).unwrap();
        let open = |read: bool, write: bool, flags: i32| {
            OpenOptions::new().read(read).write(write).custom_flags(flags).open(path)
        };
        let both = open(true, true, 0).unwrap();
        // SAFETY: a new descriptor.
        let eventfd = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_NONBLOCK)) };
        let files = vec![
            both.try_clone().unwrap(),
            open(true, false, 0).unwrap(),
            open(false, true, 0).unwrap(),
            open(true, true, libc::O_DIRECT).unwrap_or_else(|_| both.try_clone().unwrap()),
            open(true, false, libc::O_DIRECT).unwrap_or_else(|_| open(true, false, 0).unwrap()),
            open(true, false, libc::O_PATH).unwrap(),
            File::open(path.parent().unwrap()).unwrap(),
            File::open("/dev/zero").unwrap(),
            OpenOptions::new().write(true).open("/dev/null").unwrap(),
            eventfd.into(),
        ];
        let mut fds: Vec<_> = files.iter().map(|file| file.as_raw_fd()).collect();
        fds.extend([-1, 1 << 20]);
        let memory = vec![0; BUFFER * (BUFFERS + 1)];
        let start = memory.as_ptr().addr().next_multiple_of(4096) - memory.as_ptr().addr();
        Self {
            contexts: [ptr::null_mut(); 4],
            fds,
            _files: files,
            content: both,
            memory,
            start,
            requests: [Iocb::default(); BUFFERS],
            vectors: [const { Vec::new() }; BUFFERS],
            pages: [(); 4].map(|()| pages()),
        }
    }

    /// An address of that kind for the `len` bytes at `good`, on the pages of that number.
    fn pointer(&self, pointer: Pointer, good: usize, len: usize, pages: usize) -> usize {
        let pages = self.pages[pages];
        let copy = |at: usize, len: usize| {
            let (from, to) =
                (ptr::with_exposed_provenance::<u8>(good), ptr::with_exposed_provenance_mut(pages + at));
            // SAFETY: within the first page; of what is there.
            unsafe { ptr::copy(from, to, len) };
        };
        let len = len.min(PAGE);
        match pointer {
            Pointer::Good => good,
            Pointer::Null => 0,
            Pointer::Bad => usize::MAX & !7,
            Pointer::Unmapped => pages + PAGE,
            Pointer::Across => {
                copy(PAGE - len / 2, len / 2);
                pages + PAGE - len / 2
            }
            Pointer::ReadOnly => {
                copy(0, len);
                pages + 2 * PAGE
            }
        }
    }

    fn context(&self, which: Which) -> Handle {
        match which {
            Which::Place(place) => self.contexts[place],
            Which::Null => ptr::null_mut(),
            Which::Garbage(number) => ptr::without_provenance_mut(number),
        }
    }

    /// Makes the call, and says all that can be seen of it.
    fn make<A: Api>(&mut self, call: &Call) -> (c_long, Vec<(u64, i64, i64)>) {
        let mut events = Vec::new();
        let answer = match call {
            Call::Setup { n, place, into, occupied } => {
                let mut handle: Handle =
                    if *occupied { ptr::without_provenance_mut(8) } else { ptr::null_mut() };
                let out = self.pointer(*into, (&raw mut handle).expose_provenance(), 8, 0);
                let setup = || A::setup(*n, ptr::with_exposed_provenance_mut(out));
                let mut done = setup();
                // Where others have taken all that the kernel gives.
                while done == -c_long::from(libc::EAGAIN) && (1..=200).contains(n) {
                    thread::sleep(Duration::from_millis(10));
                    done = setup();
                }
                if done == 0 {
                    let before = std::mem::replace(&mut self.contexts[*place], handle);
                    assert!(before.is_null() || A::destroy(before) == 0);
                }
                done
            }
            Call::Destroy { context } => {
                let done = A::destroy(self.context(*context));
                // An old handle may be somebody else's by now.
                if let Which::Place(place) = context {
                    self.contexts[*place] = ptr::null_mut();
                }
                done
            }
            Call::Submit { context, n, list, requests } => {
                for wanted in requests.iter().filter(|wanted| wanted.request.rw_flags & libc::RWF_NOWAIT != 0)
                {
                    self.settle(matches!(wanted.fd, 3 | 4));
                }
                let mut addresses = Vec::new();
                for (i, wanted) in requests.iter().enumerate() {
                    self.fill(i, wanted);
                    let good = (&raw mut self.requests[i]).expose_provenance();
                    addresses
                        .push(wanted.bad.map_or(good, |bad| self.pointer(bad, good, size_of::<Iocb>(), 1)));
                }
                let list =
                    self.pointer(*list, addresses.as_ptr().expose_provenance(), 8 * addresses.len(), 0);
                let context = self.context(*context);
                let signals = self.signals(requests);
                let done = A::submit(context, *n, ptr::with_exposed_provenance(list));
                if done > 0 {
                    events = reap::<A>(context, done as usize).unwrap();
                    assert_eq!(events.len(), done as usize, "{} loses events", A::NAME);
                    // An event may be seen before it is signalled.
                    let due = requests[..done as usize].iter().filter(|wanted| wanted.signals()).count();
                    let begun = Instant::now();
                    while requests.iter().all(|wanted| wanted.fd != EVENTFD)
                        && self.signals(requests) != signals + due
                    {
                        assert!(begun.elapsed() < Duration::from_secs(10), "{} loses signals", A::NAME);
                        thread::yield_now();
                    }
                }
                done
            }
            Call::Cancel { context, request } => {
                let mut event = Event::default();
                let good = (&raw mut self.requests[0]).expose_provenance();
                let request = self.pointer(*request, good, size_of::<Iocb>(), 1);
                A::cancel(self.context(*context), ptr::with_exposed_provenance_mut(request), &mut event)
            }
            Call::GetEvents { context, ready, min, max, out, timeout } => {
                let context = self.context(*context);
                for i in 0..*ready {
                    let polled = Iocb { buf: 1, ..request(command::POLL, self.fds[READY], i as u64) };
                    self.requests[i] = polled;
                    let one = &raw mut self.requests[i];
                    if A::submit(context, 1, &one) != 1 {
                        break;
                    }
                }
                let mut room = [Event::default(); 4];
                let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
                let out = self.pointer(*out, room.as_mut_ptr().expose_provenance(), size_of_val(&room), 0);
                let timeout = match timeout {
                    // That would wait.
                    Pointer::Null => ptr::from_ref(&zero).expose_provenance(),
                    other => {
                        self.pointer(*other, ptr::from_ref(&zero).expose_provenance(), size_of_val(&zero), 1)
                    }
                };
                let out = ptr::with_exposed_provenance_mut::<Event>(out);
                let done = A::get_events(context, *min, *max, out, ptr::with_exposed_provenance(timeout));
                // SAFETY: so many were written there.
                events = (0..done.max(0) as usize).map(|i| unsafe { out.add(i).read_unaligned() }).collect();
                // Those that are left.
                if *ready > 0 && A::get_events(context, 0, 0, ptr::null_mut(), &zero) == 0 {
                    events.extend(reap::<A>(context, 0).unwrap());
                }
                done
            }
        };
        // How much of a transfer was done when it failed is nobody's business.
        if events.iter().any(|event| event.res < 0) {
            self.memory.fill(0);
        }
        let mut seen: Vec<_> = events.iter().map(|event| (event.data, event.res, event.res2)).collect();
        seen.sort_unstable();
        (answer, seen)
    }

    fn buffers(&self) -> &[u8] {
        &self.memory[self.start..][..BUFFER * BUFFERS]
    }

    fn content(&self) -> Vec<u8> {
        let mut content = vec![0; 2 * SIZE];
        let len = self.content.read_at(&mut content, 0).unwrap();
        content.truncate(len);
        content
    }

    /// Has nothing left to wait for, neither what is to be written nor what is not cached: how far one gets without
    /// waiting would be each side's own.
    fn settle(&self, direct: bool) {
        if direct {
            self.content.sync_data().unwrap();
        }
        self.content.read_at(&mut [0; 2 * SIZE], 0).unwrap();
    }

    /// How often the eventfd was signalled, if these would do so.
    fn signals(&self, requests: &[Wanted]) -> usize {
        if !requests.iter().any(Wanted::signals) {
            return 0;
        }
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fds[EVENTFD])).unwrap();
        let count = info.lines().find_map(|line| line.strip_prefix("eventfd-count:")).unwrap();
        usize::from_str_radix(count.trim(), 16).unwrap()
    }

    fn fill(&mut self, i: usize, wanted: &Wanted) {
        let buffer = self.memory.as_mut_ptr().expose_provenance() + self.start + i * BUFFER;
        let mut request = wanted.request;
        request.data = i as u64;
        request.fildes = self.fds[wanted.fd];
        request.resfd = self.fds[wanted.resfd];
        if let Some(parts) = &wanted.vector {
            self.vectors[i] = parts
                .iter()
                .map(|(pointer, start, len)| libc::iovec {
                    iov_base: ptr::with_exposed_provenance_mut(self.pointer(
                        *pointer,
                        buffer + start,
                        *len,
                        3,
                    )),
                    iov_len: *len,
                })
                .collect();
            let vector = self.vectors[i].as_ptr().expose_provenance();
            request.buf = self.pointer(wanted.buffer, vector, size_of_val(&self.vectors[i][..]), 2) as u64;
        } else if matches!(request.opcode, command::PREAD | command::PWRITE) {
            request.buf =
                self.pointer(wanted.buffer, buffer + wanted.start, request.nbytes as usize, 3) as u64;
        }
        self.requests[i] = request;
    }
}

fn pointer(rng: &mut Rng) -> Pointer {
    use Pointer::*;
    if rng.one_in(8) { rng.pick(&[Null, Bad, Unmapped, Across, ReadOnly]) } else { Good }
}

fn wanted(rng: &mut Rng, writes: bool) -> Wanted {
    use command::*;
    let opcode = match writes {
        // These take longest.
        true if rng.one_in(12) => rng.pick(&[FSYNC, FDSYNC]),
        true => rng.pick(&[PWRITE, PWRITEV]),
        false => rng.pick(&[PREAD, PREADV, POLL]),
    };
    let opcode = if rng.one_in(30) { rng.pick(&[4, 9, 77, u16::MAX]) } else { opcode };
    // Mostly those on which something can be done.
    let fd = if rng.one_in(3) { rng.below(12) } else { rng.pick(&[0, 0, 1, 3, 7]) } as usize;
    let mut request = Iocb { opcode, ..Iocb::default() };
    let start = rng.pick(&[0, 0, 0, 512, 3]);
    let mut vector: Option<Vec<(Pointer, usize, usize)>> = None;
    match opcode {
        PREAD | PWRITE => {
            request.nbytes = rng.pick(&[0, 1, 512, 512, 4096, 4096, 5000, i64::MAX as u64 + 1, u64::MAX]);
            request.offset =
                rng.pick(&[0, 0, 512, 4096, 4096, 7, SIZE as i64 - 100, SIZE as i64, -1, i64::MIN]);
        }
        PREADV | PWRITEV => {
            let n = rng.pick(&[0, 1, 2, 3, 3]);
            let len = |rng: &mut Rng| rng.pick(&[0, 1, 512, 512, 1024, 2048, usize::MAX]);
            vector = Some((0..n).map(|i| (pointer(rng), i * 2048, len(rng))).collect());
            request.nbytes = if rng.one_in(20) { rng.pick(&[1025, 1 << 40, u64::MAX]) } else { n as u64 };
            request.offset = rng.pick(&[0, 512, 4096, 100, SIZE as i64, -5]);
        }
        // What files are at any time.
        POLL => {
            request.buf = rng.pick(&[4, 5, 5, 5, 1 << 16, u64::MAX]);
            (request.nbytes, request.offset) = if rng.one_in(10) { (1, 0) } else { (0, 0) };
        }
        _ => {
            request.nbytes = u64::from(rng.one_in(10));
            request.offset = i64::from(rng.one_in(10));
        }
    }
    request.rw_flags =
        if rng.one_in(10) { rng.pick(&[1, 1, 1, 4, 8, 8, 8, 0x100, 0x4000_0000, -1]) } else { 0 };
    if fd == READY && request.rw_flags == libc::RWF_NOWAIT {
        // Gives what it can until it is another thread's turn.
        request.rw_flags = 0;
    }
    request.reserved2 = u64::from(rng.one_in(40));
    request.flags = if rng.one_in(8) { rng.pick(&[FLAG_RESFD, FLAG_IOPRIO, 3, 4]) } else { 0 };
    request.reqprio = rng.pick(&[0, 2 << 13 | 4, 3 << 13, 4 << 13, -1, 5]);
    // File systems are not shown what is nothing.
    let empty = |parts: &Vec<(_, _, usize)>| parts.iter().all(|part| part.2 == 0);
    if request.nbytes as u32 == 0 || vector.as_ref().is_some_and(empty) {
        request.rw_flags = 0;
    }
    let resfd = if rng.one_in(2) { EVENTFD } else { rng.below(12) as usize };
    let mut buffer = pointer(rng);
    if matches!(fd, 3 | 4) {
        // Which of two mistakes is found first depends on how the file lies on the disk.
        buffer = Pointer::Good;
        vector.iter_mut().flatten().for_each(|part| part.0 = Pointer::Good);
    }
    let bad =
        rng.one_in(30).then(|| rng.pick(&[Pointer::Null, Pointer::Bad, Pointer::Unmapped, Pointer::Across]));
    Wanted { request, bad, fd, buffer, start, vector, resfd }
}

fn which(rng: &mut Rng) -> Which {
    match rng.below(16) {
        0 => Which::Null,
        1 => Which::Garbage(rng.pick(&[1, 8, 4096, usize::MAX, usize::MAX & !4095, 1 << 47, 123 << 12])),
        place => Which::Place(place as usize % 4),
    }
}

fn call(rng: &mut Rng) -> Call {
    let context = which(rng);
    match rng.below(20) {
        0 if rng.one_in(2) => Call::Setup {
            n: rng.pick(&[0, -1, 1, 8, 8, 64, 200, c_int::MAX, c_int::MIN, c_int::MIN + 1]),
            place: rng.below(4) as usize,
            into: pointer(rng),
            occupied: rng.one_in(10),
        },
        2 if rng.one_in(8) => Call::Destroy { context },
        3 => Call::Cancel { context, request: pointer(rng) },
        4..7 => {
            let (out, timeout) = (pointer(rng), pointer(rng));
            let ready = rng.pick(&[0, 0, 1, 2, 3, 4]);
            // Where a ring ends, and is begun again, decides what is copied at a time.
            let ready = if matches!(out, Pointer::Across) { ready.min(2) } else { ready };
            let (min, max) =
                (rng.pick(&[0, 0, 1, -1, 4, 5, c_long::MIN]), rng.pick(&[0, 1, 4, 4, -1, c_long::MAX]));
            Call::GetEvents { context, ready, min, max, out, timeout }
        }
        _ => {
            // One at a time, or the order of what they do to the file would be each side's own.
            let writes = rng.one_in(3);
            let n = if writes { 1 } else { 1 + rng.below(BUFFERS as u64) as usize };
            let mut requests: Vec<_> = (0..n).map(|_| wanted(rng, writes)).collect();
            if !writes && rng.one_in(3) {
                // Most of them such as can be tried together.
                for wanted in requests.iter_mut().filter(|wanted| wanted.vector.is_none()) {
                    let nbytes = wanted.request.nbytes.clamp(1, 5000);
                    let offset = wanted.request.offset.max(0);
                    let odd = if rng.one_in(9) { wanted.request.rw_flags } else { 0 };
                    wanted.request =
                        Iocb { opcode: command::PREAD, nbytes, offset, rw_flags: odd, ..Iocb::default() };
                }
            }
            if n > 1 && requests.iter().any(Wanted::signals) {
                // Whether what it is read for comes before or after.
                requests.iter_mut().filter(|wanted| wanted.fd == EVENTFD).for_each(|wanted| wanted.fd = 0);
            }
            let n = if rng.one_in(25) { rng.pick(&[0, -1, c_long::MIN]) } else { n as c_long };
            Call::Submit { context, n, list: pointer(rng), requests }
        }
    }
}

/// Makes `calls` calls on either side.
fn script(directory: &Path, seed: u64, calls: u32) {
    let again = format!("IOCTX_SEED={seed} IOCTX_LIBAIO_CALLS={calls}");
    let mut rng = Rng::new(seed);
    let mut kernel = Side::new(&directory.join(format!("kernel-{seed}")));
    let mut ours = Side::new(&directory.join(format!("ours-{seed}")));
    for number in 0..calls {
        let call = call(&mut rng);
        let (mut want, mut got) = (kernel.make::<Kernel>(&call), ours.make::<Ours>(&call));
        // What may not wait gets as far as the system's memory allows, which others use as well.
        for _ in 0..if call.may_not_wait() { 5 } else { 0 } {
            if want != got {
                (want, got) = (kernel.make::<Kernel>(&call), ours.make::<Ours>(&call));
            }
        }
        assert!(got == want, "{again}: call {number}: we {got:?}, the kernel {want:?}: {call:?}");
        assert!(
            kernel.buffers() == ours.buffers(),
            "{again}: call {number}: other bytes in the buffers: {call:#?}"
        );
    }
    assert!(kernel.content() == ours.content(), "{again}: other bytes in the files");
    for place in 0..4 {
        Kernel::destroy(kernel.contexts[place]);
        Ours::destroy(ours.contexts[place]);
    }
}

#[test]
fn the_kernel_and_we_answer_alike() {
    let calls = std::env::var("IOCTX_LIBAIO_CALLS").map_or(CALLS, |calls| calls.parse().unwrap());
    let seed: u64 =
        std::env::var("IOCTX_SEED").map_or_else(|_| std::process::id().into(), |seed| seed.parse().unwrap());
    println!("IOCTX_SEED={seed} IOCTX_LIBAIO_CALLS={calls}");
    let mut probe = ptr::null_mut();
    if Kernel::setup(1, &mut probe) != 0 {
        println!("SKIPPED: the kernel gives no contexts");
        return;
    }
    Kernel::destroy(probe);
    // Where files are files, and can be opened with O_DIRECT.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let next = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(left) = calls.checked_sub(number * SCRIPT).filter(|left| *left > 0) else {
                        break;
                    };
                    script(directory.path(), seed.wrapping_add(number.into()), left.min(SCRIPT));
                }
            });
        }
    });
}
