//! [`Nonblocking`]: pipes and sockets by those who are at it anyway.

#[cfg(not(ioctx_linux))]
mod elsewhere;
#[cfg(ioctx_linux)]
mod handover;
#[cfg(ioctx_linux)]
mod hub;
#[cfg(ioctx_linux)]
mod known;
#[cfg(ioctx_linux)]
mod left;
#[cfg(ioctx_linux)]
mod line;
#[cfg(ioctx_linux)]
mod linux;
#[cfg(ioctx_linux)]
mod place;
#[cfg(ioctx_linux)]
mod retry;
#[cfg(ioctx_linux)]
mod table;

#[cfg(not(ioctx_linux))]
pub use elsewhere::Nonblocking;
#[cfg(ioctx_linux)]
pub use linux::Nonblocking;
