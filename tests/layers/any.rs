//! Arbitrary requests to `Direct`, on a backend that does with their parts what a script says: what is reported, that
//! it is reported at once, that no part waits while it could be in flight, and that there are never more than there may
//! be.

use crate::direct::{PART, direct, pattern, scratch};
use crate::transparent::Transparent;
use ioctx::aio::{
    AlignedBuffer, Backend, Buffer, BufferMut, Completion, Context, Event, Op, Request, Submitted,
};
use ioctx::backend::Direct;
use proptest::prelude::*;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Where a request has its part of the file; none reaches into the next one's.
const REGION: u64 = 1 << 20;
/// A short transfer is this long: whole blocks of any file system.
const SHORT: usize = 16 << 10;

/// What is read, and what is written begins with.
static SOURCE: LazyLock<Vec<u8>> = LazyLock::new(|| pattern(3, 5 * REGION as usize));

/// What becomes of a part.
#[derive(Clone, Copy, Debug)]
enum How {
    Whole,
    Short,
    /// So many thousandths of it, rounded down, and then this error.
    Failed(usize, i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Dsync,
}

#[derive(Clone, Debug)]
struct Wanted {
    kind: Kind,
    /// In its region.
    start: u64,
    len: usize,
    /// How many bytes behind an aligned address its memory begins.
    shift: usize,
}

/// A file in memory, and what is to be done with it.
#[derive(Default)]
struct State {
    held: Vec<Completion>,
    /// The most there were.
    most: usize,
    /// To be read.
    source: &'static [u8],
    /// What was written.
    sink: Vec<u8>,
    /// What was transferred of the file.
    moved: Vec<Range<u64>>,
    /// Where something went wrong, how, and that it was there that a part ended short of its end.
    failed: Vec<(u64, i32)>,
    /// Up to where parts were begun, by region.
    begun: Vec<u64>,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<State>>);

impl Backend for Scripted {
    fn submit(&self, work: Completion) -> Submitted {
        let mut state = self.0.lock().unwrap();
        let range = range(&work);
        let begun = &mut state.begun[(range.start / REGION) as usize];
        *begun = range.end.max(*begun);
        state.held.push(work);
        state.most = state.most.max(state.held.len());
        Submitted::Queued
    }
}

/// Of the file.
fn range(work: &Completion) -> Range<u64> {
    let (offset, len) = match &work.request().op {
        Op::Read { offset, buf, .. } => (*offset, buf.len()),
        Op::Write { offset, buf, .. } | Op::WriteDsync { offset, buf, .. } => (*offset, buf.len()),
        other => panic!("{other:?}"),
    };
    offset..offset + len as u64
}

impl Scripted {
    fn end_one(&self, which: usize, how: How) {
        let mut state = self.0.lock().unwrap();
        let which = which % state.held.len();
        let mut work = state.held.swap_remove(which);
        let Range { start, end } = range(&work);
        let wanted = (end - start) as usize;
        let mut n = match how {
            How::Whole => wanted,
            How::Short => wanted.min(SHORT),
            How::Failed(thousandths, _) => wanted * thousandths / 1000 / SHORT * SHORT,
        };
        let State { source, sink, .. } = &mut *state;
        match &mut work.request_mut().op {
            Op::Read { buf, .. } => {
                let there = source.get(start as usize..).unwrap_or_default();
                n = n.min(there.len());
                buf[..n].copy_from_slice(&there[..n]);
            }
            Op::Write { buf, .. } | Op::WriteDsync { buf, .. } => {
                sink[start as usize..][..n].copy_from_slice(&buf[..n]);
            }
            _ => unreachable!("looked at before"),
        }
        state.moved.push(start..start + n as u64);
        let error = match how {
            How::Failed(_, code) => Some((start + n as u64, code)),
            _ => None,
        };
        state.failed.extend(error);
        // What it completes calls `submit`.
        drop(state);
        drop(match error {
            None => work.finish(Ok(n)),
            Some((_, code)) if n == 0 => work.finish(Err(io::Error::from_raw_os_error(code))),
            Some((_, code)) => work.finish_partly(n, io::Error::from_raw_os_error(code)),
        });
    }

