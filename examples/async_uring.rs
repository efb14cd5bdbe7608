//! Requests as futures over `Uring`, driven by the thread that awaits them, and by nobody else:
//! `cargo run --release --features uring --example async_uring`.
//!
//! Rings do not complete by themselves: somebody has to look at them. An executor that has nothing else to run does,
//! by [`get_events`](ioctx::Context::get_events) for no event at all, and then sleeps until either a task is woken or
//! the [`descriptor`](ioctx::aio::Backend::descriptor) says that there is something to look at. A loop that sleeps in
//! `epoll` does the same with that descriptor among its own.

#[cfg(ioctx_linux)]
mod executor {
    use ioctx::Context;
    use ioctx::aio::Backend;
    use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
    use std::collections::VecDeque;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::pin::Pin;
    use std::sync::{Arc, Mutex};
    use std::task::{self, Wake, Waker};

    /// Tasks that can go on, and what the thread that runs them wakes up for.
    struct Executor {
        ready: Mutex<VecDeque<Arc<Task>>>,
        bell: OwnedFd,
    }

    pub type Work<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

    /// Its place among the futures: these stay with their thread.
    struct Task(usize, Arc<Executor>);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            let executor = Arc::clone(&self.1);
            executor.ready.lock().unwrap().push_back(self);
            // By another thread perhaps, while ours sleeps.
            let _ = rustix::io::write(&executor.bell, &1_u64.to_ne_bytes());
        }
    }

    /// Runs `futures` until all have ended, and drives `context` meanwhile.
    pub fn run<B: Backend>(context: &Context<B>, mut futures: Vec<Option<Work<'_>>>) -> io::Result<()> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let executor = Arc::new(Executor { ready: Mutex::default(), bell });
        for place in 0..futures.len() {
            Arc::new(Task(place, Arc::clone(&executor))).wake();
        }
        let mut watched = vec![PollFd::new(&executor.bell, PollFlags::IN)];
        watched.extend(context.backend().descriptor().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        while futures.iter().any(Option::is_some) {
            let next = executor.ready.lock().unwrap().pop_front();
            if let Some(task) = next {
                let future = &mut futures[task.0];
                let waker = Waker::from(task);
                if let Some(work) = future
                    && work.as_mut().poll(&mut task::Context::from_waker(&waker)).is_ready()
                {
                    *future = None;
                }
                continue;
            }
            // Wakes the tasks whose requests have completed. Says nothing of other events: none is asked for.
            let _ = context.get_events(0, 0, None, &mut Vec::new());
            if executor.ready.lock().unwrap().is_empty() {
                poll(&mut watched, None)?;
                let _ = rustix::io::read(&executor.bell, &mut [0_u8; 8]);
            }
        }
        Ok(())
    }
}

#[cfg(ioctx_linux)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use executor::{Work, run};
    use ioctx::backend::Uring;
    use ioctx::{Context, Request};

    const TASKS: u64 = 8;
    const BLOCKS: u64 = 64;
    let backend = match Uring::new(TASKS as u32) {
        Ok(uring) => uring.inline_cached(false),
        Err(why) => {
            println!("SKIPPED: {why}");
            return Ok(());
        }
    };
    let context = Context::new(TASKS as u32, backend)?;
    let file = std::sync::Arc::new(tempfile::tempfile()?);
    let write_and_read = async |task: u64| {
        for block in 0..BLOCKS {
            let (offset, bytes) = ((block * TASKS + task) * 4096, vec![(task ^ block) as u8; 4096]);
            let write = Request::write(file.clone(), bytes.clone(), offset);
            let event = context.start(write).expect("there is room").await;
            assert_eq!(event.result.expect("written"), 4096);
            let read = Request::read(file.clone(), vec![0; 4096], offset);
            let event = context.start(read).expect("there is room").await;
            assert_eq!(event.request.into_buffer::<Vec<u8>>().expect("a read has one"), bytes);
        }
    };
    let tasks = (0..TASKS).map(|task| Some(Box::pin(write_and_read(task)) as Work<'_>)).collect();
    run(&context, tasks)?;
    println!(
        "{TASKS} tasks wrote and read {BLOCKS} blocks each, and one thread drove the rings and all of them"
    );
    Ok(())
}

#[cfg(not(ioctx_linux))]
fn main() {
    println!("SKIPPED: io_uring is Linux's");
}
