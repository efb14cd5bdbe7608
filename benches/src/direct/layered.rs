//! Ours: [`Contexts`].

use super::{BLOCK, Large, Reader, Shape, Slab};
use ioctx::aio::{Backend, BufferMut, Context, Op};
use ioctx::{Event, Request};
use std::io;
use std::marker::PhantomData;
use std::ops::Range;

/// A context, and requests that are submitted again and again.
#[derive(Debug)]
pub struct Contexts<'a, B: Backend> {
    context: Context<B>,
    idle: Vec<Request>,
    events: Vec<Event>,
    shape: Shape,
    /// What the requests point to.
    slab: PhantomData<&'a Slab>,
}

impl<'a, B: Backend> Contexts<'a, B> {
    /// With this backend.
    ///
    /// # Errors
    ///
    /// Out of memory.
    pub fn new(file: &Large, slab: &'a Slab, shape: Shape, backend: B) -> io::Result<Self> {
        let request = |number| {
            let (at, len) = (slab.at(number, shape), shape.blocks * BLOCK);
            // SAFETY: 1. within the slab, which outlives the context, and with it what is in flight. 2. nobody else
            // uses it meanwhile.
            Request::read(file.file().clone(), unsafe { BufferMut::from_raw_parts(at, len) }, 0)
        };
        let context = Context::new(shape.depth as u32, backend).map_err(io::Error::other)?;
        let idle = (0..shape.depth).map(request).collect();
        Ok(Self { context, idle, events: Vec::new(), shape, slab: PhantomData })
    }

    /// What carries the requests out.
    pub fn backend(&self) -> &B {
        self.context.backend()
    }
}

impl<B: Backend> Reader for Contexts<'_, B> {
    fn read(&mut self, blocks: Range<u64>, mut each: impl FnMut(u64, &[u8])) {
        let mut requests = blocks.step_by(self.shape.blocks);
        loop {
            while !self.idle.is_empty()
                && let Some(first) = requests.next()
                && let Some(mut request) = self.idle.pop()
            {
                let Op::Read { offset, .. } = &mut request.op else { unreachable!("all are reads") };
                *offset = first * BLOCK as u64;
                self.context.submit(request.with_user_data(first)).expect("there is room");
            }
            if self.idle.len() == self.shape.depth {
                return;
            }
            self.context.get_events(1, self.shape.depth, None, &mut self.events).expect("some are in flight");
            for Event { request, result, .. } in self.events.drain(..) {
                let Op::Read { buf, .. } = &request.op else { unreachable!("all are reads") };
                assert!(result.is_ok_and(|done| done == buf.len()), "all blocks are whole");
                let blocks = (request.user_data..).zip(buf.chunks_exact(BLOCK));
                blocks.for_each(|(number, block)| each(number, block));
                self.idle.push(request);
            }
        }
    }
}
