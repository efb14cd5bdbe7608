use super::*;
use crate::aio::{AlignedBuffer, AlignedError};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// An owner that counts how often it was dropped.
struct Counted {
    bytes: Box<[u8]>,
    drops: Arc<AtomicUsize>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Relaxed);
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

fn counted(bytes: &[u8]) -> (Counted, Arc<AtomicUsize>) {
    let drops = Arc::new(AtomicUsize::new(0));
    (Counted { bytes: bytes.into(), drops: Arc::clone(&drops) }, drops)
}

/// Goes through a buffer and comes back with the same bytes in the same place.
fn there_and_back<T: IoBuf + Deref<Target = [u8]>>(owner: T, bytes: &[u8]) -> T {
    let before = owner.as_ptr_range();
    let buffer = Buffer::from(owner);
    assert_eq!((buffer.as_ptr_range(), &buffer[..]), (before.clone(), bytes));
    let owner = buffer.downcast::<T>().unwrap();
    assert_eq!((owner.as_ptr_range(), &owner[..]), (before, bytes));
    owner
}

/// The same, and filled on the way.
fn there_filled_and_back<T: IoBufMut + Deref<Target = [u8]>>(owner: T, bytes: &[u8]) -> T {
    let owner = there_and_back(owner, bytes);
    let before = owner.as_ptr_range();
    let mut buffer = BufferMut::from(owner);
    assert_eq!(&buffer[..], bytes);
    buffer.fill(7);
    let owner = buffer.downcast::<T>().unwrap();
    assert_eq!((owner.as_ptr_range(), &owner[..]), (before, &vec![7; bytes.len()][..]));
    owner
}

fn aligned(bytes: &[u8], align: usize) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::new(bytes.len(), align).unwrap();
    assert!(buffer.as_ptr().addr().is_multiple_of(align) && buffer.iter().all(|byte| *byte == 0));
    buffer.copy_from_slice(bytes);
    buffer
}

#[test]
fn every_kind_comes_back_as_what_it_was() {
    for bytes in [&b""[..], b"x", b"0123456789abcdef0123456789abcdef"] {
        let mut spare = Vec::with_capacity(bytes.len() + 100);
        spare.extend_from_slice(bytes);
        let capacity = spare.capacity();
        assert_eq!(there_filled_and_back(spare, bytes).capacity(), capacity);
        there_filled_and_back(bytes.to_vec(), bytes);
        there_filled_and_back(Box::<[u8]>::from(bytes), bytes);
        for align in [1, 2, 512, 4096, 1 << 16] {
            assert_eq!(there_filled_and_back(aligned(bytes, align), bytes).align(), align);
        }
        let shared = SharedBytes::from(bytes);
        there_and_back(Arc::clone(&shared), bytes);
        assert_eq!(Arc::strong_count(&shared), 1);
        let buffer = Buffer::from(Arc::clone(&shared));
        assert_eq!(Arc::strong_count(&shared), 2);
        drop(buffer);
        assert_eq!(Arc::strong_count(&shared), 1);
    }
    there_and_back(&b"for ever"[..], b"for ever");
}

#[test]
fn owners_are_dropped_once_or_come_back() {
    let (owner, drops) = counted(b"abc");
    drop(Buffer::from(owner));
    assert_eq!(drops.load(Relaxed), 1);

    let (owner, drops) = counted(b"abc");
    drop(BufferMut::from(owner));
    assert_eq!(drops.load(Relaxed), 1);

    let (owner, drops) = counted(b"abc");
    let buffer = Buffer::from(BufferMut::from(owner)).downcast::<Vec<u8>>().unwrap_err();
    let mut buffer = BufferMut(buffer).downcast::<AlignedBuffer>().unwrap_err();
    buffer[1] = b'x';
    assert!(buffer.is::<Counted>() && !buffer.is::<Box<[u8]>>());
    let Ok(owner) = buffer.downcast::<Counted>() else { panic!("it is one") };
    assert_eq!((&owner.bytes[..], drops.load(Relaxed)), (&b"axc"[..], 0));
    drop(owner);
    assert_eq!(drops.load(Relaxed), 1);
}

#[test]
fn memory_of_others_stays_theirs() {
    let mut memory = [1, 2, 3];
    // SAFETY: 1. an array. 2. it is used again only when the buffer is gone.
    let mut buffer = unsafe { BufferMut::from_raw_parts(memory.as_mut_ptr(), 2) };
    assert_eq!(&buffer[..], [1, 2]);
    buffer[1] = 9;
    drop(buffer);
    // SAFETY: 1. an array. 2. nobody writes it.
    let buffer = unsafe { Buffer::from_raw_parts(memory.as_ptr(), 3) };
    let buffer = buffer.downcast::<Vec<u8>>().unwrap_err();
    assert_eq!(&buffer[..], [1, 9, 3]);
}

#[test]
fn buffers_are_four_words_and_go_anywhere() {
    fn any_thread<T: Send + Sync + 'static>() {}
    any_thread::<Buffer>();
    any_thread::<BufferMut>();
    any_thread::<crate::Request>();
    assert_eq!(size_of::<Buffer>(), 4 * size_of::<usize>());
    assert_eq!(size_of::<Option<Vec<BufferMut>>>(), size_of::<Vec<BufferMut>>());
    assert!(format!("{:?}", Buffer::from(vec![0; 9])).contains("Vec<u8>"));
}

