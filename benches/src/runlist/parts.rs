//! One request of [`PARTS`] parts, each of which is finished at once: what handing out and finishing costs.

use ioctx::credits::Credits;
use ioctx::fanin::FanIn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex};

/// How many parts a request has.
pub const PARTS: u32 = 64;
/// How long one is.
const LEN: usize = 4096;

/// Carries out `n` requests with [`FanIn`].
///
/// # Panics
///
/// If one did not complete.
pub fn fan_in(credits: &Arc<Credits>, n: u64) {
    let bytes = Arc::new(AtomicU64::new(0));
    for _ in 0..n {
        let told = Arc::clone(&bytes);
        let mut request =
            FanIn::<()>::new(credits, move |outcome| _ = told.fetch_add(outcome.bytes as u64, Relaxed));
        for _ in 0..PARTS {
            request.try_part(LEN, || ()).expect("there are credits enough").finish(Ok(LEN));
        }
        request.finish_submitting();
    }
    assert_eq!(bytes.load(Relaxed), n * u64::from(PARTS) * LEN as u64);
}

/// What one would write by hand: a reference-counted sum, the last owner of which completes. It bounds no parts, keeps
/// no memory for them, and does not know which of them failed first.
struct Sum {
    outcome: Mutex<(usize, Option<io::Error>)>,
    bytes: Arc<AtomicU64>,
}

impl Sum {
    fn finish(&self, result: io::Result<usize>) {
        let mut outcome = self.outcome.lock().expect("nobody panics while holding the mutex");
        match result {
            Ok(bytes) => outcome.0 += bytes,
            Err(error) => _ = outcome.1.get_or_insert(error),
        }
    }
}

impl Drop for Sum {
    fn drop(&mut self) {
        let outcome = self.outcome.get_mut().expect("nobody panics while holding the mutex");
        self.bytes.fetch_add(outcome.0 as u64, Relaxed);
    }
}

/// Carries out `n` requests with a sum behind a mutex, and `Arc`s.
///
/// # Panics
///
/// If one did not complete.
pub fn by_hand(n: u64) {
    let bytes = Arc::new(AtomicU64::new(0));
    for _ in 0..n {
        let sum = Arc::new(Sum { outcome: Mutex::new((0, None)), bytes: Arc::clone(&bytes) });
        for _ in 0..PARTS {
            let part = Arc::clone(&sum);
            part.finish(Ok(LEN));
        }
    }
    assert_eq!(bytes.load(Relaxed), n * u64::from(PARTS) * LEN as u64);
}
