//! Views of rings in memory that anybody writes, made and used as a string of bytes says: what the property test and
//! the fuzz target share.
//!
//! Everything is foreseen by a copy of the memory and of where each view is. The memory lies between two pages that
//! cannot be touched, at one of them.

use ioctx::ring::{Event, NotShown, RingView, Unusable};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Words of a header.
const NR: usize = 1;
const HEAD: usize = 2;
const TAIL: usize = 3;
const MAGIC: usize = 4;
const INCOMPATIBLE: usize = 6;
const HEADER_LENGTH: usize = 7;

/// Writable memory between two pages that are neither readable nor writable.
pub struct Guarded {
    mapping: *mut libc::c_void,
    page: usize,
}

impl Guarded {
    pub fn new() -> Self {
        // SAFETY: has no conditions.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let (nobody, private) = (libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new memory, where the kernel likes.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), 4 * page, nobody, private, -1, 0) };
        assert_ne!(mapping, libc::MAP_FAILED);
        // SAFETY: the two pages in the middle of what was just mapped.
        let opened =
            unsafe { libc::mprotect(mapping.byte_add(page), 2 * page, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(opened, 0);
        Self { mapping, page }
    }

    /// What may be read and written.
    pub fn words(&self) -> &[AtomicU32] {
        let first = self.mapping.wrapping_byte_add(self.page).cast::<AtomicU32>();
        // SAFETY: two pages from there on are ours, zeroed at first, and reached by atomic accesses.
        unsafe { std::slice::from_raw_parts(first, 2 * self.page / 4) }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`; nobody has a reference any more.
        unsafe { libc::munmap(self.mapping, 4 * self.page) };
    }
}

/// What is left of the input. Where nothing is left, zeroes are.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u32 {
        self.0.split_off_first().copied().unwrap_or(0).into()
    }

    fn word(&mut self) -> u32 {
        (0..4).fold(0, |word, _| word << 8 | self.byte())
    }

    /// Mostly small.
    fn number(&mut self) -> u32 {
        match self.byte() {
            small @ ..0xe0 => small,
            0xff => u32::MAX,
            _ => self.word(),
        }
    }

    /// How many events are asked for.
    fn amount(&mut self) -> usize {
        match self.number() {
            u32::MAX => usize::MAX,
            n => n as usize,
        }
    }
}

/// The memory, a copy of what has to be in it, and where in it the ring is.
struct Memory<'a> {
    words: &'a [AtomicU32],
    copy: Vec<u32>,
    /// The ring's first word.
    first: usize,
    /// The ring's length in bytes.
    len: usize,
}

impl Memory<'_> {
    /// A word of the ring.
    fn get(&self, word: usize) -> u32 {
        self.copy[self.first + word]
    }

    /// Somebody writes a word of the ring.
    fn foreign_write(&mut self, word: usize, value: u32) {
        self.words[self.first + word].store(value, Relaxed);
        self.copy[self.first + word] = value;
    }

    /// Somebody writes any word of the ring, the indices more often than others.
    fn foreign_write_anywhere(&mut self, input: &mut Input<'_>) {
        let word = match input.byte() {
            any @ 0x80.. => (any as usize - 0x80) << 8 | input.byte() as usize,
            even if even.is_multiple_of(2) => HEAD,
            _ => TAIL,
        };
        let value = input.number();
        if self.len >= 4 {
            self.foreign_write(word % (self.len / 4), value);
        }
    }

    /// What a new view has to say to this: where slots begin, and how many there are, or what is wrong.
    fn verdict(&self) -> Result<(u32, u32), Unusable> {
        if self.len < 32 {
            return Err(Unusable::TooShort(self.len));
        }
        let [magic, incompatible, header, nr] =
            [MAGIC, INCOMPATIBLE, HEADER_LENGTH, NR].map(|at| self.get(at));
        if magic != 0xa10a_10a1 {
            Err(Unusable::Magic(magic))
        } else if incompatible != 0 {
            Err(Unusable::Incompatible(incompatible))
        } else if header < 32 || header % 8 != 0 {
            Err(Unusable::HeaderLength(header))
        } else if nr < 2 || u64::from(header) + 32 * u64::from(nr) > self.len as u64 {
            Err(Unusable::Slots(nr))
        } else {
            Ok((header, nr))
        }
    }
}

/// A view, and where it has to be.
struct Viewed {
    view: RingView,
    /// Where the slots are, in bytes from the beginning.
    header: u32,
    nr: u32,
    head: u32,
    tail: u32,
}

impl Viewed {
    /// A view, or the foreseen reason why there is none.
    fn new(memory: &Memory<'_>) -> Option<Self> {
        let base = memory.words[memory.first..].as_ptr().cast_mut().cast::<u8>();
        // SAFETY: 1. and 2. the ring is in the words, which live on. 3. everybody uses atomics.
        match (unsafe { RingView::new(base, memory.len) }, memory.verdict()) {
            (Ok(view), Ok((header, nr))) => {
                assert_eq!(view.capacity(), nr - 1);
                let head = memory.get(HEAD) % nr;
                Some(Self { view, header, nr, head, tail: head })
            }
            (Err(why), Err(foreseen)) => {
                assert_eq!(why, foreseen);
                assert!(why.to_string().contains("; "), "what is wrong, and what to do: {why}");
                None
            }
            (got, foreseen) => panic!("{got:?}, not {foreseen:?}"),
        }
    }

    fn look(&mut self, memory: &Memory<'_>) {
        self.tail = memory.get(TAIL) % self.nr;
    }

    fn seen(&self) -> u32 {
        (self.tail + self.nr - self.head) % self.nr
    }

    /// How many adjacent events there are, of at most `max`.
    fn run(&self, max: usize) -> usize {
        max.min(self.seen().min(self.nr - self.head) as usize)
    }

    /// The event `i` after the head.
    fn event(&self, memory: &Memory<'_>, i: usize) -> Event {
        let slot = self.header as usize + 32 * ((self.head as usize + i) % self.nr as usize);
        let [data, obj, res, res2] = [0, 2, 4, 6].map(|at| {
            let [low, high] = [0, 1].map(|half| memory.get(slot / 4 + at + half).to_ne_bytes());
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&low);
            bytes[4..].copy_from_slice(&high);
            u64::from_ne_bytes(bytes)
        });
        Event { data, obj, res: res as i64, res2: res2 as i64 }
    }

    fn give_up(&mut self, memory: &mut Memory<'_>, n: usize) {
        if n > 0 {
            self.head = (self.head + n as u32) % self.nr;
            memory.copy[memory.first + HEAD] = self.head;
        }
    }

    /// Looks at up to `max` events; meanwhile somebody writes, if the input says so.
    fn peek(&mut self, memory: &mut Memory<'_>, input: &mut Input<'_>) {
        let max = input.amount();
        self.head = memory.get(HEAD) % self.nr;
        self.look(memory);
        let expected: Vec<_> = (0..self.run(max)).map(|i| self.event(memory, i)).collect();
        assert!(expected.len() < self.nr as usize);
        let first =
            memory.words[memory.first..].as_ptr().addr() + self.header as usize + 32 * self.head as usize;
        let writes = input.byte() % 4;
        self.view.peek(max, |run| {
            assert!(run.iter().map(|cell| cell.get()).eq(expected));
            assert!(run.is_empty() || run.as_ptr().addr() == first);
            for _ in 0..writes {
                memory.foreign_write_anywhere(input);
                run.iter().for_each(|cell| _ = std::hint::black_box(cell.get()));
            }
        });
    }

    fn commit(&mut self, memory: &mut Memory<'_>, n: usize) {
        let seen = self.seen() as usize;
        assert_eq!(self.view.commit(n), if n <= seen { Ok(()) } else { Err(NotShown(seen)) });
        if n <= seen {
            self.give_up(memory, n);
        }
    }

    fn pop_into(&mut self, memory: &mut Memory<'_>, max: usize) {
        let mut popped = Vec::new();
        assert_eq!(self.view.pop_into(&mut popped, max), popped.len());
        assert!(popped.len() < self.nr as usize);
        self.expect(memory, max, &popped);
    }

    fn pop(&mut self, memory: &mut Memory<'_>) {
        let popped = self.view.pop();
        self.expect(memory, 1, popped.as_slice());
    }

    /// Sees that `popped` are the oldest events, up to `max` of them.
    fn expect(&mut self, memory: &mut Memory<'_>, max: usize, popped: &[Event]) {
        self.head = memory.get(HEAD) % self.nr;
        self.look(memory);
        assert_eq!(popped.len(), max.min(self.seen() as usize));
        assert!(popped.iter().enumerate().all(|(i, got)| *got == self.event(memory, i)));
        self.give_up(memory, popped.len());
    }
}

/// Makes views of a ring and uses them, as `input` says.
///
/// # Panics
///
/// If anything is not as foreseen. Whatever is read or written beside the mapping ends the process.
pub fn anything(input: &[u8]) {
    std::thread_local!(static MEMORY: Guarded = Guarded::new());
    MEMORY.with(|memory| in_memory(memory, Input(input)));
}

fn in_memory(guarded: &Guarded, mut input: Input<'_>) {
    let words = guarded.words();
    let kind = input.byte();
    let len = (input.byte() << 8 | input.byte()) as usize % (4 * words.len() + 1);
    // At the end of what may be touched, or at its beginning.
    let first = if kind & 1 == 0 { (words.len() - len.div_ceil(4)) & !1 } else { 0 };
    let copy = (0..words.len() as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
    let mut memory = Memory { words, copy, first, len };
    memory.words.iter().zip(&memory.copy).for_each(|(word, value)| word.store(*value, Relaxed));
    if kind & 0x3e == 0x3e {
        let base = memory.words[first..].as_ptr().cast_mut().cast::<u8>();
        // SAFETY: nothing is read at such an address.
        let view = unsafe { RingView::new(base.wrapping_add(1 + kind as usize % 7), len) };
        return assert!(matches!(view, Err(Unusable::Address)));
    }
    for word in 0..8.min(len / 4) {
        memory.foreign_write(word, input.number());
    }
    // Seldom what came, else hardly anything would be a ring.
    if kind & 6 != 0 && len >= 32 {
        let header = 32 + if kind & 8 == 0 { 0 } else { 8 * (memory.get(HEADER_LENGTH) % 16) };
        let fit = (len as u32).saturating_sub(header) / 32;
        let nr = memory.get(NR) % (fit + 2);
        for (word, value) in [(MAGIC, 0xa10a_10a1), (INCOMPATIBLE, 0), (HEADER_LENGTH, header), (NR, nr)] {
            memory.foreign_write(word, value);
        }
    }
    // Several views of one ring are against the rules, as well as most of what is written.
    let mut views = Vec::from_iter(Viewed::new(&memory));
    while !input.0.is_empty() {
        let what = input.byte();
        if what.is_multiple_of(8) && views.len() < 3 {
            views.extend(Viewed::new(&memory));
            continue;
        }
        if what % 8 < 2 || views.is_empty() {
            memory.foreign_write_anywhere(&mut input);
            continue;
        }
        let which = what as usize / 8 % views.len();
        let viewed = &mut views[which];
        match what % 8 {
            2 | 3 => viewed.peek(&mut memory, &mut input),
            4 | 5 => viewed.commit(&mut memory, input.amount()),
            6 => viewed.pop_into(&mut memory, input.amount()),
            _ => viewed.pop(&mut memory),
        }
    }
    let unlike = memory.words.iter().zip(&memory.copy).position(|(word, value)| word.load(Relaxed) != *value);
    assert_eq!(unlike, None, "a word was written that nobody was to write; the ring is at {first}");
}