    /// The bytes from the start of a range on that were transferred without a gap, and what made the gap.
    fn outcome(&self, range: &Range<u64>) -> (usize, Option<i32>) {
        let state = self.0.lock().unwrap();
        let mut at = range.start;
        while at < range.end
            && let Some(moved) = state.moved.iter().find(|moved| moved.contains(&at))
        {
            at = moved.end.min(range.end);
        }
        // A read of whole blocks may have failed before what is wanted of them begins.
        let there = |place: u64| {
            place.max(range.start) == at && place / REGION == range.start / REGION && at < range.end
        };
        let error = state.failed.iter().find(|(place, _)| there(*place)).map(|(_, code)| *code);
        ((at - range.start) as usize, error)
    }
}

/// Ends what is in flight, lest a context wait for it whose test has failed.
struct EndAll<'a>(&'a Scripted);

impl Drop for EndAll<'_> {
    fn drop(&mut self) {
        loop {
            let held = std::mem::take(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner).held);
            if held.is_empty() {
                return;
            }
        }
    }
}

/// One of the requests that are tried.
struct Tried {
    wanted: Wanted,
    range: Range<u64>,
    content: Vec<u8>,
    memory: AlignedBuffer,
    over: bool,
}

impl Tried {
    fn new(number: usize, mut wanted: Wanted) -> Self {
        if wanted.len <= PART {
            // Or it might be passed on.
            wanted.start |= 1;
        }
        let start = number as u64 * REGION + wanted.start;
        let content = SOURCE[number..][..wanted.len].to_vec();
        let mut memory = AlignedBuffer::new(wanted.len + 4096, 4096).unwrap();
        if wanted.kind != Kind::Read {
            memory[wanted.shift..][..wanted.len].copy_from_slice(&content);
        }
        Self { range: start..start + wanted.len as u64, wanted, content, memory, over: false }
    }

    fn request(&mut self, file: &Arc<File>) -> Request {
        let at = self.memory[self.wanted.shift..].as_mut_ptr();
        let (len, offset) = (self.wanted.len, self.range.start);
        // SAFETY: 1. within memory that outlives the context. 2. nobody else uses it before the event was read.
        let read = || unsafe { BufferMut::from_raw_parts(at, len) };
        // SAFETY: as above.
        let write = || unsafe { Buffer::from_raw_parts(at, len) };
        match self.wanted.kind {
            Kind::Read => Request::read(file.clone(), read(), offset),
            Kind::Write => Request::write(file.clone(), write(), offset),
            Kind::Dsync => Request::write_dsync(file.clone(), write(), offset),
        }
    }
}

type Steps = Vec<(bool, usize, How)>;

/// Where the file ends: so far behind one end of a request.
type Eof = Option<(usize, bool, i64)>;

