use super::*;
use crate::aio::{Buffer, BufferMut};
use proptest::prelude::*;
use std::fs::File;

fn null() -> File {
    File::options().read(true).write(true).open(if cfg!(windows) { "NUL" } else { "/dev/null" }).unwrap()
}

/// Where the bytes are that are to be moved next, and where in the file; whether they are written.
fn shown(desc: &mut IoDesc<Request>) -> (Vec<(usize, usize)>, u64, bool) {
    match desc.rest() {
        Rest::Read { bufs, offset, .. } => {
            (bufs.iter().map(|buf| (buf.as_ptr().addr(), buf.len())).collect(), offset, false)
        }
        Rest::Write { bufs, offset, .. } => {
            (bufs.iter().map(|buf| (buf.as_ptr().addr(), buf.len())).collect(), offset, true)
        }
    }
}

fn lens() -> impl Strategy<Value = Vec<usize>> {
    let len = || prop_oneof![3 => Just(0_usize), 2 => Just(1), 3 => 1..50_usize];
    prop_oneof![
        3 => prop::collection::vec(len(), 0..12),
        1 => prop::collection::vec(len(), 1000..2500),
        1 => prop::collection::vec(Just(0_usize), 1000..2500),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Byte by byte: what is left are the bytes behind those that are done, in order, each once.
    #[test]
    fn what_is_left_is_what_was_not_done(
        lens in lens(),
        steps in prop::collection::vec(0..400_usize, 0..60),
        writes in any::<bool>(),
        offset in 0..1_u64 << 40,
    ) {
        let mut memory: Vec<Vec<u8>> = lens.iter().map(|len| vec![0; *len]).collect();
        let at = |buf: &Vec<u8>| (0..buf.len()).map(|n| buf.as_ptr().addr() + n).collect::<Vec<_>>();
        let bytes: Vec<usize> = memory.iter().flat_map(at).collect();
        let request = match writes {
            true => Request::new(Op::WriteV {
                file: null().into(),
                bufs: std::mem::take(&mut memory).into_iter().map(Buffer::from).collect(),
                offset,
            }),
            false => Request::new(Op::ReadV {
                file: null().into(),
                bufs: std::mem::take(&mut memory).into_iter().map(BufferMut::from).collect(),
                offset,
            }),
        };
        let mut desc = IoDesc::new(request).unwrap();
        let mut done = 0;
        for step in steps {
            prop_assert_eq!((desc.done(), desc.left()), (done, bytes.len() - done));
            prop_assert_eq!(desc.is_done(), done == bytes.len());
            let (slices, place, to_file) = shown(&mut desc);
            prop_assert_eq!((place, to_file), (offset + done as u64, writes));
            prop_assert!(slices.len() <= MAX_SEGMENTS);
            prop_assert!(desc.is_done() || slices.iter().all(|(_, len)| *len > 0));
            let next: Vec<usize> = slices.iter().flat_map(|(at, len)| *at..at + len).collect();
            prop_assert!(bytes[done..].starts_with(&next));
            prop_assert!(next.len() == bytes.len() - done || slices.len() == MAX_SEGMENTS);
            desc.advance(step);
            done = (done + step).min(bytes.len());
        }
        prop_assert!(desc.into_inner().into_buffers::<Vec<u8>>().is_ok());
    }
}

#[test]
fn single_buffers_are_cut_and_empty_ones_shown() {
    let mut desc = IoDesc::new(Request::read(null(), vec![0; 100], 7)).unwrap();
    let (all, ..) = shown(&mut desc);
    desc.advance(30);
    assert_eq!(shown(&mut desc), (vec![(all[0].0 + 30, 70)], 37, false));
    desc.advance(usize::MAX);
    assert_eq!((desc.done(), desc.left(), desc.is_done()), (100, 0, true));
    assert_eq!(shown(&mut desc), (vec![], 107, false));

    let mut desc = IoDesc::new(Request::write_dsync(null(), vec![], 7)).unwrap();
    assert!(desc.is_done());
    assert!(matches!(desc.rest(), Rest::Write { bufs, offset: 7, dsync: true, .. } if bufs.len() == 1));
    let mut desc = IoDesc::new(Request::write(null(), vec![1], 7)).unwrap();
    assert!(matches!(desc.rest(), Rest::Write { dsync: false, .. }));
}

#[test]
#[cfg(target_pointer_width = "64")]
fn one_call_is_for_no_more_than_the_kernel_moves() {
    // Memory that is never touched.
    let mut desc = IoDesc::new(Request::writev(null(), [vec![], vec![0; MOST + 5], vec![0; 3]], 1)).unwrap();
    let lens = |(slices, offset, _): (Vec<(usize, usize)>, u64, bool)| {
        (slices.into_iter().map(|(_, len)| len).collect::<Vec<_>>(), offset)
    };
    assert_eq!(lens(shown(&mut desc)), (vec![MOST], 1));
    desc.advance(MOST);
    assert_eq!(lens(shown(&mut desc)), (vec![5, 3], 1 + MOST as u64));
}

#[test]
fn what_moves_no_bytes_comes_back() {
    for request in [Request::nop(), Request::fsync(null()), Request::fdatasync(null())] {
        assert!(IoDesc::new(request).is_err());
    }
}
