//! How the sending of a client's body fares, for those who wait for the response.

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

/// Whether a client's body is sent at once.
#[derive(Clone, Copy)]
pub(in crate::origin) enum BodyStart {
    Immediate,
    /// Not before the origin says 100, or for this long (RFC 9110 §10.1.1).
    AfterContinue(Duration),
}

const OPEN: u8 = 0;
const HELD: u8 = 1;
const UNWANTED: u8 = 2;

/// The origin's response is over before it asked for the body.
pub(super) struct Unwanted;

/// How the sending of a client's body fares.
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
    /// Whether all of the body has come from the client.
    pub fn is_received(&self) -> bool {
        self.state.load(Relaxed) == FINISHED
    }

    /// Whether an origin may have some of the request.
    pub fn delivery(&self) -> RequestDelivery {
        if self.is_sent.load(Relaxed) { RequestDelivery::Possible } else { RequestDelivery::Unsent }
    }

    pub(in crate::origin) fn note_sent(&self) {
        self.is_sent.store(true, Relaxed);
    }

    /// The origin has done nothing with what it was sent.
    pub(in crate::origin) fn note_unprocessed(&self) {
        self.is_sent.store(false, Relaxed);
    }

    /// Holds the body back until [`UploadProgress::open`].
    pub(super) fn hold(&self) {
        self.gate.store(HELD, Relaxed);
    }

    /// Whether the body may be sent: an error if it is not wanted, pending while it is held back.
    pub(super) fn poll_gate(&self, cx: &mut Context<'_>) -> Poll<Result<(), Unwanted>> {
        if self.gate.load(Relaxed) == HELD {
            self.waker.register(cx.waker());
        }
        match self.gate.load(Relaxed) {
            UNWANTED => Poll::Ready(Err(Unwanted)),
            HELD => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Notes what was read of the client's body.
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

    /// The origin wants the body.
    pub(in crate::origin) fn open(&self) {
        if self.gate.compare_exchange(HELD, OPEN, Relaxed, Relaxed).is_ok() {
            self.waker.wake();
        }
    }

    /// The origin's response is over: what is still held back is not wanted any more.
    pub(in crate::origin) fn cancel(&self) {
        if self.gate.compare_exchange(HELD, UNWANTED, Relaxed, Relaxed).is_ok() {
            self.waker.wake();
        }
    }

    /// A number that changes whenever something has been sent.
    pub(in crate::origin) fn progress(&self) -> u32 {
        self.progress.load(Relaxed)
    }

    /// Whether the client is what keeps the request from being complete.
    pub(in crate::origin) fn waits_for_client(&self) -> bool {
        self.state.load(Relaxed) == WAITING_FOR_CLIENT
    }

    /// How it failed, if it was the client's side that failed.
    pub(in crate::origin) fn failure(&self) -> Option<UploadFailure> {
        self.failure.get().copied()
    }
}
