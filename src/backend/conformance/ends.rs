//! Transfers of nothing, across the end of the file, and beyond it.

use super::rig::{Rig, Tried, failed, pattern, same, same_bytes};
use super::{Capability, Check};
use crate::aio::Request;
use std::fs;

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "zero_length",
        says: "a transfer of nothing gives 0",
        needs: &[Capability::Files],
        run: zero_length,
    },
    Check {
        name: "short_at_end",
        says: "a read across the end of the file gives what is there, and leaves the rest of its buffers as it was",
        needs: &[Capability::Files],
        run: short_at_end,
    },
    Check {
        name: "beyond_end",
        says: "a read beyond the end of the file gives 0; a write there leaves zeros in between",
        needs: &[Capability::Files],
        run: beyond_end,
    },
];

fn zero_length(rig: &Rig) -> Tried {
    let live = rig.context(1);
    let (file, path) = rig.file(b"text")?;
    let file = || file.clone();
    for offset in [0, 4, 1000] {
        live.gives("an empty read", Request::read(file(), Vec::new(), offset), 0)?;
        live.gives("an empty write", Request::write(file(), Vec::new(), offset), 0)?;
        live.gives("a read into no buffers", Request::readv(file(), Vec::<Vec<u8>>::new(), offset), 0)?;
        live.gives("a read into empty buffers", Request::readv(file(), [vec![], vec![]], offset), 0)?;
        live.gives("a write of no buffers", Request::writev(file(), Vec::<Vec<u8>>::new(), offset), 0)?;
        live.gives("a write of empty buffers", Request::writev(file(), [vec![], vec![]], offset), 0)?;
    }
    same_bytes("the file", &fs::read(path)?, b"text")?;
    live.end()
}

fn short_at_end(rig: &Rig) -> Tried {
    let live = rig.context(1);
    let bytes = pattern(1, 5000);
    let (file, _) = rig.file(&bytes)?;
    for offset in [0, 4000, 4096, 4999] {
        let left = 5000 - offset;
        let event =
            live.gives("a read", Request::read(file.clone(), vec![0xaa; 9000], offset as u64), left)?;
        let Ok(mut came) = event.request.into_buffer::<Vec<u8>>() else {
            return failed("the buffer to come back", "it does not");
        };
        same("the length of the buffer", came.len(), 9000)?;
        same_bytes("the rest of the buffer", &came.split_off(left), &vec![0xaa; 9000 - left])?;
        same_bytes("what was read", &came, &bytes[offset..])?;
        let parts = [vec![0xaa; left - 1], vec![0xaa; 9], vec![0xaa; 9]];
        let event =
            live.gives("a vectored read", Request::readv(file.clone(), parts, offset as u64), left)?;
        let Ok(parts) = event.request.into_buffers::<Vec<u8>>() else {
            return failed("the buffers to come back", "they do not");
        };
        let expected = [&bytes[offset..], &[0xaa; 17]].concat();
        same_bytes("the buffers of a vectored read", &parts.concat(), &expected)?;
    }
    live.end()
}

fn beyond_end(rig: &Rig) -> Tried {
    let live = rig.context(1);
    let (file, path) = rig.file(b"text")?;
    for offset in [4, 5, 1 << 20] {
        let event = live.gives("a read", Request::read(file.clone(), vec![0xaa; 100], offset), 0)?;
        let came = event.request.into_buffer::<Vec<u8>>();
        same("whether the buffer is as it was", came.is_ok_and(|came| came == [0xaa; 100]), true)?;
    }
    live.gives("a write", Request::write(file, b"more".to_vec(), 100), 4)?;
    let expected = [&b"text"[..], &[0; 96], b"more"].concat();
    same_bytes("the file", &fs::read(path)?, &expected)?;
    live.end()
}
