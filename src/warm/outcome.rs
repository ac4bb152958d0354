//! Outcomes of warm-up requests, and the summary for clients that wait for them.

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderValue};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, timeout_at},
};

use crate::field::hop::LARDER_WARM;

/// Maximum time that a response waits for its warm-up requests.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The outcome of a warm-up request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarmOutcome {
    /// The response was fetched and stored.
    Stored,
    /// A fresh response was already stored.
    Fresh,
    /// The response was not fetched or not stored, for this reason.
    Skipped(&'static str),
    /// There was no response or an error response, for this reason.
    Failed(&'static str),
}

impl WarmOutcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Fresh => "fresh",
            Self::Skipped(_) => "skipped",
            Self::Failed(_) => "failed",
        }
    }

    /// Returns the reason; empty if there is none.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Stored | Self::Fresh => "",
            Self::Skipped(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// Sends the outcome of a warm-up request to the client that waits for it.
#[derive(Clone)]
pub struct OutcomeSender(UnboundedSender<WarmOutcome>);

impl OutcomeSender {
    /// Reports an outcome. Has no effect if the receiver is gone.
    pub fn send(&self, outcome: WarmOutcome) {
        let _nobody_waits = self.0.send(outcome);
    }
}

impl fmt::Debug for OutcomeSender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Report")
    }
}

/// The warm-up requests of one response, for a client that waits for them.
pub(crate) struct Batch {
    report: OutcomeSender,
    outcomes: UnboundedReceiver<WarmOutcome>,
    requests: usize,
}

impl Batch {
    /// Creates a batch if the request has `X-Larder-Warm: wait`, else returns `None`.
    pub(crate) fn of(request: &HeaderMap) -> Option<Self> {
        let value = request.get(LARDER_WARM)?;
        let (sender, outcomes) = unbounded_channel();
        let batch = Self { report: OutcomeSender(sender), outcomes, requests: 0 };
        value.as_bytes().eq_ignore_ascii_case(b"wait").then_some(batch)
    }

    /// Adds a request to the batch. Returns the sender for its outcome.
    pub(crate) fn add(&mut self) -> OutcomeSender {
        self.requests += 1;
        self.report.clone()
    }

    /// Waits up to two seconds for all outcomes, and returns the value of the `X-Larder-Warm`
    /// field.
    pub(crate) async fn summary(self) -> HeaderValue {
        let Self { report, mut outcomes, requests } = self;
        drop(report);
        let end = Instant::now() + MAX_WAIT;
        let mut known = Vec::with_capacity(requests);
        while let Ok(Some(outcome)) = timeout_at(end, outcomes.recv()).await {
            known.push(outcome);
        }
        HeaderValue::from_str(&text(&known, requests)).unwrap_or(HeaderValue::from_static("?"))
    }
}

/// Formats the outcomes as a dictionary (RFC 9651 §3.2).
fn text(known: &[WarmOutcome], requests: usize) -> String {
    let count = |name| known.iter().filter(|outcome| outcome.as_str() == name).count();
    let [stored, fresh, skipped, failed] = ["stored", "fresh", "skipped", "failed"].map(count);
    let pending = requests.saturating_sub(known.len());
    let mut reasons: Vec<&str> =
        known.iter().map(|outcome| outcome.reason()).filter(|reason| !reason.is_empty()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let mut text = format!(
        "requests={requests}, stored={stored}, fresh={fresh}, skipped={skipped}, failed={failed}, pending={pending}"
    );
    if !reasons.is_empty() {
        text.push_str(", reasons=(");
        text.push_str(&reasons.join(" "));
        text.push(')');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(LARDER_WARM, HeaderValue::from_static(value))])
    }

    #[test]
    fn only_those_who_ask_wait() {
        assert!(Batch::of(&HeaderMap::new()).is_none());
        assert!(Batch::of(&asking("no")).is_none());
        assert!(Batch::of(&asking("Wait")).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_says_what_became_of_each_request() {
        let mut batch = Batch::of(&asking("wait")).unwrap();
        let outcomes = [
            WarmOutcome::Stored,
            WarmOutcome::Skipped("no-identity"),
            WarmOutcome::Fresh,
            WarmOutcome::Skipped("no-store"),
        ];
        for outcome in outcomes {
            batch.add().send(outcome);
        }
        let expected = "requests=4, stored=1, fresh=1, skipped=2, failed=0, pending=0, reasons=(no-identity no-store)";
        assert_eq!(batch.summary().await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn what_takes_too_long_is_not_waited_for() {
        let mut batch = Batch::of(&asking("wait")).unwrap();
        batch.add().send(WarmOutcome::Failed("origin"));
        let held = batch.add();
        let begun = Instant::now();
        let expected =
            "requests=2, stored=0, fresh=0, skipped=0, failed=1, pending=1, reasons=(origin)";
        assert_eq!(batch.summary().await, expected);
        assert_eq!(begun.elapsed(), MAX_WAIT);
        held.send(WarmOutcome::Stored);
    }
}
