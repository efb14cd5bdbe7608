//! Requests of every kind with buffers of every kind, through every end a request can come to: whatever happens, the
//! buffer stays where it is and comes back, or is dropped, exactly once.

mod support;

use ioctx::aio::{
    AlignedBuffer, Argument, Backend, Buffer, BufferMut, Completion, Context, Event, IoBuf, IoBufMut, Op,
    RawBuffer, Reason, Request, Submitted,
};
use ioctx::backend::{Null, Zero};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use support::requests::{file, pools, run};

/// The system's allocator, which counts what each thread asks for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn making_requests_of_the_kinds_there_are_allocates_nothing() {
    fn there_and_back<T: IoBuf>(file: &Arc<File>, owner: T) {
        let before = ALLOCATIONS.get();
        let owner = Request::write(Arc::clone(file), owner, 0).into_buffer::<T>();
        assert_eq!(ALLOCATIONS.get(), before);
        drop(owner);
    }
    let file = file();
    there_and_back(&file, vec![1; 9]);
    there_and_back(&file, vec![1; 9].into_boxed_slice());
    there_and_back(&file, Arc::<[u8]>::from([1; 9]));
    there_and_back(&file, AlignedBuffer::new(512, 512).unwrap());
    there_and_back(&file, &b"for ever"[..]);
}

/// An owner that counts how many of it there are.
struct Counted {
    bytes: Box<[u8]>,
    alive: Arc<AtomicUsize>,
}

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Relaxed);
        Self { bytes: Box::from([0; 100]), alive: Arc::clone(alive) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // A second drop would go below zero, or read what is freed.
        assert!(self.alive.fetch_sub(1, Relaxed) > 0);
    }
}

impl Deref for Counted {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

// SAFETY: 1. the bytes are in a box of their own. 2. boxed whole and taken out again.
unsafe impl IoBuf for Counted {
    fn into_raw(self) -> RawBuffer {
        let mut this = Box::new(self);
        let (ptr, len) = (NonNull::from(&mut *this.bytes).cast(), this.bytes.len());
        RawBuffer { ptr, len, owner: Box::into_raw(this).cast() }
    }

    unsafe fn from_raw(raw: RawBuffer) -> Self {
        // SAFETY: boxed in `into_raw`.
        *unsafe { Box::from_raw(raw.owner.cast()) }
    }
}

// SAFETY: 1. made from an exclusive reference.
unsafe impl IoBufMut for Counted {}

/// Writes the owner's bytes to a file, and gives it back from where it was.
fn written<T: IoBuf + Deref<Target = [u8]>>(context: &Context<impl Backend>, real: bool, owner: T) -> T {
    let file = file();
    let (place, bytes) = (owner.as_ptr_range(), owner.to_vec());
    let event = run(context, Request::write(Arc::clone(&file), owner, 1000));
    assert_eq!(event.result.unwrap(), bytes.len());
    let owner = event.request.into_buffer::<T>().unwrap();
    assert_eq!((owner.as_ptr_range(), &owner[..]), (place, &bytes[..]));
    let event = run(context, Request::writev(Arc::clone(&file), [Buffer::from(owner), vec![1; 3].into()], 0));
    assert_eq!(event.result.unwrap(), bytes.len() + 3);
    let Op::WriteV { mut bufs, .. } = event.request.op else { panic!("it was one") };
    if real {
        let mut back = vec![0; bytes.len()];
        #[cfg(unix)]
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut back, 1000).unwrap();
        #[cfg(unix)]
        assert_eq!(back, bytes);
    }
    bufs.swap_remove(0).downcast().unwrap()
}

/// The same, and reads the file into it.
fn written_and_read<T: IoBufMut + Deref<Target = [u8]>>(
    context: &Context<impl Backend>,
    fill: Option<u8>,
    owner: T,
) {
    let owner = written(context, fill == Some(5), owner);
    let (place, before) = (owner.as_ptr_range(), owner.to_vec());
    let want = fill.map_or(before, |byte| vec![byte; owner.len()]);
    let done = fill.map_or(0, |_| owner.len());
    let event = run(context, Request::read(file(), owner, 0));
    assert_eq!(event.result.unwrap(), done);
    let owner = event.request.into_buffer::<T>().unwrap();
    assert_eq!((owner.as_ptr_range(), &owner[..]), (place.clone(), &want[..]));
    let event = run(context, Request::readv(file(), [BufferMut::from(owner), vec![1; 3].into()], 9));
    assert_eq!(event.result.unwrap(), fill.map_or(0, |_| done + 3));
    let Op::ReadV { mut bufs, .. } = event.request.op else { panic!("it was one") };
    let owner = bufs.swap_remove(0).downcast::<T>().unwrap();
    assert_eq!((owner.as_ptr_range(), &owner[..]), (place, &want[..]));
}

