//! What a context shares with the requests in flight: [`Shared`].

use super::below::Layer;
use super::completion::{Completion, apart, result, settled};
use super::deferred::Deferred;
use super::error::InFlight;
use super::id::RequestId;
use super::slot::Slot;
use super::trace::report;
use super::{By, CancelError, Event, Reason};
use crate::credits::Tags;
use crate::percpu::CachePadded;
use crate::refcount::{PerCpuRef, Put};
use crate::ring::{self, CompletionQueue};
use crate::runlist::RunList;
use crate::sync::{Arc, fence};
use crate::wait::{EventCount, Gate};
use std::mem::{MaybeUninit, offset_of};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;

/// How many events a reader takes out, or whose tags it gives back, at a time.
pub(super) const CHUNK: usize = 64;

/// The fields, grouped by who writes them. Each part pads what it writes; the rest of this struct is only
/// read.
pub(super) struct Shared {
    /// One reference per request not finished, held by its `Completion` or `Finished` and put by
    /// [`publish`](Self::publish), [`deliver`](Self::deliver) or [`release`](Self::release), and per place that a batch
    /// has taken for a request to come; the initial one belongs to the destroyer.
    /// Written per CPU, by submitters and completers.
    pub(super) reqs: CachePadded<PerCpuRef>,
    /// One reference per [`Cancellable`](super::Cancellable) and [`Started`](super::Started), and the context's own:
    /// whoever puts the last frees all this. The initial one goes with that of `reqs`. Written per CPU, by backends that
    /// put requests aside, and for requests with a future.
    pub(super) memory: CachePadded<PerCpuRef>,
    /// Which slot, and how many. Written per CPU by submitters and readers; globally once per batch.
    pub(super) tags: Tags,
    /// Written by completers (a lane per CPU) and by readers.
    pub(super) queue: CompletionQueue,
    /// Read by completers, written by readers that go to sleep.
    pub(super) wait: EventCount,
    /// Opens when `reqs` reaches zero. Shared, because whoever opens it may be outlived by nobody: the rest
    /// of this struct may be freed as soon as it is open.
    pub(super) finished: Arc<Gate>,
    /// A request per tag. Written by whoever holds the tag: submitter, completer, reader, in that order; cancellers
    /// write the word of a request on offer.
    slots: Box<[CachePadded<Slot>]>,
    /// If these are the requests of a layer: whom their events go to.
    pub(super) layer: Option<Box<Layer>>,
    /// Hooks that were left to whoever submits or waits. Declared after the slots, whose tasks are dropped first.
    pub(super) list: Option<RunList<Deferred>>,
}

const _: () = {
    // Aligned so, parts that different threads write do not meet on a line, nor with what is only read.
    assert!(align_of::<Tags>() == 128);
    assert!(align_of::<CompletionQueue>() == 128 && align_of::<EventCount>() == 128);
    assert!(align_of::<CachePadded<Slot>>() == 128);
    // And none of the groups shares a line with another, what is never written being one of them.
    let mut group = 0;
    while group < GROUPS.len() {
        assert!(GROUPS[group].1.is_multiple_of(128));
        group += 1;
    }
};

/// The groups, and within them what is written: name and offset. What follows the last line of a part is only read.
pub(super) const GROUPS: [(&str, usize); 11] = {
    const TAGS: usize = offset_of!(Shared, tags);
    const QUEUE: usize = offset_of!(Shared, queue);
    const WAIT: usize = offset_of!(Shared, wait);
    let (one, two) = (offset_of!(Shared, finished), offset_of!(Shared, slots));
    let (three, four) = (offset_of!(Shared, layer), offset_of!(Shared, list));
    let (first, other) = (if one < two { one } else { two }, if three < four { three } else { four });
    [
        ("reqs", offset_of!(Shared, reqs)),
        ("memory", offset_of!(Shared, memory)),
        ("tags", TAGS),
        ("tags.pool", TAGS + Tags::POOL),
        ("tags.last", TAGS + Tags::IDS),
        ("tags.waiters", TAGS + Tags::WAITERS),
        ("queue", QUEUE),
        ("queue.next", QUEUE + CompletionQueue::NEXT),
        ("wait.watched", WAIT + EventCount::WATCHED),
        ("wait.queue", WAIT + EventCount::QUEUE),
        ("finished, slots", if first < other { first } else { other }),
    ]
};

// SAFETY: every field but `slots` is `Sync`; a slot's request is reached by one thread at a time, and is `Send`.
unsafe impl Sync for Shared {}
// SAFETY: nothing in it is bound to a thread.
unsafe impl Send for Shared {}

impl Shared {
    pub(super) fn new(capacity: u32, queue: CompletionQueue, list: Option<RunList<Deferred>>) -> Self {
        let memory = PerCpuRef::new();
        // The context's own: put by its `drop`.
        memory.get();
        let generation = Slot::first_generation();
        Self {
            reqs: CachePadded::new(PerCpuRef::new()),
            memory: CachePadded::new(memory),
            tags: Tags::new(capacity),
            wait: if queue.ends_with_rmw() { EventCount::new() } else { EventCount::for_light_publishers() },
            queue,
            finished: Arc::new(Gate::new()),
            slots: (0..capacity).map(|_| CachePadded::new(Slot::new(generation))).collect(),
            layer: None,
            list,
        }
    }

