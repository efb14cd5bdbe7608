//! Contexts by number: [`Table`].

use super::{Backend, Context, CreateError, MAX_CAPACITY};
use crate::percpu::CachePadded;
use crate::refcount::{PerCpuRef, Put};
use crate::sync::cell::UnsafeCell;
use crate::sync::{Arc, EpochCell, Mutex, mo};
use crate::wait::Gate;
use std::fmt;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;

/// The name of a context in a [`Table`]: an index and a generation, so that a name is never used twice
/// (before one place has held 2³² contexts).
///
/// A plain number on the outside, for those who cannot keep a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(u64);

impl Handle {
    /// As a number.
    pub fn into_raw(self) -> u64 {
        self.0
    }

    /// Any number at all: one that names nothing finds nothing.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    fn new(index: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(index))
    }

    fn index(self) -> usize {
        self.0 as u32 as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Live contexts, looked up by [`Handle`].
///
/// [`get`](Self::get) is lock-free: it reads one pointer under an epoch pin and takes one per-CPU
/// reference. Inserting and removing block on a mutex. A stale or forged handle finds nothing, never
/// another context.
///
/// # Examples
///
/// ```
/// use ioctx::aio::{Context, Request, Table};
/// use ioctx::backend::Null;
/// let table = Table::new(16)?;
/// let handle = table.insert(Context::new(8, Null)?)?;
/// table.get(handle).unwrap().submit(Request::nop())?;
/// let context = table.remove(handle).unwrap();
/// assert!(table.get(handle).is_none());
/// assert_eq!(context.get_events(1, 8, None, &mut Vec::new()), Ok(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Table<B: Backend + 'static> {
    places: Box<[EpochCell<Entry<B>>]>,
    free: Mutex<Vec<Place>>,
}

/// A free place, and the generation of the next context in it.
#[derive(Debug)]
struct Place {
    index: u32,
    generation: u32,
}

struct Entry<B: Backend> {
    generation: u32,
    /// One per [`Entered`], which puts it; the initial one belongs to whoever removes the entry.
    users: CachePadded<PerCpuRef>,
    /// Opens when `users` is zero. Shared, because the entry may be gone by then.
    left: Arc<Gate>,
    /// # Safety
    ///
    /// Read by users; taken out when there are none left, by the remover.
    context: UnsafeCell<Option<Context<B>>>,
}

// SAFETY: `context` is reached as its comment says, and `Context` is `Send` and `Sync`.
unsafe impl<B: Backend> Sync for Entry<B> {}

/// The table has no free place. Gives the context back.
pub struct TableFull<B: Backend>(pub Context<B>);

impl<B: Backend> fmt::Debug for TableFull<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TableFull").field(&self.0).finish()
    }
}

impl<B: Backend> fmt::Display for TableFull<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the table is full; remove a context, or create a larger table")
    }
}

impl<B: Backend> std::error::Error for TableFull<B> {}

