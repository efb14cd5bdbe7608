//! Backends that each break a rule, and have to fail for it.

use crate::others::{Deaf, Holding, Promising};
use ioctx::aio::{Backend, Buffer, BufferMut, Cancellable, Completion, FileRef, Finished, Op, Submitted};
use ioctx::backend::Threads;
use ioctx::backend::conformance::{self, Outcome, Suite};
use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

/// A pool, and what is done to some requests instead.
struct Broken {
    pool: Threads,
    defect: fn(&Self, Completion) -> Defective,
    turn: AtomicUsize,
}

impl Broken {
    fn new(defect: fn(&Self, Completion) -> Defective) -> Self {
        let pool = Threads::new(2).unwrap();
        Self { pool, defect, turn: AtomicUsize::new(0) }
    }
}

impl Backend for Broken {
    fn submit(&self, work: Completion) -> Submitted {
        (self.defect)(self, work).unwrap_or_else(|work| self.pool.submit(work))
    }

    fn flush(&self) {
        self.pool.flush();
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        self.pool.poll(done);
    }
}

type Defective = Result<Submitted, Completion>;

fn done(work: Completion, result: io::Result<usize>) -> Defective {
    Ok(Submitted::Done(work.finish(result)))
}

pub(super) fn is_pipe(file: &FileRef) -> bool {
    use std::os::unix::fs::FileTypeExt;
    file.with_file(|file| file.metadata().unwrap().file_type().is_fifo())
}

/// A plain read, of all buffers, and what it gave.
fn read(op: &mut Op) -> Option<io::Result<usize>> {
    match op {
        Op::Read { file, buf, offset } if !is_pipe(file) => {
            Some(file.with_file(|file| file.read_at(buf, *offset)))
        }
        Op::ReadV { file, bufs, offset } if !is_pipe(file) => {
            let mut whole = vec![0; bufs.iter().map(|buf| buf.len()).sum()];
            let read = file.with_file(|file| file.read_at(&mut whole, *offset));
            let mut rest = &whole[..*read.as_ref().unwrap_or(&0)];
            for buf in bufs {
                let n = buf.len().min(rest.len());
                buf[..n].copy_from_slice(&rest[..n]);
                rest = &rest[n..];
            }
            Some(read)
        }
        _ => None,
    }
}

fn write(op: &Op) -> Option<io::Result<usize>> {
    match op {
        Op::Write { file, buf, offset } if !is_pipe(file) => {
            Some(file.with_file(|file| file.write_at(buf, *offset)))
        }
        Op::WriteV { file, bufs, offset } if !is_pipe(file) => {
            let whole: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            Some(file.with_file(|file| file.write_at(&whole, *offset)))
        }
        _ => None,
    }
}

fn sync(op: &Op) -> Option<io::Result<usize>> {
    match op {
        Op::Fsync { file } => Some(file.with_file(|file| file.sync_all()).map(|()| 0)),
        Op::Fdatasync { file } => Some(file.with_file(|file| file.sync_data()).map(|()| 0)),
        _ => None,
    }
}

fn asked(op: &Op) -> usize {
    match op {
        Op::Read { buf, .. } => buf.len(),
        Op::ReadV { bufs, .. } => bufs.iter().map(|buf| buf.len()).sum(),
        Op::Write { buf, .. } => buf.len(),
        Op::WriteV { bufs, .. } => bufs.iter().map(|buf| buf.len()).sum(),
        _ => 0,
    }
}

