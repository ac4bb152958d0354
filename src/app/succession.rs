//! A new version of the namespace takes over from the one before it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::Store,
    pipeline::{Clock, Pipeline},
    purge::Unavailable,
    store::{Succession, Tiered},
};

/// Under which name the fleet remembers its versions.
const NAME: &str = "version";

/// How long to wait before asking again what the fleet remembers.
const RETRY: Duration = Duration::from_millis(50);

/// No grace is longer.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// Agrees with the fleet which version was before this node's, and has the store look into it until grace
/// is over. Waits for Redis for as long as it takes.
pub async fn succeed(pipeline: Arc<Pipeline<Tiered>>, settings: Store, clock: Clock) {
    if settings.redis.is_none() {
        return;
    }
    while let Err(Unavailable) = try_to(&pipeline, &settings, &clock).await {
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_to(
    pipeline: &Pipeline<Tiered>,
    Store { version, grace, .. }: &Store,
    clock: &Clock,
) -> Result<(), Unavailable> {
    let known = pipeline.log().recall(NAME).await?;
    let now = clock.now();
    let Succession { remembered, previous } =
        Succession::of(known.as_deref(), version, now, *grace);
    if let Some(reign) = remembered {
        pipeline.log().remember(NAME, &reign.to_string()).await?;
    }
    if let Some((previous, until)) = previous {
        let left = until.saturating_since(now);
        tracing::info!(version, previous, ?left, "the version before may be served stale");
        pipeline.store().precede(&previous, Instant::now() + left.min(LONGEST));
    }
    Ok(())
}
