//! The backends by name.

use crate::Failure;
use crate::options::Options;
use ioctx::aio::Backend;
#[cfg(ioctx_linux)]
use ioctx::aio::{Completion, Finished, RequestId, Submitted};
#[cfg(ioctx_linux)]
use ioctx::backend::Direct;
use ioctx::backend::{Auto, Null, Threads, Zero};
use std::fmt;
#[cfg(ioctx_linux)]
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A backend that can be asked for.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    /// What comes of a read.
    pub reads: Reads,
    open: fn(&Options) -> Result<Box<dyn Backend>, String>,
}

/// What comes of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Nothing: 0 bytes.
    Nothing,
    /// Zeroes.
    Zeroes,
    /// What is in the file.
    File,
}

/// All of them: one line each.
const ALL: &[Kind] = &[
    Kind { name: "null", reads: Reads::Nothing, open: |_| Ok(Box::new(Null)) },
    Kind { name: "zero", reads: Reads::Zeroes, open: |_| Ok(Box::new(Zero)) },
    Kind { name: "auto", reads: Reads::File, open: auto },
    Kind { name: "direct", reads: Reads::File, open: direct },
    Kind { name: "threads", reads: Reads::File, open: threads },
    Kind { name: "kernel", reads: Reads::File, open: kernel },
    Kind { name: "uring", reads: Reads::File, open: uring },
];

impl Kind {
    /// The one of this name.
    pub fn named(name: &str) -> Result<Self, String> {
        let names = || ALL.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ");
        ALL.iter().find(|kind| kind.name == name).copied().ok_or_else(|| format!("one of {}", names()))
    }

    /// One for a context.
    pub fn open(&self, options: &Options) -> Result<Box<dyn Backend>, Failure> {
        (self.open)(options)
            .map_err(|why| Failure::Usage(format!("there is no backend `{}`: {why}", self.name)))
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn auto(options: &Options) -> Result<Box<dyn Backend>, String> {
    let auto = Auto::new(options.capacity().min(32_768)).map_err(|error| error.to_string())?;
    eprintln!("{auto}");
    Ok(Box::new(auto))
}

/// Parts of 1 MiB, in which longer requests are carried out.
#[cfg(ioctx_linux)]
fn direct(options: &Options) -> Result<Box<dyn Backend>, String> {
    let auto =
        Auto::new((options.capacity() + options.parts).min(32_768)).map_err(|error| error.to_string())?;
    eprintln!("{auto}");
    let direct = Direct::new(options.parts, auto).map_err(|error| error.to_string())?;
    Ok(Box::new(Told(direct, AtomicBool::new(false))))
}

#[cfg(not(ioctx_linux))]
fn direct(options: &Options) -> Result<Box<dyn Backend>, String> {
    Err(format!("it is for Linux, with or without --parts {}", options.parts))
}

fn threads(options: &Options) -> Result<Box<dyn Backend>, String> {
    let pool = match options.pool {
        0 => Threads::sized(),
        threads => Threads::new(threads as usize),
    };
    match pool {
        Ok(pool) => Ok(Box::new(pool)),
        Err(error) => Err(format!("the system gives no more threads ({error}); ask for fewer by --pool")),
    }
}

#[cfg(ioctx_linux)]
fn kernel(options: &Options) -> Result<Box<dyn Backend>, String> {
    match ioctx::backend::Kernel::new(options.capacity()) {
        Ok(kernel) => Ok(Box::new(kernel)),
        Err(why) => Err(why.to_string()),
    }
}

#[cfg(not(ioctx_linux))]
fn kernel(_: &Options) -> Result<Box<dyn Backend>, String> {
    Err("it is for Linux".into())
}

#[cfg(all(ioctx_linux, feature = "uring"))]
fn uring(options: &Options) -> Result<Box<dyn Backend>, String> {
    match ioctx::backend::Uring::new(options.capacity().min(32_768)) {
        Ok(uring) => Ok(Box::new(uring)),
        Err(why) => Err(why.to_string()),
    }
}

#[cfg(not(all(ioctx_linux, feature = "uring")))]
fn uring(_: &Options) -> Result<Box<dyn Backend>, String> {
    Err("it is not built in; build for Linux, with `--features uring`".into())
}

/// Says in the end how much it has used, if it was.
#[cfg(ioctx_linux)]
struct Told(Direct<Auto>, AtomicBool);

#[cfg(ioctx_linux)]
impl Drop for Told {
    fn drop(&mut self) {
        if !*self.1.get_mut() {
            return;
        }
        eprintln!("direct: at once, at most: {} (of {} parts)", self.0.peak(), self.0.parts());
    }
}

#[cfg(ioctx_linux)]
impl Backend for Told {
    fn submit(&self, work: Completion) -> Submitted {
        if !self.1.load(Relaxed) {
            self.1.store(true, Relaxed);
        }
        self.0.submit(work)
    }

    fn flush(&self) {
        self.0.flush();
    }

    fn poll(&self, done: &mut dyn FnMut(Finished)) {
        self.0.poll(done);
    }

    fn descriptor(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.0.descriptor()
    }

    fn cancel(&self, id: RequestId) -> bool {
        self.0.cancel(id)
    }

    fn cancel_all(&self) {
        self.0.cancel_all();
    }
}
