//! The transition from the previous namespace version to a new version.

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

/// The key of the version history in the fleet.
const KEY: &str = "version";

/// The pause before reading the history again.
const RETRY: Duration = Duration::from_millis(50);

/// The longest grace period.
const MAX_GRACE: Duration = Duration::from_hours(24 * 365);

/// Makes the store read from the fleet's previous version until its grace period ends.
///
/// Waits for Redis as long as necessary.
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
    let history = pipeline.log().fleet_value(KEY).await?;
    let now = clock.now();
    let NamespaceHistory { to_record, previous } =
        NamespaceHistory::resolve(history.as_deref(), version, now, *grace);
    if let Some(record) = to_record {
        pipeline.log().set_fleet_value(KEY, &record.to_string()).await?;
    }
    if let Some((previous, until)) = previous {
        let left = until.saturating_since(now);
        tracing::info!(
            version,
            previous,
            ?left,
            "serving stale responses of the previous version until its grace period ends"
        );
        pipeline.store().set_previous_version(&previous, Instant::now() + left.min(MAX_GRACE));
    }
    Ok(())
}
