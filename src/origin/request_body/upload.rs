//! The progress of a client's upload, shared with the task that waits for the response.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;

use crate::{
    origin::error::{RequestDelivery, UploadFailure},
    server::ClientBodyError,
};

/// The time at which the upload of a client's body starts.
#[derive(Clone, Copy)]
pub(in crate::origin) enum BodyStart {
    Immediate,
    /// The upload starts on the origin's 100, at the latest after this time (RFC 9110 §10.1.1).
    AfterContinue(Duration),
}

/// How long the upload may continue after the end of the response.
pub(in crate::origin) const UPLOAD_GRACE: Duration = Duration::from_secs(5);

const OPEN: u8 = 0;
const HELD: u8 = 1;
const UNWANTED: u8 = 2;

/// The error if the origin's response ended before the origin asked Larder for the request body.
pub(super) struct BodyNotRequested;

#[derive(Default)]
pub struct UploadProgress {
    gate: AtomicU8,
    is_sent: AtomicBool,
    waker: AtomicWaker,
    progress: AtomicU32,
    state: AtomicU8,
    failure: OnceLock<UploadFailure>,
}

const SENDING: u8 = 0;
const WAITING_FOR_CLIENT: u8 = 1;
const FINISHED: u8 = 2;

impl UploadProgress {
    /// Returns whether the whole body has been received from the client.
    pub fn is_received(&self) -> bool {
        self.state.load(Relaxed) == FINISHED
    }

    /// Returns whether an origin may have received part of the request.
    pub fn delivery(&self) -> RequestDelivery {
        if self.is_sent.load(Relaxed) { RequestDelivery::Possible } else { RequestDelivery::Unsent }
    }

    pub(in crate::origin) fn note_sent(&self) {
        self.is_sent.store(true, Relaxed);
    }

    /// Records that the origin has not processed the request.
    pub(in crate::origin) fn note_unprocessed(&self) {
        self.is_sent.store(false, Relaxed);
    }

    /// Holds the body back until [`UploadProgress::open`].
    pub(super) fn hold(&self) {
        self.gate.store(HELD, Relaxed);
    }

    /// Completes when the body may be sent. Fails if the origin does not want the body; pending
    /// while the body is held back.
    pub(super) fn poll_gate(&self, cx: &mut Context<'_>) -> Poll<Result<(), BodyNotRequested>> {
        if self.gate.load(Relaxed) == HELD {
            self.waker.register(cx.waker());
        }
        match self.gate.load(Relaxed) {
            UNWANTED => Poll::Ready(Err(BodyNotRequested)),
            HELD => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Records the result of a read from the client's body.
    pub(super) fn record_read<T>(
        &self,
        read: &Poll<Option<Result<T, ClientBodyError>>>,
        is_over: bool,
    ) {
        let state = match read {
            Poll::Pending => WAITING_FOR_CLIENT,
            Poll::Ready(None) => FINISHED,
            Poll::Ready(Some(Ok(_))) if is_over => FINISHED,
            Poll::Ready(Some(Ok(_))) => SENDING,
            Poll::Ready(Some(Err(error))) => {
                let _ = self.failure.set(UploadFailure::from(error));
                SENDING
            }
        };
        self.state.store(state, Relaxed);
        if read.is_ready() {
            self.note_progress();
        }
    }

    pub(super) fn note_progress(&self) {
        self.progress.fetch_add(1, Relaxed);
    }

    /// Releases a held body, because the origin wants it.
    pub(in crate::origin) fn open(&self) {
        if self.gate.compare_exchange(HELD, OPEN, Relaxed, Relaxed).is_ok() {
            self.waker.wake();
        }
    }

    /// Cancels a held body, because the origin's response has ended.
    pub(in crate::origin) fn cancel(&self) {
        if self.gate.compare_exchange(HELD, UNWANTED, Relaxed, Relaxed).is_ok() {
            self.waker.wake();
        }
    }

    /// Returns a number that changes with each frame that is read or sent.
    pub(in crate::origin) fn progress(&self) -> u32 {
        self.progress.load(Relaxed)
    }

    /// Returns whether the upload is waiting for the client.
    pub(in crate::origin) fn waits_for_client(&self) -> bool {
        self.state.load(Relaxed) == WAITING_FOR_CLIENT
    }

    /// Returns the reason why reading from the client failed; `None` if it has not failed.
    pub(in crate::origin) fn failure(&self) -> Option<UploadFailure> {
        self.failure.get().copied()
    }
}
