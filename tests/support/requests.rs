//! Requests, one at a time.

use ioctx::aio::{Backend, Event, Request};
use ioctx::{Context, backend::Threads};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

/// 4096 bytes of 5.
pub fn file() -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[5; 4096]).unwrap();
    Arc::new(file)
}

/// One request, from submitting to its event.
pub fn run<B: Backend>(context: &Context<B>, request: Request) -> Event {
    context.submit(request).unwrap();
    let mut events = Vec::new();
    assert_eq!(context.get_events(1, 1, None, &mut events), Ok(1));
    events.pop().unwrap()
}

/// A pool that does everything in its threads, and one that does what is cached in the submitter.
pub fn pools() -> impl Iterator<Item = Context<Threads>> {
    [false, true].into_iter().map(|inline| {
        let threads = Threads::new(1).unwrap().inline_cached(inline);
        Context::new(8, threads).unwrap()
    })
}

/// Whether pages of the file wait to be written to its device; `None` where the system does not tell (before Linux
/// 6.5).
#[cfg(target_os = "linux")]
pub fn is_dirty(file: &File) -> Option<bool> {
    use std::os::fd::AsRawFd;
    const CACHESTAT: libc::c_long = 451;
    let all = [0_u64; 2];
    // Pages cached, dirty, being written, evicted, evicted lately.
    let mut found = [0_u64; 5];
    // SAFETY: a `cachestat_range` and a `cachestat`, which are as large.
    let done = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), all.as_ptr(), found.as_mut_ptr(), 0) };
    (done == 0).then(|| found[1] + found[2] > 0)
}

/// A plain write leaves its page to be written some time, and a synchronous one does not.
#[cfg(target_os = "linux")]
pub fn writes_are_on_the_device_when_they_should_be<B: Backend>(context: &Context<B>) {
    let file = Arc::new(tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let mut plain = false;
    for _ in 0..10 {
        let event = run(context, Request::write(file.clone(), vec![1; 4096], 0));
        assert_eq!(event.result.unwrap(), 4096);
        plain |= is_dirty(&file).is_none_or(|dirty| dirty);
        let event = run(context, Request::write_dsync(file.clone(), vec![2; 4096], 0));
        assert_eq!(event.result.unwrap(), 4096);
        assert_ne!(is_dirty(&file), Some(true));
        assert_eq!(event.request.into_buffer::<Vec<u8>>().unwrap(), [2; 4096]);
    }
    // Or the file lies in memory.
    if !plain || is_dirty(&file).is_none() {
        super::skip("whether pages are dirty");
    }
    let mut bytes = [0; 4096];
    std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, 0).unwrap();
    assert_eq!(bytes, [2; 4096]);
}
