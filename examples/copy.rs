//! Copies a file with many requests in flight: `cargo run --release --example copy -- FROM TO`.
//!
//! Reads and writes overlap in one context; each buffer goes from a read to the write of what was read.
//! With `--direct` they go past the page cache, blocks of many megabytes in parts that are in flight together.
//! Holes of a sparse file stay holes where the system can tell where they are.

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use ioctx::aio::{AlignedBuffer, AlignedError, Backend, Buffer, Context, Event, Op, Request};
use ioctx::backend::Threads;
#[cfg(ioctx_linux)]
use ioctx::backend::{Auto, Direct};
use std::collections::VecDeque;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Parser)]
#[command(about = "Copies a file with many requests in flight")]
struct Arguments {
    /// The file to read.
    from: PathBuf,
    /// The file to write; replaced if it exists.
    to: PathBuf,
    /// Requests in flight.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    depth: u32,
    /// Bytes per request.
    #[arg(long, default_value_t = 256 << 10, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    block: u32,
    /// Bring the copy to its device before the end.
    #[arg(long)]
    sync: bool,
    /// Past the page cache (O_DIRECT), large blocks in parts; of this many at once.
    #[arg(long, value_name = "PARTS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    direct: Option<u32>,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("copy: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let from = Arc::new(open(File::options().read(true), arguments, &arguments.from)?);
    let meta = from.metadata().map_err(at(&arguments.from))?;
    if !meta.is_file() {
        return Err(format!("{} is not a regular file", arguments.from.display()).into());
    }
    if same_file(arguments, &meta) {
        return Err("the copy would overwrite its own source".into());
    }
    let mut options = File::options();
    let to = options.write(true).create(true).truncate(true);
    let to = Arc::new(open(to, arguments, &arguments.to)?);
    // Holes at the end, and files without any data, are made by this alone.
    to.set_len(meta.len()).map_err(at(&arguments.to))?;

    match backend(arguments)? {
        #[cfg(ioctx_linux)]
        Chosen::Direct(direct) => {
            let context = Context::new(arguments.depth, direct)?;
            copy_all(&context, &from, &to, meta.len(), arguments)?;
            let direct = context.backend();
            println!("at once, at most: {} (of {} parts)", direct.peak(), direct.parts());
        }
        Chosen::Threads(threads) => {
            copy_all(&Context::new(arguments.depth, threads)?, &from, &to, meta.len(), arguments)?;
        }
    }
    Ok(())
}

enum Chosen {
    Threads(Threads),
    #[cfg(ioctx_linux)]
    Direct(Direct<Auto>),
}

fn backend(arguments: &Arguments) -> Result<Chosen, Box<dyn Error>> {
    match arguments.direct {
        None => Ok(Chosen::Threads(Threads::sized()?)),
        #[cfg(ioctx_linux)]
        Some(parts) => Ok(Chosen::Direct(Direct::new(parts, Auto::new(arguments.depth + parts)?)?)),
        #[cfg(not(ioctx_linux))]
        Some(_) => Err("--direct is for Linux".into()),
    }
}

/// Opens a file, past the page cache if that was asked for.
fn open(options: &mut OpenOptions, arguments: &Arguments, path: &Path) -> io::Result<File> {
    #[cfg(ioctx_linux)]
    if arguments.direct.is_some() {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_DIRECT);
    }
    options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidInput if arguments.direct.is_some() => io::Error::other(format!(
            "{}: its file system has no way past the page cache; leave --direct out",
            path.display()
        )),
        _ => at(path)(error),
    })
}

