//! What is in flight in a ring, by name: [`Flights`].

use super::entry::Segments;
use crate::aio::Completion;
use std::collections::BTreeMap;

/// How often a request is begun again that ended though nobody wanted it to.
const AGAIN: u8 = 8;

/// A request in the kernel's hands.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) work: Completion,
    /// Kept for the kernel.
    _segments: Segments,
    /// Whether the kernel was asked to cancel it.
    pub(super) asked: bool,
    /// How often it was begun again.
    pub(super) again: u8,
}

impl Flight {
    #[inline(always)]
    fn new(work: Completion, segments: Segments, again: u8) -> Self {
        Self { work, _segments: segments, asked: false, again }
    }

    /// Its name, which its completion in the ring has as well.
    #[inline(always)]
    pub(super) fn name(&self) -> u64 {
        self.work.id().into_raw()
    }

    /// Whether it ended only because the thread that had submitted it did, whose work the kernel cancels, or because
    /// a signal came to that thread.
    #[inline(always)]
    pub(super) fn is_orphaned(&self, res: i32) -> bool {
        matches!(-res, libc::ECANCELED | libc::EINTR)
            && !self.asked
            && self.again < AGAIN
            && !self.work.is_dying()
    }
}

/// Requests by their names. Those of one context that are in flight differ in their lowest bits, which say where one
/// is; only where a ring serves several contexts, or one with a larger capacity, do two want the same place.
pub(super) struct Flights {
    /// As many as a power of two.
    places: Box<[Option<Flight>]>,
    /// Those whose place was taken.
    others: BTreeMap<u64, Flight>,
    len: usize,
}

impl Flights {
    /// With places for so many, and room for any number.
    pub(super) fn new(places: usize) -> Self {
        let places = (0..places.next_power_of_two()).map(|_| None).collect();
        Self { places, others: BTreeMap::new(), len: 0 }
    }

    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline(always)]
    fn place(&self, name: u64) -> usize {
        name as usize & (self.places.len() - 1)
    }

    /// Keeps one; there is none of its name.
    #[inline(always)]
    pub(super) fn insert(&mut self, work: Completion, segments: Segments, again: u8) {
        let place = self.place(work.id().into_raw());
        match &mut self.places[place] {
            place @ None => *place = Some(Flight::new(work, segments, again)),
            Some(_) => self.insert_other(work, segments, again),
        }
        self.len += 1;
    }

    #[cold]
    fn insert_other(&mut self, work: Completion, segments: Segments, again: u8) {
        self.others.insert(work.id().into_raw(), Flight::new(work, segments, again));
    }

    #[inline(always)]
    pub(super) fn has(&self, name: u64) -> bool {
        match &self.places[self.place(name)] {
            Some(flight) if flight.name() == name => true,
            _ => !self.others.is_empty() && self.others.contains_key(&name),
        }
    }

    pub(super) fn get_mut(&mut self, name: u64) -> Option<&mut Flight> {
        let place = self.place(name);
        match &mut self.places[place] {
            Some(flight) if flight.name() == name => Some(flight),
            _ => self.others.get_mut(&name),
        }
    }

    #[inline(always)]
    pub(super) fn remove(&mut self, name: u64) -> Option<Flight> {
        let place = self.place(name);
        let found = match &mut self.places[place] {
            Some(flight) if flight.name() == name => self.places[place].take(),
            _ => self.remove_other(name),
        };
        self.len -= usize::from(found.is_some());
        found
    }

    #[cold]
    fn remove_other(&mut self, name: u64) -> Option<Flight> {
        self.others.remove(&name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Flight> {
        self.places.iter().flatten().chain(self.others.values())
    }
}
