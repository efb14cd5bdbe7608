//! What a context shares with the requests in flight: [`Shared`].

use super::completion::result;
use super::{Event, Reason, Request};
use crate::credits::Tags;
use crate::percpu::CachePadded;
use crate::refcount::{PerCpuRef, Put};
use crate::ring::{self, CompletionQueue};
use crate::sync::Arc;
use crate::sync::cell::UnsafeCell;
use crate::wait::{EventCount, Gate};
use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// How many tags a reader gives back at a time.
const CHUNK: usize = 64;

/// The fields, grouped by who writes them. Each part pads what it writes; the rest of this struct is only
/// read.
pub(super) struct Shared {
    /// One reference per request not finished, held by its `Completion` or `Finished` and put by
    /// [`publish`](Self::publish) or [`release`](Self::release), and per place that a batch has taken for a request
    /// to come; the initial one belongs to the destroyer.
    /// Written per CPU, by submitters and completers.
    pub(super) reqs: CachePadded<PerCpuRef>,
    /// Which slot, and how many. Written per CPU by submitters and readers; globally once per batch.
    pub(super) tags: Tags,
    /// Written by completers (a lane per CPU) and by readers.
    pub(super) queue: CompletionQueue,
    /// Read by completers, written by readers that go to sleep.
    pub(super) wait: EventCount,
    /// Opens when `reqs` reaches zero. Shared, because whoever opens it may be outlived by nobody: the rest
    /// of this struct may be freed as soon as it is open.
    pub(super) finished: Arc<Gate>,
    /// A request per tag. Written by whoever holds the tag: submitter, completer, reader, in that order.
    slots: Box<[Slot]>,
}

const _: () = {
    // Aligned so, parts that different threads write do not meet on a line, nor with what is only read.
    assert!(align_of::<Tags>() == 128);
    assert!(align_of::<CompletionQueue>() == 128 && align_of::<EventCount>() == 128);
    assert!(align_of::<Slot>() == 128);
};

/// # Safety
///
/// Touched only by the holder of its tag. The tag goes from submitter to completer with the `Completion`,
/// and from completer to reader through the ring.
type Slot = CachePadded<UnsafeCell<MaybeUninit<Request>>>;

impl Drop for Shared {
    fn drop(&mut self) {
        // Nothing is in flight any more: the requests that are left in slots are those whose events nobody
        // has read.
        self.queue.read(usize::MAX, |run| {
            for event in run {
                let mut request = MaybeUninit::uninit();
                // SAFETY: as in `read`; filled then.
                drop(unsafe {
                    self.take(event.data as u32, request.as_mut_ptr());
                    request.assume_init()
                });
            }
        });
    }
}

// SAFETY: every field but `slots` is `Sync`; a slot is reached by one thread at a time, and `Request` is
// `Send`.
unsafe impl Sync for Shared {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl Send for Shared {}

impl Shared {
    pub(super) fn new(capacity: u32, queue: CompletionQueue) -> Self {
        Self {
            reqs: CachePadded::new(PerCpuRef::new()),
            tags: Tags::new(capacity),
            wait: if queue.ends_with_rmw() { EventCount::new() } else { EventCount::for_light_publishers() },
            queue,
            finished: Arc::new(Gate::new()),
            slots: (0..capacity).map(|_| CachePadded::new(UnsafeCell::new(MaybeUninit::uninit()))).collect(),
        }
    }

    /// Takes as many tags as `out` has places, or as there are, and a reference of `reqs` for each; returns how many.
    ///
    /// # Safety
    ///
    /// 1. The context is alive.
    #[inline]
    pub(super) unsafe fn places(this: NonNull<Self>, out: &mut [MaybeUninit<u32>]) -> Result<usize, Reason> {
        // SAFETY: 1.
        let shared = unsafe { this.as_ref() };
        if !shared.reqs.try_get_live() {
            return Err(Reason::Dying);
        }
        // SAFETY: the reference is ours.
        let taken = shared.tags.take_many_raw(1, out).map_err(|_| unsafe { Self::full(this) })?;
        // The first one keeps it alive.
        shared.reqs.get_many(taken as u32 - 1);
        Ok(taken)
    }

