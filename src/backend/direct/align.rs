//! What a file asks of direct I/O: [`Align`].

use crate::aio::FileRef;
use rustix::fs::{AtFlags, OFlags, StatxFlags, fcntl_getfl, statx};

/// `STATX_DIOALIGN`, of Linux 6.1.
const DIOALIGN: StatxFlags = StatxFlags::from_bits_retain(0x2000);

/// Good for every block size there is, if the kernel does not say what is needed.
const ANY: u32 = 4096;

/// What direct I/O on a file needs, powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Align {
    /// Addresses.
    pub(super) memory: usize,
    /// Offsets and lengths of reads.
    pub(super) read: u64,
    /// Of writes: whole pages and blocks of the file system, so that what goes past the page cache never shares one
    /// with what goes through it.
    pub(super) write: u64,
}

impl Align {
    /// Of a file that was opened with `O_DIRECT`, can be read and written that way, and at offsets.
    pub(super) fn of(file: &FileRef) -> Option<Self> {
        let flags = fcntl_getfl(file).ok()?;
        if !flags.contains(OFlags::DIRECT) || flags.contains(OFlags::APPEND) {
            return None;
        }
        let stat = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | DIOALIGN).ok();
        let (memory, offset, block) = match stat {
            Some(stat) if stat.stx_mask & DIOALIGN.bits() != 0 => {
                (stat.stx_dio_mem_align, stat.stx_dio_offset_align, stat.stx_blksize)
            }
            Some(stat) => (ANY, ANY, stat.stx_blksize),
            None => (ANY, ANY, ANY),
        };
        Self::checked(memory, offset, block)
    }

    /// `None` if there is no direct I/O on this file.
    fn checked(memory: u32, offset: u32, block: u32) -> Option<Self> {
        let usable = [memory, offset].iter().all(|align| align.is_power_of_two());
        let block = if block.is_power_of_two() && block <= 1 << 16 { block } else { ANY };
        usable.then(|| Self {
            memory: memory as usize,
            read: offset.into(),
            write: offset.max(block).max(ANY).into(),
        })
    }

    /// What all of a part's buffer is a multiple of, and on.
    pub(super) fn largest(self) -> u64 {
        self.write.max(self.memory as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn what_the_kernel_says_is_used_if_it_makes_sense() {
        let of = Align::checked;
        assert_eq!(of(4, 512, 4096), Some(Align { memory: 4, read: 512, write: 4096 }));
        assert_eq!(of(512, 16384, 4096).unwrap().write, 16384);
        assert_eq!(of(512, 512, 1 << 20).unwrap().write, 4096);
        assert_eq!((of(0, 0, 4096), of(512, 513, 4096)), (None, None));
    }

    #[test]
    fn files_that_are_not_direct_have_none() {
        assert_eq!(Align::of(&File::open("/dev/null").unwrap().into()), None);
    }
}
