//! [`Readiness`].

use std::{fmt, ops};

/// What a file can be ready for, as bits: those of `poll(2)`.
///
/// # Examples
///
/// ```
/// use ioctx::aio::Readiness;
/// let both = Readiness::READABLE | Readiness::WRITABLE;
/// assert!(both.contains(Readiness::WRITABLE) && !Readiness::READABLE.contains(both));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Readiness(u16);

impl Readiness {
    /// A read does not wait: there is data, or the end.
    pub const READABLE: Self = Self(0x1);
    /// There is something exceptional, like urgent data of a socket.
    pub const PRIORITY: Self = Self(0x2);
    /// A write of something does not wait.
    pub const WRITABLE: Self = Self(0x4);
    /// There is an error, or nobody reads the other end. Reported without being asked for.
    pub const ERROR: Self = Self(0x8);
    /// The other end is closed; what it wrote can still be read. Reported without being asked for.
    pub const HANG_UP: Self = Self(0x10);

    /// These bits, known here or not.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The bits.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// What the result of an [`Op::Poll`](super::Op::Poll) says.
    pub const fn from_result(result: usize) -> Self {
        Self(result as u16)
    }

    /// Whether it has all bits of `other`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl ops::BitOr for Readiness {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl ops::BitAnd for Readiness {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Readiness({:#x})", self.0)
    }
}
