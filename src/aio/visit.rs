//! Events shown in place: [`Visited`].

use super::completion::{event_of, result};
use super::id::RequestId;
use super::shared::{CHUNK, Shared};
use super::{Event, Request};
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ops::Range;
use std::{fmt, io, ptr};

/// An event whose request still lies in its slot: what a visitor of [`Context::visit`](super::Context::visit) is shown.
///
/// The visitor takes it [out](Self::into_event), or leaves it to be dropped with its request; either frees its place
/// in the context at once. Forgotten, it leaks both.
pub struct Visited<'a> {
    shared: &'a Shared,
    id: RequestId,
    /// As the ring has it.
    res: i64,
}

impl<'a> Visited<'a> {
    /// Calls the hooks that were left to who has the event.
    ///
    /// # Safety
    ///
    /// 1. The caller owns the tag of `id` and its slot, which is filled, and passes both on.
    #[inline]
    pub(super) unsafe fn new(shared: &'a Shared, id: RequestId, res: i64) -> Self {
        // SAFETY: 1. by 1.
        let res = unsafe { shared.call_rest(id.tag(), res) };
        Self { shared, id, res }
    }
}

impl Visited<'_> {
    /// What [`submit`](super::Context::submit) has returned.
    pub fn id(&self) -> RequestId {
        self.id
    }

    /// The request as it was submitted; a read has filled the front of its buffers.
    pub fn request(&self) -> &Request {
        // SAFETY: the event has handed the slot over to us, filled; borrowed with `self`.
        unsafe { &*self.shared.slot(self.id.tag()).request() }
    }

    /// The request, to be changed, or to have its buffers taken.
    pub fn request_mut(&mut self) -> &mut Request {
        // SAFETY: as in `request`; the borrow is exclusive.
        unsafe { &mut *self.shared.slot(self.id.tag()).request_mut() }
    }

    /// Bytes transferred, which may be fewer than asked for, or why not.
    pub fn result(&self) -> io::Result<usize> {
        result(self.res)
    }

    /// Takes the event out.
    pub fn into_event(self) -> Event {
        let this = ManuallyDrop::new(self);
        let mut request = MaybeUninit::uninit();
        let tag = this.id.tag();
        // SAFETY: the slot is ours and filled, and empty from then on, as it has to be when its tag is put.
        let request = unsafe {
            this.shared.slot(tag).take(request.as_mut_ptr());
            request.assume_init()
        };
        this.shared.tags.put_raw(tag);
        Event { id: this.id, request, result: result(this.res) }
    }
}

impl Drop for Visited<'_> {
    fn drop(&mut self) {
        let tag = self.id.tag();
        let _put = PutTag(self.shared, tag);
        // SAFETY: the slot is ours and filled, and nobody looks at it again before it is filled anew.
        unsafe { ptr::drop_in_place(self.shared.slot(tag).request_mut()) };
    }
}

impl fmt::Debug for Visited<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Visited")
            .field("id", &self.id)
            .field("request", self.request())
            .field("result", &self.result())
            .finish()
    }
}

/// Puts a tag whose slot is empty, also if what was in it has panicked.
struct PutTag<'a>(&'a Shared, u32);

impl Drop for PutTag<'_> {
    fn drop(&mut self) {
        self.0.tags.put_raw(self.1);
    }
}

/// Events that are out of the ring and not visited yet: those of a range of places. Dropped, they go back.
struct Hand<'a, const N: usize> {
    shared: &'a Shared,
    /// Lent by the caller: it would be copied when this is moved.
    events: &'a mut [MaybeUninit<(RequestId, i64)>; N],
    left: Range<usize>,
}

impl<'a, const N: usize> Hand<'a, N> {
    /// Takes up to `n` events, at most `N`.
    #[inline(always)]
    fn take(shared: &'a Shared, n: usize, events: &'a mut [MaybeUninit<(RequestId, i64)>; N]) -> Self {
        let mut hand = Self { shared, events, left: 0..0 };
        shared.queue.read(n, |run| {
            for event in run {
                hand.events[hand.left.end].write((RequestId::from_raw(event.data), event.res));
                hand.left.end += 1;
            }
        });
        hand
    }

    #[inline(always)]
    fn next(&mut self) -> Option<Visited<'a>> {
        let place = self.left.next()?;
        // SAFETY: in the range, so written.
        let (id, res) = unsafe { self.events[place].assume_init() };
        // SAFETY: 1. the event has handed them over.
        Some(unsafe { Visited::new(self.shared, id, res) })
    }
}

impl<const N: usize> Hand<'_, N> {
    /// Puts back what is left.
    #[cold]
    fn put_back(&mut self) {
        for event in &self.events[self.left.clone()] {
            // SAFETY: in the range, so written.
            let (id, res) = unsafe { event.assume_init() };
            // There is room: their tags are still out.
            self.shared.queue.publish_one(event_of(id, res));
        }
        self.shared.wait.notify(|| self.shared.enough());
    }
}

impl<const N: usize> Drop for Hand<'_, N> {
    #[inline(always)]
    fn drop(&mut self) {
        if !self.left.is_empty() {
            self.put_back();
        }
    }
}

impl Shared {
    /// Takes one event out, if there is one, and no other reader is just at it.
    pub(super) fn take_one(&self) -> Option<Event> {
        Hand::take(self, 1, &mut [MaybeUninit::uninit()]).next().map(Visited::into_event)
    }

    /// Shows up to `max` events to `visitor`, and not more than the capacity: submitters may be quicker than we are.
    pub(super) fn visit(&self, max: usize, visitor: &mut impl FnMut(Visited<'_>)) -> usize {
        let max = max.min(self.tags.total() as usize);
        let mut visited = 0;
        loop {
            let chunk = (max - visited).min(CHUNK);
            // Out of the lanes, which have their slots back: whoever is given a tag by the visitor must find room to
            // complete. And the visitor may read other events meanwhile.
            let mut events = [MaybeUninit::uninit(); CHUNK];
            let mut hand = Hand::take(self, chunk, &mut events);
            let n = hand.left.len();
            while let Some(event) = hand.next() {
                visitor(event);
            }
            visited += n;
            if n < chunk || visited == max {
                return visited;
            }
        }
    }
}