    /// There was no tag: gives the reference back.
    ///
    /// # Safety
    ///
    /// 1. The caller owns one of the `reqs` references.
    #[cold]
    pub(super) unsafe fn full(this: NonNull<Self>) -> Reason {
        {
            // SAFETY: alive by 1.
            let shared = unsafe { this.as_ref() };
            // A reader that waits for more than there are would keep the room from us: what there is has to do.
            shared.wait.notify(|| shared.enough());
        }
        // SAFETY: 1.
        unsafe { Self::release(this, 1) };
        Reason::Full
    }

    /// Moves the request at `from` into the slot of `tag`.
    ///
    /// # Safety
    ///
    /// 1. The caller owns `tag`, whose slot is empty.
    /// 2. `from` holds a request, which is not used there any more.
    #[inline]
    pub(super) unsafe fn fill(&self, tag: u32, from: *const Request) {
        self.slots[tag as usize].with_mut(|slot| {
            // SAFETY: valid by 2., ours by 1.; they do not overlap, since nobody else has a pointer into a
            // slot.
            unsafe { move_by_words(from, slot.cast()) };
        });
    }

    /// Moves the request in the slot of `tag` to `to`.
    ///
    /// # Safety
    ///
    /// 1. The caller owns `tag`.
    /// 2. The slot is filled, and is empty from now on.
    /// 3. `to` is valid for a request.
    #[inline]
    pub(super) unsafe fn take(&self, tag: u32, to: *mut Request) {
        // SAFETY: ours by 1., filled by 2., valid by 3.; the slot is nobody's but ours.
        self.slots[tag as usize].with(|slot| unsafe { move_by_words(slot.cast(), to) });
    }

    /// The request in the slot of `tag`, for reading.
    ///
    /// # Safety
    ///
    /// As [`take`](Self::take), for as long as the pointer is used. (A model sees the moment it is made.)
    #[inline]
    pub(super) unsafe fn slot(&self, tag: u32) -> *const Request {
        self.slots[tag as usize].with(|slot| {
            // The pointer to what may be uninitialised is one to what is not, by the caller's promise.
            slot.cast()
        })
    }

    /// The request in the slot of `tag`, for writing.
    ///
    /// # Safety
    ///
    /// As [`take`](Self::take), for as long as the pointer is used.
    #[inline]
    pub(super) unsafe fn slot_mut(&self, tag: u32) -> *mut Request {
        self.slots[tag as usize].with_mut(|slot| slot.cast())
    }

    /// Hands over the events of finished requests, wakes who waits for them, and puts the requests'
    /// references.
    ///
    /// # Safety
    ///
    /// 1. The caller owns the tags that `events` name, and one `reqs` reference for each.
    #[inline]
    pub(super) unsafe fn publish(this: NonNull<Self>, events: &[ring::Event]) {
        // SAFETY: handed on.
        unsafe { Self::publish_with(this, events.len() as u32, |queue| queue.publish(events)) };
    }

    /// [`publish`](Self::publish) for one event.
    ///
    /// # Safety
    ///
    /// As there.
    #[inline]
    pub(super) unsafe fn publish_one(this: NonNull<Self>, event: ring::Event) {
        // SAFETY: handed on.
        unsafe { Self::publish_with(this, 1, |queue| queue.publish_one(event)) };
    }

    /// # Safety
    ///
    /// As [`publish`](Self::publish), for the `n` events that `publish` publishes.
    #[inline(always)]
    unsafe fn publish_with(this: NonNull<Self>, n: u32, publish: impl FnOnce(&CompletionQueue)) {
        if n == 0 {
            return;
        }
        {
            // SAFETY: the references of 1. keep it alive until `release`.
            let shared = unsafe { this.as_ref() };
            publish(&shared.queue);
            if shared.queue.ends_with_rmw() {
                shared.wait.notify_after_rmw(|| shared.enough());
            } else {
                shared.wait.notify_light(|| shared.enough());
            }
        }
        // SAFETY: handed on from 1. This is the last act: a reader may have the events already, but the
        // context cannot be freed before.
        unsafe { Self::release(this, n) };
    }

