//! The requests of one `io_submit`: [`List`].

use super::abi::{Errno, Iocb};
use super::memory::{self, TOGETHER};
use std::mem::MaybeUninit;
use std::ops::Range;

/// What the caller lists: addresses of requests. Those that cannot be read as they are are read ahead.
pub(super) struct List {
    list: *const *mut Iocb,
    n: usize,
    /// Which of them were read.
    ahead: Range<usize>,
    addresses: [*mut Iocb; TOGETHER],
    requests: [MaybeUninit<Iocb>; TOGETHER],
}

impl List {
    #[inline]
    pub(super) fn new(list: *const *mut Iocb, n: usize) -> Self {
        let (addresses, requests) =
            ([std::ptr::null_mut(); TOGETHER], [const { MaybeUninit::uninit() }; TOGETHER]);
        Self { list, n, ahead: 0..0, addresses, requests }
    }

    /// Where the `i`th request is, and a copy of it.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    #[inline]
    pub(super) fn get(&mut self, i: usize) -> Result<(*mut Iocb, Iocb), Errno> {
        if let Some(address) = memory::read_at_once(self.list.wrapping_add(i))
            && let Some(request) = memory::read_at_once(address)
        {
            return Ok((address, request));
        }
        self.get_elsewhere(i)
    }

    #[cold]
    fn get_elsewhere(&mut self, i: usize) -> Result<(*mut Iocb, Iocb), Errno> {
        if !self.ahead.contains(&i) {
            let mut addresses = [const { MaybeUninit::uninit() }; TOGETHER];
            let len = TOGETHER.min(self.n - i);
            let there = memory::read_some(self.list.wrapping_add(i), &mut addresses[..len]);
            self.addresses[..there.len()].copy_from_slice(there);
            let n = memory::read_each(&self.addresses, &mut self.requests[..there.len()]);
            self.ahead = i..i + n;
        }
        if self.ahead.is_empty() {
            return Err(libc::EFAULT);
        }
        let place = i - self.ahead.start;
        // SAFETY: read, as are all that are `ahead`.
        Ok((self.addresses[place], unsafe { self.requests[place].assume_init() }))
    }
}
