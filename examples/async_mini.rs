//! Requests as futures under an executor of thirty lines: `cargo run --release --example async_mini`.
//!
//! Tasks write a file block by block and read it back, each with its own requests, while another task follows the
//! stream of events that belong to no task. One thread runs all of them; nobody drives the context but the backend that
//! completes.

use ioctx::aio::{Context, Reason, Request};
use ioctx::backend::Threads;
use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{self, Wake, Waker};
use std::thread::{self, Thread};

const TASKS: u64 = 8;
const BLOCKS: u64 = 64;
const BLOCK: usize = 4096;

/// Tasks that can go on, and the thread that runs them.
struct Executor {
    ready: Mutex<VecDeque<Arc<Task>>>,
    thread: Thread,
}

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Task {
    /// Until it has ended: a waker may be called once more after that.
    future: Mutex<Option<Work>>,
    executor: Arc<Executor>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let executor = Arc::clone(&self.executor);
        executor.ready.lock().unwrap().push_back(self);
        executor.thread.unpark();
    }
}

/// Runs `futures` until all have ended.
fn run(futures: impl IntoIterator<Item = Work>) {
    let executor = Arc::new(Executor { ready: Mutex::default(), thread: thread::current() });
    let mut left = 0;
    for future in futures {
        left += 1;
        Arc::new(Task { future: Mutex::new(Some(future)), executor: Arc::clone(&executor) }).wake();
    }
    while left > 0 {
        let Some(task) = executor.ready.lock().unwrap().pop_front() else {
            thread::park();
            continue;
        };
        let waker = Waker::from(Arc::clone(&task));
        let mut future = task.future.lock().unwrap();
        let Some(work) = future.as_mut() else { continue };
        if work.as_mut().poll(&mut task::Context::from_waker(&waker)).is_ready() {
            *future = None;
            left -= 1;
        }
    }
}

type Shared = Context<Threads>;

/// Writes every block that is this task's, then reads each and looks at every byte.
async fn write_and_read(context: Arc<Shared>, file: Arc<File>, task: u64) {
    let offset = |block| (block * TASKS + task) * BLOCK as u64;
    let mut buffer = vec![0; BLOCK];
    for block in 0..BLOCKS {
        buffer.fill((task ^ block) as u8);
        let write = Request::write(Arc::clone(&file), buffer, offset(block));
        let event = context.start(write).expect("there is room").await;
        assert_eq!(event.result.expect("written"), BLOCK);
        buffer = event.request.into_buffer::<Vec<u8>>().expect("a write has one");
    }
    for block in 0..BLOCKS {
        buffer.fill(0);
        let read = Request::read(Arc::clone(&file), buffer, offset(block));
        let event = context.start(read).expect("there is room").await;
        assert_eq!(event.result.expect("read"), BLOCK);
        buffer = event.request.into_buffer::<Vec<u8>>().expect("a read has one");
        assert!(buffer.iter().all(|byte| *byte == (task ^ block) as u8));
    }
    // Of this one the stream hears.
    let mut sync = Request::fdatasync(file);
    while let Err(refused) = context.submit(sync) {
        assert!(matches!(refused.reason, Reason::Full), "{refused}");
        sync = refused.request;
    }
}

/// Counts the events that belong to no task, until there was one of each task.
async fn follow(context: Arc<Shared>, seen: Arc<AtomicU64>) {
    let mut events = context.events();
    while seen.load(Relaxed) < TASKS {
        let event = events.next().await.expect("the context is not destroyed yet");
        event.result.expect("synced");
        seen.fetch_add(1, Relaxed);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let context = Arc::new(Context::new(4 * TASKS as u32, Threads::sized()?)?);
    let file = Arc::new(tempfile::tempfile()?);
    let seen = Arc::new(AtomicU64::new(0));
    let writers = (0..TASKS)
        .map(|task| -> Work { Box::pin(write_and_read(Arc::clone(&context), Arc::clone(&file), task)) });
    let follower: Work = Box::pin(follow(Arc::clone(&context), Arc::clone(&seen)));
    run(writers.chain([follower]));
    context.destroy(None)?;
    println!(
        "{TASKS} tasks wrote and read {} blocks each on one thread; {} events in the stream",
        BLOCKS,
        seen.load(Relaxed)
    );
    Ok(())
}
