//! Where a request stays while it is in flight, and the word that says how far it is: [`Slot`].

use super::deferred::Deferred;
use super::delivery::Delivery;
use super::error::InFlight;
use super::hook::{By, Hook, Hooks};
use super::id::{AWAITED, RequestId, TAG};
use super::{CancelError, Request};
use crate::fanin::Outcome;
use crate::percpu::CachePadded;
use crate::runlist::Task;
use crate::sync::atomic::{AtomicU64, Ordering::Relaxed};
use crate::sync::cell::UnsafeCell;
use crate::sync::{MODELLED, mo, prefetch_to_write, unique};
use std::io;
use std::mem::{MaybeUninit, offset_of};

/// One request's own lines.
///
/// # The word
///
/// The generation of the request, and below it how far it is:
///
/// | phase | whose the request is | next |
/// |---|---|---|
/// | `FINISHED` | nobody's yet, or its event's | `OWNED` under the next generation, by a submitter |
/// | `OWNED` | the `Completion`'s | `OFFERED`, `FINISHED` |
/// | `OFFERED` | whoever claims it first: the `Cancellable`'s holder, or a canceller | `OWNED` |
///
/// Whoever has the request changes the word by a plain store. Only out of `OFFERED` several may want to: that is a
/// compare-exchange of the whole word, so that one who comes late, with an older generation, changes nothing.
#[repr(C)]
pub(super) struct Slot {
    word: AtomicU64,
    /// The user data as it was submitted, for reports: the request itself may be read by its owner only.
    user_data: AtomicU64,
    /// # Safety
    ///
    /// Touched only by whose the request is. It goes from submitter to completer with the `Completion`, through
    /// `OFFERED` to whoever claims it, and from completer to reader through the ring.
    request: UnsafeCell<MaybeUninit<Request>>,
    /// On the neighbour line: used only by requests with a future.
    delivery: Delivery,
    /// What is called when it has ended; nothing while the slot is empty.
    ///
    /// # Safety
    ///
    /// As `request`.
    hooks: UnsafeCell<Hooks>,
}

const FINISHED: u64 = 0;
const OWNED: u64 = 1;
const OFFERED: u64 = 2;
/// From one generation to the next.
const NEXT: u64 = AWAITED << 1;

// A line and its neighbour, which processors like to fetch together.
const _: () = assert!(MODELLED || size_of::<CachePadded<Slot>>() == 128);
const _: () = assert!(MODELLED || offset_of!(Slot, delivery) >= 64);

impl Slot {
    /// The generation that a context's slots start with: those of any number of contexts lie far apart, by the golden
    /// ratio.
    pub(super) fn first_generation() -> u64 {
        unique().wrapping_mul(0x9E37_79B9_7F4A_7C15) & !TAG
    }

    /// Empty.
    pub(super) fn new(generation: u64) -> Self {
        Self {
            word: AtomicU64::new(generation | FINISHED),
            user_data: AtomicU64::new(0),
            request: UnsafeCell::new(MaybeUninit::uninit()),
            delivery: Delivery::new(),
            hooks: UnsafeCell::new(Hooks::default()),
        }
    }

