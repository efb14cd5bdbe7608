//! [`Nonblocking`]: pipes and sockets by those who are at it anyway.

#[cfg(not(ioctx_linux))]
mod elsewhere;
#[cfg(ioctx_linux)]
mod hub;
#[cfg(ioctx_linux)]
mod line;
#[cfg(ioctx_linux)]
mod linux;
#[cfg(ioctx_linux)]
mod place;

#[cfg(not(ioctx_linux))]
pub use elsewhere::Nonblocking;
#[cfg(ioctx_linux)]
pub use linux::Nonblocking;
