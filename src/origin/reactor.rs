//! A last poll for I/O before a deadline counts as missed.

/// Lets the runtime poll for I/O once more before a deadline counts as missed.
///
/// If the process was stopped (`SIGSTOP`, a paused machine), `epoll_wait` returns without events
/// when it resumes. Timers then fire before the arrived response is noticed.
pub(super) async fn yield_to_reactor() {
    tokio::task::yield_now().await;
}