/// A defect, and the checks that have to find it.
struct Mutant {
    name: &'static str,
    found_by: &'static [&'static str],
    defect: fn(&Broken, Completion) -> Defective,
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "loses a request now and then",
        found_by: &[
            "one_event_each",
            "batches",
            "futures",
            "flushed",
            "many_threads",
            "cancel_done",
            "destroy_while_submitting",
            "load",
        ],
        defect: |broken, work| {
            if broken.turn.fetch_add(1, Relaxed) % 4 != 3 {
                return Err(work);
            }
            std::mem::forget(work);
            Ok(Submitted::Queued)
        },
    },
    Mutant {
        name: "drops a request now and then",
        found_by: &["one_event_each", "load"],
        defect: |broken, work| match broken.turn.fetch_add(1, Relaxed) % 4 {
            3 => {
                drop(work);
                Ok(Submitted::Queued)
            }
            _ => Err(work),
        },
    },
    Mutant {
        name: "counts its nops",
        found_by: &["nop"],
        defect: |broken, work| match work.request().op {
            Op::Nop => done(work, Ok(broken.turn.fetch_add(1, Relaxed))),
            _ => Err(work),
        },
    },
    Mutant {
        name: "panics",
        found_by: &["nop", "cancel_done"],
        defect: |_, work| match work.request().op {
            Op::Nop => panic!("on purpose, by a backend that is broken"),
            _ => Err(work),
        },
    },
    Mutant {
        name: "hangs in submit",
        found_by: &["nop", "batches"],
        defect: |_, _work| loop {
            thread::park();
        },
    },
    Mutant {
        name: "refuses now and then",
        found_by: &["one_event_each", "nop"],
        defect: |broken, work| match broken.turn.fetch_add(1, Relaxed) % 4 {
            3 => Ok(Submitted::Refused(work, io::ErrorKind::WouldBlock.into())),
            _ => Err(work),
        },
    },
    Mutant {
        name: "changes the user data",
        found_by: &["nop", "one_event_each"],
        defect: |_, mut work| {
            work.request_mut().user_data ^= 1 << 63;
            Err(work)
        },
    },
    Mutant {
        name: "ignores the offset of writes",
        found_by: &["write_then_read", "vectored", "beyond_end", "load"],
        defect: |_, mut work| {
            if let Op::Write { offset, .. } | Op::WriteV { offset, .. } = &mut work.request_mut().op {
                *offset = 0;
            }
            Err(work)
        },
    },
    Mutant {
        name: "ignores the offset of reads",
        found_by: &["write_then_read", "vectored", "short_at_end", "buffers_read", "load"],
        defect: |_, mut work| {
            if let Op::Read { offset, .. } | Op::ReadV { offset, .. } = &mut work.request_mut().op {
                *offset = 0;
            }
            Err(work)
        },
    },
    Mutant {
        name: "says that writes are done, and does not do them",
        found_by: &[
            "write_then_read",
            "vectored",
            "sync",
            "large",
            "buffers_written",
            "buffers_mixed",
            "memory_of_others",
            "load",
        ],
        defect: |_, work| match work.request().op {
            Op::Write { .. } | Op::WriteV { .. } => {
                let len = asked(&work.request().op);
                done(work, Ok(len))
            }
            _ => Err(work),
        },
    },
    Mutant {
        name: "loses what it has read",
        found_by: &[
            "write_then_read",
            "vectored",
            "large",
            "buffers_read",
            "buffers_mixed",
            "memory_of_others",
            "load",
        ],
        defect: |_, mut work| match read(&mut work.request_mut().op) {
            Some(result) => {
                match &mut work.request_mut().op {
                    Op::Read { buf, .. } => buf.fill(0),
                    Op::ReadV { bufs, .. } => bufs.iter_mut().for_each(|buf| buf.fill(0)),
                    _ => {}
                }
                done(work, result)
            }
            None => Err(work),
        },
    },
    Mutant {
        name: "says that short transfers were whole",
        found_by: &["large", "short_at_end", "beyond_end", "file_system_full"],
        defect: |_, mut work| {
            // Like an engine that takes a MiB at a time.
            let (len, op) = (asked(&work.request().op), &mut work.request_mut().op);
            let result = match op {
                Op::Read { file, buf, offset } if !is_pipe(file) => {
                    let most = buf.len().min(1 << 20);
                    Some(file.with_file(|file| file.read_at(&mut buf[..most], *offset)))
                }
                Op::Write { file, buf, offset } if !is_pipe(file) => {
                    let most = buf.len().min(1 << 20);
                    Some(file.with_file(|file| file.write_at(&buf[..most], *offset)))
                }
                _ => None,
            };
            match result {
                Some(result) => done(work, result.map(|_| len)),
                None => Err(work),
            }
        },
    },
    Mutant {
        name: "says that short writes to pipes were whole",
        found_by: &["short_write"],
        defect: |_, work| match &work.request().op {
            Op::Write { file, buf, .. } if is_pipe(file) => {
                let len = buf.len();
                let result = file.with_file(|mut file| io::Write::write(&mut file, buf));
                done(work, result.map(|_| len))
            }
            _ => Err(work),
        },
    },
    Mutant {
        name: "writes over what it has not read",
        found_by: &["short_at_end", "beyond_end"],
        defect: |_, mut work| match read(&mut work.request_mut().op) {
            Some(Ok(n)) => {
                if let Op::Read { buf, .. } = &mut work.request_mut().op {
                    buf[n..].fill(0);
                }
                done(work, Ok(n))
            }
            Some(error) => done(work, error),
            None => Err(work),
        },
    },
    Mutant {
        name: "exchanges buffers",
        found_by: &["buffers_written", "buffers_read", "buffers_come_back", "buffers_mixed"],
        defect: |_, mut work| {
            let op = &mut work.request_mut().op;
            let Some(result) = read(op).or_else(|| write(op)) else { return Err(work) };
            match op {
                Op::Read { buf, .. } => *buf = BufferMut::from(buf.to_vec()),
                Op::Write { buf, .. } => *buf = Buffer::from(buf.to_vec()),
                Op::ReadV { bufs, .. } => {
                    bufs.iter_mut().for_each(|buf| *buf = BufferMut::from(buf.to_vec()))
                }
                Op::WriteV { bufs, .. } => bufs.iter_mut().for_each(|buf| *buf = Buffer::from(buf.to_vec())),
                _ => {}
            }
            done(work, result)
        },
    },
    Mutant {
        name: "takes several buffers from the last",
        found_by: &["vectored", "buffers_mixed"],
        defect: |_, mut work| {
            if let Op::WriteV { bufs, .. } = &mut work.request_mut().op {
                bufs.reverse();
            }
            if let Op::ReadV { bufs, .. } = &mut work.request_mut().op {
                bufs.reverse();
            }
            Err(work)
        },
    },
    Mutant {
        name: "refuses to transfer nothing",
        found_by: &["zero_length"],
        defect: |_, work| match work.request().op {
            Op::Read { .. } | Op::Write { .. } | Op::ReadV { .. } | Op::WriteV { .. }
                if asked(&work.request().op) == 0 =>
            {
                done(work, Err(io::Error::from_raw_os_error(libc::EINVAL)))
            }
            _ => Err(work),
        },
    },
    Mutant {
        name: "knows one error",
        found_by: &[
            "wrong_direction",
            "directory",
            "too_large",
            "no_reader",
            "sync_of_pipe",
            "device_full",
            "file_system_full",
            "unaligned_direct",
        ],
        defect: |_, mut work| {
            let op = &mut work.request_mut().op;
            let result = match op {
                // Nobody reads it, in the one check.
                Op::Write { file, .. } | Op::WriteV { file, .. } if is_pipe(file) => {
                    Some(Err(io::ErrorKind::Other.into()))
                }
                _ => read(op).or_else(|| write(op)).or_else(|| sync(op)),
            };
            match result {
                Some(result) => done(work, result.map_err(|_| io::Error::from_raw_os_error(libc::EIO))),
                None => Err(work),
            }
        },
    },
    Mutant {
        name: "syncs what cannot be synced, and fails what can",
        found_by: &["sync", "sync_of_pipe", "one_event_each"],
        defect: |_, work| match sync(&work.request().op) {
            Some(Ok(_)) => done(work, Err(io::Error::from_raw_os_error(libc::EIO))),
            Some(Err(_)) => done(work, Ok(0)),
            None => Err(work),
        },
    },
    Mutant {
        name: "knows no files that cannot seek",
        found_by: &["offset_ignored", "read_waits", "sleeper_woken_by_data"],
        defect: |_, work| match &work.request().op {
            Op::Read { file, .. } | Op::Write { file, .. } if is_pipe(file) => {
                done(work, Err(io::Error::from_raw_os_error(libc::ESPIPE)))
            }
            _ => Err(work),
        },
    },
    Mutant {
        name: "does not wait for data",
        found_by: &["read_waits", "submitter_gone", "sleeper_woken_by_data"],
        defect: |_, work| match &work.request().op {
            Op::Read { file, .. } if is_pipe(file) => done(work, Ok(0)),
            _ => Err(work),
        },
    },
    Mutant {
        name: "waits for data in submit",
        found_by: &["read_waits", "cancel_hastens"],
        defect: |_, mut work| match &mut work.request_mut().op {
            Op::Read { file, buf, .. } if is_pipe(file) => {
                let result = file.with_file(|mut file| io::Read::read(&mut file, buf));
                done(work, result)
            }
            _ => Err(work),
        },
    },
    Mutant {
        name: "never ends reads of pipes",
        found_by: &[
            "destroy_in_flight",
            "destroy_by_many",
            "drop_in_flight",
            "dropped_future",
            "cancel_waiting",
        ],
        defect: |_, work| match &work.request().op {
            Op::Read { file, .. } if is_pipe(file) => {
                std::mem::forget(work);
                Ok(Submitted::Queued)
            }
            _ => Err(work),
        },
    },
    Mutant {
        name: "keeps reads of pipes with their threads",
        found_by: &["submitter_gone"],
        defect: |_, work| {
            thread_local! {
                static KEPT: RefCell<Vec<Completion>> = const { RefCell::new(Vec::new()) };
            }
            match &work.request().op {
                Op::Read { file, .. } if is_pipe(file) => {
                    KEPT.with_borrow_mut(|kept| kept.push(work));
                    Ok(Submitted::Queued)
                }
                _ => Err(work),
            }
        },
    },
    Mutant {
        name: "does writes before they are claimed",
        found_by: &["cancel_race"],
        defect: |broken, work| match write(&work.request().op) {
            Some(_) => Ok(broken.pool.submit(work)),
            None => Err(work),
        },
    },
    Mutant {
        name: "reads before it claims",
        found_by: &["cancel_waiting"],
        defect: |_, work| match &work.request().op {
            Op::Read { file, .. } if is_pipe(file) => {
                let file = file.with_file(|file| file.try_clone().unwrap());
                let token = work.cancellable();
                thread::spawn(move || {
                    let mut byte = [0];
                    let result = io::Read::read(&mut &file, &mut byte);
                    if let Some(work) = Cancellable::claim(token) {
                        work.complete(result);
                    }
                });
                Ok(Submitted::Queued)
            }
            _ => Err(work),
        },
    },
    Mutant {
        name: "finds everything ready",
        found_by: &["poll_ready", "poll_waits", "poll_hang_up", "cancel_poll"],
        defect: |_, work| match work.request().op {
            Op::Poll { interest, .. } => done(work, Ok(interest.bits().into())),
            _ => Err(work),
        },
    },
    Mutant {
        name: "runs operations twice",
        found_by: &["custom", "custom_panics"],
        defect: |_, mut work| match &mut work.request_mut().op {
            Op::Custom(custom) => {
                let _ = custom.run();
                let result = custom.run();
                done(work, result)
            }
            _ => Err(work),
        },
    },
    Mutant {
        name: "keeps files and hands others back",
        found_by: &["files_closed"],
        defect: |_, mut work| match &mut work.request_mut().op {
            Op::Read { file, .. } | Op::Write { file, .. } => {
                let copy = file.with_file(|file| file.try_clone().unwrap());
                std::mem::forget(std::mem::replace(file, copy.into()));
                Err(work)
            }
            _ => Err(work),
        },
    },
];