/// Says of an error where it was.
fn at(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// All of it, with a bar.
fn copy_all<B: Backend>(
    context: &Context<B>,
    from: &Arc<File>,
    to: &Arc<File>,
    len: u64,
    arguments: &Arguments,
) -> Result<(), Box<dyn Error>> {
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")?;
    let bar = ProgressBar::new(len).with_style(style);
    let copied = copy(context, from, to, len, arguments, &bar)?;
    if arguments.sync {
        context.submit(Request::fsync(Arc::clone(to)))?;
        let mut events = Vec::new();
        context.get_events(1, 1, None, &mut events)?;
        events.remove(0).result.map_err(at(&arguments.to))?;
    }
    bar.finish();
    println!("{copied} bytes of data in a file of {len}");
    Ok(())
}

fn same_file(arguments: &Arguments, from: &std::fs::Metadata) -> bool {
    #[cfg(unix)]
    if let Ok(to) = std::fs::metadata(&arguments.to) {
        use std::os::unix::fs::MetadataExt;
        return (from.dev(), from.ino()) == (to.dev(), to.ino());
    }
    let _ = from;
    arguments.from == arguments.to
}

/// Keeps up to `depth` requests in flight until every range of data has been read and written.
fn copy<B: Backend>(
    context: &Context<B>,
    from: &Arc<File>,
    to: &Arc<File>,
    len: u64,
    arguments: &Arguments,
    bar: &ProgressBar,
) -> Result<u64, Box<dyn Error>> {
    let mut data = data_ranges(from, len).into_iter();
    let mut current = 0..0;
    // What to submit before anything new: the rest of a short transfer, or the write of what was read.
    let mut next: VecDeque<Request> = VecDeque::new();
    let mut spare: Vec<AlignedBuffer> = Vec::new();
    let mut events = Vec::new();
    let (mut in_flight, mut copied) = (0, 0);
    loop {
        while in_flight < arguments.depth {
            let request = match next.pop_front() {
                Some(request) => request,
                None => {
                    if current.is_empty() {
                        match data.next() {
                            Some(range) => current = range,
                            None => break,
                        }
                    }
                    let take = u64::from(arguments.block).min(current.end - current.start);
                    let fits = spare.pop().filter(|buf| buf.len() == take as usize);
                    let buf = fits.map_or_else(|| block(take as usize), Ok)?;
                    let request = Request::read(Arc::clone(from), buf, current.start);
                    current.start += take;
                    request
                }
            };
            context.submit(request)?;
            in_flight += 1;
        }
        if in_flight == 0 {
            return Ok(copied);
        }
        context.get_events(1, arguments.depth as usize, None, &mut events)?;
        for event in events.drain(..) {
            in_flight -= 1;
            let (done, follow_up) = follow(event, to, arguments)?;
            copied += done;
            bar.set_position(copied);
            match follow_up {
                Next::Submit(requests) => next.extend(requests),
                Next::Spare(buf) => spare.push(buf),
            }
        }
    }
}

/// What an event leads to.
enum Next {
    Submit(Vec<Request>),
    Spare(AlignedBuffer),
}

/// Bytes that are in the copy now, and what comes next.
fn follow(event: Event, to: &Arc<File>, arguments: &Arguments) -> Result<(u64, Next), Box<dyn Error>> {
    let Event { request, result, .. } = event;
    let reads = matches!(request.op, Op::Read { .. });
    let done = result.map_err(at(if reads { &arguments.from } else { &arguments.to }))?;
    match request.op {
        Op::Read { .. } if done == 0 => Err("the source became shorter while it was copied".into()),
        Op::Read { file, buf, offset } if done < buf.len() => {
            let rest = Request::read(file, block(buf.len() - done)?, offset + done as u64);
            let write = Request::write(Arc::clone(to), part(&buf[..done])?, offset);
            Ok((0, Next::Submit(vec![rest, write])))
        }
        Op::Read { buf, offset, .. } => {
            Ok((0, Next::Submit(vec![Request::write(Arc::clone(to), aligned(buf), offset)])))
        }
        Op::Write { .. } if done == 0 => Err(at(&arguments.to)(io::ErrorKind::WriteZero.into()).into()),
        Op::Write { file, buf, offset } if done < buf.len() => {
            let rest = Request::write(file, part(&buf[done..])?, offset + done as u64);
            Ok((done as u64, Next::Submit(vec![rest])))
        }
        Op::Write { buf, .. } => Ok((done as u64, Next::Spare(aligned(buf)))),
        _ => unreachable!("only reads and writes are submitted here"),
    }
}

/// Memory that nobody has to copy on its way past the page cache; in huge pages, if there is room for some.
fn block(len: usize) -> Result<AlignedBuffer, AlignedError> {
    AlignedBuffer::new(len, if len >= 2 << 20 { 2 << 20 } else { 4096 })
}

/// A block of its own for a part of another one.
fn part(bytes: &[u8]) -> Result<AlignedBuffer, AlignedError> {
    let mut block = block(bytes.len())?;
    block.copy_from_slice(bytes);
    Ok(block)
}

/// The block that a request was given.
fn aligned(buf: impl Into<Buffer>) -> AlignedBuffer {
    buf.into().downcast().expect("all buffers here are blocks")
}

/// Where the file has data; all of it where the system cannot tell.
fn data_ranges(file: &File, len: u64) -> Vec<Range<u64>> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{SeekFrom, seek};
        let mut ranges = Vec::new();
        let mut at = 0;
        while at < len {
            match seek(file, SeekFrom::Data(at)) {
                Ok(start) => {
                    let end = seek(file, SeekFrom::Hole(start)).unwrap_or(len).min(len);
                    ranges.push(start..end.max(start + 1).min(len));
                    at = end.max(start + 1);
                }
                // No data from here on.
                Err(rustix::io::Errno::NXIO) => return ranges,
                Err(_) => break,
            }
        }
        if at >= len {
            return ranges;
        }
    }
    let _ = file;
    std::iter::once(0..len).filter(|range| !range.is_empty()).collect()
}
