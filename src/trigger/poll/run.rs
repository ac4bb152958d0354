//! The rounds of one poll: hold the role, look, purge, remember, wait.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;

use super::{
    Poll,
    ask::{Answer, Ask, AskError, Asker},
    state::{Known, Slot},
};
use crate::{
    fence::{Mode, Purge, Selector, Source},
    origin::SetupError,
    purge::Unavailable,
    trigger::{Fleet, Lease, Surroundings},
};

/// How many times `every` may pass between two looks where they fail.
const MOST: u32 = 10;

/// The longest wait there is.
const LONGEST: Duration = Duration::from_hours(24 * 10);

/// The longest wait where another node asks, and might be gone; and where the version has changed and the log
/// cannot be reached.
const SOON: Duration = Duration::from_secs(5);

/// One poll at work.
struct Poller<F: Fleet, A> {
    poll: Poll,
    asker: A,
    slot: Arc<Slot>,
    surroundings: Surroundings<F>,
    lease: Option<F::Lease>,
    /// The tag of the answer that told the version that is known.
    tag: Option<HeaderValue>,
    failures: u32,
}

/// How a round ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Another node asks.
    Follows,
    /// The version is what it was.
    Same,
    /// The version is new.
    Changed,
    /// The answer has no version.
    Missing,
    /// There was no answer that can be used.
    Failed,
    /// The version is new, and the log cannot be reached.
    Unavailable,
}

impl Round {
    /// The result as metrics spell it; following is none.
    const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Follows => None,
            Self::Same => Some("same"),
            Self::Changed => Some("changed"),
            Self::Missing => Some("missing"),
            Self::Failed => Some("failed"),
            Self::Unavailable => Some("unavailable"),
        }
    }
}

/// A poll that tells in `slot` what it finds, until dropped. To be called on the runtime that it is to run
/// on; fails where the server cannot be asked at all.
pub(in crate::trigger) fn run<F: Fleet>(
    poll: &Poll,
    slot: Arc<Slot>,
    surroundings: &Surroundings<F>,
) -> Result<impl Future<Output = ()> + Send + use<F>, SetupError> {
    let asker = Asker::new(poll)?;
    Ok(Poller::new(poll.clone(), asker, slot, surroundings.clone()).run())
}

impl<F: Fleet, A: Ask> Poller<F, A> {
    fn new(poll: Poll, asker: A, slot: Arc<Slot>, surroundings: Surroundings<F>) -> Self {
        Self { poll, asker, slot, surroundings, lease: None, tag: None, failures: 0 }
    }

    async fn run(mut self) {
        loop {
            let round = self.round().await;
            if let Some(result) = round.as_str() {
                let metrics = &self.surroundings.metrics.triggers;
                metrics.polls.with_label_values(&[&*self.poll.name, result]).inc();
            }
            self.slot.observe((self.surroundings.now)(), &self.surroundings.metrics);
            self.failures = if round == Round::Failed { self.failures + 1 } else { 0 };
            tokio::time::sleep(pause(self.poll.every, round, self.failures, drawn())).await;
        }
    }

    async fn round(&mut self) -> Round {
        if !self.holds().await {
            return Round::Follows;
        }
        match self.asker.ask(self.tag.as_ref()).await {
            Ok(Answer::Same) => Round::Same,
            Ok(Answer::Nothing) => Round::Missing,
            Ok(Answer::Version(version, tag)) => {
                let found = self.find(version).await;
                // Kept only once all that the answer tells is done.
                if found != Round::Unavailable {
                    self.tag = tag;
                }
                found
            }
            Err(error) => {
                self.note(&error);
                Round::Failed
            }
        }
    }

    /// Whether this node is the one that asks; if not, it learns what the other has found.
    async fn holds(&mut self) -> bool {
        if self.lease.as_ref().is_some_and(Lease::is_held) {
            return true;
        }
        self.lease = self.surroundings.fleet.hold(&self.key()).await;
        self.tag = None;
        match self.surroundings.fleet.recall(&self.key()).await {
            Ok(Some(text)) => {
                if let Ok(known) = serde_json::from_str(&text) {
                    self.slot.learn(known);
                }
            }
            Ok(None) => {}
            // Without knowing what was purged last, nobody can say what to purge.
            Err(Unavailable) => self.lease = None,
        }
        self.lease.is_some()
    }

    /// A first failure is news, the ones after it are not.
    fn note(&self, error: &AskError) {
        let poll = &*self.poll.name;
        if self.failures == 0 {
            tracing::warn!(poll, %error, "a poll failed");
        } else {
            tracing::debug!(poll, %error, "a poll failed again");
        }
    }

    async fn find(&self, version: Box<str>) -> Round {
        let before = self.slot.known();
        let is_same = before.as_ref().is_some_and(|before| before.version == version);
        if is_same {
            return Round::Same;
        }
        if before.is_some() && self.surroundings.fleet.purge(self.purge(&version)).await.is_err() {
            return Round::Unavailable;
        }
        let changed_at = (self.surroundings.now)().millis();
        tracing::info!(poll = &*self.poll.name, version = &*version, "a data version is new");
        let known = Known { version, changed_at };
        if let Ok(text) = serde_json::to_string(&known) {
            let remembered = self.surroundings.fleet.remember(&self.key(), &text).await;
            if remembered.is_err() {
                return Round::Unavailable;
            }
        }
        self.slot.learn(known);
        Round::Changed
    }

    fn purge(&self, version: &str) -> Purge {
        Purge {
            mode: Mode::Hard,
            selectors: self.poll.purge.iter().cloned().map(Selector::Tag).collect(),
            source: Source::Poll(self.poll.name.clone()),
            reason: Some(format!("version {version}")),
            warm: false,
        }
    }

    fn key(&self) -> String {
        format!("poll:{}", self.poll.name)
    }
}

/// How long to wait after a round: `every`, longer after failures, and never in step with other nodes
/// or polls. `drawn` decides between 10 % less and 10 % more.
fn pause(every: Duration, round: Round, failures: u32, drawn: u8) -> Duration {
    let pause = match round {
        Round::Failed => every.saturating_mul(2_u32.saturating_pow(failures).min(MOST)),
        Round::Follows | Round::Unavailable => every.min(SOON),
        Round::Same | Round::Changed | Round::Missing => every,
    };
    pause.min(LONGEST).mul_f64(0.9 + 0.2 * f64::from(drawn) / f64::from(u8::MAX))
}

fn drawn() -> u8 {
    let mut drawn = [128];
    let _without_entropy = aws_lc_rs::rand::fill(&mut drawn);
    let [drawn] = drawn;
    drawn
}

#[cfg(test)]
mod tests;
