//! The names of requests: [`RequestId`].

/// The name of one request: its slot, and which of the requests in that slot is meant.
///
/// Plain data: it keeps nothing alive, and proves nothing. One that is out of date or of another context finds no
/// request, rather than the wrong one; one that was made up finds none, unless it was guessed. A slot's generations
/// begin again after 2⁴³ requests; those of contexts that live at the same time begin far apart, billions of requests
/// even for a thousand contexts.
///
/// # Examples
///
/// ```
/// use ioctx::aio::{CancelError, Context, Request, RequestId};
/// use ioctx::backend::Null;
/// let context = Context::new(4, Null)?;
/// let id = context.submit(Request::nop())?;
/// assert_eq!(RequestId::from_raw(id.into_raw()), id);
/// assert_eq!(context.cancel(id), Err(CancelError::Unknown));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u64);

/// The bits of the tag. In a slot's word they say how far the request is.
pub(super) const TAG: u64 = (super::MAX_CAPACITY as u64).next_power_of_two() - 1;

/// The bit of requests whose event goes to a future: a part of their name, so that whoever completes one knows it
/// without a look at its slot.
pub(super) const AWAITED: u64 = TAG + 1;

impl RequestId {
    /// As a number, never 0.
    pub fn into_raw(self) -> u64 {
        self.0
    }

    /// Any number at all: one that names nothing finds nothing.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// Of the slot whose number is `tag`.
    #[inline(always)]
    pub(super) fn new(generation: u64, tag: u32) -> Self {
        Self(generation | u64::from(tag))
    }

    /// Which slot.
    #[inline(always)]
    pub(super) fn tag(self) -> u32 {
        (self.0 & TAG) as u32
    }

    /// Which of the requests in it, above the bits of the tag.
    #[inline(always)]
    pub(super) fn generation(self) -> u64 {
        self.0 & !TAG
    }

    /// The same, but awaited if `mark` is [`AWAITED`].
    #[inline(always)]
    pub(super) fn with(self, mark: u64) -> Self {
        Self(self.0 | mark)
    }

    /// Whether the event goes to a future.
    #[inline(always)]
    pub(crate) fn is_awaited(self) -> bool {
        self.0 & AWAITED != 0
    }
}