    /// Has the processor fetch what [`fill`](Self::fill) writes. A reader on another CPU has had it last, perhaps.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        let place = std::ptr::from_ref(self).cast::<u8>();
        prefetch_to_write(place);
        // The request's last words are on the neighbour line.
        prefetch_to_write(place.wrapping_add(64));
    }

    /// What is between the request's completer and its future.
    #[inline]
    pub(super) fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Moves the request at `from` in. Returns its generation, which is [`AWAITED`] if `awaited` is, and not if that is
    /// 0.
    ///
    /// # Safety
    ///
    /// 1. The caller owns the slot's tag, and the slot is empty.
    /// 2. `from` holds a request, which is not used there any more.
    #[inline(always)]
    pub(super) unsafe fn fill(&self, from: *const Request, awaited: u64) -> u64 {
        // Relaxed: whoever wrote it last has handed the tag over.
        let generation = (self.word.load(Relaxed) & !(TAG | AWAITED)).wrapping_add(NEXT) | awaited;
        // SAFETY: valid by 2.
        let user_data = unsafe { (*from).user_data };
        // Release: pairs with the second load in `in_flight`: that the one before is finished.
        self.user_data.store(user_data, mo!("aio.slot.user_data", Release));
        // Release: pairs with the first load there: the user data.
        self.word.store(generation | OWNED, mo!("aio.slot.fill", Release));
        self.request.with_mut(|slot| {
            // SAFETY: valid by 2., ours by 1.; they do not overlap, since nobody else has a pointer into a slot.
            unsafe { move_by_words(from, slot.cast()) };
        });
        generation
    }

    /// Moves the request to `to`.
    ///
    /// # Safety
    ///
    /// 1. The request is the caller's.
    /// 2. The slot is filled, and is empty from now on.
    /// 3. `to` is valid for a request.
    #[inline(always)]
    pub(super) unsafe fn take(&self, to: *mut Request) {
        // SAFETY: ours by 1., filled by 2., valid by 3.; the slot is nobody's but ours.
        self.request.with(|slot| unsafe { move_by_words(slot.cast(), to) });
    }

    /// The request, for reading.
    ///
    /// # Safety
    ///
    /// As [`take`](Self::take), for as long as the pointer is used. (A model sees the moment it is made.)
    #[inline]
    pub(super) unsafe fn request(&self) -> *const Request {
        // The pointer to what may be uninitialised is one to what is not, by the caller's promise.
        self.request.with(|slot| slot.cast())
    }

    /// The request, for writing.
    ///
    /// # Safety
    ///
    /// As [`take`](Self::take), for as long as the pointer is used.
    #[inline]
    pub(super) unsafe fn request_mut(&self) -> *mut Request {
        self.request.with_mut(|slot| slot.cast())
    }

    /// Has one more hook called when the request has ended, before those that are there.
    ///
    /// # Safety
    ///
    /// 1. The request is the caller's.
    #[inline]
    pub(super) unsafe fn push_hook(&self, hook: Hook) {
        // SAFETY: by 1.
        self.hooks.with_mut(|hooks| unsafe { (*hooks).push(hook) });
    }

    /// [`AWAITED`] if there are hooks, otherwise 0.
    ///
    /// # Safety
    ///
    /// As [`push_hook`](Self::push_hook).
    #[inline(always)]
    pub(super) unsafe fn mark(&self) -> u64 {
        // SAFETY: by 1.
        self.hooks.with(|hooks| unsafe { (*hooks).mark() })
    }

    /// Whether there are hooks.
    ///
    /// # Safety
    ///
    /// As [`push_hook`](Self::push_hook).
    #[inline(always)]
    pub(super) unsafe fn has_hooks(&self) -> bool {
        // SAFETY: by 1.
        unsafe { self.mark() != 0 }
    }

    /// Whether the next hook is to be called by this.
    ///
    /// # Safety
    ///
    /// As [`push_hook`](Self::push_hook).
    pub(super) unsafe fn next_hook_is_by(&self, by: By) -> bool {
        // SAFETY: by 1.
        self.hooks.with(|hooks| unsafe { (*hooks).next_is_by(by) })
    }

    /// The task of this slot, which is made if there is none.
    ///
    /// # Safety
    ///
    /// As [`push_hook`](Self::push_hook).
    pub(super) unsafe fn task(&self, make: impl FnOnce() -> Task<Deferred>) -> Task<Deferred> {
        // SAFETY: by 1.
        self.hooks.with_mut(|hooks| unsafe { (*hooks).task(make) })
    }

    /// Calls the hooks whose turn has come for `by`, with the request, which may have been moved out; returns what they
    /// make of the outcome.
    ///
    /// # Safety
    ///
    /// As [`push_hook`](Self::push_hook).
    pub(super) unsafe fn call_hooks(&self, request: &mut Request, outcome: Outcome, by: By) -> Outcome {
        // SAFETY: by 1. What they are given does not lead back here.
        self.hooks.with_mut(|hooks| unsafe { (*hooks).call(request, outcome, by) })
    }

    /// Calls all hooks of a request that was refused; returns the error.
    ///
    /// # Safety
    ///
    /// As [`push_hook`](Self::push_hook), and the slot is filled.
    #[cold]
    pub(super) unsafe fn refused(&self, error: io::Error) -> io::Error {
        // SAFETY: by 1., and filled.
        let outcome = unsafe { self.call_hooks(&mut *self.request_mut(), Err(error).into(), By::Reader) };
        // That one of them makes a success of it changes nothing.
        outcome.error.unwrap_or_else(|| io::Error::other("refused"))
    }

    /// The name of the request.
    ///
    /// # Safety
    ///
    /// As [`push_hook`](Self::push_hook), and `tag` is this slot's.
    pub(super) unsafe fn name(&self, tag: u32) -> RequestId {
        // Relaxed: written by whoever has handed the request over to the caller.
        RequestId::new(self.word.load(Relaxed) & !TAG, tag)
    }

    /// The request's owner is done with it, but for handing over the event.
    #[inline(always)]
    pub(super) fn finish(&self, id: RequestId) {
        // Relaxed: those who come to cancel are told so by and by; who has read the event, and who gets the slot next,
        // comes after it by the ring and by the tag.
        self.word.store(id.generation() | FINISHED, Relaxed);
    }

    /// The request's owner leaves it to whoever claims it first.
    pub(super) fn offer(&self, id: RequestId) {
        // Release: pairs with `claim`: what the owner did to the request.
        self.word.store(id.generation() | OFFERED, mo!("aio.slot.offer", Release));
    }

    /// Takes the request, if it is on offer; says what else has become of it.
    pub(super) fn claim(&self, id: RequestId) -> Result<(), CancelError> {
        let (offered, owned) = (id.generation() | OFFERED, id.generation() | OWNED);
        // Acquire: pairs with `offer`. Relaxed: nothing is done.
        match self.word.compare_exchange(offered, owned, mo!("aio.slot.claim", Acquire), Relaxed) {
            Ok(_) => Ok(()),
            Err(now) if now == owned => Err(CancelError::Running),
            Err(_) => Err(CancelError::Unknown),
        }
    }

    /// The name of the request on offer here, if it looks as if there were one.
    pub(super) fn on_offer(&self, tag: u32) -> Option<RequestId> {
        // Relaxed: `claim` decides. That one which is there is seen is ordered by the caller.
        let word = self.word.load(Relaxed);
        (word & TAG == OFFERED).then(|| RequestId::new(word & !TAG, tag))
    }

    /// Whether the request was on offer and somebody else has claimed it.
    pub(super) fn is_claimed(&self, id: RequestId) -> bool {
        // Relaxed: it stays so.
        self.word.load(Relaxed) != id.generation() | OFFERED
    }

    /// What there is to say about the request in flight here, if there is one.
    pub(super) fn in_flight(&self, tag: u32) -> Option<InFlight> {
        // Acquire: pairs with `fill`; the user data is this request's or that of one after it.
        let word = self.word.load(mo!("aio.slot.look", Acquire));
        // Acquire: pairs with `fill`; if it is that of one after it, the word is no longer this one's below.
        let user_data = self.user_data.load(mo!("aio.slot.look_user_data", Acquire));
        // Relaxed: ordered by that.
        let now = self.word.load(Relaxed);
        let same = word & !TAG == now & !TAG && now & TAG != FINISHED;
        same.then(|| InFlight { id: RequestId::new(now & !TAG, tag), user_data })
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
