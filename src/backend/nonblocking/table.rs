//! The files of a backend, by the numbers of their descriptors: [`Table`].

use super::place::Seat;
use crate::sync::{Arc, OnceLock};
use std::os::fd::RawFd;

/// How many numbers are made room for at a time.
const ROOM: usize = 1024;

/// The files, by their numbers. Never smaller.
#[derive(Debug)]
pub(super) struct Table(Box<[OnceLock<Row>]>);

type Row = Box<[OnceLock<Arc<Seat>>]>;

impl Table {
    pub(super) fn new() -> Self {
        Self((0..ROOM).map(|_| OnceLock::new()).collect())
    }

    /// What is known of a number, if anything is.
    pub(super) fn seat(&self, number: RawFd) -> Option<&Arc<Seat>> {
        let number = usize::try_from(number).ok()?;
        self.0.get(number / ROOM)?.get()?[number % ROOM].get()
    }

    /// The same, and it is made if it was not there. `None`: a number beyond all that systems give.
    pub(super) fn seat_or(&self, number: RawFd, make: impl FnOnce() -> Seat) -> Option<&Arc<Seat>> {
        let number = usize::try_from(number).ok()?;
        let row = self.0.get(number / ROOM)?.get_or_init(|| (0..ROOM).map(|_| OnceLock::new()).collect());
        Some(row[number % ROOM].get_or_init(|| Arc::new(make())))
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Seat>> {
        self.0.iter().filter_map(OnceLock::get).flatten().filter_map(OnceLock::get)
    }
}
