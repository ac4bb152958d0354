//! A new version of the namespace takes over from the one before it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::StoreConfig,
    pipeline::{Clock, Pipeline},
    purge::LogUnavailable,
    store::{NamespaceHistory, TieredStore},
};

/// Under which name the fleet remembers its versions.
const KEY: &str = "version";

/// How long to wait before asking again what the fleet remembers.
const RETRY: Duration = Duration::from_millis(50);

/// No grace is longer.
const MAX_GRACE: Duration = Duration::from_hours(24 * 365);

/// Agrees with the fleet which version was before this node's, and has the store look into it until grace
/// is over. Waits for Redis for as long as it takes.
pub(super) async fn adopt_previous_version(
    pipeline: Arc<Pipeline<TieredStore>>,
    settings: StoreConfig,
    clock: Clock,
) {
    if settings.redis.is_none() {
        return;
    }
    while let Err(LogUnavailable) = try_adopt(&pipeline, &settings, &clock).await {
        tokio::time::sleep(RETRY).await;
    }
}

async fn try_adopt(
    pipeline: &Pipeline<TieredStore>,
    StoreConfig { version, grace, .. }: &StoreConfig,
    clock: &Clock,
) -> Result<(), LogUnavailable> {
    let known = pipeline.log().fleet_value(KEY).await?;
    let now = clock.now();
    let NamespaceHistory { to_record, previous } =
        NamespaceHistory::resolve(known.as_deref(), version, now, *grace);
    if let Some(record) = to_record {
        pipeline.log().set_fleet_value(KEY, &record.to_string()).await?;
    }
    if let Some((previous, until)) = previous {
        let left = until.saturating_since(now);
        tracing::info!(version, previous, ?left, "the version before may be served stale");
        pipeline.store().set_previous_version(&previous, Instant::now() + left.min(MAX_GRACE));
    }
    Ok(())
}
