//! Queues that give each thread an end of its own.
//!
//! Where a crate passes several events at once, that is used. `kanal` and `flume` can take out only all there are: who
//! wants fewer keeps the rest for the next time.

use super::shared::{each_of, one_by_one};
use super::{Event, Publish, Queue, Read, SLOTS};
use disruptor::{
    BusySpin, EventPoller, MissingFreeSlots, MultiProducerBarrier, Producer, SingleConsumerBarrier,
};
use rtrb::chunks::ChunkError;
use std::sync::mpsc;
use thingbuf::mpsc::blocking as thing;

const ROOM: usize = SLOTS as usize;

/// As many as are wanted.
fn copies<T: Clone>(of: T, count: usize) -> Vec<T> {
    vec![of; count]
}

/// The only one there can be.
fn lone<T>(of: T, count: usize) -> Vec<T> {
    assert!(count == 1, "this end cannot be shared");
    vec![of]
}

/// The ends of a channel that passes events one by one.
macro_rules! by_one {
    ($sender:ty, $receiver:ty) => {
        impl Publish for $sender {
            #[inline]
            fn publish(&mut self, events: &[Event]) -> usize {
                one_by_one(events, |event| self.try_send(event).is_ok())
            }
        }

        impl Read for $receiver {
            #[inline]
            fn read(&mut self, max: usize, each: impl FnMut(&Event)) -> usize {
                each_of(max, || self.try_recv().ok(), each)
            }
        }
    };
}

/// `crossbeam_channel::bounded`.
#[derive(Debug)]
pub struct Crossbeam;

impl Queue for Crossbeam {
    type Publisher = crossbeam_channel::Sender<Event>;
    type Reader = crossbeam_channel::Receiver<Event>;
    const SEVERAL: [bool; 2] = [true; 2];

    fn ends(publishers: usize, readers: usize) -> (Vec<Self::Publisher>, Vec<Self::Reader>) {
        let (sender, receiver) = crossbeam_channel::bounded(ROOM);
        (copies(sender, publishers), copies(receiver, readers))
    }
}

by_one!(crossbeam_channel::Sender<Event>, crossbeam_channel::Receiver<Event>);

/// `std::sync::mpsc::sync_channel`.
#[derive(Debug)]
pub struct SyncChannel;

impl Queue for SyncChannel {
    type Publisher = mpsc::SyncSender<Event>;
    type Reader = mpsc::Receiver<Event>;
    const SEVERAL: [bool; 2] = [true, false];

    fn ends(publishers: usize, readers: usize) -> (Vec<Self::Publisher>, Vec<Self::Reader>) {
        let (sender, receiver) = mpsc::sync_channel(ROOM);
        (copies(sender, publishers), lone(receiver, readers))
    }
}

by_one!(mpsc::SyncSender<Event>, mpsc::Receiver<Event>);

/// `thingbuf::mpsc::blocking`.
#[derive(Debug)]
pub struct ThingMpsc;

impl Queue for ThingMpsc {
    type Publisher = thing::Sender<Event>;
    type Reader = thing::Receiver<Event>;
    const SEVERAL: [bool; 2] = [true, false];

    fn ends(publishers: usize, readers: usize) -> (Vec<Self::Publisher>, Vec<Self::Reader>) {
        let (sender, receiver) = thing::channel(ROOM);
        (copies(sender, publishers), lone(receiver, readers))
    }
}

by_one!(thing::Sender<Event>, thing::Receiver<Event>);

/// A receiver, and what was received but not shown yet.
#[derive(Debug)]
pub struct Keeping<R> {
    receiver: R,
    kept: Vec<Event>,
    shown: usize,
}

impl<R> Keeping<R> {
    fn new(receiver: R) -> Self {
        Self { receiver, kept: Vec::with_capacity(ROOM), shown: 0 }
    }

    /// Shows up to `max` of those kept; if none are, of those that `all` brings.
    #[inline]
    fn show(&mut self, max: usize, all: impl FnOnce(&R, &mut Vec<Event>), each: impl FnMut(&Event)) -> usize {
        if self.shown == self.kept.len() {
            self.kept.clear();
            self.shown = 0;
            all(&self.receiver, &mut self.kept);
        }
        let left = &self.kept[self.shown..];
        let run = &left[..max.min(left.len())];
        run.iter().for_each(each);
        self.shown += run.len();
        run.len()
    }
}

/// `kanal::bounded`.
#[derive(Debug)]
pub struct Kanal;

impl Queue for Kanal {
    type Publisher = kanal::Sender<Event>;
    type Reader = Keeping<kanal::Receiver<Event>>;
    const SEVERAL: [bool; 2] = [true; 2];

    fn ends(publishers: usize, readers: usize) -> (Vec<Self::Publisher>, Vec<Self::Reader>) {
        let (sender, receiver) = kanal::bounded(ROOM);
        let receivers = copies(receiver, readers).into_iter().map(Keeping::new).collect();
        (copies(sender, publishers), receivers)
    }
}

impl Publish for kanal::Sender<Event> {
    #[inline]
    fn publish(&mut self, events: &[Event]) -> usize {
        one_by_one(events, |event| matches!(self.try_send(event), Ok(true)))
    }
}