    /// Puts `n` of the `reqs` references.
    ///
    /// # Safety
    ///
    /// 1. The caller owns them.
    pub(super) unsafe fn release(this: NonNull<Self>, n: u32) {
        // SAFETY: valid by the references themselves, until they are put.
        let put = unsafe {
            let reqs = CachePadded::raw_get(&raw const (*this.as_ptr()).reqs);
            PerCpuRef::put_raw(reqs, n)
        };
        if put == Put::Zero {
            // SAFETY: whoever finds zero owns the last say: nobody frees before the gate opens.
            unsafe { Self::last(this) };
        }
    }

    /// Every request is finished and no other can be submitted: tells readers and destroyers.
    ///
    /// # Safety
    ///
    /// 1. The caller was told [`Put::Zero`].
    pub(super) unsafe fn last(this: NonNull<Self>) {
        let finished = {
            // SAFETY: alive until the gate opens.
            let shared = unsafe { this.as_ref() };
            shared.wait.notify_all();
            Arc::clone(&shared.finished)
        };
        finished.open();
    }

    /// How many events a sleeping reader may count on: those that are there, or any number if submitters
    /// find the context full, because then more cannot come before these are read.
    pub(super) fn enough(&self) -> u32 {
        match self.queue.len() {
            0 => 0,
            _ if self.tags.is_starved() => u32::MAX,
            len => len,
        }
    }

    /// Moves up to `max` events to `out`, and not more than the capacity: submitters may be quicker than we
    /// are.
    pub(super) fn read(&self, max: usize, out: &mut Vec<Event>) -> usize {
        let max = max.min(self.tags.total() as usize);
        let mut read = 0;
        loop {
            let chunk = (max - read).min(CHUNK);
            let mut tags = [const { MaybeUninit::uninit() }; CHUNK];
            let mut n = 0;
            self.queue.read(chunk, |run| {
                // First, because it may panic, and then nothing of the run is lost.
                out.reserve(run.len());
                for event in run {
                    let tag = event.data as u32;
                    tags[n].write(tag);
                    n += 1;
                    // SAFETY: there is room. The event hands its tag over to us, with a filled slot; then
                    // both fields are written.
                    unsafe {
                        let end = out.as_mut_ptr().add(out.len());
                        self.take(tag, &raw mut (*end).request);
                        (&raw mut (*end).result).write(result(event.res));
                        out.set_len(out.len() + 1);
                    }
                }
            });
            // Only now, when the lanes have their slots back: whoever takes these tags must find room to
            // complete.
            if n > 0 {
                // SAFETY: the first `n` were written; `MaybeUninit<T>` has the layout of `T`.
                self.tags.put_all_raw(unsafe { std::slice::from_raw_parts(tags.as_ptr().cast(), n) });
            }
            read += n;
            if n < chunk || read == max {
                return read;
            }
        }
    }

    /// Whether no request is in flight and none can be submitted.
    pub(super) fn is_finished(&self) -> bool {
        self.reqs.is_zero()
    }
}

/// Moves a value, one word at a time.
///
/// A request has usually been written field by field just before it is moved. Loaded in larger pieces,
/// which is how the compiler would copy it, each piece waits until the stores that make it up have left the
/// store buffer: some 5 ns each.
///
/// # Safety
///
/// 1. `from` holds a value, which is not used there any more.
/// 2. `to` is valid for writing one, and does not overlap.
#[inline(always)]
unsafe fn move_by_words<T>(from: *const T, to: *mut T) {
    // A pointer, so that what is moved keeps its provenance; perhaps uninitialised, since it may be padding.
    type Word = MaybeUninit<*const ()>;
    const { assert!(size_of::<T>().is_multiple_of(size_of::<Word>()) && align_of::<T>() >= align_of::<Word>()) };
    for i in 0..size_of::<T>() / size_of::<Word>() {
        // SAFETY: within the value, by 1. and 2., and aligned. Volatile keeps the loads apart.
        unsafe { to.cast::<Word>().add(i).write(from.cast::<Word>().add(i).read_volatile()) };
    }
}
