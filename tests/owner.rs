//! What owns what it counts: the value goes once, last, and somebody is told.

use ioctx::refcount::{Dying, Handle, Owner, PerCpuRef, StillHeld, Weak};
use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Counts its drops, and may panic in them.
struct Value {
    drops: Arc<AtomicUsize>,
    panics: bool,
}

impl Value {
    fn new(drops: &Arc<AtomicUsize>) -> Self {
        Self { drops: Arc::clone(drops), panics: false }
    }

    fn panicking(drops: &Arc<AtomicUsize>) -> Self {
        Self { drops: Arc::clone(drops), panics: true }
    }

    fn alive(&self) -> bool {
        self.drops.load(SeqCst) == 0
    }
}

impl Drop for Value {
    fn drop(&mut self) {
        self.drops.fetch_add(1, SeqCst);
        assert!(!self.panics, "dropped");
    }
}

fn drops() -> Arc<AtomicUsize> {
    Arc::new(AtomicUsize::new(0))
}

#[test]
fn the_last_handle_drops_the_value() {
    let drops = drops();
    let owner = Owner::new(Value::new(&drops));
    let (handle, weak) = (owner.handle(), owner.downgrade());
    let another = weak.upgrade().unwrap();
    assert!(another.ptr_eq(&handle) && weak.guard().unwrap().into_handle().alive() && owner.alive());
    drop(owner);
    assert!(weak.upgrade().is_none() && weak.guard().is_none() && handle.downgrade().upgrade().is_none());
    drop(handle.clone());
    drop(handle);
    assert!(another.alive());
    drop(another);
    assert_eq!(drops.load(SeqCst), 1);
    drop(weak.clone());
}

#[test]
fn waiting_ends_when_the_value_is_gone() {
    let drops = drops();
    let owner = Owner::dynamic(Value::new(&drops));
    let handles = [owner.handle(), owner.handle()];
    assert_eq!(owner.handles(), Some(2));
    let dying = owner.kill();
    let past = Instant::now();
    assert_eq!(dying.wait_until(past), Err(StillHeld { handles: 2 }));
    assert!(StillHeld { handles: 2 }.to_string().contains("2 handles"));
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        drop(handles);
    });
    dying.wait();
    assert_eq!((drops.load(SeqCst), dying.is_released(), dying.wait_until(past)), (1, true, Ok(())));
    thread.join().unwrap();
}

struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_future_waits_too() {
    let owner = Owner::new(1);
    let handle = owner.handle();
    let mut dying = pin!(owner.kill());
    let wakers = [(); 2].map(|()| Arc::new(Woken(AtomicUsize::new(0))));
    for waker in &wakers {
        let waker = Waker::from(Arc::clone(waker));
        assert!(dying.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(dying.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(handle);
    assert_eq!(wakers.each_ref().map(|waker| waker.0.load(SeqCst)), [0, 1], "the last task that asked");
    assert_eq!(dying.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
}

/// A task that owns a handle, of which wakers are made.
struct Task(#[expect(dead_code, reason = "dropped with the task")] Mutex<Option<Handle<u32>>>);

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_may_own_the_last_handle() {
    let owner = Owner::new(1);
    let task = Arc::new(Task(Mutex::new(Some(owner.handle()))));
    let mut dying = pin!(owner.kill());
    let waker = Waker::from(task);
    assert!(dying.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    // Drops the first waker, with it the task, the handle and the value.
    assert!(dying.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(dying.is_released());
}

#[test]
fn who_waits_no_more_is_not_kept_by_what_it_keeps() {
    let owner = Owner::new(1);
    let task = Arc::new(Task(Mutex::new(Some(owner.handle()))));
    let weak = Arc::downgrade(&task);
    let mut dying = owner.kill();
    let waker = Waker::from(task);
    assert!(pin!(&mut dying).poll(&mut Context::from_waker(&waker)).is_pending());
    drop((dying, waker));
    assert!(weak.upgrade().is_none());
}

#[test]
fn unwinding_past_them_is_safe_if_it_is_past_the_value() {
    fn is_safe<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
    is_safe::<(Owner<u32>, Handle<u32>, Weak<u32>, Dying<u32>)>();
}

#[test]
fn the_value_can_be_had_back() {
    let owner = Owner::new(String::from("mine"));
    let handle = owner.handle();
    let weak = owner.downgrade();
    let dying = owner.into_inner().unwrap_err();
    assert!(weak.upgrade().is_none());
    let owner = dying.resurrect().unwrap();
    assert_eq!(weak.upgrade().as_deref(), Some(&String::from("mine")));
    drop(handle);
    assert_eq!(owner.into_inner().unwrap(), "mine");
    assert!(weak.upgrade().is_none());

    let dying = Owner::new(()).kill();
    assert!(dying.resurrect().unwrap_err().is_released());
}

#[test]
fn a_panic_in_the_last_put_releases_once_and_tells_who_waits() {
    let drops = drops();
    let owner = Owner::new(Value::panicking(&drops));
    let handle = owner.handle();
    let dying = owner.kill();
    assert!(catch_unwind(AssertUnwindSafe(|| drop(handle))).is_err());
    dying.wait();
    assert_eq!(drops.load(SeqCst), 1);

    let owner = Owner::new(Value::panicking(&drops));
    assert!(catch_unwind(AssertUnwindSafe(|| owner.kill())).is_err());
    assert_eq!(drops.load(SeqCst), 2);

    // Of many, every one, and the first panic is the one that comes out.
    let owners =
        [true, false, true, false].map(|panics| Owner::new(Value { drops: Arc::clone(&drops), panics }));
    assert!(catch_unwind(AssertUnwindSafe(|| Owner::kill_all(owners))).is_err());
    assert_eq!(drops.load(SeqCst), 6);
}

#[test]
fn many_owners_are_killed_at_once() {
    let drops = drops();
    let owners: Vec<_> = (0..50).map(|_| Owner::new(Value::new(&drops))).collect();
    let handles: Vec<_> = owners.iter().step_by(5).map(Owner::handle).collect();
    let dying = Owner::kill_all(owners);
    assert_eq!((drops.load(SeqCst), dying.iter().filter(|dying| dying.is_released()).count()), (40, 40));
    drop(handles);
    dying.iter().for_each(Dying::wait);
    assert_eq!(drops.load(SeqCst), 50);
}

#[test]
fn a_thread_local_destructor_may_put_last() {
    thread_local!(static KEPT: RefCell<Option<Handle<Value>>> = const { RefCell::new(None) });
    let drops = drops();
    for early in [true, false] {
        let owner = Owner::new(Value::new(&drops));
        let (handle, killed) = (owner.handle(), Arc::new(Barrier::new(2)));
        let thread = thread::spawn({
            let killed = Arc::clone(&killed);
            move || {
                if early {
                    // Known to the kernel before the destructor is, so that it runs after the other way round.
                    drop(handle.clone());
                }
                KEPT.set(Some(handle));
                killed.wait();
            }
        });
        let dying = owner.kill();
        assert!(!dying.is_released());
        killed.wait();
        dying.wait();
        thread.join().unwrap();
    }
    assert_eq!(drops.load(SeqCst), 2);
}

#[test]
fn what_is_forgotten_only_leaks() {
    let drops = drops();
    let owner = Owner::dynamic(Value::new(&drops));
    std::mem::forget(owner.handle());
    let dying = owner.kill();
    let soon = Instant::now() + Duration::from_millis(5);
    assert_eq!(dying.wait_until(soon), Err(StillHeld { handles: 1 }));
    drop(dying);
    assert_eq!(drops.load(SeqCst), 0);
}

#[test]
fn upgrades_race_with_the_kill() {
    for round in 0..200 {
        let drops = drops();
        let count = match round % 4 {
            0 => PerCpuRef::builder(),
            1 => PerCpuRef::builder().portable(),
            2 => PerCpuRef::builder().atomic(),
            _ => PerCpuRef::builder().dead(),
        };
        let owner = Owner::with_count(Value::new(&drops), count);
        let (weak, killed): (Weak<_>, _) = (owner.downgrade(), AtomicBool::new(false));
        thread::scope(|scope| {
            for _ in 0..4 {
                let weak = weak.clone();
                let killed = &killed;
                scope.spawn(move || {
                    loop {
                        let after = killed.load(Acquire);
                        let Some(guard) = weak.guard() else { break };
                        assert!(!after, "upgraded after the kill had returned");
                        let handle = guard.into_handle();
                        assert!(handle.alive() && handle.clone().alive());
                    }
                });
            }
            thread::sleep(Duration::from_micros(round));
            let dying = owner.kill();
            killed.store(true, Release);
            dying.wait();
        });
        assert_eq!(drops.load(SeqCst), 1);
    }
}