    /// The slot of a tag.
    #[inline(always)]
    pub(super) fn slot(&self, tag: u32) -> &Slot {
        &self.slots[tag as usize]
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
        // Put last, also if what is woken panics: a reader may have the events already, but the context cannot be freed
        // before.
        let references = References { shared: this, n };
        // SAFETY: they keep it alive.
        let shared = unsafe { references.shared.as_ref() };
        publish(&shared.queue);
        if shared.queue.ends_with_rmw() {
            shared.wait.notify_after_rmw(|| shared.enough());
        } else {
            shared.wait.notify_light(|| shared.enough());
        }
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
        // SAFETY: alive until the gate opens.
        let shared = unsafe { this.as_ref() };
        let _opens = Opens(Arc::clone(&shared.finished));
        report!(debug, context = ?this, "finished its last request, destroyed");
        shared.wait.notify_all();
    }

    /// Takes a request that is on offer, or says what else has become of it.
    ///
    /// # Safety
    ///
    /// 1. `*this` is valid.
    pub(super) unsafe fn claim(this: NonNull<Self>, id: RequestId) -> Result<Completion, CancelError> {
        // SAFETY: 1.
        let slot = unsafe { this.as_ref() }.slots.get(id.tag() as usize).ok_or(CancelError::Unknown)?;
        slot.claim(id)?;
        // SAFETY: 1. it was the owner's who put it on offer, and is ours now. 2. filled then.
        Ok(unsafe { Completion::new(this, id) })
    }

    /// Completes a request with `ECANCELED` if it is on offer, or says what else has become of it.
    ///
    /// # Safety
    ///
    /// 1. `*this` is valid.
    pub(super) unsafe fn cancel(this: NonNull<Self>, id: RequestId) -> Result<(), CancelError> {
        // SAFETY: 1.
        let work = unsafe { Self::claim(this, id) }?;
        report!(trace, context = ?this, id = id.into_raw(), "cancelled");
        drop(work);
        Ok(())
    }

    /// Cancels every request that is on offer, and those that will be: the caller has killed `reqs`.
    ///
    /// # Safety
    ///
    /// 1. The context is alive.
    pub(super) unsafe fn cancel_all(this: NonNull<Self>) {
        // SeqCst: pairs with the fence in `Cancellable::offer`, which see.
        fence!("aio.cancel.dying", SeqCst);
        // SAFETY: 1.
        let slots = unsafe { &this.as_ref().slots };
        for_all((0..).zip(slots), |(tag, slot)| {
            // SAFETY: 1.
            let _ = slot.on_offer(tag).map(|id| unsafe { Self::cancel(this, id) });
        });
    }

