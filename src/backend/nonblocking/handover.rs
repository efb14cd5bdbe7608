//! Data that goes from a write of ours to a read of ours without the pipe between them: [`Pair`].

use super::hub::Hub;
use super::known::Direction;
use super::place::Tried;
use super::table::Table;
use crate::aio::{Completion, Finished, Op, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::array;
use std::mem;
use std::os::fd::{BorrowedFd, RawFd};

/// The longest write that is handed over: what an empty pipe always has room for.
pub(super) const MOST: usize = 4096;
/// How many pipes are looked at together.
const TOGETHER: usize = 64;

/// A write whose turn it is, and the read that is the next one at the other end of the same pipe, which waits since a
/// try found the pipe empty. If it still is, both are done by copying: as if the write had been carried out at this
/// moment, and the read right after it.
///
/// Both keep their turns, so that nothing overtakes them.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) write: Completion,
    pub(super) output: RawFd,
    pub(super) read: Completion,
    pub(super) input: RawFd,
}

/// Whether it is a request of a kind that is handed over.
pub(super) fn can_be_handed(request: &Request) -> bool {
    matches!(&request.op, Op::Read { .. } | Op::Write { .. })
}

impl Pair {
    /// Moves the data, and ends both turns. It comes back if this is no pair after all.
    fn hand_over(mut self, table: &Table) -> Result<[Finished; 2], Self> {
        let (Op::Write { buf: from, .. }, Op::Read { buf: to, .. }) =
            (&self.write.request().op, &mut self.read.request_mut().op)
        else {
            return Err(self);
        };
        let n = from.len();
        let (Some(to), Some(output), Some(input)) =
            (to.get_mut(..n), table.seat(self.output), table.seat(self.input))
        else {
            return Err(self);
        };
        to.copy_from_slice(from);
        output.place.has_handed(n, &output.task);
        input.place.was_handed(&input.task);
        Ok([self.read.finish(Ok(n)), self.write.finish(Ok(n))])
    }

    /// Has the write carried out, and the read wait for what is in the pipe.
    fn go_through_pipe(self, hub: &Hub, table: &Table, finished: &mut Vec<Finished>) {
        // Seats stay.
        let (Some(output), Some(input)) = (table.seat(self.output), table.seat(self.input)) else { return };
        finished.extend(input.place.was_not_handed(self.read, &input.task));
        match output.place.attempt(self.write, Direction::Out, true, Some(&output.task)) {
            Tried::Done(done) => finished.push(done),
            Tried::Waits => {}
            Tried::Threads(work) | Tried::Unknown(work) => finished.extend(hub.leave_to_pool(work)),
        }
    }
}

impl Hub {
    /// Carries out all pairs there are. Who is alone publishes later what that has finished, all of it together.
    pub(super) fn hand_over(&self, table: &Table) {
        if self.pairs.is_empty() {
            return;
        }
        let mut room = self.room.lock().take().unwrap_or_default();
        let mut rest = Rest { hub: self, pairs: self.pairs.take(mem::take(&mut room.pairs)) };
        // The last one first, below.
        rest.pairs.reverse();
        while !rest.pairs.is_empty() {
            let some = rest.pairs.len().min(TOGETHER);
            let from = rest.pairs.len() - some;
            let ready = look(&rest.pairs[from..]);
            for ready in ready[..some].iter().rev() {
                let Some(pair) = rest.pairs.pop() else { break };
                match if *ready { Err(pair) } else { pair.hand_over(table) } {
                    Ok(both) => room.finished.extend(both),
                    Err(pair) => pair.go_through_pipe(self, table, &mut room.finished),
                }
            }
        }
        self.handed.leave(room.finished.drain(..));
        room.pairs = mem::take(&mut rest.pairs);
        *self.room.lock() = Some(room);
        if !self.watch.is_alone() {
            self.publish(&mut drop);
        }
    }

    /// Passes on what was handed over.
    pub(super) fn publish(&self, done: &mut dyn FnMut(Finished)) {
        if self.handed.is_empty() {
            return;
        }
        let room = self.room.lock().as_mut().map(|room| mem::take(&mut room.finished));
        let mut handed = self.handed.take(room.unwrap_or_default());
        self.has_moved();
        handed.drain(..).for_each(done);
        if let Some(room) = &mut *self.room.lock() {
            room.finished = handed;
        }
    }
}

/// Pairs that are still to be carried out: left to others if a waker panics.
struct Rest<'a> {
    hub: &'a Hub,
    pairs: Vec<Pair>,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        if !self.pairs.is_empty() {
            self.hub.pairs.leave(self.pairs.drain(..));
        }
    }
}

/// Room that is used again each time.
#[derive(Debug, Default)]
pub(super) struct Room {
    pairs: Vec<Pair>,
    finished: Vec<Finished>,
}

/// Whether there is something in the pipes of these pairs, which are no more than are looked at together; or that is
/// not known.
fn look(pairs: &[Pair]) -> [bool; TOGETHER] {
    let mut fds = array::from_fn::<_, TOGETHER, _>(|n| {
        let input = pairs[n.min(pairs.len() - 1)].input;
        // SAFETY: the read keeps it open.
        PollFd::from_borrowed_fd(unsafe { BorrowedFd::borrow_raw(input) }, PollFlags::IN)
    });
    match poll(&mut fds[..pairs.len()], Some(&Timespec::default())) {
        Ok(_) => fds.map(|fd| !fd.revents().is_empty()),
        Err(_) => [true; TOGETHER],
    }
}
