//! Polls for I/O once more before a deadline counts as missed.

/// Lets the runtime poll for I/O once more before a deadline counts as missed.
///
/// When a stopped process resumes (`SIGSTOP`, a paused machine), `epoll_wait` returns without
/// events. Timers would then fire before a response that has arrived is noticed.
pub(super) async fn yield_to_reactor() {
    tokio::task::yield_now().await;
}
