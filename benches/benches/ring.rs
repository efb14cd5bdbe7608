//! Completion rings beside the queues and channels one would use instead.

use crossbeam_queue::ArrayQueue;
use ioctx::ring::{CompletionQueue, Event, Ring};
use ioctx_benches::harness::{Bench, Case, Contest};
use ioctx_benches::ring::{Channel, Flume, Locked, Queue, Shape, ThingMpsc, alone, check, pass};
use thingbuf::ThingBuf;

fn passed<Q: Queue>(name: &str, shape: Shape) -> Case<'static> {
    Case::repetitions(name, move |n| pass::<Q>(n, shape))
}

fn to_itself<Q: Queue + 'static>(name: &str, Shape { batch, .. }: Shape) -> Case<'static> {
    let queue = Q::new();
    Case::slices(name, 1, batch as u32, move |n| alone(&queue, batch, n))
}

/// All contenders of a contest.
macro_rules! contenders {
    ($case:ident, $shape:expr) => {
        vec![
            $case::<CompletionQueue>("ioctx CompletionQueue", $shape),
            $case::<Ring>("ioctx Ring", $shape),
            $case::<ArrayQueue<Event>>("crossbeam_queue::ArrayQueue", $shape),
            $case::<Channel>("crossbeam_channel", $shape),
            $case::<ThingBuf<Event>>("thingbuf", $shape),
            $case::<ThingMpsc>("thingbuf::mpsc", $shape),
            $case::<Flume>("flume", $shape),
            $case::<Locked>("Mutex<VecDeque>", $shape),
        ]
    };
}

fn main() {
    let mut bench = Bench::start("ring", env!("CARGO_TARGET_TMPDIR"));
    check::<CompletionQueue>();
    check::<Ring>();
    check::<ArrayQueue<Event>>();
    check::<Channel>();
    check::<ThingBuf<Event>>();
    check::<ThingMpsc>();
    check::<Flume>();
    check::<Locked>();

    for (publishers, title) in [
        (0, "one thread publishes and reads"),
        (1, "1 publisher, 1 reader, each on a CPU of its own"),
        (2, "2 publishers, 1 reader"),
        (4, "4 publishers, 1 reader"),
    ] {
        let mut contest = Contest::new(title);
        for batch in [1, 16] {
            let shape = Shape { publishers, batch };
            let cases =
                if publishers == 0 { contenders!(to_itself, shape) } else { contenders!(passed, shape) };
            contest = contest.group(publishers + 1, batch, cases);
        }
        bench.run(contest);
    }
    bench.finish();
}