/// What is broken in another way than by what becomes of a request, and the checks that have to find it.
/// A name, what makes a suite for it, and which checks find it.
type Found = (&'static str, Box<dyn Fn() -> Suite + Send>, &'static [&'static str]);

fn others() -> [Found; 3] {
    let pool = || Threads::new(2).unwrap();
    [
        (
            "does not say when to look",
            Box::new(|| Suite::new(Deaf::new)),
            &["sleeper_woken", "sleeper_woken_by_data"],
        ),
        (
            "holds back",
            Box::new(move || Suite::new(move || Holding::new(pool()))),
            &["nop", "flushed", "sleeper_woken", "futures"],
        ),
        (
            "promises to cancel",
            Box::new(move || Suite::new(move || Promising(pool()))),
            &["cancel_hastens", "cancel_poll"],
        ),
    ]
}

#[test]
fn every_defect_is_found() {
    let mutants = MUTANTS.iter().map(|mutant| -> Found {
        let make = || Suite::new(|| Broken::new(mutant.defect));
        (mutant.name, Box::new(make), mutant.found_by)
    });
    let all = Mutex::new(mutants.chain(others()));
    // Most of them wait most of the time.
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some((name, make, found_by)) = all.lock().unwrap().next() else { break };
                    let mut left = found_by.to_vec();
                    // Again, if what was to sleep was kept from it by a busy machine.
                    for _ in 0..5 {
                        let report = make()
                            .dir(env!("CARGO_TARGET_TMPDIR"))
                            .patience(Duration::from_millis(1000))
                            .requests(1000)
                            .only(left.iter().copied())
                            .run();
                        println!("a backend that {name}:\n{report}");
                        left.retain(|check| !matches!(report.outcome(check), Some(Outcome::Failed(_))));
                        if left.is_empty() {
                            break;
                        }
                    }
                    assert!(left.is_empty(), "{name}: {left:?}");
                }
            });
        }
    });
}

#[test]
fn every_check_finds_a_defect() {
    let finders = MUTANTS.iter().map(|mutant| mutant.found_by).chain(others().map(|(.., found_by)| found_by));
    let finders: HashSet<_> = finders.flatten().copied().collect();
    let idle: Vec<_> =
        conformance::checks().map(|check| check.name).filter(|name| !finders.contains(name)).collect();
    assert!(idle.is_empty(), "{idle:?}");
}

#[test]
fn without_a_defect_it_passes() {
    crate::pass(Suite::new(|| Broken::new(|_, work| Err(work))).requests(10_000));
}
