//! Kicked tasks, in order: [`Queue`].

use super::task::{Node, Run};
use crate::percpu::CachePadded;
use crate::sync::atomic::{AtomicPtr, Ordering::Relaxed, glance_ptr};
use crate::sync::{Arc, Mutex, mo};
use std::mem;
use std::ptr::{null_mut, without_provenance_mut};

/// The tasks that wait for a runner.
pub(super) struct Queue<T: Run> {
    /// The newest of those that were kicked since the last splice, and by `next` the older ones; or one of these:
    ///
    /// | word | tasks |
    /// |---|---|
    /// | [`EMPTY`](Self::EMPTY) | none |
    /// | [`REST`](Self::REST) | only in `front` |
    /// | [`CLOSED`](Self::CLOSED) | none, for ever |
    head: CachePadded<AtomicPtr<Node<T>>>,
    front: CachePadded<Mutex<Front<T>>>,
}

/// What was spliced and not taken yet.
struct Front<T: Run> {
    chain: Chain<T>,
    /// How many times the stack was taken.
    splices: u64,
}

/// Up to which splice a runner takes tasks. It is to begin with none.
#[derive(Default)]
pub(super) struct Pass(Option<u64>);

impl<T: Run> Queue<T> {
    const EMPTY: *mut Node<T> = null_mut();
    // No node has these addresses: a node begins with nothing that is smaller than four bytes.
    const REST: *mut Node<T> = without_provenance_mut(1);
    const CLOSED: *mut Node<T> = without_provenance_mut(2);

    pub(super) fn new() -> Self {
        const { assert!(mem::align_of::<Node<T>>() > 2) };
        Self {
            head: CachePadded::new(AtomicPtr::new(Self::EMPTY)),
            front: CachePadded::new(Mutex::new(Front { chain: Chain(null_mut()), splices: 0 })),
        }
    }

    fn is_node(head: *mut Node<T>) -> bool {
        ![Self::EMPTY, Self::REST, Self::CLOSED].contains(&head)
    }

    fn is_idle(head: *mut Node<T>) -> bool {
        head == Self::EMPTY || head == Self::CLOSED
    }

    /// Whether there seems to be nothing. One load.
    #[inline(always)]
    pub(super) fn seems_empty(&self) -> bool {
        Self::is_idle(glance_ptr(&self.head))
    }

    /// Whether there is nothing, for one who has fenced since it said that others need not look.
    pub(super) fn is_empty(&self) -> bool {
        // Relaxed: ordered by the caller's fence.
        Self::is_idle(self.head.load(Relaxed))
    }

    /// Appends a task; returns whether it is the only one. `Err` if the queue was closed.
    ///
    /// # Safety
    ///
    /// 1. The caller has made it queued, or been the one to find it so.
    pub(super) unsafe fn push(&self, task: Arc<Node<T>>) -> Result<bool, Arc<Node<T>>> {
        let node = Arc::into_raw(task).cast_mut();
        // Relaxed: read again by the exchange, and followed only by those who splice.
        let mut head = self.head.load(Relaxed);
        while head != Self::CLOSED {
            let next = if Self::is_node(head) { head } else { null_mut() };
            // SAFETY: alive, since its reference is ours until it is pushed; the link is ours by 1.
            unsafe { &*node }.next.with_mut(|link| unsafe { *link = next });
            // Release: pairs with `splice` and `close`; the link and the task. Those of the nodes before are passed
            // on by the exchanges that follow each other. Relaxed: tried again.
            match self.head.compare_exchange_weak(head, node, mo!("runlist.list.push", Release), Relaxed) {
                Ok(_) => return Ok(head == Self::EMPTY),
                Err(now) => head = now,
            }
        }
        // SAFETY: not pushed, so the reference is ours still.
        Err(unsafe { Arc::from_raw(node) })
    }

    /// Takes the first task out, unless it belongs to a splice that is not for this pass. Blocks on a mutex.
    pub(super) fn pop(&self, pass: &mut Pass) -> Option<Arc<Node<T>>> {
        let mut front = self.front.lock();
        // What is here, and what is in the stack.
        let last = *pass.0.get_or_insert(front.splices + 1);
        if front.chain.is_empty() && front.splices < last {
            front.chain = self.splice();
            front.splices += 1;
        }
        if front.splices > last {
            return None;
        }
        let task = front.chain.pop()?;
        if front.chain.is_empty() {
            // Relaxed: hands nothing over. If it fails, there are tasks in the stack, or will never be.
            let _ = self.head.compare_exchange(Self::REST, Self::EMPTY, Relaxed, Relaxed);
        }
        Some(task)
    }

    /// Takes all from the stack, oldest first, for the front, which is empty and locked.
    fn splice(&self) -> Chain<T> {
        // Relaxed: read again by the exchange.
        let mut head = self.head.load(Relaxed);
        while Self::is_node(head) {
            // Acquire: pairs with every `push` since the last splice. Relaxed: tried again.
            match self.head.compare_exchange_weak(
                head,
                Self::REST,
                mo!("runlist.list.splice", Acquire),
                Relaxed,
            ) {
                // SAFETY: the stack is ours, and everything in it visible.
                Ok(_) => return unsafe { Chain::turned_round(head) },
                Err(now) => head = now,
            }
        }
        Chain(null_mut())
    }

    /// Takes everything, and refuses what comes.
    pub(super) fn close(&self) -> [Chain<T>; 2] {
        // Acquire: pairs with every `push` since the last splice.
        let head = self.head.swap(Self::CLOSED, mo!("runlist.list.close", Acquire));
        let stack = if Self::is_node(head) { head } else { null_mut() };
        let front = mem::replace(&mut self.front.lock().chain, Chain(null_mut()));
        // SAFETY: as in `splice`.
        [front, unsafe { Chain::turned_round(stack) }]
    }
}

/// Tasks, linked by `next` from the first one to null, with a reference each. Dropped, they are idle, and the
/// references are dropped.
pub(super) struct Chain<T: Run>(*mut Node<T>);

// SAFETY: owns its nodes' references, which are `Send`.
unsafe impl<T: Run> Send for Chain<T> {}

impl<T: Run> Chain<T> {
    /// The same tasks the other way round.
    ///
    /// # Safety
    ///
    /// 1. `head` is the first of nodes that the caller owns as a chain does.
    unsafe fn turned_round(mut head: *mut Node<T>) -> Self {
        let mut first = null_mut();
        // SAFETY: null or a node of ours by 1.
        while let Some(node) = unsafe { head.as_ref() } {
            // SAFETY: ours by 1.
            let next = node.next.with_mut(|link| mem::replace(unsafe { &mut *link }, first));
            first = head;
            head = next;
        }
        Self(first)
    }

    fn is_empty(&self) -> bool {
        self.0.is_null()
    }

    fn pop(&mut self) -> Option<Arc<Node<T>>> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: the reference is the chain's, and given up.
        let first = unsafe { Arc::from_raw(self.0) };
        // SAFETY: the link is the chain's.
        self.0 = first.next.with(|link| unsafe { *link });
        Some(first)
    }
}

impl<T: Run> Drop for Chain<T> {
    fn drop(&mut self) {
        while let Some(task) = self.pop() {
            task.unqueue();
            // If dropping it panics, the others are dropped meanwhile.
            let others = Self(mem::replace(&mut self.0, null_mut()));
            drop(task);
            self.0 = others.into_raw();
        }
    }
}

impl<T: Run> Chain<T> {
    /// Gives the nodes up.
    fn into_raw(self) -> *mut Node<T> {
        mem::ManuallyDrop::new(self).0
    }
}
