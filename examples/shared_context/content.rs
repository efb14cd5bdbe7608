//! What the file must hold, block by block.

use indicatif::ProgressBar;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::*};

/// What every block of the file must hold, and which are being changed.
pub struct Content {
    block: usize,
    blocks: Blocks,
}

enum Blocks {
    /// Written by this program: each block follows from its number and from how often it was written. Bit
    /// 0: in use by a request; the rest: how often.
    Made(Vec<AtomicU32>),
    /// Somebody's file: a sum over the bytes of each block.
    Summed(Vec<u64>),
}

/// One block, claimed for one request.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub block: u32,
    pub version: u32,
}

const IN_USE: u32 = 1;

impl Content {
    /// Makes a file of at most `len` bytes.
    pub fn make(path: &Path, len: u64, block: u32, bar: ProgressBar) -> io::Result<Self> {
        let block = block as usize;
        let count = (len / block as u64).max(1) as u32;
        let mut file = io::BufWriter::with_capacity(1 << 20, File::create(path)?);
        let mut buf = vec![0; block];
        bar.set_length(count.into());
        for number in 0..count {
            fill(&mut buf, number, 0);
            file.write_all(&buf)?;
            if number % 1024 == 0 {
                bar.set_position(number.into());
            }
        }
        // On its device, so that the making does not disturb the measuring.
        file.into_inner()?.sync_all()?;
        bar.finish();
        let blocks = Blocks::Made((0..count).map(|_| AtomicU32::new(0)).collect());
        Ok(Self { block, blocks })
    }

    /// Sums up a file as it is.
    pub fn sum(file: &File, block: u32, bar: ProgressBar) -> io::Result<Self> {
        let block = block as usize;
        let count = file.metadata()?.len() / block as u64;
        if count == 0 {
            return Err(io::Error::other("the file is shorter than one block"));
        }
        let mut file = io::BufReader::with_capacity(1 << 20, file);
        let mut buf = vec![0; block];
        bar.set_length(count);
        let mut sums = Vec::with_capacity(count as usize);
        for number in 0..count {
            file.read_exact(&mut buf)?;
            sums.push(sum(&buf));
            if number % 1024 == 0 {
                bar.set_position(number);
            }
        }
        bar.finish();
        Ok(Self { block, blocks: Blocks::Summed(sums) })
    }

    /// Reads the whole file and compares it.
    pub fn check_all(&self, file: &File) -> io::Result<()> {
        let mut file = io::BufReader::with_capacity(1 << 20, file);
        file.seek(SeekFrom::Start(0))?;
        let mut buf = vec![0; self.block];
        for block in 0..self.count() {
            file.read_exact(&mut buf)?;
            if !self.check(Claim { block, version: self.version(block) }, &buf) {
                return Err(io::Error::other(format!("block {block} does not hold what was last written")));
            }
        }
        Ok(())
    }

    /// How many blocks there are.
    pub fn count(&self) -> u32 {
        match &self.blocks {
            Blocks::Made(blocks) => blocks.len() as u32,
            Blocks::Summed(sums) => sums.len() as u32,
        }
    }

    /// The block's place in the file.
    pub fn offset(&self, block: u32) -> u64 {
        u64::from(block) * self.block as u64
    }

    /// Claims a block, so that nothing else reads or writes it; `None` if somebody has it.
    pub fn claim(&self, block: u32) -> Option<Claim> {
        let Blocks::Made(blocks) = &self.blocks else { return Some(Claim { block, version: 0 }) };
        // Acquire: what the last user left in the file happens before what we do with it.
        let before = blocks[block as usize].fetch_or(IN_USE, Acquire);
        (before & IN_USE == 0).then_some(Claim { block, version: before >> 1 })
    }

    /// How often a block was written. For its claimant, or if nobody writes.
    pub fn version(&self, block: u32) -> u32 {
        match &self.blocks {
            // Relaxed: the claimant has acquired it.
            Blocks::Made(blocks) => blocks[block as usize].load(Relaxed) >> 1,
            Blocks::Summed(_) => 0,
        }
    }

    /// Gives a block back, `written` times newer.
    pub fn release(&self, claim: Claim, written: u32) {
        if let Blocks::Made(blocks) = &self.blocks {
            // Release: pairs with `claim`.
            blocks[claim.block as usize].store(claim.version.wrapping_add(written) << 1, Release);
        }
    }

    /// What a write puts there.
    pub fn fill_next(&self, claim: Claim, buf: &mut [u8]) {
        fill(buf, claim.block, claim.version.wrapping_add(1) & (u32::MAX >> 1));
    }

    /// Whether `buf` is what the block must hold.
    pub fn check(&self, claim: Claim, buf: &[u8]) -> bool {
        match &self.blocks {
            Blocks::Made(_) => {
                let mut wrong = 0;
                for (i, word) in buf.chunks_exact(8).enumerate() {
                    let word = u64::from_ne_bytes(word.try_into().expect("eight bytes"));
                    wrong |= word ^ expected(claim.block, claim.version, i);
                }
                wrong == 0
            }
            Blocks::Summed(sums) => sums[claim.block as usize] == sum(buf),
        }
    }
}

fn fill(buf: &mut [u8], block: u32, version: u32) {
    for (i, word) in buf.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&expected(block, version, i).to_ne_bytes());
    }
}

/// Distinct for every block, version and place.
fn expected(block: u32, version: u32, place: usize) -> u64 {
    let seed = u64::from(block) << 32 | u64::from(version);
    (seed ^ (place as u64) << 21).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Depends on every byte and its place.
fn sum(buf: &[u8]) -> u64 {
    buf.chunks(8).fold(buf.len() as u64, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum.rotate_left(29) ^ u64::from_ne_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}