impl<B: Backend + 'static> Table<B> {
    /// Room for `capacity` contexts.
    ///
    /// # Errors
    ///
    /// [`CreateError::Capacity`] if it is 0 or above [`MAX_CAPACITY`].
    pub fn new(capacity: u32) -> Result<Self, CreateError> {
        if !(1..=MAX_CAPACITY).contains(&capacity) {
            return Err(CreateError::Capacity(capacity));
        }
        Ok(Self {
            places: (0..capacity).map(|_| EpochCell::new()).collect(),
            // Generations start at 1, so that no handle is 0.
            free: Mutex::new((0..capacity).rev().map(|index| Place { index, generation: 1 }).collect()),
        })
    }

    /// Takes a context in.
    ///
    /// # Errors
    ///
    /// [`TableFull`], with the context.
    pub fn insert(&self, context: Context<B>) -> Result<Handle, TableFull<B>> {
        let Some(Place { index, generation }) = self.free.lock().pop() else {
            return Err(TableFull(context));
        };
        let entry = Entry {
            generation,
            users: CachePadded::new(PerCpuRef::new()),
            left: Arc::new(Gate::new()),
            context: UnsafeCell::new(Some(context)),
        };
        // Release: pairs with `get` and `remove`; the entry is whole.
        self.places[index as usize].put(entry, mo!("aio.table.put", Release));
        Ok(Handle::new(index, generation))
    }

    /// The context of this name, for as long as the result is held. `None` if there is none, or if it is
    /// being removed.
    #[inline]
    pub fn get(&self, handle: Handle) -> Option<Entered<'_, B>> {
        // Acquire: pairs with `insert`.
        self.places.get(handle.index())?.read(mo!("aio.table.get", Acquire), |entry| {
            let found = entry.generation == handle.generation() && entry.users.try_get_live();
            found.then(|| Entered { entry: NonNull::from(entry), table: std::marker::PhantomData })
        })?
    }

    /// Takes a context out: destroys it, cancelling what can be, waits for its requests and for those who are using
    /// it, and gives it back with the events nobody has read. One caller gets it, the others `None`.
    ///
    /// Waits for ever if the caller itself holds the context through [`get`](Self::get).
    ///
    /// # Panics
    ///
    /// If the backend does, when the context's place is free again and the context, with the events, is gone.
    pub fn remove(&self, handle: Handle) -> Option<Context<B>> {
        let place = self.places.get(handle.index())?;
        // Acquire: pairs with `insert`. The next one in this place is ordered after us by the mutex over
        // the free places.
        let taken =
            place.take(mo!("aio.table.take", Acquire), |entry| entry.generation == handle.generation())?;
        if taken.users.kill() == Put::Zero {
            taken.left.open();
        }
        // Users point into the entry until they have left: nothing may go past that.
        let destroyed = catch_unwind(AssertUnwindSafe(|| {
            taken.context.with(|context| {
                // SAFETY: nobody takes it out but us, below.
                let context = unsafe { (*context).as_ref() }.expect("taken out by the remover only");
                // Readers who sleep in it are woken when its last request has completed. Somebody may have
                // begun to destroy it before us, and given up waiting.
                let _ = context.destroy(None);
                let _ = context.wait_destroyed(None);
            });
        }));
        taken.left.wait(None);
        // SAFETY: no user is left and none can come, and one thread was given the entry.
        let context = taken.context.with_mut(|context| unsafe { (*context).take() });
        self.free.lock().push(Place {
            index: handle.index() as u32,
            generation: handle.generation().wrapping_add(1).max(1),
        });
        if let Err(panic) = destroyed {
            // Waits for what is in flight, now that the place is free for another.
            drop(context);
            resume_unwind(panic);
        }
        context
    }
}

impl<B: Backend + 'static> fmt::Debug for Table<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("capacity", &self.places.len()).finish_non_exhaustive()
    }
}

/// The use of a context found in a [`Table`]. While it is held the context is not taken out.
pub struct Entered<'a, B: Backend + 'static> {
    /// Valid while our `users` reference is out.
    entry: NonNull<Entry<B>>,
    table: std::marker::PhantomData<&'a Table<B>>,
}

// SAFETY: a shared reference to an entry, which is `Sync`.
unsafe impl<B: Backend> Send for Entered<'_, B> {}
// SAFETY: as above.
unsafe impl<B: Backend> Sync for Entered<'_, B> {}

impl<B: Backend> Deref for Entered<'_, B> {
    type Target = Context<B>;

    #[inline]
    fn deref(&self) -> &Context<B> {
        // SAFETY: valid while our reference is out.
        let entry = unsafe { self.entry.as_ref() };
        // SAFETY: users read, and it is not taken out before they have left.
        let context = entry.context.with(|context| unsafe { (*context).as_ref() });
        context.expect("there while it is used")
    }
}

impl<B: Backend> Drop for Entered<'_, B> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: valid until our reference is put.
        let put = unsafe {
            let users = CachePadded::raw_get(&raw const (*self.entry.as_ptr()).users);
            PerCpuRef::put_raw(users, 1)
        };
        if put == Put::Zero {
            // SAFETY: the remover waits for the gate, so the entry is there until it opens; its share of
            // the gate is ours.
            let left = Arc::clone(unsafe { &(*self.entry.as_ptr()).left });
            left.open();
        }
    }
}

impl<B: Backend> fmt::Debug for Entered<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