#[test]
fn alignments_and_lengths_that_cannot_be_are_named() {
    let error = |len, align| AlignedBuffer::new(len, align).unwrap_err();
    assert_eq!(error(1, 0), AlignedError::Align(0));
    assert_eq!(error(1, 3), AlignedError::Align(3));
    assert_eq!(error(1, usize::MAX), AlignedError::Align(usize::MAX));
    let len = isize::MAX as usize;
    assert_eq!(error(len, 2), AlignedError::Length { len, align: 2 });
    assert_eq!(error(usize::MAX, 1), AlignedError::Length { len: usize::MAX, align: 1 });
    let align = 1 << (usize::BITS - 1);
    assert_eq!(error(1, align), AlignedError::Length { len: 1, align });
    for wrong in [AlignedError::Align(3), AlignedError::Length { len, align }, AlignedError::OutOfMemory(len)]
    {
        assert!(wrong.to_string().contains("asked for") || wrong.to_string().contains("ask for"));
    }
}

#[test]
#[cfg(ioctx_linux)]
fn large_ones_ask_for_huge_pages() {
    const HUGE: usize = 2 << 20;
    for len in [HUGE, 2 * HUGE + 5000] {
        let buffer = aligned(&vec![3; len], HUGE);
        assert!(buffer.iter().all(|byte| *byte == 3));
        if !std::fs::exists("/sys/kernel/mm/transparent_hugepage/enabled").unwrap() {
            return println!("SKIPPED: the kernel knows no huge pages");
        }
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        let flags = maps.lines().find_map(|line| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let number = |digits| usize::from_str_radix(digits, 16).ok();
            if let Some((Some(start), Some(end))) = range.map(|(start, end)| (number(start), number(end))) {
                inside = (start..end).contains(&buffer.as_ptr().addr());
            }
            line.strip_prefix("VmFlags:").filter(|_| inside)
        });
        assert!(flags.unwrap().split(' ').any(|flag| flag == "hg"), "{flags:?}");
    }
}

/// The owners there are, as a test makes them.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Owner {
    Vec { spare: usize },
    Boxed,
    Shared,
    Aligned { shift: u32 },
    Counted,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Asks for it as an owner of this kind; if it is one, makes a buffer of that again.
    As(Owner),
    /// Writes into it, if it was made to be written.
    Fill(u8),
    /// Drops it on another thread.
    Drop,
}

fn owner() -> impl Strategy<Value = Owner> {
    prop_oneof![
        (0..300_usize).prop_map(|spare| Owner::Vec { spare }),
        Just(Owner::Boxed),
        Just(Owner::Shared),
        (0..14_u32).prop_map(|shift| Owner::Aligned { shift }),
        Just(Owner::Counted),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![8 => owner().prop_map(Step::As), 8 => any::<u8>().prop_map(Step::Fill), 1 => Just(Step::Drop)]
}

/// A buffer for reading into, or one for writing only.
enum Either {
    Exclusive(BufferMut),
    Shared(Buffer),
}

impl Either {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Exclusive(buffer) => buffer,
            Self::Shared(buffer) => buffer,
        }
    }

    /// There and back as `T`, if that is its owner.
    fn through<T: IoBufMut>(self) -> (Self, bool) {
        match self {
            Self::Exclusive(buffer) => match buffer.downcast::<T>() {
                Ok(owner) => (Self::Exclusive(owner.into()), true),
                Err(buffer) => (Self::Exclusive(buffer), false),
            },
            Self::Shared(buffer) => match buffer.downcast::<T>() {
                Ok(owner) => (Self::Shared(owner.into()), true),
                Err(buffer) => (Self::Shared(buffer), false),
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn conversions_keep_the_bytes_their_place_and_their_owner(
        kind in owner(),
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        steps in prop::collection::vec(step(), 1..20),
    ) {
        let drops = Arc::new(AtomicUsize::new(0));
        let mut buffer = match kind {
            Owner::Vec { spare } => {
                let mut owner = Vec::with_capacity(bytes.len() + spare);
                owner.extend_from_slice(&bytes);
                Either::Exclusive(owner.into())
            }
            Owner::Boxed => Either::Exclusive(bytes.clone().into_boxed_slice().into()),
            Owner::Shared => Either::Shared(SharedBytes::from(&bytes[..]).into()),
            Owner::Aligned { shift } => Either::Exclusive(aligned(&bytes, 1 << shift).into()),
            Owner::Counted => {
                let drops = Arc::clone(&drops);
                Either::Exclusive(Counted { bytes: bytes.clone().into(), drops }.into())
            }
        };
        let place = buffer.bytes().as_ptr();
        for step in steps {
            match step {
                Step::As(other) => {
                    let (back, was) = match other {
                        Owner::Vec { .. } => buffer.through::<Vec<u8>>(),
                        Owner::Boxed => buffer.through::<Box<[u8]>>(),
                        Owner::Aligned { .. } => buffer.through::<AlignedBuffer>(),
                        Owner::Counted => buffer.through::<Counted>(),
                        Owner::Shared => match buffer {
                            Either::Shared(buffer) => {
                                (Either::Shared(buffer.downcast::<SharedBytes>().unwrap().into()), true)
                            }
                            Either::Exclusive(buffer) => {
                                (Either::Exclusive(buffer.downcast::<SharedBytes>().unwrap_err()), false)
                            }
                        },
                    };
                    buffer = back;
                    prop_assert_eq!(was, std::mem::discriminant(&kind) == std::mem::discriminant(&other));
                }
                Step::Fill(byte) => {
                    if let Either::Exclusive(buffer) = &mut buffer {
                        buffer.fill(byte);
                        bytes.fill(byte);
                    }
                }
                Step::Drop => {
                    std::thread::spawn(|| drop(buffer)).join().unwrap();
                    prop_assert_eq!(drops.load(Relaxed), usize::from(kind == Owner::Counted));
                    return Ok(());
                }
            }
            prop_assert_eq!((buffer.bytes(), buffer.bytes().as_ptr()), (&bytes[..], place));
            prop_assert_eq!(drops.load(Relaxed), 0);
        }
    }
}
