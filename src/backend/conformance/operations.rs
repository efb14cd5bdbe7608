//! Each operation does what it says.

use super::rig::{Live, Rig, Tried, failed, must, pattern, same, same_bytes};
use super::{CAPACITY, Capability, Check};
use crate::aio::{Custom, Event, Op, Operation, Request};
use std::{fs, io};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "nop",
        says: "doing nothing gives 0",
        needs: &[],
        run: |rig| {
            let live = rig.context(1);
            for _ in 0..10 {
                live.gives("a nop", Request::nop(), 0)?;
            }
            live.end()
        },
    },
    Check {
        name: "write_then_read",
        says: "what was written is in the file where it was to be, and a read brings it",
        needs: &[Capability::Files],
        run: write_then_read,
    },
    Check {
        name: "vectored",
        says: "buffers are written and filled one after the other",
        needs: &[Capability::Files],
        run: vectored,
    },
    Check {
        name: "sync",
        says: "fsync and fdatasync give 0, and what was written before is in the file",
        needs: &[Capability::Files],
        run: sync,
    },
    Check {
        name: "large",
        says: "of a transfer of 8 MiB so many bytes are transferred as its event says",
        needs: &[Capability::Files],
        run: large,
    },
    Check {
        name: "custom",
        says: "an operation of the user's own is run once, and comes back with its result and what it found",
        needs: &[Capability::Custom],
        run: custom,
    },
    Check {
        name: "custom_panics",
        says: "an operation that panics ends with an error, and those after it are run",
        needs: &[Capability::Custom],
        run: custom_panics,
    },
];

/// The buffer of a read or write.
fn buffer(event: Event) -> Tried<Vec<u8>> {
    event.request.into_buffer().or_else(|request| {
        failed("the buffer to come back as what it was made of", format_args!("{request:?} came"))
    })
}

fn write_then_read(rig: &Rig) -> Tried {
    const BLOCK: usize = 3000;
    let live = rig.context(CAPACITY);
    let (file, path) = rig.file(b"")?;
    // Not in their order, so that no file position helps.
    for block in [3_u64, 0, 2, 1] {
        let bytes = pattern(block, BLOCK);
        live.gives("a write", Request::write(file.clone(), bytes, block * BLOCK as u64), BLOCK)?;
    }
    let whole: Vec<u8> = (0..4).flat_map(|block| pattern(block, BLOCK)).collect();
    same_bytes("the file", &fs::read(path)?, &whole)?;
    for (offset, len) in [(5000, 4000), (0, 12_000), (1, 1), (11_999, 1)] {
        let event = live.gives("a read", Request::read(file.clone(), vec![0; len], offset as u64), len)?;
        same_bytes(format_args!("the read at {offset}"), &buffer(event)?, &whole[offset..][..len])?;
    }
    live.end()
}

fn vectored(rig: &Rig) -> Tried {
    let live = rig.context(CAPACITY);
    let (file, path) = rig.file(&[b'.'; 20])?;
    let parts = [b"ab".to_vec(), Vec::new(), b"cde".to_vec(), b"f".to_vec()];
    live.gives("a vectored write", Request::writev(file.clone(), parts, 7), 6)?;
    same_bytes("the file", &fs::read(path)?, b".......abcdef.......")?;
    let parts = [vec![0; 1], vec![0; 4], Vec::new(), vec![0; 2]];
    let event = live.gives("a vectored read", Request::readv(file, parts, 6), 7)?;
    let Ok(parts) = event.request.into_buffers::<Vec<u8>>() else {
        return failed("the buffers to come back as what they were made of", "they do not");
    };
    same("what was read", parts, vec![b".".to_vec(), b"abcd".to_vec(), Vec::new(), b"ef".to_vec()])?;
    live.end()
}

fn sync(rig: &Rig) -> Tried {
    let live = rig.context(CAPACITY);
    let (file, path) = rig.file(b"")?;
    for (turn, sync) in [Request::fsync, Request::fdatasync].into_iter().enumerate() {
        let bytes = pattern(turn as u64, 5000);
        live.gives("a write", Request::write(file.clone(), bytes.clone(), 0), 5000)?;
        live.gives("a sync", sync(file.clone()), 0)?;
        same_bytes("the file", &fs::read(&path)?, &bytes)?;
    }
    live.end()
}

/// How many bytes an event says, which may be fewer than asked for.
fn some(what: &str, event: &Event, most: usize) -> Tried<usize> {
    match event.result {
        Ok(n) if (1..=most).contains(&n) => Ok(n),
        _ => failed(format_args!("{what} of 1 to {most} bytes"), format_args!("it gave {:?}", event.result)),
    }
}

fn large(rig: &Rig) -> Tried {
    const LEN: usize = 8 << 20;
    let live = rig.context(1);
    let (file, path) = rig.file(b"")?;
    let bytes = pattern(8, LEN);
    let event = live.one(Request::write(file.clone(), bytes.clone(), 0))?;
    let written = some("a write", &event, LEN)?;
    same_bytes("the file", &fs::read(path)?, &bytes[..written])?;
    let event = live.one(Request::read(file, vec![0; LEN], 0))?;
    let read = some("a read", &event, written)?;
    let came = buffer(event)?;
    same_bytes("the read", &came[..read], &bytes[..read])?;
    must(
        came[read..].iter().all(|byte| *byte == 0),
        "the rest of the buffer to stay as it was",
        "it was changed",
    )?;
    live.end()
}

/// Counts how often it was run.
struct Counts {
    runs: usize,
    result: fn(usize) -> io::Result<usize>,
}

impl Operation for Counts {
    fn run(&mut self) -> io::Result<usize> {
        self.runs += 1;
        (self.result)(self.runs)
    }
}

/// Runs it, and sees that it was run this often.
fn run(live: &Live, custom: Custom, runs: usize) -> Tried<(io::Result<usize>, Box<Counts>)> {
    let event = live.one(Request::new(Op::Custom(custom)))?;
    let Op::Custom(custom) = event.request.op else {
        return failed("the operation to come back", "something else came");
    };
    let Ok(counts) = custom.downcast::<Counts>() else {
        return failed("the operation to come back", "another operation came");
    };
    same("how often the operation was run", counts.runs, runs)?;
    Ok((event.result, counts))
}

fn custom(rig: &Rig) -> Tried {
    let live = rig.context(4);
    let mut custom = Custom::new(Counts { runs: 0, result: |runs| Ok(runs * 10) });
    for runs in 1..=3 {
        let (result, counts) = run(&live, custom, runs)?;
        same("the result of the operation", result.ok(), Some(runs * 10))?;
        custom = Custom::new(*counts);
    }
    // A number that every system has.
    let fails = |_| Err(io::Error::from_raw_os_error(2));
    let (result, _) = run(&live, Custom::new(Counts { runs: 0, result: fails }), 1)?;
    let code = result.as_ref().err().and_then(io::Error::raw_os_error);
    same("the error of an operation that fails", code, Some(2))?;
    live.end()
}

fn custom_panics(rig: &Rig) -> Tried {
    let live = rig.context(4);
    let panics = |runs| if runs == 1 { panic!("on purpose, by the check `custom_panics`") } else { Ok(runs) };
    let (result, counts) = run(&live, Custom::new(Counts { runs: 0, result: panics }), 1)?;
    must(result.is_err(), "an operation that panics to fail", format_args!("it gave {result:?}"))?;
    let (result, _) = run(&live, Custom::new(*counts), 2)?;
    same("the result of the operation", result.ok(), Some(2))?;
    live.end()
}
