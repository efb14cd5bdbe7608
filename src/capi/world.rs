//! What a process has of contexts: [`World`].

use super::abi::Errno;
use super::context::{Entered, Slot};
use super::masked::Bell;
use super::memory;
use super::pool::Pool;
use super::region::{PAGE, Region};
use crate::sync::atomic::Ordering::Relaxed;
use crate::sync::{Arc, Mutex, OnceLock, process, time};
use crate::{barrier, cpu};
use std::ptr;

/// The most regions: 2²² contexts of one page.
const REGIONS: usize = 1 << 10;
/// An id is a region and a place in it.
const PLACE_BITS: u32 = 16;

/// The contexts of one process, and what carries their requests out. A child begins with none.
pub(super) struct World {
    /// How many forks lead to this process, and what the next child has. Parents' worlds come before ours, as copies.
    forks: u32,
    child: OnceLock<Box<World>>,
    regions: [OnceLock<Region>; REGIONS],
    spare: Mutex<Spare>,
    pool: Mutex<Option<&'static Pool>>,
    /// Those that nobody sleeps by.
    pub(super) bells: Mutex<Vec<Arc<Bell>>>,
}

/// Which places are free.
#[derive(Default)]
struct Spare {
    /// Of contexts that were destroyed, by size.
    used: Vec<(usize, Vec<u32>)>,
    /// How many regions there are.
    regions: usize,
    /// Of each region, how many places were ever used.
    begun: Vec<usize>,
}

impl World {
    fn new(forks: u32) -> Self {
        Self {
            forks,
            child: OnceLock::new(),
            regions: [const { OnceLock::new() }; REGIONS],
            spare: Mutex::default(),
            pool: Mutex::new(None),
            bells: Mutex::default(),
        }
    }

    /// This process's.
    #[inline]
    pub(super) fn get() -> &'static Self {
        static FIRST: OnceLock<World> = OnceLock::new();
        fn settled() -> &'static World {
            FIRST.get_or_init(|| {
                // All that is found out once for the process, and waited for.
                let _ = (cpu::kind(), cpu::possible(), barrier::kind(), time::micros());
                World::new(process::forks())
            })
        }
        extern "C" fn settle() {
            settled();
            World::get();
        }
        #[cold]
        fn first() -> &'static World {
            process::count_forks();
            process::settle_before_forks(settle);
            settled()
        }
        let mut world = FIRST.get().unwrap_or_else(first);
        let forks = process::forks();
        while world.forks != forks {
            world = world.child.get_or_init(|| Box::new(Self::new(forks)));
        }
        world
    }

    /// What carries out what may block. `None` if the system does not let us have it.
    pub(super) fn pool(&self) -> Option<&'static Pool> {
        let mut pool = self.pool.lock();
        if !pool.is_some_and(Pool::is_open) {
            *pool = Pool::start().ok();
        }
        *pool
    }

    /// Has a poll of that context end now.
    ///
    /// # Errors
    ///
    /// `EINVAL`, if it has none for this request.
    pub(super) fn cancel(&self, slot: &'static Slot, request: u64) -> Result<(), Errno> {
        let pool = (*self.pool.lock()).ok_or(libc::EINVAL)?;
        pool.polls().cancel(pool, slot, request)
    }

    /// The context of this handle, unless there is none.
    #[inline]
    pub(super) fn enter(&'static self, handle: usize) -> Option<Entered<'static>> {
        self.find(handle)?.enter()
    }

    #[inline]
    fn find(&'static self, handle: usize) -> Option<&'static Slot> {
        if !handle.is_multiple_of(PAGE) || handle == 0 {
            return None;
        }
        for region in &self.regions {
            let Some(region) = region.get() else { break };
            if let Some(slot) = region.find(handle) {
                return Some(slot);
            }
        }
        self.find_moved(handle)
    }

    /// The context whose ring the program has moved to `handle`: it says itself which one it is, and is not where it
    /// was.
    #[cold]
    fn find_moved(&'static self, handle: usize) -> Option<&'static Slot> {
        let header: [u32; 8] = memory::peek(ptr::with_exposed_provenance(handle))?;
        let (region, place) = Self::place_of(header[0]);
        let region = self.regions.get(region)?.get()?;
        let slot = region.get(place).filter(|slot| slot.has_header(header))?;
        // Relaxed twice: the number is all there is to it.
        if slot.moved.load(Relaxed) != handle {
            if region.has_ring(slot, place) {
                return None;
            }
            slot.moved.store(handle, Relaxed);
        }
        Some(slot)
    }

    fn place_of(id: u32) -> (usize, usize) {
        ((id >> PLACE_BITS) as usize, (id & ((1 << PLACE_BITS) - 1)) as usize)
    }

    /// A context for at least `events` requests.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `ENOMEM`.
    pub(super) fn create(&self, events: u32) -> Result<usize, Errno> {
        let size = Slot::size_for(events)?;
        let mut spare = self.spare.lock();
        if let Some((_, used)) = spare.used.iter_mut().find(|(of, _)| *of == size)
            && let Some(id) = used.pop()
        {
            drop(spare);
            let (region, place) = Self::place_of(id);
            let region = self.regions[region].get().ok_or(libc::ENOMEM)?;
            region.get(place).ok_or(libc::ENOMEM)?.begin();
            return Ok(region.address(place));
        }
        let roomy = (0..spare.regions).rev().find(|region| {
            let known = self.regions[*region].get().filter(|known| known.stride() == size);
            known.is_some_and(|known| spare.begun[*region] < known.len())
        });
        let index = match roomy {
            Some(index) => index,
            None => {
                if spare.regions == REGIONS {
                    return Err(libc::ENOMEM);
                }
                let region = Region::new(size)?;
                let index = spare.regions;
                self.regions[index].get_or_init(|| region);
                spare.regions += 1;
                spare.begun.push(0);
                index
            }
        };
        let region = self.regions[index].get().ok_or(libc::ENOMEM)?;
        let place = spare.begun[index];
        region.make(place, (index as u32) << PLACE_BITS | place as u32)?;
        spare.begun[index] += 1;
        Ok(region.address(place))
    }

    /// Destroys the context of this handle: refuses new requests, gives up what can be, and waits for the rest.
    ///
    /// # Errors
    ///
    /// `EINVAL`, if there is none, or if somebody else destroys it.
    pub(super) fn destroy(&'static self, handle: usize) -> Result<(), Errno> {
        let slot = self.find(handle).filter(|slot| slot.kill()).ok_or(libc::EINVAL)?;
        let pool = *self.pool.lock();
        if let Some(pool) = pool {
            pool.polls().cancel_all(pool, slot);
        }
        slot.wait_left();
        let id = slot.id();
        let (index, place) = Self::place_of(id);
        let region = self.regions[index].get().ok_or(libc::EINVAL)?;
        let moved = slot.moved.load(Relaxed);
        if moved != 0 {
            // SAFETY: the ring's, which the kernel would unmap as well.
            unsafe { libc::munmap(ptr::without_provenance_mut(moved), region.stride()) };
        } else if region.has_ring(slot, place) {
            let mut spare = self.spare.lock();
            match spare.used.iter_mut().find(|(of, _)| *of == region.stride()) {
                Some((_, used)) => used.push(id),
                None => spare.used.push((region.stride(), vec![id])),
            }
        }
        Ok(())
    }
}