fn tried(bound: u32, wanted: Vec<Wanted>, eof: Eof, steps: Steps) -> Result<(), TestCaseError> {
    static FILE: LazyLock<Option<Arc<File>>> = LazyLock::new(|| direct(scratch().path()));
    let Some(file) = &*FILE else { return Ok(()) };
    let mut all: Vec<Tried> =
        wanted.into_iter().enumerate().map(|(number, wanted)| Tried::new(number, wanted)).collect();
    let eof = eof.map_or(SOURCE.len(), |(which, at_start, behind)| {
        let range = &all[which % all.len()].range;
        let end = if at_start { range.start } else { range.end };
        end.saturating_add_signed(behind) as usize
    });
    let scripted = Scripted::default();
    {
        let mut state = scripted.0.lock().unwrap();
        state.source = &SOURCE[..eof];
        state.sink = vec![0; all.len() * REGION as usize];
        state.begun = vec![0; all.len()];
    }
    let direct = Direct::with_part(bound, PART, scripted.clone()).unwrap();
    let context = Context::new(all.len() as u32, Transparent::new(all.len() as u32, direct)).unwrap();
    let _end = EndAll(&scripted);
    let (mut steps, mut submitted, mut events) = (steps.into_iter(), 0, Vec::new());
    let mut went_wrong = false;
    while all.iter().any(|tried| !tried.over) {
        let (submits, which, how) = steps.next().unwrap_or((false, 0, How::Whole));
        let idle = scripted.0.lock().unwrap().held.is_empty();
        if submitted < all.len() && (submits || idle) {
            let request = all[submitted].request(file).with_user_data(submitted as u64);
            context.submit(request).unwrap();
            submitted += 1;
        } else {
            prop_assert!(!idle, "everything has ended, and not everything was reported");
            went_wrong |= matches!(how, How::Failed(..));
            scripted.end_one(which, how);
        }
        {
            // Nobody has polled yet.
            let state = scripted.0.lock().unwrap();
            let in_flight = state.held.len();
            prop_assert!(in_flight <= bound as usize);
            let waits =
                state.begun.iter().zip(&all[..submitted]).any(|(begun, tried)| *begun < tried.range.end);
            prop_assert!(!waits || in_flight == bound as usize, "a part waits, and need not");
        }
        context.get_events(0, all.len(), None, &mut events).unwrap();
        prop_assert!(events.len() <= 1);
        for Event { request, result, .. } in events.drain(..) {
            let tried = &mut all[request.user_data as usize];
            prop_assert!(!std::mem::replace(&mut tried.over, true), "reported twice");
            let (bytes, code) = scripted.outcome(&tried.range);
            prop_assert_eq!(context.backend().last(), (bytes, code), "{:?}", tried.wanted);
            match result {
                Ok(n) => prop_assert_eq!(n, bytes),
                Err(error) => prop_assert_eq!((0, error.raw_os_error()), (bytes, code)),
            }
            let (range, state) = (tried.range.clone(), scripted.0.lock().unwrap());
            let memory = &tried.memory[tried.wanted.shift..][..bytes];
            let place = range.start as usize..range.start as usize + bytes;
            let (there, ends) = match tried.wanted.kind {
                Kind::Read => (
                    bytes == 0 || state.source.get(place) == Some(memory),
                    (eof as u64).clamp(range.start, range.end),
                ),
                Kind::Write | Kind::Dsync => (state.sink[place] == tried.content[..bytes], range.end),
            };
            prop_assert!(there, "what was reported is there: {:?}", tried.wanted);
            prop_assert!(went_wrong || range.start + bytes as u64 == ends, "{bytes} of {:?}", tried.wanted);
        }
        let state = scripted.0.lock().unwrap();
        for (number, tried) in all[..submitted].iter().enumerate().filter(|(_, tried)| !tried.over) {
            let mine = |work: &Completion| range(work).start / REGION == number as u64;
            prop_assert!(
                state.begun[number] < tried.range.end || state.held.iter().any(mine),
                "all its parts have ended, and it was not reported"
            );
        }
    }
    let (peak, most) = (context.backend().below().peak(), scripted.0.lock().unwrap().most);
    prop_assert!(most <= peak.parts as usize && peak.parts <= bound, "{peak}, {most} of {bound}");
    prop_assert!(peak.bytes <= peak.parts as usize * PART, "{peak}");
    Ok(())
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let kind = prop_oneof![2 => Just(Kind::Read), 1 => Just(Kind::Write), 1 => Just(Kind::Dsync)];
    let start = prop_oneof![Just(0_u64), Just(1), Just(511), Just(512), Just(4096), 0..70_000_u64];
    let len = prop_oneof![1..9000_usize, 1..10 * PART, (1..10_usize).prop_map(|n| n * PART)];
    let shift = prop_oneof![3 => Just(0_usize), 1 => 1..4096_usize, 1 => Just(512)];
    (kind, start, len, shift).prop_map(|(kind, start, len, shift)| Wanted { kind, start, len, shift })
}

fn steps() -> impl Strategy<Value = Steps> {
    let how = prop_oneof![
        12 => Just(How::Whole),
        3 => Just(How::Short),
        1 => (0_usize..1000, 1..30).prop_map(|(thousandths, code)| How::Failed(thousandths, code)),
    ];
    prop::collection::vec((prop::bool::weighted(0.2), any::<usize>(), how), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_first_part_that_is_not_whole_decides_and_none_waits_that_need_not(
        bound in 1_u32..7,
        wanted in prop::collection::vec(wanted(), 1..5),
        eof in prop::option::of((any::<usize>(), any::<bool>(), -600..600_i64)),
        steps in steps(),
    ) {
        tried(bound, wanted, eof, steps)?;
    }
}
