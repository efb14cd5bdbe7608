//! Every model, by part.

mod append;
mod canary;
mod context;
mod credits;
mod fanin;
mod futures;
mod litmus;
mod nonblocking;
mod owner;
mod refcount;
mod ring;
mod rings;
mod runlist;
mod wait;

use crate::harness::Model;

/// Every model there is.
pub(crate) fn all() -> Vec<Model> {
    let parts = [
        litmus::models(),
        refcount::models(),
        owner::models(),
        credits::models(),
        append::models(),
        ring::models(),
        rings::models(),
        runlist::models(),
        nonblocking::models(),
        fanin::models(),
        wait::models(),
        context::models(),
        futures::models(),
        canary::models(),
    ];
    parts.into_iter().flatten().collect()
}
