//! Threads that live longer than the counts they used, and references given back by threads that end.

mod support;

use ioctx::refcount::{PerCpuRef, Put};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use support::never_hang;

#[test]
fn threads_outlive_the_counts_they_used() {
    const THREADS: usize = 3;
    const COUNTS: usize = 300;
    never_hang();
    let (done, all_done) = mpsc::channel();
    let users: Vec<_> = (0..THREADS)
        .map(|_| {
            let (send, counts) = mpsc::channel::<Arc<PerCpuRef>>();
            let done = done.clone();
            // Asleep between two counts, with whatever the last section has left behind.
            let user = thread::spawn(move || {
                for count in counts {
                    for _ in 0..100 {
                        assert!(count.try_get_live());
                        count.get_many(2);
                        assert_eq!((count.put_many(2), count.put()), (Put::Held, Put::Held));
                    }
                    count.get();
                    drop(count);
                    done.send(()).unwrap();
                }
            });
            (send, user)
        })
        .collect();
    for _ in 0..COUNTS {
        // Most often where the count before was.
        let count = Arc::new(PerCpuRef::new());
        users.iter().for_each(|(send, _)| send.send(Arc::clone(&count)).unwrap());
        users.iter().for_each(|_| all_done.recv().unwrap());
        assert_eq!((count.kill(), count.count()), (Put::Held, Some(THREADS as u64)));
        assert_eq!(count.put_many(THREADS as u32), Put::Zero);
        assert_eq!(Arc::strong_count(&count), 1, "the users have forgotten it");
    }
    for (send, user) in users {
        drop(send);
        user.join().unwrap();
    }
}

/// A count, and how often zero was found.
#[derive(Default)]
struct Counted {
    count: PerCpuRef,
    zeros: AtomicU32,
}

impl Counted {
    fn tell(&self, put: Put) {
        self.zeros.fetch_add(u32::from(put == Put::Zero), Relaxed);
    }
}

/// One reference, given back when its thread ends, after many more were taken and given back.
struct UntilTheEnd(Arc<Counted>);

impl Drop for UntilTheEnd {
    fn drop(&mut self) {
        for _ in 0..1000 {
            self.0.count.get_many(3);
            self.0.tell(self.0.count.put());
            if self.0.count.try_get_live() {
                self.0.tell(self.0.count.put());
            }
            self.0.tell(self.0.count.put_many(2));
        }
        self.0.tell(self.0.count.put());
    }
}

thread_local! {
    static HELD: RefCell<Option<UntilTheEnd>> = const { RefCell::new(None) };
}

/// Threads that give their references back as they end, after the kill or around it.
fn end_threads(ended_before_kill: bool, held_first: bool) {
    const THREADS: usize = 4;
    let counted = Arc::new(Counted::default());
    let [taken, end] = [0, 1].map(|_| Arc::new(Barrier::new(THREADS + 1)));
    let users: Vec<_> = (0..THREADS)
        .map(|_| {
            let (counted, taken, end) = (Arc::clone(&counted), Arc::clone(&taken), Arc::clone(&end));
            thread::spawn(move || {
                // Destructors run in the reverse order of first uses: the first operation on a count may
                // register the thread, which its end undoes, before or after the reference is given back.
                if held_first {
                    HELD.with(|_| ());
                }
                counted.count.get();
                HELD.set(Some(UntilTheEnd(counted)));
                taken.wait();
                end.wait();
            })
        })
        .collect();
    taken.wait();
    if ended_before_kill {
        end.wait();
        counted.tell(counted.count.kill());
    } else {
        let killed = counted.count.kill();
        assert_eq!((killed, counted.count.count()), (Put::Held, Some(THREADS as u64)));
        end.wait();
    }
    users.into_iter().for_each(|user| user.join().unwrap());
    assert_eq!((counted.zeros.load(Relaxed), counted.count.count()), (1, Some(0)));
    assert_eq!(Arc::strong_count(&counted), 1, "no destructor was left out");
}

#[test]
fn the_last_reference_is_given_back_by_a_destructor_of_a_thread() {
    never_hang();
    for round in 0..100 {
        end_threads(round % 2 == 0, round % 4 < 2);
    }
}