/// Every kind through one backend; reads fill with `fill`, or nothing.
fn every_kind(context: &Context<impl Backend>, fill: Option<u8>) {
    let alive = Arc::default();
    for len in [0, 1, 700] {
        let mut spare = Vec::with_capacity(1000);
        spare.resize(len, 3);
        written_and_read(context, fill, spare);
        written_and_read(context, fill, vec![3; len]);
        written_and_read(context, fill, vec![3; len].into_boxed_slice());
        written_and_read(context, fill, AlignedBuffer::new(len, 512).unwrap());
        let shared = Arc::<[u8]>::from(vec![3; len]);
        drop(written(context, fill == Some(5), Arc::clone(&shared)));
        assert_eq!(Arc::strong_count(&shared), 1);
    }
    written(context, fill == Some(5), &b"for ever"[..]);
    written_and_read(context, fill, Counted::new(&alive));
    assert_eq!(alive.load(Relaxed), 0);
}

#[test]
fn buffers_of_every_kind_are_written_and_filled_where_they_are() {
    every_kind(&Context::new(4, Null).unwrap(), None);
    every_kind(&Context::new(4, Zero).unwrap(), Some(0));
    for context in pools() {
        every_kind(&context, Some(5));
    }
}

/// A request of each kind that has buffers, three of them at most, all counted; and where they are.
fn with_buffers(file: &Arc<File>, alive: &Arc<AtomicUsize>) -> Vec<(Request, Vec<*const u8>)> {
    let counted = || {
        let owner = Counted::new(alive);
        (owner.as_ptr(), owner)
    };
    let several = || -> (Vec<_>, Vec<_>) { (0..3).map(|_| counted()).unzip() };
    let file = || Arc::clone(file);
    let (read, write, dsync, readv, writev) = (counted(), counted(), counted(), several(), several());
    vec![
        (Request::read(file(), read.1, 0), vec![read.0]),
        (Request::write(file(), write.1, 0), vec![write.0]),
        (Request::write_dsync(file(), dsync.1, 0), vec![dsync.0]),
        (Request::readv(file(), readv.1, 0), readv.0),
        (Request::writev(file(), writev.1, 0), writev.0),
    ]
}

const BUFFERS: usize = 9;

/// The request is whole: its buffers are where they were.
fn whole(request: Request, places: &[*const u8]) {
    let owners = match request.op {
        Op::Read { .. } | Op::Write { .. } | Op::WriteDsync { .. } => {
            vec![request.into_buffer::<Counted>().unwrap()]
        }
        _ => request.into_buffers::<Counted>().unwrap(),
    };
    let now: Vec<_> = owners.iter().map(|owner| owner.as_ptr()).collect();
    assert_eq!(now, places);
}

/// Does with a request what its user data says.
#[derive(Default)]
struct Fate {
    held: Mutex<Vec<Completion>>,
}

const FINISH: u64 = 0;
const KEEP: u64 = 1;
const REFUSE: u64 = 2;
const DROP: u64 = 3;
const PANIC: u64 = 4;

impl Backend for Fate {
    fn submit(&self, work: Completion) -> Submitted {
        match work.request().user_data {
            FINISH => return Submitted::Done(work.finish(Ok(1))),
            REFUSE => return Submitted::Refused(work, io::ErrorKind::Other.into()),
            DROP => drop(work),
            PANIC => panic!("on purpose"),
            _ => self.held.lock().unwrap().push(work),
        }
        Submitted::Queued
    }
}

