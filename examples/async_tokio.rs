//! Checksums a file from several tokio tasks that share one context, with many reads in flight:
//! `cargo run --release --example async_tokio -- FILE`, or without a file, of one that it makes.
//!
//! The result is compared with that of a plain loop over the same file.

use clap::Parser;
use ioctx::aio::{Context, Event, Op, Request, Started};
use ioctx::backend::Threads;
use std::collections::VecDeque;
use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

#[derive(Clone, Parser)]
#[command(about = "Checksums a file from several tokio tasks that share one context")]
struct Arguments {
    /// The file to read; without it, one of 16 MiB that is made for the purpose.
    file: Option<PathBuf>,
    /// How many tasks.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    tasks: u32,
    /// Reads in flight for each.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    depth: u32,
    /// Bytes per read.
    #[arg(long, default_value_t = 64 << 10, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    block: u32,
}

/// Of a block at its place: sums of these do not depend on the order.
fn checksum(offset: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(offset ^ 0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The checksum of an event's block, and the request to read another.
fn look(event: Event) -> io::Result<(u64, Request)> {
    let read = event.result?;
    match &event.request.op {
        Op::Read { buf, offset, .. } => Ok((checksum(*offset, &buf[..read]), event.request)),
        other => unreachable!("nobody asked for {other:?}"),
    }
}

/// Sums every block that is this task's, with up to `depth` reads in flight.
async fn sum(
    context: Arc<Context<Threads>>,
    file: Arc<File>,
    len: u64,
    task: u32,
    arguments: Arguments,
) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let block = u64::from(arguments.block);
    let mut offsets =
        (u64::from(task) * block..len).step_by(arguments.tasks as usize * arguments.block as usize);
    let mut reads: VecDeque<Started> = VecDeque::new();
    for offset in offsets.by_ref().take(arguments.depth as usize) {
        reads.push_back(context.start(Request::read(
            Arc::clone(&file),
            vec![0; arguments.block as usize],
            offset,
        ))?);
    }
    let mut total = 0_u64;
    while let Some(oldest) = reads.pop_front() {
        let (sum, mut next) = look(oldest.await)?;
        total = total.wrapping_add(sum);
        if let (Some(next_offset), Op::Read { offset, .. }) = (offsets.next(), &mut next.op) {
            // The same buffer and file, another place.
            *offset = next_offset;
            reads.push_back(context.start(next)?);
        }
    }
    Ok(total)
}

/// The same by a plain loop.
fn plainly(file: &mut &File, block: u32) -> io::Result<u64> {
    file.rewind()?;
    let (mut total, mut offset, mut buffer) = (0_u64, 0, Vec::new());
    loop {
        buffer.clear();
        let read = file.take(u64::from(block)).read_to_end(&mut buffer)?;
        if read == 0 {
            return Ok(total);
        }
        total = total.wrapping_add(checksum(offset, &buffer));
        offset += read as u64;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let file = match &arguments.file {
        Some(path) => File::open(path)?,
        None => {
            let mut file = tempfile::tempfile()?;
            let content: Vec<u8> =
                (0..16_u32 << 20).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 24) as u8).collect();
            file.write_all(&content)?;
            file
        }
    };
    let file = Arc::new(file);
    let len = file.metadata()?.len();
    let context = Arc::new(Context::new(arguments.tasks * arguments.depth, Threads::sized()?)?);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let begun = Instant::now();
    let total = runtime.block_on(async {
        let tasks: Vec<_> = (0..arguments.tasks)
            .map(|task| {
                let (context, file) = (Arc::clone(&context), Arc::clone(&file));
                tokio::spawn(sum(context, file, len, task, arguments.clone()))
            })
            .collect();
        let mut total = 0_u64;
        for task in tasks {
            total = total.wrapping_add(task.await??);
        }
        Ok::<_, Box<dyn Error + Send + Sync>>(total)
    });
    let total = total.map_err(|error| error as Box<dyn Error>)?;
    let took = begun.elapsed();
    if total != plainly(&mut &*file, arguments.block)? {
        return Err("the checksum differs from that of a plain loop; was the file changed meanwhile?".into());
    }
    println!("{total:016x}  {len} bytes in {took:.1?}, by {} tasks on two threads", arguments.tasks);
    Ok(())
}
