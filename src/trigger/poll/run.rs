//! The rounds of one poll: hold the role, look, purge, remember, wait.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use tokio::time::Instant;

use super::{
    Poll,
    ask::{Answer, Ask, AskError, Asker},
    state::{Known, Slot},
};
use crate::{
    fence::{Purge, Selector, Source},
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
    /// Whether a round ended without a known version: what was stored since may be older than the first one.
    has_missed: bool,
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
        Self {
            poll,
            asker,
            slot,
            surroundings,
            lease: None,
            tag: None,
            failures: 0,
            has_missed: false,
        }
    }

    async fn run(mut self) {
        loop {
            let round = self.round().await;
            if let Some(result) = round.as_str() {
                let metrics = &self.surroundings.metrics.triggers;
                metrics.polls.with_label_values(&[&*self.poll.name, result]).inc();
            }
            self.has_missed |= self.slot.known().is_none();
            self.slot.observe((self.surroundings.now)(), &self.surroundings.metrics);
            self.failures = if round == Round::Failed { self.failures + 1 } else { 0 };
            let pause = pause(self.poll.every, round, self.failures, drawn());
            self.wait(pause).await;
        }
    }

    async fn round(&mut self) -> Round {
        if !self.holds().await {
            return Round::Follows;
        }
        if self.purge_again().await.is_err() {
            return Round::Unavailable;
        }
        match self.asker.ask(self.tag.as_ref()).await {
            Ok(Answer::Same) => Round::Same,
            Ok(Answer::Nothing) => self.find_none().await,
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

    /// Waits for the next round, and purges what is due once more meanwhile.
    async fn wait(&mut self, pause: Duration) {
        let end = Instant::now() + pause;
        while let Some(due) = self.until_due().filter(|due| Instant::now() + *due < end) {
            tokio::time::sleep(due).await;
            if self.purge_again().await.is_err() {
                break;
            }
        }
        tokio::time::sleep_until(end).await;
    }

    /// The time until tags are purged once more, if this node is the one to do that.
    fn until_due(&self) -> Option<Duration> {
        self.lease.as_ref().filter(|lease| lease.is_held())?;
        self.slot.known()?.until_due((self.surroundings.now)())
    }

    /// Purges once more what is due. Forgotten only after the purge, so that another node does it if this one
    /// ends between the two.
    async fn purge_again(&self) -> Result<(), Unavailable> {
        let Some(known) = self.slot.known() else { return Ok(()) };
        let Some(rest) = known.without_due((self.surroundings.now)()) else { return Ok(()) };
        self.purge("once more, for data that loads late".to_owned()).await?;
        self.remember(rest).await
    }

    async fn find(&self, version: Box<str>) -> Round {
        let before = self.slot.known();
        if before.as_ref().is_some_and(|before| before.version.as_ref() == Some(&version)) {
            return Round::Same;
        }
        let is_change = before.is_some() || self.has_missed;
        if is_change && self.purge(format!("version {version}")).await.is_err() {
            return Round::Unavailable;
        }
        tracing::info!(poll = &*self.poll.name, version = &*version, "the data version changed");
        let delay = self.poll.delay.filter(|_| is_change);
        let again_at = before.map(|before| before.again_at).unwrap_or_default();
        let known = Known::changed(Some(version), (self.surroundings.now)(), (again_at, delay));
        match self.remember(known).await {
            Ok(()) => Round::Changed,
            Err(Unavailable) => Round::Unavailable,
        }
    }

    /// Remembers that there was no version, if none is known: then the first one is a change.
    async fn find_none(&self) -> Round {
        if self.slot.known().is_none() {
            let none = Known::changed(None, (self.surroundings.now)(), (Vec::new(), None));
            let _this_node_knows_anyway = self.remember(none).await;
        }
        Round::Missing
    }

    async fn remember(&self, known: Known) -> Result<(), Unavailable> {
        if let Ok(text) = serde_json::to_string(&known) {
            self.surroundings.fleet.remember(&self.key(), &text).await?;
        }
        self.slot.learn(known);
        Ok(())
    }

    /// Purges the tags, and has fetched what is to be fetched after that.
    async fn purge(&self, reason: String) -> Result<(), Unavailable> {
        let Poll { name, purge, mode, warm, .. } = &self.poll;
        let purge = Purge {
            mode: *mode,
            selectors: purge.iter().cloned().map(Selector::Tag).collect(),
            source: Source::Poll(name.clone()),
            reason: Some(reason),
            warm: warm.purged,
        };
        self.surroundings.fleet.purge(purge).await?;
        self.surroundings.warm.push_all(warm);
        Ok(())
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
