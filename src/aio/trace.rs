//! What a context says of itself with the feature `tracing`.

/// An event of this crate, at the level `debug` or `trace`. Without the feature nothing, and nothing is evaluated.
#[cfg(feature = "tracing")]
macro_rules! report {
    ($level:ident, $($said:tt)+) => {
        tracing::$level!(target: "ioctx", $($said)+)
    };
}
#[cfg(not(feature = "tracing"))]
macro_rules! report {
    ($level:ident, $($said:tt)+) => {};
}
pub(super) use report;