/// Calls `each` for a fresh context and each request, and sees that nothing is left of it in the end.
fn for_each(each: impl Fn(Context<Fate>, Request, &[*const u8])) {
    let (file, alive) = (file(), Arc::default());
    let mut left = BUFFERS;
    for (request, places) in with_buffers(&file, &alive) {
        each(Context::new(1, Fate::default()).unwrap(), request, &places);
        left -= places.len();
        assert_eq!(alive.load(Relaxed), left);
    }
    assert_eq!(Arc::strong_count(&file), 1, "files are closed");
}

fn reap(context: &Context<Fate>) -> Event {
    let mut events = Vec::new();
    assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
    events.pop().unwrap()
}

#[test]
fn accepted_requests_come_back_in_their_events() {
    for fate in [FINISH, DROP] {
        for_each(|context, request, places| {
            context.submit(request.with_user_data(fate)).unwrap();
            let event = reap(&context);
            assert_eq!(event.result.is_ok(), fate == FINISH);
            whole(event.request, places);
        });
    }
    for_each(|context, request, places| {
        context.submit(request.with_user_data(KEEP)).unwrap();
        let work = context.backend().held.lock().unwrap().pop().unwrap();
        thread::spawn(|| work.complete(Ok(1))).join().unwrap();
        whole(reap(&context).request, places);
    });
    for_each(|context, request, places| {
        assert!(catch_unwind(AssertUnwindSafe(|| context.submit(request.with_user_data(PANIC)))).is_err());
        whole(reap(&context).request, places);
    });
}

#[test]
fn refused_requests_come_back_at_once() {
    for_each(|context, request, places| {
        let refused = context.submit(request.with_user_data(REFUSE)).unwrap_err();
        assert!(matches!(refused.reason, Reason::Refused(_)));
        whole(refused.request, places);
    });
    for_each(|context, request, places| {
        context.submit(Request::nop()).unwrap();
        let refused = context.submit(request).unwrap_err();
        assert!(matches!(refused.reason, Reason::Full));
        whole(refused.request, places);
    });
    for_each(|context, request, places| {
        context.destroy(None).unwrap();
        let refused = context.submit(request).unwrap_err();
        assert!(matches!(refused.reason, Reason::Dying));
        whole(refused.request, places);
    });
    for_each(|context, mut request, places| {
        let (Op::Read { offset, .. }
        | Op::Write { offset, .. }
        | Op::WriteDsync { offset, .. }
        | Op::ReadV { offset, .. }
        | Op::WriteV { offset, .. }) = &mut request.op
        else {
            panic!("all of them have an offset")
        };
        *offset = i64::MAX as u64 - 99;
        let refused = context.submit(request).unwrap_err();
        assert!(matches!(refused.reason, Reason::Invalid(Argument::Offset)));
        whole(refused.request, places);
    });
    for_each(|context, request, places| {
        let mut batch = vec![Request::nop(), request, Request::nop()];
        assert_eq!(context.submit_batch(&mut batch).unwrap(), 1);
        whole(batch.swap_remove(0), places);
    });
}

#[test]
fn contexts_that_go_drop_what_nobody_has_read() {
    for_each(|context, request, _| {
        context.submit(request.with_user_data(FINISH)).unwrap();
        drop(context);
    });
    for_each(|context, request, _| {
        context.submit(request.with_user_data(KEEP)).unwrap();
        let work = context.backend().held.lock().unwrap().pop().unwrap();
        let completer = thread::spawn(|| {
            thread::yield_now();
            drop(work);
        });
        // Waits for the completer.
        drop(context);
        completer.join().unwrap();
    });
}

#[test]
fn wrong_types_give_the_request_back() {
    for_each(|_, request, places| {
        let request = request.into_buffer::<Vec<u8>>().unwrap_err();
        let request = request.into_buffers::<Vec<u8>>().unwrap_err();
        whole(request, places);
    });
    let request = Request::nop().with_user_data(3).into_buffer::<Vec<u8>>().unwrap_err();
    assert_eq!(request.into_buffers::<Vec<u8>>().unwrap_err().user_data, 3);
    // All or nothing.
    let bufs = [Buffer::from(vec![1]), Buffer::from(Box::<[u8]>::from([2]))];
    let request = Request::writev(file(), bufs, 0).into_buffers::<Vec<u8>>().unwrap_err();
    let Op::WriteV { bufs, .. } = request.op else { panic!("it was one") };
    assert_eq!((&bufs[0][..], &bufs[1][..]), (&[1][..], &[2][..]));
}