    /// The requests in flight, each as it is looked at.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = InFlight> {
        (0..).zip(&self.slots).filter_map(|(tag, slot)| slot.in_flight(tag))
    }

    /// Puts one of the references of `memory`.
    ///
    /// # Safety
    ///
    /// 1. The caller owns it.
    /// 2. It was made by `Box`, and there is neither a request nor an event in it when the last one is put.
    pub(super) unsafe fn forget(this: NonNull<Self>) {
        // SAFETY: valid by the reference itself, until it is put.
        let put = unsafe { PerCpuRef::put_raw(CachePadded::raw_get(&raw const (*this.as_ptr()).memory), 1) };
        if put == Put::Zero {
            // SAFETY: nobody has another; by 2. a box.
            drop(unsafe { Box::from_raw(this.as_ptr()) });
        }
    }

    /// Drops the requests of all events that nobody has read. Nobody reads.
    pub(super) fn clear(&self) {
        let rounds = std::iter::from_fn(|| (!self.queue.is_empty()).then_some(()));
        for_all(rounds, |()| {
            self.visit(usize::MAX, &mut |event| drop(event));
        });
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
            let mut is_left = false;
            self.queue.read(chunk, |run| {
                // First, because it may panic, and then nothing of the run is lost.
                out.reserve(run.len());
                for event in run {
                    let id = RequestId::from_raw(event.data);
                    tags[n].write(id.tag());
                    n += 1;
                    // SAFETY: there is room. The event hands its tag over to us, with a filled slot; then
                    // all fields are written.
                    unsafe {
                        let end = out.as_mut_ptr().add(out.len());
                        is_left |= self.slot(id.tag()).has_hooks();
                        self.slot(id.tag()).take(&raw mut (*end).request);
                        (&raw mut (*end).id).write(id);
                        (&raw mut (*end).result).write(result(event.res));
                        out.set_len(out.len() + 1);
                    }
                }
            });
            // Only now, when the lanes have their slots back: whoever takes these tags must find room to
            // complete.
            if n > 0 {
                // SAFETY: the first `n` were written; `MaybeUninit<T>` has the layout of `T`.
                let tags = unsafe { std::slice::from_raw_parts(tags.as_ptr().cast(), n) };
                if is_left {
                    let start = out.len() - n;
                    // SAFETY: 1. as their events tell; not put yet.
                    unsafe { self.call_hooks_of(tags, &mut out[start..]) };
                }
                self.tags.put_all_raw(tags);
            }
            read += n;
            if n < chunk || read == max {
                return read;
            }
        }
    }

    /// Calls the hooks that were left to the reader of these events.
    ///
    /// # Safety
    ///
    /// 1. The caller owns `tags`, which are those of `events`, in their order.
    #[cold]
    unsafe fn call_hooks_of(&self, tags: &[u32], events: &mut [Event]) {
        for (tag, event) in tags.iter().zip(events) {
            let slot = self.slot(*tag);
            // SAFETY: 1. by 1., each. What was kept is there if hooks are.
            unsafe {
                if slot.has_hooks() {
                    let outcome = apart(slot.delivery().kept());
                    event.result = result(settled(slot.call_hooks(&mut event.request, outcome, By::Reader)));
                }
            }
        }
    }

    /// Calls the hooks that were left to the reader of an event with this result; returns what has come of it.
    ///
    /// # Safety
    ///
    /// 1. The caller owns the slot of `tag`, which is filled.
    #[inline(always)]
    pub(super) unsafe fn call_rest(&self, tag: u32, res: i64) -> i64 {
        // Out of line, with nothing by reference: what is in registers stays there.
        //
        // SAFETY: 1. by 1., twice.
        unsafe { if self.slot(tag).has_hooks() { self.call_hooks_by(tag, res, By::Reader) } else { res } }
    }

    /// Calls the hooks whose turn has come for `by`, of a request with this result; returns what has come of it, and
    /// keeps that.
    ///
    /// # Safety
    ///
    /// As [`call_rest`](Self::call_rest).
    #[cold]
    pub(super) unsafe fn call_hooks_by(&self, tag: u32, res: i64, by: By) -> i64 {
        let slot = self.slot(tag);
        // SAFETY: 1. by 1., filled.
        unsafe {
            let res = settled(slot.call_hooks(&mut *slot.request_mut(), apart(res), by));
            slot.delivery().keep(res);
            res
        }
    }

    /// Calls the hooks of a finished request that are its completer's to call. Returns its name, and what has come of
    /// it; `None` if the rest is left to the run list.
    ///
    /// # Safety
    ///
    /// 1. The caller owns the slot of `id`, which is filled, and one `reqs` reference; if it is told `None`, no more.
    #[inline]
    pub(super) unsafe fn call_hooks(
        this: NonNull<Self>,
        id: RequestId,
        res: i64,
    ) -> Option<(RequestId, i64)> {
        // SAFETY: the reference keeps it alive.
        let shared = unsafe { this.as_ref() };
        let slot = shared.slot(id.tag());
        // SAFETY: 1. by 1.
        if unsafe { slot.has_hooks() } {
            // Where nobody submits any more, and the end is waited for, there is no time to lose.
            let list = shared.run_list().filter(|_| !shared.is_dying());
            let by = if list.is_some() { By::Completer } else { By::RunList };
            // SAFETY: 1. by 1., each. 2. kept by the call.
            unsafe {
                let res = shared.call_hooks_by(id.tag(), res, by);
                if let Some(list) = list
                    && slot.next_hook_is_by(By::RunList)
                {
                    Self::defer(this, list, id.tag());
                    return None;
                }
                return Some((slot.name(id.tag()), res));
            }
        }
        Some((id, res))
    }

    /// Whether the context is being destroyed, or the one whose requests these are parts of.
    #[inline]
    pub(super) fn is_dying(&self) -> bool {
        self.reqs.is_dying() || self.layer.as_ref().is_some_and(|layer| layer.is_dying())
    }

    /// Whether no request is in flight and none can be submitted.
    pub(super) fn is_finished(&self) -> bool {
        self.reqs.is_zero()
    }
}

/// References of `reqs`, to be put.
pub(super) struct References {
    pub(super) shared: NonNull<Shared>,
    pub(super) n: u32,
}

impl Drop for References {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: ours.
        unsafe { Shared::release(self.shared, self.n) };
    }
}

/// Opens a gate when dropped.
struct Opens(Arc<Gate>);

impl Drop for Opens {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// Calls `f` with each of `items`, also after one call has panicked; the first panic goes on in the end.
pub(super) fn for_all<T>(items: impl Iterator<Item = T>, mut f: impl FnMut(T)) {
    let mut panic = None;
    for item in items {
        if let Err(caught) = catch_unwind(AssertUnwindSafe(|| f(item))) {
            panic.get_or_insert(caught);
        }
    }
    if let Some(panic) = panic {
        resume_unwind(panic);
    }
}