impl Read for Keeping<kanal::Receiver<Event>> {
    #[inline]
    fn read(&mut self, max: usize, each: impl FnMut(&Event)) -> usize {
        if max == 1 {
            return each_of(1, || self.receiver.try_recv().ok().flatten(), each);
        }
        // Closed or empty, nothing is added.
        self.show(max, |receiver, kept| drop(receiver.drain_into(kept)), each)
    }
}

/// `flume::bounded`.
#[derive(Debug)]
pub struct Flume;

impl Queue for Flume {
    type Publisher = flume::Sender<Event>;
    type Reader = Keeping<flume::Receiver<Event>>;
    const SEVERAL: [bool; 2] = [true; 2];

    fn ends(publishers: usize, readers: usize) -> (Vec<Self::Publisher>, Vec<Self::Reader>) {
        let (sender, receiver) = flume::bounded(ROOM);
        let receivers = copies(receiver, readers).into_iter().map(Keeping::new).collect();
        (copies(sender, publishers), receivers)
    }
}

impl Publish for flume::Sender<Event> {
    #[inline]
    fn publish(&mut self, events: &[Event]) -> usize {
        one_by_one(events, |event| self.try_send(event).is_ok())
    }
}

impl Read for Keeping<flume::Receiver<Event>> {
    #[inline]
    fn read(&mut self, max: usize, each: impl FnMut(&Event)) -> usize {
        if max == 1 {
            return each_of(1, || self.receiver.try_recv().ok(), each);
        }
        self.show(max, |receiver, kept| kept.extend(receiver.drain()), each)
    }
}

/// `rtrb`, which is for one publisher and one reader; several events by its chunks.
#[derive(Debug)]
pub struct Rtrb;

impl Queue for Rtrb {
    type Publisher = rtrb::Producer<Event>;
    type Reader = rtrb::Consumer<Event>;
    const SEVERAL: [bool; 2] = [false; 2];

    fn ends(publishers: usize, readers: usize) -> (Vec<Self::Publisher>, Vec<Self::Reader>) {
        let (producer, consumer) = rtrb::RingBuffer::new(ROOM);
        (lone(producer, publishers), lone(consumer, readers))
    }
}

impl Publish for rtrb::Producer<Event> {
    #[inline]
    fn publish(&mut self, events: &[Event]) -> usize {
        match events {
            [event] => self.push(*event).map_or(0, |()| 1),
            _ => self.push_partial_slice(events).0.len(),
        }
    }
}

impl Read for rtrb::Consumer<Event> {
    #[inline]
    fn read(&mut self, max: usize, each: impl FnMut(&Event)) -> usize {
        if max == 1 {
            return each_of(1, || self.pop().ok(), each);
        }
        let n = match self.read_chunk(max) {
            Ok(chunk) => return show(chunk, each),
            Err(ChunkError::TooFewSlots(n)) => n,
        };
        self.read_chunk(n).map_or(0, |chunk| show(chunk, each))
    }
}

/// Shows what is in the chunk and gives its slots up.
#[inline]
fn show(chunk: rtrb::chunks::ReadChunk<'_, Event>, mut each: impl FnMut(&Event)) -> usize {
    let (first, second) = chunk.as_slices();
    first.iter().chain(second).for_each(&mut each);
    let n = chunk.len();
    chunk.commit_all();
    n
}

/// `disruptor`'s ring for many publishers, read by a poller. One: several pollers would each be shown every event.
#[derive(Debug)]
pub struct Disruptor;

/// One of its publishers.
type MultiProducer = disruptor::MultiProducer<Event, SingleConsumerBarrier>;
/// Its reader.
type Poller = EventPoller<Event, MultiProducerBarrier>;

impl Queue for Disruptor {
    type Publisher = MultiProducer;
    type Reader = Poller;
    const SEVERAL: [bool; 2] = [true, false];

    fn ends(publishers: usize, readers: usize) -> (Vec<MultiProducer>, Vec<Poller>) {
        // A poller does not wait, so the strategy is never used.
        let builder = disruptor::build_multi_producer(ROOM, Event::default, BusySpin);
        let (poller, builder) = builder.new_event_poller();
        (copies(builder.build(), publishers), lone(poller, readers))
    }
}

impl Publish for MultiProducer {
    #[inline]
    fn publish(&mut self, events: &[Event]) -> usize {
        if let [event] = events {
            return self.try_publish(|slot| *slot = *event).map_or(0, |_| 1);
        }
        // All or nothing; if there is too little room, it says how much too little.
        let mut publish = |events: &[Event]| {
            let n = events.len();
            self.try_batch_publish(n, |slots| slots.zip(events).for_each(|(slot, event)| *slot = *event))
                .map(|_| n)
        };
        match publish(events) {
            Ok(n) => n,
            Err(MissingFreeSlots(missing)) => {
                let room = events.len().saturating_sub(missing as usize);
                if room == 0 { 0 } else { publish(&events[..room]).unwrap_or(0) }
            }
        }
    }
}

impl Read for Poller {
    #[inline]
    fn read(&mut self, max: usize, each: impl FnMut(&Event)) -> usize {
        let Ok(mut events) = self.take(max as u64) else { return 0 };
        (&mut events).map(each).count()
    }
}
