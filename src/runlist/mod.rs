//! Deferred work, run by whoever submits or waits, with a lazy thread as the safety net.
//!
//! A [`Task`] is made once and kicked as often as there is something for it to do; a kick allocates nothing. Kicked
//! tasks lie in a [`RunList`] until somebody has time for them: a submitter, who is at it anyway and has the data in
//! its cache, a reaper that would sleep otherwise, or, if neither comes, a thread that is made when it is first needed.
//! So what would have been a switch to a worker and back is a call, most of the time.
//!
//! # States of a task
//!
//! | state | a kick | a runner |
//! |---|---|---|
//! | [`Idle`](State::Idle) | puts it into the list: `Queued` | |
//! | [`Queued`](State::Queued) | does nothing: the run is still to come | takes it out: `Running` |
//! | [`Running`](State::Running) | notes it: `Kicked` | goes back to `Idle` |
//! | [`Kicked`](State::Kicked) | does nothing: it is noted | puts it into the list again: `Queued` |
//!
//! So a kick is never lost: whatever was done before it is seen by a run that begins after it; and no task runs twice
//! at once, which is why a run has the task's data to itself.
//!
//! # Order
//!
//! Tasks begin in the order of their kicks. Kicks go onto a stack, by one exchange. A runner that finds nothing left
//! takes the whole stack, turns it round, and from there tasks are taken one by one, by any number of runners. Nobody
//! who helps takes more than one stack: tasks that kick themselves or each other come in the next, so that a list that
//! refills itself keeps nobody for ever.
//!
//! # The worker
//!
//! Whoever kicks into an empty list sees to it that the worker will look in a while: soon if somebody
//! [waits](RunList::help_on_reap), and otherwise so late that most likely everything has been done by then. Both sides
//! of these two races store, fence and load:
//!
//! * the kick stores the task and looks whether anybody waits; the reaper stores that it waits and looks for tasks:
//!   either the worker hurries, or the reaper runs the task itself;
//! * the kick stores the task and looks whether the worker is going to look; the worker stores that it is not, and
//!   looks: either it is told anew, or it finds the task.
//!
//! # Orderings
//!
//! | site | ordering | partner | what for |
//! |---|---|---|---|
//! | `runlist.task.kick` | `AcqRel` | `runlist.task.start`, `runlist.task.finish`, `runlist.task.unqueue` | the run sees what was done before the kick; the link is written after whoever used it last |
//! | `runlist.task.start` | `Acquire` | `runlist.task.kick` | as above |
//! | `runlist.task.finish` | `Release` | `runlist.task.kick` | as above |
//! | `runlist.task.unqueue` | `Release` | `runlist.task.kick` | as above |
//! | `runlist.list.push` | `Release` | `runlist.list.splice`, `runlist.list.close` | the task's link, and what its last run did |
//! | `runlist.list.splice` | `Acquire` | `runlist.list.push` | as above |
//! | `runlist.list.close` | `Acquire` | `runlist.list.push` | as above |
//! | `runlist.kick.look` | `SeqCst` fence | `runlist.waiter.announce`, `runlist.worker.disarm` | the task is in the list before those who wait, and the worker, are looked at |
//! | `runlist.waiter.announce` | `SeqCst` fence | `runlist.kick.look` | one who waits is counted before the list is looked at |
//! | `runlist.worker.disarm` | `SeqCst` fence | `runlist.kick.look` | the worker has said that it will not look again before it looks |
//!
//! Source: the context-switch patches for AIO retries of 2004 (`kick_iocb`, `__aio_run_iocbs`, `aio_run_all_iocbs`).

mod builder;
mod list;
mod queue;
mod task;
mod worker;

pub use builder::Builder;
pub use list::{RunList, Waiting};
pub use task::{Closed, Run, State, Task};
